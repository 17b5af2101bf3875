"""Operands of a product with weights in eight bits: four numbers that follow in k lie in a word.

    weights  B [K, N] -> words [W, N]: each number a signed byte, b = round(B / s_n), s_n = max_k |B[k, n]| / 127. Below them lie
             two rows more: s_n, and -128 Σ_k b
    operand  A [R, K] -> rows of W words, or 2 W, and then t_r. In one byte, a = round(A / t_r) with t_r = max_k |A[r, k]| / 127;
             in two bytes the same with 32767. Stored without a sign, as a + 128; or as a + 32768, the high bytes in the first W
             words and the low ones in the others

    C[r, n] = t_r s_n Σ_k a b + start[r, n]

Sums of bytes are exact in 32-bit whole numbers, and -128 Σ b takes away what the missing sign has added. So a row's bits depend
on nothing but the row and the weights: neither on the rows beside it, nor on the processor's instructions. Zeros fill words up
to a whole vector of numbers. A word is as wide as a float32, so that all that moves operands about (`packing`, `product`) moves
words as it does numbers.

A row without a number of 1e-30 or more is taken for zeros. One that holds what is not finite gives what is not finite.
"""

from __future__ import annotations

import struct
from typing import Any

import torch

from throughtime.scanning.cpu.assembly import Assembly, Module
from throughtime.scanning.cpu.bits import ROUNDING, splat
from throughtime.scanning.cpu.target import Target, has_int8, host
from throughtime.scanning.cpu.tasks import define_tasks, fields

BELOW = 2  # rows that lie below the words of weights: scales, and what the missing sign costs
LARGEST = {1: 127, 2: 32767}  # whole number of an operand, by its bytes
SMALLEST = 1e-30  # of the largest number of a row
DEEPEST = 1 << 16  # k up to which sums cannot overflow
# what sums the products of pairs of 16-bit numbers, by the lanes of a vector
MULTIPLIED_PAIRS = {4: "x86.sse2.pmadd.wd", 8: "x86.avx2.pmadd.wd", 16: "x86.avx512.pmaddw.d.512"}


