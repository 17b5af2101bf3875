"""Standard MIDI files as pieces, and pieces as such files. Needs the extra `music`: symusic decodes and encodes them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from throughtime.errors import UserError, reason
from throughtime.files import write_bytes
from throughtime.tasks.pieces import (
    NOTE,
    Array,
    Key,
    Metre,
    Piece,
    Settled,
    Tempo,
    Track,
    apart,
    on_piano,
    ordered,
    settle,
    tell_settled,
)

Change = TypeVar("Change", Tempo, Metre, Key)

BEGINS = b"MThd"  # as a file does
FAR = 1 << 27  # ticks: what ends later has never ended
CHANNELS = 16  # of which one is for drums
MICROSECONDS = 60e6  # in a minute
END = b"\xff\x2f\0"  # of a track
UNITS = tuple(1 << power for power in range(8))  # of a metre: 1 is a whole note
PEDAL = "notes last as long as their keys are held"
MINOR = ("minor", "dorian", "phrygian", "locrian", "aeolian")  # modes of which MIDI can say that
# after a pause of FAR ticks every key of every channel is released: what never ends is seen by that it ends there
RELEASE = (
    b"\xff\x01\0"
    + bytes([0xC0, 0x80, 0x80, 0])
    + b"\0".join(bytes([0x80 | channel, key, 0]) for channel in range(CHANNELS) for key in range(128))
    + b"\0"
    + END
)


def read_midi(given: Path | bytes, place: str | None = None, settled: Settled | None = None) -> Piece:
    """A MIDI file of type 0 or 1 as a piece, to the tick.

    A track of the piece is what a track of the file plays on one channel with one program. A note lasts as long as its key is held:
    the sustain pedal is not taken in. What a file may hold and no instrument can play is settled, counted and said: a note ends
    where its key is struck again, of two struck at once the longer is left, one without duration lasts a tick, one that never ends
    lasts until its key is struck again and else is left out, as is one outside the keys of a piano. Of several tempos, metres or
    keys at a tick the last counts. A bar begins at every metre; where the first bar has a metre of its own and is shorter than
    those that follow, it is the upbeat.

    Args: given: a file, or its bytes. place: what errors call it; None: the path. settled: what was settled is put there, so that
        `tell_settled` can say it once of all; None: a warning says it of this file.
    Raises: UserError in one line where the file cannot be read, is empty, damaged, cut off, no MIDI, of another type, counts its
        ticks in frames of film, holds no note, or drums alone; where symusic is not installed.
    Source: MIDI Manufacturers Association (1996), Standard MIDI Files 1.0.
    """
    place = place or (str(given) if isinstance(given, Path) else "<midi>")
    data = _bytes(given, place) if isinstance(given, Path) else given
    score = _decoded(data, place)
    tracks = list(score.tracks)
    notes, counts = _notes(tracks, place)
    tempos, metres, keys, wrong = _changes(score)
    upbeat, metres = _upbeat(metres, score.ticks_per_quarter)
    counts["tempos, metres or keys left out that cannot be"] = wrong
    counts[f"presses of the sustain pedal not taken in ({PEDAL})"] = sum(len(track.pedals) for track in tracks)
    all_tracks = tuple(Track(track.name.strip("\0 "), track.program, track.is_drum) for track in tracks)
    found: Settled = {} if settled is None else settled
    piece = Piece(notes, score.ticks_per_quarter, place, "", all_tracks, tempos, metres, keys, upbeat)
    piece = _heard(on_piano(piece, found))
    settle(found, place, counts)
    if settled is None:
        tell_settled(found)
    return piece


def midi_bytes(piece: Piece, *, program: int | None = None) -> bytes:
    """A piece as a MIDI file of type 1: `read_midi` gives the same notes, tempos, metres, keys, upbeat and tracks, where each has a
    note. Every note ends before its key is struck again in its track; of a mode it is kept whether it is minor.

    Args: program: of General MIDI, from 0 to 127, that plays all but the drums; None: what the tracks say.
    Raises: UserError where the piece holds no note, or what MIDI cannot: names the note, tempo, metre, key or program.
    """
    if program is not None and not 0 <= program < 128:
        raise UserError(f"program: got {program}; General MIDI has 0 to 127")
    _check(piece)
    symusic = _symusic()
    score = symusic.Score(piece.resolution)
    notes, _, _ = apart(piece.notes)
    for number, track in enumerate(piece.tracks):
        own = notes[notes["track"] == number]
        columns = [own[name].astype(kind) for name, kind in (("start", "i4"), ("duration", "i4"), ("pitch", "i1"))]
        written = symusic.Track(track.name, track.program if program is None or track.drums else program, track.drums)
        written.notes = symusic.Note.from_numpy(*columns, own["velocity"].astype("i1"))
        score.tracks.append(written)
    for tempo in piece.tempos:
        score.tempos.append(symusic.Tempo(tempo.start, mspq=round(MICROSECONDS / tempo.quarters)))
    for metre in _with_upbeat(piece):
        score.time_signatures.append(symusic.TimeSignature(*metre))
    for key in piece.keys:
        score.key_signatures.append(symusic.KeySignature(key.start, key.sharps, int(key.mode in MINOR)))
    return bytes(score.dumps_midi())


def write_midi(piece: Piece, path: Path | str, *, program: int | None = None, overwrite: bool = False) -> None:
    """Write a piece as a MIDI file, in one step; arguments and errors as `midi_bytes`.

    Raises: UserError also where the file is there already and `overwrite` is not asked for, or it cannot be written.
    """
    write_bytes(Path(path), midi_bytes(piece, program=program), overwrite=overwrite)


# -- reading


def _bytes(path: Path, place: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{place}: cannot read it: {reason(error)}") from error


def _symusic() -> Any:
    try:
        import symusic
    except ImportError as error:
        raise UserError("MIDI needs symusic, which is not installed (pip install 'throughtime[music]')") from error
    return symusic


def _decoded(data: bytes, place: str) -> Any:
    """A score of symusic, in which what never ends lasts for ever. Raises: UserError where there is none in the data."""
    if not data:
        raise UserError(f"{place}: is empty; copy it again, or take it out")
    if not data.startswith(BEGINS):
        raise UserError(f"{place}: is no MIDI file: it begins with {data[:8]!r}, not with {BEGINS!r}; name a MIDI file")
    if len(data) < 14:
        raise UserError(f"{place}: is cut off within its first {len(data)} bytes; copy it again")
    kind, count, division = (int.from_bytes(data[at : at + 2], "big") for at in (8, 10, 12))
    if kind > 1:
        raise UserError(f"{place}: is of type {kind}, of several patterns; save it as type 1 by a sequencer")
    if not 0 < division < 1 << 15:
        raise UserError(f"{place}: its ticks are no parts of a quarter note; save it so by a sequencer")
    chunks = list(_chunks(data, place))
    if (there := sum(name == b"MTrk" for name, _ in chunks)) < count:
        raise UserError(f"{place}: is cut off: it says that it has {count} tracks, and has {there}; copy it again")
    released = [(name, body[: -len(END)] + RELEASE if body.endswith(END) else body) for name, body in chunks]
    whole = data[:10] + there.to_bytes(2, "big") + data[12:14]
    whole += b"".join(name + len(body).to_bytes(4, "big") + body for name, body in released)
    try:
        return _symusic().Score.from_midi(whole)
    except (RuntimeError, ValueError) as error:
        told = str(error).removeprefix("MiniMidi: ").removesuffix(": iostream error").rstrip("!. ")
        if value := re.fullmatch(r"Get (\w+)=(-?\d+)", told):
            told = f"{value[1].replace('_', ' ')} is {value[2]}"
        raise UserError(f"{place}: is damaged: {' '.join(told.split())}; copy it again, or take it out") from error


def _chunks(data: bytes, place: str) -> Iterator[tuple[bytes, bytes]]:
    """The chunks after the header: what they are called, and what they hold. What is left where the tracks are complete is none."""
    at, tracks = 8 + int.from_bytes(data[4:8], "big"), int.from_bytes(data[10:12], "big")
    while at < len(data) and (tracks > 0 or data.startswith(b"MTrk", at)):
        length = int.from_bytes(data[at + 4 : at + 8], "big")
        if at + 8 + length > len(data):
            what = f"from byte {at:,} on it is to hold {length:,}, and holds {max(0, len(data) - at - 8):,}"
            raise UserError(f"{place}: is damaged or cut off: {what}; copy it again")
        yield data[at : at + 4], data[at + 8 : at + 8 + length]
        tracks -= data.startswith(b"MTrk", at)
        at += 8 + length


def _notes(tracks: list[Any], place: str) -> tuple[Array, dict[str, int]]:
    """The notes of symusic's tracks that an instrument can play, in order, and what was settled."""
    if len(tracks) > 256:
        raise UserError(f"{place}: has {len(tracks)} tracks, channels and programs; it takes 256: save it with fewer")
    parts = [np.zeros(len(track.notes), NOTE) for track in tracks]
    for number, (part, track) in enumerate(zip(parts, tracks, strict=True)):
        columns = track.notes.numpy()
        part["start"], part["duration"], part["track"] = columns["time"], columns["duration"], number
        part["pitch"], part["velocity"] = columns["pitch"], columns["velocity"]
    notes = ordered(np.concatenate([np.zeros(0, NOTE), *parts]))
    if len(notes) and (notes["start"].min() < 0 or notes["start"].max() >= FAR):
        raise UserError(f"{place}: is damaged: it lasts more than {FAR:,} ticks; copy it again, or take it out")
    notes, endless = _ended(notes)
    if not len(notes):
        raise UserError(f"{place}: holds no note; take it out")
    brief = notes["duration"] == 0
    notes["duration"][brief] = 1
    notes, cut, twice = apart(notes)
    drums = np.array([track.is_drum for track in tracks])[notes["track"]]
    if drums.all():
        raise UserError(f"{place}: has drums alone; pitches are what is learned: take it out")
    return notes, {
        "notes left out that never end": endless,
        "notes without duration, which are given a tick": int(brief.sum()),
        "notes cut where their key is struck again": cut,
        "notes left out for a longer one of their key, struck at once": twice,
    }


