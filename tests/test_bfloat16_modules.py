"""Modules of bfloat16, compiled: products of bfloat16 numbers, sums and pointwise work in float32, states rounded after each step.

The reference is the cell itself in float64 over the same numbers, step by step, from the states that the engine gave: of a step's
exact value E the engine knows no more than E ± NEAR, so that what it gives lies from bfloat16(E - NEAR) to bfloat16(E + NEAR): one
number, but for values within NEAR of the middle of two, and small ones. Gradients are taken through the same steps.
"""

import copy

import pytest
import torch
import torch.nn.functional as F

import throughtime as tt
from throughtime.cells.base import split_result
from throughtime.scanning.cpu import autocast, modules, target
from throughtime.scanning.evaluate import bfloat16_linear

BF16 = torch.bfloat16
T, B, I, N = 9, 5, 3, 21  # noqa: E741
CELLS = ["Elman", "GRU", "LSTM", "LayerNormGRU"]
# a sum of I + N products of numbers under 2, in float32, and what pointwise work adds: some 2^-24 each
NEAR = 2.0**-18

KINDS = [
    "float32",
    pytest.param(
        "bfloat16",
        marks=pytest.mark.skipif(not target.has_bfloat16(target.host()), reason="no dot product of bfloat16"),
    ),
]


@pytest.fixture(params=KINDS)
def products(request, monkeypatch):
    """What products are done in: by operands of either type."""
    why = None if request.param == "bfloat16" else "it is not asked for"
    monkeypatch.setattr(autocast, "why_not_bfloat16", lambda: why)
    return request.param


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(BF16)


def made(name, **options):
    torch.manual_seed(1)
    return getattr(tt.cells, name)(I, N, **options).to(BF16)


def several(state):
    return state if isinstance(state, tuple) else (state,)


def like(state, tensors):
    return tuple(tensors) if isinstance(state, tuple) else tensors[0]


def first(cell, batch=B):
    state = cell.initial_state(batch)
    return like(state, [(0.5 * random(*s.shape, seed=5 + k)).requires_grad_() for k, s in enumerate(several(state))])


def near(exact):
    return (exact - NEAR).to(BF16), (exact + NEAR).to(BF16)


def stepwise(cell, x, state):
    """Each step's output and state, a scan of one step after the other."""
    found = []
    for given in x:
        output, state, _ = tt.scan(cell, given.unsqueeze(0), state, backend="cpu")
        found.append((output[0], state))
    return found


@pytest.mark.parametrize("name", CELLS)
def test_every_step_is_the_nearest_to_the_exact_one_and_gradients_are_those_of_the_steps(name, products, monkeypatch):
    cell, x = made(name), random(T, B, I, seed=1).requires_grad_()
    state = first(cell)
    outputs, end, _ = tt.scan(cell, x, state, backend="cpu")
    steps = stepwise(cell, x.detach(), state)
    assert all(torch.equal(outputs[t], steps[t][0]) for t in range(T)), "as many scans of a step are the same"
    assert all(map(torch.equal, several(end), several(steps[-1][1])))
    assert {outputs.dtype, *(s.dtype for s in several(end))} == {BF16}

    exact, x_64 = copy.deepcopy(cell).double(), x.detach().double().requires_grad_()
    states_64 = [s.detach().double().requires_grad_() for s in several(state)]
    if products == "bfloat16":
        monkeypatch.setattr(F, "linear", lambda x, w, b=None: bfloat16_linear(x, w.t(), b))
    now, total = like(state, states_64), []
    for t, (_, given) in enumerate(steps):
        _, new = split_result(exact(x_64[t], now), now)
        for value, found in zip(several(new), several(given), strict=True):
            low, high = near(value.detach())
            assert bool(((low <= found) & (found <= high)).all()), f"step {t}"
        # from the numbers that were given, with the gradient of a rounding
        rounded = [v + (g.double() - v).detach() for v, g in zip(several(new), several(given), strict=True)]
        now = like(state, rounded)
        total.append(rounded[0])
    monkeypatch.undo()
    loss = random(T, B, N, seed=9)
    (outputs * loss).sum().backward()
    (torch.stack(total) * loss.double()).sum().backward()
    pairs = [
        (x, x_64),
        *zip(several(state), states_64, strict=True),
        *zip(cell.parameters(), exact.parameters(), strict=True),
    ]
    for ours, theirs in pairs:
        assert ours.grad.dtype == BF16
        apart = (ours.grad.double() - theirs.grad).norm() / theirs.grad.norm()
        assert apart < 2.0**-8, "the rounding of what is given back"


