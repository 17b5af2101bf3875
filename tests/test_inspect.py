"""Looking inside trained networks: numbers against independent computations, the page and the pictures against the numbers."""

import contextlib
import dataclasses
import functools
import importlib.util
import io
import itertools
import json
import math
import random
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import throughtime as tt
from throughtime.cli import main
from throughtime.errors import UserError
from throughtime.inspect.finding import content_output, held_for, used_for
from throughtime.inspect.gradients import Curve, _back_from, gradients_of, gradients_of_each, summarise
from throughtime.inspect.influence import influence
from throughtime.inspect.jacobian import stretching
from throughtime.inspect.page import page
from throughtime.inspect.report import look_into
from throughtime.inspect.units import features_of, followers, gates_of, openness, order_of, time_constants
from throughtime.inspect.words import in_words
from throughtime.scanning.observe import observing
from throughtime.tasks.look import Look, Stack, Steps, visible
from throughtime.tasks.source import Source

pytestmark = pytest.mark.usefixtures("_one_thread")
F64 = torch.float64

SENTENCES = ["the cat saw the dog", "a dog saw the saw", "the saw cut a dog", "a cat can see the can"] * 8
TAGS = {"the": "D", "a": "D", "cat": "N", "dog": "N", "cut": "V", "see": "V"}
FIRST = {"text": "the cat saw the dog\na dog saw", "classify": "the cat saw the dog", "tag": "a dog saw the saw"}
FIRST["translate"] = "the cat saw"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A small trained network of every task."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "text.txt").write_text("\n".join(SENTENCES) + "\n")
    (folder / "labels.tsv").write_text(
        "text\tlabel\n" + "".join(f"{s}\t{'animal' if 'cat' in s else 'thing'}\n" for s in SENTENCES)
    )
    tagged = []
    for sentence in SENTENCES:
        words = sentence.split()
        for i, w in enumerate(words):
            before = words[i - 1] if i else ""
            tagged.append(f"{w}\t{TAGS.get(w) or ('N' if before in ('the', 'a') else 'V')}")
        tagged.append("")
    (folder / "tagged.tsv").write_text("\n".join(tagged) + "\n")
    (folder / "pairs.tsv").write_text("".join(f"{s}\t{' '.join(reversed(s.split()))}\n" for s in SENTENCES))
    size = {"hidden_size": 12, "embedding_size": 10}
    rate = {"learning_rate": 1e-2, "batch_size": 8, "evaluations": 3}
    many = {
        "text": ("text.txt", {**size, "layers": 2, "cell": "gru", "tokens": "characters"}, {**rate, "chunk": 20}, 60),
        "classify": ("labels.tsv", {**size, "pooling": "attention", "dropout": 0.1, "word_dropout": 0.1}, rate, 30),
        "tag": ("tagged.tsv", {**size, "character_size": 6}, rate, 60),
        "translate": ("pairs.tsv", {**size, "tokens": "words"}, rate, 60),
    }
    return {
        task: tt.train(
            task, [folder / file], out=folder / task, steps=steps, model=model, training=training, progress=False
        )
        for task, (file, model, training, steps) in many.items()
    }


TASKS = ["text", "classify", "tag", "translate"]


# Gradients through time


@pytest.mark.parametrize("rate", [0.5, 0.8, 0.99, 1.3])
def test_a_curve_of_known_rate(rate):
    steps = np.arange(40)
    curves = [7.0 * rate**steps, 0.01 * rate ** steps[:30], np.zeros(0)]
    found = summarise(Curve(c, False) for c in curves)
    assert found.rate == pytest.approx(rate)
    assert found.norms == pytest.approx((rate**steps).tolist())
    assert found.scale == pytest.approx(math.sqrt(7.0 * 0.01))
    assert found.inputs == [2] * 30 + [1] * 10 and max(found.spread) < 1e-9
    if rate < 1:
        for horizon, share in ((found.horizon_e, 1 / math.e), (found.horizon_1, 0.01)):
            expected = math.log(share) / math.log(rate)
            assert horizon == (pytest.approx(expected) if expected < 39 else None)
    assert found.verdict == {0.5: "vanishing", 0.8: "healthy", 0.99: "healthy", 1.3: "exploding"}[rate]


KNOWN = {
    "falls to 0.3 in a step and stays": (0.3 * np.r_[1 / 0.3, np.ones(40)], "mostly the newest step"),
    "1/e after 0.87 steps and a tail": (np.r_[1.0, 0.2736, 0.2 * 0.98 ** np.arange(40)], "mostly the newest step"),
    "0.3 a step": (0.3 ** np.arange(30), "vanishing"),
    "1/e after 1.9 steps and a tail": (np.r_[1.0, 0.7, 0.34, 0.3 * np.ones(30)], "mostly the newest step"),
    "1/e after 2.1 steps and a tail": (np.r_[1.0, 0.7, 0.38, 0.3 * np.ones(30)], "healthy"),
    "a plateau": (np.ones(30), "healthy"),
    "0.9 a step": (0.9 ** np.arange(60), "healthy"),
    "short, and gone": (0.1 ** np.arange(4), "vanishing"),
    "short, and fallen": (np.array([1.0, 0.3, 0.25, 0.2]), "mostly the newest step"),
    "short, and still there": (np.array([1.0, 0.8, 0.7, 0.6]), "too short to tell"),
    "short, and slowly fading": (0.7 ** np.arange(6), "too short to tell"),
    "short, and grown": (3.0 ** np.arange(4), "exploding"),
    "one step": (np.ones(1), "too short to tell"),
    "not a number": (np.array([1.0, np.nan, 0.5]), "broken"),
}


@pytest.mark.parametrize("shape", KNOWN)
def test_a_verdict_is_of_what_is_seen(shape):
    curve, verdict = KNOWN[shape]
    found = summarise([Curve(7 * curve, True)])
    assert found.verdict == verdict
    longer = "inputs of more than 8 steps would tell" in found.advice
    assert longer == (verdict == "too short to tell" or shape == "short, and fallen")


def test_what_explodes_on_the_way_explodes():
    """A verdict is of the whole curve, not of its last step, nor of its first."""

    def verdict(norms):
        return summarise([Curve(np.array(norms, dtype=float), False)]).verdict

    up, down = 1.5 ** np.arange(12), 1.5 ** np.arange(11, -1, -1)
    assert verdict([*up, *down]) == "exploding"  # and back to where it was
    assert verdict([*up, *(0.01 * down)]) == "exploding"
    assert verdict([*([1.0] * 20), 11.0]) == "exploding"
    assert verdict([*([1.0] * 20), 9.0]) == verdict([*([1.0] * 10), 9.0, *([1.0] * 10)]) == "healthy"
    assert verdict([*(0.5 ** np.arange(20)), *([1.0] * 10)]) == "healthy"  # what was gone has come back
    assert verdict([*(0.5 ** np.arange(20)), *([0.001] * 10)]) == "vanishing"


