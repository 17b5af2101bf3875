"""Products of bfloat16: each operand rounded once, sums in float32; and autocast, which asks for them.

A product of two bfloat16 numbers is exact in float32, so a sum of k of them, in whatever order, is within k · 2^-24 · Σ|a||b| of
the exact one (twice that where a processor rounds products too, as VDPBF16PS does). Nothing that rounds elsewhere, or
otherwise, comes within that.
"""

import os
import subprocess
import sys
import warnings

import pytest
import torch

import throughtime as tt
from throughtime.scanning import compiled, operator, reference
from throughtime.scanning.call import Call, make_call
from throughtime.scanning.compiled import _Around, _wanted
from throughtime.scanning.cpu import autocast, backend, matrices, product, target
from throughtime.scanning.cpu.loop import LoopCode
from throughtime.scanning.operator import run_loop

pytestmark = pytest.mark.usefixtures("_own_cache")

BF16 = torch.bfloat16
T, B, I, N = 9, 5, 3, 21  # noqa: E741
CELLS = ["Elman", "GRU", "LSTM", "LayerNormGRU"]

has_dot = pytest.mark.skipif(not target.has_bfloat16(target.host()), reason="no dot product of bfloat16 here")


@pytest.fixture
def quick(monkeypatch):
    """Products are done in bfloat16, quick or not."""
    monkeypatch.setattr(autocast, "why_not_bfloat16", lambda: None)


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rounded(x):
    return x.to(BF16).double()


def truncated(x):
    return (x.view(torch.int32) & -65536).view(torch.float32).double()


def off(found, a, b, bias=None):
    """How far a sum is from the exact one of a and b, in units of what it may be."""
    exact, sizes = a @ b, a.abs() @ b.abs()
    if bias is not None:
        exact, sizes = exact + bias.double(), sizes + bias.double().abs()
    return float(((found.double() - exact).abs() / (2 * (a.shape[1] + 2) * 2.0**-24 * sizes)).max())


@has_dot
@pytest.mark.parametrize("sizes", [(7, 5, 3), (13, 64, 192), (97, 513, 70), (300, 33, 65), (5, 1100, 130), (11, 1, 9)])
def test_products_round_their_operands_and_nothing_else(sizes):
    m, k, n = sizes
    a, w, bias, g = (random(*s, seed=i) for i, s in enumerate([(m, k), (n, k), (n,), (m, n)]))
    for weight in (w.t(), w.t().contiguous()):
        found = matrices.multiply(a, weight, bias, BF16)
        assert off(found, rounded(a), rounded(w).t(), bias) <= 1
    assert off(matrices.outer(a, g, BF16), rounded(a).t(), rounded(g)) <= 1
    # what would not be right is seen
    assert off(found, a.double(), w.t().double(), bias) > 1
    assert off(found, truncated(a), truncated(w).t(), bias) > 1


@has_dot
def test_ties_go_to_even_and_infinities_and_nan_stay():
    numbers = torch.tensor(
        [1 + 2.0**-8, 1 + 3 * 2.0**-8, -1 - 2.0**-8, float("inf"), float("nan"), -0.0, 3e38, 65504.0, 1 / 3]
    )
    for words in (
        matrices.row_pairs(numbers.repeat(3, 1)),
        matrices.column_pairs(numbers.repeat(3, 1).t().contiguous()).t(),
    ):
        halves = words.contiguous().view(BF16)[:, : len(numbers)]
        torch.testing.assert_close(halves, numbers.to(BF16).repeat(3, 1), rtol=0, atol=0, equal_nan=True)


def call_in(cell, seed=1, steps=T, batch=B, **options):
    """A call as the compiled loop takes it in autocast, and its leaves."""
    x = random(steps, batch, cell.input_size, seed=seed).requires_grad_()
    first = cell.initial_state(batch)
    many = first if isinstance(first, tuple) else (first,)
    state = [(0.5 * random(*s.shape, seed=5 + k)).requires_grad_() for k, s in enumerate(many)]
    call = make_call(cell, x, tuple(state) if isinstance(first, tuple) else state[0], **options)
    with torch.autocast("cpu", BF16):
        return autocast.as_float32(call), [x, *state, *cell.parameters()]


def made(name, inputs=I, hidden=N):
    torch.manual_seed(1)
    return getattr(tt.cells, name)(inputs, hidden)


def by_hand(engine, given):
    """States and extras of the program's own step, one after the other by PyTorch, with operands rounded where the engine does."""
    nothing = given.state[0].new_empty(given.steps, given.batch, 0)
    step = operator._Step(engine.program, given, engine.operands)
    call = Call(step, (nothing, *given.arrays), tuple(given.state), tuple(given.state), None, given.step < 0, None, ())
    outputs = reference.run(call).outputs
    return outputs.split([*engine.program.state_widths, *engine.program.extra_widths], -1)


def apart(found, right):
    return float((found - right).abs().sum())


