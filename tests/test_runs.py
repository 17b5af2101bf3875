"""What a run folder promises: damage is noticed, a kill loses nothing, one process at a time, the same bytes again."""

import inspect
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from pydoc_data.topics import topics
from typing import get_overloads

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import throughtime as tt
from throughtime.cli import main
from throughtime.errors import UserError
from throughtime.files import alone_in, read_json, write_json
from throughtime.runs import Run
from throughtime.scanning.cpu import target
from throughtime.tasks.registry import BUILT_IN, find_task, load
from throughtime.tasks.tokens import learn
from throughtime.training import report
from throughtime.weights import check_fits, read_tensors, write_tensors

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("_one_thread")
TEXT = "\n\n".join(topics[name] for name in sorted(topics))[:8000]
FILMS = "text,label\n" + "".join(
    f"a {w} film {i},{label}\n" for i in range(20) for w, label in (("good", 1), ("bad", 0))
)
WORDS = "".join(f"I\tPRON\nsaw\tVERB\na\tDET\nsaw{i}\tNOUN\n\n" for i in range(20))
PAIRS = "".join(
    f"{a * n}\t{b * n}\n" for n in range(1, 9) for a, b in (("ab", "xy"), ("ba", "yx"), ("aa", "xx"), ("bb", "yy"))
)
SERIES = "ds,y\n" + "".join(f"{2000 + i // 12}-{i % 12 + 1:02},{100 + i + 9 * (i % 12)}\n" for i in range(72))
STEPS = {"text": 3, "classify": 1, "tag": 1, "translate": 1, "forecast": 2}
SMALL = {"hidden_size": 8, "embedding_size": 8}
TASKS = {
    "text": ("book.txt", TEXT, {**SMALL, "tokens": "bpe"}, {"batch_size": 4, "chunk": 16}),
    "classify": ("films.csv", FILMS, SMALL, {"batch_size": 4}),
    "tag": ("words.tsv", WORDS, {**SMALL, "character_size": 8}, {"batch_size": 4}),
    "translate": ("pairs.tsv", PAIRS, SMALL, {"batch_size": 4}),
    "forecast": ("series.csv", SERIES, {"hidden_size": 8}, {"batch_size": 4}),
}


def train(task, folder, **settings):
    name, content, model, training = TASKS[task]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content)
    settings = {"steps": STEPS[task], "model": model, "training": training, **settings}
    here = Path.cwd()
    os.chdir(folder)  # so that the same names stand in the run
    try:
        return tt.train(task, [name], out="run", progress=False, **settings)
    finally:
        os.chdir(here)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, _one_thread):
    """A small run of each task, made in this process, each with its own picture."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "draw_curve", inspect.unwrap(report.draw_curve))
        for task in TASKS:
            train(task, folder / task)
    return folder


def test_an_editor_knows_what_each_task_gives(runs):
    said = {f.__annotations__["task"]: f.__annotations__["return"] for f in get_overloads(load)}
    there = {f"Literal['{task}']": find_task(task).trained.__annotations__["return"] for task in BUILT_IN}
    assert said == there | {"str | None": "Trained[Any]"}
    for task in TASKS:
        assert type(tt.load(runs / task / "run", task)).__name__ == there[f"Literal['{task}']"]


@pytest.mark.parametrize("task", TASKS)
def test_a_model_says_what_it_is(runs, task):
    model = tt.load(runs / task / "run")
    words, info = repr(model), model.info()
    name = model.task.criterion(model.config).score
    for part in (
        f"<{type(model).__name__} of {model.run.folder}: {model.config.model.cell} ",
        f"{info['parameters']:,} parameters; trained on {TASKS[task][0]}; ",
        f"held out: {name.replace('_', ' ')} {info['scores'][name]:.4g}>",
    ):
        assert part in words
    model.run = Run(runs)  # where nothing is known of it
    assert repr(model).endswith("; what it scored is not known>")


@pytest.fixture
def run(runs, tmp_path):
    return Run(Path(shutil.copytree(runs / "text" / "run", tmp_path / "run")))


@pytest.fixture
def classifier(runs, tmp_path):
    return Run(Path(shutil.copytree(runs / "classify" / "run", tmp_path / "classifier")))


def refused(words, call, *arguments, **options):
    with pytest.raises(UserError) as error:
        call(*arguments, **options)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def script(*arguments, **options):
    """A process that imports the package; tests wait for it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", **options}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)


