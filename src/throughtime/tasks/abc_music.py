"""The lines of a tune in ABC as voices: what sounds and for how long, bar lines, and what changes between them.

Source: the ABC music standard 2.1 (2011), sections 4 and 7.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from typing import Any

from throughtime.tasks.abc_fields import ACCIDENTALS, NATURALS, PLAIN, Parameters, Signature

LENGTH = r"\d*/*\d*"
NOTE = rf"(\^\^?|__?|=)?([A-Ga-g][,']*)({LENGTH})"
# a name between two signs, where it is not what notes look like: some end lines with !, and once wrote chords with +
NAMED = r"{0}(?:f{{1,4}}|\d|(?![A-Ga-gzx\d/,'^_=]+{0})[^{0}|\s\"]+){0}"
TOKEN = re.compile(
    rf"""(?P<note>{NOTE})[\s`]*
    |(?P<bar>(?:\[\||[|:])(?:\[\||[|:\]])*(?:[ ]*\[[ ]*\d[\d,.\-]*|\d[\d,.\-]*)?)
    |[\s`]+|[~.H-Wh-w)]|\((?![ ]*\d)|y{LENGTH}
    |(?P<words>"[^"]*"|{NAMED.format("!")}|{NAMED.format(chr(92) + "+")})
    |(?P<grace>\{{[^}}]*\}})
    |(?P<tuplet>\([ ]*\d+(?::\d*)*)
    |(?P<broken>>+|<+)
    |(?P<tie>-)
    |(?P<rest>[zx]{LENGTH})
    |(?P<field>\[[A-Za-z]:[^\]]*\])
    |(?P<ending>\[[ ]*\d[\d,.\-]*)
    |(?P<chord>\[(?:"[^"]*"|![^!\]]*!|[^"\]|])*\]{LENGTH}|[+](?:{NOTE})+[+]{LENGTH})
    |(?P<bars>[ZX]\d*)
    |(?P<overlay>&)
    |(?P<other>.)""",
    re.VERBOSE,
)
IN_CHORD = re.compile(rf"""{NOTE}\s*(-?)|"[^"]*"|![^!]*!|\{{[^}}]*\}}|[zxy]{LENGTH}|[\s`~.()\-H-Wh-w]|(.)""")
MEANS_NOTHING = "*#@;?$+!\\"  # what the standard keeps for later, and what is about lines
COMPOUND = (6, 9, 12)  # beats of metres in which three of a tuplet's notes are a beat
JUMP = re.compile(r"(?i)\b(d\.? ?[cs]\.?(?!\w)|fine\b|d?segno\b|coda\b|da ?c(apo|oda)\b)|\bsign$")


class UnreadableError(Exception):
    """A tune that cannot be read; the message says why. line: where."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line = line


@dataclass(slots=True)
class Sound:
    """What sounds together, nothing in a rest. length: of a whole note, until what comes next. tied: pitches that go on into what
    comes next. lengths: of each pitch, where the notes of a chord differ."""

    length: Fraction
    pitches: tuple[int, ...] = ()
    tied: tuple[int, ...] = ()
    lengths: tuple[Fraction, ...] = ()

    def scale(self, factor: Fraction) -> None:
        """Make it longer or shorter."""
        self.length *= factor
        self.lengths = tuple(length * factor for length in self.lengths)


@dataclass(slots=True)
class BarLine:
    """ends, starts: how often what stands before it, or after it, is played again. double: a double or thick line. endings: of
    which passes what follows is the ending. part: the letter of the part that begins."""

    line: int
    ends: int = 0
    starts: int = 0
    double: bool = False
    endings: frozenset[int] = frozenset()
    part: str = ""


class Overlay:
    """What follows sounds together with the bar so far, from its beginning."""


@dataclass(frozen=True)
class Change:
    """What holds from here on. what: `key`, of which the value is a Signature; `metre`, beats and unit, None where it is free;
    `tempo`, in quarters a minute."""

    what: str
    value: Any


Element = Sound | BarLine | Overlay | Change


@dataclass(slots=True)
class Voice:
    """A voice as far as it was read, and what holds where it was left.

    unit: the unit note length; lengths: those that were met, by what is written. signature: of the key. shift: semitones that it
    sounds above what is written. bar: accidentals since the last bar line. written: natural notes and their accidentals in the last
    sound; carried: those that a tie takes into what comes next. tuplet, left: a factor for so many sounds more. broken: one for
    the next sound.
    """

    unit: Fraction
    metre: tuple[int, int] | None
    signature: Signature
    propagate: str
    shift: int = 0
    parameters: Parameters = PLAIN
    program: int = 0
    drums: bool = False
    elements: list[Element] = field(default_factory=list)
    lengths: dict[str, Fraction] = field(default_factory=dict)
    bar: dict[int, int] = field(default_factory=dict)
    last: Sound | None = None
    written: tuple[tuple[int, int], ...] = ()
    carried: dict[int, int] = field(default_factory=dict)
    tuplet: Fraction = Fraction(1)
    left: int = 0
    broken: Fraction | None = None

    def length(self, text: str) -> Fraction:
        """How long a note is of which this is written. Raises: ValueError where it is no length."""
        if (found := self.lengths.get(text)) is None:
            found = self.lengths[text] = self.unit * multiple(text)
        return found

    def pitch(self, sign: str | None, letter: str) -> tuple[int, int]:
        """The natural note, and how much it is raised."""
        note = natural(letter)
        place = note % 12 if self.propagate == "pitch" else note
        if sign is not None:
            raised = ACCIDENTALS[sign]
            if self.propagate != "not":
                self.bar[place] = raised
        elif place in self.bar:
            raised = self.bar[place]
        elif note in self.carried:
            raised = self.carried[note]
        else:
            raised = self.signature.changes[note % 12]
        return note, raised

    def sound(self, length: Fraction, written: tuple[tuple[int, int], ...], pitches: tuple[int, ...]) -> Sound:
        """Add a note, a chord or a rest."""
        if self.left:
            length *= self.tuplet
            self.left -= 1
        if self.broken is not None:
            length, self.broken = length * self.broken, None
        if self.carried:
            self.carried = {}
        self.written = written
        self.last = sound = Sound(length, pitches)
        self.elements.append(sound)
        return sound


@cache
def natural(letter: str) -> int:
    """The pitch of a letter with its octave marks, without accidentals: C is 60, c and C' are 72, C, is 48."""
    return 60 + NATURALS[letter[0].upper()] + 12 * (letter[0].islower() + letter.count("'") - letter.count(","))


