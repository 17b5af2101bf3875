"""Cells against references that share no code with them: NumPy written from the equations, and torch.nn's cells.

Each comparison starts from a random state, takes several steps, and looks at the outputs, the last state and the
gradient of every input, state and weight. The gradients of the NumPy reference are complex-step derivatives,
f'(a) = Im f(a + iε) / ε, exact to rounding, with no autograd in them.

Sizes: T time, B batch, I input, N hidden, P projected.
"""

import math

import numpy as np
import pytest
import torch
from torch import nn

import throughtime as tt
from throughtime.cells import (
    GRU,
    LSTM,
    NAMED,
    Cell,
    Elman,
    RecurrentDropout,
    Zoneout,
    chrono_,
    orthogonal_,
    set_forget_bias_,
)
from throughtime.cells.base import split_result, watching

T, B, I, N, P = 6, 4, 3, 5, 2  # noqa: E741


# The equations, in NumPy: step(weights, x, state, mask) -> (new state, named inner values); a state is always a tuple.


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def relu(a):
    return a * (a.real > 0)  # also of a complex number, where it has the derivative of the real one


def products(w, x, h, mask, gates):
    zero = np.zeros(w["weight_ih"].shape[0])
    from_x = x @ w["weight_ih"].T + w.get("bias_ih", zero)
    from_h = (h if mask is None else h * mask) @ w["weight_hh"].T + w.get("bias_hh", zero)
    return np.split(from_x, gates, -1), np.split(from_h, gates, -1)


def elman_step(f):
    def step(w, x, state, mask=None):
        (a,), (b,) = products(w, x, state[0], mask, 1)
        h = f(a + b)
        return (h,), {"a": a + b, "h": h}

    return step


def gru_step(w, x, state, mask=None):
    (h,) = state
    (x_r, x_z, x_n), (h_r, h_z, h_n) = products(w, x, h, mask, 3)
    r = sigmoid(x_r + h_r)
    z = sigmoid(x_z + h_z)
    n = np.tanh(x_n + r * h_n)
    new = (1 - z) * n + z * h
    return (new,), {"reset": r, "update": z, "new": n, "h": new}


def lstm_step(w, x, state, mask=None):
    h, c = state
    (x_i, x_f, x_g, x_o), (h_i, h_f, h_g, h_o) = products(w, x, h, mask, 4)
    i, f, g, o = sigmoid(x_i + h_i), sigmoid(x_f + h_f), np.tanh(x_g + h_g), sigmoid(x_o + h_o)
    c = f * c + i * g
    h = o * np.tanh(c)
    if "weight_hr" in w:
        h = h @ w["weight_hr"].T
    return (h, c), {"input": i, "forget": f, "cell": g, "output": o, "c": c, "h": h}


CELLS = {
    "elman-tanh": (lambda **o: Elman(I, N, **o), elman_step(np.tanh), (N,)),
    "elman-relu": (lambda **o: Elman(I, N, nonlinearity="relu", **o), elman_step(relu), (N,)),
    "gru": (lambda **o: GRU(I, N, **o), gru_step, (N,)),
    "lstm": (lambda **o: LSTM(I, N, **o), lstm_step, (N, N)),
    "lstm-projected": (lambda **o: LSTM(I, N, proj_size=P, **o), lstm_step, (P, N)),
}
TORCH_CELLS = {
    "elman-tanh": lambda **o: nn.RNNCell(I, N, **o),
    "elman-relu": lambda **o: nn.RNNCell(I, N, nonlinearity="relu", **o),
    "gru": lambda **o: nn.GRUCell(I, N, **o),
    "lstm": lambda **o: nn.LSTMCell(I, N, **o),
}
all_cells = pytest.mark.parametrize("kind", CELLS)
with_and_without_bias = pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])


def make(kind, **options):
    torch.manual_seed(3)
    return CELLS[kind][0](dtype=torch.float64, **options)


def numpy_weights(cell):
    return {name: p.detach().numpy().copy() for name, p in cell.named_parameters()}


