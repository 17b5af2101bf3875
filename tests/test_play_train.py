"""The screen *Train*: what is trained in the page, beside the laboratory's networks and PyTorch.

Shapes: T time, B batch, I input, N hidden, O output.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from serving import eventually
from throughtime.cells import GRU, LSTM, Elman
from throughtime.inspect.gradients import Curve, summarise
from throughtime.laboratory.network import Network, stretch_
from throughtime.laboratory.problems import Adding, Recall
from throughtime.scanning.observe import observing

pytestmark = pytest.mark.usefixtures("_one_thread")

ROOT = Path(__file__).parent.parent
TRAINERS = ROOT / "src/throughtime/play/trainers"
SPECS = json.loads((TRAINERS / "trainers.json").read_text())
CELLS = {"rnn": Elman, "relu": functools.partial(Elman, nonlinearity="relu"), "gru": GRU, "lstm": LSTM}
TEXT = "a cat sat on a mat, and that was that.\n" * 3
SETTINGS = {
    "problem": "recall",
    "cell": "gru",
    "lag": 6,
    "radius": 1,
    "rate": 0.01,
    "clip": 1,
    "method": "adam",
    "seed": 3,
    "text": TEXT,
}


def in_node(script, **settings):
    """What a script leaves in `out`; `learner` is one of these settings, and `settings` they themselves."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on the PATH")
    settings = SETTINGS | settings
    name = f"{settings['cell']}_{'text' if settings['problem'] == 'text' else 'problem'}"
    text = f"""
        import {{ readFileSync }} from "node:fs";
        import {{ Learner, initial }} from "{(ROOT / "page/src/train/learner.js").as_uri()}";
        import {{ uniform }} from "{(ROOT / "page/src/train/random.js").as_uri()}";
        const settings = {json.dumps(settings)}, list = values => Array.from(values);
        const spec = JSON.parse(readFileSync("{TRAINERS}/trainers.json")).{name};
        const module = await WebAssembly.compile(readFileSync("{TRAINERS}/{name}.wasm"));
        const learner = await Learner.make(spec, module, settings);
        let out;
        {script}
        console.log(JSON.stringify(out));
    """
    done = subprocess.run([node, "--input-type=module", "-e", text], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def network_of(name, weights, inputs, outputs):
    """The laboratory's network of the same weights; what a problem does not use of a row is cut away."""
    spec = SPECS[name]
    network = Network(CELLS[name.partition("_")[0]], inputs, spec["hidden"], outputs)
    (cell,) = network.stack.cells
    for part in spec["parts"]:
        size = part["stride"] * (part["shape"][0] if len(part["shape"]) > 1 else 1)
        value = torch.tensor(weights[part["offset"] : part["offset"] + size]).view(-1, part["stride"])
        if part["name"].startswith("output"):
            own, value = getattr(network.output, part["name"].removeprefix("output_")), value[:, :outputs]
        else:
            own = getattr(cell, part["name"].removeprefix("cell_"))
            value = value[:inputs] if part["name"] == "cell_weight_ih" else value
        with torch.no_grad():
            own.copy_(value.t().reshape(own.shape))
    return network


SEEN = """
    const seen = [], batch = learner.problem.batch.bind(learner.problem);
    learner.problem.batch = (...asked) => {
      const made = batch(...asked);
      seen.push({ x: list(made.x), targets: list(made.targets) });
      return made;
    };
    const first = list(learner.net.weights), steps = [];
    for (let n = 0; n < 5; n++) steps.push(learner.step());
    const looked = { x: list(learner.looked.x), targets: list(learner.looked.targets) };
    const classes = learner.problem.alphabet?.length ?? null;
    out = { first, steps, seen, looked, classes, last: list(learner.net.weights), look: learner.look() };
"""


def problem_of(problem, lag, classes):
    """Inputs, outputs, and the loss of outputs [T, B, O], as Python has them."""
    if problem == "text":
        return 64, classes, lambda y, targets: F.cross_entropy(y.flatten(0, 1), targets.long())
    made = {"recall": Recall, "adding": Adding}[problem](lag)
    return (
        made.inputs,
        made.outputs,
        lambda y, targets: made.loss(y, targets.long() if problem == "recall" else targets),
    )


@pytest.mark.parametrize("problem", ["recall", "adding", "text"])
@pytest.mark.parametrize("cell", CELLS)
def test_steps_of_the_page_are_pythons(cell, problem):
    """Five steps from the same weights over the same sequences, clipped or not, by Adam and by gradient descent."""
    method, clip = ("sgd", None) if cell in ("relu", "gru") else ("adam", 0.5)
    found = in_node(SEEN, cell=cell, problem=problem, method=method, clip=clip)
    name = f"{cell}_{'text' if problem == 'text' else 'problem'}"
    I, O, loss_of = problem_of(problem, SETTINGS["lag"], found["classes"])  # noqa: E741
    network = network_of(name, found["first"], I, O)
    optimiser = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[method](network.parameters(), lr=0.01)
    B = {"recall": 64, "adding": 32, "text": 16}[problem]
    for step, batch in zip(found["steps"], found["seen"], strict=True):
        x = torch.tensor(batch["x"], dtype=torch.float32).view(-1, B, SPECS[name]["input"])[..., :I]
        targets = torch.tensor(batch["targets"])
        optimiser.zero_grad()
        loss = loss_of(network(x, len(x)), targets)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(network.parameters(), clip or 1e9)
        optimiser.step()
        assert step["loss"] == pytest.approx(loss.item(), rel=1e-4)
        assert step["norm"] == pytest.approx(float(norm), rel=1e-3)
    after = network_of(name, found["last"], I, O)
    moved = 0
    for (key, got), right in zip(after.named_parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(got, right, rtol=1e-3, atol=1e-4, msg=lambda m, key=key: f"{key}: {m}")
        moved += int(not torch.equal(got, dict(network_of(name, found["first"], I, O).named_parameters())[key]))
    assert moved == len(list(network.parameters()))


@pytest.mark.parametrize("problem", ["recall", "adding", "text"])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_the_reach_and_the_score_are_pythons(cell, problem):
    """Of each sequence the norm of the gradient of its loss at the last step by every state; together as `inspect` has it."""
    found = in_node(SEEN, cell=cell, problem=problem)
    name = f"{cell}_{'text' if problem == 'text' else 'problem'}"
    I, O, loss_of = problem_of(problem, SETTINGS["lag"], found["classes"])  # noqa: E741
    network, B = network_of(name, found["last"], I, O), 16 if problem == "text" else 64
    x = torch.tensor(found["looked"]["x"], dtype=torch.float32).view(-1, B, SPECS[name]["input"])[..., :I]
    targets = torch.tensor(found["looked"]["targets"])
    with observing(gradients=True) as scans:
        y = network(x, len(x))
    loss_of(y[-1:], targets[-B:]).backward()
    norms = torch.cat(scans[0].gradients, -1).norm(dim=-1).flip(0)
    right = summarise([Curve(norms[:, b].numpy().astype(float), False) for b in range(B)])
    np.testing.assert_allclose(found["look"]["reach"], right.norms, rtol=2e-3)
    if problem == "recall":
        taken = y[-1].argmax(-1)
        assert found["look"]["score"] == float((taken == targets).float().mean())
        pairs = torch.zeros(8, 8).index_put_((targets, taken), torch.ones(B), accumulate=True)
        assert found["look"]["pairs"] == pairs.tolist()
    else:
        assert found["look"]["score"] == pytest.approx(loss_of(y, targets).item(), rel=1e-4)
    if problem == "text":
        assert len(found["look"]["written"]) == 240 and set(found["look"]["written"]) <= set(TEXT)


DRAWN = """
    const { x, targets } = learner.problem.batch(uniform(5), 2000, 9);
    out = { x: list(x), targets: list(targets) };
"""


def test_recall_is_drawn_as_in_the_laboratory():
    lag = 13
    found, problem = in_node(DRAWN, lag=lag), Recall(lag)
    x, targets = torch.tensor(found["x"]).view(-1, 2000, 9), torch.tensor(found["targets"])
    right = problem.batch(torch.Generator().manual_seed(1), 2000)
    assert x.shape == right.inputs.shape and targets.shape == right.targets.shape
    for inputs, wanted in ((x, targets), right):
        symbols = inputs[..., :8].argmax(-1)
        assert torch.equal(inputs[..., :8], F.one_hot(symbols, 8).float())
        assert torch.equal(inputs[..., 8].nonzero()[:, 0].unique(), torch.tensor([10])) and inputs[..., 8].sum() == 2000
        assert torch.equal(symbols[10], wanted.long())
        counts = torch.bincount(symbols.flatten(), minlength=8) / symbols.numel()
        assert (counts - 1 / 8).abs().max() < 0.01


def test_adding_is_drawn_as_in_the_laboratory():
    lag = 9
    found, problem = in_node(DRAWN, problem="adding", lag=lag), Adding(lag)
    x, targets = torch.tensor(found["x"]).view(-1, 2000, 9), torch.tensor(found["targets"])
    assert not x[..., 2:].any()
    right = problem.batch(torch.Generator().manual_seed(1), 2000)
    assert x[..., :2].shape == right.inputs.shape and targets.shape == right.targets.shape
    for inputs, wanted in ((x[..., :2], targets), right):
        values, marks = inputs.unbind(-1)
        assert values.min() >= 0 and values.max() < 1 and abs(float(values.mean()) - 0.5) < 0.01
        assert torch.equal(marks.unique(), torch.tensor([0.0, 1.0])) and bool((marks.sum(0) == 2).all())
        assert (marks.mean(1) - 2 / lag).abs().max() < 0.03  # any two are marked
        torch.testing.assert_close(wanted, (values * marks).sum(0))
        assert abs(float((wanted - 1).square().mean()) - problem.chance) < 0.02


def test_a_text_is_read_in_windows_and_rare_characters_as_one():
    text = "".join(chr(0x4E00 + i) * (2 if i < 63 else 1) for i in range(80)) + "x" * 9
    found = in_node(
        "const draw = uniform(5), made = learner.problem.batch(draw, 3, 64);"
        "out = { x: list(made.x), targets: list(made.targets), rare: learner.problem.rare, alphabet: learner.problem.alphabet };",
        problem="text",
        text=text,
        lag=7,
    )
    assert len(found["alphabet"]) == 64 and found["alphabet"][-1] == "\ufffd" and found["rare"] == 18
    x, targets = torch.tensor(found["x"]).view(7, 3, 64), torch.tensor(found["targets"]).view(7, 3)
    assert torch.equal(x[1:].argmax(-1), targets[:-1]) and bool((x.sum(-1) == 1).all())
    read = "".join(sign if sign in found["alphabet"] else "\ufffd" for sign in text)
    for b in range(3):
        signs = [*x[:, b].argmax(-1).tolist(), int(targets[-1, b])]
        assert "".join(found["alphabet"][s] for s in signs) in read


@pytest.mark.parametrize("cell", CELLS)
def test_weights_begin_as_in_the_laboratory(cell):
    """Recurrent weights are orthogonal times the radius, which is what `stretch_` makes of orthogonal ones."""
    weights = in_node("out = list(initial(spec, 1.25, uniform(7)));", cell=cell)
    network = network_of(f"{cell}_problem", weights, 9, 8)
    (own,) = network.stack.cells
    bound = 1 / np.sqrt(own.hidden_size)
    for block in own.weight_hh.split(own.hidden_size):
        torch.testing.assert_close(block @ block.t(), 1.25**2 * torch.eye(own.hidden_size), rtol=1e-4, atol=1e-5)
    before = own.weight_hh.clone()
    stretch_(cell, network, 1.25)
    torch.testing.assert_close(own.weight_hh, before, rtol=1e-4, atol=1e-5)
    for key in ("weight_ih", "bias_ih", "bias_hh"):
        value = getattr(own, key).detach().clone()
        if cell == "lstm" and key != "weight_ih":
            assert bool((value[32:64] == float(key == "bias_ih")).all())
            value[32:64] = 0
        assert value.abs().max() <= bound and value.std() > bound / 3
    assert network.output.weight.abs().max() <= bound and network.output.weight.std() > bound / 3


def test_it_learns_and_its_gradients_come_to_reach():
    lag = 10
    found = in_node(
        """
        const before = learner.look();
        let now = before;
        while (learner.steps < 600 && !learner.problem.learned(now.score)) {
          learner.step();
          if (learner.steps % 20 === 0) now = learner.look();
        }
        out = { before, now };
        """,
        cell="lstm",
        lag=lag,
    )
    assert found["before"]["score"] < 0.35 and found["now"]["score"] >= 0.95
    assert found["now"]["reach"][lag] > 4 * found["before"]["reach"][lag]


EXPLODES = {"problem": "adding", "cell": "relu", "lag": 25, "radius": 1.5, "method": "sgd", "seed": 4}
UNTIL = """
    while (!learner.broke && learner.steps < 200) learner.step();
    out = { broke: learner.broke, steps: learner.steps, finite: learner.net.weights.every(Number.isFinite) };
"""


def test_it_explodes_and_clipping_holds_it():
    found = in_node(UNTIL, **EXPLODES, clip=None)
    broke = found["broke"]
    assert 2 <= broke["step"] == found["steps"] < 200
    assert "NaN" in (broke["loss"], broke["norm"]) or "Infinity" in (broke["loss"], broke["norm"])
    assert broke["norms"][-1] > 1e6 * min(broke["norms"]) and broke["where"] in {
        p["name"] for p in SPECS["relu_problem"]["parts"]
    }
    held = in_node(UNTIL, **EXPLODES, clip=1)
    assert held == {"broke": None, "steps": 200, "finite": True}


def test_the_modules_are_made_again(tmp_path):
    pytest.importorskip("ziglang", reason="no linker: pip install ziglang")
    spec = importlib.util.spec_from_file_location("trainers", ROOT / "page/trainers.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    made.write(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in TRAINERS.iterdir()}
    for file in tmp_path.iterdir():
        assert file.read_bytes() == (TRAINERS / file.name).read_bytes(), f"{file.name}: python page/trainers.py"


# ------------------------------------------------------------------------------------------------ in a browser


def fact(page, label):
    return page.locator(".fact", has=page.locator("dt", has_text=label)).locator("dd").first.inner_text()


def steps(page):
    return int(fact(page, "steps").replace(",", ""))


def addressed(page, what):
    eventually(lambda: what in page.evaluate("location.hash"))


def sentence(reach, far):
    left = reach[far]
    return f"{far} steps back, {float(f'{100 * left:.3g}'):g} % of it is left" if left >= 1e-6 else "less than 0.0001 %"


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_what_is_shown_is_what_node_has(tab, cell):
    """The reach and the score of untrained networks, whose numbers the tests above set beside Python's."""
    found = in_node("out = learner.look();", cell=cell, lag=20, seed=1, rate=0.01)
    page = tab(f"#/train?cell={cell}&seed=1")
    page.wait_for_selector(".facts")
    assert steps(page) == 0 and fact(page, "right") == f"{100 * found['score']:.1f} %"
    assert sentence(found["reach"], 20) in page.get_by_text("At the marked symbol").inner_text()


def test_it_trains_while_the_controls_act(tab):
    page = tab("#/train?cell=rnn&rate=0.001")
    page.wait_for_selector(".facts")
    page.get_by_role("button", name="Train", exact=True).press("Enter")
    eventually(lambda: steps(page) > 30)
    page.get_by_label("Learning rate").press("ArrowRight")
    page.get_by_role("radio", name="gradient descent").click()
    addressed(page, "method=sgd")
    before = steps(page)
    page.wait_for_timeout(300)
    assert steps(page) > before > 30  # it went on
    page.get_by_label("Lag").press("ArrowRight")
    addressed(page, "lag=21")
    page.get_by_text("21 steps back").wait_for()  # of another network, which is trained too
    eventually(lambda: steps(page) > 0)
    page.get_by_role("button", name="Pause").click()
    page.wait_for_timeout(200)
    now = steps(page)
    page.wait_for_timeout(300)
    assert steps(page) == now
    page.get_by_role("button", name="Begin again").click()
    eventually(lambda: steps(page) == 0)


def test_it_says_what_it_learned(tab):
    page = tab("#/train?lag=5")
    page.wait_for_selector(".facts")
    page.get_by_role("button", name="Train", exact=True).click()
    page.get_by_text("Learned after").wait_for(timeout=60_000)
    assert float(fact(page, "right").removesuffix(" %")) >= 95
    assert page.get_by_role("img", name="are right").count() == 1


def test_an_explosion_is_told_and_clipping_holds_it(tab):
    page = tab("#/train")
    page.get_by_role("radio", name="It explodes").click()
    page.get_by_text("first number").wait_for()
    page.get_by_role("button", name="Train", exact=True).click()
    told = page.get_by_role("alert")
    told.wait_for()
    words = told.inner_text()
    broke = in_node(UNTIL, **EXPLODES, clip=None)["broke"]
    assert f"It broke at step {broke['step']}: the loss became {broke['loss']}" in words and "Clipping makes" in words
    page.get_by_text("it explodes", exact=False).last.wait_for()
    assert page.get_by_role("button", name="Go on").is_disabled()
    page.get_by_role("button", name="The same, clipped at 1").click()
    eventually(lambda: steps(page) > broke["step"] + 20)
    assert told.count() == 0
    addressed(page, "clip=1")


def test_ones_own_text_is_learned(tab):
    page = tab("#/train")
    page.get_by_role("radio", name="Your own text", exact=True).click()
    page.get_by_label("Text", exact=True).fill("abcabcabcabcabcabc")
    page.get_by_role("button", name="Train", exact=True).click()
    eventually(lambda: steps(page) > 20, seconds=30)
    eventually(lambda: set(page.locator(".written").inner_text()) <= set("abc"), seconds=30)
    eventually(lambda: float(fact(page, "nats a character")) < 0.2, seconds=60)
    page.get_by_label("Text", exact=True).fill("a")
    assert "two characters or more" in page.get_by_role("alert").inner_text()
