"""exp, tanh, sigmoid and the rest, on vectors.

For float32 the three that gates are made of and log are written out; the others, and all of float64, call the C library lane by
lane.
Each is right at 0, at infinities and for NaN. How far they are from the truth is measured in the tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from throughtime.scanning.cpu.assembly import Assembly

ROUNDING = 1.5 * 2.0**23  # a float32 of this size has no digits behind the point: added and taken away, it rounds
LOG2_E = 1.4426950408889634
EXP = (1.0, 1.0, 0.5, 1 / 6, 1 / 24, 1 / 120, 1 / 720)  # of e^r, the lowest power first
EXP_HIGH, EXP_LOW = 0.693145751953125, 1.4286068203094172e-06  # ln 2 in two parts, the first with few digits
EXP_LEAST, EXP_MOST = -104.0, 89.0  # beyond these e^x is zero or infinite


def exp(code: Assembly, x: str) -> str:
    """e^x.

        x = n ln 2 + r,   |r| <= ln 2 / 2,   e^x = 2^n e^r

    e^r by a polynomial of degree 6 (Taylor, its last terms fitted by the bound of the rest: under 1 ulp with the rounding
    of the sums).
    Source: range reduction in two parts after Cody, Waite (1980), chapter 6.
    """
    if code.dtype == "double":
        return by_lane(code, "exp", x)
    # NaN passes both comparisons by
    x = code.select(code.compare("ogt", x, code.literal(EXP_MOST)), code.literal(EXP_MOST), x)
    x = code.select(code.compare("olt", x, code.literal(EXP_LEAST)), code.literal(EXP_LEAST), x)
    n = code.binary("fsub", code.fma(x, code.literal(LOG2_E), code.literal(ROUNDING)), code.literal(ROUNDING))
    r = code.fma(n, code.literal(-EXP_HIGH), x)
    r = code.fma(n, code.literal(-EXP_LOW), r)
    p = code.literal(EXP[-1])
    for t in reversed(EXP[:-1]):
        p = code.fma(p, r, code.literal(t))
    return _scaled(code, p, n)


def _scaled(code: Assembly, p: str, n: str) -> str:
    """p · 2^n for -151 <= n <= 129: by one instruction of AVX-512, else in two steps so that neither factor leaves the range
    of float32."""
    if code.lanes == 16:
        v = code.vector
        code.module.declare(f"declare {v} @llvm.x86.avx512.mask.scalef.ps.512({v}, {v}, {v}, i16, i32)")
        return code.let(f"call {v} @llvm.x86.avx512.mask.scalef.ps.512({v} {p}, {v} {n}, {v} {p}, i16 -1, i32 4)")
    ints = f"<{code.lanes} x i32>"
    safe = code.select(code.compare("uno", n, n), code.literal(0.0), n)
    whole = code.let(f"fptosi {code.vector} {safe} to {ints}")

    def splat(v: int) -> str:
        return "<" + ", ".join([f"i32 {v}"] * code.lanes) + ">"

    half = code.let(f"ashr {ints} {whole}, {splat(1)}")
    rest = code.let(f"sub {ints} {whole}, {half}")
    for part in (half, rest):
        bits = code.let(f"shl {ints} {code.let(f'add {ints} {part}, {splat(127)}')}, {splat(23)}")
        p = code.let(f"fmul {code.vector} {p}, {code.let(f'bitcast {ints} {bits} to {code.vector}')}")
    return p


def sigmoid(code: Assembly, x: str) -> str:
    """1 / (1 + e^-x)."""
    e = exp(code, code.let(f"fneg {code.vector} {x}"))
    return code.binary("fdiv", code.literal(1.0), code.binary("fadd", code.literal(1.0), e))


LOG = (  # of log(1 + r) = r - r²/2 + r³ p(r), the highest power first
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1, 2.0000714765e-1,
    -2.4999993993e-1, 3.3333331174e-1,
)  # fmt: skip
LOG2_HIGH, LOG2_LOW = 0.693359375, -2.12194440e-4  # ln 2 in two parts, the first with few digits


def log(code: Assembly, x: str) -> str:
    """ln x.

        x = 2^n (1 + r),   √½ <= 1 + r < √2,   ln x = n ln 2 + r - r²/2 + r³ p(r)

    Source: the coefficients of p are those of Cephes (Moshier), logf.
    """
    if code.dtype == "double":
        return by_lane(code, "log", x)
    ints = f"<{code.lanes} x i32>"

    def splat(v: int) -> str:
        return "<" + ", ".join([f"i32 {v}"] * code.lanes) + ">"

    small = code.compare("olt", x, code.literal(2.0**-126))  # its exponent does not tell its size
    given = code.select(small, code.binary("fmul", x, code.literal(2.0**23)), x)
    bits = code.let(f"bitcast {code.vector} {given} to {ints}")
    # the exponent as it is where the digits are below √2, else the next one
    past = code.let(f"sub {ints} {bits}, {splat(0x3F3504F3)}")
    n = code.let(f"sitofp {ints} {code.let(f'ashr {ints} {past}, {splat(23)}')} to {code.vector}")
    n = code.binary("fsub", n, code.select(small, code.literal(23.0), code.literal(0.0)))
    digits = code.let(f"add {ints} {code.let(f'and {ints} {past}, {splat(0x007FFFFF)}')}, {splat(0x3F3504F3)}")
    r = code.binary("fsub", code.let(f"bitcast {ints} {digits} to {code.vector}"), code.literal(1.0))
    p = code.literal(LOG[0])
    for c in LOG[1:]:
        p = code.fma(p, r, code.literal(c))
    square = code.binary("fmul", r, r)
    tail = code.fma(code.binary("fmul", p, r), square, code.binary("fmul", n, code.literal(LOG2_LOW)))
    tail = code.fma(square, code.literal(-0.5), tail)
    value = code.fma(n, code.literal(LOG2_HIGH), code.binary("fadd", r, tail))
    # what has no logarithm: infinity, NaN and negative numbers, zero
    value = code.select(code.compare("ult", x, code.literal(math.inf)), value, x)
    value = code.select(code.compare("uge", x, code.literal(0.0)), value, code.literal(math.nan))
    value = code.select(code.compare("uno", x, x), x, value)
    return code.select(code.compare("oeq", x, code.literal(0.0)), code.literal(-math.inf), value)


TANH_ODD = (
    4.89352455891786e-03, 6.37261928875436e-04, 1.48572235717979e-05, 5.12229709037114e-08, -8.60467152213735e-11,
    2.00018790482477e-13, -2.76076847742355e-16,
)  # fmt: skip
TANH_EVEN = (4.89352518554385e-03, 2.26843463243900e-03, 1.18534705686654e-04, 1.19825839466702e-06)
TANH_MOST = 7.90531110763549805  # beyond it float32 has reached 1


def tanh(code: Assembly, x: str) -> str:
    """tanh x.

    An odd polynomial of degree 13 over an even one of degree 6, up to 9.02, where float32 has reached 1.
    Source: the coefficients are those of Eigen's vectorised tanh (MathFunctionsImpl.h), a minimax fit.
    """
    if code.dtype == "double":
        return by_lane(code, "tanh", x)
    size = code.intrinsic("fabs", x)
    small = code.select(code.compare("ogt", size, code.literal(TANH_MOST)), code.literal(0.0), x)
    square = code.binary("fmul", small, small)
    p = code.literal(TANH_ODD[-1])
    for c in reversed(TANH_ODD[:-1]):
        p = code.fma(p, square, code.literal(c))
    q = code.literal(TANH_EVEN[-1])
    for c in reversed(TANH_EVEN[:-1]):
        q = code.fma(q, square, code.literal(c))
    inner = code.binary("fdiv", code.binary("fmul", small, p), q)
    outer = code.intrinsic("copysign", code.literal(1.0), x)
    tiny = code.compare("olt", size, code.literal(4e-4))
    inner = code.select(tiny, x, inner)
    return code.select(code.compare("ogt", size, code.literal(TANH_MOST)), outer, inner)


def by_lane(code: Assembly, name: str, *args: str) -> str:
    """A function of the C library, called for each lane."""
    scalar = name + ("f" if code.dtype == "float" else "")
    helper = f"each_{scalar}_{code.lanes}"
    vector, dtype = code.vector, code.dtype

    def body(inner: Assembly) -> None:
        inner.module.declare(f"declare {dtype} @{scalar}({', '.join([dtype] * len(args))}) nounwind")
        result = "poison"
        for i in range(inner.lanes):
            parts = [inner.let(f"extractelement {vector} %a{j}, i64 {i}") for j in range(len(args))]
            value = inner.let(f"call {dtype} @{scalar}({', '.join(f'{dtype} {p}' for p in parts)})")
            result = inner.let(f"insertelement {vector} {result}, {dtype} {value}, i64 {i}")
        inner.line(f"ret {vector} {result}")

    signature = ", ".join(f"{vector} %a{j}" for j in range(len(args)))
    code.module.define(helper, signature, body, returns=vector, kind="internal ", attributes="noinline nounwind")
    return code.let(f"call {vector} @{helper}({', '.join(f'{vector} {a}' for a in args)})")


def _largest(code: Assembly, *args: str) -> str:
    value = args[0]
    for other in args[1:]:
        value = code.intrinsic("maximum", value, other)
    return value


def _inverse_root(code: Assembly, x: str) -> str:
    return code.binary("fdiv", code.literal(1.0), code.intrinsic("sqrt", x))


def _sign(code: Assembly, x: str) -> str:
    below = code.select(code.compare("olt", x, code.literal(0.0)), code.literal(-1.0), code.literal(0.0))
    return code.select(code.compare("ogt", x, code.literal(0.0)), code.literal(1.0), below)


def _floor(code: Assembly, x: str) -> str:
    if code.module.rounds:
        return code.intrinsic("floor", x)
    size = code.intrinsic("fabs", x)
    near = code.let(
        f"fsub {code.vector} {code.let(f'fadd {code.vector} {size}, {code.literal(2.0**23)}')}, {code.literal(2.0**23)}"
    )
    near = code.intrinsic("copysign", near, x)
    above = code.select(code.compare("ogt", near, x), code.literal(1.0), code.literal(0.0))
    below = code.intrinsic("copysign", code.binary("fsub", near, above), x)
    return code.select(code.compare("olt", size, code.literal(2.0**23)), below, x)


def _vectors() -> dict[str, Callable[..., str]]:
    """What each pointwise op is on vectors; truth values are vectors of bits."""
    made: dict[str, Callable[..., str]] = {
        "and": lambda code, a, b: code.let(f"and <{code.lanes} x i1> {a}, {b}"),
        "or": lambda code, a, b: code.let(f"or <{code.lanes} x i1> {a}, {b}"),
        "not": lambda code, a: code.let(f"xor <{code.lanes} x i1> {a}, {code.mask(code.lanes)}"),
        "select": lambda code, *args: code.select(*args),
        "neg": lambda code, a: code.let(f"fneg {code.vector} {a}"),
        "abs": lambda code, a: code.intrinsic("fabs", a),
        "detach": lambda code, a: a,
        "expand": lambda code, a: a,
        "largest": _largest,
        "rsqrt": _inverse_root,
        "inverse_root": _inverse_root,
        "sign": _sign,
        "floor": _floor,
        "exp": exp,
        "log": log,
        "sigmoid": sigmoid,
        "tanh": tanh,
    }
    for op in ("add", "sub", "mul", "div"):
        made[op] = lambda code, a, b, op="f" + op: code.binary(op, a, b)
    for op, how in {"lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge", "eq": "oeq", "ne": "une"}.items():
        made[op] = lambda code, a, b, how=how: code.compare(how, a, b)
    for op in ("minimum", "maximum", "sqrt"):
        made[op] = lambda code, *args, op=op: code.intrinsic(op, *args)
    for op in ("log1p", "expm1", "sin", "cos", "erf", "pow"):
        made[op] = lambda code, *args, op=op: by_lane(code, op, *args)
    return made


VECTORS = _vectors()
NEUTRAL = {"sum": 0.0, "max": -math.inf}  # what a reduction begins with


def combined(code: Assembly, reduction: str, a: str, b: str) -> str:
    """Two vectors of a reduction as one."""
    return code.binary("fadd", a, b) if reduction == "sum" else code.intrinsic("maximum", a, b)


def across_lanes(code: Assembly, reduction: str, x: str) -> str:
    """The lanes of a vector, brought together: one number."""
    name = f"llvm.vector.reduce.{'fadd' if reduction == 'sum' else 'fmaximum'}.v{code.lanes}f{code.bytes * 8}"
    if reduction == "sum":
        code.module.declare(f"declare {code.dtype} @{name}({code.dtype}, {code.vector})")
        return code.let(f"call reassoc {code.dtype} @{name}({code.dtype} -0.0, {code.vector} {x})")
    code.module.declare(f"declare {code.dtype} @{name}({code.vector})")
    return code.let(f"call {code.dtype} @{name}({code.vector} {x})")
