"""The cells beyond elman, gru and lstm, against NumPy written from their equations, on the plain loop and compiled.

Every comparison starts from a random state with every parameter random, takes seven steps, and looks at all outputs,
the last state, the named inner values and a derivative along a random direction of every tensor. The NumPy
derivatives are complex steps, f'(a)·v = Im f(a + iεv) / ε, exact to rounding. Finite differences of every entry follow
at a small size.

Sizes: T time, B batch, I input, N hidden.
"""

import copy
import inspect
import io

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import throughtime as tt
from throughtime.cells import (
    NAMED,
    RGLRU,
    SRU,
    UGRNN,
    CoupledLSTM,
    Highway,
    IndRNN,
    LayerNormGRU,
    LayerNormLSTM,
    MinGRU,
    MinimalGated,
    MinLSTM,
    PeepholeLSTM,
    RecurrentDropout,
    ResetBeforeGRU,
)

T, B, I, N = 7, 4, 3, 5  # noqa: E741
BACKENDS = ("reference", "cpu")


@pytest.fixture(scope="module", autouse=True)
def a_cache_of_its_own(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THROUGHTIME_CACHE", str(tmp_path_factory.mktemp("compiled")))
        yield


# The equations, in NumPy: step(weights, x, state, mask) -> (new state, named inner values); a state is always a tuple.
# The mask stands on what the recurrent products see of the old state, and nowhere else.


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def blocks(w, weight, bias, gates):
    """(W, b) of each gate; b is zero where there are no biases."""
    found = w.get(bias, np.zeros(w[weight].shape[0]))
    return list(zip(np.split(w[weight], gates), np.split(found, gates), strict=True))


def input_and_state(w, gates):
    """For each gate a function of x and one of h."""

    def affine(weight, bias):
        return lambda v: v @ weight.T + bias

    from_x = [affine(*pair) for pair in blocks(w, "weight_ih", "bias_ih", gates)]
    from_h = [affine(*pair) for pair in blocks(w, "weight_hh", "bias_hh", gates)]
    return from_x, from_h


def coupled_lstm_step(w, x, state, mask):
    h, c = state
    (xf, xg, xo), (hf, hg, ho) = input_and_state(w, 3)
    seen = h * mask
    f, g, o = sigmoid(xf(x) + hf(seen)), np.tanh(xg(x) + hg(seen)), sigmoid(xo(x) + ho(seen))
    c = f * c + (1 - f) * g
    h = o * np.tanh(c)
    return (h, c), {"forget": f, "cell": g, "output": o, "c": c, "h": h}


def peephole_lstm_step(w, x, state, mask):
    h, c = state
    (xi, xf, xg, xo), (hi, hf, hg, ho) = input_and_state(w, 4)
    p_i, p_f, p_o = w["peephole"]
    seen = h * mask
    i = sigmoid(xi(x) + hi(seen) + p_i * c)
    f = sigmoid(xf(x) + hf(seen) + p_f * c)
    g = np.tanh(xg(x) + hg(seen))
    c = f * c + i * g
    o = sigmoid(xo(x) + ho(seen) + p_o * c)
    h = o * np.tanh(c)
    return (h, c), {"input": i, "forget": f, "cell": g, "output": o, "c": c, "h": h}


def reset_before_gru_step(w, x, state, mask):
    (h,) = state
    (xr, xz, xn), (hr, hz, hn) = input_and_state(w, 3)
    seen = h * mask
    r, z = sigmoid(xr(x) + hr(seen)), sigmoid(xz(x) + hz(seen))
    n = np.tanh(xn(x) + hn(r * seen))
    h = (1 - z) * n + z * h
    return (h,), {"reset": r, "update": z, "new": n, "h": h}


def minimal_gated_step(w, x, state, mask):
    (h,) = state
    (xf, xn), (hf, hn) = input_and_state(w, 2)
    seen = h * mask
    f = sigmoid(xf(x) + hf(seen))
    n = np.tanh(xn(x) + hn(f * seen))
    h = (1 - f) * h + f * n
    return (h,), {"update": f, "new": n, "h": h}


def ugrnn_step(w, x, state, mask):
    (h,) = state
    (xg, xn), (hg, hn) = input_and_state(w, 2)
    seen = h * mask
    g, n = sigmoid(xg(x) + hg(seen)), np.tanh(xn(x) + hn(seen))
    h = g * h + (1 - g) * n
    return (h,), {"forget": g, "new": n, "h": h}


def indrnn_step(w, x, state, mask):
    (h,) = state
    a = x @ w["weight_ih"].T + w.get("bias_ih", 0.0) + w["recurrent"] * (h * mask)
    h = a * (a.real > 0)
    return (h,), {"a": a, "h": h}


def highway_step(w, x, state, mask):
    (s,) = state
    (xn, xt), first = input_and_state(w, 2)
    layers = [first]
    while (name := f"deeper.{len(layers) - 1}") in w:
        pairs = blocks(w, name, f"deeper_bias.{len(layers) - 1}", 2)
        layers.append([lambda v, weight=weight, bias=bias: v @ weight.T + bias for weight, bias in pairs])
    named = {}
    for number, (rn, rt) in enumerate(layers, 1):
        seen = s * mask
        n = np.tanh((xn(x) if number == 1 else 0) + rn(seen))
        t = sigmoid((xt(x) if number == 1 else 0) + rt(seen))
        s = t * n + (1 - t) * s
        named[f"transform{number}"] = t
    return (s,), named | {"h": s}


def layer_norm(a, gain, shift):
    centred = a - a.mean(-1, keepdims=True)
    return gain * centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) + shift


