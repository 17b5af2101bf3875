"""A loop of a program as a compiled function: each thread takes some sequences and runs them through all steps.

At each stage of a step come the products, all rows of the thread at once, then the pointwise work between them, row by row, on
sums that are still in cache. Where no unit reads another, threads share out the units of a sequence as well. Or they do each step
together, a share of its columns each, and wait for each other (`columns`).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from throughtime.scanning.cpu import quads
from throughtime.scanning.cpu.arguments import HEAD, Layout, kinds_of
from throughtime.scanning.cpu.assembly import Assembly, Module
from throughtime.scanning.cpu.columns import Columns, pause
from throughtime.scanning.cpu.pairs import round_row
from throughtime.scanning.cpu.places import Time
from throughtime.scanning.cpu.product import module_of
from throughtime.scanning.cpu.rows import Block, RowCode, Step, destination, is_narrow, sources
from throughtime.scanning.cpu.target import Target
from throughtime.scanning.cpu.tasks import define_tasks, fields
from throughtime.scanning.cpu.tiles import NOTHING, Matrix, PanelProduct, panel, tiles
from throughtime.scanning.cpu.units import Span, by_themselves, spans, sweeps
from throughtime.scanning.equations import describe
from throughtime.scanning.nodes import Node, width_of
from throughtime.scanning.program import Array, Loop, Program
from throughtime.scanning.schedule import Schedule, Stage


class LoopCode:
    """Writes the function of one loop."""

    def __init__(
        self, program: Program, loop: Loop, target: Target, operands: str, backward: bool, columns: bool = False
    ) -> None:
        """operands: of products, as `product.module_of` takes them. columns: whether the tasks of a group do each step together."""
        self.program, self.target, self.backward, self.columns = program, target, backward, columns
        self.operands, module = operands, module_of(target, operands)
        self.pairs, self.quads = module.pairs, module.quads
        self.dtype = dtype = module.dtype
        self.schedule = Schedule(loop)
        self.by_units = not columns and by_themselves(
            self.schedule
        )  # whether tasks may share out the units of a sequence
        self.lanes = target.lanes(dtype)
        self.spilled: set[Node] = set()  # values that an earlier sweep has written to the thread's own space
        self.layout = Layout()
        for node in self.schedule.nodes:
            if node.op == "leaf":
                for array in sources(self.program, node):
                    self.layout.add(array)
        for array, _ in loop.targets:
            self.layout.add(destination(array))
        self.lhs = [self._in_words(array) for array in self.schedule.lhs]
        for array in self.lhs:
            if array not in self.schedule.scratch:
                self.layout.add(destination(array) if array in dict(loop.targets) else array)
        for _ in loop.products:
            self.layout.add_product()
        self.scratch: dict[
            Array, tuple[int, int]
        ] = {}  # (numbers before it, its width) in each row of the thread's own space
        width = 0
        words: dict[Array, int] = {}
        if self.pairs or self.quads:
            words = {
                ("rounded", i): self._row_words(width_of(p.args))
                for i, p in enumerate(loop.products)
                if self.lhs[i] not in loop.halved
            }
        for array, n in {**self.schedule.scratch, **words}.items():
            padded = -(-n // self.lanes) * self.lanes
            self.scratch[array] = width, padded
            width += padded
        self.scratch_width = width  # numbers for each row

    def key(self) -> str:
        """All that the code depends on."""
        weights = [p.attribute for p in self.schedule.loop.products]
        narrow = [
            (u, h, self.program.arrays[h.array].width)
            for u, h in enumerate(self.program.hoisted)
            if is_narrow(self.program, u)
        ]
        return "\n".join(
            [
                "loop",
                self.operands,
                str(self.backward),
                "columns" if self.columns else str(self.by_units),
                str(weights),
                str(narrow),
                str(sorted(self.schedule.loop.halved)),
                *describe(self.schedule.loop.targets),
            ]
        )

    @property
    def parts(self) -> int:
        """Among how many tasks the units of a sequence can be shared out, a vector each, or the columns of a step, a panel each."""
        if self.columns:
            return max([1, *(-(-p.width // panel(self.target, self.dtype)) for p in self.schedule.loop.products)])
        if not self.by_units:
            return 1
        return max(-(-work.width // self.lanes) for work in sweeps(self.schedule))

    def text(self) -> str:
        module = self.module()
        define_tasks(module, "loop", self._body)
        return module.text()

    def module(self) -> Module:
        """An empty one, for its operands."""
        return module_of(self.target, self.operands)

    def _in_words(self, array: Array) -> Array:
        """A left operand where it lies in words, if it does."""
        return ("H", array[1]) if array[0] == "s" and ("H", array[1]) in self.schedule.loop.halved else array

    def _row_words(self, numbers: int) -> int:
        """Words of so many rounded numbers."""
        return quads.row_words(numbers, self.lanes, self.quads) if self.quads else -(-numbers // 2)

    def _body(self, code: Assembly, task: str) -> None:
        names = [n.rstrip("*") for n in HEAD]
        head = dict(zip(names, fields(code, "%args", *HEAD), strict=True))
        if self.columns:
            self._together(code, head, task)
            return
        if not self.by_units:
            self._through_time(code, head, task, task, {})
            return
        alone = code.let(f"icmp eq i64 {head['parts']}, 1")
        with code.when(alone):  # sweeps whose ends are known: LLVM writes them out
            self._through_time(code, head, task, task, {})
        with code.when(code.let(f"xor i1 {alone}, true")):
            group = code.let(f"udiv i64 {task}, {head['parts']}")
            part = code.sub(task, code.mul(group, head["parts"]))
            widths = {work.width for work in sweeps(self.schedule)}
            self._through_time(code, head, task, group, spans(code, widths, part, head["parts"]))

    def _together(self, code: Assembly, head: dict[str, str], task: str) -> None:
        """One task: a part in the steps of a group of sequences."""
        group = code.let(f"udiv i64 {task}, {head['parts']}")
        part = code.sub(task, code.mul(group, head["parts"]))
        number = code.slot("i64")
        code.store("i64", "0", number)
        waiting = pause(code, self.target.triple)
        columns = Columns(code, head["board"], part, head["parts"], number, head["offer"], waiting)
        self._through_time(code, head, group, group, {}, columns)

    def _through_time(
        self,
        code: Assembly,
        head: dict[str, str],
        own: str,
        group: str,
        shares: dict[int, Span],
        columns: Columns | None = None,
    ) -> None:
        """One task: the steps of a group of sequences, or of some of their units; or, with others, its share of each.

        own: the number of the space for what the task needs for itself.
        """
        self.spilled.clear()
        low = code.load("i64", code.at(head["bounds"], group, "i64"))
        high = code.load("i64", code.at(head["bounds"], code.add(group, 1), "i64"))
        space = code.at(head["scratch"], code.mul(own, head["stride"]))
        words = {
            array: [code.load(kind, code.at("%args", at + i, "i64")) for i, kind in enumerate(kinds_of(array))]
            for array, at in self.layout.words.items()
        }
        packed = [code.load("ptr", code.at("%args", at, "i64")) for at in self.layout.packed]
        shrinking = code.let(f"icmp ne ptr {head['active']}, null")
        # [rows, width] blocks of the thread's own space, one after the other
        rows_all = code.sub(high, low)
        spaces = {
            array: Block(code.at(space, code.mul(rows_all, before)), str(width))
            for array, (before, width) in self.scratch.items()
        }
        with code.loop(head["steps"]) as count:
            s = code.sub(code.sub(head["steps"], 1), count) if self.backward else count
            t = code.add(head["first"], code.mul(s, head["step"]))
            rows_slot = code.slot("i64")
            code.store("i64", rows_all, rows_slot)
            with code.when(shrinking):
                active = code.sub(code.load("i64", code.at(head["active"], t, "i64")), low)
                active = code.choose(code.less(active, 0), "0", active)
                code.store("i64", code.least(active, rows_all), rows_slot)
            rows = code.load("i64", rows_slot)
            time = Time(code, s, t, head["step"], low, self.schedule.loop.halved)
            step = Step(code, {array: time.block(array, w) for array, w in words.items()} | spaces, rows, shares)
            for stage in self.schedule.stages:
                self._products(step, stage.products, packed, head["tiles"], columns)
                if any(stage.phases):
                    with _phase(columns) as share:
                        self._pointwise(step, stage, share, head["parts"])

    def _products(self, step: Step, which: list[int], packed: list[str], table: str, columns: Columns | None) -> None:
        """Those of a stage."""
        code, parts = step.code, columns.parts if columns else ""
        lefts = {i: step.block(self.lhs[i]) for i in which}
        rounding = [i for i in which if ("rounded", i) in self.scratch]
        if rounding:
            with _phase(columns) as share:
                low, high = _portion(code, step.rows, share, parts)
                for i in rounding:
                    self._round(step, i, lefts[i], low, high)
            lefts |= {i: step.block(("rounded", i)) for i in rounding}
        if which:
            with _phase(columns) as share:
                for i in which:
                    self._product(step, i, lefts[i], packed[i], table, share, parts)

    def _pointwise(self, step: Step, stage: Stage, share: str | None, parts: str) -> None:
        """The work between products. A share of it: some units of all rows, or some rows where a sum goes along them."""
        code, low, high = step.code, "0", step.rows
        if share is not None:
            works = [work for phase in stage.phases for work in phase]
            if any(work.reductions for work in works):
                low, high = _portion(code, step.rows, share, parts)
            else:
                step = replace(step, spans=spans(code, {work.width for work in works}, share, parts))
        with code.loop(high, low) as row:
            RowCode(self.program, self.schedule, self.spilled, step, row).write(stage)

    def _product(self, step: Step, i: int, lhs: Block, packed: str, table: str, share: str | None, parts: str) -> None:
        """All panels of a product, or a share of them."""
        code, p = step.code, self.schedule.loop.products[i]
        depth, wide, out = width_of(p.args), panel(self.target, self.dtype), step.block(("product", i))
        panel_rows = depth
        if self.pairs or self.quads:
            depth = quads.words(depth, self.lanes) if self.quads else -(-depth // 2)
            panel_rows = depth + (quads.BELOW if self.quads else 0)
        stride = code.let(f"sdiv i64 {lhs.stride}, 2") if lhs.dtype else lhs.stride  # in words
        whole, left = divmod(p.width, wide)
        low, high = _portion(code, str(whole + (left > 0)), share, parts)

        def panels(first: str, vectors: int, columns: int) -> None:
            weights = Matrix(code.at(packed, code.mul(first, panel_rows)), str(vectors * self.lanes))
            operand, result = Matrix(lhs.at, stride), Matrix(code.at(out.at, first), out.stride)
            sizes = (step.rows, str(depth), str(columns), str(vectors))
            tiles(code, self.target, table, PanelProduct(operand, weights, result, NOTHING, *sizes))

        if whole:
            with code.loop(whole if share is None else code.least(high, whole), low) as number:
                panels(code.mul(number, wide), self.target.vectors, wide)
        if left:
            last = None if share is None else code.let(f"icmp sgt i64 {high}, {whole}")
            with nullcontext() if last is None else code.when(last):
                panels(str(whole * wide), -(-left // self.lanes), left)

    def _round(self, step: Step, i: int, lhs: Block, low: str, high: str) -> None:
        """Some rows of a left operand as words, in the thread's own space."""
        code, own, depth = step.code, step.block(("rounded", i)), width_of(self.schedule.loop.products[i].args)
        with code.loop(high, low) as row:
            into, source = code.at(own.at, code.mul(row, own.stride)), code.at(lhs.at, code.mul(row, lhs.stride))
            if self.quads:
                quads.round_row(code, source, str(depth), into, str(quads.words(depth, self.lanes)))
            else:
                round_row(code, source, str(depth), into)
            if self.pairs and depth % 2:
                code.store("bfloat", "0.0", code.at(into, depth, "bfloat"), align=2)


def _phase(columns: Columns | None) -> AbstractContextManager[str | None]:
    """What a thread does between two waits: a share of it, by number; all of it where there is nobody to wait for."""
    return nullcontext() if columns is None else columns.phase()


def _portion(code: Assembly, count: str, share: str | None, parts: str) -> tuple[str, str]:
    """The first and the end of what a share has of so many things; all of them where there are no shares."""
    if share is None:
        return "0", count
    low, high = (code.let(f"udiv i64 {code.mul(count, n)}, {parts}") for n in (share, code.add(share, 1)))
    return low, high
