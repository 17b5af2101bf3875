"""What each pointwise op is on vectors, and what reductions begin with.

Each function is right at 0, at infinities and for NaN. How far they are from the truth is measured in test_functions.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from throughtime.scanning.cpu import circular, exponentials, logarithms
from throughtime.scanning.cpu.assembly import Assembly
from throughtime.scanning.cpu.powers import pow_


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


_FUNCTIONS = {
    exponentials: ("exp", "expm1", "sigmoid", "tanh", "sinh", "cosh", "erf"),
    logarithms: ("log", "log1p", "asinh", "acosh", "atanh"),
    circular: ("sin", "cos", "tan", "asin", "acos", "atan"),
}


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
        "pow": pow_,
    }
    for op in ("add", "sub", "mul", "div"):
        made[op] = lambda code, a, b, op="f" + op: code.binary(op, a, b)
    for op, how in {"lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge", "eq": "oeq", "ne": "une"}.items():
        made[op] = lambda code, a, b, how=how: code.compare(how, a, b)
    for op in ("minimum", "maximum", "sqrt"):
        made[op] = lambda code, *args, op=op: code.intrinsic(op, *args)
    for module, names in _FUNCTIONS.items():
        made |= {op: getattr(module, op) for op in names}
    return made


VECTORS = _vectors()
NEUTRAL = {"sum": 0.0, "max": -math.inf}  # what a reduction begins with
