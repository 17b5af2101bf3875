"""Streams of a forecaster that reads value by value: values in, what comes next out. Each goes along a series of its own."""

from __future__ import annotations

import copy
import io
import threading
from collections import OrderedDict
from typing import Any, Self

import numpy as np
from torch import Tensor

from throughtime.serve.bodies import Create, Given, Steps
from throughtime.serve.inputs import as_csv
from throughtime.serve.past import Read
from throughtime.serve.readers.reader import Array, Stepwise, finite
from throughtime.serve.refused import Refused
from throughtime.serve.store import Kept, Store
from throughtime.serve.warned import heard
from throughtime.tasks import quantiles
from throughtime.tasks.forecast_model import ForecastModel
from throughtime.tasks.series_session import Along
from throughtime.tasks.source import Source

AT_HAND = 4096  # histories that are not read anew


class SeriesReader(Stepwise):
    """Of a forecaster that reads value by value, along no series; `of` gives what reads one."""

    keys, shows, begins = ("values",), ("level", "ahead"), ("history",)
    along: Along

    @staticmethod
    def reads(model: Any) -> bool:
        return isinstance(model, ForecastModel)

    def __init__(self, model: ForecastModel) -> None:
        self.engine = model.engine()
        self.stack, self.model = self.engine.stack, model
        self.input = np.dtype((np.float32, self.engine.width))
        self._at_hand: OrderedDict[tuple[str, float], Along] = OrderedDict()
        self._lock = threading.Lock()

    def begun(self, asked: Create) -> tuple[bytes, Tensor]:
        if asked.history is None:
            raise Refused(
                400, "history: give the series up to now, as a CSV or as rows: what it is told by, and in which scale"
            )
        kept = as_csv(asked.history, "history").encode()
        return kept, self._along(kept).history()

    def _along(self, kept: bytes) -> Along:
        source = Source.of(io.StringIO(kept.decode(), newline=""))
        source.name = "history"
        return self.model.along(list(self.model.task.items(self.model.config, source, None)))

    def of(self, kept: Kept, store: Store) -> Self:
        key = (kept.id, kept.made)
        with self._lock:
            found = self._at_hand.get(key)
        if found is None:
            with heard(printed=False):  # what is guessed of it was told to whoever made the session
                found = self._along(store.beginning(kept.id))
        with self._lock:
            self._at_hand[key] = found
            self._at_hand.move_to_end(key)
            if len(self._at_hand) > AT_HAND:
                self._at_hand.popitem(last=False)
        made = copy.copy(self)
        made.along = found
        return made

    def check(self, asked: Steps) -> None:
        super().check(asked)
        try:
            quantiles.levels_of(asked.level or "80")
        except ValueError as error:
            raise Refused(400, f"level: got {asked.level!r}; {error}") from error
        if asked.ahead is not None:
            self._ahead(asked.ahead)

    def _ahead(self, given: list[list[float]]) -> Array:
        horizon, own = self.along.network.horizon, self.along.told_ahead
        rows = np.array(given, dtype=np.float32) if len({len(row) for row in given}) == 1 else np.zeros(0)
        if rows.shape != (horizon, own) or not np.isfinite(rows).all():
            raise Refused(400, f"ahead: a row of {own} finite numbers for each of {horizon} steps to come")
        return rows

    def value(self, asked: Given, at: int) -> Any:
        assert asked.values is not None
        rows = [[np.nan if v is None else v for v in (row if isinstance(row, list) else [row])] for row in asked.values]
        if not rows:
            return self.engine.empty()
        if len({len(row) for row in rows}) != 1:
            raise Refused(400, "values: a number each, or rows of a value and its covariates, all as long")
        return self.along.rows(rows, at)

    def answers(self, inputs: Tensor, read: Read, asked: Steps) -> dict[str, Any]:
        time = asked.first + len(inputs)
        ahead = None if asked.ahead is None else self._ahead(asked.ahead)
        found = self.along.forecast(read.outputs[-1], time, asked.level or "80", ahead)
        columns = {name: [finite(v) for v in values.tolist()] for name, values in found.items()}
        return {"ds": self.along.dates(time, time + self.along.network.horizon), **columns}

    def answer(self, top: int) -> np.dtype[Any]:
        raise Refused(
            400, "open: sessions of a forecaster answer in units of their own; send them messages, not frames"
        )

    def numbers(self, outputs: Tensor, top: int) -> Array:
        return np.zeros(len(outputs), dtype=self.answer(top))
