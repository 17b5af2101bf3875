"""The arithmetic limit of this machine: how many multiplications and additions its cores do when nothing waits for memory."""

from __future__ import annotations

import ctypes
import time

from throughtime.scanning.cpu import threads
from throughtime.scanning.cpu.assembly import Assembly, Module
from throughtime.scanning.cpu.target import host, library
from throughtime.scanning.cpu.tasks import define_tasks, fields

_SUMS = 24  # independent sums, so that none waits for its own last addition


def _text() -> str:
    lanes = host().lanes("float")
    module = Module("float", lanes)
    sums = min(_SUMS, host().rows * host().vectors)

    def body(code: Assembly, task: str) -> None:
        rounds, out = fields(code, "%args", "rounds", "out*")
        slots = [code.slot(code.vector) for _ in range(sums)]
        for k, slot in enumerate(slots):
            code.store(code.vector, code.literal(1.0 + k / 64), slot)
        with code.loop(rounds):
            for slot in slots:
                code.store(
                    code.vector, code.fma(code.load(code.vector, slot), code.literal(0.999), code.literal(0.001)), slot
                )
        for k, slot in enumerate(slots):
            code.store_vector(code.load(code.vector, slot), code.at(out, k * lanes))

    define_tasks(module, "limit", body)
    return module.text()


def operations_per_second(count: int) -> float:
    """float32 operations a second of `count` threads (a multiplication with an addition is two): the best of some tries."""
    made = library("limit 2", _text)
    space = (ctypes.c_float * (_SUMS * host().lanes("float")))()
    rounds, sums = 200_000, min(_SUMS, host().rows * host().vectors)
    best = 0.0
    for _ in range(12):
        block = (ctypes.c_int64 * 4)(0, count, rounds, ctypes.addressof(space))
        start = time.perf_counter()
        threads.together(made.function("limit"), made.address("limit"), ctypes.addressof(block), count)
        best = max(best, 2.0 * count * rounds * sums * host().lanes("float") / (time.perf_counter() - start))
    return best
