"""Settings that several tasks have, said once."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from throughtime.config import Config, Positive, Rate, RunConfig, Strict
from throughtime.errors import UserError, unknown
from throughtime.runs import Run


class StackSettings(Strict):
    """The network: a stack of recurrent cells, or a Transformer to compare it with."""

    kind: Literal["recurrent", "transformer"] = "recurrent"
    """transformer: one of as many parameters as the recurrent network of these settings would have, with a dropout of 0.3
    at most."""
    cell: str = "lstm"
    """The recurrent cell: elman, gru, lstm or another of `throughtime.cells.NAMED`; classify and tag also take none: a network
    without a memory."""
    hidden_size: Positive | None = None
    """Units in a layer, in each direction. [default: to fit the data]"""
    layers: Positive = 1
    """Layers above each other."""
    embedding_size: Positive | None = None
    """Width of the embedding. [default: to fit the data]"""
    dropout: Rate | None = None
    """Dropout on what goes into and out of every layer. [default: to fit the data]"""


class DataSettings(Strict):
    """What is trained on."""

    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """The share that is held out where no --valid is given."""
    encoding: str | None = None
    """How files are written that are not UTF-8 and have no mark: latin-1, cp1252, utf-16-le. [default: utf-8]"""


class ReadOptions(Strict):
    """Of `predict`, `evaluate` and `inspect`."""

    encoding: str | None = None
    """How a file is written that is not UTF-8 and has no mark: latin-1, cp1252, utf-16-le. [default: utf-8]"""


class TaskConfig(RunConfig):
    """All settings of a task that has none of its own."""

    model: StackSettings = StackSettings()
    data: DataSettings = DataSettings()


def check_cell(cell: str, *, memoryless: bool = False) -> None:
    """Raises: UserError for a cell that there is not. memoryless: whether "none" is one."""
    from throughtime.cells import NAMED

    names = [*NAMED, "none"] if memoryless else [*NAMED]
    if cell not in names:
        raise UserError("model.cell: " + unknown("cell", cell, names))


def check_no_chunk(config: RunConfig) -> None:
    """Raises: UserError where gradients are asked to be cut in time, which only a text without an end needs."""
    if config.training.chunk is not None:
        raise UserError(f"training.chunk: the task {config.task!r} reads whole examples; leave it out")


def chosen(model: Strict, names: tuple[str, ...], run: Run) -> dict[str, Any]:
    """Settings that `prepare` has chosen. Raises: UserError where one is missing: the run is damaged."""
    values = {name: getattr(model, name) for name in names}
    if missing := [f"model.{name}" for name, value in values.items() if value is None]:
        raise UserError(f"{run.config}: the run is damaged: {', '.join(missing)} missing")
    return values


def settled(config: Config, **groups: dict[str, Any]) -> Config:
    """Settings with values put into their groups: model, data, training."""
    made = {name: getattr(config, name).model_copy(update=values) for name, values in groups.items()}
    return config.model_copy(update=made)


def filled(settings: Any, **values: Any) -> Any:
    """Settings with values in place of those left open."""
    return settings.model_copy(update={k: v for k, v in values.items() if getattr(settings, k) is None})
