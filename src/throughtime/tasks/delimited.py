"""Tables as text: rows of CSV, of the same with other delimiters, and of JSON, each with its line."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Collection, Iterator
from typing import Any

from throughtime.errors import UserError

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}
LOOKED_AT = 200  # rows from which the delimiter is found

Rows = list[tuple[int, list[str]]]


def named_delimiter(given: str, option: str) -> str:
    """A delimiter by itself, or by its name. Raises: UserError where it is none."""
    found = {**{name: d for d, name in DELIMITERS.items()}, "\\t": "\t"}.get(given.strip().lower() or given, given)
    if len(found) != 1 or found in '"\r\n' or found.isalnum():
        raise UserError(f"{option}delimiter: got {given!r}; it takes one sign, or {', '.join(DELIMITERS.values())}")
    return found


def find_delimiter(text: str, suffix: str, names: Collection[str]) -> str | None:
    """What stands between the fields of a table: that by which the first row holds most of the `names`, then that by which most
    rows are as long as the first. None where its rows have one field."""
    best: tuple[int, float, bool] = (0, 0.0, False)
    chosen = None
    for delimiter in DELIMITERS:
        rows = []
        try:
            for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
                if row:
                    rows.append(row)
                if len(rows) == LOOKED_AT:
                    break
        except csv.Error:
            pass  # of rows cut off in a quoted field, say
        if not rows or len(rows[0]) < 2:
            continue
        known = sum(cell.strip().lower() in names for cell in rows[0])
        as_long = sum(len(row) == len(rows[0]) for row in rows) / len(rows)
        found = (known, as_long, (delimiter == "\t") == (suffix == ".tsv"))
        if found > best:
            best, chosen = found, delimiter
    return chosen


def read_delimited(name: str, text: str, delimiter: str) -> Rows:
    """The rows of a table, each as long as the first, with the line it begins on; an empty line is a row without fields.

    Between tabs a quote may be only a quote, which every field tells: where one is no quoted field, none is.
    Raises: UserError with the line where the rows are not as long as the first, or a quote does not end.
    """
    ways: list[dict[str, Any]] = [{}]
    if '\\"' in text:
        ways.append({"escapechar": "\\"})
    if f'{delimiter} "' in text:
        ways.append({"skipinitialspace": True})
    if delimiter == "\t":
        ways.append({"quoting": csv.QUOTE_NONE})
    errors = []
    for way in ways:
        try:
            return _rows(name, text, delimiter, way)
        except UserError as error:
            errors.append(error)
    raise errors[-1 if delimiter == "\t" else 0]


def _rows(name: str, text: str, delimiter: str, way: dict[str, Any]) -> Rows:
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))  # a field may be a whole book
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, **way)
    rows: Rows = []
    start, width = 1, 0
    try:
        for row in reader:
            width = width or len(row)
            if row and len(row) != width and any(map(str.strip, row)):
                how = (
                    "each tab ends a field"
                    if delimiter == "\t"
                    else (f"put a field with a {DELIMITERS.get(delimiter, repr(delimiter))} in it into double quotes")
                )
                raise UserError(f"{name}:{start}: {len(row)} fields, the first line has {width}; {how}")
            rows.append((start, row if any(map(str.strip, row)) else []))
            start = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{name}:{start}: not CSV: {error}") from error
    return rows


def is_json(text: str, suffix: str) -> bool:
    """Whether a text is JSON: its name says so, or it begins as objects, one a line or in an array, do."""
    if suffix in (".json", ".jsonl", ".ndjson"):
        return True
    first = text.lstrip().split("\n", 1)[0].strip()
    if re.match(r"\[\s*(\{|$)", first):
        return True
    try:
        return first.startswith("{") and isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def read_json(name: str, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON text, one after the other or in an array, each with the line it begins on.

    Raises: UserError with the line where it is not JSON, or holds something else than objects.
    """
    decoder, at, line, seen = json.JSONDecoder(), 0, 1, 0
    blank = re.compile(r"[\s\ufeff]*")

    def skipped(at: int) -> int:
        found = blank.match(text, at)
        return found.end() if found else at

    at = skipped(0)
    array = text.startswith("[", at)
    at = skipped(at + array)
    while at < len(text) and not (array and text.startswith("]", at)):
        line, seen = line + text.count("\n", seen, at), at
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            what = f"{error.msg}, line {error.lineno}" if isinstance(error, json.JSONDecodeError) else str(error)
            raise UserError(f"{name}:{line}: not JSON: {what}") from error
        if not isinstance(value, dict):
            raise UserError(f"{name}:{line}: an item is a JSON object, got {type(value).__name__}")
        yield line, value
        at = skipped(end)
        if array and not text.startswith("]", at):
            if not text.startswith(",", at):
                number = line + text.count("\n", seen, at)
                raise UserError(f"{name}:{number}: not JSON: after an item of an array stands a comma or a ]")
            at = skipped(at + 1)
    after = skipped(at + 1)
    if array and (at >= len(text) or after < len(text)):
        what = "the array does not end" if at >= len(text) else "something stands after the array"
        raise UserError(f"{name}:{line + text.count(chr(10), seen, after)}: not JSON: {what}")