def layernorm_lstm_step(w, x, state, mask):
    h, c = state
    zero = np.zeros(4 * h.shape[1])
    from_x = layer_norm(x @ w["weight_ih"].T, w["gain_ih"], w.get("bias_ih", zero))
    from_h = layer_norm((h * mask) @ w["weight_hh"].T, w["gain_hh"], w.get("bias_hh", zero))
    i, f, g, o = np.split(from_x + from_h, 4, -1)
    i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
    c = f * c + i * g
    h = o * np.tanh(layer_norm(c, w["gain_c"], w.get("bias_c", 0.0)))
    return (h, c), {"input": i, "forget": f, "cell": g, "output": o, "c": c, "h": h}


def layernorm_gru_step(w, x, state, mask):
    (h,) = state
    k = 2 * h.shape[1]  # the rows of both gates
    zero = np.zeros(w["weight_ih"].shape[0])
    b_i, b_h = w.get("bias_ih", zero), w.get("bias_hh", zero)
    w_i, w_h, g_i, g_h = w["weight_ih"], w["weight_hh"], w["gain_ih"], w["gain_hh"]
    seen = h * mask
    gates = layer_norm(x @ w_i[:k].T, g_i[:k], b_i[:k]) + layer_norm(seen @ w_h[:k].T, g_h[:k], b_h[:k])
    r, z = np.split(sigmoid(gates), 2, -1)
    n = np.tanh(layer_norm(x @ w_i[k:].T, g_i[k:], b_i[k:]) + r * layer_norm(seen @ w_h[k:].T, g_h[k:], b_h[k:]))
    h = (1 - z) * n + z * h
    return (h,), {"reset": r, "update": z, "new": n, "h": h}


def mingru_step(w, x, state, mask):
    (h,) = state
    (wz, bz), (wn, bn) = blocks(w, "weight_ih", "bias_ih", 2)
    z, n = sigmoid(x @ wz.T + bz), x @ wn.T + bn
    h = (1 - z) * h + z * n
    return (h,), {"update": z, "new": n, "keep": 1 - z, "h": h}


def minlstm_step(w, x, state, mask):
    (h,) = state
    f, i, n = (x @ weight.T + bias for weight, bias in blocks(w, "weight_ih", "bias_ih", 3))
    f, i = sigmoid(f), sigmoid(i)
    f, i = f / (f + i), i / (f + i)
    h = f * h + i * n
    return (h,), {"forget": f, "input": i, "new": n, "h": h}


def rglru_step(w, x, state, mask):
    (h,) = state
    v, r, i = (x @ weight.T + bias for weight, bias in blocks(w, "weight_ih", "bias_ih", 3))
    r, i = sigmoid(r), sigmoid(i)
    a = sigmoid(w["decay"]) ** (8 * r)
    h = a * h + np.sqrt(1 - a**2) * (i * v)
    return (h,), {"recurrence": r, "input": i, "forget": a, "h": h}


