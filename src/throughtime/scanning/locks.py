"""The locks of the engine, in the order in which they are taken.

A fork takes them all before and gives them back after, in parent and child: what another thread was half through with would
never be finished in the child, which would wait for it for ever.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

PROGRAMS = threading.RLock()  # which programs there are
LOOPS = threading.RLock()  # which loops of a program are compiled
LIBRARIES = threading.RLock()  # compiled code
COMPILER = threading.RLock()  # LLVM itself
MEMORY = threading.RLock()  # blocks that wait to be used again; one may come free within a call of this very thread

_ALL = (PROGRAMS, LOOPS, LIBRARIES, COMPILER, MEMORY)


def _all() -> list[Any]:
    """These, and the one that llvmlite takes for every call of LLVM, also for those of its finalizers."""
    lib = getattr(sys.modules.get("llvmlite.binding.ffi"), "lib", None)
    theirs = getattr(getattr(lib, "_lock", None), "_lock", None)
    return [*_ALL, *([] if theirs is None else [theirs])]


_taken: list[Any] = []


def _take() -> None:
    for lock in _all():
        lock.acquire()
        _taken.append(lock)


def _give_back() -> None:
    while _taken:
        _taken.pop().release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_take, after_in_parent=_give_back, after_in_child=_give_back)
