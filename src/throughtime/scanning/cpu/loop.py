"""A loop of a program as a compiled function: each thread takes some sequences and runs them through all steps.

At each stage of a step come the products, all rows of the thread at once, then the pointwise work between them, row by row, on
sums that are still in cache. Where no unit reads another, threads share out the units of a sequence as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from throughtime.scanning.cpu.arguments import HEAD, Layout, kinds_of
from throughtime.scanning.cpu.assembly import Assembly, Module
from throughtime.scanning.cpu.pairs import round_row
from throughtime.scanning.cpu.rows import Block, RowCode, Step, destination, is_narrow, sources
from throughtime.scanning.cpu.target import Target
from throughtime.scanning.cpu.tasks import define_tasks, fields
from throughtime.scanning.cpu.tiles import NOTHING, Matrix, PanelProduct, panel, tiles
from throughtime.scanning.cpu.units import Span, by_themselves, spans, sweeps
from throughtime.scanning.equations import describe
from throughtime.scanning.nodes import Node, width_of
from throughtime.scanning.program import Array, Loop, Program
from throughtime.scanning.schedule import Schedule


class LoopCode:
    """Writes the function of one loop."""

    def __init__(self, program: Program, loop: Loop, target: Target, operands: str, backward: bool) -> None:
        """operands: of products, `float`, `double`, or `bfloat16` beside all else in `float`."""
        self.program, self.target, self.backward = program, target, backward
        self.pairs = operands == "bfloat16"
        self.dtype = dtype = "float" if self.pairs else operands
        self.schedule = Schedule(loop)
        self.by_units = by_themselves(self.schedule)  # whether tasks may share out the units of a sequence
        self.lanes = target.lanes(dtype)
        self.spilled: set[Node] = set()  # values that an earlier sweep has written to the thread's own space
        self.layout = Layout()
        for node in self.schedule.nodes:
            if node.op == "leaf":
                for array in sources(self.program, node):
                    self.layout.add(array)
        for array, _ in loop.targets:
            self.layout.add(destination(array))
        for array in self.schedule.lhs:
            if array not in self.schedule.scratch:
                self.layout.add(destination(array) if array in dict(loop.targets) else array)
        for _ in loop.products:
            self.layout.add_product()
        self.scratch: dict[
            Array, tuple[int, int]
        ] = {}  # (numbers before it, its width) in each row of the thread's own space
        width = 0
        words = {("rounded", i): -(-width_of(p.args) // 2) for i, p in enumerate(loop.products) if self.pairs}
        for array, n in {**self.schedule.scratch, **words}.items():
            padded = -(-n // self.lanes) * self.lanes
            self.scratch[array] = width, padded
            width += padded
        self.scratch_width = width  # numbers for each row

    def key(self) -> str:
        """All that the code depends on."""
        operands = "bfloat16" if self.pairs else self.dtype
        weights = [p.attribute for p in self.schedule.loop.products]
        narrow = [
            (u, h, self.program.arrays[h.array].width)
            for u, h in enumerate(self.program.hoisted)
            if is_narrow(self.program, u)
        ]
        return "\n".join(
            [
                "loop",
                operands,
                str(self.backward),
                str(self.by_units),
                str(weights),
                str(narrow),
                *describe(self.schedule.loop.targets),
            ]
        )

    @property
    def parts(self) -> int:
        """Among how many tasks the units of a sequence can be shared out, a vector each."""
        if not self.by_units:
            return 1
        return max(-(-work.width // self.lanes) for work in sweeps(self.schedule))

    def text(self) -> str:
        module = Module(self.dtype, self.lanes, pairs=self.pairs)
        define_tasks(module, "loop", self._body)
        return module.text()

    def _body(self, code: Assembly, task: str) -> None:
        names = [n.rstrip("*") for n in HEAD]
        head = dict(zip(names, fields(code, "%args", *HEAD), strict=True))
        if not self.by_units:
            self._through_time(code, head, task, task, {})
            return
        alone = code.let(f"icmp eq i64 {head['parts']}, 1")
        with code.when(alone):  # sweeps whose ends are known: LLVM writes them out
            self._through_time(code, head, task, task, {})
        with code.when(code.let(f"xor i1 {alone}, true")):
            group = code.let(f"udiv i64 {task}, {head['parts']}")
            part = code.sub(task, code.mul(group, head["parts"]))
            self._through_time(code, head, task, group, spans(code, self.schedule, part, head["parts"]))

    def _through_time(
        self, code: Assembly, head: dict[str, str], task: str, group: str, shares: dict[int, Span]
    ) -> None:
        """One task: the steps of a group of sequences, or of some of their units."""
        self.spilled.clear()
        low = code.load("i64", code.at(head["bounds"], group, "i64"))
        high = code.load("i64", code.at(head["bounds"], code.add(group, 1), "i64"))
        space = code.at(head["scratch"], code.mul(task, head["stride"]))
        words = {
            array: [code.load(kind, code.at("%args", at + i, "i64")) for i, kind in enumerate(kinds_of(array))]
            for array, at in self.layout.words.items()
        }
        packed = [code.load("ptr", code.at("%args", at, "i64")) for at in self.layout.packed]
        shrinking = code.let(f"icmp ne ptr {head['active']}, null")
        # [rows, width] blocks of the thread's own space, one after the other
        rows_all = code.sub(high, low)
        own = {
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
            time = _Time(code, s, t, head["step"], low)
            step = Step(code, {array: time.block(array, w) for array, w in words.items()} | own, rows, shares)
            for stage in self.schedule.stages:
                for i in stage.products:
                    self._product(step, i, packed[i], head["tiles"])
                if any(stage.phases):
                    with code.loop(rows) as row:
                        RowCode(self.program, self.schedule, self.spilled, step, row).write(stage)

    def _product(self, step: Step, i: int, packed: str, table: str) -> None:
        code, p = step.code, self.schedule.loop.products[i]
        depth, wide = width_of(p.args), panel(self.target, self.dtype)
        lhs, out = step.block(self.schedule.lhs[i]), step.block(("product", i))
        if self.pairs:
            lhs, depth = self._rounded(step, i, lhs, depth), -(-depth // 2)
        whole, left = divmod(p.width, wide)

        def panels(first: str, vectors: int, columns: int) -> None:
            weights = Matrix(code.at(packed, code.mul(first, depth)), str(vectors * self.lanes))
            operand, result = Matrix(lhs.at, lhs.stride), Matrix(code.at(out.at, first), out.stride)
            sizes = (step.rows, str(depth), str(columns), str(vectors))
            tiles(code, self.target, table, PanelProduct(operand, weights, result, NOTHING, *sizes))

        if whole:
            with code.loop(whole) as number:
                panels(code.mul(number, wide), self.target.vectors, wide)
        if left:
            panels(str(whole * wide), -(-left // self.lanes), left)

    def _rounded(self, step: Step, i: int, lhs: Block, depth: int) -> Block:
        """The left operand's rows in bfloat16, in the thread's own space."""
        code, own = step.code, step.block(("rounded", i))
        with code.loop(step.rows) as row:
            into = code.at(own.at, code.mul(row, own.stride))
            round_row(code, code.at(lhs.at, code.mul(row, lhs.stride)), str(depth), into)
            if depth % 2:
                code.store("bfloat", "0.0", code.at(into, depth, "bfloat"), align=2)
        return own


@dataclass(frozen=True)
class _Time:
    """A step's number in the loop's order and in memory, the direction, and the thread's first sequence."""

    code: Assembly
    s: str
    t: str
    step: str
    low: str

    def block(self, array: Array, words: list[str]) -> Block:
        """Where an array is at this step."""
        code = self.code
        if array[0] in ("v", "m"):
            return Block(words[0], "0")
        stride = words[2]
        if array[0] in ("c", "C"):  # two buffers in turn: step s reads number (s + 1) % 2 and writes number s % 2
            number = code.let(f"and i64 {code.add(self.s, 1) if array[0] == 'c' else self.s}, 1")
            even = code.let(f"icmp eq i64 {number}, 0")
            base = code.choose(even, words[0], words[3], "ptr")
        elif array[0] == "s":  # the state before: the initial one at first, then what the step before left
            first = code.let(f"icmp eq i64 {self.s}, 0")
            before = code.at(words[0], code.mul(code.sub(self.t, self.step), words[1]))
            base = code.choose(first, words[3], before, "ptr")
            stride = code.choose(first, words[4], words[2])
        else:
            base = code.at(words[0], code.mul(self.t, words[1]))
        return Block(code.at(base, code.mul(self.low, stride)), stride)
