"""The settings of speech recognisers, and the options of what they do."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from throughtime.config import Positive, Rate, RunConfig, Strict
from throughtime.tasks.settings import DataSettings, ReadOptions

Decodings = Literal["greedy", "beam", "words"]


class TranscribeNetwork(Strict):
    """The network."""

    kind: Literal["recurrent", "transformer"] = "recurrent"
    """transformer: one of as many parameters as the recurrent network of these settings would have, with a dropout of 0.3
    at most."""
    cell: str = "gru"
    """The recurrent cell: elman, gru, lstm or another of `throughtime.cells.NAMED`; none: a network without a memory."""
    hidden_size: Positive | None = None
    """Units in a layer, in each direction. [default: to fit the data]"""
    layers: Positive = 3
    """Layers above each other."""
    dropout: Rate | None = None
    """Dropout between layers and before the output. [default: to fit the data]"""
    members: Positive | None = None
    """Networks that are trained beside each other, and the geometric mean of what they hear is taken. [default: 2 where each
    recording is one word, which is a unit, and they read from both ends, else 1]"""
    streaming: bool = False
    """Read in one direction, so that words are there while they are spoken; else from both ends of an utterance."""
    look_ahead: Annotated[int, Field(ge=0, le=2000)] | None = None
    """Of a streaming network: milliseconds of speech that it waits for before it says what was there. [default: 270]"""
    subsampling: Annotated[int, Field(ge=1, le=8)] | None = None
    """Frames of 10 ms to a step of the network. [default: 4, or fewer where it is spoken faster]"""
    bandwidth: Annotated[int, Field(ge=1000, le=8000)] | None = None
    """Hz, up to which it hears: beyond half the rate of a recording there is nothing but what rounding left.
    [default: half the rate that nine in ten recordings have or more, 8000 at most]"""
    attention: Rate | None = None
    """How much a decoder that attends to what was heard counts in training, beside CTC; 0: there is none.
    [default: 0 where each recording is one word, which is a unit, else 0.3]"""
    units: Literal["auto", "marked", "characters", "bpe", "words"] = "auto"
    """What is written. marked: characters, those that begin a word apart from the others; bpe: pieces of words; auto: words where
    each recording is one of a few, else marked."""
    vocabulary: Annotated[int, Field(ge=2)] | None = None
    """Pieces at most, where units are bpe. [default: 100]"""


class TranscribeData(DataSettings):
    """The recordings."""

    audio_column: str | None = None
    """The column of the path, in a table. [default: audio, audio_filepath, path or another usual name]"""
    text_column: str | None = None
    """The column of what is said. [default: text, sentence, transcription or another usual name]"""
    speaker_column: str | None = None
    """The column of who speaks. [default: speaker, client_id or another usual name]"""
    case: Literal["keep", "lower", "upper"] = "keep"
    """Learn transcripts as they stand, or in small or capital letters."""
    signs: Literal["keep", "drop"] = "keep"
    """Learn punctuation, or leave it out; an apostrophe within a word stays."""
    tags: Literal["keep", "drop"] = "drop"
    """Learn what stands in <> or [] as it stands, or leave it out."""
    speed: Annotated[float, Field(ge=0, le=0.3)] = 0.1
    """Train on recordings as they are, and so much slower and faster too (Ko et al. 2015)."""
    masks: Annotated[float, Field(ge=0, le=2)] | None = None
    """How large the stretches of time and of pitch are that are hidden in training; 1: up to 16 of 80 bins, 0.25 s.
    [default: to fit the budget]"""
    noise: Annotated[float, Field(ge=0, le=2)] | None = None
    """Noise on the features in training, in deviations, at most. [default: to fit the budget]"""


class TranscribeConfig(RunConfig):
    """All settings of a speech recogniser."""

    task: str = "transcribe"
    model: TranscribeNetwork = TranscribeNetwork()
    data: TranscribeData = TranscribeData()


class HearOptions(ReadOptions):
    """Of `predict`, `evaluate` and `inspect`."""

    audio_column: str | None = None
    """The column of the path, in a table. [default: as in training, else by its name]"""
    text_column: str | None = None
    """The column of what is said. [default: as in training, else by its name]"""
    speaker_column: str | None = None
    """The column of who speaks. [default: as in training, else by its name]"""


class DecodeOptions(HearOptions):
    """Of what is written."""

    decoding: Decodings | None = None
    """greedy: the likeliest unit at each step. beam: the likeliest text. words: of texts of known words, by how these follow one
    another too. [default: what did best on the held-out recordings]"""
    words: str | None = None
    """A file with a word a line, and no others are written; new ones may be among them. [default: those of the transcripts]"""
    language_model: str | None = None
    """A run of `train text` that says how words follow one another. [default: counts of the transcripts]"""
    beam: Positive | None = None
    """Hypotheses that beam and words keep side by side. [default: 16]"""


class PredictOptions(DecodeOptions):
    """Of `predict`."""

    format: Literal["text", "json", "srt", "vtt", "ctm"] = "text"
    """How transcripts are written."""
    rate: Positive | None = None
    """Hz, of raw 16-bit samples from standard input."""


class EvaluateOptions(DecodeOptions):
    """Of `evaluate`."""

    worst: Annotated[int, Field(ge=0)] = 5
    """So many utterances with most wrong words are shown beside what was said."""