class Problem:
    """Inputs, a first state and a loss that weighs every output and the last state with random numbers."""

    def __init__(self, sizes, seed=0, masked=False):
        rng = np.random.default_rng(seed)
        self.values = {"x": rng.standard_normal((T, B, I))}
        self.values |= {f"state {k}": rng.standard_normal((B, n)) for k, n in enumerate(sizes)}
        self.on_outputs = rng.standard_normal((T, B, sizes[0]))
        self.on_state = [rng.standard_normal((B, n)) for n in sizes]
        self.mask = rng.integers(0, 2, (B, sizes[0])) / 0.5 if masked else None

    def loss(self, outputs, state):
        return sum((o * w).sum() for o, w in zip(outputs, self.on_outputs, strict=True)) + sum(
            (s * w).sum() for s, w in zip(state, self.on_state, strict=True)
        )

    def run_numpy(self, step, values):
        state = tuple(v for name, v in values.items() if name.startswith("state"))
        weights = {name: v for name, v in values.items() if name.startswith(("weight", "bias"))}
        outputs = []
        for x in values["x"]:
            state, _ = step(weights, x, state, self.mask)
            outputs.append(state[0])
        return outputs, state

    def numpy_gradients(self, step, values):
        """The complex-step derivative of the loss by every number in `values`."""
        gradients, tiny = {}, 1e-30
        for name, value in values.items():
            gradient = np.zeros(value.shape)
            for index in np.ndindex(value.shape):
                moved = value.astype(complex)
                moved[index] += 1j * tiny
                gradient[index] = self.loss(*self.run_numpy(step, values | {name: moved})).imag / tiny
            gradients[name] = gradient
        return gradients

    def run_torch(self, cell):
        """The cell in a loop: outputs, last state and gradients by name."""
        leaves = {name: torch.tensor(v, requires_grad=True) for name, v in self.values.items()}
        mask = () if self.mask is None else (torch.tensor(self.mask),)
        state = tuple(v for name, v in leaves.items() if name.startswith("state"))
        outputs = []
        for x in leaves["x"]:
            new = cell(x, state if len(state) > 1 else state[0], *mask)
            state = new if isinstance(new, tuple) else (new,)
            outputs.append(state[0])
        loss = sum((o * torch.tensor(w)).sum() for o, w in zip(outputs, self.on_outputs, strict=True)) + sum(
            (s * torch.tensor(w)).sum() for s, w in zip(state, self.on_state, strict=True)
        )
        wanted = leaves | dict(cell.named_parameters())
        found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True, materialize_grads=True)
        return outputs, state, dict(zip(wanted, found, strict=True))


def close(found, expected, what):
    found = found.detach().numpy() if isinstance(found, torch.Tensor) else found
    expected = expected.detach().numpy() if isinstance(expected, torch.Tensor) else expected
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12, err_msg=what)


def assert_follows(cell, step, sizes, masked=False):
    """A cell gives what the NumPy step gives: every output, the last state, and the gradient of everything."""
    problem = Problem(sizes, masked=masked)
    values = problem.values | numpy_weights(cell)
    outputs, state, gradients = problem.run_torch(cell)
    expected_outputs, expected_state = problem.run_numpy(step, values)
    for t, (found, expected) in enumerate(zip(outputs, expected_outputs, strict=True)):
        close(found, expected, f"output of step {t}")
    for k, (found, expected) in enumerate(zip(state, expected_state, strict=True)):
        close(found, expected, f"tensor {k} of the last state")
    expected_gradients = problem.numpy_gradients(step, values)
    assert set(gradients) == set(expected_gradients)
    for name, expected in expected_gradients.items():
        assert np.abs(expected).max() > 1e-6, f"the loss does not depend on {name}: nothing is tested"
        close(gradients[name], expected, f"gradient of {name}")


@with_and_without_bias
@all_cells
def test_a_cell_is_its_equations(kind, bias):
    _, step, sizes = CELLS[kind]
    assert_follows(make(kind, bias=bias), step, sizes)


