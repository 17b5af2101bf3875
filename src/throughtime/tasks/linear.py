"""Linear forecasts: fitted in closed form, and chosen by what they say of later parts of the series that they were fitted on.

Shapes: n windows, L look-back, H horizon, Q quantiles. All values are in the scale of their window.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from throughtime.tasks import quantiles
from throughtime.tasks.base import Advance, ignore
from throughtime.tasks.ridges import Choice, Ridges, Sums, Target, naive_forecast
from throughtime.tasks.windows import Windows
from throughtime.weights import read_tensors, write_tensors

if TYPE_CHECKING:
    from torch import Tensor

Array = np.ndarray[Any, Any]
FITTED_ON = 20_000  # windows, at most
JUDGED_BY = 300  # windows, at most, of each part that was not fitted on
# of what of a series is trained on: what was fitted up to there is judged from there to the next
ENDS = (0.5, 0.65, 0.8)
VARIES = 0.2  # how much the difference of two forecasts' errors in a window is thought to vary, by the error
THOUGHT = 2  # as many parts that say so
ALIKE = 0.02  # errors that differ by less than this, by the least, tell nothing, however many windows there are
LEAST = 0.1  # what a window's deviation is taken to be at least


class Linear(NamedTuple):
    """y = x weights, weights [L, H] and x the look-back less its last value; and how far that is off, [H, Q], quantiles of what
    came less what was said, in parts of series that were not fitted on."""

    weights: Array
    spread: Array

    def save(self, path: Path) -> None:
        """Write it."""
        import torch

        write_tensors(path, {name: torch.from_numpy(part).float() for name, part in self._asdict().items()}, {})

    @staticmethod
    def open(path: Path) -> dict[str, Tensor]:
        """What `save` wrote: weights and spread."""
        return read_tensors(path)[0]


def fitted(
    train: Windows, judges: Windows, begins: Sequence[int], look_backs: Sequence[int], advance: Advance = ignore
) -> Linear:
    """The mean of linear forecasts, of some of the look-backs that the windows have in them.

    Each is ridge regression that shrinks towards seasonal naive forecasts, of the last season or of the mean of several, which
    go on growing by a share of what the series grew by. What counts is the mean absolute error in what was not fitted on: windows
    at cutoffs after each of `ENDS`, for what is fitted before it, and those that are held out. The better a look-back, a target
    and a strength do there, the more weight they have in the mean, which is itself linear.

    Args: judges: windows of whole series, what is held out with them. begins: of each of these series, from where on it is held
        out. look_backs: ascending; the last is that of the windows. advance: told of each piece done, as a share of 1.
    Returns: that of the longest look-back that has a say.
    Source: Hoerl, Kennard (1970); that a linear map is hard to beat, Zeng et al. (2023), Toner, Darlow (2024); growth by half as
        in the theta method, Assimakopoulos, Nikolopoulos (2000).
    """
    parts = list(_parts(train, judges, begins))
    share = 1 / max(len(parts) * (len(look_backs) + 1), 1)
    errors: dict[Choice, list[float]] = {}
    for sums, test in parts:
        for look_back in look_backs:
            for choice, error in Ridges(train, sums, look_back).errors(test.inputs[:, -look_back:], test.targets):
                errors.setdefault(choice, []).append(error)
            advance(share)
    apart = sum(max(1, len(s.values) // train.horizon) for s in train.series)
    say = _say(errors, apart)
    off = []
    for sums, test in parts:
        weights = _mean(train, sums, say)
        off.append(test.targets - test.inputs[:, -len(weights) :] @ weights)
        advance(share)
    return Linear(weights, _spread(np.concatenate(off), train.seasons[0]))


def _say(errors: Mapping[Choice, Sequence[float]], apart: int) -> dict[Choice, float]:
    """How much each has to say, by its errors in several parts with so many windows apart: it falls off by a factor of e for each
    standard error that it is worse than the best, to none where that is less than one part in a hundred. How much errors vary is
    seen in the parts: where a series grows fast in one and slowly in the next, one knows less which is the best."""
    found = np.array(list(errors.values()))  # [choices, parts]
    best = found[found.mean(1).argmin()]
    if not best.mean():
        shares = (found.mean(1) == 0).astype(float)
    else:
        worse, parts = (found - best) / best.mean(), found.shape[1]
        variance = np.full(len(found), THOUGHT * VARIES**2 / apart)
        if parts > 1:
            variance += (parts - 1) / parts * worse.var(1, ddof=1)
        error = np.sqrt(variance / (THOUGHT + parts - 1))
        shares = np.exp(-worse.mean(1) / np.maximum(error, ALIKE))
    shares = np.where(shares < 0.01, 0.0, shares)
    return {choice: float(share) for choice, share in zip(errors, shares / shares.sum(), strict=True) if share}


def _mean(windows: Windows, sums: Sums, say: Mapping[Choice, float]) -> Array:
    look_backs = sorted({choice.look_back for choice in say})
    found = np.zeros((look_backs[-1], windows.horizon))
    for look_back in look_backs:
        ridges = Ridges(windows, sums, look_back)
        for target in {choice.target: None for choice in say if choice.look_back == look_back}:
            shares = {c.strength: share for c, share in say.items() if c[:2] == (look_back, target)}
            naive, rest = ridges.towards(target)
            shrunk = sum((share * ridges.shrinks(strength) for strength, share in shares.items()), np.zeros(look_back))
            found[-look_back:] += sum(shares.values()) * naive + ridges.vectors * shrunk @ rest
    return found


class _Equations(NamedTuple):
    """inputs [n, L] and targets [n, H] of windows, and the deviation within each look-back, [n, 1]."""

    inputs: Array
    targets: Array
    sizes: Array


def _parts(train: Windows, judges: Windows, begins: Sequence[int]) -> Iterator[tuple[Sums, _Equations]]:
    """Sums of all windows that end before some time, and windows that come after it; last of all that are learned from, and
    those held out."""
    which, cut = train.cutoffs.T
    after = (cut + train.horizon) / np.array([len(s.values) for s in train.series])[which]
    later = judges.cutoffs[:, 1] / np.array(begins)[judges.cutoffs[:, 0]]
    total = Sums(np.zeros((train.look_back, train.look_back)), np.zeros((train.look_back, train.horizon)))
    kept = max(1, len(cut) // FITTED_ON)
    ends = [0.0, *ENDS, 1.0, np.inf]
    for before, end, beyond in zip(ends, ends[1:], ends[2:], strict=False):
        up_to = np.inf if end == 1 else end
        total = _added(total, train, np.flatnonzero((after > before) & (after <= up_to))[::kept])
        numbers = _some(np.flatnonzero((later >= end) & (later < beyond)))
        if len(numbers):
            yield total, _equations(judges, numbers)


def _added(total: Sums, windows: Windows, numbers: Array) -> Sums:
    """Sums with some windows more, each in units of its own deviation, so that those of large ones do not decide alone; what is
    missing of their targets is taken to be as the seasonal naive forecast says."""
    inner, cross = total
    naive = naive_forecast(windows, windows.look_back, Target(0.0, False, 0.0))
    for low in range(0, len(numbers), 1024):
        found = _equations(windows, numbers[low : low + 1024])
        x = found.inputs / found.sizes
        y = np.where(np.isfinite(found.targets), found.targets, found.inputs @ naive) / found.sizes
        inner, cross = inner + x.T @ x, cross + x.T @ y
    return Sums(inner, cross)


def _equations(windows: Windows, numbers: Array) -> _Equations:
    from throughtime.models.forecaster import filled

    batch = windows.batch(numbers)
    inputs = filled(batch, windows.seasons[0]).double().numpy()
    targets = (batch.target / batch.scale.unsqueeze(1)).double().numpy()
    return _Equations(inputs, targets, inputs.std(1, keepdims=True) + LEAST)


def _some(numbers: Array) -> Array:
    return numbers[np.unique(np.linspace(0, len(numbers) - 1, JUDGED_BY).astype(int))] if len(numbers) else numbers


def _spread(off: Array, season: int) -> Array:
    """Quantiles [H, Q] of what forecasts were off by, [n, H], about their median: of one shape at all steps, and as wide as they
    were at each and at those within half a season of it."""
    horizon = off.shape[1]
    known = np.isfinite(off)
    if not known.any():
        return np.zeros((horizon, len(quantiles.LEVELS)))
    wide, count = np.nansum(np.abs(off), 0), known.sum(0)
    reach = max(1, min(season, horizon) // 2)
    near = np.abs(np.subtract.outer(np.arange(horizon), np.arange(horizon))) <= reach
    size = (near @ wide) / np.maximum(near @ count, 1)
    size = np.where(size > 0, size, 1e-6)
    shape = np.quantile((off / size)[known], quantiles.LEVELS)
    return np.outer(size, shape - shape[quantiles.MEDIAN])
