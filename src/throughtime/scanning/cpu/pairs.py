"""Operands of a bfloat16 product: numbers rounded to bfloat16 (to nearest, ties to even), two that follow in k in a word.

    pair_rows     A [R, K] -> words [R, K/2]: a word holds A[r, 2i], A[r, 2i + 1]
    pair_columns  B [K, N] -> words [K/2, N]: a word holds B[2i, n], B[2i + 1, n]

Zeros stand where K is odd. A word is as wide as a float32, so that all that moves operands about (`packing`, `product`) moves
words as it does numbers, over half of k; only a tile looks into them.
"""

from __future__ import annotations

from throughtime.scanning.cpu.assembly import Assembly, Module
from throughtime.scanning.cpu.tasks import define_tasks, fields


def rounded(code: Assembly, vector: str) -> str:
    """A vector's numbers in bfloat16, half a vector wide."""
    return code.let(f"fptrunc {code.vector} {vector} to <{code.lanes} x bfloat>")


def rounded_number(code: Assembly, number: str) -> str:
    """A single number, rounded to bfloat16 and of its own type again."""
    half = code.let(f"fptrunc {code.dtype} {number} to bfloat")
    return code.let(f"fpext bfloat {half} to {code.dtype}")


def half_vector(code: Assembly, pointer: str, count: int | None = None) -> str:
    """A vector of numbers that lie in bfloat16, of which `count`; zeros in the others."""
    return code.let(f"fpext <{code.lanes} x bfloat> {load_half(code, pointer, code.masked(count))} to {code.vector}")


def half_number(code: Assembly, pointer: str) -> str:
    """A single number that lies in bfloat16."""
    return code.let(f"fpext bfloat {code.load('bfloat', pointer, align=2)} to {code.dtype}")


def load_half(code: Assembly, pointer: str, mask: str | None = None) -> str:
    """A vector in bfloat16, as it lies."""
    half, whole = f"<{code.lanes} x bfloat>", f"<{code.lanes} x i16>"
    if mask is None:
        return code.load(half, pointer, align=2)
    name, kind = f"llvm.masked.load.v{code.lanes}i16.p0", f"<{code.lanes} x i1>"
    code.module.declare(f"declare {whole} @{name}(ptr, i32, {kind}, {whole})")
    bits = code.let(f"call {whole} @{name}(ptr {pointer}, i32 2, {kind} {mask}, {whole} zeroinitializer)")
    return code.let(f"bitcast {whole} {bits} to {half}")


def store_half(code: Assembly, vector: str, pointer: str, count: int | None = None) -> None:
    """Store a vector's numbers in bfloat16, or `count` of them."""
    half, whole, mask = f"<{code.lanes} x bfloat>", f"<{code.lanes} x i16>", code.masked(count)
    if mask is None:
        code.store(half, rounded(code, vector), pointer, align=2)
        return
    name, kind = f"llvm.masked.store.v{code.lanes}i16.p0", f"<{code.lanes} x i1>"
    code.module.declare(f"declare void @{name}({whole}, ptr, i32, {kind})")
    bits = code.let(f"bitcast {half} {rounded(code, vector)} to {whole}")
    code.line(f"call void @{name}({whole} {bits}, ptr {pointer}, i32 2, {kind} {mask})")


def round_row(code: Assembly, source: str, count: str, into: str) -> None:
    """A row of so many numbers as words. `into` has room for whole halves of vectors."""
    lanes = code.lanes

    def half(j: str, mask: str | None = None) -> None:
        value = rounded(code, code.load_vector(code.at(source, j), mask=mask))
        code.store(f"<{lanes} x bfloat>", value, code.at(into, j, "bfloat"), align=2)

    whole = code.mul(code.let(f"sdiv i64 {count}, {lanes}"), lanes)
    with code.loop(whole, step=lanes) as j:
        half(j)
    with code.when(code.less(whole, count)):
        half(whole, code.lanes_below(code.sub(count, whole)))


