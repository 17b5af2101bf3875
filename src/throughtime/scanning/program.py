"""A captured step, divided: what needs no state leaves the loop, what the state does not need leaves it too, and what is
left has a derivative.

Leaves of the loop, by kind:

    a  an array made before the loop, [T, B, n]     v  a constant row [n]             s  the state before the step
    u  a product of such an array, made for a stretch of time just before the loop runs through it
    i  the initial state, r  whether to put it back (with resets)
    n  the state after the step   k  a value kept by the forward loop    g  the gradient of an output    c  that of the
    state, carried

The last row of kinds is what only the backward loop reads.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from throughtime.scanning.capture import Captured
from throughtime.scanning.derivative import Gradients
from throughtime.scanning.nodes import (
    ARITHMETIC,
    COMPARISONS,
    INPUT,
    LOGIC,
    STATE,
    Graph,
    Node,
    Row,
    ordered,
    substituted,
    width_of,
)

_CHEAP = ARITHMETIC | COMPARISONS | LOGIC | {"div"}
_QUICK = {"tanh", "sigmoid", "exp", "sqrt", "rsqrt"}  # done again sooner than fetched from memory


@dataclass(eq=False)
class Product:
    """One product of a loop: a row times constant matrices, side by side; a negative number -1-w is matrix w transposed."""

    node: Node
    row: Row
    weights: tuple[int, ...]
    width: int


@dataclass(frozen=True)
class Hoisted:
    """A product that leaves the loop: array `a` number `array` times matrices, plus a constant row; leaf `u`."""

    array: int
    weights: tuple[int, ...]
    bias: int | None
    width: int


@dataclass(eq=False)
class Loop:
    """One loop over time: rows of nodes to work out and where they go, by (kind, index)."""

    targets: list[tuple[tuple[str, int], Row]]
    products: list[Product] = field(default_factory=list)

    def find_products(self, graph: Graph) -> None:
        nodes = ordered([n for _, row in self.targets for n in row])
        self.products = [Product(n, n.args, n.attribute, n.width) for n in nodes if n.op == "product"]


@dataclass(eq=False)
class Backward:
    """The backward loop and what it needs of the forward one.

    kept: nodes of the forward loop to keep, as leaves `k`. lefts: for each product, what stands on its left: ("s", k) a
    whole state,
    ("a", i) a whole array, ("k", j) kept. The arrays it writes: "A", "U", "V", "I" for the gradients of those leaves,
    "d" for those of products. shared: an array that equals another one, which is written instead.
    """

    loop: Loop
    kept: list[Node]
    kept_rows: list[Row]
    lefts: list[tuple[str, int]]
    weights: list[tuple[int, ...]]
    shared: dict[tuple[str, int], tuple[str, int]]
    widths: dict[tuple[str, int], int]


class Program:
    """One step of a cell, ready to be compiled.

    Args: captured; resets: whether the initial state may be put back before a step; hoist: whether what needs no state leaves the
        loop; without, for steps that come one at a time, the loop does everything.
    """

    def __init__(self, captured: Captured, resets: bool, hoist: bool = True) -> None:
        self.captured, self.graph, self.resets, self.hoist = captured, captured.graph, resets, hoist
        graph = self.graph
        self.state_widths = [width_of(row) for row in captured.state]
        rows = [*captured.state, *captured.outputs]
        nodes = [n for row in rows for n in row]
        flat = self._joined_products(self._restored(nodes) if resets else nodes)
        states, outputs = self._regroup(flat, captured.state), []
        rest = flat[sum(map(len, captured.state)) :]
        for row in captured.outputs:
            outputs.append(tuple(rest[: len(row)]))
            rest = rest[len(row) :]

        # what the new state hangs on stays; of the rest, what no product of its own stands before is done on the way
        needed = set(map(id, ordered([n for row in states for n in row])))
        late: set[int] = set()
        for node in ordered([n for row in outputs for n in row]):
            if id(node) in needed or not node.flags & STATE:
                continue
            if hoist and (node.op == "product" or any(id(a) in late for a in node.args)):
                late.add(id(node))
        self.apart: list[Row] = (
            [] if hoist else outputs
        )  # a single step writes its outputs itself, whole, as arrays "o"
        if not hoist:
            outputs = []
        self.extras: list[Node] = []  # nodes of the loop that are wanted outside, as arrays "o"
        self.outputs: list[
            tuple[str, int] | Row
        ] = []  # ("s", k): the state itself; else nodes to work out after the loop
        whole = [graph.joined(row) for row in states]
        finals: dict[int, Node] = {}
        for row in outputs:
            joined = graph.joined(row)
            same = [k for k, s in enumerate(whole) if s == joined]
            if same:
                self.outputs.append(("s", same[0]))
                continue
            for node in ordered(row, stop=lambda n: id(n) not in late):
                if id(node) not in late and node.flags & STATE and id(node) not in finals:
                    finals[id(node)] = self._outside(node, whole)
            self.outputs.append(tuple(row))

        inside = [*[n for row in [*states, *self.apart] for n in row], *self.extras]
        self.arrays: list[Node] = []  # made before the loop: leaves "a"
        self.hoisted: list[Hoisted] = []  # leaves "u"
        if not hoist:
            inside = substituted(graph, inside, self._unfolded(inside))
        inside = substituted(graph, inside, self._hoisted(inside))
        count = sum(len(row) for row in [*states, *self.apart])
        rows = self._regroup(inside[:count], [*states, *self.apart])
        self.states, self.apart = rows[: len(states)], rows[len(states) :]
        self.extras = inside[count:]
        self.extra_widths = [n.width for n in self.extras]
        for i, out in enumerate(self.outputs):
            if isinstance(out[0], Node):
                self.outputs[i] = tuple(
                    substituted(
                        graph,
                        [n for n in out if isinstance(n, Node)],
                        {**self._by_id(finals), **self._outer(out, late)},
                    )
                )
        self.array_widths = [n.width for n in self.arrays]
        self.late = bool(late)
        self.forward = self._forward_loop()
        self.matrices = sorted({w for p in self.forward.products for w in p.weights})

    # ---------------------------------------------------------------------------------------------- division

    def _regroup(self, flat: Sequence[Node], like: Sequence[Row]) -> list[Row]:
        out, start = [], 0
        for row in like:
            out.append(tuple(flat[start : start + len(row)]))
            start += len(row)
        return out

    def _restored(self, nodes: list[Node]) -> list[Node]:
        """Every look at the state sees the initial one where a reset says so."""
        graph = self.graph
        flag = graph.apply("ne", graph.leaf("r", 0, 1, 0, STATE), graph.number(0.0))
        new = {}
        for node in ordered(nodes):
            if node.op == "leaf" and node.attribute[0] == "s":
                _, index, offset = node.attribute
                first = graph.leaf("i", index, node.width, offset, STATE)
                new[node] = graph.apply("select", flag, first, node)
        return substituted(graph, nodes, new)

    def _joined_products(self, nodes: list[Node]) -> list[Node]:
        """Products of the same row become one, their weights side by side."""
        graph = self.graph
        groups: dict[tuple[int, ...], list[Node]] = {}
        for node in ordered(nodes):
            if node.op == "product" and node.flags & STATE:
                groups.setdefault(tuple(map(id, node.args)), []).append(node)
        new = {}
        for group in groups.values():
            if len(group) > 1:
                width = sum(n.width for n in group)
                joined = graph.product(group[0].args, tuple(w for n in group for w in n.attribute), width)
                start = 0
                for node in group:
                    new[node] = graph.slice(joined, start, node.width)
                    start += node.width
        if not new:
            return nodes
        return (
            self._joined_products(substituted(graph, nodes, new)) if len(groups) > 1 else substituted(graph, nodes, new)
        )

    def _outside(self, node: Node, states: list[Row]) -> Node:
        """A leaf for a value of the loop that is wanted after it."""
        graph = self.graph
        for k, row in enumerate(states):
            start = 0
            for piece in row:
                if piece is node:
                    return graph.leaf("n", k, node.width, start, STATE)
                start += piece.width
        if node.boolean:
            node = graph.apply("select", node, graph.number(1), graph.number(0))
        if node not in self.extras:
            self.extras.append(node)
        leaf = graph.leaf("o", self.extras.index(node), node.width, 0, STATE)
        return leaf

    def _by_id(self, finals: dict[int, Node]) -> dict[Node, Node]:
        found = {
            id(n): n
            for out in self.outputs
            if not isinstance(out[0], str)
            for n in ordered(n for n in out if isinstance(n, Node))
        }
        new = {}
        for key, leaf in finals.items():
            if key in found:
                truth = self.graph.apply("ne", leaf, self.graph.number(0)) if found[key].boolean else leaf
                new[found[key]] = truth
        return new

    def _outer(self, row: Iterable[object], late: set[int]) -> dict[Node, Node]:
        """Arrays made before the loop, where what is worked out after it reads them."""
        roots = [n for n in row if isinstance(n, Node)]
        wanted = [n for n in ordered(roots, stop=lambda n: id(n) not in late) if n.flags == INPUT]
        new = {}
        for node in wanted:
            new[node] = self._array(node, late=True)
        return new

    def _unfolded(self, roots: Sequence[Node]) -> dict[Node, Node]:
        """A product and a constant row in the place of each affine."""
        graph = self.graph
        affine = [n for n in ordered(roots) if n.op == "affine"]
        return {n: graph.apply("add", graph.product(n.args[:-1], n.attribute, n.width), n.args[-1]) for n in affine}

    def _hoisted(self, roots: Sequence[Node]) -> dict[Node, Node]:
        """What needs no state, where something that does reads it: an array's leaf in its place."""
        new: dict[Node, Node] = {}
        if not self.hoist:
            inputs = [n for n in ordered(roots) if n.op == "leaf" and n.attribute[0] == "x"]
            return {node: self._array(node) for node in inputs}
        # products leave the loop; pointwise work stays, where it is done on what is in cache
        for node in ordered(roots, stop=_leaves_the_loop):
            if _leaves_the_loop(node):
                new[node] = self._array(node)
        return new

    def _array(self, node: Node, late: bool = False) -> Node:
        """A leaf for what is made before the loop; a product of an array is made a stretch at a time, unless it is wanted
        after the loop."""
        graph = self.graph
        if node.op == "slice":
            base, offset = node.args[0], node.attribute
        elif node.op == "leaf":
            index, offset = node.attribute[1:]
            base = graph.leaf("x", index, self.captured.input_widths[index], 0, INPUT)
        elif node.boolean:
            base, offset = graph.apply("select", node, graph.number(1), graph.number(0)), 0
        else:
            base, offset = node, 0
        if self.hoist and not late and base.op in ("affine", "product"):
            row = base.args[: len(base.args) - (base.op == "affine")]
            if len(row) == 1:
                left = self._array(row[0], late=True)
                index, start = left.attribute[1:]
                if start == 0 and left.width == self.arrays[index].width:
                    bias = base.args[-1].attribute[1] if base.op == "affine" else None
                    product = Hoisted(index, base.attribute, bias, base.width)
                    if product not in self.hoisted:
                        self.hoisted.append(product)
                    return graph.leaf("u", self.hoisted.index(product), node.width, offset, INPUT)
        if base not in self.arrays:
            self.arrays.append(base)
        leaf = graph.leaf("a", self.arrays.index(base), node.width, offset, INPUT)
        return graph.apply("ne", leaf, graph.number(0)) if node.boolean else leaf

    # ---------------------------------------------------------------------------------------------- the loops

    def _forward_loop(self, kept: Sequence[Row] = ()) -> Loop:
        targets: list[tuple[tuple[str, int], Row]] = [(("n", k), row) for k, row in enumerate(self.states)]
        targets += [(("o", j), row) for j, row in enumerate(self.apart or [(node,) for node in self.extras])]
        targets += [(("k", j), row) for j, row in enumerate(kept)]
        loop = Loop(targets)
        loop.find_products(self.graph)
        return loop

    def forward_keeping(self, backward: Backward) -> Loop:
        """The forward loop that also keeps what a backward one reads."""
        return self._forward_loop(backward.kept_rows)

    def backward(self, wanted: frozenset[tuple[str, int]]) -> Backward:
        """The backward loop that gives the gradients `wanted`: ("a", i), ("v", i), ("i", k), ("w", matrix); those of the
        state always.

        Those of arrays, constant rows and matrices that only hoisted products read follow from the products' own, "U".
        """
        graph = self.graph
        outputs: list[tuple[Row, Row]] = []
        for k, row in enumerate(self.states):
            width = self.state_widths[k]
            total = graph.apply("add", graph.leaf("c", k, width, 0, STATE), graph.leaf("g", k, width, 0, STATE))
            outputs.append((row, (total,)))
        for j, node in enumerate(self.extras):
            outputs.append(((node,), (graph.leaf("g", len(self.states) + j, node.width, 0, STATE),)))
        # a piece of a forward value is a piece of what is kept of it, not a value to work out again
        graph.uncut = {id(n) for n in ordered([n for _, row in self.forward.targets for n in row])}
        found = Gradients(graph, outputs)

        rows: dict[tuple[str, int], Row] = {}
        for k, width in enumerate(self.state_widths):
            rows["c", k] = found.row("s", k, width)
            if self.resets and ("i", k) in wanted:
                rows["I", k] = found.row("i", k, width)
        sizes: dict[str, Any] = {
            "a": self.array_widths,
            "v": self.vector_widths,
            "u": [h.width for h in self.hoisted],
        }
        for kind in ("a", "v", "u"):
            for (leaf_kind, index), _ in list(found.leaves.items()):
                if leaf_kind == kind and ((kind, index) in wanted or (kind == "u" and self._wants(index, wanted))):
                    rows[kind.upper(), index] = found.row(kind, index, sizes[kind][index])
        products = [p for p in found.products if any(("w", w) in wanted for w in p[2])]
        for p, (_, gradient, _) in enumerate(products):
            rows["d", p] = gradient
        rows = {key: graph.joined(row) for key, row in rows.items()}

        # an array that equals another is written once; what a product reads is best written out
        shared: dict[tuple[str, int], tuple[str, int]] = {}
        first: dict[tuple[int, ...], tuple[str, int]] = {}
        for key in sorted(rows, key=lambda key: "AdUVI".find(key[0])):
            ids = tuple(map(id, rows[key]))
            if key[0] != "c":
                if ids in first:
                    shared[key] = first[ids]
                else:
                    first[ids] = key

        kept, replacements = self._kept([n for key, row in rows.items() if key not in shared for n in row])
        graph.uncut = set()
        names = [key for key in rows if key not in shared]
        flat = substituted(graph, [n for key in names for n in rows[key]], replacements)
        targets, start = [], 0
        for key in names:
            targets.append((key, graph.joined(tuple(flat[start : start + len(rows[key])]))))
            start += len(rows[key])
        loop = Loop(targets)
        loop.find_products(graph)

        kept_rows: list[Row] = [(n,) for n in kept]
        lefts: list[tuple[str, int]] = []
        for left, _, _ in products:
            lefts.append(self._left(left, kept_rows))
        return Backward(
            loop,
            kept,
            kept_rows,
            lefts,
            [p[2] for p in products],
            shared,
            {key: width_of(row) for key, row in rows.items()},
        )

    def _wants(self, index: int, wanted: frozenset[tuple[str, int]]) -> bool:
        """Whether the gradient of a hoisted product goes anywhere."""
        h = self.hoisted[index]
        return ("a", h.array) in wanted or ("v", h.bias) in wanted or any(("w", w) in wanted for w in h.weights)

    @functools.cached_property
    def vector_widths(self) -> dict[int, int]:
        """How much of every constant row the loop reads."""
        widths: dict[int, int] = {}
        for node in ordered([n for _, row in self.forward.targets for n in row]):
            if node.op == "leaf" and node.attribute[0] == "v":
                _, index, offset = node.attribute
                widths[index] = max(widths.get(index, 0), offset + node.width)
        return widths

    def _left(self, row: Row, kept_rows: list[Row]) -> tuple[str, int]:
        if len(row) == 1 and row[0].op == "leaf":
            kind, index, offset = row[0].attribute
            whole = {"s": self.state_widths, "a": self.array_widths}.get(kind)
            if whole is not None and offset == 0 and row[0].width == whole[index]:
                return kind, index
        if row not in kept_rows:
            kept_rows.append(row)
        return "k", kept_rows.index(row)

    def _kept(self, roots: list[Node]) -> tuple[list[Node], dict[Node, Node]]:
        """What the backward loop needs of the forward one and cannot soon work out again: those nodes, and leaves for them."""
        graph = self.graph
        forward = ordered([n for _, row in self.forward.targets for n in row])
        inside = set(map(id, forward))
        free = {"a", "v", "s", "i", "r"}
        new: dict[Node, Node] = {}
        for k, row in enumerate(self.states):
            start = 0
            for node in row:
                if node.op not in ("leaf", "number", "expand") and not node.boolean:
                    new[node] = graph.leaf("n", k, node.width, start, STATE)
                start += node.width

        def known(node: Node) -> bool:
            return node.op == "number" or (node.op == "leaf" and node.attribute[0] in free) or node in new

        answers: dict[tuple[int, int], bool] = {}  # of `again`, so that no node is looked at once for every way to it

        def again(node: Node, quick: int) -> bool:
            """Whether a node can be worked out from what is known, by cheap operations and at most `quick` functions."""
            if known(node):
                return True
            key = (id(node), quick)
            if key not in answers:
                left = quick - (node.op in _QUICK)
                answers[key] = (
                    (node.op in _CHEAP or node.op in _QUICK) and left >= 0 and all(again(a, left) for a in node.args)
                )
            return answers[key]

        kept: list[Node] = []
        needed = set(map(id, ordered(roots, stop=lambda n: id(n) in inside))) & inside
        reached = ordered(roots, stop=lambda n: id(n) in inside)
        pieces = [n for n in reached if n.op == "leaf" and n.attribute[0] == "u" and id(n) not in inside]
        for node in [
            *forward,
            *pieces,
        ]:  # a piece of a hoisted product may be wanted that the forward loop reads only as a whole
            if (id(node) not in needed and node not in pieces) or again(node, 1):
                continue
            value = node
            if node.boolean:
                value = graph.apply("select", node, graph.number(1), graph.number(0))
            kept.append(value)
            answers.clear()  # more is known now
            leaf = graph.leaf("k", len(kept) - 1, value.width, 0, STATE)
            new[node] = graph.apply("ne", leaf, graph.number(0)) if node.boolean else leaf
        # leaves replace nodes wherever the backward loop meets them, also inside what it works out again
        return kept, new

    # ---------------------------------------------------------------------------------------------- in words

    def __str__(self) -> str:
        lines = ["before the loop:"]
        for i, text in enumerate(self.captured.constants.text):
            lines.append(f"    #{len(self.captured.constants.names) + i} = {text}")
        for i, node in enumerate(self.arrays):
            lines.append(f"    a{i} [T, B, {node.width}] = {_phrase(node)}")
        for i, h in enumerate(self.hoisted):
            weights = ", ".join(f"W{w}" for w in h.weights)
            lines.append(
                f"    u{i} [T, B, {h.width}] = a{h.array} @ [{weights}]" + ("" if h.bias is None else f" + v{h.bias}")
            )
        lines.append("in the loop:")
        lines += ["    " + line for line in describe(self.forward.targets)]
        lines.append("after the loop:")
        for j, out in enumerate(self.outputs):
            if isinstance(out[0], str):
                lines.append(f"    output {j} = state {out[1]}")
            else:
                lines.append(f"    output {j} = " + ", ".join(_phrase(n) for n in out if isinstance(n, Node)))
        return "\n".join(lines)


