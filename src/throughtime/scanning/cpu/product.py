"""The matrix product: a tile of sums held in registers, weights packed into panels, and whole products over many rows.

    tile      C[r, v] = start[r, v] + sum_k A[r, k] B[k, v]     r < rows, v < vectors of one panel
    pack      B[K, N] -> panels of `vectors` vectors of columns, each [K, width], zeros beyond N
    multiply  C = A @ B (+ bias), B packed: tasks are stretches of rows
    outer     C = A.T @ B, the gradient of weights: tasks are panels of columns

Every sum runs over k in order, whatever the tile, so a row's bits do not depend on how rows are dealt out to threads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from throughtime.scanning.cpu.assembly import Assembly, Module
from throughtime.scanning.cpu.target import Library, Target, host, library

DEPTH = 512  # steps of k between two visits of a sum to memory
STRETCH = 96  # rows of a task of `multiply`, at most
OUTER_DEPTH = 256  # and of its rows
OUTER_ROWS = 384  # of A's columns a task copies, so that they stay in cache


def panel(target: Target, dtype: str) -> int:
    """Columns of a whole panel."""
    return target.vectors * target.lanes(dtype)


def packed_size(rows: int, columns: int, target: Target, dtype: str) -> int:
    """Numbers that a packed matrix takes."""
    lanes = target.lanes(dtype)
    return rows * (-(-columns // lanes) * lanes)


def _tile(module: Module, target: Target, dtype: str, rows: int, vectors: int) -> None:
    lanes = target.lanes(dtype)

    def body(code: Assembly) -> None:
        v = code.vector
        index = f"<{lanes} x i64>"
        # columns beyond the last: only the last vector may have any
        count = code.let(f"insertelement {index} poison, i64 {code.sub('%columns', (vectors - 1) * lanes)}, i64 0")
        count = code.let(f"shufflevector {index} {count}, {index} poison, <{lanes} x i32> zeroinitializer")
        lane = "<" + ", ".join(f"i64 {i}" for i in range(lanes)) + ">"
        mask = code.let(f"icmp slt {index} {lane}, {count}")
        sums = [[code.slot(v) for _ in range(vectors)] for _ in range(rows)]
        begin = code.let("icmp ne ptr %start, null")
        whole = code.let(f"icmp sge i64 %columns, {vectors * lanes}")
        for r in range(rows):
            for c in range(vectors):
                code.store(v, "zeroinitializer", sums[r][c])
        with code.when(begin):
            for r in range(rows):
                row = code.at("%start", code.mul("%lds", r))
                for c in range(vectors):
                    where = code.at(row, c * lanes)
                    if c < vectors - 1:
                        code.store(v, code.load_vector(where), sums[r][c])
                    else:
                        suffix = f"v{lanes}f{code.bytes * 8}.p0"
                        kind = f"<{lanes} x i1>"
                        module.declare(f"declare {v} @llvm.masked.load.{suffix}(ptr, i32, {kind}, {v})")
                        got = code.let(
                            f"call {v} @llvm.masked.load.{suffix}(ptr {where}, i32 {code.bytes}, {kind} {mask}, "
                            f"{v} zeroinitializer)"
                        )
                        code.store(v, got, sums[r][c])
        pointers = [code.at("%a", code.mul("%rs", r)) for r in range(rows)]
        with code.loop("%k") as k:
            b = code.at("%b", code.mul(k, "%ldb"))
            columns = [code.load_vector(code.at(b, c * lanes)) for c in range(vectors)]
            step = code.mul(k, "%cs")
            for r in range(rows):
                a = code.splat(code.load(dtype, code.at(pointers[r], step)))
                for c in range(vectors):
                    code.store(v, code.fma(a, columns[c], code.load(v, sums[r][c])), sums[r][c])
        full, part, done = code.label(), code.label(), code.label()
        code.line(f"br i1 {whole}, label %{full}, label %{part}")
        for label in (full, part):
            code.lines.append(f"{label}:")
            for r in range(rows):
                row = code.at("%c", code.mul("%ldc", r))
                for c in range(vectors):
                    masked = mask if label == part and c == vectors - 1 else None
                    code.store_vector(code.load(v, sums[r][c]), code.at(row, c * lanes), mask=masked)
            code.line(f"br label %{done}")
        code.lines.append(f"{done}:")

    module.define(
        f"tile_{rows}_{vectors}",
        "ptr %a, i64 %rs, i64 %cs, ptr %b, i64 %ldb, ptr %c, i64 %ldc, ptr %start, i64 %lds, i64 %k, i64 %columns",
        dtype,
        lanes,
        body,
    )


TILE = "void (ptr, i64, i64, ptr, i64, ptr, i64, ptr, i64, i64, i64)"


def tiles(
    code: Assembly,
    target: Target,
    rows: str,
    table: str,
    vectors: str,
    a: str,
    rs: str,
    cs: str,
    b: str,
    ldb: str,
    c: str,
    ldc: str,
    start: str,
    lds: str,
    k: str,
    columns: str,
) -> None:
    """One panel over all rows, in tiles as equal as can be."""
    most = target.rows
    count = code.let(f"sdiv i64 {code.add(rows, most - 1)}, {most}")
    some = code.let(f"icmp sgt i64 {rows}, 0")
    with code.when(some):
        base = code.let(f"sdiv i64 {rows}, {count}")
        larger = code.let(f"srem i64 {rows}, {count}")
        first = code.slot("i64")
        code.store("i64", "0", first)
        given = code.let(f"icmp ne ptr {start}, null")
        with code.loop(count) as i:
            row = code.load("i64", first)
            extra = code.let(f"zext i1 {code.less(i, larger)} to i64")
            size = code.add(base, extra)
            entry = code.add(code.mul(code.sub(size, 1), target.vectors), code.sub(vectors, 1))
            function = code.load("ptr", code.at(table, entry, "ptr"))
            begin = code.choose(given, code.at(start, code.mul(row, lds)), "null", "ptr")
            code.line(
                f"call void {function}(ptr {code.at(a, code.mul(row, rs))}, i64 {rs}, i64 {cs}, ptr {b}, i64 {ldb}, "
                f"ptr {code.at(c, code.mul(row, ldc))}, i64 {ldc}, ptr {begin}, i64 {lds}, i64 {k}, i64 {columns})"
            )
            code.store("i64", code.add(row, size), first)


def _table(module: Module, target: Target) -> None:
    names = [f"ptr @tile_{r}_{c}" for r in range(1, target.rows + 1) for c in range(1, target.vectors + 1)]
    module.functions["tiles"] = f"@tiles = constant [{len(names)} x ptr] [{', '.join(names)}]"


def define_tasks(module: Module, name: str, dtype: str, lanes: int, body: Callable[[Assembly, str], None]) -> None:
    """A function of an argument block, to be called by as many threads as there are: each takes tasks until there are none.

    args[0] counts the tasks taken, args[1] is how many there are. body: writes one task, given its number.
    Returns, each call of it: the number of tasks that the caller has done.
    """

    def whole(code: Assembly) -> None:
        taken = code.slot("i64")
        code.store("i64", "0", taken)
        again, go, done = code.label(), code.label(), code.label()
        code.place(again)
        task = code.let("atomicrmw add ptr %args, i64 1 monotonic")
        total = code.load("i64", code.at("%args", 1, "i64"))
        code.line(f"br i1 {code.less(task, total)}, label %{go}, label %{done}")
        code.lines.append(f"{go}:")
        body(code, task)
        code.store("i64", code.add(code.load("i64", taken), 1), taken)
        code.line(f"br label %{again}")
        code.lines.append(f"{done}:")
        code.line(f"ret i64 {code.load('i64', taken)}")

    module.define(name, "ptr %args", dtype, lanes, whole, returns="i64")


def fields(code: Assembly, args: str, *names: str, first: int = 2) -> list[str]:
    """Entries of the argument block; a name with a star is a pointer."""
    return [
        code.load("ptr" if n.endswith("*") else "i64", code.at(args, first + i, "i64")) for i, n in enumerate(names)
    ]


def _pack(module: Module, target: Target, dtype: str) -> None:
    lanes = target.lanes(dtype)
    wide = panel(target, dtype)

    def body(code: Assembly, number: str) -> None:
        source, rs, cs, rows, columns, out = fields(code, "%args", "source*", "rs", "cs", "rows", "columns", "out*")
        _pack_panel(
            code,
            lanes,
            wide,
            number,
            source,
            rs,
            cs,
            rows,
            columns,
            code.at(out, code.mul(code.mul(number, wide), rows)),
        )

    define_tasks(module, "pack", dtype, lanes, body)


def _pack_panel(
    code: Assembly, lanes: int, wide: int, number: str, source: str, rs: str, cs: str, rows: str, columns: str, out: str
) -> None:
    """Columns number·wide … of a [rows, columns] matrix, as [rows, width] without gaps."""
    first = code.mul(number, wide)
    left = code.least(code.sub(columns, first), wide)
    width = code.mul(code.let(f"sdiv i64 {code.add(left, lanes - 1)}, {lanes}"), lanes)
    begin = code.at(source, code.mul(first, cs))
    straight = code.let(f"icmp eq i64 {cs}, 1")
    whole = code.let(f"icmp eq i64 {left}, {width}")
    copy, other, turn, gather, done = (code.label() for _ in range(5))
    code.line(f"br i1 {code.let(f'and i1 {straight}, {whole}')}, label %{copy}, label %{other}")
    code.lines.append(f"{other}:")
    code.line(f"br i1 {code.let(f'icmp eq i64 {rs}, 1')}, label %{turn}, label %{gather}")
    code.lines.append(f"{copy}:")
    with code.loop(rows) as k:
        row, into = code.at(begin, code.mul(k, rs)), code.at(out, code.mul(k, width))
        with code.loop(width, step=lanes) as j:
            code.store_vector(code.load_vector(code.at(row, j)), code.at(into, j))
    code.line(f"br label %{done}")
    # columns lie dense: square blocks are turned in registers, what is left over goes number by number
    code.lines.append(f"{turn}:")
    blocks = code.let(f"sdiv i64 {left}, {lanes}")
    turned_columns = code.mul(blocks, lanes)
    turned_rows = code.mul(code.let(f"sdiv i64 {rows}, {lanes}"), lanes)
    with code.loop(turned_columns, step=lanes) as j, code.loop(turned_rows, step=lanes) as k:
        at = code.at(code.at(begin, code.mul(j, cs)), k)
        block = [code.load_vector(code.at(at, code.mul(cs, i))) for i in range(lanes)]
        into = code.at(code.at(out, code.mul(k, width)), j)
        for i, vector in enumerate(_turned(code, block)):
            code.store_vector(vector, code.at(into, code.mul(width, i)))
    _pack_numbers(code, begin, rs, cs, out, width, left, turned_rows, rows, "0", turned_columns)
    _pack_numbers(code, begin, rs, cs, out, width, left, "0", rows, turned_columns, width)
    code.line(f"br label %{done}")
    code.lines.append(f"{gather}:")
    _pack_numbers(code, begin, rs, cs, out, width, left, "0", rows, "0", width)
    code.line(f"br label %{done}")
    code.lines.append(f"{done}:")


def _pack_numbers(
    code: Assembly, begin: str, rs: str, cs: str, out: str, width: str, left: str,
    first_row: str, last_row: str, first_column: str, last_column: str,
) -> None:  # fmt: skip
    """A part of a panel, number by number; zeros beyond its `left` columns."""
    with code.loop(last_column, start=first_column) as j:
        inside = code.less(j, left)
        column = code.at(begin, code.mul(code.choose(inside, j, "0"), cs))
        with code.loop(last_row, start=first_row) as k:
            value = code.load(code.dtype, code.at(column, code.mul(k, rs)))
            value = code.choose(inside, value, "0.0", code.dtype)
            code.store(code.dtype, value, code.at(out, code.add(code.mul(k, width), j)))


def _turned(code: Assembly, block: list[str]) -> list[str]:
    """A square block of vectors, transposed: in each round, halves twice as large change places."""
    lanes, half = len(block), 1
    while half < lanes:
        out = [""] * lanes
        for i in range(lanes):
            if i & half:
                continue
            a, b = block[i], block[i + half]
            low = [j if not j & half else lanes + j - half for j in range(lanes)]
            high = [j + half if not j & half else lanes + j for j in range(lanes)]
            for where, order in ((i, low), (i + half, high)):
                mask = ", ".join(f"i32 {n}" for n in order)
                out[where] = code.let(f"shufflevector {code.vector} {a}, {code.vector} {b}, <{lanes} x i32> <{mask}>")
        block, half = out, half * 2
    return block


def _multiply(module: Module, target: Target, dtype: str) -> None:
    lanes, wide = target.lanes(dtype), panel(target, dtype)

    def body(code: Assembly, task: str) -> None:
        a, rs, cs, b, c, ldc, start, lds, m, n, k, stretch = fields(
            code, "%args", "a*", "rs", "cs", "b*", "c*", "ldc", "start*", "lds", "m", "n", "k", "stretch"
        )
        low = code.mul(task, stretch)
        rows = code.least(code.sub(m, low), stretch)
        panels = code.let(f"sdiv i64 {code.add(n, wide - 1)}, {wide}")
        given = code.let(f"icmp ne ptr {start}, null")
        with code.loop(k, step=DEPTH) as k0:
            depth = code.least(code.sub(k, k0), DEPTH)
            fresh = code.let(f"icmp eq i64 {k0}, 0")
            with code.loop(panels) as p:
                column = code.mul(p, wide)
                left = code.least(code.sub(n, column), wide)
                vectors = code.let(f"sdiv i64 {code.add(left, lanes - 1)}, {lanes}")
                width = code.mul(vectors, lanes)
                into = code.at(code.at(c, code.mul(low, ldc)), column)
                first = code.choose(given, code.at(code.at(start, code.mul(low, lds)), column), "null", "ptr")
                begin = code.choose(fresh, first, into, "ptr")
                tiles(
                    code, target, rows, "@tiles", vectors,
                    code.at(code.at(a, code.mul(low, rs)), code.mul(k0, cs)), rs, cs,
                    code.at(code.at(b, code.mul(column, k)), code.mul(k0, width)), width,
                    into, ldc, begin, code.choose(fresh, lds, ldc), depth, left,
                )  # fmt: skip

    define_tasks(module, "multiply", dtype, lanes, body)


def _outer(module: Module, target: Target, dtype: str) -> None:
    """C[M, N] (+)= sum over R rows of A[r, m] B[r, n]. A task is a group of panels of N and a stretch of M."""
    lanes, wide = target.lanes(dtype), panel(target, dtype)

    def body(code: Assembly, task: str) -> None:
        a, lda, b, ldb, c, ldc, m, n, r, stretch, group, scratch, space, more = fields(
            code,
            "%args",
            "a*",
            "lda",
            "b*",
            "ldb",
            "c*",
            "ldc",
            "m",
            "n",
            "r",
            "stretch",
            "group",
            "scratch*",
            "space",
            "more",
        )
        panels = code.let(f"sdiv i64 {code.add(n, wide - 1)}, {wide}")
        groups = code.let(f"sdiv i64 {code.sub(code.let(f'add i64 {panels}, {group}'), 1)}, {group}")
        low = code.mul(code.let(f"sdiv i64 {task}, {groups}"), stretch)
        first = code.mul(code.let(f"srem i64 {task}, {groups}"), group)
        last = code.least(code.let(f"add i64 {first}, {group}"), panels)
        rows = code.least(code.sub(m, low), stretch)
        # a copy of a block of A, whose rows lie at a distance that is no power of two, so that they do not fall on the same
        # lines of the cache
        pitch = code.add(stretch, lanes)
        block = code.at(scratch, code.mul(task, space))
        packed = code.at(block, code.mul(pitch, OUTER_DEPTH))
        with code.loop(r, step=OUTER_DEPTH) as r0:
            depth = code.least(code.sub(r, r0), OUTER_DEPTH)
            whole = code.mul(code.let(f"sdiv i64 {rows}, {lanes}"), lanes)
            with code.loop(depth) as i:
                source = code.at(code.at(a, code.mul(code.let(f"add i64 {r0}, {i}"), lda)), low)
                into = code.at(block, code.mul(i, pitch))
                with code.loop(whole, step=lanes) as j:
                    code.store_vector(code.load_vector(code.at(source, j)), code.at(into, j))
                with code.loop(rows, start=whole) as j:
                    code.store(dtype, code.load(dtype, code.at(source, j)), code.at(into, j))
            fresh = code.let(f"and i1 {code.let(f'icmp eq i64 {r0}, 0')}, {code.let(f'icmp eq i64 {more}, 0')}")
            with code.loop(last, start=first) as p:
                column = code.mul(p, wide)
                left = code.least(code.sub(n, column), wide)
                vectors = code.let(f"sdiv i64 {code.add(left, lanes - 1)}, {lanes}")
                width = code.mul(vectors, lanes)
                into = code.at(code.at(c, code.mul(low, ldc)), column)
                source = code.at(b, code.mul(r0, ldb))
                # read as it lies by a single tile; a last panel would be read beyond its end
                once = code.let(f"icmp sle i64 {rows}, {target.rows}")
                direct = code.let(f"and i1 {once}, {code.let(f'icmp eq i64 {left}, {wide}')}")
                with code.when(code.let(f"xor i1 {direct}, true")):
                    _pack_panel(code, lanes, wide, p, source, ldb, "1", depth, n, packed)
                tiles(
                    code, target, rows, "@tiles", vectors, block, "1", pitch,
                    code.choose(direct, code.at(source, column), packed, "ptr"), code.choose(direct, ldb, width),
                    into, ldc, code.choose(fresh, "null", into, "ptr"), ldc, depth, left,
                )  # fmt: skip

    define_tasks(module, "outer", dtype, lanes, body)


def _chain(module: Module, dtype: str, lanes: int) -> None:
    """Functions one after the other: how many, then for each its address and that of its argument block, whose count of
    tasks begins anew."""

    def body(code: Assembly) -> None:
        count = code.load("i64", "%args")
        with code.loop(count) as i:
            at = code.add(code.mul(i, 2), 1)
            function = code.load("ptr", code.at("%args", at, "i64"))
            block = code.load("ptr", code.at("%args", code.add(at, 1), "i64"))
            code.store("i64", "0", block)
            code.let(f"call i64 {function}(ptr {block})")

    module.define("chain", "ptr %args", dtype, lanes, body)


def text(target: Target, dtype: str) -> str:
    """The whole of it for one type of number."""
    module = Module()
    for rows in range(1, target.rows + 1):
        for vectors in range(1, target.vectors + 1):
            _tile(module, target, dtype, rows, vectors)
    _table(module, target)
    _pack(module, target, dtype)
    _multiply(module, target, dtype)
    _outer(module, target, dtype)
    _chain(module, dtype, target.lanes(dtype))
    return module.text()


@functools.cache
def products(dtype: str) -> Library:
    """The compiled functions for `float` or `double`."""
    target = host()
    return library(f"products {dtype} {DEPTH} {OUTER_DEPTH}", lambda: text(target, dtype))
