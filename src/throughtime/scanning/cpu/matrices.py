"""The products of whole tensors by the compiled code: for what was hoisted out of time, and for the gradients of weights."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from throughtime.scanning.cpu import memory, product, quads, threads
from throughtime.scanning.cpu.packing import packed_size
from throughtime.scanning.cpu.target import host
from throughtime.scanning.cpu.tiles import panel, tile_rows
from throughtime.scanning.evaluate import bfloat16_linear
from throughtime.scanning.evaluate import linear as plain_linear
from throughtime.scanning.foreign import context, without_autocast
from throughtime.scanning.int8 import quantised
from throughtime.scanning.operator import NO_GRADIENT

NAMES = {torch.float32: "float", torch.float64: "double"}
# what the operands of products are rounded to; int8 and int16: left ones, and weights always to int8
OPERANDS = {**NAMES, torch.bfloat16: "bfloat16", torch.int8: "int8", torch.int16: "int16"}
QUADS = {torch.int8: 1, torch.int16: 2}  # bytes of a number of the left operand
PAIRED = 1 << 13  # words that a task rounds, about
ALONE = 100_000  # multiplications that one thread has done before another has come to help


def launch(name: str, operands: torch.dtype, tasks: int, values: Sequence[int], work: int) -> None:
    """Run one of the product's functions over so many tasks. work: multiplications in all, which say if threads pay."""
    library = product.products(OPERANDS[operands])
    block = (ctypes.c_int64 * (len(values) + 2))(0, tasks, *values)
    function, address = library.function(name), ctypes.addressof(block)
    count = min(torch.get_num_threads(), tasks) if work > ALONE else 1
    if count == 1:
        function(address)
    else:
        threads.run(function, library.address(name), address, count)


