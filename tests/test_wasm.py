"""Cells and stacks as WebAssembly, run in Node and in a browser.

Shapes: T time, B batch, I input, N hidden.
"""

import json
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from torch import nn

import throughtime as tt
import wasm_fuzz
from cell_maker import make
from in_node import in_node, randomised
from throughtime.errors import UserError
from throughtime.exporting.agreement import trials
from throughtime.exporting.evaluated import evaluated
from throughtime.exporting.stack import stack_of
from throughtime.exporting.wasm import cells, script
from throughtime.scanning.cpu import functions

pytest.importorskip("ziglang", reason="no linker: pip install ziglang")
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="no node on the PATH")
I, N = 3, 5  # noqa: E741


@pytest.fixture(autouse=True)
def _drawn():
    torch.manual_seed(0)


def exported(what, path, **options):
    return tt.export(what, to="wasm", path=path, **options)


RUN = """
    const { x, state, count } = given, streams = net.streams(count), wide = count * net.inputSize;
    streams.state = state;
    const y = [];
    for (let at = 0; at < x.length; at += wide) y.push(...streams.step(x.slice(at, at + wide)));
    out = { y, state: list(streams.state) };
"""


def run(folder, trial):
    """What the ES module makes of a trial: its output [T, B, ...], the final states side by side [B, S]."""
    states = torch.cat([s.flatten(1) for s in trial.states], 1)
    given = {"x": trial.inputs.flatten().tolist(), "state": states.flatten().tolist(), "count": len(states)}
    found = in_node(folder, RUN, values=given)
    return torch.tensor(found["y"]).view(trial.output.shape), torch.tensor(found["state"]).view(states.shape)


