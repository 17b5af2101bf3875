"""A loop in order: what every emitter consumes.

A step is done in stages: the products whose left operands are ready, then the pointwise work between them. Values that two
pieces of work need are worked out again where that is cheap, and spilled to memory where it is not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from throughtime.scanning.nodes import FUNCTIONS, POINTWISE, REDUCTIONS, Node, Row, ordered, width_of
from throughtime.scanning.program import SUMMED, Array, Loop

MOST_AGAIN = 24  # operations that a sweep does once more sooner than fetch what they give from memory


@dataclass
class Work:
    """One sweep over the features of a row: values to store, or to add up."""

    width: int
    stores: list[tuple[Node, Array, int]] = field(default_factory=list)  # value, array, offset
    reductions: list[tuple[Node, Node]] = field(default_factory=list)  # (reduction, its argument of this width)

    @property
    def roots(self) -> list[Node]:
        return [node for node, *_ in self.stores] + [node for _, node in self.reductions]


@dataclass(frozen=True)
class Stage:
    """Products, by number, then sweeps, each phase after the one before."""

    products: list[int]
    phases: list[list[Work]]


class Schedule:
    """The stages of a loop.

    nodes: all there are, arguments first. lhs: for each product, the array of its left operand. scratch: the arrays that the
    loop needs for itself, with their widths: ("lhs", i) and ("product", i) of products, ("spilled", i). spilled: node -> its
    array. product_of: node -> the number of a product.
    """

    def __init__(self, loop: Loop) -> None:
        self.loop, self.nodes = loop, loop.nodes
        self._level: dict[Node, int] = {}  # how many products stand before a node, one after the other
        self._depth: dict[Node, int] = {}  # and how many reductions of its own level
        for node in self.nodes:
            self._level[node] = max((self._level[a] for a in node.args), default=0) + (node.op == "product")
            same = [self._depth[a] for a in node.args if self._level[a] == self._level[node]]
            self._depth[node] = max(same, default=0) + (node.op in REDUCTIONS)
        written = {row: array for array, row in loop.targets if array[0] not in ("c", "h") and array[0][-1] != SUMMED}
        own = {}
        for i, p in enumerate(loop.products):
            if array_of(p.args) is None and p.args not in written:
                written[p.args] = own["lhs", i] = ("lhs", i)
        self.lhs: list[Array] = [array_of(p.args) or written[p.args] for p in loop.products]
        self.targets = [*loop.targets, *((array, loop.products[i].args) for (_, i), array in own.items())]
        self.scratch: dict[Array, int] = {array: width_of(loop.products[i].args) for (_, i), array in own.items()}
        self.scratch.update({("product", i): p.width for i, p in enumerate(loop.products)})
        self.product_of = {p: i for i, p in enumerate(loop.products)}
        self.spilled: dict[Node, Array] = {}
        self.stages = self._stages()
        self._spill()

    def _stages(self) -> list[Stage]:
        """For each level: its products, and the sweeps that what comes later waits for; all else in the last."""
        last = max(self._level.values(), default=0)
        wanted_at: dict[int, list[tuple[Array, Row]]] = defaultdict(list)
        for array, row in self.targets:
            level = max((self._level[n] for n in row), default=0) if array in self.lhs else last
            wanted_at[level].append((array, row))
        products: dict[int, list[int]] = defaultdict(list)
        for i, p in enumerate(self.loop.products):
            products[self._level[p]].append(i)
        return [Stage(products[level], self._phases(wanted_at[level])) for level in range(last + 1)]

    def _phases(self, wanted: Sequence[tuple[Array, Row]]) -> list[list[Work]]:
        reductions: dict[tuple[int, int], list[Node]] = defaultdict(list)
        for node in ordered((n for _, row in wanted for n in row), stop=lambda n: n.op == "product"):
            if node.op in REDUCTIONS:
                reductions[self._level[node], self._depth[node]].append(node)
        phases = []
        for _, nodes in sorted(reductions.items(), key=lambda item: item[0]):
            works: dict[int, Work] = {}
            for node in nodes:
                for arg in node.args:
                    works.setdefault(arg.width, Work(arg.width)).reductions.append((node, arg))
            phases.append(list(works.values()))
        works = {}
        for array, row in wanted:
            offset = 0
            for node in row:
                works.setdefault(node.width, Work(node.width)).stores.append((node, array, offset))
                offset += node.width
        return [*phases, list(works.values())] if works else phases

    def _spill(self) -> None:
        """Mark what several sweeps need and none should do twice: functions, and what takes many operations."""
        sweep_of: dict[Node, int] = {}  # the sweep that a value is first made in
        stage_of: dict[Node, int] = {}  # reductions: the stage they are done in
        sweeps = [(s, work) for s, stage in enumerate(self.stages) for phase in stage.phases for work in phase]
        for number, (s, work) in enumerate(sweeps):
            cost: dict[Node, int] = {}  # operations, until one comes to what lies in memory
            for node in ordered(work.roots, stop=lambda n: n.op in REDUCTIONS or n.op == "product"):
                first = sweep_of.setdefault(node, number)
                again = first != number and node.width > 1
                cost[node] = sum(cost[a] for a in node.args if a in cost) + (node.op in POINTWISE)
                often = again and (node.op in FUNCTIONS or cost[node] > MOST_AGAIN) and node.op in POINTWISE
                if (often or stage_of.get(node, s) != s) and node not in self.spilled:
                    self.spilled[node] = ("spilled", len(self.spilled))
                    self.scratch[self.spilled[node]] = node.width
                if node in self.spilled and first != number:
                    cost[node] = 0
            for reduction, _ in work.reductions:
                stage_of.setdefault(reduction, s)


def array_of(row: Row) -> Array | None:
    """The array that a row of one leaf is, from its first number on; its row stride does the rest."""
    if len(row) != 1 or row[0].op != "leaf":
        return None
    kind, index, offset = row[0].attribute
    return (kind, index) if kind in ("s", "a", "k", "g", "n") and offset == 0 else None
