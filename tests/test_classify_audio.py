"""Recordings with labels, from a manifest or folders to a classifier, and what it says of others."""

import gzip
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import throughtime as tt
from throughtime.cli import main
from throughtime.errors import UserError
from throughtime.models.audio_classifier import AudioClassifier
from throughtime.models.recogniser import Noise, Sizes
from throughtime.runs import Run
from throughtime.tasks import find_task
from throughtime.tasks.audio import Recording
from throughtime.tasks.classify_audio import AudioConfig
from throughtime.tasks.classify_audio_data import Sound, heard
from throughtime.tasks.logmel import features
from throughtime.tasks.recordings import names_recordings
from throughtime.training.loop import Trainer

soundfile = pytest.importorskip("soundfile")
DATA = Path(os.environ.get("THROUGHTIME_DATA", Path(__file__).parents[2] / "shared" / "data")) / "speech" / "fsdd"
DIGITS = ("six", "two", "zero")
SMALL = {"hidden_size": 24, "layers": 1, "dropout": 0.1}

pytestmark = [
    pytest.mark.usefixtures("_one_thread"),
    pytest.mark.skipif(not DATA.exists(), reason=f"no {DATA}; THROUGHTIME_DATA names the data"),
]


def rows(part, step=1):
    """Of three digits every so manyth recording."""
    found = [json.loads(line) for line in (DATA / f"{part}.jsonl").read_text().splitlines()]
    found = [row for row in found if row["text"] in DIGITS][::step]
    return [{"audio": str(DATA / row["audio"]), "label": row["text"], "speaker": row["speaker"]} for row in found]


def manifest(path, found, *names):
    path.write_text("".join(json.dumps({n: r[n] for n in names or r}) + "\n" for r in found))
    return path


