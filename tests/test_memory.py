"""The laboratory: its problems against plain Python, its networks, what becomes of them, and what the command writes."""

import gzip
import json
import math
import os
import struct
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Generator

import throughtime as tt
from throughtime.cli import main
from throughtime.errors import UserError
from throughtime.laboratory.experiment import PROBLEMS, Asked, Experiment
from throughtime.laboratory.network import CELLS, Network, find_cell, size_of, stretch_
from throughtime.laboratory.pixels import IMAGES, LABELS, ORDER_SEED, Pixels, Shuffled, read_idx
from throughtime.laboratory.problems import Adding, Copy, Exploding, Recall
from throughtime.laboratory.tables import in_words, networks, table_width, trials, written
from throughtime.laboratory.trial import Budget, Lesson, Recipe, optimizer_of, run_trial, scored
from throughtime.training.progress import Reporter

pytestmark = pytest.mark.usefixtures("_one_thread")

DATA = Path(os.environ.get("THROUGHTIME_DATA", Path(__file__).parents[2] / "shared" / "data"))
SMALL = ("--cells", "gru", "--steps", "3", "--parameters", "300")


def drawn(problem, size, seed=0):
    return problem.batch(Generator().manual_seed(seed), size)


def counting(what):
    """A bar that nobody watches, which sees that a trial spends its budget once."""

    @contextmanager
    def bar():
        shares = []
        yield lambda share, words: shares.append(share)
        assert sum(shares) == pytest.approx(1)

    return bar()


def run(**asked):
    return Experiment(Asked(**asked)).run(counting)


# -- problems


def test_adding_against_plain_python():
    problem = Adding(30)
    inputs, targets = drawn(problem, 200)
    assert inputs.shape == (30, 200, 2) and problem.steps == 30
    places = []
    for sequence, target in zip(inputs.transpose(0, 1).tolist(), targets.tolist(), strict=True):
        assert all(0 <= value < 1 and mark in (0, 1) for value, mark in sequence)
        marked = [i for i, (_, mark) in enumerate(sequence) if mark == 1]
        assert len(marked) == 2
        assert sum(sequence[i][0] for i in marked) == pytest.approx(target)
        places += marked
    assert set(places) == set(range(30)), "any two may be marked"
    # the variance of a sum of two uniform numbers is 2/12
    always_one = sum((1 - t) ** 2 for t in drawn(problem, 20_000).targets.tolist()) / 20_000
    assert problem.chance == pytest.approx(1 / 6) == pytest.approx(always_one, rel=0.03)
    ones = torch.ones(1, 200, 1)
    assert problem.scores(ones, targets).tolist() == pytest.approx([(1 - t) ** 2 for t in targets.tolist()])
    assert problem.loss(ones, targets).item() == pytest.approx(problem.scores(ones, targets).mean().item())


def test_copy_against_plain_python():
    lag = 7
    problem = Copy(lag)
    inputs, targets = drawn(problem, 40)
    assert inputs.shape == (lag + 20, 40, 10) and problem.answered == problem.steps == lag + 20
    assert bool((inputs.sum(-1) == 1).all())
    seen = set()
    for read, asked in zip(inputs.argmax(-1).t().tolist(), targets.t().tolist(), strict=True):
        items = read[:10]
        assert all(1 <= item <= 8 for item in items)
        assert read[10:] == [0] * (lag - 1) + [9] * 11
        assert asked == [0] * (lag + 10) + items
        seen |= set(items)
    assert seen == set(range(1, 9))
    assert problem.chance == pytest.approx(10 * math.log(8) / (lag + 20))
    assert Copy(1000).chance == pytest.approx(0.0204, abs=5e-5)  # Bai, Kolter, Koltun (2018)
    # who knows the rules and remembers nothing: nothing is certain, then every symbol is as likely
    knows = torch.full((lag + 20, 40, 9), -1e9)
    knows[: lag + 10, :, 0] = 0
    knows[lag + 10 :, :, 1:] = 0
    assert problem.scores(knows, targets).tolist() == pytest.approx([problem.chance] * 40)
    assert problem.loss(knows, targets).item() == pytest.approx(problem.chance)