def test_curves_that_say_little():
    def of(norms, gated=False):
        return summarise([Curve(np.array(norms), gated)])

    assert of([1.0] * 5).verdict == "too short to tell"
    assert of([1.0, np.nan] * 10).verdict == "broken"
    assert "certain" in of([0.0] * 20).advice
    assert of([1.0, 0.001, 0.5, 0.4, *[0.3] * 20]).horizon_1 is None  # it comes back
    assert of([1.0]).rate is None and of([1.0]).norms == [1.0]
    fades = 0.5 ** np.arange(30)
    assert "--model.cell" in of(fades).advice and "gates" in of(fades, gated=True).advice


@pytest.mark.parametrize("task", TASKS)
def test_gradients_are_counted_back_from_the_output_and_leave_the_weights_alone(runs, task):
    model = runs[task]
    look = model.look(model.task.item(FIRST[task]))
    held = torch.ones(())
    some = next(model.network.parameters())
    some.grad = held.expand_as(some)
    curves = gradients_of(model, look, len(look.outputs) - 1)
    assert some.grad.eq(1).all() and sum(p.grad is not None for p in model.network.parameters()) == 1
    some.grad = None
    with observing(gradients=True) as scans:
        score = look.score(look.batch)
    (-score[-1]).backward(retain_graph=True)
    model.network.zero_grad()
    names = {id(m): n for n, m in model.network.named_modules()}
    checked = 0
    for scan in scans:
        name = names.get(id(scan.cell))
        if name in curves and not scan.reverse:
            norms = sum(g[:, 0].double().square().sum(-1) for g in scan.gradients).sqrt().flip(0)
            if len(norms) != len(look.outputs):  # by hand, from each state on, through the last output alone
                assert norms[1] != pytest.approx(curves[name].norms[1], rel=1e-3), "the rest goes past time"
                (slope,) = torch.autograd.grad(-score[-1], scan.outputs, retain_graph=True)
                norms = norms.clone()
                for t in range(len(norms)):
                    state = tuple(s[t].detach().requires_grad_() for s in scan.states)
                    now = state if len(state) > 1 else state[0]
                    for x in scan.inputs[t + 1 :].detach():
                        now = scan.cell(x, now)
                    last = now[0] if len(state) > 1 else now
                    slopes = torch.autograd.grad((slope[-1] * last).sum(), state, materialize_grads=True)
                    norms[len(norms) - 1 - t] = math.hypot(*(float(g.norm()) for g in slopes))
            np.testing.assert_allclose(curves[name].norms, norms, rtol=1e-5)
            checked += 1
            assert curves[name].gated
            assert norms[0] > 0 and len(norms) == len(look.stacks[name.rpartition(".cells.")[0]].steps)
    assert checked == {"text": 2, "classify": 1, "tag": 1, "translate": 3}[task]


def test_a_curve_begins_where_anything_came_of_the_state():
    """A cell whose output is made of the state before: of the state after the step of an output nothing comes of it."""
    norms = np.array([8.0, 4.0, 2.0, 0.0, 7.0])

    def found(*asked):
        back, skipped = _back_from(*asked)
        return back.tolist(), skipped

    assert found(norms, 3, False) == ([2, 4, 8], 1)
    assert found(norms[::-1], 1, True) == ([2, 4, 8], 1)
    assert found(norms, 4, False) == ([7, 0, 2, 4, 8], 0)
    assert found(np.zeros(3), 2, False) == ([0, 0, 0], 0)


def test_a_linear_network_forgets_at_its_own_rate():
    cell = tt.cells.Elman(2, 3, nonlinearity="relu").double()
    with torch.no_grad():
        cell.weight_hh.copy_(torch.diag(torch.tensor([0.9, 0.5, 1.1], dtype=F64)))
        cell.weight_ih.abs_()
        cell.bias_ih.fill_(0.1), cell.bias_hh.zero_()
    x = torch.rand(32, 1, 2, dtype=F64)
    with observing(gradients=True) as scans:
        outputs, _, _ = tt.scan(cell, x)
    outputs[-1, 0, 2].backward()
    norms = scans[0].gradients[0][:, 0].norm(dim=-1).flip(0)
    np.testing.assert_allclose(norms, 1.1 ** np.arange(32))
    found = stretching(scans[0])
    np.testing.assert_allclose(found.exponents, np.log([1.1, 0.9, 0.5]), atol=1e-5)  # over 32 steps
    assert found.steps == [1, 2, 4, 8, 16, 32]
    for t, row in zip(found.steps, found.singular, strict=True):
        np.testing.assert_allclose(row, t * np.log([1.1, 0.9, 0.5]), atol=1e-9)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", ["lstm", "gru", "indrnn", "layernorm-lstm"])
def test_singular_values_against_the_whole_derivative(name, reverse):
    torch.manual_seed(0)
    cell, x = tt.cells.NAMED[name](3, 4).double(), torch.randn(8, 1, 3, dtype=F64)
    like = tt.scan(cell, x).state
    first = tuple(torch.randn_like(s) for s in like) if isinstance(like, tuple) else torch.randn_like(like)
    with observing() as scans:
        tt.scan(cell, x, first, reverse=reverse)
    flat = torch.cat([s.flatten() for s in (first if isinstance(first, tuple) else (first,))])

    def run(start):
        parts = tuple(p.view(1, -1) for p in start.split(4))
        _, end, _ = tt.scan(
            cell, x, parts if isinstance(first, tuple) else parts[0], reverse=reverse, backend="reference"
        )
        return torch.cat([e.flatten() for e in (end if isinstance(end, tuple) else (end,))])

    whole = torch.linalg.svdvals(torch.autograd.functional.jacobian(run, flat))
    found = stretching(scans[0])
    assert found.steps[-1] == 8
    np.testing.assert_allclose(np.exp(found.singular[-1]), whole[:8], rtol=1e-6, atol=1e-12)


