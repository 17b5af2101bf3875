"""One step of one cell as LLVM assembly.

A product's sums stay in registers over all of its depth, a panel of columns at a time; what is between products and sweeps lies on
the stack.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import partial

from throughtime.exporting.numbers_llvm import (
    ATTRIBUTES,
    bytes_of,
    constant,
    copy,
    packed,
    padded,
    reserve,
    whole_vector,
    widened,
)
from throughtime.exporting.plan import LayerPlan
from throughtime.exporting.targets import ExportTarget
from throughtime.scanning.cpu.assembly import Assembly, Module
from throughtime.scanning.cpu.rows import Block, RowCode
from throughtime.scanning.cpu.rows import Step as Place
from throughtime.scanning.int8 import quantised
from throughtime.scanning.nodes import Node
from throughtime.scanning.program import Array
from throughtime.scanning.schedule import Stage

LEAST = 8  # sums that run beside each other, so that none waits for the one before
CACHE = 32 << 10  # bytes of weights that a first cache holds beside what else a step needs
PASSED = "ptr noalias %state, ptr noalias readonly %x, ptr noalias %y"


class LayerCode:
    """Writes one step of one cell, function `layer_NUMBER(state, x, y)`."""

    def __init__(self, module: Module, target: ExportTarget, plan: LayerPlan, int8: bool, turns: bool = False) -> None:
        self.module, self.target, self.plan, self.int8, self.turns = module, target, plan, int8, turns
        self.lanes = module.lanes
        self.scratch = {array: padded(width, self.lanes) for array, width in plan.scratch.items()}
        self.reserved = 4 * sum(self.scratch.values())

    def define(self) -> None:
        """Write it into the module."""
        name = f"layer_{self.plan.number}"
        passed = f"{PASSED}, {self.module.whole} %turn" if self.turns else PASSED
        self.module.define(name, passed, self._body, kind="internal ", attributes=f"noinline {ATTRIBUTES}")

    def _body(self, code: Assembly) -> None:
        plan, number = self.plan, self.plan.number
        blocks = {array: Block(reserve(code, width), "0") for array, width in self.scratch.items()}
        blocks |= {array: Block(code.at(f"%{to}", before), "0") for array, (to, before) in plan.passed.items()}
        for i, vector in plan.vectors.items():
            blocks["v", i] = Block(constant(self.module, f"vector_{number}_{i}", vector), "0")
        place, spilled = Place(code, blocks, "1"), set[Node]()
        for stage in plan.schedule.stages:
            if self._side_by_side(stage):
                self._panels(code, stage, blocks, RowCode(plan.program, plan.schedule, spilled, place, "0"))
                continue
            self._products(
                code, [(i, blocks[plan.schedule.lhs[i]].at, blocks["product", i].at) for i in stage.products]
            )
            if any(stage.phases):
                RowCode(plan.program, plan.schedule, spilled, place, "0").write(stage)
        for k, width in enumerate(plan.states):
            copy(code, blocks["n", k].at, blocks["s", k].at, width)

    def _side_by_side(self, stage: Stage) -> bool:
        """Whether each vector of what follows the products of a stage needs the sums of its own columns alone."""
        works = [work for phase in stage.phases for work in phase]
        width = works[0].width if works else 0
        wholes = [width, *(self.plan.schedule.loop.products[i].width for i in stage.products)]
        return (
            self.turns
            and len(stage.phases) == 1
            and all(work.width == width and not work.reductions for work in works)
            and width % self.lanes == 0
            and all(whole % width == 0 and whole // width <= self.target.vectors for whole in wholes)
        )

    def _panels(self, code: Assembly, stage: Stage, blocks: dict[Array, Block], rows: RowCode) -> None:
        """Products and what follows them, a vector of units after the other: while what follows is worked out, the weights of the
        next units are on their way."""
        (works,), number = stage.phases, self.plan.number
        width, lanes, panels = works[0].width, self.lanes, list[tuple[_Panel, str, str, str, int]]()
        for i in stage.products:
            matrix, scales, kind = self.plan.matrix(i), "", ""
            if self.int8:
                matrix, scale = quantised(matrix)
                scales, kind = constant(self.module, f"scales_{number}_{i}", scale), "i8"
            by_unit = matrix.view(len(matrix), -1, width // lanes, lanes).permute(2, 0, 1, 3)
            weights = constant(self.module, f"weights_{number}_{i}", by_unit)
            panel = _Panel(code, blocks[self.plan.schedule.lhs[i]].at, len(matrix), self.int8, width)
            panels.append((panel, code.at(weights, 0, kind), blocks["product", i].at, scales, matrix.shape[1] // width))
        for work in works:
            rows.begin(work)
        with code.loop(width // lanes) as p:
            p = self._turned(code, p, width // lanes)
            first = code.mul(p, lanes)
            for panel, weights, out, scales, vectors in panels:
                begin = code.at(weights, code.mul(first, panel.depth * vectors), "i8" if self.int8 else "")
                panel.write(begin, code.at(out, first), scales and code.at(scales, first), vectors)
            for work in works:
                rows.vector(work, first)

    def _turned(self, code: Assembly, p: str, count: int) -> str:
        """The number of a panel, from the end that it is the turn of."""
        return code.choose(code.let(f"icmp eq {code.whole} %turn, 0"), p, code.sub(str(count - 1), p))

    def _products(self, code: Assembly, products: list[tuple[int, str, str]]) -> None:
        """The products of a stage: their number, operand, and what they give. In turns, from the first to the last panel of them
        all, or from the last to the first."""
        if not self.turns:
            for i, x, out in products:
                self._product(code, i, x, out)
            return
        names = {i: f"product_{self.plan.number}_{i}" for i, *_ in products}
        passed = f"ptr noalias readonly %x, ptr noalias %y, {self.module.whole} %turn"
        for i, name in names.items():
            self.module.define(
                name, passed, partial(self._product, i=i, x="%x", out="%y"), kind="internal ",
                attributes=f"noinline {ATTRIBUTES}",
            )  # fmt: skip
        for turn in (0, 1):
            with code.when(code.let(f"icmp eq {code.whole} %turn, {turn}")):
                for i, x, out in products[:: -1 if turn else 1]:
                    code.line(f"call void @{names[i]}(ptr {x}, ptr {out}, {code.whole} %turn)")

    def _product(self, code: Assembly, i: int, x: str, out: str) -> None:
        """A product, a panel of columns after the other, each as wide as registers hold sums for."""
        number, matrix = self.plan.number, self.plan.matrix(i)
        vectors = padded(matrix.shape[1], self.lanes) // self.lanes
        most = self.target.vectors
        if self.turns:  # panels of which the cache holds some
            most = min(most, max(1, CACHE // 2 // (len(matrix) * self.lanes * (1 if self.int8 else 4))))
        count = -(-vectors // most)
        size = -(-vectors // count)  # of a panel: all but the last are the same
        wide, kind, scales = size * self.lanes, "i8" if self.int8 else "", ""
        if self.int8:
            matrix, scale = quantised(matrix)
            scales = constant(self.module, f"scales_{number}_{i}", widened(scale, self.lanes))
        weights = constant(self.module, f"weights_{number}_{i}", packed(widened(matrix, self.lanes), wide))
        panel = _Panel(code, x, len(matrix), self.int8)

        def write(first: str, vectors: int) -> None:
            begin = code.at(weights, code.mul(first, len(matrix)), kind)
            panel.write(begin, code.at(out, first), scales and code.at(scales, first), vectors)

        whole, left = divmod(vectors, size)
        with code.loop(whole) as p:
            if self.turns:
                p = self._turned(code, p, whole)
            write(code.mul(p, wide), size)
        if left:
            write(str(whole * wide), left)


@dataclass(frozen=True)
class _Panel:
    """Writes y[n] = sum_k x[k] weights[k, n] for the columns of a panel, times their scales where weights are whole numbers.

    apart: from one vector of y to the next, where these are not side by side.
    """

    code: Assembly
    x: str
    depth: int
    int8: bool
    apart: int = 0

    def write(self, weights: str, y: str, scales: str, vectors: int) -> None:
        code, lanes, apart = self.code, self.code.lanes, self.apart or self.code.lanes
        ways = min(self.depth, max(1, -(-LEAST // vectors)))  # sums of one number each, added at the end
        sums = [[code.slot(code.vector) for _ in range(vectors)] for _ in range(ways)]
        for slot in itertools.chain(*sums):
            code.store(code.vector, "zeroinitializer", slot)

        def rows(k: str, count: int) -> None:
            begin = code.at(weights, code.mul(k, vectors * lanes), "i8" if self.int8 else "")
            for way in range(count):
                one = code.splat(code.load(code.dtype, code.at(self.x, code.add(k, way))))
                for v in range(vectors):
                    column = self._weights(begin, (way * vectors + v) * lanes)
                    slot = sums[way][v]
                    code.store(code.vector, code.fma(one, column, code.load(code.vector, slot)), slot)

        whole = self.depth - self.depth % ways
        with code.loop(whole, step=ways) as k:
            rows(k, ways)
        if self.depth > whole:
            rows(str(whole), self.depth - whole)
        for v in range(vectors):
            total = code.load(code.vector, sums[0][v])
            for way in range(1, ways):
                total = code.binary("fadd", total, code.load(code.vector, sums[way][v]))
            if scales:
                total = code.binary("fmul", total, whole_vector(code, code.at(scales, v * apart)))
            code.store(code.vector, total, code.at(y, v * apart), bytes_of(code))

    def _weights(self, begin: str, at: int) -> str:
        code = self.code
        if not self.int8:
            return whole_vector(code, code.at(begin, at))
        eight = f"<{code.lanes} x i8>"
        found = code.load(eight, code.at(begin, at, "i8"), code.lanes)
        return code.let(f"sitofp {eight} {found} to {code.vector}")
