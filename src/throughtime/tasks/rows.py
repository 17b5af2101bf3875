"""The rows of series, put in their places in time."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from throughtime.errors import UserError
from throughtime.tasks.dates import Clock, Frequency, infer, of_one, summer_time
from throughtime.tasks.roles import FILLS, SeriesColumns
from throughtime.tasks.sheet import Sheet
from throughtime.tasks.times import DAY, Times

Array = np.ndarray[Any, Any]

FEW, SPARSE = 6, 4  # fewer rows than that may have another frequency than it seems, where they are so dense
MOST = 1000  # steps a row


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of one series. id: None where the series are columns. order: which rows of the table, in order of time. steps: which
    step each is, of `length`. lines: of each step, 0 where its row is missing."""

    id: str | None
    order: Array
    steps: Array
    length: int
    clock: Clock
    lines: Array
    fill: str | None

    def laid(self, values: Array) -> Array:
        """Values of the table's rows as those of the steps; those of missing rows are filled."""
        given = values[self.order]
        if len(given) == self.length:
            return given
        laid = np.zeros(self.length) if self.fill == "zero" else np.full(self.length, np.nan)
        if self.fill == "last":
            laid = np.repeat(given, np.diff([*self.steps, self.length]))
        elif self.fill == "linear":
            laid = np.interp(np.arange(self.length), self.steps, given)
        laid[self.steps] = given
        return laid


@dataclass(frozen=True, eq=False)
class _Timed:
    """A table, the times of its rows, and how errors speak of them. target: how a series without a name is called."""

    sheet: Sheet
    times: Times
    columns: SeriesColumns
    target: str

    def date(self, i: int) -> str:
        """The time of a row as it is written."""
        offsets = self.times.offsets
        return self.times.format.write(int(self.times.ticks[i]), 0 if offsets is None else int(offsets[i]))

    def place(self, i: int) -> str:
        return f"{self.sheet.name}:{self.sheet.lines[i]}"

    def error(self, i: int, id: str | None, what: str) -> UserError:
        """What is wrong with a row of a series."""
        return UserError(f"{self.place(i)}: series {id or self.target!r}: {what}")


@dataclass(frozen=True, eq=False)
class _Group:
    """The rows of one series in order of time. ticks: of each, as if no clock had been changed. changes: (row, microseconds)."""

    id: str | None
    order: Array
    ticks: Array
    changes: tuple[tuple[int, int], ...]
    offset: int


def grouped(
    sheet: Sheet, ids: Sequence[str] | None, times: Times | None, columns: SeriesColumns, target: str
) -> list[Rows]:
    """The rows of each series, in their places in time.

    Args: ids: the name of the series of each row; None: all are of one. times: of each row; None: they are counted. target: how a
        series without a name is called in errors.
    Raises: UserError with series, row and date where rows are out of order, there twice or missing, or frequencies are mixed.
    """
    orders = _orders(len(sheet.lines), ids)
    if times is None:
        clock = Clock(counted=True)
        return [Rows(id, o, np.arange(len(o)), len(o), clock, sheet.lines[o], None) for id, o in orders]
    table = _Timed(sheet, times, columns, target)
    groups = [_ordered(table, id, order) for id, order in _forwards(table, orders)]
    if times.offsets is None and (changed := [g.order[g.changes[0][0]] for g in groups if g.changes]):
        others = sum(len(g.changes) for g in groups) - 1
        more = f" (and {others:,} times more)" if others else ""
        _say(
            f"{table.place(changed[0])}: the clocks are changed at {table.date(changed[0])}{more}: an hour that is not there is "
            "not missing, and one that is there twice is two"
        )
    found = [_placed(table, group, step) for group, step in zip(groups, _frequencies(table, groups), strict=True)]
    if columns.fill is None and (gaps := [rows for rows in found if len(rows.steps) != rows.length]):
        raise _missing(table, gaps)
    return found


def _orders(count: int, ids: Sequence[str] | None) -> list[tuple[str | None, Array]]:
    """The rows of each series, in the order in which these begin."""
    if ids is None:
        return [(None, np.arange(count))]
    known: dict[str, int] = {}
    codes = np.array([known.setdefault(id, len(known)) for id in ids])
    order = np.argsort(codes, kind="stable")
    return list(zip(known, np.split(order, np.cumsum(np.bincount(codes))[:-1]), strict=True))


def _forwards(table: _Timed, orders: list[tuple[str | None, Array]]) -> list[tuple[str | None, Array]]:
    """Rows of a table that runs backwards in time, turned round."""
    ticks, offsets = table.times.ticks, table.times.offsets
    ticks = ticks if offsets is None else ticks - offsets
    several = [ticks[order] for _, order in orders if len(order) > 1]
    if not several or not all(t[0] > t[-1] and (np.diff(t) <= 0).all() for t in several):
        return orders
    _say(f"{table.sheet.name}: runs backwards in time, and is turned round")
    return [(id, order[::-1]) for id, order in orders]


