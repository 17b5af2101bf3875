"""The products of whole tensors by the compiled code: for what was hoisted out of time, and for the gradients of weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from throughtime.scanning.cpu import product, threads
from throughtime.scanning.cpu.target import host

NAMES = {torch.float32: "float", torch.float64: "double"}


def launch(name: str, dtype: torch.dtype, tasks: int, values: Sequence[int], work: int) -> None:
    """Run one of the product's functions over so many tasks. work: products of numbers in all, which says if threads pay."""
    library = product.products(NAMES[dtype])
    block = np.array([0, tasks, *values], dtype=np.int64)
    count = min(torch.get_num_threads(), tasks) if work > 50_000 else 1
    threads.run(library.function(name), library.address(name), block.ctypes.data, count)


def pack(weight: Tensor, out: Tensor | None = None) -> Tensor:
    """[K, N], with any strides, as panels."""
    rows, columns = weight.shape
    target, dtype = host(), NAMES[weight.dtype]
    if out is None:
        out = torch.empty(product.packed_size(rows, columns, target, dtype), dtype=weight.dtype)
    tasks = -(-columns // product.panel(target, dtype))
    launch(
        "pack", weight.dtype, tasks, [weight.data_ptr(), *weight.stride(), rows, columns, out.data_ptr()], rows * columns * 8
    )
    return out


def multiply(a: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """a [M, K] @ weight [K, N] (+ bias [N])."""
    m, k = a.shape
    n = weight.shape[1]
    out = torch.empty(m, n, dtype=a.dtype)
    if m == 0 or n == 0 or k == 0:
        return out.copy_(bias) if bias is not None and k == 0 else out.zero_()
    if a.stride(1) != 1:
        a = a.contiguous()
    packed = pack(weight)
    if bias is not None:
        bias = bias.contiguous()
    launch(
        "multiply",
        a.dtype,
        -(-m // product.STRETCH),
        [a.data_ptr(), a.stride(0), 1, packed.data_ptr(), out.data_ptr(), n, 0 if bias is None else bias.data_ptr(), 0, m, n, k],
        m * n * k,
    )
    return out


def outer(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The sum of a.T @ b over pairs a [R, M], b [R, N]."""
    m, n = pairs[0][0].shape[1], pairs[0][1].shape[1]
    dtype = pairs[0][0].dtype
    target = host()
    wide = product.panel(target, NAMES[dtype])
    panels = -(-n // wide)
    parts = max(1, min(-(-2 * torch.get_num_threads() // panels), m // (2 * target.rows)))
    stretch = -(-(-(-m // parts)) // target.rows) * target.rows
    tasks = panels * -(-m // stretch)
    out = torch.zeros(m, n, dtype=dtype)
    scratch = torch.empty(tasks * product.OUTER_DEPTH * wide, dtype=dtype)
    more = 0
    for a, b in pairs:
        if a.shape[0] == 0 or m == 0 or n == 0:
            continue
        a = a if a.stride(1) == 1 else a.contiguous()
        b = b if b.stride(1) == 1 else b.contiguous()
        values = [a.data_ptr(), a.stride(0), b.data_ptr(), b.stride(0), out.data_ptr(), n, m, n, a.shape[0]]
        launch("outer", dtype, tasks, [*values, stretch, scratch.data_ptr(), more], a.shape[0] * m * n)
        more = 1
    return out
