"""Chunks of time: as many steps as keep what lies between the parts of a loop in cache.

Hoisted products, and gradients that wait for the product with what they meet, are used again for the next chunk, never made
whole.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from throughtime.scanning.cpu import memory
from throughtime.scanning.cpu.arguments import Arguments, rows_of
from throughtime.scanning.engine import Given
from throughtime.scanning.program import SUMMED, Array, Loop

CHUNK_BYTES = 4 << 20  # of the arrays of a chunk
LEAST_ROWS = 256  # of a chunk, so that its products are worth their start


class Chunk(NamedTuple):
    """Some steps: the first in memory, how many, and the number of the first in the loop's order."""

    low: int
    length: int
    first: int

    @property
    def span(self) -> slice:
        return slice(self.low, self.low + self.length)


def most_rows(size: int) -> int:
    """How many rows a chunk has at most, each of so many bytes."""
    return max(LEAST_ROWS, CHUNK_BYTES // size) if size else sys.maxsize


class Spaces:
    """The arrays of a chunk, in memory that the next chunk uses again.

    lasting: arrays [T, B, n] of which each chunk has a part that stays. loop: what writes them.
    added: sums over a chunk's steps that the loop makes itself, [B, n], of some of them.
    """

    def __init__(
        self,
        given: Given,
        widths: Mapping[Array, int],
        lasting: dict[Array, Tensor] | None = None,
        loop: Loop | None = None,
    ) -> None:
        self.given, self.lasting, dtype = given, lasting or {}, given.state[0].dtype
        types = {a: torch.bfloat16 if loop is not None and a in loop.halved else dtype for a in widths}
        size, batch = sum([n * types[a].itemsize for a, n in widths.items()]), given.batch
        self.length = max(1, min(given.steps, most_rows(size) // max(1, batch)))
        self.passing = {a: memory.empty(self.length * batch, n, dtype=types[a]) for a, n in widths.items()}
        self.added = {
            (kind, i): torch.zeros(batch, widths[kind, i], dtype=dtype)
            for kind in ("d", "U")
            for i in (loop.by_kind.get(kind + SUMMED, ()) if loop is not None else ())
        }

    def chunks(self) -> Iterator[Chunk]:
        """All of them, in the loop's order."""
        steps = self.given.steps
        for first in range(0, steps, self.length):
            count = min(self.length, steps - first)
            yield Chunk(first if self.given.step > 0 else steps - first - count, count, first)

    def rows(self, array: Array, chunk: Chunk) -> Tensor:
        """The rows of a chunk, [count · B, n]."""
        if array in self.lasting:
            return self.lasting[array][chunk.span].flatten(0, 1)
        whole = self.passing[array]
        return whole if chunk.length == self.length else whole[: chunk.length * self.given.batch]

    def place(self, arguments: Arguments, chunk: Chunk) -> None:
        """Tell the loop where it writes a chunk; with lengths, zeros where it does not come."""
        past = self._past(chunk)
        for array, space in self.passing.items():
            arguments.place(array, self.words(array, chunk))
            if past is not None:
                space.index_fill_(0, past, 0.0)
        for (kind, i), value in self.added.items():
            arguments.place((kind + SUMMED, i), rows_of(value.zero_()))

    def _past(self, chunk: Chunk) -> Tensor | None:
        """The rows of a chunk past the sequences' ends."""
        past, batch = self.given.past, self.given.batch
        if past is None or chunk.length == self.given.steps:
            return past
        low = chunk.low * batch
        ends = torch.tensor([low, low + chunk.length * batch])
        first, last = torch.searchsorted(past, ends).tolist()
        return past[first:last] - low

    def words(self, array: Array, chunk: Chunk) -> list[int]:
        """Where an array lies, as if it were whole: its rows begin with the chunk's first step."""
        space, batch = self.passing[array], self.given.batch
        width = space.shape[1]
        return [space.data_ptr() - chunk.low * batch * width * space.element_size(), batch * width, width]
