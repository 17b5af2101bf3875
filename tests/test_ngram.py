"""The n-gram of words: its probabilities by hand and by their sum, words never seen, and what it is worth on real transcripts."""

import json
import math
import os
from pathlib import Path

import pytest

from throughtime.decode.ngram import NGram
from throughtime.errors import UserError

DATA = Path(os.environ.get("THROUGHTIME_DATA", Path(__file__).parents[2] / "shared" / "data"))
TEXTS = ["A B C", "A B D", "A B", "B C A", "", "E", "A A A B"]


def states_of(model, texts):
    """Every state that transcripts, and words never seen, lead to."""
    states = {model.begin(), ()}
    for text in [*texts, "new A", "A new", "new new B", "C C D E"]:
        state = model.begin()
        for word in text.split():
            _, state = model.score(state, word)
            states.add(state)
    return states


@pytest.mark.parametrize("order", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("new", [1, 5])
def test_probabilities_sum_to_1_in_every_state(order, new):
    model = NGram.of(TEXTS, order).allowing(["A", "C", *(f"new{k}" for k in range(new))])
    assert model.new == new
    assert model.words == ["A", "B", "C", "D", "E"]
    states = states_of(model, TEXTS)
    assert len(states) > 5 or order == 1
    for state in states:
        one_new = math.exp(model.score(state, "never seen")[0])
        total = sum(math.exp(model.score(state, word)[0]) for word in model.words)
        assert total + new * one_new + math.exp(model.end(state)) == pytest.approx(1, abs=1e-12)
        assert one_new > 0


def test_order_2_by_hand():
    """Two transcripts, "A B" and "A C": pairs (begin A) 2, (A B), (A C), (B end), (C end) 1 each.

    D_2 = 4 / (4 + 2) = 2/3. Words by how many stand before them: A 1, B 1, C 1, end 2: D_1 = 3 / (3 + 2) = .6; V = 5.
    """
    model = NGram.of(["A B", "A C"], order=2)
    rest = 0.6 * 4 / 5 / 5  # the share of each of the five words
    a, end = 0.4 / 5 + rest, 1.4 / 5 + rest
    assert math.exp(model.prior("A")) == pytest.approx(a)
    assert math.exp(model.prior("new")) == pytest.approx(rest)
    begin = model.begin()
    log_p, state = model.score(begin, "A")
    assert math.exp(log_p) == pytest.approx((2 - 2 / 3) / 2 + 2 / 3 / 2 * a)
    assert math.exp(model.score(state, "B")[0]) == pytest.approx((1 - 2 / 3) / 2 + 2 / 3 * 2 / 2 * a)
    _, state = model.score(state, "B")
    assert math.exp(model.end(state)) == pytest.approx(1 - 2 / 3 + 2 / 3 * end)
    _, state = model.score(state, "new")
    assert state == () and math.exp(model.end(state)) == pytest.approx(end)


def test_discounts_of_few_transcripts_leave_something_for_every_word():
    for texts in (["A"], [""], ["A A A A", "A A A A"], ["A B C D E F G H"]):
        for order in (1, 2, 3):
            model = NGram.of(texts, order)
            state = model.begin()
            for word in ("A", "new", "A", "A"):
                log_p, state = model.score(state, word)
                assert -20 < log_p < 0
            assert -20 < model.end(state) < 0


def test_states_hold_no_more_than_what_counts():
    model = NGram.of(["A B C D", "B C E"], order=3)
    state = model.begin()
    for word in "ABC":
        _, state = model.score(state, word)
    assert state == ("B", "C")
    _, state = model.score(state, "E")
    assert state == ("C", "E")
    _, state = model.score(state, "A")
    assert state == ("A",)  # nothing has followed E A
    assert NGram.of(["A B"], order=1).score((), "A")[1] == ()


def test_saved_and_opened():
    model = NGram.of([*TEXTS, "Ωμέγα A"], order=3)
    text = json.dumps(model.values(), ensure_ascii=False)
    opened = NGram.load(json.loads(text))
    assert opened == model
    assert opened.perplexity(TEXTS) == model.perplexity(TEXTS)
    for damaged in (
        {},
        {"order": 3},
        {"order": 3, "counts": [["A"]]},
        {"order": 3, "counts": [[]]},
        [],
        {"order": "x", "counts": []},
    ):
        with pytest.raises(UserError, match="the values of an n-gram are damaged"):
            NGram.load(damaged)


def test_what_is_refused():
    with pytest.raises(UserError, match="an n-gram needs at least one transcript"):
        NGram.of([])
    with pytest.raises(ValueError, match="order and new are 1 or more, got 0 and 1"):
        NGram.of(["A"], order=0)
    assert NGram.of(["A"]).allowing(["A"]).new == 1
    with pytest.raises(ValueError, match="got 2 and 0"):
        NGram(2, NGram.of(["A"], 2).counts, 0)


def test_perplexity_is_of_words_and_ends():
    model = NGram.of(TEXTS, order=2)
    log_p, state = model.score(model.begin(), "B")
    assert model.perplexity(["B"]) == pytest.approx(math.exp(-(log_p + model.end(state)) / 2))
    assert math.isnan(model.perplexity([]))


@pytest.mark.skipif(
    not (DATA / "speech" / "an4").exists(), reason=f"no {DATA}/speech/an4; THROUGHTIME_DATA names the data"
)
def test_transcripts_of_other_speakers():
    """AN4: 14.7 with two words before, 13.9 with three; 40 with none, and 16.2 by Witten and Bell's way with two."""
    train, dev = (
        [json.loads(line)["text"] for line in (DATA / "speech" / "an4" / f"{part}.jsonl").read_text().splitlines()]
        for part in ("train", "dev")
    )
    assert [NGram.of(train, order).perplexity(dev) for order in (1, 3, 4)] == pytest.approx(
        [39.9, 14.66, 13.94], abs=0.1
    )
