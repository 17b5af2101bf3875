"""One step of a stack, for one stream, as LLVM assembly that needs nothing around it: weights and sizes are constants of the text.

    void NAME_init(float *state)                             the state that the stack starts from
    void NAME_step(float *state, const float *x, float *y)   one step: the state is read and replaced, the output goes to y

A state is one row of numbers, the states of all layers in order. A product's sums stay in registers over all of its depth, a panel
of columns at a time; what is between products and sweeps lies on the stack.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from throughtime.exporting.int8 import quantised
from throughtime.exporting.plan import LayerPlan, plans_of
from throughtime.exporting.reading import Reading
from throughtime.exporting.stack import Stack
from throughtime.exporting.targets import ExportTarget
from throughtime.scanning.cpu.assembly import Assembly, Module
from throughtime.scanning.cpu.rows import Block, RowCode
from throughtime.scanning.cpu.rows import Step as Place
from throughtime.scanning.nodes import Node

ATTRIBUTES = 'nounwind "no-builtins"'  # no loop becomes a call of memcpy
LEAST = 8  # sums that run beside each other, so that none waits for the one before
PASSED = "ptr noalias %state, ptr noalias readonly %x, ptr noalias %y"


@dataclass(frozen=True)
class StepModule:
    """LLVM assembly of a step. inputs, outputs, state: numbers. stack: bytes that its own arrays take there, at most.
    libm: functions of the C library that it calls."""

    text: str
    inputs: int
    outputs: int
    state: int
    stack: int
    libm: tuple[str, ...]


def step_module(
    stack: Stack, name: str, target: ExportTarget, *, int8: bool = False, reading: Reading | None = None
) -> StepModule:
    """A stack that can step as functions NAME_init and NAME_step; with `reading`, NAME_read and NAME_text besides:

        void NAME_read(float *state, int token, float *log_p)   a step that is given a token
        const char *NAME_text(int token)                        what it adds to a text that is written

    int8: matrices in eight bits, each column with a scale of its own. Raises: UserError where an operation cannot be exported, or
    its numbers are not float32.
    """
    module = Module("float", target.lanes("float"), whole=target.whole, fused=False, rounds=target.rounds)
    plans = plans_of(stack)
    layers = [LayerCode(module, target, plan, int8) for plan in plans]
    for layer in layers:
        layer.define()
    widths = [plan.outputs for plan in plans[:-1]]
    first = torch.cat([torch.zeros(0), *(s.reshape(-1) for s in stack.states)])
    init = constant(module, "init", first)
    module.define(f"{name}_init", "ptr noalias %state", lambda code: copy(code, init, "%state", len(first)),
                  attributes=ATTRIBUTES)  # fmt: skip

    def body(code: Assembly) -> None:
        between = [reserve(code, width) for width in widths]
        state = 0
        for plan, layer, x, y in zip(plans, stack.layers, ["%x", *between], [*between, "%y"], strict=True):
            code.line(f"call void @layer_{plan.number}(ptr {code.at('%state', state)}, ptr {x}, ptr {y})")
            if layer.residual:
                add(code, x, y, plan.outputs)
            state += sum(plan.states)

    module.define(f"{name}_step", PASSED, body, attributes=ATTRIBUTES)
    if reading is not None:
        _define_read(module, name, reading, int8)
        _define_text(module, name, reading)
    called = [re.search(r"@(\w+)\(", d) for d in module.declarations if "@llvm." not in d]
    own = max(layer.reserved for layer in layers) + 4 * sum(padded(w, module.lanes) for w in widths)
    names = sorted(found[1] for found in called if found)
    return StepModule(module.text(), plans[0].inputs, plans[-1].outputs, len(first), own, tuple(names))


class LayerCode:
    """Writes one step of one cell, function `layer_NUMBER(state, x, y)`."""

    def __init__(self, module: Module, target: ExportTarget, plan: LayerPlan, int8: bool) -> None:
        self.module, self.target, self.plan, self.int8 = module, target, plan, int8
        self.lanes = module.lanes
        self.scratch = {array: padded(width, self.lanes) for array, width in plan.scratch.items()}
        self.reserved = 4 * sum(self.scratch.values())

    def define(self) -> None:
        """Write it into the module."""
        name = f"layer_{self.plan.number}"
        self.module.define(name, PASSED, self._body, kind="internal ", attributes=f"noinline {ATTRIBUTES}")

    def _body(self, code: Assembly) -> None:
        plan, number = self.plan, self.plan.number
        blocks = {array: Block(reserve(code, width), "0") for array, width in self.scratch.items()}
        blocks |= {array: Block(code.at(f"%{to}", before), "0") for array, (to, before) in plan.passed.items()}
        for i, vector in plan.vectors.items():
            blocks["v", i] = Block(constant(self.module, f"vector_{number}_{i}", vector), "0")
        place, spilled = Place(code, blocks, "1"), set[Node]()
        for stage in plan.schedule.stages:
            for i in stage.products:
                self._product(code, i, blocks[plan.schedule.lhs[i]].at, blocks["product", i].at)
            if any(stage.phases):
                RowCode(plan.program, plan.schedule, spilled, place, "0").write(stage)
        for k, width in enumerate(plan.states):
            copy(code, blocks["n", k].at, blocks["s", k].at, width)

    def _product(self, code: Assembly, i: int, x: str, out: str) -> None:
        """A product, a panel of columns after the other, each as wide as registers hold sums for."""
        number, matrix = self.plan.number, self.plan.matrix(i)
        vectors = padded(matrix.shape[1], self.lanes) // self.lanes
        count = -(-vectors // self.target.vectors)
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
            write(code.mul(p, wide), size)
        if left:
            write(str(whole * wide), left)


@dataclass(frozen=True)
class _Panel:
    """Writes y[n] = sum_k x[k] weights[k, n] for the columns of a panel, times their scales where weights are whole numbers."""

    code: Assembly
    x: str
    depth: int
    int8: bool

    def write(self, weights: str, y: str, scales: str, vectors: int) -> None:
        code, lanes = self.code, self.code.lanes
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
                total = code.binary("fmul", total, _whole_vector(code, code.at(scales, v * lanes)))
            code.store(code.vector, total, code.at(y, v * lanes), _bytes(code))

    def _weights(self, begin: str, at: int) -> str:
        code = self.code
        if not self.int8:
            return _whole_vector(code, code.at(begin, at))
        eight = f"<{code.lanes} x i8>"
        found = code.load(eight, code.at(begin, at, "i8"), code.lanes)
        return code.let(f"sitofp {eight} {found} to {code.vector}")


def padded(width: int, lanes: int) -> int:
    """A width, up to whole vectors."""
    return -(-width // lanes) * lanes


def widened(matrix: Tensor, lanes: int) -> Tensor:
    """[..., N], up to whole vectors, with zeros."""
    return torch.nn.functional.pad(matrix, (0, padded(matrix.shape[-1], lanes) - matrix.shape[-1]))


def packed(matrix: Tensor, wide: int) -> Tensor:
    """A matrix [K, N] as panels of so many columns, one after the other, the last as wide as is left."""
    return torch.cat([panel.reshape(-1) for panel in torch.split(matrix, wide, 1)])


def _define_read(module: Module, name: str, reading: Reading, int8: bool) -> None:
    count, wide = reading.table.shape
    whole, scales = reading.quantised() if int8 else (reading.table, None)
    table = constant(module, "table", whole)
    scale = "" if scales is None else constant(module, "table_scales", scales)

    def body(code: Assembly) -> None:
        token = _known_token(code, count)
        with code.when(code.let(f"icmp eq i32 {token}, {reading.start}")):
            code.line(f"call void @{name}_init(ptr %state)")
        number = _whole(code, token)
        row = code.at(table, code.mul(number, wide), "i8" if int8 else "")
        if int8:
            times, made = code.load(code.dtype, code.at(scale, number)), reserve(code, wide)
            with code.loop(wide) as j:
                one = code.let(f"sitofp i8 {code.load('i8', code.at(row, j, 'i8'), 1)} to {code.dtype}")
                code.store(code.dtype, code.let(f"fmul {code.dtype} {one}, {times}"), code.at(made, j))
            row = made
        code.line(f"call void @{name}_step(ptr %state, ptr {row}, ptr %log_p)")

    module.define(f"{name}_read", "ptr noalias %state, i32 %token, ptr noalias %log_p", body, attributes=ATTRIBUTES)


def _define_text(module: Module, name: str, reading: Reading) -> None:
    data, starts = reading.text_bytes()
    texts = constant(module, "texts", torch.frombuffer(bytearray(data), dtype=torch.uint8))
    # what is no token: the zero that ends the last text
    places = constant(module, "text_starts", torch.tensor([*starts, len(data) - 1], dtype=torch.int32))

    def body(code: Assembly) -> None:
        number = _whole(code, _known_token(code, len(starts), len(starts)))
        at = _whole(code, code.load("i32", code.at(places, number, "i32"), 4))
        code.line(f"ret ptr {code.at(texts, at, 'i8')}")

    module.define(f"{name}_text", "i32 %token", body, returns="ptr", attributes=ATTRIBUTES)


def _known_token(code: Assembly, count: int, other: int = 0) -> str:
    """The argument `token`, or another number where it is none."""
    return code.choose(code.let(f"icmp ult i32 %token, {count}"), "%token", str(other), "i32")


def _whole(code: Assembly, number: str) -> str:
    """An i32, not negative, as the module's whole number."""
    return number if code.whole == "i32" else code.let(f"zext i32 {number} to {code.whole}")


