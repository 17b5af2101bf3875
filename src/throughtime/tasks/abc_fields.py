"""What the fields of ABC say: keys, metres, unit note lengths, tempos, the order of parts, clefs that transpose.

Source: the ABC music standard 2.1 (2011), sections 3.1 and 4.6.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

NATURALS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
FIFTHS = "FCGDAEB"  # the order in which sharps are added; flats come the other way round
ACCIDENTALS = {"^^": 2, "^": 1, "=": 0, "_": -1, "__": -2}
# how many sharps fewer than the major of the same tonic a mode has
MODES = {"major": 0, "minor": 3, "mixolydian": 1, "dorian": 2, "phrygian": 4, "lydian": -1, "locrian": 5}
NAMES = {name[:3]: name for name in MODES} | {"m": "minor", "ion": "major", "aeo": "minor", "": "major"}
CLEF = re.compile(
    r"(?:clef=)?\"?(?:treble|alto|tenor|bass|perc|none|auto|soprano|mezzosoprano|baritone|[GCFP])\d?([-+^_]8)?\"?"
)
# what changes how it is printed, not what sounds
PRINTED = re.compile(
    r"(?:middle|m|stafflines|staffscale|stems?|gstem|subname|sname|snm|brace|bracket|dyn|lyrics|gchords?|space)=.*"
    r'|merge|up|down|auto|"[^"]*"'
)
WORD = re.compile(r'[a-z]\w*=(?:"[^"]*"|[^\s"]+)|(?:\^\^?|__?|=)[A-Ga-g]\b|"[^"]*"|[^\s^_="]+(?:[_^]8)?|\S')
LONGEST = 1000  # parts that an order may come to


class FieldError(ValueError):
    """What a field says cannot be read; the message says why."""


class Signature(NamedTuple):
    """Which notes a key raises or lowers. changes: semitones, by the pitch class of the natural note. sharps, mode: as `Key` has
    them; sharps: None where no key has these notes."""

    changes: dict[int, int]
    sharps: int | None = None
    mode: str = ""


class Parameters(NamedTuple):
    """What stands in K: after the key and in V: after the voice. shift: semitones by which it sounds above what is written. name:
    of the voice. unknown: words that are not read."""

    shift: int
    name: str
    unknown: tuple[str, ...]


PLAIN = Parameters(0, "", ())  # of what says nothing


def tonic_of(sharps: int, mode: str) -> str:
    """The note on which a key of so many sharps begins: C, F#, Bb."""
    fifth = sharps + MODES.get(mode, 0) + 1
    raised = fifth // 7
    return FIFTHS[fifth % 7] + ("#" * raised if raised > 0 else "b" * -raised)


def read_key(text: str) -> tuple[Signature | None, Parameters]:
    """The key that K: tells, None where it tells of the clef alone; and what else stands there.

    Of a mode three letters count and capitals do not; an empty field is no key signature, as `none` is; the pipes, Hp and HP, have
    f and c sharp, printed or not. Raises: FieldError where it is no key.
    """
    words = WORD.findall(text.replace("♯", "#").replace("♭", "b"))
    first = words[0] if words else "none"
    if first.lower() == "none" or first[0] in "^_=":
        return _explicit(_sharp(0), words[first.lower() == "none" :], None)
    if first in ("Hp", "HP"):
        return _explicit(_sharp(2), words[1:], 3)
    found = re.fullmatch(r"([A-G])([#b]?)([A-Za-z]*)", first)
    if found is None:
        if CLEF.fullmatch(first) or "=" in first:
            return None, read_parameters(words)
        raise FieldError(f"K:{text} is no key")
    mode, rest = found[3].lower(), words[1:]
    if not mode and rest and (rest[0].lower() == "exp" or _mode(rest[0].lower()) is not None):
        mode, rest = rest[0].lower(), rest[1:]
    tonic = FIFTHS.index(found[1]) - 1 + {"": 0, "#": 7, "b": -7}[found[2]]
    if mode == "exp":
        return _explicit(_sharp(0), rest, tonic)
    if (name := _mode(mode)) is None:
        raise FieldError(f"K:{text} is no key: there is no mode {found[3]!r}")
    return _explicit(_sharp(tonic - MODES[name]), rest, tonic)


def _mode(word: str) -> str | None:
    """The mode that a word in small letters names."""
    return NAMES.get(word[:3] if len(word) > 2 else word)


