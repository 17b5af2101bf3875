"""Threads that share out the units of a sequence, where no unit reads another: to the bit what one thread gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import throughtime as tt
from cell_judge import arguments, flat, prepared
from cell_maker import make
from linear_fuzz import bent
from throughtime.scanning.cpu import backend, engine, launch, loop, matrices
from throughtime.scanning.cpu.team import Alone
from throughtime.scanning.cpu.threads import team

T, B, I, N = 40, 2, 5, 37  # noqa: E741


@pytest.fixture(autouse=True)
def shares(monkeypatch, tmp_path):
    """Threads help from the first call on, however small it is. How many parts units were dealt out to, of each loop."""
    monkeypatch.setenv("THROUGHTIME_CACHE", str(tmp_path))
    monkeypatch.setattr(matrices, "ALONE", -1)
    monkeypatch.setattr(engine, "Alone", helped)
    monkeypatch.setattr(team, "resting", lambda: False)
    monkeypatch.setattr(team, "judge", lambda alone, took: None)
    seen = []
    arguments_of = launch.CompiledLoop.arguments
    monkeypatch.setattr(
        launch.CompiledLoop,
        "arguments",
        lambda self, given, dtype: seen.append(given.parts) or arguments_of(self, given, dtype),
    )
    count = torch.get_num_threads()
    yield seen
    torch.set_num_threads(count)


def helped():
    made = Alone()
    made.ns = 1.0
    return made


def ran(cell, x, state, threads, **options):
    """Outputs, last state and gradients of a scan."""
    torch.set_num_threads(threads)
    wanted = [t for t in (x, *flat(state), *cell.parameters()) if t.requires_grad]
    outputs, last, _ = tt.scan(cell, x, state, backend="cpu", **options)
    loss = outputs.sin().sum() + sum(s.cos().sum() for s in flat(last))
    return [
        outputs.detach(),
        *(s.detach() for s in flat(last)),
        *torch.autograd.grad(loss, wanted, materialize_grads=True),
    ]


def same(one, other):
    return all(torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0)) for a, b in zip(one, other, strict=True))


OPTIONS = {
    "plain": {},
    "backwards": {"reverse": True},
    "lengths": {"lengths": [T, 17]},
    "resets": {"resets": torch.rand(T, B, generator=torch.Generator().manual_seed(1)) < 0.2},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("name", ["mingru", "minlstm", "sru", "indrnn"])
def test_the_bits_do_not_hang_on_the_number_of_threads(name, options, shares):
    torch.manual_seed(0)
    cell = tt.cells.NAMED[name](I, N)
    x, state = torch.randn(T, B, I, requires_grad=True), torch.randn(B, N, requires_grad=True)
    one = ran(cell, x, state, 1, **options)
    for threads in (3, 8):
        shares.clear()
        assert same(ran(cell, x, state, threads, **options), one)
        assert all(parts > 1 for parts in shares) and len(shares) == 2
    expected = tt.scan(cell, x, state, backend="reference", **options)
    torch.testing.assert_close(one[0], expected.outputs, rtol=1e-4, atol=1e-5)


class Made(nn.Module):
    """A cell of a function of the input as a row [B, N] and the state."""

    def __init__(self, step):
        super().__init__()
        self.into, self.w, self.step = nn.Linear(I, N), nn.Parameter(0.2 * torch.randn(N, N)), step

    def forward(self, x, state):
        return self.step(self, self.into(x), state)


BY_UNITS = {
    "not linear": lambda m, g, h: torch.tanh(h * g + h.square()),
    "an output of it": lambda m, g, h: (torch.sigmoid(h + g), 0.9 * h + g),
    # two units of a sweep, which one thread does
    "the other half": lambda m, g, h: torch.cat([h[:, 18:36] + 0, h[:, :18] * 0.5, g[:, 36:]], 1),
    "in pieces": lambda m, g, h: torch.cat([torch.tanh(h[:, :20] + g[:, :20]), h[:, 20:] * 0.5 + g[:, 20:]], 1),
}
NOT_BY_UNITS = {
    "a product": lambda m, g, h: torch.tanh(F.linear(h, m.w) + g),
    "a neighbour": lambda m, g, h: torch.tanh(torch.cat([h[:, 1:], h[:, :1]], 1) + g),
    "a sum": lambda m, g, h: torch.tanh(h - h.mean(-1, keepdim=True) + g),
    "one for all": lambda m, g, h: torch.tanh(h + h[:, :1] + g),
    "another place": lambda m, g, h: torch.cat([h[:, 5:25] + g[:, :20], h[:, :17] * 0.5], 1),
}


def shared(step, shares):
    """Whether the units of a cell are dealt out in the forward loop and in the backward one."""
    torch.manual_seed(0)
    cell, x = Made(step), torch.randn(T, 1, I, requires_grad=True)
    state = torch.randn(1, N, requires_grad=True)
    one = ran(cell, x, state, 1)
    ran(cell, 2 * x, state, 1)  # memory that is used again holds other numbers
    shares.clear()
    found = same(ran(cell, x, state, 2), one)
    return [parts > 1 for parts in shares], found


@pytest.mark.parametrize("name", [*BY_UNITS, *NOT_BY_UNITS])
def test_units_are_dealt_out_where_none_reads_another(name, shares):
    parts, right = shared((BY_UNITS | NOT_BY_UNITS)[name], shares)
    assert right and len(parts) == 2
    assert parts == [name in BY_UNITS] * 2


@pytest.mark.parametrize("name", ["a neighbour", "one for all", "another place"])
def test_units_that_are_dealt_out_where_one_reads_another_are_seen(name, shares, monkeypatch):
    monkeypatch.setattr(loop, "by_themselves", lambda schedule: True)
    backend.programs.known.clear()
    parts, right = shared(NOT_BY_UNITS[name], shares)
    backend.programs.known.clear()
    assert all(parts) and not right


def test_random_cells_give_the_same_bits_by_one_thread_and_by_several(shares):
    dealt = 0
    for seed in range(60):
        spec = bent(make(seed))
        if spec.call["T"] < 2 or not spec.call["B"]:
            continue
        cell = spec.module()["FuzzCell"](getattr(torch, spec.dtype))
        try:
            args, options = arguments(spec, prepared(spec, getattr(torch, spec.dtype), gradients=False))
            if tt.explain(cell, *args, **options).chosen != "cpu":
                continue
        except (ValueError, TypeError, RuntimeError, IndexError):  # as the cell itself does
            continue
        found = []
        for threads in (1, 24):
            shares.clear()
            torch.set_num_threads(threads)
            given = prepared(spec, getattr(torch, spec.dtype))
            args, options = arguments(spec, given)
            outputs, last, _ = tt.scan(cell, *args, **options)
            loss = outputs.double().sum() + sum(s.double().square().sum() for s in flat(last))
            wanted = [t for t in given.leaves.values() if t.requires_grad]
            gradients = (
                torch.autograd.grad(loss, wanted, materialize_grads=True) if loss.requires_grad and wanted else ()
            )
            found.append([outputs.detach(), *(s.detach() for s in flat(last)), *gradients])
        dealt += any(parts > 1 for parts in shares)
        assert same(*found), seed
    assert dealt >= 2
