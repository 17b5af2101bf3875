"""Numbers as people write them in tables, NaN where one is missing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from throughtime.errors import UserError

Array = np.ndarray[Any, Any]

MISSING = {"", "na", "nan", "n/a", "#n/a", "<na>", "null", "none", "nil", "-", "?", "."}  # in lower case
_WORDS = {"true": 1.0, "false": 0.0}
_COMMA = re.compile(r"[-+]?\d*,\d+([eE][-+]?\d+)?")


def is_number(text: str) -> bool:
    """Whether a text is a number, perhaps with a decimal comma."""
    text = text.strip()
    try:
        return math.isfinite(float(text.replace(",", "."))) and "_" not in text
    except ValueError:
        return False


def is_missing(text: str) -> bool:
    """Whether a text says that there is no value."""
    return text.strip().lower() in MISSING


def numbers(cells: Sequence[str] | Array, place: Callable[[int], str], column: Callable[[int], str]) -> Array:
    """Cells as numbers. Args: place, column: where a cell stands. Returns: float64 [N], NaN where a value is missing.

    Raises: UserError with the row and the column of what is no number, is infinite, or has signs between thousands.
    """
    if isinstance(cells, np.ndarray) and cells.dtype.kind in "fiub":
        values = cells.astype(np.float64)
        if np.isinf(values).any():
            at = int(np.isinf(values).argmax())
            raise UserError(
                f"{place(at)}: {values[at]} in the column {column(at)!r} is no finite number; leave it empty"
            )
        return values
    try:
        values = np.array([*map(float, cells)])
        if np.isfinite(values).all() and "_" not in "".join(cells):
            return values
    except ValueError:
        pass
    read: dict[str, float] = {}
    where: dict[str, int] = {}
    for i, cell in enumerate(cells):
        where.setdefault(cell, i)
    commas = [cell.strip() for cell in where if "," in cell]
    points = any("." in cell for cell in where if is_number(cell) and "," not in cell)
    grouped = bool(commas) and all(re.fullmatch(r"[-+]?[1-9]\d{0,2},\d{3}", cell) for cell in commas)
    for cell, i in where.items():
        text = cell.strip()
        if "," in text:
            if not _COMMA.fullmatch(text) or points or grouped:
                raise UserError(
                    f"{place(i)}: {text!r} in the column {column(i)!r}: {_thousands(text, points, grouped)}"
                )
            text = text.replace(",", ".")
        read[cell] = _number(text, place(i), column(i))
    return np.array([read[cell] for cell in cells])


def _number(text: str, place: str, column: str) -> float:
    if text.lower() in MISSING:
        return math.nan
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if math.isfinite(value) and "_" not in text:
        return value
    kind = "finite number" if text.lower().lstrip("+-").startswith("inf") else "number"
    raise UserError(
        f"{place}: {text!r} in the column {column!r} is no {kind}; mend it, or leave it empty where it is missing"
    )


def _thousands(text: str, points: bool, grouped: bool) -> str:
    """What is wrong with a comma."""
    if re.fullmatch(r"[-+]?\d{1,3}([.,' ]\d{3})+([.,]\d+)?", text) and (points or not grouped):
        return "write numbers without signs between thousands"
    if grouped:
        return f"is it {text.replace(',', '.')} or {text.replace(',', '')}? write it with a point, or without a comma"
    return "is no number; write all with a decimal point, or all with a comma"