def words(numbers: int, lanes: int) -> int:
    """Words that so many numbers take: whole vectors of numbers."""
    return -(-numbers // lanes) * lanes // 4


def row_words(numbers: int, lanes: int, size: int) -> int:
    """Words of a row of an operand, its scale with them. size: bytes of a number."""
    return size * words(numbers, lanes) + 1


def round_row(code: Assembly, source: str, count: str, into: str, depth: str) -> None:
    """A row of so many numbers as words, and its scale. depth: words of a byte each of all numbers."""
    lanes, size = code.lanes, code.module.quads
    whole = code.mul(code.let(f"sdiv i64 {count}, {lanes}"), lanes)
    rest = code.lanes_below(code.sub(count, whole))
    there = code.less(whole, count)
    ints = f"<{lanes} x i32>"
    top = code.slot(ints)
    code.store(ints, "zeroinitializer", top)

    def larger(j: str, mask: str | None = None) -> None:
        bits = code.let(f"bitcast {code.vector} {code.load_vector(code.at(source, j), mask=mask)} to {ints}")
        bits = code.let(f"and {ints} {bits}, {splat(code, 0x7FFFFFFF)}")  # in order as numbers are, and NaN above all
        before = code.load(ints, top, align=4)
        above = code.let(f"icmp ugt {ints} {bits}, {before}")
        code.store(ints, code.let(f"select <{lanes} x i1> {above}, {ints} {bits}, {ints} {before}"), top, align=4)

    with code.loop(whole, step=lanes) as j:
        larger(j)
    with code.when(there):
        larger(whole, rest)
    reduce = f"llvm.vector.reduce.umax.v{lanes}i32"
    code.module.declare(f"declare i32 @{reduce}({ints})")
    most = code.let(f"bitcast i32 {code.let(f'call i32 @{reduce}({ints} {code.load(ints, top, align=4)})')} to float")
    largest = _single(LARGEST[size])
    nothing = code.let(f"fcmp olt float {most}, {_single(SMALLEST)}")
    ratio = code.let(f"fdiv float {largest}, {most}")
    inverse = code.splat(code.choose(nothing, "0.0", ratio, "float"))

    def rounded(j: str, mask: str | None = None) -> None:
        value = code.fma(code.load_vector(code.at(source, j), mask=mask), inverse, code.literal(ROUNDING["float"]))
        bits = code.let(f"bitcast {code.vector} {value} to {ints}")
        bits = code.let(f"xor {ints} {bits}, {splat(code, 1 << (8 * size - 1))}")
        for byte in range(size):  # the highest first
            shift = 8 * (size - 1 - byte)
            part = code.let(f"lshr {ints} {bits}, {splat(code, shift)}") if shift else bits
            part = code.let(f"trunc {ints} {part} to <{lanes} x i8>")
            place = code.at(code.at(into, code.mul(depth, byte)), j, "i8")
            code.store(f"<{lanes} x i8>", part, place, align=1)

    with code.loop(whole, step=lanes) as j:
        rounded(j)
    with code.when(there):
        rounded(whole, rest)
    scale = code.let(f"fdiv float {most}, {largest}")
    code.store("float", scale, code.at(into, code.mul(depth, size)))


def dot(code: Assembly, target: Target, a: str, b: str, total: str) -> str:
    """total + the sum of a's four bytes without a sign times b's four with one, in each lane, of words."""
    lanes = code.lanes
    ints = f"<{lanes} x i32>"
    if has_int8(target):
        name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"
        code.module.declare(f"declare {ints} @{name}({ints}, {ints}, {ints})")
        return code.let(f"call {ints} @{name}({ints} {total}, {ints} {a}, {ints} {b})")
    if not has_pairs_of_int16(target):
        for byte in range(4):
            left = code.let(f"and {ints} {_shifted(code, 'lshr', a, 8 * byte)}, {splat(code, 255)}")
            right = _shifted(code, "ashr", _shifted(code, "shl", b, 24 - 8 * byte), 24)
            total = code.let(f"add {ints} {total}, {code.let(f'mul {ints} {left}, {right}')}")
        return total
    halves, eight = f"<{2 * lanes} x i16>", "<" + ", ".join(["i16 8"] * (2 * lanes)) + ">"
    name = f"llvm.{MULTIPLIED_PAIRS[lanes]}"
    code.module.declare(f"declare {ints} @{name}({halves}, {halves})")
    b = code.let(f"bitcast {ints} {b} to {halves}")
    for odd in (False, True):
        left = code.let(f"and {ints} {_shifted(code, 'lshr', a, 8 * odd)}, {splat(code, 0x00FF00FF)}")
        left = code.let(f"bitcast {ints} {left} to {halves}")
        right = code.let(f"ashr {halves} {b if odd else code.let(f'shl {halves} {b}, {eight}')}, {eight}")
        products = code.let(f"call {ints} @{name}({halves} {left}, {halves} {right})")
        total = code.let(f"add {ints} {total}, {products}")
    return total


def has_pairs_of_int16(target: Target) -> bool:
    """Whether a processor has a dot product of pairs of 16-bit numbers."""
    features = target.features.split(",")
    return target.triple.startswith(("x86_64", "i686")) and (target.bits < 512 or "+avx512bw" in features)


def said(operands: Any) -> str | None:
    """How the products of weights in int8 are done here, in words; None for other operands."""
    if operands not in (torch.int8, torch.int16):
        return None
    if has_int8(host()):
        how = "the processor's dot product of bytes (VNNI)"
    elif has_pairs_of_int16(host()):
        how = "dot products of pairs of 16 bits, as quick as float32's: this processor has none of bytes (VNNI)"
    else:
        how = "products number by number, slower than float32's: no dot product of bytes is known of this processor"
    return f"weights in int8, multiplied by {how}; exact sums, all else in float32"


def _shifted(code: Assembly, how: str, value: str, by: int) -> str:
    return code.let(f"{how} <{code.lanes} x i32> {value}, {splat(code, by)}") if by else value


def _single(value: float) -> str:
    """A float32 literal as LLVM writes it."""
    value = struct.unpack("<f", struct.pack("<f", value))[0]
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"


def define_tile(module: Module, target: Target, rows: int, vectors: int, signature: str) -> None:
    """A tile, as `tiles` has them: `k` counts words of a byte each of all numbers."""
    lanes, size = module.lanes, module.quads
    ints = f"<{lanes} x i32>"
    places = [(r, v) for r in range(rows) for v in range(vectors)]

    def body(code: Assembly) -> None:
        mask = code.lanes_below(code.sub("%columns", (vectors - 1) * lanes))
        sums = {(r, v, h): code.slot(ints) for r, v in places for h in range(size)}
        for slot in sums.values():
            code.store(ints, "zeroinitializer", slot, align=4)
        pointers = [code.at("%a", code.mul("%rs", r)) for r in range(rows)]
        with code.loop("%k") as k:
            b = code.at("%b", code.mul(k, "%ldb"))
            columns = [code.load(ints, code.at(b, v * lanes), align=4) for v in range(vectors)]
            for r in range(rows):
                for h in range(size):
                    word = code.load("i32", code.at(pointers[r], code.add(k, "%k") if h else k))
                    one = code.let(f"insertelement {ints} poison, i32 {word}, i64 0")
                    a = code.let(f"shufflevector {ints} {one}, {ints} poison, {ints} zeroinitializer")
                    for v in range(vectors):
                        slot = sums[r, v, h]
                        total = code.load(ints, slot, align=4)
                        code.store(ints, dot(code, target, a, columns[v], total), slot, align=4)
        below = [code.at("%b", code.mul(code.add("%k", i), "%ldb")) for i in range(BELOW)]
        scales = [code.load_vector(code.at(below[0], v * lanes)) for v in range(vectors)]
        unsigned = [code.load(ints, code.at(below[1], v * lanes), align=4) for v in range(vectors)]
        starts = {place: code.slot(code.vector) for place in places}
        for slot in starts.values():
            code.store(code.vector, "zeroinitializer", slot)
        with code.when(code.let("icmp ne ptr %start, null")):
            for r, v in places:
                where = code.at(code.at("%start", code.mul("%lds", r)), v * lanes)
                value = code.load_vector(where, mask=mask if v == vectors - 1 else None)
                code.store(code.vector, value, starts[r, v])
        row_scales = [code.splat(code.load("float", code.at(p, code.mul("%k", size)))) for p in pointers]
        for r, v in places:
            total = code.let(f"add {ints} {code.load(ints, sums[r, v, 0], align=4)}, {unsigned[v]}")
            value = code.let(f"sitofp {ints} {total} to {code.vector}")
            if size == 2:
                low = code.let(f"sitofp {ints} {code.load(ints, sums[r, v, 1], align=4)} to {code.vector}")
                value = code.fma(value, code.literal(256.0), low)
            scale = code.let(f"fmul {code.vector} {row_scales[r]}, {scales[v]}")
            code.store(code.vector, code.fma(value, scale, code.load(code.vector, starts[r, v])), starts[r, v])
        for r, v in places:
            where = code.at(code.at("%c", code.mul("%ldc", r)), v * lanes)
            code.store_vector(code.load(code.vector, starts[r, v]), where, mask=mask if v == vectors - 1 else None)

    module.define(f"tile_{rows}_{vectors}", signature, body)


def define_quads(module: Module) -> None:
    """`quad_rows`: rows as words. A task is a chunk of them; `pitch` words lie from one to the next."""

    def rows(code: Assembly, task: str) -> None:
        a, lda, r, k, out, pitch, depth, chunk = fields(
            code, "%args", "a*", "lda", "r", "k", "out*", "pitch", "depth", "chunk"
        )
        low = code.mul(task, chunk)
        with code.loop(code.least(code.add(low, chunk), r), start=low) as i:
            round_row(code, code.at(a, code.mul(i, lda)), k, code.at(out, code.mul(i, pitch)), depth)

    define_tasks(module, "quad_rows", rows)