@all_cells
def test_a_mask_is_on_what_the_recurrent_product_sees_and_nowhere_else(kind):
    _, step, sizes = CELLS[kind]
    assert_follows(make(kind), step, sizes, masked=True)


# Wrong cells: the comparison above is worth something because it catches each of these.


class NoRecurrence(GRU):
    def project_state(self, h, mask):
        return super().project_state(torch.zeros_like(h), mask)


class SwappedGRUGates(GRU):
    def project_input(self, x):
        r, z, n = super().project_input(x)
        return z, r, n

    def project_state(self, h, mask):
        r, z, n = super().project_state(h, mask)
        return z, r, n


class InvertedUpdate(GRU):
    def forward(self, x, h, mask=None):
        (x_r, x_z, x_n), (h_r, h_z, h_n) = self.project_input(x), self.project_state(h, mask)
        r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
        n = torch.tanh(x_n + r * h_n)
        return z * n + (1 - z) * h


class ResetBeforeProduct(GRU):
    def forward(self, x, h, mask=None):
        (x_r, x_z, x_n), (h_r, h_z, _) = self.project_input(x), self.project_state(h, mask)
        r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
        n = torch.tanh(x_n + self.project_state(r * h, mask)[2])
        return (1 - z) * n + z * h


class ForgottenHiddenBias(GRU):
    def project_state(self, h, mask):
        return tuple(p - b for p, b in zip(super().project_state(h, mask), self.bias_hh.chunk(3), strict=True))


class CutGradient(GRU):
    """Right outputs, wrong gradients: no gradient goes back through the gates' view of the state."""

    def project_state(self, h, mask):
        return super().project_state(h.detach(), mask)


class SwappedLSTMGates(LSTM):
    def project_input(self, x):
        i, f, g, o = super().project_input(x)
        return f, i, g, o

    def project_state(self, h, mask):
        i, f, g, o = super().project_state(h, mask)
        return f, i, g, o


class SlightlyWrongOutput(LSTM):
    """Wrong by less than a millionth, through the c of the step before."""

    def forward(self, x, state, mask=None):
        (h, c), (_, old) = super().forward(x, state, mask), state
        o = torch.sigmoid(self.project_input(x)[3] + self.project_state(state[0], mask)[3])
        return h + o * 1e-6 * torch.tanh(old), c


class WrongNonlinearity(Elman):
    def forward(self, x, h, mask=None):
        return torch.nn.functional.hardtanh(self.project_input(x)[0] + self.project_state(h, mask)[0])


WRONG = {
    NoRecurrence: "gru",
    SwappedGRUGates: "gru",
    InvertedUpdate: "gru",
    ResetBeforeProduct: "gru",
    ForgottenHiddenBias: "gru",
    CutGradient: "gru",
    SwappedLSTMGates: "lstm",
    SlightlyWrongOutput: "lstm",
    WrongNonlinearity: "elman-tanh",
}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda c: c.__name__)
def test_the_comparison_catches_a_wrong_cell(wrong):
    torch.manual_seed(3)
    _, step, sizes = CELLS[WRONG[wrong]]
    with pytest.raises(AssertionError, match=r"output of step|last state|gradient of"):
        assert_follows(wrong(I, N, dtype=torch.float64), step, sizes)


def test_a_wrong_gradient_alone_is_caught():
    torch.manual_seed(3)
    with pytest.raises(AssertionError, match="gradient of"):
        assert_follows(CutGradient(I, N, dtype=torch.float64), gru_step, (N,))


def test_a_mask_on_too_much_is_caught():
    class MaskOnTheWholeState(GRU):
        def forward(self, x, h, mask=None):
            return super().forward(x, h if mask is None else h * mask)

    with pytest.raises(AssertionError):
        assert_follows(MaskOnTheWholeState(I, N, dtype=torch.float64), gru_step, (N,), masked=True)


# torch.nn's cells


def assert_same_run(ours, theirs, sizes):
    problem = Problem(sizes, seed=5)
    ours_outputs, ours_state, ours_gradients = problem.run_torch(ours)
    outputs, state, gradients = problem.run_torch(theirs)
    for found, expected in zip((*ours_outputs, *ours_state), (*outputs, *state), strict=True):
        close(found, expected, "output or state")
    assert ours_gradients.keys() == gradients.keys()
    for name, expected in gradients.items():
        close(ours_gradients[name], expected, f"gradient of {name}")


