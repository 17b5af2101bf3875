"""Recurrent: a stack of any cell against torch.nn's stacks and against loops written out, and each of its noises.

Sizes: T time, B batch, I input, N hidden, P projected.
"""

import copy
from functools import partial

import pytest
import torch
from torch import nn

import throughtime as tt
from throughtime.cells import GRU, LSTM, Elman
from throughtime.layers import Recurrent

T, B, I, N, P = 6, 4, 3, 5, 2  # noqa: E741

# our cell, torch.nn's cell, torch.nn's layer
FAMILIES = {
    "Elman": (Elman, nn.RNNCell, nn.RNN),
    "GRU": (GRU, nn.GRUCell, nn.GRU),
    "LSTM": (LSTM, nn.LSTMCell, nn.LSTM),
}
every_family = pytest.mark.parametrize("family", FAMILIES)
F64 = {"dtype": torch.float64}


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(cell, *sizes, seed=3, **options):
    """A stack in float64, made so: a later `.double()` would part parameters that wrongly share their memory."""
    torch.manual_seed(seed)
    if cell not in (Echo, ShowMask):
        cell = partial(cell, dtype=torch.float64)
    return Recurrent(cell, *(sizes or (I, N)), **options)


def tensors(state):
    return state if isinstance(state, tuple) else (state,)


def random_stack(stack, batch=B, seed=20):
    """A random state for every cell of a stack."""
    flat = iter(range(seed, seed + 100))
    return tuple(
        tuple(
            tuple(random(*v.shape, seed=next(flat)) for v in s)
            if isinstance(s, tuple)
            else random(*s.shape, seed=next(flat))
            for s in layer
        )
        for layer in stack.initial_state(batch)
    )


def copy_weights(layer, stack):
    """The weights of a torch.nn layer into a stack; their names by cell."""
    names = {}
    for k, cell in enumerate(stack.cells):
        depth, direction = divmod(k, stack.directions)
        suffix = f"_l{depth}" + ("_reverse" if direction else "")
        cell.load_state_dict({name: getattr(layer, name + suffix) for name in cell.state_dict()})
        names |= {f"cells.{k}.{name}": name + suffix for name in cell.state_dict()}
    return names


class Echo(nn.Module):
    """A cell that gives its input back: it shows what reaches a layer."""

    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.output_size = input_size

    def initial_state(self, batch, *, device=None):
        return torch.zeros(batch, 1, dtype=torch.float64)

    def forward(self, x, h):
        return x, h


class ShowMask(nn.Module):
    """A cell that gives its recurrent mask back, and ones where it is given none."""

    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.hidden_size = hidden_size

    def initial_state(self, batch, *, device=None):
        return torch.zeros(batch, self.hidden_size, dtype=torch.float64)

    def forward(self, x, h, mask=None):
        return torch.ones_like(h) if mask is None else mask, h


# A stack is torch.nn's stack


