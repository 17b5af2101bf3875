"""A series, what is forecast of it, and what would be if a past value had been another."""

from __future__ import annotations

import io
import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from throughtime.play.bodies import SERIES, Foresee, NewValue
from throughtime.serve.readers import finite
from throughtime.serve.refused import Refused
from throughtime.serve.warned import heard
from throughtime.tasks import quantiles
from throughtime.tasks.forecast_model import ForecastModel
from throughtime.tasks.forecast_settings import ColumnOptions
from throughtime.tasks.quantiles import shown
from throughtime.tasks.series import Series
from throughtime.tasks.source import Source

AT_HAND = 8  # tables that are not read anew
SHOWN = 400  # values before what is forecast, at least where there are so many


class Foreseeing:
    """The series of one model, those that it was trained on or those of a table that somebody gives."""

    def __init__(self, model: ForecastModel) -> None:
        self.model = model
        # and what was guessed of each
        self._tables: OrderedDict[str | None, tuple[list[Series], list[str]]] = OrderedDict()
        self._lock = threading.Lock()  # one at a time: what reads a table costs memory

    @property
    def example(self) -> bool:
        """Whether the series that the model was trained on are where they were."""
        files = self.model.config.files
        return bool(files) and all(Path(file).is_file() for file in files)

    def answered(self, asked: Foresee) -> dict[str, Any]:
        """The last values of a series, the naive forecast, and the model's, as it was and with values changed; all of it in units
        of the series. Raises: Refused, UserError."""
        with self._lock:
            found, notes = self._table(asked.table)
            series = self._chosen(found, asked.series)
            level = _level(asked.level)
            horizon = self.model.fitted.horizon
            cut = len(series.values) - (horizon if asked.hold else 0)
            if cut < 2:
                raise Refused(400, f"hold: {series.id!r} has {len(series.values)} values, and {horizon} are held back")
            before = series.upto(cut)
            was = self.model.ahead(before, [level])
            other = None if not asked.changes else self.model.ahead(_changed(before, asked.changes), [level])
        first = max(0, cut - max(SHOWN, 3 * horizon))
        return {
            "names": [one.id for one in found[:SERIES]],
            "count": len(found),
            "name": series.id,
            "notes": notes,
            "horizon": horizon,
            "first": first,
            "time": cut,
            "ds": [series.clock.date(t) for t in range(first, cut + horizon)],
            "values": _finite(before.values[first:]),
            "truth": _finite(series.values[cut : cut + horizon]),
            "level": level,
            "naive": _finite(was.naive),
            "was": _told(was, level),
            "now": None if other is None else _told(other, level),
        }

    def _table(self, table: str | None) -> tuple[list[Series], list[str]]:
        """The series of a table, and what was guessed of it."""
        if table not in self._tables:
            with heard(printed=False) as words:
                found = self._read(table)
            self._tables[table] = found, [*words]
            if len(self._tables) > AT_HAND:
                self._tables.popitem(last=False)
        self._tables.move_to_end(table)
        return self._tables[table]

    def _read(self, table: str | None) -> list[Series]:
        model, config = self.model, self.model.config
        if table is not None:
            source = Source.of(io.StringIO(table, newline=""))
            source.name = "table"
            return list(model.task.items(config, source, ColumnOptions()))
        if not self.example:
            raise Refused(400, "table: the files that the model was trained on are not where they were; give a CSV")
        files = [Path(file) for file in config.files]
        return [series for file in files for series in model.task.read(config, [file], ColumnOptions())]

    def _chosen(self, found: Sequence[Series], name: str | None) -> Series:
        one = next((one for one in found if name in (None, one.id)), None)
        if one is None:
            raise Refused(404, f"series: there is no {name!r}; there are {', '.join(s.id for s in found[:5])}")
        return one


def _level(text: str) -> float:
    try:
        (level,) = quantiles.levels_of(text)
    except ValueError as error:
        raise Refused(400, f"level: got {text!r}; one number of percent: {error}") from error
    return level


def _changed(series: Series, changes: Sequence[NewValue]) -> Series:
    values = series.values.copy()
    for number, change in enumerate(changes):
        if change.time >= len(values):
            raise Refused(
                400, f"changes.{number}: there is no value at time {change.time}; they go from 0 to {len(values) - 1}"
            )
        if not math.isfinite(change.value):
            raise Refused(400, f"changes.{number}: a value is a finite number")
        values[change.time] = change.value
    return replace(series, values=values)


def _told(found: Any, level: float) -> dict[str, Any]:
    columns = found.columns()
    ends = {"low": columns[f"forecast-lo-{shown(level)}"], "high": columns[f"forecast-hi-{shown(level)}"]}
    return {name: _finite(values) for name, values in {"forecast": columns["forecast"], **ends}.items()}


def _finite(values: Any) -> list[float | None]:
    return [finite(value) for value in np.asarray(values, dtype=np.float64).tolist()]
