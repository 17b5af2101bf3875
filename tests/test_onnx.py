"""ONNX of cells, layers and Recurrent: what onnxruntime makes of the files, beside PyTorch."""

import json
import logging
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator
from torch import nn

import throughtime as tt
from cell_maker import make
from onnx_fuzz import judge
from onnx_fuzz import outcome as outcome_of
from throughtime.errors import UserError
from throughtime.exporting import export
from throughtime.exporting.agreement import check, trials
from throughtime.exporting.onnx import model, operations, standard
from throughtime.exporting.onnx.model import operators, sequence_model, step_model
from throughtime.exporting.onnx.nodes import Nodes
from throughtime.exporting.onnx.operations import FLOAT32_ALONE, ONNX, OnnxOperations, Value
from throughtime.exporting.onnx.running import sequences, session, steps
from throughtime.exporting.stack import stack_of
from throughtime.scanning.call import leaves
from throughtime.scanning.evaluate import TORCH
from throughtime.scanning.nodes import COMPARISONS, LOGIC, POINTWISE

INPUT, HIDDEN = 3, 5


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


class OwnLSTM(nn.Module):
    """An LSTM as somebody may write it: one matrix for [h, x], another order, a bias of its own for the forget gate."""

    input_size = INPUT

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(INPUT + HIDDEN, 4 * HIDDEN)
        self.register_buffer("more", torch.rand(HIDDEN))

    def initial_state(self, batch, *, device=None):
        return torch.zeros(batch, HIDDEN), torch.zeros(batch, HIDDEN)

    def forward(self, x, state):
        h, c = state
        f, o, i, g = self.linear(torch.cat([h, x], 1)).chunk(4, 1)
        c = torch.tanh(g) * i.sigmoid() + c * torch.sigmoid(f + self.more)
        return c.tanh() * o.sigmoid(), c


class OwnGRU(nn.Module):
    """A GRU of six matrices, the reset gate before the product. inverted: with the update gate the other way round."""

    input_size = INPUT

    def __init__(self, inverted=False):
        super().__init__()
        self.inverted = inverted
        self.of_x = nn.ModuleList(nn.Linear(INPUT, HIDDEN) for _ in range(3))
        self.of_h = nn.ModuleList(nn.Linear(HIDDEN, HIDDEN, bias=False) for _ in range(3))

    def initial_state(self, batch, *, device=None):
        return torch.zeros(batch, HIDDEN)

    def forward(self, x, h):
        z = torch.sigmoid(self.of_h[0](h) + self.of_x[0](x))
        r = torch.sigmoid(self.of_x[1](x) + self.of_h[1](h))
        n = torch.tanh(self.of_h[2](h * r) + self.of_x[2](x))
        return n * z + h * (1 - z) if self.inverted else h * z + n * (1 - z)


