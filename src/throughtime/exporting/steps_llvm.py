"""One step of a stack, for one stream, as LLVM assembly that needs nothing around it: weights and sizes are constants of the text.

    void NAME_init(float *state)                             the state that the stack starts from
    void NAME_step(float *state, const float *x, float *y)   one step: the state is read and replaced, the output goes to y
    void NAME_block(…, int steps)                            as many steps, one after the other (`blocks_llvm`)

A state is one row of numbers, the states of all layers in order, and where weights are read in turns one more: from which end the
next step reads them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from throughtime.exporting.blocks_llvm import define_block
from throughtime.exporting.layers_llvm import CACHE, PASSED, LayerCode
from throughtime.exporting.numbers_llvm import ATTRIBUTES, add, constant, copy, padded, reserve, whole_number
from throughtime.exporting.plan import plans_of
from throughtime.exporting.reading import Reading
from throughtime.exporting.stack import Stack
from throughtime.exporting.targets import ExportTarget
from throughtime.scanning.cpu.assembly import Assembly, Module


@dataclass(frozen=True)
class StepModule:
    """LLVM assembly of a step. inputs, outputs, state: numbers; own: how many of the state, at its end, are the step's own, which
    begin as 0 and may be any. stack: bytes that its own arrays take there, at most; block: those of a block. libm: functions of
    the C library that it calls."""

    text: str
    inputs: int
    outputs: int
    state: int
    own: int
    stack: int
    block: int
    libm: tuple[str, ...]


def step_module(
    stack: Stack, name: str, target: ExportTarget, *, int8: bool = False, reading: Reading | None = None
) -> StepModule:
    """A stack that can step as functions NAME_init, NAME_step and NAME_block; with `reading`, NAME_read and NAME_text besides:

        void NAME_read(float *state, int token, float *log_p)   a step that is given a token
        const char *NAME_text(int token)                        what it adds to a text that is written

    int8: matrices in eight bits, each column with a scale of its own. Raises: UserError where an operation cannot be exported, or
    its numbers are not float32.
    """
    module = Module("float", target.lanes("float"), whole=target.whole, fused=False, rounds=target.rounds)
    plans = plans_of(stack)
    turns = target.turns and len(plans) == 1 and plans[0].constants(int8) > CACHE
    layers = [LayerCode(module, target, plan, int8, turns) for plan in plans]
    for layer in layers:
        layer.define()
    widths = [plan.outputs for plan in plans[:-1]]
    first = torch.cat([*(s.reshape(-1) for s in stack.states), torch.zeros(int(turns))])
    init = constant(module, "init", first)
    module.define(f"{name}_init", "ptr noalias %state", lambda code: copy(code, init, "%state", len(first)),
                  attributes=ATTRIBUTES)  # fmt: skip

    def more(code: Assembly) -> str:
        return f", {code.whole} {_turn(code, len(first) - 1)}" if turns else ""

    def body(code: Assembly) -> None:
        between = [reserve(code, width) for width in widths]
        state, passed = 0, more(code)
        for plan, layer, x, y in zip(plans, stack.layers, ["%x", *between], [*between, "%y"], strict=True):
            code.line(f"call void @layer_{plan.number}(ptr {code.at('%state', state)}, ptr {x}, ptr {y}{passed})")
            if layer.residual:
                add(code, x, y, plan.outputs)
            state += sum(plan.states)

    module.define(f"{name}_step", PASSED, body, attributes=ATTRIBUTES)
    beside = define_block(module, name, stack, layers, target.steps, more)
    if reading is not None:
        _define_read(module, name, reading, int8)
        _define_text(module, name, reading)
    called = [re.search(r"@(\w+)\(", d) for d in module.declarations if "@llvm." not in d]
    own = max(layer.reserved for layer in layers) + 4 * sum(padded(w, module.lanes) for w in widths)
    names = sorted(found[1] for found in called if found)
    return StepModule(
        module.text(), plans[0].inputs, plans[-1].outputs, len(first), int(turns), own, own + beside, tuple(names)
    )


def _turn(code: Assembly, at: int) -> str:
    """From which end the weights are read, 0 or 1, as a number of the state says; the next time from the other."""
    pointer = code.at("%state", at)
    one = code.let(f"fcmp oeq {code.dtype} {code.load(code.dtype, pointer)}, 1.0")
    code.store(code.dtype, code.choose(one, "0.0", "1.0", code.dtype), pointer)
    return code.let(f"zext i1 {one} to {code.whole}")


def _define_read(module: Module, name: str, reading: Reading, int8: bool) -> None:
    count, wide = reading.table.shape
    whole, scales = reading.quantised() if int8 else (reading.table, None)
    table = constant(module, "table", whole)
    scale = "" if scales is None else constant(module, "table_scales", scales)

    def body(code: Assembly) -> None:
        token = _known_token(code, count)
        with code.when(code.let(f"icmp eq i32 {token}, {reading.start}")):
            code.line(f"call void @{name}_init(ptr %state)")
        number = whole_number(code, token)
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
        number = whole_number(code, _known_token(code, len(starts), len(starts)))
        at = whole_number(code, code.load("i32", code.at(places, number, "i32"), 4))
        code.line(f"ret ptr {code.at(texts, at, 'i8')}")

    module.define(f"{name}_text", "i32 %token", body, returns="ptr", attributes=ATTRIBUTES)


def _known_token(code: Assembly, count: int, other: int = 0) -> str:
    """The argument `token`, or another number where it is none."""
    return code.choose(code.let(f"icmp ult i32 %token, {count}"), "%token", str(other), "i32")
