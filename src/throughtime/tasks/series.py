"""Series of numbers in the shapes that people have them: a row a value, a column a series, a row a series."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from throughtime.errors import UserError
from throughtime.tasks.dates import Clock
from throughtime.tasks.numbers import numbers
from throughtime.tasks.roles import Roles, SeriesColumns, find_roles
from throughtime.tasks.rows import Rows, grouped
from throughtime.tasks.sheet import Sheet, read_sheet
from throughtime.tasks.source import Source
from throughtime.tasks.times import COUNTED, DAY, ISO, ISO_CLOCK, Times, read_times

Array = np.ndarray[Any, Any]


COUNTING = Clock(counted=True)
ALL = SeriesColumns()


@dataclass(frozen=True)
class Names:
    """How the columns of a series' name, of times and of values are called."""

    id: str = "unique_id"
    time: str = "ds"
    value: str = "y"


@dataclass(frozen=True, eq=False)
class Series:
    """One series.

    id: its name. values: float64 [T], NaN where missing; the first and the last are not. clock: when its steps are. past:
    covariates known only up to now, [T]. future: those known ahead, [T + K]. static: what kind of series it is. place: where its
    first row stands. lines: of each row in the file, [T]; 0 of one that was filled in. names: how its columns are called. begin:
    the step from which on it is forecast, where that is said.
    """

    id: str
    values: Array
    clock: Clock = COUNTING
    past: Mapping[str, Array] = field(default_factory=dict)
    future: Mapping[str, Array] = field(default_factory=dict)
    static: Mapping[str, str] = field(default_factory=dict)
    place: str = ""
    lines: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    names: Names = Names()
    begin: int | None = None

    def upto(self, end: int) -> Series:
        """Its first `end` steps; what is known ahead of them is kept."""
        past = {name: values[:end] for name, values in self.past.items()}
        return replace(self, values=self.values[:end], past=past, lines=self.lines[:end])


def read_series(source: Source, columns: SeriesColumns = ALL, *, known: bool = False) -> list[Series]:
    """The series of a file, in the order in which they begin in it.

    Args: columns: which they are. known: read what is known ahead, of a file without values: series of no values, whose `future`
        is [K].
    Raises: UserError with the file, the line and the series of what cannot be read.
    """
    return series_of(read_sheet(source, columns), columns, known=known)


def series_of(sheet: Sheet, columns: SeriesColumns, *, known: bool = False) -> list[Series]:
    """The series of a sheet, in whichever shape it has."""
    if not len(sheet.lines):
        raise UserError(f"{sheet.name}: holds no row of values")
    if (begin := sheet.row_wise(columns)) is not None:
        return _of_rows(sheet, columns, begin)
    roles = find_roles(sheet, columns, known=known)
    times = None if roles.time is None else _times(sheet, roles.time, columns)
    ids = None if roles.id is None else sheet.texts(roles.id)
    covariates = {name: _read(sheet, name) for name in (*roles.past, *roles.future)}
    targets = {name: _read(sheet, name) for name in roles.targets} or {"": np.full(len(sheet.lines), np.nan)}
    statics = {name: sheet.texts(name) for name in roles.static}
    found: list[Series] = []
    for rows in grouped(sheet, ids, times, columns, next(iter(targets))):
        for target, values in targets.items():
            one = Series(
                id=target if rows.id is None else rows.id,
                values=rows.laid(values),
                clock=rows.clock,
                past={name: rows.laid(covariates[name]) for name in roles.past},
                future={name: rows.laid(covariates[name]) for name in roles.future},
                static={name: _constant(sheet, rows, name, cells) for name, cells in statics.items()},
                place=f"{sheet.name}:{sheet.lines[rows.order[0]]}",
                lines=rows.lines,
                names=Names(
                    roles.id or Names.id, roles.time or Names.time, target if rows.id is not None else Names.value
                ),
            )
            found.append(one.upto(0) if known else one)
    return found if known else _trimmed(sheet.name, found, roles)


def _read(sheet: Sheet, name: str) -> Array:
    return numbers(sheet.column(name), lambda i: f"{sheet.name}:{sheet.lines[i]}", lambda i: name)


