"""exp, tanh, sigmoid and the rest, on vectors.

For float32 the three that gates are made of are written out; the others, and all of float64, call the C library lane by lane.
Each is right at 0, at infinities and for NaN. How far they are from the truth is measured in the tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from throughtime.scanning.cpu.assembly import Assembly

ROUNDING = 1.5 * 2.0**23  # a float32 of this size has no digits behind the point: added and taken away, it rounds


def exp(code: Assembly, x: str) -> str:
    """e^x.

        x = n ln 2 + r,   |r| <= ln 2 / 2,   e^x = 2^n e^r

    e^r by a polynomial of degree 6 (Taylor, its last terms fitted by the bound of the rest: under 1 ulp with the rounding
    of the sums).
    Source: range reduction in two parts after Cody, Waite (1980), chapter 6.
    """
    if code.dtype == "double":
        return by_lane(code, "exp", x)
    log2e, high, low = 1.4426950408889634, 0.693145751953125, 1.4286068203094172e-06
    # beyond these the result is infinite or zero; NaN passes both comparisons by
    x = code.select(code.compare("ogt", x, code.literal(89.0)), code.literal(89.0), x)
    x = code.select(code.compare("olt", x, code.literal(-104.0)), code.literal(-104.0), x)
    n = code.binary("fsub", code.fma(x, code.literal(log2e), code.literal(ROUNDING)), code.literal(ROUNDING))
    r = code.fma(n, code.literal(-high), x)
    r = code.fma(n, code.literal(-low), r)
    terms = [1.0, 1.0, 0.5, 1 / 6, 1 / 24, 1 / 120, 1 / 720]
    p = code.literal(terms[-1])
    for t in reversed(terms[:-1]):
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


def tanh(code: Assembly, x: str) -> str:
    """tanh x.

    An odd polynomial of degree 13 over an even one of degree 6, up to 9.02, where float32 has reached 1.
    Source: the coefficients are those of Eigen's vectorised tanh (MathFunctionsImpl.h), a minimax fit.
    """
    if code.dtype == "double":
        return by_lane(code, "tanh", x)
    odd = [4.89352455891786e-03, 6.37261928875436e-04, 1.48572235717979e-05, 5.12229709037114e-08,
           -8.60467152213735e-11, 2.00018790482477e-13, -2.76076847742355e-16]  # fmt: skip
    even = [4.89352518554385e-03, 2.26843463243900e-03, 1.18534705686654e-04, 1.19825839466702e-06]
    limit = 7.90531110763549805
    size = code.intrinsic("fabs", x)
    small = code.select(code.compare("ogt", size, code.literal(limit)), code.literal(0.0), x)
    square = code.binary("fmul", small, small)
    p = code.literal(odd[-1])
    for c in reversed(odd[:-1]):
        p = code.fma(p, square, code.literal(c))
    q = code.literal(even[-1])
    for c in reversed(even[:-1]):
        q = code.fma(q, square, code.literal(c))
    inner = code.binary("fdiv", code.binary("fmul", small, p), q)
    outer = code.intrinsic("copysign", code.literal(1.0), x)
    tiny = code.compare("olt", size, code.literal(4e-4))
    inner = code.select(tiny, x, inner)
    return code.select(code.compare("ogt", size, code.literal(limit)), outer, inner)


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
        "sigmoid": sigmoid,
        "tanh": tanh,
    }
    for op in ("add", "sub", "mul", "div"):
        made[op] = lambda code, a, b, op="f" + op: code.binary(op, a, b)
    for op, how in {"lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge", "eq": "oeq", "ne": "une"}.items():
        made[op] = lambda code, a, b, how=how: code.compare(how, a, b)
    for op in ("minimum", "maximum", "sqrt"):
        made[op] = lambda code, *args, op=op: code.intrinsic(op, *args)
    for op in ("log", "log1p", "expm1", "sin", "cos", "erf", "pow"):
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
