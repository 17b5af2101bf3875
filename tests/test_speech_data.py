"""What a recogniser is trained on: features in a file, their statistics, who is held out, how many frames make a step."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import throughtime as tt
from throughtime.tasks.audio import Recording
from throughtime.tasks.batches import Sequences
from throughtime.tasks.speech import HEARD, LEAST, PRIOR, Corpus, Running, Statistics, Utterances, Writer, side_by_side
from throughtime.tasks.speech_data import OFTEN, _units, split

soundfile = pytest.importorskip("soundfile")
pytestmark = pytest.mark.usefixtures("_one_thread")


def frames(count, seed, size=4):
    return np.random.default_rng(seed).normal(3.0, 2.0, (count, size)).astype(np.float32)


# -- what is held out


def recordings(counts):
    return [Recording(Path(f"{speaker}-{i}.wav"), "a", speaker) for speaker, n in counts.items() for i in range(n)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.1, 0.2, 0.4])
def test_speakers_are_held_out_whole(share, seed):
    items = recordings({f"s{i}": 5 + i % 7 for i in range(30)})
    train, held = split(items, share, seed)
    assert sorted(train + held) == sorted(items) and train == [item for item in items if item in train]
    speakers = {item.speaker for item in train}, {item.speaker for item in held}
    assert not speakers[0] & speakers[1] and all(speakers)
    assert abs(len(held) / len(items) - share) < 0.02
    assert split(items, share, seed) == (train, held)


def test_other_seeds_hold_out_other_speakers():
    items = recordings({f"s{i}": 5 for i in range(30)})
    assert len({tuple(split(items, 0.1, seed)[1]) for seed in range(5)}) > 3


def test_a_speaker_of_most_recordings_is_not_held_out():
    for seed in range(10):
        assert {item.speaker for item in split(recordings({"a": 50, "b": 5, "c": 5}), 0.1, seed)[1]} <= {"b", "c"}


@pytest.mark.parametrize("counts", [{None: 20}, {"a": 20}])
def test_where_nobody_is_known_utterances_are_held_out(counts):
    assert split(recordings(counts), 0.1, 0) is None


@pytest.mark.parametrize("counts", [{"a": 10, "b": 10}, {"a": 10, "b": 10, None: 10}])
def test_where_too_few_are_known_it_is_said(counts):
    with pytest.warns(UserWarning, match="too few speakers are known to hold some out: utterances of all are held out"):
        assert split(recordings(counts), 0.1, 0) is None


# -- normalisation


def test_statistics_are_those_of_all_frames():
    parts = [frames(n, n) for n in (5, 1, 40)]
    whole = np.concatenate(parts).astype(np.float64)
    found = Statistics.of(parts)
    assert np.allclose(found.mean, whole.mean(0), atol=1e-6) and np.allclose(found.deviation, whole.std(0), atol=1e-6)
    assert np.allclose(found.normalised(parts[2]), (parts[2] - whole.mean(0)) / whole.std(0), atol=1e-5)


def test_what_does_not_change_is_not_made_large():
    quiet = np.full((50, 4), -15.9, dtype=np.float32)
    assert np.abs(Statistics.of([quiet]).normalised(quiet + 0.05)).max() < 0.6
    assert Statistics.of([quiet]).deviation.tolist() == pytest.approx([LEAST] * 4)


def test_a_stream_is_normalised_by_what_it_heard():
    """Frame by frame: the mean and the deviation of a hundred frames of training, and of all up to this one."""
    prior, heard = Statistics.of([frames(500, 1)]), frames(60, 2) + 5
    made = np.random.default_rng(0).normal(0, 1, (PRIOR, 4))
    made = prior.mean + prior.deviation * (made - made.mean(0)) / made.std(0)  # frames of just these statistics
    found = Running(prior).normalised(heard)
    for t in range(len(heard)):
        so_far = np.concatenate([made, heard[: t + 1]])
        assert np.allclose(found[t], (heard[t] - so_far.mean(0)) / so_far.std(0), atol=1e-4)


@pytest.mark.parametrize("sizes", [(1,) * 200, (7, 0, 193), (150, 50)])
def test_a_stream_in_pieces_is_normalised_as_in_one(sizes):
    prior, heard = Statistics.of([frames(500, 1)]), frames(200, 2)
    running, at, found = Running(prior), 0, []
    for size in sizes:
        found.append(running.normalised(heard[at : at + size]))
        at += size
    assert np.allclose(np.concatenate(found), Running(prior).normalised(heard), atol=1e-5)


def test_a_stream_forgets():
    """What is far back no longer counts: another loudness is taken over."""
    prior = Statistics.of([frames(500, 1)])
    running = Running(prior)
    running.normalised(frames(HEARD, 2))
    for i in range(60):
        last = running.normalised(frames(HEARD // 10, 3 + i) + 20)
    assert np.abs(last.mean(0)).max() < 0.3 and running.count <= HEARD


# -- utterances in a file


@pytest.fixture
def corpus(tmp_path):
    """Five utterances at two speeds, of two speakers and one who is not known."""
    writer = Writer(tmp_path / "train.f16")
    made = [[frames(n, n), frames(n - 1, 100 + n)] for n in (6, 9, 4, 7, 5)]
    for variants, speaker in zip(made, ("a", "b", "a", None, "b"), strict=True):
        writer.add(variants, speaker)
    return made, writer.close(), tmp_path / "train.f16"


def test_what_is_written_is_read(corpus):
    made, written, path = corpus
    for found in (written, Corpus.open(path)):
        assert len(found) == 5 and found.speeds == 2 and found.lengths().tolist() == [6, 9, 4, 7, 5]
        assert found.speakers.tolist() == [0, 1, 0, -1, 1]
        for i, variants in enumerate(made):
            for speed, one in enumerate(variants):
                assert np.array_equal(found.features(i, speed), one.astype(np.float16).astype(np.float32))


def test_a_speaker_has_the_statistics_of_all_that_was_said_as_it_was_said(corpus):
    made, written, _ = corpus
    for number, of in ((0, (0, 2)), (1, (1, 4)), (-1, range(5))):
        wanted = Statistics.of([made[i][0] for i in of])
        assert np.allclose(written.statistics[number].mean, wanted.mean, atol=1e-5)
        assert np.allclose(written.statistics[number].deviation, wanted.deviation, atol=1e-5)


def test_utterances_are_normalised_by_their_speaker_or_by_themselves(corpus):
    made, written, _ = corpus
    units = Sequences.of([[1], [2, 3], [], [1], [1]])
    held = Utterances(written, units, list("vwxyz"), False, None)
    assert held.lengths.tolist() == [[6, 1], [9, 2], [4, 0], [7, 1], [5, 1]]
    of_a, alone = Statistics.of([made[0][0], made[2][0]]), Statistics.of([made[3][0]])
    assert np.allclose(held.normalised(0), of_a.normalised(made[0][0]), atol=0.01)
    assert np.allclose(held.normalised(3), alone.normalised(made[3][0]), atol=0.01), "of one who is not known"
    assert np.allclose(held.normalised(0, 0, False).mean(0), 0.0, atol=1e-3)
    streamed = Utterances(written, units, list("vwxyz"), False, of_a)
    assert np.allclose(streamed.normalised(1), Running(of_a).normalised(made[1][0]), atol=0.01)
    batch = held.batch([1, 0])
    assert batch.features.shape == (9, 2, 4) and batch.lengths.tolist() == [9, 6] and not batch.features[6:, 1].any()
    assert batch.units.tolist() == [[2, 1], [3, 0]] and batch.unit_lengths.tolist() == [2, 1]
    assert held.item(1).text == "w" and np.array_equal(held.item(1).features, held.normalised(1))


def test_training_draws_speeds_and_whose_statistics(corpus):
    _, written, _ = corpus
    train = Utterances(written, Sequences.of([[1]] * 5), [""] * 5, True, None)
    torch.manual_seed(0)
    drawn = Counter()
    for _ in range(200):
        batch = train.batch([0])
        length = int(batch.lengths[0])
        drawn[length, bool(batch.features[:length, 0].mean(0).abs().max() < 0.01)] += 1
    assert {length for length, _ in drawn} == {6, 5}
    assert all(30 < drawn[6, own] < 70 for own in (True, False)), drawn


def test_nothing_known_to_be_said_is_of_no_length():
    batch = side_by_side([frames(3, 1), frames(1, 2)])
    assert batch.unit_lengths.tolist() == [0, 0] and batch.lengths.tolist() == [3, 1]


# -- frames to a step


def noise(folder, texts, seconds=0.5):
    """Recordings of noise of half a second, 48 frames, and a manifest of what is said to be said in them."""
    rows = []
    for i, text in enumerate(texts):
        values = np.random.default_rng(i).uniform(-0.1, 0.1, round(16000 * seconds))
        soundfile.write(folder / f"{i}.wav", values, 16000)
        rows.append(json.dumps({"audio": f"{i}.wav", "text": text}) + "\n")
    (folder / "m.jsonl").write_text("".join(rows))
    return folder / "m.jsonl"


@pytest.mark.parametrize(
    ("count", "speed", "stride"),
    [(8, 0.0, 4), (9, 0.0, 3), (11, 0.0, 3), (12, 0.0, 2), (16, 0.0, 2), (17, 0.0, 1), (7, 0.1, 4), (8, 0.1, 3)],
)
def test_the_data_say_how_many_frames_make_a_step(tmp_path, count, speed, stride):
    """Units take at most 0.7 of the steps, also where the recording is played faster; a repeated one takes a step more."""
    text = "".join("ab"[i % 2] for i in range(count))
    path = noise(tmp_path, [text] * 12)
    model = tt.train(
        "transcribe", [path], out=tmp_path / "run", steps=1, progress=False,
        model={"hidden_size": 4, "layers": 1, "attention": 0.0}, data={"speed": speed},
    )  # fmt: skip
    assert model.config.model.subsampling == stride


def test_what_is_too_short_is_left_out_counted_and_said(tmp_path):
    """Of 48 frames 12 steps: 12 units fit, 13 do not, nor 8 of which 7 are of one kind, with blanks between these."""
    path = noise(tmp_path, [*["ab" * 6] * 12, "ab" * 6 + "a", "a" * 8, "a" * 7])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = tt.train(
            "transcribe", [path], valid=path, out=tmp_path / "run", steps=1, progress=False,
            model={"hidden_size": 4, "layers": 1, "attention": 0.0, "subsampling": 4}, data={"speed": 0.0},
        )  # fmt: skip
    words = [str(w.message).replace(f"{tmp_path}/", "") for w in said]
    assert words.count("m.jsonl:13: 12.wav: is too short for what is said in it; 2 such are left out") == 2, words
    assert model.evaluate(path)["utterances"] == 15, "of a score nothing is left out"


def test_words_are_learned_whole_where_they_are_few_and_alone():
    often = ["yes", "no"] * OFTEN
    assert _units(often) == "words"
    for other in ("never", "yes no", ""):  # one that is rare, of several words, of none
        assert _units([*often, other]) == "marked"
    assert _units(often[:-1]) == "marked"
