"""Networks that are trained in Node, beside PyTorch: gradients, Adam, state and memory.

Shapes: T time, B batch, I input, N hidden.
"""

import shutil
import subprocess

import pytest
import torch
from torch import nn

import throughtime as tt
from in_node import in_node, randomised
from throughtime.errors import UserError
from throughtime.exporting import training_llvm
from throughtime.exporting.wasm import script, training
from throughtime.scanning import derivative
from throughtime.scanning.observe import observing

pytest.importorskip("ziglang", reason="no linker: pip install ziglang")
pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="no node on the PATH")
T, B, I, N = 6, 4, 3, 5  # noqa: E741


@pytest.fixture(autouse=True)
def _drawn():
    torch.manual_seed(0)


def exported(what, path, **options):
    return tt.export(what, to="wasm", path=path, name="net", train=True, **options)


def trained(folder, body, given):
    """What a script leaves in `out`, given a trainer of B sequences."""
    module = (folder / "net_training.js").as_uri()
    return in_node(folder, f"const {{ trainer }} = await import('{module}'), t = await trainer({B});\n{body}", given)


UPDATES = """
    const { x, wanted, settings } = given, norms = [];
    for (let n = 0; n < 5; n++) {
      t.reset();
      const y = t.forward(x);
      t.backward(y.map((value, i) => 2 * (value - wanted[i]) / y.length));
      norms.push(t.update(settings));
    }
    t.reset();
    out = { norms, weights: list(t.weights), parts: t.parts, y: list(t.forward(x)) };
"""


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("method", ["adam", "sgd"])
@pytest.mark.parametrize(
    "what",
    [
        lambda: tt.cells.LSTM(I, N),
        lambda: tt.cells.LayerNormGRU(I, N),
        lambda: tt.Recurrent(tt.cells.GRU, I, I, num_layers=2, residual=True),
    ],
    ids=["LSTM", "layer-norm GRU", "residual"],
)
def test_updates_go_where_pytorchs_go(what, method, clip, tmp_path):
    model = randomised(what())
    folder = exported(model, tmp_path / "net")
    x = torch.randn(T, B, I)
    layer = model if isinstance(model, tt.Recurrent) else lambda x: tt.scan(model, x)
    wanted = torch.randn_like(layer(x)[0])
    given = {"x": x.flatten().tolist(), "wanted": wanted.flatten().tolist()}
    given["settings"] = {"method": method, "rate": 0.01} | ({} if clip is None else {"clip": clip})
    found = trained(folder, UPDATES, given)
    optimiser, norms = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[method](model.parameters(), lr=0.01), []
    for _ in range(5):
        optimiser.zero_grad()
        nn.functional.mse_loss(layer(x)[0], wanted).backward()
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), clip or 1e9)))
        optimiser.step()
    assert found["norms"] == pytest.approx(norms, rel=1e-4)
    torch.testing.assert_close(torch.tensor(found["y"]).view(T, B, -1), layer(x)[0].detach(), rtol=1e-4, atol=1e-5)
    if isinstance(model, tt.cells.LSTM):
        own = dict(model.named_parameters())
        for part in found["parts"]:
            rows = torch.tensor(found["weights"][part["offset"] :])
            right = own[part["name"]].detach()
            right = right.t() if right.dim() == 2 else right.unsqueeze(0)
            for k, row in enumerate(right):
                got = rows[k * part["stride"] : k * part["stride"] + len(row)]
                torch.testing.assert_close(got, row, rtol=1e-4, atol=1e-5)


