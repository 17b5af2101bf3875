"""Best path, alignment and the probability of units, against every path there is and PyTorch's loss."""

import itertools
import math

import numpy as np
import pytest
import torch

from throughtime.decode.alignment import WordSpan, align, frames_needed, log_probability, words_of
from throughtime.decode.ctc import Span, best_path
from throughtime.errors import UserError


def log_probs_of(frames, units, seed, dtype=np.float64):
    logits = np.random.default_rng(seed).normal(size=(frames, units)) * 1.5
    return (logits - np.logaddexp.reduce(logits, 1, keepdims=True)).astype(dtype)


def collapsed(path):
    return [unit for unit, _ in itertools.groupby(path) if unit]


def paths_of(log_probs, units):
    """Every path that spells `units`, with its log probability."""
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        if collapsed(path) == list(units):
            yield path, sum(log_probs[t, u] for t, u in enumerate(path))


def spans_of(path, log_probs):
    """Runs of one unit in a path, blanks left out."""
    at, spans = 0, []
    for unit, run in itertools.groupby(path):
        count = len(list(run))
        if unit:
            mean = sum(log_probs[t, unit] for t in range(at, at + count)) / count
            spans.append((unit, at, at + count - 1, pytest.approx(mean)))
        at += count
    return spans


CASES = [[], [1], [1, 1], [2, 1], [1, 2, 1], [1, 1, 1], [2, 2, 1], [3, 1, 2, 3]]


@pytest.mark.parametrize("units", CASES)
@pytest.mark.parametrize("frames", [5, 6])
def test_alignment_is_the_likeliest_of_all_paths(frames, units):
    for seed in range(3):
        log_probs = log_probs_of(frames, 4, seed)
        path, _ = max(paths_of(log_probs, units), key=lambda pair: pair[1])
        assert [tuple(span) for span in align(log_probs, units)] == spans_of(path, log_probs)


@pytest.mark.parametrize("units", [*CASES, [1, 2, 3, 1, 2, 3], [1, 1, 1, 1]])
def test_log_probability_is_the_sum_of_all_paths(units):
    log_probs = log_probs_of(6, 4, 7)
    values = [value for _, value in paths_of(log_probs, units)]
    expected = float(np.logaddexp.reduce(values)) if values else -math.inf
    assert log_probability(log_probs, units) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("frames", "count", "seed"), [(50, 12, 0), (400, 150, 1), (31, 8, 2)])
def test_log_probability_is_pytorchs_loss(frames, count, seed):
    log_probs = log_probs_of(frames, 30, seed)
    units = np.random.default_rng(seed).integers(1, 5, count).tolist()  # some follow themselves
    assert frames_needed(units) > count
    loss = torch.nn.functional.ctc_loss(
        torch.from_numpy(log_probs)[:, None], torch.tensor([units]), (frames,), (count,), reduction="sum"
    )
    assert -log_probability(log_probs, units) == pytest.approx(loss.item(), rel=1e-10)
    spans = align(log_probs, units)
    assert [span.unit for span in spans] == units
    path = [0] * frames
    for span in spans:
        path[span.first : span.last + 1] = [span.unit] * (span.last - span.first + 1)
    assert collapsed(path) == units
    best = sum(log_probs[t, u] for t, u in enumerate(path))
    assert best < log_probability(log_probs, units)  # one path of them all


def test_best_path_takes_the_likeliest_unit_of_each_frame():
    for seed in range(20):
        log_probs = log_probs_of(30, 3, seed, np.float32)
        path = log_probs.argmax(1).tolist()
        found = best_path(log_probs)
        assert [tuple(span) for span in found] == spans_of(path, log_probs)
    assert best_path(np.zeros((0, 3))) == []


