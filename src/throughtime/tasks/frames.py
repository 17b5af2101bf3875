"""Series from data frames (pandas, polars, pyarrow), and frames of the same kind from what is answered. Needs narwhals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from throughtime.config import FRAME
from throughtime.errors import UserError
from throughtime.tasks.roles import SeriesColumns
from throughtime.tasks.series import ALL, Series, series_of
from throughtime.tasks.sheet import Sheet

Array = np.ndarray[Any, Any]


def write_frame(frame: Any, path: Path) -> None:
    """Write a frame with commas between. Raises: UserError where narwhals is not installed."""
    _eager(frame).write_csv(str(path))


def of_frame(frame: Any, columns: SeriesColumns = ALL, *, known: bool = False) -> list[Series]:
    """The series of a frame of pandas, polars or pyarrow, in any shape that a file may have.

    Times may be dates, texts or whole numbers; those of pandas may be its index.
    Raises: UserError where narwhals is not installed, it is no such frame, or the series cannot be read.
    """
    return series_of(_sheet(frame, FRAME), columns, known=known)


def like_frame(rows: Mapping[str, Sequence[Any]], frame: Any) -> Any:
    """Rows, by their columns, as a frame of the kind of another. A column that the other has too is of the same type, so that times
    that were dates are dates again."""
    nw, given = _narwhals(), _eager(frame)
    there, native = given.schema, given.to_native()
    made = nw.from_dict({name: list(values) for name, values in rows.items()}, backend=nw.get_native_namespace(given))
    same = [name for name in made.columns if name in there]
    found = made.with_columns(_as(nw, made[name], there[name]) for name in same).to_native()
    for name in same:
        if there[name] == nw.Unknown and hasattr(found, "iloc"):  # periods of pandas
            found[name] = found[name].astype(native[name].dtype)
    return found


def read_parquet(path: Path) -> Sheet:
    """The table of a Parquet file. Raises: UserError where pyarrow or narwhals is not installed, or the file is damaged."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(f"{path}: Parquet needs pyarrow, which is not installed (pip install pyarrow)") from error
    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: not Parquet, or damaged: {str(error).splitlines()[0]}") from error
    return _sheet(table, str(path))


def _narwhals() -> Any:
    try:
        import narwhals
    except ImportError as error:
        raise UserError("frames need narwhals, which is not installed (pip install 'throughtime[forecast]')") from error
    return narwhals


def _eager(frame: Any) -> Any:
    """A frame as narwhals has it. The index of pandas, where it has been set, is a column."""
    nw = _narwhals()
    if hasattr(frame, "to_frame") and hasattr(frame, "name"):
        frame = frame.to_frame()  # one column of pandas or polars
    if hasattr(frame, "iloc"):
        named = any(frame.index.names)
        counts = not named and frame.index.dtype.kind in "iu"  # it is no more than the number of the row
        frame = frame.reset_index(drop=counts, names=None if named or counts else "index")
        frame = frame.rename(columns=str)  # they may be numbers
    try:
        return nw.from_native(frame, eager_only=True)
    except TypeError as error:
        raise UserError(f"{type(frame).__name__} is no frame of pandas, polars or pyarrow that is in memory") from error


def _sheet(frame: Any, name: str) -> Sheet:
    nw, given = _narwhals(), _eager(frame)
    cells = [_cells(nw, given[column]) for column in given.columns]
    return Sheet(name, 1, list(given.columns), cells, np.arange(1, len(given) + 1))


def _cells(nw: Any, column: Any) -> Sequence[str] | Array:
    """A column as an array of numbers or of dates, or as texts."""
    kind = column.dtype
    if kind == nw.Boolean or kind.is_numeric():
        empty = bool(column.is_null().any())
        whole = kind.is_integer() and not empty
        return np.asarray(column.cast(nw.Int64 if whole else nw.Float64).to_numpy())
    if kind == nw.Date or (kind == nw.Datetime and kind.time_zone is None):
        return np.asarray(column.cast(nw.Datetime("us")).to_numpy()).astype("datetime64[us]")
    if kind == nw.Datetime:
        return ["" if moment is None else moment.isoformat(sep=" ") for moment in column.to_list()]
    return ["" if _is_null(cell) else str(cell) for cell in column.to_list()]


def _is_null(cell: Any) -> bool:
    return cell is None or type(cell).__name__ in ("NAType", "NaTType") or (isinstance(cell, float) and cell != cell)


def _as(nw: Any, column: Any, kind: Any) -> Any:
    """A column of texts or numbers as one of another type, where that is a number or a time."""
    if column.dtype == nw.String and kind in (nw.Date, nw.Datetime):
        moments = [datetime.fromisoformat(text) for text in column.to_list()]
        values = [moment.date() for moment in moments] if kind == nw.Date else moments
        return nw.new_series(column.name, values, kind, backend=nw.get_native_namespace(column))
    return column.cast(kind) if kind.is_numeric() and column.dtype != kind else column