def test_a_known_matrix_gives_its_rates_horizon_and_exponents():
    """h_t = W h_{t-1} + b with h over 0: ∂h_T[i]/∂h_t = Wᵏ, whose every row goes like the largest eigenvalue."""
    values = np.array([0.95, 0.7, 0.4])
    vectors = np.array([[1.0, 0.2, 0.1], [0.3, 1.0, -0.2], [0.1, 0.4, 1.0]])
    w = vectors @ np.diag(values) @ np.linalg.inv(vectors)  # not normal: its singular values are others
    cell = tt.cells.Elman(2, 3, nonlinearity="relu").double()
    with torch.no_grad():
        cell.weight_hh.copy_(torch.from_numpy(w))
        cell.weight_ih.zero_(), cell.bias_ih.fill_(1.0), cell.bias_hh.zero_()
    with observing(gradients=True) as scans:
        outputs, _, _ = tt.scan(cell, torch.rand(64, 1, 2, dtype=F64), torch.ones(1, 3, dtype=F64))
    assert (outputs > 0).all()
    left = np.linalg.inv(vectors)[0]  # Wᵀ left = 0.95 left: what goes back along it fades at one rate alone
    (outputs[-1, 0] @ torch.from_numpy(left)).backward()
    norms = scans[0].gradients[0][:, 0].norm(dim=-1).flip(0).numpy()
    found = summarise([Curve(norms, False)])
    assert found.rate == pytest.approx(0.95, abs=1e-6)
    assert found.horizon_e == pytest.approx(-1 / math.log(0.95), abs=1e-6)
    assert found.horizon_1 is None  # after 90 steps
    stretched = stretching(scans[0])
    np.testing.assert_allclose(stretched.exponents, np.log(values), atol=1e-6)
    for t, row in zip(stretched.steps, stretched.singular, strict=True):
        np.testing.assert_allclose(
            np.exp(row), np.linalg.svd(np.linalg.matrix_power(w, t), compute_uv=False), atol=1e-9
        )


# What mattered


@pytest.mark.parametrize("task", TASKS)
def test_influence_against_doing_it(runs, task):
    model = runs[task]
    look = model.look(model.task.item(FIRST[task]))
    output = len(look.outputs) - 1
    found = influence(model, look, range(len(look.outputs)))[output]
    with torch.no_grad():
        p = look.distribution(look.batch)[output].exp()
    assert float(p.sum()) == pytest.approx(1, abs=1e-4)
    chosen = [k for k in range(len(p)) if look.names(k) == found.chosen]
    assert found.probability == pytest.approx(float(p[chosen[0]]), abs=1e-6) and len(chosen) == 1
    assert found.chosen == look.outputs.labels[output]
    assert len(found.removal) == len(found.gradient) == len(look.inputs)
    with observing(gradients=True) as scans:
        score = look.score(look.batch)
    given = next(scan.inputs for scan in scans if len(scan.inputs) == len(look.inputs))
    for one in influence(model, look, range(len(look.outputs))):
        (slope,) = torch.autograd.grad(score[one.output], given, retain_graph=True)
        assert one.gradient == pytest.approx((slope * given).sum(-1)[:, 0].tolist(), rel=1e-3, abs=1e-6)
    moved = [r for r in found.removal if r is not None]
    assert max(map(abs, moved)) > 1e-4 and max(map(abs, found.gradient)) > 1e-6
    if task == "text":  # removal: by hand, from the network
        assert found.removal[0] is None
        tokens = model.tokens.encode(FIRST["text"]).astype("int64")
        for i in (3, len(tokens)):
            other = torch.tensor([1, *tokens]).unsqueeze(1)
            other[i] = 0
            with torch.no_grad():
                log_p, _ = model.network.read(other, None)
            assert found.removal[i] == pytest.approx(math.log(found.probability) - float(log_p[0, chosen]), abs=1e-4)
    if found.attention is not None:
        assert sum(found.attention) == pytest.approx(1, abs=1e-5)
    assert (found.attention is not None) == (task in ("classify", "translate"))


def test_what_is_called_influential_is_so_on_200_held_out_inputs(tmp_path):
    """Labels hang on one word of nine: deleting what `inspect` points at moves the answer, deleting what it does not, does not."""
    rng = random.Random(0)

    def rows(count):
        for _ in range(count):
            words = [rng.choice(["it", "was", "the", "film", "and", "we", "saw", "him"]) for _ in range(8)]
            good = rng.random() < 0.5
            words.insert(rng.randrange(9), rng.choice(["fine", "great"] if good else ["dull", "bad"]))
            yield f"{' '.join(words)}\t{'good' if good else 'poor'}\n"

    for name, count in (("train", 400), ("held", 200)):
        (tmp_path / f"{name}.tsv").write_text("text\tlabel\n" + "".join(rows(count)))
    sizes = {
        "hidden_size": 12,
        "embedding_size": 12,
        "counts": False,
        "spelling": False,
        "dropout": 0.1,
        "word_dropout": 0.0,
    }
    model = tt.train(
        "classify",
        [tmp_path / "train.tsv"],
        out=tmp_path / "run",
        steps=120,
        model=sizes,
        training={"learning_rate": 1e-2, "evaluations": 2},
        progress=False,
    )
    spec = importlib.util.spec_from_file_location(
        "influence_200", Path(__file__).parents[1] / "benchmarks" / "influence.py"
    )
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    found = script.measure(model, script.inputs_of(model, tmp_path / "held.tsv", 200))
    for way in ("gradient", "removal"):
        assert found[way]["inputs"] == 200
        assert found[way]["larger"] > 0.9
        assert found[way]["most"] > 0.2 > 0.05 > found[way]["least"]


def looked(model, text):
    """An item, and how likely the network takes each answer for."""
    look = model.look(model.task.item(text))
    return look, look.score(look.batch).detach()


def test_a_look_answers_as_the_model_does(runs):
    tags = next(runs["tag"].predict([FIRST["tag"]]))["tags"]
    assert looked(runs["tag"], FIRST["tag"])[0].outputs.labels == tags
    label = next(runs["classify"].predict([FIRST["classify"]]))
    look, score = looked(runs["classify"], FIRST["classify"])
    assert look.outputs.labels == [label["label"]]
    assert float(score.exp()) == pytest.approx(label["probability"], abs=1e-5)
    found = look.distribution(look.batch).detach().exp()[0]
    assert [float(p) for p in found] == pytest.approx(
        [label["probabilities"][n] for n in runs["classify"].labels], abs=1e-5
    )
    translated = next(runs["translate"].predict([FIRST["translate"]]))
    look, score = looked(runs["translate"], FIRST["translate"])
    assert look.outputs.labels[-1] == "</s>" and " ".join(look.outputs.labels[:-1]) == translated["translation"]
    assert float(score.sum()) == pytest.approx(translated["log_probability"], abs=1e-3)
    scored = next(runs["text"].predict(["the cat"]))
    _, score = looked(runs["text"], "the cat")
    assert float(score[:-1].sum()) == pytest.approx(scored["log_probability"], abs=1e-3)


# Units