def test_recall_against_plain_python():
    problem = Recall(6)
    inputs, targets = drawn(problem, 60)
    assert len(inputs) == problem.steps
    for sequence, target in zip(inputs.transpose(0, 1).tolist(), targets.tolist(), strict=True):
        marked = [i for i, step in enumerate(sequence) if step[-1] == 1]
        assert len(marked) == 1 and len(sequence) - 1 - marked[0] == 6, "asked so many steps after the mark"
        assert all(sorted(step[:-1]) == [0] * 7 + [1] for step in sequence)
        assert sequence[marked[0]].index(1) == target
    assert set(targets.tolist()) == set(range(8))
    answers = torch.nn.functional.one_hot(targets, 8).float()[None]
    assert problem.scores(answers, targets).tolist() == [1.0] * 60
    wrong = torch.nn.functional.one_hot((targets + 1) % 8, 8).float()[None]
    assert problem.scores(wrong, targets).tolist() == [0.0] * 60
    # the symbol before the answer says nothing of it
    last, many = drawn(problem, 20_000).inputs[-1, :, :8].argmax(-1), drawn(problem, 20_000).targets
    assert (last == many).float().mean().item() == pytest.approx(problem.chance, abs=0.01)


@pytest.mark.parametrize("name", ["adding", "copy", "recall", "exploding"])
def test_what_is_drawn_repeats_by_its_seed(name):
    problem = PROBLEMS[name](9)
    a, b, c = drawn(problem, 5, 1), drawn(problem, 5, 1), drawn(problem, 5, 2)
    assert all(map(torch.equal, a, b)) and not torch.equal(a.inputs, c.inputs)
    held = [list(problem.held_out()) for _ in range(2)]
    assert sum(part.inputs.shape[1] for part in held[0]) == 1000
    assert all(all(map(torch.equal, x, y)) for x, y in zip(*held, strict=True))
    assert problem.learned(problem.goal) and not problem.learned(problem.chance)
    assert problem.better(problem.goal, problem.chance) and not problem.better(problem.chance, problem.goal)


# -- images


def idx(array, path):
    head = bytes([0, 0, 8, array.dim()]) + struct.pack(f">{array.dim()}I", *array.shape)
    path.write_bytes(gzip.compress(head + bytes(array.flatten().tolist())))


@pytest.fixture
def images(tmp_path):
    """Sixty images of 3 × 4 pixels."""
    values = torch.randint(256, (60, 3, 4), generator=Generator().manual_seed(3), dtype=torch.uint8)
    idx(values, tmp_path / IMAGES)
    idx(torch.arange(60, dtype=torch.uint8) % 10, tmp_path / LABELS)
    return tmp_path, values


def test_pixels_one_a_step(images):
    folder, values = images
    problem, shuffled = Pixels(folder), Shuffled(folder)
    assert problem.steps == 12 and problem.learned_from == 50
    held = list(problem.held_out()) + list(problem.test())
    assert [part.targets.tolist() for part in held] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]], (
        "the last of the file, each once"
    )
    first = held[0].inputs[:, 0, 0].tolist()
    assert first == pytest.approx([(v / 255 - 0.1307) / 0.3081 for v in values[50].flatten().tolist()], abs=1e-5)
    order = torch.randperm(12, generator=Generator().manual_seed(ORDER_SEED)).tolist()
    assert order != sorted(order)
    assert next(shuffled.held_out()).inputs[:, 0, 0].tolist() == pytest.approx([first[i] for i in order])
    inputs, targets = drawn(problem, 500)
    known = {tuple(row.flatten().tolist()): i for i, row in enumerate(values)}
    back = (inputs[..., 0] * 0.3081 + 0.1307) * 255
    found = [known[tuple(round(v) for v in row)] for row in back.t().tolist()]
    assert max(found) == 49, "nothing held out is learned from"
    assert [i % 10 for i in found] == targets.tolist()


