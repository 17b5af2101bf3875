"""Weights in int8: operands rounded where it is said, exact sums, and nothing else that is not float32's.

A product of whole numbers is exact, so what is left beside the exact value is the rounding of two scales, their product, the sum
as a float32 and the last sum: within 6 · 2^-24 of the sizes that go into it. Nothing that rounds elsewhere comes within that.
"""

import copy
import os
import sys

import pytest
import torch

import processes
import throughtime as tt
from throughtime.scanning import operator, reference
from throughtime.scanning.call import Call, make_call
from throughtime.scanning.compiled import _Around
from throughtime.scanning.cpu import backend, matrices, product, quads, target
from throughtime.scanning.int8 import quantised

pytestmark = pytest.mark.usefixtures("_own_cache")

ONE, TWO = torch.int8, torch.int16  # bytes of an operand
LARGEST = {ONE: 127, TWO: 32767}
T, B, I, N = 9, 5, 4, 21  # noqa: E741
CELLS = ["Elman", "GRU", "LSTM", "LayerNormGRU", "ResetBeforeGRU", "MinGRU"]


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def whole(a, operands):
    """Rows as whole numbers, and the scale of each."""
    largest = torch.tensor(float(LARGEST[operands]))
    top = a.detach().abs().amax(1)
    inverse = torch.where(top < 1e-30, 0.0, largest / top)
    return (a.detach().double() * inverse.double().unsqueeze(1)).round(), (top / largest).double()


def exact(a, w, operands, bias=None):
    """a [M, K] @ w [K, N] (+ bias) of rounded operands, in float64; and the sizes that its rounding goes by."""
    (left, t), (right, s) = whole(a, operands), quantised(w)
    scales = t.unsqueeze(1) * s.double()
    high = left.abs() @ right.double().abs() * scales  # what the two bytes' sums may come to
    made = left @ right.double() * scales
    return made + (0 if bias is None else bias.double()), high + (0 if bias is None else bias.double().abs())


def off(found, a, w, operands, bias=None):
    """How far a product is from the exact one, in units of what it may be."""
    right, sizes = exact(a, w, operands, bias)
    return float(((found.double() - right).abs() / (6 * 2.0**-24 * sizes + 1e-37)).max())


@pytest.mark.parametrize("operands", [ONE, TWO])
@pytest.mark.parametrize("sizes", [(7, 5, 3), (13, 64, 192), (97, 513, 70), (300, 33, 65), (5, 3100, 130), (11, 1, 9)])
def test_products_round_their_operands_and_nothing_else(sizes, operands):
    m, k, n = sizes
    a, w, bias = (random(*s, seed=i) for i, s in enumerate([(m, k), (n, k), (n,)]))
    for weight in (w.t(), w.t().contiguous()):
        for b in (bias, None):
            found = matrices.multiply(a, weight, b, operands)
            assert off(found, a, weight, operands, b) <= 1
    other = TWO if operands is ONE else ONE
    if k > 1:  # what would not be right is seen
        assert off(found, a, w.t(), other) > 1
        assert off(a @ w.t(), a, w.t(), operands) > 1


@pytest.mark.parametrize("operands", [ONE, TWO])
def test_rows_of_zeros_and_of_what_is_not_finite(operands):
    a, w = random(6, 37, seed=1), random(37, 20, seed=2)
    a[1], a[2], a[3, 5], a[4, 7] = 0, 1e-36, float("nan"), float("inf")
    found = matrices.multiply(a, w, None, operands)
    assert torch.equal(found[1:3], torch.zeros(2, 20))
    assert found[3].isnan().all() and not found[4].isfinite().any()
    assert off(found[[0, 5]], a[[0, 5]], w, operands) <= 1
    w[3, 4] = float("nan")
    found = matrices.multiply(a[:1], w, None, operands)
    assert found[0, 4].isnan() and found[0, :4].isfinite().all()


@pytest.mark.parametrize("operands", [ONE, TWO])
def test_the_largest_sums_do_not_overflow(operands):
    a, w = torch.ones(2, quads.DEEPEST), torch.ones(quads.DEEPEST, 3)
    a[1], w[:, 1] = -1, -1
    found = matrices.multiply(a, w, None, operands)
    assert torch.allclose(found, a @ w, rtol=2**-16)  # a scale has 16 bits
    with pytest.raises(ValueError, match="at most 65,536 inputs"):
        matrices.column_quads(torch.ones(quads.DEEPEST + 1, 1))


