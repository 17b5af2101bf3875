"""What the table of contexts runs: each of throughtime's ways through time, and beside it something that is not throughtime's.

For RNN, LSTM and GRU that is torch.nn's layer; where torch.nn itself fails, and for all others, a plain loop written here.
Both are made from one seed and name their weights alike, so that one function can be run on either.

Sizes: T time, B batch, I input, N hidden. No two have a cell of one class and size, so that each is cold until it ran itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import throughtime as tt

T, B, I, N, DEEP = 5, 2, 3, 4, 6  # noqa: E741


class OwnCell(nn.Module):
    """A cell as a user writes one: a leaky unit whose output is not its state."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.read, self.recur = nn.Linear(inputs, units), nn.Linear(units, units, bias=False)
        self.leak = nn.Parameter(torch.linspace(-1, 1, units))
        self.write = nn.Linear(units, 2)

    def initial_state(self, batch: int, *, device: Any = None) -> Tensor:
        return self.leak.new_zeros(batch, self.leak.shape[0])

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        a = torch.sigmoid(self.leak)
        h = (1 - a) * h + a * torch.tanh(self.read(x) + self.recur(h))
        return self.write(h) * x[:, :2], h


class Scan(nn.Module):
    """tt.scan as a module, so that it can be given to what takes modules."""

    backend = "auto"

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        outputs, state, _ = tt.scan(self.cell, x, state, backend=self.backend)
        return outputs, state


def loop(cell: nn.Module, x: Tensor, state: Any) -> tuple[Tensor, Any]:
    """The cell, step by step."""
    outputs = []
    for t in range(x.shape[0]):
        result = cell(x[t], state)
        output, state = result if isinstance(result, tuple) and isinstance(cell, OwnCell) else (result, result)
        outputs.append(output[0] if isinstance(output, tuple) else output)
    return torch.stack(outputs), state


class Loop(nn.Module):
    """What `Scan` should give."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        return loop(self.cell, x, self.cell.initial_state(x.shape[1]) if state is None else state)


class LoopedStack(nn.Module):
    """What a bidirectional tt.Recurrent of two layers of peephole cells should give."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        widths = [inputs, inputs, 2 * units, 2 * units]
        self.cells = nn.ModuleList(tt.cells.PeepholeLSTM(width, units) for width in widths)

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        zeros = x.new_zeros(x.shape[1], N)
        last = []
        for layer in range(2):
            firsts = ((zeros, zeros), (zeros, zeros)) if state is None else state[layer]
            there, end = loop(self.cells[2 * layer], x, firsts[0])
            back, start = loop(self.cells[2 * layer + 1], x.flip(0), firsts[1])
            x = torch.cat([there, back.flip(0)], -1)
            last.append((end, start))
        return x, tuple(last)