def test_a_long_sequence_in_pieces_and_what_is_carried(tmp_path):
    folder = exported(randomised(tt.cells.GRU(I, N)), tmp_path / "net")
    out = trained(folder, """
        const half = given.length / 2, whole = list(t.forward(given)), end = list(t.state);
        t.reset();
        const pieces = [...t.forward(given.slice(0, half)), ...t.forward(given.slice(half))];
        const one = (x, dy) => { t.reset(); t.forward(x); return [list(t.backward(dy)), list(t.gradients)]; };
        const dy = Float32Array.from({ length: whole.length }, (_, i) => Math.sin(i));
        const first = one(given, dy), twice = one(given, dy), start = list(t.stateGradient);
        t.state = end;
        out = { whole, pieces, end, state: list(t.state), first, twice, start };
    """, torch.randn(T, B, I).flatten().tolist())  # fmt: skip
    assert out["pieces"] == out["whole"] and out["state"] == out["end"]
    (dx, gradients), (again, sums) = out["first"], out["twice"]
    assert dx == again and any(out["start"])
    torch.testing.assert_close(torch.tensor(sums), 2 * torch.tensor(gradients), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cell", [tt.cells.LSTM, tt.cells.GRU])
def test_the_gradient_of_every_state_is_that_of_observing(cell, tmp_path):
    cell = randomised(cell(I, N))
    folder = exported(cell, tmp_path / "net")
    x, dy = torch.randn(T, B, I), torch.randn(T, B, N)
    first = tuple(torch.randn(B, N) for _ in range(1 + isinstance(cell, tt.cells.LSTM)))
    given = {"x": x.flatten().tolist(), "dy": dy.flatten().tolist(), "state": torch.cat(first, -1).flatten().tolist()}
    out = trained(folder, """
        t.state = given.state;
        t.forward(given.x);
        out = [];
        const dx = t.backward(given.dy, (step, gradient) => out.push([step, list(gradient)]));
        out.push(list(t.stateGradient));
    """, given)  # fmt: skip
    assert out.pop() == out[-1][1] and [step for step, _ in out] == [*range(T)][::-1]
    with observing(gradients=True) as scans:
        y = tt.scan(cell, x, first if len(first) > 1 else first[0])[0]
    (y * dy).sum().backward()
    right = torch.cat(scans[0].gradients, -1)  # after each step, its own output counted too
    for step, gradient in out[:-1]:
        found = torch.tensor(gradient).view(B, -1)
        found[:, :N] += dy[step - 1]
        torch.testing.assert_close(found, right[step - 1], rtol=1e-4, atol=1e-5)


def test_it_grows_and_streams_of_one_page_are_apart(tmp_path):
    folder = exported(randomised(tt.cells.GRU(I, N)), tmp_path / "net")
    out = trained(folder, """
        const other = await trainer(1), before = list(other.weights), x = new Float32Array(3 * 4 * 3000).fill(0.1);
        const y = t.forward(x), dx = t.backward(y.map(() => 1)), norm = t.update({ rate: 0.1 });
        out = { norm, finite: dx.every(Number.isFinite), same: JSON.stringify(before) === JSON.stringify(list(other.weights)),
          moved: JSON.stringify(before) !== JSON.stringify(list(t.weights)) };
        t.weights = before;
        out.back = JSON.stringify(before) === JSON.stringify(list(t.weights));
        out.near = net.stream().step([1, 2, 3]).every((v, i) => Math.abs(v - other.forward([1, 2, 3], other.reset())[i]) < 1e-6);
    """, None)  # fmt: skip
    norm = out.pop("norm")
    assert norm > 0 and all(out.values()), out


def test_mistakes_are_said(tmp_path):
    folder = exported(randomised(tt.cells.GRU(I, N)), tmp_path / "net")
    out = trained(folder, """
        out = [said(() => t.backward([1])), said(() => t.forward([1, 2])), said(() => t.forward()),
          said(() => t.update({ method: "momentum" })),
          said(() => { t.weights = [1]; }), said(() => { t.state = [1]; }), await trainer(0).catch(String)];
        t.forward(new Float32Array(24));
        out.push(said(() => t.backward([1])));
        t.update();
        out.push(said(() => t.backward(new Float32Array(40))), said(() => t.forward({ length: 12e9 })));
    """, None)  # fmt: skip
    assert out[:-1] == [
        "Error: net: there are no steps to go back over; call forward first",
        "RangeError: net: the input is steps of 4 times 3 numbers, got 2",
        "RangeError: net: the input is steps of 4 times 3 numbers, got undefined",
        'RangeError: net: the method is "adam" or "sgd", got momentum',
        "RangeError: net: a network's weights are 160 numbers, got 1",
        "RangeError: net: the state is 20 numbers, got 1",
        "RangeError: net: sequences are 1 or more, got 0",
        "RangeError: net: the gradient of the output is 40 numbers, got 1",
        "Error: net: there are no steps to go back over; call forward first",
    ]
    assert out[-1].startswith("RangeError: net: no memory for so much")


def test_constants_and_what_is_frozen_stay(tmp_path):
    cell = randomised(tt.cells.LSTM(I, N))
    cell.bias_ih.requires_grad_(False)
    model = tt.Recurrent(tt.cells.GRU, I, N, zoneout=0.3)
    for what, still in ((cell, "bias_ih"), (randomised(model), "keep")):
        folder = exported(what, tmp_path / still)
        out = trained(folder, """
            const before = t.weights, y = t.forward(given);
            t.backward(y.map(() => 1));
            t.update({ rate: 0.1 });
            const after = t.weights;
            out = t.parts.map((p) => {
              const end = p.offset + p.stride * (p.shape.length > 1 ? p.shape[0] : 1), range = before.slice(p.offset, end);
              return [p.name, p.trained, range.some((v, i) => v !== after[p.offset + i])];
            });
        """, torch.randn(2, B, I).flatten().tolist())  # fmt: skip
        assert {moved for _, _, moved in out} == {True, False}
        assert all(trained_ == moved == (still not in name) for name, trained_, moved in out), out


class Odd(nn.Module):
    """A cell whose weight is used in a way of its own."""

    def __init__(self, use):
        super().__init__()
        self.weight, self.use = nn.Parameter(torch.randn(N, N)), use

    def forward(self, x, h):
        return self.use(self, x, h)


@pytest.mark.parametrize(
    ("use", "said"),
    [
        (lambda cell, x, h: torch.tanh(x + h @ cell.weight.exp()), "it works weight out of parameters before it steps"),
        (lambda cell, x, h: torch.tanh(x @ cell.weight + h @ cell.weight[:, :N].t()), "stands in two places"),
        (
            lambda cell, x, h: torch.tanh(x + h @ cell.weight.detach()),
            "it steps by no parameter that asks for gradients",
        ),
        (lambda cell, x, h: torch.tanh(x + h), "it steps by no parameter that asks for gradients"),
    ],
    ids=["exp", "two places", "detached", "none"],
)
def test_what_cannot_be_trained_is_refused(use, said, tmp_path):
    given = {"inputs": torch.ones(1, N), "state": torch.zeros(1, N)}
    with pytest.raises(UserError, match=said):
        exported(Odd(use), tmp_path / "net", **given)
    assert not list(tmp_path.iterdir())


def test_eight_bits_are_not_trained(tmp_path):
    with pytest.raises(UserError, match="leave out int8 or train"):
        exported(tt.cells.GRU(I, N), tmp_path / "net", int8=True)
    with pytest.raises(UserError, match="train is an option of wasm, not of c"):
        tt.export(tt.cells.GRU(I, N), to="c", path=tmp_path / "net", train=True)
    assert not list(tmp_path.iterdir())


def test_a_wrong_derivative_is_caught(tmp_path, monkeypatch):
    monkeypatch.setitem(derivative.RULES, "tanh", derivative.RULES["sigmoid"])
    with pytest.raises(
        UserError, match=r"net_training\.wasm: the gradient of the weights differs from the reference by"
    ):
        exported(randomised(tt.cells.GRU(I, N)), tmp_path / "net")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "instead", "said"),
    [
        ("y(k), own(b), dx(k)", "y(k), own(0), dx(k)", "the gradient"),
        ('this.#row("dstate").fill(0);', 'this.#row("dstate").fill(1);', "the gradient"),
        ("return this.#row(\"x\").slice();", "return this.#row(\"x\").slice().fill(0);", "the gradient of the input"),
    ],
)  # fmt: skip
def test_a_wrong_es_module_is_caught(line, instead, said, tmp_path, monkeypatch):
    for file in script.TEMPLATES.iterdir():
        if file.suffix in (".js", ".mjs", ".ts"):
            shutil.copy(file, tmp_path / file.name)
    text = (tmp_path / "trainer.mjs").read_text()
    assert line in text
    (tmp_path / "trainer.mjs").write_text(text.replace(line, instead))
    monkeypatch.setattr(training, "TEMPLATES", tmp_path)
    with pytest.raises(UserError, match=rf"net_training\.wasm: {said}.* differs"):
        exported(randomised(tt.cells.GRU(I, N)), tmp_path / "net")
    assert not (tmp_path / "net").exists()