@pytest.mark.parametrize("lengths", [None, [3, 6, 1, 4]], ids=["no lengths", "lengths"])
@pytest.mark.parametrize("batch_first", [False, True], ids=["time first", "batch first"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("whose", ["ours", "torch.nn"])
@every_family
def test_a_stack_is_the_layers_of_torch_nn(family, whose, num_layers, bidirectional, batch_first, lengths):
    ours, theirs, layer = FAMILIES[family]
    stack = make(
        ours if whose == "ours" else theirs,
        num_layers=num_layers,
        bidirectional=bidirectional,
        batch_first=batch_first,
    )
    reference = layer(I, N, num_layers, bidirectional=bidirectional, batch_first=batch_first, **F64)
    names = copy_weights(reference, stack)
    assert set(names) == set(dict(stack.named_parameters()))
    assert set(names.values()) == set(dict(reference.named_parameters()))

    x, state = random(*((B, T) if batch_first else (T, B)), I), random_stack(stack)
    found_x, expected_x = x.clone().requires_grad_(), x.clone().requires_grad_()
    flat = [tensors(s) for of_layer in state for s in of_layer]
    hx = tuple(torch.stack(t) for t in zip(*flat, strict=True))

    found, end = stack(found_x, state, lengths=lengths)
    given = expected_x
    if lengths is not None:
        given = nn.utils.rnn.pack_padded_sequence(given, torch.tensor(lengths), batch_first, enforce_sorted=False)
    expected, expected_end = reference(given, hx if family == "LSTM" else hx[0])
    if lengths is not None:
        expected, _ = nn.utils.rnn.pad_packed_sequence(expected, batch_first, total_length=T)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert [len(of_layer) for of_layer in end] == [stack.directions] * num_layers
    ends = [tensors(s) for of_layer in end for s in of_layer]
    for e, s in zip(tensors(expected_end), zip(*ends, strict=True), strict=True):
        torch.testing.assert_close(torch.stack(s), e, rtol=1e-10, atol=1e-10)

    weigh = random(*found.shape, seed=50)
    weights, expected_weights = dict(stack.named_parameters()), dict(reference.named_parameters())
    gradients = torch.autograd.grad((found * weigh).sum(), [found_x, *weights.values()])
    wanted = torch.autograd.grad((expected * weigh).sum(), [expected_x, *(expected_weights[n] for n in names.values())])
    by_name = dict(zip(["x", *weights], gradients, strict=True))
    for name, expected_gradient in zip(["x", *names], wanted, strict=True):
        torch.testing.assert_close(by_name[name], expected_gradient, rtol=1e-10, atol=1e-10)


def test_a_stack_of_projected_cells():
    stack = make(partial(LSTM, proj_size=P), num_layers=2, bidirectional=True)
    reference = nn.LSTM(I, N, 2, bidirectional=True, proj_size=P, **F64)
    copy_weights(reference, stack)
    assert stack.output_size == 2 * P
    torch.testing.assert_close(stack(random(T, B, I))[0], reference(random(T, B, I))[0], rtol=1e-10, atol=1e-10)


def test_no_state_is_the_initial_state():
    stack = make(GRU, num_layers=2, bidirectional=True)
    x = random(T, B, I)
    zeros = tuple(tuple(torch.zeros(B, N, **F64) for _ in range(2)) for _ in range(2))
    torch.testing.assert_close(stack(x)[0], stack(x, zeros)[0], rtol=0, atol=0)
    torch.testing.assert_close(stack.initial_state(B), zeros, rtol=0, atol=0)


def test_a_module_is_used_as_it_is():
    cell = GRU(I, N, **F64)
    stack = Recurrent(cell, I, N)
    assert stack.cells[0] is cell
    torch.testing.assert_close(stack(random(T, B, I))[0], tt.scan(cell, random(T, B, I)).outputs)


def test_every_cell_has_its_own_weights():
    stack = make(GRU, num_layers=2, bidirectional=True)
    assert len(stack.cells) == 4
    assert [c.weight_ih.shape[1] for c in stack.cells] == [I, I, 2 * N, 2 * N]
    assert len({id(p) for p in stack.parameters()}) == 16
    assert not torch.equal(stack.cells[0].weight_hh, stack.cells[1].weight_hh)


def test_the_backend_is_handed_on(monkeypatch):
    from throughtime.scanning import native, reference
    from throughtime.scanning.cpu import backend as compiled

    ran = []
    for backend in (compiled, native, reference):
        monkeypatch.setattr(backend, "run", lambda call, b=backend, run=backend.run: ran.append(b.name) or run(call))
    make(GRU, num_layers=2)(random(T, B, I))
    make(GRU, num_layers=2, backend="reference")(random(T, B, I))
    assert ran == ["cpu", "cpu", "reference", "reference"]
    with pytest.raises(RuntimeError, match="PyTorch has no kernel for Zoneout"):
        make(GRU, zoneout=0.1, backend="torch")(random(T, B, I))


def test_a_cell_with_an_output_of_its_own_width():
    stack = make(Echo, num_layers=2, bidirectional=True)
    assert stack.output_size == 4 * I
    x = random(T, B, I)
    outputs, state = stack(x)
    assert torch.equal(outputs, torch.cat([x] * 4, -1))
    assert [[tuple(s.shape) for s in layer] for layer in state] == [[(B, 1)] * 2] * 2


def test_deepcopy_and_state_dict():
    stack = make(LSTM, num_layers=2, learn_initial_state=True, recurrent_dropout=0.2, zoneout=0.1).eval()
    x, other = random(T, B, I), make(LSTM, num_layers=2, learn_initial_state=True, zoneout=0.1, seed=5).eval()
    torch.testing.assert_close(copy.deepcopy(stack)(x), stack(x), rtol=0, atol=0)
    assert not torch.allclose(other(x)[0], stack(x)[0])
    other.load_state_dict(stack.state_dict())
    torch.testing.assert_close(other(x), stack(x), rtol=0, atol=0)


# The state goes in and comes out


@pytest.mark.parametrize("cut", [1, 4])
@pytest.mark.parametrize(
    "options", [{}, {"residual": True}, {"learn_initial_state": True}, {"zoneout": 0.3}], ids=lambda o: "".join(o)
)
@every_family
def test_chunks_with_the_state_carried_are_one_run(family, options, cut):
    stack = make(FAMILIES[family][0], num_layers=2, **options).eval()
    with torch.no_grad():
        for k, p in enumerate(stack.first_states):
            p.copy_(random(*p.shape, seed=k))
    x, resets = random(T, B, I), torch.rand(T, B, generator=torch.Generator().manual_seed(0)) < 0.3
    whole, end = stack(x, resets=resets)
    first, state = stack(x[:cut], resets=resets[:cut])
    second, state = stack(x[cut:], state, resets=resets[cut:])
    torch.testing.assert_close(torch.cat([first, second]), whole, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(state, end, rtol=1e-10, atol=1e-10)
    afresh, _ = stack(x[cut:], resets=resets[cut:])
    assert not torch.allclose(afresh, second), "the carried state had no effect"


@pytest.mark.parametrize("batch_first", [False, True], ids=["time first", "batch first"])
@every_family
def test_lengths_and_resets_are_rows_run_alone(family, batch_first):
    stack = make(FAMILIES[family][0], num_layers=2, batch_first=batch_first)
    x, lengths = random(T, B, I), [3, 6, 0, 5]
    resets = torch.zeros(T, B, dtype=torch.bool)
    resets[1, 0] = resets[4, 1] = resets[2, 1] = resets[0, 3] = True
    turn = (lambda v: v.transpose(0, 1)) if batch_first else (lambda v: v)
    state = random_stack(stack)
    outputs, ends = stack(turn(x), state, lengths=lengths, resets=turn(resets))
    outputs = turn(outputs)
    for b, length in enumerate(lengths):
        assert not outputs[length:, b].any()
        now = pick(state, b)
        for t in range(length):
            if resets[t, b]:
                now = None
            part, now = stack(x[t : t + 1, b : b + 1], now)
            torch.testing.assert_close(outputs[t, b], part.flatten(), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(pick(ends, b), now, rtol=1e-10, atol=1e-10)


def pick(value, b):
    """One row of a state of any structure."""
    return tuple(pick(v, b) for v in value) if isinstance(value, tuple) else value[b : b + 1]


def test_padding_does_not_reach_the_layers_above():
    stack = make(GRU, num_layers=2, bidirectional=True, residual=True)
    x, lengths = random(T, B, I), torch.tensor([3, 6, 0, 4])
    padding = torch.arange(T).unsqueeze(1) >= lengths
    poisoned = x.masked_fill(padding.unsqueeze(-1), torch.nan).requires_grad_()
    expected, found = stack(x, lengths=lengths), stack(poisoned, lengths=lengths)
    torch.testing.assert_close(found, expected)
    for gradient in torch.autograd.grad(found[0].sum(), [poisoned, *stack.parameters()]):
        assert gradient.isfinite().all()


def test_batch_first_is_the_other_order():
    one, other = (
        make(GRU, num_layers=2, bidirectional=True),
        make(GRU, num_layers=2, bidirectional=True, batch_first=True),
    )
    x = random(T, B, I)
    outputs, state = one(x)
    found, found_state = other(x.transpose(0, 1))
    assert torch.equal(found, outputs.transpose(0, 1))
    torch.testing.assert_close(found_state, state, rtol=0, atol=0)


# Residual


def test_residual_adds_the_input_where_the_sizes_agree():
    stack = make(GRU, N, N, num_layers=2, residual=True)
    x = random(T, B, N)
    first = x + tt.scan(stack.cells[0], x).outputs
    torch.testing.assert_close(stack(x)[0], first + tt.scan(stack.cells[1], first).outputs)

    stack = make(GRU, I, N, num_layers=2, residual=True)
    x = random(T, B, I)
    first = tt.scan(stack.cells[0], x).outputs
    torch.testing.assert_close(stack(x)[0], first + tt.scan(stack.cells[1], first).outputs)


def test_residual_of_both_directions():
    stack = make(GRU, 2 * N, N, bidirectional=True, residual=True)
    x = random(T, B, 2 * N)
    ways = [tt.scan(c, x, reverse=r).outputs for c, r in zip(stack.cells, (False, True), strict=True)]
    torch.testing.assert_close(stack(x)[0], torch.cat(ways, -1) + x)


# The first state, learned


@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
@every_family
def test_a_learned_first_state_is_zero_at_first_and_gets_a_gradient(family, bidirectional):
    cell = FAMILIES[family][0]
    stack = make(cell, num_layers=2, bidirectional=bidirectional, learn_initial_state=True)
    plain = make(cell, num_layers=2, bidirectional=bidirectional)
    x = random(T, B, I)
    assert len(stack.first_states) == len(stack.cells) * (2 if family == "LSTM" else 1)
    torch.testing.assert_close(stack(x), plain(x), rtol=0, atol=0)
    outputs, _ = stack(x)
    for gradient in torch.autograd.grad(outputs.square().sum(), list(stack.first_states)):
        assert gradient.abs().max() > 1e-6


@pytest.mark.parametrize("whose", [0, 1], ids=["ours", "torch.nn"])
@every_family
def test_each_learned_first_state_is_its_own(family, whose):
    """Written one by one, each keeps its own value, and each stands where it belongs."""
    stack = make(FAMILIES[family][whose], num_layers=2, bidirectional=True, learn_initial_state=True)
    with torch.no_grad():
        for k, p in enumerate(stack.first_states):
            p.fill_(k + 1.0)
    assert [p.unique().tolist() for p in stack.first_states] == [[k + 1.0] for k in range(len(stack.first_states))]
    flat = [v for layer in stack.initial_state(B) for s in layer for v in tensors(s)]
    for k, v in enumerate(flat):
        assert torch.equal(v, torch.full((B, N), k + 1.0, **F64))
    x = random(T, B, I)
    torch.testing.assert_close(stack(x), stack(x, stack.initial_state(B)), rtol=0, atol=0)


def test_a_learned_first_state_of_torch_nns_lstm_takes_one_step_of_an_optimizer():
    stack = make(nn.LSTMCell, learn_initial_state=True)
    gradients = torch.autograd.grad(stack(random(T, B, I))[0].square().sum(), list(stack.first_states))
    assert not torch.allclose(*gradients)
    optimizer = torch.optim.SGD(stack.first_states, lr=0.1)
    for p, g in zip(stack.first_states, gradients, strict=True):
        p.grad = g
    optimizer.step()
    for p, g in zip(stack.first_states, gradients, strict=True):
        torch.testing.assert_close(p.detach(), -0.1 * g)


@every_family
def test_resets_put_back_the_learned_first_state(family):
    stack = make(FAMILIES[family][0], learn_initial_state=True)
    with torch.no_grad():
        for k, p in enumerate(stack.first_states):
            p.copy_(random(*p.shape, seed=30 + k))
    x, resets = random(T, B, I), torch.zeros(T, B, dtype=torch.bool)
    resets[3] = True
    outputs, _ = stack(x, random_stack(stack), resets=resets)
    afresh, _ = stack(x[3:])
    torch.testing.assert_close(outputs[3:], afresh, rtol=1e-10, atol=1e-10)
    for gradient in torch.autograd.grad(outputs[3:].square().sum(), list(stack.first_states)):
        assert gradient.abs().max() > 1e-6
    zero = tuple(torch.zeros(B, N, **F64) for _ in stack.first_states)
    from_zero, _ = stack(x[3:], ((zero if family == "LSTM" else zero[0],),))
    assert not torch.allclose(from_zero, afresh)


# The first weights


@pytest.mark.parametrize("whose", [0, 1], ids=["ours", "torch.nn"])
@every_family
def test_orthogonal_reaches_every_cell(family, whose):
    stack = make(FAMILIES[family][whose], num_layers=2, bidirectional=True, orthogonal=True)
    for cell in stack.cells:
        for block in cell.weight_hh.detach().split(N):
            torch.testing.assert_close(block @ block.T, torch.eye(N, **F64), rtol=0, atol=1e-12)
    plain = make(FAMILIES[family][whose])
    block = plain.cells[0].weight_hh.detach()[:N]
    assert not torch.allclose(block @ block.T, torch.eye(N, **F64), atol=1e-2)


def test_forget_bias_reaches_every_cell():
    stack = make(LSTM, num_layers=2, bidirectional=True, forget_bias=1.5)
    for cell in stack.cells:
        assert torch.equal((cell.bias_ih + cell.bias_hh)[N : 2 * N], torch.full((N,), 1.5, **F64))
        assert not torch.isin(1.5, (cell.bias_ih + cell.bias_hh)[:N])


def test_chrono_reaches_every_cell():
    stack = make(LSTM, num_layers=2, bidirectional=True, chrono=50)
    for cell in stack.cells:
        bias = (cell.bias_ih + cell.bias_hh).detach()
        assert torch.equal(bias[:N], -bias[N : 2 * N])
        u = bias[N : 2 * N].exp()
        assert u.min() >= 1
        assert u.max() <= 49
        assert u.max() - u.min() > 5, "one time for all units"


# Noise. What is drawn is read off cells that show it; what it does is compared with loops written out.

NOISES = {
    "dropout": {"dropout": 0.4},
    "variational": {"dropout": 0.4, "variational": True},
    "recurrent dropout": {"recurrent_dropout": 0.4},
    "zoneout": {"zoneout": 0.4},
    "all": {"dropout": 0.4, "variational": True, "recurrent_dropout": 0.4, "zoneout": 0.4},
}


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
@every_family
def test_noise_has_an_effect_in_training_and_follows_the_seed(family, bidirectional, noise):
    stack = make(FAMILIES[family][0], num_layers=2, bidirectional=bidirectional, **noise)
    plain = make(FAMILIES[family][0], num_layers=2, bidirectional=bidirectional)
    x = random(T, B, I)

    def run(seed):
        torch.manual_seed(seed)
        return stack(x)[0]

    assert torch.equal(run(0), run(0))
    assert not torch.allclose(run(0), run(1))
    assert not torch.allclose(run(0), plain(x)[0])
    for gradient in torch.autograd.grad(run(0).square().sum(), list(stack.parameters())):
        assert gradient.isfinite().all()
        assert gradient.any()


@pytest.mark.parametrize("noise", ["dropout", "variational", "recurrent dropout"])
@every_family
def test_dropout_is_off_in_evaluation(family, noise):
    stack = make(FAMILIES[family][0], num_layers=2, **NOISES[noise]).eval()
    plain = make(FAMILIES[family][0], num_layers=2)
    torch.testing.assert_close(stack(random(T, B, I)), plain(random(T, B, I)), rtol=0, atol=0)


@pytest.mark.parametrize("noise", ["dropout", "variational"])
def test_dropout_between_layers_leaves_one_layer_and_the_first_inputs_alone(noise):
    x = random(T, B, I)
    stack = make(Echo, num_layers=2, **NOISES[noise])
    seen = []
    stack.cells[0].register_forward_hook(lambda module, args, result: seen.append(args[0]))
    stack(x)
    assert torch.equal(torch.stack(seen), x)


def test_dropout_draws_a_mask_for_every_step_and_variational_one_for_all():
    x = torch.ones(50, 40, 30, **F64)
    rate = 0.3
    each, _ = make(Echo, 30, 1, num_layers=2, dropout=rate)(x)
    one, _ = make(Echo, 30, 1, num_layers=2, dropout=rate, variational=True)(x)
    for mask, draws in ((each, 50 * 40 * 30), (one[0], 40 * 30)):
        kept = mask[mask != 0]
        torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - rate)))
        deviation = (rate * (1 - rate) / draws) ** 0.5
        assert abs((mask == 0).double().mean().item() - rate) < 4 * deviation
    assert all(torch.equal(step, one[0]) for step in one)
    assert not torch.equal(each[0], each[1])
    # rows and units have masks of their own
    assert not torch.equal(one[0, 0], one[0, 1])
    assert not torch.equal(one[0, :, 0], one[0, :, 1])


def test_every_layer_has_a_dropout_mask_of_its_own():
    outputs, _ = make(Echo, 30, 1, num_layers=3, dropout=0.5, variational=True)(torch.ones(2, 40, 30, **F64))
    assert set(outputs.unique().tolist()) == {0.0, 4.0}
    assert abs((outputs == 0).double().mean().item() - 0.75) < 0.06


def test_the_recurrent_mask_is_one_for_all_steps():
    rate = 0.3
    stack = make(ShowMask, 1, 30, bidirectional=True, recurrent_dropout=rate)
    masks, _ = stack(torch.zeros(7, 40, 1, **F64))
    assert all(torch.equal(step, masks[0]) for step in masks)
    kept = masks[masks != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - rate)))
    deviation = (rate * (1 - rate) / masks[0].numel()) ** 0.5
    assert abs((masks[0] == 0).double().mean().item() - rate) < 4 * deviation
    forwards, backwards = masks[0].split(30, -1)
    assert not torch.equal(forwards, backwards)
    assert not torch.equal(forwards[0], forwards[1])
    again, _ = stack(torch.zeros(7, 40, 1, **F64))
    assert not torch.equal(again[0], masks[0]), "a new call, a new mask"
    assert torch.equal(stack.eval()(torch.zeros(7, 40, 1, **F64))[0], torch.ones_like(masks))