def assert_right(folder, what, **options):
    (trial,) = trials(stack_of(what, **options), ((6, 4),), seed=3)
    output, finals = run(folder, trial)
    torch.testing.assert_close(output, trial.output, rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(finals, torch.cat([f.flatten(1) for f in trial.finals], 1), rtol=1e-5, atol=2e-6)


# Cells and stacks


@needs_node
@pytest.mark.parametrize("kind", tt.cells.NAMED)
def test_every_cell(kind, tmp_path):
    cell = randomised(tt.cells.NAMED[kind](I, N))
    assert_right(exported(cell, tmp_path / "net"), cell)


@needs_node
@pytest.mark.parametrize(
    "what",
    [
        lambda: tt.LSTM(I, N, num_layers=2, proj_size=2),
        lambda: tt.Recurrent(tt.cells.GRU, I, I, num_layers=3, residual=True, zoneout=0.3),
        lambda: tt.GRU(17, 33, num_layers=2),  # a vector and a number more
        lambda: nn.LSTMCell(I, N),
    ],
    ids=["LSTM, projected", "residual, with zoneout", "odd sizes", "torch.nn"],
)
def test_stacks(what, tmp_path):
    made = randomised(what())
    assert_right(exported(made, tmp_path / "net"), made)


@needs_node
@pytest.mark.parametrize("kind", ["gru", "layernorm-lstm"])
def test_eight_bits(kind, tmp_path):
    cell = randomised(tt.cells.NAMED[kind](17, 33))
    folder = exported(cell, tmp_path / "net", int8=True)
    stack = stack_of(cell)
    (trial,) = trials(evaluated(stack, int8=True, rounded=True), ((6, 4),), seed=3)
    output, finals = run(folder, trial)
    unit = 3 / 32767  # of an operand, where a last digit decides between two whole numbers
    torch.testing.assert_close(output, trial.output, rtol=1e-5, atol=unit)
    torch.testing.assert_close(finals, torch.cat(trial.finals, 1), rtol=1e-5, atol=unit)
    plain, _ = stack.run(trial.inputs, trial.states)
    assert 1e-3 < (output - plain).abs().max() < 0.1
    whole = exported(cell, tmp_path / "whole")
    name = kind.replace("-", "")
    assert (folder / f"{name}.wasm").stat().st_size < 0.55 * (whole / f"{name}.wasm").stat().st_size
    assert "## Eight bits" in (folder / "README.md").read_text()
    assert "largest difference was" in (whole / "README.md").read_text()


class Own(nn.Module):
    """A cell of one's own, with every function that WebAssembly does not have."""

    def __init__(self):
        super().__init__()
        # small, and the same after whichever tests: with others, a difference in the last bit soon becomes one in the first
        self.weight = nn.Parameter(0.3 * torch.randn(I, N, generator=torch.Generator().manual_seed(0)))

    def forward(self, x, state):
        a, b = state
        z = x[0] @ self.weight + x[1].unsqueeze(-1) * a
        a = torch.sin(z) + torch.cos(b) + torch.erf(z)
        b = torch.log(z.abs() + 0.1) + torch.log1p(z.square()) + torch.expm1(-z.abs()) + z.abs() ** a.abs()
        return torch.where(a > b, a, b).amax(-1, keepdim=True) + a.mean(-1, keepdim=True), (a, b)


@needs_node
def test_a_cell_of_ones_own(tmp_path):
    given = {"inputs": (torch.zeros(1, I), torch.zeros(1)), "state": (torch.ones(1, N), torch.zeros(1, N))}
    cell = Own()
    folder = exported(cell, tmp_path / "net", name="mine", **given)
    (trial,) = trials(stack_of(cell, **{"inputs": given["inputs"], "state": given["state"]}), ((6, 4),), seed=3)
    trial = replace(trial, inputs=torch.cat([trial.inputs[0], trial.inputs[1].unsqueeze(-1)], -1))
    output, finals = run(folder, trial)
    torch.testing.assert_close(output, trial.output, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(finals, torch.cat(trial.finals, 1), rtol=1e-4, atol=1e-5)
    shape = in_node(folder, "out = [net.name, net.inputSize, net.outputSize, net.stateSize, net.inputs, net.states]")
    assert shape[:4] == ["mine", I + 1, 1, 2 * N]
    assert shape[4] == [{"name": "x0", "offset": 0, "shape": [I]}, {"name": "x1", "offset": I, "shape": []}]
    assert [s["offset"] for s in shape[5]] == [0, N]
    assert in_node(folder, "out = list(net.stream().state)") == [1.0] * N + [0.0] * N


def odd_numbers():
    numbers = [0.0, -0.0, 1.0, -1.0, 0.5, -0.7, 3.3, -4.1, 88.0, 1e-8, torch.inf, -torch.inf, torch.nan]
    return torch.tensor(numbers)


@needs_node
@pytest.mark.parametrize(
    "function", ["erf", "log", "log1p", "expm1", "sin", "cos", "exp", "tanh", "sigmoid", "floor", "pow"]
)
def test_functions_at_odd_numbers(function, tmp_path):
    x = odd_numbers()
    if function == "pow":
        a, b = (t.flatten() for t in torch.meshgrid(x, x, indexing="ij"))
        cell, given = lambda x, h: (x[:, :1] ** x[:, 1:] + 0 * h, h), torch.stack([a, b], 1)
    else:
        cell, given = lambda x, h: (getattr(torch, function)(x) + 0 * h, h), x.unsqueeze(1)
    example = torch.ones(1, given.shape[1])
    folder = exported(cell, tmp_path / "net", inputs=example, state=torch.zeros(1, 1), name="f")
    script = """
        const s = net.stream(), wide = net.inputSize;
        out = [];
        for (let i = 0; i < given.length; i += wide) out.push(String(s.step(given.slice(i, i + wide).map(Number))[0]));
    """
    said = [str(v).replace("inf", "Infinity") for v in given.flatten().tolist()]
    found = torch.tensor([float(v) for v in in_node(folder, script, values=said)])
    right = cell(given, torch.zeros(len(given), 1))[0].flatten()
    torch.testing.assert_close(found, right, rtol=1e-6, atol=1e-7, equal_nan=True)


@needs_node
@pytest.mark.filterwarnings("ignore")  # of the cells' own
@pytest.mark.parametrize("train", [False, True], ids=["steps", "gradients"])
def test_random_cells(train):
    """More of them by hand: `python tests/wasm_fuzz.py`."""
    verdicts = [wasm_fuzz.judge(make(seed), train=train) for seed in range(300, 312)]
    assert {verdict for verdict, _ in verdicts} == {"right", "refused"}, verdicts


# Streams


@needs_node
def test_many_streams_are_each_to_the_bit_what_they_are_alone(tmp_path):
    folder = exported(randomised(tt.cells.LayerNormLSTM(I, N)), tmp_path / "net")
    out = in_node(folder, """
        const count = 7, x = given, many = net.streams(count), one = net.stream();
        const start = Array.from({ length: count * net.stateSize }, (_, i) => Math.sin(i));
        many.state = start;
        const together = [], alone = [];
        for (let t = 0; t < 3; t++) together.push(...many.step(x));
        for (let b = 0; b < count; b++) {
          one.state = start.slice(b * net.stateSize, (b + 1) * net.stateSize);
          for (let t = 0; t < 3; t++) alone.push([t, b, list(one.step(x.slice(b * 3, b * 3 + 3)))]);
          alone.push(["state", b, list(one.state)]);
        }
        out = { together, alone, state: list(many.state) };
    """, values=torch.randn(7 * I).tolist())  # fmt: skip
    for t, b, values in out["alone"]:
        rows = out["state"] if t == "state" else out["together"][7 * N * t :]
        wide = len(values)
        assert rows[b * wide : (b + 1) * wide] == values


COUNTED = """
    let grown = 0;
    const grow = WebAssembly.Memory.prototype.grow;
    WebAssembly.Memory.prototype.grow = function (pages) { grown++; return grow.call(this, pages); };
"""


@needs_node
def test_memory_grows_and_streams_live_on(tmp_path):
    """Growth takes every view of the memory away."""
    folder = exported(randomised(tt.cells.GRU(I, N)), tmp_path / "net")
    out = in_node(folder, COUNTED + """
        const first = net.stream(), twin = net.stream(), x = [1, -2, 3];
        first.step(x); twin.step(x);
        const many = net.streams(10000);
        out = { grown, same: list(first.step(x)), alone: list(twin.step(x)) };
        twin.reset(); many.step(new Float32Array(10000 * 3).fill(2));
        out.last = list(many.step(new Float32Array(10000 * 3).fill(2)).slice(-5));
        twin.step([2, 2, 2]); out.right = list(twin.step([2, 2, 2]));
        const singles = Array.from({ length: 10000 }, () => net.stream());
        singles.forEach((s) => s.step(x)); out.single = list(singles[9999].step(x));
    """)  # fmt: skip
    assert out["grown"] >= 1
    assert out["same"] == out["alone"] == out["single"] and out["last"] == out["right"] and out["same"] != out["right"]


@needs_node
def test_freed_memory_is_used_again(tmp_path):
    folder = exported(randomised(tt.cells.GRU(I, N)), tmp_path / "net")
    out = in_node(folder, COUNTED + """
        net.streams(3000).free();
        const before = grown, kept = [];
        for (let i = 0; i < 50; i++) {
          const all = [net.streams(700), net.streams(900), net.streams(1300)];
          for (const k of [1, 0, 2].map((k) => (k + i) % 3)) all[k].free();
        }
        const again = net.streams(3000);
        const fresh = list(again.state).every((v) => v === 0);
        again.step(new Float32Array(9000).fill(1)); again.free();
        out = { more: grown - before, fresh, clean: list(net.streams(3000).state).every((v) => v === 0) };
    """)  # fmt: skip
    assert out == {"more": 0, "fresh": True, "clean": True}


@needs_node
def test_mistakes_are_said(tmp_path):
    folder = exported(randomised(tt.cells.GRU(I, N)), tmp_path / "net")
    out = in_node(folder, """
        const s = net.stream(), two = net.streams(2), before = list(s.state);
        out = [
          said(() => s.step([1, 2])), said(() => s.step()), said(() => s.step([1, 2, 3], new Float32Array(2))),
          said(() => { two.state = [1]; }), said(() => two.reset(2)), said(() => net.streams(0)), said(() => net.streams(1e9)),
        ];
        out.push(JSON.stringify(before) === JSON.stringify(list(s.state)));
        s.free();
        out.push(said(() => s.step([1, 2, 3])), said(() => s.free()), said(() => s.state));
        out.push(await load(given).catch(String), await load(new URL("nowhere.wasm", given)).catch((e) => e.code));
    """, values=(folder / "README.md").as_uri())  # fmt: skip
    assert out[:8] == [
        "RangeError: gru: a step's input is 3 numbers, got 2",
        "RangeError: gru: a step's input is 3 numbers, got undefined",
        "RangeError: gru: a step's output is 5 numbers, got 2",
        "RangeError: gru: the state is 10 numbers, got 1",
        "RangeError: gru: streams are numbered from 0 to 1, got 2",
        "RangeError: gru: streams are 1 or more, got 0",
        f"RangeError: gru: no memory for 1000000000 more streams, which take {4 * 13 * 10**9} bytes",
        True,
    ]
    assert out[8:11] == ["Error: gru: this stream was freed"] * 3
    assert "CompileError" in out[11] and out[12] == "ENOENT"


@needs_node
def test_it_loads_from_bytes_a_module_and_a_path(tmp_path):
    folder = exported(randomised(tt.cells.GRU(I, N)), tmp_path / "net")
    out = in_node(folder, """
        const bytes = readFileSync(given), x = [1, 2, 3];
        const nets = [net, await load(bytes), await load(new WebAssembly.Module(bytes)), await load(given)];
        out = nets.map((n) => list(n.stream().step(x)));
    """, values=str(folder / "gru.wasm"))  # fmt: skip
    assert all(y == out[0] for y in out) and any(out[0])


@needs_node
def test_the_readmes_lines_run(tmp_path):
    folder = exported(randomised(tt.cells.GRU(I, N)), tmp_path / "net")
    blocks = (folder / "README.md").read_text().split("```js\n")[1:]
    text = "".join(block.split("```")[0].replace("const y = many", "const z = many") for block in blocks)
    (folder / "snippet.mjs").write_text(text + "console.log(y.length, z.length);")
    done = subprocess.run(["node", "snippet.mjs"], cwd=folder, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"{N} {1000 * N}\n", "")


@pytest.fixture
def served(tmp_path):
    """A server of the folder, and its address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


IN_PAGES = """
    const t = await trainer(given.count);
    t.state = given.state;
    const out = { y: list(t.forward(given.x)), norm: 0 };
    t.backward(out.y.map((_, i) => Math.cos(i)));
    out.gradients = list(t.gradients);
    out.norm = t.update();
    out.weights = list(t.weights);
"""


@needs_node
def test_a_browser_gives_the_same_numbers(chromium, served, tmp_path):
    cell = randomised(tt.cells.LayerNormLSTM(I, N))
    folder = exported(cell, tmp_path / "net", name="cell", train=True)
    (trial,) = trials(stack_of(cell), ((6, 4),), seed=3)
    states = torch.cat([s.flatten(1) for s in trial.states], 1)
    given = {"x": trial.inputs.flatten().tolist(), "state": states.flatten().tolist(), "count": 4}

    def script(body):
        return f"async (given) => {{ const list = Array.from; {body} return out; }}"

    with chromium.new_context() as context:
        tab = context.new_page()
        tab.goto(served)
        begin = "let out; const { load } = await import('/net/cell.js'), net = await load();"
        stepped = tab.evaluate(script(begin + RUN), given)
        trained = tab.evaluate(script("const { trainer } = await import('/net/cell_training.js');" + IN_PAGES), given)
        missing = tab.evaluate("import('/net/cell.js').then((m) => m.load('/none.wasm')).catch(String)")
    assert missing == "Error: /none.wasm: 404 File not found"
    output, finals = run(folder, trial)
    assert stepped == {"y": output.flatten().tolist(), "state": finals.flatten().tolist()}
    module = (folder / "cell_training.js").as_uri()
    body = IN_PAGES.replace("const out =", "out =")
    assert trained == in_node(folder, f"const {{ trainer }} = await import('{module}'); {body}", given)


# What is written, and what is not


@needs_node
@pytest.mark.parametrize(
    ("table", "what"),
    [("tanh", "sigmoid"), ("add", "sub")],
)
def test_a_wrong_operation_is_caught(table, what, tmp_path, monkeypatch):
    monkeypatch.setitem(functions.VECTORS, table, functions.VECTORS[what])
    with pytest.raises(UserError, match=r"gru\.wasm: .* differs from the reference by .*: nothing was written"):
        exported(randomised(tt.cells.GRU(I, N)), tmp_path / "net")
    assert not list(tmp_path.iterdir())


@needs_node
@pytest.mark.parametrize(
    ("line", "instead", "said"),
    [
        ("view().set(values, state / 4)", "view().set(values, state / 4 + 1)", "differs from the reference"),
        ("steps(this.count,", "steps(1,", "differs from the reference"),
        ("view().set(x, at / 4);", "", "differs from the reference"),
        ("init(state);", "", "does not start from the state of GRU"),
        ("return y;", "return z;", r"gru\.wasm in Node: ReferenceError: z is not defined: nothing was written"),
    ],
)
def test_a_wrong_es_module_is_caught(line, instead, said, tmp_path, monkeypatch):
    text = (script.TEMPLATES / "network.js").read_text()
    assert text.count(line) == 1
    (tmp_path / "network.js").write_text(text.replace(line, instead))
    monkeypatch.setattr(script, "TEMPLATES", tmp_path)
    monkeypatch.setattr(cells, "types", lambda reads: "")
    with pytest.raises(UserError, match=said):
        exported(randomised(tt.cells.GRU(I, N)), tmp_path / "net", state=torch.ones(1, N))
    assert not (tmp_path / "net").exists()


def test_without_node_it_says_so(tmp_path, monkeypatch):
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    monkeypatch.setenv("PATH", str(bin_))
    with pytest.warns(UserWarning, match="gru.wasm: there is no Node 18 here: it was linked, but not run"):
        exported(tt.cells.GRU(I, N), tmp_path / "net")
    assert "It was linked, but not run where it was made" in (tmp_path / "net" / "README.md").read_text()
    assert json.loads((tmp_path / "net" / "EXPORT.json").read_text())["run"] is False
    old = bin_ / "node"
    old.write_text("#!/bin/sh\necho v16.20.2\n")
    old.chmod(0o755)
    with pytest.warns(UserWarning, match="there is no Node 18 here"):
        exported(tt.cells.GRU(I, N), tmp_path / "net", overwrite=True)


def test_without_a_linker_it_says_which_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ziglang", None)
    with pytest.raises(UserError, match=r"pip install 'throughtime\[wasm\]'"):
        exported(tt.cells.GRU(I, N), tmp_path / "net")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("what", "options", "said"),
    [
        (lambda: tt.cells.GRU(I, N), {"name": "a b"}, "name: 'a b' is no name in C"),
        (lambda: tt.cells.GRU(I, N), {"target": "x86-64-v3"}, "target is an option of c, not of wasm"),
        (lambda: tt.GRU(I, N, bidirectional=True), {}, "runs from the end of a sequence too"),
        (lambda: tt.cells.GRU(I, N, dtype=torch.float64), {}, "float64"),
    ],
)
def test_what_cannot_be_is_refused(what, options, said, tmp_path):
    with pytest.raises(UserError, match=said):
        exported(what(), tmp_path / "net", **options)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten_unasked(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        exported(tt.cells.GRU(I, N), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
