"""The products of whole tensors by the compiled code: for what was hoisted out of time, and for the gradients of weights."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from throughtime.scanning.cpu import memory, product, threads
from throughtime.scanning.cpu.packing import packed_size
from throughtime.scanning.cpu.target import host
from throughtime.scanning.cpu.tiles import panel
from throughtime.scanning.foreign import context

NAMES = {torch.float32: "float", torch.float64: "double"}
ALONE = 100_000  # multiplications that one thread has done before another has come to help


def launch(name: str, dtype: torch.dtype, tasks: int, values: Sequence[int], work: int) -> None:
    """Run one of the product's functions over so many tasks. work: multiplications in all, which say if threads pay."""
    library = product.products(NAMES[dtype])
    block = (ctypes.c_int64 * (len(values) + 2))(0, tasks, *values)
    count = min(torch.get_num_threads(), tasks) if work > ALONE else 1
    threads.run(library.function(name), library.address(name), ctypes.addressof(block), count)


def pack(weight: Tensor) -> Tensor:
    """[K, N], with any strides, as panels."""
    rows, columns = weight.shape
    target, dtype = host(), NAMES[weight.dtype]
    out = torch.empty(packed_size(rows, columns, target, dtype), dtype=weight.dtype)
    tasks = -(-columns // panel(target, dtype))
    values = [weight.data_ptr(), *weight.stride(), rows, columns, out.data_ptr()]
    launch("pack", weight.dtype, tasks, values, rows * columns * 8)
    return out


def multiply_into(out: Tensor, a: Tensor, packed: Tensor, bias: Tensor | None = None, more: bool = False) -> None:
    """out [M, N] (+)= a [M, K] @ a packed matrix [K, N] (+ bias [N]); rows of `out` and `a` are dense."""
    m, k = a.shape
    n = out.shape[1]
    if m == 0 or n == 0:
        return
    start, pitch = (out.data_ptr(), out.stride(0)) if more else (0 if bias is None else bias.data_ptr(), 0)
    # as many tasks for each thread, of as many rows, in whole tiles
    threads_ = torch.get_num_threads()
    tasks = -(-m // (product.CHUNK_ROWS * threads_)) * threads_
    share = -(-m // tasks)
    chunk = -(-share // host().rows) * host().rows
    values = [a.data_ptr(), a.stride(0), 1, packed.data_ptr(), out.data_ptr(), out.stride(0), start, pitch, m, n, k]
    launch("multiply", a.dtype, -(-m // chunk), [*values, chunk], m * n * k)


def multiply(a: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """a [M, K] @ weight [K, N] (+ bias [N])."""
    out = memory.empty(a.shape[0], weight.shape[1], dtype=a.dtype)
    if a.shape[1] == 0:
        return out.zero_() if bias is None else out.copy_(bias)
    multiply_into(out, dense(a), pack(weight), None if bias is None else bias.contiguous())
    return out


def outer_into(out: Tensor, a: Tensor, b: Tensor, more: bool = False) -> None:
    """out [M, N] (+)= a.T @ b, for a [R, M], b [R, N] with dense rows."""
    (r, m), n = a.shape, b.shape[1]
    if r == 0 or m == 0 or n == 0:
        if not more:
            out.zero_()
        return
    target, lanes = host(), host().lanes(NAMES[a.dtype])
    wide = panel(target, NAMES[a.dtype])
    panels, count = -(-n // wide), torch.get_num_threads()
    # of M as much as stays in cache; of N so much that each thread has some tasks
    parts = max(-(-m // product.OUTER_ROWS), 1 if panels >= count else min(count, m // (4 * target.rows)), 1)
    share = -(-m // parts)
    chunk = -(-share // lanes) * lanes
    group = max(1, panels * parts // (4 * count)) if count > 1 else panels
    tasks = -(-panels // group) * -(-m // chunk)
    space = product.OUTER_DEPTH * (chunk + lanes + wide)
    scratch = memory.empty(tasks * space, dtype=a.dtype)
    values = [a.data_ptr(), a.stride(0), b.data_ptr(), b.stride(0), out.data_ptr(), out.stride(0), m, n, r]
    launch("outer", a.dtype, tasks, [*values, chunk, group, scratch.data_ptr(), space, int(more)], r * m * n)


def outer(a: Tensor, b: Tensor) -> Tensor:
    """a.T @ b, for a [R, M], b [R, N]."""
    out = torch.empty(a.shape[1], b.shape[1], dtype=a.dtype)
    outer_into(out, dense(a), dense(b))
    return out


def dense(a: Tensor) -> Tensor:
    """A matrix whose rows are without gaps between their numbers."""
    return a if a.stride(-1) == 1 or a.shape[-1] == 1 else a.contiguous()


class _Linear(torch.autograd.Function):
    """x @ weight (+ bias) over all steps at once, by the compiled product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x, weight)
        ctx.bias = bias is not None
        return multiply(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad
        if torch.is_grad_enabled() or context((g,)) is not None:  # a derivative of the derivative, or many at once
            dx = g @ weight.t() if need_x else None
            dw = x.t() @ g if need_weight else None
        else:
            dx = multiply(g, weight.t()) if need_x else None
            dw = outer(x, g) if need_weight else None
        return dx, dw, g.sum(0) if need_bias and ctx.bias else None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x [R, K] @ weight [K, N] (+ bias [N]), with gradients."""
    made: Tensor = _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return made
