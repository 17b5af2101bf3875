"""A block of steps of one stream, as LLVM assembly.

    void NAME_block(float *state, const float *x, float *y, int steps)   x [steps, inputs], y [steps, outputs]

What each step multiplies of its input alone is known for all of them: a few steps are taken together, layer by layer, and those
products are made for all of them with each weight loaded once. What is left is done step by step. Sums run in the order that they
have in a step, so that a block gives to the bit what its steps do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from throughtime.exporting.dots_llvm import Bytes
from throughtime.exporting.layers_llvm import PASSED, LayerCode
from throughtime.exporting.numbers_llvm import ATTRIBUTES, add, reserve, whole_number
from throughtime.exporting.stack import Stack
from throughtime.scanning.cpu.assembly import Assembly, Module


def define_block(
    module: Module, name: str, stack: Stack, layers: Sequence[LayerCode], steps: int, more: Callable[[Assembly], str]
) -> int:
    """Write NAME_block beside a NAME_step that is there. steps: that are taken together. more: what each step of a layer is passed
    besides.

    Returns: bytes of the stack that its own arrays take, beside those of a step.
    """
    inputs, outputs = layers[0].plan.inputs, layers[-1].plan.outputs
    if not any(layer.early for layer in layers) or isinstance(layers[0].dots, Bytes):
        steps = 1  # four products of bytes at once take as long as the weights do
    if steps > 1:
        for layer in layers:
            layer.define_rest()

    def body(code: Assembly) -> None:
        count = whole_number(code, code.choose(code.let("icmp sgt i32 %steps, 0"), "%steps", "0", "i32"))
        done = "0"
        if steps > 1:
            done = code.sub(count, code.let(f"urem {code.whole} {count}, {steps}"))
            products = reserve(code, steps * max(layer.given for layer in layers))
            with code.loop(done, step=steps) as t:
                x, y = code.at("%x", code.mul(t, inputs)), code.at("%y", code.mul(t, outputs))
                _together(code, stack, layers, (x, y, products), steps, more)
        with code.loop(count, done) as t:
            x, y = code.at("%x", code.mul(t, inputs)), code.at("%y", code.mul(t, outputs))
            code.line(f"call void @{name}_step(ptr %state, ptr {x}, ptr {y})")

    module.define(f"{name}_block", f"{PASSED}, i32 %steps", body, attributes=ATTRIBUTES)
    if steps == 1:
        return 0
    between = sum(layer.plan.outputs for layer in layers[:-1])
    return 4 * steps * (max(layer.given for layer in layers) + between + sum(layer.rounded for layer in layers))


def _together(
    code: Assembly,
    stack: Stack,
    layers: Sequence[LayerCode],
    rows: tuple[str, str, str],
    steps: int,
    more: Callable[[Assembly], str],
) -> None:
    """Some steps of all layers. rows: x, y, and the place of products."""
    x, y, products = rows
    state = 0
    for layer, shape in zip(layers, stack.layers, strict=True):
        plan = layer.plan
        to = y if layer is layers[-1] else reserve(code, steps * plan.outputs)
        layer.early_products(code, x, products, steps)
        with code.loop(steps) as t:
            one, out = code.at(x, code.mul(t, plan.inputs)), code.at(to, code.mul(t, plan.outputs))
            given = code.at(products, code.mul(t, layer.given))
            pointers = ", ".join(f"ptr {p}" for p in (code.at("%state", state), one, out, given))
            code.line(f"call void @rest_{plan.number}({pointers}{more(code)})")
            if shape.residual:
                add(code, one, out, plan.outputs)
        x, state = to, state + sum(plan.states)
