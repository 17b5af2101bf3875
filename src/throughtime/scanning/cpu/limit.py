"""The arithmetic limit of this machine: how many multiplications and additions its cores do when nothing waits for memory."""

from __future__ import annotations

import ctypes
import time
from functools import partial

from throughtime.scanning.cpu import threads
from throughtime.scanning.cpu.assembly import Assembly, Module
from throughtime.scanning.cpu.pairs import dot
from throughtime.scanning.cpu.target import has_bfloat16, host, library
from throughtime.scanning.cpu.tasks import define_tasks, fields

_SUMS = 24  # independent sums, so that none waits for its own last addition
FLOAT32, BFLOAT16, INT8 = "float32", "bfloat16", "int8"
# multiplications, each with an addition, that an instruction does in a lane of 32 bits
_EACH = {FLOAT32: 1, BFLOAT16: 2, INT8: 4}


def has(operands: str) -> bool:
    """Whether this processor has an instruction for products of such operands that is measured here."""
    if operands == BFLOAT16:
        return has_bfloat16(host())
    return operands == FLOAT32 or (host().bits == 512 and "+avx512vnni" in host().features.split(","))


def _text(operands: str) -> str:
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
                code.store(code.vector, _more(code, code.load(code.vector, slot), operands), slot)
        for k, slot in enumerate(slots):
            code.store_vector(code.load(code.vector, slot), code.at(out, k * lanes))

    define_tasks(module, "limit", body)
    return module.text()


def _more(code: Assembly, total: str, operands: str) -> str:
    """A vector of sums after another instruction."""
    if operands == FLOAT32:
        return code.fma(total, code.literal(0.999), code.literal(0.001))
    if operands == BFLOAT16:
        return dot(code, code.literal(0.5), code.literal(0.25), total)
    words, name = f"<{code.lanes} x i32>", f"llvm.x86.avx512.vpdpbusd.{32 * code.lanes}"
    code.module.declare(f"declare {words} @{name}({words}, {words}, {words})")
    same = "<" + ", ".join([f"i32 {0x01020301}"] * code.lanes) + ">"
    whole = code.let(f"bitcast {code.vector} {total} to {words}")
    more = code.let(f"call {words} @{name}({words} {whole}, {words} {same}, {words} {same})")
    return code.let(f"bitcast {words} {more} to {code.vector}")


def operations_per_second(count: int, operands: str = FLOAT32) -> float:
    """Operations a second of `count` threads (a multiplication with an addition is two), of operands "float32", "bfloat16" or
    "int8", where the processor `has` them: the best of some tries."""
    made = library(f"limit 3 {operands}", partial(_text, operands))
    space = (ctypes.c_float * (_SUMS * host().lanes("float")))()
    rounds, sums = 200_000, min(_SUMS, host().rows * host().vectors)
    each = 2.0 * _EACH[operands] * count * rounds * sums * host().lanes("float")
    best = 0.0
    for _ in range(12):
        block = (ctypes.c_int64 * 4)(0, count, rounds, ctypes.addressof(space))
        start = time.perf_counter()
        threads.together(made.function("limit"), made.address("limit"), ctypes.addressof(block), count)
        best = max(best, each / (time.perf_counter() - start))
    return best
