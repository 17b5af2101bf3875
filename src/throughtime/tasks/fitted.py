"""What a forecaster keeps of the series that it was trained on, to read these and others alike."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from throughtime.errors import UserError
from throughtime.runs import Run
from throughtime.tasks.courses import Courses
from throughtime.tasks.series import Series
from throughtime.tasks.times import DAY
from throughtime.tasks.windows import Prepared, Scale, Windows

Array = np.ndarray[Any, Any]
SERIES = "series.json"
NEAR_ZERO = 0.01  # of the median: a series that comes nearer to zero is not read by its logarithm
KINDS = 50  # of a static column, at most
AGAIN = 3  # times that a cycle came round
CYCLES = {"hour": 1, "weekday": 7, "weekend": 7, "day": 30, "month": 365}  # days
FEW = 50  # series, up to which each has an embedding; of more it would be learned by heart


class Trained(NamedTuple):
    """A series in training: the number of its embedding, how it is read, the deviation of its values, and the tick of its last
    step (`Clock.ticks`), None in runs that were written before it was."""

    number: int
    log: bool
    size: float
    deviation: float
    last: int | None = None


@dataclass(frozen=True)
class Fitted:
    """seasons, horizon: in steps, the season by which forecasts are judged first. log: whether the logarithm is read; None:
    where it can be. frequency: as pandas names it. calendar: the names of what the time says. past, future: covariates, each
    with its mean and deviation. static: columns, each with its values. series: by their ids."""

    seasons: tuple[int, ...]
    horizon: int
    log: bool | None
    frequency: str
    calendar: list[str]
    past: dict[str, list[float]]
    future: dict[str, list[float]]
    static: dict[str, list[str]]
    series: dict[str, Trained]

    @classmethod
    def of(cls, series: Sequence[Series], seasons: tuple[int, ...], horizon: int, log: bool | None) -> Fitted:
        """Of the series that are trained on. Raises: UserError where one cannot be read as asked."""
        first = series[0]
        found: dict[str, Trained] = {}
        for s in series:
            if not np.isfinite(s.values).any():
                raise UserError(f"{s.place}: {s.id}: has no value; leave it out")
            scale = scale_of(s, seasons[0], log)
            known = s.values[np.isfinite(s.values)]
            deviation = float(known.std())
            number = len(found) + 1 if len(series) <= FEW else 0
            last = int(s.clock.ticks(np.array([len(s.values) - 1]))[0])
            found[s.id] = Trained(number, scale.log, scale.size, deviation or 1.0, last)

        def spread(name: str, kind: str) -> list[float]:
            every = np.concatenate([getattr(s, kind)[name] for s in series])
            every = every[np.isfinite(every)]
            if not len(every):
                raise UserError(f"{first.place}: the column {name!r} has no number")
            return [float(every.mean()), float(every.std()) or 1.0]

        static = {name: sorted({s.static[name] for s in series}) for name in first.static}
        for name, values in static.items():
            if len(values) > KINDS:
                raise UserError(f"{first.place}: the column {name!r} has {len(values):,} values, over {KINDS}")
        return cls(
            seasons,
            horizon,
            log,
            first.clock.frequency.name,
            told_again(series),
            {name: spread(name, "past") for name in first.past},
            {name: spread(name, "future") for name in first.future},
            static,
            found,
        )

    @property
    def numbers(self) -> int:
        """How many embeddings there are: that of a series that training had not, and one for each that it had, where they are
        few."""
        return max((one.number for one in self.series.values()), default=0) + 1

    def save(self, run: Run) -> None:
        """Write it into a run."""
        run.write_json(SERIES, {**asdict(self), "series": {name: list(one) for name, one in self.series.items()}})

    @classmethod
    def open(cls, run: Run) -> Fitted:
        """That of a run."""
        values = run.read_json(SERIES)
        series = {name: Trained(*one) for name, one in values["series"].items()}
        return cls(**{**values, "seasons": tuple(values["seasons"]), "series": series})

    def prepared(self, series: Series) -> Prepared:
        """A series as windows are cut from it. Raises: UserError where it has not the covariates of training."""
        trained = self.series.get(series.id)
        history = series.values[: series.begin]
        scale = Scale(trained.log, trained.size) if trained else scale_of(series, self.seasons[0], self.log)
        if trained and trained.log and history[np.isfinite(history)].min(initial=np.inf) <= 0:
            scale = Scale.of(history, self.seasons[0], False)  # it has changed
        steps = len(series.values)
        ahead = min(
            [steps + self.horizon, *(len(series.future[name]) for name in self.future if name in series.future)]
        )
        parts = [self.told(series, np.arange(ahead))]
        columns = [self._column(series, "future", name)[:ahead, None] for name in self.future]
        past = [self._column(series, "past", name)[:steps, None] for name in self.past]
        return Prepared(
            series.values,
            scale,
            np.concatenate([*parts, *columns], 1).astype(np.float32),
            np.concatenate([np.zeros((steps, 0)), *past], 1).astype(np.float32),
            self._kind(series),
            trained.number if trained else 0,
            trained.deviation if trained else 0.0,
        )

    def new_from(self, series: Series) -> int:
        """The first step of a series that training had not, with a season before it."""
        trained, steps = self.series.get(series.id), len(series.values)
        if trained is None:
            had = 0
        elif trained.last is None:
            had = steps
        else:
            had = int((series.clock.ticks(np.arange(steps)) <= trained.last).sum())
        return max(had, self.seasons[0] + 1)

    def told(self, series: Series, steps: Array) -> Array:
        """What the times of steps of a series tell, [T, K]. Raises: UserError where they tell less than in training."""
        names = series.clock.names
        if not set(self.calendar) <= set(names):
            raise UserError(
                f"{series.place}: {series.id}: its times go by {series.clock.frequency.name}, those of training by "
                f"{self.frequency}"
            )
        found: Array = series.clock.features(steps)[:, [names.index(name) for name in self.calendar]]
        return found

    def windows(self, model: Any, series: Sequence[Prepared], cutoffs: Array) -> Windows | Courses:
        """Windows as a network of these settings reads them."""
        if model.kind == "steps":
            return Courses(series, cutoffs, self.horizon, self.seasons[-1])
        return Windows(series, cutoffs, model.history, self.horizon, self.seasons, model.segment)

    def _column(self, series: Series, kind: str, name: str) -> Array:
        columns: Mapping[str, Array] = getattr(series, kind)
        if name not in columns:
            raise UserError(f"{series.place}: {series.id}: has no column {name!r}, which training had")
        mean, deviation = getattr(self, kind)[name]
        found: Array = np.clip((columns[name] - mean) / deviation, -10, 10)
        return found

    def _kind(self, series: Series) -> Array:
        """Which of its static values a series has, as ones and zeros."""
        found = []
        for name, values in self.static.items():
            value = series.static.get(name)
            if value is not None and value not in values:
                warnings.warn(f"{series.place}: {name} {value!r} was not in training", stacklevel=2)
            found += [float(value == v) for v in values]
        return np.array(found, dtype=np.float32)


def told_again(series: Sequence[Series]) -> list[str]:
    """Which of what times tell came round often enough to be learned: of a year that was seen once, its months would only tell
    of the one time they were there."""
    clock = series[0].clock
    ends = (s.clock.ticks(np.array([0, len(s.values) - 1])) for s in series)
    longest = max(int(last - first) for first, last in ends)
    return [name for name in clock.names if longest >= AGAIN * CYCLES[name.partition("_")[0]] * DAY]


def scale_of(series: Series, season: int, log: bool | None) -> Scale:
    """How a series is read, from what of it is known."""
    values = series.values[: series.begin]
    known = values[np.isfinite(values)]
    can = len(known) > 0 and bool(known.min() > 0)
    if log and not can:
        raise UserError(f"{series.place}: {series.id}: has a value that is not over 0; leave out --model.logarithm")
    wise = can and bool(known.min() > NEAR_ZERO * np.median(known))
    return Scale.of(values, season, bool(log) if log is not None else wise)
