"""Forecast: what comes next in series of numbers, from files of series."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from math import isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, Field

from throughtime.config import Positive, Rate, RunConfig, Strict, build_options
from throughtime.errors import UserError
from throughtime.tasks import defaults, quantiles
from throughtime.tasks.accuracy import Forecast, accuracy
from throughtime.tasks.base import Advance, Criterion, Task, Trained, ignore
from throughtime.tasks.courses import Courses
from throughtime.tasks.curves import Album
from throughtime.tasks.fitted import Fitted
from throughtime.tasks.look import Look, Stack, Steps
from throughtime.tasks.series import Series, SeriesColumns, continued, read_series, season_of
from throughtime.tasks.settings import DataSettings, ReadOptions, check_cell, check_no_chunk, chosen, settled
from throughtime.tasks.source import Source
from throughtime.tasks.windows import Sample, Windows, cutoffs_before, open_saved, save, scored_cutoffs
from throughtime.weights import read_tensors, write_tensors

if TYPE_CHECKING:
    import torch
    from torch import nn

    from throughtime.models.forecaster import Forecaster
    from throughtime.runs import Run

SERIES = "series.json"
HELD = "held.safetensors"
HELD_WINDOWS = 500  # that intervals are calibrated on
LOOKED_AT = 100  # steps before a cutoff that are looked into, where all are read
SCORED_WINDOWS = 2_000  # that are scored in training
TRAINED_WINDOWS = 2_000_000
SHORT = 12  # steps of a horizon that is left open, where nothing says a season

Array = np.ndarray[Any, Any]


def _parts(given: Any) -> Any:
    """What stands in a text with commas between, as several; the command line gives a list of texts."""
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, list | tuple):
        return given
    return tuple(part.strip() if isinstance(part, str) else part for one in given for part in _split(one) if part != "")


def _split(given: Any) -> list[Any]:
    return given.split(",") if isinstance(given, str) else [given]


Names = Annotated[tuple[str, ...], BeforeValidator(_parts)]


class ForecastNetwork(Strict):
    """The network."""

    kind: Literal["segments", "steps", "transformer"] = "segments"
    """segments: a recurrent network over segments of the look-back, that gives all of the horizon at once. steps: one that reads
    value by value and carries its state: a pass over a series forecasts from all of its steps, and a stream goes on by one.
    transformer: one of as many parameters in its place, with a dropout of 0.3 at most."""
    cell: str = "gru"
    """The recurrent cell: elman, gru, lstm or another of `throughtime.cells.NAMED`."""
    hidden_size: Positive | None = None
    """Units in a layer. [default: to fit the data]"""
    layers: Positive = 1
    """Layers above each other."""
    dropout: Rate | None = None
    """Dropout before the output and between layers. [default: to fit the data]"""
    look_back: Positive | None = None
    """Steps before a cutoff that are read. [default: to fit the season and the horizon]"""
    segment: Positive | None = None
    """Steps that are read together. [default: the season, or a part of it]"""
    members: Positive | None = None
    """Networks that are trained beside each other, whose median is the forecast. [default: to fit the data]"""
    logarithm: bool | None = None
    """Read the logarithm of the values. [default: of a series that is never zero or below]"""


class ForecastData(DataSettings):
    """The series."""

    horizon: Positive | None = None
    """Steps that are forecast. [default: two seasons, or what the shortest series allow]"""
    season: Positive | None = None
    """Steps after which a series repeats itself: 24 of hours, 12 of months. [default: by the frequency, or found]"""
    freq: str | None = None
    """The step between times, as pandas names it: h, 30min, D, B, W, MS, QS, YS. [default: found]"""
    fill: Literal["missing", "zero", "last", "linear"] | None = None
    """What stands where a row is missing between two times. [default: that is refused]"""
    id: str | None = None
    """The column of a series' name, of files with a row a value. [default: unique_id, id, series or another usual name]"""
    time: str | None = None
    """The column of the time. [default: ds, date, time or another usual name]"""
    target: Names = ()
    """The columns that are forecast, with commas between. [default: y, or all with numbers]"""
    past: Names = ()
    """Columns that are known only afterwards, and help."""
    future: Names = ()
    """Columns that are known ahead: prices, holidays."""
    static: Names = ()
    """Columns that say what kind of series it is."""
    delimiter: str | None = None
    """What stands between the fields of a table: a sign, or tab, comma, semicolon, pipe. [default: found]"""
    split: Annotated[tuple[Positive, ...], BeforeValidator(_parts)] | None = None
    """Rows to train on, to hold out and, where three are given, that `evaluate` scores: 8640,2880,2880."""