def _heard(piece: Piece) -> Piece:
    """A piece without the tracks that have no note."""
    kept, numbers = np.unique(piece.notes["track"], return_inverse=True)
    notes = piece.notes.copy()
    notes["track"] = numbers
    return replace(piece, notes=notes, tracks=tuple(piece.tracks[i] for i in kept))


def _ended(notes: Array) -> tuple[Array, int]:
    """Notes in order, without those that never end; and how many were so. Of a key with such notes, each ends at the next end."""
    ends = notes["start"].astype(np.int64) + notes["duration"]
    endless = ends >= FAR
    keep = np.ones(len(notes), bool)
    for track, pitch in sorted({(int(note["track"]), int(note["pitch"])) for note in notes[endless]}):
        here = np.flatnonzero((notes["track"] == track) & (notes["pitch"] == pitch))
        known = np.sort(np.append(ends[here][~endless[here]], FAR))
        start = notes["start"][here].astype(np.int64)
        until = known[np.searchsorted(known, start, "right")]
        until[:-1] = np.minimum(until[:-1], np.maximum(start[1:], start[:-1] + 1))
        notes["duration"][here] = until - start
        keep[here] = until < FAR
    return notes[keep], int((~keep).sum())


def _changes(score: Any) -> tuple[tuple[Tempo, ...], tuple[Metre, ...], tuple[Key, ...], int]:
    """Tempos, metres and keys, one of each at a tick; and how many there were that cannot be."""
    tempos = [Tempo(one.time, MICROSECONDS / one.mspq) for one in score.tempos if one.mspq > 0]
    metres = [
        Metre(one.time, one.numerator, one.denominator)
        for one in score.time_signatures
        if one.numerator > 0 and one.denominator > 0
    ]
    keys = [
        Key(one.time, one.key, "minor" if one.tonality else "major")
        for one in score.key_signatures
        if -7 <= one.key <= 7 and one.tonality in (0, 1)
    ]
    there = len(score.tempos) + len(score.time_signatures) + len(score.key_signatures)
    wrong = there - len(tempos) - len(metres) - len(keys)
    return _last(tempos), _last(metres), _last(keys), wrong


