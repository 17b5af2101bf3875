"""Units of a recogniser: what is spelled comes back, words are found in it, and what cannot be spelled is said, not guessed."""

import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throughtime.errors import UserError
from throughtime.runs import Run
from throughtime.tasks.units import FILE, KINDS, Units

quick = settings(max_examples=60, deadline=None)
DATA = Path(os.environ.get("THROUGHTIME_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))
BUS = ["B", "BUS  B", "A  TAXI\tB"]
# letters of several scripts, with marks that compose and marks that do not, signs, and many kinds of white space
characters = st.sampled_from("aAbB'é.-ñक्षि한漢🎈e\u0301\u0323 \t\n\u00a0\u3000")
texts = st.lists(st.text(characters, max_size=30), min_size=1, max_size=5)


def plain(text):
    return " ".join(unicodedata.normalize("NFC", text).split())


def test_a_character_that_begins_a_word_is_another_than_the_same_within_one():
    units = Units.of("marked", BUS)
    assert units.names == ("<blank>", "A", "I", "S", "U", "X", "▁A", "▁B", "▁T")
    assert units.encode("BUS B") == [7, 4, 3, 7]
    assert units.starts.tolist() == [False] * 6 + [True] * 3
    assert units.separator is None
    assert units.text([7, 4, 3, 7]) == "BUS B"


def test_characters_have_a_space_between_words_alone():
    units = Units.of("characters", BUS)
    assert units.names == ("<blank>", " ", "A", "B", "I", "S", "T", "U", "X")
    assert units.encode("BUS B") == [3, 7, 5, 1, 3]
    assert units.spelled("B") == [3]
    assert (units.separator, units.starts) == (1, None)
    assert Units.of("characters", ["B"]).separator == 1, "where the transcripts are single words too"


def test_words_are_units():
    units = Units.of("words", BUS)
    assert units.names == ("<blank>", "A", "B", "BUS", "TAXI")
    assert units.encode("BUS B") == [3, 2]
    assert units.starts.tolist() == [False, True, True, True, True]
    assert units.separator is None


def test_pieces_are_those_that_stand_together_most():
    units = Units.of("bpe", ["low lower lowest slow"] * 3, size=14)
    # by hand: l o, lo w, ▁ low, then of pairs that are as frequent the first
    assert units.merges[:3] == (("l", "o"), ("lo", "w"), ("▁", "low"))
    assert len(units) == 14
    assert units.names[units.encode("low")[0]] == "▁low"
    assert [units.names[i] for i in units.spelled("slow")][-1] == "low"
    np.testing.assert_array_equal(units.starts, [name.startswith("▁") for name in units.names])


@pytest.mark.parametrize("kind", KINDS)
@quick
@given(texts)
def test_what_they_are_made_of_comes_back(kind, some):
    if not "".join(some).split():
        some = [*some, "a"]
    units = Units.of(kind, some, size=60)
    for text in some:
        ids = units.encode(text)
        assert units.missing(text) == []
        assert 0 not in ids
        assert units.text(ids) == plain(text)
        words = units.words(ids)
        assert [word for word, _, _ in words] == plain(text).split()
        for word, first, end in words:
            assert ids[first:end] == units.spelled(word)
            if units.starts is None:
                assert units.separator not in ids[first:end]
            else:
                assert [bool(units.starts[i]) for i in ids[first:end]] == [True] + [False] * (end - first - 1)
        # a composed letter and its parts are one
        assert units.encode(unicodedata.normalize("NFD", text)) == ids


@pytest.mark.parametrize(
    ("kind", "ids", "words"),
    [
        ("marked", [7, 0, 4, 3, 0, 0, 7], [("BUS", 0, 4), ("B", 6, 7)]),  # blanks between
        ("marked", [4, 3, 7], [("US", 0, 2), ("B", 2, 3)]),  # the first unit begins no word
        ("characters", [1, 3, 1, 1, 0, 3, 7, 1], [("B", 1, 2), ("BU", 5, 7)]),  # spaces at the ends, and two together
        ("words", [0, 3, 3, 0, 2], [("BUS", 1, 2), ("BUS", 2, 3), ("B", 4, 5)]),
        ("marked", [], []),
        ("characters", [1, 0, 1], []),
    ],
)
def test_words_are_found_in_whatever_a_network_writes(kind, ids, words):
    units = Units.of(kind, BUS)
    assert units.words(ids) == words
    assert units.words(np.array(ids, dtype=np.int64)) == words
    assert units.text(ids) == " ".join(word for word, _, _ in words)


def test_a_letter_and_its_mark_are_written_as_one():
    units = Units.of("characters", ["e x\u0301"])
    letter, mark = units.names.index("e"), units.names.index("\u0301")
    assert units.text([letter, mark]) == "é"
    assert units.missing("é") == ["é"], "which no transcript had"


def test_a_mark_without_a_letter_is_no_word():
    units = Units.of("bpe", ["ab cd"], size=7)
    mark, a = units.names.index("▁"), units.names.index("a")
    assert units.words([mark, a, mark]) == [("a", 0, 2)]


@pytest.mark.parametrize(
    ("kind", "text", "missing"),
    [
        ("marked", "BUS IS XAB", ["▁I", "▁X", "B"]),
        ("marked", "▁B A▁", ["▁▁", "B", "▁"]),
        ("characters", "BUS ÜBER", ["Ü", "E", "R"]),
        ("bpe", "BUS ÜBER ▁B", ["Ü", "E", "R", "▁"]),
        ("words", "BUS IS TAXI IS", ["IS"]),
        ("words", "", []),
    ],
)
def test_what_cannot_be_spelled_is_named(kind, text, missing):
    units = Units.of(kind, BUS)
    assert units.missing(text) == missing
    assert (units.encode(text) is None) == bool(missing)
    for word in text.split():
        assert (units.spelled(word) is None) == bool(units.missing(word))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("word", ["", " ", "B B"])
def test_what_is_not_one_word_is_not_spelled_as_one(kind, word):
    assert Units.of(kind, BUS).spelled(word) is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_keeps_them(kind, tmp_path):
    units, run = Units.of(kind, BUS, size=12), Run(tmp_path)
    units.save(run)
    assert json.loads((tmp_path / FILE).read_text())["kind"] == kind
    opened = Units.open(run)
    assert opened == units and hash(opened) == hash(units)
    assert opened.encode("BUS TAXI B") == units.encode("BUS TAXI B")
    assert opened != Units.of(kind, [*BUS, "ZOO"], size=15)


@pytest.mark.parametrize(
    "damage",
    [
        "[]",
        "{}",
        '{"kind": "marked", "names": "<blank>", "merges": []}',
        '{"kind": "marked", "names": ["▁B", "U"], "merges": []}',
        '{"kind": "marked", "names": ["<blank>", 3], "merges": []}',
        '{"kind": "marked", "names": ["<blank>", "B", "B"], "merges": []}',
        '{"kind": "marks", "names": ["<blank>", "B"], "merges": []}',
        '{"kind": "bpe", "names": ["<blank>", "B"], "merges": [["B", "U"]]}',
        '{"kind": "bpe", "names": ["<blank>", "B"], "merges": ["BUS"]}',
        "{",
    ],
)
def test_damaged_ones_are_refused(tmp_path, damage):
    (tmp_path / FILE).write_text(damage)
    with pytest.raises(UserError, match=rf"{FILE}: the run is damaged"):
        Units.open(Run(tmp_path))


def test_the_same_transcripts_give_the_same_pieces_in_every_process():
    transcripts = [json.loads(line)["text"] for line in read("an4")]
    units = Units.of("bpe", transcripts, size=60)
    assert len(units) == 60
    script = (
        "import json, sys; from throughtime.tasks.units import Units;"
        "made = Units.of('bpe', json.load(sys.stdin), size=60); print(json.dumps([made.names, made.merges]))"
    )
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": seed}
        made = subprocess.run(
            [sys.executable, "-c", script],
            input=json.dumps(transcripts),
            capture_output=True,
            text=True,
            env=environment,
        )
        assert made.returncode == 0, made.stderr
        assert json.loads(made.stdout) == json.loads(json.dumps([units.names, units.merges]))


def read(name):
    path = DATA / "speech" / name / "train.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not there: set THROUGHTIME_DATA")
    return path.read_text().splitlines()


@pytest.mark.parametrize(("kind", "count"), [("marked", 49), ("characters", 28), ("words", 99)])
def test_an4(kind, count):
    """98 different words of 26 letters; 26 begin a word, 22 stand within one."""
    transcripts = [json.loads(line)["text"] for line in read("an4")]
    units = Units.of(kind, transcripts)
    assert len(units) == count
    assert all(units.text(units.encode(text)) == text for text in transcripts)


def test_what_cannot_be_made_is_refused():
    with pytest.raises(UserError, match=r"unknown kind of units 'word'; did you mean 'words'\?"):
        Units.of("word", BUS)
    with pytest.raises(UserError, match="no word stands in the transcripts"):
        Units.of("marked", ["", " \n"])
    for kind in ("marked", "bpe"):
        with pytest.raises(UserError, match="the word 'A▁B' of a transcript holds ▁"):
            Units.of(kind, ["A▁B"])
    for kind in ("characters", "words"):
        units = Units.of(kind, ["A▁B ▁ C"])
        assert units.text(units.encode("A▁B ▁ C")) == "A▁B ▁ C"
    with pytest.raises(UserError, match=r"8 units are too few .* the 7 characters of the transcripts alone are 9"):
        Units.of("bpe", BUS, size=8)
    assert len(Units.of("bpe", BUS, size=9)) == 9
