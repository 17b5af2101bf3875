"""Large tensors: on large pages, and of memory that is used again.

New memory costs a fault for each of its pages at the first touch, which takes several times as long as filling it. So large blocks
are asked for on pages of 2 MB, where the system has them, and those that are free again wait for the next call, which
usually wants the same: `KEPT` bytes at most, beside what is in use.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
import os
import weakref

import torch
from torch import Tensor

from throughtime.scanning import locks

LARGE = 4 << 20  # bytes from which it pays
KEPT = 256 << 20
_UNIT = 2 << 20

_free: list[mmap.mmap] = []  # the longest free first


def empty(*shape: int, dtype: torch.dtype) -> Tensor:
    """torch.empty."""
    size = math.prod(shape) * dtype.itemsize
    if size < LARGE or not hasattr(mmap, "MAP_PRIVATE"):
        return torch.empty(shape, dtype=dtype)
    block = _block(-(-size // _UNIT) * _UNIT)
    view = (ctypes.c_char * size).from_buffer(block)
    weakref.finalize(view, _give_back, block, os.getpid()).atexit = False
    return torch.frombuffer(view, dtype=dtype).view(shape)


def zeros(*shape: int, dtype: torch.dtype) -> Tensor:
    """torch.zeros."""
    return empty(*shape, dtype=dtype).zero_()


def _block(size: int) -> mmap.mmap:
    """A free block of this size, or a new one."""
    with locks.MEMORY:
        for i, block in enumerate(_free):
            if len(block) == size:
                return _free.pop(i)
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without
            block.madvise(mmap.MADV_HUGEPAGE)
    return block


def _give_back(block: mmap.mmap, process: int) -> None:
    """A block is free again; what has been free longest goes back to the system where there is too much."""
    if process != os.getpid():  # after a fork the blocks of the parent are copies that nobody needs
        return
    with locks.MEMORY:
        _free.append(block)
        total = sum(map(len, _free))
        while total > KEPT:
            total -= len(_free.pop(0))
