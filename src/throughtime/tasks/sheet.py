"""A table of series as text: its columns, what they are called, and the line of each row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from throughtime.errors import UserError
from throughtime.tasks.delimited import find_delimiter, is_json, named_delimiter, read_delimited
from throughtime.tasks.numbers import is_missing, is_number
from throughtime.tasks.source import Source
from throughtime.tasks.times import INTEGER, YEAR, is_time

if TYPE_CHECKING:
    from throughtime.tasks.roles import SeriesColumns

Array = np.ndarray[Any, Any]

ALONE = "\x1f"  # between the fields of a table of one column, in which it does not stand
LOOKED_AT = 100  # cells from which it is seen what a column holds


@dataclass(frozen=True, eq=False)
class Sheet:
    """Columns of cells. first: the line of the names. names, columns: of each; cells are texts, or an array. lines: of each row.
    header: whether the columns have names of their own; else they are numbers from 1."""

    name: str
    first: int
    names: list[str]
    columns: list[Sequence[str] | Array]
    lines: Array
    header: bool = True

    def column(self, name: str) -> Sequence[str] | Array:
        """The cells of a column."""
        return self.columns[self.names.index(name)]

    def texts(self, name: str) -> list[str]:
        """A column as texts."""
        cells = self.column(name)
        return (
            [str(cell) for cell in cells.tolist()]
            if isinstance(cells, np.ndarray)
            else [cell.strip() for cell in cells]
        )

    def holds_numbers(self, name: str) -> bool:
        """Whether most of what stands in a column is numbers; what is no number there is then a mistake."""
        cells = self.column(name)
        if isinstance(cells, np.ndarray):
            return cells.dtype.kind in "fiub"
        some = _some(cells)
        return bool(some) and 2 * sum(map(_looks_numeric, some)) > len(some)

    def holds_times(self, name: str, *, counted: bool) -> bool:
        """Whether a column holds times that are nothing else, or where `counted` whole numbers."""
        cells = self.column(name)
        if isinstance(cells, np.ndarray):
            return np.issubdtype(cells.dtype, np.datetime64) or (counted and cells.dtype.kind in "iu")
        some = _some(cells)
        return bool(some) and 2 * sum(is_time(c) or (counted and bool(INTEGER.fullmatch(c))) for c in some) > len(some)

    def is_empty(self, name: str) -> bool:
        """Whether a column of texts holds nothing."""
        cells = self.column(name)
        return not isinstance(cells, np.ndarray) and not _some(cells)

    def counted(self, heads: Sequence[str]) -> bool:
        """Whether columns are called as those of M4's files, V2, V3 and so on, or have no name: they are no times."""
        return not self.header or all(re.fullmatch(r"[Vv]\d+", head) for head in heads)

    def row_wise(self, columns: SeriesColumns) -> int | None:
        """With which column the values of a series begin, where each row is a series; None where it is not."""
        if columns.time is not None or columns.target or columns.past or columns.future or len(self.names) < 4:
            return None
        if self.header and self.counted(self.names):
            return 1
        begin = _heads(self.names) if self.header else 1
        if not begin:
            return None
        names = self.texts(self.names[0])
        no_name = all(is_time(name) or is_number(name) for name in names[:LOOKED_AT])
        if no_name or len(set(names)) < len(names):
            return None
        return begin if all(self.holds_numbers(name) or self.is_empty(name) for name in self.names[begin:]) else None


def read_sheet(source: Source, columns: SeriesColumns) -> Sheet:
    """The table of a file.

    Raises: UserError where it cannot be read, or the rows are not of one length.
    """
    if source.suffix in (".parquet", ".pq"):
        from throughtime.tasks.frames import read_parquet

        return read_parquet(Path(source.name))
    text = source.text()
    if is_json(text, source.suffix):
        raise UserError(f"{source.name}: is JSON; series are read from CSV and Parquet: save it as one of them")
    if columns.delimiter is not None:
        delimiter = named_delimiter(columns.delimiter, columns.option)
        if delimiter not in text:
            raise UserError(f"{columns.option}delimiter: there is no {columns.delimiter!r} in {source.name}")
    elif said := re.match(r"sep=(.)\n", text):  # as Excel writes it
        delimiter, text = said[1], text[said.end() - 1 :]
    else:
        line = re.sub('"[^"]*"', "", text.lstrip("\n").split("\n", 1)[0])
        # commas are also in numbers
        told = next((sign for sign in "\t;|" if sign in line), None)
        delimiter = told or find_delimiter(text, source.suffix, columns.names) or ALONE
    found = read_delimited(source.name, text, delimiter)
    while found and not found[0][1]:  # empty lines before the first row
        found.pop(0)
    while found and not found[-1][1]:
        found.pop()
    if delimiter == ALONE:  # an empty line is a missing value
        found = [(line, row or [""]) for line, row in found]
    rows = [row for _, row in found if row]
    lines = np.array([line for line, row in found if row])
    if not rows:
        raise UserError(f"{source.name}: holds no row that is not empty")
    header = _is_header([cell.strip() for cell in rows[0]], rows[1 : LOOKED_AT + 1], columns)
    names = [cell.strip() for cell in rows[0]] if header else [str(i + 1) for i in range(len(rows[0]))]
    if twice := next((name for name in names if name and names.count(name) > 1), None):
        raise UserError(f"{source.name}:{lines[0]}: two columns are called {twice!r}; give each a name of its own")
    kept = rows[1:] if header else rows
    cells: list[Sequence[str] | Array] = list(zip(*kept, strict=True)) if kept else [()] * len(names)
    return Sheet(source.name, int(lines[0]), names, cells, lines[1:] if header else lines, header)


def _is_header(first: list[str], others: list[list[str]], columns: SeriesColumns) -> bool:
    """Whether the first row names the columns: one is known, or a text over numbers or times, or they count columns or years."""
    if any(cell.lower() in columns.names for cell in first):
        return True
    if len(first) > 2 and first in [[str(i + begin) for i in range(len(first))] for begin in (0, 1)]:
        return True
    if _heads(first) and not all(map(_heads, others)):
        return True
    below = [_some([row[i] for row in others])[:3] for i in range(len(first))]
    numeric = [cell for cell, some in zip(first, below, strict=True) if some and all(map(_is_value, some))]
    return not any(map(_is_value, first)) if not numeric else any(not (_is_value(c) or is_missing(c)) for c in numeric)


def _heads(names: Sequence[str]) -> int:
    """From which column on names are times: dates, numbers that count, or years; 0 where they are not."""
    begin = next((i for i, name in enumerate(names) if INTEGER.fullmatch(name) or is_time(name)), 0)
    heads = names[begin:]
    whole = [int(head) for head in heads if INTEGER.fullmatch(head)]
    apart = {b - a for a, b in pairwise(whole)}
    rising = apart == {1} or (len(apart) == 1 and min(apart) > 0 and all(YEAR.fullmatch(head) for head in heads))
    return begin if len(heads) > 2 and ((rising and len(whole) == len(heads)) or all(map(is_time, heads))) else 0


def _is_value(text: str) -> bool:
    return _looks_numeric(text) or is_time(text)


def _looks_numeric(text: str) -> bool:
    """Whether it is a number, or would be one without signs between its thousands."""
    return is_number(text) or re.fullmatch(r"[-+]?\d{1,3}([.,' ]\d{3})+([.,]\d+)?", text) is not None


def _some(cells: Sequence[str]) -> list[str]:
    """The first cells of a column that hold something."""
    found = []
    for cell in cells:
        if not is_missing(cell):
            found.append(cell.strip())
            if len(found) == LOOKED_AT:
                break
    return found