def _sharp(sharps: int) -> dict[int, int]:
    """The changes of so many sharps, or below 0 flats; beyond 7 some are double."""
    return {NATURALS[letter]: (sharps + 6 - i) // 7 for i, letter in enumerate(FIFTHS)}


def _explicit(changes: dict[int, int], words: list[str], tonic: int | None) -> tuple[Signature, Parameters]:
    """A key with the accidentals that are written out. tonic: in fifths above C."""
    signs = [word for word in words if word[0] in "^_=" and word[1:]]
    changes = changes | {NATURALS[sign[-1].upper()]: ACCIDENTALS[sign[:-1]] for sign in signs}
    sharps = sum(changes.values())
    mode = None if tonic is None else next((name for name, less in MODES.items() if tonic - less == sharps), None)
    known = mode is not None and changes == _sharp(sharps)
    while known and abs(sharps) > 7:  # the same by another name
        sharps -= 12 if sharps > 0 else -12
    parameters = read_parameters([word for word in words if word not in signs])
    return Signature(changes, sharps if known else None, (mode or "") if known else ""), parameters


def read_parameters(words: list[str]) -> Parameters:
    """What the words after a key or a voice say: octave= and transpose= shift it, and so does a clef with 8 above or below."""
    shift, name, unknown = 0, "", []
    for word in words:
        what, _, value = word.partition("=")
        if (clef := CLEF.fullmatch(word)) is not None:
            shift += 0 if clef[1] is None else 12 if clef[1][0] in "+^" else -12
        elif what in ("octave", "transpose") and re.fullmatch(r"[-+]?\d{1,2}", value):
            shift += int(value) * (12 if what == "octave" else 1)
        elif what in ("name", "nm"):
            name = value.strip('"')
        elif not PRINTED.fullmatch(word):
            unknown.append(word)
    return Parameters(shift, name, tuple(unknown))


def read_voice(text: str) -> tuple[str, Parameters]:
    """The voice that V: names, and what stands after it."""
    words = WORD.findall(text)
    return (words[0], read_parameters(words[1:])) if words else ("", read_parameters([]))


def read_metre(text: str) -> tuple[int, int] | None:
    """Beats and their unit that M: tells; None where the metre is free. Raises: FieldError where it is none."""
    text = re.sub(r'"[^"]*"', "", text).strip()
    if text.lower() in ("", "none", "free"):
        return None
    if text in ("C", "C|", "c", "c|"):
        return (2, 2) if "|" in text else (4, 4)
    found = re.fullmatch(r"\(?\s*(\d{1,3}(?:\s*\+\s*\d{1,3})*)\s*\)?\s*/\s*(\d{1,3})", text)
    beats, unit = (sum(map(int, found[1].split("+"))), int(found[2])) if found else (0, 0)
    if beats == 0 or unit == 0:
        raise FieldError(f"M:{text} is no metre")
    return beats, unit


def read_length(text: str) -> Fraction:
    """The unit note length that L: tells, of a whole note. Raises: FieldError where it is none."""
    found = re.fullmatch(r"(\d{1,4})(?:\s*/\s*(\d{1,4}))?", text)
    if found is None or 0 in (above := int(found[1]), below := int(found[2] or 1)):
        raise FieldError(f"L:{text} is no length")
    return Fraction(above, below)


def read_tempo(text: str, unit: Fraction) -> float | None:
    """Quarter notes a minute that Q: tells; None where it is words alone. unit: the unit note length, of which a number that
    stands alone counts how many are played in a minute.

    Raises: FieldError where it is none.
    """
    words = re.sub(r'"[^"]*"?', "", text).strip()
    if not words:
        return None
    beats, _, count = words.rpartition("=")
    length, beats = Fraction(0), beats.strip() or "C"
    for beat in beats.split():
        found = re.fullmatch(r"(\d{1,3})\s*/\s*(\d{1,3})|C(\d{0,3})", beat)
        if found is not None and found[2] and int(found[2]):
            length += Fraction(int(found[1]), int(found[2]))
        elif found is not None and found[3] is not None:
            length += unit * int(found[3] or 1)
    if length == 0 or not re.fullmatch(r"\d{1,4}(\.\d*)?", count := count.strip()) or not float(count):
        raise FieldError(f"Q:{text} is no tempo")
    return float(length * 4) * float(count)


def read_order(text: str) -> str:
    """The letters of the parts in the order in which P: has them played, AABB for (A2B2) too; dots mean nothing.

    Raises: FieldError where it is no order.
    """
    order = re.sub(r"[\s.*]", "", text)
    if not re.fullmatch(r"[A-Z0-9()]+", order):
        raise FieldError(f"P:{text} is no order of parts")
    before = ""
    while before != order and len(order) <= LONGEST:
        before = order
        order = re.sub(r"([A-Z])(\d{1,2})|\(([A-Z]*)\)(\d{0,2})", _times, order)
    if not re.fullmatch(r"[A-Z]+", order) or len(order) > LONGEST:
        raise FieldError(f"P:{text} is no order of parts")
    return order


def _times(found: re.Match[str]) -> str:
    return (found[1] or found[3] or "") * int(found[2] or found[4] or 1)
