"""A panel of a product's columns in LLVM assembly: its sums stay in registers over all of the product's depth."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from throughtime.exporting.dots_llvm import Dots, scale_of
from throughtime.exporting.numbers_llvm import bytes_of, whole_vector
from throughtime.scanning.cpu.assembly import Assembly

LEAST = 8  # sums that run beside each other, so that none waits for the one before


@dataclass(frozen=True)
class Panel:
    """Writes y[n] = sum_k x[k] weights[k, n] for the columns of a panel.

    x: a row, rounded where weights are whole numbers. depth: K. apart: from one vector of y to the next, where these are not side
    by side. scales: what each column is multiplied by, where weights are whole numbers. starts: what sums begin with, where that
    is not 0.
    """

    code: Assembly
    dots: Dots
    x: str
    depth: int
    apart: int = 0
    scales: str = ""
    starts: str = ""

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
        code, dots, lanes, apart = self.code, self.dots, self.code.lanes, self.apart or self.code.lanes
        kind, align = dots.sums(code), bytes_of(code)
        # sums of one number each, added at the end
        ways = min(self.groups, max(1, -(-LEAST // (vectors * dots.parts))))
        sums = [[[code.slot(kind) for _ in range(dots.parts)] for _ in range(vectors)] for _ in range(ways)]
        for slot in itertools.chain(*itertools.chain(*sums)):
            code.store(kind, "zeroinitializer", slot, align)
        if self.starts:
            for v in range(vectors):
                begun = code.load(kind, code.at(self.starts, code.add(first, v * apart), "i32"), align)
                code.store(kind, begun, sums[0][v][0], align)

        def rows(k: str, count: int) -> None:
            begin = code.at(weights, code.mul(k, vectors * lanes * dots.group), dots.kind)
            for way in range(count):
                operands = dots.operands(code, self.x, self.depth, code.add(k, way))
                for v in range(vectors):
                    at = (way * vectors + v) * lanes * dots.group
                    column = dots.weights(code, code.at(begin, at, dots.kind))
                    for slot, operand in zip(sums[way][v], operands, strict=True):
                        code.store(kind, dots.add(code, code.load(kind, slot, align), operand, column), slot, align)

        whole = self.groups - self.groups % ways
        with code.loop(whole, step=ways) as k:
            rows(k, ways)
        if self.groups > whole:
            rows(str(whole), self.groups - whole)
        scale = code.splat(code.load(code.dtype, scale_of(code, self.x, self.depth))) if self.scales else ""
        for v in range(vectors):
            parts = [code.load(kind, slot, align) for slot in sums[0][v]]
            for way in range(1, ways):
                parts = [
                    dots.plus(code, a, code.load(kind, b, align)) for a, b in zip(parts, sums[way][v], strict=True)
                ]
            total = dots.total(code, parts)
            if self.scales:
                times = whole_vector(code, code.at(self.scales, code.add(first, v * apart)))
                total = code.binary("fmul", total, code.binary("fmul", scale, times))
            code.store(code.vector, total, code.at(y, v * apart), align)