def test_units_that_move_alike_stand_together():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 30, 1))
    states = np.concatenate([a, b, a * 0.5, b * 2, a + 3, b - 1], 1)
    order = order_of(states)
    assert sorted(order) == list(range(6))
    assert {frozenset(order[:3]), frozenset(order[3:])} == {frozenset({0, 2, 4}), frozenset({1, 3, 5})}


def test_gates_are_what_opens_and_closes():
    torch.manual_seed(0)
    for name, gates in {
        "lstm": {"input", "forget", "output"},
        "gru": {"reset", "update"},
        "elman": set(),
        "minimal-gated": {"update", "keep"},
    }.items():
        cell = tt.cells.NAMED[name](3, 4)
        with observing() as scans:
            tt.scan(cell, torch.randn(20, 1, 3))
        found = gates_of(scans[0])
        assert set(found) == gates, name
        constants = time_constants(scans[0], found)
        assert (constants is None) == (name == "elman")
        if constants is not None:
            kept = found[{"lstm": "forget", "gru": "update", "minimal-gated": "keep"}[name]].mean(0)
            np.testing.assert_allclose(np.exp(-1 / np.array(constants)), kept, rtol=1e-4)


@pytest.mark.parametrize("f", [0.5, 0.9, 0.99])
def test_a_pinned_forget_gate_gives_its_time_constant(f):
    """c_t = f c_{t-1}: after -1 / ln f steps 1/e of it is left."""
    cell = tt.cells.LSTM(2, 3).double()
    with torch.no_grad():
        cell.weight_ih[3:6], cell.weight_hh[3:6] = 0, 0
        tt.cells.set_forget_bias_(cell, math.log(f / (1 - f)))
    with observing() as scans:
        tt.scan(cell, torch.randn(20, 1, 2, dtype=F64))
    found = time_constants(scans[0], gates_of(scans[0]))
    assert found == pytest.approx([-1 / math.log(f)] * 3, rel=1e-9)
    assert f ** found[0] == pytest.approx(1 / math.e)


def test_how_open_a_gate_is():
    found = openness(np.array([[0.05, 0.95, 0.5], [0.0, 0.99, 0.95]]))
    assert found["closed"] == [1, 0, 0] and found["open"] == [0, 1, 0.5]
    assert found["mean"] == pytest.approx([0.025, 0.97, 0.725])


def test_a_unit_that_follows_something_is_found():
    steps = list('he said "no, not 9" to me.\nand then "yes" he went on')
    features = features_of(Steps(steps), [])
    assert features["inside quotes"][9:18].all() and not features["inside quotes"][:8].any()
    assert (
        features["characters since the line began"][27] == 0 and features["characters since the line began"][26] == 26
    )
    assert features["digit"].sum() == 1 and features["position"][5] == 5
    rng = np.random.default_rng(0)
    states = rng.normal(size=(len(steps), 10))
    states[:, 7] = 2 - 3 * features["inside quotes"] + 0.1 * rng.normal(size=len(steps))
    found = {f["feature"]: f for f in followers(states, features)}
    assert found["inside quotes"]["unit"] == 7 and found["inside quotes"]["correlation"] < -0.95
    assert followers(states[:5], {k: v[:5] for k, v in features.items()}) == []
    answers = features_of(Steps(["a"] * 6), ["N", "V", "N", "V", "N", "V"])
    assert set(answers) == {"position", "characters since the line began", "answer N", "answer V"}


# The report, the page, the pictures, the command


def test_what_is_too_long_is_cut_and_said(runs):
    with (
        pytest.warns(UserWarning, match=r"a sentence of 1,667 words is too long to be shown: its first 300 are read"),
        pytest.warns(UserWarning, match=r"told of 133 of 300 outputs, 167 to 299 \(--output takes others\)"),
    ):
        values = look_into(runs["tag"], [" ".join(["a dog"] * 833) + " a"])
    assert len(values["inputs"]) == 300 and values["shown"] == 299
    assert [one["output"] for one in values["influence"]] == list(range(167, 300))
    with pytest.warns(UserWarning, match=r"its first 3,000 are read"):
        look_into(runs["classify"], ["a" * 5000])


def test_what_a_language_model_never_saw_is_said(runs):
    with pytest.warns(UserWarning, match="the model never saw these, and reads them as unknown: Q"):
        look_into(runs["text"], ["the Q"])


def test_units_follow_the_text_and_not_how_a_token_is_written(tmp_path):
    (tmp_path / "t.txt").write_text("the cat saw 7 dogs\n" * 40)
    sizes = {"hidden_size": 8, "embedding_size": 8, "tokens": "bytes"}
    model = tt.train(
        "text", [tmp_path / "t.txt"], out=tmp_path / "run", steps=5, model=sizes, training={"chunk": 20}, progress=False
    )
    inputs = model.look("é 7\nC").inputs
    assert inputs.texts == ["", "", "é", " ", "7", "\n", "C"]
    assert inputs.labels[1] == "<c3>"
    features = features_of(inputs, [])
    assert features["digit"].tolist() == [0, 0, 0, 0, 1, 0, 0]
    assert features["capital"].tolist() == [0] * 6 + [1]
    assert features["characters since the line began"].tolist() == [0, 0, 0, 1, 2, 3, 0]
    assert "length" not in features


@pytest.mark.parametrize("task", TASKS)
def test_the_report_of_every_task(runs, task):
    values = look_into(runs[task], [FIRST[task] + "\n", "the dog saw the cat\n", "\n"])
    assert json.loads(json.dumps(values)) == values
    stacks = {"text": {"stack": 2}, "classify": {"reader.stack": 2}, "tag": {"stack": 2}}
    stacks["translate"] = {"encoder.stack": 2, "first": 1, "second": 1}
    found = {s: sum(layer["stack"] == s for layer in values["layers"]) for s in stacks[task]}
    assert found == stacks[task] and len(values["layers"]) == sum(found.values())
    assert values["averaged_over"] == (1 if task == "text" else 2)
    assert [one["output"] for one in values["influence"]] == list(range(len(values["outputs"])))
    look = runs[task].look(runs[task].task.item(FIRST[task]))
    outputs = range(len(look.outputs))
    if task != "text":  # whose lines are one text
        for one, curves in zip(values["influence"], gradients_of_each(runs[task], look, outputs), strict=True):
            for name, left in one["through_time"].items():
                norms = curves[name].norms[: len(left)]
                assert left == pytest.approx(norms / norms[0], rel=5.1e-3) and left[0] == 1
    one = values["influence"][values["shown"]]
    assert values["finding"] == f"{one['finding']} {values['memory']}" and one["finding"].startswith("To ")
    for layer in values["layers"]:
        assert layer["reverse"] == (layer["name"].endswith("cells.1") and task != "text")
        assert layer["depth"] == (1 if task == "text" and layer["name"].endswith("1") else 0)
        for rows in layer["states"].values():
            assert len(rows) == len(layer["steps"]) and {len(r) for r in rows} == {12}
        assert sorted(layer["order"]) == list(range(12))
        assert values["gradients"][layer["name"]]["norms"][0] == 1
        assert layer["stretching"]["exponents"] == sorted(layer["stretching"]["exponents"], reverse=True)
    if task != "translate":  # a search does not always take the likeliest
        assert [p[0][0] for p in values["likeliest"]][-1] == values["outputs"][-1]


