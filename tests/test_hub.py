"""A run in another place: a copy, and a repository of the hub, spoken with over HTTP by huggingface_hub's own client."""

import json
import os
import pickle
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard, ModelCardData

import processes
import throughtime as tt
from hub_server import hub
from throughtime.errors import UserError
from throughtime.files import LOCK
from throughtime.runs import Run
from throughtime.tasks.registry import find_task

pytestmark = pytest.mark.usefixtures("_one_thread")
FILMS = "text,label\n" + "".join(
    f"a {w} film {i},{label}\n" for i in range(20) for w, label in (("good", "up"), ("bad", "down"))
)


@pytest.fixture(scope="module")
def films(tmp_path_factory, _one_thread):
    """A file, and the run that was trained on it."""
    folder = tmp_path_factory.mktemp("films")
    (folder / "films.csv").write_text(FILMS)
    model = {"hidden_size": 8, "embedding_size": 8}
    tt.train("classify", [folder / "films.csv"], out=folder / "run", steps=3, model=model, progress=False)
    return folder


@pytest.fixture
def run(films, tmp_path):
    return Run(Path(shutil.copytree(films / "run", tmp_path / "run")))


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


# -- a copy


def test_a_saved_model_is_the_same_run(films, run, tmp_path):
    (run.folder / "notes.txt").write_text("private")
    model = tt.load(run.folder)
    model.save(tmp_path / "new" / "copy")
    copy = tmp_path / "new" / "copy"
    there = contents(films / "run")
    assert contents(copy) == there | {"summary.json": (copy / "summary.json").read_bytes()}
    assert "notes.txt" not in contents(copy)
    assert tt.load(copy).evaluate(films / "films.csv") == model.evaluate(films / "films.csv")
    assert tt.load(copy).info() == model.info()


def test_a_run_is_saved_over_only_where_that_is_asked_for(films, run, tmp_path):
    model, other = tt.load(run.folder), tmp_path / "other"
    shutil.copytree(films / "run", other)
    (other / "config.yaml").write_text((other / "config.yaml").read_text() + "# another\n")
    (other / "notes.txt").write_text("mine")
    before = contents(other)
    with pytest.raises(UserError, match="holds a run; name another folder, or replace it by overwrite=True"):
        model.save(other)
    assert contents(other) == before
    model.save(other, overwrite=True)
    assert contents(other) == contents(run.folder) | {"notes.txt": b"mine"}
    busy = tmp_path / "busy"
    busy.mkdir()
    (busy / "letter.txt").write_text("not a run")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="is not empty and not a run"):
            model.save(busy, overwrite=overwrite)
        with pytest.raises(UserError, match="is the folder of the run itself"):
            model.save(run.folder / ".." / "run", overwrite=overwrite)
    assert contents(busy) == {"letter.txt": b"not a run"}
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        model.save(tmp_path / "file")