class ForecastConfig(RunConfig):
    """All settings of a forecaster."""

    task: str = "forecast"
    model: ForecastNetwork = ForecastNetwork()
    data: ForecastData = ForecastData()


class ColumnOptions(ReadOptions):
    """How the columns of a file are called; left out, as in training."""

    id: str | None = None
    """The column of a series' name. [default: as in training, else by its name]"""
    time: str | None = None
    """The column of the time. [default: as in training, else by its name]"""
    target: Names = ()
    """The columns that are forecast. [default: as in training, where they are there]"""
    fill: Literal["missing", "zero", "last", "linear"] | None = None
    """What stands where a row is missing between two times. [default: as in training]"""
    delimiter: str | None = None
    """What stands between the fields of a table: a sign, or tab, comma, semicolon, pipe. [default: found]"""


class ForecastOptions(ColumnOptions):
    """Of what is forecast."""

    horizon: Positive | None = None
    """Steps that are forecast. [default: as many as in training]"""
    level: Annotated[str | None, Field(pattern=r"^\d+(\.\d+)?(,\d+(\.\d+)?)*$")] = None
    """Intervals that hold so many percent: 80,95. [default: 80]"""


class PredictOptions(ForecastOptions):
    """Of `predict`."""

    future: str | None = None
    """A file of what is known ahead: the columns named by --data.future in training, at the times to come."""
    floor: float | None = None
    """No forecast is under this: 0 for what is never negative."""
    samples: Positive | None = None
    """So many courses that the series may take, as further columns."""
    pictures: str | None = None
    """A new folder for a picture of each series, .png (needs the extra plot)."""
    anomalies: bool = False
    """How unusual each value of the file was, by the forecast of one step before, in place of what comes next."""


class EvaluateOptions(ForecastOptions):
    """Of `evaluate`."""

    windows: Positive | None = None
    """Cutoffs in each series, the last a horizon before its end. [default: 1; all, where training was given --data.split]"""
    stride: Positive | None = None
    """Steps between two cutoffs. [default: the horizon; 1, where training was given --data.split]"""
    pictures: str | None = None
    """A new folder for a picture of each series, with what came, from its last cutoff (needs the extra plot)."""


