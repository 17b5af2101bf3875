"""A piece of music: notes in time, whatever file it stood in.

Times are whole ticks, of which a quarter note has `resolution`. Shapes: n notes.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from throughtime.errors import UserError

Array = np.ndarray[Any, Any]

# a note: where it begins and how long it sounds, in ticks; its key, 60 is middle C; how hard it is struck, 1 to 127; of which track
NOTE = np.dtype([("start", "<i4"), ("duration", "<i4"), ("pitch", "u1"), ("velocity", "u1"), ("track", "u1")])
LOWEST, HIGHEST = 21, 108  # the keys of a piano
VELOCITY = 80  # of a note that does not say


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
    upbeat: ticks before the first whole bar. sets: it is known only which keys sound at each tick, not where they are struck.
    length: ticks, where the piece goes on in silence after its last note. part: of a file that is divided, in which it stands:
    train, valid or test."""

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
    length: int = 0
    part: str = ""

    def __len__(self) -> int:
        """How many notes there are."""
        return len(self.notes)

    @property
    def end(self) -> int:
        """The tick at which the last note ends."""
        return int((self.notes["start"] + self.notes["duration"]).max(initial=0))

    @property
    def ticks(self) -> int:
        """How long the piece is, with the silence after its last note."""
        return max(self.length, self.end)

    def transposed(self, semitones: int) -> Piece:
        """The same so much higher; of drums nothing changes."""
        notes = self.notes.copy()
        pitched = np.array([not track.drums for track in self.tracks])[notes["track"]]
        notes["pitch"][pitched] = (notes["pitch"][pitched].astype(np.int64) + semitones).astype(np.uint8)
        return replace(self, notes=notes)

    def shape(self) -> str:
        """What a piece and its transposed copies have in common, and other pieces have not: a digest."""
        notes = self.notes
        pitched = np.array([not track.drums for track in self.tracks])[notes["track"]]
        pitches = notes["pitch"].astype(np.int64) - np.where(pitched, notes["pitch"][pitched].min(initial=127), -128)
        ticks = np.stack([notes["start"], notes["duration"]], 1).astype(np.int64)
        ticks = ticks - (ticks[0, 0] if len(ticks) else 0) * np.array([1, 0])
        common = int(np.gcd.reduce(np.append(ticks.reshape(-1), 0))) or 1
        rows = np.concatenate([ticks // common, pitches[:, None]], 1)
        return hashlib.sha256(rows.tobytes()).hexdigest()


def finer(piece: Piece, times: int) -> Piece:
    """The same, with so many ticks in the place of each."""
    notes = piece.notes.copy()
    notes["start"], notes["duration"] = notes["start"] * times, notes["duration"] * times
    changes: dict[str, Any] = {name: getattr(piece, name) * times for name in ("resolution", "upbeat", "length")}
    for name in ("tempos", "metres", "keys"):
        changes[name] = tuple(one._replace(start=one.start * times) for one in getattr(piece, name))
    return replace(piece, notes=notes, **changes)


def notes_of(rows: Any) -> Array:
    """Rows of start, duration, pitch, velocity, track as notes, sorted."""
    return ordered(np.array([tuple(row) for row in rows], dtype=NOTE))


def ordered(notes: Array) -> Array:
    """Notes in order of start, track and pitch."""
    return notes[np.lexsort((notes["pitch"], notes["track"], notes["start"]))]


def apart(notes: Array) -> tuple[Array, int, int]:
    """Notes as one instrument can play them: a note ends where its key is struck again in its track, and of those struck at once
    the longest is left.

    Args: notes: [n] of NOTE, in any order.
    Returns: the notes, in order; how many end earlier than they did; how many are left out.
    """
    notes = notes[np.lexsort((notes["duration"], notes["start"], notes["pitch"], notes["track"]))]

    def alike(*names: str) -> Array:
        same = np.all([notes[name][1:] == notes[name][:-1] for name in names], axis=0)
        return np.append(same, np.zeros(min(len(notes), 1), bool))

    twice = alike("track", "pitch", "start")
    notes = notes[~twice]
    until = np.append(notes["start"][1:], notes["start"][:1]).astype(np.int64) - notes["start"]
    early = alike("track", "pitch") & (notes["duration"] > until)
    notes["duration"][early] = until[early]
    return ordered(notes), int(early.sum()), int(twice.sum())


def groups(pieces: Sequence[Piece]) -> list[int]:
    """Which pieces are the same but for their key, as `Piece.shape` has it: those have one number; they count from 0."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(piece.shape(), len(numbers)) for piece in pieces]


# -- what readers settle: what was done -> the place where it was first, how many files, how often
Settled = dict[str, tuple[str, int, int]]


def settle(settled: Settled, place: str, counts: Mapping[str, int]) -> None:
    """Take down what was done in a file. counts: how often, by what it is (`notes left out that never end`); 0 is nothing."""
    for what, count in counts.items():
        if count:
            first, files, before = settled.get(what, (place, 0, 0))
            settled[what] = first, files + 1, before + count


def tell_settled(settled: Settled) -> None:
    """Warn of what was done, once of each kind: the first place, and how many more there are."""
    for what, (place, files, count) in settled.items():
        others = "" if files == 1 else f" and {files - 1:,} more {'file' if files == 2 else 'files'}"
        warnings.warn(f"{place}{others}: {what}: {count:,}", stacklevel=3)


def on_piano(piece: Piece, settled: Settled) -> Piece:
    """A piece without what is on no key of a piano; drums are left. Raises: UserError where nothing else is left of it."""
    drums = np.array([track.drums for track in piece.tracks])[piece.notes["track"]]
    outside = ~drums & ((piece.notes["pitch"] < LOWEST) | (piece.notes["pitch"] > HIGHEST))
    if not outside.any():
        return piece
    if (outside | drums).all():
        what = (
            f"no note is on a key of a piano, {LOWEST} to {HIGHEST} (the first is {piece.notes['pitch'][outside][0]})"
        )
        raise UserError(f"{piece.place}: {what}; move it by octaves, or take it out")
    settle(
        settled,
        piece.place,
        {f"notes left out that are on no key of a piano, {LOWEST} to {HIGHEST}": int(outside.sum())},
    )
    return replace(piece, notes=piece.notes[~outside])
