"""The inputs of a session, end to end in one block of memory."""

from __future__ import annotations

from torch import Tensor


class Tape:
    """Rows [n, ...] of one type that grow at the end, can be cut at both ends, and spliced.

    Args: like: [0, ...], what a row is.
    """

    def __init__(self, like: Tensor) -> None:
        self._block, self._low, self._high = like.new_empty(0, *like.shape[1:]), 0, 0

    def __len__(self) -> int:
        return self._high - self._low

    def rows(self, low: int, high: int) -> Tensor:
        """Rows low to high, [high - low, ...]: a view, not to be written to."""
        return self._block[self._low + low : self._low + high]

    def append(self, rows: Tensor) -> None:
        """Put rows [n, ...] at its end."""
        need = len(self) + len(rows)
        if self._high + len(rows) > len(self._block):
            block = self._block.new_empty(max(2 * need, 16), *self._block.shape[1:])
            block[: len(self)] = self.rows(0, len(self))
            self._block, self._low, self._high = block, 0, len(self)
        self._block[self._high : self._high + len(rows)] = rows
        self._high += len(rows)

    def cut(self, count: int) -> None:
        """Keep the first `count` rows alone."""
        self._high = self._low + count

    def drop(self, count: int) -> None:
        """Forget the first `count` rows. Their memory is given back with the next growth."""
        self._low += count

    def splice(self, low: int, high: int, rows: Tensor) -> None:
        """Put other rows in the place of those from low to high."""
        rest = self.rows(high, len(self)).clone()
        self.cut(low)
        self.append(rows)
        self.append(rest)

    def copy(self) -> Tape:
        """Another of the same rows, in memory of its own."""
        other = Tape(self._block[:0])
        other.append(self.rows(0, len(self)))
        return other