class ForecastTask(Task[ForecastConfig, Series]):
    """Forecasts of series of numbers."""

    name: ClassVar[str] = "forecast"
    config_type = ForecastConfig
    predict_options: ClassVar[type[Strict]] = PredictOptions
    evaluate_options: ClassVar[type[Strict]] = EvaluateOptions
    inspect_options: ClassVar[type[Strict]] = ColumnOptions
    unit: ClassVar[str] = "values"
    measure: ClassVar[str] = "pinball"

    def check(self, config: ForecastConfig, files: Sequence[Path] = ()) -> None:
        check_cell(config.model.cell)
        check_no_chunk(config)
        model, data = config.model, config.data
        if model.look_back is not None and model.segment is not None and model.look_back % model.segment:
            raise UserError(
                f"model.look_back: {model.look_back} is no multiple of model.segment, {model.segment}; use one"
            )
        if data.split is not None and len(data.split) not in (2, 3):
            raise UserError("data.split: takes two or three numbers of rows: to train on, to hold out, to score")

    # -- what is read

    def read(self, config: ForecastConfig, files: Sequence[Path], options: Any = None) -> list[Series]:
        parts = [read_series(self.source(config, file, options), _columns(config, options)) for file in files]
        if options is not None and len(parts) == 2:
            return followed(*parts)
        return [series for part in parts for series in part]

    def items(self, config: ForecastConfig, source: Source, options: Any) -> Iterator[Series]:
        yield from read_series(source, _columns(config, options))

    def item(self, given: Any) -> Series:
        return given if isinstance(given, Series) else super().item(given)

    def split(
        self, config: ForecastConfig, items: list[Series], files: Sequence[Path]
    ) -> tuple[list[Series], list[Series]]:
        """What comes last in each series is held out, at least a horizon of it, where enough is left to learn from."""
        season, horizon = shape_of(config, items)
        rows, share = config.data.split, config.data.held_out
        train, held = [], []
        for series in items:
            steps = len(series.values)
            if rows is not None and sum(rows) > steps:
                raise UserError(
                    f"{series.place}: {series.id} has {steps:,} rows, fewer than the {sum(rows):,} of data.split"
                )
            end = steps if rows is None else rows[0] + rows[1]
            begin = end - max(horizon, round(share * steps)) if rows is None else rows[0]
            if rows is None and begin < 2 * season + 1:
                begin = end - horizon
            if begin < 2:
                train.append(series)  # too short to be held out from
            else:
                train.append(series.upto(begin))
                held.append(replace(series.upto(end), begin=begin))
        if not held:
            longest = max(items, key=lambda s: len(s.values))
            raise UserError(
                f"{longest.place}: the longest series, {longest.id}, has {len(longest.values):,} values: too few to forecast "
                f"{horizon} from those before; use a smaller --data.horizon"
            )
        return train, held

    # -- what is trained

    def criterion(self, config: ForecastConfig) -> Criterion:
        return Criterion("mase")

    def prepare(
        self, config: ForecastConfig, train: list[Series], held: list[Series], run: Run, advance: Advance
    ) -> ForecastConfig:
        known = {s.id: s for s in train}
        held = [s if s.begin is not None else _begun(s, known.get(s.id)) for s in held]
        season, horizon = shape_of(config, list({**known, **{s.id: s for s in held}}.values()))
        lengths = [len(s.values) for s in train]
        seasons = (season, *_longer_seasons(train, season, config.model.look_back))
        about = Fitted.of(train, seasons, horizon, config.model.logarithm)
        run.write_json(SERIES, about.values())
        for name, some in (("train", train), ("valid", held)):
            begins = [len(s.values) if s.begin is None else s.begin for s in some]
            save(run.corpus / f"{name}.safetensors", [about.prepared(s) for s in some], begins)
        sizes, trained = defaults.forecast(config, lengths, seasons, horizon)
        settings: ForecastConfig = settled(
            config, model=sizes, data={"horizon": horizon, "season": season}, training=trained
        )
        windows = self.examples(settings, run, "valid")
        spread = np.unique(np.linspace(0, len(windows.lengths) - 1, HELD_WINDOWS).astype(int))
        write_tensors(run.folder / HELD, windows.batch(spread)._asdict(), {})
        return settings

    def describe(self, config: ForecastConfig) -> str:
        m, d = config.model, config.data
        kind = "a Transformer of the size of " if m.kind == "transformer" else ""
        times = f"{m.members} × " if m.members != 1 else ""
        over = "step by step" if m.kind == "steps" else f"over {m.look_back} steps in segments of {m.segment}"
        ahead = f"{d.horizon} ahead, season {d.season}, dropout {m.dropout:g}"
        return f"{times}{kind}{m.cell} {m.layers} × {m.hidden_size} {over}; {ahead}"

    def network(self, config: ForecastConfig, run: Run) -> nn.Module:
        from throughtime.models.forecaster import Attending, Forecaster, Segments, Sizes, Unrolled
        from throughtime.models.stepwise import Stepwise

        m, about = config.model, _fitted(run)
        got = chosen(m, ("hidden_size", "dropout", "look_back", "segment", "members"), run)
        ahead = len(about.calendar) + len(about.future)
        if m.kind == "steps":
            return Stepwise(
                m.cell,
                got["hidden_size"],
                m.layers,
                got["dropout"],
                season=about.seasons[-1],
                horizon=about.horizon,
                covariates=ahead + len(about.past) + sum(map(len, about.static.values())),
                ahead=ahead,
                levels=quantiles.LEVELS,
            )
        sizes = Sizes(
            look_back=got["look_back"],
            horizon=about.horizon,
            segment=got["segment"],
            known=ahead,
            past=len(about.past),
            static=sum(map(len, about.static.values())),
            series=about.numbers,
            quantiles=len(quantiles.LEVELS),
            seasons=len(about.seasons),
        )

        def make() -> nn.Module:
            kind = Attending if m.kind == "transformer" else Unrolled
            network = kind(m.cell, got["hidden_size"], m.layers, got["dropout"])
            return Segments(network, got["hidden_size"], got["dropout"], sizes)

        return Forecaster(make, got["members"], quantiles.LEVELS)

    def examples(self, config: ForecastConfig, run: Run, part: str) -> Windows | Courses:
        series, begins = open_saved(run.corpus / f"{part}.safetensors")
        lengths = [len(s.values) for s in series]
        about, look_back = _fitted(run), config.model.look_back
        assert look_back is not None
        horizon = about.horizon
        if part == "train" and config.model.kind == "steps":
            return Courses.to_train(series, horizon, about.seasons[0])
        if part == "train":
            cutoffs = cutoffs_before(lengths, look_back, horizon, about.seasons[0])
            stride = -(-len(cutoffs) // TRAINED_WINDOWS)
        else:
            cutoffs = scored_cutoffs(lengths, begins, horizon, 1, None)
            stride = max(1, len(cutoffs) // SCORED_WINDOWS)
        return about.windows(config.model, series, cutoffs[::stride])

    def score(self, model: ForecastModel, examples: Windows | Courses, *, quick: bool) -> dict[str, Any]:
        found = accuracy(list(model.forecasts(examples, [80.0] if not quick else [])))
        naive = found.pop("naive")
        covered = {} if quick else {"coverage_80": found["coverage"]["80"]}
        found.pop("coverage")
        return {**super().score(model, examples, quick=quick), **found, **covered, "naive_mase": naive["mase"]}

    def trained(self, run: Run, config: ForecastConfig, network: nn.Module) -> ForecastModel:
        return ForecastModel(self, run, config, network)


class ForecastModel(Trained[Series]):
    """A trained forecaster."""

    network: Forecaster

    def __init__(self, task: ForecastTask, run: Run, config: ForecastConfig, network: nn.Module) -> None:
        super().__init__(task, run, config, network)
        self.fitted = _fitted(run)
        self._calibration: quantiles.Calibration | None = None

    @property
    def calibration(self) -> quantiles.Calibration:
        """Where what came stood in what was forecast, in windows that were held out."""
        if self._calibration is None:
            from throughtime.models.forecaster import Window
            from throughtime.models.stepwise import Course

            tensors = read_tensors(self.run.folder / HELD)[0]
            target = tensors["target"].double().numpy()
            if self.config.model.kind == "steps":
                batch: Any = Course(**tensors)
                target *= tensors["scale"].double().numpy()[:, None]
            else:
                batch = Window(**tensors)
            self._calibration = quantiles.Calibration(quantiles.deviate(self._forecast(batch)[0], target))
        return self._calibration

    def _forecast(self, batch: Any) -> tuple[Array, Array]:
        """Quantiles [n, H, Q] and the seasonal naive forecast [n, H] of a batch, as `passes` gives them."""
        from throughtime.tasks.batches import moved, scoring

        with scoring(self.network) as device:
            found, naive = self.network.forecast(moved(batch, device))
        return found.double().cpu().numpy(), naive.double().cpu().numpy()

    def forecasts(
        self, windows: Windows | Courses, levels: Sequence[float], advance: Advance = ignore, horizon: int | None = None
    ) -> Iterator[Forecast]:
        """Forecasts of windows, in order, in units of their series. horizon: fewer steps than the network gives."""
        made: dict[int, Forecast] = {}
        following = 0
        for numbers, batch, level in windows.passes():
            found, naive = self._forecast(batch)
            found, naive = found[:, :horizon] + level[:, None, None], naive[:, :horizon] + level[:, None]
            for j, number in enumerate(numbers.tolist()):
                made[number] = self._in_units(windows, number, found[j], naive[j], levels)
            while following in made:
                yield made.pop(following)
                following += 1
            advance(len(numbers) / len(windows.cutoffs))

    def _in_units(
        self, windows: Windows | Courses, number: int, found: Array, naive: Array, levels: Sequence[float]
    ) -> Forecast:
        which, cut = windows.cutoffs[number]
        series = windows.series[which]
        values, write = series.values, series.scale.write
        history, season = values[:cut], self.fitted.seasons[0]
        truth = np.full(len(found), np.nan)
        there = values[cut : cut + len(found)]
        truth[: len(there)] = there
        apart = np.abs(history[season:] - history[:-season])
        intervals = {level: self.calibration.interval(found, level) for level in levels}
        own = write(found)
        return Forecast(
            truth=truth,
            median=own[:, quantiles.MEDIAN],
            mean=quantiles.mean(own),
            quantiles=own,
            naive=write(naive),
            intervals={level: (write(a), write(b)) for level, (a, b) in intervals.items()},
            deviation=series.deviation or float(np.nanstd(history)) or 1.0,
            seasonal=float(np.nanmean(apart)) if np.isfinite(apart).any() else 0.0,
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
        made = list(self.forecasts(windows, levels, advance, horizon))
        if album is not None:
            last = {which: number for number, (which, _) in enumerate(cutoffs.tolist())}
            for which, number in last.items():
                album.draw(items[which], int(cutoffs[number][1]), made[number])
        found = accuracy(made)
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
        return like_frame(_by_column(self.answers(of_frame(items, _columns(self.config, chosen)), chosen)), items)

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
        columns = _columns(self.config, chosen)
        items = of_frame(given, columns) if framed else self.task.read(self.config, [Path(given)], chosen)
        rows = self._validated(items, chosen)
        return like_frame(_by_column(rows), given) if framed else list(rows)

    def _validated(self, items: list[Series], options: Any) -> Iterator[dict[str, Any]]:
        levels, horizon = quantiles.levels_of(options.level or "80"), self._horizon(options)
        lengths = [len(s.values) for s in items]
        cutoffs = scored_cutoffs(lengths, [1] * len(items), horizon, options.stride or horizon, options.windows)
        windows = self._windows(items, cutoffs)
        for (which, cut), found in zip(cutoffs.tolist(), self.forecasts(windows, levels, horizon=horizon), strict=True):
            clock = items[which].clock
            for h in range(min(horizon, len(items[which].values) - cut)):
                when = {"ds": clock.date(cut + h), "cutoff": clock.date(cut - 1), "y": float(found.truth[h])}
                yield {"unique_id": items[which].id, **when} | {
                    name: float(values[h]) for name, values in found.columns().items()
                }

    def answers(self, items: list[Series], options: Any) -> Iterator[dict[str, Any]]:
        """A row a step of each series to come: unique_id, ds, forecast (the median), the ends of intervals, and samples; or, of
        anomalies, a row for each value that is there."""
        if options.anomalies:
            for series in items:
                yield from self.anomalies(series)
            return
        horizon, levels = self._horizon(options), quantiles.levels_of(options.level or "80")
        items = self._with_future(items, options, horizon)
        ends = np.array([[i, len(s.values)] for i, s in enumerate(items)])
        windows = self._windows(items, ends)
        album = None if options.pictures is None else Album(Path(options.pictures))
        generator = np.random.default_rng(self.config.seed)
        for series, prepared, found in zip(
            items, windows.series, self.forecasts(windows, levels, horizon=horizon), strict=True
        ):
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
            columns = replace(_columns(self.config, options), target=(), past=(), static=())
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

    # -- looking inside

    def empty(self, item: Series) -> bool:
        return len(item.values) < 2

    def look(self, item: Series | Sample) -> Look:
        """A series up to a horizon before its end, or where it is too short for that up to its end; of what is not known, the
        forecast is looked at."""
        import torch

        if isinstance(item, Series):
            steps, least = len(item.values), min(self.config.model.look_back, self.fitted.horizon)
            cut = steps - self.fitted.horizon
            cut = cut if cut >= least else steps
            item = Sample(self._windows([item], np.array([[0, cut]])), 0, item.clock)
        if self.config.model.kind == "steps":
            return self._look_at_steps(item)
        windows, number, _ = item
        look_back = self.config.model.look_back
        window = windows.batch([number])
        numbers = window.values[0].requires_grad_()
        repeated = torch.from_numpy(windows.repeated(np.isfinite(window.values.detach().numpy())))
        naive = torch.where(repeated < 0, 0.0, numbers[repeated])
        window = window._replace(values=numbers.unsqueeze(0), naive=naive)
        which, cut = windows.cutoffs[number]
        values = windows.series[which].values
        read = np.full(look_back, nan)
        there = values[max(cut - look_back, 0) : cut]
        read[look_back - len(there) :] = there
        inputs = Steps(item.labels(cut - look_back, cut), _column(read))
        stack = Stack(name="", steps=inputs, stride=self.config.model.segment, last=True)

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


def shape_of(config: ForecastConfig, series: Sequence[Series]) -> tuple[int, int]:
    """(season, horizon) in steps: what is set, or what fits the series."""
    data = config.data
    season = data.season or series[0].clock.frequency.season or _found_season(series)
    if data.horizon is not None:
        return season, data.horizon
    typical = int(np.median([len(s.values) for s in series]))
    return season, max(1, min(2 * season if season > 1 else SHORT, typical // 4))


def _found_season(series: Sequence[Series]) -> int:
    """The season that most of the longest series have."""
    longest = sorted(series, key=lambda s: -len(s.values))[:20]
    found = [season_of(s.values) for s in longest]
    return max(set(found), key=lambda season: (found.count(season), -season))


def _longer_seasons(series: Sequence[Series], season: int, look_back: int | None) -> tuple[int, ...]:
    """A week beside a day, where it can be read and the series are long enough to show it."""
    frequency, week = series[0].clock.frequency, 7 * season
    of_a_day = frequency.season in (None, season) and season in (24, 48, 96, 144, 288)
    enough = np.median([len(s.values) for s in series]) >= 3 * week
    return (week,) if of_a_day and enough and (look_back is None or look_back >= week) else ()


def followed(histories: Sequence[Series], truths: Sequence[Series]) -> list[Series]:
    """Histories with the truth that follows each, which is to be forecast. Raises: UserError for a truth without a history."""
    by_id = {s.id: s for s in histories}
    found = []
    for truth in truths:
        if truth.id not in by_id:
            raise UserError(f"{truth.place}: there is no history of {truth.id}; the first file is to hold it")
        history = by_id[truth.id]
        found.append(replace(continued(history, truth), begin=len(history.values)))
    return found


def _begun(series: Series, trained: Series | None) -> Series:
    """A held-out series, and from where it is to be forecast: after what was trained on, or its last part."""
    if trained is not None:
        return followed([trained], [series])[0]
    return replace(series, begin=max(1, len(series.values) * 4 // 5))


def _fitted(run: Run) -> Fitted:
    return Fitted.from_values(run.read_json(SERIES))


def _columns(config: ForecastConfig, options: Any) -> SeriesColumns:
    """How the columns are called: as an option says, or as in training."""
    data = config.data
    if options is None:
        return SeriesColumns(
            data.id, data.time, data.target, data.past, data.future, data.static, data.delimiter, data.freq, data.fill
        )
    return SeriesColumns(
        options.id or data.id,
        options.time or data.time,
        options.target or data.target,
        data.past,
        data.future,
        data.static,
        options.delimiter or data.delimiter,
        data.freq,
        options.fill or data.fill,
        option="--",
    )


def _column(values: Array) -> torch.Tensor:
    """Values [T] as `Steps` hold them, [T, 1]."""
    import torch

    return torch.from_numpy(np.asarray(values, dtype=np.float64)).unsqueeze(1)


def is_frame(given: Any) -> bool:
    """Whether something is a table of pandas, polars or pyarrow, or a column of one."""
    return type(given).__module__.split(".")[0] in ("pandas", "polars", "pyarrow")


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
