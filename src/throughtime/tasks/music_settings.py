"""The settings of models of music, and the options of what they do."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from throughtime.config import Positive, Rate, RunConfig, Strict
from throughtime.tasks.settings import DataSettings, ReadOptions

Kinds = Literal["auto", "frames", "events"]


class MusicNetwork(Strict):
    """The network."""

    kind: Literal["recurrent", "transformer"] = "recurrent"
    """transformer: one of as many parameters in the place of the stack, that sees a chunk of moments back."""
    cell: str = "lstm"
    """The recurrent cell that goes from moment to moment: elman, gru, lstm or another of `throughtime.cells.NAMED`; none: only
    the moment before is seen."""
    hidden_size: Positive | None = None
    """Units in a layer. [default: to fit the data]"""
    layers: Positive = 1
    """Layers above each other."""
    chain_size: Positive | None = None
    """Units of the cell that goes from note to note within a moment. [default: to fit the data]"""
    embedding_size: Positive | None = None
    """Width of what a moment is read as. [default: to fit the data]"""
    dropout: Rate | None = None
    """Dropout on what the moments so far give. [default: to fit the data]"""


class MusicData(DataSettings):
    """The pieces."""

    writing: Kinds = "auto"
    """How a piece is written. frames: the keys that sound at each step of a grid; events: bars, places, notes with their length.
    auto: frames where the file holds frames, else events."""
    grid: Annotated[int, Field(ge=1, le=96)] | None = None
    """Steps a quarter note. [default: the fewest on which nearly all notes begin]"""
    repeats: bool = False
    """Of ABC: play what is to be repeated as often as it says, instead of once."""
    transpose: Annotated[int, Field(ge=0, le=12)] = 6
    """Train on each piece up to so many semitones lower, and less than so many higher, drawn anew each time."""


class MusicConfig(RunConfig):
    """All settings of a model of music."""

    task: str = "music"
    model: MusicNetwork = MusicNetwork()
    data: MusicData = MusicData()


class PieceOptions(ReadOptions):
    """Of `predict`, `evaluate` and `inspect`."""

    part: Literal["train", "valid", "test"] | None = None
    """Of a JSON file of several parts, which is read. [default: evaluate: test; else all]"""


class ComposeOptions(Strict):
    """Of `generate`."""

    out: tuple[str, ...] = ()
    """Files to write: .mid, .wav, .png (a piano roll), .abc, .json; - writes events as they come, an object a line."""
    soundfont: str | None = None
    """A file of instruments (.sf2) that a .wav is played with. [default: a synthesiser of its own]"""
    primer: str | None = None
    """What the piece begins with: a file, or notes: "C4 E4 G4"."""
    bars: Positive | None = None
    """Bars to write, with those of the primer. [default: of frames 16; else until the model ends the piece]"""
    seconds: Annotated[float, Field(gt=0)] | None = None
    """Seconds to write, in place of bars."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """Under 1 is safer, over 1 wilder; 0 takes the likeliest."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Draw from the likeliest symbols that make up P alone."""
    top_k: Positive | None = None
    """Draw from the K likeliest symbols alone."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """The same seed writes the same."""
    tempo: Annotated[float, Field(ge=10, le=400)] | None = None
    """Quarter notes a minute. [default: as the model writes, else 100]"""
    program: Annotated[int, Field(ge=0, le=127)] | None = None
    """The instrument, of General MIDI from 0. [default: as learned]"""
    key: str | None = None
    """The key that it is written in: C, F#, Bb minor, D dorian. [default: as the model writes]"""
    overwrite: bool = False
    """Replace files that are there."""
