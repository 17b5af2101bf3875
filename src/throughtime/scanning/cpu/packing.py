"""Matrices packed for the product: panels of a few vectors of columns, each [K, width], zeros beyond the last column."""

from __future__ import annotations

from dataclasses import dataclass

from throughtime.scanning.cpu.assembly import Assembly, Module
from throughtime.scanning.cpu.target import Target
from throughtime.scanning.cpu.tasks import define_tasks, fields
from throughtime.scanning.cpu.tiles import Matrix, panel


def packed_size(rows: int, columns: int, target: Target, dtype: str) -> int:
    """Numbers that a packed matrix takes."""
    lanes = target.lanes(dtype)
    return rows * (-(-columns // lanes) * lanes)


def define_pack(module: Module, target: Target) -> None:
    """`pack`: a whole matrix; a task is a panel."""
    wide = panel(target, module.dtype)

    def body(code: Assembly, number: str) -> None:
        source, rs, cs, rows, columns, out = fields(code, "%args", "source*", "rs", "cs", "rows", "columns", "out*")
        into = code.at(out, code.mul(code.mul(number, wide), rows))
        pack_panel(code, wide, number, Source(Matrix(source, rs, cs), rows, columns), into)

    define_tasks(module, "pack", body)


@dataclass(frozen=True)
class Source:
    """A matrix to pack, and its size."""

    matrix: Matrix
    rows: str
    columns: str


def pack_panel(code: Assembly, wide: int, number: str, source: Source, out: str) -> None:
    """Columns number·wide … of a matrix, as [rows, width] without gaps."""
    lanes, matrix, rows = code.lanes, source.matrix, source.rows
    first = code.mul(number, wide)
    left = code.least(code.sub(source.columns, first), wide)
    width = code.mul(code.let(f"sdiv i64 {code.add(left, lanes - 1)}, {lanes}"), lanes)
    begin = code.at(matrix.at, code.mul(first, matrix.column))
    straight = code.let(f"icmp eq i64 {matrix.column}, 1")
    whole = code.let(f"icmp eq i64 {left}, {width}")
    numbers = _Numbers(code, Matrix(begin, matrix.row, matrix.column), left, out, width)
    copy, other, transpose, gather, done = (code.label() for _ in range(5))
    code.line(f"br i1 {code.let(f'and i1 {straight}, {whole}')}, label %{copy}, label %{other}")
    code.lines.append(f"{other}:")
    code.line(f"br i1 {code.let(f'icmp eq i64 {matrix.row}, 1')}, label %{transpose}, label %{gather}")
    code.lines.append(f"{copy}:")
    with code.loop(rows) as k:
        row, into = code.at(begin, code.mul(k, matrix.row)), code.at(out, code.mul(k, width))
        with code.loop(width, step=lanes) as j:
            code.store_vector(code.load_vector(code.at(row, j)), code.at(into, j))
    code.line(f"br label %{done}")
    # columns lie dense: square blocks are transposed in registers, what is left over goes number by number
    code.lines.append(f"{transpose}:")
    blocks = code.let(f"sdiv i64 {left}, {lanes}")
    whole_columns = code.mul(blocks, lanes)
    whole_rows = code.mul(code.let(f"sdiv i64 {rows}, {lanes}"), lanes)
    with code.loop(whole_columns, step=lanes) as j, code.loop(whole_rows, step=lanes) as k:
        at = code.at(code.at(begin, code.mul(j, matrix.column)), k)
        block = [code.load_vector(code.at(at, code.mul(matrix.column, i))) for i in range(lanes)]
        into = code.at(code.at(out, code.mul(k, width)), j)
        for i, vector in enumerate(_transposed(code, block)):
            code.store_vector(vector, code.at(into, code.mul(width, i)))
    numbers.pack((whole_rows, rows), ("0", whole_columns))
    numbers.pack(("0", rows), (whole_columns, width))
    code.line(f"br label %{done}")
    code.lines.append(f"{gather}:")
    numbers.pack(("0", rows), ("0", width))
    code.line(f"br label %{done}")
    code.lines.append(f"{done}:")


@dataclass(frozen=True)
class _Numbers:
    """Packs parts of a panel number by number; zeros beyond its `left` columns."""

    code: Assembly
    source: Matrix
    left: str
    out: str
    width: str

    def pack(self, rows: tuple[str, str], columns: tuple[str, str]) -> None:
        code, source = self.code, self.source
        with code.loop(columns[1], start=columns[0]) as j:
            inside = code.less(j, self.left)
            column = code.at(source.at, code.mul(code.choose(inside, j, "0"), source.column))
            with code.loop(rows[1], start=rows[0]) as k:
                value = code.load(code.dtype, code.at(column, code.mul(k, source.row)))
                value = code.choose(inside, value, "0.0", code.dtype)
                code.store(code.dtype, value, code.at(self.out, code.add(code.mul(k, self.width), j)))


def _transposed(code: Assembly, block: list[str]) -> list[str]:
    """A square block of vectors, transposed: in each round, halves twice as large change places."""
    lanes, half = len(block), 1
    while half < lanes:
        out = [""] * lanes
        for i in (i for i in range(lanes) if not i & half):
            a, b = block[i], block[i + half]
            low = [j if not j & half else lanes + j - half for j in range(lanes)]
            high = [j + half if not j & half else lanes + j for j in range(lanes)]
            for where, order in ((i, low), (i + half, high)):
                mask = ", ".join(f"i32 {n}" for n in order)
                out[where] = code.let(f"shufflevector {code.vector} {a}, {code.vector} {b}, <{lanes} x i32> <{mask}>")
        block, half = out, half * 2
    return block
