"""What quantiles say of values between and beyond them, and how far they can be trusted.

Shapes: Q quantiles, H horizon, n windows.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
LEVELS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)  # that a network gives
MEDIAN = LEVELS.index(0.5)
SCORED = slice(1, 10)  # .1 to .9: those of the continuous ranked probability score
DOUBT = 20  # values that stand for the network's own word where little was held out
LINGERS = 0.9  # the correlation of errors from step to step, where nothing shows it
FARTHEST = 20.0  # standard deviations
NORMAL = NormalDist()
DEVIATES = np.array([NORMAL.inv_cdf(level) for level in LEVELS])  # normal deviates of the levels


def at(quantiles: Array, deviates: Array | float) -> Array:
    """The value at normal deviates [...] of distributions given by their quantiles [..., Q]: between two on a straight line over
    the normal deviate, and beyond the last as it goes on there."""
    z = np.broadcast_to(deviates, quantiles.shape[:-1])
    low = np.clip(np.searchsorted(DEVIATES, z) - 1, 0, len(DEVIATES) - 2)
    below, above = (np.take_along_axis(quantiles, i[..., None], -1)[..., 0] for i in (low, low + 1))
    share = (z - DEVIATES[low]) / (DEVIATES[low + 1] - DEVIATES[low])
    return below + share * (above - below)  # type: ignore[no-any-return]


def deviate(quantiles: Array, values: Array) -> Array:
    """The normal deviate that values [...] stand at in distributions given by their quantiles [..., Q]; NaN of NaN."""
    low = np.clip((quantiles <= values[..., None]).sum(-1) - 1, 0, len(DEVIATES) - 2)
    below, above = (np.take_along_axis(quantiles, i[..., None], -1)[..., 0] for i in (low, low + 1))
    wide = above - below
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(wide > 0, (values - below) / wide, np.sign(values - below) * np.inf)
        found = DEVIATES[low] + np.nan_to_num(share, nan=0.5, posinf=np.inf, neginf=-np.inf) * (
            DEVIATES[low + 1] - DEVIATES[low]
        )
    return np.where(np.isfinite(values), np.clip(found, -FARTHEST, FARTHEST), np.nan)


class Calibration:
    """At which deviates of what a network says values really stood, from windows that it was not trained on.

    A network that is too sure of itself has values outside of its intervals more often than it says; its intervals are widened to
    those that would have held the share that is asked for. For any level, whenever it is asked for.

    Args: deviates: [n, H], of what came in held-out windows, NaN where nothing is known. apart: how many of these windows share
        no value, n where None: windows that overlap are one experience, however many they are.
    Source: conformal prediction (Vovk et al. 2005) of whole distributions (Chernozhukov et al. 2021), with as many values as
        `DOUBT` that say what the network says.
    """

    def __init__(self, deviates: Array, apart: int | None = None) -> None:
        self.deviates = deviates
        self.apart = len(deviates) if apart is None else min(apart, len(deviates))
        self._known: dict[float, tuple[Array, Array]] = {}
        horizon = deviates.shape[1]
        # steps that are judged together: the fewer the windows, the more
        self._together = -(-horizon // max(2 * self.apart // 20, 1))
        self._parts = [
            self._sorted(deviates[:, low : low + self._together]) for low in range(0, horizon, self._together)
        ]

    def _sorted(self, deviates: Array) -> tuple[Array, Array]:
        """Deviates in ascending order, with those of the network's own word, and the share of all that lies under each."""
        known = deviates[np.isfinite(deviates)]
        values = np.concatenate([known, [NORMAL.inv_cdf((i + 0.5) / DOUBT) for i in range(DOUBT)]])
        weights = np.concatenate([np.full(len(known), self.apart / max(len(known), 1)), np.ones(DOUBT)])
        order = np.argsort(values, kind="stable")
        under = np.cumsum(weights[order]) - weights[order] / 2
        return values[order], under / weights.sum()

    def deviate(self, level: float, step: int) -> float:
        """Where values stand under which a share `level` of all is, at a step of the horizon."""
        values, under = self._parts[step // self._together]
        # as if one more value had come, on the side that is asked for
        count = self.apart + DOUBT
        share = level * (1 + 1 / count) if level > 0.5 else level - (1 - level) / count
        return float(np.interp(share, under, values))

    def outside(self, deviates: Array) -> Array:
        """The probability of what lies at least as far out as normal deviates [...] do, one step ahead; beyond all that was held
        out it falls as that of a normal distribution does."""
        known, share = self._parts[0]
        under = np.interp(deviates, known, share)
        both = 2 * np.minimum(under, 1 - under)
        beyond = np.where(deviates > known[-1], known[-1], np.where(deviates < known[0], known[0], deviates))
        tail = [NORMAL.cdf(-abs(float(z))) / NORMAL.cdf(-abs(float(b))) for z, b in zip(deviates, beyond, strict=True)]
        return np.where(np.isfinite(deviates), both * np.minimum(tail, 1.0), np.nan)

    def interval(self, quantiles: Array, percent: float) -> tuple[Array, Array]:
        """Lower and upper ends [..., H] that hold so many percent of what comes, of quantiles [..., H, Q]."""
        low, high = (at(quantiles, ends[: quantiles.shape[-2]]) for ends in self.ends(percent))
        return np.minimum(low, high), np.maximum(low, high)

    def ends(self, percent: float) -> tuple[Array, Array]:
        """The deviates between which so many percent of what comes lies, for each step of the horizon, [H] each."""
        if percent not in self._known:
            low, high = (
                np.array([self.deviate(side, h) for h in range(self.deviates.shape[1])])
                for side in (0.5 - percent / 200, 0.5 + percent / 200)
            )
            self._known[percent] = low, high
        return self._known[percent]

    def paths(self, quantiles: Array, count: int, generator: np.random.Generator) -> Array:
        """Courses [count, H] that a series may take, of quantiles [H, Q]: steps that went together in the held-out windows go
        together in them; where these are fewer than `DOUBT`, an error lingers from step to step.

        Source: Clark et al. (2004), the Schaake shuffle, of errors in place of observations.
        """
        whole = self.deviates[np.isfinite(self.deviates).all(1)][:, : len(quantiles)]
        if len(whole) >= DOUBT:
            drawn = whole[generator.integers(0, len(whole), count)]
        else:
            drawn = generator.standard_normal((count, len(quantiles)))
            for h in range(1, len(quantiles)):
                drawn[:, h] = LINGERS * drawn[:, h - 1] + (1 - LINGERS**2) ** 0.5 * drawn[:, h]
        return at(np.broadcast_to(quantiles, (count, *quantiles.shape)), drawn)


def levels_of(text: str) -> list[float]:
    """Levels in percent, as "80,95". Raises: ValueError where one is none."""
    found = [float(part) for part in text.split(",")]
    if not all(0 < level < 100 for level in found):
        raise ValueError("a level is a share in percent, over 0 and under 100, as 80 or 80,95")
    return list(dict.fromkeys(found))


def shown(level: float) -> str:
    """A level as it stands in the name of a column."""
    return f"{level:g}"
