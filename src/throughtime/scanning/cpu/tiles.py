"""Tiles of a matrix product: sums held in registers, over one panel of packed weights.

    C[r, v] = start[r, v] + sum_k A[r, k] B[k, v]     r < rows of the tile, v < vectors of the panel

In a module of pairs, A and B are words of two bfloat16 numbers each, and k counts words; in one of quads see `quads`.

Every sum runs over k in order, whatever the tile, so a row's bits do not depend on how rows are dealt out to threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from throughtime.scanning.cpu import quads
from throughtime.scanning.cpu.assembly import Assembly, Module
from throughtime.scanning.cpu.pairs import dot
from throughtime.scanning.cpu.target import Target


@dataclass(frozen=True)
class Matrix:
    """A matrix in memory: where it begins, and how many numbers lie between its rows and between its columns."""

    at: str
    row: str
    column: str = "1"


SIGNATURE = "ptr %a, i64 %rs, i64 %cs, ptr %b, i64 %ldb, ptr %c, i64 %ldc, ptr %start, i64 %lds, i64 %k, i64 %columns"
NOTHING = Matrix("null", "0")  # sums begin with zeros


@dataclass(frozen=True)
class PanelProduct:
    """The product of a matrix [rows, k] and a panel [k, columns] of so many vectors, added to `start`."""

    a: Matrix
    b: Matrix
    c: Matrix
    start: Matrix
    rows: str
    k: str
    columns: str
    vectors: str


def panel(target: Target, dtype: str) -> int:
    """Columns of a whole panel."""
    return target.vectors * target.lanes(dtype)


def tile_rows(module: Module, target: Target) -> int:
    """Rows of a tile, at most: a number of two bytes has two sums."""
    return target.rows // max(1, module.quads)


def define_tiles(module: Module, target: Target) -> None:
    """The functions of all tiles, and `tiles`, the table of them."""
    sizes = [(r, v) for r in range(1, tile_rows(module, target) + 1) for v in range(1, target.vectors + 1)]
    for rows, vectors in sizes:
        if module.quads:
            quads.define_tile(module, target, rows, vectors, SIGNATURE)
        else:
            _define_tile(module, rows, vectors)
    names = [f"ptr @tile_{r}_{v}" for r, v in sizes]
    module.functions["tiles"] = f"@tiles = constant [{len(names)} x ptr] [{', '.join(names)}]"


def _define_tile(module: Module, rows: int, vectors: int) -> None:
    lanes, dtype = module.lanes, module.dtype
    places = [(r, v) for r in range(rows) for v in range(vectors)]

    def body(code: Assembly) -> None:
        # columns beyond the last: only the last vector may have any
        mask = code.lanes_below(code.sub("%columns", (vectors - 1) * lanes))
        sums = {place: code.slot(code.vector) for place in places}
        begin = code.let("icmp ne ptr %start, null")
        whole = code.let(f"icmp sge i64 %columns, {vectors * lanes}")
        for place in places:
            code.store(code.vector, "zeroinitializer", sums[place])
        with code.when(begin):
            for r, v in places:
                where = code.at(code.at("%start", code.mul("%lds", r)), v * lanes)
                value = code.load_vector(where, mask=mask if v == vectors - 1 else None)
                code.store(code.vector, value, sums[r, v])
        pointers = [code.at("%a", code.mul("%rs", r)) for r in range(rows)]
        multiply_add = partial(dot, code) if module.pairs else code.fma
        with code.loop("%k") as k:
            b = code.at("%b", code.mul(k, "%ldb"))
            columns = [code.load_vector(code.at(b, v * lanes)) for v in range(vectors)]
            step = code.mul(k, "%cs")
            for r in range(rows):
                a = code.splat(code.load(dtype, code.at(pointers[r], step)))
                for v in range(vectors):
                    total = code.load(code.vector, sums[r, v])
                    code.store(code.vector, multiply_add(a, columns[v], total), sums[r, v])
        full, part, done = code.label(), code.label(), code.label()
        code.line(f"br i1 {whole}, label %{full}, label %{part}")
        for label in (full, part):
            code.lines.append(f"{label}:")
            for r, v in places:
                masked = mask if label == part and v == vectors - 1 else None
                where = code.at(code.at("%c", code.mul("%ldc", r)), v * lanes)
                code.store_vector(code.load(code.vector, sums[r, v]), where, mask=masked)
            code.line(f"br label %{done}")
        code.lines.append(f"{done}:")

    module.define(f"tile_{rows}_{vectors}", SIGNATURE, body)


def tiles(code: Assembly, target: Target, table: str, p: PanelProduct) -> None:
    """A panel's product over all rows, in tiles as equal as can be."""
    most = tile_rows(code.module, target)
    count = code.let(f"sdiv i64 {code.add(p.rows, most - 1)}, {most}")
    some = code.let(f"icmp sgt i64 {p.rows}, 0")
    with code.when(some):
        base = code.let(f"sdiv i64 {p.rows}, {count}")
        larger = code.let(f"srem i64 {p.rows}, {count}")
        first = code.slot("i64")
        code.store("i64", "0", first)
        given = code.let(f"icmp ne ptr {p.start.at}, null")
        with code.loop(count) as i:
            row = code.load("i64", first)
            extra = code.let(f"zext i1 {code.less(i, larger)} to i64")
            size = code.add(base, extra)
            entry = code.add(code.mul(code.sub(size, 1), target.vectors), code.sub(p.vectors, 1))
            function = code.load("ptr", code.at(table, entry, "ptr"))
            begin = code.choose(given, code.at(p.start.at, code.mul(row, p.start.row)), "null", "ptr")
            a, c = code.at(p.a.at, code.mul(row, p.a.row)), code.at(p.c.at, code.mul(row, p.c.row))
            code.line(
                f"call void {function}(ptr {a}, i64 {p.a.row}, i64 {p.a.column}, ptr {p.b.at}, i64 {p.b.row}, "
                f"ptr {c}, i64 {p.c.row}, ptr {begin}, i64 {p.start.row}, i64 {p.k}, i64 {p.columns})"
            )
            code.store("i64", code.add(row, size), first)
