"""Times as people write them: read as numbers, and written again in the same way."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np

from throughtime.errors import UserError

Array = np.ndarray[Any, Any]

SECOND = 1_000_000  # microseconds, in which times are counted from the beginning of 1970
HOUR = 3600 * SECOND
DAY = 24 * HOUR
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_EPOCH = datetime(1970, 1, 1)
_FIRST_DAY = _EPOCH.toordinal()
_ZONE = r"(?:\s*(?P<z>Z|UTC|[+-]\d\d:?\d\d))?"
_CLOCK = (
    r"(?:[T ]+(?P<H>\d{1,2}):(?P<M>\d\d)(?::(?P<S>\d\d)(?:[.,](?P<f>\d{1,9}))?)?(?:\s*(?P<p>[AaPp]\.?[Mm]\.?))?)?"
    + _ZONE
)
_NAME = r"(?P<B>[A-Za-z]{3,9})"
INTEGER = re.compile(r"[-+]?\d+")
YEAR = re.compile(r"(?P<Y>\d{4})")
DIGITS = (
    re.compile(r"(?P<Y>\d{4})(?P<m>\d\d)(?P<d>\d\d)(?:(?P<H>\d\d)(?P<M>\d\d)(?P<S>\d\d)?)?"),
    re.compile(r"(?P<Y>\d{4})(?P<m>\d\d)"),
)
# Y year, m month, d day; a and b: these two, in an order to be found; q quarter, w week of the year, B a month's name
PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"(?P<Y>\d{{4}})([-/.])(?P<m>\d{{1,2}})\2(?P<d>\d{{1,2}}){_CLOCK}",
        rf"(?P<a>\d{{1,2}})([-/.])(?P<b>\d{{1,2}})\2(?P<Y>\d{{4}}){_CLOCK}",
        r"(?P<Y>\d{4})[-/](?P<m>\d{1,2})",
        r"(?P<m>\d{1,2})[-/](?P<Y>\d{4})",
        r"(?P<Y>\d{4})[- ]?[Qq](?P<q>[1-4])",
        r"[Qq](?P<q>[1-4])[- /]?(?P<Y>\d{4})",
        r"(?P<Y>\d{4})-?W(?P<w>\d\d)",
        rf"(?:(?P<d>\d{{1,2}})[- ])?{_NAME}[-., ]+(?P<Y>\d{{4}}){_CLOCK}",
        rf"{_NAME}\.? (?P<d>\d{{1,2}}),? (?P<Y>\d{{4}}){_CLOCK}",
        rf"(?P<Y>\d{{4}})[- ]{_NAME}",
        rf"(?P<Y>\d{{4}})(?P<m>\d\d)(?P<d>\d\d)[T ]?(?P<H>\d\d):?(?P<M>\d\d)(?::?(?P<S>\d\d))?{_ZONE}",
    )
)


@dataclass(frozen=True)
class Format:
    """How times are written. pattern: of their text. model: one of them, the longest. day_first: of 3/4/2016, whether it is in
    April. short: the fields that are written without a leading zero. in_doubt: whether day and month might be the other way
    round."""

    pattern: re.Pattern[str]
    model: str
    day_first: bool = False
    short: frozenset[str] = frozenset()
    in_doubt: bool = False

    @property
    def is_integer(self) -> bool:
        """Whether times are whole numbers, and say nothing of the calendar."""
        return self.pattern is INTEGER

    @cached_property
    def fields(self) -> set[str]:
        """Which fields a time has, by their letters."""
        found = self.pattern.fullmatch(self.model)
        return set() if found is None else {name for name, value in found.groupdict().items() if value is not None}

    @property
    def has_zone(self) -> bool:
        """Whether a time says how far it is from UTC."""
        return "z" in self.fields

    def read(self, text: str) -> tuple[int, int]:
        """A time as microseconds since 1970 by the clock of its place (of an integer, itself), and how many that is before UTC.

        Raises: ValueError where it is not written so, or there is no such day.
        """
        found = self.pattern.fullmatch(text)
        if found is None:
            raise ValueError(f"not written as {self.model!r} is")
        return (int(text), 0) if self.is_integer else self._read(found)

    def _read(self, found: re.Match[str]) -> tuple[int, int]:
        field = found.groupdict()
        year = int(field["Y"])
        if "w" in field:
            return (date.fromisocalendar(year, int(field["w"]), 1).toordinal() - _FIRST_DAY) * DAY, 0
        if "a" in field:
            day, month = (field["a"], field["b"]) if self.day_first else (field["b"], field["a"])
        else:
            day, month = field.get("d") or 1, field.get("m") or 1
        if "q" in field:
            month = 3 * int(field["q"]) - 2
        if "B" in field:
            month = _month(field["B"])
        tick = (date(year, int(month), int(day)).toordinal() - _FIRST_DAY) * DAY
        if field.get("H") is None:
            return tick, _offset(field.get("z"))
        hour, minute, second = int(field["H"]), int(field["M"]), int(field["S"] or 0)
        if half := field.get("p"):
            if not 1 <= hour <= 12:
                raise ValueError(f"there is no {hour} o'clock {half}")
            hour = hour % 12 + 12 * (half[0] in "Pp")
        if hour > 23 or minute > 59 or second > 59:
            raise ValueError("there is no such time of day")
        parts = int((field.get("f") or "0").ljust(6, "0")[:6])
        return tick + hour * HOUR + (minute * 60 + second) * SECOND + parts, _offset(field.get("z"))

    def write(self, tick: int, offset: int = 0) -> str:
        """A time as the file writes them. Args: tick: as `read` gives it. offset: how far it is before UTC."""
        if self.is_integer:
            return str(tick)
        moment = _EPOCH + timedelta(microseconds=int(tick))
        return "".join(
            before + (self._field(name, written, moment, offset) if name else "")
            for before, name, written in self._pieces
        )

    @cached_property
    def _pieces(self) -> list[tuple[str, str, str]]:
        """The model cut into fields: what stands before each, its letter, and how it is written."""
        found = self.pattern.fullmatch(self.model)
        if found is None:
            raise AssertionError(f"{self.model!r} is not written as it is said to be")
        pieces, at = list[tuple[str, str, str]](), 0
        for name in sorted(self.fields, key=found.start):
            start, end = found.span(name)
            pieces.append((self.model[at:start], name, self.model[start:end]))
            at = end
        return [*pieces, (self.model[at:], "", "")]

    def _field(self, name: str, written: str, moment: datetime, offset: int) -> str:
        """A field of a time, in the way in which it is written in another."""
        if name == "B":
            full = MONTHS[moment.month - 1] if len(written) > 3 else MONTHS[moment.month - 1][:3]
            return full.upper() if written.isupper() else full.lower() if written.islower() else full
        if name == "p":
            half = ("p" if moment.hour > 11 else "a") + written[1:].lower()
            return half if written.islower() else half.upper()
        if name == "z" and written[0] in "ZU":
            return written
        if name == "z":
            minutes = abs(offset) // (60 * SECOND)
            return f"{'-' if offset < 0 else '+'}{minutes // 60:02}{written[3:-2]}{minutes % 60:02}"
        if name == "f":
            return f"{moment.microsecond:06}".ljust(9, "0")[: len(written)]
        width = 4 if name == "Y" else 1 if name == "q" or name in self.short else 2
        return f"{_FIELDS[name](self, moment):0{width}}"


_FIELDS: dict[str, Callable[[Format, datetime], int]] = {
    "Y": lambda form, moment: moment.isocalendar().year if "w" in form.fields else moment.year,
    "m": lambda form, moment: moment.month,
    "d": lambda form, moment: moment.day,
    "a": lambda form, moment: moment.day if form.day_first else moment.month,
    "b": lambda form, moment: moment.month if form.day_first else moment.day,
    "q": lambda form, moment: (moment.month + 2) // 3,
    "w": lambda form, moment: moment.isocalendar().week,
    "H": lambda form, moment: (moment.hour + 11) % 12 + 1 if "p" in form.fields else moment.hour,
    "M": lambda form, moment: moment.minute,
    "S": lambda form, moment: moment.second,
}


def _month(name: str) -> int:
    """The number of a month by its English name, or how that begins. Raises: ValueError where there is none."""
    for i, month in enumerate(MONTHS, 1):
        if month.lower().startswith(name.lower()):
            return i
    raise ValueError(f"there is no month {name!r}")


def _offset(zone: str | None) -> int:
    if zone is None or zone[0] in "ZU":
        return 0
    return (-1 if zone[0] == "-" else 1) * (int(zone[1:3]) * 60 + int(zone[-2:])) * 60 * SECOND


ISO = Format(PATTERNS[0], "2000-01-01")
ISO_CLOCK = Format(PATTERNS[0], "2000-01-01 00:00:00")
COUNTED = Format(INTEGER, "1")


@dataclass(frozen=True, eq=False)
class Times:
    """A column of times. ticks: int64 [N], as `Format.read` gives them. offsets: how far each is before UTC; None where times do
    not say that."""

    ticks: Array
    format: Format
    offsets: Array | None = None


def is_time(text: str) -> bool:
    """Whether a text is a time that could be nothing else: no number, and there is such a day."""
    for pattern in PATTERNS:
        if pattern.fullmatch(text) is not None:
            for day_first in (False, True):
                try:
                    Format(pattern, text, day_first).read(text)
                    return True
                except ValueError:
                    pass
    return False


def read_times(cells: Sequence[str], place: Callable[[int], str], *, years: bool = False) -> Times:
    """What a column of times says, all written alike.

    Args: place: where a row stands. years: whether whole numbers of four digits are years.
    Raises: UserError with the place of a time that cannot be read.
    """
    unique = dict.fromkeys(cells)
    first = cells.index
    form = find_format(unique, years)
    if form is None:
        raise UserError(_unreadable(place(0), cells[0], ""))
    read = {}
    for text in unique:
        try:
            read[text] = form.read(text)
        except ValueError as error:
            raise UserError(_unreadable(place(first(text)), text, f": {error}")) from error
    ticks = np.array([read[text][0] for text in cells], np.int64)
    offsets = np.array([read[text][1] for text in cells], np.int64) if form.has_zone else None
    return Times(ticks, form, offsets)


def _unreadable(place: str, text: str, why: str) -> str:
    if not text:
        return f"{place}: there is no time in this row; each row needs one"
    return f"{place}: {text!r} cannot be read as a time{why}; write 2016-07-31, 2016-07-31 13:00 or a whole number"


def find_format(values: Collection[str], years: bool = False) -> Format | None:
    """How values are written, which the first tells; None where that is no time. years: whether four digits are a year."""
    first = next(iter(values))
    if INTEGER.fullmatch(first):
        whole = [*DIGITS, *([YEAR] if years else [])] if len(first) in (4, 6, 8, 12, 14) else []
        for pattern in whole:
            form = Format(pattern, max(values, key=len))
            if all(_is_read(form, value) for value in values):
                return form
        return Format(INTEGER, first)
    if not is_time(first):
        return None
    pattern = next(p for p in PATTERNS if p.fullmatch(first))
    found = [match for match in map(pattern.fullmatch, values) if match is not None]
    fields = [name for name in ("m", "d", "a", "b", "H") if name in pattern.groupindex]
    short = frozenset(name for name in fields if any(len(match[name] or "00") == 1 for match in found))
    form = Format(pattern, max((match[0] for match in found), key=len), short=short)
    return _ordered(form, found) if "a" in pattern.groupindex else form


def _is_read(form: Format, text: str) -> bool:
    try:
        return 1500 * 365.25 < form.read(text)[0] / DAY + 1970 * 365.25 < 2300 * 365.25
    except ValueError:
        return False


def _ordered(form: Format, found: list[re.Match[str]]) -> Format:
    """Whether the day stands before the month: a number over 12 tells, or points between them, or which way the steps are alike."""
    if any(int(match["a"]) > 12 for match in found) or found[0][2] == ".":
        return replace(form, day_first=True)
    if any(int(match["b"]) > 12 for match in found):
        return form
    ways = []
    for way in (form, replace(form, day_first=True)):
        days = np.abs(np.diff([way.read(match[0])[0] for match in found])) // DAY
        ways.append(len(np.unique(np.where((days > 27) & (days < 32), 30, days))))  # months differ in length
    return replace(form, day_first=ways[1] < ways[0], in_doubt=ways[0] == ways[1])
