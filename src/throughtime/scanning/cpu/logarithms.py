"""The logarithm and what is made of it, on vectors: log1p, asinh, acosh, atanh."""

from __future__ import annotations

import math

from throughtime.scanning.cpu import coefficients
from throughtime.scanning.cpu.assembly import Assembly
from throughtime.scanning.cpu.bits import (
    BIAS,
    FRACTION,
    as_number,
    itself_if_tiny,
    of_bits,
    on_ints,
    polynomial,
    splat,
    split,
)

LOG = (  # of log(1 + r) = r - r²/2 + r³ p(r), the highest power first
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1, 2.0000714765e-1,
    -2.4999993993e-1, 3.3333331174e-1,
)  # fmt: skip
LOG2_HIGH, LOG2_LOW = 0.693359375, -2.12194440e-4  # ln 2 in two parts, the first with few digits
_LN2 = {"float": (LOG2_HIGH, LOG2_LOW), "double": (0.6931471803691238, 1.9082149292705877e-10)}
_LARGE = {"float": 2.0**30, "double": 2.0**60}  # beside whose square 1 is nothing


def log(code: Assembly, x: str) -> str:
    """ln x = n ln 2 + ln(1 + r), where x = 2^n (1 + r) and √½ <= 1 + r < √2."""
    fraction = FRACTION[code.dtype]
    # the exponent of a number below the least normal one does not tell its size
    small = code.compare("olt", x, code.literal(2.0 ** (1 - BIAS[code.dtype])))
    n, r = split(code, code.select(small, code.binary("fmul", x, code.literal(2.0**fraction)), x))
    lost = code.select(small, code.literal(float(fraction)), code.literal(0.0))
    value = _of_parts(code, code.binary("fsub", as_number(code, n), lost), r)
    return _at_borders(code, x, value)


def log1p(code: Assembly, x: str) -> str:
    """ln(1 + x): what is lost where 1 is added is added to r."""
    one = code.literal(1.0)
    sum_ = code.binary("fadd", x, one)
    n, r = split(code, sum_)
    lost = code.binary("fsub", x, code.binary("fsub", sum_, one))
    half = code.binary("fmul", lost, code.literal(0.5))
    # 2^(1 - n), which is 0 for the largest numbers, to which nothing is lost
    back = on_ints(code, "shl", on_ints(code, "sub", splat(code, BIAS[code.dtype] + 1), n), FRACTION[code.dtype])
    value = _of_parts(code, as_number(code, n), code.fma(half, of_bits(code, back), r))
    return itself_if_tiny(code, x, _at_borders(code, sum_, value))


def _of_parts(code: Assembly, n: str, r: str) -> str:
    """n ln 2 + ln(1 + r).

    float32: ln(1 + r) = r - r²/2 + r³ p(r). float64: r - s (r - q), where s = r / (2 + r), ln(1 + r) = 2 atanh s and
    q = 2 atanh(s) / s - 2.
    Source: the coefficients of p are those of Cephes (Moshier), logf.
    """
    high, low = (code.literal(part) for part in _LN2[code.dtype])
    if code.dtype == "float":
        p, square = polynomial(code, LOG[::-1], r), code.binary("fmul", r, r)
        tail = code.fma(code.binary("fmul", p, r), square, code.binary("fmul", n, low))
        tail = code.fma(square, code.literal(-0.5), tail)
    else:
        s = code.binary("fdiv", r, code.binary("fadd", r, code.literal(2.0)))
        square = code.binary("fmul", s, s)
        q = code.binary("fmul", square, polynomial(code, coefficients.ATANH["double"], square))
        minus_s = code.let(f"fneg {code.vector} {s}")
        tail = code.fma(minus_s, code.binary("fsub", r, q), code.binary("fmul", n, low))
    return code.fma(n, high, code.binary("fadd", r, tail))


def _at_borders(code: Assembly, x: str, value: str) -> str:
    """What has no logarithm: infinity, NaN and negative numbers, zero."""
    value = code.select(code.compare("ult", x, code.literal(math.inf)), value, x)
    value = code.select(code.compare("uge", x, code.literal(0.0)), value, code.literal(math.nan))
    value = code.select(code.compare("uno", x, x), x, value)
    return code.select(code.compare("oeq", x, code.literal(0.0)), code.literal(-math.inf), value)


def asinh(code: Assembly, x: str) -> str:
    """ln(1 + |x| + x² / (1 + √(1 + x²))), with the sign of x; ln 2|x| where x is large."""
    size, one = code.intrinsic("fabs", x), code.literal(1.0)
    square = code.binary("fmul", size, size)
    root = code.intrinsic("sqrt", code.binary("fadd", square, one))
    more = code.binary("fadd", size, code.binary("fdiv", square, code.binary("fadd", root, one)))
    return code.intrinsic("copysign", _log1p_or_double(code, more, size), x)


def acosh(code: Assembly, x: str) -> str:
    """ln(1 + t + √(2t + t²)) with t = x - 1; ln 2x where x is large; NaN below 1."""
    t = code.binary("fsub", x, code.literal(1.0))
    root = code.intrinsic("sqrt", code.fma(t, t, code.binary("fadd", t, t)))
    value = _log1p_or_double(code, code.binary("fadd", t, root), x)
    return code.select(code.compare("olt", x, code.literal(1.0)), code.literal(math.nan), value)


def _log1p_or_double(code: Assembly, given: str, x: str) -> str:
    """ln(1 + given), or ln 2x where x is large."""
    large = code.compare("ogt", x, code.literal(_LARGE[code.dtype]))
    value = log1p(code, code.select(large, x, given))
    return code.binary("fadd", value, code.select(large, code.literal(math.log(2)), code.literal(0.0)))


def atanh(code: Assembly, x: str) -> str:
    """ln(1 + 2|x| / (1 - |x|)) / 2, with the sign of x."""
    size = code.intrinsic("fabs", x)
    ratio = code.binary("fdiv", code.binary("fadd", size, size), code.binary("fsub", code.literal(1.0), size))
    return code.intrinsic("copysign", code.binary("fmul", log1p(code, ratio), code.literal(0.5)), x)