def constant(module: Module, name: str, values: Tensor) -> str:
    """Numbers as a constant of the text, as bytes: a text of numbers is slow to read."""
    data = values.detach().cpu().contiguous().reshape(-1).numpy().tobytes()
    text = "\\" + data.hex("\\") if data else ""
    module.functions[name] = f'@{name} = internal constant [{len(data)} x i8] c"{text}", align 64'
    return f"@{name}"


def reserve(code: Assembly, width: int) -> str:
    """So many numbers on the stack."""
    name = code.name()
    code.slots.append(f"  {name} = alloca [{width} x {code.dtype}], align {_bytes(code)}")
    return name


def copy(code: Assembly, source: str, to: str, width: int) -> None:
    """Copy a row of numbers."""
    sweep(
        code,
        width,
        lambda j, count: code.store_vector(code.load_vector(code.at(source, j), count), code.at(to, j), count),
    )


def add(code: Assembly, x: str, y: str, width: int) -> None:
    """y += x, rows of numbers."""

    def some(j: str, count: int | None) -> None:
        at = code.at(y, j)
        total = code.binary("fadd", code.load_vector(at, count), code.load_vector(code.at(x, j), count))
        code.store_vector(total, at, count)

    sweep(code, width, some)


def sweep(code: Assembly, width: int, some: Callable[[str, int | None], None]) -> None:
    """A row in whole vectors, each from a number on, and what is left of one."""
    whole = width - width % code.lanes
    if whole:
        with code.loop(whole, step=code.lanes) as j:
            some(j, None)
    if width > whole:
        some(str(whole), width - whole)


def _bytes(code: Assembly) -> int:
    """Of a vector: what arrays of the code's own are aligned to."""
    return code.lanes * code.bytes


def _whole_vector(code: Assembly, pointer: str) -> str:
    """A vector of an array of the code's own."""
    return code.load(code.vector, pointer, _bytes(code))
