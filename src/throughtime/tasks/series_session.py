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
    """Steps a forecaster along any series. An input is a step as the network reads it, [2 + C]."""

    def __init__(self, network: Stepwise, backend: str = "auto") -> None:
        super().__init__(network.stack, backend, network)
        self.forecaster = network


class Along:
    """How a forecaster reads the values of one series, and what it says of what comes, in units of the series.

    Args: prepared: the history that says how values are read: relative to its first, in its scale. told: what the times of steps
        tell, [T, K].
    """

    def __init__(
        self,
        network: Stepwise,
        series: Series,
        prepared: Prepared,
        calibration: quantiles.Calibration,
        told: Callable[[Array], Array],
    ) -> None:
        self.network, self.series, self._prepared = network, series, prepared
        self._calibration, self._told = calibration, told
        self._scale, self._static, self._offset = prepared.scale, prepared.static, first_of(prepared)
        self._width: int = network.stack.input_size
        self._covariates = self._width - 2 - len(prepared.static)

    @property
    def told_ahead(self) -> int:
        """How many covariates are known ahead that the times do not tell."""
        return self.network.known - int(self._calendar(0, 1).shape[1])

    def history(self) -> Tensor:
        """The steps of the series as the network reads them, [T, 2 + C]."""
        steps, made = len(self.series.values), self._prepared
        return self._rows(self.series.values, np.concatenate([made.known[:steps], made.past[:steps]], 1))

    def rows(self, given: Any, at: int) -> Tensor:
        """Inputs of a user from a time on, with what their times tell, [T, 2 + C]: values, or rows of a value and what is not told
        by the times. Raises: UserError where they do not fit."""
        calendar = self._calendar(at, at + 1)
        own = self._covariates - calendar.shape[1]
        if isinstance(given, Tensor) and given.dim() == 2 and given.shape[1] == self._width:
            return given
        try:
            rows = np.asarray(given, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise UserError(
                f"a session of a forecaster reads numbers, got a {type(given).__name__}: {error}"
            ) from error
        rows = np.atleast_2d(rows) if own or rows.ndim > 1 else rows.reshape(-1, 1)
        if rows.ndim != 2 or rows.shape[1] != 1 + own:
            raise UserError(f"an input is a value and {own} covariates, many are rows of such, got {list(rows.shape)}")
        if np.isinf(rows).any() or np.isnan(rows[:, 1:]).any():
            raise UserError(
                "a value may be NaN where it is missing; what is infinite is none, and covariates must be known"
            )
        return self._rows(rows[:, 0], np.concatenate([self._calendar(at, at + len(rows)), rows[:, 1:]], 1))

    def changed(self, row: Tensor, value: float) -> Tensor:
        """A step [1, 2 + C] with another value; its covariates stay."""
        made = row.clone()
        made[:, :2] = self._rows(np.array([value]), np.zeros((1, self._covariates)))[:, :2]
        return made

    @torch.no_grad()
    def forecast(self, output: Tensor, at: int, level: str = "80", known: Array | None = None) -> dict[str, Array]:
        """What comes from a time on, of the output of the stack [N] that led there; as `SeriesSession.forecast` gives it."""
        horizon = self.network.horizon
        told = self._calendar(at, at + horizon)
        ahead = np.zeros((horizon, self.network.known), dtype=np.float32)
        ahead[:, : told.shape[1]] = told
        if known is not None:
            ahead[:, told.shape[1] :] = known
        answer, _ = self.network.answer(output.unsqueeze(0), torch.from_numpy(ahead).unsqueeze(0))
        found = answer[0].double().numpy() * self._scale.size + self._offset
        ends = {one: self._calibration.interval(found, one) for one in quantiles.levels_of(level)}
        write = self._scale.write
        columns = interval_columns({one: (write(low), write(high)) for one, (low, high) in ends.items()})
        return {"forecast": write(found[:, quantiles.MEDIAN]), **columns}

    def dates(self, start: int, stop: int) -> list[str]:
        """The times of steps, as the history writes them."""
        return [self.series.clock.date(i) for i in range(start, stop)]

    def _rows(self, values: Array, covariates: Array) -> Tensor:
        """Values [T] of the series and covariates [T, K + P], as steps of the network."""
        return as_steps((self._scale.read(values) - self._offset) / self._scale.size, covariates, self._static)

    def _calendar(self, start: int, stop: int) -> Array:
        return self._told(np.arange(start, stop))


class SeriesSession(Session):
    """A stream of values that can go back in time, made by `ForecastModel.session`. At time 0 nothing of the series is read.

    An input is a value, NaN where it is missing, and after it those covariates of its step that are not told by its time.
    """

    def __init__(self, engine: SeriesEngine, along: Along, *, snapshots: int = SNAPSHOTS, keep: int = KEEP) -> None:
        self._along, self.series = along, along.series
        self._begin(engine, None, snapshots, keep)

    def feed(self, x: Any) -> dict[str, Array]:
        """Read a value, or several. Returns: what `forecast` gives then. Raises: UserError where they do not fit."""
        rows = self._along.rows(x, self.time)
        if not len(rows):
            raise UserError("feed: there is no value in it")
        self._feed(rows)
        return self.forecast()

    def edit(self, t: int, *, input: Any = None, state: Any = None) -> None:
        """Change what was at time t, as `Session.edit` does; an input is a value, and its covariates stay as they were."""
        if input is not None and np.ndim(input) == 0:
            input = self._along.changed(self.inputs(t, t + 1), float(input))
        super().edit(t, input=input, state=state)

    def forecast(self, level: str = "80", known: Array | None = None) -> dict[str, Array]:
        """What comes next, and the ends of intervals that hold so many percent, by the names of their columns, [H] each.

        Args: known: covariates known ahead that are not told by the times, [H, K]; None: they are as they usually are.
        Raises: UserError where nothing is read yet.
        """
        if self._now.output is None:
            raise UserError("forecast: nothing is read yet; feed a value first")
        return self._along.forecast(self._now.output, self.time, level, known)

    def dates(self, start: int, stop: int) -> list[str]:
        """The times of steps, as the history writes them."""
        return self._along.dates(start, stop)