def test_damaged_images_are_refused(images):
    folder, _ = images
    good = (folder / IMAGES).read_bytes()

    def refuses(words, content=None, name=IMAGES):
        if content is not None:
            (folder / name).write_bytes(content)
        with pytest.raises(UserError, match=words) as caught:
            Pixels(folder)
        assert "\n" not in str(caught.value) and str(folder) in str(caught.value)

    refuses("cannot read it", good[:-30])
    refuses("cannot read it", b"not gzip at all")
    refuses("is damaged: 719 bytes where 60 × 3 × 4", gzip.compress(gzip.decompress(good)[:-1]))
    refuses("is not an idx file of bytes in 3 dimensions", (folder / LABELS).read_bytes())
    refuses("is not an idx file", gzip.compress(b""))
    (folder / IMAGES).write_bytes(good)
    idx(torch.arange(59, dtype=torch.uint8) % 10, folder / LABELS)
    refuses("60 images but 59 labels")
    idx(torch.arange(60, dtype=torch.uint8), folder / LABELS)
    refuses("labels up to 59")
    (folder / LABELS).unlink()
    refuses("no such file; --mnist takes the folder")


@pytest.mark.skipif(
    not (DATA / "pixels" / "mnist").exists(), reason=f"no {DATA}/pixels/mnist; THROUGHTIME_DATA names the data"
)
def test_the_real_images():
    problem = Pixels(DATA / "pixels" / "mnist")
    assert problem.pixels.shape == (60_000, 784) and problem.learned_from == 50_000
    assert read_idx(DATA / "pixels" / "mnist" / LABELS, 1)[:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]
    assert problem.pixels.double().mean().item() / 255 == pytest.approx(0.1307, abs=1e-4)
    # ink in the middle, none at the edge: rows and columns are where they should be
    mean = problem.pixels[:1000].float().mean(0).view(28, 28)
    assert mean[0].max() == 0 and mean[10:18, 10:18].min() > 20
    assert sum(len(part.targets) for part in problem.held_out()) == 1000
    assert sum(len(part.targets) for part in problem.test()) == 9000


# -- networks


@pytest.mark.parametrize("name", [*CELLS, "none"])
def test_networks_of_as_many_parameters(name):
    cell = find_cell(name)
    size, count = size_of(name, cell, 9, 8, 6000, None)
    network = Network(cell, 9, size, 8)
    assert count == sum(p.numel() for p in network.parameters()) == pytest.approx(6000, rel=0.03)
    assert size_of(name, cell, 9, 8, 6000, 11)[0] == 11
    assert network(torch.randn(4, 3, 9), 2).shape == (2, 3, 8)


def test_the_answer_is_read_from_the_last_steps():
    torch.manual_seed(0)
    network = Network(tt.cells.GRU, 3, 5, 2)
    x = torch.randn(6, 4, 3)
    outputs, _, _ = tt.scan(network.stack.cells[0], x, backend="reference")
    torch.testing.assert_close(network(x, 2), network.output(outputs[-2:]))
    none = Network(None, 3, 5, 2)
    changed = x.clone()
    changed[:-1] += 1
    torch.testing.assert_close(none(x, 1), none(changed, 1))
    assert not torch.allclose(network(x, 1), network(changed, 1))


def test_a_cell_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "mine_in_a_test.py").write_text(
        "import torch\n"
        "from throughtime.cells import Cell\n"
        "class Leaky(Cell):\n"
        "    def forward(self, x, h):\n"
        "        (x_h,), (h_h,) = self.project_input(x), self.project_state(h, None)\n"
        "        return 0.9 * h + 0.1 * torch.tanh(x_h + h_h)\n"
        "class Broken(Cell):\n"
        "    def forward(self, x, h):\n"
        "        return h @ x\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    values = run(
        problem="recall", cells=("mine_in_a_test:Leaky", "torch.nn:LSTMCell"), lags=(3,), steps=2, parameters=500
    )
    assert [c["cell"] for c in values["cells"]] == ["mine_in_a_test:Leaky", "torch.nn:LSTMCell"]
    assert all(abs(c["parameters"] - 500) < 60 and c["trials"][0]["steps"] == 2 for c in values["cells"])
    for name, words in {
        "mine_in_a_test:Leeky": "did you mean 'Leaky'",
        "mine_in_a_test:Broken": "cannot be run as a cell",
        "not_there_at_all:Cell": "cannot import 'not_there_at_all'",
        "torch.nn:ReLU": "cannot be run as a cell",
    }.items():
        with pytest.raises(UserError, match=words) as caught:
            Experiment(Asked("recall", cells=(name,)))
        assert name in str(caught.value) and "\n" not in str(caught.value)


