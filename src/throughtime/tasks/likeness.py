"""How like the training pieces a piece is: what it copies of them, and how often its keys and intervals occur beside theirs.

Shapes: n notes, S steps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from throughtime.errors import UserError, reason
from throughtime.files import replacing
from throughtime.tasks.pieces import Array, Piece

SIZE = 8  # steps of a gram
GRID = 12  # to a quarter note, to which the time between onsets is rounded: thirds and quarters of one are exact
WIDEST = 12  # semitones; a wider leap counts as an octave
MULTIPLIER = 0x9E3779B97F4A7C15  # odd, so that a product tells what it was of


def onsets(piece: Piece) -> list[tuple[int, tuple[int, ...]]]:
    """The ticks at which notes begin, and which keys, in ascending order, each once; of a piece known by its sets all ticks from
    the first to the last note, and which keys sound. Drums are left out."""
    notes = piece.notes[~np.array([track.drums for track in piece.tracks])[piece.notes["track"]]]
    found: dict[int, set[int]] = {}
    for start, duration, pitch in notes[["start", "duration", "pitch"]].tolist():
        for tick in range(start, start + duration) if piece.sets else (start,):
            found.setdefault(tick, set()).add(pitch)
    if piece.sets and found:
        found = {tick: found.get(tick, set()) for tick in range(min(found), max(found) + 1)}
    return [(tick, tuple(sorted(found[tick]))) for tick in sorted(found)]


def grams(piece: Piece) -> Array:
    """The n-grams of a piece, n = 8, as 64-bit hashes, in their order: [S - 7] uint64; nothing of fewer steps.

    A step is one onset after another (of a piece known by its sets one frame after another): the intervals of all its keys from the
    highest key before, and the time between, in twelfths of a quarter note. So neither transposition nor tempo hides a copy.
    Different grams have the same hash with a chance of 2^-64.

    Source: Doraisamy and Rüger (2003), Robust polyphonic music retrieval with n-grams; they take one key an onset and the ratio of
    two times, we all keys and the time itself.
    """
    steps, top = [], None
    before = 0
    for tick, keys in onsets(piece):
        if top is not None:
            time = round((tick - before) * GRID / piece.resolution)
            steps.append(_hash((time, *(key - top for key in keys))))
        top, before = keys[-1] if keys else top, tick
    if len(steps) < SIZE:
        return np.zeros(0, np.uint64)
    weights = np.array([pow(MULTIPLIER, i, 1 << 64) for i in range(SIZE)], np.uint64)
    windows = np.lib.stride_tricks.sliding_window_view(np.array(steps, np.uint64), SIZE)
    found: Array = (windows * weights).sum(1, dtype=np.uint64)  # modulo 2^64
    return found


def _hash(step: tuple[int, ...]) -> int:
    return int.from_bytes(hashlib.blake2b(repr(step).encode(), digest_size=8).digest(), "little")


@dataclass(frozen=True, eq=False)
class Grams:
    """The n-grams that stand in training pieces. hashes: [n] uint64, ascending, each once."""

    hashes: Array

    @classmethod
    def of(cls, pieces: Iterable[Piece]) -> Grams:
        """Those of pieces, however transposed."""
        return cls(np.unique(np.concatenate([np.zeros(0, np.uint64), *map(grams, pieces)])))

    def copied(self, piece: Piece) -> float:
        """The share of a piece's n-grams that stand in the training pieces, from 0 to 1; NaN of a piece too short to have one."""
        own = grams(piece)
        return float(np.isin(own, self.hashes).mean()) if len(own) else float("nan")

    def save(self, path: Path) -> None:
        """Write them into a file of NumPy (.npy), in one step. Raises: UserError where it cannot be written."""
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, self.hashes, allow_pickle=False)

    @classmethod
    def open(cls, path: Path) -> Grams:
        """Read what `save` wrote. Raises: UserError where the file is missing, or holds something else."""
        try:
            hashes = np.load(path, allow_pickle=False)
        except OSError as error:
            raise UserError(f"{path}: cannot read it: {reason(error)}") from error
        except (ValueError, EOFError) as error:
            raise UserError(f"{path}: the run is damaged: no file of n-grams; train again") from error
        if not (isinstance(hashes, np.ndarray) and hashes.dtype == np.uint64 and hashes.ndim == 1):
            raise UserError(f"{path}: the run is damaged: no file of n-grams; train again")
        if not (hashes[1:] > hashes[:-1]).all():
            raise UserError(f"{path}: the run is damaged: its n-grams are out of order; train again")
        return cls(hashes)


# -- how often


def pitch_classes(pieces: Iterable[Piece]) -> Array:
    """How much of the time that notes sound is of each pitch class, from C: [12], its sum 1, or 0 where none sounds. Each piece
    counts by its quarter notes; drums are left out."""
    counts = np.zeros(12)
    for piece in pieces:
        notes = piece.notes[~np.array([track.drums for track in piece.tracks])[piece.notes["track"]]]
        counts += np.bincount(notes["pitch"] % 12, notes["duration"] / piece.resolution, 12)
    return _shares(counts)


def intervals(pieces: Iterable[Piece]) -> Array:
    """How often the highest key of an onset lies so many semitones above that of the onset before: [25], from -12 to 12, its sum 1,
    or 0 where there is no interval. Wider leaps count as an octave. Onsets are those of `onsets`."""
    counts = np.zeros(2 * WIDEST + 1)
    for piece in pieces:
        tops = np.array([keys[-1] for _, keys in onsets(piece) if keys], np.int64)
        counts += np.bincount(np.diff(tops).clip(-WIDEST, WIDEST) + WIDEST, minlength=len(counts))
    return _shares(counts)


def histograms(pieces: Sequence[Piece]) -> dict[str, list[float]]:
    """Those of pieces by name, as JSON holds them."""
    return {"pitch_classes": pitch_classes(pieces).tolist(), "intervals": intervals(pieces).tolist()}


def overlap(one: Array, other: Array) -> float:
    """What two histograms, each of sum 1, have in common: from 0, nothing, to 1, all: 1 less their distance in total variation."""
    return float(np.minimum(one, other).sum())


def _shares(counts: Array) -> Array:
    found: Array = counts / (counts.sum() or 1)
    return found
