"""Threads that do each step together: they share out the columns of its products, and wait for each other between its phases.

A phase is what nothing of waits for anything else of: the products of a stage, or the pointwise work after them. It has as many
shares as there are threads. A thread claims its own share, and after it those that nobody has begun; then it waits until all
are done. So it is right whoever comes, and however late: who does not come has claimed nothing, and who comes late finds the
phases done. Each sum is made by one thread in its order.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from throughtime.scanning.cpu import threads
from throughtime.scanning.cpu.assembly import Assembly
from throughtime.scanning.cpu.target import ARM
from throughtime.scanning.program import Loop

LINE = 16  # words from one counter to the next, so that none shares what the processor fetches with another
PATIENCE = 1000  # pauses, some 20 µs in all, before a waiting thread offers its core to others

FETCHED = 640 << 10  # bytes of weights a step from which a second core is worth its waits
ROWS = 4  # sequences for each thread that make as much work of a weight as it takes to fetch it
STEP = 4 << 20  # multiplications of a step that is called by itself from which a second thread is worth being called


def pays(loop: Loop, batch: int, itemsize: int) -> bool:
    """Whether threads do each step of so many sequences together, sooner than each its own sequences by itself."""
    fetched = loop.weights * itemsize
    if fetched < FETCHED:
        return False
    count = threads.count()
    if count == 1:
        return False
    return batch < count or (fetched > cache_of_a_core() and batch < ROWS * count)


def step_pays(loop: Loop, batch: int) -> bool:
    """The same of a single step, which one thread would do."""
    return threads.count() > 1 and loop.weights * max(batch, ROWS) >= STEP


@functools.cache
def cache_of_a_core() -> int:
    """Bytes of the cache that a core has for itself; where the system does not say, what most have."""
    try:
        found = Path("/sys/devices/system/cpu/cpu0/cache/index2/size").read_text()
        return int(found.strip().removesuffix("K")) << 10
    except (OSError, ValueError):
        return 1 << 20


def board(parts: int) -> ctypes.Array[ctypes.c_int64]:
    """The counters of a group of threads: shares that are done, and for each part the phases in which its share was claimed."""
    return (ctypes.c_int64 * (LINE * (parts + 1)))()


@functools.cache
def offering() -> int:
    """The address of the function that offers the core to another thread; 0 where there is none."""
    try:
        return ctypes.cast(ctypes.CDLL(None).sched_yield, ctypes.c_void_p).value or 0
    except (AttributeError, OSError, TypeError):
        return 0


@dataclass(frozen=True)
class Columns:
    """Writes the phases of a task. board: the address of the counters. part, parts: the task's own share, and of how many.
    number: a slot, of the phase. offer: the address of the function that offers the core to another thread."""

    code: Assembly
    board: str
    part: str
    parts: str
    number: str
    offer: str
    pause: str  # the processor's instruction of a thread that waits

    @contextmanager
    def phase(self) -> Iterator[str]:
        """The code of a share, given its number; then all wait."""
        code = self.code
        number = code.load("i64", self.number)
        with code.loop(self.parts) as k:
            beyond = code.add(self.part, k)
            share = code.choose(code.less(beyond, self.parts), beyond, code.sub(beyond, self.parts))
            at = code.at(self.board, code.mul(code.add(share, 1), LINE), "i64")
            claims = code.let(f"load atomic i64, ptr {at} monotonic, align 8")
            with code.when(code.let(f"icmp eq i64 {claims}, {number}")):
                tried = code.let(f"cmpxchg ptr {at}, i64 {number}, i64 {code.add(number, 1)} monotonic monotonic")
                with code.when(code.let(f"extractvalue {{ i64, i1 }} {tried}, 1")):
                    yield share
                    code.let(f"atomicrmw add ptr {self.board}, i64 1 release")
        self._wait(code.mul(code.add(number, 1), self.parts))
        code.store("i64", code.add(number, 1), self.number)

    def _wait(self, wanted: str) -> None:
        """Until so many shares are done."""
        code = self.code
        patience = code.slot("i64")
        code.store("i64", str(PATIENCE), patience)
        wait, done = code.label(), code.label()
        head = code.label()
        code.place(head)
        reached = code.let(f"load atomic i64, ptr {self.board} acquire, align 8")
        code.line(f"br i1 {code.less(reached, wanted)}, label %{wait}, label %{done}")
        code.lines.append(f"{wait}:")
        if self.pause:
            code.line(self.pause)
        left = code.load("i64", patience)
        code.store("i64", code.sub(left, 1), patience)
        can = code.let(f"icmp ne ptr {self.offer}, null")
        with code.when(code.let(f"and i1 {can}, {code.less(left, 0)}")):
            code.let(f"call i32 {self.offer}()")
        code.line(f"br label %{head}")
        code.lines.append(f"{done}:")


def pause(code: Assembly, triple: str) -> str:
    """What a thread that waits says to its processor; nothing where it has no word for it."""
    if triple.startswith(("x86", "i686", "amd64")):
        code.module.declare("declare void @llvm.x86.sse2.pause()")
        return "call void @llvm.x86.sse2.pause()"
    if triple.startswith(ARM):
        code.module.declare("declare void @llvm.aarch64.hint(i32)")
        return "call void @llvm.aarch64.hint(i32 1)"
    return ""
