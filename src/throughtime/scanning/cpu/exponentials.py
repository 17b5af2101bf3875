"""exp and what is made of it, on vectors: expm1, sigmoid, tanh, sinh, cosh, erf."""

from __future__ import annotations

from throughtime.scanning.cpu import coefficients
from throughtime.scanning.cpu.assembly import Assembly
from throughtime.scanning.cpu.bits import ROUNDING, itself_if_tiny, on_ints, polynomial, power_of_two, scaled, whole

LOG2_E = 1.4426950408889634
EXP = (1.0, 1.0, 0.5, 1 / 6, 1 / 24, 1 / 120, 1 / 720)  # of e^r, the lowest power first
EXP_HIGH, EXP_LOW = 0.693145751953125, 1.4286068203094172e-06  # ln 2 in two parts, the first with few digits
EXP_LEAST, EXP_MOST = -104.0, 89.0  # beyond these e^x is zero or infinite
_LN2 = {"float": (EXP_HIGH, EXP_LOW), "double": (0.6931471803691238, 1.9082149292705877e-10)}
_LEAST = {"float": EXP_LEAST, "double": -746.0}
_MOST = {"float": EXP_MOST, "double": 710.0}
_EXPM1_LEAST, _EXPM1_MOST = -40.0, {"float": 89.6, "double": 710.6}  # below e^x - 1 is -1, above e^x / 2 is infinite
_SINH_ENOUGH = {"float": 1e12, "double": 1e24}  # beyond it v / (v + 1) is 1
ERF_MOST = {"float": 4.0, "double": 6.0}  # beyond it erf is 1


def _reduced(code: Assembly, x: str) -> tuple[str, str, str]:
    """n, n + ROUNDING and r, so that x = n ln 2 + r with |r| <= ln 2 / 2.

    Source: the reduction in two parts is after Cody, Waite (1980), chapter 6.
    """
    high, low = _LN2[code.dtype]
    shifted = code.fma(x, code.literal(LOG2_E), code.literal(ROUNDING[code.dtype]))
    n = code.binary("fsub", shifted, code.literal(ROUNDING[code.dtype]))
    r = code.fma(n, code.literal(-high), x)
    return n, shifted, code.fma(n, code.literal(-low), r)


def _within(code: Assembly, x: str, least: float, most: float) -> str:
    """x between two numbers; NaN passes both comparisons by."""
    x = code.select(code.compare("ogt", x, code.literal(most)), code.literal(most), x)
    return code.select(code.compare("olt", x, code.literal(least)), code.literal(least), x)


def exp(code: Assembly, x: str) -> str:
    """e^x = 2^n e^r: e^r in float32 by Taylor's polynomial of degree 6, in float64 by one of degree 12."""
    n, shifted, r = _reduced(code, _within(code, x, _LEAST[code.dtype], _MOST[code.dtype]))
    if code.dtype == "float":
        p = polynomial(code, EXP, r)
    else:
        p = code.binary("fadd", _expm1_near(code, r), code.literal(1.0))
    return scaled(code, p, n, shifted)


def _expm1_near(code: Assembly, r: str) -> str:
    """e^r - 1 = r + r² q(r)."""
    q = polynomial(code, coefficients.EXPM1[code.dtype], r)
    return code.fma(code.binary("fmul", r, r), q, r)


def _half_expm1(code: Assembly, x: str) -> str:
    """(e^x - 1) / 2 = 2 (2^(n-2) (e^r - 1) + 2^(n-2) - 1/4): infinite only where that is."""
    _, shifted, r = _reduced(code, _within(code, x, _EXPM1_LEAST, _EXPM1_MOST[code.dtype]))
    scale = power_of_two(code, on_ints(code, "sub", whole(code, shifted), 2))
    p = code.fma(scale, _expm1_near(code, r), code.binary("fsub", scale, code.literal(0.25)))
    return code.binary("fadd", p, p)