@cache
def multiple(text: str) -> Fraction:
    """How many unit lengths are written: 3, 3/2, / and // for a half and a quarter. Raises: ValueError where it is none."""
    above, slashes, below = re.fullmatch(r"(\d{0,5})(/*)(\d{0,5})", text).groups()  # type: ignore[union-attr]
    if int(above or 1) == 0 or int(below or 1) == 0 or (below and len(slashes) != 1):
        raise ValueError
    return Fraction(int(above or 1), int(below) if below else 2 ** len(slashes))


class Music:
    """Reads lines of music into a voice.

    Args: remark: is told what is passed over, and on which line. field: is told the letter and the text of an inline field.
    """

    def __init__(self, remark: Callable[[str, int], None], field: Callable[[str, str], None]) -> None:
        self._remark, self._field = remark, field
        self._line = 0
        self.voice: Voice
        self._read = {
            **{"bar": self._bar, "words": self._words, "grace": self._grace, "tuplet": self._tuplet},
            **{"broken": self._broken, "tie": self._tie, "rest": self._rest, "field": self._inline},
            **{"ending": self._ending, "chord": self._chord, "bars": self._bars, "overlay": self._overlay},
            "other": self._other,
        }

    def read(self, line: int, text: str) -> None:
        """Read a line. Raises: UnreadableError where what it says of the notes is not known."""
        self._line = line
        read = self._read
        try:
            for found in TOKEN.finditer(text):
                kind = found.lastgroup
                if kind == "note":
                    sign, letter, length = found.group(2, 3, 4)
                    voice = self.voice
                    one = voice.pitch(sign, letter)
                    voice.sound(voice.length(length), (one,), (one[0] + one[1] + voice.shift,))
                elif kind is not None:
                    read[kind](found[0])
        except (ValueError, AttributeError) as error:
            raise UnreadableError(line, f"{found[0].strip()!r} is no length") from error

    def _said(self, what: str) -> None:
        self._remark(what, self._line)

    def _bar(self, text: str) -> None:
        if text[:2] == "|:" and ":|" in text[1:]:
            self._said(f"{text} is read as :|")
        ends, starts, double, endings = bar_line(text)
        if text == ":":  # its bar line stands on the other line, or behind words
            starts = not self.voice.elements or isinstance(self.voice.elements[-1], BarLine)
            ends = not starts
        self.voice.elements.append(BarLine(self._line, ends, starts, double, endings))
        self.voice.bar.clear()

    def _ending(self, text: str) -> None:
        self.voice.elements.append(BarLine(self._line, endings=numbers_of(text)))

    def _words(self, text: str) -> None:
        if JUMP.search(text[1:-1]):
            self._said("jumps (D.C., D.S., Fine, Coda) are not followed")

    def _grace(self, text: str) -> None:
        self._said("grace notes are passed over")

    def _tuplet(self, text: str) -> None:
        p, q, r, *_ = (int(n[:4]) if n.strip().isdecimal() else 0 for n in f"{text[1:].strip()}::".split(":"))
        if p < 2:
            return self._said(f"({p} is no tuplet and is passed over")
        voice = self.voice
        if voice.left:
            self._said("a tuplet begins before the last one has all its notes")
        beat = 3 if voice.metre is not None and voice.metre[0] in COMPOUND else 2
        q = q or {2: 3, 3: 2, 4: 3, 6: 2, 8: 3}.get(p, beat)
        voice.tuplet, voice.left = Fraction(q, p), r or p

    def _broken(self, text: str) -> None:
        if (last := self.voice.last) is None:
            return self._said(f"{text} after no note is passed over")
        short = Fraction(1, 2 ** len(text))
        first, self.voice.broken = (2 - short, short) if text[0] == ">" else (short, 2 - short)
        last.scale(first)

    def _tie(self, text: str) -> None:
        voice = self.voice
        if voice.last is None or not voice.last.pitches:
            return self._said("a tie after no note is passed over")
        voice.last.tied, voice.carried = voice.last.pitches, dict(voice.written)

    def _rest(self, text: str) -> None:
        self.voice.sound(self.voice.length(text[1:]), (), ())

    def _bars(self, text: str) -> None:
        if self.voice.metre is None:
            raise UnreadableError(self._line, f"{text} rests for whole bars, and there is no metre")
        beats, unit = self.voice.metre
        self.voice.sound(Fraction(beats, unit) * multiple(text[1:]), (), ())

    def _inline(self, text: str) -> None:
        self._field(text[1], text[3:-1].strip())

    def _overlay(self, text: str) -> None:
        self.voice.elements.append(Overlay())
        self.voice.carried = {}

    def _chord(self, text: str) -> None:
        inside, _, length = text[1:].rpartition("]" if text[0] == "[" else "+")
        voice, written, lengths, tied = self.voice, [], [], []
        for found in IN_CHORD.finditer(inside):
            sign, letter, one, tie, other = found.groups()
            if letter:
                written.append(voice.pitch(sign, letter))
                lengths.append(multiple(one))
                tied.append(bool(tie))
            elif other and other not in MEANS_NOTHING:
                raise UnreadableError(self._line, f"{other!r} in the chord {text} is not known")
        if not written:
            return self._said(f"{text} is no chord and is passed over")
        if len({note + raised for note, raised in written}) < len(written):
            self._said("a note that stands twice in a chord is read once")
            once = list({note + raised: i for i, (note, raised) in enumerate(written)}.values())
            written, lengths, tied = ([kept[i] for i in once] for kept in (written, lengths, tied))  # type: ignore[assignment]
        pitches = tuple([note + raised + voice.shift for note, raised in written])
        sound = voice.sound(voice.length(length) * lengths[0], tuple(written), pitches)
        if len(set(lengths)) > 1:
            sound.lengths = tuple(sound.length * one / lengths[0] for one in lengths)
        sound.tied = tuple(pitch for pitch, tie in zip(sound.pitches, tied, strict=True) if tie)
        voice.carried = {note: raised for (note, raised), tie in zip(written, tied, strict=True) if tie}

    def _other(self, text: str) -> None:
        if text.isdecimal() and self.voice.elements and isinstance(self.voice.elements[-1], BarLine):
            return self._ending(text)
        if text.isdecimal() or text in "/,'^_=[{\"(":
            raise UnreadableError(self._line, f"{text!r} stands where it means nothing")
        if text not in MEANS_NOTHING:
            self._said(f"{text!r} is not known and is passed over")


@cache
def bar_line(text: str) -> tuple[int, int, bool, frozenset[int]]:
    """How often what stands before a bar line is played again, and what follows it; whether it is double; what ending follows."""
    marks = re.sub(r" *\[? *\d.*", "", text)
    before = max(map(len, re.findall(r":+(?=[^:])", marks)), default=0)
    after = len(marks) - len(marks.rstrip(":"))
    if after == len(marks):  # colons alone, half of them for either side
        before = after = max(1, after // 2)
    double = re.search(r"\|\||\]|\[", marks.replace("[|]", "|")) is not None
    return before, after, double, numbers_of(text[len(marks) :])


def numbers_of(text: str) -> frozenset[int]:
    """The passes that an ending names: 1, 1,3 or 1-3."""
    found = re.findall(r"(\d{1,2})(?:-(\d{1,2}))?", text)
    return frozenset(n for first, last in found for n in range(int(first), int(last or first) + 1))