def _leaves_the_loop(node: Node) -> bool:
    return node.flags == INPUT and node.op in ("leaf", "product", "affine")


def describe(targets: Sequence[tuple[tuple[str, int], Row]]) -> list[str]:
    """A loop as lines of equations; equal loops give equal lines."""
    names: dict[int, str] = {}
    lines = []  # type: ignore[var-annotated]
    for node in ordered([n for _, row in targets for n in row]):
        if node.op == "leaf":
            kind, index, offset = node.attribute
            names[id(node)] = f"{kind}{index}" + (f"[{offset}:{offset + node.width}]")
        elif node.op == "number":
            names[id(node)] = (
                f"{node.attribute[0]:g}" if float(f"{node.attribute[0]:g}") == node.attribute[0] else node.attribute[1]
            )
        else:
            names[id(node)] = f"t{len(lines)}"
            lines.append(f"t{len(lines)} [{node.width}] = {_expression(node, names)}")
    for (kind, index), row in targets:
        lines.append(f"{kind}{index} <- " + ", ".join(names[id(n)] for n in row))
    return lines


_SIGNS = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "eq": "==",
    "ne": "!=",
}


def _expression(node: Node, names: dict[int, str]) -> str:
    args = [names[id(a)] for a in node.args]
    if node.op in _SIGNS:
        return f"{args[0]} {_SIGNS[node.op]} {args[1]}"
    if node.op == "slice":
        return f"{args[0]}[{node.attribute}:{node.attribute + node.width}]"
    if node.op in ("product", "affine"):
        bias = args.pop() if node.op == "affine" else None
        weights = ", ".join(f"W{w}" if w >= 0 else f"W{-1 - w}.T" for w in node.attribute)
        return f"[{', '.join(args)}] @ [{weights}]" + (f" + {bias}" if bias else "")
    return f"{node.op}({', '.join(args)})"


def _phrase(node: Node) -> str:
    """One value as an expression within a line."""
    names: dict[int, str] = {}
    for n in ordered([node]):
        if n.op == "leaf":
            kind, index, offset = n.attribute
            names[id(n)] = f"{kind}{index}[{offset}:{offset + n.width}]"
        elif n.op == "number":
            names[id(n)] = f"{n.attribute[0]:g}"
        else:
            names[id(n)] = f"({_expression(n, names)})" if n is not node else _expression(n, names)
    return names[id(node)]