@with_and_without_bias
@pytest.mark.parametrize("kind", TORCH_CELLS)
def test_a_state_dict_of_torch_nn_fits_ours(kind, bias):
    torch.manual_seed(1)
    ours, theirs = make(kind, bias=bias), TORCH_CELLS[kind](bias=bias, dtype=torch.float64)
    assert not torch.equal(ours.weight_hh, theirs.weight_hh)
    ours.load_state_dict(theirs.state_dict())
    assert_same_run(ours, theirs, CELLS[kind][2])


@with_and_without_bias
@pytest.mark.parametrize("kind", TORCH_CELLS)
def test_a_state_dict_of_ours_fits_torch_nn(kind, bias):
    torch.manual_seed(1)
    ours, theirs = make(kind, bias=bias), TORCH_CELLS[kind](bias=bias, dtype=torch.float64)
    theirs.load_state_dict(ours.state_dict())
    assert_same_run(ours, theirs, CELLS[kind][2])


@with_and_without_bias
@pytest.mark.parametrize("kind", TORCH_CELLS)
def test_a_seed_gives_the_weights_torch_nn_gives(kind, bias):
    torch.manual_seed(11)
    ours = CELLS[kind][0](bias=bias)
    torch.manual_seed(11)
    theirs = TORCH_CELLS[kind](bias=bias)
    expected = theirs.state_dict()
    assert list(ours.state_dict()) == list(expected)
    for name, value in ours.state_dict().items():
        assert torch.equal(value, expected[name]), name
        assert value.dtype == torch.float32


@with_and_without_bias
def test_a_seed_gives_the_projected_lstm_the_weights_torch_nn_gives(bias):
    torch.manual_seed(11)
    ours = LSTM(I, N, bias, proj_size=P)
    torch.manual_seed(11)
    expected = nn.LSTM(I, N, bias=bias, proj_size=P).state_dict()
    assert [f"{name}_l0" for name in ours.state_dict()] == list(expected)
    for name, value in ours.state_dict().items():
        assert torch.equal(value, expected[f"{name}_l0"]), name


@all_cells
def test_reset_parameters_draws_anew_within_the_bound(kind):
    cell = make(kind)
    before = {name: p.clone() for name, p in cell.named_parameters()}
    cell.reset_parameters()
    for name, p in cell.named_parameters():
        assert not torch.equal(p, before[name]), name
    drawn = torch.cat([p.detach().flatten() for p in cell.parameters()]) * math.sqrt(N)
    assert -1 <= drawn.min() < -0.9
    assert 0.9 < drawn.max() <= 1


def test_reset_parameters_keeps_the_forget_bias():
    cell = LSTM(I, N, forget_bias=1.5)
    cell.reset_parameters()
    assert torch.equal((cell.bias_ih + cell.bias_hh)[N : 2 * N], torch.full((N,), 1.5))


# Options


@pytest.mark.parametrize("value", [0.0, 1.0, -2.5])
def test_forget_bias_sets_the_sum_of_the_biases_of_the_forget_gate_alone(value):
    torch.manual_seed(4)
    plain = LSTM(I, N)
    torch.manual_seed(4)
    biased = LSTM(I, N, forget_bias=value)
    assert torch.equal((biased.bias_ih + biased.bias_hh)[N : 2 * N], torch.full((N,), value))
    others = torch.tensor([*range(N), *range(2 * N, 4 * N)])
    for name in ("bias_ih", "bias_hh"):
        assert torch.equal(getattr(biased, name)[others], getattr(plain, name)[others])
    assert torch.equal(biased.weight_ih, plain.weight_ih)
    assert torch.equal(biased.weight_hh, plain.weight_hh)


