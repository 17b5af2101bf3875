"""Whole matrix products over many rows, of tiles, and what is compiled beside them.

pack      B[K, N] -> panels (`packing`)
multiply  C = A @ B (+ bias), B packed: tasks are chunks of rows
outer     C = A.T @ B, the gradient of weights: tasks are panels of columns
chain     functions one after the other (`tasks`)
"""

from __future__ import annotations

import functools

from throughtime.scanning.cpu.assembly import Assembly, Module
from throughtime.scanning.cpu.packing import Source, define_pack, pack_panel
from throughtime.scanning.cpu.pairs import define_pairs, pair_block
from throughtime.scanning.cpu.quads import BELOW, define_quads
from throughtime.scanning.cpu.target import Library, Target, host, library
from throughtime.scanning.cpu.tasks import define_chain, define_tasks, fields
from throughtime.scanning.cpu.tiles import Matrix, PanelProduct, define_tiles, panel, tiles

DEPTH = 512  # steps of k between two visits of a sum to memory
WHOLE_DEPTH = 1 << 20  # the same of words of quads: a sum never goes to memory
CHUNK_ROWS = 96  # rows of a task of `multiply`, at most
OUTER_DEPTH = 256  # and of its rows
OUTER_ROWS = 384  # of A's columns a task copies, so that they stay in cache


def _define_multiply(module: Module, target: Target) -> None:
    lanes, wide = module.lanes, panel(target, module.dtype)

    def body(code: Assembly, task: str) -> None:
        a, rs, cs, b, c, ldc, start, lds, m, n, k, chunk = fields(
            code, "%args", "a*", "rs", "cs", "b*", "c*", "ldc", "start*", "lds", "m", "n", "k", "chunk"
        )
        low = code.mul(task, chunk)
        rows = code.least(code.sub(m, low), chunk)
        panels = code.let(f"sdiv i64 {code.add(n, wide - 1)}, {wide}")
        given = code.let(f"icmp ne ptr {start}, null")
        below, most = (BELOW, WHOLE_DEPTH) if module.quads else (0, DEPTH)
        panel_rows = code.add(k, below)
        with code.loop(k, step=most) as k0:
            depth = code.least(code.sub(k, k0), most)
            fresh = code.let(f"icmp eq i64 {k0}, 0")
            with code.loop(panels) as p:
                column = code.mul(p, wide)
                left = code.least(code.sub(n, column), wide)
                vectors = code.let(f"sdiv i64 {code.add(left, lanes - 1)}, {lanes}")
                width = code.mul(vectors, lanes)
                into = code.at(code.at(c, code.mul(low, ldc)), column)
                first = code.choose(given, code.at(code.at(start, code.mul(low, lds)), column), "null", "ptr")
                begin = code.choose(fresh, first, into, "ptr")
                operand = Matrix(code.at(code.at(a, code.mul(low, rs)), code.mul(k0, cs)), rs, cs)
                packed = Matrix(code.at(code.at(b, code.mul(column, panel_rows)), code.mul(k0, width)), width)
                started = Matrix(begin, code.choose(fresh, lds, ldc))
                tiles(
                    code, target, "@tiles",
                    PanelProduct(operand, packed, Matrix(into, ldc), started, rows, depth, left, vectors),
                )  # fmt: skip

    define_tasks(module, "multiply", body)