def sru_step(w, x, state, mask):
    (c,) = state
    v_f, v_r = w.get("peephole", np.zeros((2, 1)))
    n, f, r, *passed = (x @ weight.T + b for weight, b in blocks(w, "weight_ih", "bias_ih", len(w["weight_ih"]) // N))
    f, r = sigmoid(f + v_f * c), sigmoid(r + v_r * c)
    c = f * c + (1 - f) * n
    h = r * c + (1 - r) * (passed[0] if passed else x)
    return (c,), {"forget": f, "reset": r, "new": n, "c": c, "h": h}


KINDS = {  # the class, its options, its equations, how many tensors its state has
    "coupled-lstm": (CoupledLSTM, {}, coupled_lstm_step, 2),
    "peephole-lstm": (PeepholeLSTM, {}, peephole_lstm_step, 2),
    "layernorm-lstm": (LayerNormLSTM, {}, layernorm_lstm_step, 2),
    "layernorm-gru": (LayerNormGRU, {}, layernorm_gru_step, 1),
    "reset-before-gru": (ResetBeforeGRU, {}, reset_before_gru_step, 1),
    "minimal-gated": (MinimalGated, {}, minimal_gated_step, 1),
    "ugrnn": (UGRNN, {}, ugrnn_step, 1),
    "indrnn": (IndRNN, {}, indrnn_step, 1),
    "highway-1": (Highway, {"depth": 1}, highway_step, 1),
    "highway-3": (Highway, {"depth": 3}, highway_step, 1),
    "mingru": (MinGRU, {}, mingru_step, 1),
    "minlstm": (MinLSTM, {}, minlstm_step, 1),
    "rglru": (RGLRU, {}, rglru_step, 1),
    "sru": (SRU, {}, sru_step, 1),
    "sru-linear": (SRU, {"peephole": False}, sru_step, 1),
}
MASKED = [kind for kind, (cls, *_) in KINDS.items() if "mask" in inspect.signature(cls.forward).parameters]
every_kind = pytest.mark.parametrize("kind", KINDS)
every_masked_kind = pytest.mark.parametrize("kind", MASKED)
with_and_without_bias = pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
on_every_backend = pytest.mark.parametrize("backend", BACKENDS)


def randomise(cell, seed=0):
    """Every parameter random, none of them small: gains about 1, all else about 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in cell.named_parameters():
            p.copy_(0.6 * torch.randn(p.shape, generator=generator, dtype=p.dtype) + name.startswith("gain"))
    return cell


def build(kind, bias=True, sizes=(I, N)):
    cls, options, _, _ = KINDS[kind]
    return randomise(cls(*sizes, bias=bias, dtype=torch.float64, **options))


class Problem:
    """Inputs, a first state, and a loss that weighs every output and the last state with random numbers."""

    def __init__(self, tensors, masked=False, seed=1):
        rng = np.random.default_rng(seed)
        self.values = {"x": rng.standard_normal((T, B, I))}
        self.values |= {f"state {k}": rng.standard_normal((B, N)) for k in range(tensors)}
        self.on_outputs = rng.standard_normal((T, B, N))
        self.on_state = rng.standard_normal((tensors, B, N))
        self.mask = rng.integers(0, 2, (B, N)) / 0.5 if masked else None

    def state_of(self, values):
        return tuple(v for name, v in values.items() if name.startswith("state"))

    def run_numpy(self, step, values):
        """Outputs [T, B, N], last state, named values [T, B, N], and the loss."""
        state, records, outputs = self.state_of(values), [], []
        mask = 1.0 if self.mask is None else self.mask
        for x in values["x"]:
            state, named = step(values, x, state, mask)
            outputs.append(named["h"])
            records.append(named)
        loss = sum((o * w).sum() for o, w in zip(outputs, self.on_outputs, strict=True))
        loss += sum((s * w).sum() for s, w in zip(state, self.on_state, strict=True))
        return np.stack(outputs), state, {k: np.stack([r[k] for r in records]) for k in records[0]}, loss

    def run_torch(self, cell, backend, record):
        """The same of a cell; in place of the loss its gradient by each tensor's name."""
        leaves = {name: torch.tensor(v, requires_grad=True) for name, v in self.values.items()}
        state = self.state_of(leaves)
        inputs, step = leaves["x"], cell
        if self.mask is not None:
            step, inputs = RecurrentDropout(cell), (inputs, torch.tensor(self.mask).expand(T, B, N))
        state = state if len(state) > 1 else state[0]
        if backend == "cpu":
            assert tt.explain(step, inputs, state, record=record).reasons["cpu"] is None
        outputs, last, records = tt.scan(step, inputs, state, record=record, backend=backend)
        last = last if isinstance(last, tuple) else (last,)
        loss = (outputs * torch.tensor(self.on_outputs)).sum()
        loss = loss + sum((s * torch.tensor(w)).sum() for s, w in zip(last, self.on_state, strict=True))
        wanted = leaves | dict(cell.named_parameters())
        gradients = torch.autograd.grad(loss, list(wanted.values()))
        return outputs, last, records, dict(zip(wanted, gradients, strict=True))


def close(found, expected, what):
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-10, atol=1e-12, err_msg=what)


def assert_follows(cell, step, tensors, backend, masked=False, record=True):
    """A cell gives what its equations give: outputs, last state, inner values, and the gradient of everything."""
    problem = Problem(tensors, masked)
    values = problem.values | {name: p.detach().numpy().copy() for name, p in cell.named_parameters()}
    expected, expected_last, named, _ = problem.run_numpy(step, values)
    outputs, last, records, gradients = problem.run_torch(cell, backend, tuple(named) if record else ())
    assert outputs.shape == (T, B, N)
    close(outputs, expected, "outputs")
    for k, (s, e) in enumerate(zip(last, expected_last, strict=True)):
        close(s, e, f"tensor {k} of the last state")
    assert set(records) == (set(named) if record else set())
    for name, found in records.items():
        close(found, named[name], f"recorded {name}")
    rng, tiny = np.random.default_rng(2), 1e-30
    assert set(gradients) == set(values)
    for name, value in values.items():
        direction = rng.standard_normal(value.shape)
        slope = problem.run_numpy(step, values | {name: value + 1j * tiny * direction})[3].imag / tiny
        assert abs(slope) > 1e-3, f"the loss does not depend on {name}: nothing is tested"
        close((gradients[name] * torch.tensor(direction)).sum(), slope, f"gradient of {name}")


@on_every_backend
@with_and_without_bias
@every_kind
def test_a_cell_is_its_equations(kind, bias, backend):
    assert_follows(build(kind, bias), *KINDS[kind][2:], backend)


@on_every_backend
@every_kind
def test_a_cell_is_its_equations_where_nobody_records(kind, backend):
    assert_follows(build(kind), *KINDS[kind][2:], backend, record=False)


@on_every_backend
@with_and_without_bias
@every_masked_kind
def test_a_mask_is_on_what_the_recurrent_products_see_and_nowhere_else(kind, bias, backend):
    assert_follows(build(kind, bias), *KINDS[kind][2:], backend, masked=True)


@every_masked_kind
def test_a_step_by_itself_with_a_mask(kind):
    _, _, step, tensors = KINDS[kind]
    cell, problem = build(kind), Problem(tensors, masked=True)
    values = problem.values | {name: p.detach().numpy() for name, p in cell.named_parameters()}
    state = problem.state_of(values)
    expected, _ = step(values, values["x"][0], state, problem.mask)
    torch_state = tuple(map(torch.tensor, state))
    found = cell(
        torch.tensor(values["x"][0]), torch_state if tensors > 1 else torch_state[0], mask=torch.tensor(problem.mask)
    )
    for s, e in zip(found if tensors > 1 else (found,), expected, strict=True):
        close(s, e, "state")
    without, _ = step(values, values["x"][0], state, 1.0)
    assert np.abs(without[0] - expected[0]).max() > 1e-3, "the mask changes nothing: nothing is tested"


@with_and_without_bias
@every_kind
def test_gradients_are_those_of_finite_differences(kind, bias):
    _, _, _, tensors = KINDS[kind]
    cell = build(kind, bias, (2, 3))
    torch.manual_seed(5)
    x = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    state = tuple(torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(tensors))

    def run(x, *rest):  # the parameters are moved in place
        first = rest[:tensors]
        outputs, last, _ = tt.scan(cell, x, first if tensors > 1 else first[0], backend="cpu")
        return (outputs, *(last if tensors > 1 else (last,)))

    assert torch.autograd.gradcheck(run, (x, *state, *cell.parameters()))


LINEAR = ("mingru", "minlstm", "rglru", "sru-linear")


@pytest.mark.parametrize("kind", ["indrnn", "sru", *LINEAR])
def test_the_cells_that_are_linear_in_their_state_are_found_to_be(kind):
    (reason,) = tt.explain(build(kind), torch.randn(T, B, I, dtype=torch.float64)).linear
    assert (reason is None) == (kind in LINEAR)
    if kind == "sru":
        assert "sigmoid takes it at" in reason and "/cells/sru.py:" in reason.replace("\\", "/")


def test_the_sru_passes_its_input_on_as_it_is_where_that_is_as_wide():
    cell = randomise(SRU(N, N, dtype=torch.float64))
    assert cell.weight_ih.shape == (3 * N, N)
    rng = np.random.default_rng(3)
    x, c = rng.standard_normal((B, N)), rng.standard_normal((B, N))
    (expected,), named = sru_step({k: p.detach().numpy() for k, p in cell.named_parameters()}, x, (c,), 1.0)
    h, new = cell(torch.tensor(x), torch.tensor(c))
    close(new, expected, "c")
    close(h, named["h"], "h")


def test_the_decay_of_an_rglru_begins_where_the_paper_says():
    cell = RGLRU(I, 500)
    for _ in range(2):
        slowest = torch.sigmoid(cell.decay) ** 8
        assert 0.9 <= slowest.min() < 0.91 and 0.99 < slowest.max() <= 0.9991
        cell.reset_parameters()


def test_a_unit_of_the_indrnn_is_off_some_of_the_time():
    """Where a ReLU is never off, or never on, its comparison says little."""
    problem = Problem(1)
    _, _, named, _ = problem.run_numpy(
        indrnn_step, problem.values | {k: p.detach().numpy() for k, p in build("indrnn").named_parameters()}
    )
    assert 0.2 < (named["a"] > 0).mean() < 0.8


# Wrong cells: the comparison above is worth something because it catches each of these.


def parts(cell, x, h, gates):
    """W x + b of each gate, and W h + b of each gate."""
    from_x = F.linear(x, cell.weight_ih, cell.bias_ih).chunk(gates, -1)
    return from_x, F.linear(h, cell.weight_hh, cell.bias_hh).chunk(gates, -1)


class SwappedGates(CoupledLSTM):
    """The forget gate and the output gate have each other's weights."""

    def forward(self, x, state, mask=None):
        (h, c), sigma = state, torch.sigmoid
        (xf, xg, xo), (hf, hg, ho) = parts(self, x, h, 3)
        f, g, o = sigma(xo + ho), torch.tanh(xg + hg), sigma(xf + hf)
        c = f * c + (1 - f) * g
        return o * torch.tanh(c), c


class InvertedUpdate(ResetBeforeGRU):
    def forward(self, x, h, mask=None):
        (xr, xz, xn), (hr, hz, _) = parts(self, x, h, 3)
        r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
        n = torch.tanh(xn + parts(self, x, r * h, 3)[1][2])
        return z * n + (1 - z) * h


class ResetAfterProduct(ResetBeforeGRU):
    def forward(self, x, h, mask=None):
        (xr, xz, xn), (hr, hz, hn) = parts(self, x, h, 3)
        r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
        n = torch.tanh(xn + r * hn)
        return (1 - z) * n + z * h


class KeepsWhereItWrites(MinimalGated):
    def forward(self, x, h, mask=None):
        (xf, xn), (hf, _) = parts(self, x, h, 2)
        f = torch.sigmoid(xf + hf)
        return f * h + (1 - f) * torch.tanh(xn + parts(self, x, f * h, 2)[1][1])


class CandidateWithoutRecurrence(UGRNN):
    def forward(self, x, h, mask=None):
        (xg, xn), (hg, hn) = parts(self, x, h, 2)
        g, n = torch.sigmoid(xg + hg), torch.tanh(xn + 0 * hn)
        return g * h + (1 - g) * n


class OutputSeesTheOldCell(PeepholeLSTM):
    def forward(self, x, state, mask=None):
        (h, c), (p_i, p_f, p_o), sigma = state, self.peephole.unbind(0), torch.sigmoid
        (xi, xf, xg, xo), (hi, hf, hg, ho) = parts(self, x, h, 4)
        i, f, g = sigma(xi + hi + p_i * c), sigma(xf + hf + p_f * c), torch.tanh(xg + hg)
        o = sigma(xo + ho + p_o * c)
        c = f * c + i * g
        return o * torch.tanh(c), c


class WithoutAPast(IndRNN):
    def forward(self, x, h, mask=None):
        return torch.relu(F.linear(x, self.weight_ih, self.bias_ih) + 0 * self.recurrent * h)


class CarriesFromTheFirstState(Highway):
    """Every layer passes on h_{t-1}, and not what the layer below made."""

    def forward(self, x, h, mask=None):
        (xn, xt), (hn, ht) = parts(self, x, h, 2)
        n, t = torch.tanh(xn + hn), torch.sigmoid(xt + ht)
        s = t * n + (1 - t) * h
        for weight, bias in zip(self.deeper, self.deeper_bias, strict=True):
            n, t = F.linear(s, weight, bias).chunk(2, -1)
            s = torch.sigmoid(t) * torch.tanh(n) + (1 - torch.sigmoid(t)) * h
        return s


class NormsOfTheSum(LayerNormLSTM):
    """One normalisation, of the sum of both products."""

    def forward(self, x, state, mask=None):
        h, c = state
        a = F.layer_norm(F.linear(x, self.weight_ih) + F.linear(h, self.weight_hh), (4 * N,), self.gain_ih)
        i, f, g, o = (a + self.bias_ih + 0 * self.gain_hh + self.bias_hh).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(F.layer_norm(c, (N,), self.gain_c, self.bias_c)), c


class ForgottenEpsilon(LayerNormGRU):
    """Wrong by about a hundred-thousandth."""

    epsilon = 1e-12

    def forward(self, x, h, mask=None):
        def norm(v, rows, gain, shift, weight):
            return F.layer_norm(
                F.linear(v, weight[rows]), (rows.stop - rows.start,), gain[rows], shift[rows], self.epsilon
            )

        gates, rest = slice(0, 2 * N), slice(2 * N, 3 * N)
        of_x, of_h = (self.gain_ih, self.bias_ih, self.weight_ih), (self.gain_hh, self.bias_hh, self.weight_hh)
        r, z = torch.sigmoid(norm(x, gates, *of_x) + norm(h, gates, *of_h)).chunk(2, -1)
        n = torch.tanh(norm(x, rest, *of_x) + r * norm(h, rest, *of_h))
        return (1 - z) * n + z * h


class CutGradient(UGRNN):
    """Right outputs, wrong gradients: none goes back through the products."""

    def forward(self, x, h, mask=None):
        (xg, xn), (hg, hn) = parts(self, x, h.detach(), 2)
        g, n = torch.sigmoid(xg + hg), torch.tanh(xn + hn)
        return g * h + (1 - g) * n


class KeepsWhereItLetsIn(MinGRU):
    def forward(self, x, h):
        x_z, n = self.project_input(x)
        z = torch.sigmoid(x_z)
        return z * h + (1 - z) * n


class GatesNotNormalised(MinLSTM):
    def forward(self, x, h):
        f, i, n = self.project_input(x)
        return torch.sigmoid(f) * h + torch.sigmoid(i) * n


class WithoutTheRoot(RGLRU):
    def forward(self, x, h):
        v, r, i = self.project_input(x)
        a = torch.exp(-8 * F.softplus(-self.decay) * torch.sigmoid(r))
        return a * h + (1 - a) * (torch.sigmoid(i) * v)


class HighwaySeesTheOldState(SRU):
    def forward(self, x, c):
        n, f, r, s = self.project_input(x)
        f, r = torch.sigmoid(f + self.peephole[0] * c), torch.sigmoid(r + self.peephole[1] * c)
        return r * c + (1 - r) * s, f * c + (1 - f) * n


WRONG = {
    KeepsWhereItLetsIn: "mingru",
    GatesNotNormalised: "minlstm",
    WithoutTheRoot: "rglru",
    HighwaySeesTheOldState: "sru",
    SwappedGates: "coupled-lstm",
    InvertedUpdate: "reset-before-gru",
    ResetAfterProduct: "reset-before-gru",
    KeepsWhereItWrites: "minimal-gated",
    CandidateWithoutRecurrence: "ugrnn",
    OutputSeesTheOldCell: "peephole-lstm",
    WithoutAPast: "indrnn",
    CarriesFromTheFirstState: "highway-3",
    NormsOfTheSum: "layernorm-lstm",
    ForgottenEpsilon: "layernorm-gru",
    CutGradient: "ugrnn",
}


@on_every_backend
@pytest.mark.parametrize("wrong", WRONG, ids=lambda c: c.__name__)
def test_the_comparison_catches_a_wrong_cell(wrong, backend):
    _, options, step, tensors = KINDS[WRONG[wrong]]
    cell = randomise(wrong(I, N, dtype=torch.float64, **options))
    what = "gradient of" if wrong is CutGradient else "outputs"
    with pytest.raises(AssertionError, match=what):
        assert_follows(cell, step, tensors, backend, record=False)


@on_every_backend
def test_nothing_but_its_epsilon_is_wrong_with_the_least_wrong_of_them(backend):
    class Remembered(ForgottenEpsilon):
        epsilon = 1e-5

    assert_follows(randomise(Remembered(I, N, dtype=torch.float64)), layernorm_gru_step, 1, backend, record=False)


def test_a_mask_on_too_much_is_caught():
    class MaskOnTheWholeState(UGRNN):
        def forward(self, x, h, mask=None):
            return super().forward(x, h if mask is None else h * mask)

    cell = randomise(MaskOnTheWholeState(I, N, dtype=torch.float64))
    assert_follows(cell, ugrnn_step, 1, "reference")
    with pytest.raises(AssertionError, match="outputs"):
        assert_follows(cell, ugrnn_step, 1, "reference", masked=True)


# Options and first values


NEW = {k: cls for k, cls in NAMED.items() if k not in ("elman", "gru", "lstm")}
every_new_class = pytest.mark.parametrize("cls", NEW.values(), ids=NEW)
every_name = pytest.mark.parametrize("name", NAMED)


@pytest.mark.parametrize(
    ("cls", "row"),
    [(CoupledLSTM, 0), (PeepholeLSTM, 1), (LayerNormLSTM, 1), (UGRNN, 0), (MinLSTM, 0), (SRU, 1)],
    ids=lambda v: getattr(v, "__name__", v),
)
def test_forget_bias_is_the_summed_bias_of_the_forget_gate_alone(cls, row):
    assert cls.forget_gate == row
    torch.manual_seed(0)
    plain = cls(I, N)
    torch.manual_seed(0)
    biased = cls(I, N, forget_bias=1.0)
    for _ in range(2):
        both = [b for b in (biased.bias_ih, getattr(biased, "bias_hh", None)) if b is not None]
        assert torch.equal(sum(both).view(-1, N)[row], torch.ones(N))
        others = [k for k in range(biased.gates) if k != row]
        for name, p in plain.named_parameters():
            if name in ("bias_ih", "bias_hh"):
                assert torch.equal(getattr(biased, name).view(-1, N)[others], p.view(-1, N)[others])
            else:
                assert torch.equal(getattr(biased, name), p), name
        torch.manual_seed(1)
        plain.reset_parameters()
        torch.manual_seed(1)
        biased.reset_parameters()
    with pytest.raises(ValueError, match="forget-gate bias"):
        cls(I, N, bias=False, forget_bias=1.0)


@pytest.mark.parametrize("cls", [CoupledLSTM, PeepholeLSTM, UGRNN])
def test_the_forget_gate_is_where_the_forget_bias_acts(cls):
    """On zeros the gate is σ of its bias: 1 for a bias that is large."""
    cell = cls(I, N, forget_bias=50.0, dtype=torch.float64)
    x = torch.zeros(2, B, I, dtype=torch.float64)
    seen = tt.scan(cell, x, record=("forget",), backend="reference").records["forget"]
    assert (seen[0] > 1 - 1e-12).all()


@pytest.mark.parametrize("cls", [c for c in NEW.values() if c.forget_gate is None], ids=lambda c: c.__name__)
def test_forget_bias_is_refused_where_no_gate_forgets(cls):
    with pytest.raises(ValueError, match=f"{cls.__name__} has no forget-gate bias"):
        cls(I, N, forget_bias=1.0)


def test_every_new_cell_has_or_lacks_a_forget_gate_as_its_equations_say():
    assert {k for k, c in NEW.items() if c.forget_gate is not None} == {
        "coupled-lstm",
        "peephole-lstm",
        "layernorm-lstm",
        "ugrnn",
        "minlstm",
        "sru",
    }


def test_highway_needs_a_layer():
    for depth in (0, -1):
        with pytest.raises(ValueError, match="depth must be at least 1"):
            Highway(I, N, depth=depth)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_highway_has_a_matrix_and_a_bias_a_layer(depth):
    cell = Highway(I, N, depth=depth)
    assert cell.weight_hh.shape == (2 * N, N)
    assert [tuple(p.shape) for p in cell.deeper] == [(2 * N, N)] * (depth - 1)
    assert [tuple(p.shape) for p in cell.deeper_bias] == [(2 * N,)] * (depth - 1)
    assert not any("bias" in name for name, _ in Highway(I, N, bias=False, depth=depth).named_parameters())


@pytest.mark.parametrize("value", [-2.0, -4.0])
def test_highway_begins_by_letting_the_state_pass(value):
    cell = Highway(I, N, depth=3) if value == -2.0 else Highway(I, N, depth=3, transform_bias=value)
    for _ in range(2):
        for bias in (cell.bias_hh, *cell.deeper_bias):
            assert torch.equal(bias[N:], torch.full((N,), value))
            assert bias[:N].abs().max() <= N**-0.5
        cell.reset_parameters()


@pytest.mark.parametrize("cls", [LayerNormLSTM, LayerNormGRU])
@with_and_without_bias
def test_gains_are_ones_at_first(cls, bias):
    cell = cls(I, N, bias)
    for _ in range(2):
        gains = {name: p for name, p in cell.named_parameters() if name.startswith("gain")}
        assert len(gains) == (3 if cls is LayerNormLSTM else 2)
        for name, gain in gains.items():
            assert torch.equal(gain, torch.ones_like(gain)), name
        assert bias == any(name.startswith("bias") for name, _ in cell.named_parameters())
        cell.reset_parameters()


def test_the_weights_of_an_indrnn_on_itself_are_between_0_and_1():
    cell = IndRNN(I, 200)
    assert {name for name, _ in cell.named_parameters()} == {"weight_ih", "bias_ih", "recurrent"}
    for _ in range(2):
        assert 0 <= cell.recurrent.min() < 0.1
        assert 0.9 < cell.recurrent.max() <= 1
        assert cell.weight_ih.abs().max() <= 200**-0.5
        cell.reset_parameters()
    with pytest.raises(ValueError, match="no weight_hh"):
        tt.Recurrent(IndRNN, I, N, orthogonal=True)
    with pytest.raises(TypeError, match="weight_hh"):
        tt.Recurrent(IndRNN, I, N, weight_dropout=0.5)


@pytest.mark.parametrize(
    "cls",
    list(NEW.values()),
    ids=NEW,
)
def test_reset_parameters_draws_from_what_the_cell_was_built_from(cls):
    """What is a constant in a new cell is that constant after a reset, and what is drawn is drawn anew."""
    torch.manual_seed(0)
    one, other = cls(I, N), cls(I, N)
    constant = {name: p.detach() == dict(other.named_parameters())[name] for name, p in one.named_parameters()}
    before = copy.deepcopy(one)
    one.reset_parameters()
    for name, p in one.named_parameters():
        assert torch.equal(p == before.get_parameter(name), constant[name]), name


@every_new_class
def test_the_first_values_are_within_the_bound(cls):
    drawn = {name: p for name, p in cls(I, N, dtype=torch.float64).named_parameters() if not name.startswith("gain")}
    if cls is Highway:
        drawn = {name: p[:N] if "bias" in name else p for name, p in drawn.items()}
    for name in ("recurrent", "decay"):
        drawn.pop(name, None)
    for name, p in drawn.items():
        assert p.dtype == torch.float64
        assert p.abs().max() <= N**-0.5, name


# In a stack, by name


def stack_of(name, seed):
    torch.manual_seed(seed)
    return randomise(tt.Recurrent(NAMED[name], 3, 5, num_layers=2, bidirectional=True), seed)


def flat(state):
    return [s for layer in state for way in layer for s in (way if isinstance(way, tuple) else (way,))]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip((one[0], *flat(one[1])), (other[0], *flat(other[1])), strict=True))