# -- all of it, in small: benchmarks/damage.py, whose figures stand in docs/runs.md


def test_damaged_files_and_killed_trainings(tmp_path):
    counts = ["--damages", 14, "--kills", 2, "--every", 40, "--disks", 1, "--only", "tag", "--no-pictures"]
    done = script(ROOT / "benchmarks" / "damage.py", tmp_path / "out", *counts)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in done.stdout.splitlines()[2:]]
    found = {row[0]: [int(cell) for cell in row[1:]] for row in rows if len(row) == 7}
    assert set(found) == {
        f"tag, {what}"
        for what in ("a run", "a training cut off", "killed", "killed before a change of a file", "streams and disks")
    }
    for tried, refusals, same, said, wrong, dead in found.values():
        assert refusals + same + said == tried > 0 == wrong == dead
    assert found["tag, a run"][1] > 5 and found["tag, a training cut off"][1] > 2
    assert found["tag, killed"][2] == 2


# -- sums


def test_a_changed_byte_in_the_weights_is_noticed_wherever_it_is(run):
    right = run.weights.read_bytes()
    rng = random.Random(3)
    for place in (9, len(right) - 1, *(rng.randrange(len(right)) for _ in range(20))):
        data = bytearray(right)
        data[place] ^= 1
        run.weights.write_bytes(data)
        refused(f"{run.weights}: ", tt.load, run.folder)
    run.weights.write_bytes(right)
    tt.load(run.folder)


@pytest.mark.parametrize("task", TASKS)
def test_the_vocabulary_of_another_run_is_noticed(runs, tmp_path, task):
    run = Path(shutil.copytree(runs / task / "run", tmp_path / "run"))
    for path in sorted(run.glob("*.json")):
        right = path.read_text()
        if path.name != "summary.json":
            values = json.loads(right)
            path.write_text(json.dumps(values, indent=1))  # still what it says, but not the file that was written
            refused(
                f"{path}: the run is damaged: it is not the file that model.safetensors was trained with", tt.load, run
            )
            path.write_text(right)
    tt.load(run)


def test_weights_that_the_training_did_not_end_with_are_noticed(runs, run):
    train("text", run.folder.parent / "other", seed=5)
    shutil.copy(run.folder.parent / "other" / "run" / "model.safetensors", run.weights)
    refused("these are not the weights that its training ended with", tt.load, run.folder)


def test_settings_changed_by_hand_are_refused_where_they_decide_and_said_where_not(classifier, recwarn):
    text = classifier.config.read_text()
    before = tt.load(classifier.folder).answer("a good film")
    for old, new, words in (
        ("pooling: mean", "pooling: max", "config.yaml:36: model.pooling: 'max', but"),
        ("lower: true", "lower: false", "data.lower: False, but"),
        ("hidden_size: 8", "hidden_size: 200000", "model.hidden_size: 200000, but"),
        ("layers: 1", "layers: 10000000", "model.layers: 10000000, but"),
    ):
        assert old in text
        classifier.config.write_text(text.replace(old, new))
        refused(words, tt.load, classifier.folder)
        refused("put it back", tt.load, classifier.folder)
    classifier.config.write_text(text.replace("steps: 1", "steps: 4"))
    with pytest.warns(
        UserWarning, match=r"config\.yaml:\d+: steps: 4, but .* was trained with 1; this changes no answer"
    ):
        assert tt.load(classifier.folder).answer("a good film") == before
    classifier.config.write_text(text)
    classifier.card.write_text("mine")
    classifier.curve.unlink(missing_ok=True)
    assert tt.load(classifier.folder).answer("a good film") == before


def older(run):
    """The run as one without sums had been."""
    with safe_open(run.weights, "pt") as file:
        about = json.loads(file.metadata()["throughtime"])
    save_file(load_file(run.weights), run.weights, {"throughtime": json.dumps({"step": about["step"]}), "format": "pt"})
    values = json.loads(run.summary.read_text())
    run.summary.write_text(json.dumps({k: v for k, v in values.items() if k not in ("sha256", "weights")}))


