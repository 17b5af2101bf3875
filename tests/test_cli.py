"""The command line: data on stdout, words on stderr, and one clear line with exit code 2 for what cannot work."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import processes
import throughtime as tt
from throughtime.cli import VERBS, demo, main, peers
from throughtime.cli.output import write_values

ROOT = Path(__file__).parents[1]
TEXT = "The quick brown fox jumps over the lazy dog, and the dog did not mind it at all.\n" * 30
SMALL = (
    "--model.hidden-size",
    "8",
    "--model.tokens",
    "characters",
    "--training.batch-size",
    "2",
    "--training.chunk",
    "30",
)


pytestmark = pytest.mark.usefixtures("_one_thread")


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "book.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def model(book, _one_thread):
    return tt.train(
        "text",
        [book],
        out=book.parent / "run",
        steps=12,
        model={"hidden_size": 8, "tokens": "characters"},
        training={"batch_size": 2, "chunk": 30, "learning_rate": 0.02},
        progress=False,
    )


@pytest.fixture(scope="module")
def run(model):
    return str(model.run.folder)


def process(*arguments, stdin=b"", code=0):
    """A real process: (stdout, stderr) as text."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "src"),
        "PYTHONUTF8": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "",
    }
    done = subprocess.run(
        [sys.executable, "-m", "throughtime", *arguments],
        input=stdin,
        capture_output=True,
        env=environment,
        check=False,
    )
    out, err = done.stdout.decode("utf-8"), done.stderr.decode("utf-8")
    assert done.returncode == code, err
    return out, err


@pytest.fixture
def call(capsys, monkeypatch):
    """A command line within this process: (exit code, stdout, stderr)."""

    def run_it(*arguments, stdin=None):
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        capsys.readouterr()
        code = main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run_it


@pytest.fixture
def refused(call):
    """A command line that is refused: nothing on stdout, one line on stderr, exit code 2. Gives the line."""

    def run_it(*arguments, stdin=None):
        code, out, err = call(*arguments, stdin=stdin)
        assert code == 2, err
        assert out == ""
        assert err.startswith("throughtime: ")
        assert err.endswith("\n")
        assert err.count("\n") == 1
        assert "Traceback" not in err
        return err.removeprefix("throughtime: ").rstrip("\n")

    return run_it


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def written(folder, content, name):
    path = Path(folder) / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


# -- the whole way, in real processes


def test_from_a_file_to_a_model_that_writes(book, tmp_path):
    """Each verb once, as a user calls it: training from a pipe, and all the others with the run it made."""
    run = tmp_path / "deep" / "run"
    out, err = process("train", "text", "-", "--out", str(run), "--steps", "6", *SMALL, stdin=book.read_bytes())
    assert out == "", "train has no data to write"
    assert "held out: " in err
    assert str(run) in err
    assert "Traceback" not in err
    assert [p.name for p in run.parent.iterdir()] == ["run"]

    out, err = process("evaluate", str(run), "-", "--json", stdin=book.read_bytes())
    assert err == ""
    assert out.count("\n") == 1
    assert json.loads(out)["characters"] == len(TEXT)
    assert json.loads(out) == json.loads(json.dumps(tt.load(run).evaluate([book])))

    out, err = process("predict", str(run), "-", stdin=b"The fox\r\na dog\n")
    assert err == ""
    assert [line.split("\t")[1] for line in out.splitlines()] == ["The fox", "a dog"]

    out, err = process("generate", str(run), "--prompt", "-", "--length", "20", "--seed", "4", stdin=b"The \n")
    assert err == ""
    assert out == tt.load(run).generate("The ", 20, seed=4) + "\n"


def test_a_mistake_in_a_real_process(tmp_path):
    out, err = process("train", "text", str(tmp_path / "nowhere.txt"), "--out", str(tmp_path / "run"), code=2)
    assert out == ""
    assert err == f"throughtime: {tmp_path / 'nowhere.txt'}: cannot read it: No such file or directory\n"
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_goes_away_is_no_mistake(run, tmp_path):
    """As in `throughtime generate … | head -c 10`: quiet, whether it writes piece by piece or in blocks."""
    lines = written(tmp_path, "The fox jumps over the dog.\n" * 4000, "lines.txt")  # more than a pipe holds
    for arguments in (["generate", run, "--length", "4000", "--seed", "1"], ["predict", run, str(lines)]):
        command = [sys.executable, "-m", "throughtime", *arguments]
        with processes.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as writer:
            assert len(writer.stdout.read(10)) == 10
            writer.stdout.close()
            err = writer.stderr.read()
            assert err == b""
            assert writer.wait() == 0


