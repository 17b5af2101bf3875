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

from throughtime.errors import UserError
from throughtime.exporting.int8 import quantised
from throughtime.exporting.stack import Direction, Stack, Step
from throughtime.exporting.targets import ExportTarget
from throughtime.scanning.cpu.assembly import Assembly, Module
from throughtime.scanning.cpu.rows import Block, RowCode
from throughtime.scanning.cpu.rows import Step as Place
from throughtime.scanning.nodes import Node, width_of
from throughtime.scanning.program import Array
from throughtime.scanning.schedule import Schedule

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


def step_module(stack: Stack, name: str, target: ExportTarget, *, int8: bool = False) -> StepModule:
    """A stack that can step as functions NAME_init and NAME_step.

    int8: matrices in eight bits, each column with a scale of its own. Raises: UserError where an operation cannot be exported, or
    its numbers are not float32.
    """
    module = Module("float", target.lanes("float"), whole=target.whole, fused=False, rounds=target.rounds)
    layers = [LayerCode(module, target, number, d, int8) for number, d in enumerate(stack.directions)]
    for layer in layers:
        layer.define()
    widths = [layer.outputs for layer in layers[:-1]]
    first = torch.cat([s.reshape(-1) for s in stack.states])
    init = constant(module, "init", first)
    module.define(f"{name}_init", "ptr noalias %state", lambda code: copy(code, init, "%state", len(first)),
                  attributes=ATTRIBUTES)  # fmt: skip

    def body(code: Assembly) -> None:
        between = [reserve(code, width) for width in widths]
        state = 0
        for layer, shape, x, y in zip(layers, stack.layers, ["%x", *between], [*between, "%y"], strict=True):
            code.line(f"call void @layer_{layer.number}(ptr {code.at('%state', state)}, ptr {x}, ptr {y})")
            if shape.residual:
                add(code, x, y, layer.outputs)
            state += sum(layer.states)

    module.define(f"{name}_step", PASSED, body, attributes=ATTRIBUTES)
    called = [re.search(r"@(\w+)\(", d) for d in module.declarations if "@llvm." not in d]
    own = max(layer.reserved for layer in layers) + 4 * sum(padded(w, module.lanes) for w in widths)
    names = sorted(found[1] for found in called if found)
    return StepModule(module.text(), layers[0].inputs, layers[-1].outputs, len(first), own, tuple(names))


class LayerCode:
    """Writes one step of one cell, function `layer_NUMBER(state, x, y)`."""

    def __init__(self, module: Module, target: ExportTarget, number: int, direction: Direction, int8: bool) -> None:
        self.module, self.target, self.number, self.int8 = module, target, number, int8
        self.step: Step = direction.step()
        self.program = self.step.program
        captured = self.program.captured
        if captured.constants.dtype is not torch.float32:
            raise UserError(
                f"{direction.name} works in {captured.constants.dtype}, and is written in float32: convert it by .float()"
            )
        self.schedule = Schedule(self.program.forward)
        self.states = self.program.state_widths
        self.inputs, self.outputs = sum(captured.input_widths), width_of(self.program.extras[0])
        self.lanes = module.lanes
        scratch = {**self.schedule.scratch, **{("n", k): width for k, width in enumerate(self.states)}}
        self.scratch: dict[Array, int] = {array: padded(width, self.lanes) for array, width in scratch.items()}
        self.reserved = 4 * sum(self.scratch.values())

    def define(self) -> None:
        """Write it into the module."""
        self.module.define(
            f"layer_{self.number}", PASSED, self._body, kind="internal ", attributes=f"noinline {ATTRIBUTES}"
        )

    def _body(self, code: Assembly) -> None:
        blocks = {array: Block(reserve(code, width), "0") for array, width in self.scratch.items()}
        starts = list(itertools.accumulate(self.states, initial=0))
        blocks |= {("s", k): Block(code.at("%state", at), "0") for k, at in enumerate(starts[:-1])}
        begins = list(itertools.accumulate(self.program.captured.input_widths, initial=0))
        for i, node in enumerate(self.program.arrays):
            blocks["a", i] = Block(code.at("%x", begins[node.attribute[1]]), "0")
        for i in self.program.vector_widths:
            blocks["v", i] = Block(constant(self.module, f"vector_{self.number}_{i}", self.step.vectors[i]), "0")
        blocks["o", 0] = Block("%y", "0")
        place, spilled = Place(code, blocks, "1"), set[Node]()
        for stage in self.schedule.stages:
            for i in stage.products:
                self._product(code, i, blocks[self.schedule.lhs[i]].at, blocks["product", i].at)
            if any(stage.phases):
                RowCode(self.program, self.schedule, spilled, place, "0").write(stage)
        for k, width in enumerate(self.states):
            copy(code, blocks["n", k].at, blocks["s", k].at, width)

    def _product(self, code: Assembly, i: int, x: str, out: str) -> None:
        """A product, a panel of columns after the other, each as wide as registers hold sums for."""
        node = self.schedule.loop.products[i]
        matrix = torch.cat([self._matrix(w) for w in node.attribute], 1)
        vectors = padded(matrix.shape[1], self.lanes) // self.lanes
        count = -(-vectors // self.target.vectors)
        size = -(-vectors // count)  # of a panel: all but the last are the same
        scales = None
        if self.int8:
            matrix, scale = quantised(matrix)
            scales = constant(self.module, f"scales_{self.number}_{i}", widened(scale, self.lanes))
        weights = constant(
            self.module, f"weights_{self.number}_{i}", packed(widened(matrix, self.lanes), size * self.lanes)
        )
        panel = _Panel(code, x, len(matrix), self.int8)
        whole, left = divmod(vectors, size)
        wide = size * self.lanes
        kind = "i8" if self.int8 else ""
        with code.loop(whole) as number:
            first = code.mul(number, wide)
            begin = code.at(weights, code.mul(first, len(matrix)), kind)
            panel.write(begin, code.at(out, first), scales and code.at(scales, first), size)
        if left:
            first = str(whole * wide)
            begin = code.at(weights, whole * wide * len(matrix), kind)
            panel.write(begin, code.at(out, first), scales and code.at(scales, first), left)

    def _matrix(self, number: int) -> Tensor:
        """A matrix that a product names; a negative number is that of a transposed one."""
        return self.step.matrices[number] if number >= 0 else self.step.matrices[-1 - number].t()


@dataclass(frozen=True)
class _Panel:
    """Writes y[n] = sum_k x[k] weights[k, n] for the columns of a panel, times their scales where weights are whole numbers."""

    code: Assembly
    x: str
    depth: int
    int8: bool

    def write(self, weights: str, y: str, scales: str | None, vectors: int) -> None:
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
            if scales is not None:
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