def test_older_runs_open_and_their_sizes_are_held_against_the_weights(classifier):
    before, scores = tt.load(classifier.folder).answer("a good film"), classifier.scores()
    older(classifier)
    assert tt.load(classifier.folder).answer("a good film") == before
    assert classifier.scores() == scores
    text = classifier.config.read_text()
    for old, new, words in (
        ("hidden_size: 8", "hidden_size: 200000", "does not fit the settings: reader.stack.cells.0.weight_ih is"),
        ("layers: 1", "layers: 10000000", "of more than "),
        ("cell: lstm", "cell: gru", "does not fit the settings"),
        ("bidirectional: true", "bidirectional: false", "does not fit the settings"),
        ("hidden_size: 8", "hidden_size: " + "9" * 40, "does not fit the settings"),
    ):
        assert old in text
        classifier.config.write_text(text.replace(old, new))
        refused(words, tt.load, classifier.folder)
    classifier.config.write_text(text)
    tensors = load_file(classifier.weights)
    tensors["output.bias"][0] = torch.nan
    save_file(tensors, classifier.weights)
    refused("is damaged: output.bias holds what is not a number", tt.load, classifier.folder)


def test_a_network_is_measured_without_being_made():
    """640 GB would not be there; and of what grows without an end, no more is built than the file could fill."""
    made = []

    def huge():
        made.append(torch.nn.Linear(400_000, 400_000))
        return made[-1]

    refused(
        "does not fit the settings: weight is torch.float32 [2, 2]", check_fits, huge, {"weight": torch.ones(2, 2)}, "f"
    )
    assert made[0].weight.is_meta

    def endless():
        return torch.nn.Sequential(*(torch.nn.Linear(1, 1) for _ in iter(int, 1)))

    refused("of more than 1010 parameters", check_fits, endless, {"weight": torch.ones(2, 2)}, "f")


def test_a_pipe_where_a_file_was_is_not_waited_for(run):
    for path in (run.folder / "vocabulary.json", run.weights, run.summary, run.config):
        kept = path.rename(run.folder / "kept")
        os.mkfifo(path)
        refused(str(path) if path != run.config else "is not a run folder", tt.load, run.folder)
        path.unlink()
        kept.rename(path)
    run.metrics.unlink()
    os.mkfifo(run.metrics)
    refused("is no file", run.read_metrics)
    tt.load(run.folder)


def test_what_json_holds_is_checked(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"b": [1.5, "é"], "a": {10: 1, 9: 2}})
    assert read_json(path) == {"b": [1.5, "é"], "a": {"10": 1, "9": 2}}
    path.write_text(path.read_text().replace("1.5", "1.6"))
    refused("a.json: the run is damaged: it is not what the training wrote", read_json, path)
    for content, words in (
        ("[" * 100_000, "nested too deep"),
        ("{", "damaged"),
        ("9" * 5000, "damaged"),
    ):
        path.write_text(content)
        refused(words, read_json, path)


def test_a_summary_that_is_gone_is_missed(run):
    answer = tt.load(run.folder).answer("a")
    run.summary.unlink()
    assert tt.load(run.folder).answer("a") == answer
    refused("summary.json: is missing", tt.load(run.folder).info)


@pytest.mark.parametrize("content", ["[]", "{}", "null", '{"scores": []}', '{"scores": {}, "minutes": "long"}'])
def test_a_summary_of_something_else_is_damaged(run, content):
    run.summary.write_text(content)
    refused("summary.json: the run is damaged", tt.load, run.folder)


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "{}",
        '{"step": 1}',
        '{"step": "1", "loss": 1}',
        '{"step": 1, "loss": NaN}',
        '{"step": 1, "valid": []}',
        "\\",
        "[" * 100_000,
    ],
)
def test_a_line_of_the_metrics_that_is_none_is_damaged(run, line):
    lines = run.metrics.read_text().splitlines()
    run.metrics.write_text("\n".join([lines[0], line, *lines[1:], ""]))
    refused(f"{run.metrics}:2: is damaged", run.read_metrics)


@pytest.mark.parametrize(
    "content",
    [
        "a: " * 1000,
        "[" * 5000,
        "- " * 5000,
        "task: 2026-99-99",
        "seed: " + "9" * 5000,
        "? [a]\n: 1",
        "1: 2",
        "minutes: &a [*a]",
        "model: {hidden_size: {a: [" + "1," * 5000 + "]}}",
    ],
)
def test_settings_that_cannot_be_read_are_said_in_a_line(run, tmp_path, capsys, content):
    run.config.write_text("format: 1\n" + content)
    book = tmp_path / "book.txt"
    book.write_text(TEXT)
    for arguments in (["info", run.folder], ["train", "text", book, "--config", run.config, "--out", tmp_path / "new"]):
        assert main([str(a) for a in arguments]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"throughtime: {run.config}") and said.count("\n") == 1 and len(said) < 1000