def _times(sheet: Sheet, name: str, columns: SeriesColumns) -> Times:
    """A column of times. Says so where a day might as well be a month."""
    cells = sheet.column(name)
    years = columns.years or name.strip().lower() in ("year", "years", "yr", "date")
    if isinstance(cells, np.ndarray):
        if np.issubdtype(cells.dtype, np.datetime64):
            if np.isnat(cells).any():
                at = sheet.lines[np.isnat(cells).argmax()]
                raise UserError(f"{sheet.name}:{at}: there is no time in this row; each row needs one")
            ticks = cells.astype("datetime64[us]").astype(np.int64)
            return Times(ticks, ISO_CLOCK if (ticks % DAY).any() else ISO)
        if np.issubdtype(cells.dtype, np.integer) and not years:
            return Times(cells.astype(np.int64), COUNTED)
    texts = [cell.strip() for cell in sheet.texts(name)]
    times = read_times(texts, lambda i: f"{sheet.name}:{sheet.lines[i]}", years=years)
    if times.format.in_doubt:
        how = "the day first" if times.format.day_first else "the month first"
        _say(f"{sheet.name}: {texts[-1]!r} is read with {how}; write 2016-07-31 to be sure")
    return times


def _constant(sheet: Sheet, rows: Rows, name: str, cells: list[str]) -> str:
    """What a static column says of a series. Raises: UserError where that changes."""
    first: str = cells[int(rows.order[0])]
    for i in rows.order:
        if cells[i] != first:
            raise UserError(
                f"{sheet.name}:{sheet.lines[i]}: series {rows.id!r}: {name!r} is {cells[i]!r} here and {first!r} before; a static "
                "column says the same in all rows of a series"
            )
    return first


def _trimmed(name: str, series: list[Series], roles: Roles) -> list[Series]:
    """Series from their first value to their last; what is known ahead of that is kept. Says which are shorter than their rows."""
    found, ended, empty = list[Series](), list[tuple[Series, int]](), list[Series]()
    for one in series:
        there = np.flatnonzero(~np.isnan(one.values))
        if not len(there):
            empty.append(one)
            continue
        first, end = int(there[0]), int(there[-1]) + 1
        if end < len(one.values) and not one.future:
            ended.append((one, end))
        future = {column: values[first:] for column, values in one.future.items()}
        begun = replace(
            one, clock=one.clock.later(first), future=future, values=one.values[first:], lines=one.lines[first:]
        )
        begun = replace(begun, past={column: values[first:] for column, values in one.past.items()})
        place = f"{name}:{begun.lines[0]}" if begun.lines[0] else one.place
        found.append(replace(begun, place=place).upto(end - first))
    if empty and (not found or (roles.id is None and not roles.guessed_targets)):
        place, id = empty[0].place, empty[0].id
        raise UserError(f"{place}: series {id!r} holds no number; leave it out, or name another column as the target")
    if ended:
        one, end = ended[0]
        others = f", and {len(ended) - 1:,} more end before their rows do" if len(ended) > 1 else ""
        _say(f"{name}: series {one.id!r} ends at {one.clock.date(end - 1)}, no row after that has a value{others}")
    if empty:
        others = f" (and {len(empty) - 1:,} more)" if len(empty) > 1 else ""
        _say(f"{empty[0].place}: series {empty[0].id!r} holds no number, and is left out{others}")
    return found


def _of_rows(sheet: Sheet, columns: SeriesColumns, begin: int) -> list[Series]:
    """Series of a file with a row for each: its name (and what kind it is) in the first columns, then its values."""
    heads = sheet.names[begin:]
    id_column = columns.column(sheet.name, sheet.names[:begin], "id", columns.id) if columns.id else sheet.names[0]
    clock, names, seen = COUNTING, sheet.names[:begin], dict[str, int]()
    if not sheet.counted(heads):
        times = read_times(heads, lambda i: f"{sheet.name}:{sheet.first}", years=True)
        clock = grouped(replace(sheet, lines=np.full(len(heads), sheet.first)), None, times, columns, "")[0].clock
    statics = {name: sheet.texts(columns.column(sheet.name, names, "static", name)) for name in columns.static}
    cells = [sheet.columns[i] for i in range(begin, len(sheet.names))]
    found = []
    for i, id in enumerate(sheet.texts(id_column)):
        line = int(sheet.lines[i])
        if id in seen:
            raise UserError(
                f"{sheet.name}:{line}: a second row of series {id!r} (line {seen[id]} has one); a series is one row"
            )
        seen[id] = line
        values = numbers([column[i] for column in cells], _always(f"{sheet.name}:{line}"), heads.__getitem__)
        static = {name: texts[i] for name, texts in statics.items()}
        lines = np.full(len(values), line)
        found.append(Series(id, values, clock, {}, {}, static, f"{sheet.name}:{line}", lines, Names(id=id_column)))
    ends = [int(np.flatnonzero(~np.isnan(one.values)).max(initial=-1)) + 1 for one in found]
    found = [one if not clock.counted or not end else one.upto(end) for one, end in zip(found, ends, strict=True)]
    if sheet.header and not sheet.counted(sheet.names):
        _say(f"{sheet.name}: each row is a series: its name is in {id_column!r}, its values begin with {heads[0]!r}")
    return _trimmed(sheet.name, found, Roles(id_column))


