"""Transcribe: recordings and their words to a recogniser that can be scored, asked, looked into and gone on with."""

from __future__ import annotations

import json
import os
import random
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import throughtime as tt
from throughtime.cli import main
from throughtime.cli.output import write_values
from throughtime.errors import UserError
from throughtime.tasks.audio import samples
from throughtime.tasks.decoding import Decoding
from throughtime.tasks.logmel import LogMel, bins_below, features
from throughtime.tasks.pauses import spoken
from throughtime.tasks.speech_data import bandwidth_of, bins_heard, without_quiet
from throughtime.training.loop import Trainer

soundfile = pytest.importorskip("soundfile")
jiwer = pytest.importorskip("jiwer")
DATA = Path(os.environ.get("THROUGHTIME_DATA", Path(__file__).parents[2] / "shared" / "data")) / "speech" / "fsdd"
pytestmark = [
    pytest.mark.usefixtures("_one_thread"),
    pytest.mark.skipif(not DATA.exists(), reason=f"no {DATA}; THROUGHTIME_DATA names the data"),
]
TINY = ("--steps", 1, "--model.hidden-size", 4, "--model.layers", 1, "--model.attention", 0, "--data.speed", 0)


def call(*arguments, capsys):
    """A command line within this process: exit code, standard output, standard error."""
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        code = main([str(a) for a in arguments])
    return code, *capsys.readouterr()


def told(*arguments, capsys):
    """What a command that works writes."""
    code, out, err = call(*arguments, capsys=capsys)
    assert code == 0, err
    return out


