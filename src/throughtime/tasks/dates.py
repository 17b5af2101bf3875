"""The frequency that times follow, and a clock that goes on with it beyond the end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from throughtime.errors import UserError, nearest
from throughtime.tasks.times import COUNTED, DAY, HOUR, ISO, ISO_CLOCK, SECOND, Format, find_format

Array = np.ndarray[Any, Any]
Unit = Literal["integer", "time", "business", "month"]

LAST = 31  # the day of months whose steps stand at their end
SUNDAY = 6
DST = 250 * DAY  # summer time is shorter, and so is winter
# how pandas calls frequencies -> unit, count; also as it called them before
NAMES: dict[str, tuple[Unit, int]] = {
    **{"us": ("time", 1), "ms": ("time", SECOND // 1000), "s": ("time", SECOND), "min": ("time", 60 * SECOND)},
    **{"h": ("time", HOUR), "D": ("time", DAY), "W": ("time", 7 * DAY), "B": ("business", 1)},
    **{
        "MS": ("month", 1),
        "ME": ("month", 1),
        "QS": ("month", 3),
        "QE": ("month", 3),
        "YS": ("month", 12),
        "YE": ("month", 12),
    },
}
OLD = {"S": "s", "T": "min", "H": "h", "M": "ME", "Q": "QE", "Y": "YE", "A": "YE", "AS": "YS", "L": "ms", "BS": "B"}


@dataclass(frozen=True)
class Frequency:
    """What lies between two steps. unit: what count counts: whole numbers, microseconds, working days (Monday to Friday) or months.
    day: of months, on which day of theirs the steps stand (the last where a month is shorter; 31: the last)."""

    unit: Unit
    count: int = 1
    day: int = 1

    @classmethod
    def of(cls, name: str, option: str = "--data.") -> Frequency:
        """A frequency by its name in pandas: `h`, `30min`, `D`, `B`, `W`, `MS`, `ME`, `QS`, `YS`; a whole number: of integers.

        Raises: UserError where there is none of the name.
        """
        found = re.fullmatch(r"\s*(\d*)\s*([A-Za-z]*)(?:-[A-Za-z]{3})?\s*", name)
        count = int(found[1] or 1) if found else 0
        if found is not None and count:
            known = OLD.get(found[2], found[2])
            known = known if known in NAMES else known.lower() if known.lower() in NAMES else known.upper()
            if known in NAMES:
                unit, each = NAMES[known]
                return cls(unit, count * each, LAST if known.endswith("E") else 1)
            if found[1] and not found[2]:
                return cls("integer", count)
        near = nearest(found[2] if found else name, NAMES)
        hint = (
            f"did you mean {near!r}?" if near else f"it takes {', '.join(NAMES)}, perhaps with a number before (30min)"
        )
        raise UserError(f"{option}freq: unknown frequency {name!r}; {hint}")

    @property
    def name(self) -> str:
        """As pandas calls it; of integers their step."""
        if self.unit == "integer":
            return str(self.count)
        each = max(
            (n for n in NAMES.items() if n[1][0] == self.unit and self.count % n[1][1] == 0), key=lambda n: n[1][1]
        )
        name = each[0][:-1] + "E" if self.unit == "month" and self.day == LAST else each[0]
        return name if self.count == each[1][1] else f"{self.count // each[1][1]}{name}"

    @property
    def season(self) -> int | None:
        """After how many steps a season usually comes again (24 of hours, 7 of days, 12 of months); None of integers; 1 where none
        is usual."""
        if self.unit == "integer":
            return None
        if self.unit == "time":
            whole = next(
                (n for n in (3600 * SECOND if self.count < 60 * SECOND else DAY, 7 * DAY) if self.count < n), 364 * DAY
            )
        else:
            whole = 5 if self.unit == "business" else 12
        return 1 if whole % self.count else whole // self.count

    def standing(self, tick: int) -> Frequency:
        """The same; of months, on the day of theirs on which a tick is."""
        if self.unit != "month":
            return self
        day = np.array([tick // DAY]).astype("datetime64[D]")
        month = day.astype("datetime64[M]")
        last = self.day == LAST and (_in_month(month, LAST) == _days(day))[0]
        return replace(self, day=LAST if last else int((_days(day) - _days(month))[0]) + 1)

    def ticks(self, start: int, steps: Array) -> Array:
        """When steps are, counted from the one at `start`."""
        if self.unit in ("integer", "time"):
            return start + steps * self.count
        day, rest = divmod(start, DAY)
        if self.unit == "business":
            return _days(np.busday_offset(np.datetime64(day, "D"), steps * self.count, roll="forward")) * DAY + rest
        month = np.datetime64(day, "D").astype("datetime64[M]") + steps * self.count
        return _in_month(month, self.day) * DAY + rest

    def steps(self, start: int, ticks: Array) -> tuple[Array, Array]:
        """The step at or before each of some ticks, and whether it is exactly there."""
        if self.unit in ("integer", "time"):
            steps = (ticks - start) // self.count
        else:
            first, days = np.datetime64(start // DAY, "D"), (ticks // DAY).astype("datetime64[D]")
            if self.unit == "business":
                steps = np.busday_count(first, days) // self.count
            else:
                steps = (days.astype("datetime64[M]") - first.astype("datetime64[M]")).astype(np.int64) // self.count
        return steps, self.ticks(start, steps) == ticks


def _days(days: Array) -> Array:
    return np.asarray(days.astype("datetime64[D]").astype(np.int64))


def _in_month(months: Array, day: int) -> Array:
    """The day of each month, or its last, in days since 1970."""
    return np.asarray(np.minimum(_days(months) + day - 1, _days(months + 1) - 1))


def infer(ticks: Array, form: Format) -> Frequency | None:
    """The frequency of rising ticks: what most lie apart. None of one alone, whose frequency cannot be known."""
    if len(ticks) < 2:
        return None
    if form.is_integer:
        return Frequency("integer", _most(np.diff(ticks)))
    days, times = np.divmod(ticks, DAY)
    if (times == times[0]).all():
        months = days.astype("datetime64[D]").astype("datetime64[M]")
        last = bool((_in_month(months, LAST) == days).all())
        day = LAST if last else int((days - _days(months)).max()) + 1
        apart = np.diff(months.astype(np.int64))
        if (_in_month(months, day) == days).all() and (apart > 0).all():
            return Frequency("month", _most(apart), day)
        weekdays = (days + 3) % 7
        if len(days) > 5 and (weekdays < 5).all() and _most(np.diff(days)) == 1 and days[-1] - days[0] >= 7:
            return Frequency("business")
    return Frequency("time", _most(np.diff(ticks)))


def of_one(form: Format) -> Frequency:
    """The frequency of times written so, where there are no two to tell it."""
    fields = form.fields
    if form.is_integer:
        return Frequency("integer")
    if "w" in fields:
        return Frequency("time", 7 * DAY)
    if not fields & {"d", "a"}:
        return Frequency("month", 3 if "q" in fields else 1 if fields & {"m", "B"} else 12)
    return Frequency("time", DAY)


def _most(apart: Array) -> int:
    values, counts = np.unique(apart, return_counts=True)
    return int(values[counts.argmax()])


def summer_time(ticks: Array, count: int) -> list[tuple[int, int]]:
    """Where local times show that the clocks were changed: an hour that is not there in spring, one that is there twice in autumn,
    in the night to a Sunday, in turn.

    Args: ticks: by the clock of the place, as they follow each other. count: microseconds from step to step.
    Returns: (row, +1 hour or -1 hour) for each change: from this row on the clock differs by so much more. None where rows are not
        in order for another reason, or missing.
    """
    if not 0 < count <= HOUR or HOUR % count:
        return []
    days = ticks // DAY
    month = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) % 12 + 1
    night = ((days + 3) % 7 == SUNDAY) & (ticks % DAY <= 4 * HOUR) & np.isin(month, (3, 4, 9, 10, 11))
    jumps = np.diff(ticks) - count
    rows = np.flatnonzero(night[1:] & (np.abs(jumps) == HOUR)) + 1
    moved = jumps[rows - 1]
    edges = [ticks[0], *ticks[rows], ticks[-1]]
    if len(rows) and ((np.diff(moved) == 0).any() or (np.diff(edges) > DST).any()):
        return []
    return [(int(row), int(by)) for row, by in zip(rows, moved, strict=True)]


@dataclass(frozen=True, eq=False)
class Clock:
    """When the steps of a series are.

    start: of step 0, as microseconds since 1970 by the clock of its place, or an integer. format: how times are written. offset:
    how far step 0 is before UTC, where that is written. changes: (step, microseconds) from which on the clock differs by so much
    more. counted: whether no times were given, and steps are counted from 1.
    """

    start: int = 1
    frequency: Frequency = Frequency("integer")
    format: Format = COUNTED
    offset: int = 0
    changes: tuple[tuple[int, int], ...] = ()
    counted: bool = False

    @classmethod
    def of(cls, date: str, frequency: str) -> Clock:
        """A clock from a date on, written as people do, with a frequency as pandas calls it.

        Raises: UserError where there is no such date or frequency.
        """
        step = Frequency.of(frequency)
        form = find_format([date], years=step.unit != "integer")
        try:
            if form is None:
                raise ValueError
            start, offset = form.read(date)
        except ValueError:
            raise UserError(f"{date!r} cannot be read as a time") from None
        return cls(start, step.standing(start), form, offset)

    def ticks(self, steps: Array) -> Array:
        """When steps are, by the clock of the place; past the end clocks are not changed."""
        ticks = self.frequency.ticks(self.start, np.asarray(steps, np.int64))
        for at, by in self.changes if self._counts_hours else ():
            ticks = ticks + np.where(np.asarray(steps) >= at, by, 0)
        return ticks

    @property
    def _counts_hours(self) -> bool:
        """Whether a change of the clock moves the steps after it; a day is one, however many hours it has."""
        return self.frequency.unit == "time" and self.frequency.count < DAY

    def date(self, i: int) -> str:
        """When step i is, as the file writes times; also where the series has not come so far."""
        return self.dates([i])[0]

    def dates(self, steps: Sequence[int]) -> list[str]:
        """When steps are, as the file writes times."""
        ticks, offsets = self.ticks(np.asarray(steps)), np.full(len(steps), self.offset)
        for at, by in self.changes:
            offsets += np.where(np.asarray(steps) >= at, by, 0)
        return [self._form.write(tick, offset) for tick, offset in zip(ticks.tolist(), offsets.tolist(), strict=True)]

    @cached_property
    def _form(self) -> Format:
        """As the file writes times, with a time of day where steps need one."""
        first = np.arange(2)
        plain = self.format.pattern is ISO.pattern and self.format.model[10:] == ""
        return ISO_CLOCK if plain and (self.ticks(first) % DAY).any() else self.format

    def index(self, date: str) -> int | None:
        """The step at a time, however it is written; None where no step is there. Of an hour that is there twice, the first."""
        for form in (self.format, find_format([date], years=self.frequency.unit == "month")):
            if form is not None and form.is_integer == self.format.is_integer:
                try:
                    return self._index(*form.read(date), form.has_zone and self.format.has_zone and self._counts_hours)
                except ValueError:
                    pass
        return None

    def _index(self, tick: int, offset: int, absolute: bool) -> int | None:
        """The step at a tick; absolute: whether what it is before UTC counts, and not whether the clock was changed."""
        if absolute:
            step, exact = self.frequency.steps(self.start, np.array([tick - offset + self.offset]))
            return int(step[0]) if exact[0] else None
        begin, moved = -np.inf, 0
        for end, by in (*(self.changes if self._counts_hours else ()), (np.inf, 0)):
            step, exact = self.frequency.steps(self.start, np.array([tick - moved]))
            if exact[0] and begin <= step[0] < end:
                return int(step[0])
            begin, moved = end, moved + by
        return None

    def later(self, steps: int) -> Clock:
        """The clock of what begins so many steps later (earlier, where that is negative)."""
        gone = sum(by for at, by in self.changes if at <= steps)
        start = int(self.ticks(np.array([steps]))[0])
        changes = tuple((at - steps, by) for at, by in self.changes if at > steps)
        return replace(self, start=start, offset=self.offset + gone, changes=changes)

    @property
    def _parts(self) -> list[tuple[str, int]]:
        """The features of the calendar that steps so long have: name, and how many columns."""
        if self.frequency.unit == "integer":
            return []
        short = self.frequency.unit == "business" or (self.frequency.unit == "time" and self.frequency.count < 7 * DAY)
        parts = [("hour", 2)] if self.frequency.unit == "time" and self.frequency.count < DAY else []
        if short:
            parts += [("weekday", 2), *([("weekend", 1)] if self.frequency.unit == "time" else []), ("day", 1)]
        return parts + ([("month", 2)] if self.frequency.unit != "month" or self.frequency.count % 12 else [])

    @property
    def names(self) -> list[str]:
        """What the features are called."""
        return [name for part, n in self._parts for name in ([f"{part}_sin", f"{part}_cos"] if n == 2 else [part])]

    def features(self, steps: Array) -> Array:
        """What the calendar says of steps, also of those to come: the hour, the day of the week, whether it is a weekend, the day
        of the month, the time of the year, as far as steps so long tell them.

        Args: steps: [N]. Returns: [N, F] float32 in -1 .. 1, F the length of `names`; hours, weekdays and the year go in circles.
        """
        ticks = self.ticks(steps)
        if not self._parts:
            return np.zeros((len(ticks), 0), np.float32)
        days, time = np.divmod(ticks, DAY)
        dates = days.astype("datetime64[D]")
        months, years = dates.astype("datetime64[M]"), dates.astype("datetime64[Y]")
        weekday = (days + 3) % 7
        if self.frequency.unit == "month":
            year = months.astype(np.int64) % 12 / 12
        else:
            year = (days - _days(years)) / (_days(years + 1) - _days(years))
        found = {
            "hour": time / DAY,
            "weekday": weekday / 7,
            "weekend": np.where(weekday > 4, 1.0, -1.0),
            "day": (days - _days(months)) / 15 - 1,
            "month": year,
        }
        columns = []
        for part, n in self._parts:
            phase = 2 * np.pi * found[part]
            columns += [np.sin(phase), np.cos(phase)] if n == 2 else [found[part]]
        return np.stack(columns, 1).astype(np.float32)
