"""When the notes of a piece come: ticks as seconds, and where bars begin.

Shapes: n notes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from throughtime.tasks.pieces import Array, Metre, Piece

QUARTERS = 120.0  # a minute, where no tempo is said


def seconds_at(piece: Piece, ticks: Any) -> Array:
    """When ticks come, in seconds from the beginning: float64, of their shape. Where no tempo is said it is 120 quarters a minute;
    of several at a tick the last holds."""
    tempos = {0: QUARTERS} | {tempo.start: tempo.quarters for tempo in sorted(piece.tempos, key=lambda one: one.start)}
    starts = np.array(list(tempos), np.float64)
    lengths = 60 / (np.array(list(tempos.values())) * piece.resolution)  # seconds a tick
    begun = np.append(0, np.cumsum(np.diff(starts) * lengths[:-1]))
    at = np.searchsorted(starts, np.maximum(ticks, 0), side="right") - 1
    found: Array = begun[at] + (np.asarray(ticks) - starts[at]) * lengths[at]
    return found


def seconds(piece: Piece) -> Array:
    """Where each note begins and ends: [n, 2], in seconds from the beginning."""
    starts = piece.notes["start"].astype(np.int64)
    return seconds_at(piece, np.stack([starts, starts + piece.notes["duration"]], 1))


def bars(piece: Piece) -> Array:
    """The ticks up to the end at which bars begin; where no metre is said they have four quarters."""
    metres = [Metre(-1, 4, 4), *sorted(piece.metres)]
    found, at, here = [], piece.upbeat, 0
    while at < max(piece.end, 1):
        while here + 1 < len(metres) and metres[here + 1].start <= at:
            here += 1
        found.append(at)
        length = max(1, 4 * metres[here].beats * piece.resolution // metres[here].unit)
        following = metres[here + 1].start if here + 1 < len(metres) else at + length
        at = min(at + length, following)
    return np.array(found, np.int64)
