"""The rows of series, put in their places in time."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from throughtime.errors import UserError
from throughtime.tasks.dates import Clock, Frequency, infer, of_one, summer_time
from throughtime.tasks.roles import SeriesColumns
from throughtime.tasks.sheet import Sheet
from throughtime.tasks.times import Times

Array = np.ndarray[Any, Any]

FEW = 6  # rows, of which the frequency may be another than it seems
MOST = 1000  # steps a row that a frequency may make


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
class _Group:
    """The rows of one series in order of time. ticks: of each, as if no clock had been changed."""

    id: str | None
    order: Array
    ticks: Array
    changes: tuple[tuple[int, int], ...]  # row, microseconds
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
        return [
            Rows(id, order, np.arange(len(order)), len(order), Clock(counted=True), sheet.lines[order], None)
            for id, order in orders
        ]
    asked = columns.frequency
    orders = _forwards(sheet, orders, times)
    groups = [_ordered(sheet, id, order, times, target) for id, order in orders]
    if times.offsets is None and (changed := [g.order[g.changes[0][0]] for g in groups if g.changes]):
        others = sum(len(g.changes) for g in groups) - 1
        _say(
            f"{sheet.name}:{sheet.lines[changed[0]]}: the clocks are changed at {_date(times, changed[0])}"
            f"{f' (and {others:,} times more)' if others else ''}: an hour that is not there is not missing, and one that is there "
            "twice is two"
        )
    frequencies = _frequencies(sheet, groups, times, asked, columns, target)
    found, gaps = [], []
    for group, frequency in zip(groups, frequencies, strict=True):
        start = int(group.ticks[0])
        steps, exact = frequency.steps(start, group.ticks)
        if not exact.all():
            at = int((~exact).argmax())
            raise UserError(
                f"{_place(sheet, group, at)}: series {group.id or target!r}: {_date(times, group.order[at])} is no whole number of "
                f"steps ({frequency.name}) after {_date(times, group.order[0])}; mend it, or name the step by {columns.option}freq"
            )
        lines, length = sheet.lines[group.order], int(steps[-1]) + 1
        if length != len(steps):
            gaps.append((group, steps))
            if length > MOST * len(steps):
                raise UserError(
                    f"{sheet.name}: series {group.id or target!r} would have {length:,} steps ({frequency.name}) from "
                    f"{len(steps):,} rows; name a longer step by {columns.option}freq, or mend its times"
                )
            lines = np.zeros(length, np.int64)
            lines[steps] = sheet.lines[group.order]
        changes = tuple((int(steps[row]), by) for row, by in group.changes)
        clock = Clock(start + group.offset, frequency, times.format, group.offset, changes)
        found.append(Rows(group.id, group.order, steps, length, clock, lines, columns.fill))
    if gaps and columns.fill is None:
        raise UserError(_missing(sheet, gaps, times, columns, target, found[0].clock.frequency))
    return found


def _orders(count: int, ids: Sequence[str] | None) -> list[tuple[str | None, Array]]:
    """The rows of each series, in the order in which these begin."""
    if ids is None:
        return [(None, np.arange(count))]
    known: dict[str, int] = {}
    codes = np.array([known.setdefault(id, len(known)) for id in ids])
    order = np.argsort(codes, kind="stable")
    return list(zip(known, np.split(order, np.cumsum(np.bincount(codes))[:-1]), strict=True))


def _forwards(sheet: Sheet, orders: list[tuple[str | None, Array]], times: Times) -> list[tuple[str | None, Array]]:
    """Rows of a table that runs backwards in time, turned round."""
    ticks = times.ticks if times.offsets is None else times.ticks - times.offsets
    several = [ticks[order] for _, order in orders if len(order) > 1]
    if not several or not all(t[0] > t[-1] and (np.diff(t) <= 0).all() for t in several):
        return orders
    _say(f"{sheet.name}: runs backwards in time, and is turned round")
    return [(id, order[::-1]) for id, order in orders]


def _ordered(sheet: Sheet, id: str | None, order: Array, times: Times, target: str) -> _Group:
    """The rows of a series. Raises: UserError where they are out of order, or a time is there twice."""
    ticks, changes, offset = times.ticks[order], list[tuple[int, int]](), 0
    if times.offsets is not None:
        offsets = times.offsets[order]
        offset, moved = int(offsets[0]), np.diff(offsets)
        changes = [(int(row) + 1, int(moved[row])) for row in np.flatnonzero(moved)]
        ticks = ticks - offsets
    elif not times.format.is_integer and len(ticks) > 1:
        apart = np.diff(ticks)
        values, counts = np.unique(apart, return_counts=True)
        changes = summer_time(ticks, int(values[counts.argmax()])) if len(values) > 1 else []
        for row, by in changes:
            ticks = ticks - np.where(np.arange(len(ticks)) >= row, by, 0)
    wrong = np.diff(ticks) <= 0
    if wrong.any():
        at = int(wrong.argmax()) + 1
        group = _Group(id, order, ticks, (), 0)
        before = int((ticks[:at] == ticks[at]).argmax()) if (ticks[:at] == ticks[at]).any() else None
        if before is not None:
            hint = (
                "; if the rows are of several series, name the column of their names by --data.id" if id is None else ""
            )
            what = f"{_date(times, order[at])} is there twice (line {sheet.lines[order[before]]} too){hint}"
        else:
            what = (
                f"{_date(times, order[at])} comes after {_date(times, order[at - 1])} (line {sheet.lines[order[at - 1]]}); sort "
                "the rows by time"
            )
        raise UserError(f"{_place(sheet, group, at)}: series {id or target!r}: {what}")
    return _Group(id, order, ticks, tuple(changes), offset)


def _frequencies(
    sheet: Sheet, groups: list[_Group], times: Times, asked: Frequency | None, columns: SeriesColumns, target: str
) -> list[Frequency]:
    """The frequency of each series: the same, but for the day of the month. Raises: UserError where series differ in it."""
    if asked is not None and (asked.unit == "integer") != times.format.is_integer:
        kind = "whole numbers" if times.format.is_integer else "dates"
        raise UserError(
            f"{columns.option}freq: got {columns.freq!r}, but the times of {sheet.name} are {kind}, such as {times.format.model}"
        )
    own = [infer(group.ticks, times.format) for group in groups]
    longest = max(range(len(groups)), key=lambda i: len(groups[i].ticks))
    common = asked or own[longest] or of_one(times.format)
    found = []
    for i, group in enumerate(groups):
        mine = own[i]
        if mine is not None and mine.unit == common.unit == "month" and mine.count % common.count == 0:
            fitting = replace(common, day=mine.day)
        else:
            fitting = common.standing(int(group.ticks[0]))
        if asked is None and mine is not None and mine.name != fitting.name:
            steps, exact = fitting.steps(int(group.ticks[0]), group.ticks)
            if len(steps) >= FEW or not exact.all() or steps[-1] >= 4 * len(steps):
                raise UserError(
                    f"{_place(sheet, group, 0)}: mixed frequencies: series {group.id!r} has a row a {mine.name}, series "
                    f"{groups[longest].id!r} a row a {common.name}; put them into files of their own, or name one by "
                    f"{columns.option}freq"
                )
        found.append(fitting)
    return found


def _missing(
    sheet: Sheet,
    gaps: list[tuple[_Group, Array]],
    times: Times,
    columns: SeriesColumns,
    target: str,
    frequency: Frequency,
) -> str:
    """What is said of missing rows."""
    group, steps = gaps[0]
    at = int((np.diff(steps) > 1).argmax()) + 1
    here, total = int(steps[at] - steps[at - 1]) - 1, sum(int(s[-1]) + 1 - len(s) for _, s in gaps)
    more = f" ({total:,} in all, in {len(gaps):,} series)" if total > here else ""
    return (
        f"{_place(sheet, group, at)}: series {group.id or target!r}: {here:,} row{'s are' if here > 1 else ' is'} missing before "
        f"{_date(times, group.order[at])}{more}, with a row a {frequency.name}; {columns.option}fill takes missing, zero, last "
        "or linear"
    )


def _place(sheet: Sheet, group: _Group, row: int) -> str:
    return f"{sheet.name}:{sheet.lines[group.order[row]]}"


def _date(times: Times, i: int) -> str:
    return times.format.write(int(times.ticks[i]), 0 if times.offsets is None else int(times.offsets[i]))


def _say(what: str) -> None:
    warnings.warn(what, stacklevel=3)
