"""The settings of forecasters, and the options of what they do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from throughtime.config import Positive, Rate, RunConfig, Strict
from throughtime.tasks.settings import DataSettings, ReadOptions

if TYPE_CHECKING:
    from throughtime.tasks.roles import SeriesColumns


def _parts(given: Any) -> Any:
    """What stands in a text with commas between, as several; the command line gives a list of texts."""
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, list | tuple):
        return given
    return tuple(part.strip() if isinstance(part, str) else part for one in given for part in _split(one) if part != "")


def _split(given: Any) -> list[Any]:
    return given.split(",") if isinstance(given, str) else [given]


def _level(given: str) -> str:
    from throughtime.tasks.quantiles import levels_of

    levels_of(given)
    return given


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
    """Steps before a cutoff that the network reads. [default: two of the longest seasons]"""
    history: Positive | None = None
    """Steps before a cutoff that the linear forecast reads, which the network adds to. [default: the look-back, where that is set,
    else as many as do best]"""
    segment: Positive | None = None
    """Steps that are read together. [default: the season, or a part of it]"""
    members: Positive | None = None
    """Networks that are trained beside each other, whose median is the forecast. [default: 1, or 2 of much data]"""
    unaided: Annotated[int, Field(ge=0)] | None = None
    """How many of them do not add to the linear forecast but learn all of what comes: they err in other ways, so that the median
    is nearer. [default: half of those that there are by default]"""
    symmetric: bool | None = None
    """Forecast the mirror image of what was read as the mirror image of its forecast, so that no drift up or down is learned that
    does not show in it. [default: where little data tells drift from chance]"""
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
    level: Annotated[str, Field(pattern=r"^\d+(\.\d+)?(,\d+(\.\d+)?)*$"), AfterValidator(_level)] | None = None
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


def columns_of(config: ForecastConfig, options: Any) -> SeriesColumns:
    """How the columns are called: as an option says, or as in training."""
    from throughtime.tasks.roles import SeriesColumns

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
