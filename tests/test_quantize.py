"""Trained models with weights in eight bits: what they answer, how they are written, and what they say of themselves."""

import json

import pytest
import torch

import throughtime as tt
from throughtime.cli import main
from throughtime.errors import UserError
from throughtime.layers import Recurrent
from throughtime.scanning.int8 import INT8

pytestmark = pytest.mark.usefixtures("_one_thread")
FILMS = "text,label\n" + "".join(
    f"a {w} film {i},{label}\n" for i in range(20) for w, label in (("good", "up"), ("bad", "down"))
)
STORY = "the cat sat on the mat, and the dog on the log.\n" * 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory, _one_thread):
    """Files, a classifier `c`, and a language model `t`."""
    folder = tmp_path_factory.mktemp("quantize")
    (folder / "films.csv").write_text(FILMS)
    (folder / "story.txt").write_text(STORY)
    sizes = {"hidden_size": 64, "embedding_size": 64}
    tt.train("classify", [folder / "films.csv"], out=folder / "c", steps=3, model=sizes, progress=False)
    tt.train("text", [folder / "story.txt"], out=folder / "t", steps=20, model=sizes, progress=False)
    return folder


# of a classifier the table of pairs of words stays as it is, a megabyte
@pytest.mark.parametrize(("name", "file", "share"), [("c", "films.csv", 0.9), ("t", "story.txt", 0.5)])
def test_a_model_is_written_and_loaded_as_it_answers(folder, tmp_path, name, file, share):
    model = tt.load(folder / name)
    small = model.quantize()
    assert not model.in_int8 and small.in_int8
    assert all(m.weights == INT8 for m in small.network.modules() if isinstance(m, Recurrent))
    small.save(tmp_path / "small")
    loaded = tt.load(tmp_path / "small")
    assert loaded.in_int8 and loaded.info()["weights"] == "int8" and "weights" not in model.info()
    assert "parameters in int8" in repr(loaded) and "in int8" not in repr(model)
    lines = ["a good film", "the cat sat on the dog"]
    assert list(loaded.predict(lines)) == list(small.predict(lines))
    assert loaded.evaluate(folder / file) == small.evaluate(folder / file)
    before, after = (m.run.weights.stat().st_size for m in (model, loaded))
    assert after < share * before
    assert "rounded to eight bits" in loaded.run.card.read_text()
    loaded.save(tmp_path / "again")  # a copy of a run that is in int8 is the same run
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == loaded.run.weights.read_bytes()


def test_it_loses_little_and_runs_otherwise(folder):
    model = tt.load(folder / "t")
    small = model.quantize()
    right, found = (m.evaluate(folder / "story.txt")["nats_per_token"] for m in (model, small))
    assert found != right and abs(found - right) < 0.02 * right
    assert small.generate("the ", length=40, seed=1) == small.generate("the ", length=40, seed=1)


def test_what_was_changed_since_is_not_saved(folder, tmp_path):
    small = tt.load(folder / "c").quantize()
    with torch.no_grad():
        next(small.network.parameters()).add_(1.0)
    with pytest.raises(UserError, match="they were changed since it was loaded"):
        small.save(tmp_path / "small")


def test_what_has_no_recurrent_layer_says_so(folder, tmp_path):
    sizes = {"hidden_size": 8, "embedding_size": 8, "cell": "none"}
    tt.train("classify", [folder / "films.csv"], out=tmp_path / "run", steps=1, model=sizes, progress=False)
    with pytest.raises(UserError, match="no recurrent layer to be held in int8"):
        tt.load(tmp_path / "run").quantize()


def test_it_is_neither_looked_into_nor_exported(folder, tmp_path):
    with pytest.raises(UserError, match="inspect the run they were rounded of"):
        tt.Inspection(tt.load(folder / "t").quantize(), "the cat")
    for what in (tt.load(folder / "t").quantize(), tt.GRU(3, 4).quantize()):
        with pytest.raises(UserError, match="export what they were rounded of, with int8=True"):
            tt.export(what, "onnx", tmp_path / "out")


def test_a_damaged_number_is_noticed(folder, tmp_path):
    tt.load(folder / "c").quantize().save(tmp_path / "small")
    path = tmp_path / "small" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="its sum is not that of what was written"):
        tt.load(tmp_path / "small")


def test_the_command(folder, tmp_path, capsys):
    out = tmp_path / "small"
    assert main(["quantize", str(folder / "t"), "--out", str(out), "--json"]) == 0
    sizes = json.loads(capsys.readouterr().out)
    assert sizes["bytes_after"] < 0.5 * sizes["bytes_before"]
    assert main(["quantize", str(folder / "t"), "--out", str(out)]) == 2
    assert "holds a run" in capsys.readouterr().err
    assert main(["quantize", str(folder / "t"), "--out", str(out), "--overwrite"]) == 0
    capsys.readouterr()
    assert main(["info", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["weights"] == "int8"
