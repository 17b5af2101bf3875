"""What the documentation shows, runs: the examples in docstrings and the Python of the README."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
import torch

import throughtime

README = Path(__file__).parent.parent / "README.md"
DOCS = README.parent / "docs"
MODULES = sorted(
    m.name for m in pkgutil.walk_packages(throughtime.__path__, "throughtime.") if not m.name.endswith("__main__")
)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name):
    result = doctest.testmod(importlib.import_module(name), verbose=False)
    assert result.failed == 0


def test_there_are_docstring_examples():
    count = sum(doctest.testmod(importlib.import_module(name)).attempted for name in MODULES)
    assert count >= 10


def test_the_limits_are_those_of_the_code():
    """Of each bound that is named by its module the figure, and it is there."""
    rows = re.findall(
        r"^\| (`[^|]*`) \| ([^|]*) \|", (README.parent / "docs/limits.md").read_text(encoding="utf-8"), re.M
    )
    seen = 0
    for names, figures in rows:
        numbers = [int(n.replace(",", "")) for n in re.findall(r"\d[\d,]*", figures)]
        module = ""
        for name in re.findall(r"`([\w.]*[A-Z]{4,})`", names):
            module = name.rpartition(".")[0] or module
            value = getattr(importlib.import_module(f"throughtime.{module}"), name.rpartition(".")[2])
            assert value in numbers, f"{name} is {value}"
            seen += 1
    assert seen >= 12


def python_blocks(page=README):
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def test_the_engines_page_explains(capsys):
    (block,) = python_blocks(DOCS / "engine.md")
    exec(block, {})
    assert capsys.readouterr().out.startswith("runs on 'cpu'\nnot on 'torch'")


def test_the_engines_page_names_what_is_there():
    """Every file of the engine that its steps name."""
    text = (DOCS / "engine.md").read_text(encoding="utf-8")
    room = Path(throughtime.__file__).parent / "scanning"
    named = set(re.findall(r"`(?:scanning/)?((?:cpu/)?[a-z]+\.py)`", text)) | {"rules", "cpu"}
    assert len(named) > 10 and not [name for name in named if not (room / name).exists()]
    for table in re.findall(r"`((?:cpu/)?[a-z]+)\.([A-Z]{4,})`", text):
        module = importlib.import_module("throughtime.scanning." + table[0].replace("/", "."))
        assert hasattr(module, table[1]), table


def test_the_memory_pages_experiment_runs(capsys):
    """Without its longest lag, since each takes a second or two."""
    (block,) = python_blocks(DOCS / "memory.md")
    exec(block.replace("lags=(5, 10, 20)", "lags=(5, 10)"), {})
    said = capsys.readouterr().out
    assert "gru, lag 5: accuracy" in said and "cell  width  parameters  longest lag" in said


def test_the_readme_trains_and_writes(tmp_path, monkeypatch, capsys):
    (block,) = [b for b in python_blocks() if "tt.train" in b]
    monkeypatch.chdir(tmp_path)
    Path("book.txt").write_text("Once upon a time there was a king.\n" * 60)
    exec(block.replace("minutes=5", "steps=3, progress=False"), {})
    assert capsys.readouterr().out.startswith("Once")


def test_the_readmes_layer_takes_the_place_of_torch_nns():
    (block,) = [b for b in python_blocks() if "from throughtime import GRU" in b]
    names = {"x": torch.randn(3, 9, 64), "new_episode": torch.rand(3, 9) < 0.2}
    exec(block, names)
    assert names["y"].shape == (3, 9, 256)


def test_the_readmes_own_cell_runs_and_stacks(capsys):
    (block,) = [b for b in python_blocks() if "MinimalGated" in b]
    names = {}
    exec(block, names)
    assert names["outputs"].shape == (50, 4, 16)
    assert names["records"]["forget"].shape == (50, 4, 16)
    assert "reference" in capsys.readouterr().out
    assert names["stack"](torch.randn(5, 2, 8))[0].shape == (5, 2, 16)
