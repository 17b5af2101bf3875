"""Calls of few numbers, whose products and loop are one call of compiled code: the bits of any other call, whoever calls."""

import threading

import pytest
import torch
from torch import nn

import throughtime as tt
from throughtime.scanning.call import make_call
from throughtime.scanning.cpu import backend, engine
from throughtime.scanning.cpu.fused import Fused, Prepared
from throughtime.scanning.cpu.fused_backward import FusedBackward

T, B, I, N = 7, 3, 5, 11  # noqa: E741


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def rows(monkeypatch):
    """The rows of the calls that were fused."""
    return _counted(Fused, monkeypatch)


@pytest.fixture
def rows_back(monkeypatch):
    """Those of the calls whose backward was."""
    return _counted(FusedBackward, monkeypatch)


def _counted(kind, monkeypatch):
    seen, run = [], kind.run

    def counted(self, given, *arrays):
        seen.append(given.steps * given.batch)
        return run(self, given, *arrays)

    monkeypatch.setattr(kind, "run", counted)
    return seen


def everything(cell, x, state=True, inputs=True, **options):
    """Outputs, last states, records and gradients. state: from a given one, with its gradient. inputs: their gradient too."""
    x = x.clone().requires_grad_(inputs)
    first = cell.initial_state(x.shape[1])
    many = [
        torch.linspace(-1, 1, s.numel(), dtype=x.dtype).view_as(s)
        for s in (first if type(first) is tuple else (first,))
    ]
    many = [s.requires_grad_() for s in many]
    begin = (tuple(many) if type(first) is tuple else many[0]) if state else None
    outputs, last, records = tt.scan(cell, x, begin, backend="cpu", **options)
    states = last if isinstance(last, tuple) else (last,)
    total = outputs.sin().sum() + sum(s.square().sum() for s in states)
    wanted = [t for t in [x, *many, *cell.parameters()] if t.requires_grad]
    found = torch.autograd.grad(total, wanted, allow_unused=True)
    return [outputs, *states, *records.values(), *(g for g in found if g is not None)]


def same(one, other):
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


class Masked(nn.Module):
    """Products of a matrix that is made anew at each call, and of two matrices side by side."""

    def __init__(self):
        super().__init__()
        self.read, self.other = nn.Linear(I, N), nn.Linear(I, N, bias=False)
        self.recur = nn.Parameter(torch.randn(N, N) / 3)
        self.register_buffer("mask", (torch.rand(N, N) < 0.5).float())

    def initial_state(self, batch, *, device=None):
        return torch.zeros(batch, N, device=device)

    def forward(self, x, h):
        return torch.tanh(self.read(x) * torch.sigmoid(self.other(x)) + h @ (self.recur * self.mask))


def frozen(cell):
    """Of which only the first matrix and the last constant row have gradients."""
    for p in list(cell.parameters())[1:-1]:
        p.requires_grad_(False)
    return cell


