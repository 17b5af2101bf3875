"""What a product's sums are made of, in LLVM assembly: numbers of float32, or whole numbers, of which a sum is exact in 32 bits.

Weights of eight bits are multiplied by an operand whose row is rounded to whole numbers of sixteen, times a scale of its own
(`int8.rounded` says how). Every processor comes to the same sums, by the instruction that it has for them:

    Words   weights one by one, widened: whatever there is (SMLAL on Arm)
    Pairs   two products and their sum in 32 bits: PMADDWD on x86, i32x4.dot_i16x8_s in WebAssembly
    Bytes   four products of bytes and their sum: VPDPBUSD on x86 with VNNI, of the operand's high and low bytes

Groups of as many weights of a column as an instruction takes lie side by side: [K / group, N, group].
"""

from __future__ import annotations

import struct

import torch
from torch import Tensor

from throughtime.exporting.int8 import LEAST, most_of
from throughtime.exporting.numbers_llvm import bytes_of, padded, sweep, whole_vector
from throughtime.exporting.targets import ExportTarget
from throughtime.scanning.cpu.assembly import Assembly, number
from throughtime.scanning.cpu.bits import ROUNDING, ints, splat
from throughtime.scanning.cpu.quads import MULTIPLIED_PAIRS


class Floats:
    """Sums of float32. group: weights of a column that one instruction takes. parts: sums of each column. kind: of a weight."""

    group, parts, kind = 1, 1, "float"

    def sums(self, code: Assembly) -> str:
        """The type of a vector of sums."""
        return code.vector

    def packed(self, matrix: Tensor) -> Tensor:
        """A matrix [K, N] in groups, [K / group, N, group], with zeros where K is not whole groups."""
        missing = -len(matrix) % self.group
        wide = torch.nn.functional.pad(matrix, (0, 0, 0, missing))
        return wide.reshape(-1, self.group, matrix.shape[1]).transpose(1, 2)

    def operands(self, code: Assembly, x: str, depth: int, k: str) -> list[str]:
        """What a group of weights is multiplied by, in every lane, for each part. k: the number of the group."""
        return [code.splat(code.load(code.dtype, code.at(x, k)))]

    def weights(self, code: Assembly, pointer: str) -> str:
        """A vector of groups of weights."""
        return whole_vector(code, pointer)

    def add(self, code: Assembly, total: str, operand: str, weights: str) -> str:
        """A vector of sums and the next products."""
        return code.fma(operand, weights, total)

    def plus(self, code: Assembly, a: str, b: str) -> str:
        """Two vectors of sums as one."""
        return code.binary("fadd", a, b)

    def total(self, code: Assembly, parts: list[str]) -> str:
        """The sums of a vector as numbers."""
        return parts[0]


class Words(Floats):
    """Sums of whole numbers, each weight widened by itself."""

    kind, bias = "i8", 0

    def sums(self, code: Assembly) -> str:
        return ints(code)

    def operands(self, code: Assembly, x: str, depth: int, k: str) -> list[str]:
        one = code.load("i16", code.at(x, k, "i16"), 2)
        return [_in_every_lane(code, code.let(f"sext i16 {one} to i32"))]

    def weights(self, code: Assembly, pointer: str) -> str:
        eight = f"<{code.lanes} x i8>"
        return code.let(f"sext {eight} {code.load(eight, pointer, code.lanes)} to {ints(code)}")

    def add(self, code: Assembly, total: str, operand: str, weights: str) -> str:
        return self.plus(code, total, code.let(f"mul {ints(code)} {operand}, {weights}"))

    def plus(self, code: Assembly, a: str, b: str) -> str:
        return code.let(f"add {ints(code)} {a}, {b}")

    def total(self, code: Assembly, parts: list[str]) -> str:
        return code.let(f"sitofp {ints(code)} {parts[0]} to {code.vector}")

    def keep(self, code: Assembly, values: str, into: str, depth: int, j: str) -> None:
        """A vector of whole numbers of the operand, in its row from number j on."""
        _narrowed(code, values, "i16", code.at(into, j, "i16"))


class Pairs(Words):
    """Two weights of a column at once."""

    group = 2

    def operands(self, code: Assembly, x: str, depth: int, k: str) -> list[str]:
        return [_in_every_lane(code, code.load("i32", code.at(x, k, "i32"), 4))]

    def weights(self, code: Assembly, pointer: str) -> str:
        eight = f"<{2 * code.lanes} x i8>"
        return code.let(f"sext {eight} {code.load(eight, pointer, 2 * code.lanes)} to <{2 * code.lanes} x i16>")

    def add(self, code: Assembly, total: str, operand: str, weights: str) -> str:
        halves = f"<{2 * code.lanes} x i16>"
        name = MULTIPLIED_PAIRS[code.lanes] if code.whole == "i64" else "wasm.dot"
        code.module.declare(f"declare {ints(code)} @llvm.{name}({halves}, {halves})")
        operand = code.let(f"bitcast {ints(code)} {operand} to {halves}")
        return self.plus(
            code, total, code.let(f"call {ints(code)} @llvm.{name}({halves} {operand}, {halves} {weights})")
        )