def test_best_path_of_parts_cut_at_blanks_is_that_of_the_whole():
    log_probs = log_probs_of(200, 3, 0)
    cuts = [0, *np.flatnonzero(log_probs.argmax(1) == 0)[::7], 200]
    joined = [
        span._replace(first=span.first + a, last=span.last + a)
        for a, b in itertools.pairwise(cuts)
        for span in best_path(log_probs[a:b])
    ]
    assert joined == best_path(log_probs) and len(cuts) > 8


def test_confidence_is_the_geometric_mean():
    log_probs = np.log(np.array([[0.1, 0.9], [0.6, 0.4], [0.5, 0.5], [0.6, 0.4], [0.2, 0.8]]))
    first, second = best_path(log_probs)
    assert first == (1, 0, 0, pytest.approx(math.log(0.9))) and first.confidence == pytest.approx(0.9)
    assert second.confidence == pytest.approx(0.8)
    one = align(np.log(np.array([[0.1, 0.9], [0.6, 0.4], [0.2, 0.8]])), [1])[0]
    assert (one.first, one.last) == (0, 2) and one.confidence == pytest.approx((0.9 * 0.4 * 0.8) ** (1 / 3))


def test_words_take_their_frames_and_their_least_certain_unit():
    spans = [Span(5, 1, 2, math.log(0.9)), Span(6, 4, 4, math.log(0.5)), Span(7, 9, 12, math.log(0.8))]
    assert words_of(spans, [("AB", 0, 2), ("C", 2, 3)]) == [
        WordSpan("AB", 1, 4, pytest.approx(0.5)),
        WordSpan("C", 9, 12, pytest.approx(0.8)),
    ]
    assert words_of([], []) == []


def test_frames_needed():
    assert [frames_needed(units) for units in ([], [1], [1, 2], [1, 1], [1, 1, 1], [1, 2, 2, 1])] == [0, 1, 2, 3, 5, 5]


def test_what_cannot_be_aligned_is_refused():
    log_probs = log_probs_of(4, 3, 0)
    align(log_probs, [1, 1, 2])
    with pytest.raises(UserError, match="4 frames cannot be aligned to 3 units, which take at least 5"):
        align(log_probs, [1, 1, 1])
    with pytest.raises(UserError, match="0 frames cannot be aligned to 1 units, which take at least 1"):
        align(log_probs[:0], [1])
    assert align(log_probs[:0], []) == [] and align(log_probs, []) == []
    assert log_probability(log_probs, [1, 1, 1]) == -math.inf
    assert log_probability(log_probs[:0], []) == 0.0 and log_probability(log_probs[:0], [1]) == -math.inf
    never = log_probs.copy()
    never[:, 2] = -math.inf
    with pytest.raises(UserError, match="no path of 4 frames that spells these 2 units has a probability above 0"):
        align(never, [1, 2])
    assert log_probability(never, [1, 2]) == -math.inf


@pytest.mark.parametrize("read", [align, log_probability, lambda log_probs, units: best_path(log_probs)])
def test_what_are_no_log_probabilities_is_refused(read):
    good = log_probs_of(4, 3, 0)
    for bad, message in [
        (good[0], r"floats \[T, U\], got \[3\] of float64"),
        (good[:, :0], r"got \[4, 0\]"),
        (np.zeros((2, 3), int), "of int64"),
        (np.where(np.arange(4)[:, None] == 2, np.nan, good), "frame 2 of log_probs has NaN"),
        (np.where(np.arange(4)[:, None] == 3, -np.inf, good), "frame 3 of log_probs has -inf as its greatest value"),
        (good + 9, "take log_softmax"),
    ]:
        with pytest.raises(ValueError, match=message):
            read(bad, [1])


@pytest.mark.parametrize("read", [align, log_probability])
@pytest.mark.parametrize("unit", [0, 3, -1])
def test_units_of_another_network_are_refused(read, unit):
    with pytest.raises(ValueError, match=f"unit {unit} is none of 1 to 2"):
        read(log_probs_of(4, 3, 0), [1, unit])
