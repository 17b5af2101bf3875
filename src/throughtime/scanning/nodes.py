"""The values of one step, as a graph: what a cell is lowered to, differentiated as, and compiled from.

A node is a row of `width` numbers for every sequence of the batch (or the same row for all, where it hangs on constants alone).
Nodes are made by a `Graph`, which makes each one once, so that equal values are the same node.

    leaf      (kind, index), offset   a piece of an input "x", a state "s", a constant "v", or an array of the program "a"
    number    value                   the same number everywhere
    slice     offset                  a piece of a product
    affine    weight indices          a product that needs no state, plus its last argument, a constant row
    product   weight indices          the pieces that are its arguments, side by side, times constant matrices [K, width]
    sum, max                          over the features of all pieces: width 1
    the rest                          numbers, one by one: arguments have the node's width, or 1

What an op means, each target says in a table of its own: `evaluate.TORCH` in PyTorch, `derivative.RULES` as a gradient,
`cpu.functions.VECTORS` as vector code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

CONSTANT, INPUT, STATE = 0, 1, 2  # what a node hangs on: flags

ARITHMETIC = {  # soon done again
    "add", "sub", "mul", "neg", "abs", "select", "minimum", "maximum", "sign", "detach", "expand", "largest",
}  # fmt: skip
COMPARISONS = {"lt", "le", "gt", "ge", "eq", "ne"}
LOGIC = {"and", "or", "not"}
FUNCTIONS = {
    "div", "exp", "log", "log1p", "expm1", "sqrt", "rsqrt", "inverse_root", "sin", "cos", "erf", "tanh", "sigmoid", "pow", "floor",
    "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh",
}  # fmt: skip
POINTWISE = ARITHMETIC | COMPARISONS | LOGIC | FUNCTIONS
REDUCTIONS = {"sum", "max"}


@dataclass(eq=False)
class Node:
    """One value; see the module."""

    op: str
    args: tuple[Node, ...]
    width: int
    attribute: Any = None
    flags: int = CONSTANT
    boolean: bool = False

    def __repr__(self) -> str:
        return f"<{self.op} {self.attribute} {self.width}>"


Row = tuple[Node, ...]  # pieces side by side


class Graph:
    """Makes nodes, each once, and simplifies as it does."""

    def __init__(self) -> None:
        self._made: dict[Any, Node] = {}
        self._uncut: set[int] = set()
        self._cut: dict[tuple[int, int, int], Node] = {}  # pieces of pointwise nodes, each taken once
        self.where: Callable[[], str] | None = None  # says, while a cell runs, which of its lines that is
        self.lines: dict[Node, str] = {}  # of what hangs on the state: the line of the cell that made it first

    def fork(self, uncut: Iterable[Node] = ()) -> Graph:
        """Another graph with all of these nodes; what is made in it is not in this one.

        uncut: nodes whose pieces stay pieces of the whole there, not new values made of pieces.
        """
        made = Graph()
        made._made, made._uncut = dict(self._made), set(map(id, uncut))
        return made

    def node(self, op: str, args: Sequence[Node], width: int, attribute: Any = None, flags: int = 0) -> Node:
        key = (op, tuple(map(id, args)), width, attribute)
        found = self._made.get(key)
        if found is None:
            for a in args:
                flags |= a.flags
            boolean = op in COMPARISONS or op in LOGIC or (op == "expand" and args[0].boolean)
            found = self._made[key] = Node(op, tuple(args), width, attribute, flags, boolean)
            if self.where is not None and flags & STATE:
                self.lines[found] = self.where()
        return found

    def number(self, value: float) -> Node:
        return self.node("number", (), 1, _exact(value))

    def leaf(self, kind: str, index: int, width: int, offset: int = 0, flags: int = CONSTANT) -> Node:
        return self.node("leaf", (), width, (kind, index, offset), flags)

    def apply(self, op: str, *args: Node) -> Node:
        """A pointwise op; widths are equal or 1."""
        width = max(a.width for a in args)
        args = tuple(a.args[0] if a.op == "expand" else a for a in args)
        if max(a.width for a in args) < width:  # all were one number a row: the result is
            return self.expand(self.apply(op, *args), width)
        simple = self._simplify(op, args)
        if simple is not None:
            return simple
        return self.node(op, args, width)

    def _simplify(self, op: str, args: tuple[Node, ...]) -> Node | None:
        values = [a.attribute[0] if a.op == "number" else None for a in args]
        if op in ("add", "sub") and values[1] == 0 and args[0].width >= args[1].width:
            return args[0]
        if op == "add" and values[0] == 0:
            return args[1]
        if op == "mul" and values[1] == 1:
            return args[0]
        if op == "mul" and values[0] == 1:
            return args[1]
        if op == "div" and values[1] == 1:
            return args[0]
        if all(v is not None for v in values) and op in _FOLD:
            try:
                return self.number(_FOLD[op](*values))
            except (OverflowError, ZeroDivisionError, ValueError):
                return None
        return None

    def number_of(self, node: Node) -> Node:
        """A truth value as 1 or 0; a number as it is."""
        return self.apply("select", node, self.number(1), self.number(0)) if node.boolean else node

    def like(self, node: Node, number: Node) -> Node:
        """What `number_of(node)` has become, as a truth value again where the node is one."""
        return self.apply("ne", number, self.number(0)) if node.boolean else number

    def expand(self, node: Node, width: int) -> Node:
        """One number a row, repeated."""
        return node if node.width == width else self.node("expand", (node,), width)

    def slice(self, node: Node, offset: int, width: int) -> Node:
        """A piece of a node, taken as near the leaves as it can be."""
        if (offset == 0 and width == node.width) or (node.width == 1 and node.op not in ("leaf", "product")):
            return node
        if node.op == "leaf":
            kind, index, start = node.attribute
            return self.leaf(kind, index, width, start + offset, node.flags)
        if node.op == "expand":
            return self.expand(node.args[0], width)
        if node.op == "slice":
            return self.slice(node.args[0], node.attribute + offset, width)
        if node.op in POINTWISE and id(node) not in self._uncut:
            key = (id(node), offset, width)
            if key not in self._cut:
                parts = [a if a.width == 1 else self.slice(a, offset, width) for a in node.args]
                made = self._cut[key] = self.apply(node.op, *parts)
                if node in self.lines:
                    self.lines[made] = self.lines[node]
            return self._cut[key]
        return self.node("slice", (node,), width, offset)

    def piece(self, row: Row, offset: int, width: int) -> Row:
        """A part of a row of pieces."""
        found, start = [], 0
        for node in row:
            low, high = max(offset, start), min(offset + width, start + node.width)
            if low < high:
                found.append(self.slice(node, low - start, high - low))
            start += node.width
        return tuple(found)

    def total(self, op: str, row: Row) -> Node:
        """The sum or the largest of a row."""
        if len(row) == 1 and row[0].width == 1:
            return row[0]
        if op == "max" and all(n.op == "expand" for n in row):
            row = tuple(n.args[0] for n in row)
        return self.node(op, row, 1)

    def product(self, row: Row, weights: tuple[int, ...], width: int) -> Node:
        return self.node("product", self.joined(row), width, weights)

    def joined(self, row: Row) -> Row:
        """Neighbouring pieces of one leaf as one piece."""
        out: list[Node] = []
        for node in row:
            last = out[-1] if out else None
            if last is not None and last.op == node.op == "leaf":
                kind, index, offset = last.attribute
                if node.attribute == (kind, index, offset + last.width):
                    out[-1] = self.leaf(kind, index, last.width + node.width, offset, last.flags)
                    continue
            if (
                last is not None
                and last.op == node.op == "slice"
                and last.args == node.args
                and node.attribute == last.attribute + last.width
            ):
                out[-1] = self.slice(last.args[0], last.attribute, last.width + node.width)
                continue
            out.append(node)
        return tuple(out)


def _exact(value: float) -> tuple[float, str]:
    """A number as a key that tells 0 from -0 and finds NaN equal to itself."""
    return (float(value), repr(float(value)))


_FOLD: dict[str, Callable[..., float]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "neg": lambda a: -a,
}


def regrouped(flat: Sequence[Node], like: Iterable[Row]) -> list[Row]:
    """Nodes as rows of as many pieces as those of `like`."""
    left = iter(flat)
    return [tuple(next(left) for _ in row) for row in like]


def width_of(row: Iterable[Node]) -> int:
    """How many numbers the nodes of a row hold together."""
    return sum(n.width for n in row)


def ordered(roots: Iterable[Node], stop: Callable[[Node], bool] = lambda node: False) -> list[Node]:
    """All nodes that the roots hang on, arguments first; nothing is looked for below a node where `stop` holds."""
    seen: set[int] = set()
    out: list[Node] = []
    stack = [(n, False) for n in reversed(list(roots))]
    while stack:
        node, done = stack.pop()
        if done:
            out.append(node)
            continue
        if id(node) in seen:
            continue
        seen.add(id(node))
        stack.append((node, True))
        if not stop(node):
            stack.extend((a, False) for a in reversed(node.args))
    return out


def substituted(graph: Graph, roots: Sequence[Node], replacements: dict[Node, Node]) -> list[Node]:
    """The roots with some nodes in the place of others."""
    new: dict[int, Node] = {id(k): v for k, v in replacements.items()}
    for node in ordered(roots, stop=lambda n: id(n) in new):
        if id(node) in new:
            continue
        args = tuple(new[id(a)] for a in node.args)
        if args == node.args and not (node.op == "slice" and node.args[0].op in POINTWISE):
            new[id(node)] = node
        elif node.op == "slice":
            new[id(node)] = graph.slice(args[0], node.attribute, node.width)
        elif node.op == "expand":
            new[id(node)] = graph.expand(args[0], node.width)
        elif node.op in POINTWISE:
            new[id(node)] = graph.apply(node.op, *args)
        else:
            new[id(node)] = graph.node(node.op, args, node.width, node.attribute)
    return [new[id(r)] for r in roots]
