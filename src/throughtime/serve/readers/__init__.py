"""What the streams of each task read and answer."""

from __future__ import annotations

from typing import Any

from throughtime.serve.readers.music import MusicReader
from throughtime.serve.readers.numbers import NumberReader
from throughtime.serve.readers.reader import Reader, Stepwise, finite
from throughtime.serve.readers.series import SeriesReader
from throughtime.serve.readers.speech import SpeechReader
from throughtime.serve.readers.text import Expected, TextReader

READERS: tuple[type[Reader], ...] = (TextReader, SeriesReader, SpeechReader, MusicReader, NumberReader)

__all__ = [
    "READERS",
    "Expected",
    "MusicReader",
    "NumberReader",
    "Reader",
    "SeriesReader",
    "SpeechReader",
    "Stepwise",
    "TextReader",
    "finite",
    "reader_of",
]


def reader_of(model: Any) -> Reader | None:
    """What reads streams of a model; None: it has none. Raises: UserError that says why it has none."""
    kind = next((kind for kind in READERS if kind.reads(model)), None)
    return None if kind is None else kind(model)