def pair_block(
    code: Assembly, source: str, stride: str, size: tuple[str, str], into: str, pitch: str, half: bool = False
) -> None:
    """Rows of numbers, [count, width], as half as many of words, each of a number and the one below it; `size` is both. stride,
    pitch: from row to row, in either. `into` has room for whole vectors. half: the numbers lie in bfloat16."""
    count, width = size
    lanes, numbers = code.lanes, f"<{2 * code.lanes} x bfloat>"
    order = ", ".join(f"i32 {i + o}" for i in range(lanes) for o in (0, lanes))
    pairs = code.let(f"sdiv i64 {count}, 2")
    dtype = "bfloat" if half else ""
    whole = code.mul(code.let(f"sdiv i64 {width}, {lanes}"), lanes)

    def words(i: str, last: bool) -> None:
        even = code.at(source, code.mul(code.mul(i, 2), stride), dtype)
        odd, to = code.at(even, stride, dtype), code.at(into, code.mul(i, pitch))

        def loaded(row: str, j: str, mask: str | None) -> str:
            at = code.at(row, j, dtype)
            return load_half(code, at, mask) if half else rounded(code, code.load_vector(at, mask=mask))

        def vector(j: str, mask: str | None = None) -> None:
            top = loaded(even, j, mask)
            below = "zeroinitializer" if last else loaded(odd, j, mask)
            both = f"<{lanes} x bfloat> {top}, <{lanes} x bfloat> {below}"
            value = code.let(f"shufflevector {both}, <{2 * lanes} x i32> <{order}>")
            code.store(numbers, value, code.at(to, j), align=4)

        with code.loop(whole, step=lanes) as j:
            vector(j)
        with code.when(code.less(whole, width)):
            vector(whole, code.lanes_below(code.sub(width, whole)))

    with code.loop(pairs) as i:
        words(i, last=False)
    with code.when(code.let(f"trunc i64 {count} to i1")):
        words(pairs, last=True)


# the processors' own instructions, by the words in a vector: VDPBF16PS of AVX-512, BFDOT of ARM
DOTS = {16: "llvm.x86.avx512bf16.dpbf16ps.512", 4: "llvm.aarch64.neon.bfdot.v4f32.v8bf16"}


def dot(code: Assembly, a: str, b: str, total: str) -> str:
    """total + a[even] b[even] + a[odd] b[odd] in each lane, of words, summed in float32."""
    halves, name = f"<{2 * code.lanes} x bfloat>", DOTS[code.lanes]
    code.module.declare(f"declare {code.vector} @{name}({code.vector}, {halves}, {halves})")
    a, b = (code.let(f"bitcast {code.vector} {words} to {halves}") for words in (a, b))
    return code.let(f"call {code.vector} @{name}({code.vector} {total}, {halves} {a}, {halves} {b})")


def define_pairs(module: Module) -> None:
    """`pair_rows` and `pair_columns`. A task is a chunk of the rows of words; `pitch` words lie from one to the next, whole
    vectors of them."""

    def rows(code: Assembly, task: str) -> None:
        a, lda, r, k, out, pitch, chunk = fields(code, "%args", "a*", "lda", "r", "k", "out*", "pitch", "chunk")
        low = code.mul(task, chunk)
        with code.loop(code.least(code.add(low, chunk), r), start=low) as i:
            into = code.at(out, code.mul(i, pitch))
            round_row(code, code.at(a, code.mul(i, lda)), k, into)
            with code.when(code.let(f"trunc i64 {k} to i1")):
                code.store("bfloat", "0.0", code.at(into, k, "bfloat"), align=2)

    def columns(code: Assembly, task: str) -> None:
        a, lda, k, n, out, pitch, chunk = fields(code, "%args", "a*", "lda", "k", "n", "out*", "pitch", "chunk")
        low = code.mul(task, chunk)
        first = code.mul(low, 2)
        count = code.least(code.sub(k, first), code.mul(chunk, 2))
        into = code.at(out, code.mul(low, pitch))
        pair_block(code, code.at(a, code.mul(first, lda)), lda, (count, n), into, pitch)

    define_tasks(module, "pair_rows", rows)
    define_tasks(module, "pair_columns", columns)
