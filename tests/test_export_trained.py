"""Trained models as ONNX: what each says is what `predict` says, in a Python that has neither this library nor torch."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import throughtime as tt
from throughtime.errors import UserError
from throughtime.tasks.networks import Input, Network, normal

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


DATA = Path(os.environ.get("THROUGHTIME_DATA", Path(__file__).parents[2] / "shared" / "data"))
pytestmark = [
    pytest.mark.usefixtures("_one_thread", "_translations_are_read_once"),
    # of networks that have hardly learned, and of words that none has learned
    pytest.mark.filterwarnings("ignore:.* translated up to the limit of its length"),
    pytest.mark.filterwarnings("ignore:of .* different .* the vocabulary has room"),
    pytest.mark.filterwarnings("ignore:the model never saw these"),
    pytest.mark.filterwarnings("ignore:.* of over 40 characters the first 40 are read"),
    pytest.mark.filterwarnings("ignore:.* its times are in"),
]

ALONE = """
import runpy, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "throughtime"):
            raise ImportError(f"{name} is not to be had here")
sys.meta_path.insert(0, Blocked())
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def needs(folder):
    where = DATA / folder
    return pytest.mark.skipif(not where.exists(), reason=f"no {where}; THROUGHTIME_DATA names the data")


def answered(folder, given="", *arguments):
    """What the script of an export writes, by lines."""
    found = subprocess.run(
        [sys.executable, "-c", ALONE, str(folder / "answer.py"), *map(str, arguments)],
        input=given, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_nothing_of_ours_can_be_imported_there(tmp_path):
    (tmp_path / "answer.py").write_text("import throughtime\n")
    with pytest.raises(AssertionError, match="throughtime is not to be had here"):
        answered(tmp_path)


def operators(folder, name):
    """What goes through time in a graph of an export."""
    import onnx

    nodes = onnx.load(folder / name).graph.node
    return [node.op_type for node in nodes if node.op_type in ("LSTM", "GRU", "RNN", "Scan")]


def some_lines(path, count):
    with path.open(encoding="utf-8") as file:
        return list(itertools.islice(file, count))


def beginning(path, lines, out):
    out.write_text("".join(some_lines(path, lines)), encoding="utf-8")
    return out


def trained(task, files, out, *, training=(), **more):
    more = {"steps": 20, "progress": False} | more
    return tt.train(task, files, out=out, **more, training={"evaluations": 1} | dict(training))


# -- tag


@needs("tag/ewt")
@pytest.mark.parametrize(
    ("model", "standing"),
    [
        ({"cell": "lstm", "layers": 2}, ["LSTM"] * 6),
        ({"cell": "coupled-lstm", "crf": True}, ["Scan"] * 6),  # two of them are the search for the best path
        ({"cell": "none"}, ["LSTM"] * 2),
    ],
)
def test_a_tagger_tags(tmp_path, model, standing):
    folder = DATA / "tag" / "ewt"
    tagger = trained(
        "tag", [beginning(folder / "train.conllu", 6000, tmp_path / "train.conllu")], tmp_path / "run", steps=150,
        model={"hidden_size": 24, "embedding_size": 20, "character_size": 12, "dropout": 0.0, **model},
        training={"learning_rate": 1e-2, "warmup": 10},
    )  # fmt: skip
    path = tt.export(tagger, to="onnx", path=tmp_path / "onnx")
    assert operators(path, "tagger.onnx") == standing
    said = [line[9:].strip() for line in some_lines(folder / "dev.conllu", 1500) if line.startswith("# text = ")]
    lines = [*said, "", "x"]
    found = answered(path, "\n".join(lines) + "\n").splitlines()
    wanted = [
        " ".join(f"{w}/{t}" for w, t in zip(v["words"], v["tags"], strict=True)) for v in tagger.predict(iter(lines))
    ]
    assert found == wanted and len({word.rpartition("/")[2] for line in found for word in line.split()}) > 3


# -- classify


@needs("classify/sst2")
@pytest.mark.parametrize(
    "model",
    [
        {},
        {"tokens": "bpe", "vocabulary": 300, "counts": False, "pooling": "last", "cell": "lstm", "layers": 2},
        "language",
    ],
)
def test_a_classifier_classifies(tmp_path, model):
    folder = DATA / "classify" / "sst2"
    if model == "language":
        text = beginning(DATA / "text" / "tinyshakespeare" / "train.txt", 1500, tmp_path / "text.txt")
        small = {"tokens": "bpe", "vocabulary": 300, "hidden_size": 20, "embedding_size": 12}
        trained("text", [text], tmp_path / "language", model=small)
        model = {"init_from": str(tmp_path / "language"), "tokens": "auto", "pooling": "max", "counts": True}
    classifier = trained(
        "classify", [beginning(folder / "train.csv", 600, tmp_path / "train.csv")], tmp_path / "run",
        model={"hidden_size": 20, "embedding_size": 16, "word_dropout": 0.0, **model},
    )  # fmt: skip
    path = tt.export(classifier, to="onnx", path=tmp_path / "onnx")
    with (folder / "dev.csv").open() as file:
        texts = [row["text"] for row in itertools.islice(csv.DictReader(file), 80)]
    texts += ["", "qqqzzzx", "Good, GOOD: it's  good!", "a " * 2100]  # nothing, nothing known, other signs, too long
    found = answered(path, "\n".join(texts) + "\n").split("\n")[: len(texts)]
    with pytest.warns(UserWarning, match="their beginning and end are read"):
        wanted = list(classifier.predict(iter(texts)))
    assert [line.split("\t")[0] for line in found] == [v["label"] or "" for v in wanted]
    probabilities = [float(line.split("\t")[1]) if line else None for line in found]
    assert probabilities == [v["probability"] and pytest.approx(v["probability"], abs=1e-4) for v in wanted]
    assert len(set(probabilities)) > 40


# -- text


@needs("text/tinyshakespeare")
@pytest.mark.parametrize(
    ("model", "data"),
    [
        ({"tokens": "characters", "layers": 2}, {}),
        ({"tokens": "bpe", "vocabulary": 300, "cell": "gru", "zoneout": 0.1}, {"documents": "line"}),
        ({"tokens": "words", "vocabulary": 900, "output": "adaptive"}, {}),
        ({"tokens": "bytes", "cell": "layernorm-gru", "tied": False}, {"documents": "paragraph"}),
    ],
)
def test_a_text_model_scores_and_writes(tmp_path, model, data):
    folder = DATA / "text" / "tinyshakespeare"
    text = beginning(folder / "train.txt", 2000, tmp_path / "text.txt")
    writer = trained(
        "text", [text], tmp_path / "run", steps=40, model={"hidden_size": 24, "embedding_size": 16, **model}, data=data
    )
    path = tt.export(writer, to="onnx", path=tmp_path / "onnx")
    lines = [line.rstrip("\n") for line in some_lines(folder / "valid.txt", 60)] + ["§ é", ""]
    found = [line.split("\t") for line in answered(path, "\n".join(lines) + "\n").splitlines()]
    assert [line for _, line in found] == lines
    wanted = [v["log_probability"] for v in writer.predict(iter(lines))]
    assert [float(n) for n, _ in found] == [pytest.approx(n, abs=1e-3) for n in wanted]
    for prompt in ("First Cit", "What, say \n", "§"):
        assert answered(path, "", prompt, 50) == writer.generate(prompt, 50, temperature=0)


# -- translate


@needs("translate/multi30k")
@pytest.mark.parametrize(
    "model",
    [
        {"tokens": "bpe", "vocabulary": 300, "cell": "gru"},
        {"tokens": "characters", "input_feeding": True, "attention": "additive", "tied": False},
        {"tokens": "words", "attention": "additive", "joint": False},
    ],
)
def test_a_translator_translates(tmp_path, model):
    folder = DATA / "translate" / "multi30k"
    words = 2 if model["tokens"] == "characters" else 3  # the first ones of each line
    for side in ("de", "en"):
        lines = [" ".join(line.split()[:words]) for line in some_lines(folder / f"train.{side}", 400)]
        (tmp_path / f"train.{side}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    translator = trained(
        "translate", [tmp_path / f"train.{side}" for side in ("de", "en")], tmp_path / "run", steps=120,
        model={"hidden_size": 32, "embedding_size": 24, "smoothing": 0.0, "dropout": 0.0, **model},
        training={"learning_rate": 1.5e-2, "warmup": 20, "batch_size": 16},
    )  # fmt: skip
    path = tt.export(translator, to="onnx", path=tmp_path / "onnx")
    lines = [" ".join(line.split()[:words]) for line in some_lines(folder / "valid.de", 15)] + ["", "x"]
    wanted = [v["translation"] for v in translator.predict(iter(lines))]
    assert answered(path, "\n".join(lines) + "\n").split("\n")[: len(lines)] == wanted
    assert len(set(wanted)) > 2


# -- forecast


@needs("forecast/small")
@pytest.mark.parametrize(
    ("model", "file"),
    [
        ({"kind": "segments", "members": 2, "unaided": 1}, "airline-passengers.csv"),
        ({"kind": "segments", "cell": "lstm"}, "taxi_new_york_passengers.csv"),
        ({"kind": "steps", "cell": "lstm", "layers": 2}, "airline-passengers.csv"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # of what is found out of the files
def test_a_forecaster_forecasts(tmp_path, model, file):
    series = beginning(DATA / "forecast" / "small" / file, 1500, tmp_path / file)
    forecaster = trained(
        "forecast", [series], tmp_path / "run", model={"hidden_size": 16, **model}, data={"horizon": 12}
    )
    path = tt.export(forecaster, to="onnx", path=tmp_path / "onnx")
    found = list(csv.DictReader(io.StringIO(answered(path, series.read_text()))))
    for row, wanted in zip(found, forecaster.predict(series), strict=True):
        for name in ("forecast", "forecast-lo-80", "forecast-hi-80"):
            assert float(row[name]) == pytest.approx(wanted[name], rel=1e-5)
    assert len({row["forecast"] for row in found}) == 12


# -- what is heard


def recordings(count, tmp_path, key):
    """Digits as WAV of 16 kHz."""
    soundfile, soxr = pytest.importorskip("soundfile"), pytest.importorskip("soxr")
    folder = DATA / "speech" / "fsdd"
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()][::7][:count]
    for i, row in enumerate(rows):
        heard, rate = soundfile.read(folder / row["audio"])
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, soxr.resample(heard, rate, 16000), 16000, subtype="PCM_16")
        rows[i] = {"audio": str(path), key: row["text"]}
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [Path(row["audio"]) for row in rows]


@needs("speech/fsdd")
def test_a_classifier_of_recordings_classifies(tmp_path):
    paths = recordings(80, tmp_path, "label")
    model = trained(
        "classify-audio", [tmp_path / "all.jsonl"], tmp_path / "run", model={"hidden_size": 16}, data={"speed": 0.0}
    )
    path = tt.export(model, to="onnx", path=tmp_path / "onnx")
    found = [line.split("\t") for line in answered(path, "", *paths).splitlines()]
    for (label, probability, _), wanted in zip(found, model.predict(paths), strict=True):
        assert label == wanted["label"] and float(probability) == pytest.approx(wanted["probability"], abs=1e-3)


@needs("speech/fsdd")
@pytest.mark.parametrize("streaming", [False, True])
def test_a_recogniser_hears(tmp_path, streaming):
    paths = recordings(80, tmp_path, "text")
    model = trained(
        "transcribe", [tmp_path / "all.jsonl"], tmp_path / "run", steps=60,
        model={"hidden_size": 24, "layers": 1, "streaming": streaming, "units": "words", "dropout": 0.0},
        training={"learning_rate": 1e-2, "batch_size": 16, "warmup": 10}, data={"speed": 0.0, "masks": 0},
    )  # fmt: skip
    path = tt.export(model, to="onnx", path=tmp_path / "onnx")
    wanted = [v["text"] for v in model.predict(paths, decoding="greedy")]
    assert answered(path, "", *paths).split("\n")[: len(paths)] == wanted
    assert len(set(wanted)) > 2
    assert (path / "step.onnx").exists() == streaming
    if streaming:
        stepped(path, model.network.sizes)


def stepped(path, sizes):
    """A stream is the whole utterance: as the README says how its steps are taken."""
    whole, step = (onnxruntime.InferenceSession(path / f"{name}.onnx") for name in ("recogniser", "step"))
    features = np.random.default_rng(0).standard_normal((37, 1, 80)).astype(np.float32)
    log_p, (count,) = whole.run(None, {"features": features, "lengths": np.array([37])})
    padded = np.pad(features, ((sizes.before, sizes.after + sizes.stride), (0, 0), (0, 0)))
    carried = {
        i.name: np.zeros([n if isinstance(n, int) else 1 for n in i.shape], np.float32) for i in step.get_inputs()[2:]
    }
    found = []
    for s in range(count + sizes.ahead):
        frames = padded[s * sizes.stride :][: sizes.before + 1 + sizes.after]
        frames = frames if s < count else np.zeros((sizes.before + 1 + sizes.after, 1, 80), np.float32)
        row, *rest = step.run(None, {"frames": frames, "there": np.array([s < count], np.float32), **carried})
        found.append(row)
        carried = dict(zip(carried, rest, strict=True))
    assert sizes.ahead > 0 and count > 5 and np.allclose(np.stack(found[sizes.ahead :]), log_p, atol=1e-4)


# -- music


@needs("music/jsb")
def test_a_composer_scores_and_writes(tmp_path):
    pieces = json.loads((DATA / "music" / "jsb" / "jsb-chorales-quarter.json").read_text())
    (tmp_path / "some.json").write_text(json.dumps({part: some[:12] for part, some in pieces.items()}))
    composer = trained(
        "music", [tmp_path / "some.json"], tmp_path / "run", training={"learning_rate": 1e-2},
        model={"hidden_size": 24, "chain_size": 12, "embedding_size": 12},
    )  # fmt: skip
    path = tt.export(composer, to="onnx", path=tmp_path / "onnx")
    items = composer.task.read(composer.config, [tmp_path / "some.json"], composer.task.evaluate_options())[:2]
    names, (composed,) = composer.notation.names, composer.compose(temperature=0, bars=3)
    for piece, wanted in zip(items, composer.predict(items), strict=True):
        frames = [" ".join(names[s] for s in moment) for moment in composer.notation.moments(piece)[0]]
        found = answered(path, "\n".join(frames) + "\n").splitlines()
        assert len(found) == len(frames) and float(found[-1]) == pytest.approx(wanted["nats"], rel=1e-4)
    assert answered(path, "", 12).splitlines() == [" ".join(names[s] for s in moment) for moment in composed.moments]


# -- what is written, and what is not


@pytest.fixture(scope="module")
def writer(tmp_path_factory, _one_thread):
    """A model of text, to be exported in many ways."""
    folder = tmp_path_factory.mktemp("writer")
    (folder / "text.txt").write_text("a man saw a woman; a woman saw the sea. " * 60)
    model = {"hidden_size": 16, "embedding_size": 16, "tokens": "characters", "cell": "gru"}
    return trained("text", [folder / "text.txt"], folder / "run", steps=30, model=model)


@pytest.fixture(scope="module")
def exported(writer, tmp_path_factory, _translations_are_read_once):
    return tt.export(writer, to="onnx", path=tmp_path_factory.mktemp("exported") / "onnx")


def test_a_folder_says_what_is_in_it(exported, writer):
    path = exported
    readme = (path / "README.md").read_text()
    about = json.loads((path / "EXPORT.json").read_text())
    vocabulary = len(writer.tokens)
    assert f"| `log_p` | out | [T, B, {vocabulary}] | float | log of the probability" in readme
    assert "| `state0` | in | [B, 16] | float |" in readme and (path / "answer.py").read_text().strip() in readme
    for file in path.iterdir():
        assert file.name in readme or file.name == "README.md"
    assert about["networks"]["step"]["carried"] == {"final0": "state0"}
    assert about["networks"]["sequences"]["shapes"]["tokens"] == ["T", "B"]
    for case in json.loads((path / "vectors.json").read_text()):
        given, right = (
            {name: np.array(v["values"]).reshape(v["shape"]) for name, v in case[side].items()}
            for side in ("inputs", "outputs")
        )
        session = onnxruntime.InferenceSession(path / f"{case['network']}.onnx")
        types = {i.name: np.int64 if i.type == "tensor(int64)" else np.float32 for i in session.get_inputs()}
        found = session.run(list(right), {name: value.astype(types[name]) for name, value in given.items()})
        for got, value in zip(found, right.values(), strict=True):
            assert np.allclose(got, value, atol=1e-5)
    with pytest.raises(UserError, match="holds an export already"):
        tt.export(writer, to="onnx", path=path)
    assert tt.export(writer, to="onnx", path=path, overwrite=True) == path


def test_a_state_that_is_carried_is_the_whole_sequence(exported, writer):
    step, whole = (onnxruntime.InferenceSession(exported / f"{name}.onnx") for name in ("step", "sequences"))
    tokens = np.array([[1, 1], *np.random.default_rng(0).integers(2, len(writer.tokens), (9, 2))])
    state = np.random.default_rng(1).standard_normal((2, 16)).astype(np.float32)
    log_p, last = whole.run(None, {"tokens": tokens, "state0": state})
    for t, row in enumerate(tokens):
        found, state = step.run(None, {"tokens": row, "state0": state})
        assert np.allclose(found, log_p[t], atol=1e-5)
    assert np.allclose(state, last, atol=1e-5)


def test_eight_bits_are_smaller_and_say_nearly_the_same(tmp_path):
    (tmp_path / "text.txt").write_text("a man saw a woman; a woman saw the sea. " * 60)
    model = {"hidden_size": 128, "embedding_size": 64, "tokens": "characters", "cell": "gru", "layers": 2}
    large = trained("text", [tmp_path / "text.txt"], tmp_path / "run", steps=40, model=model)
    paths = {bits: tt.export(large, to="onnx", path=tmp_path / f"{bits}", int8=bits == 8) for bits in (32, 8)}
    sizes = {bits: (path / "sequences.onnx").stat().st_size for bits, path in paths.items()}
    assert sizes[8] < 0.4 * sizes[32]
    lines = "a man saw the sea.\nthe sea\n"
    found = {
        bits: [float(row.split("\t")[0]) for row in answered(path, lines).splitlines()] for bits, path in paths.items()
    }
    assert found[8] != found[32] and found[8] == pytest.approx(found[32], rel=0.1)
    assert "in eight bits" in (paths[8] / "README.md").read_text()


def test_what_differs_is_not_kept(writer, tmp_path, monkeypatch):
    """A wrong graph: the direction in which a scan goes."""
    from throughtime.exporting import scans

    right = scans.sequence_nodes

    def turned(nodes, stack, *given, **more):
        from dataclasses import replace

        (layer,) = stack.layers
        (direction,) = layer.directions
        other = replace(direction, reverse=not direction.reverse)
        return right(nodes, replace(stack, layers=(replace(layer, directions=(other,)),)), *given, **more)

    monkeypatch.setattr(scans, "sequence_nodes", turned)
    with pytest.raises(
        UserError, match=r"sequences.onnx: log_p differs from the network's at T = 5, B = 2: by .*nothing was"
    ):
        tt.export(writer, to="onnx", path=tmp_path / "onnx")
    assert not list(tmp_path.iterdir())


class Rounding:
    """A session that scores as a network, but for rounding, and gives the place of its largest score plus `off`."""

    def __init__(self, network, off):
        self.network, self.off = network, off

    def run(self, names, given):
        _, scores = self.network.call(*map(torch.from_numpy, given.values()))
        scores = scores * (1 + 1e-6 * torch.randn_like(scores))
        return [{"tags": scores.argmax(-1) + self.off, "scores": scores}[name].numpy() for name in names]


def test_of_two_that_are_equally_likely_either_may_be_chosen():
    """A graph rounds as it does; what it chooses is checked by its own scores."""
    from throughtime.exporting.graphs import differences

    def call(x):
        scores = 1 + 1e-6 * x
        return scores.argmax(-1), scores

    def network(chosen):
        return Network(
            "n",
            torch.nn.Identity(),
            call,
            (Input("x", ("B", 50), "", normal),),
            {"tags": "", "scores": ""},
            chosen=chosen,
        )

    by_scores = network({"tags": lambda given, found: found["scores"].argmax(-1)})
    torch.manual_seed(0)
    with pytest.raises(UserError, match="tags differs from the network's"):
        differences(network({}), Rounding(by_scores, 0))
    assert 0 < differences(by_scores, Rounding(by_scores, 0)) < 1e-4
    with pytest.raises(UserError, match=r"tags differs from the network's at B = \d+: by 1$"):
        differences(by_scores, Rounding(by_scores, 1))


def test_what_is_missing_is_named(writer, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"needs onnxscript.*pip install 'throughtime\[export\]'"):
        tt.export(writer, to="onnx", path=tmp_path / "onnx")
    with pytest.raises(UserError, match="lengths is not for a trained model"):
        tt.export(writer, to="onnx", path=tmp_path / "onnx", lengths=True)


def test_a_task_without_a_script_is_exported_without_one(writer, tmp_path, monkeypatch):
    from throughtime.exporting import networks

    monkeypatch.setattr(networks, "ANSWERS", tmp_path)
    path = tt.export(writer, to="onnx", path=tmp_path / "onnx")
    assert not (path / "answer.py").exists() and "answer.py" not in (path / "README.md").read_text()
    with pytest.raises(UserError, match="a trained model is several files; name a folder"):
        tt.export(writer, to="onnx", path=tmp_path / "text.onnx")


def test_the_examples_are_the_scripts():
    from throughtime.exporting.networks import ANSWERS

    assert (Path(__file__).parents[1] / "examples" / "onnx").resolve() == ANSWERS.resolve()


def test_a_transformer_that_writes_is_refused(writer, tmp_path):
    folder = tmp_path / "text.txt"
    folder.write_text("a man saw a woman; a woman saw the sea. " * 60)
    model = {"hidden_size": 16, "embedding_size": 16, "tokens": "characters", "kind": "transformer"}
    transformer = trained("text", [folder], tmp_path / "run", steps=2, model=model)
    with pytest.raises(UserError, match="a Transformer that reads text has no state to step from"):
        tt.export(transformer, to="onnx", path=tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()