def test_chrono_gives_the_units_of_gated_cells_times_up_to_the_longest_lag():
    def times(**asked):
        experiment = Experiment(Asked("recall", cells=("lstm", "rnn"), lags=(5, 200), hidden=64, **asked))
        assert experiment.run(counting)["chrono"] == (200 if asked["chrono"] else None)
        (cell,) = experiment._network("lstm").stack.cells
        return (cell.bias_ih + cell.bias_hh)[64:128].exp().detach()

    drawn = times(chrono=True, steps=1)
    assert drawn.min() < 20
    assert 180 < drawn.max() <= 199
    torch.testing.assert_close(times(chrono=False, steps=1), torch.full((64,), math.e))


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
def test_stretched_weights_have_the_radius_asked_for(name):
    torch.manual_seed(0)
    network = Network(find_cell(name), 2, 12, 1)
    with torch.no_grad():
        network.stack.cells[0].weight_hh[-12:] *= 3  # gates that differ
    before = network.stack.cells[0].weight_hh.detach().clone()
    stretch_(name, network, 1.7)
    for block, was in zip(network.stack.cells[0].weight_hh.detach().split(12), before.split(12), strict=True):
        values = torch.linalg.eigvals(block.double())
        assert values.abs().max().item() == pytest.approx(1.7, rel=1e-4)
        torch.testing.assert_close(block / block.norm(), was / was.norm())


# -- trials


def tried(network, problem, steps, recipe, seed=0):
    optimizer = optimizer_of(network, recipe)
    lesson = Lesson(problem, Budget(steps=steps), recipe, seed)
    return run_trial(network, optimizer, lesson, lambda share, words: None)


def test_a_gru_recalls_and_a_network_without_a_memory_does_not():
    values = run(problem="recall", cells=("gru", "none"), lags=(5, 10), steps=300, parameters=5000, learning_rate=1e-2)
    gru, none = values["cells"]
    assert gru["longest_lag"] == 10 and in_words(gru, values) == "10 or more"
    assert [t["lag"] for t in gru["trials"]] == [5, 10]
    for trial in gru["trials"]:
        assert trial["score"] >= 0.95 and trial["learned_at"] == trial["steps"] == trial["curve"][-1]["step"] < 300
    assert none["longest_lag"] is None and in_words(none, values) == "under 5"
    (trial,) = none["trials"]  # it is not asked for more
    assert abs(trial["score"] - 1 / 8) < 0.05 and trial["steps"] == 300 and trial["learned_at"] is None
    assert gru["trials"][1]["steps"] <= 50 < gru["trials"][0]["steps"], "it goes on from what it learned"


def test_a_trial_repeats_by_its_seed():
    def told(**more):
        values = run(problem="adding", cells=("lstm",), lags=(12,), steps=230, parameters=400, **more)
        (trial,) = values["cells"][0]["trials"]
        return [{k: v for k, v in point.items() if k != "seconds"} for point in trial["curve"]]

    first = told()
    assert [point["step"] for point in first] == [100, 200, 230]
    assert told() == first and told(seed=1) != first
    assert told(clip=1e-3) != first and told(learning_rate=0.1) != first
    curves = []
    for seed in (0, 0, 1):  # the same weights, other sequences
        torch.manual_seed(0)
        network = Network(find_cell("gru"), 2, 4, 1)
        curves.append([p.loss for p in tried(network, Adding(4), 2, Recipe(0.01, 1.0), seed).curve])
    assert curves[0] == curves[1] != curves[2]


