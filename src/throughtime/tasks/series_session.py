"""A session of a forecaster that reads value by value: it reads values as they come, and says what comes next.

Shapes: T time, C covariates of a step, H horizon.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from throughtime.errors import UserError
from throughtime.tasks import quantiles
from throughtime.tasks.accuracy import interval_columns
from throughtime.tasks.courses import as_steps, first_of
from throughtime.tasks.windows import Prepared
from throughtime.travel import Engine, Session
from throughtime.travel.session import KEEP, SNAPSHOTS

if TYPE_CHECKING:
    from throughtime.models.stepwise import Stepwise
    from throughtime.tasks.series import Series

Array = np.ndarray[Any, Any]


class SeriesEngine(Engine):
    """Steps a forecaster along one series. An input is a step as the network reads it, [2 + C].

    Args: prepared: the history that says how values are read: relative to its first, in its scale.
    """

    def __init__(self, network: Stepwise, prepared: Prepared, backend: str = "auto") -> None:
        super().__init__(network.stack, backend, network)
        self.forecaster, self.scale, self.static = network, prepared.scale, prepared.static
        self.offset = first_of(prepared)
        self.covariates = self.width - 2 - len(prepared.static)

    def rows(self, values: Array, covariates: Array) -> Tensor:
        """Values [T] of the series and covariates [T, K + P], as steps of the network."""
        return as_steps((self.scale.read(values) - self.offset) / self.scale.size, covariates, self.static)

    @torch.no_grad()
    def quantiles(self, output: Tensor, known: Array) -> Array:
        """Quantiles [H, Q] of what comes, as the series is read, of an output of the stack [N] and what is known ahead, [H,
        K]."""
        ahead = torch.from_numpy(known.astype(np.float32)).unsqueeze(0)
        found, _ = self.forecaster.answer(output.unsqueeze(0), ahead)
        return found[0].double().numpy() * self.scale.size + self.offset


class SeriesSession(Session):
    """A stream of values that can go back in time, made by `ForecastModel.session`. At time 0 nothing of the series is read.

    An input is a value, NaN where it is missing, and after it those covariates of its step that are not told by its time.
    """

    _engine: SeriesEngine

    def __init__(
        self,
        engine: SeriesEngine,
        series: Series,
        calibration: quantiles.Calibration,
        *,
        calendar: Callable[[Array], Array],
        snapshots: int = SNAPSHOTS,
        keep: int = KEEP,
    ) -> None:
        self.series, self._calibration, self._told = series, calibration, calendar
        self._begin(engine, None, snapshots, keep)

    def feed(self, x: Any) -> dict[str, Array]:
        """Read a value, or several. Returns: what `forecast` gives then. Raises: UserError where they do not fit."""
        rows = self._rows(x, self.time)
        if not len(rows):
            raise UserError("feed: there is no value in it")
        self._feed(rows)
        return self.forecast()

    def edit(self, t: int, *, input: Any = None, state: Any = None) -> None:
        """Change what was at time t, as `Session.edit` does; an input is a value, and its covariates stay as they were."""
        if input is not None and np.ndim(input) == 0:
            row = self.inputs(t, t + 1)
            value = self._engine.rows(np.array([float(input)]), np.zeros((1, self._engine.covariates)))
            row[:, :2] = value[:, :2]
            input = row
        super().edit(t, input=input, state=state)

    def forecast(self, level: str = "80", known: Array | None = None) -> dict[str, Array]:
        """What comes next, and the ends of intervals that hold so many percent, by the names of their columns, [H] each.

        Args: known: covariates known ahead that are not told by the times, [H, K]; None: they are as they usually are.
        Raises: UserError where nothing is read yet.
        """
        if self._now.output is None:
            raise UserError("forecast: nothing is read yet; feed a value first")
        network = self._engine.forecaster
        told = self._calendar(self.time, self.time + network.horizon)
        ahead = np.zeros((network.horizon, network.known), dtype=np.float32)
        ahead[:, : told.shape[1]] = told
        if known is not None:
            ahead[:, told.shape[1] :] = known
        found, write = self._engine.quantiles(self._now.output, ahead), self._engine.scale.write
        ends = {one: self._calibration.interval(found, one) for one in quantiles.levels_of(level)}
        columns = interval_columns({one: (write(low), write(high)) for one, (low, high) in ends.items()})
        return {"forecast": write(found[:, quantiles.MEDIAN]), **columns}

    def dates(self, start: int, stop: int) -> list[str]:
        """The times of steps, as the history writes them."""
        return [self.series.clock.date(i) for i in range(start, stop)]

    def _calendar(self, start: int, stop: int) -> Array:
        """What the times of steps tell, [T, K]."""
        return self._told(np.arange(start, stop))

    def _rows(self, given: Any, at: int) -> Tensor:
        """Inputs from a time on as steps of the network: with what their times tell."""
        own = self._engine.covariates - self._calendar(0, 1).shape[1]
        if isinstance(given, Tensor) and given.dim() == 2 and given.shape[1] == self._engine.width:
            return given
        try:
            rows = np.asarray(given, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise UserError(
                f"a session of a forecaster reads numbers, got a {type(given).__name__}: {error}"
            ) from error
        rows = np.atleast_2d(rows) if own else rows.reshape(-1, 1)
        if rows.shape[1] != 1 + own:
            raise UserError(f"an input is a value and {own} covariates, many are rows of such, got {list(rows.shape)}")
        if np.isinf(rows).any() or np.isnan(rows[:, 1:]).any():
            raise UserError(
                "a value may be NaN where it is missing; what is infinite is none, and covariates must be known"
            )
        calendar = self._calendar(at, at + len(rows))
        return self._engine.rows(rows[:, 0], np.concatenate([calendar, rows[:, 1:]], 1))


def of_series(network: Stepwise, series: Series, prepared: Prepared, backend: str) -> tuple[SeriesEngine, Tensor]:
    """An engine for a series, and its history as inputs."""
    engine = SeriesEngine(network, prepared, backend)
    steps = len(series.values)
    return engine, engine.rows(series.values, np.concatenate([prepared.known[:steps], prepared.past[:steps]], 1))