def _ordered(table: _Timed, id: str | None, order: Array) -> _Group:
    """The rows of a series. Raises: UserError where they are out of order, or a time is there twice."""
    ticks, changes, offset = table.times.ticks[order], list[tuple[int, int]](), 0
    if table.times.offsets is not None:
        offsets = table.times.offsets[order]
        offset, moved = int(offsets[0]), np.diff(offsets)
        changes = [(int(row) + 1, int(moved[row])) for row in np.flatnonzero(moved)]
        if changes and (np.diff(ticks) < DAY).any():  # a day is one, however many hours it has
            ticks = ticks - offsets + offset
    elif not table.times.format.is_integer and len(ticks) > 1:
        values, counts = np.unique(np.diff(ticks), return_counts=True)
        changes = summer_time(ticks, int(values[counts.argmax()])) if len(values) > 1 else []
        for row, by in changes:
            ticks = ticks - np.where(np.arange(len(ticks)) >= row, by, 0)
    wrong = np.diff(ticks) <= 0
    if not wrong.any():
        return _Group(id, order, ticks, tuple(changes), offset)
    at = int(wrong.argmax()) + 1
    here = order[at]
    same = np.flatnonzero(ticks[:at] == ticks[at])
    if not len(same):
        before = order[at - 1]
        what = f"{table.date(here)} comes after {table.date(before)} (line {table.sheet.lines[before]}); sort the rows by time"
        raise table.error(here, id, what)
    option = table.columns.option
    hint = "" if id else f"; if the rows are of several series, name the column of their names by {option}id"
    line = table.sheet.lines[order[same[0]]]
    raise table.error(here, id, f"{table.date(here)} is there twice (line {line} too){hint}")


def _frequencies(table: _Timed, groups: list[_Group]) -> list[Frequency]:
    """The frequency of each series: the same, but for the day of the month. Raises: UserError where series differ in it."""
    form, columns, asked = table.times.format, table.columns, table.columns.frequency
    if asked is not None and (asked.unit == "integer") != form.is_integer:
        kind = "whole numbers" if form.is_integer else "dates"
        raise UserError(
            f"{columns.option}freq: got {columns.freq!r}, but the times of {table.sheet.name} are {kind}, such as {form.model}"
        )
    own = [infer(group.ticks, form) for group in groups]
    longest = max(range(len(groups)), key=lambda i: len(groups[i].ticks))
    common = asked or own[longest] or of_one(form)
    found = []
    for group, mine in zip(groups, own, strict=True):
        start = int(group.ticks[0])
        if mine is not None and mine.unit == common.unit == "month" and mine.count % common.count == 0:
            fitting = replace(common, day=mine.day)
        else:
            fitting = common.standing(start)
        if asked is None and mine is not None and mine.name != fitting.name:
            steps, exact = fitting.steps(start, group.ticks)
            if len(steps) >= FEW or not exact.all() or steps[-1] >= SPARSE * len(steps):
                raise UserError(
                    f"{table.place(group.order[0])}: mixed frequencies: series {group.id!r} has a row a {mine.name}, series "
                    f"{groups[longest].id!r} a row a {common.name}; put them into files of their own, or name one by "
                    f"{columns.option}freq"
                )
        found.append(fitting)
    return found


def _placed(table: _Timed, group: _Group, frequency: Frequency) -> Rows:
    """The rows of a series in their steps. Raises: UserError where one is between two, or there would be far too many."""
    order, start, option = group.order, int(group.ticks[0]), table.columns.option
    steps, exact = frequency.steps(start, group.ticks)
    if not exact.all():
        row = order[(~exact).argmax()]
        what = f"{table.date(row)} is no whole number of steps ({frequency.name}) after {table.date(order[0])}"
        raise table.error(row, group.id, f"{what}; mend it, or name the step by {option}freq")
    length = int(steps[-1]) + 1
    if length > MOST * len(steps):
        what = f"{length:,} steps ({frequency.name}) up to here from {len(steps):,} rows"
        raise table.error(order[-1], group.id, f"{what}; mend its times, or name a longer step by {option}freq")
    lines = np.zeros(length, np.int64)
    lines[steps] = table.sheet.lines[order]
    changes = tuple((int(steps[row]), by) for row, by in group.changes)
    clock = Clock(start, frequency, table.times.format, group.offset, changes)
    return Rows(group.id, order, steps, length, clock, lines, table.columns.fill)


def _missing(table: _Timed, gaps: list[Rows]) -> UserError:
    """What is said of missing rows: of the first, and how many there are."""
    rows = gaps[0]
    at = int((np.diff(rows.steps) > 1).argmax()) + 1
    here, total = int(rows.steps[at] - rows.steps[at - 1]) - 1, sum(r.length - len(r.steps) for r in gaps)
    row, many = rows.order[at], "s are" if here > 1 else " is"
    more = f" ({total:,} in all, in {len(gaps):,} series)" if total > here else ""
    return table.error(
        row,
        rows.id,
        f"{here:,} row{many} missing before {table.date(row)}{more}, with a row a {rows.clock.frequency.name}; "
        f"{table.columns.option}fill takes {', '.join(FILLS)}",
    )


def _say(what: str) -> None:
    warnings.warn(what, stacklevel=3)
