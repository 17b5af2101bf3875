"""Recordings that a table names: JSON lines, CSV, TSV, with a column for the audio file and perhaps for a text, or a label."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from throughtime.config import FRAME, STDIN
from throughtime.errors import UserError, unknown
from throughtime.tasks.audio import Recording
from throughtime.tasks.delimited import find_delimiter, is_json, read_delimited, read_json
from throughtime.tasks.source import Source

# how the names of audio files end; the last are refused once they are opened, which says how to convert them
SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".mp3", ".oga", ".opus", ".aiff", ".aif", ".aifc", ".au", ".w64", ".caf", ".sph"),
    *(".m4a", ".aac", ".wma", ".webm", ".amr"),
)
# by what names a column, or a key of JSON, is found, the likeliest first
NAMES = {
    "audio": ("audio", "audio_filepath", "file_name", "path", "audio_path", "wav_filename", "filename", "file", "wav"),
    "text": ("text", "sentence", "transcription", "transcript"),
    "speaker": ("speaker", "speaker_id", "client_id", "spk_id", "spk"),
    "label": ("label", "class", "category", "keyword"),
    "offset": ("offset",),
    "seconds": ("seconds", "duration"),
}
Row = tuple[int, Mapping[str, Any]]  # the line on which it begins, and what stands in its columns


@dataclass(frozen=True)
class RecordingColumns:
    """Which columns hold what, by their names or their numbers from 1; None: found by the usual names, NAMES. option: how
    the options that name them begin. before: by what names they are looked for before the usual ones. wanted: what is to be found
    beside the audio."""

    audio: str | None = None
    text: str | None = None
    speaker: str | None = None
    label: str | None = None
    option: str = "--data."
    before: Mapping[str, str | None] = field(default_factory=dict)
    wanted: str = "text"

    def find(self, name: str, rows: Sequence[Row]) -> dict[str, str]:
        """The columns of a table that are read, by what they hold: of audio there is one. What is guessed is said by a warning.

        Raises: UserError where one is asked for that there is not, or none is of audio.
        """
        names = list(dict.fromkeys(key for _, row in rows for key in row))
        lower, found = {name.strip().lower(): name for name in reversed(names)}, dict[str, str]()
        for what, usual in NAMES.items():
            column = getattr(self, what, None)
            if column is None:
                likely = ((self.before.get(what) or "").lower(), *usual)
                column = next((lower[one] for one in likely if one in lower), None)
            elif column not in names:
                if not column.isdecimal() or not 1 <= int(column) <= len(names):
                    raise UserError(f"{self.option}{what}-column: {name}: " + unknown("column", column, names))
                column = names[int(column) - 1]
            if column is not None:
                found[what] = column
        others = [column for column in names if column not in found.values()]
        if "audio" not in found:
            self._guess(name, rows[0], found, others)
        elif others and "text" not in found and "label" not in found:
            which = f"none of the columns {', '.join(map(repr, others))} is read as the {self.wanted}"
            warnings.warn(f"{name}: {which} ({self.option}{self.wanted}-column names one)", stacklevel=2)
        return found

    def _guess(self, name: str, first: Row, found: dict[str, str], others: list[str]) -> None:
        """Take for the audio the one column that names such files, and for what is wanted the only one that is left."""
        likely = [column for column in others if str(first[1].get(column)).strip().lower().endswith(SUFFIXES)]
        if len(likely) != 1:
            what = f"no column for the audio; there are {', '.join(map(repr, others)) or 'none'}"
            raise UserError(f"{name}:{first[0]}: {what}: name one by {self.option}audio-column")
        found["audio"], left = likely[0], [column for column in others if column not in likely]
        also = ""
        if self.wanted not in found and len(left) == 1:
            found[self.wanted], also = left[0], f", {left[0]!r} as the {self.wanted}"
        warnings.warn(f"{name}: column {likely[0]!r} is read as the audio{also}", stacklevel=2)


def read_manifest(path: Path, source: Source, columns: RecordingColumns) -> Iterator[Recording]:
    """The recordings that a table names, row by row.

    Args: path: of the table: paths in it are relative to its folder, or to `clips` in that; in `<stdin>` and data frames to the
        current one. source: its lines. columns: which hold what.
    Raises: UserError with place, value and fix for what cannot be read, a row without audio, a file that is not there, a time
        that is no number.
    """
    rows = list(_rows(source))
    if not rows:
        raise UserError(f"{source.name}: names no recording; name one a line")
    found = columns.find(source.name, rows)
    folder = Path.cwd() if path.name in (STDIN, FRAME) else path.parent
    for number, row in rows:
        place = f"{source.name}:{number}"
        cells = {what: _cell(place, column, row.get(column)) for what, column in found.items()}
        if not (name := cells["audio"]):
            raise UserError(f"{place}: {found['audio']!r} names no audio file; name one, or take the line out")
        times = {
            what: seconds(place, found[what], cells[what] or "") for what in ("offset", "seconds") if cells.get(what)
        }
        if times.get("offset", 0) < 0 or times.get("seconds", 1) <= 0:
            what = " and ".join(f"{found[what]!r} is {value:g}" for what, value in times.items())
            raise UserError(
                f"{place}: {what}; it begins at 0 or later, and lasts more than 0: mend it, or take the line out"
            )
        audio = located(place, name, [folder, folder / "clips"])
        speaker, label = cells.get("speaker") or None, cells.get("label") or None
        begin, length = times.get("offset", 0.0), times.get("seconds")
        yield Recording(audio, cells.get("text"), speaker, label, begin, length, place)


def located(place: str, name: str, folders: Sequence[Path]) -> Path:
    """An audio file by its name, in the first of the folders that has it; absolute. Raises: UserError where none has."""
    for folder in folders:
        if os.path.isfile(path := os.path.join(folder, os.path.expanduser(name))):
            return Path(os.path.abspath(path))
    where = "" if os.path.isabs(name) else f" in {folders[0]}"
    raise UserError(f"{place}: {name!r}: there is no such file{where}; mend the path, or take the line out")


def seconds(place: str, name: str, text: str) -> float:
    """A time as a number. name: of what it tells. Raises: UserError where it is none."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{place}: {name!r}: got {text!r}; it takes a number of seconds, with a decimal point")
    return value


def _rows(source: Source) -> Iterator[Row]:
    """The rows of a table. The first names the columns, unless the name of an audio file stands in it: then they are numbers."""
    text = source.text()
    if is_json(text, source.suffix):
        yield from read_json(source.name, text)
        return
    known = {name for names in NAMES.values() for name in names}
    delimiter = find_delimiter(text, source.suffix, known) or ","
    (line, first), *rows = ((n, row) for n, row in read_delimited(source.name, text, delimiter) if row)
    names = [cell.strip() for cell in first]
    if any(name.lower().endswith(SUFFIXES) for name in names):
        rows, names = [(line, first), *rows], [str(i) for i in range(1, len(names) + 1)]
    if twice := next((name for name in names if name and names.count(name) > 1), None):
        raise UserError(f"{source.name}:{line}: two columns are called {twice!r}; give each a name of its own")
    yield from ((n, dict(zip(names, row, strict=True))) for n, row in rows)


def _cell(place: str, column: str, value: Any) -> str | None:
    """What stands in a cell, as written."""
    if isinstance(value, list | dict):
        raise UserError(f"{place}: {column!r} holds a {type(value).__name__}; it takes one text or number")
    if value is None:
        return None
    text = value.strip() if isinstance(value, str) else json.dumps(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        what = f"{column!r} holds half of a character (a surrogate alone)"
        raise UserError(f"{place}: {what}; mend the text") from error
    return text
