"""The pointwise work of a stage, on one row: sweeps over its features, a vector at a time."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field

from throughtime.scanning.cpu import functions
from throughtime.scanning.cpu.assembly import Assembly
from throughtime.scanning.cpu.lanes import across, combined
from throughtime.scanning.cpu.pairs import half_number, half_vector, rounded_number, store_half
from throughtime.scanning.cpu.units import Span
from throughtime.scanning.nodes import REDUCTIONS, Node, ordered
from throughtime.scanning.program import SUMMED, Array, Program
from throughtime.scanning.schedule import Schedule, Stage, Work

NARROW = 2  # a product of so few inputs is worked out in the loop, sooner than fetched from memory


def is_narrow(program: Program, hoisted: int) -> bool:
    """Whether a hoisted product is worked out within the loop after all."""
    return program.arrays[program.hoisted[hoisted].array].width <= NARROW


def sources(program: Program, leaf: Node) -> list[Array]:
    """The arrays a leaf is read from: itself, or what a narrow product is worked out of (`m`: its matrix, [K, n])."""
    kind, index = leaf.attribute[:2]
    if kind != "u" or not is_narrow(program, index):
        return [(kind, index)]
    h = program.hoisted[index]
    return [("a", h.array), ("m", index), *([] if h.bias is None else [("v", h.bias)])]


def destination(array: Array) -> Array:
    """The array a target is written to: the carried gradient goes to the other of its two buffers."""
    return ("C", array[1]) if array[0] == "c" else array


@dataclass(frozen=True)
class Block:
    """Rows in memory: the address of the thread's first, the row stride, and the type of number, if another than the loop's."""

    at: str
    stride: str
    dtype: str = ""


@dataclass(frozen=True)
class Step:
    """One step while its code is written: where the arrays are now, and how many rows of the thread still run. spans: by the width
    of a sweep, what the thread does of it; all of it where there are none."""

    code: Assembly
    blocks: dict[Array, Block]
    rows: str
    spans: dict[int, Span] = field(default_factory=dict)

    def block(self, array: Array) -> Block:
        """Where an array is read or, of a target, written."""
        return self.blocks[array] if array in self.blocks else self.blocks[destination(array)]


@dataclass(frozen=True)
class RowCode:
    """Writes the work on one row. spilled: values that an earlier sweep has written to the thread's own space; more are added.
    ways: reductions are added up in so many places, vector after vector, so that no sum waits for the one before."""

    program: Program
    schedule: Schedule
    spilled: set[Node]
    step: Step
    row: str
    pointers: dict[Array, str] = field(default_factory=dict)
    known: dict[Node, str] = field(default_factory=dict)  # values that are the same along the row, in every lane
    sums: dict[Node, list[str]] = field(default_factory=dict)  # where reductions are added up
    spilling: set[Node] = field(default_factory=set)  # values that the present sweep spills
    inputs: dict[Array, list[str]] = field(
        default_factory=dict
    )  # of narrow products: each of their numbers, in every lane
    ways: int = 1

    @property
    def code(self) -> Assembly:
        return self.step.code

    def write(self, stage: Stage) -> None:
        for phase in stage.phases:
            for work in phase:
                self._sweep(work)
            for reduction in dict.fromkeys(r for w in phase for r, _ in w.reductions):
                self._finish(reduction)

    def begin(self, work: Work) -> None:
        """Before its vectors are written one by one, by `vector`: what they need of the row."""
        for node, array, _ in work.stores:
            self._target(array)
            self._prepare(node)
        for reduction, node in work.reductions:
            self._prepare(node)
            if reduction not in self.sums:
                self.sums[reduction] = [self.code.slot(self.code.vector) for _ in range(self.ways)]
                neutral = self.code.literal(functions.NEUTRAL[reduction.op])
                for slot in self.sums[reduction]:
                    self.code.store(self.code.vector, neutral, slot)

    def vector(self, work: Work, j: str) -> None:
        """A whole vector of a sweep, from feature j on."""
        self._vectors(work, j, None)

    def _pointer(self, array: Array) -> str:
        """The address of this row."""
        if array not in self.pointers:
            block = self.step.block(array)
            distance = "0" if block.stride == "0" else self.code.mul(self.row, block.stride)
            self.pointers[array] = self.code.at(block.at, distance, block.dtype)
        return self.pointers[array]

    def _target(self, array: Array) -> str:
        """The address where a target is written."""
        return self._pointer(array if array in self.schedule.scratch else destination(array))

    def _sweep(self, work: Work) -> None:
        code = self.code
        self.begin(work)
        whole, left = divmod(work.width, code.lanes)
        span = self.step.spans.get(work.width)
        together = self.ways if work.reductions and span is None and whole % self.ways == 0 else 1
        if whole:
            first, end = ("0", str(whole * code.lanes)) if span is None else span[:2]
            with code.loop(end, first, step=code.lanes * together) as j:
                for way in range(together):
                    self._vectors(work, code.add(j, way * code.lanes), None, way)
        if left:
            with nullcontext() if span is None else code.when(span.last):
                self._vectors(work, str(whole * code.lanes), left)
        self.spilled.update(self.spilling)
        self.spilling.clear()

    def _vectors(self, work: Work, j: str, count: int | None, way: int = 0) -> None:
        code = self.code
        values: dict[Node, str] = {}
        for node, array, offset in work.stores:
            value = self._value(node, j, count, values)
            self._put(array, code.add(j, offset), value, count)
        for reduction, node in work.reductions:
            value = self._value(node, j, count, values)
            if count is not None:
                value = code.select(code.mask(count), value, code.literal(functions.NEUTRAL[reduction.op]))
            slot = self.sums[reduction][way]
            code.store(code.vector, combined(code, reduction.op, code.load(code.vector, slot), value), slot)

    def _put(self, array: Array, j: str, value: str, count: int | None) -> None:
        """Write a vector of a target, or add it to one that is added up."""
        code = self.code
        if array in self.schedule.loop.halved:
            store_half(code, value, code.at(self._target(array), j, "bfloat"), count)
            return
        at = code.at(self._target(array), j)
        if array[0].endswith(SUMMED):
            value = code.binary("fadd", code.load_vector(at, count), value)
        code.store_vector(value, at, count)

    def _finish(self, reduction: Node) -> None:
        """A reduction's lanes, brought together."""
        code = self.code
        total, *others = (code.load(code.vector, slot) for slot in self.sums[reduction])
        for other in others:
            total = combined(code, reduction.op, total, other)
        one = across(code, reduction.op, total)
        self.known[reduction] = code.splat(one)
        array = self.schedule.spilled.get(reduction)
        if array is not None:
            code.store(code.dtype, one, self._pointer(array))

    def _prepare(self, node: Node) -> None:
        """Before a sweep: the values that are the same along the row, and the addresses it reads."""
        for n in ordered([node], stop=self._stop):
            if n.op == "leaf":
                self._prepare_leaf(n)
            elif n.op in ("product", "slice"):
                self._pointer(self._product(n))
            if n in self.schedule.spilled:
                self._pointer(self.schedule.spilled[n])
            if n.width == 1 and n not in self.known and n.op != "expand":
                self.known[n] = self._one(n)

    def _prepare_leaf(self, leaf: Node) -> None:
        arrays = sources(self.program, leaf)
        for array in arrays:
            self._pointer(array)
        if len(arrays) > 1 and arrays[0] not in self.inputs:
            start, depth = self._pointer(arrays[0]), self.program.arrays[arrays[0][1]].width
            numbers = [self.code.load(self.code.dtype, self.code.at(start, k)) for k in range(depth)]
            if self.code.module.pairs:
                numbers = [rounded_number(self.code, number) for number in numbers]
            self.inputs[arrays[0]] = [self.code.splat(number) for number in numbers]

    def _product(self, node: Node) -> Array:
        """The array of a product, or of the one that a slice is of."""
        return "product", self.schedule.product_of[node.args[0] if node.op == "slice" else node]

    def _stop(self, node: Node) -> bool:
        """Whether a value is there, so that nothing below it is looked at."""
        return node.op in REDUCTIONS or node.op in ("product", "slice") or node in self.known or node in self.spilled

    def _one(self, node: Node) -> str:
        """A value of width 1, in every lane."""
        code = self.code
        if node.op == "number":
            return code.literal(node.attribute[0])
        if node.op in REDUCTIONS:  # done in an earlier stage
            return code.splat(code.load(code.dtype, self._pointer(self.schedule.spilled[node])))
        place = self._memory(node)
        if place is not None and self._is_half(node):
            return code.splat(half_number(code, code.at(*place, "bfloat")))
        if place is not None:
            return code.splat(code.load(code.dtype, code.at(*place)))
        if node.op == "leaf":
            return code.splat(code.let(f"extractelement {code.vector} {self._narrow(node, '0', 1)}, i64 0"))
        return functions.VECTORS[node.op](code, *(self.known[a] for a in node.args))

    def _memory(self, node: Node) -> tuple[str, int] | None:
        """Where a value lies, if it does."""
        if node.op == "leaf" and len(sources(self.program, node)) == 1:
            return self._pointer(node.attribute[:2]), node.attribute[2]
        if node.op in ("product", "slice"):
            return self._pointer(self._product(node)), node.attribute if node.op == "slice" else 0
        return None

    def _is_half(self, node: Node) -> bool:
        """Whether a value lies in bfloat16."""
        return node.op == "leaf" and node.attribute[:2] in self.schedule.loop.halved

    def _narrow(self, leaf: Node, j: str, count: int | None) -> str:
        """A narrow product's numbers, summed in the order of the product itself."""
        code = self.code
        _, index, offset = leaf.attribute
        array, matrix, *bias = sources(self.program, leaf)
        width = self.program.hoisted[index].width
        at = code.add(j, offset)
        total = code.load_vector(code.at(self._pointer(bias[0]), at), count) if bias else code.literal(0.0)
        for k, x in enumerate(self.inputs[array]):
            row = code.at(self._pointer(matrix), k * width)
            total = code.fma(x, code.load_vector(code.at(row, at), count), total)
        return total

    def _value(self, node: Node, j: str, count: int | None, values: dict[Node, str]) -> str:
        """A vector of a value, from feature j on."""
        code = self.code
        for n in ordered([node], stop=lambda n: self._stop(n) or n in values):
            if n in values or n in self.known:
                continue
            array, place = self.schedule.spilled.get(n), self._memory(n)
            if place is not None and self._is_half(n):
                values[n] = half_vector(code, code.at(place[0], code.add(j, place[1]), "bfloat"), count)
            elif place is not None:
                values[n] = code.load_vector(code.at(place[0], code.add(j, place[1])), count)
            elif array is not None and n in self.spilled:
                values[n] = code.load_vector(code.at(self._pointer(array), j), count)
            elif n.op == "leaf":
                values[n] = self._narrow(n, j, count)
            else:
                values[n] = functions.VECTORS[n.op](code, *(self.known.get(a) or values[a] for a in n.args))
                if array is not None:
                    code.store_vector(values[n], code.at(self._pointer(array), j), count)
                    self.spilling.add(n)
        return self.known.get(node) or values[node]
