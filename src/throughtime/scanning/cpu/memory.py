"""Tensors of some size: of memory that is used again, large ones on large pages.

New memory costs a fault for each of its pages at the first touch, which takes several times as long as filling it, and the C
library gives what is free back to the system sooner than the next call comes. So blocks that are free again wait for that call,
which usually wants the same: `KEPT` bytes at most, beside what is in use. Large ones are asked for on pages of 2 MB, where the
system has them.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import math
import mmap
import os
import weakref

import torch
from torch import Tensor

from throughtime.scanning import locks

SOME = 256 << 10  # bytes from which it pays
LARGE = 4 << 20  # and from which large pages do
KEPT = 256 << 20
_UNIT, _LARGE_UNIT = 64 << 10, 2 << 20  # what blocks are whole multiples of

_free: dict[int, list[tuple[int, mmap.mmap]]] = {}  # by size, each with its number, the longest free first
_numbers = itertools.count()


def empty(*shape: int, dtype: torch.dtype) -> Tensor:
    """torch.empty."""
    size = math.prod(shape) * dtype.itemsize
    if size < SOME or not hasattr(mmap, "MAP_PRIVATE"):
        return torch.empty(shape, dtype=dtype)
    block = _block(_whole(size))
    view = (ctypes.c_char * size).from_buffer(block)
    weakref.finalize(view, _give_back, block, os.getpid()).atexit = False
    return torch.frombuffer(view, dtype=dtype).view(shape)


def _whole(size: int) -> int:
    """The size of a block that holds so many bytes: one of four between a power of two and the next, so that batches whose lengths
    differ find blocks of each other. What is not touched costs nothing."""
    unit = _UNIT if size < LARGE else _LARGE_UNIT
    count = -(-size // unit)
    step = 1 << max(count.bit_length() - 3, 0)
    return -(-count // step) * step * unit


def _block(size: int) -> mmap.mmap:
    """A free block of this size or of one of the two above it, of these the last that was used, or a new one."""
    with locks.MEMORY:
        wider = size
        for _ in range(3):
            if some := _free.get(wider):
                return some.pop()[1]
            wider = _whole(wider + 1)
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= LARGE and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without
            block.madvise(mmap.MADV_HUGEPAGE)
    return block


def _give_back(block: mmap.mmap, process: int) -> None:
    """A block is free again; what has been free longest goes back to the system where there is too much."""
    if process != os.getpid():  # after a fork the blocks of the parent are copies that nobody needs
        return
    with locks.MEMORY:
        _free.setdefault(len(block), []).append((next(_numbers), block))
        while kept() > KEPT:
            oldest = min([some for some in list(_free.values()) if some], key=lambda some: some[0][0])
            del oldest[0]


def kept() -> int:
    """Bytes that are free."""
    return sum([size * len(some) for size, some in list(_free.items())])
