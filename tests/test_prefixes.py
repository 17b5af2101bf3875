"""Prefix beam search against the sum over every path; words, pieces of a stream, bounded memory."""

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest

from throughtime.decode.alignment import align, words_of
from throughtime.decode.ctc import best_path
from throughtime.decode.lexicon import Lexicon
from throughtime.decode.ngram import NGram
from throughtime.decode.prefixes import Decoded, PrefixBeam
from throughtime.decode.trie import Trie
from throughtime.tasks.units import Units

WIDE = {"size": 10_000, "margin": math.inf, "most": 99, "recombine": False}


def log_probs_of(frames, units, seed, sharpness=1.5):
    logits = np.random.default_rng(seed).normal(size=(frames, units)) * sharpness
    return logits - np.logaddexp.reduce(logits, 1, keepdims=True)


def collapsed(path):
    return tuple(unit for unit, _ in itertools.groupby(path) if unit)


def every_sequence(log_probs):
    """log p of each sequence of units, by adding up every path there is."""
    p = defaultdict(float)
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        p[collapsed(path)] += math.exp(sum(log_probs[t, u] for t, u in enumerate(path)))
    return {units: math.log(value) for units, value in p.items()}


class Pairs:
    """A model of words that heeds one word before, of made-up numbers."""

    def __init__(self, words, seed=0):
        draw = np.random.default_rng(seed)
        self.table = {(a, b): float(-draw.exponential(2)) for a in ["", *words] for b in [*words, ""]}
        self.asked = []

    def begin(self):
        return ""

    def score(self, state, word):
        self.asked.append((state, word))
        return self.table[state, word], word

    def end(self, state):
        return self.table[state, ""]

    def prior(self, word):
        return max(value for (_, b), value in self.table.items() if b == word)


# units: 1 and 2 begin words, 3 does not; or 3 stands between words
MARKED = {"a": [1], "b": [2], "ac": [1, 3], "bcc": [2, 3, 3]}
SPACED = {"a": [1], "b": [2], "ab": [1, 2], "bb": [2, 2]}
STARTS = np.array([False, True, True, False])


def every_sentence(spelled, separator, frames):
    """The words that each sequence of up to `frames` units spells."""
    found = {(): ()}
    for count in range(1, frames + 1):
        for words in itertools.product(spelled, repeat=count):
            between = () if separator is None else (separator,)
            units = sum((between + tuple(spelled[word]) for word in words), ())[len(between) :]
            found[units] = found[units + between] = words
    return {units: words for units, words in found.items() if len(units) <= frames}


def scored(model, words, weight, bonus):
    total, state = 0.0, model.begin()
    for word in words:
        log_p, state = model.score(state, word)
        total += weight * log_p + bonus
    return total + weight * model.end(state)


@pytest.mark.parametrize(("frames", "units", "seed"), [(1, 4, 0), (5, 4, 1), (6, 3, 2), (7, 3, 3), (4, 5, 4)])
def test_a_beam_that_holds_all_is_the_sum_over_every_path(frames, units, seed):
    log_probs = log_probs_of(frames, units, seed)
    beam = PrefixBeam(**WIDE)
    beam.advance(log_probs)
    found = {tuple(units): (log_p, score) for units, log_p, score in beam.best(10_000)}
    expected = every_sequence(log_probs)
    assert found.keys() == expected.keys()
    for units, value in expected.items():
        assert found[units] == pytest.approx((value, value), abs=1e-9)
    assert tuple(beam.finish().units) == max(expected, key=expected.get)


def test_the_sum_is_not_the_likeliest_path():
    """Two frames, blank .6 and a unit .4 each: the likeliest path says nothing, the likeliest sequence the unit (.64)."""
    log_probs = np.log(np.array([[0.6, 0.4], [0.6, 0.4]]))
    beam = PrefixBeam(2)
    beam.advance(log_probs)
    assert best_path(log_probs) == []
    assert beam.finish() == Decoded([1], pytest.approx(math.log(0.64)), pytest.approx(math.log(0.64)))


