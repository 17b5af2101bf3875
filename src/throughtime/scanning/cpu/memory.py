"""Large tensors on large pages.

New memory costs a fault for each of its pages at the first touch. With pages of 4 KB that takes several times as long as the
filling itself; Linux gives pages of 2 MB to those who ask.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable

import torch
from torch import Tensor

LARGE = 4 << 20  # bytes from which asking pays
PAGE = 2 << 20
_MADV_HUGEPAGE = 14


@functools.cache
def _advise() -> Callable[[int, int, int], int] | None:
    """Linux's madvise; None elsewhere."""
    if not sys.platform.startswith("linux"):
        return None
    function = ctypes.CDLL(None).madvise
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    made: Callable[[int, int, int], int] = function
    return made


def empty(*shape: int, dtype: torch.dtype) -> Tensor:
    """torch.empty, on large pages where it is large and the system has them."""
    out = torch.empty(shape, dtype=dtype)
    size = out.numel() * out.element_size()
    advise = _advise() if size >= LARGE else None
    if advise is not None:
        first = -(-out.data_ptr() // PAGE) * PAGE
        advise(first, (out.data_ptr() + size) // PAGE * PAGE - first, _MADV_HUGEPAGE)
    return out


def zeros(*shape: int, dtype: torch.dtype) -> Tensor:
    """torch.zeros, likewise."""
    return empty(*shape, dtype=dtype).zero_()