def test_the_score_is_of_the_best_weights():
    """Not of the last: for who thinks the largest error best, that is an early one."""

    class Perverse(Adding):
        def better(self, score, than):
            return score > than

        def learned(self, score):
            return False

    torch.manual_seed(0)
    problem = Perverse(4)
    network = Network(find_cell("gru"), 2, 8, 1)
    trial = tried(network, problem, 400, Recipe(1e-2, 1.0))
    scores = [point.score for point in trial.curve]
    assert trial.score == max(scores) > 2 * scores[-1]
    assert scored(network, problem, problem.held_out()) == trial.score


def test_a_budget_of_time_ends():
    values = run(problem="recall", cells=("none",), lags=(5,), minutes=0.005, parameters=300)
    (trial,) = values["cells"][0]["trials"]
    assert trial["seconds"] >= 0.3 and trial["curve"][-1]["step"] == trial["steps"]


def test_without_clipping_it_breaks_and_with_it_does_not():
    values = run(problem="exploding", steps=30)
    (cell,) = values["cells"]
    bare, clipped = cell["trials"]
    assert (bare["clip"], clipped["clip"]) == (None, 1.0) and values["spectral_radius"] == 1.5
    assert bare["broke"]["step"] == bare["steps"] < 30
    norms = bare["broke"]["norms"]
    assert norms and max(norms) > 100
    assert bare["curve"][0]["gradient_norm"] == clipped["curve"][0]["gradient_norm"], "the same beginning"
    assert clipped["broke"] is None and clipped["steps"] == 30
    assert clipped["score"] < 1 and clipped["curve"][-1]["gradient_norm"] < norms[-1] / 10
    # it is the radius that does it
    calm = run(problem="exploding", steps=10, spectral_radius=0.5)["cells"][0]["trials"][0]
    assert calm["broke"] is None and max(p["gradient_norm"] for p in calm["curve"]) < 10
    rows = trials(values)
    assert [row["clip"] for row in rows] == ["none", "1"] and rows[0]["learned"] == f"broke at {bare['broke']['step']}"


def test_where_it_broke_is_told():
    torch.manual_seed(0)
    network = Network(find_cell("rnn"), 2, 6, 1)
    with torch.no_grad():
        network.output.weight[0, 0] = math.nan
    trial = tried(network, Exploding(4), 5, Recipe(0.1, 1.0))
    assert (trial.broke.step, trial.broke.where, trial.broke.norms) == (1, "output.weight", [])
    assert trial.score is None and trial.learned_at is None and trial.curve == []
    json.dumps(trial.as_json(), allow_nan=False)


def test_the_longest_lag_in_words():
    values = {"lags": [5, 10, 20], "spectral_radius": None}
    found = [in_words({"longest_lag": lag}, values) for lag in (None, 5, 10, 20)]
    assert found == ["under 5", "5", "10", "20 or more"]


def test_a_table_fits_a_terminal_and_says_at_each_lag_what_is_not_the_same_at_all():
    trial = {
        "lag": 1000,
        "clip": None,
        "score": 0.020449,
        "chance": 0.0203859,
        "goal": 0.00203,
        "curve": [],
        "steps": 10_000,
    }
    trial |= {"learned_at": None, "broke": {"step": 9999, "norms": [1.34e30]}, "seconds": 1234.5}
    cells = [
        {"cell": name, "hidden_size": 100, "parameters": 70_123, "longest_lag": 1000, "trials": [trial, trial | more]}
        for name, more in (("layernorm-lstm", {"lag": 5}), ("package.module:OneOfMyOwnCells", {"chance": 0.9}))
    ]
    values = {"score": "nats", "spectral_radius": None, "lags": [5, 1000], "cells": cells}
    assert table_width(trials(values)) > 80
    lines = written(values, width=80).splitlines()
    assert max(map(len, lines)) == 80 and sum(line.startswith("packag…") for line in lines) == 2
    assert sum("broke at 9999" in line for line in lines) == 4 and "package.module:OneOfMyOwnCells" in written(values)
    assert "0.0204 " in written(values) and "chance" in trials(values)[0]
    values["cells"] = cells[:1]
    assert "chance" not in trials(values)[0]
    assert written(values).endswith("\n\nnats: 0.00203 counts as learned, 0.0204 needs no memory")


