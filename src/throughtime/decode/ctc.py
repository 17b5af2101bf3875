"""What the log probabilities of a network trained with CTC say at each frame, and the units along the likeliest path.

Shapes: T frames, U units; unit 0 is the blank. A path names a unit at each frame; the units it spells are its runs, each once,
without the blanks. So a unit that follows itself has a blank between.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
BLANK = 0


class Span(NamedTuple):
    """A unit and the frames it stands in, `first` to `last`, both within. log_probability: the mean of the unit's log
    probability over these frames."""

    unit: int
    first: int
    last: int
    log_probability: float

    @property
    def confidence(self) -> float:
        """The geometric mean of the unit's probability over its frames, 0 to 1."""
        return math.exp(self.log_probability)


def best_path(log_probs: Array) -> list[Span]:
    """The units along the likeliest path (greedy decoding): at each frame the likeliest unit, runs of it once, no blanks.

    A stream may be cut at any frame whose likeliest unit is the blank, and its parts decode as the whole does.

    Args: log_probs: [T, U], natural logarithms of probabilities.
    Returns: a span of each unit, in order.
    Raises: ValueError where `log_probs` are not log probabilities.
    Source: Graves et al. (2006), section 3.2, best path decoding.
    """
    log_probs = checked(log_probs)
    path = log_probs.argmax(1)
    starts = np.flatnonzero(np.diff(path, prepend=-1))
    ends = np.append(starts[1:], len(path))
    return [
        Span(int(path[a]), int(a), int(b) - 1, float(log_probs[a:b, path[a]].mean(dtype=np.float64)))
        for a, b in zip(starts, ends, strict=False)
        if path[a] != BLANK
    ]


def checked(log_probs: Array) -> Array:
    """The same array, where it is one of log probabilities, [T, U] with U at least 1.

    Raises: ValueError that says what is wrong, and in which frame.
    """
    log_probs = np.asarray(log_probs)
    if log_probs.ndim != 2 or not log_probs.shape[1] or log_probs.dtype.kind != "f":
        raise ValueError(f"log_probs must be floats [T, U], got {list(log_probs.shape)} of {log_probs.dtype}")
    most = log_probs.max(1)
    if (wrong := np.flatnonzero(~(np.isfinite(most) & (most < 0.01)))).size:
        t = int(wrong[0])
        why = "NaN" if np.isnan(most[t]) else f"{most[t]:.3g} as its greatest value"
        raise ValueError(f"frame {t} of log_probs has {why}; log probabilities are at most 0: take log_softmax")
    return log_probs