def trained(files, out, task="classify-audio", steps=3, model=(), data=(), **more):
    model, data = SMALL | dict(model), {"speed": 0.0} | dict(data)
    return tt.train(task, files, out=out, steps=steps, model=model, data=data, progress=False, **more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    manifest(folder / "train.jsonl", rows("train", 3))
    manifest(folder / "dev.jsonl", rows("dev"))
    return folder


@pytest.fixture(scope="module")
def model(folder, _one_thread):
    """Three digits, of speakers that it knows."""
    return trained(
        folder / "train.jsonl",
        folder / "run",
        steps=60,
        valid=folder / "dev.jsonl",
        training={"learning_rate": 5e-3, "evaluations": 3},
    )


# -- what it has learned, and says


def test_it_tells_digits_apart(model, folder):
    scores = model.evaluate(folder / "dev.jsonl")
    assert scores["task"] == "classify-audio" and scores["examples"] == 75
    assert scores["accuracy"] > 0.85
    assert sum(sum(row.values()) for row in scores["confusion"].values()) == 75
    assert [scores["labels"][digit]["examples"] for digit in DIGITS] == [25, 25, 25]
    answers = list(model.predict(folder / "dev.jsonl"))
    right = [answer["label"] == answer["gold"] for answer in answers]
    assert sum(right) / 75 == pytest.approx(scores["accuracy"])
    nats = [-np.log(answer["probabilities"][answer["gold"]]) for answer in answers]
    assert np.mean(nats) == pytest.approx(scores["nats_per_recording"], rel=1e-5)
    for answer in answers:
        assert sum(answer["probabilities"].values()) == pytest.approx(1.0)
        assert answer["probability"] == max(answer["probabilities"].values())
        assert answer["probabilities"][answer["label"]] == answer["probability"]


def test_a_recording_is_answered_alike_wherever_it_is_named(model, folder, tmp_path):
    first = rows("dev")[0]["audio"]
    (expected,) = [a for a in model.predict(folder / "dev.jsonl") if a["audio"] == first]
    shutil.copy(first, tmp_path / "one.flac")
    (tmp_path / "table.csv").write_text("clip,room\none.flac,kitchen\n")
    with pytest.warns(UserWarning, match="column 'clip' is read as the audio, 'room' as the label"):
        found = list(model.predict(tmp_path / "table.csv"))
    found += model.predict(tmp_path / "one.flac")
    (tmp_path / "table.csv").unlink()
    for given in (tmp_path, str(tmp_path / "one.flac"), [str(tmp_path / "one.flac")], [tmp_path / "one.flac"]):
        found += model.predict(given)
    assert [a["label"] for a in found] == [expected["label"]] * len(found) and len(found) == 6
    assert [a["probability"] for a in found] == pytest.approx([expected["probability"]] * len(found), abs=1e-5)
    assert found[0]["gold"] == "kitchen" and "gold" not in found[1]


def test_predict_writes_a_line_a_recording(model, folder, capsys, tmp_path):
    run, table = str(model.run.folder), str(folder / "dev.jsonl")
    assert main(["predict", run, table]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    answers = list(model.predict(folder / "dev.jsonl"))
    assert lines == [[a["label"], f"{a['probability']:.4f}", a["gold"], a["audio"]] for a in answers]
    assert main(["predict", run, table, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["label"] == answers[0]["label"]
    assert main(["predict", run, rows("dev")[0]["audio"]]) == 0
    assert capsys.readouterr().out.count("\t") == 2
    blip = tmp_path / "blip.wav"
    soundfile.write(blip, np.zeros(80), 16000)  # 5 ms
    assert main(["predict", run, str(blip)]) == 0
    assert capsys.readouterr().out == f"\t\t{blip}\n"


def test_columns_of_training_are_looked_for_first(folder, tmp_path):
    found = [{"wave": r["audio"], "digit": r["label"], "label": "same"} for r in rows("train", 9)]
    columns = {"audio_column": "wave", "label_column": "digit"}
    model = trained(manifest(tmp_path / "named.jsonl", found), tmp_path / "run", data=columns)
    assert model.labels == list(DIGITS)
    assert {a["gold"] for a in model.predict(tmp_path / "named.jsonl")} == set(DIGITS)
    assert model.evaluate(folder / "dev.jsonl")["examples"] == 75  # by the usual names
    with pytest.raises(UserError, match="training never had it: unknown label 'same'"):
        model.evaluate(tmp_path / "named.jsonl", label_column="label")


# -- classify hands recordings over


def test_classify_takes_recordings(folder, tmp_path):
    with pytest.warns(UserWarning, match=r"train.jsonl: recordings, which the task classify-audio classifies"):
        model = trained(folder / "train.jsonl", tmp_path / "run", "classify")
    assert model.task.name == "classify-audio" and tt.load(tmp_path / "run", "classify-audio").labels == list(DIGITS)
    with pytest.raises(UserError, match="is a run of the task 'classify-audio', not 'classify'"):
        tt.load(tmp_path / "run", "classify")


def test_classify_reads_the_texts_of_recordings_where_asked(tmp_path):
    found = [{"audio": r["audio"], "text": f"say {r['label']} twice", "label": r["label"]} for r in rows("dev")]
    found = manifest(tmp_path / "rows.jsonl", found)
    small = {"hidden_size": 4, "embedding_size": 4}
    data = {"text_column": "text"}
    model = tt.train("classify", found, out=tmp_path / "run", steps=2, model=small, data=data, progress=False)
    assert model.task.name == "classify" and model.answer("say six twice")["label"] in DIGITS


@pytest.mark.filterwarnings("always:.*recordings, which")
def test_settings_of_texts_are_refused_for_recordings(folder, tmp_path, capsys):
    train = ["train", "classify", str(folder / "train.jsonl")]
    assert main([*train, "--out", str(tmp_path / "run"), "--data.lower"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert "recordings, which the task classify-audio classifies" in told[0] and len(told) == 2
    assert told[1].startswith("throughtime: unknown setting 'data.lower'") and not (tmp_path / "run").exists()
    assert main([*train, "--print-config"]) == 0
    assert "task: classify-audio" in capsys.readouterr().out


def test_what_names_recordings(tmp_path):
    def table(name, text):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    named = [
        table("a.jsonl", '{"audio": "x/a.wav", "label": "yes"}\n'),
        table("b.json", json.dumps([{"label": "yes", "audio": "b.FLAC"}] * 3, indent=2)),
        table("c.csv", "path,label\na.ogg,yes\n"),
        table("d.tsv", "label\tfile\nyes\tb.mp3\n"),
        table("e.csv", "a b.wav;yes\n"),
    ]
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(named[0].read_bytes()))
    (tmp_path / "folder" / "yes").mkdir(parents=True)
    (tmp_path / "folder" / "yes" / "a.wav").touch()
    (tmp_path / "kaldi").mkdir()
    (tmp_path / "kaldi" / "wav.scp").touch()
    for path in (*named, packed, tmp_path / "folder", tmp_path / "kaldi", Path("nowhere.wav")):
        assert names_recordings(path), path
    lines = "".join(f"it is a fine day {i}\tyes\n" for i in range(20))
    for path in (
        table("f.tsv", lines),
        table("g.tsv", "I lost my song.wav\tno\n" + lines),
        table("h.jsonl", '{"text": "a.wav is lost", "label": "yes"}\n'),
        table("i.csv", "text,label\na wave,yes\n"),
        tmp_path / "nowhere.csv",
    ):
        assert not names_recordings(path), path
    (tmp_path / "texts" / "yes").mkdir(parents=True)
    (tmp_path / "texts" / "yes" / "a.txt").write_text("fine")
    assert not names_recordings(tmp_path / "texts")


# -- what is read, and held out


def commands(root, speakers=6, each=2):
    """A folder as Speech Commands has them."""
    found = rows("train", 3)
    for label in DIGITS:
        (root / label).mkdir(parents=True)
        own = [r["audio"] for r in found if r["label"] == label]
        for i in range(speakers * each):
            shutil.copy(own[i], root / label / f"{0xABC0 + i % speakers:08x}_nohash_{i // speakers}.flac")
    (root / "_background_noise_").mkdir()
    soundfile.write(root / "_background_noise_" / "hum.wav", np.zeros(16000), 16000)
    return root


def test_a_folder_for_each_label(tmp_path):
    task, config = find_task("classify-audio"), AudioConfig()
    files = [commands(tmp_path / "commands")]
    items = task.read(config, files)
    assert {item.label for item in items} == set(DIGITS) and len(items) == 36
    assert {item.speaker for item in items} == {f"{0xABC0 + i:08x}" for i in range(6)}
    train, held = task.split(config, items, files)
    assert len(train) + len(held) == 36 and held
    assert not {item.speaker for item in train} & {item.speaker for item in held}
    model = trained(files, tmp_path / "run", steps=2)
    assert model.labels == list(DIGITS)
    assert model.evaluate(files)["examples"] == 36
    answers = list(model.predict(tmp_path / "commands" / "six"))
    assert len(answers) == 12 and "gold" not in answers[0]
    shutil.copy(items[0].audio, tmp_path / "commands" / "stray.flac")
    with pytest.raises(UserError, match=r"stray\.flac: has no label; .* or give a folder for each label"):
        task.read(config, files)


def test_speakers_are_held_out_unless_labels_are_theirs(tmp_path):
    task, config = find_task("classify-audio"), AudioConfig()

    def recordings(label_of):
        return [Recording(Path("a.wav"), None, f"s{i % 6}", label_of(i)) for i in range(60)]

    train, held = task.split(config, recordings(lambda i: "ab"[i // 30]), [Path("x")])
    assert not {r.speaker for r in train} & {r.speaker for r in held}
    with pytest.warns(UserWarning, match="some labels are of few speakers: recordings of all speakers are held out"):
        train, held = task.split(config, recordings(lambda i: f"s{i % 6}"), [Path("x")])
    assert {r.label for r in held} <= {r.label for r in train} and len(held) == 6
    unknown = [r._replace(speaker=None) for r in recordings(lambda i: "ab"[i % 2])]
    assert len(task.split(config, unknown, [Path("x")])[1]) == 6  # and nothing is said of speakers


def test_bad_input_is_a_line(model, folder, tmp_path, capsys):
    def refused(found, told, *more):
        path = manifest(tmp_path / "bad.jsonl", found)
        assert main(["train", "classify-audio", str(path), "--out", str(tmp_path / "bad"), "--quiet", *more]) == 2
        said = capsys.readouterr().err.strip().splitlines()
        assert told in said[-1] and not (tmp_path / "bad").exists()

    good = [{"audio": r["audio"], "label": r["label"]} for r in rows("dev")]
    refused([{"audio": r["audio"]} for r in good], "bad.jsonl:1: ")
    refused([{"audio": r["audio"]} for r in good], "has no label; name its column (--data.label-column)")
    refused(
        [r | {"label": "six"} for r in good], "all recordings have the label 'six'; there must be two labels or more"
    )
    refused(good, "--data.label-column: ", "--data.label-column", "labell")
    refused([r | {"audio": "nowhere.flac"} for r in good], "bad.jsonl:1: 'nowhere.flac': there is no such file")
    soundfile.write(tmp_path / "long.wav", np.zeros(8000 * 70), 8000)
    long = {"audio": "long.wav", "label": "six"}
    refused([long, *good], "bad.jsonl:1: ")
    refused(
        [long, *good], "lasts 70 s; training takes 60 s at most: name parts of it, each with its offset and seconds"
    )
    soundfile.write(tmp_path / "nan.wav", np.full(8000, np.nan), 8000, subtype="FLOAT")
    refused([{"audio": "nan.wav", "label": "six"}, *good], "nan")
    with pytest.raises(UserError, match="training never had it: unknown label 'sixx'; did you mean 'six'"):
        model.evaluate(manifest(tmp_path / "other.jsonl", [good[0] | {"label": "sixx"}]))
    with pytest.raises(UserError, match=r"nowhere\.wav: there is no such recording; name an audio file"):
        model.answer("nowhere.wav")
    with pytest.raises(UserError, match="a recording is given by its path, got a int"):
        next(model.predict([3]))


def test_what_is_shorter_than_a_frame_is_left_out(tmp_path):
    soundfile.write(tmp_path / "blip.wav", np.zeros(100), 16000)
    found = [{"audio": "blip.wav", "label": "six", "speaker": "x"}, *rows("train", 9)]
    with pytest.warns(UserWarning, match=r"blip\.wav: is shorter than a frame of 25 ms; it is left out"):
        trained(
            manifest(tmp_path / "rows.jsonl", found),
            tmp_path / "run",
            steps=1,
            valid=manifest(tmp_path / "v.jsonl", rows("dev")),
        )


def test_rare_labels_count_more(tmp_path):
    found = [r for r in rows("train") if r["label"] != "zero"][:60] + [
        r for r in rows("train") if r["label"] == "zero"
    ][:4]
    with pytest.warns(UserWarning, match=r"the labels are uneven .* rare ones count more \(data.balance 0.5\)"):
        model = trained(
            manifest(tmp_path / "rows.jsonl", found), tmp_path / "run", steps=1, valid=tmp_path / "rows.jsonl"
        )
    assert model.config.data.balance == 0.5
    assert model.task.criterion(model.config).score == "macro_f1"


# -- the network


def network(**more):
    torch.manual_seed(0)
    front = {"cell": "gru", "hidden_size": 6, "layers": 2, "bidirectional": True, "dropout": 0.0}
    return AudioClassifier(Sizes(5, 3, 3, 2, 1), **front | {"pooling": "attention"} | more)


def batch(lengths=(17, 9, 4), seed=1):
    generator = np.random.default_rng(seed)
    parts = [generator.normal(size=(n, 5)).astype(np.float32) for n in lengths]
    return parts, heard(parts, [2, 0, 1])


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "attention"])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_what_stands_beside_a_recording_does_not_matter(pooling, bidirectional):
    net, (parts, together) = network(pooling=pooling, bidirectional=bidirectional).eval(), batch()
    alone = [net.logits(one.features, one.lengths) for one in (heard([part], [0]) for part in parts)]
    torch.testing.assert_close(net.logits(together.features, together.lengths), torch.cat(alone))


def test_its_loss_and_its_weights():
    net, (_, given) = network(class_weights=[1.0, 2.0, 0.5]), batch()
    log_p = net.eval().logits(given.features, given.lengths).log_softmax(-1)
    picked = -log_p[[0, 1, 2], [2, 0, 1]]
    nats, count, state = net(given, None)
    torch.testing.assert_close(nats, picked.sum())
    assert int(count) == 3 and state is None
    torch.testing.assert_close(net.train()(given, None)[0], (picked * torch.tensor([0.5, 1.0, 2.0])).sum())


def test_everything_in_it_learns_and_noise_is_for_training_alone():
    net, (_, given) = network(noise=Noise(0.0, 0.5)), batch()
    net(given, None)[0].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
    noisy = [net(given, None)[0].item() for _ in range(2)]
    assert noisy[0] != noisy[1]
    net.eval()
    assert net(given, None)[0].item() == net(given, None)[0].item()


def test_training_draws_speeds_and_scoring_does_not(folder, tmp_path):
    with_speeds = {"speed": 0.2, "held_out": 0.3}
    out = tmp_path / "run"
    config = AudioConfig(data=with_speeds)
    task, run = find_task("classify-audio"), Run(out)
    run.corpus.mkdir(parents=True)
    items = task.read(config, [folder / "train.jsonl"])[::30]
    done = []
    task.prepare(config, items, items, run, done.append)
    assert len(done) == 2 * len(items) and sum(done) == pytest.approx(1.0)
    training, valid = (task.examples(config, run, part) for part in ("train", "valid"))
    x, rate = soundfile.read(items[0].audio, dtype="float32")
    assert rate == 8000
    lengths = [len(training.corpus.features(0, speed)) for speed in range(3)]
    frames = lengths[0]
    assert lengths == pytest.approx([frames, frames / 0.8, frames / 1.2], abs=3)
    torch.manual_seed(0)
    seen = {int(training.batch([0]).lengths[0]) for _ in range(20)}
    assert seen == set(lengths) and {int(valid.batch([0]).lengths[0]) for _ in range(20)} == {frames}
    one = valid.normalised(0)[:, :60]  # the bins that 8 kHz have
    assert abs(one.mean(0)).max() < 1e-2 and abs(one.std(0) - 1).max() < 1e-2
    assert isinstance(valid.item(0), Sound) and len(features(np.repeat(x, 2))) == pytest.approx(frames, abs=2)


# -- the other verbs


def test_a_look_is_at_what_decides(model):
    answer = next(iter(model.predict(Path(rows("dev")[0]["audio"]))))
    look = model.look(model.task.item(rows("dev")[0]["audio"]))
    assert look.outputs.labels == [answer["label"]] and len(look.inputs) == look.inputs.values.shape[0]
    assert look.score(look.batch).exp().item() == pytest.approx(answer["probability"], abs=1e-5)
    assert look.distribution(look.batch).exp().sum().item() == pytest.approx(1.0)
    other = look.without(len(look.inputs) // 2)
    changed = (other.features != look.batch.features).any(-1).flatten()
    assert changed.nonzero().flatten().tolist() == [len(look.inputs) // 2]


def test_inspect_compare_and_info(model, folder, tmp_path, capsys):
    run, table = str(model.run.folder), str(folder / "dev.jsonl")
    two = str(manifest(tmp_path / "two.jsonl", rows("dev")[:2]))
    assert main(["inspect", run, two, "--out", str(tmp_path / "page.html")]) == 0
    assert "<html" in (tmp_path / "page.html").read_text()
    assert main(["inspect", run, two, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)
    plain = trained(folder / "train.jsonl", tmp_path / "plain", steps=2, model={"cell": "none"})
    assert main(["compare", run, str(plain.run.folder), table, "--json"]) == 0
    both = json.loads(capsys.readouterr().out)
    assert both[0]["accuracy"] > both[1]["accuracy"] and "ms_a_line" in both[0]
    assert main(["info", run]) == 0
    assert "classify-audio" in capsys.readouterr().out


def test_a_training_that_was_cut_off_goes_on_by_the_name_it_began_with(folder, tmp_path, monkeypatch):
    one_step = Trainer._one_step

    def stopping(trainer, stop):
        if trainer.step == 1:
            stop.set()
        return one_step(trainer, stop)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_one_step", stopping)
        with pytest.warns(UserWarning, match="recordings"), pytest.raises(KeyboardInterrupt):
            trained(folder / "train.jsonl", tmp_path / "run", "classify", valid=folder / "dev.jsonl")
    with pytest.warns(UserWarning, match="recordings"):
        model = tt.train("classify", out=tmp_path / "run", resume=True, progress=False)
    assert model.task.name == "classify-audio" and model.run.scores()["steps"] == 3
