"""Series as a network reads them from their beginning, step by step, and cutoffs in them.

Shapes: T steps, B series, H horizon, K covariates known ahead, n cutoffs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from throughtime.tasks.windows import AtCutoffs, Prepared

if TYPE_CHECKING:
    import torch

    from throughtime.models.stepwise import Course

Array = np.ndarray[Any, Any]
LONGEST = 512  # steps of a series that are learned from at once
SHARE = 8  # one of so many of them is a cutoff to learn from
TOGETHER = 50_000  # steps of series that are read side by side, where nothing is learned


class Courses(AtCutoffs):
    """Series to be read from some step on, as `Examples`, and cutoffs in them.

    Args: cutoffs: [n, 2], the number of a series and how many of its steps are known: where forecasts are asked for. parts: [m,
        3], the number of a series and from where to where it is read, an example of training; None: each cutoff is an example.
    """

    def __init__(
        self, series: Sequence[Prepared], cutoffs: Array, horizon: int, season: int, parts: Array | None = None
    ) -> None:
        self.series, self.cutoffs, self.horizon, self.season, self.parts = series, cutoffs, horizon, season, parts
        self.lengths = cutoffs[:, 1] if parts is None else parts[:, 2] - parts[:, 1]
        self.firsts = np.array([first_of(s) for s in series])
        self.sizes = np.array([s.scale.size for s in series])
        self.values = [(s.scale.read(s.values) - f) / s.scale.size for s, f in zip(series, self.firsts, strict=True)]

    @classmethod
    def to_train(cls, series: Sequence[Prepared], horizon: int, season: int) -> Courses:
        """Series in parts of about `LONGEST` steps, that overlap by half."""
        parts = []
        for i, s in enumerate(series):
            steps = len(s.values)
            starts = range(0, max(steps - LONGEST // 2, 1), LONGEST // 2)
            parts += [[i, start, min(start + LONGEST, steps)] for start in starts]
        return cls(series, np.zeros((0, 2), dtype=np.int64), horizon, season, np.array(parts))

    def batch(self, numbers: Iterable[int]) -> Course:
        """Some of the examples, side by side."""
        numbers = list(numbers)
        if self.parts is None:
            return self.at(self.cutoffs[numbers])
        import torch

        parts, cutoffs = self.parts[numbers], []
        for column, (_, start, end) in enumerate(parts):
            # a season is read before the first forecast, and something is known of what comes after the last
            low, high = min(start + self.season, end - 2), end - 1
            count = max((high - low) // SHARE, 1)
            drawn = low + torch.randint(max(high - low, 1), (count,)).numpy()
            cutoffs.append(np.stack([np.full(count, column), drawn + 1], 1))
        return self._course(parts, np.concatenate(cutoffs))

    def at(self, cutoffs: Array, start: int = 0) -> Course:
        """The same of cutoffs [n, 2]; start: the step from which on series are read."""
        which, columns = np.unique(cutoffs[:, 0], return_inverse=True)
        ends = [int(cutoffs[cutoffs[:, 0] == i, 1].max()) for i in which]
        parts = np.array([[i, start, end] for i, end in zip(which, ends, strict=True)])
        return self._course(parts, np.stack([columns, cutoffs[:, 1]], 1))

    def passes(self) -> Iterator[tuple[Array, Course, Array]]:
        """All cutoffs, those of a series together, in batches: their numbers, the batch, and what its forecasts are relative
        to."""
        ends = np.zeros(len(self.series), dtype=np.int64)  # of each series the last cutoff
        np.maximum.at(ends, self.cutoffs[:, 0], self.cutoffs[:, 1])
        order = np.lexsort((self.cutoffs[:, 0], ends[self.cutoffs[:, 0]]))
        low = 0
        while low < len(order):
            high, seen = low, set[int]()
            while high < len(order):
                seen.add(int(self.cutoffs[order[high], 0]))
                longest = int(ends[self.cutoffs[order[high], 0]])
                if high > low and (len(seen) * longest > TOGETHER or (high - low) * self.horizon > TOGETHER * 4):
                    break
                high += 1
            numbers = order[low:high]
            yield numbers, self.at(self.cutoffs[numbers]), self.firsts[self.cutoffs[numbers, 0]]
            low = high

    def _course(self, parts: Array, cutoffs: Array) -> Course:
        """parts [B, 3]: what is read; cutoffs [n, 2]: a column of it, and how many steps of its series are known."""
        import torch

        from throughtime.models.stepwise import Course

        steps = torch.zeros(int((parts[:, 2] - parts[:, 1]).max()), len(parts), 2 + self._width)
        for column, (i, start, end) in enumerate(parts):
            steps[: end - start, column] = self._steps(i, start, end)
        which = parts[cutoffs[:, 0], 0]
        target = np.full((len(cutoffs), self.horizon), np.nan, dtype=np.float32)
        known = np.zeros((len(cutoffs), self.horizon, self.series[0].known.shape[1]), dtype=np.float32)
        for row, (i, cut) in enumerate(zip(which, cutoffs[:, 1], strict=True)):
            there = self.values[i][cut : cut + self.horizon]
            target[row, : len(there)] = there
            ahead = np.nan_to_num(self.series[i].known[cut : cut + self.horizon])
            known[row, : len(ahead)] = ahead
        at = np.stack([cutoffs[:, 1] - 1 - parts[cutoffs[:, 0], 1], cutoffs[:, 0]], 1)
        scale = self.sizes[which].astype(np.float32)
        return Course(steps, *map(torch.from_numpy, (at, scale, known, target)))

    @property
    def _width(self) -> int:
        first = self.series[0]
        return int(first.known.shape[1] + first.past.shape[1] + len(first.static))

    def _steps(self, number: int, start: int, end: int) -> torch.Tensor:
        """Steps of a series as the network reads them, [T, 2 + C]."""
        s = self.series[number]
        covariates = np.concatenate([s.known[start:end], s.past[start:end]], 1)
        return as_steps(self.values[number][start:end], covariates, s.static)


def first_of(series: Prepared) -> float:
    """The first value that is known of a series, as it is read, which all others are relative to; 0 where none is."""
    read = series.scale.read(series.values)
    return float(next((value for value in read if np.isfinite(value)), 0.0))


def as_steps(values: Array, covariates: Array, static: Array) -> torch.Tensor:
    """Normalised values [T], NaN where missing, covariates [T, C'] and what is the same at all steps [D], as a network reads
    them."""
    import torch

    here = np.isfinite(values)
    same = np.broadcast_to(static, (len(values), len(static)))
    parts = [np.where(here, values, 0.0)[:, None], here[:, None], covariates, same]
    return torch.from_numpy(np.nan_to_num(np.concatenate(parts, 1)).astype(np.float32))
