"""A task that another package brings: every verb runs on it, and nothing in `src` knows it."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

import processes

FOREIGN = Path(__file__).with_name("foreign.py")
SOURCE = Path(__file__).parent.parent / "src"


@pytest.fixture(scope="module")
def throughtime(tmp_path_factory):
    """The command line where a package of the task is installed."""
    folder = tmp_path_factory.mktemp("installed")
    shutil.copy(FOREIGN, folder / "nextvalue.py")
    about = folder / "nextvalue-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: nextvalue\nVersion: 1.0\n")
    points = "[throughtime.tasks]\nnext = nextvalue:NextTask\nbroken = nextvalue:Nothing\n"
    (about / "entry_points.txt").write_text(points)
    (folder / "data.txt").write_text("".join(f"{i % 3} {i % 3 + 1} {i % 3 + 2} {i % 3 + 3}\n" for i in range(60)))
    environment = {**os.environ, "PYTHONPATH": f"{SOURCE}{os.pathsep}{folder}"}

    def run(*arguments, code=0, stdin=""):
        done = processes.run(
            [sys.executable, "-m", "throughtime", *map(str, arguments)],
            cwd=folder, env=environment, input=stdin, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done

    done = run("train", "next", "data.txt", "--out", "run", "--steps", 400, "--model.cell", "gru")
    assert "values/s" in done.stderr or "held out" in done.stderr
    run.folder = folder
    return run


def test_it_is_short_and_nobody_knows_it():
    assert len(FOREIGN.read_text().splitlines()) < 100
    known = [p for p in SOURCE.rglob("*.py") if "NextTask" in p.read_text() or "nats_per_value" in p.read_text()]
    assert not known


def test_every_verb_runs_on_it(throughtime):
    assert "next" in throughtime("train", "--help").stdout
    scores = json.loads(throughtime("evaluate", "run", "data.txt", "--json").stdout)
    assert scores["task"] == "next" and scores["series"] == 60 and 0.9 < scores["nats_per_value"] < 1.3
    lines = throughtime("predict", "run", stdin="0 1 2\n2 3 4\n\n").stdout.splitlines()
    assert float(lines[0]) == pytest.approx(3, abs=0.7) and float(lines[1]) == pytest.approx(5, abs=0.7)
    assert len(lines) == 3, "an empty line has its answer in its place"
    values = json.loads(throughtime("inspect", "run", "data.txt", "--json").stdout)
    assert values["inputs"] == ["begin", "0.0", "1.0", "2.0", "3.0"] and values["layers"][0]["cell"] == "GRU"
    written = throughtime("generate", "run", "--start", "1 2", "--length", 2).stdout.split()
    assert len(written) == 2 and float(written[0]) == pytest.approx(3, abs=0.7)
    assert "next" in throughtime("info", "run").stdout
    assert "nats_per_value" in throughtime("compare", "run", "run", "data.txt", "--no-memory").stdout
    assert throughtime("travel", "run", "0 1 2", stdin="set 1 2\n").stdout
    assert (throughtime.folder / "run" / "learning_curve.png").exists() or "matplotlib" in sys.modules


def test_what_it_cannot_do_is_said(throughtime):
    assert "bad" in throughtime("predict", "run", code=2, stdin="1 bad 2\n").stderr
    assert (
        "--beam: a model of the task 'next' has no such option"
        in throughtime("predict", "run", "--beam", 2, code=2).stderr
    )
    assert 'Did you mean "next"' in throughtime("train", "nxt", "data.txt", "--out", "r", code=2).stderr
    broken = throughtime("train", "broken", "data.txt", "--out", "r", code=2).stderr
    assert "the task 'broken' cannot be loaded from nextvalue:Nothing" in broken


def test_a_curve_is_looked_into(throughtime, chromium):
    """Values are drawn with time across, coloured by what mattered and by what a unit holds."""
    throughtime("inspect", "run", "data.txt", "--out", "page.html")
    values = json.loads(throughtime("inspect", "run", "data.txt", "--json").stdout)
    assert values["input_values"] == [[0.0], [0.0], [1.0], [2.0], [3.0]]
    (removal,) = (one["removal"] for one in values["influence"] if one["output"] == values["shown"])
    assert values["shown"] == 3 and removal[0] is None and max(abs(r) for r in removal[1:]) > 0.01
    assert "without it the answer would be" in values["finding"]
    with chromium.new_context(viewport={"width": 390, "height": 800}, offline=True) as context:
        tab, wrong = context.new_page(), []
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.goto((throughtime.folder / "page.html").as_uri())
        curves = tab.locator(".course")
        assert curves.count() == 4, "the input, by removal, by gradient, a unit"
        told = curves.nth(1).locator("rect").evaluate_all("all => all.map(r => r.dataset.tip.split(': ')[1])")
        assert told[0] == "cannot be taken away"
        assert [float(t) for t in told[1:]] == pytest.approx(removal[1:], rel=5.1e-3)
        unit = [row[0] for row in next(iter(values["layers"][0]["states"].values()))]
        told = curves.nth(3).locator("rect").evaluate_all("all => all.map(r => r.dataset.tip.split(': ')[1])")
        assert [float(t) for t in told] == pytest.approx(unit, rel=5.1e-3)
        assert tab.locator(".gates polyline").count() == 1, "the curve stands over the gates"
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert not wrong