def expm1(code: Assembly, x: str) -> str:
    """e^x - 1."""
    half = _half_expm1(code, x)
    return itself_if_tiny(code, x, code.binary("fadd", half, half))


def sigmoid(code: Assembly, x: str) -> str:
    """1 / (1 + e^-x)."""
    e = exp(code, code.let(f"fneg {code.vector} {x}"))
    return code.binary("fdiv", code.literal(1.0), code.binary("fadd", code.literal(1.0), e))


TANH_ODD = (
    4.89352455891786e-03, 6.37261928875436e-04, 1.48572235717979e-05, 5.12229709037114e-08, -8.60467152213735e-11,
    2.00018790482477e-13, -2.76076847742355e-16,
)  # fmt: skip
TANH_EVEN = (4.89352518554385e-03, 2.26843463243900e-03, 1.18534705686654e-04, 1.19825839466702e-06)
TANH_MOST = 7.90531110763549805  # beyond it float32 has reached 1


def tanh(code: Assembly, x: str) -> str:
    """tanh x.

    float32: an odd polynomial of degree 13 over an even one of degree 6, up to 7.9, where float32 has reached 1.
    float64: -e / (2 + e) with e = e^(-2|x|) - 1.
    Source: the coefficients are those of Eigen's vectorised tanh (MathFunctionsImpl.h), a minimax fit.
    """
    size = code.intrinsic("fabs", x)
    if code.dtype == "double":
        half = _half_expm1(code, code.binary("fmul", size, code.literal(-2.0)))
        lower = code.binary("fadd", code.literal(1.0), half)
        return itself_if_tiny(code, x, code.intrinsic("copysign", code.binary("fdiv", half, lower), x))
    small = code.select(code.compare("ogt", size, code.literal(TANH_MOST)), code.literal(0.0), x)
    square = code.binary("fmul", small, small)
    p, q = (polynomial(code, terms, square) for terms in (TANH_ODD, TANH_EVEN))
    inner = code.binary("fdiv", code.binary("fmul", small, p), q)
    outer = code.intrinsic("copysign", code.literal(1.0), x)
    tiny = code.compare("olt", size, code.literal(4e-4))
    inner = code.select(tiny, x, inner)
    return code.select(code.compare("ogt", size, code.literal(TANH_MOST)), outer, inner)


def sinh(code: Assembly, x: str) -> str:
    """(e + e / (e + 1)) / 2 with e = e^|x| - 1."""
    half = _half_expm1(code, code.intrinsic("fabs", x))
    e = code.binary("fadd", half, half)
    most = code.literal(_SINH_ENOUGH[code.dtype])
    e = code.select(code.compare("ogt", e, most), most, e)
    rest = code.binary("fdiv", e, code.binary("fadd", e, code.literal(1.0)))
    value = code.intrinsic("copysign", code.fma(rest, code.literal(0.5), half), x)
    return itself_if_tiny(code, x, value)


def cosh(code: Assembly, x: str) -> str:
    """(e^|x| + e^-|x|) / 2."""
    upper = code.binary("fadd", _half_expm1(code, code.intrinsic("fabs", x)), code.literal(0.5))  # e^|x| / 2
    lower = code.binary("fdiv", code.literal(0.25), upper)
    return code.binary("fadd", upper, lower)


def erf(code: Assembly, x: str) -> str:
    """x + x p(x²) up to 1, beyond it 1 - e^-g(x), where g is a polynomial near -ln(1 - erf x)."""
    size, one = code.intrinsic("fabs", x), code.literal(1.0)
    near = polynomial(code, coefficients.ERF[code.dtype], code.binary("fmul", x, x))
    near = code.fma(near, x, x)
    most = code.literal(ERF_MOST[code.dtype])
    g = polynomial(code, coefficients.ERFC[code.dtype], code.select(code.compare("ogt", size, most), most, size))
    far = code.binary("fsub", one, exp(code, code.let(f"fneg {code.vector} {g}")))
    return code.select(code.compare("olt", size, one), near, code.intrinsic("copysign", far, x))
