"""What a written piece is put into: MIDI, sound, a picture, ABC, frames; and what is told of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from throughtime.errors import UserError, unknown
from throughtime.files import replacing
from throughtime.tasks.clock import seconds_at
from throughtime.tasks.moments import key_name
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


def places_for(out: Sequence[str], samples: int, *, overwrite: bool, sets: bool) -> list[list[Path]]:
    """Where each of some samples is to be written: of several `tune-1.mid`, `tune-2.mid` for `tune.mid`.

    Args: sets: whether pieces are frames, which JSON can hold.
    Raises: UserError for a kind of file that there is not, or one that is there already.
    """
    found = []
    for number in range(1, samples + 1):
        found.append([path.with_stem(f"{path.stem}-{number}") if samples > 1 else path for path in map(Path, out)])
    for path in (path for paths in found for path in paths):
        if path.suffix.lower() not in WRITERS:
            raise UserError(f"--out: {path}: " + unknown("kind of file", path.suffix or path.name, WRITERS))
        if path.suffix.lower() == ".json" and not sets:
            raise UserError(f"--out: {path}: JSON holds frames, and this model writes notes; use .mid or .abc")
        if path.exists() and not overwrite:
            raise UserError(f"--out: {path} is there already; use --overwrite, or name another")
        if not path.parent.is_dir():
            raise UserError(f"--out: {path.parent} is no folder; make it first")
    return found


def write(piece: Piece, path: Path, soundfont: str | None = None) -> None:
    """A piece as a file, of the kind that its name says. soundfont: that sound is played with."""
    WRITERS[path.suffix.lower()](piece, path, soundfont)


def typed(notes: str) -> Piece:
    """Notes as a user types them, a quarter note each: `C4 E4 G4`, several at once with +: `C4+E4`. Raises: UserError where one is
    none."""
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
                raise UserError(
                    f"--primer: {name!r} is no file and no note; name a file, or notes: C4 E4 G4, C4+E4 at once"
                )
            rows.append((place, 1, names[name], VELOCITY, 0))
    if not rows:
        raise UserError("--primer: is empty; name a file, or notes: C4 E4 G4")
    return Piece(notes_of(rows), 1, "--primer")


def events(piece: Piece) -> list[dict[str, Any]]:
    """The notes of a piece, those that begin together in one: seconds, and of each key, name, velocity, seconds that it lasts."""
    starts = piece.notes["start"].astype(np.int64)
    begin, end = seconds_at(piece, starts), seconds_at(piece, starts + piece.notes["duration"])
    found: list[dict[str, Any]] = []
    for note, start, stop in zip(piece.notes.tolist(), begin.tolist(), end.tolist(), strict=True):
        if not found or found[-1]["seconds"] != start:
            found.append({"seconds": start, "notes": []})
        about = {"pitch": note[2], "key": key_name(note[2]), "velocity": note[3], "seconds": stop - start}
        found[-1]["notes"].append(about)
    return found


def about(composed: Composed, paths: Sequence[Path], copied: float) -> dict[str, Any]:
    """What is told of a written piece. copied: the share of its 8-grams that stand in training pieces; NaN: it is too short."""
    piece = composed.piece
    return {
        "files": [str(path) for path in paths],
        "notes": len(piece),
        "seconds": float(seconds_at(piece, piece.ticks)),
        "nats_per_note": composed.nats,
        "copied": None if math.isnan(copied) else copied,
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
    return f"{', '.join(values['files']) or name}: {measures}; {copied}"
