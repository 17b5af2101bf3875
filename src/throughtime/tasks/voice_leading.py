"""How four voices are led: parallel fifths and octaves, voices beyond their range or across each other.

Shapes: T steps, four voices from the soprano down to the bass; each holds a pitch, 60 is middle C, or -1 where it is silent.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from throughtime.errors import UserError
from throughtime.tasks.pieces import Array, Piece

VOICES = 4
SILENCE = -1
NAMES = ("soprano", "alto", "tenor", "bass")
RANGES = ((60, 81), (55, 76), (48, 69), (40, 64))  # of a choir: C4 to A5, G3 to E5, C3 to A4, E2 to E4
FIFTH, OCTAVE = 7, 0  # semitones, octaves apart or not


def voices_of(piece: Piece) -> Array:
    """The four voices of a piece at each tick: [T, 4].

    Of four tracks with one note at a time each is a voice, the one that is highest on average the soprano. Of others the keys of a
    tick are the voices, the highest first, where there are four; else which voice has which is not known, and all four are silent.

    Raises: UserError where four keys never sound at once.
    """
    tracks = [track for track in np.unique(piece.notes["track"]) if not piece.tracks[track].drums]
    parts = [piece.notes[piece.notes["track"] == track] for track in tracks]
    found = np.full((piece.end, VOICES), SILENCE, np.int16)
    if len(parts) == VOICES and all(map(_is_line, parts)):
        parts.sort(key=lambda part: -float(np.average(part["pitch"], weights=part["duration"])))
        for voice, part in enumerate(parts):
            for start, duration, pitch in part[["start", "duration", "pitch"]].tolist():
                found[start : start + duration, voice] = pitch
        return found
    keys = np.zeros((piece.end, 128), bool)
    for part in parts:
        for start, duration, pitch in part[["start", "duration", "pitch"]].tolist():
            keys[start : start + duration, pitch] = True
    whole = keys.sum(1) == VOICES
    if not whole.any():
        raise UserError(f"{piece.place or 'the piece'}: four keys never sound at once; voice leading takes four voices")
    found[whole] = np.nonzero(keys[whole])[1].reshape(-1, VOICES)[:, ::-1]
    return found


def _is_line(notes: Array) -> bool:
    """Whether no note begins before the one before it has ended."""
    ends = notes["start"] + notes["duration"]
    return len(notes) > 0 and bool((notes["start"][1:] >= ends[:-1]).all())


def voice_figures(pieces: Iterable[Array]) -> dict[str, float]:
    """How the voices of pieces are led.

    Two voices are in parallel fifths where both go up or both go down and are a perfect fifth apart before and after, octaves
    between them or not; likewise in parallel octaves, unisons among them.

    Args: pieces: of each the voices, [T, 4].
    Returns: `changes`: steps at which at least one voice that sounds before and after moves; `parallel_fifths` and
        `parallel_octaves`: pairs of voices that are, per 100 changes; `out_of_range`, and `out_of_range_soprano` to `_bass`: the
        share of the time that a voice sounds in which it lies beyond what a choir sings; `crossings`: the share of steps at which
        a voice lies above the one over it. NaN where there is nothing to take a share of.
    Raises: UserError where a piece has not four voices.
    """
    changes = fifths = octaves = crossed = steps = 0
    beyond, sounding = np.zeros(VOICES), np.zeros(VOICES)
    low, high = np.array(RANGES).T
    for voices in pieces:
        if voices.ndim != 2 or voices.shape[1] != VOICES:
            raise UserError(f"voices: got an array of {list(voices.shape)}; it takes [T, {VOICES}]")
        voices = voices.astype(np.int64)
        heard = voices != SILENCE
        sounding += heard.sum(0)
        beyond += (heard & ((voices < low) | (voices > high))).sum(0)
        above = heard[:, :-1] & heard[:, 1:] & (voices[:, 1:] > voices[:, :-1])
        crossed, steps = crossed + int(above.any(1).sum()), steps + int(heard.any(1).sum())
        moves = np.where(heard[1:] & heard[:-1], np.sign(np.diff(voices, axis=0)), 0)
        changes += int(moves.any(1).sum())
        fifths += _parallel(voices, moves, FIFTH)
        octaves += _parallel(voices, moves, OCTAVE)
    shares = {f"out_of_range_{name}": _share(beyond[i], sounding[i]) for i, name in enumerate(NAMES)}
    return {
        "changes": changes,
        "parallel_fifths": 100 * _share(fifths, changes),
        "parallel_octaves": 100 * _share(octaves, changes),
        "out_of_range": _share(beyond.sum(), sounding.sum()),
        **shares,
        "crossings": _share(crossed, steps),
    }


def _parallel(voices: Array, moves: Array, interval: int) -> int:
    """How many pairs of voices move together, so far apart before and after, but for octaves; moves: [T - 1, 4], signs."""
    count = 0
    for upper in range(VOICES):
        for lower in range(upper + 1, VOICES):
            apart = np.abs(voices[:, upper] - voices[:, lower]) % 12 == interval
            together = (moves[:, upper] == moves[:, lower]) & (moves[:, upper] != 0)
            count += int((apart[1:] & apart[:-1] & together).sum())
    return count


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")