def listed(part, count):
    """Digits of three speakers, and their manifest with whole paths."""
    rows = [json.loads(line) for line in (DATA / f"{part}.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["speaker"] in ("george", "nicolas", "theo")]
    return [row | {"audio": str(DATA / row["audio"])} for row in random.Random(1).sample(rows, count)]


def manifest(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    return {part: manifest(folder / f"{part}.jsonl", listed(part, n)) for part, n in (("train", 600), ("dev", 90))}


@pytest.fixture(scope="module")
def model(files, _one_thread):
    return tt.train(
        "transcribe",
        [files["train"]],
        valid=files["dev"],
        out=files["train"].parent / "run",
        steps=300,
        model={"hidden_size": 64, "layers": 1, "dropout": 0.1, "subsampling": 2, "units": "marked"},
        data={"speed": 0, "masks": 0},
        training={"batch_size": 16, "learning_rate": 0.004, "warmup": 30, "evaluations": 4},
        progress=False,
    )


# -- what is heard


@pytest.mark.parametrize(
    ("rates", "hertz"),
    [([8000] * 9 + [16000], 4000), ([8000] + [44100] * 19, 8000), ([11025] * 3, 5512), ([16000], 8000)],
)
def test_a_network_hears_what_most_recordings_have(rates, hertz):
    assert bandwidth_of(rates) == hertz


def test_filters_end_where_they_are_said_to():
    filters = LogMel().filters()
    for hertz in (1000, 4000, 5512, 7999):
        lines = (np.arange(len(filters)) * 16000 / 512 > hertz) & (filters > 0).any(1)
        inside = [bin for bin in range(80) if not filters[lines, bin].any()]
        # a filter that ends between two lines of the spectrum has none beyond the edge
        assert bins_below(hertz) in (len(inside), len(inside) - 1)
    assert bins_below(8000) == bins_heard(None) == 80  # a run of an earlier version has no bandwidth


def test_beyond_half_the_rate_of_its_recordings_a_network_hears_nothing(model, files):
    assert model.config.model.bandwidth == 4000
    bins = model.network.sizes.heard
    assert bins == bins_below(4000) < 80
    heard, lengths = torch.randn(40, 2, 80), torch.tensor([40, 31])
    other = heard.clone()
    other[..., bins:] += 1
    right, _ = model.network.log_probabilities(heard, lengths)
    assert torch.equal(model.network.log_probabilities(other, lengths)[0], right)
    other[..., bins - 1] += 1
    assert not torch.equal(model.network.log_probabilities(other, lengths)[0], right)


def test_a_bandwidth_is_taken_as_asked(files, tmp_path, capsys):
    call(
        "train", "transcribe", files["dev"], *TINY, "--model.bandwidth", 8000, "--out", tmp_path / "run", capsys=capsys
    )
    assert tt.load(tmp_path / "run").network.sizes.heard == 80
    code, _, err = call(
        "train", "transcribe", files["dev"], *TINY, "--model.bandwidth", 500, "--out", tmp_path / "no", capsys=capsys
    )
    assert code and "bandwidth" in err and "1000" in err


# -- answers and scores


def test_it_hears_digits(model, files):
    found = model.evaluate(files["dev"])
    assert found["wer"] < 30 and found["decoding"] == "words"
    # as the training said, but that it reads features of fewer digits
    assert found["wer"] == pytest.approx(model.run.scores()["scores"]["wer"], abs=2.5)
    alone = [row | {"speaker": None} for row in listed("dev", 90)]
    assert model.evaluate(manifest(files["dev"].parent / "alone.jsonl", alone))["wer"] < 40


@pytest.mark.parametrize("decoding", ["greedy", "beam", "words"])
def test_scores_are_those_of_jiwer(model, files, decoding, capsys):
    found = json.loads(
        told("evaluate", model.run.folder, files["dev"], "--decoding", decoding, "--json", capsys=capsys)
    )
    rows = [json.loads(line) for line in files["dev"].read_text().splitlines()]
    heard = [answer["text"] for answer in model.predict(files["dev"], 90, decoding=decoding)]

    def scores(pairs):
        said, got = [list(side) for side in zip(*pairs, strict=True)]
        words = jiwer.process_words(said, got)
        kinds = {name: getattr(words, name) for name in ("substitutions", "deletions", "insertions")}
        rates = {"cer": pytest.approx(100 * jiwer.cer(said, got)), "wer": pytest.approx(100 * words.wer)}
        return {"utterances": len(said), "words": len(said), **rates, **kinds}

    pairs = [(row["text"], text) for row, text in zip(rows, heard, strict=True)]
    assert {name: found[name] for name in scores(pairs)} == scores(pairs)
    assert found["speakers"] == {
        name: scores([pair for pair, row in zip(pairs, rows, strict=True) if row["speaker"] == name])
        for name in ("george", "nicolas", "theo")
    }
    assert sum(sum(row.values()) for row in found["confusion"].values()) == 90
    assert found["confusion"]["two"]["two"] == pairs.count(("two", "two"))
    assert found["task"] == "transcribe" and found["decoding"] == decoding and 0 < found["real_time_factor"] < 5


def test_the_worst_stand_side_by_side(model, files, capsys):
    found = model.evaluate(files["dev"], worst=3, decoding="greedy")["worst"]
    assert [row["said"] != row["heard"] for row in found.values()] == [True] * 3
    assert model.evaluate(files["dev"], worst=0)["worst"] == {}
    out = told("evaluate", model.run.folder, files["dev"], "--worst", 1, "--decoding", "greedy", capsys=capsys)
    place, row = next(iter(found.items()))
    assert f"\n\nworst\n\n{place}\nsaid   {row['said']}\nheard  {row['heard']}\n" in out
    name, line = place.rsplit(":", 1)
    said = " ".join(word for word in row["said"].split() if word != "***")  # which stands where more was heard
    assert json.loads(Path(name).read_text().splitlines()[int(line) - 1])["text"] == said
    assert "\nspeakers  utterances  words" in out and "\nconfusion  taken for" in out


def test_confusions_of_many_words_are_pairs(capsys):
    names = [f"w{i}" for i in range(14)]
    table = {a: {b: 2 * (a == b) for b in [*names, "***"]} for a in names}
    table["w3"]["***"] = 5
    write_values({"confusion": table}, False)
    assert capsys.readouterr().out == "\nconfusion  taken for  times\nw3               ***      5\n"


def test_python_and_the_command_line_hear_the_same(model, files, capsys):
    folder = model.run.folder
    answers = list(tt.load(folder, "transcribe").predict(files["dev"]))
    assert told("predict", folder, files["dev"], capsys=capsys).splitlines() == [a["text"] for a in answers]
    out = told("predict", folder, files["dev"], "--json", capsys=capsys)
    assert [json.loads(line) for line in out.splitlines()] == answers
    rows = [json.loads(line) for line in files["dev"].read_text().splitlines()]
    assert [a["audio"] for a in answers] == [row["audio"] for row in rows]
    for answer, row in zip(answers, rows, strict=True):
        assert " ".join(word["word"] for word in answer["words"]) == answer["text"]
        times = [answer["start"], *(word[side] for word in answer["words"] for side in ("start", "end")), answer["end"]]
        assert times == sorted(times) and 0 <= row["seconds"] - answer["end"] < 0.06
        assert all(0 <= word["confidence"] <= 1 for word in answer["words"])


def test_one_recording_is_heard_by_itself(model, tmp_path, capsys):
    """By its name, in Python too, and as part of a file: there in the time of the file."""
    (row,) = listed("dev", 1)
    x, rate = soundfile.read(row["audio"])
    both = tmp_path / "both.wav"
    soundfile.write(both, np.concatenate([np.zeros(rate), x]), rate)
    (alone,) = model.predict(row["audio"])
    assert [alone] == list(model.predict(Path(row["audio"]))) == list(model.predict([row["audio"]]))
    assert told("predict", model.run.folder, row["audio"], capsys=capsys) == alone["text"] + "\n"
    part = manifest(tmp_path / "part.jsonl", [{"audio": "both.wav", "offset": 1.0}])
    (later,) = model.predict(part)
    assert later["text"] == alone["text"] and (later["start"], later["end"]) == (1.0, pytest.approx(1 + alone["end"]))
    for one, other in zip(alone["words"], later["words"], strict=True):
        assert (other["start"], other["end"]) == pytest.approx((1 + one["start"], 1 + one["end"]), abs=0.041)
    with pytest.raises(UserError, match=r"no\.wav: there is no such recording; name an audio file"):
        list(model.predict("no.wav"))


def test_a_folder_is_heard_as_its_manifest(model, tmp_path):
    """What is said beside the recordings does not tell what is heard."""
    rows = listed("dev", 5)
    for i, row in enumerate(rows):
        x, rate = soundfile.read(row["audio"])
        soundfile.write(tmp_path / f"{i}.wav", x, rate, subtype="FLOAT")
        (tmp_path / f"{i}.txt").write_text("nothing of the kind\n")
    named = manifest(tmp_path / "m.jsonl", [{"audio": f"{i}.wav"} for i in range(5)])
    wanted = [answer["text"] for answer in model.predict(named)]
    named.unlink()
    assert [answer["text"] for answer in model.predict(tmp_path)] == wanted


def test_silence_says_nothing_of_a_word_that_is_not_in_it(model, tmp_path):
    soundfile.write(tmp_path / "short.wav", np.zeros(100), 16000)
    (answer,) = model.predict(str(tmp_path / "short.wav"))
    assert answer["text"] == "" and answer["words"] == []


def test_recordings_are_normalised_by_who_speaks(model):
    """Those of one speaker together, others by themselves."""
    recordings = [model.task.item(row["audio"])._replace(speaker=row["speaker"]) for row in listed("dev", 12)]
    recordings += [recordings[0]._replace(speaker=None)]
    raw = [features(samples(one)) for one in recordings]
    speech = [features(without_quiet(samples(one))) for one in recordings]
    for one, found in zip(recordings, model.normalised(recordings), strict=True):
        alike = [x for x, other in zip(speech, recordings, strict=True) if other.speaker == one.speaker]
        whole = np.concatenate(alike)
        assert (len(alike) == 1) == (one.speaker is None)
        wanted = (raw[recordings.index(one)] - whole.mean(0, dtype=np.float64)) / np.maximum(
            whole.std(0, dtype=np.float64), 0.1
        )
        assert np.allclose(found, wanted, atol=1e-3)


# -- ways of decoding


def log_probabilities(model, files):
    """Of what is spoken in the recordings: none of these has a pause."""
    recordings = model.task.read(model.config, [files["dev"]])
    places = [spoken(features(samples(one))) for one in recordings]
    assert {len(place) for place in places} == {1}
    parts = zip(model.normalised(recordings), places, strict=True)
    return model.log_probabilities([part[first:end] for part, ((first, end),) in parts])


def test_greedy_is_the_likeliest_unit_of_each_step(model, files):
    names, wanted = model.units.names, []
    for log_p in log_probabilities(model, files):
        path = log_p.argmax(-1)
        units = [names[u] for u, before in zip(path, [0, *path], strict=False) if u and u != before]
        wanted.append("".join(units).replace("▁", " ").strip())
    assert [answer["text"] for answer in model.predict(files["dev"], 90, decoding="greedy")] == wanted


def test_a_beam_finds_what_is_likelier(model, files):
    """And one that is wider, no less likely."""
    from throughtime.decode.alignment import log_probability

    parts = log_probabilities(model, files)
    greedy, beam = ([Decoding(model.units, kind).found(p) for p in parts] for kind in ("greedy", "beam"))
    gained = [log_probability(p, b) - log_probability(p, a) for p, a, b in zip(parts, greedy, beam, strict=True)]
    assert greedy != beam and min(gained) > -1e-6 and max(gained) > 0.1
    narrow, wide = (list(model.predict(files["dev"], decoding="beam", beam=n)) for n in (1, 16))
    assert [a["text"] for a in narrow] != [a["text"] for a in wide]


def test_words_are_known_ones(model, files):
    known = {row["text"] for row in listed("train", 600)}
    heard = {word for a in model.predict(files["dev"], decoding="words") for word in a["text"].split()}
    assert heard == known
    assert not {w for a in model.predict(files["dev"], decoding="greedy") for w in a["text"].split()} <= known


def test_a_rate_is_of_raw_samples_alone(model, files):
    with pytest.raises(UserError, match="rate: only raw samples from standard input"):
        model.predict(files["dev"], rate=8000)


def test_a_list_of_words(model, files, tmp_path, capsys):
    """New ones may be among them; what cannot be spelled is named, with what is missing."""
    words = tmp_path / "words.txt"
    words.write_text("ten\nseven\nlow\n\nfour\nten\n", encoding="utf-8")
    code, out, err = call("predict", model.run.folder, files["dev"], "--words", words, capsys=capsys)
    assert code == 0
    assert f"{words}: the model has no units for 'low' ('▁l'); they are never written\n" in err.replace("l', ", "l' ")
    heard = {word for line in out.splitlines() for word in line.split()}
    assert heard <= {"ten", "seven", "four"} and {"seven", "four"} <= heard
    words.write_text("ten\n", encoding="utf-8")
    assert {a["text"] for a in model.predict(files["dev"], words=str(words))} <= {"", "ten", "ten ten"}
    new = [row["audio"] for row in listed("dev", 90) if row["text"] == "two"]
    words.write_text("two\nten\n")
    heard = {word for one in new for a in model.predict(one, words=str(words)) for word in a["text"].split()}
    assert heard and heard <= {"two", "ten"}


@pytest.mark.parametrize(
    ("content", "more", "said"),
    [
        (None, (), "words.txt: cannot read it: No such file or directory"),
        ("", (), "words.txt: holds no word that the model can write; give a word a line"),
        ("low\n", (), "words.txt: holds no word that the model can write; give a word a line"),
        ("six\ntwo three\n", (), "words.txt:2: 'two three' is several words; give each a line of its own"),
        ("six\n", ("--decoding", "greedy"), "words: only decoding words takes it, not greedy; leave one of them out"),
        ("six\n", ("--decoding", "wrods"), "--decoding"),
        ("six\n", ("--beam", "0"), "--beam"),
        ("six\n", ("--wrods", "x"), "did you mean '--words'?"),
        ("six\n", ("--temperature", "1"), "--temperature"),
    ],
)
def test_what_cannot_be_decoded_with(model, files, tmp_path, capsys, content, more, said):
    words = tmp_path / "words.txt"
    if content is not None:
        words.write_text(content)
    code, out, err = call("predict", model.run.folder, files["dev"], "--words", words, *more, capsys=capsys)
    assert (code, out) == (2, "") and said in err.splitlines()[-1]
    assert all(line.startswith("throughtime: ") for line in err.splitlines())


def test_a_beam_is_refused_where_nothing_is_kept_in_it(model, files, capsys):
    code, out, err = call(
        "predict", model.run.folder, files["dev"], "--decoding", "greedy", "--beam", "8", capsys=capsys
    )
    assert (code, out) == (2, "")
    assert "beam: decoding greedy keeps no hypotheses; use --decoding beam or words" in err


def test_columns_are_those_of_training(model, tmp_path, capsys):
    """Where the table has them; else they are found by the usual names."""
    rows = listed("dev", 20)
    odd, plain = tmp_path / "odd.csv", manifest(tmp_path / "plain.jsonl", rows)
    odd.write_text(
        "Nr;Datei;Gesagt;Wer\n" + "".join(f"{i};{r['audio']};{r['text']};{r['speaker']}\n" for i, r in enumerate(rows))
    )
    columns = {"audio_column": "Datei", "text_column": "gesagt", "speaker_column": "Wer"}
    code, _, err = call(
        "train", "transcribe", odd, "--valid", odd, "--out", tmp_path / "run", *TINY, "--model.subsampling", 1,
        "--data.audio-column", "Datei", "--data.text-column", "Gesagt", "--data.speaker-column", 4, capsys=capsys,
    )  # fmt: skip
    assert code == 0, err
    found = tt.load(tmp_path / "run")
    wanted = found.evaluate(plain)
    same = ("utterances", "words", "cer", "wer", "speakers", "confusion")
    again = found.evaluate(odd, speaker_column="Wer")
    assert [again[name] for name in same] == [wanted[name] for name in same]
    assert "speakers" not in found.evaluate(odd), "of columns by numbers other tables know nothing"
    assert model.evaluate(odd, **{**columns, "text_column": "Gesagt"})["utterances"] == 20
    with pytest.raises(UserError, match="unknown column 'gesagt'; did you mean 'Gesagt'"):
        model.evaluate(odd, **columns)


# -- the rest of the house


def test_what_decided_an_answer(model, files, capsys):
    """Each unit stands at its step; what is hidden is what it stands on."""
    row = next(row for row in listed("dev", 90) if row["text"] == "seven")
    found = json.loads(told("inspect", model.run.folder, row["audio"], "--json", capsys=capsys))
    frames = len(found["inputs"])
    assert np.array(found["input_values"]).shape == (frames, 80)
    assert found["inputs"][:2] == ["12 ms", "22 ms"] and 0 <= row["seconds"] - frames * 0.01 < 0.03
    (log_p,) = model.log_probabilities(model.normalised([model.task.item(row["audio"])]))
    path = log_p.argmax(-1)
    places = [i for i, u in enumerate(path) if u and u != (path[i - 1] if i else 0)]
    assert found["outputs"] == [model.units.names[path[i]] for i in places]
    assert found["probabilities"] == pytest.approx([float(np.exp(log_p[i].max())) for i in places], rel=1e-2)
    assert "(a step is 20 ms)" in found["finding"]
    for one, place in zip(found["influence"], places, strict=True):
        most = max(range(frames), key=lambda i: abs(one["removal"][i]))
        assert len(one["gradient"]) == frames and abs(most - 2 * place) < 40
        forwards, backwards = (one["through_time"][f"stack.cells.{i}"] for i in (0, 1))
        assert (len(forwards), len(backwards)) == (place + 1, len(path) - place), (
            "from where it stands, as far as there is"
        )


def test_a_long_recording_is_shown_in_part(model, tmp_path, capsys):
    """Its beginning, as that would be by itself."""
    path = tmp_path / "long.wav"
    x = np.concatenate([soundfile.read(row["audio"])[0] for row in listed("dev", 60)])
    soundfile.write(path, x[: 12 * 8000], 8000)
    with pytest.warns(UserWarning, match=r"long\.wav: lasts 12\.0 s; its first 10 are shown"):
        shown = model.shown(model.task.item(str(path)))
    soundfile.write(path, x[: 10 * 8000], 8000)
    whole = model.task.item(str(path))
    assert model.shown(whole) is whole
    assert np.array_equal(model.normalised([shown])[0], model.normalised([whole])[0])


def test_runs_side_by_side(model, files, tmp_path, capsys):
    """The same network without its memory, and a stream."""
    few = manifest(tmp_path / "m.jsonl", listed("dev", 20))
    for name, more in (("none", ("--model.cell", "none")), ("stream", ("--model.streaming", "--model.look-ahead", 60))):
        told(
            *("train", "transcribe", few, "--valid", few, "--out", tmp_path / name, *TINY, *more),
            capsys=capsys,
        )
    sizes = tt.load(tmp_path / "stream").network.sizes
    assert (sizes.after, sizes.ahead, sizes.stride) == (4, 1, 2), "60 ms: four frames, and a step of two"
    rows = json.loads(
        told("compare", model.run.folder, tmp_path / "none", tmp_path / "stream", files["dev"], "--json", capsys=capsys)
    )
    assert [Path(row["run"]).name for row in rows] == ["run", "none", "stream"]
    assert all({"parameters", "minutes", "cer", "wer", "real_time_factor"} <= row.keys() for row in rows)
    assert rows[0]["wer"] < rows[1]["wer"] and not any(name.startswith("mb_at") for name in rows[0])
    assert told("info", model.run.folder, capsys=capsys).startswith("task                             transcribe\n")
    code, out, err = call("inspect", tmp_path / "none", files["dev"], capsys=capsys)
    assert (code, out) == (2, "") and "a network without a memory has no state to look into" in err


def losses(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row], (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("more", [{}, {"streaming": True, "cell": "lstm"}])
def test_what_is_cut_off_goes_on_where_it_was(tmp_path, monkeypatch, more):
    """With everything that is drawn: speeds, statistics, masks, noise, dropout."""
    options = {
        "steps": 8,
        "model": {"hidden_size": 8, "layers": 2, "subsampling": 1, **more},
        "data": {"masks": 1.0},
        "training": {"batch_size": 8},
        "progress": False,
    }
    few, held = (manifest(tmp_path / f"{n}.jsonl", listed("dev", n)) for n in (40, 5))
    tt.train("transcribe", [few], valid=held, out=tmp_path / "whole", **options)
    original = Trainer._one_step

    def stopping(self, stop):
        if self.step == 3:
            stop.set()
        return original(self, stop)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_one_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            tt.train("transcribe", [few], valid=held, out=tmp_path / "cut", **options)
    tt.train("transcribe", out=tmp_path / "cut", resume=True, progress=False)
    assert len(losses(tmp_path / "cut")[0]) == 8
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


def test_text_is_learned_as_asked_and_scored_so(tmp_path, capsys):
    rows = [row | {"text": f"<s> {row['text'].capitalize()}!"} for row in listed("dev", 30)]
    path = manifest(tmp_path / "m.jsonl", rows)
    code, _, err = call(
        "train", "transcribe", path, "--valid", path, "--out", tmp_path / "run", *TINY,
        "--data.case", "lower", "--data.signs", "drop", "--model.subsampling", 1, capsys=capsys,
    )  # fmt: skip
    assert (
        code == 0
        and "60 of 60 transcripts are changed before they are learned; the case of 60; signs dropped: ! (60)" in err
    )
    run = tt.load(tmp_path / "run")
    assert {name.strip("▁") for name in run.units.names[1:]} <= set("efghinorstuvwxz")
    assert run.evaluate(path)["words"] == 30 and set(run.evaluate(path)["confusion"]) <= {
        row["text"] for row in listed("dev", 90)
    }
    kept = tt.train(
        "transcribe", [path], valid=path, out=tmp_path / "kept", steps=1, progress=False,
        model={"hidden_size": 4, "layers": 1, "subsampling": 1}, data={"speed": 0, "tags": "keep"},
    )  # fmt: skip
    assert {"▁<", "!", "▁S"} <= set(kept.units.names)


@pytest.mark.parametrize("units", ["characters", "bpe", "words"])
def test_units_of_every_kind(tmp_path, units):
    few = manifest(tmp_path / "m.jsonl", listed("dev", 20))
    model = tt.train(
        "transcribe", [few], valid=few, out=tmp_path / "run", steps=1, progress=False,
        model={"hidden_size": 4, "layers": 1, "units": units, "subsampling": 1}, data={"speed": 0},
    )  # fmt: skip
    assert model.units.kind == units
    for decoding in ("greedy", "beam", "words"):
        assert len(list(model.predict(few, decoding=decoding))) == 20


@pytest.mark.parametrize(
    ("units", "streaming", "said", "members"),
    [("auto", False, "", 1), ("words", False, "", 2), ("words", False, " twice", 1), ("words", True, "", 1)],
    ids=["spelled", "single words", "two words", "streaming"],
)
def test_several_networks_where_words_are_soon_known(tmp_path, units, streaming, said, members, capsys):
    """They are trained, kept, opened again and looked into."""
    few = manifest(tmp_path / "m.jsonl", [row | {"text": row["text"] + said} for row in listed("dev", 20)])
    small = {"hidden_size": 4, "layers": 1, "units": units, "streaming": streaming, "subsampling": 1}
    model = tt.train(
        "transcribe", [few], valid=few, out=tmp_path / "run", steps=2, progress=False, model=small, data={"speed": 0}
    )
    assert model.config.model.members == members
    assert model.config.model.attention == (0.0 if units == "words" and not said else 0.3)
    assert len(getattr(model.network, "members", [0])) == members
    again = tt.load(tmp_path / "run", task="transcribe")
    wanted, found = (m.log_probabilities(m.normalised(m.task.read(m.config, [few]))) for m in (model, again))
    for one, other in zip(wanted, found, strict=True):
        np.testing.assert_array_equal(one, other)
    shown = json.loads(told("inspect", tmp_path / "run", listed("dev", 1)[0]["audio"], "--json", capsys=capsys))
    through = shown["influence"][0]["through_time"]
    assert all(name.startswith("members.0.stack" if members > 1 else "stack") for name in through) and through


# -- what is refused, in a line, before anything is made


def wav(path, seconds=0.6, rate=16000, value=None, **how):
    values = np.random.default_rng(0).uniform(-0.1, 0.1, round(seconds * rate))
    if value is not None:
        values[100] = value
    soundfile.write(path, values, rate, **how)


def missing(folder):
    return "no.wav", "m.jsonl:3: 'no.wav': there is no such file in "


def empty(folder):
    (folder / "bad.wav").touch()
    return "bad.wav", "m.jsonl:3: BAD: is empty; copy it again, or take it out"


def truncated(folder):
    wav(folder / "bad.wav")
    (folder / "bad.wav").write_bytes((folder / "bad.wav").read_bytes()[:5000])
    return (
        "bad.wav",
        "m.jsonl:3: BAD: is cut off: it says that it has 19,200 bytes of samples, and has 4,956; copy it again",
    )


def no_audio(folder):
    (folder / "bad.wav").write_text("these are words\n")
    return "bad.wav", "m.jsonl:3: BAD: "


def four_kilohertz(folder):
    wav(folder / "bad.wav", rate=4000)
    return "bad.wav", "m.jsonl:3: BAD: 4,000 Hz; speech takes 8,000 Hz or more: record it again at 16,000 Hz"


def not_a_number(folder):
    wav(folder / "bad.wav", value=np.nan, subtype="FLOAT")
    return "bad.wav", "m.jsonl:3: BAD: the sample at 0.0063 s is nan; they take -1 to 1: write the file again"


def ten_hours(folder):
    wav(folder / "bad.wav", rate=8000)
    size = 36000 * 8000 * 2
    with (folder / "bad.wav").open("r+b") as file:  # silence that takes no room
        head = bytearray(file.read(44))
        head[4:8], head[40:44] = struct.pack("<I", 36 + size), struct.pack("<I", size)
        file.seek(0)
        file.write(head)
        file.truncate(44 + size)
    return "bad.wav", "m.jsonl:3: BAD: lasts 36,000 s; training takes 60 s at most: name its utterances, each with its"


@pytest.mark.parametrize("kind", [missing, empty, truncated, no_audio, four_kilohertz, not_a_number, ten_hours])
def test_recordings_that_cannot_be_learned_from(tmp_path, kind, capsys):
    wav(tmp_path / "a.wav")
    name, said = kind(tmp_path)
    rows = [{"audio": one, "text": "a"} for one in ("a.wav", "a.wav", name, "a.wav")]
    refused(manifest(tmp_path / "m.jsonl", rows), said.replace("BAD", f"{tmp_path}/{name}"), capsys)


def refused(path, said, capsys, *more):
    """Training on a manifest is, in a line, and leaves no folder; nor is a run replaced."""
    run = path.parent / "run"
    code, out, err = call("train", "transcribe", path, "--out", run, *TINY, *more, capsys=capsys)
    assert (code, out) == (2, "") and said in err.splitlines()[-1], err
    assert all(line.startswith("throughtime: ") for line in err.splitlines()), err
    assert not run.exists()


GOOD = {"audio": "a.wav", "text": "a"}
UNSAID = "WHERE: what is said in it stands nowhere; add a text, or name its column (--data.text-column)"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([GOOD, {"text": "a"}], "m.jsonl:2: 'audio' names no audio file; name one, or take the line out"),
        ([GOOD, {"audio": "a.wav"}], f"m.jsonl:2: {UNSAID}"),
        ([{"audio": "a.wav"}] * 2, f"m.jsonl:1: {UNSAID}"),
        ([GOOD | {"text": ""}] * 3, "no word stands in the transcripts: there is nothing to make units of"),
        (
            [GOOD | {"text": "a" * 90}] * 3,
            "m.jsonl:1: WHERE: no recording is long enough for what is said in it; check",
        ),
        ([GOOD | {"offset": 1.0}] * 3, "m.jsonl:1: WHERE: begins at 1 s, and the file ends at 0.6 s"),
        ([GOOD], "1 example is too few: at least 2 are needed"),
        ([], "m.jsonl: is empty"),
    ],
)
def test_manifests_that_cannot_be_learned_from(tmp_path, rows, said, capsys):
    wav(tmp_path / "a.wav")
    refused(manifest(tmp_path / "m.jsonl", rows), said.replace("WHERE", f"{tmp_path}/a.wav"), capsys)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            ("--model.vocabulary", 50),
            "model.vocabulary: only pieces of words (model.units bpe) are so many; leave it out",
        ),
        (("--model.look-ahead", 50), "model.look_ahead: a network that reads from both ends has none; leave it out"),
        (
            ("--model.streaming", "--model.cell", "none"),
            "model.streaming: only a recurrent network goes on with a stream",
        ),
        (
            ("--model.streaming", "--model.kind", "transformer"),
            "model.streaming: only a recurrent network goes on with a",
        ),
        (("--model.streaming", "--model.members", 2), "model.members: of several networks none is read step by step"),
        (("--model.cell", "gur"), "model.cell: unknown cell 'gur'; did you mean 'gru'?"),
        (("--training.chunk", 5), "training.chunk: the task 'transcribe' reads whole examples; leave it out"),
        (("--model.subsampling", 9), "--model.subsampling: got '9'"),
        (("--model.unit", "bpe"), "did you mean '--model.units'?"),
        (("--data.text-column", "txet"), "m.jsonl: unknown column 'txet'; did you mean 'text'?"),
    ],
)
def test_settings_that_contradict_each_other(tmp_path, more, said, capsys):
    path = manifest(tmp_path / "m.jsonl", listed("dev", 20))
    refused(path, said, capsys, *more)