def test_help_comes_without_torch():
    """So that it comes at once."""
    asked = [
        ["--help"],
        ["--version"],
        ["train", "--help"],
        ["train", "text", "--help"],
        *([v, "--help"] for v in VERBS),
    ]
    program = f"""
import sys
from throughtime.cli import main
for arguments in {asked!r}:
    assert main(arguments) == 0, arguments
    loaded = {{"torch", "accelerate", "tokenizers", "numpy"}} & set(sys.modules)
    assert not loaded, (arguments, loaded)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUTF8": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for word in ("train", *VERBS, "--model.hidden-size", "--temperature", "--resume", "--minutes"):
        assert word in done.stdout


# -- help


def test_the_help_of_train_names_every_setting(call):
    code, out, err = call("train", "text", "--help")
    assert code == 0
    assert err == ""
    from throughtime.config import Training
    from throughtime.tasks.text import TextData, TextNetwork

    for group, kind in (("model", TextNetwork), ("data", TextData), ("training", Training)):
        for name in kind.model_fields:
            assert f"--{group}.{name.replace('_', '-')}" in out


def test_the_help_of_train_is_in_groups(call):
    _, out, _ = call("train", "text", "--help")
    titles = re.findall(r"─ (\w+) ─", out)
    assert titles == ["Data", "Model", "Training", "Output"]
    parts = dict(zip(titles, re.split(r"╭─ \w+ ─+╮", out)[1:], strict=True))
    for name, group in (("--valid", "Data"), ("--model.cell", "Model"), ("--minutes", "Training"), ("--out", "Output")):
        assert [title for title, part in parts.items() if f" {name} " in part] == [group]


def test_a_shell_completes_what_the_command_line_takes(tmp_path):
    """In a real bash: the completion that is installed answers for commands, options and their values."""
    shell = {**os.environ, "HOME": str(tmp_path), "SHELL": "/bin/bash", "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "throughtime", "--install-completion", "--shell", "bash"]
    done = subprocess.run(command, capture_output=True, text=True, env=shell, check=False)
    (script,) = (tmp_path / ".local/share/bash-completion/completions").iterdir()
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "",
        f"throughtime: written: {script}; a new shell reads it\n",
    )
    assert str(script) in (tmp_path / ".bashrc").read_text()

    def completed(*words):
        typed = " ".join(f"'{w}'" for w in words)
        program = (
            f"source {script}; COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; _throughtime; echo ${{COMPREPLY[@]}}"
        )
        return subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True).stdout.split()

    assert completed("throughtime", "tra") == ["train", "travel"]
    assert completed("throughtime", "train", "te") == ["text"]
    assert completed("throughtime", "train", "text", "--model.hid") == ["--model.hidden-size"]
    assert completed("throughtime", "train", "text", "--model.kind", "tr") == ["transformer"]


def test_the_help_says_how_to_see_where_it_failed(call):
    for verb in (["train", "text"], ["evaluate"], ["generate"], ["predict"], ["info"]):
        assert "--debug" in call(*verb, "--help")[1] + call("--help")[1], verb


def test_the_version(call):
    assert call("--version") == (0, f"{tt.__version__}\n", "")


# -- what the verbs answer


def test_evaluate(call, run, model, book):
    code, out, err = call("evaluate", run, book)
    assert (code, err) == (0, "")
    values = dict(line.split(None, 1) for line in out.splitlines())
    scores = model.evaluate([book])
    assert set(values) == set(scores)
    for name, value in scores.items():
        if isinstance(value, float):
            assert float(values[name]) == pytest.approx(value, rel=1e-5)
    assert values["task"] == "text"
    code, out, err = call("evaluate", run, book, book, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["tokens"] == 2 * scores["tokens"]


def test_evaluate_reads_standard_input(call, run, model, book):
    code, out, err = call("evaluate", run, "-", "--json", stdin=book.read_bytes())
    assert (code, err) == (0, "")
    assert json.loads(out) == model.evaluate([book])


@pytest.mark.parametrize("stdin", [b"The fox\n\nzebra \xe2\x98\x83\r\n", b"no end of line"])
def test_predict(call, run, model, tmp_path, stdin):
    expected = list(model.predict(stdin.decode("utf-8").splitlines()))
    path = written(tmp_path, stdin, "lines.txt")
    for arguments, piped in (([path], None), (["-"], stdin), ([], stdin)):
        code, out, err = call("predict", run, *arguments, stdin=piped)
        assert (code, err) == (0, "")
        rows = [line.split("\t") for line in out.removesuffix("\n").split("\n")]
        assert [row[1] for row in rows] == [e["line"] for e in expected]
        assert [float(row[0]) for row in rows] == pytest.approx([e["log_probability"] for e in expected], abs=1e-4)
        code, out, err = call("predict", run, *arguments, "--json", stdin=piped)
        assert (code, err) == (0, "")
        assert [json.loads(line) for line in out.splitlines()] == expected


def test_predict_of_nothing_is_nothing(call, run):
    assert call("predict", run, stdin=b"") == (0, "", "")


def test_generate(call, run, model):
    code, out, err = call("generate", run, "--prompt", "The ", "--length", 30, "--seed", 7)
    assert (code, err) == (0, "")
    assert out == model.generate("The ", 30, seed=7) + "\n"
    options = ["--temperature", 0.5, "--top-k", 5, "--top-p", 0.9]
    _, out, _ = call("generate", run, "--prompt", "The ", "--length", 30, "--seed", 7, *options)
    assert out == model.generate("The ", 30, seed=7, temperature=0.5, top_k=5, top_p=0.9) + "\n"
    assert call("generate", run, "--prompt", "-", "--length", 5, "--temperature", 0, stdin=b"dog\n")[1] == (
        model.generate("dog", 5, temperature=0) + "\n"
    )


def test_generate_as_json(call, run, model):
    code, out, err = call("generate", run, "--prompt", "The ", "--length", 20, "--seed", 7, "--samples", 3, "--json")
    assert (code, err) == (0, "")
    values = json.loads(out)
    assert values["prompt"] == "The "
    assert values["samples"] == [model.generate("The ", 20, seed=s).removeprefix("The ") for s in (7, 8, 9)]


def test_many_samples_are_told_apart_on_stderr(call, run, model):
    code, out, err = call("generate", run, "--length", 15, "--seed", 1, "--samples", 2)
    assert code == 0
    assert out == "".join(model.generate("", 15, seed=s) + "\n" for s in (1, 2))
    assert err == "sample 1 of 2:\nsample 2 of 2:\n"


@pytest.mark.filterwarnings("always")
def test_a_prompt_with_characters_never_seen_goes_on(call, run):
    code, out, err = call("generate", run, "--prompt", "The ☃", "--length", 5, "--seed", 1)
    assert code == 0
    assert out.startswith("The ☃")
    assert len(out) == len("The ☃") + 5 + 1
    assert err == "throughtime: the model never saw these characters of the prompt: ☃\n"


def test_info(call, run, model):
    code, out, err = call("info", run, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == model.info() | {"state": "trained"}
    code, out, err = call("info", run)
    assert (code, err) == (0, "")
    values = {name: value.strip() for name, _, value in (line.partition(" ") for line in out.splitlines())}
    assert values["parameters"] == str(model.info()["parameters"])
    assert values["settings.model.cell"] == "lstm"
    assert values["steps"] == "12"


def test_info_says_whether_the_training_has_ended(call, book, tmp_path):
    """Of a real process that is told to stop in the middle."""
    run = tmp_path / "run"
    arguments = ["train", "text", str(book), "--out", str(run), "--steps", "100000", *SMALL]
    command = [sys.executable, "-m", "throughtime", *arguments]
    with processes.Popen(command, stderr=subprocess.DEVNULL) as training:
        while not (run / "metrics.jsonl").exists() or (run / "metrics.jsonl").read_bytes().count(b"\n") < 5:
            assert training.poll() is None
            time.sleep(0.05)
        held = call("info", run)[1:]
        training.send_signal(signal.SIGINT)
    code, out, err = call("info", run)
    step = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()][-1]
    assert code == 0
    assert re.search(rf"^state +interrupted after step {step:,} of 100,000$", out, re.M)
    assert err == f"throughtime: go on with it: throughtime train text --out {run} --resume\n"
    assert (
        "being trained, or killed, after step" in held[0] or "no weights" in held[1] or "model.safetensors" in held[1]
    )
    assert json.loads(call("info", run, "--json")[1])["state"].startswith("interrupted")


def test_a_report_has_tables_whose_columns_stand_under_each_other(capsys):
    scores = {"precision": 0.5, "recall": 0.25, "f1": None, "examples": 7}
    values = {
        "task": "x",
        "a_long_name": 0.123456789,
        "labels": {"読む": scores, "two\nlines": scores},
        "nested": {"a": {"b": 1}, "c": 2},
        "notes": ["one", "two"],
        "none": {},
    }
    write_values(values, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "task         x",
        "a_long_name  0.123457",
        "nested.a.b   1",
        "nested.c     2",
        "notes        one, two",
        "",
        "labels      precision  recall         f1  examples",
        "読む           0.5000  0.2500  undefined         7",
        "two\\nlines     0.5000  0.2500  undefined         7",
    ]
    write_values(values, as_json=True)
    assert json.loads(capsys.readouterr().out) == values


@pytest.mark.parametrize(
    "command", [["demo", "--out"], ["memory", "--steps", "1", "--out"], ["bench", "--runs", "1", "--save"]]
)
def test_a_folder_that_cannot_be_made_is_named_before_work_begins(refused, book, command):
    folder = book / "a" / "run"
    message = refused(*command, folder)
    assert f"{command[-1]}" in message and str(folder) in message and message.endswith("Not a directory")


def test_bench(call, monkeypatch, tmp_path):
    monkeypatch.setattr("throughtime.cli.bench.PAUSE", 0.0)  # here the numbers need not be right
    code, out, err = call("bench", "--runs", 1, "--shape", "4.2.3.5", "--json", "--save", tmp_path)
    assert code == 0
    rows = json.loads(out)["rows"]
    layers = [(layer, what) for layer in ("RNN", "GRU", "LSTM") for what in ("forward", "both")]
    cells = [(cell, "both") for cell in ("layernorm-lstm", "peephole-lstm", "own cell")]
    plain = [r for r in rows if "precision" not in r]
    assert [(r["name"], r["what"]) for r in plain] == [*layers, *cells, ("GRU step", "step")]
    assert all(v > 0 for r in rows for k, v in r.items() if k.endswith(("_ms", "_us")))
    assert all({"ours_ms", "torch_ms", "share"} <= set(r) for r in plain[:6])
    halves = [r for r in rows if r.get("precision") == "bfloat16"]
    assert [(r["name"], r["what"]) for r in halves] == layers
    assert all({"ours_bf16_ms", "torch_autocast_ms", "torch_module_ms"} <= set(r) for r in halves)
    onnx = [r for r in rows if r.get("precision") == "onnxruntime"]
    assert [(r["name"], "onnxruntime_int8_ms" in r) for r in onnx] == [("RNN", False), ("GRU", False), ("LSTM", True)]
    begun = [line for line in err.splitlines() if not line.startswith(" ")]  # the others go on with the one before
    assert len(begun) == len(rows) + 2
    assert all(len(line) <= 80 for line in err.splitlines()[:-1])
    (report,) = tmp_path.glob("*.md")
    text = report.read_text()
    assert "arithmetic limit" in text and text.count("| GRU | 4·2·3·5 | both |") == 2
    assert "| LSTM | 4·2·3·5 |" in text.partition("onnxruntime, int8")[2]


def test_the_layers_of_onnxruntime_are_those_of_torch():
    for kind in ("RNN", "GRU", "LSTM"):
        _, layer = peers.pair(kind, 3, 5)
        x = torch.randn(4, 2, 3)
        (found,) = peers.onnx_session(peers.onnx_model(layer, 4, 2), 1, {"X": x.numpy()})()
        torch.testing.assert_close(torch.from_numpy(found[:, 0]), layer(x)[0].detach())


def test_demo(call, tmp_path, monkeypatch):
    """The main job from end to end, on a short text and a short budget; where its folder is taken, it takes another."""
    monkeypatch.setattr(demo, "language_reference", lambda: TEXT)
    monkeypatch.setattr(demo, "PROMPT", "The dog ")
    written(tmp_path, "not to be touched", "demo.txt")
    code, out, err = call("demo", "--out", tmp_path / "demo", "--minutes", 0.03)
    assert code == 0
    assert (tmp_path / "demo.txt").read_text() == "not to be touched"
    model = tt.load(tmp_path / "demo-2")
    rows = {line[:26].strip(): line[26:].split() for line in out.splitlines() if len(line) > 26}
    score = model.run.scores()["scores"]["nats_per_character"]
    assert float(rows["this network"][0]) == pytest.approx(score, abs=6e-4)
    for name in ("unigram of characters", "5-gram of characters", "6-gram of characters"):
        assert 0 < float(rows[name][0]) < 4
    assert float(rows["6-gram of characters"][0]) < float(rows["unigram of characters"][0])
    assert "It writes:\n\n" + demo.PROMPT in out
    assert str(tmp_path / "demo-2") in err


@pytest.mark.parametrize("minutes", [0, -1])
def test_a_demo_that_cannot_be_leaves_nothing(call, tmp_path, minutes):
    code, _, err = call("demo", "--out", tmp_path / "demo", "--minutes", minutes)
    assert code == 2
    assert f"minutes: got {minutes}" in err
    assert list(tmp_path.iterdir()) == []


# -- train


def test_train_says_its_words_on_stderr_and_quiet_says_none(call, book, tmp_path):
    code, out, err = call("train", "text", book, "--out", tmp_path / "a", "--steps", 2, *SMALL)
    assert (code, out) == (0, "")
    assert "lstm 1 × 8" in err
    assert "held out: nats per token" in err
    assert call("train", "text", book, "--out", tmp_path / "b", "--steps", 2, *SMALL, "--quiet") == (0, "", "")
    assert set(contents(tmp_path / "a")) == set(contents(tmp_path / "b"))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--steps", "7"], {"steps": 7, "minutes": None, "epochs": None}),
        (["--epochs", "0.5"], {"epochs": 0.5}),
        ([], {"minutes": 5.0, "seed": 0}),
        (["--seed", "9"], {"seed": 9}),
        (["--valid", "held.txt"], {"valid": "held.txt"}),
        (["--model.cell", "lstm", "--model.layers", "2"], {"model.cell": "lstm", "model.layers": 2}),
        (["--model.no-tied"], {"model.tied": False}),
        (["--data.documents", "line", "--data.held-out", "0.2"], {"data.documents": "line", "data.held_out": 0.2}),
        (["--device", "cuda"], {"training.device": "cuda"}),
        (["--device", "cpu", "--training.clip", "2"], {"training.device": "cpu", "training.clip": 2.0}),
        (["--training.precision", "float32"], {"training.precision": "float32"}),
        ([], {"training.precision": "auto"}),
        (["--training.clip", "0.5", "--training.patience", "3"], {"training.clip": 0.5, "training.patience": 3}),
    ],
)
def test_options_come_to_the_settings(call, options, expected):
    code, out, err = call("train", "text", "a.txt", "b.txt", *options, "--print-config")
    assert (code, err) == (0, "")
    values = yaml.safe_load(out)
    assert values["files"] == ["a.txt", "b.txt"]
    for key, value in expected.items():
        found = values
        for part in key.split("."):
            found = found[part]
        assert found == value, key


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU on this machine")
def test_a_device_that_cannot_be_had_is_said_before_anything_is_read(refused, tmp_path):
    line = refused("train", "text", tmp_path / "none.txt", "--out", tmp_path / "out", "--device", "cuda")
    assert line.startswith("training.device: cuda cannot be had") and "use cpu, or auto (--device)" in line
    assert not (tmp_path / "out").exists()


@settings(max_examples=25, deadline=None)
@given(
    steps=st.integers(1, 9999),
    hidden=st.none() | st.integers(1, 999),
    dropout=st.none() | st.floats(0, 0.99),
    clip=st.none() | st.floats(0.01, 100),
    tied=st.booleans(),
    documents=st.sampled_from(["file", "line", "paragraph"]),
    name=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8).filter(
        lambda t: not t.startswith("-") and "/" not in t  # a path ends without its last stroke
    ),
)
def test_printed_settings_are_read_back(tmp_path_factory, steps, hidden, dropout, clip, tied, documents, name):
    folder = tmp_path_factory.mktemp("config")
    options = ["--steps", str(steps), "--model.tied" if tied else "--model.no-tied", "--data.documents", documents]
    for option, value in (("model.hidden-size", hidden), ("model.dropout", dropout), ("training.clip", clip)):
        options += [f"--{option}", repr(value)] if value is not None else []
    first = printed("train", "text", f"x{name}", *options, "--print-config")
    path = written(folder, first, "config.yaml")
    assert printed("train", "text", "--config", str(path), "--print-config") == first
    values = yaml.safe_load(first)
    assert values["files"] == [f"x{name}"]
    assert (values["model"]["hidden_size"], values["model"]["dropout"]) == (hidden, dropout)
    assert values["training"]["clip"] == (clip if clip is not None else 1.0)


def printed(*arguments):
    """What a command line writes, without the fixture of pytest, which hypothesis would share among its examples."""
    before, sys.stdout = sys.stdout, io.StringIO()
    try:
        assert main(list(arguments)) == 0
        return sys.stdout.getvalue()
    finally:
        sys.stdout = before


def test_options_go_before_the_file(call, tmp_path):
    path = written(
        tmp_path,
        "files: [old.txt]\nseed: 3\nminutes: 2\nmodel:\n  cell: lstm\n  layers: 3\ntraining:\n  clip: null\n",
        "config.yaml",
    )
    _, out, _ = call("train", "text", "--config", path, "--print-config")
    values = yaml.safe_load(out)
    assert (values["seed"], values["minutes"], values["files"]) == (3, 2.0, ["old.txt"])
    assert values["training"]["clip"] is None
    _, out, _ = call(
        "train", "text", "new.txt", "--config", path, "--seed", 4, "--epochs", 2, "--model.layers", 1, "--print-config"
    )
    values = yaml.safe_load(out)
    assert (values["seed"], values["minutes"], values["epochs"]) == (4, None, 2.0)
    assert values["files"] == ["new.txt"]
    assert (values["model"]["cell"], values["model"]["layers"]) == ("lstm", 1)
    # and what is said on top counts even where it is the default
    _, out, _ = call("train", "text", "--config", path, "--model.cell", "gru", "--seed", 0, "--print-config")
    assert yaml.safe_load(out)["model"]["cell"] == "gru"
    assert yaml.safe_load(out)["seed"] == 0


def test_a_config_trains(call, book, tmp_path):
    config = written(
        tmp_path,
        f"files: ['{book}']\nsteps: 3\nmodel: {{hidden_size: 6, tokens: characters, cell: elman}}\n"
        "training: {batch_size: 2, chunk: 20}\n",
        "config.yaml",
    )
    assert call("train", "text", "--config", config, "--out", tmp_path / "run", "--steps", 2, "--quiet") == (0, "", "")
    info = tt.load(tmp_path / "run").info()
    assert (info["steps"], info["files"]) == (2, [str(book)])
    assert info["settings"]["model"]["cell"] == "elman"
    assert info["settings"]["model"]["hidden_size"] == 6


def test_overwriting_replaces_the_run_and_nothing_else(call, book, tmp_path):
    run = tmp_path / "run"
    assert call("train", "text", book, "--out", run, "--steps", 2, *SMALL, "--quiet")[0] == 0
    (run / "notes.txt").write_text("mine")
    before = contents(run)
    assert call("train", "text", book, "--out", run, "--steps", 3, *SMALL, "--quiet", "--overwrite")[0] == 0
    after = contents(run)
    assert after["notes.txt"] == b"mine"
    assert set(after) == set(before)
    assert tt.load(run).info()["steps"] == 3
    assert len(tt.load(run).run.read_metrics()) < 3 + 20


# -- what cannot work

FILES = {
    "missing": (None, "{file}: cannot read it: No such file or directory"),
    "empty": (b"", "{file}: is empty"),
    "a mark alone": (b"\xef\xbb\xbf", "{file}: is empty"),
    "binary": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" * 50, "{file}: is a PNG picture, not plain text; "),
    "with a NUL": (b"GIF8\nab\0" + b"text " * 100, "{file}:2: byte 7 is NUL: this is a binary file"),
    "not UTF-8": ((TEXT + "caf").encode() + b"\xe9\n" + TEXT.encode(), "{file}:31: byte 2433 (0xe9) is not UTF-8"),
    "too short": (b"A few words.\n", "{file}: too short: "),
}


@pytest.mark.parametrize("what", FILES)
def test_files_that_cannot_be_trained_on(refused, tmp_path, what):
    content, words = FILES[what]
    path = tmp_path / "in" / "file.txt"
    path.parent.mkdir()
    if content is not None:
        path.write_bytes(content)
    message = refused("train", "text", path, "--out", tmp_path / "run", "--steps", 2)
    assert message.startswith(words.format(file=path))
    assert [p.name for p in tmp_path.iterdir()] == ["in"], "nothing is left behind"


@pytest.mark.parametrize("content", [b"", b"ab\nc\xe9\n" * 60, b"short"])
def test_standard_input_that_cannot_be_trained_on_is_named_so(refused, tmp_path, content):
    message = refused("train", "text", "-", "--out", tmp_path / "run", "--steps", 2, stdin=content)
    assert "stdin" in message or message.startswith("-")
    assert str(tmp_path) not in message, "no name of a file that nobody gave"


@pytest.mark.parametrize(("content", "words"), [(b"", "is empty"), (b"ab\nc\xe9\n", ":2: byte 4 (0xe9)")])
def test_standard_input_that_cannot_be_evaluated_is_named_so(refused, run, content, words):
    message = refused("evaluate", run, "-", stdin=content)
    assert words in message
    assert "/throughtime-" not in message, "no name of a file that nobody gave"


def test_a_folder_in_place_of_a_file(refused, run, tmp_path):
    (tmp_path / "folder").mkdir()
    assert refused("train", "text", tmp_path / "folder", "--out", tmp_path / "run").startswith(
        f"{tmp_path / 'folder'}: is a folder"
    )
    assert "is a folder" in refused("evaluate", run, tmp_path / "folder")
    assert str(tmp_path / "folder") in refused("predict", run, tmp_path / "folder")


def test_a_held_out_file_that_is_missing(refused, book, tmp_path):
    message = refused("train", "text", book, "--valid", tmp_path / "no.txt", "--out", tmp_path / "run", "--steps", 2)
    assert message.startswith(f"{tmp_path / 'no.txt'}: cannot read it")


def test_lines_that_are_not_utf8(call, run, tmp_path):
    """What came before has its answer or has not; what is wrong is one line."""
    path = written(tmp_path, b"good\nbad \xff\n", "lines.txt")
    code, _, err = call("predict", run, path)
    assert code == 2
    assert (
        err.startswith(f"throughtime: {path}:2: byte 9 (0xff) is not UTF-8; if it is Windows-1252")
        and err.count("\n") == 1
    )


@pytest.mark.parametrize("how", ["argument", "stdin"])
def test_a_prompt_that_is_not_utf8(run, how):
    """The bytes of a Latin-1 terminal: refused in a line, or named and passed over, and never a fault."""
    prompt, stdin = ("-", b"caf\xe9") if how == "stdin" else (b"caf\xe9", b"")
    done = subprocess.run(
        [sys.executable, "-m", "throughtime", "generate", run, "--length", "3", "--prompt", prompt],
        input=stdin,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert b"fault" not in done.stderr
    assert done.returncode in (0, 2)
    assert done.stderr.count(b"\n") == 1


def test_an_out_folder_that_is_taken(refused, run, book, tmp_path):
    before = contents(run)
    message = refused("train", "text", book, "--out", run, "--steps", 2)
    assert message.startswith(f"{run}: holds a run")
    assert "--resume" in message
    assert "--overwrite" in message
    other = written(tmp_path, "mine", "notes.txt")
    for more in ([], ["--overwrite"]):
        message = refused("train", "text", book, "--out", tmp_path, "--steps", 2, *more)
        assert message.startswith(f"{tmp_path}: is not empty and not a run")
    assert "is a file" in refused("train", "text", book, "--out", other, "--steps", 2)
    assert contents(run) == before
    assert contents(tmp_path) == {"notes.txt": b"mine"}


def test_an_out_folder_that_cannot_be_made(refused, book, tmp_path):
    """Because a part of its path is a file."""
    other = written(tmp_path, "mine", "notes.txt")
    for out in (other / "run", other / "deep" / "run"):
        assert str(other) in refused("train", "text", book, "--out", out, "--steps", 2)
    assert contents(tmp_path) == {"notes.txt": b"mine"}


@pytest.mark.parametrize(
    "wrong",
    [
        ["nowhere.txt"],
        ["BAD"],
        ["BOOK", "--model.cell", "grru"],
        ["BOOK", "--model.layers", "0"],
        ["BOOK", "--training.batch-size", "99999"],
        ["BOOK", "--valid", "nowhere.txt"],
        ["BOOK", "--config", "nowhere.yaml"],
        ["BOOK", "--modle.layers", "1"],
        ["BOOK", "--resume"],
        ["BOOK", "--minutes", "-1"],
        ["BOOK", "--config", "NEWER"],
    ],
)
def test_a_mistake_with_overwrite_leaves_the_old_run_untouched(refused, run, book, tmp_path, wrong):
    before = contents(run)
    bad = written(tmp_path, TEXT.encode() + b"\xff", "bad.txt")
    newer = written(tmp_path, "format: 99\nsteps: 2\n", "newer.yaml")
    arguments = [{"BAD": bad, "BOOK": book, "NEWER": newer}.get(a, a) for a in wrong]
    copy = shutil.copytree(run, tmp_path / "copy")
    refused("train", "text", *arguments, "--out", copy, "--overwrite")
    assert contents(copy) == before
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian", "text"], ["trian", '"train"']),
        (["train", "txt", "BOOK"], ["txt", '"text"']),
        (["--versoin"], ["--versoin"]),
        (["train", "text", "BOOK", "--out", "OUT", "--hiden-size", "3"], ["--hiden-size", "--model.hidden-size"]),
        (["train", "text", "BOOK", "--out", "OUT", "--model.hiden-size", "3"], ["'--model.hidden-size'"]),
        (["train", "text", "BOOK", "--out", "OUT", "--overwritte"], ["'--overwrite'"]),
        (["train", "text", "BOOK", "--out", "OUT", "--hiden", "3"], ["'--hiden'; did you mean '--model.hidden-size'?"]),
        (["train", "text", "BOOK", "--out", "OUT", "--batch", "3"], ["did you mean '--training.batch-size'?"]),
        (["train", "text", "BOOK", "--out", "OUT", "--devise", "cpu"], ["'--devise'; did you mean '--device'?"]),
        (["train", "text", "BOOK", "--out", "OUT", "--device", "gpu"], ["--device", '"auto", "cpu", "cuda"']),
        (
            ["train", "text", "BOOK", "--out", "OUT", "--device", "cpu", "--training.device", "auto"],
            ["--device and --training.device are one setting; give one"],
        ),
        (["predict", "RUN", "BOOK", "--device", "cuda"], ["--device: an option of train alone", "on the CPU"]),
        (["travel", "RUN", "--device", "cpu"], ["--device: an option of train alone", "on the CPU"]),
        (["train", "text", "BOOK", "--out", "OUT", "--gpu"], ["unknown option '--gpu'; --help lists them"]),
        (["generate", "RUN", "--temprature", "1"], ["unknown option '--temprature'; did you mean '--temperature'?"]),
        (["evaluate", "RUN", "BOOK", "--jsn"], ["'--json'"]),
        (["info", "RUN", "--jsn"], ["'--json'"]),
        (["predict", "RUN", "BOOK", "--jsn"], ["'--json'"]),
        (["evaluate"], ["parameter RUN"]),
        (["evaluate", "RUN"], ["FILES"]),
        (["info"], ["parameter RUN"]),
        (["info", "RUN", "more"], ["more"]),
        (["train", "text", "BOOK"], ["--out RUN"]),
        (["train", "text", "--out", "OUT"], ["no file to train on"]),
        (
            ["train", "text", "BOOK", "--out", "OUT", "--minutes", "1", "--steps", "3"],
            ["minutes and steps are two budgets"],
        ),
        (
            ["train", "text", "BOOK", "--out", "OUT", "--epochs", "1", "--steps", "3"],
            ["epochs and steps are two budgets"],
        ),
        (["train", "text", "BOOK", "--out", "OUT", "--resume", "--overwrite"], ["--resume", "--overwrite", "give one"]),
        (["train", "text", "--out", "OUT", "--resume", "--valid", "BOOK"], ["--resume keeps", "--valid"]),
        (["train", "text", "--out", "OUT", "--resume"], ["OUT: no such run folder"]),
        (["train", "text", "--out", "RUN", "--resume"], ["RUN: this training has ended"]),
        (
            ["train", "text", "BOOK", "--out", "OUT", "--model.cell", "lstn"],
            ["unknown cell 'lstn'; did you mean 'lstm'?"],
        ),
        (["train", "text", "BOOK", "--out", "OUT", "--model.tokens", "word"], ["--model.tokens", "'word'", "'words'"]),
        (["train", "text", "BOOK", "--out", "OUT", "--model.layers", "0"], ["--model.layers: got '0'", "1"]),
        (
            ["train", "text", "BOOK", "--out", "OUT", "--model.dropout", "1"],
            ["--model.dropout: got '1'", "less than 1"],
        ),
        (["train", "text", "BOOK", "--out", "OUT", "--data.held-out", "1.5"], ["--data.held-out: got '1.5'"]),
        (["train", "text", "BOOK", "--out", "OUT", "--training.learning-rate", "nan"], ["--training.learning-rate"]),
        (["train", "text", "BOOK", "--out", "OUT", "--training.chunk", "many"], ["--training.chunk", "many"]),
        (["train", "text", "BOOK", "--out", "OUT", "--steps", "0"], ["steps: got 0"]),
        (["train", "text", "BOOK", "--out", "OUT", "--steps", "1.5"], ["--steps", "1.5"]),
        (["train", "text", "BOOK", "--out", "OUT", "--minutes", "-2"], ["minutes: got -2"]),
        (["train", "text", "BOOK", "--out", "OUT", "--seed", "-1"], ["seed: got -1"]),
        (["train", "text", "BOOK", "--out", "OUT", "--training.batch-size", "5000"], ["training.batch_size: 5000"]),
        (
            ["train", "text", "BOOK", "--out", "OUT", "--model.tokens", "words", "--model.vocabulary", "1"],
            ["vocabulary"],
        ),
        (["train", "text", "BOOK", "--out", "OUT", "--config", "NO.yaml"], ["NO.yaml: cannot read the config"]),
        (["generate", "RUN", "--temperature", "-1"], ["temperature: got -1"]),
        (["generate", "RUN", "--temperature", "inf"], ["temperature: got inf"]),
        (["generate", "RUN", "--top-k", "0"], ["top", "got 0"]),
        (["generate", "RUN", "--top-p", "1.1"], ["top", "got 1.1"]),
        (["generate", "RUN", "--length", "-4"], ["length: got -4"]),
        (["generate", "RUN", "--samples", "0"], ["samples: got 0"]),
        (["generate", "RUN", "--seed", "99999999999999999999999"], ["seed"]),
        (["bench", "--runs", "0"], ["runs"]),
        (["bench", "--shape", "3.4.5"], ["--shape", "'3.4.5'", "T.B.I.H"]),
        (["info", "OUT"], ["OUT: no such run folder"]),
        (["evaluate", "OUT", "BOOK"], ["OUT: no such run folder"]),
        (["generate", "BOOK"], ["BOOK"]),
        (["predict", "RUN", "NO.txt"], ["NO.txt: cannot read it"]),
        (["evaluate", "RUN", "NO.txt"], ["NO.txt: cannot read it"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_what_cannot_work_is_said_in_a_line(refused, run, book, tmp_path, arguments, words):
    names = {"RUN": run, "BOOK": str(book), "OUT": str(tmp_path / "out")}
    message = refused(*(names.get(a, a) for a in arguments))
    for word in words:
        start, colon, rest = word.partition(":")
        assert names.get(start, start) + colon + rest in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "steps: 3\nmodel:\n  cell: gru\n  hiden_size: 3\n",
            ":4: unknown setting 'model.hiden_size'; did you mean 'model.hidden_size'?",
        ),
        ("step: 3\n", ":1: unknown setting 'step'; did you mean 'steps'?"),
        (
            "seed: 1\n\ntraining: {clip: 1, lerning_rate: 1}\n",
            ":3: unknown setting 'training.lerning_rate'; did you mean",
        ),
        ("model:\n  hidden-size: 3\n", ":2: unknown setting 'model.hidden-size'; did you mean 'model.hidden_size'?"),
        ("# words\nmodel:\n  layers: 0\n", ":3: model.layers: got 0"),
        ("training:\n  warmup: 3\n  clip: -1\n", ":3: training.clip: got -1"),
        ("data:\n  documents: lines\n", ":2: data.documents: got 'lines'"),
        ("steps: many\n", ":1: steps: got 'many'"),
        ("model: 3\n", ":1: model: got 3"),
        ("training:\n  learning_rate: .nan\n", ":2: training.learning_rate: got nan"),
        ("model: [1, 2\nsteps: 3\n", ": not YAML"),
        ("steps: 3\n\tseed: 1\n", ":2: not YAML"),
        ("- 1\n- 2\n", ":1: a config is keys and values"),
        ("task: translate\n", ": is for the task 'translate'"),
        ("steps: 3\nminutes: 2\n", ": minutes and steps are two budgets"),
        ("format: 99\n", "format 99"),
        ("model: {cell: grru}\n", ":1: model.cell: unknown cell 'grru'; did you mean 'gru'?"),
    ],
)
def test_mistakes_in_a_config_are_found_at_their_line(refused, book, tmp_path, text, words):
    config = written(tmp_path, text, "settings.yaml")
    message = refused("train", "text", book, "--config", config, "--out", tmp_path / "run", "--quiet")
    assert words in message
    assert message.startswith(str(config))
    assert [p.name for p in tmp_path.iterdir()] == ["settings.yaml"]


# -- debug


def test_debug_shows_where_it_failed(call, tmp_path):
    for arguments in (
        ["train", "text", tmp_path / "no.txt", "--out", tmp_path / "run", "--debug"],
        ["--debug", "info", tmp_path / "no"],
        ["info", tmp_path / "no", "--nothing", "--debug"],
    ):
        code, out, err = call(*arguments)
        assert (code, out) == (2, "")
        assert "Traceback (most recent call last)" in err
        assert err.splitlines()[-1].startswith("throughtime: ")
    assert "Traceback" not in call("info", tmp_path / "no")[2]


def test_a_fault_of_ours_is_not_blamed_on_the_user(call, run, monkeypatch):
    from throughtime.tasks.text import TextModel

    def broken(self):
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(TextModel, "info", broken)
    code, out, err = call("info", run)
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "ZeroDivisionError: oh" in err
    assert "--debug" in err
    with pytest.raises(ZeroDivisionError):
        call("info", run, "--debug")