def test_a_dropped_product_is_caught(tmp_path, monkeypatch):
    monkeypatch.setattr(training_llvm.LayerTraining, "_outer", lambda *_: None)
    with pytest.raises(UserError, match="the gradient of the weights differs"):
        exported(randomised(tt.cells.GRU(I, N)), tmp_path / "net")


def test_the_readmes_lines_learn(tmp_path):
    """What was heard four steps ago, a few steps of which a plain network does not hold at first."""
    folder = exported(tt.cells.GRU(1, 16), tmp_path / "net")
    assert "set beside autograd's" in (folder / "README.md").read_text()
    block = next(b for b in (folder / "README.md").read_text().split("```js\n") if "trainer(batch)" in b).split("```")[
        0
    ]
    body = block.replace("net.backward(dy);", "net.backward(dy); losses.push(dy.reduce((s, v) => s + v * v, 0));")
    assert body != block
    end = (
        "const sum = (v) => v.reduce((a, b) => a + b); console.log(sum(losses.slice(-20)) / sum(losses.slice(0, 20)));"
    )
    (folder / "learn.mjs").write_text(f"const losses = [];\n{body}\n{end}")
    done = subprocess.run(["node", "learn.mjs"], cwd=folder, capture_output=True, text=True)
    assert done.stderr == "" and float(done.stdout) < 0.5