def test_a_session_that_was_changed_is_noticed(tmp_path):
    layer = tt.GRU(3, 4)
    session = tt.Session(layer)
    session.feed(torch.randn(5, 3))
    session.save(tmp_path / "s")
    data = bytearray((tmp_path / "s").read_bytes())
    data[-1] ^= 1
    (tmp_path / "s").write_bytes(data)
    refused("its sum is not that of what was written", tt.Session.load, layer, tmp_path / "s")


def test_compiled_code_of_another_name_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("THROUGHTIME_CACHE", str(tmp_path))
    target._write("a", b"code")
    assert target._read("a") == b"code"
    (tmp_path / "a.o").rename(tmp_path / "b.o")
    assert target._read("b") is None


# -- the same bytes


def test_the_same_run_again_is_the_same_bytes(runs, tmp_path):
    """In another process, whose hashes are others; but for how long it took and when that was."""
    code = """
import sys
from pathlib import Path

import torch

sys.path.insert(0, sys.argv[1])
import test_runs

torch.set_num_threads(1)
for task in test_runs.TASKS:
    test_runs.train(task, Path(sys.argv[2]) / task)
"""
    done = script("-W", "ignore", "-c", code, Path(__file__).parent, tmp_path, PYTHONHASHSEED="7")
    assert done.returncode == 0, done.stderr
    for task in TASKS:
        a, b = (folder / task / "run" for folder in (runs, tmp_path))
        names = sorted(p.name for p in a.iterdir())
        assert names == sorted(p.name for p in b.iterdir())
        for name in set(names) - {"summary.json", "metrics.jsonl"}:
            assert (a / name).read_bytes() == (b / name).read_bytes(), f"{task}: {name}"
        ours, theirs = ([{**line, "seconds": 0} for line in Run(folder).read_metrics()] for folder in (a, b))
        assert ours == theirs
        ours, theirs = (
            {**json.loads((f / "summary.json").read_text()), "minutes": 0, "ended": "", "sha256": ""} for f in (a, b)
        )
        assert ours == theirs


def test_tensors_are_written_in_one_order(tmp_path):
    tensors = {f"t{i}": torch.full((2,), float(i)) for i in range(40)}
    write_tensors(tmp_path / "a", tensors, {"b": 1, "a": [1, 2]})
    write_tensors(tmp_path / "b", dict(reversed(tensors.items())), {"b": 1, "a": [1, 2]})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    found, about = read_tensors(tmp_path / "a")
    assert about["a"] == [1, 2] and all(torch.equal(found[n], t) for n, t in tensors.items())


# -- one process at a time

HOLDER = """
import sys
import time
from pathlib import Path

from throughtime.files import alone_in

with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(300)
"""


def test_a_folder_is_held_by_one_process_and_given_back_when_it_dies(tmp_path):
    folder = tmp_path / "run"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, env=environment)
    try:
        assert holder.stdout.readline() == b"held\n"
        for call in (lambda: train("text", tmp_path), lambda: alone_in(folder).__enter__()):
            with pytest.raises(
                UserError, match=rf"run: process {holder.pid} on \S+ has been at work in it since 20\d\d-"
            ):
                call()
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    assert [p.name for p in folder.iterdir()] == [".lock"]
    train("text", tmp_path)  # a start cut off is free
    assert not (folder / ".lock").exists()


