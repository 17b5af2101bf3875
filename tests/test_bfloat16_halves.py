"""What lies in bfloat16: states as products read them and as they are given back, gradients on their way to products. It is rounded
once, where it is written, and gives the bits of what is rounded wherever it is read."""

import pytest
import torch

import throughtime as tt
from throughtime.scanning import compiled
from throughtime.scanning.call import make_call
from throughtime.scanning.cpu import autocast, backend, chunks, target
from throughtime.scanning.cpu.halves import HalvedLoops

BF16 = torch.bfloat16
T, B, I = 9, 5, 4  # noqa: E741
CELLS = ["Elman", "GRU", "LSTM", "LayerNormGRU", "LayerNormLSTM", "PeepholeLSTM", "IndRNN", "MinGRU", "SRU"]

pytestmark = [
    pytest.mark.usefixtures("_own_cache"),
    pytest.mark.skipif(not target.has_bfloat16(target.host()), reason="no dot product of bfloat16 here"),
]


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Products are done in bfloat16, quick or not."""
    monkeypatch.setattr(autocast, "why_not_bfloat16", lambda: None)


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def read_late(patch):
    """All lies in float32, and is rounded where it is read."""
    patch.setattr(HalvedLoops, "forward", lambda self, plan, rounded: plan.forward if plan else self.program.forward)
    patch.setattr(HalvedLoops, "backward", lambda self, plan, wanted, rounded: plan.loop)
    patch.setattr(compiled._Around, "rounded", lambda self, types: frozenset())


def scanned(cell, *, gradients=True, **options):
    """What a scan in autocast gives, the gradients of the inputs and states, those of matrices, and those of constant rows."""
    x = random(T, B, I, seed=3).requires_grad_(gradients)
    first = cell.initial_state(B)
    many = first if isinstance(first, tuple) else (first,)
    state = [(0.5 * random(*s.shape, seed=5 + k)).requires_grad_(gradients) for k, s in enumerate(many)]
    with torch.set_grad_enabled(gradients), torch.autocast("cpu", BF16):
        outputs, end, _ = tt.scan(
            cell, x, tuple(state) if isinstance(first, tuple) else state[0], backend="cpu", **options
        )
    outs = [outputs, *(end if isinstance(end, tuple) else (end,))]
    if not gradients:
        return [o.detach() for o in outs]
    loss = sum((o.float() * random(*o.shape, seed=9 + i)).sum() for i, o in enumerate(outs))
    found = torch.autograd.grad(loss, [x, *state, *cell.parameters()], allow_unused=True)
    count = 1 + len(state)
    rows, matrices = ([g for g in found[count:] if g is not None and (g.dim() == 1) is row] for row in (True, False))
    return [[o.detach() for o in outs], list(found[:count]), matrices, rows]


def made(name, hidden):
    torch.manual_seed(1)
    return getattr(tt.cells, name)(I, hidden)


def differ(found, right):
    return [i for i, (f, r) in enumerate(zip(found, right, strict=True)) if f.dtype != r.dtype or not torch.equal(f, r)]


@pytest.mark.parametrize("options", ["", "reverse", "lengths", "resets"])
@pytest.mark.parametrize("hidden", [21, 22])
@pytest.mark.parametrize("name", CELLS)
def test_bits_are_those_of_what_is_rounded_where_it_is_read(name, hidden, options):
    cell = made(name, hidden)
    given = {
        "": {},
        "reverse": {"reverse": True},
        "lengths": {"lengths": torch.tensor([T, 4, 0, T - 1, 2])},
        "resets": {"resets": random(T, B, seed=7) > 0.8},
    }[options]
    found, without = scanned(cell, **given), scanned(cell, gradients=False, **given)
    with pytest.MonkeyPatch.context() as patch:
        read_late(patch)
        right = scanned(cell, **given)
    assert not differ(found[0], right[0]) and not differ(without, right[0]), "outputs and last states"
    assert not differ(found[1], right[1]), "gradients of inputs and states"
    assert not differ(found[2], right[2]), "gradients of matrices"
    for f, r in zip(found[3], right[3], strict=True):  # summed in another order
        assert (f - r).norm() <= 2.0**-20 * r.norm()


@pytest.mark.parametrize("name", ["GRU", "LSTM", "Elman"])
def test_several_chunks_of_time(name, monkeypatch):
    cell = made(name, 22)
    right = scanned(cell)
    for constant, value in (("CHUNK_BYTES", 1), ("LEAST_ROWS", 2 * B)):
        monkeypatch.setattr(chunks, constant, value)
    found = scanned(cell)
    assert not differ([*found[0], *found[1]], [*right[0], *right[1]])
    for f, r in zip([*found[2], *found[3]], [*right[2], *right[3]], strict=True):
        assert (f - r).norm() <= 2.0**-20 * r.norm()


def test_what_is_written():
    """The hidden state of an LSTM is only an operand, and is given back in bfloat16: it lies so alone. A GRU's is read too."""
    x = random(T, B, I, seed=3)
    for name, states, half in (("LSTM", [1], [0]), ("GRU", [0], [0])):
        with torch.autocast("cpu", BF16):
            cell = made(name, 22)
            shown = autocast.as_float32(make_call(cell, x, cell.initial_state(B)))
            engine = backend.find(shown)
        loop = engine.forward_loop(None, frozenset({0}))
        assert (loop.by_kind["n"], loop.by_kind["h"]) == (states, half)
        wanted = frozenset({("v", 0), ("w", 0), ("w", 1)})
        loop = engine.backward_loop(wanted, frozenset({0}))
        assert {("d", 0), ("g", 0)} <= loop.halved and any(kind.endswith("+") for kind in loop.by_kind)
