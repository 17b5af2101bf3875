"""What the page asks."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from throughtime.config import Strict
from throughtime.serve.bodies import Time, Token, Top

LONGEST = 20_000  # tokens of a text
CHANGES = 1000  # of a text
WRITTEN = 1000  # tokens that a model is asked to write
MOMENTS = 4000  # of a piece of music
BARS = 64  # of music that a model is asked to write
SERIES = 500  # whose names are listed
Count = Annotated[int, Field(ge=0, lt=2**31)]


class Change(Strict):
    """A change of the past at a time: the token that is read there becomes another, or a number of the state there."""

    time: Time
    token: Token | None = None
    """In the place of the token that is read at this time."""
    layer: Count | None = None
    tensor: Count | None = None
    """Of the layer's state."""
    unit: Count | None = None
    value: float | None = None
    """In the place of the unit's at this time. Give layer, tensor, unit and value together."""


class Past(Strict):
    """A text that has been read, and what is changed in it. Give `text` or `tokens`."""

    text: str | None = None
    tokens: list[Token] | None = None
    changes: Annotated[list[Change], Field(max_length=CHANGES)] = Field(default_factory=list)


class Ask(Past):
    """The columns of a text."""

    model: str | None = None
    """[default: the first]"""
    since: Time = 0
    """The first time that is wanted."""
    top: Top = 8
    """So many of the tokens that most likely come next."""


class Parting(Strict):
    """Two pasts, and how far they part."""

    one: Past
    other: Past
    model: str | None = None
    """[default: the first]"""


class Reaching(Strict):
    """How far back an output of a text reaches."""

    text: str
    output: Count | None = None
    """Its number. [default: the last]"""
    model: str | None = None
    """[default: the first]"""
    cells: bool = False
    """Also in the small networks of three cells that come along."""


class Write(Past):
    """What a model would write from a time on."""

    model: str | None = None
    """[default: the first]"""
    time: Time
    length: Annotated[int, Field(ge=0, le=WRITTEN)]
    """In tokens."""


class Cut(Strict):
    """A text to be cut into tokens."""

    text: str
    model: str | None = None
    """[default: the first]"""


class Speak(Strict):
    """A command of `throughtime travel`, spoken to a text."""

    line: Annotated[str, Field(max_length=LONGEST)]
    text: str
    time: Time
    """The present."""
    original: str | None = None
    """The text to compare it with."""
    model: str | None = None
    """[default: the first]"""


class NewValue(Strict):
    """A change of the past of a series: a value in the place of another."""

    time: Time
    value: float


class Foresee(Strict):
    """A series, and what comes after it."""

    model: str | None = None
    """[default: the first]"""
    table: str | None = None
    """A CSV. [default: what the model was trained on]"""
    series: str | None = None
    """Its name. [default: the first]"""
    changes: Annotated[list[NewValue], Field(max_length=CHANGES)] = Field(default_factory=list)
    level: str = "80"
    """Of the interval, in percent."""
    hold: bool = False
    """Forecast the end that is known already, to see beside it what came."""


class NewKeys(Strict):
    """A change of the past of a piece: the keys (C4+E4) in the place of those of a moment."""

    time: Time
    notes: Annotated[str, Field(max_length=LONGEST)]


class Imagine(Strict):
    """A piece, and what a model would go on with."""

    model: str | None = None
    """[default: the first]"""
    notes: str = ""
    """What it begins with: notes (C4 E4+G4), or a file of MIDI or ABC as a data URL."""
    bars: Annotated[int, Field(ge=0, le=BARS)] = 0
    """So many that the model has written after them."""
    seed: Annotated[int, Field(ge=0, lt=2**53)] = 0
    """Of these; what comes after is written with the next."""
    changes: Annotated[list[NewKeys], Field(max_length=CHANGES)] = Field(default_factory=list)
    ahead: Annotated[int, Field(ge=0, le=BARS)] = 0
    """So many bars that it goes on, after the piece as it was, and after the changes."""
