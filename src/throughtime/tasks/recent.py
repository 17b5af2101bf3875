"""How far what came of late stood from what had been forecast, which says how wide intervals are to be now: what comes may be
harder to forecast than what was held out, or easier.

Shapes: E earlier cutoffs, n cutoffs, H horizon.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
LOOKS = 24  # earlier cutoffs within what is remembered
REACH = 3  # memories back, past which nothing counts
DOUBT = 0.25  # horizons of steps that say what the held-out windows say


class Recent:
    """What counts of the past: the last steps of a series, the less the older they are.

    Args: season: the longest, in steps. horizon: of what is asked.
    Source: conformal prediction by weights (Barber et al. 2023), and for a series that changes (Gibbs, Candès 2021).
    """

    def __init__(self, season: int, horizon: int) -> None:
        self.horizon = horizon
        self.memory = max(2 * season, horizon)  # steps, after which a step counts e times less
        self.reach = REACH * self.memory + horizon
        self.stride = max(1, (2 * self.memory + horizon) // LOOKS)
        self.doubt = DOUBT * horizon

    def earlier(self, cutoffs: Array, firsts: Sequence[int]) -> Array:
        """Cutoffs [E, 2] to forecast from before those that are asked for, [n, 2]: in each series none before its first."""
        found = [np.zeros((0, 2), dtype=np.int64)]
        for which in np.unique(cutoffs[:, 0]):
            asked = cutoffs[cutoffs[:, 0] == which, 1]
            low = max(firsts[which], asked.min() - self.reach)
            at = np.arange(asked.max() - 1, low - 1, -self.stride)[::-1]
            found.append(np.stack([np.full(len(at), which), at], 1))
        return np.concatenate(found)

    def sizes(self, cutoffs: Array, earlier: Array, distances: Array, held: float) -> Array:
        """The size of what is off at each cutoff [n, 2], by the distances [E, H] of what came after earlier ones, NaN where
        nothing is known, and that in held-out windows. What came after a cutoff does not count at it."""
        found = np.full(len(cutoffs), held)
        for which in np.unique(earlier[:, 0]):
            rows = earlier[:, 0] == which
            off, known = np.nan_to_num(distances[rows]), np.isfinite(distances[rows])
            first = int(earlier[rows, 1].min())
            # steps that were known, when it had come, from the first cutoff on
            last = earlier[rows, 1][:, None] - first + np.arange(1, off.shape[1] + 1)
            total, count = (
                np.bincount(last[known], weights=given[known], minlength=int(last.max()) + 1)
                for given in (off, np.ones_like(off))
            )
            asked = cutoffs[:, 0] == which
            found[asked] = self._remembered(total, count, cutoffs[asked, 1] - first, held)
        return found

    def _remembered(self, total: Array, count: Array, asked: Array, held: float) -> Array:
        """The mean at some steps of what came up to them, the older the less, with that of what was held out; steps before the
        first know nothing."""
        each = self.stride / self.horizon  # steps that a forecast of one stands for
        sums = np.zeros((len(total), 2))
        so_far, keeps = np.zeros(2), np.exp(-1 / self.memory)
        for step, came in enumerate(np.stack([total, count], 1) * each):
            so_far = keeps * so_far + came
            sums[step] = so_far
        # nothing came between the last that is known and a cutoff after it
        at = np.clip(asked, 0, len(sums) - 1)
        said, weight = (sums[at] * keeps ** np.maximum(asked - at, 0)[:, None]).T
        found: Array = (said + self.doubt * held) / (weight + self.doubt)
        return found
