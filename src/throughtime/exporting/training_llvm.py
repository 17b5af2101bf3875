"""One step of a stack, forwards and backwards, for one stream, as LLVM assembly: its weights lie in memory, where they are trained.

    void NAME_init(float *state)                                   the state that the stack starts from
    void NAME_weights(float *weights)                              the weights that it has
    void NAME_forward(weights, state, x, y, tape)                  one step, which is written down on the tape
    void NAME_backward(weights, gradients, tape, dy, dstate, dx)   the same step backwards

All are rows of float32. Backwards `dy` is the gradient of what the step gave, and `dstate` that of the state after it, which
becomes that of the state before; `dx` is written. The gradient of the weights is added to `gradients`, which lie as they do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from throughtime.errors import UserError
from throughtime.exporting.numbers_llvm import ATTRIBUTES, add, constant, copy, padded, reserve, sweep
from throughtime.exporting.plan import LayerPlan
from throughtime.exporting.stack import Direction, Stack
from throughtime.exporting.targets import ExportTarget
from throughtime.exporting.weights import Part, weights_of
from throughtime.scanning.backward import backward
from throughtime.scanning.cpu.assembly import Assembly, Module
from throughtime.scanning.cpu.lanes import across
from throughtime.scanning.cpu.rows import Block, RowCode
from throughtime.scanning.cpu.rows import Step as Place
from throughtime.scanning.nodes import Node, width_of
from throughtime.scanning.program import Array
from throughtime.scanning.schedule import Schedule

ROWS = 4  # of a matrix that are taken together where a row of numbers meets each of them
FORWARD = ("weights", "state", "x", "y", "tape")
BACKWARD = ("weights", "gradients", "tape", "dy", "dstate", "dx")


@dataclass(frozen=True)
class TrainingModule:
    """LLVM assembly of steps both ways.

    weights, tape: numbers. parts: of the weights: the number of a layer, the array of its program, where it lies. stack: bytes
    that its own arrays take there, at most. libm: functions of the C library that it calls.
    """

    text: str
    weights: int
    parts: tuple[tuple[int, Array, Part], ...]
    tape: int
    stack: int
    libm: tuple[str, ...]


def training_module(stack: Stack, name: str, target: ExportTarget) -> TrainingModule:
    """A stack that can step, as functions that train it.

    Raises: UserError where an operation cannot be exported, its numbers are not float32, or its parameters cannot be trained there.
    """
    module = Module("float", target.lanes("float"), whole=target.whole, fused=False, rounds=target.rounds)
    layers = [LayerTraining(module, target, number, d) for number, d in enumerate(stack.directions)]
    if not any(layer.weights.trained for layer in layers):
        raise UserError(
            f"{stack.name} cannot be trained where it goes: it steps by no parameter that asks for gradients"
        )
    numbers = [layer.weights.values for layer in layers]
    _define_copy(module, f"{name}_weights", torch.cat(numbers))
    _define_copy(module, f"{name}_init", torch.cat([torch.zeros(0), *(s.flatten() for s in stack.states)]))
    widths = [layer.plan.outputs for layer in layers]
    # where the rows of each layer begin, in those of the stack
    weights, state = _starts(map(len, numbers)), _starts(sum(layer.plan.states) for layer in layers)
    starts = {"weights": weights, "gradients": weights, "state": state, "dstate": state,
              "tape": _starts(layer.tape for layer in layers)}  # fmt: skip

    def call(code: Assembly, way: str, number: int, names: Sequence[str], rows: dict[str, str]) -> None:
        passed = [rows.get(n) or code.at(f"%{n}", starts[n][number]) for n in names]
        code.line(f"call void @{way}_{number}({', '.join(f'ptr {p}' for p in passed)})")

    def forward(code: Assembly) -> None:
        rows = ["%x", *(reserve(code, padded(w, code.lanes)) for w in widths[:-1]), "%y"]
        for number, shape in enumerate(stack.layers):
            call(code, "forward", number, FORWARD, {"x": rows[number], "y": rows[number + 1]})
            if shape.residual:
                add(code, rows[number], rows[number + 1], widths[number])

    def backward(code: Assembly) -> None:
        rows = ["%dx", *(reserve(code, padded(w, code.lanes)) for w in widths[:-1]), "%dy"]
        for number, shape in reversed([*enumerate(stack.layers)]):
            call(code, "backward", number, BACKWARD, {"dx": rows[number], "dy": rows[number + 1]})
            if shape.residual:
                add(code, rows[number + 1], rows[number], widths[number])

    module.define(f"{name}_forward", _passed(FORWARD), forward, attributes=ATTRIBUTES)
    module.define(f"{name}_backward", _passed(BACKWARD), backward, attributes=ATTRIBUTES)
    called = {found[1] for d in module.declarations if (found := re.search(r"@(?!llvm\.)(\w+)\(", d))}
    between = 4 * sum(padded(w, module.lanes) for w in widths[:-1])
    parts = []
    for number, layer in enumerate(layers):
        before = f"layer{number}_" if len(layers) > 1 else ""
        for array, part in layer.weights.parts.items():
            placed = replace(part, name=before + part.name, offset=weights[number] + part.offset)
            parts.append((number, array, placed))
    own_arrays = max(layer.reserved for layer in layers) + between
    return TrainingModule(
        module.text(), weights[-1], tuple(parts), starts["tape"][-1], own_arrays, tuple(sorted(called))
    )


def _define_copy(module: Module, name: str, values: Tensor) -> None:
    """A function that writes these numbers."""
    own = constant(module, f"{name}_values", values)
    module.define(name, _passed(["to"]), lambda code: copy(code, own, "%to", len(values)), attributes=ATTRIBUTES)


def _passed(names: Sequence[str]) -> str:
    return ", ".join(f"ptr %{name}" for name in names)


def _starts(widths: Iterable[int]) -> list[int]:
    """Where rows one after the other begin, and where the last ends."""
    return [*accumulate(widths, initial=0)]


class LayerTraining:
    """Writes the functions of a layer, forward_NUMBER and backward_NUMBER. weights: where they lie. tape: numbers that a step
    writes there. reserved: bytes of the stack."""

    def __init__(self, module: Module, target: ExportTarget, number: int, direction: Direction) -> None:
        self.module, self.target, self.number, self.lanes = module, target, number, module.lanes
        self.plan = plan = LayerPlan(number, direction)
        self.weights = weights_of(direction, plan, module.lanes)
        arrays = [("a", i) for i in range(len(plan.program.arrays))]
        self.gradients = backward(plan.program, frozenset({*self.weights.trained, *arrays}))
        saved = [width_of(row) for row in self.gradients.saved]
        # a step's row of the tape: what it was given, the state before and after, and values that its derivative reads
        self.starts = dict(
            zip(("x", "s", "n", "k"), _starts([plan.inputs, sum(plan.states), sum(plan.states)]), strict=False)
        )
        self.on_tape = {array: self.starts["x"] + plan.passed[array][1] for array in arrays}
        for kind, widths in (("s", plan.states), ("n", plan.states), ("k", saved)):
            self.on_tape |= {(kind, i): self.starts[kind] + at for i, at in enumerate(_starts(widths)[:-1])}
        self.tape = self.starts["k"] + sum(saved)
        self.reserved = 0
        for way, names, body in (("forward", FORWARD, self._forward), ("backward", BACKWARD, self._backward)):
            module.define(
                f"{way}_{number}", _passed(names), body, kind="internal ", attributes=f"noinline {ATTRIBUTES}"
            )

    def _forward(self, code: Assembly) -> None:
        plan, state = self.plan, sum(self.plan.states)
        copy(code, "%x", code.at("%tape", self.starts["x"]), plan.inputs)
        copy(code, "%state", code.at("%tape", self.starts["s"]), state)
        schedule = Schedule(self.gradients.forward)
        blocks = self._given(code) | {("o", 0): Block("%y", "0")}
        self._steps(code, schedule, blocks)
        copy(code, code.at("%tape", self.starts["n"]), "%state", state)

    def _backward(self, code: Assembly) -> None:
        plan, loop = self.plan, self.gradients.loop
        zeros = constant(self.module, f"zeros_{self.number}", torch.zeros(max(plan.states, default=0)))
        blocks = self._given(code) | {("g", k): Block(zeros, "0") for k in range(len(plan.states))}
        blocks["g", len(plan.states)] = Block("%dy", "0")
        blocks |= {("c", k): Block(code.at("%dstate", at), "0") for k, at in enumerate(_starts(plan.states)[:-1])}
        for (kind, i), row in loop.targets:
            blocks["C" if kind == "c" else kind, i] = self._own(code, width_of(row))
        self._steps(code, Schedule(loop), blocks)

        def found(array: Array) -> str:
            return blocks[self.gradients.shared.get(array, array)].at

        for k, width in enumerate(plan.states):
            copy(code, blocks["C", k].at, blocks["c", k].at, width)
        sweep(code, plan.inputs, lambda j, n: code.store_vector(code.literal(0.0), code.at("%dx", j), n))
        for kind, i in self.gradients.widths:
            if kind == "A":
                copy(code, found(("A", i)), code.at("%dx", plan.passed["a", i][1]), self.gradients.widths["A", i])
            elif kind == "V":
                to = code.at("%gradients", self.weights.parts["v", i].offset)
                add(code, found(("V", i)), to, self.gradients.widths["V", i])
        for p, (lhs, numbers) in enumerate(zip(self.gradients.lhs, self.gradients.weights, strict=True)):
            at = 0
            for w in numbers:
                if ("w", w) in self.weights.trained:
                    self._outer(code, w, blocks[lhs].at, code.at(found(("d", p)), at))
                at += self.weights.parts["w", w].shape[1]

    def _given(self, code: Assembly) -> dict[Array, Block]:
        """What lies in memory: the tape, and constant rows."""
        rows = {("v", i): code.at("%weights", self.weights.parts["v", i].offset) for i in self.plan.vectors}
        tape = {array: code.at("%tape", at) for array, at in self.on_tape.items()}
        return {array: Block(at, "0") for array, at in (rows | tape).items()}

    def _own(self, code: Assembly, width: int) -> Block:
        """A row on the stack; whole vectors may be written from any of its numbers on."""
        width = padded(width, self.lanes) + self.lanes
        self.reserved += 4 * width
        return Block(reserve(code, width), "0")

    def _steps(self, code: Assembly, schedule: Schedule, blocks: dict[Array, Block]) -> None:
        """What a loop does in a step. blocks: where all its arrays are, but for those of its own."""
        blocks |= {array: self._own(code, width) for array, width in schedule.scratch.items()}
        place, spilled = Place(code, blocks, "1"), set[Node]()
        for stage in schedule.stages:
            for i in stage.products:
                self._product(code, schedule.loop.products[i], blocks[schedule.lhs[i]].at, blocks["product", i].at)
            if any(stage.phases):
                RowCode(self.plan.program, schedule, spilled, place, "0").write(stage)

    # products

    def _matrix(self, code: Assembly, w: int, base: str = "%weights") -> tuple[str, int, int, int]:
        """Where a matrix begins, its rows, its columns, and how many numbers lie between its rows."""
        part = self.weights.parts["w", w]
        rows, columns = part.shape
        return code.at(base, part.offset), rows, columns, part.stride

    def _product(self, code: Assembly, product: Node, x: str, out: str) -> None:
        if product.attribute[0] < 0:
            self._times_transposed(code, [-1 - w for w in product.attribute], x, out, product.width)
            return
        at = 0
        for w in product.attribute:
            self._times(code, w, x, code.at(out, at))
            at += self.weights.parts["w", w].shape[1]

    def _times(self, code: Assembly, w: int, x: str, out: str) -> None:
        """out = x W, a panel of columns after the other."""
        begin, rows, _, stride = self._matrix(code, w)
        vectors = stride // self.lanes
        size = min(vectors, self.target.vectors)

        def panel(first: str, count: int) -> None:
            sums = [code.slot(code.vector) for _ in range(count)]
            for slot in sums:
                code.store(code.vector, "zeroinitializer", slot)
            with code.loop(rows) as k:
                one = code.splat(code.load(code.dtype, code.at(x, k)))
                row = code.at(begin, code.add(code.mul(k, stride), first))
                for v, slot in enumerate(sums):
                    column = code.load_vector(code.at(row, v * self.lanes))
                    code.store(code.vector, code.fma(one, column, code.load(code.vector, slot)), slot)
            for v, slot in enumerate(sums):
                code.store_vector(code.load(code.vector, slot), code.at(code.at(out, first), v * self.lanes))

        whole, left = divmod(vectors, size)
        with code.loop(whole) as p:
            panel(code.mul(p, size * self.lanes), size)
        if left:
            panel(str(whole * size * self.lanes), left)

    def _times_transposed(self, code: Assembly, numbers: Sequence[int], d: str, out: str, depth: int) -> None:
        """out = the sum over matrices W of d Wᵀ, each of which meets a part of d; a few rows of them after the other."""

        def some(k: str, count: int) -> None:
            sums = [code.slot(code.vector) for _ in range(count)]
            for slot in sums:
                code.store(code.vector, "zeroinitializer", slot)
            at = 0
            for w in numbers:
                begin, _, columns, stride = self._matrix(code, w)
                rows = [code.at(begin, code.mul(code.add(k, r), stride)) for r in range(count)]
                part = code.at(d, at)

                def meet(j: str, left: int | None, part: str = part, rows: list[str] = rows) -> None:
                    gradient = code.load_vector(code.at(part, j), left)
                    for row, slot in zip(rows, sums, strict=True):
                        column = code.load_vector(code.at(row, j))
                        code.store(code.vector, code.fma(gradient, column, code.load(code.vector, slot)), slot)

                sweep(code, columns, meet)
                at += columns
            for r, slot in enumerate(sums):
                total = across(code, "sum", code.load(code.vector, slot))
                code.store(code.dtype, total, code.at(out, code.add(k, r)))

        whole = depth - depth % ROWS
        with code.loop(whole, step=ROWS) as k:
            some(k, ROWS)
        if depth > whole:
            some(str(whole), depth - whole)

    def _outer(self, code: Assembly, w: int, lhs: str, d: str) -> None:
        """Add the products of all numbers of two rows to the gradient of a matrix."""
        begin, rows, columns, stride = self._matrix(code, w, "%gradients")
        with code.loop(rows) as k:
            one = code.splat(code.load(code.dtype, code.at(lhs, k)))
            row = code.at(begin, code.mul(k, stride))

            def some(j: str, left: int | None) -> None:
                at = code.at(row, j)
                code.store_vector(code.fma(one, code.load_vector(code.at(d, j), left), code.load_vector(at)), at)

            sweep(code, columns, some)
