"""Speech as it comes: sessions, pipes and long recordings give the words of the whole, however the samples are cut."""

from __future__ import annotations

import io
import json
import os
import random
import sys
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import throughtime as tt
from throughtime.cli import main
from throughtime.decode.ctc import best_path
from throughtime.errors import UserError
from throughtime.tasks import speech_stream
from throughtime.tasks.audio import Resampler, samples
from throughtime.tasks.logmel import features
from throughtime.tasks.pauses import spoken
from throughtime.tasks.speech import Running
from throughtime.tasks.speech_data import prior_of
from throughtime.tasks.speech_stream import Partial
from throughtime.tasks.transcripts import Transcript

soundfile = pytest.importorskip("soundfile")
DATA = Path(os.environ.get("THROUGHTIME_DATA", Path(__file__).parents[2] / "shared" / "data")) / "speech" / "fsdd"
pytestmark = [
    pytest.mark.usefixtures("_one_thread"),
    pytest.mark.skipif(not DATA.exists(), reason=f"no {DATA}; THROUGHTIME_DATA names the data"),
]
RATE = 16000


def digits(part, count):
    rows = [json.loads(line) for line in (DATA / f"{part}.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["speaker"] in ("george", "nicolas", "theo")]
    return [row | {"audio": str(DATA / row["audio"])} for row in random.Random(2).sample(rows, count)]


def joined(rows, pause, seed=0):
    """Digits one after the other, some quiet before each and after the last: the samples, and when each is said, in seconds."""
    rng, parts, times = np.random.default_rng(seed), [], []
    for row in rows:
        parts.append(rng.normal(0, 1e-4, round(pause * RATE * rng.uniform(1, 1.5))).astype(np.float32))
        begin = sum(map(len, parts)) / RATE
        parts.append(samples(row["audio"]))
        times.append((begin, begin + len(parts[-1]) / RATE))
    return np.concatenate([*parts, rng.normal(0, 1e-4, RATE * 2).astype(np.float32)]), times


@pytest.fixture(scope="module", params=["from both ends", "streaming"])
def model(request, tmp_path_factory, _one_thread):
    folder = tmp_path_factory.mktemp("stream")
    files, rng = {}, np.random.default_rng(1)
    for part, count in (("train", 500), ("dev", 40)):
        files[part], rows = folder / f"{part}.jsonl", digits(part, count)
        for i, row in enumerate(rows):
            quiet = [rng.normal(0, 1e-4, n) for n in rng.integers(500, 4000, 2)]
            soundfile.write(
                folder / f"{part}{i}.wav", np.concatenate([quiet[0], samples(row["audio"]), quiet[1]]), RATE
            )
            row["audio"] = f"{part}{i}.wav"
        files[part].write_text("".join(json.dumps(row) + "\n" for row in rows))
    streaming = request.param == "streaming"
    return tt.train(
        "transcribe",
        [files["train"]],
        valid=files["dev"],
        out=folder / "run",
        steps=600 if streaming else 300,
        model={
            **{"hidden_size": 64, "layers": 1, "dropout": 0.1},
            **{"units": "marked", "subsampling": 2, "streaming": streaming},
        },
        data={"speed": 0, "masks": 0},
        training={"learning_rate": 0.004, "warmup": 30, "evaluations": 4},
        progress=False,
    )


def fed(session, given, size):
    """All events of samples that come in pieces of a size."""
    events = [event for at in range(0, len(given), size) for event in session.feed(given[at : at + size])]
    return events + session.finish()


def finals(events):
    return [event for event in events if isinstance(event, Transcript)]


def call(*arguments, capsys):
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        code = main([str(a) for a in arguments])
    return code, *capsys.readouterr()


@pytest.fixture
def pipe(monkeypatch):
    def give(given):
        raw = (given * 32768).clip(-32768, 32767).astype("<i2").tobytes()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8"))

    return give


@pytest.mark.parametrize("decoding", ["greedy", "beam", "words"])
def test_the_pieces_do_not_matter(model, decoding, tmp_path):
    """Utterances, words, times and confidences are the same to the bit, and those that a file of the samples gives."""
    given, _ = joined(digits("dev", 12), 0.6)
    whole = finals(fed(model.session(decoding=decoding), given, len(given)))
    for size in (97, 640, 16001):
        assert finals(fed(model.session(decoding=decoding), given, size)) == whole
    said = [word for one in whole for word in one.words]
    assert len(said) >= 4
    soundfile.write(tmp_path / "all.wav", given, RATE, subtype="FLOAT")
    (answer,) = model.predict(tmp_path / "all.wav", decoding=decoding)
    assert answer["text"] == " ".join(word.word for word in said)
    assert [word["start"] for word in answer["words"]] == [round(word.start, 3) for word in said]
    assert (answer["start"], answer["end"]) == (0.0, pytest.approx(len(given) / RATE, abs=0.03))


def test_words_are_where_they_are_said(model):
    """Joined recordings give the words of the single ones, each in its time, and none between them."""
    given, times = joined(digits("dev", 20), 1.2)
    found = finals(fed(model.session(), given, 4000))
    words = [word for one in found for word in one.words]
    alike = inside = 0
    for begin, end in times:
        alone = given[round((begin - 0.25) * RATE) : round((end + 0.25) * RATE)]
        wanted = [word.word for one in finals(fed(model.session(), alone, 4000)) for word in one.words]
        here = [word for word in words if begin - 0.25 < (word.start + word.end) / 2 < end + 0.25]
        inside += len(here)
        alike += [word.word for word in here] == wanted
    assert alike >= 10 and inside >= 8 and len(words) - inside <= 1
    assert all(0 <= word.start < word.end and 0 < word.confidence <= 1 for word in words)
    assert all(one.start == one.words[0].start and one.end == one.words[-1].end for one in found)
    assert [one.start for one in found] == sorted(one.start for one in found)


def test_a_final_comes_when_a_pause_has(model):
    given, times = joined(digits("dev", 3), 1.5)
    session, came = model.session(), []
    for at in range(0, len(given), 800):
        came += [(at + 800) / RATE for event in session.feed(given[at : at + 800]) if isinstance(event, Transcript)]
    assert len(came) >= 2 and not finals(session.finish())
    assert all(min(time - end for _, end in times if time > end) < 1.3 for time in came)


def test_partial_text_comes_while_it_is_said(model):
    """From a network of one direction; each is another than the last one, and it is taken back once it is final, with what was
    heard only at the end."""
    given, _ = joined(digits("dev", 6), 1.2)
    events = fed(model.session(decoding="greedy"), given, 640)
    partials = [event for event in events if isinstance(event, Partial)]
    if not model.config.model.streaming:
        assert not partials
        return
    texts = [one.text for one in partials]
    assert len(texts) > 6 and texts[-1] == ""
    assert all(one != other for one, other in zip(["", *texts], texts, strict=False))
    assert [one.time for one in partials] == sorted(one.time for one in partials)
    for before, event in pairwise(events):
        if isinstance(event, Transcript) and isinstance(before, Partial):
            assert before.text and event.text.startswith(before.text)


def test_a_stream_computes_what_the_whole_network_does(model):
    given, _ = joined(digits("dev", 1), 0.6)
    if not model.config.model.streaming:
        pytest.skip("it reads whole utterances")
    whole = features(given)
    ((first, end),) = spoken(whole)
    (log_p,) = model.log_probabilities([Running(prior_of(model.run)).normalised(whole[first:end])])
    found = finals(fed(model.session(decoding="greedy"), given, 1600))
    assert " ".join(one.text for one in found) == model.units.text([span.unit for span in best_path(log_p)])


@pytest.mark.parametrize("level", [0.0, 1e-4, 0.05])
def test_silence_and_noise_say_nothing(model, level, capsys, tmp_path):
    given = np.random.default_rng(3).normal(0, level, 6 * RATE).astype(np.float32)
    assert finals(fed(model.session(), given, 1000)) == []
    soundfile.write(tmp_path / "quiet.wav", given, RATE)
    assert call("predict", model.run.folder, tmp_path / "quiet.wav", capsys=capsys)[:2] == (0, "\n"), (
        "its place is kept"
    )


def test_who_speaks_without_a_pause_is_cut(model, monkeypatch):
    """What is held stays bounded, what is said is given in time, and nothing is given twice."""
    monkeypatch.setattr(speech_stream, "LONGEST", 600)
    monkeypatch.setattr(speech_stream, "HELD", 6.0)
    given, _ = joined(digits("dev", 40), 0.02)
    assert len(spoken(features(given))) == 1
    session, found, held = model.session(decoding="beam"), [], 0
    for at in range(0, len(given), 1600):
        for one in finals(session.feed(given[at : at + 1600])):
            assert (at + 1600) / RATE - one.start < 8
            found.append(one)
        ear = session._ear
        held = max(held, len(ear._rows) if model.config.model.streaming else sum(map(len, ear._parts)))
    found += finals(session.finish())
    assert held <= 600
    assert len(found) >= 2
    words = [word for one in found for word in one.words]
    assert len(words) >= 4
    assert [word.start for word in words] == sorted(word.start for word in words)
    assert all(one.end <= other.start + 0.05 for one, other in pairwise(words))


def test_samples_of_another_rate(model):
    given, _ = joined(digits("dev", 6), 0.8)
    slow = Resampler(RATE, 8000).push(given, last=True)
    again = Resampler(8000, RATE).push(slow, last=True)
    wanted = finals(fed(model.session(), again, 1600))
    assert wanted and finals(fed(model.session(rate=8000), slow, 333)) == wanted


def test_what_is_no_stream_is_refused(model):
    session = model.session()
    for wrong, why in (
        (np.zeros(10, np.int16), "divide 16-bit ones by 32768"),
        (np.zeros((10, 2)), r"of one channel; got \[10, 2\]"),
        (np.array([0.0, np.nan]), "not finite"),
        (np.array([1000.0]), "far beyond"),
    ):
        with pytest.raises(UserError, match=why):
            session.feed(wrong)
    assert session.feed(np.zeros(0)) == [] and session.finish() == []
    with pytest.raises(UserError, match="the stream has ended; make another session"):
        session.feed(np.zeros(10))
    with pytest.raises(UserError, match="4,000 Hz; speech takes 8,000 Hz or more"):
        model.session(rate=4000)
    with pytest.raises(UserError, match="decoding: got 'best'"):
        model.session(decoding="best")


def test_a_pipe(model, pipe, capsys, tmp_path):
    """Finals on standard output, a line each, partial texts on standard error."""
    given, _ = joined(digits("dev", 8), 1.2)
    given = (given * 32768).round().clip(-32768, 32767).astype(np.float32) / 32768
    wanted = [one.text for one in finals(fed(model.session(), given, len(given)))]
    assert len(wanted) >= 4
    pipe(given)
    code, out, err = call("predict", model.run.folder, "-", "--rate", RATE, capsys=capsys)
    assert (code, out.splitlines()) == (0, wanted)
    assert bool(err) == model.config.model.streaming
    pipe(given)
    _, out, _ = call("predict", model.run.folder, "-", "--rate", RATE, "--json", capsys=capsys)
    assert [json.loads(line)["text"] for line in out.splitlines()] == wanted
    pipe(given)
    _, out, _ = call("predict", model.run.folder, "-", "--rate", RATE, "--format", "srt", capsys=capsys)
    assert out.count(" --> ") >= len(wanted)
    soundfile.write(tmp_path / "all.wav", given, RATE)
    assert call("predict", model.run.folder, tmp_path / "all.wav", "--format", "srt", capsys=capsys)[1] == out


def test_several_files_are_answered_in_order(model, tmp_path, capsys):
    rows = digits("dev", 4)
    names = [row["audio"] for row in rows]
    wanted = [next(model.predict(name))["text"] for name in names]
    assert call("predict", model.run.folder, *names, capsys=capsys)[:2] == (0, "".join(f"{text}\n" for text in wanted))
    assert [one["text"] for one in model.predict([Path(name) for name in names])] == wanted
    assert [one["text"] for one in model.predict(names)] == wanted
    table = tmp_path / "some.jsonl"
    table.write_text("".join(json.dumps({"audio": name}) + "\n" for name in names[:2]))
    out = call("predict", model.run.folder, names[3], table, "--format", "ctm", capsys=capsys)[1]
    stems = [line.split()[0] for line in out.splitlines()]
    order = [Path(name).stem for name in (names[3], *names[:2])]
    assert list(dict.fromkeys(stems)) == [stem for stem in order if stem in stems]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["A", "B", "--format", "srt"], "captions are of one recording, and there are 2"),
        (["A", "no.wav"], "no.wav: cannot read it"),
        (["-", "-", "--rate", "16000"], "stands there twice"),
        (["A", "--format", "srt", "--json"], "got 'srt' and --json; leave one of them out"),
        (["-"], "give --rate"),
        (["A", "--words", "no.txt"], "no.txt: cannot read it"),
    ],
)
def test_what_cannot_be_answered_is_refused_before_work_begins(model, arguments, why, capsys):
    named = {"A": digits("dev", 2)[0]["audio"], "B": digits("dev", 2)[1]["audio"]}
    code, out, err = call("predict", model.run.folder, *(named.get(a, a) for a in arguments), capsys=capsys)
    assert (code, out) == (2, "") and why in err and err.count("\n") == 1


def test_a_live_line_is_written_over(model, pipe, capsys, monkeypatch):
    if not model.config.model.streaming:
        pytest.skip("it has no partial texts")
    pipe(joined(digits("dev", 3), 1.2)[0])
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    capsys.readouterr()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert main(["predict", str(model.run.folder), "-", "--rate", str(RATE)]) == 0
    shown = terminal.getvalue()
    assert "\r\x1b[K" in shown and "\n" not in shown and shown.endswith("\r\x1b[K")


def test_sessions_do_not_share_a_stream(model):
    given, _ = joined(digits("dev", 6), 0.6)
    alone = finals(fed(model.session(), given, 3200))
    one, other, found = model.session(), model.session(), []
    for at in range(0, len(given), 3200):
        found += one.feed(given[at : at + 3200])
        other.feed(given[max(0, at - 3200) : at][::-1])
    assert finals(found + one.finish()) == alone
    assert torch.is_grad_enabled()
