"""How good forecasts are, and those of whoever only repeats the last season.

Shapes: H horizon, Q quantiles.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from throughtime.tasks.quantiles import LEVELS, SCORED, shown

Array = np.ndarray[Any, Any]


class Forecast(NamedTuple):
    """One window, forecast. truth: what came, [H], NaN where missing. median: [H]. quantiles: [H, Q] at `LEVELS`.
    naive: the last season again, [H]. intervals: percent -> lower and upper ends, [H] each. deviation: of the series where it was
    trained on; seasonal: its mean absolute difference from a season before, up to the cutoff."""

    truth: Array
    median: Array
    quantiles: Array
    naive: Array
    intervals: dict[float, tuple[Array, Array]]
    deviation: float
    seasonal: float

    def columns(self) -> dict[str, Array]:
        """The forecast and its intervals, [H], as columns of a table are called."""
        return {"forecast": self.median, **interval_columns(self.intervals)}


def interval_columns(intervals: Mapping[float, tuple[Array, Array]]) -> dict[str, Array]:
    """Lower and upper ends by level, as columns of a table are called."""
    return {
        f"forecast-{side}-{shown(level)}": end
        for level, ends in intervals.items()
        for side, end in zip(("lo", "hi"), ends, strict=True)
    }


class _Sums:
    """Sums over windows, and over the values that are known in them."""

    def __init__(self) -> None:
        self.totals: dict[str, float] = {}
        self.counts: dict[str, float] = {}

    def add(self, name: str, values: Array | float) -> None:
        known = np.atleast_1d(values)
        known = known[np.isfinite(known)]
        self.totals[name] = self.totals.get(name, 0.0) + float(known.sum())
        self.counts[name] = self.counts.get(name, 0) + len(known)

    def mean(self, name: str) -> float | None:
        return self.totals[name] / self.counts[name] if self.counts.get(name) else None


def accuracy(forecasts: Iterable[Forecast]) -> dict[str, Any]:
    """Scores of forecasts, and of the seasonal naive forecast of the same windows.

    Returns:
        mse, mae: of the median. mse_scaled, mae_scaled: the same of values divided by their series' deviation in
        training. smape: percent, 0 to 200 (Makridakis 1993). mase: mean absolute error by that of the seasonal
        naive forecast up to the cutoff, a mean over windows (Hyndman, Koehler 2006). crps: twice the mean pinball loss at .1 to
        .9, summed over all windows, by the sum of what came (as GluonTS gives it). coverage: percent of what came that lay
        inside, by level. naive: mse to crps of the seasonal naive forecast.
    """
    ours, naive, asked = _Sums(), _Sums(), dict[float, None]()
    for f in forecasts:
        asked.update(dict.fromkeys(f.intervals))
        for sums, found in ((ours, f.median), (naive, f.naive)):
            off = np.abs(f.truth - found)
            sums.add("mse", off**2)
            sums.add("mae", off)
            sums.add("mse_scaled", (off / f.deviation) ** 2)
            sums.add("mae_scaled", off / f.deviation)
            size = np.abs(f.truth) + np.abs(found)
            sums.add("smape", np.divide(200 * off, size, out=np.where(np.isnan(off), np.nan, 0.0), where=size > 0))
            if np.isfinite(off).any() and f.seasonal > 0:
                sums.add("mase", float(np.nanmean(off)) / f.seasonal)
        levels = np.array(LEVELS[SCORED])
        for sums, quantiles in ((ours, f.quantiles[:, SCORED]), (naive, np.repeat(f.naive[:, None], len(levels), 1))):
            over = f.truth[:, None] - quantiles
            sums.add("loss", 2 * np.maximum(levels * over, (levels - 1) * over).mean(-1))
            sums.add("size", np.abs(f.truth))
        for level, (low, high) in f.intervals.items():
            inside = ((low <= f.truth) & (f.truth <= high)).astype(float)
            ours.add(shown(level), np.where(np.isfinite(f.truth), 100 * inside, np.nan))

    def values(sums: _Sums) -> dict[str, float | None]:
        found = {name: sums.mean(name) for name in ("mse", "mae", "mse_scaled", "mae_scaled", "smape", "mase")}
        size = sums.totals.get("size", 0.0)
        return {**found, "crps": sums.totals["loss"] / size if size else None}

    covered = {shown(level): ours.mean(shown(level)) for level in asked}
    return {**values(ours), "coverage": covered, "naive": values(naive)}
