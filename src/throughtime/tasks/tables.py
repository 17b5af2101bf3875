"""Labelled texts: rows of CSV, TSV or JSON, a folder for each label, or plain lines that have none."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from throughtime.errors import UserError, unknown
from throughtime.tasks.delimited import find_delimiter, is_json, named_delimiter, read_delimited, read_json
from throughtime.tasks.source import Source

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")  # of files that are tables, whatever is in them
# by what names a column is found, the likeliest first
TEXT = ("text", "sentence", "review", "content", "comment", "message", "tweet", "document", "body")
LABEL = ("label", "labels", "class", "category", "sentiment", "target", "rating", "polarity", "y")


@dataclass(frozen=True)
class Labelled:
    """A text, its label where it has one, and where it stands. columns: of a table, those it was read from."""

    text: str
    label: str | None
    place: str
    columns: tuple[str, str | None] | None = None


@dataclass(frozen=True)
class Columns:
    """Which columns hold the text and the label, by their names, or their numbers from 1; None: found by name, or where a table has
    no header by what is in them. option: how the options that name them begin. trained: what they were in training, which is
    looked for first. delimiter: what stands between fields; None: found."""

    text: str | None = None
    label: str | None = None
    option: str = "--data."
    trained: tuple[str | None, str | None] = (None, None)
    delimiter: str | None = None

    def check(self, paths: Sequence[Path]) -> None:
        """Raises: UserError where columns are named and all that is read is folders, which have none."""
        if (self.text is not None or self.label is not None) and all(path.is_dir() for path in paths):
            which = "text" if self.text is not None else "label"
            raise UserError(f"{self.option}{which}-column: {paths[0]} is a folder and has no columns; leave it out")

    @property
    def named(self) -> bool:
        """Whether the user says that there are columns."""
        return any(given is not None for given in (self.text, self.label, self.delimiter))

    @property
    def names(self) -> set[str]:
        """All names by which a column is found, in lower case."""
        given = (self.text, self.label, *self.trained)
        return {*TEXT, *LABEL, *(name.lower() for name in given if name is not None and not name.isdecimal())}

    def find(self, table: _Table, what: str) -> str | None:
        """The column of the text or of the label. Raises: UserError where one is asked for that there is not."""
        asked, trained, names = (
            (self.text, self.trained[0], TEXT) if what == "text" else (self.label, self.trained[1], LABEL)
        )
        there = table.names
        for given in (asked, trained):
            if given is not None and given in there:
                return given
            counted = given is not None and (given == asked or not table.header) and given.isdecimal()
            if given is not None and counted and 1 <= int(given) <= len(there):
                return there[int(given) - 1]
        if asked is not None:
            raise UserError(
                f"{self.option}{what}-column: {table.name} has no such column: " + unknown("column", asked, there)
            )
        lower = {c.strip().lower(): c for c in reversed(there)}
        return next((lower[name] for name in names if name in lower), None)


@dataclass(frozen=True)
class _Table:
    """Rows and what their columns are called. first: the line on which the names stand. lines: of each row. column: gives all that
    is in one, None where a row has nothing. header: whether the columns have names of their own; else they are numbers."""

    name: str
    first: int
    names: list[str]
    lines: list[int]
    column: Callable[[str], list[Any]]
    header: bool = True


def rows(source: Source, columns: Columns = Columns(), *, labelled: bool | None) -> Iterator[Labelled]:
    """The labelled texts of a table, or of a folder with a folder for each label.

    Args: labelled: True: all that has both a text and a label; what lacks one is left out, counted and said. None: every row and
        line, in its place, some perhaps without a text; a label where there is one. A file that is no table, and texts in memory,
        are a text a line. False: the same without labels.
    Raises: UserError with file and line for what cannot be read and for columns that are not there; and where labelled is True, and
        there is nothing of the kind.
    """
    if source.folder is not None:
        found = _folder(source, source.folder)
    elif labelled or _is_table(source, columns):
        found = _rows(source, columns, labelled)
    else:
        found = (Labelled(line.rstrip("\r\n"), None, f"{source.name}:{n}") for n, line in enumerate(source, 1))
    if not labelled:
        yield from (found if labelled is None else (Labelled(r.text, None, r.place, r.columns) for r in found))
        return
    empty, count = list[Labelled](), 0
    for row in found:
        if row.text.strip() and row.label:
            count += 1
            yield row
        elif row.text or row.label:
            empty.append(row)
    if not count:
        raise UserError(f"{source.name}: no labelled text in it")
    if empty:
        what = "text" if not empty[0].text.strip() else "label"
        how = "the row is" if len(empty) == 1 else f"{len(empty):,} rows without a text or a label are"
        warnings.warn(f"{empty[0].place}: no {what}; {how} left out", stacklevel=2)


def one_field(text: str) -> str:
    """A text or a label as a field of plain output: with its tabs and line ends written as \\t, \\n and \\r."""
    return text.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _folder(source: Source, path: Path) -> Iterator[Labelled]:
    """A folder for each label, a text in each file; of one that holds files alone, these."""
    folders = [p for p in sorted(path.iterdir()) if p.is_dir() and not p.name.startswith(".")]
    for folder in folders or [path]:
        for file in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
            text = " ".join("".join(Source.of(file, source.encoding, source.option)).split())
            yield Labelled(text, folder.name if folders else None, str(file))


def _is_table(source: Source, columns: Columns) -> bool:
    """Whether what may be plain lines is a table: by its name, by what is asked for, or by how it begins."""
    if source.in_memory or source.suffix in SUFFIXES or columns.named:
        return not source.in_memory
    lines = [line.rstrip("\n") for line in source.sample() if line.strip()]
    text = "\n".join(lines)
    if is_json(text, ""):
        return True
    delimiter = find_delimiter(text, source.suffix, columns.names)
    if delimiter is None:
        return False
    fields = [line.count(delimiter) + 1 for line in lines]
    first = {cell.strip().lower() for cell in lines[0].split(delimiter)}
    trained = {name.lower() for name in columns.trained if name is not None}
    if any(name in first for name in trained if not name.isdecimal()):
        return True
    if first & set(TEXT) and (delimiter == "\t" or first & set(LABEL)):
        return True
    # one without a header
    regular = len(fields) > 1 and min(fields) == max(fields)
    counted = any(name.isdecimal() and int(name) <= fields[0] for name in trained)
    return (regular and delimiter == "\t") or (counted and min(fields) == max(fields))


def _rows(source: Source, columns: Columns, labelled: bool | None) -> Iterator[Labelled]:
    text = source.text()
    table = _json(source.name, text) if is_json(text, source.suffix) else _delimited(source, text, columns, labelled)
    if not table.lines:
        return
    which, label = _chosen(table, columns, labelled)
    texts = table.column(which)
    labels = [None] * len(texts) if label is None else table.column(label)
    for line, *values in zip(table.lines, texts, labels, strict=True):
        place = f"{table.name}:{line}"
        value, tag = (_cell(place, column, value) for column, value in zip((which, label), values, strict=True))
        yield Labelled(value, tag.strip() or None, place, (which, label))


def _chosen(table: _Table, columns: Columns, labelled: bool | None) -> tuple[str, str | None]:
    """The columns of the text and of the label, None where there is none. Raises: UserError where one has to be named."""
    name, learned = table.name, columns.trained[1]
    text, label = columns.find(table, "text"), columns.find(table, "label")
    if labelled is None and columns.label is None and learned not in (None, label):
        label = None  # a label, but not of what was learned
    if not table.header and (text is None or (labelled and label is None)):
        text, label = _by_content(table, text, label, columns, labelled)
    if text is None or (labelled and label is None):
        what = "text" if text is None else "label"
        raise UserError(
            f"{name}:{table.first}: no column for the {what}; there are {', '.join(table.names) or 'none'}: name one by "
            f"{columns.option}{what}-column"
        )
    if text == label:
        raise UserError(f"{name}: the column {text!r} is both the text and the label; name two")
    if twice := next((column for column in (text, label) if table.names.count(column or "") > 1), None):
        raise UserError(f"{name}:{table.first}: two columns are called {twice!r}; give each a name of its own")
    return text, label


def _cell(place: str, column: str | None, value: Any) -> str:
    """What stands in a cell, as written: `true` of JSON is no `True`."""
    if isinstance(value, list | dict):
        raise UserError(f"{place}: {column!r} holds a {type(value).__name__}; it takes one text or number")
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
    if re.search("[\ud800-\udfff]", text):
        raise UserError(f"{place}: {column!r} holds half of a character (a surrogate alone); mend the text")
    return text


def _json(name: str, text: str) -> _Table:
    found = list(read_json(name, text))
    names = list(dict.fromkeys(key for _, row in found for key in row))
    first = found[0][0] if found else 1
    return _Table(name, first, names, [n for n, _ in found], lambda column: [row.get(column) for _, row in found])


def _delimited(source: Source, text: str, columns: Columns, labelled: bool | None) -> _Table:
    told = re.match(r"sep=(.)\n", text)  # as Excel writes it
    if columns.delimiter is None and told:
        columns, text = replace(columns, delimiter=told[1]), text[told.end() - 1 :]
    if columns.delimiter is not None:
        delimiter = named_delimiter(columns.delimiter, columns.option)
        if delimiter not in text:
            raise UserError(f"{columns.option}delimiter: there is no {columns.delimiter!r} in {source.name}")
    else:
        delimiter = find_delimiter(text, source.suffix, columns.names) or ","
    found = read_delimited(source.name, text, delimiter)
    while found and not found[0][1]:  # empty lines before the first row
        found.pop(0)
    if not found:
        raise UserError(f"{source.name}: holds no row that is not empty")
    first, width = [cell.strip() for cell in found[0][1]], len(found[0][1])
    header = _is_header(first, found[1:], columns, labelled)
    if header and (columns.text or columns.label) and not any(cell.lower() in columns.names for cell in first):
        shown = ", ".join(cell for cell in first if cell)
        warnings.warn(f"{source.name}:{found[0][0]}: read as the names of the columns: {shown}", stacklevel=2)
    names = [cell or str(i) for i, cell in enumerate(first, 1)] if header else [str(i + 1) for i in range(width)]
    kept = found[1:] if header else found

    def column(name: str) -> list[Any]:
        i = names.index(name)
        return [row[i] if row else None for _, row in kept]

    return _Table(source.name, found[0][0], names, [line for line, _ in kept], column, header)


def _is_header(first: list[str], others: list[tuple[int, list[str]]], columns: Columns, labelled: bool | None) -> bool:
    """Whether the first row names the columns: not where a number stands in it, or what stands in the column again."""
    known = [cell for cell in first if cell.lower() in columns.names]
    if len(known) > 1 or any(cell in (columns.text, columns.label, *columns.trained) for cell in known):
        return True
    if any(re.fullmatch(r"[-+]?\d+([.,]\d+)?", cell) for cell in first):
        return False
    if any(row and cell and cell == row[i].strip() for _, row in others for i, cell in enumerate(first)):
        return False
    if known or any(name is not None and name.isdecimal() for name in columns.trained):
        return bool(known)
    return len(first) > 1 or bool(labelled)


def _by_content(
    table: _Table, text: str | None, label: str | None, columns: Columns, labelled: bool | None
) -> tuple[str | None, str | None]:
    """The columns of a table without a header: the text is the longest, the label the only one of few values. Says what it took."""
    values = {name: [str(v).strip() for v in table.column(name) if v is not None] for name in table.names}
    if text is None:
        text = max(
            (name for name in values if name != label), key=lambda name: sum(map(len, values[name])), default=None
        )
    if label is None and labelled:
        kinds = {name: len(set(cells)) for name, cells in values.items() if name != text}
        count = len(table.lines)
        few = [name for name, n in kinds.items() if 2 <= n < count and n <= 2 * count**0.5]
        few = few or [name for name, n in kinds.items() if n == 1 < count and len(kinds) == 1]
        label = few[0] if len(few) == 1 else None
    if text is not None and (label is not None or not labelled):
        option = f"{columns.option}text-column"
        also = f" and column {label} as the label" if label is not None else ""
        warnings.warn(
            f"{table.name}: has no header: column {text} is read as the text{also} ({option} names another)",
            stacklevel=2,
        )
    return text, label
