"""Series from data frames (pandas, polars, pyarrow), and frames of the same kind from what is answered. Needs narwhals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from throughtime.errors import UserError
from throughtime.tasks.roles import SeriesColumns
from throughtime.tasks.series import ALL, Series, series_of
from throughtime.tasks.sheet import Sheet

Array = np.ndarray[Any, Any]

FRAME = "<frame>"  # what a frame is called in errors; its rows are counted from 1


def of_frame(frame: Any, columns: SeriesColumns = ALL, *, known: bool = False) -> list[Series]:
    """The series of a frame of pandas, polars or pyarrow, in any shape that a file may have.

    Times may be dates, texts or whole numbers; those of pandas may be its index.
    Raises: UserError where narwhals is not installed, it is no such frame, or the series cannot be read.
    """
    return series_of(_sheet(frame, FRAME), columns, known=known)


def like_frame(rows: Mapping[str, Sequence[Any]], frame: Any) -> Any:
    """Rows, by their columns, as a frame of the kind of another. A column that the other has too is of the same type, so that times
    that were dates are dates again."""
    nw = _narwhals()
    given = _eager(frame)
    native = nw.get_native_namespace(given)
    made = nw.from_dict({name: list(values) for name, values in rows.items()}, backend=native)
    there = given.schema
    return made.with_columns(
        [
            _as(nw, made[name], there[name])
            for name in made.columns
            if name in there and made.schema[name] != there[name]
        ]
    ).to_native()


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
    if hasattr(frame, "to_frame") and not hasattr(frame, "columns"):
        frame = frame.to_frame()  # one column of pandas or polars
    index = getattr(frame, "index", None)
    if index is not None and type(index).__name__ != "RangeIndex":
        frame = frame.reset_index(names=None if any(index.names) else "index")
    if getattr(getattr(frame, "columns", None), "dtype", None) is not None:
        frame = frame.rename(columns=str)  # of pandas they may be numbers
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
    """A column of texts or numbers as one of another type."""
    if column.dtype != nw.String:
        return column.cast(kind) if kind.is_numeric() else column
    if kind == nw.Date:
        return column.str.to_datetime(format="%Y-%m-%d").cast(nw.Date)
    if kind == nw.Datetime:
        zone = kind.time_zone
        moments = [np.datetime64(text[:26].strip()) for text in column.to_list()] if zone is None else None
        if moments is not None:
            values = [moment.astype("datetime64[us]").item() for moment in moments]
        else:
            from datetime import datetime

            values = [datetime.fromisoformat(text) for text in column.to_list()]
        made = nw.new_series(column.name, values, backend=nw.get_native_namespace(column))
        return made.cast(kind)
    if kind.is_integer():
        return column.cast(kind)
    return column