@every_family
def test_recurrent_dropout_is_on_the_recurrent_product_alone(family):
    """The mask is read off the cell while the stack runs; the loop below is torch.nn's cell with it on the products."""
    ours, theirs, _ = FAMILIES[family]
    stack = make(ours, recurrent_dropout=0.5)
    masks = []
    stack.cells[0].register_forward_hook(
        lambda module, args, kwargs, result: masks.append(kwargs["mask"]), with_kwargs=True
    )
    x, state = random(T, B, I), random_stack(stack)
    outputs, _ = stack(x, state)
    assert len(masks) == T
    mask = masks[0]
    assert set(mask.unique().tolist()) == {0.0, 2.0}
    reference = theirs(I, N, **F64)
    s = state[0][0]
    for b in range(B):  # a mask on the state is a mask on the columns of the weights, where there is one row
        reference.load_state_dict(stack.cells[0].state_dict())
        with torch.no_grad():
            reference.weight_hh.mul_(mask[b])
        row = pick(s, b)
        for t in range(T):
            row = reference(x[t, b : b + 1], row)
            torch.testing.assert_close(outputs[t, b : b + 1], tensors(row)[0], rtol=1e-10, atol=1e-10)


@every_family
def test_zoneout_keeps_each_unit_or_renews_it(family):
    """Step by step, every unit of every state tensor is what it was, or what torch.nn's cell makes of it."""
    ours, theirs, _ = FAMILIES[family]
    rate, units, rows, steps = 0.3, 30, 20, 12
    stack = make(ours, I, units, zoneout=rate)
    reference = theirs(I, units, **F64)
    reference.load_state_dict(stack.cells[0].state_dict())
    x, state = random(steps, rows, I), random_stack(stack, rows)
    kept = []
    for t in range(steps):
        outputs, new = stack(x[t : t + 1], state)
        full = tensors(reference(x[t], state[0][0]))
        old, now = tensors(state[0][0]), tensors(new[0][0])
        assert torch.equal(outputs[0], now[0])
        keeps = [n == o for n, o in zip(now, old, strict=True)]
        for n, f, k in zip(now, full, keeps, strict=True):
            torch.testing.assert_close(n[~k], f[~k], rtol=1e-10, atol=1e-10)
        kept.append(torch.stack(keeps))
        state = new
    kept = torch.stack(kept)  # [T, tensors, B, N]
    for k in range(kept.shape[1]):
        share = kept[:, k].double().mean().item()
        assert abs(share - rate) < 4 * (rate * (1 - rate) / (steps * rows * units)) ** 0.5
    assert not torch.equal(kept[0], kept[1]), "a mask for every step"
    if family == "LSTM":
        assert not torch.equal(kept[:, 0], kept[:, 1]), "a mask for h and one for c"