@every_name
def test_a_named_cell_runs_in_a_stack(name):
    stack, x = stack_of(name, 1), torch.randn(T, B, 3)
    outputs, state = stack(x, lengths=[T, 4, 1, 0])
    assert outputs.shape == (T, B, 10)
    assert len(state) == 2 and all(len(layer) == 2 for layer in state)
    assert (outputs[4:, 1] == 0).all() and outputs[3, 1].abs().max() > 0
    assert torch.isfinite(outputs).all()
    plain = copy.deepcopy(stack)
    plain.backend = "reference"
    expected, expected_state = plain(x, lengths=[T, 4, 1, 0])
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)
    for s, e in zip(flat(state), flat(expected_state), strict=True):
        torch.testing.assert_close(s, e, rtol=1e-4, atol=1e-5)
    (outputs**2).sum().backward()
    for parameter, p in stack.named_parameters():
        assert p.grad is not None and p.grad.abs().max() > 0, parameter


@every_name
def test_a_named_cell_takes_recurrent_dropout_and_zoneout_in_a_stack(name):
    torch.manual_seed(1)
    options = {"recurrent_dropout": 0.5, "zoneout": 0.2}
    if "mask" not in inspect.signature(NAMED[name].forward).parameters:
        with pytest.raises(TypeError, match="recurrent dropout needs a cell"):
            tt.Recurrent(NAMED[name], 3, 5, **options)
        options.pop("recurrent_dropout")
    stack, x = tt.Recurrent(NAMED[name], 3, 5, **options), torch.randn(T, B, 3)
    assert not torch.equal(stack(x)[0], stack(x)[0])
    stack.eval()
    assert torch.equal(stack(x)[0], stack(x)[0])


@every_name
def test_a_copy_of_a_named_cell_is_the_same_and_its_own(name):
    stack, x = stack_of(name, 1), torch.randn(T, B, 3)
    before = stack(x)
    copied = copy.deepcopy(stack)
    assert same(copied(x), before)
    with torch.no_grad():
        for p in copied.parameters():
            p.mul_(0.5)
    assert not same(copied(x), before)
    assert same(stack(x), before)


@every_name
def test_a_named_cell_survives_its_state_dict(name):
    stack, other, x = stack_of(name, 1), stack_of(name, 2), torch.randn(T, B, 3)
    expected = stack(x)
    assert not same(other(x), expected)
    other.load_state_dict(stack.state_dict())
    assert same(other(x), expected)
    saved = io.BytesIO()
    torch.save(stack.state_dict(), saved)
    saved.seek(0)
    third = stack_of(name, 3)
    third.load_state_dict(torch.load(saved, weights_only=True))
    assert same(third(x), expected)
    assert list(third.state_dict()) == [parameter for parameter, _ in stack.named_parameters()]