def rounding(operands):
    """What `evaluate.linear` does, of rounded operands."""

    def linear(x, weight, bias):
        return exact(x, weight, operands, bias)[0].float()

    return linear


def made(name, inputs=I, hidden=N):
    torch.manual_seed(1)
    return getattr(tt.cells, name)(inputs, hidden)


def by_hand(cell, x, first, operands):
    """The program's own step by PyTorch, with operands rounded where the engine does: states of all steps."""
    call = make_call(cell, x, first)
    call = Call(**{**{f: getattr(call, f) for f in call.__dataclass_fields__ if f != "found"}, "operands": operands})
    engine = backend.find(call)
    given = _Around(engine, call).given()
    nothing = given.state[0].new_empty(given.steps, given.batch, 0)
    step = operator._Step(engine.program, given, torch.float32)
    step.linear = rounding(operands)
    plain = Call(step, (nothing, *given.arrays), tuple(given.state), tuple(given.state), None, False, None, ())
    return reference.run(plain).outputs.split([*engine.program.state_widths, *engine.program.extra_widths], -1)[0]


def start(cell, batch):
    first = cell.initial_state(batch)
    many = first if isinstance(first, tuple) else (first,)
    states = tuple(0.5 * random(*s.shape, seed=5 + k) for k, s in enumerate(many))
    return states if isinstance(first, tuple) else states[0]


@pytest.mark.parametrize("inputs", [I, 40])
@pytest.mark.parametrize("name", CELLS)
def test_a_scan_rounds_where_the_plain_step_does(name, inputs):
    cell, x = made(name, inputs), random(4, B, inputs, seed=3)
    first = start(cell, B)
    with torch.no_grad():
        found = tt.scan(cell, x, first, weights="int8").outputs
        right, plain = by_hand(cell, x, first, ONE), tt.scan(cell, x, first).outputs
    # numbers on the border between two whole ones may fall to either side: few, so that a mean shows what is rounded elsewhere
    assert float((found - right).abs().mean()) < 0.1 * float((found - plain).abs().mean())


@pytest.mark.parametrize("name", CELLS)
def test_a_stepper_rounds_where_the_plain_step_does(name):
    cell, x = made(name, 40), random(4, B, 40, seed=3)
    layer = tt.Recurrent(cell, 40, N)
    found = torch.stack(list(map(layer.stepper(B, weights="int8"), x)))
    with torch.no_grad():
        first = cell.initial_state(B)
        right, plain = by_hand(cell, x, first, TWO), tt.scan(cell, x, first).outputs
        eight = tt.scan(cell, x, first, weights="int8").outputs
    assert float((found - right).abs().mean()) < 0.1 * float((found - plain).abs().mean())
    assert float((found - plain).abs().mean()) < float((eight - plain).abs().mean())  # two bytes lose less than one


def test_lengths_resets_and_directions():
    torch.manual_seed(0)
    layer = tt.GRU(I, N, 2, bidirectional=True)
    small = copy.deepcopy(layer).quantize()
    x, resets = random(T, B, I, seed=1), torch.rand(T, B, generator=torch.Generator().manual_seed(2)) < 0.3
    for options in ({}, {"lengths": [9, 0, 4, 1, 7]}, {"resets": resets}):
        with torch.no_grad():
            found, right = small(x, **options)[0], layer(x, **options)[0]
        assert 0 < float((found - right).abs().max()) < 0.1 * float(right.abs().max())
        assert torch.equal(found == 0, right == 0)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_bits_do_not_depend_on_threads_or_rows(kind):
    torch.manual_seed(0)
    layer, x = getattr(tt, kind)(I, 70).quantize(), random(T, 13, I, seed=4)
    before, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 2, 1):
            torch.set_num_threads(count)
            with torch.no_grad():
                results.append(layer(x)[0])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(results[0], r) for r in results[1:])
    with torch.no_grad():
        assert all(torch.equal(results[0][:, b : b + 1], layer(x[:, b : b + 1])[0]) for b in range(13))


def test_the_row_of_a_stream_is_the_same_in_any_batch():
    torch.manual_seed(0)
    layer = tt.LSTM(I, N, 2)
    many, one = layer.streams(4096, weights="int8"), layer.streams(1, weights="int8")
    x = random(4, 4096, I, seed=5)
    for step in x:
        found = many.step(torch.arange(4096), step)
        assert torch.equal(found[77:78], one.step([0], step[77:78]))
    assert not torch.equal(found, layer.streams(4096).step(torch.arange(4096), x[-1]))