def _looped(kind: type[nn.RNNBase]) -> type[nn.RNNBase]:
    """torch.nn's layer with its forward written as a loop of its equations: for contexts in which torch.nn's own fails."""

    class Looped(kind):  # type: ignore[valid-type, misc]
        def forward(self, x: Tensor, hx: Any = None) -> tuple[Tensor, Any]:
            x = x.transpose(0, 1) if self.batch_first else x
            ways = 2 if self.bidirectional else 1
            zeros = x.new_zeros(self.num_layers * ways, x.shape[1], self.hidden_size)
            hx = ((zeros, zeros) if self.mode == "LSTM" else (zeros,)) if hx is None else hx
            hx = hx if isinstance(hx, tuple) else (hx,)
            ends = []
            for layer in range(self.num_layers):
                sides = []
                for way in range(ways):
                    name = f"_l{layer}" + "_reverse" * way
                    weights = [getattr(self, n + name) for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
                    state = tuple(h[layer * ways + way] for h in hx)
                    outputs = []
                    for x_t in (x.flip(0) if way else x).unbind(0):
                        state = _equations(self.mode, x_t, state, weights)
                        outputs.append(state[0])
                    sides.append(torch.stack(outputs[::-1] if way else outputs))
                    ends.append(state)
                x = torch.cat(sides, -1)
            last = tuple(torch.stack(tensors) for tensors in zip(*ends, strict=True))
            return x.transpose(0, 1) if self.batch_first else x, last if self.mode == "LSTM" else last[0]

    return Looped


def _equations(mode: str, x: Tensor, state: tuple[Tensor, ...], weights: list[Tensor]) -> tuple[Tensor, ...]:
    """One step of torch.nn's RNN, LSTM or GRU, as its documentation writes it."""
    h = state[0]
    from_x, from_h = F.linear(x, weights[0], weights[2]), F.linear(h, weights[1], weights[3])
    if mode == "RNN_TANH":
        return (torch.tanh(from_x + from_h),)
    if mode == "LSTM":
        i, f, g, o = (from_x + from_h).chunk(4, -1)
        c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
    (x_r, x_z, x_n), (h_r, h_z, h_n) = from_x.chunk(3, -1), from_h.chunk(3, -1)
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    n = torch.tanh(x_n + r * h_n)
    return ((1 - z) * n + z * h,)


@dataclass(frozen=True)
class Subject:
    """One of throughtime's ways through time. reference: torch.nn's, or a loop; fallback: a loop, where torch.nn's fails."""

    name: str
    ours: Callable[[], nn.Module]
    reference: Callable[[], nn.Module]
    fallback: Callable[[], nn.Module] | None = None
    batch_first: bool = False

    @property
    def beside(self) -> str:
        return "torch.nn" if self.fallback else "a loop"

    def state_shapes(self) -> Any:
        """The shapes of what the layer takes for its first state, in its structure."""
        if self.name == "LSTM":
            return ((1, B, N), (1, B, N))
        if self.name == "Recurrent":
            return ((((B, N),) * 2,) * 2,) * 2
        return (4, B, DEEP) if self.batch_first else (B, N) if self.fallback is None else (1, B, N)


def _layer(name: str, shown: str = "", **options: Any) -> Subject:
    kind = getattr(nn, name)
    units = DEEP if shown else N
    makes = [lambda k=k: k(I, units, **options) for k in (getattr(tt, name), kind, _looped(kind))]
    return Subject(shown or name, *makes, batch_first=bool(options.get("batch_first")))


SUBJECTS = [
    _layer("RNN"),
    _layer("LSTM"),
    _layer("GRU"),
    _layer("GRU", "GRU, deep", num_layers=2, bidirectional=True, batch_first=True),
    Subject(
        "Recurrent", lambda: tt.Recurrent(tt.cells.PeepholeLSTM, I, N, 2, bidirectional=True), lambda: LoopedStack(I, N)
    ),
    Subject("scan", lambda: Scan(tt.cells.MinimalGated(I, N)), lambda: Loop(tt.cells.MinimalGated(I, N))),
    Subject("scan, own cell", lambda: Scan(OwnCell(I, N)), lambda: Loop(OwnCell(I, N))),
]


class Case:
    """A layer, ours or another, and what it is run on."""

    def __init__(self, subject: Subject, make: Callable[[], nn.Module], dtype: torch.dtype = torch.float32) -> None:
        self.subject, self._make, self.dtype = subject, make, dtype
        self.layer = self.make()
        self.x, self.other = self.inputs(1), self.inputs(2)
        self.state = self.states(3)
        self.batch = 0 if subject.batch_first else 1

    def make(self) -> nn.Module:
        """Another layer with the same weights."""
        torch.manual_seed(0)
        layer = self._make()
        return layer if self.dtype == torch.float32 else layer.to(self.dtype)

    def inputs(self, seed: int, steps: int = T, batch: int = B) -> Tensor:
        shape = (batch, steps, I) if self.subject.batch_first else (steps, batch, I)
        return _random(shape, seed, self.dtype)

    def states(self, seed: int) -> Any:
        def made(shapes: Any) -> Any:
            if isinstance(shapes[0], int):
                return _random(shapes, seed, self.dtype)
            return tuple(map(made, shapes))

        return made(self.subject.state_shapes())

    def outputs(self, x: Tensor) -> Tensor:
        """The layer's outputs alone: what a derivative is taken of."""
        return self.layer(x)[0]

    def parameters(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self.layer.named_parameters()}


def _random(shape: tuple[int, ...], seed: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def tensors_of(value: Any) -> Iterator[Tensor]:
    """All tensors of nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from tensors_of(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors_of(part)


def weighed(value: Any) -> Tensor:
    """A sum over all of `value`, each number with a weight of its own, squares among them."""
    return sum(((t + t * t) * torch.linspace(-1, 2, t.numel(), dtype=t.dtype, device=t.device).view(t.shape)).sum()
               for t in tensors_of(value))  # type: ignore[return-value]  # fmt: skip


def everything(layer: nn.Module, x: Tensor, state: Any = None) -> list[Any]:
    """A step of training: outputs, states, and the gradients of the inputs and every weight."""
    x = x.detach().clone().requires_grad_()
    result = layer(x) if state is None else layer(x, state)
    named = {n: p for n, p in layer.named_parameters() if p.requires_grad}
    return [result, torch.autograd.grad(weighed(result), [x, *named.values()])]
