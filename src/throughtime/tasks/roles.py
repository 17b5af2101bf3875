"""What the columns of a table of series are for: the name of a series, the time, values and covariates."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from throughtime.errors import UserError, unknown
from throughtime.tasks.dates import Frequency
from throughtime.tasks.sheet import Sheet

# by what names a column is found, the likeliest first
ID = ("unique_id", "series_id", "item_id", "ts_id", "id", "series", "item")
TIME = (
    *("ds", "datetime", "timestamp", "date", "time", "month", "week", "quarter", "day", "hour", "year", "yr"),
    *("period", "t", "step"),
)
VALUE = ("y", "value", "values", "target", "sales", "demand")
INDEX = ("", "unnamed: 0", "index")  # of rows, as pandas writes it
DATED = ("ds", "datetime", "timestamp", "date")  # never a name of something else
SURE = ("unique_id", "series_id", "item_id", "ts_id")  # never a number of the row
FILLS = ("missing", "zero", "last", "linear")


@dataclass(frozen=True)
class SeriesColumns:
    """Which columns are what, by their names, or their numbers from 1; None: guessed, and said.

    id: the name of a series. time: when a value was. target: what is forecast. past: covariates known only up to now. future: known
    ahead. static: what kind of series it is. delimiter: what stands between fields. freq: the frequency, as pandas calls it. fill:
    what stands in a row that is missing: `missing`, `zero`, `last` (the value before) or `linear` (between its neighbours). option:
    how the options that name them begin.
    """

    id: str | None = None
    time: str | None = None
    target: tuple[str, ...] = ()
    past: tuple[str, ...] = ()
    future: tuple[str, ...] = ()
    static: tuple[str, ...] = ()
    delimiter: str | None = None
    freq: str | None = None
    fill: str | None = None
    option: str = "--data."

    def __post_init__(self) -> None:
        if self.fill is not None and self.fill not in FILLS:
            raise UserError(f"{self.option}fill: " + unknown("way to fill", self.fill, FILLS))
        named = [name for name in (self.id, self.time, *self.target, *self.past, *self.future, *self.static) if name]
        if twice := next((name for name in named if named.count(name) > 1), None):
            raise UserError(f"{self.option}: the column {twice!r} is named for two things; name it for one")

    @property
    def frequency(self) -> Frequency | None:
        """The frequency that is asked for. Raises: UserError where there is none of the name."""
        return None if self.freq is None else Frequency.of(self.freq, self.option)

    @property
    def years(self) -> bool:
        """Whether whole numbers are years, since steps are of months."""
        return self.frequency is not None and self.frequency.unit == "month"

    @property
    def names(self) -> set[str]:
        """All names by which a column is found, in lower case."""
        given = (self.id, self.time, *self.target, *self.past, *self.future, *self.static)
        return {*ID, *TIME, *VALUE, *(name.lower() for name in given if name is not None and not name.isdecimal())}

    def column(self, name: str, there: Sequence[str], option: str, asked: str) -> str:
        """The column that is asked for. Raises: UserError where there is none."""
        lower = {column.lower(): column for column in reversed(there)}
        if asked in there or asked.lower() in lower:
            return asked if asked in there else lower[asked.lower()]
        if asked.isdecimal() and 1 <= int(asked) <= len(there):
            return there[int(asked) - 1]
        raise UserError(f"{self.option}{option}: {name} has no such column: " + unknown("column", asked, there))


@dataclass(frozen=True)
class Roles:
    """Which columns are what, by their names. guessed_targets: whether nobody said so of the targets."""

    id: str | None = None
    time: str | None = None
    targets: tuple[str, ...] = ()
    past: tuple[str, ...] = ()
    future: tuple[str, ...] = ()
    static: tuple[str, ...] = ()
    guessed_targets: bool = False


def find_roles(sheet: Sheet, columns: SeriesColumns, *, known: bool) -> Roles:
    """What the columns of a table are; where that is guessed, or columns are left out, it is said.

    Args: known: whether it holds covariates that are known ahead, and no values.
    Raises: UserError where one that is asked for is not there, or one cannot be guessed.
    """

    def named(option: str, asked: Sequence[str]) -> tuple[str, ...]:
        return tuple(columns.column(sheet.name, sheet.names, option, name) for name in asked)

    past = () if known else named("past", columns.past)
    future, static = named("future", columns.future), () if known else named("static", columns.static)
    targets = () if known else named("target", columns.target)
    taken = {*past, *future, *static, *targets}
    free = [name for name in sheet.names if name not in taken]
    time = named("time", [columns.time])[0] if columns.time is not None else _find_time(sheet, free)
    free = [name for name in free if name != time]
    id = named("id", [columns.id])[0] if columns.id is not None else _find_id(sheet, free, time, alone=len(targets) < 2)
    free = [name for name in free if name != id]
    guessed = not targets and not known
    if guessed:
        targets = _find_targets(sheet, free, id, columns)
    if id is not None and len(targets) > 1:
        raise UserError(
            f"{columns.option}target: {', '.join(targets)}: a file with a row a value has one column of values; name one"
        )
    left = [name for name in free if name not in targets and name.lower() not in INDEX]
    _tell(sheet, Roles(id, time, targets, past, future, static, guessed), columns, left if not known else [])
    return Roles(id, time, targets, past, future, static, guessed)


def _by_name(there: Sequence[str], names: Sequence[str]) -> list[str]:
    lower = {column.strip().lower(): column for column in reversed(there)}
    return [lower[name] for name in names if name in lower]


def _find_time(sheet: Sheet, free: Sequence[str]) -> str | None:
    """A column by a usual name that holds times or whole numbers; else one that holds dates; else pandas' index of rows."""
    if not sheet.header and len(free) == 1:
        return free[0] if sheet.holds_times(free[0], counted=False) else None
    dated = [name for name in free if sheet.holds_times(name, counted=False)]
    known = _by_name(free, TIME)
    for name in (*[name for name in known if name in dated], *dated):
        return name
    for name in known:
        if sheet.holds_times(name, counted=True):
            return name
    if (
        not sheet.header
        and len(free) == 3
        and not sheet.holds_numbers(free[0])
        and sheet.holds_times(free[1], counted=True)
    ):
        return free[1]  # as M4 is often written: name, step, value
    sure = [
        name for name in known if name.lower() in DATED and not sheet.is_empty(name)
    ]  # what cannot be read there is an error
    return next(
        (name for name in (*sure, *_by_name(free, INDEX)) if name in sure or sheet.holds_times(name, counted=True)),
        None,
    )


