"""Pieces as JSON of frames: at each step of an even grid, which keys sound, or the key of each voice.

Shapes: T frames, V voices.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from throughtime.errors import UserError
from throughtime.files import write_bytes
from throughtime.tasks.pieces import NOTE, VELOCITY, Array, Piece, Track, ordered
from throughtime.tasks.source import Source

PARTS = ("train", "valid", "test")  # how a file is divided
SILENCE = -1  # of a voice
QUARTER, SIXTEENTH = 1, 4  # frames in a quarter note: of sets of keys, and of voices
PITCHES = 128

Lists = list[list[Any]]


def read_rolls(source: Source) -> list[Piece]:
    """The pieces of a JSON file: a list of pieces, or an object that divides it, {"train": [...], "valid": [...], "test": [...]}.

    A piece is a list of frames, a frame a list of MIDI pitches. Where all frames of a file have equally many, and one of them holds
    -1 or null, or one is not in ascending order, they are those of the voices, each a track, and a frame is a sixteenth. Else they
    are the keys that sound, and a frame is a quarter note. A pitch that stays is one note: where it is struck again is not known.

    Returns: one or more, each of one or more frames, with `sets`; those of a divided file know their part.
    Raises: UserError with file, part, piece and frame where it is not JSON, not laid out so, or a pitch is no whole number from 0
        to 127; where there is no piece, or one without frames.
    """
    divided = _divided(source)
    if not any(divided.values()):
        raise UserError(f"{source.name}: holds no piece; write one as a list of frames")
    read = {
        part: [_frames(source.name, part, i, piece) for i, piece in enumerate(pieces, 1)]
        for part, pieces in divided.items()
    }
    voices = _are_voices([frame for pieces in read.values() for piece in pieces for frame in piece])
    found = []
    for part, pieces in read.items():
        for number, frames in enumerate(pieces, 1):
            place = _place(source.name, part, number)
            wrong = next((i for i, frame in enumerate(frames, 1) if SILENCE in frame), None)
            if wrong and not voices:
                what = f"{SILENCE} or null is the silence of a voice, and other frames have another number of voices"
                raise UserError(f"{place}, frame {wrong}: {what}; write silence as an empty list")
            piece = of_voices(np.array(frames), place) if voices else of_frames(frames, place)
            found.append(replace(piece, part=part))
    return found


def write_rolls(pieces: Sequence[Piece], path: Path | str, *, overwrite: bool = False) -> None:
    """Write pieces as JSON that `read_rolls` reads, divided where they are: one that has several tracks by its voices, else by its
    keys. Raises: UserError where there are none, some have voices and others have not, a voice has two notes at once, the file is
    there already and `overwrite` is not asked for, or it cannot be written."""
    if not pieces:
        raise UserError(f"{path}: there is no piece to write")
    kinds = {len(piece.tracks) for piece in pieces}
    if len(kinds) > 1:
        what = f"the pieces have {' and '.join(map(str, sorted(kinds)))} voices"
        raise UserError(f"{path}: {what}; write those of each to a file of their own")
    rows = [(piece.part, voices_of(piece).tolist() if kinds != {1} else frames_of(piece)) for piece in pieces]
    parts = list(dict.fromkeys(part for part, _ in rows))
    divided: Any = {part: [one for own, one in rows if own == part] for part in parts}
    text = json.dumps(divided[""] if parts == [""] else divided, separators=(",", ":"))
    write_bytes(Path(path), text.encode(), overwrite=overwrite)


def of_frames(frames: Sequence[Sequence[int]], place: str = "", resolution: int = QUARTER) -> Piece:
    """A piece of the keys that sound in each frame. resolution: frames in a quarter note."""
    roll = np.zeros((len(frames), PITCHES), bool)
    for time, frame in enumerate(frames):
        roll[time, list(frame)] = True
    edges = np.diff(np.pad(roll.T, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    pitch, start = np.nonzero(edges == 1)
    _, end = np.nonzero(edges == -1)
    notes = _notes(start, end, pitch, np.zeros_like(pitch))
    return Piece(notes, resolution, place, sets=True, length=len(frames))


def of_voices(voices: Array, place: str = "", resolution: int = SIXTEENTH) -> Piece:
    """A piece of the pitches of each voice, a track each. voices: [T, V], -1 is silence. resolution: frames in a quarter note."""
    count, many = voices.shape
    columns = voices.T
    fresh = np.ones_like(columns, bool)
    fresh[:, 1:] = columns[:, 1:] != columns[:, :-1]
    voice, start = np.nonzero(fresh)
    end = np.append(start[1:], count)
    end[end == 0] = count
    pitch = columns[voice, start]
    heard = pitch != SILENCE
    notes = _notes(start[heard], end[heard], pitch[heard], voice[heard])
    tracks = tuple(Track(f"voice {number + 1}") for number in range(many))
    return Piece(notes, resolution, place, tracks=tracks, sets=True, length=count)


def frames_of(piece: Piece) -> list[list[int]]:
    """The pitches that sound at each tick of a piece, ascending, but of drums: T lists."""
    roll = np.zeros((piece.ticks, PITCHES), bool)
    for note in piece.notes:
        if not piece.tracks[note["track"]].drums:
            roll[note["start"] : note["start"] + note["duration"], note["pitch"]] = True
    return [np.flatnonzero(frame).tolist() for frame in roll]


def voices_of(piece: Piece) -> Array:
    """The pitch of each track at each tick of a piece: [T, V] int64, -1 is silence. Raises: UserError where one has two at once."""
    voices = np.full((piece.ticks, len(piece.tracks)), SILENCE, np.int64)
    for note in piece.notes:
        column = voices[note["start"] : note["start"] + note["duration"], note["track"]]
        if (column != SILENCE).any():
            raise UserError(
                f"{piece.place}: voice {note['track'] + 1} has two notes at tick {note['start']}; a voice has one"
            )
        column[:] = note["pitch"]
    return voices


def _notes(start: Array, end: Array, pitch: Array, track: Array) -> Array:
    notes = np.zeros(len(start), NOTE)
    notes["start"], notes["duration"], notes["pitch"], notes["track"] = start, end - start, pitch, track
    notes["velocity"] = VELOCITY
    return ordered(notes)


def _divided(source: Source) -> dict[str, Lists]:
    """The pieces of each part of a file, as JSON has them; those of a file that is not divided are part ""."""
    text = source.text()
    try:
        value = json.loads(text.removeprefix("\ufeff"))
    except json.JSONDecodeError as error:
        raise UserError(f"{source.name}:{error.lineno}: not JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; nested too deep
        raise UserError(f"{source.name}: not JSON that can be read: {error}") from error
    parts = value if isinstance(value, dict) else {"": value}
    if other := next((part for part in parts if part not in ("", *PARTS)), None):
        raise UserError(f"{source.name}: has a part {other!r}; pieces are a list, or divided into {', '.join(PARTS)}")
    for part, pieces in parts.items():
        if not isinstance(pieces, list):
            where = f"{source.name}: {part}" if part else source.name
            raise UserError(f"{where}: got {_shown(pieces)}; it takes a list of pieces")
    return parts


def _place(name: str, part: str, number: int) -> str:
    return f"{name}: {part}, piece {number}" if part else f"{name}: piece {number}"


def _frames(name: str, part: str, number: int, piece: Any) -> list[list[int]]:
    """The frames of a piece. Raises: UserError where they are none."""
    place = _place(name, part, number)
    if not isinstance(piece, list) or not piece:
        got = "no frame" if piece == [] else _shown(piece)
        raise UserError(f"{place}: got {got}; a piece is a list of frames, each a list of MIDI pitches")
    for i, frame in enumerate(piece, 1):
        if not isinstance(frame, list):
            raise UserError(
                f"{place}, frame {i}: got {_shown(frame)}; a frame is a list of MIDI pitches, perhaps empty"
            )
        for pitch in frame:
            if pitch is not None and not _is_pitch(pitch) and not (type(pitch) in (int, float) and pitch == SILENCE):
                what = f"got {_shown(pitch)}; a pitch is a whole number from 0 to {PITCHES - 1}"
                raise UserError(f"{place}, frame {i}: {what}")
    return [[SILENCE if pitch is None else int(pitch) for pitch in frame] for frame in piece]


def _shown(value: Any) -> str:
    """How a value stands in the file, or how it begins there."""
    return json.dumps(value)[:40]


def _is_pitch(value: Any) -> bool:
    whole = value.is_integer() if isinstance(value, float) else type(value) is int
    return whole and 0 <= value < PITCHES


def _are_voices(frames: list[list[int]]) -> bool:
    """Whether frames are the pitches of voices, not sets of keys."""
    if len({len(frame) for frame in frames}) > 1 or not frames[0]:
        return False
    return any(SILENCE in frame or frame != sorted(set(frame)) for frame in frames)
