"""One step of one cell as LLVM assembly.

A product's sums stay in registers over all of its depth, a panel of columns at a time; what is between products and sweeps lies on
the stack.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor

from throughtime.exporting.dots_llvm import Bytes, Words, dots_of, round_row, row_size
from throughtime.exporting.numbers_llvm import ATTRIBUTES, constant, copy, packed, padded, reserve, widened
from throughtime.exporting.panels_llvm import ROW, Panel, Rows
from throughtime.exporting.plan import LayerPlan
from throughtime.exporting.targets import ExportTarget
from throughtime.scanning.cpu.assembly import Assembly, Module
from throughtime.scanning.cpu.rows import Block, RowCode
from throughtime.scanning.cpu.rows import Step as Place
from throughtime.scanning.int8 import quantised
from throughtime.scanning.nodes import Node
from throughtime.scanning.program import Array
from throughtime.scanning.schedule import Stage

WAYS = 4  # vectors of a sweep that reductions are added up in on x86
CACHE = 32 << 10  # bytes of weights that a first cache holds beside what else a step needs
PASSED = "ptr noalias %state, ptr noalias readonly %x, ptr noalias %y"


class LayerCode:
    """Writes one step of one cell, function `layer_NUMBER(state, x, y)`.

    early: the products of what a step is given alone, which of a block of steps are known before it begins.
    """

    def __init__(self, module: Module, target: ExportTarget, plan: LayerPlan, int8: bool, turns: bool = False) -> None:
        self.module, self.target, self.plan, self.int8, self.turns = module, target, plan, int8, turns
        self.lanes, self.dots = module.lanes, dots_of(target, int8)
        self.scratch = {array: padded(width, self.lanes) for array, width in plan.scratch.items()}
        depths = {array: len(plan.matrix(i)) for i, array in enumerate(plan.schedule.lhs)} if int8 else {}
        self.rows = {array: row_size(depth, self.lanes) for array, depth in depths.items()}
        self.reserved = 4 * sum([*self.scratch.values(), *self.rows.values()])
        self.early = [i for i, (kind, _) in enumerate(plan.schedule.lhs) if kind == "a"]

    def define(self) -> None:
        """Write it into the module."""
        self._define(f"layer_{self.plan.number}", PASSED, self._body)

    def define_rest(self) -> None:
        """Write what is left of a step whose early products are given: function `rest_NUMBER(state, x, y, given)`."""

        def body(code: Assembly) -> None:
            before = itertools.accumulate((self.scratch["product", i] for i in self.early), initial=0)
            self._body(code, {i: code.at("%given", at) for i, at in zip(self.early, before, strict=False)})

        self._define(f"rest_{self.plan.number}", f"{PASSED}, ptr noalias readonly %given", body)

    def _define(self, name: str, passed: str, body: Callable[[Assembly], None]) -> None:
        passed = f"{passed}, {self.module.whole} %turn" if self.turns else passed
        self.module.define(name, passed, body, kind="internal ", attributes=f"noinline {ATTRIBUTES}")

    @property
    def given(self) -> int:
        """Numbers of the early products of a step."""
        return sum(self.scratch["product", i] for i in self.early)

    @property
    def rounded(self) -> int:
        """Numbers that their rounded operands take."""
        return sum(self.rows.get(array, 0) for array in {self.plan.schedule.lhs[i] for i in self.early})

    def early_products(self, code: Assembly, x: str, out: str, steps: int) -> None:
        """Write the early products of some steps, for all of which a weight is loaded once. x: [steps, inputs]. out: for
        [steps, given]."""
        lhs, at = self.plan.schedule.lhs, 0
        xs = {array: self._rows_of(code, x, array, steps) for array in {lhs[i]: None for i in self.early}}
        for i in self.early:
            begin, apart = xs[lhs[i]]
            self._rows_product(code, i, begin, code.at(out, at), Rows(steps, apart, self.given))
            at += self.scratch["product", i]

    def _rows_of(self, code: Assembly, x: str, array: Array, steps: int) -> tuple[str, int]:
        """Where an array of what some steps are given begins, rounded where weights are whole numbers; and how many numbers lie
        from one step's to the next."""
        begin, apart = code.at(x, self.plan.passed[array][1]), self.plan.inputs
        if not isinstance(self.dots, Words):
            return begin, apart
        depth, size = self.plan.program.arrays[array[1]].width, self.rows[array]
        rows = reserve(code, steps * size)
        with code.loop(steps) as row:
            into = code.at(rows, code.mul(row, size))
            round_row(code, self.dots, code.at(begin, code.mul(row, apart)), into, depth)
        return rows, size

    def _rows_product(self, code: Assembly, i: int, x: str, out: str, rows: Rows) -> None:
        """A product of several rows, its weights where and its sums in the order that they have in a step."""
        stage = next(stage for stage in self.plan.schedule.stages if i in stage.products)
        if not self._side_by_side(stage):
            self._product(code, i, x, out, rows)
            return
        width = stage.phases[0][0].width
        write = self._by_units(code, i, x, out, width, rows)
        with code.loop(width, step=self.lanes) as first:
            write(first)

    def _body(self, code: Assembly, given: Mapping[int, str] | None = None) -> None:
        """given: the products that are there, by number, and where."""
        plan, number, given = self.plan, self.plan.number, given or {}
        blocks = {array: Block(reserve(code, width), "0") for array, width in self.scratch.items()}
        blocks |= {("product", i): Block(at, "0") for i, at in given.items()}
        blocks |= {array: Block(code.at(f"%{to}", before), "0") for array, (to, before) in plan.passed.items()}
        for i, vector in plan.vectors.items():
            blocks["v", i] = Block(constant(self.module, f"vector_{number}_{i}", vector), "0")
        place, spilled = Place(code, blocks, "1"), set[Node]()
        rows = {array: reserve(code, size) for array, size in self.rows.items()}
        for stage in plan.schedule.stages:
            products = [i for i in stage.products if i not in given]
            lefts = self._rounded(code, products, blocks, rows)
            after = RowCode(plan.program, plan.schedule, spilled, place, "0", ways=WAYS if self.target.turns else 1)
            if self._side_by_side(stage):
                self._panels(code, stage, blocks, lefts, after)
                continue
            self._products(code, [(i, lefts[i], blocks["product", i].at) for i in products])
            if any(stage.phases):
                after.write(stage)
        for k, width in enumerate(plan.states):
            copy(code, blocks["n", k].at, blocks["s", k].at, width)

    def _rounded(
        self, code: Assembly, products: list[int], blocks: dict[Array, Block], rows: dict[Array, str]
    ) -> dict[int, str]:
        """What products read: their left operands, rounded where weights are whole numbers."""
        lhs = {i: self.plan.schedule.lhs[i] for i in products}
        if not isinstance(self.dots, Words):
            return {i: blocks[array].at for i, array in lhs.items()}
        for array, i in {array: i for i, array in lhs.items()}.items():
            round_row(code, self.dots, blocks[array].at, rows[array], len(self.plan.matrix(i)))
        return {i: rows[array] for i, array in lhs.items()}

    def _side_by_side(self, stage: Stage) -> bool:
        """Whether each vector of what follows the products of a stage needs the sums of its own columns alone."""
        works = [work for phase in stage.phases for work in phase]
        width = works[0].width if works else 0
        wholes = [width, *(self.plan.schedule.loop.products[i].width for i in stage.products)]
        return (
            self.target.turns
            and (self.turns or self.int8)
            and len(stage.phases) == 1
            and all(work.width == width and not work.reductions for work in works)
            and width % self.lanes == 0
            and all(whole % width == 0 and whole // width <= self.most for whole in wholes)
        )

    @property
    def most(self) -> int:
        """Vectors of columns of a panel, as many as registers hold sums for."""
        return self.target.vectors // self.dots.parts

    def _panels(
        self, code: Assembly, stage: Stage, blocks: dict[Array, Block], lefts: dict[int, str], rows: RowCode
    ) -> None:
        """Products, of which lefts says what they read, and what follows them, a vector of units after the other: while what
        follows is worked out, the weights of the next units are on their way."""
        (works,) = stage.phases
        width, lanes = works[0].width, self.lanes
        panels = [self._by_units(code, i, x, blocks["product", i].at, width) for i, x in lefts.items()]
        for work in works:
            rows.begin(work)
        with code.loop(width // lanes) as p:
            p = self._turned(code, p, width // lanes)
            first = code.mul(p, lanes)
            for panel in panels:
                panel(first)
            for work in works:
                rows.vector(work, first)

    def _by_units(
        self, code: Assembly, i: int, x: str, out: str, width: int, rows: Rows = ROW
    ) -> Callable[[str], None]:
        """What writes, from a unit on, the sums of a product for a vector of units, of which there are `width`."""
        vectors = self.plan.schedule.loop.products[i].width // width
        order = partial(_by_unit, vectors=vectors, lanes=self.lanes)
        weights, panel = self._panel(code, i, x, order, rows, width)

        def write(first: str) -> None:
            begin = code.at(weights, code.mul(first, panel.kept * vectors), self.dots.kind)
            panel.write(begin, first, code.at(out, first), vectors)

        return write

    def _panel(
        self, code: Assembly, i: int, x: str, order: Callable[[Tensor], Tensor], rows: Rows, apart: int = 0
    ) -> tuple[str, Panel]:
        """The weights of a product as a constant, and what writes panels of it. order: of [K / group, N, group], how they lie."""
        matrix, scales, starts, number = self.plan.matrix(i), "", "", self.plan.number
        depth = len(matrix)
        if self.int8:
            matrix, scale = quantised(matrix)
            scales = constant(self.module, f"scales_{number}_{i}", widened(scale, self.lanes))
            if isinstance(self.dots, Bytes):
                starts = constant(self.module, f"starts_{number}_{i}", widened(self.dots.starts(matrix), self.lanes))
        laid = order(self.dots.packed(widened(matrix, self.lanes)))
        weights = constant(self.module, f"weights_{number}_{i}", laid)
        return weights, Panel(code, self.dots, x, depth, apart, scales, starts, rows, self.most)

    def _turned(self, code: Assembly, p: str, count: int) -> str:
        """The number of a panel, from the end that it is the turn of."""
        if not self.turns:
            return p
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

    def _product(self, code: Assembly, i: int, x: str, out: str, rows: Rows = ROW) -> None:
        """A product, a panel of columns after the other, each as wide as registers hold sums for."""
        matrix = self.plan.matrix(i)
        vectors = padded(matrix.shape[1], self.lanes) // self.lanes
        most = self.most
        if self.turns:  # panels of which the cache holds some
            most = min(most, max(1, CACHE // 2 // (len(matrix) * self.lanes * (1 if self.int8 else 4))))
        count = -(-vectors // most)
        size = -(-vectors // count)  # of a panel: all but the last are the same
        wide = size * self.lanes
        weights, panel = self._panel(code, i, x, lambda m: packed(m, wide), rows)

        def write(first: str, vectors: int) -> None:
            begin = code.at(weights, code.mul(first, panel.kept), self.dots.kind)
            panel.write(begin, first, code.at(out, first), vectors)

        whole, left = divmod(vectors, size)
        with code.loop(whole) as p:
            write(code.mul(p if rows.count > 1 else self._turned(code, p, whole), wide), size)
        if left:
            write(str(whole * wide), left)


def _by_unit(matrix: Tensor, vectors: int, lanes: int) -> Tensor:
    """[K, N, group], N so many times the units, as [units / lanes, K, vectors, lanes, group]."""
    return matrix.reshape(len(matrix), vectors, -1, lanes, matrix.shape[-1]).permute(2, 0, 1, 3, 4)
