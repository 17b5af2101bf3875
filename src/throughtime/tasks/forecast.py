"""Forecast: what comes next in series of numbers, from files of series."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from throughtime.config import Strict
from throughtime.errors import UserError
from throughtime.tasks.base import Advance, Task
from throughtime.tasks.forecast_settings import (
    ColumnOptions,
    EvaluateOptions,
    ForecastConfig,
    PredictOptions,
    columns_of,
)
from throughtime.tasks.settings import check_cell, check_no_chunk
from throughtime.tasks.source import Source

if TYPE_CHECKING:
    from torch import nn

    from throughtime.runs import Run
    from throughtime.tasks.courses import Courses
    from throughtime.tasks.forecast_model import ForecastModel
    from throughtime.tasks.series import Series
    from throughtime.tasks.windows import Windows


class ForecastTask(Task[ForecastConfig, "Series"]):
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
        for name in (
            ("history", "look_back", "segment", "members", "unaided", "symmetric") if model.kind == "steps" else ()
        ):
            if getattr(model, name) is not None:
                raise UserError(f"model.{name}: a network that reads step by step has none; leave it out")
        if model.look_back is not None and model.segment is not None and model.look_back % model.segment:
            raise UserError(
                f"model.look_back: {model.look_back} is no multiple of model.segment, {model.segment}; use one"
            )
        if model.history is not None and model.history < (model.look_back or model.segment or 1):
            read = "model.look_back" if model.look_back else "model.segment"
            raise UserError(f"model.history: {model.history} is less than {read}; leave it out, or name a longer one")
        if (model.unaided or 0) > (model.members or 1):
            raise UserError(
                f"model.unaided: {model.unaided} of model.members, {model.members or 1}; use no more than these"
            )
        if data.split is not None and data.held_out != type(data).model_fields["held_out"].default:
            raise UserError("data.held_out: data.split says which rows are held out; leave one of them out")
        if data.split is not None and len(data.split) not in (2, 3):
            raise UserError("data.split: takes two or three numbers of rows: to train on, to hold out, to score")

    # -- what is read

    def read(self, config: ForecastConfig, files: Sequence[Path], options: Any = None) -> list[Series]:
        from throughtime.tasks.forecast_data import followed
        from throughtime.tasks.series import read_series

        parts = [read_series(self.source(config, file, options), columns_of(config, options)) for file in files]
        if options is not None and len(parts) == 2:
            return followed(*parts)
        return [series for part in parts for series in part]

    def items(self, config: ForecastConfig, source: Source, options: Any) -> Iterator[Series]:
        from throughtime.tasks.series import read_series

        yield from read_series(source, columns_of(config, options))

    def item(self, given: Any) -> Series:
        from throughtime.tasks.series import Series

        return given if isinstance(given, Series) else super().item(given)

    def split(
        self, config: ForecastConfig, items: list[Series], files: Sequence[Path]
    ) -> tuple[list[Series], list[Series]]:
        from throughtime.tasks import forecast_data

        return forecast_data.split(config, items)

    # -- what is trained

    def prepare(
        self, config: ForecastConfig, train: list[Series], held: list[Series], run: Run, advance: Advance
    ) -> ForecastConfig:
        from throughtime.tasks import forecast_data

        return forecast_data.prepare(config, train, held, run, advance)

    def describe(self, config: ForecastConfig) -> str:
        m, d = config.model, config.data
        kind = "a Transformer of the size of " if m.kind == "transformer" else ""
        times = f"{m.members} × " if m.members not in (None, 1) else ""
        over = "step by step" if m.kind == "steps" else f"over {m.look_back} steps in segments of {m.segment}"
        mirrored = ", symmetric" if m.symmetric else ""
        unaided = f", {m.unaided} without the linear forecast" if m.unaided else ""
        ahead = f"{d.horizon} ahead, season {d.season}, dropout {m.dropout:g}{mirrored}{unaided}"
        return f"{times}{kind}{m.cell} {m.layers} × {m.hidden_size} {over}; {ahead}"

    def network(self, config: ForecastConfig, run: Run) -> nn.Module:
        from throughtime.tasks import forecast_data

        return forecast_data.network(config, run)

    def fill(self, network: Any, config: ForecastConfig, run: Run) -> None:
        if config.model.kind != "steps":
            from throughtime.tasks import forecast_data

            forecast_data.put_linear(network, run)

    def examples(self, config: ForecastConfig, run: Run, part: str) -> Windows | Courses:
        from throughtime.tasks import forecast_data

        return forecast_data.examples(config, run, part)

    def score(self, model: ForecastModel, examples: Windows | Courses, *, quick: bool) -> dict[str, Any]:
        from throughtime.tasks.accuracy import accuracy

        if quick:
            model.choose(examples)
        found = accuracy(model.forecasts(examples, [80.0] if not quick else []))
        naive = found.pop("naive")
        covered = {} if quick else {"coverage_80": found["coverage"]["80"]}
        found.pop("coverage")
        return {**super().score(model, examples, quick=quick), **found, **covered, "naive_mase": naive["mase"]}

    def settle(self, model: ForecastModel, examples: Windows | Courses, run: Run) -> None:
        model.settle(examples, run)

    def trained(self, run: Run, config: ForecastConfig, network: nn.Module) -> ForecastModel:
        from throughtime.tasks.forecast_model import ForecastModel

        return ForecastModel(self, run, config, network)
