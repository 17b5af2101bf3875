"""A tune in ABC, from its lines: its head, and in its body the voices that the lines belong to.

Source: the ABC music standard 2.1 (2011), sections 3 and 7.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any

from throughtime.tasks.abc_fields import (
    PLAIN,
    FieldError,
    Parameters,
    Signature,
    read_key,
    read_length,
    read_metre,
    read_order,
    read_tempo,
    read_voice,
)
from throughtime.tasks.abc_music import BarLine, Change, Music, UnreadableError, Voice

Line = tuple[int, str]  # its number, and what stands in it
FIELD = re.compile(r"([A-Za-z+]):(?![|:])(.*)")
TELLS_NOTHING = "ABCDFGHNORSTUWXZrsw+"  # of the notes
HIGHEST = 127  # program of General MIDI


class Tune:
    """A tune as it is written.

    Args: line: of its X:, else the first. lines: of the head of the file, and its own. remark: is told what is passed over, and on
        which line.
    Raises: UnreadableError where what its notes are cannot be known.
    Attributes: voices: by their names, in the order in which they come. state: what holds where it
        begins, as bars have it. parts: their order, "" where there is none. name: its title.
    """

    def __init__(self, line: int, lines: Iterable[Line], remark: Callable[[str, int], None]) -> None:
        self.line, self.name, self.parts = line, "", ""
        self.voices: dict[str, Voice] = {}
        self.state: dict[str, Any] = {"key": Signature({}), "metre": None, "tempo": None}
        self._remark, self._number = remark, line
        self._music = Music(remark, self._in_body)
        self._unit: Fraction | None = None
        self._tempo, self._part, self._head, self._skips, self._sung = (line, ""), "", True, "", False
        self._start = Voice(Fraction(1, 8), None, Signature({}), "octave")
        self._named: dict[str, Parameters] = {}  # voices that the head tells of
        for number, text in lines:
            self._number = number
            try:
                self._read(text)
            except FieldError as error:
                raise UnreadableError(number, str(error)) from error

    @property
    def keyed(self) -> bool:
        """Whether it has a key, with which its head ends."""
        return not self._head

    def _read(self, text: str) -> None:
        if self._skips or text.startswith("%"):
            return self._directive(text[2:]) if text.startswith("%%") else None
        text = re.sub(r"(?<!\\)%.*", "", text).replace(r"\%", "%").strip()
        found = FIELD.match(text)
        if found is not None:
            letter, value = found[1], found[2].strip()
            self._sung = letter in "wWs+" and value.endswith("\\")
            (self._in_head if self._head else self._in_body)(letter, value)
        elif self._head and text:
            self._remark("a line in the head of a tune that is no field is passed over", self._number)
        elif self._sung:
            self._sung = text.endswith("\\")
        elif _is_prose(text):
            self._remark("a line of text among the music is passed over", self._number)
        elif text:
            if quoted := re.search(r"=(20)?$", text):
                self._remark("the = of lines that were broken by mail is passed over", self._number)
                text = text[: quoted.start()]
            self._current()
            self._music.read(self._number, text)

    def _directive(self, text: str) -> None:
        """What %% or I: says of the notes; the rest is how they are printed."""
        if block := re.match(r"(begin|end)(\w+)", text):
            self._skips = (
                block[2] if block[1] == "begin" and not self._skips else "" if block[2] == self._skips else self._skips
            )
        found = re.match(r"\s*(MIDI\s*=?\s*)?(program|channel|propagate-accidentals|\w+)\b\s*(.*)", text)
        if found is None or self._skips:
            return
        voice = self._start if self._head else self._current()
        numbers = re.findall(r"\d+", found[3])
        if found[1] and found[2] == "program" and numbers and int(numbers[-1]) <= HIGHEST:
            voice.program = int(numbers[-1])
        elif found[1] and found[2] == "channel" and numbers:
            voice.drums = numbers[0] == "10"
        elif found[2] == "propagate-accidentals" and found[3] in ("not", "octave", "pitch"):
            voice.propagate = found[3]
        elif found[1] and found[2] in ("transpose", "rtranspose", "drum", "drummap"):
            self._remark(f"MIDI {found[2]} is passed over", self._number)

    def _in_head(self, letter: str, text: str) -> None:
        if letter == "T":
            self.name = self.name or text
        elif letter == "L":
            self._unit = read_length(text)
        elif letter == "M":
            self.state["metre"] = self._metre(text)
        elif letter == "Q":
            self._tempo = self._number, text
        elif letter == "P":
            self._order(text)
        elif letter == "V":
            name, parameters = read_voice(text)
            self._named[name] = self._known(parameters)
        elif letter == "K":
            self._begin(text)
        else:
            self._other(letter, text)

    def _begin(self, text: str) -> None:
        """The key ends the head."""
        signature, parameters = read_key(text)
        metre = self.state["metre"]
        if self._unit is None:
            self._unit = Fraction(1, 16) if metre is not None and Fraction(*metre) < Fraction(3, 4) else Fraction(1, 8)
        self.state["key"] = signature or read_key("none")[0]
        self.state["tempo"] = self._beats(*self._tempo, self._unit)
        start = self._start
        start.unit, start.metre, start.signature = self._unit, metre, self.state["key"]
        start.shift = self._known(parameters).shift
        self._head = False
        for name in self._named:
            self._voice(name)
        if self._named:
            self._music.voice = next(iter(self.voices.values()))

    def _voice(self, name: str) -> Voice:
        """The voice of a name, which now is the one that is read."""
        if name not in self.voices:
            start, parameters = self._start, self._named.get(name, PLAIN)
            self.voices[name] = Voice(start.unit, start.metre, start.signature, start.propagate)
            voice = self.voices[name]
            voice.shift, voice.parameters = start.shift + parameters.shift, parameters
            voice.program, voice.drums = start.program, start.drums
            if self._part:
                voice.elements.append(BarLine(self._number, part=self._part))
        self._music.voice = self.voices[name]
        return self._music.voice

    def _current(self) -> Voice:
        return self._music.voice if self.voices else self._voice("")

    def _in_body(self, letter: str, text: str) -> None:
        if letter == "V":
            self._switch(text)
        elif letter == "P":
            self._part = text.strip('" .')
            for voice in [self._current(), *self.voices.values()][1:]:
                voice.elements.append(BarLine(self._number, part=self._part))
        elif letter == "K":
            self._key(text)
        elif letter == "M":
            voice = self._current()
            voice.metre = self._metre(text)
            voice.elements.append(Change("metre", voice.metre))
        elif letter == "L":
            self._current().unit, self._current().lengths = read_length(text), {}
        elif letter == "Q":
            if (tempo := self._beats(self._number, text, self._current().unit)) is not None:
                self._current().elements.append(Change("tempo", tempo))
        else:
            self._other(letter, text)

    def _switch(self, text: str) -> None:
        name, parameters = read_voice(text)
        if name not in self.voices:
            self._named[name] = self._known(parameters)
            self._voice(name)
        elif parameters != PLAIN:
            voice = self._voice(name)
            voice.shift += self._known(parameters).shift - voice.parameters.shift
            voice.parameters = parameters._replace(name=parameters.name or voice.parameters.name)
        else:
            self._voice(name)

    def _key(self, text: str) -> None:
        signature, parameters = read_key(text)
        voice = self._current()
        voice.shift = self._known(parameters).shift + voice.parameters.shift
        if signature is not None:
            voice.signature = signature
            voice.elements.append(Change("key", signature))

    def _other(self, letter: str, text: str) -> None:
        if letter == "I":
            self._directive(text)
        elif letter == "m":
            self._remark("macros (m:) are passed over", self._number)
        elif letter not in TELLS_NOTHING:
            self._remark(f"the field {letter}: is not known and is passed over", self._number)

    def _known(self, parameters: Parameters) -> Parameters:
        if parameters.unknown:
            self._remark("some words after a key or a voice are not known and are passed over", self._number)
        return parameters

    def _metre(self, text: str) -> tuple[int, int] | None:
        try:
            return read_metre(text)
        except FieldError as error:
            self._remark(f"{error}: the metre is taken as free", self._number)
            return None

    def _beats(self, number: int, text: str, unit: Fraction) -> float | None:
        try:
            return read_tempo(text, unit)
        except FieldError as error:
            self._remark(f"{error} and is passed over", number)
            return None

    def _order(self, text: str) -> None:
        try:
            self.parts = read_order(text)
        except FieldError as error:
            self._remark(f"{error} and is passed over", self._number)


def _is_prose(text: str) -> bool:
    """Whether a line among the music is words: no bar line, and letters side by side that stand so in no music."""
    if "|" in text:
        return False
    return len(re.findall(r"[a-z]*[h-t]{2}[a-z]*", re.sub(r'"[^"]*"|!\S*?!|\+\S*?\+', "", text))) > 1