@pytest.mark.parametrize("kind", [missing, empty, truncated, no_audio, four_kilohertz, not_a_number])
@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_recordings_that_cannot_be_heard(model, tmp_path, kind, verb, capsys):
    name, said = kind(tmp_path)
    path = manifest(tmp_path / "m.jsonl", [{"audio": str(DATA / "audio" / "theo" / "0_theo_0.flac"), "text": "a"}] * 2)
    with path.open("a") as file:
        file.write(json.dumps({"audio": name, "text": "a"}) + "\n")
    code, _, err = call(verb, model.run.folder, path, capsys=capsys)
    assert code == 2 and said.replace("BAD", f"{tmp_path}/{name}") in err.splitlines()[-1]


def test_what_is_wrong_with_a_pipe(model, capsys):
    code, out, err = call("predict", model.run.folder, "-", capsys=capsys)
    assert (code, out) == (2, "")
    assert "raw samples do not say how many they are a second; give --rate" in err.splitlines()[-1]


def test_a_score_needs_what_was_said(model, tmp_path, capsys):
    wav(tmp_path / "a.wav")
    code, out, err = call("evaluate", model.run.folder, tmp_path / "a.wav", capsys=capsys)
    assert (code, out) == (2, "") and f"{tmp_path}/a.wav: what is said in it stands nowhere" in err