def test_of_many_that_want_a_folder_one_has_it(tmp_path):
    inside, most, lock = [0], [0], threading.Lock()

    def want():
        for _ in range(200):
            try:
                with alone_in(tmp_path / "run"):
                    with lock:
                        inside[0] += 1
                        most[0] = max(most[0], inside[0])
                    (tmp_path / "run" / "x").touch()
                    with lock:
                        inside[0] -= 1
            except UserError:
                pass

    threads = [threading.Thread(target=want) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1
    assert not (tmp_path / "run" / ".lock").exists()


def test_two_trainings_in_one_folder(runs, tmp_path, capsys):
    with alone_in(tmp_path / "run"):
        assert (
            main(["train", "text", str(runs / "text" / "book.txt"), "--out", str(tmp_path / "run"), "--steps", "1"])
            == 2
        )
    said = capsys.readouterr().err
    assert said.startswith(f"throughtime: {tmp_path / 'run'}: process {os.getpid()} on ") and said.count("\n") == 1


# -- what is left of a kill


def test_stray_files_go_and_others_stay(run, tmp_path):
    stray = (".model.safetensors.abc.tmp", ".summary.json.x1.tmp")
    for name in (*stray, ".mine.tmp", "notes.tmp"):
        (run.folder / name).write_text("half")
    (run.folder / ".prepared-abc").mkdir()
    run.tidy()
    left = {p.name for p in run.folder.iterdir()}
    assert not left & {*stray, ".prepared-abc"} and {".mine.tmp", "notes.tmp"} <= left


def test_the_summary_is_written_last_and_what_is_cut_off_before_it_is_done_again(runs, tmp_path, monkeypatch):
    def cut(run, values):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Run, "write_summary", cut)
        train("tag", tmp_path)
    run, whole = Run(tmp_path / "run"), runs / "tag" / "run"
    assert run.card.exists() and run.checkpoints.exists() and not run.summary.exists()
    tt.train("tag", out=run.folder, resume=True, progress=False)
    assert sorted(p.name for p in run.folder.iterdir()) == sorted(p.name for p in whole.iterdir())
    for name in ("model.safetensors", "README.md", "config.yaml", "tagset.json"):
        assert (run.folder / name).read_bytes() == (whole / name).read_bytes()


def test_a_training_killed_between_its_summary_and_its_end_is_finished_by_resume(run, capsys):
    run.checkpoints.mkdir()
    (run.checkpoints / "last.safetensors").write_bytes(b"half removed")
    assert main(["train", "text", "--out", str(run.folder), "--resume"]) == 0
    assert not run.checkpoints.exists()
    assert "this training had ended" in capsys.readouterr().err
    assert main(["train", "text", "--out", str(run.folder), "--resume"]) == 2
    assert "has ended; there is nothing to resume" in capsys.readouterr().err


# -- reading


@pytest.mark.parametrize("kind", ["characters", "bytes", "words", "bpe"])
def test_the_beginning_of_a_long_text_is_that_of_its_entries(kind):
    text = TEXT.replace(".", ". ☃")
    tokens = learn(kind, lambda: iter([text]), 400)
    for count in (1, 5, 40):
        whole, some = tokens.encode(text).tolist(), tokens.beginning(text, count).tolist()
        assert count < len(some) < len(whole)
        assert some == whole[: len(some)]
    assert tokens.beginning("a b", 9).tolist() == tokens.encode("a b").tolist()
    long = "ab" * 3000  # nothing to cut at
    assert tokens.beginning(long, 5).tolist()[:5] == tokens.encode(long).tolist()[:5]


def test_a_line_much_longer_than_the_others_is_read_alone(runs, monkeypatch):
    model = tt.load(runs / "text" / "run")
    lines = ["The word", "", "is a name " * 300, "x"]
    together = list(model.predict(lines))
    monkeypatch.setattr("throughtime.tasks.text.BESIDE", 64)
    beside = []
    monkeypatch.setattr(model, "_nats", lambda encoded, nats=model._nats: beside.append(len(encoded)) or nats(encoded))
    for a, b in zip(together, model.predict(lines), strict=True):
        assert a["line"] == b["line"] and a["tokens"] == b["tokens"]
        assert a["log_probability"] == pytest.approx(b["log_probability"], rel=1e-5)
    assert beside[0] == 1 and sum(beside) == 4


def test_sums_that_are_lost_are_noticed(runs, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(runs / "text" / "run", folder)
    summary = folder / "summary.json"
    summary.write_text(summary.read_text().replace('"sha256"', '"sha356"'))
    with pytest.raises(UserError, match=r"summary.json: the run is damaged: it has lost its sum"):
        tt.load(folder).info()


def test_a_training_does_not_go_on_without_its_sums(tmp_path):
    (tmp_path / "t.txt").write_text("the cat saw the dog and the bird\n" * 40)
    given = {"out": tmp_path / "run", "steps": 20, "training": {"chunk": 10, "batch_size": 4}, "progress": False}

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("throughtime.training.loop.Trainer.finish", stop)
        with pytest.raises(KeyboardInterrupt):
            tt.train("text", [tmp_path / "t.txt"], model={"hidden_size": 8}, **given)
    run = Run(tmp_path / "run")
    if run.checkpoint.exists():
        run.sums.unlink()
        with pytest.raises(UserError, match=r"checksums.json: is missing; without it"):
            tt.train("text", out=tmp_path / "run", resume=True, progress=False)
