"""The gradient of a step, as more nodes of the same graph.

Formulas are those of PyTorch's own backward, its choices at ties and borders included.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from throughtime.scanning.nodes import Graph, Node, Row, ordered, width_of

Pieces = list[tuple[int, Node]]  # (offset, gradient there)


class ProductGradient(NamedTuple):
    """A product's left operand, the gradient of what it gave, and its weights, whose gradient is the product of the two over
    all rows of all steps."""

    lhs: Row
    gradient: Row
    weights: tuple[int, ...]


class Gradients:
    """Gradients of what a step gives, with respect to its leaves.

    leaves: (kind, index) -> gradient as pieces. products: those of the step, the last first.
    """

    def __init__(self, graph: Graph, outputs: Iterable[tuple[Row, Row]]) -> None:
        self.graph, outputs = graph, list(outputs)
        self.leaves: dict[tuple[str, int], Pieces] = defaultdict(list)
        self.products: list[ProductGradient] = []
        self._sums: dict[int, Node] = {}
        self._pieces: dict[int, Pieces] = defaultdict(list)
        for row, gradient in outputs:
            start = 0
            for node in row:
                for piece in graph.piece(gradient, start, node.width):
                    if piece.width != node.width:
                        raise AssertionError("a gradient in other pieces than its output")
                    self._add(node, piece)
                start += node.width
        for node in reversed(ordered([n for row, _ in outputs for n in row])):
            self._visit(node)

    def row(self, kind: str, index: int, width: int) -> Row:
        """The gradient of a leaf, as one row."""
        return assemble(self.graph, self.leaves.get((kind, index), []), width)

    def _add(self, node: Node, gradient: Node) -> None:
        if node.boolean or node.op == "number":
            return
        graph = self.graph
        if gradient.width > node.width:
            gradient = graph.total("sum", (gradient,))
        elif gradient.width < node.width:
            gradient = graph.expand(gradient, node.width)
        known = self._sums.get(id(node))
        self._sums[id(node)] = gradient if known is None else graph.apply("add", known, gradient)

    def _visit(self, node: Node) -> None:
        assert node.op != "affine", "an affine is hoisted before the derivative is taken"
        g = self._sums.get(id(node))
        if node.op == "product":
            self._visit_product(node, self._pieces.pop(id(node), []) + ([] if g is None else [(0, g)]))
        elif g is None:
            return
        elif node.op == "slice":
            self._pieces[id(node.args[0])].append((node.attribute, g))
        elif node.op == "leaf":
            kind, index, offset = node.attribute
            self.leaves[kind, index].append((offset, g))
        elif node.op in RULES:
            for arg, gradient in zip(node.args, RULES[node.op](self.graph, g, node, *node.args), strict=True):
                if gradient is not None:
                    self._add(arg, gradient)

    def _visit_product(self, node: Node, pieces: Pieces) -> None:
        if not pieces:
            return
        gradient = assemble(self.graph, pieces, node.width)
        self.products.append(ProductGradient(node.args, gradient, node.attribute))
        back = self.graph.product(gradient, tuple(-1 - w for w in node.attribute), width_of(node.args))
        start = 0
        for arg in node.args:
            self._add(arg, self.graph.slice(back, start, arg.width))
            start += arg.width


def assemble(graph: Graph, pieces: Pieces, width: int) -> Row:
    """Pieces at their offsets as one row: overlapping ones added, zeros where there is none."""
    cuts = sorted({0, width, *(o for o, _ in pieces), *(o + n.width for o, n in pieces)})
    row = []
    for low, high in itertools.pairwise(cuts):
        total = None
        for offset, node in pieces:
            if offset <= low and high <= offset + node.width:
                part = graph.slice(node, low - offset, high - low)
                total = part if total is None else graph.apply("add", total, part)
        row.append(graph.expand(graph.number(0.0), high - low) if total is None else total)
    return tuple(row)


_Rule = Callable[..., tuple[Node | None, ...]]


def _mul(graph: Graph, *factors: Node) -> Node:
    total = factors[0]
    for f in factors[1:]:
        total = graph.apply("mul", total, f)
    return total


def _pow(G: Graph, g: Node, y: Node, a: Node, b: Node) -> tuple[Node | None, ...]:
    zero = G.number(0)
    lower = G.apply("pow", a, G.apply("sub", b, G.number(1)))
    first = G.apply("select", G.apply("eq", b, zero), zero, _mul(G, g, _mul(G, b, lower)))
    if b.op == "number":
        return first, None
    at_zero = G.apply("and", G.apply("eq", a, zero), G.apply("ge", b, zero))
    safe = G.apply("select", at_zero, G.number(1), a)
    return first, G.apply("select", at_zero, zero, _mul(G, g, _mul(G, y, G.apply("log", safe))))


def _extremum(before: str) -> _Rule:
    def extremum_(G: Graph, g: Node, y: Node, a: Node, b: Node) -> tuple[Node | None, ...]:
        zero, half = G.number(0), G.apply("mul", g, G.number(0.5))
        tie = G.apply("select", G.apply("eq", a, b), half, g)
        after = {"lt": "gt", "gt": "lt"}[before]
        return (
            G.apply("select", G.apply(before, a, b), zero, tie),
            G.apply("select", G.apply(after, a, b), zero, tie),
        )

    return extremum_


def _max(G: Graph, g: Node, y: Node, *args: Node) -> tuple[Node | None, ...]:
    ones = [G.number_of(G.apply("eq", a, y)) for a in args]
    share = G.apply("div", g, G.total("sum", tuple(ones)))
    return tuple(_mul(G, one, share) for one in ones)


def _largest(G: Graph, g: Node, y: Node, *args: Node) -> tuple[Node | None, ...]:
    ones = [G.number_of(G.apply("eq", a, y)) for a in args]
    count = ones[0]
    for one in ones[1:]:
        count = G.apply("add", count, one)
    share = G.apply("div", g, count)
    return tuple(_mul(G, one, share) for one in ones)


def _over_root(square: float, one: float, sign: float = 1) -> _Rule:
    """sign g / √(square a² + one)."""

    def over_root(G: Graph, g: Node, y: Node, a: Node) -> tuple[Node | None, ...]:
        under = G.apply("add", _mul(G, G.number(square), _mul(G, a, a)), G.number(one))
        return (_mul(G, _mul(G, G.number(sign), g), G.apply("rsqrt", under)),)

    return over_root


RULES: dict[str, _Rule] = {  # of the ops that have a gradient
    "sum": lambda G, g, y, *args: (g,) * len(args),
    "max": _max,
    "largest": _largest,
    "expand": lambda G, g, y, a: (g,),
    "add": lambda G, g, y, a, b: (g, g),
    "sub": lambda G, g, y, a, b: (g, G.apply("neg", g)),
    "mul": lambda G, g, y, a, b: (_mul(G, g, b), _mul(G, g, a)),
    "div": lambda G, g, y, a, b: (G.apply("div", g, b), G.apply("neg", _mul(G, g, G.apply("div", y, b)))),
    "neg": lambda G, g, y, a: (G.apply("neg", g),),
    "abs": lambda G, g, y, a: (_mul(G, g, G.apply("sign", a)),),
    "select": lambda G, g, y, p, a, b: (
        None,
        G.apply("select", p, g, G.number(0)),
        G.apply("select", p, G.number(0), g),
    ),
    "minimum": _extremum("gt"),
    "maximum": _extremum("lt"),
    "exp": lambda G, g, y, a: (_mul(G, g, y),),
    "expm1": lambda G, g, y, a: (_mul(G, g, G.apply("add", y, G.number(1))),),
    "log": lambda G, g, y, a: (G.apply("div", g, a),),
    "log1p": lambda G, g, y, a: (G.apply("div", g, G.apply("add", a, G.number(1))),),
    "sqrt": lambda G, g, y, a: (G.apply("div", g, G.apply("mul", y, G.number(2))),),
    "rsqrt": lambda G, g, y, a: (_mul(G, _mul(G, G.number(-0.5), g), _mul(G, y, _mul(G, y, y))),),
    "inverse_root": lambda G, g, y, a: (_mul(G, g, _mul(G, G.number(-0.5), G.apply("pow", a, G.number(-1.5)))),),
    "sin": lambda G, g, y, a: (_mul(G, g, G.apply("cos", a)),),
    "cos": lambda G, g, y, a: (G.apply("neg", _mul(G, g, G.apply("sin", a))),),
    "tan": lambda G, g, y, a: (_mul(G, g, G.apply("add", _mul(G, y, y), G.number(1))),),
    "asin": _over_root(-1, 1),
    "acos": _over_root(-1, 1, sign=-1),
    "atan": lambda G, g, y, a: (G.apply("div", g, G.apply("add", _mul(G, a, a), G.number(1))),),
    "sinh": lambda G, g, y, a: (_mul(G, g, G.apply("cosh", a)),),
    "cosh": lambda G, g, y, a: (_mul(G, g, G.apply("sinh", a)),),
    "asinh": _over_root(1, 1),
    "acosh": _over_root(1, -1),
    "atanh": lambda G, g, y, a: (G.apply("div", g, G.apply("sub", G.number(1), _mul(G, a, a))),),
    "erf": lambda G, g, y, a: (
        _mul(G, _mul(G, G.number(2 / math.sqrt(math.pi)), G.apply("exp", G.apply("neg", _mul(G, a, a)))), g),
    ),
    "tanh": lambda G, g, y, a: (_mul(G, g, G.apply("sub", G.number(1), _mul(G, y, y))),),
    "sigmoid": lambda G, g, y, a: (_mul(G, g, _mul(G, G.apply("sub", G.number(1), y), y)),),
    "pow": _pow,
}