def _find_id(sheet: Sheet, free: Sequence[str], time: str | None, *, alone: bool) -> str | None:
    """A column by a usual name; else the only one of texts, where times come more than once."""
    for name in _by_name(free, ID):
        cells = sheet.texts(name)
        counts = len(cells) > 2 and len(set(cells)) == len(cells) and name.lower() not in SURE
        if not (counts and all(cell.isdecimal() for cell in cells)):  # the number of the row
            return name
    if not alone or (time is not None and len(set(sheet.texts(time))) == len(sheet.lines)):
        return None
    texts = [name for name in free if not (sheet.holds_numbers(name) or sheet.is_empty(name) or name.lower() in VALUE)]
    return texts[0] if len(texts) == 1 else None


def _find_targets(sheet: Sheet, free: Sequence[str], id: str | None, columns: SeriesColumns) -> tuple[str, ...]:
    """The column of values of a table with a row a value; else all columns of numbers."""
    numeric = [name for name in free if sheet.holds_numbers(name) and name.lower() not in (*INDEX, *ID)]
    if id is not None:
        likely = _by_name(numeric, VALUE)
        if likely or len(numeric) == 1:
            return tuple(likely or numeric)[:1]
    elif numeric:
        return (*(name for name in free if name in numeric or (sheet.is_empty(name) and name.lower() not in INDEX)),)
    if not numeric and (likely := _by_name(free, VALUE)):
        return (likely[0],)  # which will be said to hold no number
    what = f"which of {', '.join(numeric)} is forecast" if numeric else "no column holds numbers"
    there = "" if numeric else f"; there are {', '.join(name or repr(name) for name in sheet.names)}"
    raise UserError(f"{sheet.name}:{sheet.first}: {what}{there}: name one by {columns.option}target")


def _tell(sheet: Sheet, roles: Roles, columns: SeriesColumns, left: Sequence[str]) -> None:
    """Say what was guessed, and what is left out."""
    said = [] if sheet.header else ["has no header"]
    if columns.id is None and roles.id not in (None, "unique_id"):
        said.append(f"a series is what has one {roles.id!r}")
    if columns.time is None and roles.time != "ds":
        said.append(
            "there are no times, steps are counted" if roles.time is None else f"its times are in {roles.time!r}"
        )
    if roles.guessed_targets and roles.targets != ("y",):
        shown = ", ".join(map(repr, roles.targets[:5])) + (" …" if len(roles.targets) > 5 else "")
        many = len(roles.targets) > 1
        said.append(
            f"its values are in {shown}" if not many else f"each of {len(roles.targets)} columns is a series: {shown}"
        )
    if left:
        said.append(f"left out: {', '.join(map(repr, left))}")
    if said:
        warnings.warn(f"{sheet.name}: {'; '.join(said)}", stacklevel=2)