def test_zoneout_in_one_run_draws_for_every_step():
    stack = make(GRU, I, 30, zoneout=0.4)
    x, h = random(T, B, I), random(B, 30, seed=1)
    outputs, _ = stack(x, ((h,),))
    before = torch.cat([h.unsqueeze(0), outputs[:-1]])
    full = torch.stack([stack.cells[0](x[t], before[t]) for t in range(T)])
    kept = outputs == before
    torch.testing.assert_close(outputs[~kept], full[~kept], rtol=1e-10, atol=1e-10)
    assert abs(kept.double().mean().item() - 0.4) < 4 * (0.24 / kept.numel()) ** 0.5
    assert not torch.equal(kept[0], kept[1])


@pytest.mark.parametrize("lengths", [None, [3, 6, 0, 5]], ids=["no lengths", "lengths"])
@every_family
def test_zoneout_in_evaluation_is_its_expectation(family, lengths):
    ours, theirs, _ = FAMILIES[family]
    stack = make(ours, zoneout=0.3).eval()
    reference = theirs(I, N, **F64)
    reference.load_state_dict(stack.cells[0].state_dict())
    x, state = random(T, B, I), random_stack(stack)
    outputs, ends = stack(x, state, lengths=lengths)
    for b in range(B):
        row = pick(state[0][0], b)
        for t in range(T if lengths is None else lengths[b]):
            new = reference(x[t, b : b + 1], row)
            mixed = tuple(0.3 * o + 0.7 * n for o, n in zip(tensors(row), tensors(new), strict=True))
            row = mixed if isinstance(row, tuple) else mixed[0]
            torch.testing.assert_close(outputs[t, b : b + 1], mixed[0], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(pick(ends[0][0], b), row, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("training", [True, False])
def test_zoneout_of_nearly_one_hardly_moves_and_of_nearly_none_is_the_plain_cell(training):
    x, state = random(T, B, I), random_stack(make(GRU))
    still, _ = make(GRU, zoneout=1 - 1e-12).train(training)(x, state)
    torch.testing.assert_close(still, state[0][0].expand(T, B, N), rtol=0, atol=1e-9)
    free, _ = make(GRU, zoneout=1e-12).train(training)(x, state)
    torch.testing.assert_close(free, make(GRU)(x, state)[0], rtol=0, atol=1e-9)


def test_zoneout_leaves_an_output_of_its_own_alone():
    outputs, _ = make(Echo, I, 1, zoneout=0.5)(random(T, B, I))
    assert torch.equal(outputs, random(T, B, I))


def test_zoneout_and_recurrent_dropout_together():
    stack = make(GRU, zoneout=0.4, recurrent_dropout=0.5)
    seen = []
    stack.cells[0].register_forward_hook(
        lambda module, args, kwargs, result: seen.append((args[1], kwargs["mask"], result)), with_kwargs=True
    )
    outputs, _ = stack(random(T, B, I), random_stack(stack))
    assert all(torch.equal(mask, seen[0][1]) for _, mask, _ in seen)
    for t, (old, _, new) in enumerate(seen):
        assert ((outputs[t] == old) | torch.isclose(outputs[t], new)).all()
    assert any((outputs[t] == old).any() for t, (old, _, _) in enumerate(seen))


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
@pytest.mark.parametrize("steps", [0, 1])
def test_noise_over_few_steps(noise, steps):
    stack = make(LSTM, num_layers=2, **noise)
    state = random_stack(stack)
    outputs, end = stack(random(steps, B, I), state)
    assert outputs.shape == (steps, B, N)
    if steps == 0:
        torch.testing.assert_close(end, state, rtol=0, atol=0)


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
def test_noise_with_lengths_resets_and_a_learned_first_state(noise):
    stack = make(LSTM, num_layers=2, bidirectional=True, learn_initial_state=True, **noise)
    x, lengths = random(T, B, I), torch.tensor([3, 6, 0, 4])
    padding = torch.arange(T).unsqueeze(1) >= lengths
    x[padding] = torch.nan
    outputs, state = stack(x, lengths=lengths, resets=torch.eye(T, B, dtype=torch.bool))
    assert not outputs[padding].any()
    assert outputs[~padding].any(-1).all()
    for gradient in torch.autograd.grad(outputs.square().sum(), list(stack.parameters())):
        assert gradient.isfinite().all()
    ends = [end for layer in state for pair in layer for end in pair]
    for end, first in zip(ends, stack.first_states, strict=True):
        assert torch.equal(end[2], first), "a sequence of no steps ends where it starts"


@pytest.mark.parametrize("noise", ["recurrent dropout", "zoneout"])
def test_noise_goes_with_float32(noise):
    outputs, _ = Recurrent(LSTM, I, N, num_layers=2, **NOISES[noise])(torch.randn(T, B, I))
    assert outputs.dtype == torch.float32


# What cannot be


class NoStart(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.linear = nn.Linear(input_size + hidden_size, hidden_size)

    def forward(self, x, h):
        return torch.tanh(self.linear(torch.cat([x, h], -1)))


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Recurrent(GRU, I, N, num_layers=0), ValueError, "num_layers must be at least 1, got 0"),
        (lambda: Recurrent(GRU, I, N, 2, dropout=1.0), ValueError, "dropout must be at least 0 and under 1, got 1.0"),
        (lambda: Recurrent(GRU, I, N, 2, dropout=-0.1), ValueError, "dropout must be"),
        (lambda: Recurrent(GRU, I, N, recurrent_dropout=1.5), ValueError, "recurrent_dropout must be .* got 1.5"),
        (lambda: Recurrent(GRU, I, N, zoneout=-1), ValueError, "zoneout must be .* got -1"),
        (lambda: Recurrent(GRU, I, N, 2, variational=True), ValueError, "variational .* needs dropout"),
        (
            lambda: Recurrent(GRU, I, N, dropout=0.1, variational=True),
            ValueError,
            "dropout stands between .* num_layers over 1",
        ),
        (lambda: Recurrent(GRU(I, N), I, N, 2), TypeError, "a module is one cell; pass its class"),
        (lambda: Recurrent(GRU(I, N), I, N, bidirectional=True), TypeError, "a module is one cell; pass its class"),
        (lambda: Recurrent(GRU, I, N, forget_bias=1.0), ValueError, "GRU has no forget-gate bias"),
        (lambda: Recurrent(partial(LSTM, bias=False), I, N, forget_bias=1.0), ValueError, "no forget-gate bias"),
        (lambda: Recurrent(LSTM, I, N, forget_bias=1.0, chrono=9), ValueError, "forget_bias and chrono .* give one"),
        (lambda: Recurrent(Elman, I, N, chrono=9), ValueError, "Elman has no bias of a gate that keeps"),
        (lambda: Recurrent(Echo, I, N, orthogonal=True), ValueError, "Echo has no weight_hh"),
        (lambda: Recurrent(nn.GRUCell, I, N, recurrent_dropout=0.1), TypeError, "GRUCell a parameter mask=None"),
        (lambda: Recurrent(NoStart, I, N), TypeError, "NoStart does not say what it starts from"),
        (lambda: Recurrent(GRU, I, N, zonout=0.1), TypeError, "zonout"),
    ],
)
def test_what_cannot_be_is_refused(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_a_cell_without_a_start_of_its_own_runs_from_the_state_it_is_given():
    """It is taken when it says the width of its output; the error without a state says to pass one."""
    cell = NoStart(I, N).double()
    cell.output_size = N
    stack, h = Recurrent(cell, I, N), random(B, N, seed=1)
    with pytest.raises(TypeError, match="NoStart does not say what it starts from: pass state="):
        stack(random(T, B, I))
    torch.testing.assert_close(stack(random(T, B, I), ((h,),))[0], tt.scan(cell, random(T, B, I), h).outputs)


def test_dropout_without_a_layer_to_stand_before_is_not_taken_in_silence():
    """What is accepted has an effect: torch.nn warns here, `variational` raises."""
    with pytest.raises((ValueError, UserWarning), match="dropout"):
        Recurrent(GRU, I, N, num_layers=1, dropout=0.5)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"lengths": [1, 2]}, "lengths must be 4 whole numbers"),
        ({"resets": torch.zeros(B, T, dtype=torch.bool)}, r"resets must be bool \[T, B\] = \[6, 4\]"),
        ({"state": ((torch.zeros(B + 1, N, **F64),),)}, r"B = 4, got \[5, 5\]"),
    ],
)
def test_a_call_that_does_not_fit_is_refused(more, message):
    with pytest.raises(ValueError, match=message):
        make(GRU)(random(T, B, I), **more)


