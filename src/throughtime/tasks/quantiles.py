"""What quantiles say of values between and beyond them, and how far they can be trusted.

Shapes: Q quantiles, H horizon, n windows.
"""

from __future__ import annotations

import math
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
JUMP = 8.0  # standard deviations: a value further out is one that stands so far, where sizes are judged
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


def widened(quantiles: Array, size: Array) -> Array:
    """Quantiles [n, ..., Q] as they are where all stands `size` times as far from the median, [n]."""
    by = size.reshape(-1, *[1] * (quantiles.ndim - 2))
    return np.stack([at(quantiles, float(z) * by) for z in DEVIATES], -1)


def distance(deviates: Array) -> Array:
    """How far out normal deviates are, by the mean of those that are normal; NaN of NaN."""
    found: Array = np.minimum(np.abs(deviates), JUMP) * (math.pi / 2) ** 0.5
    return found


class Calibration:
    """How far what came stood from what a network said, in windows that it was not trained on.

    A network that is too sure of itself has values outside of its intervals more often than it says; its distributions are
    widened, or narrowed, by how far values stood from their medians. For any level, whenever it is asked for.

    size: the mean of these distances over what the network says it is, as many experiences as `DOUBT` saying that it is right.

    Args: deviates: [n, H], of what came in held-out windows, NaN where nothing is known. apart: how many of these windows share
        no value, n where None: windows that overlap are one experience, however many they are.
    Source: conformal prediction (Vovk et al. 2005), of residuals in units of what is said of their size (Papadopoulos et al.
        2008): by a scale in place of quantiles, since little that is held out is the rule, and one number is learned from it.
    """

    def __init__(self, deviates: Array, apart: int | None = None) -> None:
        self.deviates = deviates
        self.apart = len(deviates) if apart is None else min(apart, len(deviates))
        distances = distance(deviates)
        seen = self.apart if np.isfinite(distances).any() else 0
        self.size = float((seen * np.nanmean(distances) + DOUBT) / (seen + DOUBT)) if seen else 1.0
        # one step ahead, with those of the network's own word, in ascending order, and the share of all that lies under each;
        # steps are judged together, the more the fewer the windows
        first = deviates[:, : -(-deviates.shape[1] // max(2 * self.apart // 20, 1))]
        known = first[np.isfinite(first)]
        values = np.concatenate([known, [NORMAL.inv_cdf((i + 0.5) / DOUBT) for i in range(DOUBT)]])
        weights = np.concatenate([np.full(len(known), self.apart / max(len(known), 1)), np.ones(DOUBT)])
        order = np.argsort(values, kind="stable")
        under = np.cumsum(weights[order]) - weights[order] / 2
        self._first = values[order], under / weights.sum()

    def outside(self, deviates: Array) -> Array:
        """The probability of what lies at least as far out as normal deviates [...] do, one step ahead; beyond all that was held
        out it falls as that of a normal distribution does."""
        known, share = self._first
        under = np.interp(deviates, known, share)
        both = 2 * np.minimum(under, 1 - under)
        beyond = np.where(deviates > known[-1], known[-1], np.where(deviates < known[0], known[0], deviates))
        tail = [NORMAL.cdf(-abs(float(z))) / NORMAL.cdf(-abs(float(b))) for z, b in zip(deviates, beyond, strict=True)]
        return np.where(np.isfinite(deviates), both * np.minimum(tail, 1.0), np.nan)

    def interval(self, quantiles: Array, percent: float, size: Array | None = None) -> tuple[Array, Array]:
        """Lower and upper ends [..., H] that hold so many percent of what comes, of quantiles [..., H, Q]. size: [...], in place of
        that of what was held out."""
        by = self.size if size is None else size[..., None]
        out = NORMAL.inv_cdf(0.5 + percent / 200) * by
        return at(quantiles, -out), at(quantiles, out)

    def paths(self, quantiles: Array, count: int, generator: np.random.Generator) -> Array:
        """Courses [count, H] that a series may take, of widened quantiles [H, Q]: steps that went together in the held-out windows
        go together in them; where these are fewer than `DOUBT`, an error lingers from step to step.

        Source: Clark et al. (2004), the Schaake shuffle, of errors in place of observations.
        """
        whole = self.deviates[np.isfinite(self.deviates).all(1)][:, : len(quantiles)]
        if len(whole) >= DOUBT:
            drawn = whole[generator.integers(0, len(whole), count)] / self.size
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