CELLS = {
    "Elman": lambda: tt.cells.Elman(I, N),
    "GRU": lambda: tt.cells.GRU(I, N),
    "LSTM": lambda: tt.cells.LSTM(I, N),
    "double": lambda: tt.cells.GRU(I, N, dtype=torch.float64),
    "narrow": lambda: tt.cells.LSTM(2, N),
    "LayerNormGRU": lambda: tt.cells.LayerNormGRU(I, N),
    "masked": Masked,
    "LayerNormLSTM": lambda: tt.cells.LayerNormLSTM(I, N),
    "PeepholeLSTM": lambda: tt.cells.PeepholeLSTM(I, N),
    "MinGRU": lambda: tt.cells.MinGRU(I, N),
    "SRU": lambda: tt.cells.SRU(I, N),
    "frozen": lambda: frozen(tt.cells.GRU(I, N)),
}
OPTIONS = {
    "plain": lambda: {},
    "reverse": lambda: {"reverse": True},
    "resets": lambda: {"resets": torch.rand(T, B, generator=torch.Generator().manual_seed(1)) < 0.3},
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", CELLS)
def test_the_bits_are_those_of_its_parts(name, options, one_thread, rows, rows_back, monkeypatch):
    torch.manual_seed(0)
    cell = CELLS[name]()
    x = torch.randn(T, B, 2 if name == "narrow" else I, dtype=next(cell.parameters()).dtype)
    record = ("update",) if name == "GRU" else ()
    found = everything(cell, x, record=record, **OPTIONS[options]())
    assert rows == rows_back == [T * B]
    short = everything(cell, x[:1], state=False, inputs=False, **OPTIONS[options]()) if options != "resets" else []
    monkeypatch.setattr(Prepared, "fits", lambda self, rows: False)
    assert same(found, everything(cell, x, record=record, **OPTIONS[options]()))
    assert not short or same(short, everything(cell, x[:1], state=False, inputs=False, **OPTIONS[options]()))
    assert rows == rows_back == [T * B, B][: 2 if short else 1]


def test_a_wrong_place_is_seen(one_thread, monkeypatch):
    """That the test above can fail."""
    cell, x = tt.cells.GRU(I, N), torch.randn(T, B, I)
    right = everything(cell, x)
    place, zero, zeros = Prepared.place, torch.zeros(B, N), torch.zeros(3 * N)  # which stay until they have been read
    for kind in (Fused, FusedBackward):

        def wrong(self, block, given, steps, kind=kind):
            other = given._replace(vectors=[zeros for _ in given.vectors], state=[zero for _ in given.state])
            place(self, block, other if isinstance(self, kind) else given, steps)

        monkeypatch.setattr(Prepared, "place", wrong)
        assert not same(right, everything(cell, x))


def test_what_changes_between_calls_is_read_anew(one_thread, rows):
    layer, other = tt.GRU(I, N), nn.GRU(I, N)
    for seed in range(3):
        torch.manual_seed(seed)
        with torch.no_grad():
            for name, p in list(layer.named_parameters()):
                p.copy_(torch.randn_like(p)) if seed < 2 else setattr(layer, name, nn.Parameter(torch.randn_like(p)))
        other.load_state_dict(layer.state_dict())
        x, h = torch.randn(T + seed, B, I), torch.randn(1, B, N)
        x = x.transpose(1, 2).contiguous().transpose(1, 2) if seed == 1 else x
        torch.testing.assert_close(layer(x, h), other(x, h))
    assert rows == [T * B, (T + 1) * B, (T + 2) * B]


def test_threads_share_what_calls_have_in_common(one_thread):
    layer = tt.LSTM(I, N)
    inputs = [torch.randn(T + k % 3, B, I) for k in range(8)]
    with torch.no_grad():
        right = [layer(x)[0] for x in inputs]
    wrong = []

    def call(x, y):
        torch.set_num_threads(1)
        with torch.no_grad():
            wrong.extend(k for k in range(200) if not torch.equal(layer(x)[0], y))

    callers = [threading.Thread(target=call, args=pair) for pair in zip(inputs, right, strict=True)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_what_waits_is_bounded(one_thread, rows):
    cell = tt.cells.GRU(I, N)
    for batch in range(2, 2 * engine.MOST_FUSED):  # one sequence has a program of its own
        tt.scan(cell, torch.randn(2, batch, I))
    found = backend.find(make_call(cell, torch.randn(2, 2, I), None))
    assert len(rows) == 2 * engine.MOST_FUSED - 2 and len(found._fused) == engine.MOST_FUSED


def test_more_than_one_thread_does_at_once_is_left_to_all(rows):
    before = torch.get_num_threads()
    cell = tt.cells.GRU(64, 64)
    try:
        for count, fused in ((1, [300, 4]), (2, [4])):
            torch.set_num_threads(count)
            rows.clear()
            for steps in (300, 4):
                tt.scan(cell, torch.randn(steps, 1, 64))
            assert rows == fused
    finally:
        torch.set_num_threads(before)


class Leaky(nn.Module):
    """Reads a tensor, and another that is made of it."""

    def __init__(self):
        super().__init__()
        self.leak = nn.Parameter(torch.linspace(-1, 1, N))

    def initial_state(self, batch, *, device=None):
        return torch.zeros(batch, N)

    def forward(self, x, h):
        return torch.tanh(x * self.leak + torch.sigmoid(self.leak) * h)


@pytest.mark.filterwarnings("ignore:throughtime. a derivative of a derivative")
def test_derivatives_of_derivatives_where_one_tensor_is_made_of_another():
    cell, x = Leaky(), torch.randn(T, B, N, requires_grad=True)
    found = []
    for name in ("cpu", "reference"):
        outputs = tt.scan(cell, x, backend=name).outputs
        first = torch.autograd.grad(outputs.sin().sum(), [x, cell.leak], create_graph=True)
        found.append([*first, *torch.autograd.grad(sum(g.square().sum() for g in first), [x, cell.leak])])
    torch.testing.assert_close(*found)