def _define_outer(module: Module, target: Target, halves: str = "") -> None:
    """C[M, N] (+)= sum over R rows of A[r, m] B[r, n]. A task is a group of panels of N and a chunk of M. In a module of pairs
    both are rounded as they are copied: whole copies of them in words would drive what comes next out of the caches.

    halves: which of them, of "ab", lie in bfloat16 already.
    """
    dtypes = {name: "bfloat" if name in halves else "" for name in "ab"}
    lanes, wide = module.lanes, panel(target, module.dtype)
    step = OUTER_DEPTH * (2 if module.pairs else 1)  # rows between two visits of a sum to memory

    def body(code: Assembly, task: str) -> None:
        a, lda, b, ldb, c, ldc, m, n, r, chunk, group, scratch, space, more = fields(
            code, "%args", "a*", "lda", "b*", "ldb", "c*", "ldc", "m", "n", "r", "chunk", "group", "scratch*", "space", "more"
        )  # fmt: skip
        panels = code.let(f"sdiv i64 {code.add(n, wide - 1)}, {wide}")
        groups = code.let(f"sdiv i64 {code.sub(code.let(f'add i64 {panels}, {group}'), 1)}, {group}")
        low = code.mul(code.let(f"sdiv i64 {task}, {groups}"), chunk)
        first = code.mul(code.let(f"srem i64 {task}, {groups}"), group)
        last = code.least(code.let(f"add i64 {first}, {group}"), panels)
        rows = code.least(code.sub(m, low), chunk)
        # a copy of a block of A, whose rows lie at a distance that is no power of two, so that they do not fall on the same
        # lines of the cache
        pitch = code.add(chunk, lanes)
        block = code.at(scratch, code.mul(task, space))
        packed = code.at(block, code.mul(pitch, OUTER_DEPTH))
        with code.loop(r, step=step) as r0:
            count = code.least(code.sub(r, r0), step)
            depth = code.let(f"sdiv i64 {code.add(count, 1)}, 2") if module.pairs else count
            _copy_rows(
                code, Matrix(code.at(code.at(a, code.mul(r0, lda), dtypes["a"]), low, dtypes["a"]), lda), (count, rows),
                Matrix(block, pitch), "a" in halves,
            )  # fmt: skip
            fresh = code.let(f"and i1 {code.let(f'icmp eq i64 {r0}, 0')}, {code.let(f'icmp eq i64 {more}, 0')}")
            with code.loop(last, start=first) as p:
                column = code.mul(p, wide)
                left = code.least(code.sub(n, column), wide)
                vectors = code.let(f"sdiv i64 {code.add(left, lanes - 1)}, {lanes}")
                width = code.mul(vectors, lanes)
                into = code.at(code.at(c, code.mul(low, ldc)), column)
                source = Matrix(code.at(b, code.mul(r0, ldb), dtypes["b"]), ldb)
                if module.pairs:
                    begin = code.at(source.at, column, dtypes["b"])
                    pair_block(code, begin, ldb, (count, left), packed, width, "b" in halves)
                    operand = Matrix(packed, width)
                else:
                    # read as it lies by a single tile; a last panel would be read beyond its end
                    once = code.let(f"icmp sle i64 {rows}, {target.rows}")
                    direct = code.let(f"and i1 {once}, {code.let(f'icmp eq i64 {left}, {wide}')}")
                    with code.when(code.let(f"xor i1 {direct}, true")):
                        pack_panel(code, wide, p, Source(source, count, n), packed)
                    lies = code.at(source.at, column)
                    operand = Matrix(code.choose(direct, lies, packed, "ptr"), code.choose(direct, ldb, width))
                started = Matrix(code.choose(fresh, "null", into, "ptr"), ldc)
                tiles(
                    code, target, "@tiles",
                    PanelProduct(Matrix(block, "1", pitch), operand, Matrix(into, ldc), started, rows, depth, left, vectors),
                )  # fmt: skip

    define_tasks(module, outer_of(halves), body)


def outer_of(halves: str) -> str:
    """The name of the function for operands of which some lie in bfloat16."""
    return f"outer_{halves}" if halves else "outer"


def _copy_rows(code: Assembly, source: Matrix, size: tuple[str, str], into: Matrix, half: bool) -> None:
    """Rows of numbers, [count, width], as they are, or as words of pairs."""
    if code.module.pairs:
        pair_block(code, source.at, source.row, size, into.at, into.row, half)
        return
    dtype, lanes, (count, width) = code.dtype, code.lanes, size
    whole = code.mul(code.let(f"sdiv i64 {width}, {lanes}"), lanes)
    with code.loop(count) as i:
        row, to = code.at(source.at, code.mul(i, source.row)), code.at(into.at, code.mul(i, into.row))
        with code.loop(whole, step=lanes) as j:
            code.store_vector(code.load_vector(code.at(row, j)), code.at(to, j))
        with code.loop(width, start=whole) as j:
            code.store(dtype, code.load(dtype, code.at(row, j)), code.at(to, j))


def module_of(target: Target, operands: str) -> Module:
    """A module whose products have such operands: `float`, `double`, or, beside all else in `float`, `bfloat16`, or weights in
    eight bits, by left operands of one byte a number, `int8`, or two, `int16`."""
    dtype = operands if operands == "double" else "float"
    size = {"int8": 1, "int16": 2}.get(operands, 0)
    return Module(dtype, target.lanes(dtype), pairs=operands == "bfloat16", quads=size)


def text(target: Target, operands: str) -> str:
    """The whole of it for one kind of operands."""
    module = module_of(target, operands)
    define_tiles(module, target)
    define_pack(module, target)
    _define_multiply(module, target)
    if module.quads:
        define_quads(module)
    else:
        for halves in ("", "a", "b", "ab") if module.pairs else ("",):
            _define_outer(module, target, halves)
    if module.pairs:
        define_pairs(module)
    define_chain(module)
    return module.text()


@functools.cache
def products(operands: str) -> Library:
    """The compiled functions for one kind of operands."""
    target = host()
    return library(f"products {operands} {DEPTH} {OUTER_DEPTH}", lambda: text(target, operands))
