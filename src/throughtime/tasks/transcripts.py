"""Recognised speech as it is written: text, JSON, CTM and captions (SRT, WebVTT), each transcript as soon as it is known.

A writer takes transcripts in order and yields texts; each with a line break after it, one after another, they are the file.
"""

from __future__ import annotations

import html
import json
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from throughtime.errors import UserError

WIDTH, LINES = 42, 2  # of a caption: characters a line, lines
PAUSE = 0.6  # seconds between two words; a longer one ends a caption


class Word(NamedTuple):
    """A recognised word, which has no white space in it, from `start` to `end` in seconds of its recording; confidence: 0 to 1."""

    word: str
    start: float
    end: float
    confidence: float


class Transcript(NamedTuple):
    """What was recognised in a recording, or in one utterance of it.

    audio: the recording's name, as it was given. words: in the order of time; none where nothing was said. start, end: what was
    listened to, in seconds of the recording.
    """

    audio: str
    words: list[Word]
    start: float
    end: float

    @property
    def text(self) -> str:
        """The words, one space between two."""
        return " ".join(word.word for word in self.words)


def text(transcripts: Iterable[Transcript]) -> Iterator[str]:
    """A line a transcript, an empty one where nothing was said."""
    for transcript in transcripts:
        yield transcript.text


def json_lines(transcripts: Iterable[Transcript]) -> Iterator[str]:
    """A JSON object a transcript, on one line: audio, text, start, end and words, of each its word, start, end and confidence.

    Times are in seconds. All numbers are rounded to three decimals.
    """
    for transcript in transcripts:
        words = [
            {"word": w.word, **_rounded(start=w.start, end=w.end, confidence=w.confidence)} for w in transcript.words
        ]
        about = {**_rounded(start=transcript.start, end=transcript.end), "words": words}
        yield json.dumps({"audio": transcript.audio, "text": transcript.text, **about}, ensure_ascii=False)


def _rounded(**values: float) -> dict[str, float]:
    """Numbers, perhaps NumPy's, as JSON takes them."""
    return {name: round(float(value), 3) for name, value in values.items()}


def ctm(transcripts: Iterable[Transcript]) -> Iterator[str]:
    """A line a word as NIST's CTM has it: recording, channel (always 1), start, duration, word, confidence; times in seconds.

    A recording is named by its file without folder and ending, `_` in place of white space.
    """
    for transcript in transcripts:
        name = "_".join(Path(transcript.audio).stem.split())
        for w in transcript.words:
            start, end = _milliseconds(w.start), _milliseconds(w.end)
            yield f"{name} 1 {start / 1000:.3f} {(end - start) / 1000:.3f} {w.word} {w.confidence:.3f}"


def srt(transcripts: Iterable[Transcript]) -> Iterator[str]:
    """SubRip captions of one recording, numbered from 1 on through all its transcripts; nothing where nothing was said.

    A caption has at most two lines of at most 42 characters; it ends where it is full, at a pause of over 0.6 seconds, and where
    its transcript ends. A longer word is cut, and its time shared by its characters.
    Raises: UserError where transcripts are of several recordings.
    """
    for number, (lines, start, end) in enumerate(_captions(transcripts), 1):
        yield "\n".join([str(number), f"{_clock(start, ',')} --> {_clock(end, ',')}", *lines, ""])


def vtt(transcripts: Iterable[Transcript]) -> Iterator[str]:
    """WebVTT captions of one recording, cut as those of `srt`; where nothing was said the head alone.

    Raises: UserError where transcripts are of several recordings.
    """
    yield "WEBVTT\n"
    for lines, start, end in _captions(transcripts):
        escaped = (html.escape(line, quote=False) for line in lines)
        yield "\n".join([f"{_clock(start, '.')} --> {_clock(end, '.')}", *escaped, ""])


WRITERS: dict[str, Callable[[Iterable[Transcript]], Iterator[str]]] = {
    "text": text,
    "json": json_lines,
    "srt": srt,
    "vtt": vtt,
    "ctm": ctm,
}
OF_ONE = ("srt", "vtt")  # formats that hold one recording


def _captions(transcripts: Iterable[Transcript]) -> Iterator[tuple[list[str], int, int]]:
    """The lines of each caption, and from when to when it is shown, in milliseconds."""
    audio = None
    for transcript in transcripts:
        if audio not in (None, transcript.audio):
            raise UserError(
                f"{transcript.audio}: captions are of one recording, and {audio} came before it; write them one by one, or "
                f"as text, json or ctm"
            )
        audio = transcript.audio
        caption: list[Word] = []
        for word in (piece for whole in transcript.words for piece in _pieces(whole)):
            if caption and (word.start - caption[-1].end > PAUSE or len(_lines([*caption, word])) > LINES):
                yield _shown(caption)
                caption = []
            caption.append(word)
        if caption:
            yield _shown(caption)


def _pieces(word: Word) -> list[Word]:
    """A word in parts that have room on a line."""
    size = len(word.word)
    step = (word.end - word.start) / max(size, 1)
    return [
        Word(word.word[i : i + WIDTH], word.start + i * step, word.start + min(i + WIDTH, size) * step, word.confidence)
        for i in range(0, size, WIDTH)
    ]


def _lines(words: list[Word]) -> list[str]:
    return textwrap.wrap(" ".join(word.word for word in words), WIDTH, break_on_hyphens=False)


def _shown(words: list[Word]) -> tuple[list[str], int, int]:
    """A caption; one that would be shown for no time is for a millisecond, which WebVTT asks for."""
    start = _milliseconds(words[0].start)
    return _lines(words), start, max(_milliseconds(words[-1].end), start + 1)


def _milliseconds(seconds: float) -> int:
    return round(1000 * seconds)


def _clock(milliseconds: int, point: str) -> str:
    """A time as hh:mm:ss and milliseconds."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{point}{rest:03}"
