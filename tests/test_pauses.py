"""Pauses: speech is found in noise, hum and silence, frame by frame, as in the whole."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from throughtime.tasks.audio import samples
from throughtime.tasks.logmel import features
from throughtime.tasks.pauses import AROUND, HELD, PAUSE, Pauses, quietest, spoken

DATA = Path(os.environ.get("THROUGHTIME_DATA", Path(__file__).parents[2] / "shared" / "data")) / "speech"
RATE = 16000

real = pytest.mark.skipif(not DATA.is_dir(), reason=f"there is no {DATA}")


def noise(seconds, deviation=1e-3, seed=0):
    return np.random.default_rng(seed).normal(0, deviation, round(seconds * RATE)).astype(np.float32)


def voice(seconds, loud=0.1, seed=0):
    """Noise that comes and goes as syllables do, over a quiet one."""
    time = np.arange(round(seconds * RATE)) / RATE
    syllables = np.maximum(np.sin(2 * np.pi * 4 * time), 0).astype(np.float32)
    return noise(seconds, loud, seed) * syllables + noise(seconds, seed=seed + 1)


def hum(seconds):
    time = np.arange(round(seconds * RATE)) / RATE
    wave = 0.1 * np.sin(2 * np.pi * 50 * time) + 0.03 * np.sin(2 * np.pi * 150 * time)
    return (wave + noise(seconds, 3e-4)).astype(np.float32)


@pytest.mark.parametrize("level", [1e-5, 1e-3, 0.1])
@pytest.mark.parametrize("seconds", [0.2, 0.6, 1.5, 12.0])
def test_steady_noise_is_no_speech(seconds, level):
    for seed in range(5):
        assert spoken(features(noise(seconds, level, seed))) == []


@pytest.mark.parametrize(
    "quiet",
    [
        np.zeros(5 * RATE, np.float32),
        hum(12),
        np.concatenate([np.zeros(2 * RATE, np.float32), noise(3), np.zeros(RATE, np.float32)]),
        np.concatenate([noise(3, 1e-4), noise(4, 1e-2), noise(4, 1e-4)]),
        np.concatenate([np.zeros(RATE, np.float32), hum(3)]),
    ],
    ids=["zeros", "hum", "noise in zeros", "louder noise", "hum in zeros"],
)
def test_what_is_no_speech_gives_nothing(quiet):
    assert spoken(features(quiet)) == []


def test_utterances_are_found_where_they_are():
    """With a little of the quiet around them, and none of samples that are 0."""
    parts = [noise(2), voice(1.5), noise(1.5), voice(0.5), np.zeros(RATE, np.float32), voice(2, seed=3), noise(1)]
    ends = np.cumsum([len(part) for part in parts]) / RATE * 100
    found = spoken(features(np.concatenate(parts)))
    assert len(found) == 3
    for (first, end), (begins, ends_) in zip(found, [ends[0:2], ends[2:4], ends[4:6]], strict=True):
        assert begins - AROUND - 8 <= first <= begins + 5
        assert ends_ - 20 <= end <= ends_ + AROUND + 8
    assert found[1][1] <= ends[3] and found[2][0] >= ends[4] - 3, "zeros belong to nothing"


def test_a_short_pause_ends_nothing():
    (one,) = spoken(features(np.concatenate([noise(1), voice(1), noise(PAUSE / 100 - 0.4), voice(1), noise(1)])))
    assert one[1] - one[0] > 200


def test_a_quiet_word_after_a_loud_one_is_heard():
    found = spoken(features(np.concatenate([noise(1), voice(1, 0.3), noise(1.5), voice(1, 0.03), noise(1)])))
    assert len(found) == 2


def test_what_lasts_goes_on_and_little_is_held():
    """Frames are passed on while somebody speaks, in order, once each; no more than a look back is held."""
    whole = features(np.concatenate([noise(3), voice(60), noise(3)]))
    pauses, passed, latest = Pauses(), [], 0
    for number, frame in enumerate(whole):
        piece = pauses.push(frame)
        if piece is not None:
            assert np.array_equal(piece.features, whole[piece.first : piece.first + len(piece.features)])
            passed += range(piece.first, piece.first + len(piece.features))
            latest = number
        assert len(pauses._held) <= max(HELD, PAUSE) + 1
    assert pauses.finish() is None and latest < len(whole)
    assert passed == list(range(passed[0], passed[-1] + 1)) and len(passed) > 5900


def test_the_end_of_a_stream_ends_the_utterance():
    pauses = Pauses()
    pieces = [piece for frame in features(np.concatenate([noise(1), voice(1)])) if (piece := pauses.push(frame))]
    assert not any(piece.ends for piece in pieces)
    last = pauses.finish()
    assert last is not None and last.ends and last.speech
    assert Pauses().finish() is None


def test_quietest():
    levels = np.r_[np.full(20, -3.0), np.full(9, -9.0), np.full(20, -4.0)]
    levels[5] = -15.0  # a single frame is no pause
    assert abs(quietest(np.repeat(levels[:, None], 80, 1).astype(np.float32)) - 24) <= 2


@real
def test_real_speech_is_not_lost():
    """Of AN4 each recording is one utterance, nearly whole; of the digits of FSDD, cut out without quiet, hardly one is lost."""
    for name, step, least in (("an4/dev", 4, 0.99), ("fsdd/train", 4, 0.995)):
        rows = [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text().splitlines()][::step]
        parts = [features(samples(DATA / name.split("/")[0] / row["audio"])) for row in rows]
        found = [spoken(part) for part in parts]
        assert sum(len(one) == 1 for one in found) / len(found) >= least
        covered = sum(end - first for one in found for first, end in one)
        assert covered / sum(map(len, parts)) > 0.9


@real
def test_joined_recordings_come_apart():
    rng = np.random.default_rng(0)
    rows = [json.loads(line) for line in (DATA / "an4" / "dev.jsonl").read_text().splitlines()][::6]
    for fill in (0.0, 1e-4):
        whole, at = [], []
        for row in rows:
            pause = round(rng.uniform(1.2, 2.0) * RATE)
            whole += [fill * rng.normal(size=pause).astype(np.float32), samples(DATA / "an4" / row["audio"])]
            end = sum(map(len, whole))
            at.append(((end - len(whole[-1])) / 160, end / 160))
        found = spoken(features(np.concatenate(whole)))
        inside = [any(first < (a + b) / 2 < end for first, end in found) for a, b in at]
        assert all(inside) and abs(len(found) - len(rows)) <= 1