# -- the command


@pytest.fixture
def call(capsys):
    def run_it(*arguments):
        capsys.readouterr()
        code = main(["memory", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    return run_it


def test_the_json_the_table_and_the_files_say_the_same(call, tmp_path):
    pytest.importorskip("matplotlib")
    arguments = ("--problem", "recall", "--cells", "gru,none", "--lags", "2,4", "--steps", 150, "--parameters", 3000)
    arguments += ("--learning-rate", 0.01, "--out", tmp_path / "deep" / "out")
    code, out, err = call(*arguments, "--json")
    assert code == 0, err
    values = json.loads(out)
    folder = tmp_path / "deep" / "out"
    assert sorted(p.name for p in folder.iterdir()) == ["curves.png", "results.json", "table.md"]
    assert json.loads((folder / "results.json").read_text()) == values and values["finished"]
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "table.md").read_text() == written(values, markdown=True) + "\n"
    assert err.count(", lag ") == sum(len(c["trials"]) for c in values["cells"]) == 3
    assert [row["longest lag"] for row in networks(values)] == ["4 or more", "under 2"]
    rows = [line.split() for line in written(values).splitlines()]
    sizes = [[c["cell"], str(c["hidden_size"]), f"{c['parameters']:,}"] for c in values["cells"]]
    assert rows[1:3] == [[*sizes[0], "4", "or", "more"], [*sizes[1], "under", "2"]]
    for cell in values["cells"]:
        for trial in cell["trials"]:
            (row,) = [r for r in rows[4:] if r[:2] == [cell["cell"], str(trial["lag"])]]
            assert row[2] == f"{trial['score']:.4g}"
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    code, out, err = call(*arguments)
    assert (code, out) == (2, "") and "holds results" in err and "--overwrite" in err
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    code, out, err = call(*SMALL, "--lags", 2, "--out", folder, "--overwrite")
    assert code == 0 and out.split()[0] == "cell" and "0.125" in out
    assert json.loads((folder / "results.json").read_text())["lags"] == [2]


@pytest.mark.parametrize(
    ("problem", "more"),
    [("adding", ["--length", "6"]), ("copy", ["--lags", "2,3"]), ("exploding", []), ("mnist", None), ("pmnist", None)],
)
def test_every_problem_is_drawn(call, images, tmp_path, problem, more):
    pytest.importorskip("matplotlib")
    if more is None:
        more = ["--mnist", images[0]]
    out = tmp_path / "out"
    cells = [] if problem == "exploding" else ["--cells", "gru,rnn"]
    code, _, err = call("--problem", problem, *more, *cells, "--steps", "3", "--hidden", "4", "--out", out)
    assert code == 0, err
    values = json.loads((out / "results.json").read_text())
    assert values["problem"] == problem and all(c["hidden_size"] == 4 for c in values["cells"])
    assert values["lags"] == {"adding": [6], "copy": [2, 3], "exploding": [50]}.get(problem, [12])
    assert (out / "curves.png").stat().st_size > 10_000


def test_without_matplotlib_all_but_the_picture(call, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = call(*SMALL, "--lags", 2, "--out", tmp_path / "out")
    assert code == 0 and "matplotlib is not installed (pip install 'throughtime[plot]')" in err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["results.json", "table.md"]


def test_what_was_measured_before_an_interruption_is_kept(call, tmp_path, monkeypatch):
    def interrupted(*given):
        if given[2].problem.lag == 3:
            raise KeyboardInterrupt
        return replace(run_trial(*given), learned_at=1)

    monkeypatch.setattr("throughtime.laboratory.experiment.run_trial", interrupted)
    code, out, _ = call(*SMALL, "--lags", "2,3", "--out", tmp_path / "out")
    assert (code, out) == (130, "")
    values = json.loads((tmp_path / "out" / "results.json").read_text())
    assert not values["finished"] and [t["lag"] for t in values["cells"][0]["trials"]] == [2]


def test_the_curve_of_an_interrupted_trial_is_kept(call, tmp_path, monkeypatch):
    told = []

    class Stopped(Reporter):
        @contextmanager
        def counting(self, what, total, unit):
            def advance(share, words):
                told.extend([words] if words else [])
                if len(told) == 3:
                    raise KeyboardInterrupt

            yield advance

    monkeypatch.setattr("throughtime.training.progress.Reporter", Stopped)
    code, _, _ = call("--cells", "rnn", "--lags", 50, "--hidden", 4, "--steps", 1000, "--out", tmp_path / "out")
    assert code == 130
    (trial,) = json.loads((tmp_path / "out" / "results.json").read_text())["cells"][0]["trials"]
    assert [point["step"] for point in trial["curve"]] == [50, 100]
    assert (trial["steps"], trial["score"], trial["learned_at"]) == (100, None, None)
    assert told[1] == f"accuracy {trial['curve'][1]['score']:.4g} after 100 steps"
    assert "| 50 | none |" in (tmp_path / "out" / "table.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--problem", "ading"], "unknown problem 'ading'; did you mean 'adding'?"),
        (["--cells", "gru,lstn"], "unknown cell 'lstn'; did you mean 'lstm'?"),
        (["--cells", "gru,gru"], "gru stands there twice"),
        (["--cells", ""], "unknown cell ''"),
        (["--lags", "5,ten"], "got '5,ten'"),
        (["--lags", "10,5"], "got 10,5; at least 1, and rising"),
        (["--problem", "adding", "--lags", "1"], "at least 2"),
        (["--lags", "0"], "at least 1"),
        (["--minutes", "1", "--steps", "5"], "two budgets"),
        (["--minutes", "0"], "--minutes: got 0.0; it must be over 0"),
        (["--steps", "0"], "--steps: got 0; at least 1"),
        (["--hidden", "4", "--parameters", "100"], "give one"),
        (["--hidden", "-1"], "--hidden: got -1"),
        (["--parameters", "9"], "rnn: has at least 28 parameters; --parameters asks for 9"),
        (["--learning-rate", "nan"], "--learning-rate: got nan"),
        (["--clip", "0"], "--clip: got 0.0"),
        (["--seed", "-1"], "--seed: got -1"),
        (["--threads", "-1"], "--threads: got -1"),
        (["--threads", "100000"], "--threads: got 100000; from 0 to"),
        (["--threads", "9" * 20], "from 0 to"),
        (["--threads", "1.5"], "threads"),
        (["--seed", "1.5"], "seed"),
        (["--lags", "99999999999999"], "--lags: got 99999999999999; at most 1,000,000"),
        (["--parameters", "10000000000000"], "parameters at a width of 8,192; --parameters asks for 10000000000000"),
        (["--hidden", "1000000"], "--hidden: got 1000000; at most 8,192"),
        (["--problem", "mnist"], "--mnist: mnist reads images"),
        (["--problem", "mnist", "--mnist", "nowhere"], "no such file"),
        (["--problem", "pmnist", "--mnist", ".", "--lags", "5"], "one length"),
        (["--mnist", "."], "recall reads no images"),
        (["--spectral-radius", "2"], "for the problem exploding"),
        (["--problem", "exploding", "--cells", "indrnn"], "indrnn: has no recurrent weights"),
        (["--problem", "exploding", "--cells", "none"], "none: has no recurrent weights"),
        (["--cels", "gru"], "did you mean '--cells'?"),
    ],
)
def test_what_cannot_be_measured_is_refused(call, tmp_path, arguments, words):
    code, out, err = call(*arguments, "--out", tmp_path / "out")
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert words in err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_left_alone(call, tmp_path):
    (tmp_path / "mine").write_text("precious")
    for out, words in ((tmp_path, "is not empty and holds no results"), (tmp_path / "mine", "is a file")):
        code, _, err = call(*SMALL, "--out", out, "--overwrite")
        assert code == 2 and words in err
    assert (tmp_path / "mine").read_text() == "precious" and len(list(tmp_path.iterdir())) == 1
