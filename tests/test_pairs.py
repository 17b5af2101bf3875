"""Pairs of a source and a target in the shapes that people have them, for training and for answering."""

import csv
import io
import re
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from throughtime.errors import UserError
from throughtime.tasks.pairs import pairs
from throughtime.tasks.source import Source

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(folder, *contents, both=True, name="f.txt", delimiter=None):
    """(source, target) of each pair, and what was said."""
    paths = [folder / f"{i or ''}{name}" for i in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = [pair[:2] for pair in pairs([Source.of(p) for p in paths], both=both, delimiter=delimiter)]
    return found, [str(w.message).replace(f"{folder}/", "") for w in said]


TATOEBA = (
    "Go.\tGeh.\tCC-BY 2.0 (France) Attribution: tatoeba.org #2877272 (CM) & #8597805 (Roujin)\n"
    "Hi.\tHallo!\tCC-BY 2.0 (France) Attribution: tatoeba.org #538123 (CM) & #380701 (cburgmer)\n"
)
GO = [("Go.", "Geh."), ("Hi.", "Hallo!")]
MORE = "f.txt: all fields past a source and a target are left out"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("f.txt", "Go.\tGeh.\nHi.\tHallo!\n", None),
        ("f.txt", "Go.\tGeh.\r\nHi.\tHallo!\r\n".encode("utf-16"), None),
        ("f.txt", "Go.\tGeh.\rHi.\tHallo!\r", None),
        ("f.tsv", " Go. \tGeh.\n\nHi.\tHallo!", None),
        ("f.txt", TATOEBA, MORE),
        ("f.txt", "1\tGo.\t77\tGeh.\n2\tHi.\t78\tHallo!\n", "f.txt: fields 2 and 4 are the source and the target"),
        (
            "f.txt",
            "source\ttarget\nGo.\tGeh.\nHi.\tHallo!\n",
            "f.txt:1: 'source' and 'target' name the columns, and are left out",
        ),
        ("f.csv", "Go.,Geh.\nHi.,Hallo!\n", None),
        (
            "f.csv",
            "English;German\nGo.;Geh.\nHi.;Hallo!\n",
            "f.csv:1: 'English' and 'German' name the columns, and are left out",
        ),
    ],
)
def test_shapes_of_pairs(tmp_path, name, content, said):
    said = [] if said is None else [said]
    assert read(tmp_path, content, name=name) == (GO, said)
    found, also = read(tmp_path, content, name=name, both=None)
    assert [pair for pair in found if pair[0]] == GO and also == said, "the targets are set aside"
    found, _ = read(tmp_path, content, name=name, both=False)
    assert [pair for pair in found if pair[0]] == [(source, None) for source, _ in GO]


SENTENCES = [("a dog runs", "ein Hund rennt"), ("two men sit", "zwei Männer sitzen"), ("a boy", "ein Junge")]


@pytest.mark.parametrize("name", ["f.tsv", "f.csv"])
@pytest.mark.parametrize(
    ("first", "said"), [(("src_text", "tgt"), True), (("boy", "Kind"), False), (("a b", "c"), False)]
)
def test_a_first_row_that_may_name_the_columns_is_kept_and_said(tmp_path, name, first, said):
    rows = [first, *SENTENCES]
    content = "".join(f"{a}{',' if name == 'f.csv' else chr(9)}{b}\n" for a, b in rows)
    words = [f"{name}:1: 'src_text' and 'tgt' are read as a pair; if they name the columns, take this line out"]
    assert read(tmp_path, content, name=name) == (rows, words if said else [])


def test_plain_lines_are_sources(tmp_path):
    lines = ["Go.", "", " Hi, there. "]
    assert read(tmp_path, "\n".join(lines) + "\n", both=None) == ([(line, None) for line in lines], [])
    assert read(tmp_path, "Go.\nno\ttab in the first\n", both=None)[0][1] == ("no\ttab in the first", None)
    assert [p[:2] for p in pairs([Source.of(["a\tb"])], both=None)] == [("a\tb", None)], "texts in memory are sources"


def test_two_files(tmp_path):
    assert read(tmp_path, "Go.\n\nHi.\n", "Geh.\nx\nHallo!") == (GO, ["1 pairs with an empty side are left out"])
    assert read(tmp_path, "Go.\n\nHi.\n", "Geh.\nx\nHallo!", both=None) == ([GO[0], ("", "x"), GO[1]], [])
    assert read(tmp_path, "a\u2028b\nc\n", "1\n2\n")[0] == [("a\u2028b", "1"), ("c", "2")]
    for contents, words in (
        (("a\nb\n", "1\n"), r"f.txt has 2 lines and \S+1f.txt 1; \S*/f.txt:2 has nothing beside it"),
        (("a\n", "1\n2\n3\n"), r"f.txt has 1 lines and \S+1f.txt 3; \S*1f.txt:2 has nothing beside it"),
    ):
        with pytest.raises(UserError, match=words):
            read(tmp_path, *contents)


def test_places(tmp_path):
    (tmp_path / "f.tsv").write_text("a\tb\n\nc\td\n")
    assert [pair.place for pair in pairs([Source.of(tmp_path / "f.tsv")], both=True)] == [
        f"{tmp_path}/f.tsv:1",
        f"{tmp_path}/f.tsv:3",
    ]


def test_pairs_that_lack_a_side_keep_their_place_in_answering(tmp_path):
    content = "a\tb\n\n\td\nc\t\ne\n"
    assert read(tmp_path, content, both=None, name="f.tsv")[0] == [
        ("a", "b"),
        ("", None),
        ("", "d"),
        ("c", ""),
        ("e", None),
    ]
    assert read(tmp_path, content.replace("e\n", ""), name="f.tsv") == (
        [("a", "b")],
        ["2 pairs with an empty side are left out"],
    )


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (
            ["one\t1\ntwo\n"],
            "f.txt:2: 1 fields; a line has a source and a target with a tab between them, or give two files",
        ),
        (["one\ntwo\n"], "f.txt:1: 1 fields"),
        (["\t\n"], "f.txt: no pair in it"),
        ([""], "f.txt: no pair in it"),
        (["a", "b", "c"], "3 files; give a source and a target aligned by line, or one TSV of pairs"),
    ],
)
def test_pairs_that_cannot_be_read(tmp_path, contents, words):
    with pytest.raises(UserError, match=re.escape(words)):
        read(tmp_path, *contents)


side = st.text(st.sampled_from('ab,;"é. '), min_size=1, max_size=6).map(str.strip).filter(bool)


@quick
@given(table=st.lists(st.tuples(side, side), min_size=1, max_size=6), delimiter=st.sampled_from(",;|\t"))
def test_pairs_that_csv_has_written_come_back(table, delimiter, tmp_path):
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(table)
    expected = [tuple(" ".join(x.split()) for x in pair) for pair in table]
    assert read(tmp_path, file.getvalue(), name="f.csv", delimiter=delimiter) == (expected, [])


@quick
@given(table=st.lists(st.tuples(side, side), min_size=1, max_size=6))
def test_lines_of_pairs_in_are_pairs_out(table, tmp_path):
    content = "".join(f"{a}\t{b}\n" for a, b in table)
    assert read(tmp_path, content) == (table, [])
    assert read(tmp_path, content, both=None) == (table, [])
    sides = ["".join(f"{pair[i]}\n" for pair in table) for i in (0, 1)]
    assert read(tmp_path, *sides) == (table, [])
