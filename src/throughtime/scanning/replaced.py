"""What stands in the place of every scan of a block of code, while a network is traced into a graph of another runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

from throughtime.scanning.call import Scanned

Instead = Callable[..., Scanned]  # takes what `scan` takes, before anything of it is checked

_instead: ContextVar[Instead | None] = ContextVar("throughtime_instead", default=None)


@contextmanager
def replacing(run: Instead) -> Iterator[None]:
    """Call `run` in the place of `scan` while the block runs. It takes (cell, inputs, state, *, initial, lengths, reverse, resets,
    record) and gives what a scan gives."""
    token = _instead.set(run)
    try:
        yield
    finally:
        _instead.reset(token)


def replacement() -> Instead | None:
    """What stands in the place of the scans of this thread now; None: they are scans."""
    if (
        torch.compiler.is_dynamo_compiling()
    ):  # which cannot ask; where something stands, a network is traced another way
        return None
    return _instead.get()
