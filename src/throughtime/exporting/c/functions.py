"""What the ops of nodes are in C99: expressions, and the functions that they call, written out where C has none of its own."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from throughtime.scanning.cpu import exponentials, logarithms


@dataclass(frozen=True)
class Expression:
    """Text of C. binds: how strongly its weakest operator does; what is not an operator binds most strongly."""

    text: str
    binds: int = 9

    def within(self, binds: int) -> str:
        """As an operand of something that binds so strongly."""
        return self.text if self.binds >= binds else f"({self.text})"


@dataclass(frozen=True)
class Helper:
    """A function of C that is written out. calls: other ones."""

    text: str
    calls: tuple[str, ...] = ()


def literal(value: float) -> str:
    """A number of float32, exact to the bit: decimal where that is short, else hexadecimal."""
    value = float(struct.unpack("<f", struct.pack("<f", value))[0])
    if math.isnan(value):
        return "NAN"
    if math.isinf(value):
        return "INFINITY" if value > 0 else "-INFINITY"
    short = f"{value:.6g}"
    if float(short) == value and "e" not in short:
        return f"{short}f" if "." in short else f"{short}.0f"
    digits, power = value.hex().split("p")
    return f"{digits.rstrip('0')}p{power}f".replace(".p", ".0p")


def _polynomial(terms: Sequence[float], of: str) -> str:
    """By Horner's rule; the lowest power first."""
    made = literal(terms[-1])
    for term in reversed(terms[:-1]):
        made = f"{literal(term)} + {of} * ({made})"
    return made


HELPERS = {
    "power_of_two": Helper("""\
/* 2^n for -126 <= n <= 127 */
static float power_of_two(int32_t n)
{
    union { uint32_t bits; float value; } made;
    made.bits = (uint32_t)(n + 127) << 23;
    return made.value;
}"""),
    "exponential": Helper(f"""\
/* e^v = 2^n e^r,  v = n ln 2 + r,  |r| <= ln 2 / 2: in two steps, so that neither power of two leaves the range of float */
static float exponential(float v)
{{
    if (v != v) return v;
    if (v > {literal(exponentials.EXP_MOST)}) v = {literal(exponentials.EXP_MOST)};
    if (v < {literal(exponentials.EXP_LEAST)}) v = {literal(exponentials.EXP_LEAST)};
    const int32_t n = (int32_t)(v * {literal(exponentials.LOG2_E)} + (v < 0.0f ? -0.5f : 0.5f)), half = n / 2;
    const float r = (v - (float)n * {literal(exponentials.EXP_HIGH)}) - (float)n * {literal(exponentials.EXP_LOW)};
    const float p = {_polynomial(exponentials.EXP, "r")};
    return p * power_of_two(half) * power_of_two(n - half);
}}""", ("power_of_two",)),
    "sigmoid": Helper("""\
static float sigmoid(float v) { return 1.0f / (1.0f + exponential(-v)); }""", ("exponential",)),
    "hyperbolic_tangent": Helper(f"""\
static float hyperbolic_tangent(float v)
{{
    if (v > {literal(exponentials.TANH_MOST)}) return 1.0f;
    if (v < {literal(-exponentials.TANH_MOST)}) return -1.0f;
    if (v < 4e-4f && v > -4e-4f) return v;
    const float s = v * v;
    const float p = {_polynomial(exponentials.TANH_ODD, "s")};
    const float q = {_polynomial(exponentials.TANH_EVEN, "s")};
    return v * p / q;
}}"""),
    "logarithm": Helper(f"""\
/* ln v = n ln 2 + ln(1 + r),  v = 2^n (1 + r),  sqrt(1/2) <= 1 + r < sqrt(2) */
static float logarithm(float v)
{{
    if (!(v > 0.0f)) return v == 0.0f ? -INFINITY : NAN;
    if (v > FLT_MAX) return v;
    const int small = v < FLT_MIN;
    union {{ float value; int32_t bits; }} given, rest;
    given.value = small ? v * 8388608.0f : v;
    const int32_t past = given.bits - 0x3f3504f3, digits = past & 0x007fffff;
    const float n = (float)((past - digits) / 0x00800000 - (small ? 23 : 0));
    rest.bits = digits + 0x3f3504f3;
    const float r = rest.value - 1.0f, s = r * r;
    const float p = {_polynomial(logarithms.LOG[::-1], "r")};
    return n * {literal(logarithms.LOG2_HIGH)} + (r + (p * r * s + n * {literal(logarithms.LOG2_LOW)} - 0.5f * s));
}}"""),
    "magnitude": Helper("static float magnitude(float v) { return v < 0.0f ? -v : v; }"),
    "sign": Helper("static float sign(float v) { return (float)((v > 0.0f) - (v < 0.0f)); }"),
    "minimum": Helper("""\
/* NaN where either is */
static float minimum(float a, float b) { return a != a ? a : b != b ? b : a < b ? a : b; }"""),
    "maximum": Helper("""\
/* NaN where either is */
static float maximum(float a, float b) { return a != a ? a : b != b ? b : a > b ? a : b; }"""),
    "product": Helper("""\
/* out[n] = the sum over k of x[k] weights[k][n] */
static void product(const float *restrict x, int depth, const float *restrict weights, int width, float *restrict out)
{
    for (int n = 0; n < width; n++)
        out[n] = 0.0f;
    for (int k = 0; k < depth; k++)
        for (int n = 0; n < width; n++)
            out[n] += x[k] * weights[k * width + n];
}"""),
    "product_int8": Helper("""\
/* out[n] = scales[n] times the sum over k of x[k] weights[k][n] */
static void product_int8(const float *restrict x, int depth, const int8_t *restrict weights, const float *restrict scales,
                         int width, float *restrict out)
{
    for (int n = 0; n < width; n++)
        out[n] = 0.0f;
    for (int k = 0; k < depth; k++)
        for (int n = 0; n < width; n++)
            out[n] += x[k] * (float)weights[k * width + n];
    for (int n = 0; n < width; n++)
        out[n] *= scales[n];
}"""),
}  # fmt: skip

