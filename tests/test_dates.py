"""Times in the ways that people write them, the steps between them, and what comes after the last."""

import math
import re
from calendar import monthrange
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throughtime.errors import UserError
from throughtime.tasks.dates import Clock, Frequency, infer, of_one, summer_time
from throughtime.tasks.times import DAY, HOUR, SECOND, is_time, read_times

EPOCH = datetime(1970, 1, 1)


def tick(moment):
    return (moment - EPOCH) // timedelta(microseconds=1)


def read(cells, years=False):
    return read_times(cells, lambda i: f"f.csv:{i + 2}", years=years)


def clock_of(cells, years=False):
    times = read(cells, years)
    frequency = infer(times.ticks, times.format) or of_one(times.format)
    return Clock(
        int(times.ticks[0]), frequency.standing(int(times.ticks[0])) if len(cells) < 2 else frequency, times.format
    )


WRITTEN = {
    "%Y-%m-%d": "D", "%Y/%m/%d": "D", "%d.%m.%Y": "D", "%m/%d/%Y": "D", "%d/%m/%Y": "D", "%d-%m-%Y": "D", "%Y%m%d": "D",
    "%d %b %Y": "D", "%d-%b-%Y": "D", "%B %d, %Y": "D", "%b %d %Y": "D",
    "%Y-%m-%d %H:%M:%S": "h", "%Y-%m-%dT%H:%M:%SZ": "h", "%Y-%m-%dT%H:%M:%S+02:00": "h", "%Y-%m-%dT%H:%M-03:30": "h",
    "%Y-%m-%d %H:%M:%S+0000": "h",
    "%d.%m.%Y %H:%M": "h", "%m/%d/%Y %I:%M %p": "h", "%Y%m%d%H%M": "h", "%Y%m%dT%H%M%SZ": "h", "%Y-%m-%d %H:%M:%S.%f": "h",
    "%Y-%m": "MS", "%Y/%m": "MS", "%m/%Y": "MS", "%b %Y": "MS", "%B %Y": "MS", "%b-%Y": "MS", "%Y %b": "MS", "%Y%m": "MS",
    "%G-W%V": "W",
}  # fmt: skip