def test_pieces_of_a_text_are_the_text(runs):
    lines = [line + "\n" for line in SENTENCES]
    parts = list(runs["text"].pieces(Source.of(lines), 50))
    assert "".join(parts) == "".join(lines) and {len(p) for p in parts[:-1]} == {50}
    tagged = runs["tag"].pieces(Source.of(["a b\n", " \n", "c\r\n"]), 50)
    assert [s.words for s in tagged] == [["a", "b"], [], ["c"]]


@pytest.mark.parametrize("kind", ["words", "bpe"])
def test_pieces_end_between_words(tmp_path, kind):
    text = "".join(f"line {i}, of words.\n" for i in range(300))
    (tmp_path / "t.txt").write_text(text)
    sizes = {"hidden_size": 4, "embedding_size": 4, "tokens": kind, "vocabulary": 60}
    model = tt.train(
        "text", [tmp_path / "t.txt"], out=tmp_path / "r", steps=1, model=sizes, training={"chunk": 20}, progress=False
    )
    strange = text.replace("line 7,", "ünheard 7,")
    parts = list(model.pieces(Source.of(strange.splitlines(keepends=True)), 50))
    assert "".join(parts) == strange
    assert all(a[-1:].isspace() or b[:1].isspace() for a, b in itertools.pairwise(parts))
    counts = [len(model.tokens.encode(part)) for part in parts[:-1]]
    assert min(counts) >= 30 and max(counts) <= 70


def test_the_page_holds_the_numbers_and_asks_for_nothing(runs):
    values = look_into(runs["tag"], ["the </script><!-- cat"])
    html = page(values)
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S).group(1)
    assert json.loads(data) == values
    assert "</script><!--" not in html
    assert not re.search(r"https?://|src=|@import|url\((?!#)", html.replace(data, ""))


@pytest.fixture(scope="module")
def opened(runs, tmp_path_factory):
    """Writes the page and the JSON of a task's run by the command. Returns: the page's file and the values."""

    @functools.cache
    def write(task):
        folder = tmp_path_factory.mktemp(task)
        (folder / "in.txt").write_text(FIRST[task] + "\n")
        arguments = ["inspect", str(runs[task].run.folder), str(folder / "in.txt")]
        assert main([*arguments, "--out", str(folder / "page.html")]) == 0
        with contextlib.redirect_stdout(io.StringIO()) as out:
            assert main([*arguments, "--json"]) == 0
        return folder / "page.html", json.loads(out.getvalue())

    return write


CUT = """() => [...document.querySelectorAll("svg")].flatMap(svg => {
  const f = svg.getBoundingClientRect(), box = text => text.getBoundingClientRect();
  const outside = b => b.left < f.left - 1 || b.right > f.right + 1 || b.top < f.top - 1 || b.bottom > f.bottom + 1;
  const texts = [...svg.querySelectorAll("text")].filter(t => box(t).width);
  const along = (a, b, low, high) => Math.min(a[high], b[high]) - Math.max(a[low], b[low]);
  const meet = (a, b) => along(a, b, "left", "right") > 1 && along(a, b, "top", "bottom") > 2;
  const boxes = [...svg.querySelectorAll("rect[rx]")];
  const over = texts.filter((t, i) => [...boxes, ...texts.slice(i + 1)].some(o => meet(box(t), box(o))));
  return [...texts.filter(t => outside(box(t))), ...over].map(t => t.textContent);
})"""


def cut_texts(tab):
    """Texts of the page's pictures that are not wholly within them, or stand over each other or a box."""
    return tab.evaluate(CUT)


@contextlib.contextmanager
def page_of(chromium, file, width=1280):
    """A page in the browser, of which no error may be said."""
    with chromium.new_context(viewport={"width": width, "height": 800}, offline=True) as context:
        tab, wrong = context.new_page(), []
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("console", lambda message: wrong.append(message.text))
        tab.goto(file.as_uri())
        yield tab
        assert not wrong


def same_figure(words, value):
    """Whether the page's three digits are those of `value`."""
    return float(words) == pytest.approx(value, rel=5.1e-3, abs=1e-12)


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
@pytest.mark.parametrize("task", TASKS)
def test_the_page_in_a_browser(chromium, opened, task, width, scheme):
    """Opened from disk it asks for nothing else, says no error, and what it tells of a point is what the JSON holds."""
    file, values = opened(task)
    with chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True) as context:
        tab, asked, wrong = context.new_page(), [], []
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("console", lambda message: wrong.append(message.text))
        tab.goto(file.as_uri())
        assert not cut_texts(tab), "texts that end outside of their picture"
        tab.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        assert not cut_texts(tab)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, "the page is wider than the screen"
        dark = tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 29)"
        assert dark == (scheme == "dark")

        def tip(place):
            place.scroll_into_view_if_needed()
            tab.mouse.move(0, 0)
            place.hover()
            assert tab.locator("#tip").is_visible()
            return tab.locator("#tip").inner_text()

        layer = values["layers"][-1]
        name, states = next(iter(layer["states"].items()))
        box = tab.locator(f'rect[data-tip^="{name}_0 after"]').last
        mean = re.search(r"mean size (\S+)", tip(box)).group(1)
        assert same_figure(mean, np.abs(states[0]).mean())

        dots = tab.locator('circle[data-tip*="gradient left"]')  # what is too faint to be drawn is left out
        told = [dots.nth(i).get_attribute("data-tip").splitlines() for i in range(dots.count())]
        norms = [
            n
            for layer in values["layers"]
            for n in values["gradients"].get(layer["name"], {"norms": []})["norms"]
            if n > 1e-6
        ]
        assert min(norms) > 1e-6
        assert len(told) == len(norms)
        assert all(same_figure(t[2].split(": ")[1], n) for t, n in zip(told, norms, strict=True))
        assert tip(dots.last).splitlines() == told[-1]

        canvas = tab.locator("canvas").first
        rows, order = next(iter(values["layers"][0]["states"].values())), values["layers"][0]["order"]
        canvas.scroll_into_view_if_needed()
        frame = canvas.bounding_box()
        for t, place in ((0, 3), (len(rows) - 1, len(order) - 1)):
            x = frame["x"] + (t + 0.5) * frame["width"] / len(rows)
            if x < width:
                tab.mouse.move(x, frame["y"] + (place + 0.5) * frame["height"] / len(order))
                words = tab.locator("#tip").inner_text()
                assert words.startswith(f"unit {order[place]}, after ")
                assert same_figure(words.split(": ")[-1], rows[t][order[place]])

        removed = tab.locator(".tokens").first.locator("span[data-tip]").first
        words, value = tip(removed).split(": ")[-1], values["influence"][values["shown"]]["removal"][0]
        assert words == "cannot be taken away" if value is None else same_figure(words, value)
    assert not wrong
    assert asked == [file.as_uri()]


