"""Who runs the compiled code: PyTorch's own threads, by the OpenMP that PyTorch brings, so that the two never compete.

A compiled function takes tasks from a shared counter until there are none. So it is right whoever comes, and however many.
Where the other threads come late, because something else runs on this machine, one does all of it (`team`).
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch

from throughtime.scanning.cpu.team import Team, timed

_T = TypeVar("_T")

team = Team()
_here = threading.local()  # count: in a function `as_the_team`, how many threads its caller has

_forked = False
_elsewhere: ThreadPoolExecutor | None = None


def _after_fork() -> None:
    """OpenMP's threads do not survive a fork, and its next call in the thread that forked would wait for them for ever."""
    global _forked, _elsewhere
    _forked, _elsewhere = True, None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@functools.cache
def _openmp() -> ctypes.CDLL | None:
    """The OpenMP that PyTorch has loaded; None where there is none."""
    folder = Path(torch.__file__).parent
    found = [*folder.glob("lib/libgomp*"), *folder.glob("../torch.libs/libgomp*"), *folder.glob("lib/libomp*")]
    for path in [*map(str, found), "libgomp.so.1"]:
        try:
            made = ctypes.CDLL(path)
            made.GOMP_parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
            made.GOMP_parallel.restype = None
            made.omp_set_num_threads.argtypes = [ctypes.c_int]
        except (OSError, AttributeError):
            continue
        return made
    return None


def count() -> int:
    """How many threads the caller has, also where the team rests."""
    return getattr(_here, "count", 0) or torch.get_num_threads()


def as_the_team(function: Callable[..., _T]) -> Callable[..., _T]:
    """`function`, in which PyTorch's own operations take one thread too while the team rests.

    The number is that of the calling thread alone: no other thread, and nothing that the caller does afterwards, sees it.
    """

    @functools.wraps(function)
    def wrapped(*args: Any) -> _T:
        openmp, own = _openmp(), torch.get_num_threads()
        if openmp is None or own == 1:
            return function(*args)
        outer = getattr(_here, "count", 0)
        _here.count = outer or own
        if team.resting():
            openmp.omp_set_num_threads(1)
        try:
            return function(*args)
        finally:
            openmp.omp_set_num_threads(own)
            _here.count = outer

    return wrapped


def safe_after_fork(function: Callable[..., _T]) -> Callable[..., _T]:
    """`function`, in a forked child done by a thread of the child's own, which has OpenMP threads of its own.

    PyTorch's own operations on large tensors still hang in the thread that forked: there, torch.set_num_threads(1) helps.
    """

    @functools.wraps(function)
    def wrapped(*args: Any) -> _T:
        if not _forked or threading.current_thread() is not threading.main_thread():
            return function(*args)
        global _elsewhere
        if _elsewhere is None:
            _elsewhere = ThreadPoolExecutor(1, "throughtime")
        return _elsewhere.submit(torch.no_grad()(function), *args).result()

    return wrapped


@safe_after_fork
def run(function: Callable[[int], None], address: int, block: int, threads: int, alone: float = math.inf) -> None:
    """Run a compiled function on an argument block, on so many threads or fewer; returns when all tasks are done.

    function, address: the same function, to call here and to hand to OpenMP. alone: ns that one thread takes, where that is known.
    """
    if threads <= 1 or team.resting():
        function(block)
    else:
        together(function, address, block, threads, alone)


def together(function: Callable[[int], None], address: int, block: int, threads: int, alone: float = math.inf) -> None:
    """The same with all of the threads, whether they are a help or not."""
    openmp = _openmp()
    if openmp is not None:
        start = time.perf_counter_ns()
        would = timed(openmp.GOMP_parallel, address, block, threads)
        team.judge(min(would, alone), time.perf_counter_ns() - start)
        if team.resting() and getattr(_here, "count", 0) > 0:
            openmp.omp_set_num_threads(1)  # until the end of `as_the_team`
        return
    helpers = [threading.Thread(target=function, args=(block,)) for _ in range(threads - 1)]
    for helper in helpers:
        helper.start()
    function(block)
    for helper in helpers:
        helper.join()
