"""Windows of series as a network takes them: normalised by what is known at their cutoff, with the naive forecast beside.

Shapes: T steps of a series, B windows, L look-back, H horizon, K covariates known ahead, P known only in the past.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from throughtime.tasks.dates import Clock

if TYPE_CHECKING:
    from throughtime.models.forecaster import Window

Array = np.ndarray[Any, Any]
FLAT = 1e-6  # of a series' size: under it a scale is that of noise in the digits
SIDE_BY_SIDE = 256  # windows that are forecast together
WITHIN = 0.1  # of the deviation in a window, which a scale is not under


class Scale(NamedTuple):
    """How a series is read: its logarithm or not, and by what size it differs from a season before."""

    log: bool
    size: float

    @classmethod
    def of(cls, values: Array, season: int, log: bool) -> Scale:
        """Of the values of a series that are known, NaN where one is missing."""
        read = logarithm(values) if log else values
        for lag in (season, 1):
            apart = np.abs(read[lag:] - read[:-lag])
            apart = apart[np.isfinite(apart)]
            if len(apart) and apart.mean() > FLAT * max(float(np.nanmax(np.abs(read))), 1e-300):
                return cls(log, float(apart.mean()))
        deviation = float(np.nanstd(read)) if np.isfinite(read).any() else 0.0
        return cls(log, deviation if deviation > 0 else 1.0)

    def read(self, values: Array) -> Array:
        """Values of the series as the network reads them, before they are scaled."""
        return logarithm(values) if self.log else values

    def write(self, values: Array) -> Array:
        """What the network gives, as the series has it."""
        return np.exp(values) if self.log else values


def logarithm(values: Array) -> Array:
    """ln of what is over 0; NaN of what is not."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(values > 0, np.log(np.where(values > 0, values, 1.0)), np.nan)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A series as windows are cut from it: values [T] and how they are read, covariates known [T', K] and past [T, P], where T'
    is over T where more is known ahead; static [D]; number: of its embedding; deviation: of its values in training, 0 where it
    was not there."""

    values: Array
    scale: Scale
    known: Array
    past: Array
    static: Array
    number: int
    deviation: float = 0.0


class Sample(NamedTuple):
    """One of many windows. clock: of its series; None: steps are counted from the cutoff."""

    windows: Any
    number: int
    clock: Clock | None = None

    def labels(self, start: int, stop: int) -> list[str]:
        """What steps are called; before the beginning of the series, nothing."""
        cut = self.windows.cutoffs[self.number][1]
        return [
            f"{i - cut:+}" if self.clock is None else self.clock.date(i) if i >= 0 else "" for i in range(start, stop)
        ]


class AtCutoffs:
    """Series, and cutoffs in them, [n, 2]: the number of a series and how many of its steps are known. lengths: of each, in steps
    of a network, [n]."""

    series: Sequence[Prepared]
    cutoffs: Array
    lengths: Array

    def only(self, number: int) -> Self:
        """One of the cutoffs."""
        one = copy.copy(self)
        one.cutoffs, one.lengths = self.cutoffs[[number]], self.lengths[[number]]
        return one

    def item(self, number: int) -> Sample:
        """One of the cutoffs, to be looked into."""
        return Sample(self, number)


class Windows(AtCutoffs):
    """Windows at cutoffs of prepared series, as `Examples`.

    Args: cutoffs: [n, 2], the number of a series and how many of its steps are known. segment: W, steps of the network.
    """

    def __init__(
        self,
        series: Sequence[Prepared],
        cutoffs: Array,
        look_back: int,
        horizon: int,
        seasons: Sequence[int],
        segment: int,
    ) -> None:
        self.series, self.cutoffs = series, cutoffs
        self.look_back, self.horizon, self.seasons = look_back, horizon, seasons
        self.lengths = np.full(len(cutoffs), -(-look_back // segment) + 1)
        before, after = look_back, horizon
        # end to end, with room before and after each, so that every window lies inside
        sizes = [before + len(s.values) + after for s in series]
        self.starts = np.cumsum([0, *sizes])[:-1] + before
        self.values = np.full(sum(sizes), np.nan, dtype=np.float64)
        self.known = np.zeros((sum(sizes), series[0].known.shape[1] if series else 0), dtype=np.float32)
        self.past = np.zeros((sum(sizes), series[0].past.shape[1] if series else 0), dtype=np.float32)
        for start, s in zip(self.starts, series, strict=True):
            self.values[start : start + len(s.values)] = s.scale.read(s.values)
            ahead = s.known[: len(s.values) + after]
            self.known[start : start + len(ahead)] = np.nan_to_num(ahead)
            self.past[start : start + len(s.past)] = np.nan_to_num(s.past)
        self.sizes = np.array([s.scale.size for s in series])
        self.static = np.array([s.static for s in series], dtype=np.float32).reshape(len(series), -1)
        self.numbers = np.array([s.number for s in series], dtype=np.int64)

    def batch(self, numbers: Iterable[int]) -> Window:
        """Some of the windows, side by side."""
        import torch

        from throughtime.models.forecaster import Window

        which, cut = self.cutoffs[np.asarray(numbers)].T
        at = (self.starts[which] + cut)[:, None]
        past = at + np.arange(-self.look_back, 0)
        whole = at + np.arange(-self.look_back, self.horizon)
        values = self.values[past]
        level = _last(values)
        repeated = self.repeated(np.isfinite(values))
        naive = values[np.arange(len(values))[:, None, None], repeated] - level[:, None, None]
        naive = np.where(repeated < 0, 0.0, naive)
        with np.errstate(invalid="ignore"):
            within = np.sqrt(np.nan_to_num(np.nanmean((values - level[:, None]) ** 2, 1)))
        scale = np.maximum(self.sizes[which], WITHIN * within)
        single = [a.astype(np.float32) for a in (values - level[:, None], naive, scale)]
        target = (self.values[at + np.arange(self.horizon)] - level[:, None]).astype(np.float32)
        values_, naive_, scale_ = map(torch.from_numpy, single)
        return Window(
            values_,
            naive_,
            torch.from_numpy(level),
            scale_,
            torch.from_numpy(self.known[whole]),
            torch.from_numpy(self.past[past]),
            torch.from_numpy(self.static[which]),
            torch.from_numpy(self.numbers[which]),
            torch.from_numpy(target),
        )

    def passes(self) -> Iterator[tuple[Array, Window, Array]]:
        """All windows in batches: their numbers, the batch, and what its forecasts are relative to."""
        for low in range(0, len(self.cutoffs), SIDE_BY_SIDE):
            numbers = np.arange(low, min(low + SIDE_BY_SIDE, len(self.cutoffs)))
            batch = self.batch(numbers)
            yield numbers, batch, batch.level.numpy()

    def without(self, number: int, step: int) -> Window:
        """One of the windows, with a step of its look-back not known."""
        which, cut = self.cutoffs[number]
        at = self.starts[which] + cut - self.look_back + step
        value, self.values[at] = self.values[at], np.nan
        try:
            return self.batch([number])
        finally:
            self.values[at] = value

    def repeated(self, known: Array) -> Array:
        """Which step of its look-back a seasonal naive forecast repeats at each step of the horizon, [B, H, R], for each season:
        of each place in it the last that is known, [B, L]; -1 where none is."""
        steps = np.where(known, np.arange(self.look_back), -1)
        found = []
        for season in (min(s, self.look_back) for s in self.seasons):
            n = self.look_back // season
            last = steps[:, self.look_back - n * season :].reshape(len(steps), n, season).max(1)
            found.append(last[:, np.arange(self.horizon) % season])
        return np.stack(found, -1)


def _last(values: Array) -> Array:
    """The last value that is known in each window [B, L], 0 where none is."""
    known = np.isfinite(values)
    at = values.shape[1] - 1 - known[:, ::-1].argmax(1)
    return np.where(known.any(1), values[np.arange(len(values)), at], 0.0)


def cutoffs_before(lengths: Sequence[int], look_back: int, horizon: int, season: int) -> Array:
    """Cutoffs [n, 2] to train at, of series of so many steps: wherever enough is known before, and at least a part of the horizon
    comes after."""
    found = []
    for i, steps in enumerate(lengths):
        least = min(look_back, max(season + 1, steps // 3), max(steps - horizon, 1))
        most = max(steps - horizon, least)
        found.append(_cutoffs(i, np.arange(least, most + 1)))
    return np.concatenate(found)


def scored_cutoffs(
    lengths: Sequence[int], begins: Sequence[int], horizon: int, stride: int, count: int | None
) -> Array:
    """Cutoffs [n, 2] to score at, of series of so many steps: none before `begins`, the last a horizon before the end (or where
    a series begins to be scored, if less than that is left), `stride` steps apart, up to `count` in each."""
    found = []
    for i, (steps, begin) in enumerate(zip(lengths, begins, strict=True)):
        if begin >= steps:
            continue
        last = max(steps - horizon, begin)
        at = np.arange(last, begin - 1, -stride)[:count][::-1]
        found.append(_cutoffs(i, at))
    return np.concatenate(found) if found else np.zeros((0, 2), dtype=np.int64)


def _cutoffs(series: int, at: Array) -> Array:
    return np.stack([np.full(len(at), series), at], 1)


def save(path: Path, series: Sequence[Prepared], begins: Sequence[int]) -> None:
    """Write prepared series and, of each, from which step on it is to be forecast, as numbers."""
    import torch

    from throughtime.weights import write_tensors

    parts = {
        "values": np.concatenate([s.values for s in series]),
        "known": np.concatenate([s.known for s in series]),
        "past": np.concatenate([s.past for s in series]),
        "static": np.stack([s.static for s in series]),
        "scales": np.array([[s.scale.log, s.scale.size, s.deviation] for s in series]),
        "numbers": np.array([[len(s.values), len(s.known), s.number, b] for s, b in zip(series, begins, strict=True)]),
    }
    write_tensors(path, {name: torch.from_numpy(np.ascontiguousarray(part)) for name, part in parts.items()}, {})


def open_saved(path: Path) -> tuple[list[Prepared], list[int]]:
    """What `save` wrote."""
    from throughtime.weights import read_tensors

    parts = {name: tensor.numpy() for name, tensor in read_tensors(path)[0].items()}
    steps, ahead, numbers, begins = parts["numbers"].T
    ends, known_ends = np.cumsum(steps)[:-1], np.cumsum(ahead)[:-1]
    cut = zip(
        np.split(parts["values"], ends),
        [Scale(bool(log), float(size)) for log, size, _ in parts["scales"]],
        np.split(parts["known"], known_ends),
        np.split(parts["past"], ends),
        parts["static"],
        numbers.tolist(),
        parts["scales"][:, 2].tolist(),
        strict=True,
    )
    return [Prepared(*each) for each in cut], begins.tolist()