@pytest.mark.parametrize("task", ["text", "tag", "translate"])
def test_an_answer_is_chosen_by_clicking_and_by_keys(chromium, opened, task):
    file, values = opened(task)
    with page_of(chromium, file) as tab:

        def told(number):
            one = values["influence"][number]
            assert tab.locator(".finding").inner_text() == f"{one['finding']} {values['memory']}"
            pressed = tab.locator('.answers button[aria-pressed="true"]')
            assert pressed.count() == 1 and pressed.get_attribute("data-output") == str(number)
            spans = tab.locator(".tokens").first.locator("span[data-tip]")
            assert spans.count() == len(values["inputs"])
            for i, removal in enumerate(one["removal"]):
                words = spans.nth(i).get_attribute("data-tip").rpartition(": ")[2]
                assert words == "cannot be taken away" if removal is None else same_figure(words, removal)
            dashed = tab.locator("polyline[stroke-dasharray]").first
            assert dashed.count() == (max(map(len, one["through_time"].values())) > 1)
            return dashed.get_attribute("points") if dashed.count() else None

        first = told(values["shown"])
        assert values["shown"] != 1
        tab.locator('.answers button[data-output="1"]').click()
        assert told(1) != first
        tab.keyboard.press("ArrowRight")
        told(2)
        assert tab.evaluate("document.activeElement.dataset.output") == "2"


def test_the_table_of_what_mattered_is_sorted(chromium, opened):
    file, values = opened("tag")
    removal = values["influence"][values["shown"]]["removal"]
    with page_of(chromium, file) as tab:
        column = lambda k: tab.locator(f".tall table >> nth=0 >> tbody td:nth-child({k})").all_inner_texts()  # noqa: E731
        sizes = [abs(float(text)) for text in column(3)]
        assert sizes == sorted(sizes, reverse=True) and sizes[0] == pytest.approx(max(map(abs, removal)), rel=5.1e-3)
        assert len({len(text.partition(".")[2]) for text in column(3)}) == 1, "one notation"
        tab.locator(".tall th button", has_text="input").first.click()
        assert column(2) == sorted(values["inputs"])


def test_the_map_of_the_attention(chromium, opened):
    file, values = opened("translate")
    with page_of(chromium, file) as tab:
        cells = tab.locator(".alignment rect[data-tip]")
        told = [float(cells.nth(i).get_attribute("data-tip").rpartition(": ")[2]) for i in range(cells.count())]
        found = [weight for one in values["influence"] for weight in one["attention"]]
        assert told == pytest.approx(found, rel=5.1e-3) and len(found) == len(values["outputs"]) * len(values["inputs"])
        assert sum(found) == pytest.approx(len(values["outputs"]), abs=0.01)
        tab.locator('.alignment g[data-row="0"]').press("Enter")
        assert tab.locator(".finding").inner_text().startswith(values["influence"][0]["finding"])


@pytest.mark.parametrize("task", ["text", "tag"])
def test_gates_and_a_unit_over_the_input(chromium, opened, task):
    file, values = opened(task)
    with page_of(chromium, file) as tab:
        layers, units = (tab.get_by_role("combobox", name=name) for name in ("layer", "unit"))
        for number, layer in enumerate(values["layers"]):
            layers.nth(0).select_option(str(number))
            bars = tab.locator(".gates rect[data-tip]")
            told = [float(bars.nth(i).get_attribute("data-tip").rpartition(": ")[2]) for i in range(bars.count())]
            assert told == pytest.approx([v for gate in layer["gate_means"].values() for v in gate], rel=5.1e-3)
            layers.nth(1).select_option(str(number))
            if layer["follows"]:
                assert units.input_value() == str(layer["follows"][0]["unit"]), (
                    "what follows something is offered first"
                )
            units.select_option(value="7")
            spans = tab.locator(".tokens").last.locator("span")
            told = [float(spans.nth(i).get_attribute("data-tip").rpartition(": ")[2]) for i in range(spans.count())]
            states = next(iter(layer["states"].values()))
            assert told == pytest.approx([row[7] for row in states], rel=5.1e-3)
    assert task == "tag" or any(layer["follows"] for layer in values["layers"]), "or nothing is tested"


ODD = ["\t", "\x07a", "\u200bb", "\ue000", "c d", "\u2028", " e "]


def test_no_sign_without_a_picture_is_drawn(chromium, runs, tmp_path):
    assert [visible(label) for label in ODD] == ["⇥", "U+0007a", "U+200Bb", "U+E000", "c d", "U+2028", "·e·"]
    values = look_into(runs["tag"], ["the dog saw a cat can see"])
    assert len(values["inputs"]) == len(ODD)
    written = json.dumps(values)
    for word, odd in zip(values["inputs"], ODD, strict=True):
        written = written.replace(json.dumps(word), json.dumps(odd))
    (tmp_path / "page.html").write_text(page(json.loads(written)))
    with page_of(chromium, tmp_path / "page.html", 390) as tab:
        shown = tab.locator("main").inner_html()
        for label in ODD:
            assert visible(label) in shown
        assert not set("\x07\u200b\ue000\u2028") & set(shown)
        tab.locator('.answers button[data-output="0"]').click()
        assert "⇥" in tab.locator("h2", has_text="What mattered").inner_text() and not cut_texts(tab)


def test_one_step_says_so(chromium, runs, tmp_path):
    values = look_into(runs["tag"], "dog")
    assert "With one step there is nothing to remember: give a longer input." in values["finding"]
    assert in_words(values).count("LSTM 12: too short to tell: no step lies behind the answer") == 2
    (tmp_path / "page.html").write_text(page(values))
    with page_of(chromium, tmp_path / "page.html") as tab:
        assert "one step: there is nothing behind it" in tab.locator("main").inner_text()
        assert tab.locator("svg[role=img][aria-label^='gradient left']").count() == 0
        assert not cut_texts(tab)