class Bytes(Words):
    """Four weights of a column at once, by bytes without a sign: the operand's numbers and 32,768, in two halves."""

    group, parts, bias = 4, 2, 1 << 15

    def operands(self, code: Assembly, x: str, depth: int, k: str) -> list[str]:
        low = code.at(x, _numbers(depth, code.lanes), "i8")
        return [_in_every_lane(code, code.load("i32", code.at(half, k, "i32"), 4)) for half in (x, low)]

    def weights(self, code: Assembly, pointer: str) -> str:
        return code.load(ints(code), pointer, bytes_of(code))

    def add(self, code: Assembly, total: str, operand: str, weights: str) -> str:
        kind, name = ints(code), f"llvm.x86.avx512.vpdpbusd.{32 * code.lanes}"
        code.module.declare(f"declare {kind} @{name}({kind}, {kind}, {kind})")
        return code.let(f"call {kind} @{name}({kind} {total}, {kind} {operand}, {kind} {weights})")

    def total(self, code: Assembly, parts: list[str]) -> str:
        high = code.let(f"shl {ints(code)} {parts[0]}, {splat(code, 8)}")
        return super().total(code, [self.plus(code, high, parts[1])])

    def keep(self, code: Assembly, values: str, into: str, depth: int, j: str) -> None:
        high = code.let(f"lshr {ints(code)} {values}, {splat(code, 8)}")
        _narrowed(code, high, "i8", code.at(into, j, "i8"))
        _narrowed(code, values, "i8", code.at(code.at(into, _numbers(depth, code.lanes), "i8"), j, "i8"))

    @staticmethod
    def starts(whole: Tensor) -> Tensor:
        """What the sums of the high bytes begin with, int32 [N]: what the operand's numbers are larger by, taken away."""
        return -(whole.int().sum(0, dtype=torch.int32) << 7)


Dots = Floats | Words | Pairs | Bytes
WHOLE: dict[str, Words] = {"": Words(), "pairs": Pairs(), "bytes": Bytes()}


def dots_of(target: ExportTarget, int8: bool) -> Dots:
    """What a processor's products are summed by."""
    return WHOLE[target.dots] if int8 else Floats()


def summed(target: ExportTarget) -> str:
    """How a processor's products with weights of eight bits are summed, in words."""
    count = WHOLE[target.dots].group
    at_once = "each product by itself" if count == 1 else f"{'two' if count == 2 else 'four'} products at once"
    return f"what they multiply is rounded to sixteen bits, with a scale for the row, and sums are exact ({at_once})"


def row_size(depth: int, lanes: int) -> int:
    """Float32 numbers of the place of a rounded row: two bytes a number, and the scale."""
    return padded(_numbers(depth, lanes) // 2 + 1, lanes)


def _numbers(depth: int, lanes: int) -> int:
    """Of a row, with what fills its last vector, and a word."""
    return padded(depth, max(lanes, 4))


def scale_of(code: Assembly, row: str, depth: int) -> str:
    """Where the scale of a rounded row lies."""
    return code.at(row, 2 * _numbers(depth, code.lanes), "i8")


def round_row(code: Assembly, dots: Words, x: str, into: str, depth: int) -> None:
    """A row of numbers as whole ones and their scale. What has a number that is not finite has NaN for a scale."""
    kind, most = ints(code), most_of(depth)
    largest = code.slot(kind)
    code.store(kind, splat(code, _bits(LEAST)), largest, bytes_of(code))

    def look(j: str, count: int | None) -> None:
        bits = code.let(f"bitcast {code.vector} {code.load_vector(code.at(x, j), count)} to {kind}")
        size = code.let(f"and {kind} {bits}, {splat(code, 0x7FFFFFFF)}")  # infinity and NaN are the largest of them
        now = code.load(kind, largest, bytes_of(code))
        code.store(kind, _called(code, "umax", kind, now, size), largest, bytes_of(code))

    sweep(code, depth, look)
    found = code.load(kind, largest, bytes_of(code))
    code.module.declare(f"declare i32 @llvm.vector.reduce.umax.v{code.lanes}i32({kind})")
    bits = code.let(f"call i32 @llvm.vector.reduce.umax.v{code.lanes}i32({kind} {found})")
    size = code.let(f"bitcast i32 {bits} to float")
    times = code.splat(code.let(f"fdiv float {number(most, 'float')}, {size}"))
    unit = code.let(f"fmul float {size}, {number(1 / most, 'float')}")
    finite = code.let(f"fsub float {size}, {size}")
    code.store("float", code.let(f"fadd float {unit}, {finite}"), scale_of(code, into, depth))

    def write(j: str, count: int | None) -> None:
        given = code.load_vector(code.at(x, j), count)
        scaled = code.let(f"fmul {code.vector} {given}, {times}")  # not fused: the same everywhere
        # its last bits are a whole number
        value = code.let(f"fadd {code.vector} {scaled}, {code.literal(ROUNDING[code.dtype] + dots.bias)}")
        dots.keep(code, code.let(f"bitcast {code.vector} {value} to {kind}"), into, depth, j)

    sweep(code, depth, write)


def _called(code: Assembly, name: str, kind: str, *args: str) -> str:
    suffix = f"v{code.lanes}i32"
    code.module.declare(f"declare {kind} @llvm.{name}.{suffix}({', '.join([kind] * len(args))})")
    return code.let(f"call {kind} @llvm.{name}.{suffix}({', '.join(f'{kind} {a}' for a in args)})")


def _in_every_lane(code: Assembly, value: str) -> str:
    kind = ints(code)
    one = code.let(f"insertelement {kind} poison, i32 {value}, i64 0")
    return code.let(f"shufflevector {kind} {one}, {kind} poison, {kind} zeroinitializer")


def _narrowed(code: Assembly, values: str, kind: str, pointer: str) -> None:
    """Store the last bits of whole numbers."""
    narrow = f"<{code.lanes} x {kind}>"
    code.store(narrow, code.let(f"trunc {ints(code)} {values} to {narrow}"), pointer, code.lanes)


def _bits(value: float) -> int:
    return int(struct.unpack("<i", struct.pack("<f", value))[0])
