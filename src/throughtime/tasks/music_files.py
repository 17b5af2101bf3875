"""What a written piece is put into: MIDI, sound, a picture, ABC, frames, lines for a player; and what is told of it.

A player at the other end of a pipe is given an object of JSON a line, in order of time, as the piece is written:

    {"seconds": 1.2, "off": [{"track": 0, "pitch": 60, "key": "C4"}]}
    {"seconds": 1.2, "on": [{"track": 0, "program": 0, "pitch": 64, "key": "E4", "velocity": 80}]}

seconds: from the beginning of the piece. program: of General MIDI, 128 is drums. A key that is struck again while it sounds is let
go first, and at the end no key is left on.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from throughtime.errors import UserError, unknown
from throughtime.files import replacing
from throughtime.tasks.clock import seconds_at
from throughtime.tasks.event_values import DRUMS
from throughtime.tasks.likeness import histograms, overlap
from throughtime.tasks.moments import Moment, Writing, key_name
from throughtime.tasks.pieces import LOWEST, VELOCITY, Piece, finer, notes_of

if TYPE_CHECKING:
    from throughtime.tasks.composing import Composed


FINE = 480  # ticks a quarter note of a MIDI file, about: players count on that many


def _midi(piece: Piece, path: Path, _: str | None) -> None:
    from throughtime.tasks.midi import write_midi

    write_midi(finer(piece, max(FINE // piece.resolution, 1)), path, overwrite=True)


def _wav(piece: Piece, path: Path, soundfont: str | None) -> None:
    from throughtime.tasks.synthesiser import write_wav

    write_wav(piece, path, overwrite=True, soundfont=soundfont)


def _png(piece: Piece, path: Path, _: str | None) -> None:
    from throughtime.tasks.piano_roll import draw_roll

    draw_roll(piece, path, overwrite=True)


def _abc(piece: Piece, path: Path, _: str | None) -> None:
    from throughtime.tasks.abc_writer import write_abc

    with replacing(path) as temporary:
        temporary.write_text(write_abc([piece]), encoding="utf-8")


def _json(piece: Piece, path: Path, _: str | None) -> None:
    from throughtime.tasks.rolls import write_rolls

    write_rolls([piece], path, overwrite=True)


WRITERS: dict[str, Callable[[Piece, Path, str | None], None]] = {
    ".mid": _midi,
    ".midi": _midi,
    ".wav": _wav,
    ".png": _png,
    ".abc": _abc,
    ".json": _json,
}


def places_for(
    out: Sequence[str], samples: int, *, overwrite: bool, sets: bool, option: str = "--out"
) -> list[list[Path]]:
    """Where each of some samples is to be written: of several `tune-1.mid`, `tune-2.mid` for `tune.mid`.

    Args: sets: whether pieces are frames, which JSON can hold. option: what names the files.
    Raises: UserError for a kind of file that there is not, or one that is there already.
    """
    found = []
    for number in range(1, samples + 1):
        found.append([path.with_stem(f"{path.stem}-{number}") if samples > 1 else path for path in map(Path, out)])
    for path in (path for paths in found for path in paths):
        if path.suffix.lower() not in WRITERS:
            raise UserError(f"{option}: {path}: " + unknown("kind of file", path.suffix or path.name, WRITERS))
        if path.suffix.lower() == ".json" and not sets:
            raise UserError(f"{option}: {path}: JSON holds frames, and this model writes notes; use .mid or .abc")
        if path.exists() and not overwrite:
            raise UserError(f"{option}: {path} is there already; use --overwrite, or name another")
        if not path.parent.is_dir():
            raise UserError(f"{option}: {path.parent} is no folder; make it first")
    return found


def write(piece: Piece, path: Path, soundfont: str | None = None) -> None:
    """A piece as a file, of the kind that its name says. soundfont: that sound is played with."""
    WRITERS[path.suffix.lower()](piece, path, soundfont)


def typed(notes: str, verb: str, what: str = "note") -> Piece:
    """Notes as a user types them, a quarter note each: `C4 E4 G4`, several at once with +: `C4+E4`.

    Args: verb: what they are given to. what: that takes. Raises: UserError where one is none.
    """
    names = {key_name(pitch).lower(): pitch for pitch in range(128)}
    names |= {
        name.replace(f"{a}#", f"{b}b"): pitch
        for name, pitch in names.items()
        for a, b in zip("cdfga", "degab", strict=True)
    }
    rows = []
    for place, chord in enumerate(notes.split()):
        for name in chord.lower().split("+"):
            if names.get(name, 0) < LOWEST:
                raise UserError(f"{verb}: {name!r} is no {what}; notes are given as C4 E4 G4, those at once as C4+E4")
            rows.append((place, 1, names[name], VELOCITY, 0))
    return Piece(notes_of(rows), 1, verb)


class Playing:
    """A piece as a player hears it: what is struck and what is let go, as its moments come.

    Args: writing: of the moments. tempo: quarter notes a minute, program: of the tracks that are no drums; None: as they say.
    """

    def __init__(self, writing: Writing, tempo: float | None = None, program: int | None = None) -> None:
        self.writing, self.tempo, self.program = writing, tempo, program
        self.walker = writing.walker()
        self._until: dict[tuple[int, int], int] = {}  # (track, pitch) of what sounds -> the step at which it ends
        self._clock = self._time()

    def read(self, moment: Moment, end: int | None) -> Iterator[dict[str, Any]]:
        """Go on by a moment. end: the step from which on nothing is struck. Yields: lines, of all up to this moment."""
        self.walker.read(moment)
        step, piece, time = self.walker.step, self.writing.piece([moment]), self._time()
        if end is not None and step >= end:
            return
        struck = {(note["track"], note["pitch"]): note for note in piece.notes}
        goes_on = {key for key in struck if piece.sets and self._until.get(key) == step}
        self._until |= {key: step for key in struck if self._until.get(key, 0) > step}
        yield from self._let_go(step, goes_on)
        self._clock = time
        if fresh := [self._told(note) for key, note in struck.items() if key not in goes_on]:
            yield {"seconds": round(time(step), 6), "on": fresh}
        self._until |= {key: step + int(note["duration"]) for key, note in struck.items()}

    def close(self, end: int | None) -> Iterator[dict[str, Any]]:
        """Lines that let go of all that sounds, at the step `end` at the latest."""
        last = max(self._until.values(), default=0)
        if end is not None:
            self._until = {key: min(until, end) for key, until in self._until.items()}
        yield from self._let_go(last, set())

    def _let_go(self, step: int, goes_on: set[tuple[int, int]]) -> Iterator[dict[str, Any]]:
        """Lines of what ends up to a step."""
        over = sorted((until, key) for key, until in self._until.items() if until <= step and key not in goes_on)
        for until, some in itertools.groupby(over, key=lambda one: one[0]):
            keys = [key for _, key in some]
            told = [{"track": int(track), "pitch": int(pitch), "key": key_name(int(pitch))} for track, pitch in keys]
            yield {"seconds": round(self._clock(until), 6), "off": told}
            for key in keys:
                del self._until[key]

    def _time(self) -> Callable[[int], float]:
        """Seconds of a step from the last moment on, as long as the tempo is what it is."""
        tempo = self.tempo or self.walker.tempo
        second = 60 / (tempo * self.writing.grid)
        step = self.walker.step
        seconds = self.walker.seconds if self.tempo is None else step * second
        return lambda at: seconds + (at - step) * second

    def _told(self, note: Any) -> dict[str, Any]:
        """A note that is struck."""
        _, _, pitch, velocity, track = (int(value) for value in note)
        program = self.walker.programs[track] if track < len(self.walker.programs) else 0
        if self.program is not None and program != DRUMS:
            program = self.program
        return {"track": track, "program": program, "pitch": pitch, "key": key_name(pitch), "velocity": velocity}


def events(playing: Playing, moments: Iterable[Moment], end: Callable[[], int | None]) -> Iterator[dict[str, Any]]:
    """The lines of a piece, those of each moment as soon as it comes. end: tells the step at which it ends, None if any."""
    for moment in moments:
        yield from playing.read(moment, end())
    yield from playing.close(end())


def about(
    composed: Composed, paths: Sequence[Path], copied: float, training: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    """What is told of a written piece: how often its pitch classes and intervals occur, and what of that it has in common with the
    training pieces, too.

    Args: copied: the share of its 8-grams that stand in training pieces; NaN: it is too short. training: their `histograms`.
    """
    piece = composed.piece
    own = histograms([piece])
    return {
        "files": [str(path) for path in paths],
        "notes": len(piece),
        "seconds": float(seconds_at(piece, piece.ticks)),
        "nats_per_note": composed.nats,
        "copied": None if math.isnan(copied) else copied,
        "in_common": {name: overlap(np.array(own[name]), np.array(training[name])) for name in own},
        "histograms": own,
    }


def told(values: Mapping[str, Any], name: str) -> str:
    """The same in words. name: of what is in no file."""
    share = values["copied"]
    copied = (
        "too short to copy"
        if share is None
        else f"{100 * share:.0f} % copied: of its 8-grams so many stand in training pieces"
    )
    measures = f"{values['notes']:,} notes, {values['seconds']:.0f} s, {values['nats_per_note']:.2f} nats a note"
    shared = values["in_common"]
    common = f"{100 * shared['pitch_classes']:.0f} % of pitch classes and {100 * shared['intervals']:.0f} % of intervals as there"
    return f"{', '.join(values['files']) or name}: {measures}; {copied}; {common}"
