"""Which frames a known sequence of units stands in, and how likely it is.

Shapes: T frames, L units, U units in all; S = 2L + 1 states of an alignment: the units in order, a blank before, between and
after them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from throughtime.decode.ctc import Array, Span, checked
from throughtime.errors import UserError


class WordSpan(NamedTuple):
    """A word and the frames it stands in, `first` to `last`, both within: from the first frame of its first unit to the last
    frame of its last. confidence: that of its least certain unit, 0 to 1, as `Span.confidence` has it."""

    word: str
    first: int
    last: int
    confidence: float


def frames_needed(units: Sequence[int]) -> int:
    """How many frames a sequence of units takes at least: one each, and a blank between a unit and the same again."""
    return len(units) + sum(a == b for a, b in pairwise(units))


def align(log_probs: Array, units: Sequence[int]) -> list[Span]:
    """The frames of each unit along the likeliest path that spells `units` (the Viterbi alignment).

    Holds T · S bytes, and 8 · T · S of the log probabilities.

    Args:
        log_probs: [T, U], natural logarithms of probabilities; unit 0 is the blank.
        units: [L], without blanks.
    Returns: a span of each unit, in order; the frames between spans are blanks.
    Raises:
        UserError where there are fewer frames than `frames_needed`, or every path has probability 0.
        ValueError where `log_probs` are not log probabilities or `units` are not of theirs.
    """
    emitted, may_skip = _states(log_probs, units)
    frames, states = emitted.shape
    if frames < frames_needed(units):
        raise UserError(
            f"{frames} frames cannot be aligned to {len(units)} units, which take at least {frames_needed(units)}; "
            "shorten the text, or lengthen the recording"
        )
    if not units:
        return []
    score = np.full(states, -np.inf)
    score[:2] = emitted[0, :2]
    came = np.zeros((frames, states), dtype=np.uint8)  # how many states before this one the path was a frame ago
    before = np.full((3, states), -np.inf)
    for t in range(1, frames):
        before[0], before[1, 1:] = score, score[:-1]
        before[2, 2:] = np.where(may_skip[2:], score[:-2], -np.inf)
        came[t] = before.argmax(0)
        score = before.max(0) + emitted[t]
    at = states - 1 if score[-1] >= score[-2] else states - 2
    if score[at] == -np.inf:
        raise UserError(f"no path of {frames} frames that spells these {len(units)} units has a probability above 0")
    path = np.zeros(frames, dtype=np.int64)
    for t in range(frames - 1, -1, -1):
        path[t] = at
        at -= int(came[t, at])
    spans = []
    for k, unit in enumerate(units):
        first, end = np.searchsorted(path, [2 * k + 1, 2 * k + 2])
        spans.append(Span(int(unit), int(first), int(end) - 1, float(emitted[first:end, 2 * k + 1].mean())))
    return spans


def log_probability(log_probs: Array, units: Sequence[int]) -> float:
    """log p(units | log_probs): the natural logarithm of the probability of all paths that spell `units`.

    Args: log_probs: [T, U]; unit 0 is the blank. units: [L], without blanks; none: of all blanks.
    Returns: -inf where there are fewer frames than `frames_needed`.
    Raises: ValueError where `log_probs` are not log probabilities or `units` are not of theirs.
    Source: Graves et al. (2006), section 4.1, the forward variable.
    """
    emitted, may_skip = _states(log_probs, units)
    if not len(emitted):
        return 0.0 if not units else -np.inf
    alpha = np.full(emitted.shape[1], -np.inf)
    alpha[:2] = emitted[0, :2]
    for row in emitted[1:]:
        before = alpha.copy()
        before[1:] = np.logaddexp(before[1:], alpha[:-1])
        before[2:] = np.where(may_skip[2:], np.logaddexp(before[2:], alpha[:-2]), before[2:])
        alpha = before + row
    return float(np.logaddexp.reduce(alpha[-2:]))


def words_of(spans: Sequence[Span], words: Iterable[tuple[str, int, int]]) -> list[WordSpan]:
    """The words that aligned units spell, and where they stand.

    Args:
        spans: of all units of an utterance, from `align` or `best_path`.
        words: of each word its text, the index into `spans` of its first unit, and the index after its last.
    """
    return [
        WordSpan(word, spans[a].first, spans[b - 1].last, min(span.confidence for span in spans[a:b]))
        for word, a, b in words
    ]


def _states(log_probs: Array, units: Sequence[int]) -> tuple[Array, Array]:
    """The log probability of each state at each frame [T, S], and which state the path may enter from two before it [S]."""
    log_probs = checked(log_probs)
    if wrong := [unit for unit in units if not 0 < unit < log_probs.shape[1]]:
        raise ValueError(f"unit {wrong[0]} is none of 1 to {log_probs.shape[1] - 1}")
    states = np.zeros(2 * len(units) + 1, dtype=np.int64)
    states[1::2] = units
    may_skip = np.zeros(len(states), dtype=bool)
    may_skip[3::2] = states[3::2] != states[1:-2:2]
    return log_probs[:, states].astype(np.float64), may_skip
