"""States of any rank: lengths, resets and reverse against a loop over one sequence after the other, without masks or a batch."""

import pytest
import torch
from torch import nn

import throughtime as tt
from throughtime.layers import Recurrent

T, I = 5, 3  # noqa: E741
F64 = torch.float64

SHAPES = {
    "[B]": ((),),
    "[B, N]": ((4,),),
    "[B, 3, 3]": ((3, 3),),
    "[B, C, H, W]": ((2, 3, 2),),
    "[B], [B, N]": ((), (4,)),
    "[B, N], [B, 3, 3], [B], [B, 2, 3, 2]": ((4,), (3, 3), (), (2, 3, 2)),
}


class Mixing(nn.Module):
    """Every tensor of the state hears of the input and of every other one. `compiled`: whether the engine can have it."""

    def __init__(self, shapes, compiled):
        super().__init__()
        self.shapes, self.compiled = shapes, compiled
        sizes = [max(1, torch.Size(s).numel()) for s in shapes]
        self.into = nn.ModuleList(nn.Linear(I + sum(sizes), n, dtype=F64) for n in sizes)

    def forward(self, x, state):
        many = state if isinstance(state, tuple) else (state,)
        if not self.compiled:
            x = x * torch.ones(len(x), 1, dtype=F64).cumsum(0).clamp(max=1)  # of the batch's size: not for the engine
        row = torch.cat([x, *(s.reshape(len(x), -1) for s in many)], -1)
        new = tuple(torch.tanh(f(row)).reshape(s.shape) for f, s in zip(self.into, many, strict=True))
        return row.sin(), new if isinstance(state, tuple) else new[0]


def one_by_one(cell, x, state, initial, lengths, resets, reverse):
    """What the equations say of each sequence alone."""
    batch = x.shape[1]
    many = [s if isinstance(s, tuple) else (s,) for s in (state, initial)]
    outputs, ends = [], []
    for b in range(batch):
        now, first = (tuple(s[b : b + 1] for s in tensors) for tensors in many)
        size = int(lengths[b]) if lengths is not None else len(x)
        rows = [None] * len(x)
        for t in reversed(range(size)) if reverse else range(size):
            if resets is not None and resets[t, b]:
                now = first
            y, new = cell(x[t, b : b + 1], now if isinstance(state, tuple) else now[0])
            now = new if isinstance(new, tuple) else (new,)
            rows[t] = y
        width = I + sum(max(1, s[0].numel()) for s in many[0])
        outputs.append(torch.stack([torch.zeros(1, width, dtype=F64) if r is None else r for r in rows]))
        ends.append(now)
    whole = tuple(torch.cat(parts) for parts in zip(*ends, strict=True))
    return torch.cat(outputs, 1), whole if isinstance(state, tuple) else whole[0]


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cut", ["whole", "lengths", "resets", "both"])
def test_states_of_any_rank(shapes, batch, reverse, cut, compiled):
    torch.manual_seed(1)
    cell, x = Mixing(shapes, compiled), torch.randn(T, batch, I, dtype=F64, requires_grad=True)

    def state():
        tensors = tuple(torch.randn(batch, *s, dtype=F64, requires_grad=True) for s in shapes)
        return tensors if len(shapes) > 1 else tensors[0]

    first, initial = state(), state()
    lengths = torch.tensor([5, 2, 0, 4][:batch]) if cut in ("lengths", "both") else None
    resets = torch.rand(T, batch) < 0.4 if cut in ("resets", "both") else None
    chosen = tt.explain(cell, x, first, initial=initial, lengths=lengths, resets=resets, reverse=reverse).chosen
    assert chosen == ("cpu" if compiled else "reference")
    states = [s for both in (first, initial) for s in (both if isinstance(both, tuple) else (both,))]

    def everything(outputs, ends):
        ends = ends if isinstance(ends, tuple) else (ends,)
        loss = outputs.sin().sum() + sum((e * (k + 2)).cos().sum() for k, e in enumerate(ends))
        leaves = [x, *cell.parameters(), *states]
        gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
        return [
            outputs,
            *ends,
            *(torch.zeros_like(t) if g is None else g for t, g in zip(leaves, gradients, strict=True)),
        ]

    expected = everything(*one_by_one(cell, x, first, initial, lengths, resets, reverse))
    for backend in ("cpu", "reference") if compiled else ("reference",):
        options = {"initial": initial, "lengths": lengths, "resets": resets, "reverse": reverse, "backend": backend}
        for one, two in zip(everything(*tt.scan(cell, x, first, **options)[:2]), expected, strict=True):
            torch.testing.assert_close(one, two)


def test_a_stack_learns_a_first_state_of_any_rank():
    class Field(nn.Module):
        def __init__(self, inputs, hidden):
            super().__init__()
            self.into, self.output_size = nn.Linear(inputs, hidden * hidden), hidden * hidden
            self.n = hidden

        def initial_state(self, batch, *, device=None):
            return torch.zeros(batch, self.n, self.n, device=device)

        def forward(self, x, h):
            new = torch.tanh(h + self.into(x).reshape(h.shape))
            return new.flatten(1), new

    stack = Recurrent(Field, 3, 2, learn_initial_state=True)
    with torch.no_grad():
        stack.first_states[0].fill_(0.5)
    x = torch.zeros(4, 2, 3)
    outputs, _ = stack(x, lengths=[4, 0])
    h = torch.full((2, 2), 0.5)
    for _ in range(4):
        h = torch.tanh(h + stack.cells[0].into(torch.zeros(3)).reshape(2, 2))
    torch.testing.assert_close(outputs[3, 0], h.flatten())
    outputs.sum().backward()
    assert stack.first_states[0].grad.shape == (2, 2)