def _last(changes: Sequence[Change]) -> tuple[Change, ...]:
    """The last of those at each tick."""
    return tuple({change.start: change for change in changes}.values())


def _upbeat(metres: tuple[Metre, ...], resolution: int) -> tuple[int, tuple[Metre, ...]]:
    """How long the first bar is, where it has a metre of its own and is shorter than the next; and the metres without it."""
    if len(metres) > 1 and metres[0].start == 0:
        first, second = (4 * resolution * metre.beats / metre.unit for metre in metres[:2])
        if metres[1].start == first < second:
            return int(first), (metres[1]._replace(start=0), *metres[2:])
    return 0, metres


# -- writing


def _with_upbeat(piece: Piece) -> list[Metre]:
    """The metres of a piece, with one of its own for an upbeat, which MIDI knows as a short first bar."""
    metres = list(piece.metres)
    if not piece.upbeat or not metres:
        return metres
    units = [unit for unit in UNITS if piece.upbeat * unit % (4 * piece.resolution) == 0]
    if not units or metres[0].start:
        what = f"the upbeat of {piece.upbeat} ticks is no bar that MIDI can name; in the file the bars begin with the piece"
        warnings.warn(f"{piece.place or 'piece'}: {what}", stacklevel=4)
        return metres
    short = Metre(0, piece.upbeat * units[0] // (4 * piece.resolution), units[0])
    return [short, metres[0]._replace(start=piece.upbeat), *metres[1:]]


def _check(piece: Piece) -> None:
    """Raises: UserError where a piece holds what MIDI cannot."""
    place, notes = piece.place or "piece", piece.notes
    wrong = (notes["start"] < 0) | (notes["duration"] < 1) | (notes["pitch"] > 127) | (notes["velocity"] - 1 > 126)
    wrong |= notes["track"] >= len(piece.tracks)
    if wrong.any():
        number = int(np.flatnonzero(wrong)[0])
        told = ", ".join(f"{name} {notes[name][number]}" for name in NOTE.names or ())
        raise UserError(f"{place}: note {number + 1} cannot be written: {told}")
    if not len(notes):
        raise UserError(f"{place}: holds no note; nothing is written")
    if not 0 < piece.resolution < 1 << 15 or piece.end >= FAR:
        told = f"{piece.end:,} ticks, of which a quarter note has {piece.resolution:,}"
        raise UserError(f"{place}: lasts {told}; MIDI takes {FAR - 1:,}, and {(1 << 15) - 1:,}")
    can = {
        "tempo": all(0 < round(MICROSECONDS / tempo.quarters) < 1 << 24 for tempo in piece.tempos),
        "metre": all(0 < metre.beats < 256 and metre.unit in UNITS for metre in piece.metres),
        "key": all(-7 <= key.sharps <= 7 for key in piece.keys),
        "program": all(0 <= track.program < 128 for track in piece.tracks),
    }
    for what, fine in can.items():
        if not fine:
            raise UserError(f"{place}: a {what} is beyond what MIDI can say; mend it")
    if not all(track.drums for track in piece.tracks[CHANNELS - 1 :]):
        what = f"of {len(piece.tracks)} tracks those from number {CHANNELS} on share a channel of MIDI, and its program"
        warnings.warn(f"{place}: {what}", stacklevel=4)
