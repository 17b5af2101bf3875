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


def dot(code: Assembly, a: str, b: str, total: str) -> str:
    """total + a[even] b[even] + a[odd] b[odd] in each lane, of words, summed in float32: by the processor's own instruction."""
    halves, name = f"<{2 * code.lanes} x bfloat>", f"llvm.x86.avx512bf16.dpbf16ps.{32 * code.lanes}"
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
        low, count = code.mul(task, chunk), code.let(f"sdiv i64 {code.add(k, 1)}, 2")
        numbers, halves = range(code.lanes), f"<{code.lanes} x bfloat>"
        order = ", ".join(f"i32 {i + o}" for i in numbers for o in (0, code.lanes))
        with code.loop(code.least(code.add(low, chunk), count), start=low) as i:
            even = code.mul(i, 2)
            odd = code.add(even, 1)
            there = code.less(odd, k)
            with code.loop(n, step=code.lanes) as j:
                left = code.sub(n, j)
                masks = code.lanes_below(left), code.lanes_below(code.choose(there, left, "0"))
                at = (code.at(code.at(a, code.mul(row, lda)), j) for row in (even, odd))
                two = [rounded(code, code.load_vector(p, mask=m)) for p, m in zip(at, masks, strict=True)]
                words = code.let(
                    f"shufflevector {halves} {two[0]}, {halves} {two[1]}, <{2 * code.lanes} x i32> <{order}>"
                )
                code.store(f"<{2 * code.lanes} x bfloat>", words, code.at(code.at(out, code.mul(i, pitch)), j), align=4)

    define_tasks(module, "pair_rows", rows)
    define_tasks(module, "pair_columns", columns)
