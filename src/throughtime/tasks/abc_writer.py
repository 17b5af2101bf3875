"""Pieces written as tunes in ABC notation: every note with its exact start and length, in a key, in bars.

Source: Walshaw (2011), the ABC music standard 2.1; Krumhansl and Kessler (1982) for the profiles of keys.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from throughtime.errors import UserError
from throughtime.tasks.abc_fields import ACCIDENTALS, FIFTHS, MODES, NATURALS, tonic_of
from throughtime.tasks.pieces import Array, Key, Metre, Piece

UNIT = Fraction(1, 8)  # of a whole note: what a letter alone lasts
BARS = 4  # on a line
SIGNS = {raised: sign for sign, raised in ACCIDENTALS.items()}
# how well each pitch class fits a major and a minor key, from its tonic on
MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)


class Part(NamedTuple):
    """What sounds together for so many ticks, nothing in a rest; and what of it goes on into what comes next."""

    ticks: int
    pitches: tuple[int, ...]
    tied: frozenset[int]


def write_abc(pieces: Iterable[Piece]) -> str:
    """Pieces as the text of a file of ABC, one tune each, numbered from 1; `abc_of` says how."""
    return "\n".join(abc_of(piece, number) for number, piece in enumerate(pieces, 1))


def abc_of(piece: Piece, number: int = 1) -> str:
    """A piece as a tune in ABC.

    It stands in the key it has, else in one estimated from its pitch classes; a track is a voice. Notes of a track that begin or
    end apart are tied from one chord to the next. What a bar or a change cuts is tied, and so is what no single note can be
    written for; lengths that no halving gives are tuplets. Velocities are not written.

    Args: number: that of X:.
    Returns: lines that end with \\n. `read_abc` gives the same notes of it: starts, durations in quarters, pitches, tracks.
    Raises: UserError where a note lasts no time.
    """
    if len(piece) and (short := piece.notes["duration"] <= 0).any():
        start = int(piece.notes["start"][short][0])
        raise UserError(
            f"{piece.place or piece.name}: a note at tick {start} lasts no time; take it out, or give it a tick"
        )
    times = math.lcm(4 * piece.resolution, *(metre.unit for metre in piece.metres)) // (4 * piece.resolution)
    score = _Score(piece, times)
    first = piece.metres[0] if piece.metres and piece.metres[0].start == 0 else None
    head = [
        f"X:{number}",
        f"T:{_line(piece.name)}" if piece.name else "",
        f"M:{first.beats}/{first.unit}" if first else "M:none",
    ]
    head += [f"L:{UNIT}", *(f"Q:{_tempo(tempo.quarters)}" for tempo in piece.tempos[:1] if tempo.start == 0)]
    several = len(piece.tracks) > 1
    body = []
    for i, track in enumerate(piece.tracks, 1):
        name = _line(track.name).replace('"', "'")
        said = [f"%%MIDI program {track.program}"] * (track.program > 0) + ["%%MIDI channel 10"] * track.drums
        if several or name or said:
            head.append(f"V:{i}" + (f' name="{name}"' if name else ""))
            body += [f"V:{i}", *said] if said else []
    voices = [list(score.bars(i)) for i in range(len(piece.tracks))]
    for begin in range(0, len(score.starts) - 1, BARS):
        for i, bars in enumerate(voices, 1):
            last = "|]" if begin + BARS >= len(bars) else "|"
            body.append(f"[V:{i}] " * several + " | ".join(bars[begin : begin + BARS]) + f" {last}")
    return "\n".join([*filter(None, head), f"K:{_name(score.keys[0])}", *body, ""])


def estimate_key(notes: Array) -> Key:
    """The major or minor key whose profile correlates best with how long each pitch class sounds; C major where nothing does.

    Args: notes: [n] of NOTE.
    """
    heard = np.bincount(notes["pitch"] % 12, notes["duration"].astype(np.float64), 12)
    if heard.std() == 0:
        return Key(0, 0)
    keys = [(sharps, mode) for sharps in range(-5, 7) for mode in ("major", "minor")]
    fit = {
        (sharps, mode): np.corrcoef(np.roll(heard, -7 * (sharps + MODES[mode])), MAJOR if mode == "major" else MINOR)[
            0, 1
        ]
        for sharps, mode in keys
    }
    return Key(0, *max(keys, key=lambda key: fit[key]))


class _Score:
    """A piece cut into bars, which begin at starts. times: by what ticks are multiplied, so that every bar is whole."""

    def __init__(self, piece: Piece, times: int) -> None:
        self.piece, self._times = piece, times
        self._whole = 4 * piece.resolution * times
        metres = piece.metres
        if not metres or metres[0].start > 0:
            metres = (Metre(0, 4, 4), *metres)
        lengths = [self._whole * metre.beats // metre.unit for metre in metres]
        end = piece.end * times or lengths[0]
        stops = [*(metre.start * times for metre in metres[1:]), end]
        starts = {0, end}
        for i, (metre, length, stop) in enumerate(zip(metres, lengths, stops, strict=True)):
            starts.update(range((metre.start if i else piece.upbeat) * times, min(stop, end), length))
        self.starts = sorted(starts)
        keys = piece.keys if piece.keys and piece.keys[0].start == 0 else (estimate_key(piece.notes), *piece.keys)
        self.keys = [key._replace(start=key.start * times) for key in keys]
        # fields within the tune, by tick, of all voices and of the first alone
        self._all = {key.start: f"[K:{_name(key)}]" for key in self.keys[1:]}
        for before, metre in pairwise(metres):
            if before[1:] != metre[1:] or not piece.metres[0].start:
                self._all[metre.start * times] = f"[M:{metre.beats}/{metre.unit}]" + self._all.get(
                    metre.start * times, ""
                )
        self._first = {tempo.start * times: f"[Q:{_tempo(tempo.quarters)}]" for tempo in piece.tempos if tempo.start}
        compound = metres[0].unit >= 8 and metres[0].beats in (6, 9, 12)
        self._beat = self._whole * 3 // metres[0].unit if compound else self._whole // 4

    def bars(self, track: int) -> Iterator[str]:
        """The bars of a track."""
        notes = self.piece.notes[self.piece.notes["track"] == track]
        fields = dict(self._all)
        if track == 0:
            fields |= {at: fields.get(at, "") + text for at, text in self._first.items()}
        cuts = {at for at in fields if at < self.starts[-1]} | set(self.starts)
        layers = [iter(_parts(layer, cuts, self._times)) for layer in _layers(notes)]
        speller = _Speller()
        for start, stop in pairwise(self.starts):
            speller.begin()
            cut = [_until(stop - start, layer) for layer in layers]
            sounding = [i for i, parts in enumerate(cut) if any(part.pitches for part in parts)]
            texts = []
            for i, parts in enumerate(cut[: max(sounding, default=0) + 1]):
                speller.carried = {} if i else speller.carried
                texts.append(self._bar(parts, speller, start, fields, i > 0))
            yield " & ".join(texts)

    def _bar(self, parts: Sequence[Part], speller: _Speller, start: int, fields: dict[int, str], overlay: bool) -> str:
        """What stands in a bar. fields: those within the tune, by their ticks; where it is an overlay they have stood before."""
        text, now, left = "", start, 0
        stop = start + sum(part.ticks for part in parts)
        factor = Fraction(1)
        for i, part in enumerate(parts):
            at = stop - 1 if overlay else now
            speller.sharps = [key.sharps for key in self.keys if key.start <= at][-1]
            text += " " * ((now - start) % self._beat == 0) + ("" if overlay else fields.get(now, ""))
            if not left:
                tuplet, left, factor = self._tuplet(parts[i:])
                text += tuplet
            left -= 1
            lengths = drawn(Fraction(part.ticks, self._whole) * factor / UNIT)
            for j, length in enumerate(lengths, 1):
                tied = part.tied if j == len(lengths) else frozenset(part.pitches)
                text += speller.chord(part.pitches, tied, length)
            now += part.ticks
        return text.strip()

    def _tuplet(self, parts: Sequence[Part]) -> tuple[str, int, Fraction]:
        """How a tuplet begins where one has to; of how many parts it is; and how much longer they are written than they sound."""
        lengths: list[Fraction] = []
        for part in parts:
            lengths.append(Fraction(part.ticks, self._whole))
            if _odd(sum(lengths)) == 1:
                break
        p = math.lcm(*map(_odd, lengths))
        if p == 1:
            return "", 1, Fraction(1)
        q = 2 ** (p.bit_length() - 1)
        count = sum(len(drawn(length * p / q / UNIT)) for length in lengths)
        return f"({p}" if (p, count) == (3, 3) else f"({p}:{q}:{count}", len(lengths), Fraction(p, q)


class _Speller:
    """Writes pitches in a key. sharps: of the key. bar, letters: accidentals since the last bar line, by the natural note and its
    pitch class. carried: those that are tied into what comes next."""

    def __init__(self) -> None:
        self.sharps = 0
        self.carried: dict[int, int] = {}
        self.begin()

    def begin(self) -> None:
        """Begin a bar."""
        self.bar: dict[int, int] = {}
        self.letters: dict[int, int] = {}

    def chord(self, pitches: Sequence[int], tied: frozenset[int], length: str) -> str:
        """A note, a chord or a rest. length: as it is written."""
        notes = [self._note(pitch) for pitch in pitches]
        self.carried = {
            natural: pitch - natural for (natural, _), pitch in zip(notes, pitches, strict=True) if pitch in tied
        }
        texts = [text for _, text in notes]
        if len(texts) < 2:
            return (texts[0] if texts else "z") + length + "-" * bool(tied)
        if tied != frozenset(pitches):
            texts = [text + "-" * (pitch in tied) for text, pitch in zip(texts, pitches, strict=True)]
        return f"[{''.join(texts)}]{length}" + "-" * (tied == frozenset(pitches))

    def _note(self, pitch: int) -> tuple[int, str]:
        """The natural note and the text of a pitch; its sign stands where one could read it as anything else without."""
        letter, raised = spelled(pitch % 12, self.sharps)
        natural = pitch - raised
        usual = (self.sharps + 6 - FIFTHS.index(letter)) // 7
        place = natural % 12
        held = {usual, self.bar.get(natural, usual), self.letters.get(place, usual)}
        if self.bar.get(natural) == self.letters.get(place) == raised:
            held = {raised}
        sign = ""
        if held != {raised} or self.carried.get(natural, raised) != raised:
            sign = SIGNS[raised]
            self.bar[natural] = self.letters[place] = raised
        octave = (natural - NATURALS[letter]) // 12 - 5
        marks = letter.lower() + "'" * (octave - 1) if octave > 0 else letter + "," * -octave
        return natural, sign + marks


@cache
def spelled(place: int, sharps: int) -> tuple[str, int]:
    """The letter of a pitch class in a key and how much it is raised: of twelve fifths on end, of which the scale is the middle."""
    fifth = next(n for n in range(sharps - 3, sharps + 9) if 7 * n % 12 == place)
    return FIFTHS[(fifth + 1) % 7], (fifth + 1) // 7


@cache
def drawn(units: Fraction) -> list[str]:
    """A length as those of notes that are tied: each of a power of two, with none to two dots."""
    found = []
    above, below = units.numerator, units.denominator
    while above:
        bits = f"{above:b}"
        one = re.match("1{1,3}", bits)[0].ljust(len(bits), "0")  # type: ignore[index]
        value = Fraction(int(one, 2), below)
        below_it = {1: "", 2: "/"}.get(value.denominator, f"/{value.denominator}")
        found.append(("" if value.numerator == 1 else str(value.numerator)) + below_it)
        above -= int(one, 2)
    return found


def _odd(length: Fraction | int) -> int:
    """What is left of the denominator of a length without its factors of two."""
    below = Fraction(length).denominator
    return below // (below & -below)


def _layers(notes: Array) -> list[list[tuple[int, int, int]]]:
    """Start, end and pitch of notes, in as few lists as have no pitch sound twice at a time; at least one list."""
    layers: list[list[tuple[int, int, int]]] = [[]]
    free: dict[int, list[int]] = {}  # by pitch, when it has ended in each list
    for start, duration, pitch, *_ in notes.tolist():
        ends = free.setdefault(pitch, [])
        layer = next((i for i, end in enumerate(ends) if end <= start), len(ends))
        ends[layer : layer + 1] = [start + duration]
        if layer == len(layers):
            layers.append([])
        layers[layer].append((start, start + duration, pitch))
    return layers


def _parts(notes: Sequence[tuple[int, int, int]], cuts: Iterable[int], times: int) -> Iterator[Part]:
    """Notes cut wherever one of them begins or ends, and at some ticks more. times: by what their own ticks are multiplied."""
    begin: dict[int, list[tuple[int, int]]] = {}
    points = set(cuts)
    for start, end, pitch in notes:
        begin.setdefault(start * times, []).append((pitch, end * times))
        points.update((start * times, end * times))
    sounding: dict[int, int] = {}
    for now, after in pairwise(sorted(points)):
        sounding = {pitch: end for pitch, end in sounding.items() if end > now} | dict(begin.get(now, []))
        tied = frozenset(pitch for pitch, end in sounding.items() if end > after)
        yield Part(after - now, tuple(sorted(sounding)), tied)


def _until(ticks: int, parts: Iterator[Part]) -> list[Part]:
    """The next parts that last so many ticks."""
    found: list[Part] = []
    while ticks > 0:
        found.append(next(parts))
        ticks -= found[-1].ticks
    return found


def _name(key: Key) -> str:
    """A key as K: has it."""
    mode = {"minor": "m"}.get(key.mode, key.mode[:3]) if MODES.get(key.mode) else ""
    return tonic_of(key.sharps, key.mode) + mode


def _tempo(quarters: float) -> str:
    return f"1/4={quarters:.6g}"


def _line(text: str) -> str:
    """A text on one line, in which % begins no comment."""
    return " ".join(text.split()).replace("%", "\\%")