def test_forget_bias_moves_the_forget_gate():
    """On zeros the gate is σ of its bias, so the value can be read where the cell is watched."""
    cell = LSTM(I, N, forget_bias=1.0, dtype=torch.float64)
    with watching() as seen:
        cell(torch.zeros(B, I, dtype=torch.float64), cell.initial_state(B))
    close(seen["forget"], np.full((B, N), 1 / (1 + math.exp(-1))), "forget gate")


def test_set_forget_bias_after_the_fact():
    cell = LSTM(I, N)
    set_forget_bias_(cell, 3.0)
    assert torch.equal((cell.bias_ih + cell.bias_hh)[N : 2 * N], torch.full((N,), 3.0))
    assert cell.bias_ih.requires_grad
    assert cell.bias_ih.is_leaf


TIMED = sorted(name for name, cls in NAMED.items() if cls.time_gates)


def test_the_cells_with_a_gate_that_keeps_say_which():
    assert set(NAMED) - set(TIMED) == {"elman", "indrnn", "highway", "rglru"}


@pytest.mark.parametrize("name", TIMED)
def test_chrono_gives_units_times_from_one_step_to_the_longest(name):
    """On zeros a gate is σ of its bias: u / (1 + u) where it keeps, for u drawn uniformly from 1 to T - 1."""
    torch.manual_seed(3)
    cell, longest = NAMED[name](1, 4000).double(), 100
    chrono_(cell, longest)
    x, state = torch.zeros(1, 1, dtype=torch.float64), cell.initial_state(1)
    with watching() as seen:
        cell(x, state)
    keeps = seen[cell.keep_gate or "forget"].squeeze(0)
    u = (keeps / (1 - keeps)).detach().sort().values
    drawn = torch.linspace(1, longest - 1, 4000, dtype=torch.float64)
    assert (u - drawn).abs().max() < 4, "not uniform from 1 to T - 1 (Kolmogorov: 4 of 98 is never met by chance)"
    assert not torch.equal(keeps, keeps.sort().values), "units in order of their times"
    if "input" in seen:
        torch.testing.assert_close(seen["input"].squeeze(0), 1 - keeps)