def test_weights_that_change_are_rounded_again():
    torch.manual_seed(0)
    layer, x = tt.GRU(I, N).quantize(), random(T, B, I, seed=6)
    with torch.no_grad():
        before = layer(x)[0]
        assert torch.equal(layer(x)[0], before)
        layer.weight_hh_l0.mul_(0.5)
        after = layer(x)[0]
        assert not torch.equal(after, before)
        assert torch.equal(copy.deepcopy(layer)(x)[0], after)
        layer.weight_hh_l0.mul_(2)
        assert torch.equal(layer(x)[0], before)
    with torch.inference_mode():
        assert torch.equal(layer(x)[0], before)


def test_rounding_twice_is_rounding_once():
    layer = tt.LSTM(I, N)
    x = random(T, B, I, seed=7)
    with torch.no_grad():
        found = layer.quantize()(x)[0]
        assert torch.equal(layer.quantize()(x)[0], found)
    for name, weight in layer.named_parameters():
        assert not weight.requires_grad
        if weight.dim() == 2:
            again = weight.detach().t()
            assert torch.equal((quantised(again)[0] * quantised(again)[1]).t(), weight), name


def test_gradients_are_one_clear_error():
    layer, x = tt.GRU(I, N), random(T, B, I, seed=8).requires_grad_()
    outputs, state = layer.quantize()(x)  # without asking for them it runs
    for value in (outputs, state):
        with pytest.raises(RuntimeError, match="weights in int8 have no gradients"):
            torch.autograd.grad(value.sum(), x, retain_graph=True)


def test_what_cannot_run_in_int8_says_so():
    layer, x = tt.GRU(I, N), random(T, B, I, seed=9)
    with pytest.raises(ValueError, match="did you mean 'int8'"):
        layer.stepper(weights="int_8")
    with pytest.raises(ValueError, match="on the backend 'cpu' alone"):
        layer.stepper(weights="int8", backend="reference")
    with pytest.raises(RuntimeError, match="for inputs in float32"):
        layer.double().stepper(weights="int8")
    with pytest.raises(RuntimeError, match="for inputs in float32"):
        layer.quantize()(x.double())
    cell = tt.cells.GRU(I, N)
    cell.register_forward_hook(lambda *given: None)
    with pytest.raises(RuntimeError, match="weights in int8 cannot run this: the cell has hooks"):
        tt.scan(cell, x, weights="int8")


def test_explain_says_how():
    cell, x = tt.cells.GRU(I, N), random(T, B, I, seed=9)
    said = tt.explain(cell, x, weights="int8")
    assert said.chosen == "cpu" and said.products.startswith("weights in int8, multiplied by ")
    assert ("the processor's dot product of bytes (VNNI)" in said.products) == target.has_int8(target.host())
    assert "not on 'reference': it has no weights in int8" in str(said)
    assert tt.explain(cell, x).products is None


def test_float32_is_what_it_was():
    text = product.text(target.host(), "float")
    assert "vpdpbusd" not in text and "x i8>" not in text


PRINT_BITS = """
import hashlib, sys, torch, throughtime as tt
torch.manual_seed(0)
layer = tt.LSTM(7, 40)
stepper = layer.stepper(3, weights="int8")
x = torch.randn(5, 3, 7)
from throughtime.scanning.cpu import matrices
made = [matrices.multiply(x[0], torch.randn(7, 40), None, kind) for kind in (torch.int8, torch.int16)]
outputs = [stepper(step) for step in x]
print(hashlib.sha256(torch.cat(made).numpy().tobytes()).hexdigest(), float(torch.stack(outputs).sum()))
"""


def test_other_instructions_give_the_same_products():
    """Sums of bytes with and without VNNI; the pointwise work of other vectors may differ in its last bits."""
    found = []
    for kind in (None, "avx2", "plain"):
        if kind == "avx2" and target.host().bits < 256:
            continue
        env = {**os.environ, **({} if kind is None else {"THROUGHTIME_VECTOR": kind})}
        ran = processes.run([sys.executable, "-c", PRINT_BITS], env=env, capture_output=True, text=True, check=True)
        digest, total = ran.stdout.split()
        found.append((digest, float(total)))
    assert len({digest for digest, _ in found}) == 1
    assert max(total for _, total in found) - min(total for _, total in found) < 1e-3