def test_the_representation_says_what_is_not_usual():
    said = repr(make(GRU, num_layers=2, bidirectional=True, dropout=0.1, zoneout=0.2))
    assert "3, 5, num_layers=2, dropout=0.1, zoneout=0.2, bidirectional=True" in said


# -- dropout on the recurrent weights


@pytest.mark.parametrize("cell", [Elman, GRU, LSTM, nn.GRUCell, nn.LSTMCell])
def test_weight_dropout_is_the_cell_with_a_dropped_matrix(cell):
    """The same seed, the matrix dropped by hand, a plain scan: the same outputs and gradients, and PyTorch's kernel still."""
    torch.manual_seed(0)
    stack = Recurrent(cell, I, N, weight_dropout=0.5).double()
    x = torch.randn(T, B, I, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(3)
    outputs, _ = stack(x)
    plain = stack.cells[0]
    torch.manual_seed(3)
    dropped = torch.dropout(plain.weight_hh, 0.5, True)
    assert 0.3 < (dropped == 0).double().mean() < 0.7
    got = torch.autograd.grad(outputs.sin().sum(), [x, plain.weight_hh, plain.weight_ih])

    twin = cell(I, N).double()
    twin.load_state_dict({**plain.state_dict(), "weight_hh": dropped.detach()})
    expected = tt.scan(twin, x, backend="reference").outputs
    wanted = torch.autograd.grad(expected.sin().sum(), [x, twin.weight_hh, twin.weight_ih])
    torch.testing.assert_close(outputs, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(got[0], wanted[0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(got[1], wanted[1] * (dropped != 0) / 0.5, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(got[2], wanted[2], rtol=1e-10, atol=1e-10)
    assert list(stack.state_dict()) == list(Recurrent(cell, I, N).state_dict())
    stack.backend = "torch"  # raises if the kernel could not run it
    stack(x)


def test_weight_dropout_is_off_in_evaluation_and_drawn_anew_in_training():
    stack = Recurrent(GRU, I, N, weight_dropout=0.5)
    x = torch.randn(T, B, I)
    assert not torch.equal(stack(x)[0], stack(x)[0])
    stack.eval()
    plain = tt.scan(stack.cells[0], x).outputs
    assert torch.equal(stack(x)[0], plain)


def test_weight_dropout_needs_a_recurrent_matrix():
    with pytest.raises(TypeError, match="Echo has none"):
        Recurrent(Echo, I, N, weight_dropout=0.1)