LIBM = {
    "log1p": "log1pf", "expm1": "expm1f", "sin": "sinf", "cos": "cosf", "erf": "erff", "pow": "powf", "floor": "floorf",
    **{name: f"{name}f" for name in ("tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh")},
    "sqrt": "sqrtf", "rsqrt": "sqrtf", "inverse_root": "sqrtf",
}  # fmt: skip
_OWN = {
    "exp": "exponential", "sigmoid": "sigmoid", "tanh": "hyperbolic_tangent", "log": "logarithm", "abs": "magnitude",
    "sign": "sign", "minimum": "minimum", "maximum": "maximum", "largest": "maximum",
}  # fmt: skip
_BINARY = {
    "mul": ("*", 6), "div": ("/", 6), "add": ("+", 5), "sub": ("-", 5), "lt": ("<", 4), "le": ("<=", 4), "gt": (">", 4),
    "ge": (">=", 4), "eq": ("==", 3), "ne": ("!=", 3), "and": ("&&", 2), "or": ("||", 1),
}  # fmt: skip


def helper_of(op: str) -> str | None:
    """The helper that an op calls, if it does."""
    return _OWN.get(op)


def applied(op: str, args: Sequence[Expression]) -> Expression:
    """A pointwise op as an expression."""
    return _BY_OP[op](*args) if op in _BY_OP else _called(_OWN.get(op) or LIBM[op], args)


def _called(name: str, args: Sequence[Expression]) -> Expression:
    return Expression(f"{name}({', '.join(a.text for a in args)})")


def _binary(sign: str, binds: int) -> Callable[..., Expression]:
    def made(a: Expression, b: Expression) -> Expression:
        # an operand of && or || in brackets, so that no reader has to know which goes first
        left, right = (binds, binds + 1) if binds > 4 else (5, 5)
        return Expression(f"{a.within(left)} {sign} {b.within(right)}", binds)

    return made


def _inverse_root(a: Expression) -> Expression:
    return Expression(f"1.0f / sqrtf({a.text})", 6)


def _largest(*args: Expression) -> Expression:
    made = args[0]
    for other in args[1:]:
        made = _called("maximum", (made, other))
    return made


_BY_OP: dict[str, Callable[..., Expression]] = {
    **{op: _binary(*how) for op, how in _BINARY.items()},
    "neg": lambda a: Expression(f"-{a.within(8)}" if not a.text.startswith("-") else f"-({a.text})", 7),
    "not": lambda a: Expression(f"!{a.within(8)}", 7),
    "select": lambda c, a, b: Expression(f"{c.within(5)} ? {a.within(1)} : {b.within(1)}", 0),
    "detach": lambda a: a,
    "expand": lambda a: a,
    "rsqrt": _inverse_root,
    "inverse_root": _inverse_root,
    "largest": _largest,
}
