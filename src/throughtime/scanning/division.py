"""A captured step, divided: what needs no state leaves the loop, and what the state does not need leaves it too."""

from __future__ import annotations

from collections.abc import Sequence

from throughtime.scanning.capture import Captured
from throughtime.scanning.nodes import INPUT, STATE, Graph, Node, Row, ordered, regrouped, substituted, width_of
from throughtime.scanning.program import Hoisted, Program


def divide(captured: Captured, resets: bool, hoist: bool = True) -> Program:
    """The program of a captured step.

    Args: resets: whether the initial state may be put back before a step; hoist: whether what needs no state leaves the loop.
        Without, for steps that come one at a time, the loop does everything and writes the outputs itself.
    """
    graph = captured.graph.fork()
    rows = [*captured.state, *captured.outputs]
    flat = [n for row in rows for n in row]
    rows = regrouped(_joined_products(graph, _restored(graph, flat) if resets else flat), rows)
    states, outputs = rows[: len(captured.state)], rows[len(captured.state) :]
    parts = _Parts(graph, captured.input_widths)
    if hoist:
        outputs = parts.leave(states, outputs)
        inside = [*states, *((node,) for node in parts.extras)]
    else:
        inside = [*states, *outputs]
        outputs = [(graph.leaf("o", i, width_of(row), 0, STATE),) for i, row in enumerate(outputs)]
    flat = [n for row in inside for n in row]
    inside = regrouped(parts.hoist(flat) if hoist else parts.with_inputs(flat), inside)
    if hoist:  # after what the loop reads: the order of arrays is part of what a program is known by
        outputs = [parts.outside(row) for row in outputs]
    end = len(states)
    return Program(
        captured, graph, resets, tuple(inside[:end]), tuple(inside[end:]), tuple(outputs),
        tuple(parts.arrays), tuple(parts.hoisted),
    )  # fmt: skip


def _restored(graph: Graph, nodes: list[Node]) -> list[Node]:
    """Every look at the state sees the initial one where a reset says so."""
    flag = graph.apply("ne", graph.leaf("r", 0, 1, 0, STATE), graph.number(0.0))
    new = {}
    for node in ordered(nodes):
        if node.op == "leaf" and node.attribute[0] == "s":
            _, index, offset = node.attribute
            new[node] = graph.apply("select", flag, graph.leaf("i", index, node.width, offset, STATE), node)
    return substituted(graph, nodes, new)


def _joined_products(graph: Graph, nodes: list[Node]) -> list[Node]:
    """Products of the same row become one, their weights side by side."""
    groups: dict[tuple[Node, ...], list[Node]] = {}
    for node in ordered(nodes):
        if node.op == "product" and node.flags & STATE:
            groups.setdefault(node.args, []).append(node)
    new = {}
    for row, group in groups.items():
        if len(group) > 1:
            joined = graph.product(row, tuple(w for n in group for w in n.attribute), width_of(group))
            start = 0
            for node in group:
                new[node] = graph.slice(joined, start, node.width)
                start += node.width
    if not new:
        return nodes
    nodes = substituted(graph, nodes, new)
    return _joined_products(graph, nodes) if len(groups) > 1 else nodes