def row_pairs(a: Tensor) -> Tensor:
    """[R, K] with dense rows in bfloat16, as words of two that stand side by side: [R, K/2]. (`pairs`)"""
    return _paired("pair_rows", a, a.shape[0], -(-a.shape[1] // 2))


def column_pairs(b: Tensor) -> Tensor:
    """[K, N] in bfloat16, as words of two that stand one below the other: [K/2, N]."""
    if b.stride(0) == 1 and b.stride(1) != 1:
        return row_pairs(b.t()).t()
    return _paired("pair_columns", dense(b), -(-b.shape[0] // 2), b.shape[1])


def row_quads(a: Tensor, operands: torch.dtype) -> Tensor:
    """[R, K] with dense rows as words, [R, W], behind each of which its scale stands. (`quads`)"""
    lanes, size = host().lanes("float"), QUADS[operands]
    depth, pitch = quads.words(a.shape[1], lanes), quads.row_words(a.shape[1], lanes, size)
    out = memory.empty(a.shape[0], pitch, dtype=torch.float32)
    chunk = max(1, PAIRED // pitch)
    values = [a.data_ptr(), a.stride(0), *a.shape, out.data_ptr(), pitch, depth, chunk]
    launch("quad_rows", operands, -(-a.shape[0] // chunk), values, a.shape[0] * pitch * 8)
    return out[:, :depth]


def column_quads(b: Tensor) -> Tensor:
    """[K, N] in eight bits, as words of four that stand one below the other, and the rows below them: [W + 2, N]."""
    if b.shape[0] > quads.DEEPEST:
        raise ValueError(f"weights in int8 have at most {quads.DEEPEST:,} inputs, these have {b.shape[0]:,}")
    whole, scales = quantised(b)
    depth = quads.words(b.shape[0], host().lanes("float"))
    filled = torch.zeros(4 * depth, b.shape[1], dtype=torch.int8)
    filled[: b.shape[0]] = whole
    made = filled.view(depth, 4, -1).transpose(1, 2).contiguous().view(torch.float32).view(depth, -1)
    unsigned = (-128 * whole.sum(0, dtype=torch.int32)).to(torch.int32).view(torch.float32)
    return torch.cat([made, scales.view(1, -1), unsigned.view(1, -1)])


def _paired(name: str, a: Tensor, rows: int, width: int) -> Tensor:
    lanes = host().lanes("float")
    pitch = -(-width // lanes) * lanes
    out = memory.empty(rows, pitch, dtype=torch.float32)
    chunk = max(1, PAIRED // pitch)
    values = [a.data_ptr(), a.stride(0), *a.shape, out.data_ptr(), pitch, chunk]
    launch(name, torch.bfloat16, -(-rows // chunk), values, rows * width * 8)
    return out[:, :width]


def pack(weight: Tensor, operands: torch.dtype) -> Tensor:
    """[K, N], with any strides, as panels; of words where operands are rounded."""
    if operands is torch.bfloat16:
        weight = column_pairs(weight)
    elif operands in QUADS:
        weight = column_quads(weight)
    rows, columns = weight.shape
    out = memory.empty(packed_numbers(rows, columns, weight.dtype), dtype=weight.dtype)
    tasks = panels(columns, weight.dtype)
    values = [weight.data_ptr(), *weight.stride(), rows, columns, out.data_ptr()]
    launch("pack", operands, tasks, values, rows * columns * 8)
    return out


def packed_numbers(rows: int, columns: int, dtype: torch.dtype) -> int:
    """How many numbers a matrix takes that is packed."""
    return packed_size(rows, columns, host(), NAMES[dtype])


def panels(columns: int, dtype: torch.dtype) -> int:
    """Of how many panels it is: the tasks in which it is packed."""
    return -(-columns // panel(host(), NAMES[dtype]))


def tasks_of(rows: int, operands: torch.dtype, threads_: int) -> tuple[int, int]:
    """The tasks of a product of so many rows, as many for each thread; and the rows of a task, in whole tiles."""
    tasks = -(-rows // (product.CHUNK_ROWS * threads_)) * threads_
    share, tile = -(-rows // tasks), _tile_rows(operands)
    chunk = -(-share // tile) * tile
    return -(-rows // chunk), chunk


def multiply_into(
    out: Tensor, a: Tensor, packed: Tensor, operands: torch.dtype, bias: Tensor | None = None, more: bool = False
) -> None:
    """out [M, N] (+)= a [M, K] @ a packed matrix [K, N] (+ bias [N]); rows of `out` and `a` are dense. `a` may lie in bfloat16
    where operands are rounded to it, and K is even."""
    if out.shape[0] == 0 or out.shape[1] == 0:
        return
    if operands is torch.bfloat16:
        a = a.view(torch.float32) if a.dtype is operands else row_pairs(a)  # words
    elif operands in QUADS:
        a = row_quads(a, operands)
    (m, k), n = a.shape, out.shape[1]
    start, pitch = (out.data_ptr(), out.stride(0)) if more else (0 if bias is None else bias.data_ptr(), 0)
    tasks, chunk = tasks_of(m, operands, torch.get_num_threads())
    values = [a.data_ptr(), a.stride(0), 1, packed.data_ptr(), out.data_ptr(), out.stride(0), start, pitch, m, n, k]
    launch("multiply", operands, tasks, [*values, chunk], m * n * k)


@functools.cache
def _tile_rows(operands: torch.dtype) -> int:
    return tile_rows(product.module_of(host(), OPERANDS[operands]), host())


def multiply(a: Tensor, weight: Tensor, bias: Tensor | None = None, operands: torch.dtype | None = None) -> Tensor:
    """a [M, K] @ weight [K, N] (+ bias [N])."""
    out = memory.empty(a.shape[0], weight.shape[1], dtype=a.dtype)
    if a.shape[1] == 0:
        return out.zero_() if bias is None else out.copy_(bias)
    operands = operands or a.dtype
    multiply_into(out, dense(a), pack(weight, operands), operands, None if bias is None else bias.contiguous())
    return out


def outer_into(out: Tensor, a: Tensor, b: Tensor, operands: torch.dtype, more: bool = False) -> None:
    """out [M, N] (+)= a.T @ b, for a [R, M], b [R, N] with dense rows; either may lie in bfloat16 where operands
    are rounded to it."""
    if not a.numel() or not b.numel():
        if not more:
            out.zero_()
        return
    (r, m), n = a.shape, b.shape[1]
    tasks, chunk, group, space = outer_sizes(m, n, out.dtype, torch.get_num_threads())
    scratch = memory.empty(tasks * space, dtype=out.dtype)
    halves = "".join([name for name, x in (("a", a), ("b", b)) if x.dtype is not out.dtype])
    values = [a.data_ptr(), a.stride(0), b.data_ptr(), b.stride(0), out.data_ptr(), out.stride(0), m, n, r]
    launch(
        product.outer_of(halves),
        operands,
        tasks,
        [*values, chunk, group, scratch.data_ptr(), space, int(more)],
        r * m * n,
    )


def outer_sizes(m: int, n: int, dtype: torch.dtype, count: int) -> tuple[int, int, int, int]:
    """Of an outer product [M, N] by so many threads: its tasks, the rows of M of each, its panels of N, and its space."""
    m, n = max(m, 1), max(n, 1)
    target, lanes = host(), host().lanes(NAMES[dtype])
    wide = panel(target, NAMES[dtype])
    panels = -(-n // wide)
    # of M as much as stays in cache; of N so much that each thread has some tasks
    parts = max(-(-m // product.OUTER_ROWS), 1 if panels >= count else min(count, m // (4 * target.rows)), 1)
    share = -(-m // parts)
    chunk = -(-share // lanes) * lanes
    group = max(1, panels * parts // (4 * count)) if count > 1 else panels
    return -(-panels // group) * -(-m // chunk), chunk, group, product.OUTER_DEPTH * (chunk + lanes + wide)


def outer(a: Tensor, b: Tensor, operands: torch.dtype | None = None) -> Tensor:
    """a.T @ b, for a [R, M], b [R, N]."""
    out = memory.empty(a.shape[1], b.shape[1], dtype=a.dtype)
    outer_into(out, dense(a), dense(b), operands or a.dtype)
    return out


def dense(a: Tensor) -> Tensor:
    """A matrix whose rows are without gaps between their numbers."""
    return a if a.stride(-1) == 1 or a.shape[-1] == 1 else a.contiguous()


class _Linear(torch.autograd.Function):
    """x @ weight (+ bias) over all steps at once, by the compiled product."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, operands: torch.dtype
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.bias, ctx.operands = bias is not None, operands
        return multiply(x, weight, bias, operands)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:  # type: ignore[override]
        if ctx.operands in QUADS:
            raise RuntimeError(NO_GRADIENT)
        x, weight = ctx.saved_tensors
        need_x, need_weight, need_bias, _ = ctx.needs_input_grad
        with without_autocast():
            if torch.is_grad_enabled() or context((g,)) is not None:  # a derivative of the derivative, or many at once
                made = bfloat16_linear if ctx.operands is torch.bfloat16 else plain_linear
                dx = made(g, weight.t(), None) if need_x else None
                dw = made(x.t(), g, None) if need_weight else None
            else:
                dx = multiply(g, weight.t(), None, ctx.operands) if need_x else None
                dw = outer(x, g, ctx.operands) if need_weight else None
        return dx, dw, g.sum(0) if need_bias and ctx.bias else None, None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, operands: torch.dtype) -> Tensor:
    """x [R, K] @ weight [K, N] (+ bias [N]), with gradients."""
    made: Tensor = _Linear.apply(x, weight, bias, operands)  # type: ignore[no-untyped-call]
    return made
