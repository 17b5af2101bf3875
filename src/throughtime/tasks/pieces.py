"""A piece of music: notes in time, whatever file it stood in.

Times are whole ticks, of which a quarter note has `resolution`. Shapes: n notes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]

# a note: where it begins and how long it sounds, in ticks; its key, 60 is middle C; how hard it is struck, 1 to 127; of which track
NOTE = np.dtype([("start", "<i4"), ("duration", "<i4"), ("pitch", "u1"), ("velocity", "u1"), ("track", "u1")])
LOWEST, HIGHEST = 21, 108  # the keys of a piano
VELOCITY = 80  # of a note that does not say
QUARTERS = 120.0  # a minute, where no tempo is said


class Track(NamedTuple):
    """A voice or an instrument. program: of General MIDI, from 0. drums: its keys are no pitches."""

    name: str = ""
    program: int = 0
    drums: bool = False


class Tempo(NamedTuple):
    """Quarter notes a minute, from a tick on."""

    start: int
    quarters: float


class Metre(NamedTuple):
    """What stands in a bar from a tick on, where a bar begins: so many of a whole note's parts; 6, 8 is six eighths."""

    start: int
    beats: int
    unit: int


class Key(NamedTuple):
    """From a tick on: sharps where positive, else flats, -7 to 7; and the mode: major, minor, dorian, ..."""

    start: int
    sharps: int
    mode: str = "major"


@dataclass(frozen=True, eq=False)
class Piece:
    """A piece. notes: [n] of NOTE, in order of start, track and pitch. place: the file, and where in it. name: its title.
    upbeat: ticks before the first whole bar. sets: it is known only which keys sound at each tick, not where they are struck."""

    notes: Array
    resolution: int
    place: str = ""
    name: str = ""
    tracks: tuple[Track, ...] = (Track(),)
    tempos: tuple[Tempo, ...] = ()
    metres: tuple[Metre, ...] = ()
    keys: tuple[Key, ...] = ()
    upbeat: int = 0
    sets: bool = False

    def __len__(self) -> int:
        """How many notes there are."""
        return len(self.notes)

    @property
    def end(self) -> int:
        """The tick at which the last note ends."""
        return int((self.notes["start"] + self.notes["duration"]).max(initial=0))

    def transposed(self, semitones: int) -> Piece:
        """The same so much higher; of drums nothing changes."""
        notes = self.notes.copy()
        pitched = np.array([not track.drums for track in self.tracks])[notes["track"]]
        notes["pitch"][pitched] = (notes["pitch"][pitched].astype(np.int64) + semitones).astype(np.uint8)
        return replace(self, notes=notes)

    def shape(self) -> str:
        """What a piece and its transposed copies have in common, and other pieces have not: a digest."""
        notes = self.notes
        base = int(notes["pitch"].min(initial=127))
        ticks = np.stack([notes["start"], notes["duration"]], 1).astype(np.int64)
        ticks = ticks - (ticks[0, 0] if len(ticks) else 0) * np.array([1, 0])
        common = int(np.gcd.reduce(np.append(ticks.reshape(-1), 0))) or 1
        rows = np.concatenate([ticks // common, (notes["pitch"].astype(np.int64) - base)[:, None]], 1)
        return hashlib.sha256(rows.tobytes()).hexdigest()


def notes_of(rows: Any) -> Array:
    """Rows of start, duration, pitch, velocity, track as notes, sorted."""
    notes = np.array([tuple(row) for row in rows], dtype=NOTE)
    return notes[np.lexsort((notes["pitch"], notes["track"], notes["start"]))]


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
