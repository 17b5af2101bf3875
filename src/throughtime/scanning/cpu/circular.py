"""sin, cos, tan and their inverses, on vectors."""

from __future__ import annotations

import math
from collections.abc import Callable

from throughtime.scanning.cpu import coefficients
from throughtime.scanning.cpu.assembly import Assembly
from throughtime.scanning.cpu.bits import ROUNDING, bits_of, ints, of_bits, on_ints, polynomial, splat
from throughtime.scanning.cpu.lanes import anywhere, by_lane

HALF_PI = {  # in three parts
    "float": (1.5707963705062866, -4.371138828673793e-08, -1.7151245100058819e-15),
    "double": (1.5707963267948966, 6.123233995736766e-17, -1.4973849048591698e-33),
}
LARGEST = {"float": 1e5, "double": 1e6}
"""Up to this size x - n π/2 is exact in the first part, so that three are enough."""


def _reduced(code: Assembly, x: str) -> tuple[str, str]:
    """Whole numbers n modulo 4, and r, so that x = n π/2 + r with |r| <= π/4."""
    shift = code.literal(ROUNDING[code.dtype])
    shifted = code.fma(x, code.literal(2 / math.pi), shift)
    n, r = code.binary("fsub", shifted, shift), x
    for part in HALF_PI[code.dtype]:
        r = code.fma(n, code.literal(-part), r)
    return bits_of(code, shifted), r


def _sine(code: Assembly, r: str, square: str) -> str:
    return code.fma(code.binary("fmul", r, square), polynomial(code, coefficients.SIN[code.dtype], square), r)


def _cosine(code: Assembly, square: str) -> str:
    rest = polynomial(code, coefficients.COS[code.dtype], square)
    first = code.fma(square, code.literal(-0.5), code.literal(1.0))
    return code.fma(code.binary("fmul", square, square), rest, first)


def _wave(quarters: int) -> Callable[[Assembly, str], str]:
    """sin(x + quarters π/2)."""

    def wave(code: Assembly, x: str) -> str:
        n, r = _reduced(code, x)
        n = on_ints(code, "add", n, quarters)
        square = code.binary("fmul", r, r)
        odd = code.let(f"icmp ne {ints(code)} {on_ints(code, 'and', n, 1)}, {splat(code, 0)}")
        value = bits_of(code, code.select(odd, _cosine(code, square), _sine(code, r, square)))
        sign = on_ints(code, "shl", on_ints(code, "and", n, 2), 8 * code.bytes - 2)
        return of_bits(code, on_ints(code, "xor", value, sign))

    return wave


def _with_large(name: str, near: Callable[[Assembly, str], str], odd: bool) -> Callable[[Assembly, str], str]:
    """A function whose large arguments are the C library's. odd: a zero keeps its sign."""

    def whole(code: Assembly, x: str) -> str:
        if not code.module.fused:  # the parts of π would not come out exact
            return by_lane(code, name, x)
        value, slot = near(code, x), code.slot(code.vector)
        if odd:
            value = code.select(code.compare("oeq", x, code.literal(0.0)), x, value)
        code.store(code.vector, value, slot)
        large = code.compare("ogt", code.intrinsic("fabs", x), code.literal(LARGEST[code.dtype]))
        with code.when(anywhere(code, large)):
            code.store(code.vector, code.select(large, by_lane(code, name, x), value), slot)
        return code.load(code.vector, slot)

    return whole


def _tangent(code: Assembly, x: str) -> str:
    n, r = _reduced(code, x)
    square = code.binary("fmul", r, r)
    s, c = _sine(code, r, square), _cosine(code, square)
    odd = code.let(f"icmp ne {ints(code)} {on_ints(code, 'and', n, 1)}, {splat(code, 0)}")
    upper = code.select(odd, code.let(f"fneg {code.vector} {c}"), s)
    return code.binary("fdiv", upper, code.select(odd, s, c))


sin = _with_large("sin", _wave(0), odd=True)
cos = _with_large("cos", _wave(1), odd=False)
tan = _with_large("tan", _tangent, odd=True)


def atan(code: Assembly, x: str) -> str:
    """z + z³ p(z²) up to 1; beyond it π/2 less that of z = 1/|x|."""
    size, one = code.intrinsic("fabs", x), code.literal(1.0)
    beyond = code.compare("ogt", size, one)
    z = code.select(beyond, code.binary("fdiv", one, size), size)
    square = code.binary("fmul", z, z)
    p = polynomial(code, coefficients.ATAN[code.dtype], square)
    value = code.fma(code.binary("fmul", z, square), p, z)
    value = code.select(beyond, _below_half_pi(code, value), value)
    return code.intrinsic("copysign", value, x)


def _below_half_pi(code: Assembly, value: str) -> str:
    high, low, _ = HALF_PI[code.dtype]
    return code.binary("fadd", code.binary("fsub", code.literal(high), value), code.literal(low))


def _arc(code: Assembly, size: str) -> tuple[str, str]:
    """Where |x| is above 1/2, and asin of |x|, or there of √((1 - |x|) / 2), which is half of acos |x|."""
    half = code.literal(0.5)
    beyond = code.compare("ogt", size, half)
    rest = code.binary("fmul", code.binary("fsub", code.literal(1.0), size), half)
    square = code.select(beyond, rest, code.binary("fmul", size, size))
    s = code.select(beyond, code.intrinsic("sqrt", rest), size)
    p = polynomial(code, coefficients.ASIN[code.dtype], square)
    return beyond, code.fma(code.binary("fmul", s, square), p, s)


def asin(code: Assembly, x: str) -> str:
    """s + s³ p(s²) of s = |x| up to 1/2; beyond it π/2 less twice that of s = √((1 - |x|) / 2)."""
    beyond, arc = _arc(code, code.intrinsic("fabs", x))
    value = code.select(beyond, _below_half_pi(code, code.binary("fadd", arc, arc)), arc)
    return code.intrinsic("copysign", value, x)


def acos(code: Assembly, x: str) -> str:
    """π/2 - asin x; from 1/2 on 2 asin √((1 - x) / 2), and below -1/2 π less that of -x."""
    beyond, arc = _arc(code, code.intrinsic("fabs", x))
    high, low, _ = HALF_PI[code.dtype]
    twice, signed = code.binary("fadd", arc, arc), code.intrinsic("copysign", arc, x)
    left = code.binary("fadd", code.binary("fsub", code.literal(2 * high), twice), code.literal(2 * low))
    far = code.select(code.compare("olt", x, code.literal(0.0)), left, twice)
    near = code.binary("fsub", code.literal(high), code.binary("fsub", signed, code.literal(low)))
    return code.select(beyond, far, near)