class Grid(nn.Module):
    """Two inputs of several ranks, states of several ranks, an output that is neither."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 4) / 2)

    def initial_state(self, batch, *, device=None):
        return torch.zeros(batch, 2, 4), torch.full((batch,), 0.5)

    def forward(self, x, state):
        grid, count = state
        given, gate = x
        seen = torch.tanh(given.flatten(1) @ self.weight)
        grid = torch.tanh(grid + seen.unsqueeze(1) * torch.sigmoid(gate).view(-1, 1, 1))
        count = 0.9 * count + gate
        return grid.transpose(1, 2) * count.view(-1, 1, 1), (grid, count)


GRID = (torch.zeros(1, 2, 4), torch.zeros(1))


class Second(nn.Module):
    """A GRU of the second of two inputs, which is [3, 1]."""

    def __init__(self):
        super().__init__()
        self.cell = tt.cells.GRU(3, HIDDEN)

    def initial_state(self, batch, *, device=None):
        return self.cell.initial_state(batch)

    def forward(self, x, h):
        return self.cell(x[1].flatten(1), h)


class Idle(nn.Module):
    """Reads no input."""

    input_size = INPUT

    def initial_state(self, batch, *, device=None):
        return torch.zeros(batch, HIDDEN)

    def forward(self, x, h):
        return torch.tanh(h * 0.9 + 0.1)


class Blind(nn.Module):
    """Whose output needs no state."""

    input_size = INPUT

    def initial_state(self, batch, *, device=None):
        return torch.zeros(batch, INPUT)

    def forward(self, x, h):
        return torch.exp(x) - 1, h * 0.5 + x


def stacks():
    """What is exported, by name: (made, what else `stack_of` is given, the operators that go through time)."""
    known = {"elman": "RNN", "gru": "GRU", "lstm": "LSTM", "reset-before-gru": "GRU"}
    found = {name: (kind, {}, [known.get(name, "Scan")]) for name, kind in tt.cells.NAMED.items()}
    for kind in (nn.LSTMCell, nn.GRUCell, nn.RNNCell):
        found[kind.__name__] = (kind, {}, [kind.__name__.removesuffix("Cell")])
        found[f"{kind.__name__}, no bias"] = (lambda i, n, k=kind: k(i, n, bias=False), {}, found[kind.__name__][2])
    own = {
        "relu": (lambda i, n: tt.cells.Elman(i, n, nonlinearity="relu"), {}, ["RNN"]),
        "torch's relu": (lambda i, n: nn.RNNCell(i, n, nonlinearity="relu"), {}, ["RNN"]),
        "backwards": (tt.cells.LSTM, {"reverse": True}, ["LSTM"]),
        "backwards, Scan": (tt.cells.LayerNormLSTM, {"reverse": True}, ["Scan"]),
        "an LSTM of one's own": (lambda *_: OwnLSTM(), {}, ["LSTM"]),
        "a GRU of one's own": (lambda *_: OwnGRU(), {}, ["GRU"]),
        "no GRU": (lambda *_: OwnGRU(inverted=True), {}, ["Scan"]),
        "projection": (lambda i, n: tt.cells.LSTM(i, n, proj_size=2), {}, ["Scan"]),
        "ranks": (lambda *_: Grid(), {"inputs": GRID}, ["Scan"]),
        "ranks, backwards": (lambda *_: Grid(), {"inputs": GRID, "reverse": True}, ["Scan"]),
        "the second input": (lambda *_: Second(), {"inputs": (torch.zeros(1), torch.zeros(1, 3, 1))}, ["GRU"]),
        "reads no input": (lambda *_: Idle(), {}, ["Scan"]),
        "output of the input": (lambda *_: Blind(), {}, ["Scan"]),
        "float64": (lambda i, n: tt.cells.GRU(i, n).double(), {}, ["Scan"]),
        "tt.LSTM": (lambda i, n: tt.LSTM(i, n, 2, bidirectional=True), {}, ["LSTM"] * 4),
        "tt.LSTM, projection": (lambda i, n: tt.LSTM(i, n, 2, proj_size=2), {}, ["Scan"] * 2),
        "tt.GRU": (lambda i, n: tt.GRU(i, n, 3, bias=False), {}, ["GRU"] * 3),
        "tt.RNN": (lambda i, n: tt.RNN(i, n, 2, bidirectional=True), {}, ["RNN"] * 4),
        "Recurrent": (lambda i, n: tt.Recurrent(tt.cells.UGRNN, i, n, num_layers=2, bidirectional=True), {}, ["Scan"] * 4),
        "residual": (lambda i, n: tt.Recurrent(tt.cells.GRU, n, n, num_layers=3, residual=True), {}, ["GRU"] * 3),
        "zoneout": (lambda i, n: tt.Recurrent(tt.cells.LSTM, i, n, num_layers=2, zoneout=0.3), {}, ["Scan"] * 2),
    }  # fmt: skip
    return found | own


STACKS = stacks()


def stack_called(name):
    kind, given, chosen = STACKS[name]
    return stack_of(kind(INPUT, HIDDEN), **given), chosen


@pytest.mark.parametrize("name", STACKS)
def test_whole_sequences_and_steps_are_those_of_pytorch(name):
    stack, chosen = stack_called(name)
    for lengths in (False, True):
        made = sequence_model(stack, lengths=lengths)
        assert operators(made) == chosen
        whole = sequences(session(made.SerializeToString()))
        assert check(stack, whole, name, lengths=lengths) < 1e-5
    if stack.can_step:
        assert check(stack, steps(session(step_model(stack).SerializeToString())), name) < 1e-5


@pytest.mark.parametrize("name", ["elman", "lstm", "tt.GRU", "reset-before-gru", "layernorm-lstm", "ranks", "zoneout"])
def test_they_are_so_by_the_standard_and_not_by_one_runtime_alone(name):
    stack, _ = stack_called(name)  # onnx's own evaluator is plain NumPy, which has no lengths and no Scan backwards
    made = sequence_model(stack)
    (trial,) = trials(stack, ((5, 4),))
    names = [i.name for i in made.graph.input]
    given = [t.numpy() for t in (*leaves(trial.inputs), *trial.states)]
    results = ReferenceEvaluator(made).run(None, dict(zip(names, given, strict=True)))
    for got, right in zip(results, [trial.output, *trial.finals], strict=True):
        np.testing.assert_allclose(got, right.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "name", ["lstm", "layernorm-gru", "backwards", "backwards, Scan", "tt.RNN", "ranks, backwards"]
)
def test_lengths_of_nothing_and_of_all(name):
    stack, _ = stack_called(name)
    run = sequences(session(sequence_model(stack, lengths=True).SerializeToString()))
    (trial,) = trials(stack, ((6, 4),))
    inputs = trial.inputs
    for given in ([0, 6, 1, 5], [0, 0, 0, 0], [6, 6, 6, 6]):
        lengths = torch.tensor(given)
        y, finals = stack.run(inputs, trial.states, lengths)
        poisoned = inputs
        if isinstance(inputs, torch.Tensor):
            poisoned = inputs.clone()
            poisoned[torch.arange(6).unsqueeze(1) >= lengths] = float("nan")  # what lies past a length is not looked at
        got, ends = run(poisoned, trial.states, lengths)
        for a, b in zip([got, *ends], [y, *finals], strict=True):
            torch.testing.assert_close(a, b)
        assert not got[torch.arange(6).unsqueeze(1) >= lengths].any()


@pytest.mark.parametrize("name", ["lstm", "gru", "tt.GRU", "tt.RNN"])
def test_no_steps_leave_states_as_they_are(name):
    stack, _ = stack_called(name)
    run = sequences(session(sequence_model(stack).SerializeToString()))
    states = [torch.randn(2, *s.shape[1:]) for s in stack.states]
    y, finals = run(torch.zeros(0, 2, INPUT), states, None)
    assert y.shape[:2] == (0, 2)
    assert all(map(torch.equal, finals, states))


# the table of operations


FEW = [
    0.0,
    1e-45,
    1e-40,
    1e-30,
    1e-8,
    1e-4,
    0.3,
    0.5,
    1,
    1.5,
    2,
    3,
    9,
    17,
    20,
    50,
    88,
    89,
    103,
    1e3,
    1e10,
    3e38,
    np.inf,
]
EDGES = [*FEW, *(-v for v in FEW), np.nan]


def worked_out(op, dtype, *columns):
    """What the table makes of an op, of columns of numbers (or truth values)."""
    nodes = Nodes()
    kinds = [bool if c.dtype == bool else dtype for c in columns]
    values = [Value(f"a{i}", c.shape[1], rows=True, boolean=c.dtype == bool) for i, c in enumerate(columns)]
    table = OnnxOperations(nodes, lambda kind, index: values[index], [], "a0", 1, dtype)
    result = table.pointwise[op](*values)
    nodes.named(result.name, "result")

    def info(name, kind):
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), ["R", "C"])

    graph = nodes.graph("op", [info(v.name, k) for v, k in zip(values, kinds, strict=True)],
                        [info("result", bool if result.boolean else dtype)])  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return session(model.SerializeToString()).run(None, {f"a{i}": c for i, c in enumerate(columns)})[0]


def arguments(op, dtype):
    one = np.array(EDGES, dtype)
    pairs = np.array(np.meshgrid(one, one), dtype).reshape(2, -1, 1)
    if op in ("and", "or"):
        return tuple(np.array([[0, 0, 1, 1], [0, 1, 0, 1]], bool).reshape(2, -1, 1))
    if op == "not":
        return (np.array([[False], [True]]),)
    if op == "select":
        return (np.arange(len(pairs[0])).reshape(-1, 1) % 3 == 0, *pairs)
    if op == "largest":
        return (*pairs, pairs[0][::-1].copy())
    if op in COMPARISONS or op in ("add", "sub", "mul", "div", "pow", "minimum", "maximum"):
        return tuple(pairs)
    return (np.stack([one] * 5, 1),)  # enough in a row for the runtime's vectors


ABSOLUTE = {"sigmoid": 1e-7, "tanh": 1e-38}  # how small numbers the runtime's own function rounds away: see `refining`
UNSIGNED = {"select", "log1p", "expm1"}  # onnxruntime's Where makes 0 of -0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("op", sorted(POINTWISE - {"expand"}))
def test_every_operation_is_pytorchs_at_the_edges(op, dtype):
    given = arguments(op, dtype)
    if op.capitalize() in FLOAT32_ALONE and dtype == np.float64:
        with pytest.raises(UserError, match=f"{op} of float64 cannot be exported"):
            worked_out(op, dtype, *given)
        return
    right = TORCH[op](*map(torch.from_numpy, given)).numpy()
    got = worked_out(op, dtype, *given)
    assert got.dtype == right.dtype and got.shape == right.shape
    if right.dtype == bool:
        assert (got == right).all()
        return
    relative = 2e-6 if dtype == np.float32 else 1e-12
    with np.errstate(all="ignore"):
        same = (got == right) | (np.isnan(got) & np.isnan(right))
        same |= abs(got - right) <= relative * abs(right) + ABSOLUTE.get(op, 1e-44)
    wrong = np.argwhere(~same)
    assert not len(wrong), [(*(a[tuple(w)] for a in given), got[tuple(w)], right[tuple(w)]) for w in wrong[:5]]
    zero = (right == 0) & (got == 0) & (op not in UNSIGNED)
    assert (np.signbit(got) == np.signbit(right))[zero].all()


def test_the_table_has_every_operation():
    assert set(ONNX) == POINTWISE - {"expand"}


@pytest.mark.parametrize("op", ["add", "lt", "eq", "select", "mul"])
def test_truth_values_count_as_numbers(op):
    truth = np.array([[True], [False], [True]])
    numbers = np.array([[0.5], [0.0], [1.0]], np.float32)
    given = (truth, numbers, numbers + 1) if op == "select" else (truth, numbers)
    right = TORCH[op](*(torch.from_numpy(g) for g in given)).numpy()
    np.testing.assert_array_equal(worked_out(op, np.float32, *given), right)


def test_a_number_counts_as_whether_it_is_not_0():
    numbers = np.array([[0.5], [0.0], [np.nan]], np.float32)
    for op in LOGIC - {"not"}:
        right = TORCH[op](torch.from_numpy(numbers), torch.tensor([[True], [False], [False]]))
        got = worked_out(op, np.float32, numbers, np.array([[True], [False], [False]]))
        np.testing.assert_array_equal(got, right.numpy())


@pytest.mark.parametrize("function", [torch.amax, torch.sum])
def test_reductions_pass_on_what_is_no_number(function):
    def cell(x, h):
        return torch.tanh(function(x * 1.0, 1, keepdim=True) + 0.5 * h)

    stack = stack_of(cell, torch.zeros(1, 4), torch.zeros(1, 4))
    run = sequences(session(sequence_model(stack).SerializeToString()))
    x = torch.randn(3, 7, 4)
    x[0, 0, 2], x[1, 1, 0], x[1, 2, 3], x[2, 3, 0] = float("nan"), float("inf"), -float("inf"), float("nan")
    right, _ = stack.run(x, [torch.zeros(7, 4)])
    got, _ = run(x, [torch.zeros(7, 4)], None)
    torch.testing.assert_close(got, right, equal_nan=True)


@pytest.mark.parametrize(
    "written", [lambda s: torch.log(s), lambda s: 1e-9 / s, lambda s: torch.sign(s), lambda s: (s > 0) * s]
)
def test_a_small_sigmoid_has_a_size_where_it_counts(written):
    def cell(x, h):
        return written(torch.sigmoid(x)) + 0 * h

    stack = stack_of(cell, torch.zeros(1, 1), torch.zeros(1, 1))
    x = torch.tensor([-80.0, -30, -18, -3, 0, 2, 40]).view(1, -1, 1)
    for run in (
        sequences(session(sequence_model(stack).SerializeToString())),
        steps(session(step_model(stack).SerializeToString())),
    ):
        right, _ = stack.run(x, [torch.zeros(7, 1)])
        got, _ = run(x, [torch.zeros(7, 1)], None)
        torch.testing.assert_close(got, right, rtol=1e-5, atol=0)


@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("number", [True, False])
def test_what_is_scaled_and_read_twice_is_loaded(width, number):
    """By the optimiser of onnxruntime 1.32, which takes a scale into a product, and away from whoever else reads it."""

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = (nn.Parameter(torch.randn(width, 6)) for _ in range(2))
            self.scale = nn.Parameter(torch.rand(1) + 0.5)

        def forward(self, x, h):
            shared = torch.tanh(h[:, :width]) / (6 if number else self.scale)
            output = (shared * (0.2 if number else self.scale.exp())) @ self.first
            return output, torch.tanh(output + h) * torch.sigmoid(shared @ self.second)

    stack = stack_of(Scaled(), torch.zeros(1, 6), torch.zeros(1, 6))
    check(stack, sequences(session(sequence_model(stack).SerializeToString())), "sequences")
    check(stack, steps(session(step_model(stack).SerializeToString())), "steps")


def test_what_the_runtime_does_not_load_is_said():
    with pytest.raises(UserError, match="onnxruntime does not load what was written"):
        session(b"nothing")


def test_gates_are_worked_out_together():
    model = step_model(stack_of(tt.cells.LSTM(INPUT, HIDDEN)))
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("Sigmoid") == 1 and kinds.count("Split") == 1 and kinds.count("Slice") == 1
    onnx.checker.check_model(model, full_check=True)


# faults that must not go unseen


def test_gates_in_the_wrong_order_are_seen(monkeypatch, tmp_path):
    monkeypatch.setitem(standard.ORDERS, "LSTM", (0, 3, 2, 1))
    with pytest.raises(
        UserError, match=r"LSTM as onnx, whole sequences: .* differs from the reference by .*nothing was written"
    ):
        export(tt.cells.LSTM(INPUT, HIDDEN), "onnx", tmp_path / "cell.onnx")
    with pytest.raises(UserError, match="differs"):
        export(tt.cells.LSTM(INPUT, HIDDEN), "onnx", tmp_path / "cell")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("op", "wrong"), [("sub", "Add"), ("tanh", "Sigmoid"), ("mul", "Max")])
def test_a_wrong_operation_is_seen(monkeypatch, tmp_path, op, wrong):
    monkeypatch.setitem(operations.ONNX, op, ONNX[{"Add": "add", "Sigmoid": "sigmoid", "Max": "maximum"}[wrong]])
    with pytest.raises(UserError, match=r"CoupledLSTM as onnx, .* differs"):
        export(tt.cells.CoupledLSTM(INPUT, HIDDEN), "onnx", tmp_path / "cell.onnx")
    assert not list(tmp_path.iterdir())


def test_an_operator_whose_reset_gate_stands_elsewhere_is_seen(monkeypatch, tmp_path):
    from throughtime.exporting.onnx import recognition

    (first, _), *rest = recognition.TEMPLATES["GRU"]
    monkeypatch.setitem(recognition.TEMPLATES, "GRU", ((first, {}), *rest))
    with pytest.raises(UserError, match=r"GRU as onnx, whole sequences: .* differs"):
        export(tt.cells.GRU(INPUT, HIDDEN), "onnx", tmp_path / "cell.onnx")


def test_a_length_that_is_one_too_much_is_seen(monkeypatch, tmp_path):
    right = model._active
    monkeypatch.setattr(model, "_active", lambda nodes, x, n: right(nodes, x, nodes.add("Add", n, nodes.whole(1))))
    with pytest.raises(UserError, match="differs"):
        export(tt.cells.UGRNN(INPUT, HIDDEN), "onnx", tmp_path / "cell.onnx", lengths=True)


@pytest.mark.parametrize(("kind", "made"), [(tt.cells.GRU, "standard"), (tt.cells.UGRNN, "scan_nodes")])
def test_a_wrong_direction_is_seen(monkeypatch, tmp_path, kind, made):
    right = getattr(model, made)
    monkeypatch.setattr(model, made, lambda *given, reverse: right(*given, reverse=not reverse))
    with pytest.raises(UserError, match="differs"):
        export(kind(INPUT, HIDDEN), "onnx", tmp_path / "cell.onnx", reverse=True)


def test_a_step_of_thousands_of_operations(tmp_path):
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 4))

        def forward(self, x, h):
            for k in range(700):
                h = h + torch.tanh(x * k) * 0.01
            for k in range(100):
                a, b = (h @ self.weight + k / 1000).chunk(2, 1)
                h = torch.cat([torch.tanh(b), torch.tanh(a)], 1)
            return h

    path = export(Deep(), "onnx", tmp_path / "cell.onnx", inputs=torch.zeros(1, 4), state=torch.zeros(1, 4))
    (loop,) = [n for n in onnx.load(path).graph.node if n.op_type == "Scan"]
    (body,) = [a.g for a in loop.attribute if a.name == "body"]
    assert len(body.node) > 2000


# files


def test_a_folder_holds_what_its_readme_says(tmp_path, monkeypatch):
    path = export(tt.cells.LSTM(INPUT, HIDDEN), "onnx", tmp_path / "cell")
    assert sorted(p.name for p in path.iterdir()) == [
        "EXPORT.json", "README.md", "sequence.onnx", "step.onnx", "vectors.json",
    ]  # fmt: skip
    readme = (path / "README.md").read_text()
    assert "opset 18" in readme and "layer 0: LSTM, by `LSTM`" in readme and "the largest difference" in readme
    monkeypatch.chdir(path)
    names = {}
    exec(readme.split("```python\n")[1].split("```")[0], names)
    assert names["y"].shape == (50, 4, HIDDEN)
    np.testing.assert_allclose(names["y_t"], names["y"][-1], atol=1e-6)
    assert json.loads((path / "EXPORT.json").read_text())["operators"] == ["LSTM"]


@pytest.mark.parametrize("lengths", [False, True])
def test_the_test_vectors_are_those_of_the_file(tmp_path, lengths):
    path = export(tt.Recurrent(tt.cells.UGRNN, INPUT, HIDDEN, num_layers=2), "onnx", tmp_path / "cell", lengths=lengths)
    model = onnxruntime.InferenceSession(path / "sequence.onnx")
    cases = json.loads((path / "vectors.json").read_text())
    assert len(cases) == 3
    for case in cases:
        tensors = {
            name: np.array(v["values"], np.float32).reshape(v["shape"])
            for group in ("inputs", "states", "outputs", "finals")
            for name, v in case[group].items()
        }
        given = {i.name: tensors[i.name] for i in model.get_inputs() if i.name != "lengths"}
        if lengths:
            given["lengths"] = np.array(case["lengths"], np.int64)
        for info, got in zip(model.get_outputs(), model.run(None, given), strict=True):
            np.testing.assert_allclose(got, tensors[info.name], atol=1e-5)


def test_a_readme_tells_of_states_that_start_elsewhere(tmp_path):
    path = export(Grid(), "onnx", tmp_path / "cell", inputs=GRID)
    assert "`state1`: the same for every sequence, given in EXPORT.json as `start`" in (path / "README.md").read_text()
    assert json.loads((path / "EXPORT.json").read_text())["start"] == {"state1": [0.5]}


def test_a_readme_of_lengths_runs(tmp_path, monkeypatch):
    path = export(tt.GRU(INPUT, HIDDEN, bidirectional=True), "onnx", tmp_path / "cell", lengths=True)
    assert not (path / "step.onnx").exists()  # one direction begins at the end
    monkeypatch.chdir(path)
    names = {}
    exec((path / "README.md").read_text().split("```python\n")[1].split("```")[0], names)
    assert not names["y"][20:, 1].any() and names["y"][:, 0].all()


def test_a_file_has_names_and_meanings(tmp_path):
    path = export(tt.cells.LSTM(INPUT, HIDDEN), "onnx", tmp_path / "cell.onnx")
    model = onnx.load(path)
    assert [i.name for i in model.graph.input] == ["x", "state0", "state1"]
    assert [o.name for o in model.graph.output] == ["y", "final0", "final1"]
    assert model.producer_name == "throughtime" and model.producer_version == tt.__version__
    assert model.opset_import[0].version == 18 and model.ir_version == 8
    assert model.graph.input[1].doc_string == "LSTM, tensor 1 of the 2 of its state"
    assert [p.name for p in tmp_path.iterdir()] == ["cell.onnx"]


def test_what_is_in_the_way_stays(tmp_path):
    (tmp_path / "cell.onnx").write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        export(tt.cells.GRU(INPUT, HIDDEN), "onnx", tmp_path / "cell.onnx")
    assert (tmp_path / "cell.onnx").read_text() == "mine"
    export(tt.cells.GRU(INPUT, HIDDEN), "onnx", tmp_path / "cell.onnx", overwrite=True)
    onnx.load(tmp_path / "cell.onnx")
    export(tt.cells.GRU(INPUT, HIDDEN), "onnx", tmp_path / "folder")
    with pytest.raises(UserError, match="holds an export already"):
        export(tt.cells.GRU(INPUT, HIDDEN), "onnx", tmp_path / "folder")
    with pytest.raises(UserError, match="holds something else"):
        export(tt.cells.GRU(INPUT, HIDDEN), "onnx", tmp_path)


# what cannot be exported


def test_control_flow_on_a_value_is_said(tmp_path):
    def cell(x, h):
        return torch.tanh(x + h) if x[0, 0] > 0 else h

    with pytest.raises(UserError, match=r"cell cannot be exported: .* at .*test_onnx.py:\d+: "):
        export(cell, "onnx", tmp_path / "cell", inputs=torch.zeros(1, 4), state=torch.zeros(1, 4))
    assert not list(tmp_path.iterdir())


def test_an_operation_that_is_not_there_is_named(tmp_path):
    def cell(x, h):
        return torch.cumsum(x, 1) + h

    with pytest.raises(UserError, match=r"aten.cumsum at .*test_onnx.py:\d+: a running sum"):
        export(cell, "onnx", tmp_path / "cell", inputs=torch.zeros(1, 4), state=torch.zeros(1, 4))


def test_an_operation_that_the_runtime_has_not_is_named(tmp_path):
    def cell(x, h):
        return torch.erf(x) + h

    given = {"inputs": torch.zeros(1, 4).double(), "state": torch.zeros(1, 4).double()}
    with pytest.raises(UserError, match="erf of float64 cannot be exported to onnx"):
        export(cell, "onnx", tmp_path / "cell", **given)


def test_numbers_of_another_type_are_refused(tmp_path):
    def cell(x, h):
        return torch.tanh(x + h)

    with pytest.raises(UserError, match="x is bfloat16: what is exported to onnx is of float32 or float64"):
        export(cell, "onnx", tmp_path / "c", inputs=torch.zeros(1, 4).bfloat16(), state=torch.zeros(1, 4).bfloat16())


@pytest.mark.parametrize("name", ["onnx", "onnxruntime"])
def test_what_to_install_is_said(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"onnx needs {name}: pip install 'throughtime\[export\]'"):
        export(tt.cells.GRU(INPUT, HIDDEN), "onnx", tmp_path / "cell")


# eight bits


@pytest.mark.parametrize("kind", [tt.cells.LSTM, tt.cells.GRU, tt.cells.LayerNormLSTM])
def test_eight_bits_are_smaller_and_near(tmp_path, kind, caplog):
    handlers = list(logging.root.handlers)
    cell = kind(24, 64)
    large = export(cell, "onnx", tmp_path / "large", lengths=True)
    small = export(cell, "onnx", tmp_path / "small", lengths=True, int8=True)
    for name in ("step.onnx", "sequence.onnx"):
        assert (small / name).stat().st_size < 0.6 * (large / name).stat().st_size
    assert "weights in eight bits" in (small / "README.md").read_text()
    assert not caplog.records and logging.root.handlers == handlers and logging.root.manager.disable == 0
    stack = stack_of(cell)
    one, other = (sequences(session(folder / "sequence.onnx")) for folder in (large, small))
    for trial in trials(stack, ((7, 3), (5, 4)), lengths=True):
        near, _ = one(trial.inputs, trial.states, trial.lengths)
        got, finals = other(trial.inputs, trial.states, trial.lengths)
        away = float((got - trial.output).abs().max())
        assert float((near - trial.output).abs().max()) < 1e-5 < away < 0.3
        for b in torch.nonzero(trial.lengths == 0).flatten():
            assert all(torch.equal(f[b], s[b]) for f, s in zip(finals, trial.states, strict=True))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["large", "small"]


def test_eight_bits_of_a_gru_are_a_scans(tmp_path):
    path = export(tt.GRU(INPUT, HIDDEN), "onnx", tmp_path / "cell", int8=True)
    (loop,) = [n for n in onnx.load(path / "sequence.onnx").graph.node if n.op_type == "Scan"]
    (body,) = [a.g for a in loop.attribute if a.name == "body"]
    assert "MatMulInteger" in {n.op_type for n in body.node}
    assert "layer 0: GRU, by `Scan`" in (path / "README.md").read_text()


def test_eight_bits_are_of_float32(tmp_path):
    with pytest.raises(UserError, match="int8 is of float32"):
        export(tt.cells.GRU(INPUT, HIDDEN).double(), "onnx", tmp_path / "cell", int8=True)


# at random


def test_random_cells_are_right_or_refused():
    found = [outcome_of({**judged.__dict__, "verdict": judged.verdict}) for judged in map(judge, map(make, range(25)))]
    assert set(found) <= {"right", "refused", "of no account"} and found.count("right") >= 10


def test_the_fuzz_sees_a_fault(monkeypatch):
    monkeypatch.setitem(operations.ONNX, "tanh", ONNX["sigmoid"])
    assert "WRONG" in [judge(make(seed)).verdict for seed in range(12)]