def continued(history: Series, truth: Series) -> Series:
    """A history and what followed it, as one series; or the history with what is known ahead, where `truth` has no values.

    Raises: UserError where the one does not follow the other, or lacks a covariate.
    """
    steps, more = len(history.values), len(truth.values)
    begin = steps
    if not truth.clock.counted and not history.clock.counted:
        begin = _begins(history, truth)
    if begin > steps or (begin < steps and more):
        raise UserError(
            f"{truth.place}: series {truth.id!r} goes on at {truth.clock.date(0)}, but its history ends at "
            f"{history.clock.date(steps - 1)}: {history.clock.date(steps)} is to follow"
        )
    past, future = {}, {}
    for name, values in history.past.items():
        if more and name not in truth.past:
            raise UserError(f"{truth.place}: series {truth.id!r} has no column {name!r}, which its history has")
        past[name] = np.concatenate([values, truth.past[name]]) if more else values
    for name, values in history.future.items():
        if name in truth.future:
            future[name] = np.concatenate([values[:steps], truth.future[name][steps - begin :]])
        elif len(values) < steps + more:
            raise UserError(f"{truth.place}: series {truth.id!r} has no column {name!r}, which its history has")
        else:
            future[name] = values
    values, lines = np.concatenate([history.values, truth.values]), np.concatenate([history.lines, truth.lines])
    return replace(history, values=values, past=past, future=future, lines=lines)


def _begins(history: Series, truth: Series) -> int:
    """The step of a history at which a truth begins. Raises: UserError where it has other steps."""
    ours, theirs = history.clock.frequency, truth.clock.frequency
    long = len(truth.values) > 1 and len(history.values) > 1
    if ours.unit != theirs.unit or (long and ours.name != theirs.name):
        raise UserError(
            f"{truth.place}: series {truth.id!r} has a row a {theirs.name}, its history a row a {ours.name}; both need the same"
        )
    begin = history.clock.index(truth.clock.date(0))
    if begin is None:
        raise UserError(
            f"{truth.place}: series {truth.id!r}: {truth.clock.date(0)} is no step of its history, which begins at "
            f"{history.clock.date(0)} and has a row a {ours.name}"
        )
    return begin


def season_of(values: Array) -> int:
    """After how many steps a series repeats itself, by the autocorrelation of its differences; 1 where it does not.

    Of the lags at which that peaks, the shortest that is nearly as good as the best: of hours a day rather than a week.
    """
    values = np.asarray(values, np.float64)
    steps = np.diff(values)
    there = ~np.isnan(steps)
    count, longest = int(there.sum()), min(len(steps) // 3, 2000)
    if count < 8 or longest < 2:
        return 1
    steps = np.where(there, steps - steps[there].mean(), 0.0)
    largest = np.abs(steps).max()
    if largest <= 1e-12 * np.nanmax(np.abs(values)):  # a straight line, but for rounding
        return 1
    steps = steps / largest
    size = 1 << (2 * len(steps) - 1).bit_length()
    correlation = np.fft.irfft(np.abs(np.fft.rfft(steps, size)) ** 2)[: longest + 2]
    correlation = correlation / correlation[0]
    lags = np.arange(2, longest + 1)
    here, before, after = correlation[lags], correlation[lags - 1], correlation[lags + 1]
    # more than the largest of so many lags is by chance, where differences of noise are correlated too
    chance = 1.25 * np.sqrt(2 * np.log(longest) / count)
    peaks = (here > before) & (here >= after) & (here > max(0.1, chance))
    return int(lags[peaks & (here >= 0.8 * here[peaks].max())][0]) if peaks.any() else 1


def _always(text: str) -> Callable[[int], str]:
    return lambda _: text


def _say(what: str) -> None:
    warnings.warn(what, stacklevel=3)