@pytest.mark.parametrize("name", TIMED)
def test_chrono_moves_nothing_but_the_biases_of_those_gates(name):
    cell = NAMED[name](I, N)
    before = {key: value.clone() for key, value in cell.state_dict().items()}
    chrono_(cell, 10)
    others = [r for r in range(cell.gates * N) if r // N not in cell.time_gates]
    for key, value in cell.state_dict().items():
        rows = others if key in ("bias_ih", "bias_hh") else slice(None)
        assert torch.equal(value[rows], before[key][rows]), key
    assert cell.bias_ih.is_leaf
    assert cell.bias_ih.requires_grad


@pytest.mark.parametrize("kind", ["elman-tanh", "gru", "lstm"])
def test_orthogonal_makes_each_gate_orthogonal(kind):
    cell = make(kind)
    before = {name: p.clone() for name, p in cell.named_parameters()}
    orthogonal_(cell)
    blocks = cell.weight_hh.detach().numpy().reshape(cell.gates, N, N)
    for block in blocks:
        close(block @ block.T, np.eye(N), "W Wᵀ")
    for k in range(1, len(blocks)):
        assert np.abs(blocks[k] - blocks[0]).max() > 0.1, "the gates have one matrix, not one each"
    assert cell.weight_hh.requires_grad
    assert cell.weight_hh.is_leaf
    for name, value in before.items():
        assert torch.equal(getattr(cell, name), value) == (name != "weight_hh"), name


def test_orthogonal_of_a_projected_state_has_orthonormal_columns():
    cell = make("lstm-projected")
    orthogonal_(cell)
    for block in cell.weight_hh.detach().numpy().reshape(4, N, P):
        close(block.T @ block, np.eye(P), "Wᵀ W")


@pytest.mark.parametrize("made", [nn.GRUCell(I, N), nn.LSTMCell(I, N)], ids=["GRUCell", "LSTMCell"])
def test_orthogonal_takes_the_cells_of_torch_nn(made):
    orthogonal_(made)
    for block in made.weight_hh.detach().split(N):
        torch.testing.assert_close(block @ block.T, torch.eye(N))


@all_cells
def test_initial_state_is_zeros_of_the_cells_type(kind):
    cell = make(kind)
    state = cell.initial_state(B)
    state = state if isinstance(state, tuple) else (state,)
    assert [tuple(s.shape) for s in state] == [(B, n) for n in CELLS[kind][2]]
    for s in state:
        assert s.dtype == torch.float64
        assert not s.any()
    other = cell.initial_state(2, dtype=torch.float32)
    assert (other[0] if isinstance(other, tuple) else other).dtype == torch.float32


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GRU(0, N), "at least 1, got 0 and 5"),
        (lambda: GRU(I, 0), "at least 1, got 3 and 0"),
        (lambda: Elman(I, N, nonlinearity="sigmoid"), "'tanh' or 'relu', got 'sigmoid'"),
        (lambda: LSTM(I, N, proj_size=N), "proj_size .* under hidden_size 5, got 5"),
        (lambda: LSTM(I, N, proj_size=-1), "proj_size .* got -1"),
        (lambda: GRU(I, N, forget_bias=1.0), "GRU has no forget-gate bias"),
        (lambda: Elman(I, N, forget_bias=1.0), "Elman has no forget-gate bias"),
        (lambda: LSTM(I, N, bias=False, forget_bias=1.0), "LSTM has no forget-gate bias"),
        (lambda: set_forget_bias_(GRU(I, N), 1.0), "GRU has no forget-gate bias"),
        (lambda: set_forget_bias_(LSTM(I, N, bias=False), 1.0), "LSTM has no forget-gate bias"),
        (lambda: orthogonal_(nn.Linear(I, N)), "Linear has no weight_hh"),
        (lambda: chrono_(Elman(I, N), 10), "Elman has no bias of a gate that keeps"),
        (lambda: chrono_(LSTM(I, N, bias=False), 10), "LSTM has no bias of a gate that keeps"),
        (lambda: chrono_(LSTM(I, N), 2), "longest must be at least 3 steps, got 2"),
    ],
)
def test_a_bad_option_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("kind", [Elman, GRU, LSTM])
def test_a_misspelt_option_is_refused(kind):
    with pytest.raises(TypeError, match="forget_bais"):
        kind(I, N, forget_bais=1.0)


@all_cells
def test_dtype_reaches_every_weight(kind):
    assert {p.dtype for p in make(kind).parameters()} == {torch.float64}


def test_the_representation_says_what_is_not_usual():
    assert repr(GRU(I, N)) == "GRU(3, 5)"
    assert repr(GRU(I, N, bias=False)) == "GRU(3, 5, bias=False)"
    assert repr(Elman(I, N, nonlinearity="relu")) == "Elman(3, 5, nonlinearity='relu')"


# Watching


@all_cells
def test_watching_shows_the_values_of_the_equations(kind):
    _, step, sizes = CELLS[kind]
    cell = make(kind)
    problem = Problem(sizes)
    x = problem.values["x"][0]
    state = tuple(problem.values[f"state {k}"] for k in range(len(sizes)))
    _, expected = step(numpy_weights(cell), x, state)
    torch_state = tuple(map(torch.tensor, state))
    with watching() as seen:
        cell(torch.tensor(x), torch_state if len(state) > 1 else torch_state[0])
    assert set(seen) == set(expected)
    for name, value in expected.items():
        close(seen[name], value, name)


def test_watching_keeps_the_latest_step_and_ends_with_its_block():
    cell = GRU(I, N)
    x, h = torch.randn(2, B, I), torch.randn(B, N)
    with watching() as seen:
        first = cell(x[0], h)
        assert torch.equal(seen["h"], first)
        with watching() as inner:
            second = cell(x[1], first)
        assert torch.equal(inner["h"], second)
        assert torch.equal(seen["h"], first), "an inner block must not write into the outer one"
        third = cell(x[1], second)
        assert torch.equal(seen["h"], third)
    cell(x[0], h)
    assert torch.equal(seen["h"], third), "nobody watches any more"