@pytest.mark.parametrize("written", WRITTEN)
def test_times_are_read_and_written_as_the_standard_library_writes_them(written):
    """Past months, leap years and centuries; and 50 steps that were never read."""
    name, first = WRITTEN[written], datetime(1999, 12, 27)
    if name == "MS":
        moments = [datetime(1999 + i // 12, i % 12 + 1, 1) for i in range(90)]
    else:
        step = {"D": timedelta(1), "h": timedelta(hours=1), "W": timedelta(7)}[name]
        moments = [first + i * step for i in range(90)]
    texts = [moment.strftime(written) for moment in moments]
    times = read(texts[:40])
    assert times.ticks.tolist() == [tick(moment) for moment in moments[:40]] and not times.format.in_doubt
    offset = 0 if times.offsets is None else int(times.offsets[0])
    clock = Clock(int(times.ticks[0]), infer(times.ticks, times.format), times.format, offset)
    assert clock.frequency.name == name
    assert clock.dates(range(90)) == texts
    assert [clock.index(text) for text in texts] == list(range(90))


@pytest.mark.parametrize(
    ("texts", "name"),
    [
        (["1956Q3", "1956Q4", "1957Q1", "1957Q2"], "QS"),
        (["Q3 1956", "Q4 1956", "Q1 1957", "Q2 1957"], "QS"),
        (["1956-Q3", "1956-Q4", "1957-Q1", "1957-Q2"], "QS"),
        (["1/30/2021", "1/31/2021", "2/1/2021", "2/2/2021"], "D"),
        (["04/23/2021", "04/30/2021", "05/7/2021", "05/14/2021"], "W"),
        (["2016-01-31", "2016-02-29", "2016-03-31", "2016-04-30"], "ME"),
        (["2015-11-30", "2016-02-29", "2016-05-31", "2016-08-31"], "QE"),
        (["2015-12-31", "2016-12-31", "2017-12-31"], "YE"),
        (["2016-01-30", "2016-02-29", "2016-03-30", "2016-04-30", "2016-05-30"], "MS"),
        (["2016-01-15", "2016-02-15", "2016-03-15"], "MS"),
        (["1956-01-01", "1957-01-01", "1958-01-01"], "YS"),
        (["2016-02-28", "2016-02-29", "2016-03-01"], "D"),
        (
            [
                "2016-01-28",
                "2016-01-29",
                "2016-02-01",
                "2016-02-02",
                "2016-02-03",
                "2016-02-04",
                "2016-02-05",
                "2016-02-08",
            ],
            "B",
        ),
        (["2016-01-01 23:30", "2016-01-02 00:00", "2016-01-02 00:30"], "30min"),
        (["2016-01-01 00:00:00.25", "2016-01-01 00:00:00.50", "2016-01-01 00:00:00.75"], "250ms"),
        (["2016-01-01", "2016-01-15", "2016-01-29"], "2W"),
        (["-2", "0", "2"], "2"),
        (["701", "702", "703"], "1"),
        (["JAN 1949", "FEB 1949", "MAR 1949"], "MS"),
    ],
)
def test_the_frequency_is_found_and_goes_on_as_the_times_do(texts, name):
    """The first of them tell it; the others, which are not read, come next."""
    some = max(2, len(texts) - 1)
    clock = clock_of(texts[:some])
    assert clock.frequency.name == name and clock.dates(range(len(texts))) == texts
    assert Frequency.of(name).unit == clock.frequency.unit and Frequency.of(name).count == clock.frequency.count


def test_years_are_whole_numbers_that_somebody_calls_years():
    assert clock_of(["1990", "1991"], years=True).frequency.name == "YS"
    assert clock_of(["1990", "1991"]).frequency.name == "1"
    assert clock_of(["990", "1991"], years=True).frequency.name == "1001"


def test_one_time_alone_is_followed_by_what_its_writing_says():
    names = {"1949-01": "MS", "1956Q1": "QS", "2016-07-01": "D", "2016-W05": "W", "7": "1", "May 1949": "MS"}
    assert {text: clock_of([text]).frequency.name for text in names} == names
    assert clock_of(["1949"], years=True).frequency.name == "YS"


def test_the_day_of_3_4_2016_is_told_by_the_other_rows():
    def days(texts):
        times = read(texts)
        return times.format.day_first, times.format.in_doubt

    assert days(["1/4/2016", "13/4/2016"]) == (True, False) and days(["1/4/2016", "1/13/2016"]) == (False, False)
    assert days(["01.04.2016", "02.04.2016"]) == (True, False)  # with points the day is first
    assert days(["1/4/2016", "2/4/2016", "4/4/2016", "5/4/2016"]) == (False, True)
    assert days(["1/1/2016", "1/2/2016", "1/3/2016"]) == (False, True)  # days, or months
    assert days(["1/2/2016", "1/4/2016", "1/7/2016"]) == (False, True)


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["2016-01-01", "2016-02-30"], "f.csv:3: '2016-02-30' cannot be read as a time: day is out of range"),
        (["2015-02-28", "2015-02-29"], "f.csv:3: '2015-02-29' cannot be read as a time: day is out of range"),
        (["2016-01-01", "soon"], "f.csv:3: 'soon' cannot be read as a time: not written as '2016-01-01' is"),
        (["soon", "2016-01-01"], "f.csv:2: 'soon' cannot be read as a time; write 2016-07-31"),
        (["2016-01-01", ""], "f.csv:3: there is no time in this row"),
        (["", "2016-01-01"], "f.csv:2: there is no time in this row"),
        (["1/1/16", "1/2/16"], "f.csv:2: '1/1/16' cannot be read as a time"),
        (["2016-01-01 25:00", "2016-01-01 26:00"], "f.csv:2: '2016-01-01 25:00' cannot be read as a time"),
        (["1/13/2016", "13/1/2016"], "f.csv:2: '1/13/2016' cannot be read as a time: month must be in 1..12"),
        (["Foo 1949", "Bar 1949"], "f.csv:2: 'Foo 1949' cannot be read as a time"),
        (["1", "2.5"], "f.csv:3: '2.5' cannot be read as a time: not written as '1' is"),
        (["2015-W53", "2016-W53"], "f.csv:3: '2016-W53' cannot be read as a time"),
        (["2016-01-01 13:00 PM"], "f.csv:2: '2016-01-01 13:00 PM' cannot be read as a time"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_row(cells, words):
    with pytest.raises(UserError, match=re.escape(words)) as error:
        read(cells)
    assert "\n" not in str(error.value)


def test_numbers_are_no_times():
    assert not any(map(is_time, ["1", "2016", "20160701", "1.5", "12.2016", "1,5", "-", "1-2-3", "13/13/2016", "May"]))
    assert all(map(is_time, ["2016-07", "1956Q1", "31/12/2016", "12/31/2016", "Jul 2016", "2016-07-01T00:00Z"]))


NAMES = {
    "h": 24, "30min": 48, "15min": 96, "min": 1440, "s": 3600, "D": 7, "B": 5, "W": 52, "2W": 26, "MS": 12, "ME": 12, "2MS": 6,
    "QS": 4, "QE": 4, "YS": 1, "YE": 1, "4h": 6, "5h": 1, "10YS": 1, "1": None, "5": None, "250ms": 14400,
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_frequency_has_the_name_and_the_season_that_pandas_and_people_give_it(name):
    assert Frequency.of(name).name == name and Frequency.of(name).season == NAMES[name]


def test_older_names_and_anchors_of_frequencies():
    given = {
        "H": "h",
        "T": "min",
        "M": "ME",
        "W-SUN": "W",
        "QS-OCT": "QS",
        "A": "YE",
        "d": "D",
        "1h": "h",
        "60min": "h",
        "24h": "D",
    }
    assert {name: Frequency.of(name).name for name in given} == given
    for wrong in ("dayly", "", "0h", "-1h", "1.5h", "hour"):
        with pytest.raises(UserError, match=f"^--data.freq: unknown frequency '{re.escape(wrong)}'; "):
            Frequency.of(wrong)


@settings(max_examples=80, deadline=None)
@given(
    start=st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)),
    name=st.sampled_from(["B", "MS", "ME", "3MS", "QE", "YS", "7min", "h", "D", "2W"]),
    steps=st.lists(st.integers(0, 400), min_size=1, max_size=8),
)
def test_steps_are_where_the_standard_library_says(start, name, steps):
    """Working days are counted one by one, months by year and month."""
    step = Frequency.of(name)
    start = start.replace(microsecond=0)
    while step.unit == "business" and start.weekday() > 4:
        start += timedelta(1)
    if step.day == 31:
        start = start.replace(day=monthrange(start.year, start.month)[1])
    step = step.standing(tick(start))

    def moment(i):
        if step.unit == "time":
            return start + timedelta(microseconds=i * step.count)
        if step.unit == "business":
            day = start
            for _ in range(i):
                day += timedelta(3 if day.weekday() == 4 else 1)
            return day
        months = start.year * 12 + start.month - 1 + i * step.count
        year, month = months // 12, months % 12 + 1
        last = monthrange(year, month)[1]
        return start.replace(year=year, month=month, day=last if step.day == 31 else min(start.day, last))

    expected = np.array([tick(moment(i)) for i in steps])
    assert step.ticks(tick(start), np.array(steps)).tolist() == expected.tolist()
    found, exact = step.steps(tick(start), expected)
    assert found.tolist() == steps and exact.all()
    assert not step.steps(tick(start), expected + SECOND)[1].any()


def local_times(zone, start, hours, minutes):
    """Times by the clock of a place, every so many minutes."""
    moments = [datetime(*start, tzinfo=UTC) + timedelta(minutes=i * minutes) for i in range(hours * 60 // minutes)]
    return [moment.astimezone(ZoneInfo(zone)) for moment in moments]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Sydney"])
@pytest.mark.parametrize("minutes", [15, 30, 60])
def test_where_the_clocks_were_changed_is_seen(zone, minutes):
    moments = local_times(zone, (2015, 1, 1), 24 * 800, minutes)
    offsets = np.array([m.utcoffset() // timedelta(microseconds=1) for m in moments])
    ticks = np.array([tick(m.replace(tzinfo=None)) for m in moments])
    rows = np.flatnonzero(np.diff(offsets)) + 1
    assert len(rows) == 4
    assert summer_time(ticks, minutes * 60 * SECOND) == [(row, int(offsets[row] - offsets[row - 1])) for row in rows]


def test_a_row_that_is_missing_is_no_change_of_clocks():
    hours = np.arange(24 * 400) * HOUR + tick(datetime(2016, 1, 1))

    def without(*moments):
        return hours[~np.isin(hours, [tick(m) for m in moments])]

    spring = datetime(2016, 3, 27, 2)
    assert summer_time(without(spring), HOUR) == []  # and never put back
    assert summer_time(without(datetime(2016, 6, 12, 2)), HOUR) == []  # in summer
    assert summer_time(without(datetime(2016, 3, 28, 2)), HOUR) == []  # on a Monday
    assert summer_time(without(datetime(2016, 3, 27, 12)), HOUR) == []  # at noon
    assert summer_time(without(spring)[: 24 * 100], HOUR) != []
    assert summer_time(np.arange(24) * DAY, DAY) == []


def test_a_clock_that_was_changed_is_written_and_found():
    moments = local_times("Europe/Berlin", (2016, 3, 1), 24 * 300, 60)
    texts = [m.strftime("%Y-%m-%d %H:%M") for m in moments]
    ticks = read(texts).ticks
    clock = Clock(int(ticks[0]), Frequency.of("h"), read(texts).format, changes=tuple(summer_time(ticks, HOUR)))
    assert clock.dates(range(len(texts))) == texts and len(clock.changes) == 2
    twice = texts.index("2016-10-30 02:00")
    assert texts[twice + 1] == texts[twice] and clock.index("2016-10-30 02:00") == twice
    assert all(clock.index(text) == i for i, text in enumerate(texts) if i != twice + 1)
    assert clock.index("2016-03-27 02:00") is None
    later = clock.later(1000)
    assert later.dates(range(len(texts) - 1000)) == texts[1000:] and later.index(texts[-1]) == len(texts) - 1001


def test_a_time_is_found_however_it_is_written_and_not_where_no_step_is():
    clock = clock_of(["2016-07-01 00:00", "2016-07-01 01:00"])
    assert [clock.index(text) for text in ("2016-07-01 03:00", "2016-07-01T03:00:00", "01.07.2016 03:00")] == [3, 3, 3]
    assert clock.index("2016-06-30 23:00") == -1 and clock.index("2016-07-02") == 24
    assert [clock.index(text) for text in ("2016-07-01 03:30", "3", "soon", "")] == [None] * 4
    assert clock_of(["5", "7"]).index("9") == 2 and clock_of(["5", "7"]).index("2016-01-01") is None


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("h", "hour_sin hour_cos weekday_sin weekday_cos weekend day month_sin month_cos"),
        ("D", "weekday_sin weekday_cos weekend day month_sin month_cos"),
        ("B", "weekday_sin weekday_cos day month_sin month_cos"),
        ("W", "month_sin month_cos"),
        ("MS", "month_sin month_cos"),
        ("QS", "month_sin month_cos"),
        ("YS", ""),
    ],
)
def test_features_of_the_calendar_are_those_that_steps_so_long_tell(name, names):
    clock = Clock.of("2016-01-01", name)
    assert clock.names == names.split()
    steps = np.arange(300)
    found = clock.features(steps)
    assert found.shape == (300, len(clock.names)) and found.dtype == np.float32 and (np.abs(found) <= 1 + 1e-6).all()
    column = dict(zip(clock.names, found.T, strict=True))
    for i in range(0, 300, 7):
        moment = datetime.fromisoformat(clock.date(i))
        year = moment.timetuple().tm_yday - 1, date(moment.year, 12, 31).timetuple().tm_yday
        phase = {
            "hour": moment.hour / 24,
            "weekday": moment.weekday() / 7,
            "month": (moment.month - 1) / 12 if name in ("MS", "QS") else year[0] / year[1],
        }
        plain = {"weekend": 1 if moment.weekday() > 4 else -1, "day": (moment.day - 1) / 15 - 1}
        for feature, values in column.items():
            part, _, way = feature.partition("_")
            expected = getattr(math, way)(2 * math.pi * phase[part]) if way else plain[part]
            assert values[i] == pytest.approx(expected, abs=1e-6), (feature, moment)


def test_whole_numbers_have_no_calendar():
    clock = Clock(701)
    assert clock.names == [] and clock.features(np.arange(5)).shape == (5, 0)
    assert clock.dates([0, 50]) == ["701", "751"] and clock.frequency.season is None


def test_a_clock_of_dates_without_hours_writes_hours_where_steps_are_hours():
    assert Clock.of("2016-01-01", "h").dates([0, 25]) == ["2016-01-01 00:00:00", "2016-01-02 01:00:00"]
    with pytest.raises(UserError, match="'soon' cannot be read as a time"):
        Clock.of("soon", "h")
