"""A trained forecaster: its scores, what it answers, and a look inside it."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from json import dumps
from math import isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from throughtime.config import build_options
from throughtime.errors import UserError
from throughtime.runs import SETTLED
from throughtime.tasks import quantiles
from throughtime.tasks.accuracy import Forecast, accuracy
from throughtime.tasks.base import Advance, Task, Trained, ignore
from throughtime.tasks.courses import Courses
from throughtime.tasks.curves import Album
from throughtime.tasks.dates import Frequency
from throughtime.tasks.fitted import SERIES, Fitted
from throughtime.tasks.forecast_settings import (
    ColumnOptions,
    EvaluateOptions,
    ForecastConfig,
    PredictOptions,
    columns_of,
)
from throughtime.tasks.look import Look, Stack, Steps
from throughtime.tasks.networks import Network
from throughtime.tasks.recent import Recent
from throughtime.tasks.series import Series, continued, read_series
from throughtime.tasks.source import is_frame
from throughtime.tasks.windows import Sample, Windows, scored_cutoffs
from throughtime.weights import read_tensors

if TYPE_CHECKING:
    import torch
    from torch import nn

    from throughtime.runs import Run
    from throughtime.tasks.series_session import Along, SeriesEngine, SeriesSession

HELD = "held.safetensors"
HEARD = "heard"  # in what was settled: the numbers of the members that have a say
APART = "apart"  # in it: how many windows share no value
LOOKED_AT = 100  # steps before a cutoff that are looked into, where all are read

Array = np.ndarray[Any, Any]


class ForecastModel(Trained[Series]):
    """A trained forecaster."""

    travels: ClassVar[str] = "series"
    network: Any  # a Forecaster, or a Stepwise

    def __init__(self, task: Task[Any, Series], run: Run, config: ForecastConfig, network: nn.Module) -> None:
        super().__init__(task, run, config, network)
        self.fitted = Fitted.open(run)
        self._calibration: quantiles.Calibration | None = None
        if config.model.unaided and run.settled.exists():
            self.network.heard = run.read_json(SETTLED)[HEARD]

    def choose(self, examples: Windows | Courses) -> None:
        """Choose, on held-out windows, which of the network's members are heard, where there are some of two kinds."""
        from throughtime.tasks.batches import moved, scoring

        if self.config.model.unaided:
            with scoring(self.network) as device:
                self.network.choose(moved(batch, device) for _, batch, _ in examples.passes())

    def settle(self, examples: Windows | Courses, run: Run) -> None:
        """The same for good."""
        if self.config.model.unaided:
            self.choose(examples)
            run.write_json(SETTLED, {HEARD: self.network.heard})

    @property
    def calibration(self) -> quantiles.Calibration:
        """Where what came stood in what was forecast, in windows that were held out."""
        if self._calibration is None:
            from throughtime.models.forecaster import Window
            from throughtime.models.stepwise import Course

            tensors, about = read_tensors(self.run.folder / HELD)
            target = tensors["target"].double().numpy()
            if self.config.model.kind == "steps":
                batch: Any = Course(**tensors)
                target *= tensors["scale"].double().numpy()[:, None]
            else:
                batch = Window(**tensors)
            deviates = quantiles.deviate(self._forecast(batch)[0], target)
            self._calibration = quantiles.Calibration(deviates, (about or {}).get(APART))
        return self._calibration

    def _forecast(self, batch: Any) -> tuple[Array, Array]:
        """Quantiles [n, H, Q] and the seasonal naive forecast [n, H] of a batch, as `passes` gives them."""
        from throughtime.tasks.batches import moved, scoring

        with scoring(self.network) as device:
            found, naive = self.network.forecast(moved(batch, device))
        return found.double().cpu().numpy(), naive.double().cpu().numpy()

    def forecasts(
        self,
        windows: Windows | Courses,
        levels: Sequence[float],
        advance: Advance = ignore,
        horizon: int | None = None,
        sizes: Array | None = None,
    ) -> Iterator[Forecast]:
        """Forecasts of windows, in order, in units of their series. horizon: fewer steps than the network gives. sizes: of what
        is off, [n], as `_sizes` gives them, by which quantiles are widened; None: they are as the network says them."""
        made: dict[int, Forecast] = {}
        following = 0
        for numbers, batch, level in windows.passes():
            found, naive = self._forecast(batch)
            found, naive = found[:, :horizon] + level[:, None, None], naive[:, :horizon] + level[:, None]
            size = None if sizes is None else sizes[numbers]
            made.update(
                zip(numbers.tolist(), self._in_units(windows, numbers, found, naive, levels, size), strict=True)
            )
            while following in made:
                yield made.pop(following)
                following += 1
            advance(len(numbers) / len(windows.cutoffs))

    def _sizes(self, items: Sequence[Series], cutoffs: Array, advance: Advance = ignore) -> Array:
        """The size of what forecasts are off at cutoffs [n, 2] of series, [n], by how far they were off of late, after the part
        that was trained on. Of a network that reads step by step that of the held-out windows: a stream goes on at once."""
        if self.config.model.kind == "steps":
            return np.full(len(cutoffs), self.calibration.size)
        recent = Recent(self.fitted.seasons[-1], self.fitted.horizon)
        earlier = recent.earlier(cutoffs, [self.fitted.new_from(s) for s in items])
        windows = self._windows(items, earlier)
        distances = np.full((len(earlier), self.fitted.horizon), np.nan)
        for numbers, batch, _ in windows.passes():
            came = batch.target.double().numpy()
            distances[numbers] = quantiles.distance(quantiles.deviate(self._forecast(batch)[0], came))
            advance(len(numbers) / len(earlier))
        if not len(earlier):
            advance(1.0)
        return recent.sizes(cutoffs, earlier, distances, self.calibration.size)

    def _in_units(
        self,
        windows: Windows | Courses,
        numbers: Array,
        found: Array,
        naive: Array,
        levels: Sequence[float],
        size: Array | None,
    ) -> Iterator[Forecast]:
        """Forecasts of quantiles [n, H, Q] and naive ones [n, H], in units of their series. size: by which quantiles are widened,
        [n]; None: they are not, and intervals by that of the held-out windows."""
        season, (count, horizon) = self.fitted.seasons[0], naive.shape
        which, cuts = windows.cutoffs[numbers].T
        several = [windows.series[i] for i in which]
        logs = np.array([s.scale.log for s in several])

        def write(values: Array) -> Array:
            own = values.copy()
            own[logs] = np.exp(values[logs])
            return own

        own, naive = write(found if size is None else quantiles.widened(found, size)), write(naive)
        intervals = {
            level: tuple(write(ends) for ends in self.calibration.interval(found, level, size)) for level in levels
        }
        apart = {i: _mean_so_far(np.abs(_apart(windows.series[i].values, season))) for i in set(which.tolist())}
        truth = np.full((count, horizon), np.nan)
        for row, (series, cut) in enumerate(zip(several, cuts, strict=True)):
            there = series.values[cut : cut + horizon]
            truth[row, : len(there)] = there
            yield Forecast(
                truth=truth[row],
                median=own[row, :, quantiles.MEDIAN],
                quantiles=own[row],
                naive=naive[row],
                intervals={level: (low[row], high[row]) for level, (low, high) in intervals.items()},
                deviation=series.deviation or float(np.nanstd(series.values[:cut])) or 1.0,
                seasonal=float(apart[which[row]][cut - 1]),
            )

    def scores(self, items: list[Series], options: Any, advance: Advance = ignore) -> dict[str, Any]:
        """Scores of forecasts from several cutoffs.

        Returns: series, windows, horizon; then as `accuracy` gives them.
        """
        horizon = self._horizon(options)
        rows = self.config.data.split
        if rows is not None and len(rows) == 3 and all(s.begin is None for s in items):
            items = [replace(s.upto(sum(rows)), begin=rows[0] + rows[1]) for s in items if len(s.values) >= sum(rows)]
            count, stride = options.windows, options.stride or 1
        else:
            given = all(s.begin is not None for s in items)
            stride = options.stride or horizon
            count = options.windows or (None if given else 1)
        lengths = [len(s.values) for s in items]
        begins = [s.begin if s.begin is not None else 1 for s in items]
        cutoffs = scored_cutoffs(lengths, begins, horizon, stride, count)
        if not len(cutoffs):
            raise UserError(
                f"{items[0].place}: no series has more than the {horizon} values that are forecast; use a smaller --horizon"
            )
        windows, levels = self._windows(items, cutoffs), quantiles.levels_of(options.level or "80")
        album = None if options.pictures is None else Album(Path(options.pictures))
        last = {which: number for number, (which, _) in enumerate(cutoffs.tolist())}

        def drawn() -> Iterator[Forecast]:
            sizes = self._sizes(items, cutoffs, lambda share: advance(share / 2))
            forecasts = self.forecasts(windows, levels, lambda share: advance(share / 2), horizon, sizes)
            for number, one in enumerate(forecasts):
                which, cut = cutoffs[number].tolist()
                if album is not None and last[which] == number:
                    album.draw(items[which], cut, one)
                yield one

        found = accuracy(drawn())
        return {"series": len(set(cutoffs[:, 0])), "windows": len(cutoffs), "horizon": horizon, **found}

    def _windows(self, items: Sequence[Series], cutoffs: Array) -> Windows | Courses:
        """Windows at cutoffs [n, 2] of series."""
        return self.fitted.windows(self.config.model, [self.fitted.prepared(s) for s in items], cutoffs)

    def _horizon(self, options: Any) -> int:
        most = self.fitted.horizon
        if options.horizon is not None and options.horizon > most:
            raise UserError(
                f"--horizon: {options.horizon}; this model forecasts up to {most} steps: train one for more"
            )
        return options.horizon or most

    def predict(self, items: Any, batch: int = 64, **options: Any) -> Any:
        """What comes next in each series.

        Args: items: a path or an open file; or a frame of pandas, polars or pyarrow, long or wide. batch: as of
            `Trained.predict`.
        Yields: a row a step, as `answers` gives it; of a frame returns a frame of the same kind.
        Raises: UserError for an option out of range, and series that cannot be read or forecast.
        """
        if not is_frame(items):
            return super().predict(items, batch, **options)
        from throughtime.tasks.frames import like_frame, of_frame

        chosen = build_options(PredictOptions, options)
        return like_frame(_by_column(self.answers(of_frame(items, columns_of(self.config, chosen)), chosen)), items)

    def cross_validation(self, given: Any, windows: int = 1, stride: int | None = None, **options: Any) -> Any:
        """Forecasts from several cutoffs of each series, beside what came.

        Args: given: as `predict` takes it. windows: cutoffs in each series, the last a horizon before its end. stride: steps
            between two; None: the horizon. options: horizon, level and how columns are called, as of `evaluate`.
        Returns: rows with unique_id, ds, cutoff (the last time that is known), y, forecast and the ends of intervals: a list of
            dicts, or of a frame a frame of the same kind.
        """
        from throughtime.tasks.frames import like_frame, of_frame

        chosen = build_options(EvaluateOptions, {"windows": windows, "stride": stride, **options})
        framed = is_frame(given)
        columns = columns_of(self.config, chosen)
        items = of_frame(given, columns) if framed else self.task.read(self.config, [Path(given)], chosen)
        rows = self._validated(items, chosen)
        return like_frame(_by_column(rows), given) if framed else list(rows)

    def _validated(self, items: list[Series], options: Any) -> Iterator[dict[str, Any]]:
        levels, horizon = quantiles.levels_of(options.level or "80"), self._horizon(options)
        lengths = [len(s.values) for s in items]
        cutoffs = scored_cutoffs(lengths, [1] * len(items), horizon, options.stride or horizon, options.windows)
        sizes = self._sizes(items, cutoffs)
        forecasts = self.forecasts(self._windows(items, cutoffs), levels, horizon=horizon, sizes=sizes)
        for (which, cut), found in zip(cutoffs.tolist(), forecasts, strict=True):
            clock = items[which].clock
            for h in range(min(horizon, len(items[which].values) - cut)):
                when = {"ds": clock.date(cut + h), "cutoff": clock.date(cut - 1), "y": float(found.truth[h])}
                yield {"unique_id": items[which].id, **when} | {
                    name: float(values[h]) for name, values in found.columns().items()
                }

    def ahead(self, series: Series, levels: Sequence[float]) -> Forecast:
        """What comes after a series, and the seasonal naive forecast of it. levels: of the intervals, in percent. Raises: UserError
        where what is known ahead does not reach so far."""
        (series,) = self._with_future([series], PredictOptions(), self.fitted.horizon)
        cutoffs = np.array([[0, len(series.values)]])
        sizes = self._sizes([series], cutoffs)
        return next(self.forecasts(self._windows([series], cutoffs), levels, sizes=sizes))

    def answers(self, items: list[Series], options: Any) -> Iterator[dict[str, Any]]:
        """A row a step of each series to come: unique_id, ds, forecast (the median), the ends of intervals, and samples; or, of
        anomalies, a row for each value that is there."""
        if options.anomalies:
            for name in ("future", "floor", "samples", "pictures", "level", "horizon"):
                if getattr(options, name) is not None:
                    raise UserError(f"--{name}: --anomalies tells of what was, not of what comes; leave it out")
            for series in items:
                yield from self.anomalies(series)
            return
        horizon, levels = self._horizon(options), quantiles.levels_of(options.level or "80")
        items = self._with_future(items, options, horizon)
        ends = np.array([[i, len(s.values)] for i, s in enumerate(items)])
        windows, sizes = self._windows(items, ends), self._sizes(items, ends)
        album = None if options.pictures is None else Album(Path(options.pictures))
        generator = np.random.default_rng(self.config.seed)
        forecasts = self.forecasts(windows, levels, horizon=horizon, sizes=sizes)
        for series, prepared, found in zip(items, windows.series, forecasts, strict=True):
            if album is not None:
                album.draw(series, len(series.values), found)
            columns = found.columns()
            if options.samples:
                read = prepared.scale.read(found.quantiles)
                paths = prepared.scale.write(self.calibration.paths(read, options.samples, generator))
                columns |= {f"sample-{i}": path for i, path in enumerate(paths, 1)}
            floor = -np.inf if options.floor is None else options.floor
            for h in range(horizon):
                when = series.clock.date(len(series.values) + h)
                yield {
                    "unique_id": series.id,
                    "ds": when,
                    **{name: max(float(values[h]), floor) for name, values in columns.items()},
                }

    def anomalies(self, series: Series) -> Iterator[dict[str, Any]]:
        """How unusual each value of a series was: unique_id, ds, y, the forecast of one step before, and the probability of a
        value that lies at least as far out. From the second season on."""
        cuts = np.arange(self.fitted.seasons[0] + 1, len(series.values))
        windows = self._windows([series], np.stack([np.zeros_like(cuts), cuts], 1))
        read = windows.series[0].scale.read
        for cut, found in zip(cuts, self.forecasts(windows, [], horizon=1), strict=True):
            y = series.values[cut]
            out = quantiles.deviate(read(found.quantiles[:1]), read(np.array([y])))
            yield {
                "unique_id": series.id,
                "ds": series.clock.date(int(cut)),
                "y": float(y),
                "forecast": float(found.median[0]),
                "probability": float(self.calibration.outside(out)[0]),
            }

    def _with_future(self, items: list[Series], options: Any, horizon: int) -> list[Series]:
        """The series, with what is known ahead of each. Raises: UserError where that is missing."""
        names = tuple(self.fitted.future)
        if not names:
            if options.future:
                raise UserError("--future: this model was trained without anything that is known ahead; leave it out")
            return items
        ahead: dict[str, Series] = {}
        if options.future:
            source = self.task.source(self.config, options.future, options)
            columns = replace(columns_of(self.config, options), target=(), past=(), static=())
            found = read_series(source, columns, known=True)
            ahead = {s.id: s for s in found}
            if len(found) == 1 and not found[0].id:  # of all series
                ahead = {s.id: found[0] for s in items}
        made = []
        for series in items:
            if series.id in ahead:
                series = continued(series, ahead[series.id])
            for name in names:
                there = len(series.future[name]) - len(series.values)
                if there < horizon:
                    raise UserError(
                        f"--future: {name} of {series.id} is known for {max(there, 0)} of {horizon} steps, up to "
                        f"{series.clock.date(len(series.values) + horizon - 1)}; give a file of it"
                    )
            made.append(series)
        return made

    def heading(self, values: dict[str, Any]) -> str:
        return _row(values)

    def written(self, values: dict[str, Any]) -> str:
        return _row(value if isinstance(value, str) else f"{value:.6g}" for value in values.values())

    def session(  # type: ignore[override]
        self, given: Any, *, snapshots: int = 256, keep: int = 1_000_000, backend: str = "auto"
    ) -> SeriesSession:
        """A stream along one series, that is read value by value and can be gone back in: its history is read.

        Args: given: a path, a frame, or a `Series` with one series. The others: as of `Session`.
        Raises: UserError where the network reads windows (train with `--model.kind steps`), or there are several series.
        """
        from throughtime.tasks.series_session import SeriesSession

        engine = self.engine(backend)
        if isinstance(given, Series):
            found = [given]
        elif is_frame(given):
            from throughtime.tasks.frames import of_frame

            found = of_frame(given, columns_of(self.config, ColumnOptions()))
        else:
            found = self.task.read(self.config, [Path(given)], ColumnOptions())
        along = self.along(found)
        session = SeriesSession(engine, along, snapshots=snapshots, keep=keep)
        session.feed(along.history())
        return session

    def engine(self, backend: str = "auto") -> SeriesEngine:
        """What steps streams of series. Raises: UserError where the network reads windows."""
        from throughtime.tasks.series_session import SeriesEngine

        if self.config.model.kind != "steps":
            raise UserError(
                "a network over segments reads windows, and has no stream; train one with --model.kind steps"
            )
        return SeriesEngine(self.network, backend)

    def along(self, found: Sequence[Series]) -> Along:
        """How the values of a series are read by a network that reads them step by step. Raises: UserError where there are
        several series."""
        from throughtime.tasks.series_session import Along

        if len(found) != 1:
            raise UserError(f"a session is along one series, and there are {len(found):,}; give one of them")
        (series,) = found
        told = partial(self.fitted.told, series)
        return Along(self.network, series, self.fitted.prepared(series), self.calibration, told)

    def networks(self) -> list[Network]:
        from throughtime.tasks.forecast_networks import networks_of

        return networks_of(self.network)

    def beside(self) -> dict[str, str]:
        frequency = Frequency.of(self.fitted.frequency)
        about = {
            **asdict(self.fitted),
            "step": [frequency.unit, frequency.count],
            "deviates": quantiles.DEVIATES.tolist(),
            "size": self.calibration.size,
            "recent": None
            if self.config.model.kind == "steps"
            else vars(Recent(self.fitted.seasons[-1], self.fitted.horizon)),
        }
        return {SERIES: dumps(about, ensure_ascii=False)}

    # -- looking inside

    def empty(self, item: Series) -> bool:
        return len(item.values) < 2

    def look(self, item: Series | Sample) -> Look:
        """A series up to a horizon before its end, or where it is too short for that up to its end; of what is not known, the
        forecast is looked at."""

        if isinstance(item, Series):
            steps, least = len(item.values), min(self.config.model.history or LOOKED_AT, self.fitted.horizon)
            cut = steps - self.fitted.horizon
            cut = cut if cut >= least else steps
            item = Sample(self._windows([item], np.array([[0, cut]])), 0, item.clock)
        if self.config.model.kind == "steps":
            return self._look_at_steps(item)
        windows, number, _ = item
        history, look_back = self.config.model.history, self.config.model.look_back
        window = windows.batch([number])
        numbers = window.values[0].requires_grad_()
        window = window._replace(values=numbers.unsqueeze(0))
        which, cut = windows.cutoffs[number]
        values = windows.series[which].values
        read = np.full(history, nan)
        there = values[max(cut - history, 0) : cut]
        read[history - len(there) :] = there
        inputs = Steps(item.labels(cut - history, cut), _column(read))
        seen = Steps(inputs.labels[-look_back:], _column(read[-look_back:]))
        stack = Stack(name="", steps=seen, stride=self.config.model.segment, last=True)

        def without(i: int) -> Any:
            return windows.without(number, i) if isfinite(read[i]) else None

        return self._look(item, window, inputs, {"members.0.network.stack": stack}, without, numbers)

    def _look_at_steps(self, item: Sample) -> Look:
        """The last steps before a cutoff, as a network that reads value by value takes them."""
        which, cut = item.windows.cutoffs[item.number]
        start = max(cut - LOOKED_AT, 0)
        course = item.windows.at(np.array([[which, cut]]), start)
        numbers = course.steps[:, 0].requires_grad_()
        course = course._replace(steps=numbers.unsqueeze(1))

        def without(i: int) -> Any:
            steps = course.steps.detach().clone()
            steps[i, 0, :2] = 0.0
            return course._replace(steps=steps)

        inputs = Steps(item.labels(start, cut), _column(item.windows.series[which].values[start:cut]))
        stacks = {"stack": Stack(name="", steps=inputs, last=True)}
        return self._look(item, course, inputs, stacks, without, numbers)

    def _look(
        self,
        item: Sample,
        batch: Any,
        inputs: Steps,
        stacks: dict[str, Stack],
        without: Callable[[int], Any],
        numbers: torch.Tensor,
    ) -> Look:
        import torch

        from throughtime.models.forecaster import Window, log_density

        which, cut = item.windows.cutoffs[item.number]
        first = getattr(item.windows, "firsts", {which: 0.0})[which]
        forecast = next(self.forecasts(item.windows.only(item.number), []))
        came = np.where(np.isfinite(forecast.truth), forecast.truth, forecast.median)
        read = torch.from_numpy(item.windows.series[which].scale.read(came))
        deviates = torch.tensor(quantiles.DEVIATES, dtype=torch.float32)

        def score(given: Any) -> torch.Tensor:
            level = given.level if isinstance(given, Window) else first
            target = ((read - level) / given.scale).float().unsqueeze(0)
            return log_density(self.network.normalised(given), target, deviates)[0]

        outputs = Steps(item.labels(cut, cut + len(came)), _column(came))
        return Look(
            inputs=inputs,
            outputs=outputs,
            batch=batch,
            score=score,
            stacks=stacks,
            without=without,
            numbers=numbers,
            verb="forecast",
        )


def _apart(values: Array, season: int) -> Array:
    """How far each value is from that of a season before, NaN where one of them is not known."""
    return np.concatenate([np.full(min(season, len(values)), np.nan), values[season:] - values[:-season]])


def _mean_so_far(values: Array) -> Array:
    """At each step the mean of all that are known up to it, 0 where none is."""
    known = np.isfinite(values)
    found: Array = np.where(known, values, 0.0).cumsum() / np.maximum(known.cumsum(), 1)
    return found


def _column(values: Array) -> torch.Tensor:
    """Values [T] as `Steps` hold them, [T, 1]."""
    import torch

    return torch.from_numpy(np.asarray(values, dtype=np.float64)).unsqueeze(1)


def _by_column(rows: Iterable[dict[str, Any]]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for row in rows:
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return columns


def _row(cells: Iterable[str]) -> str:
    """A line of CSV."""
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(cells)
    return out.getvalue()