class _Parts:
    """What is found outside the loop while a step is divided."""

    def __init__(self, graph: Graph, input_widths: Sequence[int]) -> None:
        self.graph, self.input_widths = graph, input_widths
        self.arrays: list[Node] = []  # made before the loop: leaves "a"
        self.hoisted: list[Hoisted] = []  # leaves "u"
        self.extras: list[Node] = []  # nodes of the loop that are wanted after it, as arrays "o"
        self._late: set[Node] = set()  # what is done after the loop
        self._leaves: dict[Node, Node] = {}  # for values of the loop, after it

    def leave(self, states: Sequence[Row], outputs: Sequence[Row]) -> list[Row]:
        """The outputs, of which those that are a state are its leaf "n"; and what the loop has to write for the others.

        What the new state hangs on stays in the loop; of the rest, what no product of its own stands before is done on the way.
        """
        graph = self.graph
        needed = set(ordered(n for row in states for n in row))
        for node in ordered(n for row in outputs for n in row):
            if node.flags & STATE and node not in needed and (
                node.op == "product" or any(a in self._late for a in node.args)
            ):  # fmt: skip
                self._late.add(node)
        whole = [graph.joined(row) for row in states]
        pieces: dict[Node, Node] = {}
        for k, row in enumerate(whole):
            start = 0
            for node in row:
                pieces.setdefault(node, graph.leaf("n", k, node.width, start, STATE))
                start += node.width
        found: list[Row] = []
        for row in outputs:
            if (joined := graph.joined(row)) in whole:
                k = whole.index(joined)
                found.append((graph.leaf("n", k, width_of(joined), 0, STATE),))
                continue
            for node in ordered(row, stop=lambda n: n not in self._late):
                if node not in self._late and node.flags & STATE and node not in self._leaves:
                    self._leaves[node] = pieces.get(node) or self._extra(node)
            found.append(row)
        return found

    def _extra(self, node: Node) -> Node:
        """A leaf for a value that the loop writes for what comes after it."""
        value = self.graph.number_of(node)
        if value not in self.extras:
            self.extras.append(value)
        return self.graph.like(node, self.graph.leaf("o", self.extras.index(value), value.width, 0, STATE))

    def outside(self, row: Row) -> Row:
        """What is worked out after the loop, of leaves."""
        wanted = [n for n in ordered(row, stop=lambda n: n not in self._late) if n.flags == INPUT]
        new = {**self._leaves, **{node: self._array(node, whole=True) for node in wanted}}
        return tuple(substituted(self.graph, row, new))

    def hoist(self, roots: list[Node]) -> list[Node]:
        """An array's leaf in the place of each product that needs no state; pointwise work stays in the loop, where it is done
        on what is in cache."""
        leaving = [n for n in ordered(roots, stop=_leaves_the_loop) if _leaves_the_loop(n)]
        return substituted(self.graph, roots, {node: self._array(node) for node in leaving})

    def with_inputs(self, roots: list[Node]) -> list[Node]:
        """All in the loop: a product and a constant row in the place of each affine, and the inputs as arrays."""
        graph = self.graph
        unfolded: dict[Node, Node] = {}
        for n in ordered(roots):
            if n.op == "affine":  # of others, maybe: those are unfolded by now
                *row, bias = substituted(graph, n.args, unfolded)
                unfolded[n] = graph.apply("add", graph.product(tuple(row), n.attribute, n.width), bias)
        roots = substituted(graph, roots, unfolded)
        inputs = [n for n in ordered(roots) if n.op == "leaf" and n.attribute[0] == "x"]
        return substituted(graph, roots, {node: self._array(node) for node in inputs})

    def _array(self, node: Node, whole: bool = False) -> Node:
        """A leaf for what is made before the loop; a product of an array is made a chunk at a time, unless it is wanted whole."""
        graph = self.graph
        base, offset = graph.number_of(node), 0
        if node.op == "slice":
            base, offset = node.args[0], node.attribute
        elif node.op == "leaf":
            index, offset = node.attribute[1:]
            base = graph.leaf("x", index, self.input_widths[index], 0, INPUT)
        if not whole and (product := self._hoisted(base)) is not None:
            if product not in self.hoisted:
                self.hoisted.append(product)
            return graph.leaf("u", self.hoisted.index(product), node.width, offset, INPUT)
        if base not in self.arrays:
            self.arrays.append(base)
        return graph.like(node, graph.leaf("a", self.arrays.index(base), node.width, offset, INPUT))

    def _hoisted(self, base: Node) -> Hoisted | None:
        """A product of one whole array, as what leaves the loop."""
        if base.op not in ("affine", "product"):
            return None
        row, bias = (base.args[:-1], base.args[-1].attribute[1]) if base.op == "affine" else (base.args, None)
        if len(row) != 1:
            return None
        lhs = self._array(row[0], whole=True)
        index, start = lhs.attribute[1:]
        if start != 0 or lhs.width != self.arrays[index].width:
            return None
        return Hoisted(index, base.attribute, bias, base.width)


def _leaves_the_loop(node: Node) -> bool:
    return node.flags == INPUT and node.op in ("leaf", "product", "affine")
