"""Many streams through one stack: each row as if it were alone, whichever rows are stepped beside it."""

from __future__ import annotations

import pytest
import torch

import throughtime as tt
from throughtime.cells.base import Cell


class Branching(Cell):
    """A cell that the compiled loop cannot run: it looks at its numbers."""

    def forward(self, x, h, mask=None):
        (a,), (b,) = self.project_input(x), self.project_state(h, mask)
        return torch.tanh(a + b) if float(h.abs().sum()) < 1e6 else h


def stacks():
    return {
        "gru": tt.GRU(3, 5, 2),
        "lstm": tt.LSTM(3, 5, proj_size=4),
        "layernorm": tt.Recurrent(tt.cells.LayerNormLSTM, 3, 37, 2, residual=True, learn_initial_state=True),
        "zoneout": tt.Recurrent(tt.cells.MinimalGated, 3, 6, zoneout=0.2).eval(),
        "loop": tt.Recurrent(Branching, 3, 5),
    }


def flat(state):
    return [t for s in state for t in (s if isinstance(s, tuple) else (s,))]


@pytest.mark.parametrize("name", list(stacks()))
def test_rows_are_as_if_each_were_alone(name):
    torch.manual_seed(0)
    stack = stacks()[name]
    streams, draw = stack.streams(40), torch.Generator().manual_seed(1)
    alone = {row: stack.stepper() for row in range(40)}
    for _ in range(12):
        count = int(torch.randint(0, 41, (), generator=draw))
        rows = torch.randperm(40, generator=draw)[:count]
        x = torch.randn(count, 3, generator=draw)
        out = streams.step(rows, x)
        assert len(out) == count
        for i, row in enumerate(rows.tolist()):
            torch.testing.assert_close(out[i : i + 1], alone[row](x[i : i + 1]), rtol=1e-5, atol=1e-6)
    for row, stepper in alone.items():
        for a, b in zip(flat(streams.take(row)), flat(stepper.state), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", list(stacks()))
def test_bits_do_not_depend_on_who_is_stepped_beside(name):
    torch.manual_seed(0)
    stack = stacks()[name]
    size = 60 if name == "loop" else 4096
    x = torch.randn(5, size, 3)
    many, few = stack.streams(size), stack.streams(size)
    groups = [torch.arange(1), torch.arange(1, 4), torch.arange(4, 21), torch.arange(21, size).flip(0)]
    for step in x:
        whole = many.step(range(size), step)
        for rows in groups:
            given = rows.tolist() if len(rows) == 1 else rows  # one that is named in a list goes another way
            assert torch.equal(few.step(given, step[rows]), whole[rows])
    for row in (0, 2, 20, size - 1):
        assert all(map(torch.equal, flat(many.take(row)), flat(few.take(row))))


@pytest.mark.parametrize("name", list(stacks()))
def test_steps_of_one_stream_are_those_that_it_takes_one_by_one(name):
    torch.manual_seed(0)
    stack = stacks()[name]
    one, other, x = stack.streams(3), stack.streams(3), torch.randn(23, 3)
    states = []
    for size in (1, 5, 10, 7):  # from where the last ones led
        part, x = x[:size], x[size:]
        states.clear()
        outputs = one.read(1, part, states)
        for output, state, row in zip(outputs, states, part.split(1), strict=True):
            assert torch.equal(output, other.step([1], row))
            assert all(map(torch.equal, flat(state), flat(other.take(1))))
        one.step([0, 2], torch.randn(2, 3))  # what another does beside it
    assert all(map(torch.equal, flat(one.take(1)), flat(other.take(1))))
    for row, wrong in (
        (3, torch.zeros(2, 3)),
        (-1, torch.zeros(2, 3)),
        (0, torch.zeros(2, 4)),
        (0, torch.zeros(2, 3).double()),
    ):
        with pytest.raises(ValueError, match=r"slots|takes"):
            one.read(row, wrong)


def test_a_row_that_is_used_again_begins_anew():
    torch.manual_seed(0)
    stack = tt.Recurrent(tt.cells.LSTM, 3, 5, 2, learn_initial_state=True)
    with torch.no_grad():
        for first in stack.first_states:
            first.normal_()
    streams, fresh, x = stack.streams(4), stack.streams(4), torch.randn(6, 2, 3)
    for step in x[:3]:
        streams.step([1, 3], step)
    other = streams.take(3)
    streams.reset([1])
    assert all(map(torch.equal, flat(streams.take(3)), flat(other)))
    for step in x[3:]:
        assert torch.equal(streams.step([1], step[:1]), fresh.step([2], step[:1]))


def test_a_state_goes_from_row_to_row_and_the_table_grows():
    torch.manual_seed(0)
    stack = tt.LSTM(3, 5, 2)
    streams, x = stack.streams(2), torch.randn(9, 1, 3)
    for step in x[:4]:
        streams.step([1], step)
    held = streams.take(1)
    streams.grow(3000)
    assert streams.slots == 3000
    streams.put(2999, held)
    for step in x[4:]:
        a, b = streams.step([2999, 1], step.expand(2, 3))
        assert torch.equal(a, b)
    assert not torch.equal(flat(held)[0], flat(streams.take(1))[0])  # what was taken is a copy
    streams.grow(5)
    assert streams.slots == 3000


def test_what_does_not_fit_is_refused_and_changes_nothing():
    streams = tt.GRU(3, 5).streams(4)
    streams.step([0, 1, 2, 3], torch.randn(4, 3))
    before = [flat(streams.take(row)) for row in range(4)]
    for rows, x in (([4], torch.randn(1, 3)), ([-1], torch.randn(1, 3)), ([1, 1], torch.randn(2, 3)),
                    ([1, 2], torch.randn(1, 3)), ([1], torch.randn(1, 4)), ([1], torch.randn(1, 3).double())):  # fmt: skip
        with pytest.raises(ValueError):  # noqa: PT011
            streams.step(rows, x)
    with pytest.raises(ValueError, match="a state of these streams"):
        streams.put(0, [torch.randn(1, 6)])
    with pytest.raises(ValueError, match="slot"):
        tt.GRU(3, 5).streams(0)
    with pytest.raises(ValueError, match="bidirectional"):
        tt.GRU(3, 5, bidirectional=True).streams(3)
    after = [flat(streams.take(row)) for row in range(4)]
    assert all(torch.equal(a, b) for x, y in zip(before, after, strict=True) for a, b in zip(x, y, strict=True))


def test_weights_are_those_of_when_it_was_made_or_refreshed():
    stack, x = tt.GRU(3, 5), torch.randn(1, 3)
    streams = stack.streams(3)
    before = streams.step([0], x)
    with torch.no_grad():
        stack.weight_hh_l0.add_(1)
        stack.weight_ih_l0.add_(1)
    assert torch.equal(streams.step([1], x), before)
    streams.refresh()
    assert not torch.equal(streams.step([2], x), before)
