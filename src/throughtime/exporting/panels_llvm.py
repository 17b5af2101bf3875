"""A panel of a product's columns in LLVM assembly: its sums stay in registers over all of the product's depth."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from throughtime.exporting.dots_llvm import Dots, scale_of
from throughtime.exporting.numbers_llvm import bytes_of, whole_vector
from throughtime.scanning.cpu.assembly import Assembly

Sums = list[list[list[list[str]]]]  # of each way, row, column and part: where it is added up
LEAST = 8  # sums that run beside each other, so that none waits for the one before


@dataclass(frozen=True)
class Rows:
    """Rows that share each weight that is loaded. count: how many. x, y: numbers from one of them to the next."""

    count: int = 1
    x: int = 0
    y: int = 0


ROW = Rows()


@dataclass(frozen=True)
class Panel:
    """Writes y[r, n] = sum_k x[r, k] weights[k, n] for the columns of a panel.

    x: the first row, rounded where weights are whole numbers. depth: K. apart: from one vector of y to the next, where these are
    not side by side. scales: what each column is multiplied by, where weights are whole numbers. starts: what sums begin with,
    where that is not 0. rows: of x and y. most: vectors of columns that registers hold sums for, where there are several rows:
    a panel is then written a few columns after the other. The order of a sum does not depend on how many rows there are.
    """

    code: Assembly
    dots: Dots
    x: str
    depth: int
    apart: int = 0
    scales: str = ""
    starts: str = ""
    rows: Rows = ROW
    most: int = 1

    @property
    def groups(self) -> int:
        """Groups of weights of a column."""
        return -(-self.depth // self.dots.group)

    @property
    def kept(self) -> int:
        """Weights of a column, with the zeros that fill its last group."""
        return self.groups * self.dots.group

    def write(self, weights: str, first: str, y: str, vectors: int) -> None:
        """weights: where those of the panel begin. first: its first column. y: where its first number goes."""
        # sums of one number each, added at the end
        ways = min(self.groups, max(1, -(-LEAST // (vectors * self.dots.parts))))
        count = self.rows.count
        # registers hold an operand of each row besides
        some = vectors if count == 1 else max(1, (self.most - count) // (count * ways))
        for begin in range(0, vectors, some):
            columns = range(begin, min(begin + some, vectors))
            sums = self._begin(first, columns, ways)
            self._add(weights, vectors, columns, sums)
            self._end(first, y, columns, sums)

    def _begin(self, first: str, columns: range, ways: int) -> Sums:
        """Where these columns are added up, each way for itself."""
        code, dots = self.code, self.dots
        kind, align = dots.sums(code), bytes_of(code)
        count = self.rows.count
        sums = [[[[code.slot(kind) for _ in range(dots.parts)] for _ in columns] for _ in range(count)]
                for _ in range(ways)]  # fmt: skip
        for way in sums:
            for slot in itertools.chain(*itertools.chain(*way)):
                code.store(kind, "zeroinitializer", slot, align)
        if self.starts:
            for v, row in itertools.product(columns, range(count)):
                begun = code.load(kind, code.at(self.starts, code.add(first, v * self._apart), "i32"), align)
                code.store(kind, begun, sums[0][row][v - columns.start][0], align)
        return sums

    def _add(self, weights: str, vectors: int, columns: range, sums: Sums) -> None:
        """All products of these columns."""
        code, dots, lanes, ways = self.code, self.dots, self.code.lanes, len(sums)
        kind, align = dots.sums(code), bytes_of(code)

        def some(k: str, count: int) -> None:
            begin = code.at(weights, code.mul(k, vectors * lanes * dots.group), dots.kind)
            for way in range(count):
                group = code.add(k, way)
                operands = [dots.operands(code, x, self.depth, group) for x in self._xs]
                for v in columns:
                    at = (way * vectors + v) * lanes * dots.group
                    column = dots.weights(code, code.at(begin, at, dots.kind))
                    for row, given in zip(sums[way], operands, strict=True):
                        for slot, operand in zip(row[v - columns.start], given, strict=True):
                            code.store(kind, dots.add(code, code.load(kind, slot, align), operand, column), slot, align)

        whole = self.groups - self.groups % ways
        with code.loop(whole, step=ways) as k:
            some(k, ways)
        if self.groups > whole:
            some(str(whole), self.groups - whole)

    def _end(self, first: str, y: str, columns: range, sums: Sums) -> None:
        """The sums as numbers, stored."""
        code, dots = self.code, self.dots
        kind, align = dots.sums(code), bytes_of(code)
        for row, x in enumerate(self._xs):
            scale = code.splat(code.load(code.dtype, scale_of(code, x, self.depth))) if self.scales else ""
            for v in columns:
                parts, *others = (
                    [code.load(kind, slot, align) for slot in way[row][v - columns.start]] for way in sums
                )
                for other in others:
                    parts = [dots.plus(code, a, b) for a, b in zip(parts, other, strict=True)]
                total = dots.total(code, parts)
                if self.scales:
                    times = whole_vector(code, code.at(self.scales, code.add(first, v * self._apart)))
                    # not fused with what is added to it, so that it is the same where it is stored first
                    total = code.let(f"fmul {code.vector} {total}, {code.binary('fmul', scale, times)}")
                code.store(code.vector, total, code.at(y, row * self.rows.y + v * self._apart), align)

    @property
    def _apart(self) -> int:
        return self.apart or self.code.lanes

    @property
    def _xs(self) -> list[str]:
        """Where each row of x begins."""
        return [self.code.at(self.x, row * self.rows.x) for row in range(self.rows.count)]
