"""Ridge regressions of what comes on a look-back, that shrink towards seasonal naive forecasts.

Shapes: n windows, L look-back, H horizon. All values are in the scale of their window.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from throughtime.tasks.windows import Windows

Array = np.ndarray[Any, Any]
STRENGTHS = tuple(10.0**power for power in range(-4, 3))  # of a ridge, by the mean square of what is read
GROWTHS = (0.0, 0.5, 1.0)  # how much of what a series grew by goes on
SEASONS = ((False, 0.0), (True, 0.0), (True, 0.5))  # `Target`: whether all seasons are repeated, and how flat


class Target(NamedTuple):
    """What a ridge shrinks towards: seasonal naive forecasts, of the last season or, whole, of the mean of all seasons in the
    look-back; flat: how much of them is the mean of the last season at all steps; and a share of what the series grew by."""

    growth: float
    whole: bool
    flat: float


class Choice(NamedTuple):
    """Of what is chosen between: strength None is the target alone."""

    look_back: int
    target: Target
    strength: float | None


class Sums(NamedTuple):
    """Of the windows up to somewhere: xᵀx [L, L] and xᵀy [L, H]."""

    inner: Array
    cross: Array


class Ridges:
    """All ridge regressions of a look-back: towards any target, and as strong as one likes."""

    def __init__(self, windows: Windows, sums: Sums, look_back: int) -> None:
        self.windows, self.look_back = windows, look_back
        self.inner, self.cross = sums.inner[-look_back:, -look_back:], sums.cross[-look_back:]
        self.size = float(np.trace(self.inner)) / look_back or 1.0
        self.values, self.vectors = np.linalg.eigh(self.inner)

    def towards(self, target: Target) -> tuple[Array, Array]:
        """A target as a linear map, [L, H], and what is to be said beside it, along the vectors, [L, H]."""
        naive = naive_forecast(self.windows, self.look_back, target)
        return naive, self.vectors.T @ (self.cross - self.inner @ naive)

    def shrinks(self, strength: float | None) -> Array:
        """By what a ridge so strong multiplies what is said along each vector, [L]."""
        none = np.zeros(self.look_back)
        return none if strength is None else 1 / (self.values + strength * self.size)

    def errors(self, inputs: Array, targets: Array) -> Iterator[tuple[Choice, float]]:
        """Of each of them, the mean absolute error where look-backs [n, L] were followed by targets [n, H]."""
        along = inputs @ self.vectors
        for target in self.targets():
            naive, rest = self.towards(target)
            off = targets - inputs @ naive
            yield Choice(self.look_back, target, None), _error(off)
            for strength in STRENGTHS:
                yield Choice(self.look_back, target, strength), _error(off - along * self.shrinks(strength) @ rest)

    def targets(self) -> Iterator[Target]:
        """Those that differ, where the look-back has so many seasons."""
        seasonal = any(1 < season <= self.look_back for season in self.windows.seasons)
        for growth in GROWTHS if _grows(self.windows, self.look_back) else GROWTHS[:1]:
            for season in SEASONS if seasonal else SEASONS[:1]:
                yield Target(growth, *season)


def naive_forecast(windows: Windows, look_back: int, target: Target) -> Array:
    """A target as a linear map, [L, H], of what is not in the look-back the last value: the mean over its seasons, and a share of
    what the longest grew by, from the first to the last in the look-back."""
    ahead, count = np.arange(windows.horizon), len(windows.seasons)
    found, grown = np.zeros((look_back, windows.horizon)), np.zeros(windows.horizon)
    for season in windows.seasons:
        if 1 < season <= look_back:
            times = look_back // season if target.whole else 1
            for back in range(season, times * season + 1, season):
                found[look_back - back + ahead % season, ahead] += (1 - target.flat) / times / count
            found[-season:] += target.flat / season / count
            # the middle of all seasons is so much further back than the last
            grown += (1 - target.flat) * (times - 1) / 2 * season / count
    if target.growth:
        season, by = _grows(windows, look_back), np.zeros(look_back)
        by[-season:] += 1 / season
        by[:season] -= 1 / season
        grown += season * (1 + ahead // season)
        found += target.growth * np.outer(by, grown / (look_back - season))
    return found


def _grows(windows: Windows, look_back: int) -> int:
    """The longest season that is twice in a look-back, 0 where none is."""
    return max((season for season in windows.seasons if 2 * season <= look_back), default=0)


def _error(off: Array) -> float:
    return float(np.nanmean(np.abs(off))) if np.isfinite(off).any() else 0.0