@pytest.mark.parametrize("kind", ["marked", "spaced"])
@pytest.mark.parametrize("prior", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_words_are_ranked_as_every_sequence_of_them(kind, prior, seed):
    spelled, separator = (MARKED, None) if kind == "marked" else (SPACED, 3)
    bounds = {"starts": STARTS} if kind == "marked" else {"separator": separator}
    model = Pairs(spelled, seed)
    trie = Trie(spelled, **bounds, prior=model.prior if prior else None)
    log_probs = log_probs_of(6, 4, seed)
    expected = {}
    sentences = every_sentence(spelled, separator, len(log_probs))
    for units, log_p in every_sequence(log_probs).items():
        if units in sentences:
            expected[units] = (log_p, log_p + scored(model, sentences[units], 0.7, 0.4))
    assert len(expected) > 20
    beam = PrefixBeam(**WIDE, lexicon=Lexicon(trie, model, weight=0.7, bonus=0.4))
    beam.advance(log_probs)
    found = {tuple(units): (log_p, score) for units, log_p, score in beam.best(10_000)}
    assert found.keys() == expected.keys()
    for units, values in expected.items():
        assert found[units] == pytest.approx(values, abs=1e-9)
    ranked = [score for _, _, score in beam.best(10_000)]
    assert ranked == sorted(ranked, reverse=True)
    assert beam.best(3) == beam.best(10_000)[:3]


def plain_beam(log_probs, size, added):
    """The search as the papers write it: hypotheses in a dict, all of their extensions, the best `size` kept."""
    beam = {(): (0.0, -math.inf)}
    for row in log_probs:
        new = defaultdict(lambda: [-math.inf, -math.inf])
        for units, (blank, label) in beam.items():
            total = np.logaddexp(blank, label)
            new[units][0] = np.logaddexp(new[units][0], total + row[0])
            if units:
                new[units][1] = np.logaddexp(new[units][1], label + row[units[-1]])
            for u in range(1, len(row)):
                if added((*units, u)) is not None:
                    value = (blank if units[-1:] == (u,) else total) + row[u]
                    new[*units, u][1] = np.logaddexp(new[*units, u][1], value)
        ranked = sorted(new, key=lambda units: -np.logaddexp(*new[units]) - added(units))
        beam = {units: tuple(new[units]) for units in ranked[:size]}
    return {units: np.logaddexp(*both) for units, both in beam.items()}


@pytest.mark.parametrize("size", [2, 3, 5, 9])
@pytest.mark.parametrize("words", [False, True])
def test_a_narrow_beam_is_the_plain_one(size, words):
    """Hypotheses leave the beam and come back while others go on from them."""
    model = Pairs(MARKED, 1)

    def added(units):
        """What words add before the end: the whole ones their score, the begun one the best prior that goes on so."""
        if not words or not units:
            return 0.0
        first = [k for k, u in enumerate(units) if STARTS[u]]
        if first[:1] != [0]:
            return None
        spelled = {tuple(parts): word for word, parts in MARKED.items()}
        *whole, begun = [units[a:b] for a, b in itertools.pairwise([*first, len(units)])]
        below = [model.prior(word) for word, parts in MARKED.items() if tuple(parts[: len(begun)]) == begun]
        if not below or any(parts not in spelled for parts in whole):
            return None
        total, state = 0.7 * max(below) + 0.4, model.begin()
        for parts in whole:
            log_p, state = model.score(state, spelled[parts])
            total += 0.7 * log_p + 0.4
        return total

    came_back = 0
    lexicon = Lexicon(Trie(MARKED, starts=STARTS, prior=model.prior), model, weight=0.7, bonus=0.4) if words else None
    for seed in range(8):
        log_probs = log_probs_of(30, 4, seed, sharpness=2)
        beam, left = PrefixBeam(size, margin=math.inf, recombine=False, lexicon=lexicon), set()
        for t in range(len(log_probs)):
            before = set(beam._beam)
            beam.advance(log_probs[t : t + 1])
            left |= before - set(beam._beam)
            came_back += len(left & set(beam._beam))
        expected = plain_beam(log_probs, size, added)
        found = {tuple(beam._units(prefix)): prefix.total + beam._shift for prefix in beam._beam}
        assert found.keys() == expected.keys()
        assert found == pytest.approx(expected, abs=1e-9)
    assert came_back > 0 or size == 2


def test_a_model_is_asked_once_a_word_of_a_hypothesis():
    model = Pairs(MARKED)
    beam = PrefixBeam(**WIDE, lexicon=Lexicon(Trie(MARKED, starts=STARTS), model))
    beam.advance(log_probs_of(6, 4, 0))
    asked = len(model.asked)
    hypotheses = len({tuple(units) for units, _, _ in beam.best(10_000)})
    assert asked <= hypotheses
    beam.best(5)
    again = len(model.asked)
    beam.best(5)
    assert len(model.asked) == again


@pytest.mark.parametrize("kind", ["marked", "characters", "bpe", "words"])
def test_units_of_every_kind_and_an_n_gram(kind):
    """Frames that are all but certain of their units are heard as they were written, words where they stand."""
    texts = ["ONE TWO TWO", "THREE O ONE", "ON TWO", "TOO ONE", "O O"]
    units, model = Units.of(kind, texts, size=12), NGram.of(texts)
    spelled = {word: units.spelled(word) for word in model.words}
    trie = Trie(spelled, starts=units.starts, separator=units.separator, prior=model.prior)
    beam = PrefixBeam(lexicon=Lexicon(trie, model, weight=0.2))
    for text in texts:
        ids = units.encode(text)
        logits = np.random.default_rng(0).normal(size=(2 * len(ids), len(units))) - 6
        logits[np.arange(len(logits)), [unit for one in ids for unit in (0, one)]] += 9
        log_probs = logits - np.logaddexp.reduce(logits, 1, keepdims=True)
        beam.advance(log_probs)
        heard = beam.finish().units
        assert units.text(heard) == text
        spans = words_of(align(log_probs, heard), units.words(heard))
        assert [span.word for span in spans] == text.split()
        expected = [(2 * a + 1, 2 * b - 1) for _, a, b in units.words(ids)]
        assert [(span.first, span.last) for span in spans] == expected
        assert all(0.5 < span.confidence < 1 for span in spans)


def test_bonus_and_weight_move_the_choice():
    """Frames that leave open whether one word is said or two."""
    trie = Trie({"ab": [1, 3], "a": [1], "b": [2]}, starts=STARTS)
    log_probs = np.log(np.array([[0.1, 0.8, 0.05, 0.05], [0.9, 0.05, 0.025, 0.025], [0.1, 0.05, 0.43, 0.42]]))
    model = Pairs(["ab", "a", "b"])
    model.table.update({("", "ab"): -1.0, ("ab", ""): -1.0, ("", "a"): -1.0, ("a", "b"): -1.2, ("b", ""): -1.0})

    def best(**options):
        beam = PrefixBeam(lexicon=Lexicon(trie, model, **options))
        beam.advance(log_probs)
        return beam.finish().units

    assert best(weight=0.01) == [1, 2]
    assert best(weight=1.0) == [1, 3]
    assert best(weight=1.0, bonus=1.3) == [1, 2]
    assert best(weight=0.01, bonus=-1.0) == [1, 3]


@pytest.mark.parametrize("recombine", [False, True])
@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("pieces", [[1] * 60, [7, 0, 13, 40], [59, 1]])
def test_a_stream_in_pieces_is_the_whole_to_the_bit(words, pieces, recombine):
    lexicon = Lexicon(Trie(MARKED, starts=STARTS), Pairs(MARKED), bonus=1.0) if words else None
    log_probs = log_probs_of(60, 4, 5, sharpness=9).astype(np.float32)
    log_probs[20:30] = np.log(np.array([1 - 3e-7, 1e-7, 1e-7, 1e-7]))  # a rest
    whole = PrefixBeam(4, lexicon=lexicon, recombine=recombine)
    whole.advance(log_probs)
    stream, at, said, before = PrefixBeam(4, lexicon=lexicon, recombine=recombine), 0, [], []
    for count in pieces:
        stream.advance(log_probs[at : at + count])
        at += count
        stable = stream.stable()
        assert stable[: len(before)] == before  # what was stable stays
        assert stream.partial()[: len(stable)] == stable
        taken = (len(stable) + 1) // 2
        said += stable[:taken]
        stream.drop(taken)
        before = stream.stable()
    expected = whole.finish()
    found = stream.finish()
    assert [*said, *found.units] == expected.units and found[1:] == expected[1:]
    assert len(expected.units) > 10
    assert len(pieces) < 10 or len(said) > 3


def size_of(beam):
    """Everything a beam's tree holds."""
    waiting, count = [beam._root], 0
    while waiting:
        prefix = waiting.pop()
        count += 1
        waiting += prefix.children.values()
    return count


def test_memory_stays_bounded_where_stable_units_are_dropped():
    lexicon = Lexicon(Trie(MARKED, starts=STARTS), Pairs(MARKED))
    beam, total = PrefixBeam(8, lexicon=lexicon), 0
    for seed in range(30):
        beam.advance(log_probs_of(100, 4, seed, sharpness=4))
        total += len(beam.stable())
        beam.drop(len(beam.stable()))
        assert size_of(beam) < 300
        assert beam._root.parent is None
    assert total > 500


def test_the_tree_holds_what_leads_to_the_beam_and_no_more():
    beam = PrefixBeam(4)
    beam.advance(log_probs_of(200, 5, 0))
    wanted = set()
    for prefix in beam._beam:
        while prefix is not None and prefix not in wanted:
            wanted.add(prefix)
            prefix = prefix.parent
    assert size_of(beam) == len(wanted)


def test_a_narrow_beam_is_near_a_wide_one():
    for seed in range(5):
        log_probs = log_probs_of(40, 6, seed, sharpness=8)
        narrow, wide = PrefixBeam(16), PrefixBeam(500, margin=50.0)
        narrow.advance(log_probs)
        wide.advance(log_probs)
        (a,), (b,) = narrow.best(), wide.best()
        assert a.units == b.units
        assert b.log_probability - 0.2 <= a.log_probability <= b.log_probability + 1e-9


def test_what_is_dropped_is_decided():
    """A choice that nothing later can make: 1 or 2, then 3."""
    log_probs = np.log(np.array([[0.02, 0.5, 0.47, 0.01], [0.02, 0.01, 0.01, 0.96], [0.97, 0.01, 0.01, 0.01]]))
    beam = PrefixBeam(recombine=False)
    beam.advance(log_probs)
    assert beam.stable() == [] and beam.partial() == [1, 3]
    before = [h for h in beam.best(99) if h.units[:1] == [1]]
    beam.drop(1)
    assert beam.partial() == [3]
    assert beam.best(99) == [h._replace(units=h.units[1:]) for h in before]
    again = PrefixBeam(recombine=False)
    again.advance(log_probs)
    again.drop(1)
    again.advance(log_probs)
    assert again.partial()[:2] == [3, 1]


def test_of_hypotheses_that_go_on_alike_the_best_is_kept():
    """A choice that nothing later can make is made at once where it is the same word after, and the beam has room for others."""
    log_probs = np.log(np.array([[0.02, 0.5, 0.47, 0.01], [0.02, 0.01, 0.01, 0.96], [0.97, 0.01, 0.01, 0.01]]))
    beam = PrefixBeam()
    beam.advance(log_probs)
    assert beam.stable() == [] and [1, 3] in [h.units for h in beam.best(99)]
    assert [2, 3] not in [h.units for h in beam.best(99)]
    beam.advance(np.log(np.array([[1 - 3e-9, 1e-9, 1e-9, 1e-9]] * 4)))
    last = [h.units[-1:] for h in beam.best(99)]
    assert len(last) == len({tuple(units) for units in last})

    # with a model that heeds the word before, "a b" and "b b" are kept apart until the word after b
    words = {"a": [1], "b": [2], "c": [3]}
    lexicon = Lexicon(Trie(words, starts=np.arange(4) > 0), Pairs(words, 3))
    said = PrefixBeam(50, margin=40.0, lexicon=lexicon)
    said.advance(log_probs_of(8, 4, 2))
    futures = {(prefix.unit, prefix.place.node, prefix.place.state) for prefix in said._beam}
    assert len(futures) == len(said._beam) > 6


def test_recombination_finds_better_hypotheses_with_as_large_a_beam():
    found = {True: 0.0, False: 0.0}
    for seed in range(6):
        for recombine in found:
            beam = PrefixBeam(6, recombine=recombine)
            beam.advance(log_probs_of(60, 6, seed, sharpness=4))
            found[recombine] += beam.finish().score
    assert found[True] > found[False] + 1


def test_most_leaves_the_likeliest_units():
    log_probs = log_probs_of(7, 5, 3)
    only_one = log_probs.copy()
    for row in only_one:
        row[1:][np.arange(4) != row[1:].argmax()] = -math.inf
    found = []
    for given, most in ((log_probs, 1), (only_one, 99)):
        beam = PrefixBeam(size=10_000, margin=math.inf, most=most, recombine=False)
        beam.advance(given)
        found.append(beam.best(10_000))
    assert found[0] == found[1] and len(found[0]) > 10


def test_a_word_that_is_not_finished():
    trie = Trie({"ac": [1, 3], "b": [2]}, starts=STARTS)
    beam = PrefixBeam(lexicon=Lexicon(trie), margin=3.0)
    beam.advance(np.log(np.array([[0.02, 0.01, 0.96, 0.01], [0.01, 0.97, 0.01, 0.01]])))
    assert beam.partial() == [2, 1]
    assert beam.finish().units == [2]  # nothing else has been kept, and no word is "a"
    spaced = PrefixBeam(lexicon=Lexicon(Trie({"b": [2], "aa": [1, 1]}, separator=3)), margin=3.0)
    spaced.advance(np.log(np.array([[0.02, 0.01, 0.96, 0.01], [0.01, 0.01, 0.01, 0.97], [0.01, 0.97, 0.01, 0.01]])))
    assert spaced.partial() == [2, 3, 1]
    assert spaced.finish().units == [2, 3]
    assert spaced.partial() == [] and spaced.finish() == Decoded([], 0.0, 0.0)


def test_an_utterance_begins_anew():
    log_probs = log_probs_of(20, 4, 1, sharpness=5)
    lexicon = Lexicon(Trie(MARKED, starts=STARTS), Pairs(MARKED))
    beam = PrefixBeam(lexicon=lexicon)
    beam.advance(log_probs)
    first = beam.finish()
    beam.advance(log_probs)
    assert beam.finish() == first
    beam.advance(log_probs[:7])
    beam.reset()
    beam.advance(log_probs)
    assert beam.finish() == first


def test_frames_of_probability_0():
    """What only a made-up array has: no word has a probability above 0."""
    beam = PrefixBeam(lexicon=Lexicon(Trie({"b": [2]}, starts=STARTS)))
    with np.errstate(divide="ignore"):
        beam.advance(np.log(np.eye(4)[[1, 0, 2]]))
    assert beam.best() == [] and beam.partial() == [] and beam.stable() == []
    assert beam.finish() == Decoded([], -math.inf, -math.inf)
    free = PrefixBeam()
    with np.errstate(divide="ignore"):
        free.advance(np.log(np.eye(4)[[1, 1, 0, 1, 2, 2]]))
    assert free.finish() == Decoded([1, 1, 2], 0.0, 0.0)


def test_what_is_refused():
    with pytest.raises(ValueError, match="size and most are 1 or more, margin over 0; got 0, 16"):
        PrefixBeam(0)
    with pytest.raises(ValueError, match="margin over 0"):
        PrefixBeam(margin=math.nan)
    beam = PrefixBeam()
    with pytest.raises(ValueError, match="frame 1 of log_probs has NaN"):
        beam.advance(np.array([[-1.0, -1.0], [math.nan, -1.0]]))
    with pytest.raises(ValueError, match=r"frame 0 of log_probs has 3 as its greatest value; .* take log_softmax"):
        beam.advance(np.array([[3.0, -1.0]]))
    with pytest.raises(ValueError, match=r"floats \[T, U\], got \[3\]"):
        beam.advance(np.zeros(3))
    assert beam.finish() == Decoded([], 0.0, 0.0)  # nothing of these was read
    beam.advance(np.log(np.array([[0.1, 0.9]])))
    with pytest.raises(ValueError, match="there are 1 units; 2 cannot be dropped"):
        beam.drop(2)


# the trie


def test_a_trie_shares_beginnings_and_knows_the_best_below():
    priors = {"ac": -3.0, "a": -5.0, "b": -1.0}
    trie = Trie({"a": [1], "ac": [1, 3], "b": [2]}, starts=STARTS, prior=priors.get)
    a = trie.follow(0, 1)
    assert len(trie) == 4 and trie.word[a] == "a" and trie.word[trie.follow(a, 3)] == "ac"
    assert trie.follow(a, 2) is None and trie.follow(0, 3) is None
    assert [trie.best[0], trie.best[a], trie.best[trie.follow(a, 3)]] == [-1.0, -3.0, -3.0]


@pytest.mark.parametrize(
    ("words", "bounds", "message"),
    [
        ({"a": []}, {"starts": STARTS}, "a word has units"),
        ({"a": [1, 0]}, {"starts": STARTS}, "none is the blank"),
        ({"c": [3]}, {"starts": STARTS}, "its first unit alone begins a word"),
        ({"ab": [1, 2]}, {"starts": STARTS}, "its first unit alone begins a word"),
        ({"a c": [1, 3]}, {"separator": 3}, "none is the separator 3"),
        ({"a": [1], "A": [1]}, {"separator": 3}, "'A' and 'a' are both spelled"),
        ({"a": [1]}, {}, "give one of them"),
        ({"a": [1]}, {"separator": 3, "starts": STARTS}, "give one of them"),
    ],
)
def test_a_trie_refuses_what_is_no_word(words, bounds, message):
    with pytest.raises(ValueError, match=message):
        Trie(words, **bounds)