def test_what_is_saved_is_what_was_trained(run, tmp_path):
    model = tt.load(run.folder)
    with torch.no_grad():
        next(model.network.parameters()).add_(1.0)
    with pytest.raises(UserError, match="they were changed since it was loaded"):
        model.save(tmp_path / "copy")
    model, (labels,) = tt.load(run.folder), [p for p in run.folder.iterdir() if p.name == "labels.json"]
    run.checkpoints.mkdir()
    run.summary.rename(tmp_path / "summary.json")
    with pytest.raises(UserError, match="its training has not ended"):
        model.save(tmp_path / "copy")
    (tmp_path / "summary.json").rename(run.summary)
    labels.unlink()
    with pytest.raises(UserError, match=r"labels\.json: the run is damaged: the file is missing"):
        model.save(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_full_disk_leaves_no_half_of_a_run(run, tmp_path, monkeypatch):
    model = tt.load(run.folder)

    def full(source, target):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(UserError, match="copy: cannot write it: No space left on device"):
        model.save(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


# -- the card


def test_the_card_is_as_the_hub_reads_it(run):
    card = ModelCard.load(run.card)
    data = card.data
    assert isinstance(data, ModelCardData)
    assert (data.library_name, data.pipeline_tag, data.license) == ("throughtime", "text-classification", None)
    assert data.tags == ["classify", "recurrent-neural-network"]
    measured = {k: v for k, v in run.scores()["scores"].items() if isinstance(v, float)}
    assert {r.metric_type: r.metric_value for r in data.eval_results} == measured
    assert measured.keys() >= {"accuracy", "macro_f1"}
    (result,) = {(r.task_type, r.dataset_name, r.dataset_split) for r in data.eval_results}
    assert result == ("text-classification", run.read_config(find_task("classify").config_type).files[0], "held out")
    index = data.to_dict()["model-index"][0]
    assert index["name"] == "run"
    assert all({"type", "value", "name"} == metric.keys() for metric in index["results"][0]["metrics"])


# -- the hub


@pytest.fixture
def server(run, tmp_path):
    """A hub with a run in it, a repository of something else, and one whose files were exchanged."""
    with hub(tmp_path) as server:
        for name in ("ann/films", "ann/damaged", "ann/half"):
            server.repositories[name] = Path(shutil.copytree(run.folder, tmp_path / name.replace("/", "-")))
        (server.repositories["ann/films"] / "pytorch_model.bin").write_bytes(pickle.dumps("anything"))
        (server.repositories["ann/damaged"] / "labels.json").write_text('["down", "dawn"]')
        (server.repositories["ann/half"] / "labels.json").unlink()
        other = tmp_path / "other"
        other.mkdir()
        (other / "config.json").write_text("{}")
        (other / "model.safetensors").write_bytes(b"0" * 1000)
        server.repositories["ann/other"] = other
        yield server


def command(server, folder, *arguments, code=None, **more):
    """A process of its own, that knows this hub alone and keeps what it gets in `folder`."""
    address = server if isinstance(server, str) else server.address
    cache = {"HF_ENDPOINT": address, "HF_HOME": str(folder / "cache"), "HF_HUB_DISABLE_XET": "1"}
    call = ["-m", "throughtime", *arguments] if code is None else ["-c", code, *arguments]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | cache | more
    return processes.run(
        [sys.executable, *call], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def one_line(done):
    (line,) = [x for x in done.stderr.splitlines() if x.startswith("throughtime: ")]
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    return line


def test_a_run_of_the_hub_is_read_only_when_asked(server, films, run, tmp_path):
    here = command(server, tmp_path, "evaluate", str(run.folder), str(films / "films.csv"), "--json")
    words = one_line(command(server, tmp_path, "evaluate", "ann/films", str(films / "films.csv"), "--json"))
    assert (
        "ann/films: no such run folder; a repository of that name on the Hugging Face hub is read with --download"
        in words
    )
    assert not server.asked
    done = command(server, tmp_path, "evaluate", "ann/films", str(films / "films.csv"), "--json", "--download")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(here.stdout)
    got = {Path(path).name for verb, path in server.asked if "/resolve/" in path}
    assert got == set(contents(run.folder)), "and no pickle"
    branches = [path for verb, path in server.asked if path.startswith("/api/") and "main" in path.split("/")]
    assert len(branches) == 1, "all else is of the commit that was found then"
    assert done.stderr == "", "where nobody watches no bar is drawn"
    code = "import sys, throughtime as tt; print(tt.load(sys.argv[1], download=True).answer('a good film')['label'])"
    server.asked.clear()
    again = command(server, tmp_path, "ann/films", code=code)
    assert again.stdout == command(server, tmp_path, str(run.folder), code=code.replace(", download=True", "")).stdout
    assert not [path for verb, path in server.asked if verb == "GET" and "/resolve/" in path], "it is in the cache"
    offline = command(server, tmp_path, "ann/films", code=code, HF_HUB_OFFLINE="1")
    assert offline.stdout == again.stdout


def test_a_folder_here_goes_before_the_hub(server, run, tmp_path):
    (tmp_path / "ann").mkdir()
    shutil.copytree(run.folder, tmp_path / "ann" / "films")
    done = command(server, tmp_path, "info", "ann/films", "--download", "--json")
    assert json.loads(done.stdout)["task"] == "classify"
    assert "ann/films: is a folder here, which is taken; nothing is downloaded" in done.stderr
    assert not server.asked


@pytest.mark.parametrize(
    ("name", "words"),
    {
        "ann/none": "no such repository",
        "ann/other": "ann/other: the repository is no run of throughtime: it has no config.yaml",
        "ann/half": "labels.json: the run is damaged: the file is missing",
        "ann/damaged": "labels.json: the run is damaged: it is not the file that model.safetensors was trained with",
        "no-name": "no-name: no such run folder, nor the name of a repository",
        "an--n/f..s": "an--n/f..s: is no name of a repository",
    }.items(),
)
def test_what_is_no_run_of_the_hub_is_refused_in_a_line(server, tmp_path, name, words):
    assert re.search(words, one_line(command(server, tmp_path, "info", name, "--download")))


def test_no_network(tmp_path):
    words = one_line(command("http://127.0.0.1:9", tmp_path, "info", "ann/films", "--download"))
    assert "ann/films: the Hugging Face hub at http://127.0.0.1:9 could not be reached, or refused: [Errno " in words
    assert "; see to the connection and the login" in words
    offline = one_line(command("http://127.0.0.1:9", tmp_path, "info", "ann/films", "--download", HF_HUB_OFFLINE="1"))
    assert "HF_HUB_OFFLINE" in offline


PUSH = "import sys, throughtime as tt; print(tt.load(sys.argv[1]).push_to_hub(sys.argv[2], private=len(sys.argv) > 3))"


def test_what_is_pushed_comes_back(server, films, run, tmp_path):
    (run.folder / "notes.txt").write_text("private")
    done = command(server, tmp_path, str(run.folder), "ann/new", "private", code=PUSH, HF_TOKEN="hf_secret")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{server.address}/ann/new/commit/")
    assert "names no licence" in done.stderr
    assert server.private == {"ann/new"}
    pushed = contents(server.repositories["ann/new"])
    pushed.pop(".gitattributes", None)
    assert pushed == contents(films / "run"), "and no notes"
    back = command(server, tmp_path, "evaluate", "ann/new", str(films / "films.csv"), "--json", "--download")
    assert json.loads(back.stdout) == tt.load(run.folder).evaluate(films / "films.csv")


def test_what_cannot_be_pushed_is_refused(server, run, tmp_path):
    before = contents(server.repositories["ann/other"])
    for name, more, words in (
        ("ann/other", {"HF_TOKEN": "hf_secret"}, "ann/other: is there already and everybody sees it"),
        ("ann/new", {"HF_TOKEN": "hf_wrong"}, "log in|login"),
        ("new", {"HF_TOKEN": "hf_secret"}, "'new': is no name of a repository"),
    ):
        done = command(server, tmp_path, str(run.folder), name, "private", code=PUSH, **more)
        assert re.search(f"UserError: .*({words})", done.stderr), done.stderr
    assert contents(server.repositories["ann/other"]) == before
    assert "ann/new" not in server.repositories
    assert not (run.folder / LOCK).exists()


def test_the_page_of_the_hub_runs(server, run, tmp_path):
    (block,) = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[1] / "docs" / "hub.md").read_text(), re.S)
    shutil.copytree(run.folder, tmp_path / "runs" / "reviews")
    done = command(server, tmp_path, code=block + "print(repr(again))", HF_TOKEN="hf_secret")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"<ClassifyModel of .*ann--reviews.* accuracy \S+>\n", done.stdout)
    assert Run(tmp_path / "elsewhere" / "reviews").config.is_file() and server.private == {"ann/reviews"}
