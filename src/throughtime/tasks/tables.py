"""Labelled texts: CSV, TSV, JSON lines, or a folder for each label."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from throughtime.config import STDIN
from throughtime.errors import UserError, reason, unknown

JSON_LINES = (".jsonl", ".ndjson", ".json")
# by what names a column is found, the likeliest first
TEXT = ("text", "sentence", "review", "content", "comment", "message", "tweet", "document", "body")
LABEL = ("label", "labels", "class", "category", "sentiment", "target", "rating", "polarity", "y")


@dataclass(frozen=True)
class Labelled:
    """A text, its label, and where it stands."""

    text: str
    label: str
    place: str


@dataclass(frozen=True)
class Columns:
    """Which columns hold the text and the label; None: found by name. option: how the option that names one begins.
    trained: the names they had in training, which are looked for first."""

    text: str | None = None
    label: str | None = None
    option: str = "--data."
    trained: tuple[str | None, str | None] = (None, None)

    def check(self, paths: Sequence[Path]) -> None:
        """Raises: UserError where columns are named and all that is read is folders, which have none."""
        if (self.text is not None or self.label is not None) and all(path.is_dir() for path in paths):
            which = "text" if self.text is not None else "label"
            raise UserError(f"{self.option}{which}-column: {paths[0]} is a folder and has no columns; leave it out")

    def find(self, name: str, line: int, row: dict[str, Any], what: str) -> str:
        """The column of the text or of the label in the file `name`, of which that line holds that row. Raises: UserError where
        there is none."""
        asked, trained, names = (
            (self.text, self.trained[0], TEXT) if what == "text" else (self.label, self.trained[1], LABEL)
        )
        there = list(row)
        if asked is not None:
            if asked not in there:
                raise UserError(
                    f"{self.option}{what}-column: {name} has no such column: " + unknown("column", asked, there)
                )
            return asked
        if trained in there:
            return str(trained)
        lower = {c.strip().lower(): c for c in there}
        for candidate in names:
            if candidate in lower:
                return lower[candidate]
        raise UserError(
            f"{name}:{line}: no column for the {what}; there are {', '.join(there) or 'none'}: name one by "
            f"{self.option}{what}-column"
        )


def read_labelled(paths: Sequence[Path], columns: Columns = Columns()) -> list[Labelled]:
    """All labelled texts of some files or folders.

    Raises: UserError with file and line for what cannot be read, and for columns that are not there.
    """
    found: list[Labelled] = []
    for path in paths:
        before = len(found)
        found += _folder(path) if path.is_dir() else _table(path, columns)
        if len(found) == before:
            raise UserError(f"{name_of(path)}: no labelled text in it")
    return found


def name_of(path: Path) -> str:
    """What the user calls a file: standard input has been copied to one of that name."""
    return STDIN if path.name == STDIN else str(path)


def read_utf8(path: Path) -> str:
    """A whole text file. Raises: UserError where it cannot be read, is empty or is not UTF-8, with the line."""
    name = name_of(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{name}: cannot read it: {reason(error)}") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{name}:{line}: byte {error.start} is not UTF-8; save the file as UTF-8") from error
    if not text.strip():
        raise UserError(f"{name}: is empty")
    # a carriage return alone ends a line where nothing else does
    return text.replace("\r\n", "\n") if "\n" in text else text.replace("\r", "\n")


def _folder(path: Path) -> Iterator[Labelled]:
    """A folder for each label, a text in each file."""
    for folder in sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")):
        for file in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
            yield Labelled(" ".join(read_utf8(file).split()), folder.name, str(file))


def _table(path: Path, columns: Columns) -> Iterator[Labelled]:
    for place, (text, label) in _cells(path, columns, ("text", "label")):
        yield Labelled(text, label.strip(), place)


def read_texts(path: Path, columns: Columns) -> list[str]:
    """The texts of a table, on a line each, whatever else is in it; some may be empty.

    Raises: UserError with file and line for what cannot be read, and for a column that is not there.
    """
    return [" ".join(text.split()) for _, (text,) in _cells(path, columns, ("text",))]


def is_table(path: Path) -> bool:
    """Whether a file's name says that it is a table."""
    return path.suffix.lower() in (".csv", ".tsv", *JSON_LINES)


def _cells(path: Path, columns: Columns, wanted: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """Of each row its place and what stands in the columns wanted: nowhere nothing, unless only texts are."""
    name, whole, suffix = name_of(path), read_utf8(path), path.suffix.lower()
    first = whole.lstrip().split("\n", 1)[0]
    objects = suffix in JSON_LINES or (path.name == STDIN and first.startswith("{"))
    if objects:
        rows = _json_lines(name, whole)
    else:
        tabs = suffix == ".tsv" or (suffix != ".csv" and "\t" in first)
        rows = _csv(name, whole, "\t" if tabs else ",")
    chosen: list[str] = []
    for line, row in rows:
        if not chosen:
            chosen = [columns.find(name, line if objects else 1, row, what) for what in wanted]
            if len(set(chosen)) < len(chosen):
                raise UserError(f"{name}: the column {chosen[0]!r} is both the text and the label; name two")
        values = [row.get(c) for c in chosen]
        for column, value in zip(chosen, values, strict=True):
            if (value is None or not str(value).strip()) and len(wanted) > 1:
                raise UserError(f"{name}:{line}: nothing in the column {column!r}; fill it in or take the line out")
            if isinstance(value, list | dict):
                raise UserError(
                    f"{name}:{line}: {column!r} holds a {type(value).__name__}; it takes one text or number"
                )
            if any("\ud800" <= c <= "\udfff" for c in str(value)):
                raise UserError(
                    f"{name}:{line}: {column!r} holds half of a character (a surrogate alone); mend the text"
                )
        yield f"{name}:{line}", ["" if value is None else str(value) for value in values]


def _csv(name: str, text: str, separator: str) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = io.StringIO(text, newline="")
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))  # a field may be a whole book
    if separator == ",":
        reader = csv.reader(lines, strict=True)
    else:
        reader = csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_NONE)
    header: list[str] | None = None
    start = 1
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                if header is None:
                    header = [cell.strip() for cell in row]
                    if twice := next((c for i, c in enumerate(header) if c in header[:i]), None):
                        raise UserError(
                            f"{name}:{start}: two columns are called {twice!r}; give each a name of its own"
                        )
                elif len(row) != len(header):
                    how = (
                        "put a field with a comma in it into double quotes"
                        if separator == ","
                        else "each tab ends a field"
                    )
                    raise UserError(f"{name}:{start}: {len(row)} fields, the first line has {len(header)}; {how}")
                else:
                    yield start, dict(zip(header, row, strict=True))
            start = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{name}:{start}: not CSV: {error}") from error


def _json_lines(name: str, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{name}:{number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise UserError(f"{name}:{number}: a line is a JSON object, got {type(row).__name__}")
        yield number, row