@has_dot
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("inputs", [1, I, 40])
@pytest.mark.parametrize("name", CELLS)
def test_a_scan_rounds_where_the_plain_step_does(name, inputs, reverse, quick):
    if name == "LayerNormGRU" and inputs == 1:
        pytest.skip("normalised over features, one input has no gradient but noise")
    cell = made(name, inputs=inputs)
    call, leaves = call_in(cell, steps=5, reverse=reverse)
    engine = backend.find(call)
    assert engine.operands is BF16
    results = []
    for operands in ("compiled", BF16, torch.float32):
        given = _Around(engine, call).given()
        if operands == "compiled":
            states, extras, _ = run_loop(engine, given, _wanted(given))
            outs = [*states, *extras]
        else:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(engine, "operands", operands)
                outs = by_hand(engine, given)
        weighed = sum((o * random(*o.shape, seed=9 + i)).sum() for i, o in enumerate(outs))
        results.append((outs, torch.autograd.grad(weighed, leaves, allow_unused=True)))
    for part in (0, 1):
        found, right, plain = ([t.detach() for t in r[part] if t is not None] for r in results)
        # what is left comes of the few numbers that lie on the border between two of bfloat16 and fall to either side: a sequence
        # that has one goes its own way from there on
        for f, r, p in zip(found, right, plain, strict=True):
            assert apart(f, r) <= 0.4 * apart(f, p)
        scale = max(float(p.abs().max()) for p in plain)
        assert max(float((f - p).abs().max()) for f, p in zip(found, plain, strict=True)) < 5 * N * 2.0**-8 * scale


@has_dot
@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_bits_do_not_depend_on_threads(name, quick):
    cell = made(name, 40, 70)
    call, leaves = call_in(cell, steps=30, batch=13)
    results = []
    before = torch.get_num_threads()
    try:
        for count in (1, 2, 2, 1):
            torch.set_num_threads(count)
            outputs, *_ = backend.run(call)
            results.append([outputs, *torch.autograd.grad(outputs.square().sum(), leaves[:2], retain_graph=True)])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def everything(layer, x, *, inside=False, enabled=True):
    """Output and gradients in autocast. inside: the backward too."""
    x = x.detach().requires_grad_()
    with torch.autocast("cpu", BF16, enabled=enabled):
        y = layer(x)[0]
        if inside:
            found = torch.autograd.grad(y.float().square().sum(), [x, *layer.parameters()])
    if not inside:
        found = torch.autograd.grad(y.float().square().sum(), [x, *layer.parameters()])
    return [y, *found]


@has_dot
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("dtype", [torch.float32, BF16])
def test_layers_in_autocast_give_what_torch_nn_gives(kind, dtype, quick):
    torch.manual_seed(0)
    ours, theirs = getattr(tt, kind)(I, N, 2), getattr(torch.nn, kind)(I, N, 2)
    theirs.load_state_dict(ours.state_dict())
    x = random(T, B, I, seed=3).to(dtype)
    found, right = everything(ours, x), everything(theirs, x)
    assert [t.dtype for t in found] == [t.dtype for t in right]
    for f, r in zip(found, right, strict=True):
        assert (f.float() - r.float()).norm() < 5 * 2.0**-8 * r.float().norm()
    inside = everything(ours, x, inside=True)
    assert all(torch.equal(f, i) for f, i in zip(found, inside, strict=True))


@has_dot
def test_float32_is_what_it_was(quick):
    layer, x = tt.GRU(I, N), random(T, B, I, seed=4)
    before = everything(layer, x, enabled=False)
    in_autocast = everything(layer, x)
    after = everything(layer, x, enabled=False)
    assert all(torch.equal(b, a) for b, a in zip(before, after, strict=True))
    assert not torch.equal(before[0], in_autocast[0])
    assert "bfloat" not in product.text(target.host(), "float")
    program = backend.find(make_call(made("GRU"), x, random(B, N, seed=2))).program
    for operands, there in (("float", False), ("bfloat16", True)):
        text = LoopCode(program, program.forward, target.host(), operands, False).text()
        assert ("bfloat" in text) == there


def test_without_a_quick_dot_product_it_is_float32_and_said(monkeypatch):
    monkeypatch.setattr(autocast, "why_not_bfloat16", lambda: "the reason")
    layer, x = tt.GRU(I, N), random(T, B, I, seed=4)
    assert all(
        torch.equal(a, b) for a, b in zip(everything(layer, x), everything(layer, x, enabled=False), strict=True)
    )
    cell = made("GRU")
    with torch.autocast("cpu", BF16):
        said = tt.explain(cell, x)
    assert said.chosen == "cpu" and said.products == "in float32, though autocast to bfloat16 is on: the reason"
    assert said.products in str(said)
    assert tt.explain(cell, x).products is None


@has_dot
def test_explain_says_bfloat16(quick):
    with torch.autocast("cpu", BF16):
        assert "products of bfloat16 with sums in float32" in str(tt.explain(made("GRU"), random(T, B, I, seed=4)))


@has_dot
@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_derivatives_of_derivatives_round_too(name, quick):
    call, leaves = call_in(made(name))
    half = ((BF16,) * (1 + len(leaves[1:]) - len(list(call.cell.parameters()))), {})
    outputs = compiled.run(backend.find(call), call, half).outputs
    assert outputs.dtype is BF16
    loss = outputs.float().square().sum()
    plain = torch.autograd.grad(loss, leaves, retain_graph=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = torch.autograd.grad(loss, leaves, create_graph=True)
    for p, a in zip(plain, again, strict=True):
        assert (p - a).norm() < 2.0**-12 * p.norm()


@pytest.mark.parametrize(
    ("value", "says"), [("0", "THROUGHTIME_BFLOAT16=0 says so"), ("yes", "it is 0 or 1, or not set")]
)
def test_the_variable(value, says):
    command = "from throughtime.scanning.cpu.target import why_not_bfloat16; print(why_not_bfloat16())"
    ran = subprocess.run(
        [sys.executable, "-c", command],
        env={**os.environ, "THROUGHTIME_BFLOAT16": value},
        capture_output=True,
        text=True,
    )
    assert says in ran.stdout + ran.stderr
