"""Whether threads that help are a help.

A parallel region ends when every thread has come to its end, also one that the system has put aside in favour of another
program. Beside a single busy process that makes a region of 50 µs last several milliseconds. So every region is judged: by the
time it took, and by the time that its quickest thread would have needed for all of it. Where regions lose more than they win,
this thread works alone for a while, and then tries again. Results do not depend on it: every sum runs in the same order.
"""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Callable

from throughtime.scanning.cpu.assembly import Assembly, Module
from throughtime.scanning.cpu.target import Library, library

MOST_CREDIT = 5e6  # ns won by helpers that count against what they lose: one late thread in a calm hour is forgiven
MOST_DEBT = 2e6  # ns lost before helpers are sent away
SHORTEST, LONGEST = 20e6, 1000e6  # ns without helpers
REST = 20  # times what was lost, at least
CALM = 10  # times the last pause that helpers have to last for the next pause to be short again
_NEVER = 2**62


class Team:
    """The judge of one process. All of its threads share it: what disturbs one of them disturbs all."""

    def __init__(self, now: Callable[[], float] = time.perf_counter_ns) -> None:
        self._now = now
        self.pause = SHORTEST
        self.until = 0.0  # the end of the pause
        self.balance = 0.0  # ns that helpers have won

    def resting(self) -> bool:
        """Whether work is to be done without helpers now."""
        return self._now() < self.until

    def judge(self, alone: float, took: float) -> None:
        """Take account of a region. alone: ns that one thread would have needed. took: ns that it has taken with all of them."""
        self.balance = min(self.balance + alone - took, MOST_CREDIT)
        if self.balance >= -MOST_DEBT:
            return
        now = self._now()
        lasted = now - self.until
        self.pause = SHORTEST if lasted > CALM * self.pause else min(2 * self.pause, LONGEST)
        self.until, self.balance = now + max(self.pause, -REST * self.balance), 0.0


class Alone:
    """What one thread takes for some work, as it was found lately. What it would take cannot always be told from what threads
    have taken: each that shares a loop reads all of its weights, and one that has the whole reads them once."""

    def __init__(self) -> None:
        self.ns: float | None = None  # for a unit of the work
        self._cold = True

    def note(self, units: float, took: float) -> None:
        """Take account of a time. The first is not counted: it brings everything into the caches."""
        if units <= 0 or self._cold:
            self._cold = False
        elif self.ns is None:
            self.ns = took / units
        else:
            self.ns += 0.2 * (took / units - self.ns)


def _text() -> str:
    """`timed`, which a thread calls in place of the function it is to run.

    Its argument block: the function, its block, clock_gettime and a number of a clock for it, and the least time that any thread
    would have needed for all tasks, going by those it has done.
    """
    module = Module("float", 1)

    def body(code: Assembly) -> None:
        function, block, clock, kind, best = (
            code.load("ptr" if i < 3 else "i64", code.at("%args", i, "i64")) if i < 4 else code.at("%args", 4, "i64")
            for i in range(5)
        )
        number = code.let(f"trunc i64 {kind} to i32")

        def now() -> str:
            both = code.slot("[2 x i64]")
            code.let(f"call i32 {clock}(i32 {number}, ptr {both})")
            seconds, rest = code.load("i64", both), code.load("i64", code.at(both, 1, "i64"))
            return code.add(code.mul(seconds, 1_000_000_000), rest)

        start = now()
        taken = code.let(f"call i64 {function}(ptr {block})")
        spent = code.sub(now(), start)
        with code.when(code.less(0, taken)):
            tasks = code.load("i64", code.at(block, 1, "i64"))
            whole = code.let(f"sdiv i64 {code.mul(spent, tasks)}, {taken}")
            code.let(f"atomicrmw umin ptr {best}, i64 {whole} monotonic")

    module.define("timed", "ptr %args", body)
    return module.text()


@functools.cache
def _clock() -> tuple[int, int]:
    """The address of clock_gettime and its number of the clock that only rises."""
    return ctypes.cast(ctypes.CDLL(None).clock_gettime, ctypes.c_void_p).value or 0, time.CLOCK_MONOTONIC


@functools.cache
def _library() -> Library:
    return library("timed", _text)


def timed(run: Callable[[int, int, int, int], None], address: int, block: int, threads: int) -> float:
    """Have OpenMP run a function of tasks on so many threads. Returns: the ns that one thread would have needed."""
    given = (ctypes.c_int64 * 5)(address, block, *_clock(), _NEVER)
    run(_library().address("timed"), ctypes.addressof(given), threads, 0)
    return float(given[4])
