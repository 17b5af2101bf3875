"""Powers, on vectors."""

from __future__ import annotations

import math

from throughtime.scanning.cpu import exponentials, logarithms
from throughtime.scanning.cpu.assembly import Assembly
from throughtime.scanning.cpu.bits import bits_of, ints, splat
from throughtime.scanning.cpu.lanes import by_lane


def pow_(code: Assembly, x: str, y: str) -> str:
    """x^y = e^(y ln |x|) with its sign, worked out in float64 for float32.

    float64, for which no wider numbers are there, and code for processors that may have none, call the C library lane by lane.
    """
    if code.dtype == "double" or not code.module.fused:
        return by_lane(code, "pow", x, y)
    size, wide = code.intrinsic("fabs", x), code.wide()
    base, exponent = (code.let(f"fpext {code.vector} {v} to {wide.vector}") for v in (size, y))
    product = wide.binary("fmul", exponent, logarithms.log(wide, base))
    value = code.let(f"fptrunc {wide.vector} {exponentials.exp(wide, product)} to {code.vector}")
    return _signed(code, x, y, size, value)


def _signed(code: Assembly, x: str, y: str, size: str, value: str) -> str:
    """|x|^y made x^y: its sign, NaN for roots of negative numbers, and 1 where it is that whatever the other is."""
    zero, one, infinity = (code.literal(v) for v in (0.0, 1.0, math.inf))
    half = code.binary("fmul", y, code.literal(0.5))
    whole = code.compare("oeq", y, code.intrinsic("floor", y))
    halves = code.compare("une", half, code.intrinsic("floor", half))
    below = code.let(f"icmp slt {ints(code)} {bits_of(code, x)}, {splat(code, 0)}")  # -0 too

    def all_of(*masks: str) -> str:
        made = masks[0]
        for mask in masks[1:]:
            made = code.let(f"and <{code.lanes} x i1> {made}, {mask}")
        return made

    value = code.select(all_of(below, whole, halves), code.let(f"fneg {code.vector} {value}"), value)
    broken = code.let(f"xor <{code.lanes} x i1> {whole}, {code.mask(code.lanes)}")
    finite = all_of(code.compare("olt", x, zero), code.compare("olt", size, infinity))
    value = code.select(all_of(finite, broken), code.literal(math.nan), value)
    endless = all_of(code.compare("oeq", size, one), code.compare("oeq", code.intrinsic("fabs", y), infinity))
    for always in (code.compare("oeq", x, one), code.compare("oeq", y, zero), endless):
        value = code.select(always, one, value)
    return value
