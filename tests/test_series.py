"""Series in the shapes that people have them: what is read, what is said of it, and what is refused."""

import csv
import gzip
import io
import os
import re
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from throughtime.errors import UserError
from throughtime.tasks.numbers import is_number, numbers
from throughtime.tasks.series import Names, SeriesColumns, continued, read_series, season_of
from throughtime.tasks.source import Source

DATA = Path(os.environ.get("THROUGHTIME_DATA", Path(__file__).parents[2] / "shared" / "data")) / "forecast"
needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"no {DATA}; THROUGHTIME_DATA names the data")
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NAN = float("nan")


def read(folder, content, name="f.csv", known=False, **columns):
    """The series of a file, and what was said of it."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = read_series(Source.of(path), SeriesColumns(**columns), known=known)
    return found, [str(w.message).replace(f"{folder}/", "") for w in said]


def refused(folder, content, name="f.csv", known=False, **columns):
    """The line that says what is wrong."""
    with pytest.raises(UserError) as error:
        read(folder, content, name, known, **columns)
    assert "\n" not in str(error.value)
    return str(error.value).replace(f"{folder}/", "")


def shown(series):
    """Names, values and first and next times, to compare."""
    return [(s.id, s.values.tolist(), s.clock.date(0), s.clock.date(len(s.values))) for s in series]


def same(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert (a[0], a[2], a[3]) == (b[0], b[2], b[3])
        np.testing.assert_array_equal(a[1], b[1])


# -- public files, as they are: (series, first id, rows, frequency, season, first time, next time, first value, last value)
FILES = {
    "ett/ETTh1.csv": (
        *(7, "HUFL", 17420, "h", 24, "2016-07-01 00:00:00", "2018-06-26 20:00:00", 5.827000141143799, 10.11400032043457),
    ),
    "m4/hourly-train.csv": (414, "H1", 700, "1", None, "1", "701", 605, 684),
    "m4/hourly-test.csv": (414, "H1", 48, "1", None, "701", "749", 619, 659),
    "m3/m3.csv.gz": (3003, "N0001", 20, "1", None, "1", "21", 940.66, 9156.01),
    "small/airline-passengers.csv": (1, "Passengers", 144, "MS", 12, "1949-01", "1961-01", 112, 432),
    "small/ausbeer.csv": (1, "Y", 211, "QS", 4, "1956-01-01", "2008-10-01", 284, 410),
    "small/wineind.csv": (1, "Y", 176, "MS", 12, "1980-01-01", "1994-09-01", 15136, 23356),
    "small/australian_tourism.csv": (96, "Total", 36, "1", None, "1", "37", 84503, 69544),
    "small/exchange_rate.csv": (8, "0", 7588, "1", None, "1", "7589", 0.7855, 0.720825),
    "small/heart_rate.csv": (1, "Heart rate", 1800, "1", None, "1", "1801", 84.2697, 98.8567),
    "small/gasrate_co2.csv": (2, "GasRate(ft3/min)", 296, "1", None, "1", "297", -0.109, -0.262),
    "small/ice_cream_heater.csv": (2, "heater", 198, "MS", 12, "2004-01", "2020-07", 27, 24),
    "small/monthly-sunspots.csv": (1, "Sunspots", 2820, "MS", 12, "1749-01", "1984-01", 58, 33.4),
    "small/taxi_new_york_passengers.csv": (
        *(1, "#Passengers", 10320, "30min", 48, "2014-07-01 00:00:00", "2015-02-01 00:00:00", 10844, 26288),
    ),
    "small/taylor.csv": (1, "Y", 4032, "1", None, "1", "4033", 22262, 23132),
    "small/us_gasoline.csv": (1, "Gasoline", 1578, "W", 52, "02/8/1991", "05/7/2021", 6621, 8864),
}  # fmt: skip


def header_of(path):
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt") as lines:
        return next(lines).strip().split(",")


@needs_data
@pytest.mark.parametrize("file", FILES)
@pytest.mark.filterwarnings("ignore")
def test_public_files_are_read_as_they_are(file):
    found = read_series(Source.of(DATA / file))
    first, clock = found[0], found[0].clock
    count = len(first.values)
    got = (
        *(len(found), first.id, count, clock.frequency.name, clock.frequency.season, clock.date(0), clock.date(count)),
        *(first.values[0], first.values[-1]),
    )
    assert got == FILES[file]
    assert not any(np.isnan(s.values).any() for s in found)
    with (gzip.open if file.endswith(".gz") else open)(DATA / file, "rt") as lines:
        rows = len(lines.readlines()) - 1
    long = first.names.id in header_of(DATA / file)
    assert sum(len(set(s.lines)) for s in found) == rows * (1 if long else len(found))


@needs_data
@pytest.mark.filterwarnings("ignore")
def test_public_files_with_gaps_are_refused_with_the_row_and_filled_where_that_is_asked():
    for file, first, missing in (
        ("ILINet.csv", ":223: series '% WEIGHTED ILI': 1 row is missing before 2002-01-13 (4 in all", 4),
        ("temps.csv", ":1462: series 'Daily minimum temperatures': 1 row is missing before 1/1/1985 (2 in all", 2),
        ("daily-min-temperatures.csv", ":1462: series 'Temp': 1 row is missing before 1985-01-01 (2 in all", 2),
    ):  # fmt: skip
        with pytest.raises(UserError) as error:
            read_series(Source.of(DATA / "small" / file))
        assert str(error.value).startswith(f"{DATA / 'small' / file}{first}")
        for series in read_series(Source.of(DATA / "small" / file), SeriesColumns(fill="missing"))[:1]:
            assert np.isnan(series.values).sum() == (series.lines == 0).sum() == missing
    flu = {s.id: s for s in read_series(Source.of(DATA / "small" / "ILINet.csv"), SeriesColumns(fill="missing"))}
    young, old = flu["AGE 25-64"], flu["AGE 25-49"]  # one took the place of the other
    assert len(flu) == 11 and young.clock.date(len(young.values)) < old.clock.date(len(old.values))
    assert not np.isnan([young.values[0], young.values[-1], old.values[-1]]).any()
    assert old.place.endswith(":35") and old.lines[0] == 35 and old.values[0] == 0  # a zero that is one


@needs_data
@pytest.mark.filterwarnings("ignore")
def test_a_competition_s_test_part_follows_its_training_part():
    parts = [read_series(Source.of(DATA / "m4" / f"hourly-{part}.csv")) for part in ("train", "test")]
    for history, truth in zip(*parts, strict=True):
        whole = continued(history, truth)
        assert len(whole.values) == len(history.values) + 48 == len(whole.lines)
        assert whole.values[-48:].tolist() == truth.values.tolist() and whole.clock.index(truth.clock.date(0)) == len(
            history.values
        )
    with pytest.raises(
        UserError, match=r"test.csv:2: series 'H1' goes on at 701, but its history ends at 699: 700 is to follow"
    ):
        continued(parts[0][0].upto(699), parts[1][0])


@needs_data
@pytest.mark.filterwarnings("ignore")
def test_the_season_of_public_series_is_found():
    files = {"m4/hourly-train.csv": 24, "small/taylor.csv": 48, "small/airline-passengers.csv": 12, "small/ausbeer.csv": 4,
             "small/taxi_new_york_passengers.csv": 48, "small/heart_rate.csv": 1, "ett/ETTh1.csv": 24}  # fmt: skip
    for file, season in files.items():
        found = [season_of(s.values) for s in read_series(Source.of(DATA / file))]
        assert max(set(found), key=found.count) == season and found.count(season) > 0.7 * len(found), file


# -- what has been written comes back

values = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(10**9), 10**9).map(float))
ids = st.text(st.sampled_from("ab 0é,;\"'漢"), min_size=1, max_size=6).filter(lambda s: s == s.strip())


@quick
@given(
    table=st.dictionaries(
        ids, st.lists(st.one_of(values, st.just(NAN)), max_size=5).map(lambda v: [1.5, *v, 2.5]), min_size=1, max_size=5
    ),
    delimiter=st.sampled_from(",;\t|"),
    seed=st.randoms(use_true_random=False),
)  # fmt: skip
def test_a_table_with_a_row_a_value_comes_back_however_its_series_are_mixed(table, delimiter, seed, tmp_path):
    rows = {
        id: [(id, f"2016-02-{27 + i}" if i < 3 else f"2016-03-{i - 2:02}", v) for i, v in enumerate(vs)]
        for id, vs in table.items()
    }
    waiting, mixed = {id: list(r) for id, r in rows.items()}, []
    while waiting:
        id = seed.choice(sorted(waiting))
        mixed.append(waiting[id].pop(0))
        if not waiting[id]:
            del waiting[id]
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    writer.writerow(["unique_id", "ds", "y"])
    writer.writerows([(id, ds, "" if y != y else repr(y)) for id, ds, y in mixed])
    found, said = read(tmp_path, file.getvalue())
    order = list(dict.fromkeys(row[0] for row in mixed))
    assert [s.id for s in found] == order and said == []
    for series in found:
        np.testing.assert_array_equal(series.values, table[series.id])
        assert series.clock.dates(range(len(series.values))) == [row[1] for row in rows[series.id]]
        assert [mixed[line - 2] for line in series.lines] == rows[series.id]


@quick
@given(
    table=st.integers(1, 6).flatmap(
        lambda n: st.dictionaries(ids, st.lists(values, min_size=n, max_size=n), min_size=2, max_size=4)
    ),
    comma=st.booleans(),
    dated=st.booleans(),
)
def test_a_table_with_a_column_a_series_comes_back(table, comma, dated, tmp_path):
    """With decimal commas and semicolons, or points and commas; signs between fields may be in names."""
    names = [*table]
    assume(dated or not all(map(is_number, names)))  # numbers over numbers are no header
    rows = [[repr(v).replace(".", ",") if comma else repr(v) for v in row] for row in zip(*table.values(), strict=True)]
    if dated:
        rows = [[f"{i + 1:02}.12.2016 00:00", *row] for i, row in enumerate(rows)]
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=";" if comma else ",", quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(
        [[*(["Zeit"] if dated else []), *names], *rows]
    )
    found, said = read(tmp_path, file.getvalue())
    begin = "01.12.2016 00:00" if dated else "1"
    assert [(s.id, s.values.tolist(), s.clock.date(0)) for s in found] == [(id, v, begin) for id, v in table.items()]
    assert len(said) == 1 and f"each of {len(names)} columns is a series" in said[0]


# -- shapes

LONG = [("a", [1, 2], "2020-01-01", "2020-01-03"), ("b", [3, 4], "2020-01-01", "2020-01-03")]


@pytest.mark.parametrize(
    ("content", "name", "expected", "said"),
    [
        ("unique_id,ds,y\na,2020-01-01,1\nb,2020-01-01,3\na,2020-01-02,2\nb,2020-01-02,4\n", "f.csv", LONG, []),
        (b"\xef\xbb\xbf" + b"unique_id\tds\ty\r\na\t2020-01-01\t1\r\na\t2020-01-02\t2\r\n", "f.tsv", LONG[:1], []),
        (gzip.compress(b"unique_id,ds,y\na,2020-01-01,1\na,2020-01-02,2\n", mtime=0), "f.csv.gz", LONG[:1], []),
        ('"unique_id";"ds";"y"\n"a";"2020-01-01";"1,0"\n"a";"2020-01-02";"2"\n', "f.csv", LONG[:1], []),
        ("sep=;\nunique_id;ds;y\na;2020-01-01;1\na;2020-01-02;2,0\n", "f.csv", LONG[:1], []),
        (",unique_id,ds,y\n0,a,2020-01-01,1\n1,a,2020-01-02,2\n", "f.csv", LONG[:1], []),
        ("unique_id , ds , y\n a , 2020-01-01 , 1\n a , 2020-01-02 , 2\n\n\n", "f.csv", LONG[:1], []),
        (
            "country,date,cases\na,2020-01-01,1\nb,2020-01-01,3\na,2020-01-02,2\nb,2020-01-02,4\n", "f.csv", LONG,
            ["f.csv: a series is what has one 'country'; its times are in 'date'; its values are in 'cases'"],
        ),
        (
            "id,month,price,y,note\nNew York,1949-01,9,1,x\nNew York,1949-02,9,2,y\n", "f.csv",
            [("New York", [1, 2], "1949-01", "1949-03")],
            ["f.csv: a series is what has one 'id'; its times are in 'month'; left out: 'price', 'note'"],
        ),
        (
            "id,date,sales\n1,2020-01-01,1\n2,2020-01-02,2\n3,2020-01-03,2\n", "f.csv",
            [("sales", [1, 2, 2], "2020-01-01", "2020-01-04")],
            ["f.csv: its times are in 'date'; its values are in 'sales'; left out: 'id'"],
        ),
        (
            "item,date,sales\n1,2020-01-01,1\n2,2020-01-01,3\n1,2020-01-02,2\n2,2020-01-02,4\n", "f.csv",
            [("1", [1, 2], "2020-01-01", "2020-01-03"), ("2", [3, 4], "2020-01-01", "2020-01-03")],
            ["f.csv: a series is what has one 'item'; its times are in 'date'; its values are in 'sales'"],
        ),
        (
            "H1,1,5\nH1,2,6\nH2,1,7\n", "f.csv", [("H1", [5, 6], "1", "3"), ("H2", [7], "1", "2")],
            ["f.csv: has no header; a series is what has one '1'; its times are in '2'; its values are in '3'"],
        ),
        (
            "2020-01-01,1\n2020-01-02,2\n", "f.csv", [("2", [1, 2], "2020-01-01", "2020-01-03")],
            ["f.csv: has no header; its times are in '1'; its values are in '2'"],
        ),
        (
            "5\n\n7\n\n", "f.txt", [("1", [5, NAN, 7], "1", "4")],
            ["f.txt: has no header; there are no times, steps are counted; its values are in '1'"],
        ),
        (
            "0,1,2\n.5,.25,.125\n1,2,3\n", "f.csv",
            [("0", [0.5, 1], "1", "3"), ("1", [0.25, 2], "1", "3"), ("2", [0.125, 3], "1", "3")],
            ["f.csv: there are no times, steps are counted; each of 3 columns is a series: '0', '1', '2'"],
        ),
        (
            "date,a,b\n2020-01-01,,1\n2020-01-02,2,2\n2020-01-03,,\n2020-01-04,3,\n", "f.csv",
            [("a", [2, NAN, 3], "2020-01-02", "2020-01-05"), ("b", [1, 2], "2020-01-01", "2020-01-03")],
            ["f.csv: its times are in 'date'; each of 2 columns is a series: 'a', 'b'",
             "f.csv: series 'b' ends at 2020-01-02, no row after that has a value"],
        ),
        (
            "date,y\n2020-01-03,3\n2020-01-02,2\n2020-01-01,1\n", "f.csv", [("y", [1, 2, 3], "2020-01-01", "2020-01-04")],
            ["f.csv: its times are in 'date'", "f.csv: runs backwards in time, and is turned round"],
        ),
        ('"V1","V2","V3","V4"\n"H1",1,2,\n"H2",,4,5\n"H3",6,,7\n', "f.csv",
         [("H1", [1, 2], "1", "3"), ("H2", [4, 5], "2", "4"), ("H3", [6, NAN, 7], "1", "4")], []),
        ("H1,1,2,\nH2,3,4,5\n", "f.csv", [("H1", [1, 2], "1", "3"), ("H2", [3, 4, 5], "1", "4")], []),
        (
            "Country,Code,1960,1961,1962\nChad,TCD,1,2,3\nPeru,PER,,5,6\n", "f.csv",
            [("Chad", [1, 2, 3], "1960", "1963"), ("Peru", [5, 6], "1961", "1963")],
            ["f.csv: each row is a series: its name is in 'Country', its values begin with '1960'"],
        ),
        ("unique_id,ds,y\n1,7,5\n2,7,6\n3,7,8\n", "f.csv", [("1", [5], "7", "8"), ("2", [6], "7", "8"), ("3", [8], "7", "8")], []),
        ("ds,y\n7,5\n", "f.csv", [("y", [5], "7", "8")], []),
        ("ds,y\n1,0\n2,0\n3,0\n", "f.csv", [("y", [0, 0, 0], "1", "4")], []),
        ("ds,y\n1,1e300\n2,-1e-300\n3,NA\n4,-0.5\n", "f.csv", [("y", [1e300, -1e-300, NAN, -0.5], "1", "5")], []),
        ("Year,y\n1999,1\n2000,2\n", "f.csv", [("y", [1, 2], "1999", "2001")], ["f.csv: its times are in 'Year'"]),
        ("date,y\n1/1/2016,1\n1/2/2016,2\n1/3/2016,3\n", "f.csv", [("y", [1, 2, 3], "1/1/2016", "1/4/2016")],
         ["f.csv: its times are in 'date'", "f.csv: '1/3/2016' is read with the month first; write 2016-07-31 to be sure"]),
        ("unique_id,ds,y\na,1,1\na,2,2\nb,1,\nb,2,NA\n", "f.csv", [("a", [1, 2], "1", "3")],
         ["f.csv:4: series 'b' holds no number, and is left out"]),
    ],
)  # fmt: skip
def test_shapes_and_what_is_said_of_them(content, name, expected, said, tmp_path):
    found, heard = read(tmp_path, content, name)
    same(shown(found), expected)
    assert heard == said
    for series in found:
        assert series.place.endswith(f":{series.lines[0]}") and len(series.lines) == len(series.values)


def test_missing_values_are_no_zeros(tmp_path):
    words = ["", "NA", "NaN", "nan", "null", "-", "?", "N/A", "None", ".", "  "]
    found, _ = read(
        tmp_path, "ds,y\n0,1\n" + "".join(f"{i},{w}\n" for i, w in enumerate(words, 1)) + f"{len(words) + 1},2\n"
    )
    np.testing.assert_array_equal(found[0].values, [1, *[NAN] * len(words), 2])


def test_names_are_kept_so_that_answers_are_written_alike(tmp_path):
    content = "store,Week,sales\nx,2020-W01,1\nx,2020-W02,2\n"
    found, said = read(tmp_path, content, id="store", time="Week", target=("sales",))
    assert found[0].names == Names("store", "Week", "sales") and said == []
    assert read(tmp_path, content, id="1", time="week", target=("3",))[0][0].names == Names("store", "Week", "sales")
    assert read(tmp_path, "a,b\n1,2\n3,4\n")[0][0].names == Names("unique_id", "ds", "y")


def test_several_targets_of_a_table_with_a_column_a_series(tmp_path):
    content = "date,a,b,c\n2020-01-01,1,2,x\n2020-01-02,3,4,y\n"
    found, said = read(tmp_path, content, target=("b",))
    assert [s.id for s in found] == ["b"] and said == ["f.csv: its times are in 'date'; left out: 'a', 'c'"]
    assert refused(tmp_path, content, target=("c",)) == (
        "f.csv:2: 'x' in the column 'c' is no number; mend it, or leave it empty where it is missing"
    )


# -- covariates

COVARIATES = """unique_id,ds,y,price,holiday,rain,kind
a,2020-01-01,1,9,True,5,u
b,2020-01-01,3,8,True,6,v
a,2020-01-02,2,9,False,7,u
b,2020-01-02,4,8,False,,v
a,2020-01-03,,7,False,,u
b,2020-01-03,,6,True,,v
"""


def test_covariates_known_ahead_only_in_the_past_and_static(tmp_path):
    found, said = read(tmp_path, COVARIATES, future=("price", "holiday"), past=("rain",), static=("kind",))
    assert said == []
    same(shown(found), [("a", [1, 2], "2020-01-01", "2020-01-03"), ("b", [3, 4], "2020-01-01", "2020-01-03")])
    a, b = found
    assert a.future["price"].tolist() == [9, 9, 7] and b.future["holiday"].tolist() == [1, 0, 1]
    assert a.past["rain"].tolist() == [5, 7] and a.static == {"kind": "u"} and b.static == {"kind": "v"}
    np.testing.assert_array_equal(b.past["rain"], [6, NAN])
    cut = a.upto(1)
    assert (len(cut.values), len(cut.past["rain"]), len(cut.lines), len(cut.future["price"])) == (1, 1, 1, 3)


def test_covariates_of_columns_are_those_of_every_series(tmp_path):
    content = "date,a,b,temp\n2020-01-01,,1,5\n2020-01-02,2,2,6\n2020-01-03,,,7\n"
    a, b = read(tmp_path, content, future=("temp",))[0]
    assert (a.values.tolist(), a.future["temp"].tolist()) == ([2], [6, 7])
    assert (b.values.tolist(), b.future["temp"].tolist()) == ([1, 2], [5, 6, 7])


def test_what_is_known_ahead_is_read_without_values_and_follows_the_history(tmp_path):
    a, b = read(tmp_path, COVARIATES, future=("price",))[0]
    ahead = "unique_id,ds,price,more\nb,2020-01-03,60,1\nb,2020-01-04,61,1\na,2020-01-03,70,1\n"
    later = {s.id: s for s in read(tmp_path, ahead, known=True, future=("price",))[0]}
    assert len(later["b"].values) == 0 and later["b"].future["price"].tolist() == [60, 61]
    assert continued(b, later["b"]).future["price"].tolist() == [8, 8, 60, 61]
    assert continued(a, later["a"]).future["price"].tolist() == [9, 9, 70]
    whole = "ds,price\n2020-01-01,1\n2020-01-02,2\n2020-01-03,3\n"  # it may hold the history too
    assert continued(a, read(tmp_path, whole, known=True, future=("price",))[0][0]).future["price"].tolist() == [
        9,
        9,
        3,
    ]
    late = read(tmp_path, "ds,price\n2020-01-05,3\n", known=True, future=("price",))[0][0]
    with pytest.raises(
        UserError, match=r"goes on at 2020-01-05, but its history ends at 2020-01-02: 2020-01-03 is to follow"
    ):
        continued(a, late)
    assert refused(tmp_path, ahead, known=True, future=("prise",)) == (
        "--data.future: f.csv has no such column: unknown column 'prise'; did you mean 'price'?"
    )


def test_a_truth_that_does_not_follow_is_refused(tmp_path):
    history = read(tmp_path, "ds,y,p\n2020-01-01,1,1\n2020-01-02,2,1\n", past=("p",))[0][0]

    def wrong(content):
        with pytest.raises(UserError) as error:
            continued(history, read(tmp_path, content)[0][0])
        return str(error.value).replace(f"{tmp_path}/", "")

    assert wrong("ds,y\n2020-01-02,1\n2020-01-03,1\n") == (
        "f.csv:2: series 'y' goes on at 2020-01-02, but its history ends at 2020-01-02: 2020-01-03 is to follow"
    )
    assert wrong("ds,y\n2020-02-01,1\n2020-03-01,1\n") == (
        "f.csv:2: series 'y' has a row a MS, its history a row a D; both need the same"
    )
    assert wrong("ds,y\n1,1\n2,1\n") == "f.csv:2: series 'y' has a row a 1, its history a row a D; both need the same"
    assert wrong("ds,y\n2020-01-03 12:00,1\n") == (
        "f.csv:2: series 'y': 2020-01-03 12:00 is no step of its history, which begins at 2020-01-01 and has a row a D"
    )
    assert wrong("ds,y\n2020-01-03,1\n") == "f.csv:2: series 'y' has no column 'p', which its history has"
    counted = read(tmp_path, '"V1","V2","V3","V4"\n"y",5,6,7\n')[0][0]
    with pytest.raises(UserError, match="has no column 'p'"):
        continued(history, counted)


def test_files_without_times_follow_each_other(tmp_path):
    history = read(tmp_path, '"V1","V2","V3","V4"\n"y",1,2,3\n')[0][0]
    truth = read(tmp_path, '"V1","V2","V3","V4"\n"y",5,6,7\n')[0][0]
    assert continued(history, truth).values.tolist() == [1, 2, 3, 5, 6, 7]


# -- rows that are missing

GAPS = "unique_id,ds,y,p\na,2016-02-27,1,1\na,2016-02-28,2,\na,2016-03-02,8,5\na,2016-03-03,9,5\n"


@pytest.mark.parametrize(
    ("fill", "expected"),
    [("missing", [NAN, NAN]), ("zero", [0, 0]), ("last", [2, 2]), ("linear", [4, 6])],
)
def test_gaps_are_filled_as_is_asked(fill, expected, tmp_path):
    """In a leap year; a value that is missing in a row that is there stays missing."""
    found, _ = read(tmp_path, GAPS, fill=fill, future=("p",))
    np.testing.assert_array_equal(found[0].values, [1, 2, *expected, 8, 9])
    assert found[0].lines.tolist() == [2, 3, 0, 0, 4, 5] and np.isnan(found[0].future["p"][1])


def test_gaps_are_refused_with_series_row_and_date(tmp_path):
    assert refused(tmp_path, GAPS) == (
        "f.csv:4: series 'a': 2 rows are missing before 2016-03-02, with a row a D; --data.fill takes missing, zero, last, linear"
    )
    more = GAPS + "b,2016-02-27,1,1\nb,2016-02-28,1,1\nb,2016-02-29,1,1\nb,2016-03-03,1,1\n"
    assert "f.csv:4: series 'a': 2 rows are missing before 2016-03-02 (4 in all, in 2 series)" in refused(
        tmp_path, more
    )
    assert refused(tmp_path, GAPS, option="--").endswith("; --fill takes missing, zero, last, linear")


def test_a_short_series_has_the_frequency_of_the_long_ones_where_it_fits(tmp_path):
    days = [str(d) for d in np.busday_offset("2016-02-01", np.arange(30))]
    long = "unique_id,ds,y\n" + "".join(f"a,{d},1\n" for d in days)
    found, _ = read(tmp_path, long + "b,2016-02-02,1\nb,2016-02-03,2\nc,2016-02-05,1\nc,2016-02-08,1\nd,2016-02-05,1\n")
    assert [s.clock.frequency.name for s in found] == ["B"] * 4 and found[2].clock.date(2) == "2016-02-09"
    daily = "unique_id,ds,y\n" + "".join(f"a,2016-02-{d:02},1\n" for d in range(1, 20))
    found, _ = read(tmp_path, daily + "b,2016-02-02,1\nb,2016-02-04,2\n", fill="missing")
    np.testing.assert_array_equal(found[1].values, [1, NAN, 2])
    every_other = "".join(f"b,2016-02-{d:02},1\n" for d in range(1, 20, 2))
    assert "f.csv:21: mixed frequencies: series 'b' has a row a 2D, series 'a' a row a D" in refused(
        tmp_path, daily + every_other
    )
    assert len(read(tmp_path, daily + every_other, freq="D", fill="last")[0][1].values) == 19


def test_business_days_have_no_gaps_at_weekends(tmp_path):
    days = [str(d) for d in np.busday_offset("2016-02-01", np.arange(30))]
    found, _ = read(tmp_path, "ds,y\n" + "".join(f"{d},{i}\n" for i, d in enumerate(days)))
    assert found[0].clock.frequency.name == "B" and found[0].clock.date(30) == "2016-03-14"
    without = "ds,y\n" + "".join(f"{d},{i}\n" for i, d in enumerate(days) if i != 12)
    assert "f.csv:14: series 'y': 1 row is missing before 2016-02-18, with a row a B" in refused(tmp_path, without)


# -- a change of clocks


def summer(start, days, minutes, offsets=False):
    first = datetime(*start, tzinfo=UTC)
    moments = [first + timedelta(minutes=minutes * i) for i in range(days * 1440 // minutes)]
    local = [m.astimezone(ZoneInfo("Europe/Berlin")) for m in moments]
    return [m.isoformat(sep=" ") if offsets else m.strftime("%Y-%m-%d %H:%M") for m in local]


@pytest.mark.parametrize("minutes", [30, 60])
@pytest.mark.parametrize(("start", "days"), [((2016, 3, 26), 3), ((2016, 10, 29), 3), ((2016, 1, 1), 330)])
def test_an_hour_that_is_not_there_or_there_twice_is_no_gap_and_no_double(start, days, minutes, tmp_path):
    texts = summer(start, days, minutes)
    found, said = read(tmp_path, "ds,y\n" + "".join(f"{t},{i}\n" for i, t in enumerate(texts)))
    assert found[0].values.tolist() == list(range(len(texts))) and found[0].clock.dates(range(len(texts))) == texts
    assert len(said) == 1 and ": the clocks are changed at 201" in said[0]
    with_offsets = summer(start, days, minutes, offsets=True)
    found, said = read(tmp_path, "ds,y\n" + "".join(f"{t},{i}\n" for i, t in enumerate(with_offsets)))
    clock = found[0].clock
    assert said == [] and clock.dates(range(len(texts))) == with_offsets
    assert [clock.index(t) for t in with_offsets[::11]] == list(range(0, len(texts), 11))


def test_days_and_months_are_those_of_the_place_and_not_of_greenwich(tmp_path):
    for texts, name in (
        (["2016-03-26T00:00+01:00", "2016-03-27T00:00+01:00", "2016-03-28T00:00+02:00", "2016-03-29T00:00+02:00"], "D"),
        (["2016-06-01T00:00+02:00", "2016-07-01T00:00+02:00", "2016-08-01T00:00+02:00"], "MS"),
        (
            ["2016-02-01T00:00+01:00", "2016-03-01T00:00+01:00", "2016-04-01T00:00+02:00", "2016-05-01T00:00+02:00"],
            "MS",
        ),
    ):
        found, said = read(tmp_path, "ds,y\n" + "".join(f"{t},1\n" for t in texts))
        clock = found[0].clock
        assert clock.frequency.name == name and clock.dates(range(len(texts))) == texts and said == []
        assert [clock.index(text) for text in texts] == list(range(len(texts)))


def test_an_hour_that_is_missing_at_another_time_is_a_gap(tmp_path):
    texts = summer((2016, 5, 1), 3, 60)
    assert "f.csv:31: series 'y': 1 row is missing before" in refused(
        tmp_path, "ds,y\n" + "".join(f"{t},1\n" for i, t in enumerate(texts) if i != 29)
    )


# -- what is refused, in one line

BAD = [
    ("ds,y\n2020-01-01,x\n2020-01-02,z\n", {}, "f.csv:2: 'x' in the column 'y' is no number; mend it, or leave it empty"),
    ("ds,y\n2020-01-01,1\n2020-01-02,?2\n2020-01-03,4\n", {}, "f.csv:3: '?2' in the column 'y' is no number"),
    ("ds,y\n1,1\n2,inf\n", {}, "f.csv:3: 'inf' in the column 'y' is no finite number"),
    ("ds,y\n1,1\n2,1_000\n", {}, "f.csv:3: '1_000' in the column 'y' is no number"),
    ("a,b\nx,y\nz,w\n", {}, "f.csv:1: no column holds numbers; there are a, b: name one by --data.target"),
    ("unique_id,ds,y\na,1,\na,2,NA\n", {}, "f.csv:2: series 'a' holds no number"),
    ("date,a,b\n2020-01-01,1,\n2020-01-02,1,\n", {"target": ("b",)}, "f.csv:2: series 'b' holds no number"),
    ("date;y\n2020-01-01;1.234,5\n", {}, "f.csv:2: '1.234,5' in the column 'y': write numbers without signs between thousands"),
    ('date,y\n2020-01-01,"1,234.5"\n2020-01-02,"2"\n', {}, "f.csv:2: '1,234.5' in the column 'y': write numbers without signs"),
    ('date,y\n2020-01-01,"1,234"\n2020-01-02,"12,500"\n', {}, "f.csv:2: '1,234' in the column 'y': is it 1.234 or 1234?"),
    ("date;y\n2020-01-01;1,5\n2020-01-02;2.5\n", {}, "f.csv:2: '1,5' in the column 'y': is no number; write all with"),
    ("ds,y\n2020-01-01,1\n2020-02-30,2\n", {}, "f.csv:3: '2020-02-30' cannot be read as a time"),
    ("ds,y\nsoon,1\nlater,2\n", {}, "f.csv:2: 'soon' cannot be read as a time"),
    ("when,y\nsoon,1\nlater,2\n", {"time": "when"}, "f.csv:2: 'soon' cannot be read as a time"),
    ("unique_id,ds,y\na,2020-01-01,1\na,2020-01-03,1\na,2020-01-02,1\na,2020-01-04,1\n", {},
     "f.csv:4: series 'a': 2020-01-02 comes after 2020-01-03 (line 3); sort the rows by time"),
    ("unique_id,ds,y\na,2020-01-01,1\nb,2020-01-01,1\na,2020-01-02,1\na,2020-01-02,1\n", {},
     "f.csv:5: series 'a': 2020-01-02 is there twice (line 4 too)"),
    ("ds,y\n2020-01-01,1\n2020-01-01,2\n2020-01-02,1\n", {},
     "f.csv:3: series 'y': 2020-01-01 is there twice (line 2 too); if the rows are of several series, name the column of their "
     "names by --data.id"),
    ("unique_id,ds,y\na,2020-01-01,1\na,2020-01-02,1\na,2020-01-03,1\nb,2020-01-01,1\nb,2020-02-01,1\nb,2020-03-01,1\n", {},
     "f.csv:5: mixed frequencies: series 'b' has a row a MS, series 'a' a row a D; put them into files of their own"),
    ("ds,y\n2020-01-01,1\n2020-01-02,1\n2020-01-03,1\n2020-01-04 12:00,1\n", {},
     "f.csv:5: series 'y': 2020-01-04 12:00 is no whole number of steps (D) after 2020-01-01 00:00; mend it, or name the step by "
     "--data.freq"),
    ("ds,y\n2020-01-01,1\n2020-01-08,1\n", {"freq": "D"},
     "f.csv:3: series 'y': 6 rows are missing before 2020-01-08, with a row a D"),
    ("ds,y\n1990-01-01,1\n2020-01-08,1\n", {"freq": "s", "fill": "zero"},
     "f.csv:3: series 'y': 947,289,601 steps (s) up to here from 2 rows; mend its times, or name a longer step by --data.freq"),
    ("ds,y\n1,1\n2,1\n", {"freq": "h"}, "--data.freq: got 'h', but the times of f.csv are whole numbers, such as 1"),
    ("ds,y\n2020-01-01,1\n", {"freq": "3"}, "--data.freq: got '3', but the times of f.csv are dates, such as 2020-01-01"),
    ("ds,y\n1,1\n", {"freq": "dayly"}, "--data.freq: unknown frequency 'dayly'"),
    ("ds,y\n1,1\n", {"fill": "mean"}, "--data.fill: unknown way to fill 'mean'; there are: last, linear, missing, zero"),
    ("ds,y\n1,1\n", {"target": ("yy",)}, "--data.target: f.csv has no such column: unknown column 'yy'"),
    ("ds,y,prices\n1,1,2\n", {"future": ("price",)},
     "--data.future: f.csv has no such column: unknown column 'price'; did you mean 'prices'?"),
    ("ds,y\n1,1\n", {"id": "y", "target": ("y",)}, "--data.: the column 'y' is named for two things; name it for one"),
    ("unique_id,ds,a,b\nx,1,1,1\nx,2,2,2\n", {}, "f.csv:1: which of a, b is forecast: name one by --data.target"),
    ("unique_id,ds,a,b\nx,1,1,1\nx,2,2,2\n", {"target": ("a", "b")}, "--data.target: a, b: a file with a row a value has"),
    ("unique_id,ds,y,k\na,1,1,u\na,2,2,v\n", {"static": ("k",)}, "f.csv:3: series 'a': 'k' is 'v' here and 'u' before"),
    ("A,1,5,9\nA,2,6,8\nB,1,7,7\n", {}, "f.csv:1: which of 2, 3, 4 is forecast: name one by --data.target"),
    ("ds,y,y\n1,2,3\n", {}, "f.csv:1: two columns are called 'y'"),
    ("ds,y\n1,2,3\n1,2\n", {}, "f.csv:2: 3 fields, the first line has 2"),
    ("ds,y\n", {}, "f.csv: holds no row of values"),
    ("\n \n", {}, "f.csv: is empty"),
    ('{"ds": 1, "y": 2}\n', {}, "f.csv: is JSON; series are read from CSV and Parquet"),
    ("ds,y\n1,2\n", {"delimiter": "tab"}, "--data.delimiter: there is no 'tab' in f.csv"),
    ('"V1","V2","V3","V4"\na,1,2,3\nb,1,x,3\n', {}, "f.csv:3: 'x' in the column 'V3' is no number"),
    ('"V1","V2","V3","V4"\na,1,2,3\na,1,2,3\n', {}, "f.csv:3: a second row of series 'a' (line 2 has one)"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "columns", "words"), BAD)
def test_bad_input_is_refused_in_one_clear_line(content, columns, words, tmp_path):
    assert refused(tmp_path, content, **columns).startswith(words)


def test_gzip_that_is_none_or_is_cut_off(tmp_path):
    whole = gzip.compress(b"ds,y\n" + b"".join(b"%d,%d\n" % (i, i * i) for i in range(500)))
    assert refused(tmp_path, whole[: len(whole) // 2], "f.csv.gz").startswith(
        "f.csv.gz: is gzip, but damaged or cut off: "
    )
    assert refused(tmp_path, b"ds,y\n1,2\n", "f.csv.gz").startswith("f.csv.gz: cannot read it: Not a gzipped file")
    assert refused(tmp_path, whole, "f.csv").startswith("f.csv: is gzip, not plain text; unpack it")


def test_numbers_of_an_array_are_taken_as_they_are():
    place, column = str, str
    assert numbers(np.array([1, 2]), place, column).dtype == np.float64
    with pytest.raises(UserError, match=r"^1: inf in the column '1' is no finite number"):
        numbers(np.array([1, np.inf]), place, column)


# -- the season of values alone


@quick
@given(
    season=st.integers(2, 40), seed=st.integers(0, 99), scale=st.sampled_from([1e-9, 1.0, 1e9]), missing=st.booleans()
)
def test_a_season_is_found_whatever_the_scale_and_with_missing_values(season, seed, scale, missing):
    rng = np.random.default_rng(seed)
    pattern = 0.5 * rng.normal(size=season)
    pattern[0] += 6
    values = scale * (np.tile(pattern, 12) + 0.1 * rng.normal(size=12 * season) + 0.05 * np.arange(12 * season))
    if missing:
        values[rng.integers(0, len(values), len(values) // 20)] = NAN
    found = season_of(values)
    assert found == season or (missing and found in (2 * season, 3 * season))


def test_where_there_is_no_season_it_is_one():
    rng = np.random.default_rng(0)
    walks = [season_of(rng.normal(size=300).cumsum()) for _ in range(100)]
    noise = [season_of(rng.normal(size=300)) for _ in range(100)]
    assert walks.count(1) >= 95 and noise.count(1) >= 85
    for values in (
        [],
        [1.0],
        [5.0] * 50,
        np.zeros(50),
        np.arange(50.0),
        0.1 * np.arange(300),
        [NAN] * 30,
        np.full(20, 1e300),
    ):
        assert season_of(np.array(values)) == 1


# -- frames


def columns_of(frame):
    return {
        name: list(frame[name].to_pylist() if hasattr(frame[name], "to_pylist") else frame[name])
        for name in frame_names(frame)
    }


def frame_names(frame):
    return frame.column_names if hasattr(frame, "column_names") else list(frame.columns)


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow"])
def test_a_frame_is_read_and_one_of_its_kind_comes_back(kind):
    pytest.importorskip("narwhals")
    library = pytest.importorskip(kind)
    from throughtime.tasks.frames import like_frame, of_frame

    make = library.table if kind == "pyarrow" else library.DataFrame
    hours = [datetime(2016, 3, 1, h) for h in range(3)]
    frame = make(
        {
            "unique_id": ["b"] * 3 + ["a"] * 3,
            "ds": hours * 2,
            "y": [1.0, 2.0, 3.0, 4.0, None, 6.0],
            "k": ["u"] * 3 + ["v"] * 3,
        }
    )
    found = of_frame(frame, SeriesColumns(static=("k",)))
    times = ("2016-03-01 00:00:00", "2016-03-01 03:00:00")
    same(shown(found), [("b", [1, 2, 3], *times), ("a", [4, NAN, 6], *times)])
    assert [s.static["k"] for s in found] == ["u", "v"] and found[1].place == "<frame>:4"
    rows = {"unique_id": ["b", "a"], "ds": [s.clock.date(3) for s in found], "forecast": [0.5, 1.5]}
    answer = like_frame(rows, frame)
    assert type(answer) is type(frame)
    assert columns_of(answer) == {"unique_id": ["b", "a"], "ds": [datetime(2016, 3, 1, 3)] * 2, "forecast": [0.5, 1.5]}
    numbered = make({"unique_id": [1, 1, 2], "ds": [7, 8, 7], "y": [1, 2, 3]})
    assert shown(of_frame(numbered)) == [("1", [1, 2], "7", "9"), ("2", [3], "7", "8")]
    answer = like_frame({"unique_id": ["1"], "ds": ["9"], "y": [2.5]}, make({"unique_id": [1], "ds": [7], "y": [1.5]}))
    assert columns_of(answer) == {"unique_id": [1], "ds": [9], "y": [2.5]}
    with pytest.raises(UserError, match=r"^<frame>:2: series 'y': 7 is there twice"):
        of_frame(make({"ds": [7, 7], "y": [1, 2]}))
    with pytest.raises(UserError, match=r"^<frame>:1: inf in the column 'y' is no finite number"):
        of_frame(make({"ds": [7, 8], "y": [float("inf"), 2]}))


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_times_of_frames_with_a_zone(kind):
    pytest.importorskip("narwhals")
    library = pytest.importorskip(kind)
    from throughtime.tasks.frames import like_frame, of_frame

    zone = ZoneInfo("Europe/Berlin")
    moments = [(datetime(2020, 3, 28, 23, tzinfo=UTC) + timedelta(hours=h)).astimezone(zone) for h in range(5)]
    frame = library.DataFrame({"ds": moments, "y": [1, 2, 3, 4, 5]})
    clock = of_frame(frame)[0].clock
    assert clock.dates(range(5)) == [m.isoformat(sep=" ") for m in moments] and clock.frequency.name == "h"
    assert list(like_frame({"ds": [clock.date(5)]}, frame)["ds"]) == [datetime(2020, 3, 29, 6, tzinfo=zone)]


def test_what_pandas_alone_has():
    pytest.importorskip("narwhals")
    pandas = pytest.importorskip("pandas")
    from throughtime.tasks.frames import like_frame, of_frame

    days = pandas.date_range("2016-02-28", periods=3, freq="D")
    with pytest.warns(UserWarning, match="its times are in 'index'; each of 2 columns is a series"):
        found = of_frame(pandas.DataFrame({"a": [1, 2, 3], "b": [4, 5, 6]}, index=days))
    assert shown(found) == [("a", [1, 2, 3], "2016-02-28", "2016-03-02"), ("b", [4, 5, 6], "2016-02-28", "2016-03-02")]
    with pytest.warns(UserWarning, match="its times are in 'index'; its values are in 'a'"):
        assert shown(of_frame(pandas.Series([1, 2, 3], index=days, name="a"))) == shown(found)[:1]
    with pytest.warns(UserWarning, match="steps are counted"):  # what is left of an index after rows were taken out
        assert of_frame(pandas.DataFrame({0: [1, 2, 3]}, index=[5, 9, 7]))[0].values.tolist() == [1, 2, 3]
    months = pandas.DataFrame({"ds": pandas.period_range("2020-01", periods=3, freq="M"), "y": [1, 2, 3]})
    clock = of_frame(months)[0].clock
    assert (clock.frequency.name, clock.date(3)) == ("MS", "2020-04")
    assert like_frame({"ds": ["2020-04"]}, months)["ds"].dtype == months["ds"].dtype
    with pytest.raises(UserError, match=r"^<frame>:2: there is no time in this row"):
        of_frame(pandas.DataFrame({"ds": [days[0], pandas.NaT], "y": [1, 2]}))


def test_what_is_no_frame():
    pytest.importorskip("narwhals")
    from throughtime.tasks.frames import of_frame

    for other in ({"ds": [1]}, [1, 2], "f.csv", np.zeros(3)):
        with pytest.raises(UserError, match="is no frame of pandas, polars or pyarrow that is in memory"):
            of_frame(other)


def test_parquet(tmp_path):
    pytest.importorskip("narwhals")
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    path = tmp_path / "f.parquet"
    parquet.write_table(pyarrow.table({"ds": [datetime(2016, 1, 31), datetime(2016, 2, 29)], "y": [1.5, None]}), path)
    with pytest.warns(UserWarning, match="f.parquet: series 'y' ends at 2016-01-31"):
        found = read_series(Source.of(path))
    assert (
        found[0].values.tolist() == [1.5] and found[0].clock.date(1) == "2016-02-29" and found[0].place == f"{path}:1"
    )
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=r"f.parquet: not Parquet, or damaged: "):
        read_series(Source.of(path))


def test_without_what_frames_need_that_is_said(tmp_path, monkeypatch):
    import sys

    from throughtime.tasks.frames import of_frame

    monkeypatch.setitem(sys.modules, "narwhals", None)
    with pytest.raises(
        UserError, match=re.escape("frames need narwhals, which is not installed (pip install 'throughtime[forecast]')")
    ):
        of_frame([1])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "f.parquet").write_bytes(b"PAR1")
    with pytest.raises(
        UserError, match=re.escape("Parquet needs pyarrow, which is not installed (pip install pyarrow)")
    ):
        read_series(Source.of(tmp_path / "f.parquet"))
