"""The backward loop of a program: its gradients, and which values of the forward loop are saved for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from throughtime.scanning.derivative import Gradients
from throughtime.scanning.nodes import (
    ARITHMETIC,
    COMPARISONS,
    LOGIC,
    STATE,
    Graph,
    Node,
    Row,
    ordered,
    regrouped,
    substituted,
    width_of,
)
from throughtime.scanning.program import Array, Loop, Program, Wanted

_CHEAP = ARITHMETIC | COMPARISONS | LOGIC | {"div"}
_QUICK = {"tanh", "sigmoid", "exp", "sqrt", "rsqrt"}  # done again sooner than fetched from memory


@dataclass(frozen=True, eq=False)
class Backward:
    """The backward loop, and the forward loop that saves what it reads.

    saved: rows of the forward loop that are saved, leaves "k".
    The backward loop writes the gradients of leaves as arrays "A", "V", "U", "I", and those of products as "d".
    lhs: the left operand of each of these products: ("s", k) a whole state, ("a", i) a whole array, ("k", j) a saved row.
    weights: their matrices. shared: an array that equals another one, which is written instead. widths: of all these arrays,
    and of "c".
    """

    loop: Loop
    forward: Loop
    saved: tuple[Row, ...]
    lhs: tuple[Array, ...]
    weights: tuple[tuple[int, ...], ...]
    shared: dict[Array, Array]
    widths: dict[Array, int]

    @cached_property
    def saved_widths(self) -> list[int]:
        return [width_of(row) for row in self.saved]

    @cached_property
    def whole(self) -> dict[Array, int]:
        """The arrays that are written whole, and their widths."""
        return {a: self.widths[a] for a, _ in self.loop.targets if a[0] == "A"}

    @cached_property
    def passing(self) -> dict[Array, int]:
        """Those of which a chunk of time is written at once."""
        return {a: self.widths[a] for a, _ in self.loop.targets if a[0] not in "Ac"}


def backward(program: Program, wanted: Wanted) -> Backward:
    """The backward loop that gives the gradients `wanted`, and always those of the state.

    Those of arrays, constant rows and matrices that only hoisted products read follow from the products' own, "U".
    """
    # a piece of a forward value is a piece of what is saved of it, not a value to work out again
    graph = program.graph.fork(uncut=program.forward.nodes)
    found = Gradients(graph, _outputs(graph, program))
    products = [p for p in found.products if any(("w", w) in wanted for w in p.weights)]
    rows = _rows(program, found, wanted)
    rows |= {("d", p): product.gradient for p, product in enumerate(products)}
    rows = {key: graph.joined(row) for key, row in rows.items()}
    shared = _shared(rows)
    own = {key: row for key, row in rows.items() if key not in shared}

    saving = _Saving(graph, program)
    saving.look([n for row in own.values() for n in row])
    graph = graph.fork()
    # leaves replace nodes wherever the backward loop meets them, also inside what it works out again
    flat = substituted(graph, [n for row in own.values() for n in row], saving.leaves)
    loop = Loop.of(zip(own, map(graph.joined, regrouped(flat, own.values())), strict=True))
    lhs = [program.whole(p.lhs) or saving.whole(p.lhs) for p in products]
    return Backward(
        loop, program.forward_saving(saving.rows), tuple(saving.rows), tuple(lhs), tuple(p.weights for p in products), shared,
        {key: width_of(row) for key, row in rows.items()},
    )  # fmt: skip


def _outputs(graph: Graph, program: Program) -> Iterable[tuple[Row, Row]]:
    """What the loop gives, beside its gradients."""
    for k, (row, width) in enumerate(zip(program.states, program.state_widths, strict=True)):
        carried, own = (graph.leaf(kind, k, width, 0, STATE) for kind in "cg")
        yield row, (graph.apply("add", carried, own),)
    for j, row in enumerate(program.extras):
        yield row, (graph.leaf("g", len(program.states) + j, width_of(row), 0, STATE),)


def _rows(program: Program, found: Gradients, wanted: Wanted) -> dict[Array, Row]:
    """The gradients of leaves that are wanted, and those of the state."""
    rows: dict[Array, Row] = {}
    for k, width in enumerate(program.state_widths):
        rows["c", k] = found.row("s", k, width)
        if program.resets and ("i", k) in wanted:
            rows["I", k] = found.row("i", k, width)

    def goes_anywhere(h: int) -> bool:
        hoisted = program.hoisted[h]
        sources = [("a", hoisted.array), ("v", hoisted.bias), *(("w", w) for w in hoisted.weights)]
        return any(source in wanted for source in sources)

    widths: dict[str, Callable[[int], int]] = {
        "a": program.array_widths.__getitem__,
        "v": program.vector_widths.__getitem__,
        "u": lambda u: program.hoisted[u].width,
    }
    for kind, width_at in widths.items():
        for leaf_kind, index in list(found.leaves):
            if leaf_kind == kind and (goes_anywhere(index) if kind == "u" else (kind, index) in wanted):
                rows[kind.upper(), index] = found.row(kind, index, width_at(index))
    return rows


def _shared(rows: dict[Array, Row]) -> dict[Array, Array]:
    """Arrays that equal another, which is written once; what a product reads is best written out."""
    shared: dict[Array, Array] = {}
    first: dict[Row, Array] = {}
    for key in sorted(rows, key=lambda key: "AdUVI".find(key[0])):
        if key[0] != "c" and first.setdefault(rows[key], key) != key:
            shared[key] = first[rows[key]]
    return shared


class _Saving:
    """What a backward loop needs of the forward one and cannot soon work out again."""

    def __init__(self, graph: Graph, program: Program) -> None:
        self.graph, self.forward = graph, program.forward.nodes
        self.rows: list[Row] = []  # of the forward loop, saved
        self.leaves: dict[Node, Node] = {}  # in the place of values that are known
        self._again: dict[tuple[Node, int], bool] = {}  # so that no node is looked at once for every way to it
        for k, row in enumerate(program.states):
            start = 0
            for node in row:
                if node.op not in ("leaf", "number", "expand") and not node.boolean:
                    self.leaves[node] = graph.leaf("n", k, node.width, start, STATE)
                start += node.width

    def look(self, roots: Sequence[Node]) -> None:
        """Find what these roots need."""
        inside = set(self.forward)
        reached = ordered(roots, stop=lambda n: n in inside)
        needed = inside.intersection(reached)
        # a piece of a hoisted product may be wanted that the forward loop reads only as a whole
        pieces = [n for n in reached if n.op == "leaf" and n.attribute[0] == "u" and n not in inside]
        for node in [*(n for n in self.forward if n in needed), *pieces]:
            if self._is_soon_known(node, 1):
                continue
            value = self.graph.number_of(node)
            self.rows.append((value,))
            self._again.clear()  # more is known now
            leaf = self.graph.leaf("k", len(self.rows) - 1, value.width, 0, STATE)
            self.leaves[node] = self.graph.like(node, leaf)

    def whole(self, row: Row) -> Array:
        """A row as a saved one."""
        if row not in self.rows:
            self.rows.append(row)
        return "k", self.rows.index(row)

    def _is_soon_known(self, node: Node, quick: int) -> bool:
        """Whether a node is known, or follows from what is by cheap operations and at most `quick` functions."""
        if node.op == "number" or node in self.leaves or (node.op == "leaf" and node.attribute[0] in "avsir"):
            return True
        key = (node, quick)
        if key not in self._again:
            left = quick - (node.op in _QUICK)
            possible = left >= 0 and node.op in _CHEAP | _QUICK
            self._again[key] = possible and all(self._is_soon_known(a, left) for a in node.args)
        return self._again[key]
