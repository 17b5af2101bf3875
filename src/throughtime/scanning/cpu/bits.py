"""Vectors of numbers as whole numbers of their size: signs, exponents, powers of two."""

from __future__ import annotations

from throughtime.scanning.cpu.assembly import Assembly

ROUNDING = {"float": 1.5 * 2.0**23, "double": 1.5 * 2.0**52}
"""A number of this size has no digits behind the point: added and taken away, it rounds."""
FRACTION = {"float": 23, "double": 52}  # digits, in bits
BIAS = {"float": 127, "double": 1023}  # of the exponent
_ROUNDING_BITS = {"float": 0x4B400000, "double": 0x4338000000000000}
_ROOT_HALF_BITS = {"float": 0x3F3504F3, "double": 0x3FE6A09E667F3BCD}  # of √½


def _type(code: Assembly) -> str:
    return f"i{8 * code.bytes}"


def ints(code: Assembly) -> str:
    """The type of vectors of whole numbers."""
    return f"<{code.lanes} x {_type(code)}>"


def splat(code: Assembly, value: int) -> str:
    """A whole number in every lane."""
    return "<" + ", ".join([f"{_type(code)} {value}"] * code.lanes) + ">"


def on_ints(code: Assembly, op: str, a: str, b: str | int) -> str:
    """add, sub, shl, ashr, and, xor … of whole numbers."""
    return code.let(f"{op} {ints(code)} {a}, {splat(code, b) if isinstance(b, int) else b}")


def bits_of(code: Assembly, x: str) -> str:
    """Numbers as the whole numbers of the same bits."""
    return code.let(f"bitcast {code.vector} {x} to {ints(code)}")


def of_bits(code: Assembly, bits: str) -> str:
    """Whole numbers as the numbers of the same bits."""
    return code.let(f"bitcast {ints(code)} {bits} to {code.vector}")


def as_number(code: Assembly, n: str) -> str:
    """Whole numbers, which are small, as numbers."""
    if code.dtype == "float":
        return code.let(f"sitofp {ints(code)} {n} to {code.vector}")
    # quick where processors convert i64 slowly
    shifted = of_bits(code, on_ints(code, "add", n, _ROUNDING_BITS["double"]))
    return code.binary("fsub", shifted, code.literal(ROUNDING["double"]))


def whole(code: Assembly, shifted: str) -> str:
    """Whole numbers of what was rounded by adding ROUNDING."""
    return on_ints(code, "sub", bits_of(code, shifted), _ROUNDING_BITS[code.dtype])


def power_of_two(code: Assembly, n: str) -> str:
    """2^n of whole numbers; 0 for -BIAS, infinity for BIAS + 1."""
    return of_bits(code, on_ints(code, "shl", on_ints(code, "add", n, BIAS[code.dtype]), FRACTION[code.dtype]))


def scaled(code: Assembly, p: str, n: str, shifted: str) -> str:
    """p · 2^n, n rounded from `shifted`: by one instruction of AVX-512, else in two steps, so that neither factor leaves the
    range."""
    # vectors as wide as this are that processor's alone
    if code.lanes * code.bytes == 64 and code.dtype == code.module.dtype:
        v, suffix, mask = code.vector, "ps" if code.dtype == "float" else "pd", f"i{code.lanes}"
        name = f"llvm.x86.avx512.mask.scalef.{suffix}.512"
        code.module.declare(f"declare {v} @{name}({v}, {v}, {v}, {mask}, i32)")
        return code.let(f"call {v} @{name}({v} {p}, {v} {n}, {v} {p}, {mask} -1, i32 4)")
    number = whole(code, shifted)
    half = on_ints(code, "ashr", number, 1)
    p = code.binary("fmul", p, power_of_two(code, half))
    return code.binary("fmul", p, power_of_two(code, on_ints(code, "sub", number, half)))


def split(code: Assembly, x: str) -> tuple[str, str]:
    """n and r, so that x = 2^n (1 + r) with √½ <= 1 + r < √2; n as whole numbers. x is positive and not below the least normal."""
    root, fraction = _ROOT_HALF_BITS[code.dtype], FRACTION[code.dtype]
    past = on_ints(code, "sub", bits_of(code, x), root)
    digits = on_ints(code, "add", on_ints(code, "and", past, 2**fraction - 1), root)
    r = code.binary("fsub", of_bits(code, digits), code.literal(1.0))
    return on_ints(code, "ashr", past, fraction), r


def polynomial(code: Assembly, terms: tuple[float, ...], x: str) -> str:
    """By Horner's rule; the lowest power first."""
    p = code.literal(terms[-1])
    for term in reversed(terms[:-1]):
        p = code.fma(p, x, code.literal(term))
    return p


def itself_if_tiny(code: Assembly, x: str, value: str) -> str:
    """x where a function is no other number there, with its sign and all digits of one below the least normal number."""
    tiny = code.compare("olt", code.intrinsic("fabs", x), code.literal(2.0 ** (-FRACTION[code.dtype] - 3)))
    return code.select(tiny, x, value)