def test_a_short_input_says_what_was_found_all_the_same(runs):
    values = look_into(runs["tag"], "a dog saw")
    assert "inputs of more than 8 steps would tell how far it reaches" in values["memory"]
    assert re.search(r"fades to 1/e|hardly fades", values["memory"])


# What is said


def test_the_answer_that_is_looked_at_first_has_content():
    def first(labels, about=None, texts=None, log_p=None):
        outputs = Steps(labels, texts=texts)
        look = Look(
            inputs=Steps(["a"]), outputs=outputs, batch=None, score=lambda _: None, stacks={}, about=about
        )  # fmt: skip
        return content_output(look, log_p or [-1.0] * len(labels))

    assert first(["NOUN", "VERB", "PUNCT"], about=["dogs", "bark", "."]) == 1
    assert first(["der", "Hund", "</s>"], texts=["der", "Hund", ""]) == 1
    assert first(["t", "h", "e", ".", " ", "\n"]) == 2
    assert first(["7", "!"]) == 0 and first(["犬", "。"]) == 0
    assert first([".", "!", "?"], log_p=[-0.1, -3.0, -0.2]) == 1, "the least certain"
    assert first(["good"]) == 0


@pytest.mark.parametrize("task", TASKS)
def test_the_finding_says_what_the_numbers_say(opened, task):
    """Of every answer: the input that is named is the one whose removal moves it most, and by so much."""
    _, values = opened(task)
    checked = 0
    for one in values["influence"]:
        words, sizes = one["finding"], [0.0 if r is None else abs(r) for r in one["removal"]]
        place = sizes.index(max(sizes))
        name = visible(values["inputs"][place].strip(" ") or values["inputs"][place])
        if max(sizes) < 0.01:
            assert "no single input" in words
            continue
        used, against = re.search(r"the network (?:used|had) (.*?) most( against it)?", words).groups()
        assert f"“{name}”" in used and bool(against) == (one["removal"][place] < 0)
        alike = [
            i for i, label in enumerate(values["inputs"]) if label.strip(" ") == values["inputs"][place].strip(" ")
        ]
        if len(alike) > 1 and "itself" not in used:
            assert re.match(rf"the {alike.index(place) + 1}(st|nd|rd|th) “", used)
        after = float(re.search(r" p would be ([\d.e-]+?)\.?(?: |$)", words).group(1))
        assert after == pytest.approx(min(one["probability"] * math.exp(-one["removal"][place]), 1), rel=0.07)
        if one["attention"] is not None and not against:
            most = int(np.argmax(one["attention"]))
            shown = float(re.search(r"\((\d+) %\)", words)[1])
            assert abs(shown - 100 * one["attention"][most]) <= 0.51  # the page has it with fewer digits
        checked += 1
    assert checked
    assert (
        ("the encoder holds" in values["memory"]) == ("the decoder holds" in values["memory"]) == (task == "translate")
    )
    assert ("answers are made of all its steps" in values["memory"]) == (task in ("classify", "translate"))
    both = {layer["reverse"] for layer in values["layers"]} == {False, True}
    assert ("backwards" in values["memory"]) == both == (task != "text")


def test_where_nothing_can_be_taken_away_the_gradient_is_told_of(runs):
    model = runs["tag"]
    look = dataclasses.replace(model.look(model.task.item(FIRST["tag"])), without=lambda _: None)
    one = influence(model, look, [1])[0]
    assert one.removal == [None] * 5 and one.agreement is None and not one.disagree
    place = max(range(5), key=lambda i: abs(one.gradient[i]))
    named = "“dog” itself" if place == 1 else f"“{look.inputs.labels[place]}”"
    assert f"{named} most, by gradient × input" in used_for(look, one)


def memory_of(*curves, whole=False, name=""):
    """What is said of layers (reverse, curve)."""
    stack = Stack(name=name, steps=Steps([]), whole=whole)
    layers = [
        SimpleNamespace(name=str(i), of=stack, scan=SimpleNamespace(reverse=r)) for i, (r, _) in enumerate(curves)
    ]
    return held_for(layers, {str(i): summarise([Curve(np.array(c), True)]) for i, (_, c) in enumerate(curves)})


def test_how_long_it_remembers_in_words():
    fades, lasts = 0.5 ** np.arange(30), np.linspace(1, 0.6, 30)
    one = memory_of((False, fades))
    assert one == (
        "What it holds fades to 1/e, about a third, after 1.4 steps, so what is more than about 7 steps away hardly counts."
    )
    assert memory_of((False, lasts)) == (
        "What it holds hardly fades: 60 % of its influence is left after 29 steps, the most seen here."
    )
    assert memory_of((False, fades), (False, 0.8 ** np.arange(30))).count("after 4.5 steps") == 1, (
        "of two layers the longer"
    )
    both = memory_of((False, fades), (True, 0.2 ** np.arange(30)), whole=True, name="encoder")
    assert "What the encoder holds" in both and "after 1.4 steps forwards and less than a step backwards" in both
    assert both.endswith("; answers are made of all its steps at once, so far ones count all the same.")
    mixed = memory_of((False, fades), (True, lasts))
    assert "(reading forwards)" in mixed and "60 % of its influence is left after 29 steps" in mixed
    assert "grows instead of fading, up to 191,751 times" in memory_of((False, 1.5 ** np.arange(31)))
    assert "not a number" in memory_of((False, [1.0, math.nan]))
    assert "inputs of more than 8 steps" in memory_of((False, [1.0, 0.9, 0.8]))
    assert "inputs of more than" not in memory_of((False, 0.01 ** np.arange(4)))