def test_faults_are_seen(monkeypatch):
    monkeypatch.setattr(modules, "nearest", lambda x: x)
    with pytest.raises(AssertionError, match="a step are the same"):
        test_every_step_is_the_nearest_to_the_exact_one_and_gradients_are_those_of_the_steps(
            "GRU", "float32", monkeypatch
        )


def test_rounding_is_to_the_nearest_and_passes_gradients_and_what_is_not_finite():
    x = torch.cat([torch.randn(4000) * 2.0**e for e in (-60, -3, 0, 5, 60)])
    assert torch.equal(modules.nearest(x), x.to(BF16).float())
    special = torch.tensor([0.0, float("inf"), -float("inf"), 3e38, float("nan")], requires_grad=True)
    torch.testing.assert_close(modules.nearest(special), special, rtol=0, atol=0, equal_nan=True)
    modules.nearest(special).sum().backward()
    assert special.grad.tolist() == [1.0] * 5


@pytest.mark.parametrize("name", CELLS)
def test_lengths_resets_and_directions(name, products):
    cell, x, state = made(name), random(T, B, I, seed=1), first(made(name))
    lengths = [T, 3, 1, 7, 0]
    for reverse in (False, True):
        outputs, end, _ = tt.scan(cell, x, state, lengths=lengths, reverse=reverse, backend="cpu")
        for b, n in enumerate(lengths):
            one = like(state, [s[b : b + 1] for s in several(state)])
            alone, last, _ = tt.scan(cell, x[:n, b : b + 1], one, reverse=reverse)
            assert torch.equal(outputs[:n, b], alone[:, 0])
            assert not outputs[n:, b].any()
            assert all(torch.equal(e[b], o[0]) for e, o in zip(several(end), several(last), strict=True))
    resets = torch.zeros(T, B, dtype=torch.bool)
    resets[4] = True
    outputs, _, _ = tt.scan(cell, x, state, initial=state, resets=resets, backend="cpu")
    assert torch.equal(outputs[4:], tt.scan(cell, x[4:], state)[0])


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_layers_are_near_those_of_torch_in_its_types(kind, products):
    torch.manual_seed(0)
    theirs = getattr(torch.nn, kind)(I, N, num_layers=2, bidirectional=True).to(BF16)
    ours = getattr(tt, kind)(I, N, num_layers=2, bidirectional=True).to(BF16)
    ours.load_state_dict(theirs.state_dict())
    given = [random(T, B, I, seed=3).requires_grad_() for _ in range(2)]
    found = []
    for layer, x in zip((ours, theirs), given, strict=True):
        out, state = layer(x)
        (out.float() ** 2).sum().backward()
        found.append([out, *several(state), x.grad, *(p.grad for p in layer.parameters())])
    for a, b in zip(*found, strict=True):
        assert a.dtype == b.dtype == BF16
        # torch rounds each operation of a step; some of these 2^-8 add up over T steps
        assert (a.float() - b.float()).norm() < 0.05 * b.float().norm()


def test_bits_do_not_depend_on_threads_nor_on_autocast(products):
    cell, x, before = made("GRU"), random(40, 70, I, seed=1).requires_grad_(), torch.get_num_threads()
    found = []
    try:
        for threads, cast in ((1, False), (2, False), (2, True)):
            torch.set_num_threads(threads)
            with torch.autocast("cpu", BF16, enabled=cast):
                outputs, _, _ = tt.scan(cell, x, backend="cpu")
            found.append([outputs, *torch.autograd.grad(outputs.sum(), [x, *cell.parameters()])])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_explain_says_it(products):
    said = str(tt.explain(made("GRU"), random(T, B, I, seed=1)))
    assert said.startswith("runs on 'cpu'")
    assert "states rounded to bfloat16 after each step, all else in float32" in said
    assert ("products of bfloat16 with sums in float32" in said) == (products == "bfloat16")
    assert ("it is not asked for" in said) == (products == "float32")


def test_numbers_of_two_types_in_one_cell_are_left_to_pytorch():
    cell = made("LayerNormGRU")
    cell.gain_ih.data = cell.gain_ih.data.float()
    assert tt.explain(cell, random(T, B, I, seed=1)).chosen == "reference"


def test_a_stepper_steps_as_the_cell_does():
    layer, x = tt.GRU(I, N).to(BF16), random(3, B, I, seed=1)
    stepper = layer.stepper(B)
    found = torch.stack([stepper(given) for given in x])
    assert found.dtype == BF16
    assert (found.float() - layer(x)[0].float()).abs().max() < 2.0**-5