def test_watch_gives_back_the_value_itself():
    value = torch.randn(B, N)
    assert Cell.watch("anything", value) is value
    with watching() as seen:
        assert Cell.watch("anything", value) is value
    assert seen["anything"] is value


def test_watching_ends_when_the_block_raises():
    with pytest.raises(RuntimeError, match="stop"), watching() as seen:
        raise RuntimeError("stop")
    GRU(I, N)(torch.randn(B, I), torch.randn(B, N))
    assert seen == {}


# What a cell may return


def test_split_result_tells_a_state_from_an_output_and_a_state():
    h, c, y = torch.randn(3, B, N)
    assert split_result(h, y) == (None, h)
    assert split_result((y, h), c) == (y, h)
    assert split_result((h, c), (c, h)) == (None, (h, c))
    assert split_result((y, (h, c)), (c, h)) == (y, (h, c))
    assert split_result((y, (h,)), (c,)) == (y, (h,))


@pytest.mark.parametrize(
    ("result", "state"),
    [
        (None, torch.zeros(B, N)),
        ([torch.zeros(B, N)], torch.zeros(B, N)),
        ((torch.zeros(B, N),) * 3, torch.zeros(B, N)),
        ((torch.zeros(B, N),) * 3, (torch.zeros(B, N),) * 2),
        (torch.zeros(B, N), (torch.zeros(B, N),) * 2),
        ((torch.zeros(B, N), None), torch.zeros(B, N)),
    ],
)
def test_split_result_refuses_anything_else(result, state):
    with pytest.raises(TypeError, match="a cell returns its new state"):
        split_result(result, state)


# Cells around a cell, one step; how the noise is drawn is tested with `Recurrent`


@all_cells
def test_recurrent_dropout_hands_its_mask_to_the_cell(kind):
    _, step, sizes = CELLS[kind]
    cell = make(kind)
    problem = Problem(sizes, masked=True)
    wrapped = RecurrentDropout(cell)
    state = tuple(problem.values[f"state {k}"] for k in range(len(sizes)))
    expected, _ = step(numpy_weights(cell), problem.values["x"][0], state, problem.mask)
    given = tuple(map(torch.tensor, state))
    found = wrapped(
        (torch.tensor(problem.values["x"][0]), torch.tensor(problem.mask)), given if len(given) > 1 else given[0]
    )
    for f, e in zip(found if isinstance(found, tuple) else (found,), expected, strict=True):
        close(f, e, "state")


@pytest.mark.parametrize("cell", [nn.GRUCell(I, N), nn.Identity()], ids=["GRUCell", "Identity"])
def test_recurrent_dropout_needs_a_cell_that_takes_a_mask(cell):
    with pytest.raises(TypeError, match=f"{type(cell).__name__} a parameter mask=None"):
        RecurrentDropout(cell)


@all_cells
def test_zoneout_keeps_the_old_value_where_told(kind):
    _, step, sizes = CELLS[kind]
    cell = make(kind)
    problem = Problem(sizes)
    rng = np.random.default_rng(9)
    keep = tuple(rng.choice([0.0, 0.3, 1.0], (B, n)) for n in sizes)
    state = tuple(problem.values[f"state {k}"] for k in range(len(sizes)))
    new, _ = step(numpy_weights(cell), problem.values["x"][0], state)
    given, kept = tuple(map(torch.tensor, state)), tuple(map(torch.tensor, keep))
    alone = len(sizes) == 1
    found = Zoneout(cell)(
        (torch.tensor(problem.values["x"][0]), kept[0] if alone else kept), given[0] if alone else given
    )
    for f, k, old, n in zip((found,) if alone else found, keep, state, new, strict=True):
        close(f, k * old + (1 - k) * n, "state")
        assert np.array_equal(f.detach().numpy()[k == 1], old[k == 1]), "kept values are kept to the last bit"


def test_the_cells_are_where_users_find_them():
    assert tt.cells.GRU is GRU
    assert tt.cells.LSTM is LSTM
    assert tt.cells.Elman is Elman