def test_curves_of_several_answers_are_those_of_each(runs):
    model = runs["translate"]
    look = model.look(model.task.item(FIRST["translate"]))
    outputs = range(len(look.outputs))
    for output, curves in zip(outputs, gradients_of_each(model, look, outputs), strict=True):
        alone = gradients_of(model, look, output)
        assert curves.keys() == alone.keys()
        for name, curve in curves.items():
            np.testing.assert_allclose(curve.norms, alone[name].norms, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:.*read as the names of the columns")
def test_inspect_reads_files_as_predict_does(runs, tmp_path, capsys):
    run, table = str(runs["classify"].run.folder), tmp_path / "t.csv"
    table.write_bytes("number;words\n1;the caf\u00e9 cat; saw\n".replace("; saw", " saw").encode("cp1252"))
    options = ["--encoding", "cp1252", "--delimiter", ";", "--text-column", "words"]
    assert main(["inspect", run, str(table), "--json", *options]) == 0
    assert len(json.loads(capsys.readouterr().out)["inputs"]) == 4
    assert look_into(runs["classify"], table, encoding="cp1252", text_column="words")["inputs"][-1] == "saw"
    for more, message in (
        ([], "--encoding"),
        (["--encoding", "cp1252", "--text-column", "wrds"], "--text-column"),
        (["--encoding", "cp1253x"], "--encoding"),
        (["--beam", "2"], "beam"),
    ):
        assert main(["inspect", run, str(table), *more]) == 2
        assert message in capsys.readouterr().err
    assert main(["inspect", str(runs["tag"].run.folder), str(table), "--text-column", "words"]) == 2
    assert "--text-column: a model of the task 'tag' has no such option" in capsys.readouterr().err
    with pytest.raises(UserError, match="delimeter"):
        look_into(runs["translate"], "the cat", delimeter=";")


def test_inspect_command(runs, tmp_path, capsys, monkeypatch):
    run, file = str(runs["tag"].run.folder), tmp_path / "in.txt"
    file.write_text("a dog saw the saw\nthe cat saw the dog\n")
    assert main(["inspect", run, str(file), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["inputs"] == ["a", "dog", "saw", "the", "saw"]
    out, pictures = tmp_path / "r.html", tmp_path / "pictures"
    assert main(["inspect", run, str(file), "--out", str(out), "--pictures", str(pictures), "--output", "2"]) == 0
    assert capsys.readouterr().out == ""
    assert '"shown":2' in out.read_text()
    (pictures / "states-of.another.png").touch()
    (pictures / "mine.png").touch()
    assert main(["inspect", run, str(file), "--pictures", str(pictures), "--overwrite"]) == 0
    capsys.readouterr()
    (pictures / "mine.png").unlink()
    names = {p.name for p in pictures.iterdir()}
    assert names == {"gradients.png", "influence.png", "states-stack.cells.0.png", "states-stack.cells.1.png"}
    assert main(["inspect", run, str(file)]) == 0
    words = capsys.readouterr().out
    assert words.split("\n\n")[0].replace("\n", " ") == values["finding"], (
        "the words begin with what the page begins with"
    )
    assert "layer 1, backwards: LSTM 12" in words and "by taking it away" in words
    before = out.read_text()
    for more, message in (
        (["--out", str(out)], "is there already"),
        (["--out", str(tmp_path / "no" / "r.html")], "there is no folder"),
        (["--output", "5"], "outputs 0 to 4"),
        (["--inputs", "0"], "got 0; from 1 to"),
        (["--inputs", "9" * 30], "from 1 to"),
        (["--inputs", "1.5"], "inputs"),
        (["--output", "1.5"], "output"),
        (["--out", str(tmp_path), "--overwrite"], "is a folder; name a file for the page"),
        (["--pictures", str(out), "--overwrite"], "is a file; name a folder"),
        (["--pictures", str(tmp_path / "one"), "--out", str(tmp_path / "one")], "is where the page goes"),
    ):
        assert main(["inspect", run, str(file), *more]) == 2
        assert message in capsys.readouterr().err
    assert out.read_text() == before
    file.write_bytes(b"\xef\xbb\xbfa dog\n")
    assert main(["inspect", run, str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["inputs"] == ["a", "dog"], "the mark of the byte order is no word"
    file.write_text("\n \n")
    assert main(["inspect", run, str(file)]) == 2
    assert "nothing to look into" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "message"), [({"kind": "transformer"}, "no state"), ({"cell": "none"}, "without a memory")]
)
def test_networks_without_a_state_are_refused(tmp_path, model, message):
    (tmp_path / "t.tsv").write_text("text\tlabel\n" + "a b\tx\nc d\ty\n" * 4)
    made = tt.train(
        "classify", [tmp_path / "t.tsv"], out=tmp_path / "r", steps=1, model={**model, "hidden_size": 8}, progress=False
    )
    with pytest.raises(UserError, match=message):
        look_into(made, ["a b"])


@pytest.mark.parametrize("cell", sorted(tt.cells.NAMED))
def test_every_cell_can_be_looked_into(tmp_path, cell):
    (tmp_path / "t.txt").write_text("one two three four five\n" * 20)
    made = tt.train(
        "text", [tmp_path / "t.txt"], out=tmp_path / "r", steps=2, progress=False,
        model={"cell": cell, "hidden_size": 6, "embedding_size": 5, "tokens": "characters"}, training={"batch_size": 2, "chunk": 8},
    )  # fmt: skip
    values = look_into(made, ["one two three"])
    assert values["layers"][0]["cell"] == tt.cells.NAMED[cell].__name__
    assert values["gradients"]["stack.cells.0"]["verdict"] in (
        "vanishing",
        "healthy",
        "mostly the newest step",
        "exploding",
    )
    assert [len(one["removal"]) for one in values["influence"]] == [14] * 14


@pytest.mark.parametrize("name", ["README.md", "docs/inspect.md"])
def test_what_the_documents_show_runs(runs, tmp_path, monkeypatch, name):
    text = (Path(__file__).parents[1] / name).read_text(encoding="utf-8")
    blocks = [
        b for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if re.search("what_if|look_into|observing", b)
    ]
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "tag").symlink_to(runs["tag"].run.folder)
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(block, {})
    assert len(blocks) == {"README.md": 1, "docs/inspect.md": 2}[name]


def test_looking_leaves_no_trace(runs):
    model = runs["tag"]
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    first = model.what_if("the cat saw", {0: "a"}).before
    look_into(model, ["the cat saw the dog"])
    assert all(torch.equal(value, before[name]) for name, value in model.network.state_dict().items())
    assert all(p.grad is None for p in model.network.parameters()) and not model.network.training
    assert model.what_if("the cat saw", {0: "a"}).before == first


def test_what_a_translator_would_have_said(runs):
    found = runs["translate"].what_if("the cat saw", {1: "dog"})
    assert found.before["translation"] == next(runs["translate"].predict(["the cat saw"]))["translation"]
    assert found.after["translation"] == next(runs["translate"].predict(["the dog saw"]))["translation"]
    assert found.before["words"] == ["the", "cat", "saw"] and found.difference is None


def test_a_column_is_not_chosen_of_two(runs, tmp_path, capsys):
    file = str(runs["tag"].run.folder.parent / "tagged.tsv")
    assert main(["train", "tag", file, "--data.column", "xpos", "--out", str(tmp_path / "r"), "--steps", "1"]) == 2
    assert "data.column" in capsys.readouterr().err and not (tmp_path / "r").exists()
