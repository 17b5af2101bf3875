"""Looking into scans: states, watched values and gradients through time, against a plain loop."""

import pytest
import torch
from torch import nn

import throughtime as tt
from throughtime.cells.base import split_result
from throughtime.scanning.observe import observing

F64 = torch.float64


class Odd(nn.Module):
    """A cell of somebody's own: an output that is not the state, a state of two widths."""

    def __init__(self, inputs, size):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(inputs + size, size), nn.Linear(size, size + 1), nn.Linear(size + 1, 2)

    def initial_state(self, batch, *, device=None):
        like = self.a.weight
        return like.new_zeros(batch, self.a.out_features), like.new_zeros(batch, self.a.out_features + 1)

    def forward(self, x, state):
        u, v = state
        u = tt.cells.Cell.watch("mixed", torch.tanh(self.a(torch.cat([x, u], -1))))
        v = torch.sin(self.b(u) + v)
        return self.c(v), (u, v)


CELLS = {**tt.cells.NAMED, "odd": Odd, "torch": nn.LSTMCell}


def tensors(state):
    return state if isinstance(state, tuple) else (state,)


def by_hand(cell, x, first, lengths, reverse, weigh):
    """States and d(weigh · outputs)/d(state) of every step, a sequence at a time."""
    found = []
    for b in range(x.shape[1]):
        state = tuple(s[b : b + 1].clone() for s in tensors(first))
        steps = range(lengths[b])
        kept, total = {}, 0.0
        for t in reversed(steps) if reverse else steps:
            given = state if isinstance(first, tuple) else state[0]
            output, new = split_result(cell(x[t, b : b + 1], given), given)
            nudges = tuple(torch.zeros_like(s, requires_grad=True) for s in tensors(new))
            state = tuple(s + e for s, e in zip(tensors(new), nudges, strict=True))
            kept[t] = [(s.detach(), e) for s, e in zip(state, nudges, strict=True)]
            total = total + (weigh[t, b] * (state[0] if output is None else output)[0]).sum()
        if kept:
            total.backward()
        found.append(kept)
    return found


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_states_and_gradients_through_time(name, reverse):
    torch.manual_seed(0)
    cell = CELLS[name](3, 4).to(F64)
    x, lengths = torch.randn(6, 3, 3, dtype=F64), [6, 4, 0]
    like = tt.scan(cell, x).state
    first = tuple(torch.randn_like(s) for s in tensors(like))
    first = first if isinstance(like, tuple) else first[0]
    with observing(gradients=True) as scans:
        outputs, end, _ = tt.scan(cell, x, first, lengths=lengths, reverse=reverse)
    plain, plain_end, _ = tt.scan(cell, x, first, lengths=lengths, reverse=reverse)
    torch.testing.assert_close(outputs, plain, rtol=0, atol=1e-12)
    for a, b in zip(tensors(end), tensors(plain_end), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    weigh = torch.randn_like(outputs)
    (weigh * outputs).sum().backward()
    (seen,) = scans
    assert seen.cell is cell and seen.reverse is reverse
    expected = by_hand(cell, x, first, lengths, reverse, weigh)
    for b, kept in enumerate(expected):
        for t, states in kept.items():
            for i, (s, e) in enumerate(states):
                torch.testing.assert_close(seen.states[i][t, b], s[0], rtol=0, atol=1e-10)
                grad = torch.zeros_like(e) if e.grad is None else e.grad
                torch.testing.assert_close(seen.gradients[i][t, b], grad[0], rtol=0, atol=1e-9)


def test_what_a_cell_watches_is_recorded_whichever_backend_runs_it():
    torch.manual_seed(1)
    stack = tt.Recurrent(tt.cells.LSTM, 3, 5, num_layers=2, bidirectional=True).double()
    x = torch.randn(7, 2, 3, dtype=F64)
    with observing() as scans:
        outputs, _ = stack(x, lengths=[7, 4])
    assert torch.equal(outputs, stack(x, lengths=[7, 4])[0])
    assert [s.reverse for s in scans] == [False, True, False, True]
    for seen in scans:
        assert list(seen.records) == ["input", "forget", "cell", "output", "c", "h"]
        torch.testing.assert_close(seen.states[0], seen.records["h"])
        torch.testing.assert_close(seen.states[1], seen.records["c"])
        assert seen.states[0][4:, 1].eq(0).all()
        torch.testing.assert_close(seen.outputs, seen.states[0])
    expected = tt.scan(stack.cells[0], x, lengths=[7, 4], record=("forget",), backend="reference").records["forget"]
    torch.testing.assert_close(scans[0].records["forget"], expected)


def test_a_call_that_records_gets_what_it_asked_for():
    cell = tt.cells.GRU(3, 4)
    x = torch.randn(5, 2, 3)
    with observing() as scans:
        _, _, records = tt.scan(cell, x, record=("reset",))
    assert list(records) == ["reset"] and list(scans[0].records) == ["reset", "update", "new", "h"]
    with observing(), pytest.raises(ValueError, match="rest"):
        tt.scan(cell, x, record=("rest",))


def test_noise_is_observed_too_and_the_cell_is_out_of_its_wrappers():
    torch.manual_seed(2)
    stack = tt.Recurrent(tt.cells.GRU, 3, 4, zoneout=0.3, recurrent_dropout=0.2)
    with observing(gradients=True) as scans:
        outputs, _ = stack(torch.randn(6, 2, 3))
    outputs[-1].sum().backward()
    assert scans[0].cell is stack.cells[0]
    assert scans[0].gradients[0].shape == (6, 2, 4) and scans[0].gradients[0][0].abs().sum() > 0


def test_gradients_that_were_not_observed():
    cell, x = tt.cells.GRU(3, 4), torch.randn(5, 2, 3)
    with observing() as scans:
        tt.scan(cell, x)
    with pytest.raises(RuntimeError, match="gradients=True"):
        _ = scans[0].gradients
    with observing(gradients=True) as scans:
        tt.scan(cell, x)
    with pytest.raises(RuntimeError, match="backward"):
        _ = scans[0].gradients
    tt.scan(cell, x)
    assert len(scans) == 1  # after the block nothing is kept


def test_no_steps_are_observed_as_none():
    with observing() as scans:
        tt.scan(tt.cells.LSTM(3, 4), torch.randn(0, 2, 3))
    assert scans[0].states[1].shape == (0, 2, 4)


class Around(nn.Module):
    """A cell of somebody's own that has another inside, and says what it starts from."""

    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(3, 4)

    def initial_state(self, batch, *, device=None):
        return torch.zeros(batch, 4)

    def forward(self, x, h):
        return 0.5 * self.cell(x, h)


def test_a_cell_with_another_inside_is_no_wrapper():
    cell = Around()
    with observing() as scans:
        tt.scan(cell, torch.randn(3, 2, 3))
    assert scans[0].cell is cell
