"""Forecast: what comes next in series of numbers, from files of series."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from throughtime.config import Strict
from throughtime.errors import UserError
from throughtime.tasks import defaults, quantiles
from throughtime.tasks.accuracy import accuracy
from throughtime.tasks.base import Advance, Criterion, Task
from throughtime.tasks.courses import Courses
from throughtime.tasks.fitted import Fitted
from throughtime.tasks.forecast_model import HELD, ForecastModel
from throughtime.tasks.forecast_settings import (
    ColumnOptions,
    EvaluateOptions,
    ForecastConfig,
    PredictOptions,
    columns_of,
)
from throughtime.tasks.series import Series, continued, read_series, season_of
from throughtime.tasks.settings import check_cell, check_no_chunk, chosen, settled
from throughtime.tasks.source import Source
from throughtime.tasks.windows import Windows, cutoffs_before, open_saved, save, scored_cutoffs
from throughtime.weights import write_tensors

if TYPE_CHECKING:
    from torch import nn

    from throughtime.runs import Run

HELD_WINDOWS = 500  # that intervals are calibrated on
SCORED_WINDOWS = 2_000  # that are scored in training
TRAINED_WINDOWS = 2_000_000
SHORT = 12  # steps of a horizon that is left open, where nothing says a season

Array = np.ndarray[Any, Any]


class ForecastTask(Task[ForecastConfig, Series]):
    """Forecasts of series of numbers."""

    name: ClassVar[str] = "forecast"
    config_type = ForecastConfig
    predict_options: ClassVar[type[Strict]] = PredictOptions
    evaluate_options: ClassVar[type[Strict]] = EvaluateOptions
    inspect_options: ClassVar[type[Strict]] = ColumnOptions
    pipeline: ClassVar[str | None] = "time-series-forecasting"
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
        parts = [read_series(self.source(config, file, options), columns_of(config, options)) for file in files]
        if options is not None and len(parts) == 2:
            return followed(*parts)
        return [series for part in parts for series in part]

    def items(self, config: ForecastConfig, source: Source, options: Any) -> Iterator[Series]:
        yield from read_series(source, columns_of(config, options))

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
        about.save(run)
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

        m, about = config.model, Fitted.open(run)
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
        about, look_back = Fitted.open(run), config.model.look_back
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
