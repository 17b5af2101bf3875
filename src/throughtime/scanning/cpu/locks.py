"""The locks of the engine, in the order in which they are taken.

A fork takes them all before and gives them back after, in parent and child: what another thread was half through with would never
be finished in the child, which would wait for it for ever.
"""

from __future__ import annotations

import os
import threading

PROGRAMS = threading.RLock()  # which programs there are
LOOPS = threading.RLock()  # which loops of a program are compiled
LIBRARIES = threading.RLock()  # compiled code
COMPILER = threading.RLock()  # LLVM itself
MEMORY = threading.RLock()  # blocks that wait to be used again; one may come free within a call of this very thread

_ALL = (PROGRAMS, LOOPS, LIBRARIES, COMPILER, MEMORY)


def _take() -> None:
    for lock in _ALL:
        lock.acquire()


def _give_back() -> None:
    for lock in reversed(_ALL):
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_take, after_in_parent=_give_back, after_in_child=_give_back)
