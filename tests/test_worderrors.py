"""Errors of recognised texts: those of jiwer, whatever the texts are; what is empty is said; the worst and the confused."""

import itertools
import warnings

import jiwer
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throughtime.tasks.edits import alignment, edits
from throughtime.tasks.worderrors import confusions, errors, side_by_side, worst

quick = settings(max_examples=300, deadline=None)
# few words, so that many of them are the same, and many alignments are as good as one another
words = st.lists(st.sampled_from(["a", "b", "ab", "ba", "é", "漢"]), max_size=12)
sentences = words.map(" ".join)


def counted(references, hypotheses):
    """What jiwer says, in our terms."""
    found = jiwer.process_words(references, hypotheses)
    return {
        "wer": pytest.approx(100 * found.wer),
        "cer": pytest.approx(100 * jiwer.cer(references, hypotheses)),
        "substitutions": found.substitutions,
        "deletions": found.deletions,
        "insertions": found.insertions,
        "words": sum(map(len, found.references)),
        "utterances": len(references),
    }


@quick
@given(st.lists(st.tuples(sentences, sentences), min_size=1, max_size=6))
def test_they_are_those_of_jiwer(pairs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of empty references
        found = errors(pairs)
    wanted = counted(*map(list, zip(*pairs, strict=True)))
    if not wanted["words"]:
        wanted |= {"wer": None, "cer": None}
    assert found == wanted


@quick
@given(words, words)
def test_words_stand_opposite_those_that_jiwer_has_there(reference, hypothesis):
    chunks = jiwer.process_words(" ".join(reference), " ".join(hypothesis)).alignments[0]
    wanted = []
    for chunk in chunks:
        i, j = (
            range(chunk.ref_start_idx, chunk.ref_end_idx),
            range(chunk.hyp_start_idx, chunk.hyp_end_idx),
        )
        wanted += itertools.zip_longest(i, j)
    assert alignment(reference, hypothesis) == wanted


@quick
@given(st.lists(st.integers(0, 4), max_size=40), st.lists(st.integers(0, 4), max_size=40))
def test_an_alignment_is_whole_in_order_and_as_short_as_the_distance(a, b):
    pairs = alignment(a, b)
    assert [i for i, _ in pairs if i is not None] == list(range(len(a)))
    assert [j for _, j in pairs if j is not None] == list(range(len(b)))
    assert (None, None) not in pairs
    assert sum(i is None or j is None or a[i] != b[j] for i, j in pairs) == edits(a, b)


def test_by_hand():
    pairs = [("YES", "YES"), ("B C D", "B D D"), ("GO  ON\tNOW", "GO"), ("STOP", "OH STOP IT")]
    assert errors(pairs, ["ann", "bob", None, "bob"]) == {
        "utterances": 4,
        "words": 8,
        # of 3 + 5 + 9 + 4 characters, spaces between words among them: 1 other, 7 lost, 6 more
        "cer": pytest.approx(100 * (1 + 7 + 6) / 21),
        "wer": pytest.approx(100 * 5 / 8),
        "substitutions": 1,
        "deletions": 2,
        "insertions": 2,
        "speakers": {
            "ann": {"utterances": 1, "words": 1, "cer": 0, "wer": 0}
            | {"substitutions": 0, "deletions": 0, "insertions": 0},
            "bob": {"utterances": 2, "words": 4, "cer": pytest.approx(100 * 7 / 9), "wer": 75}
            | {"substitutions": 1, "deletions": 0, "insertions": 2},
        },
    }
    assert "speakers" not in errors(pairs, [None] * 4)
    with pytest.raises(ValueError, match="zip"):
        errors(pairs, ["ann"])


def test_empty_references_are_said():
    with pytest.warns(UserWarning, match="2 of 3 references are empty; 3 words recognised there count as insertions"):
        found = errors([("", "a b c"), ("a b", "a b"), (" ", "")])
    assert (found["insertions"], found["wer"]) == (3, 150)
    with pytest.warns(UserWarning, match="1 of 1 references"):
        found = errors([("", "a")])
    assert (found["wer"], found["cer"], found["insertions"]) == (None, None, 1)
    nothing = errors([])
    assert (nothing["utterances"], nothing["words"], nothing["wer"]) == (0, 0, None)


def test_the_worst_come_first():
    pairs = [("a b c", "a b c"), ("a b c d", "a x"), ("a", "b"), ("a b", "b b"), ("a b c", "")]
    assert worst(pairs) == [4, 1, 2, 3]
    assert worst(pairs, 2) == [4, 1]
    assert worst([]) == []


@pytest.mark.parametrize(
    ("reference", "hypothesis", "above", "below"),
    [
        ("NINE GO B", "GO B STOP", "NINE  GO  B  ***", "***   GO  B  STOP"),
        ("漢字 B", "A B C", "漢字  B  ***", "A     B  C"),
        ("EIGHT B", "漢字 B", "EIGHT  B", "漢字   B"),
        ("", "OH", "***", "OH"),
        ("OH", "", "OH", "***"),
        ("", "", "", ""),
    ],
)
def test_side_by_side(reference, hypothesis, above, below):
    assert side_by_side(reference, hypothesis) == (above, below)


def test_single_words_give_a_table():
    pairs = [("two", "two"), ("two", " ten "), ("one", ""), ("two", "one two"), (" one", "one"), ("one", "two")]
    found = confusions(pairs)
    assert found == {
        "one": {"one": 1, "two": 1, "***": 1, "one two": 0, "ten": 0},
        "two": {"one": 0, "two": 1, "***": 0, "one two": 1, "ten": 1},
    }
    assert [list(row) for row in found.values()] == [["one", "two", "***", "one two", "ten"]] * 2
    assert confusions([*pairs, ("one two", "one")]) is None
    assert confusions([*pairs, ("", "one")]) is None
