"""Any cell, stacked, in one direction or both, with the noise that regularises recurrent networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from throughtime.cells import RecurrentDropout, State, Zoneout, chrono_, drop_weights, orthogonal_, set_forget_bias_
from throughtime.cells.base import split_result
from throughtime.layers.answering import Answering
from throughtime.layers.dropout import dropout
from throughtime.scanning import Inputs, Stepper, initial_state, scan
from throughtime.scanning.call import map_leaves

Stack = tuple[tuple[State, ...], ...]  # [layer][direction] -> the state of that cell
NOISE = ("dropout", "recurrent_dropout", "weight_dropout", "zoneout")  # rates, by their names


@dataclass(frozen=True)
class Start:
    """How the weights of a cell begin; see `Recurrent`."""

    orthogonal: bool
    forget_bias: float | None
    chrono: int | None

    def __post_init__(self) -> None:
        if self.forget_bias is not None and self.chrono is not None:
            raise ValueError("forget_bias and chrono both say where the gates begin; give one")

    def set_(self, cell: nn.Module) -> None:
        """Set the weights of a cell, in place."""
        if self.orthogonal:
            orthogonal_(cell)
        if self.forget_bias is not None:
            set_forget_bias_(cell, self.forget_bias)
        if self.chrono is not None:
            chrono_(cell, self.chrono)


class Recurrent(Answering):
    """A stack of any cell, in one direction or both.

    >>> import torch, throughtime as tt
    >>> stack = tt.Recurrent(tt.cells.GRU, 3, 5, num_layers=2, bidirectional=True, dropout=0.1)
    >>> outputs, state = stack(torch.randn(7, 2, 3), lengths=[7, 4])
    >>> outputs.shape, len(state), len(state[0]), state[0][0].shape
    (torch.Size([7, 2, 10]), 2, 2, torch.Size([2, 5]))

    Args:
        cell: called as `cell(input_size, hidden_size)` for every layer and direction: a cell class, ours, torch.nn's or one's
            own, or a functools.partial of one; or a module, used as it is where there is one layer and direction.
        input_size: I. hidden_size: N. num_layers: how many above each other.
        bidirectional: run each layer both ways and set the outputs side by side.
        dropout: on the inputs of every layer but the first.
        variational: draw one mask of `dropout` for all steps of a sequence (Gal, Ghahramani 2016) in place of one a step.
        recurrent_dropout: on what the recurrent products see of the state, one mask for all steps (same, section 4).
        weight_dropout: on the recurrent weights, drawn anew for every call (Merity et al. 2018, section 2).
        zoneout: at each step each unit of the state keeps its old value with this probability (Krueger et al. 2017).
        residual: add a layer's input to its output wherever their sizes agree.
        learn_initial_state: the first state is a parameter, zeros at first.
        orthogonal: make the recurrent weights of each gate orthogonal (Saxe et al. 2014).
        forget_bias: the first value of the forget gate's bias (Jozefowicz et al. 2015: 1); None leaves the cell's own.
        chrono: gates begin so that units keep their state for 1 to so many steps (Tallec, Ollivier 2018); see `cells.chrono_`.
        batch_first: inputs and outputs are [B, T, ...].
        backend: handed to `scan`.
    Raises: ValueError for a rate outside 0 to 1 or an option the cell cannot have; TypeError for a cell that cannot be built.
    """

    def __init__(  # noqa: PLR0913  (each is a user's to name, as in torch.nn)
        self,
        cell: Callable[[int, int], nn.Module] | nn.Module,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bidirectional: bool = False,
        dropout: float = 0.0,
        variational: bool = False,
        recurrent_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        zoneout: float = 0.0,
        residual: bool = False,
        learn_initial_state: bool = False,
        orthogonal: bool = False,
        forget_bias: float | None = None,
        chrono: int | None = None,
        batch_first: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers must be at least 1, got {num_layers}")
        if isinstance(cell, nn.Module) and (bidirectional or num_layers > 1):
            raise TypeError("a module is one cell; pass its class to have one for every layer and direction")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.directions = 2 if bidirectional else 1
        self.dropout, self.variational = dropout, variational
        self.recurrent_dropout, self.weight_dropout, self.zoneout = recurrent_dropout, weight_dropout, zoneout
        self.residual, self.batch_first, self.backend = residual, batch_first, backend
        self._check_noise()
        start = Start(orthogonal, forget_bias, chrono)
        self.cells = nn.ModuleList()
        width = input_size
        for _ in range(num_layers):
            for _ in range(self.directions):
                made = cell if isinstance(cell, nn.Module) else cell(width, hidden_size)
                start.set_(made)
                self.cells.append(made)
            width = self._output_size(self.cells[-1]) * self.directions
        self.output_size = width
        if recurrent_dropout > 0:
            RecurrentDropout(self.cells[0])  # raises where the cell cannot have it
        if weight_dropout > 0:
            drop_weights(self.cells[0], weight_dropout)  # likewise
        self.first_states = nn.ParameterList()
        if learn_initial_state:
            for made in self.cells:
                for tensor in _tensors(initial_state(made, 1)):
                    self.first_states.append(nn.Parameter(tensor.squeeze(0).clone()))

    def _check_noise(self) -> None:
        """Raises: ValueError for a rate out of range, or one that has nothing to work on."""
        for name in NOISE:
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and under 1, got {getattr(self, name)}")
        if self.dropout > 0 and self.num_layers == 1:
            raise ValueError(f"dropout stands between layers: {self.dropout} needs num_layers over 1")
        if self.variational and self.dropout == 0:
            raise ValueError("variational says how dropout between layers is drawn: it needs dropout over 0")

    def forward(
        self,
        inputs: Tensor,
        state: Stack | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Tensor, Stack]:
        """Run the stack over sequences.

        Args:
            inputs: [T, B, I], or [B, T, I] with `batch_first`.
            state: what a former call returned, to go on from there; None: the initial state.
            lengths, resets: as in `scan`; resets are [B, T] with `batch_first`.
        Returns: outputs [T, B, N · directions] ([B, T, ...] with `batch_first`), and `state[layer][direction]`.
        """
        x = inputs.transpose(0, 1) if self.batch_first else inputs
        if resets is not None and self.batch_first:
            resets = resets.transpose(0, 1)
        shape = (self.num_layers, self.directions)
        if state is not None and (len(state) != shape[0] or any(len(layer) != shape[1] for layer in state)):
            raise ValueError(f"state must hold {shape[0]} layers of {shape[1]} directions, as a call returns it")
        initial = self.initial_state(x.shape[1], state)
        state = initial if state is None else state
        last = []
        for layer in range(self.num_layers):
            if layer:
                x = self._drop(x)
            ends, outputs = [], []
            for direction in range(self.directions):
                cell = self.cells[layer * self.directions + direction]
                first = state[layer][direction]
                step, noisy = self._with_noise(cell, x, first)
                output, end, _ = scan(
                    step,
                    noisy,
                    first,
                    initial=initial[layer][direction],
                    lengths=lengths,
                    resets=resets,
                    reverse=direction == 1,
                    backend=self.backend,
                    weights=self.weights,
                )
                outputs.append(output)
                ends.append(end)
            output = outputs[0] if self.directions == 1 else torch.cat(outputs, -1)
            x = output + x if self.residual and output.shape == x.shape else output
            last.append(tuple(ends))
        return x.transpose(0, 1) if self.batch_first else x, tuple(last)

    def step(self, x: Tensor, state: Stack | None = None) -> tuple[Tensor, Stack]:
        """One step. x: [B, I]; state: as in `forward`. Returns: (output [B, N], state after it). Gradients pass."""
        time = 1 if self.batch_first else 0
        output, state = self(x.unsqueeze(time), state)
        return output.squeeze(time), state

    def stepper(
        self, batch: int = 1, state: Stack | None = None, *, backend: str = "auto", weights: str | None = None
    ) -> Stepper:
        """What steps `batch` streams through the stack with as little as can be between Python and the compiled code: see
        `Stepper`.

        Args: weights: "float" or "int8", as of `Stepper`; None: as the stack's.
        Raises: ValueError for a bidirectional stack, or in training with noise that is drawn at every step.
        """
        if self.directions == 2:
            raise ValueError("a bidirectional stack cannot step: its backward half begins at the end of the sequence")
        noise = [name for name in NOISE if getattr(self, name) > 0]
        if self.training and noise:
            raise ValueError(f"a stepper draws no noise ({', '.join(noise)}): call eval() first")
        state = self.initial_state(batch) if state is None else state
        like = next(self.parameters(), _tensors(state[0][0])[0])  # a cell may have no weights
        cells: list[nn.Module] = []
        extra: list[Any] = []
        width = self.input_size
        for layer in range(self.num_layers):
            x = like.new_zeros(1, batch, width)
            step, given = self._with_noise(self.cells[layer], x, state[layer][0])
            size = self._output_size(self.cells[layer])
            if self.residual and size == width:
                step = _Residual(step, noisy=isinstance(given, tuple))
            cells.append(step)
            extra.append(map_leaves(lambda leaf: leaf[0], given[1]) if isinstance(given, tuple) else None)
            width = size
        x = like.new_zeros(batch, self.input_size)
        return Stepper(cells, [s[0] for s in state], x, extra, backend, weights=weights or self.weights)

    def initial_state(self, batch: int, like: Stack | None = None) -> Stack:
        """The state before the first step: the learned one, or zeros, in the shape of `like` where no cell says its own."""
        learned = iter(self.first_states)

        def one(layer: int, direction: int) -> State:
            cell = self.cells[layer * self.directions + direction]
            zeros = initial_state(cell, batch, like=None if like is None else like[layer][direction])
            if not len(self.first_states):
                return zeros
            grown = tuple(next(learned).expand(batch, *z.shape[1:]) for z in _tensors(zeros))
            return grown if isinstance(zeros, tuple) else grown[0]

        return tuple(tuple(one(i, d) for d in range(self.directions)) for i in range(self.num_layers))

    def _with_noise(self, cell: nn.Module, x: Tensor, first: State) -> tuple[nn.Module, Inputs]:
        """The cell inside the wrappers whose noise is on, and its inputs with that noise beside them."""
        step, inputs = cell, x
        steps = x.shape[0]
        if self.weight_dropout > 0 and self.training:
            step = drop_weights(step, self.weight_dropout)
        if self.recurrent_dropout > 0 and self.training:
            step = RecurrentDropout(step)
            mask = _mask(_tensors(first)[0], tuple(_tensors(first)[0].shape), self.recurrent_dropout)
            inputs = (inputs, mask.expand(steps, *mask.shape))  # type: ignore[assignment]
        if self.zoneout > 0:
            step = Zoneout(step)
            keep = []
            for s in _tensors(first):
                if self.training:
                    keep.append((torch.rand(steps, *s.shape, device=s.device) < self.zoneout).to(s.dtype))
                else:
                    keep.append(torch.full_like(s, self.zoneout).expand(steps, *s.shape))
            inputs = (inputs, tuple(keep) if isinstance(first, tuple) else keep[0])  # type: ignore[assignment]
        return step, inputs

    def _drop(self, x: Tensor) -> Tensor:
        if self.dropout == 0 or not self.training:
            return x
        return x * _mask(x, tuple(x.shape[1:]), self.dropout) if self.variational else dropout(x, self.dropout)

    def _output_size(self, cell: nn.Module) -> int:
        """The width of a cell's output: said by the cell, or that of its first state tensor."""
        size = getattr(cell, "output_size", None)
        return int(size) if size is not None else int(_tensors(initial_state(cell, 1))[0].shape[-1])

    def extra_repr(self) -> str:
        parts = [f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}"]
        for name in (
            "dropout",
            "variational",
            "recurrent_dropout",
            "weight_dropout",
            "zoneout",
            "residual",
            "batch_first",
        ):
            if getattr(self, name):
                parts.append(f"{name}={getattr(self, name)}")
        parts += ["learn_initial_state=True"] * (len(self.first_states) > 0)
        parts += [f"backend={self.backend!r}"] * (self.backend != "auto")
        return ", ".join(parts + ["bidirectional=True"] * (self.directions == 2))


class _Residual(nn.Module):
    """A cell whose input is added to its output; `noisy`: the input is the first of a pair."""

    def __init__(self, cell: nn.Module, noisy: bool) -> None:
        super().__init__()
        self.cell, self.noisy = cell, noisy

    def forward(self, x: Any, state: State) -> tuple[Tensor, State]:
        output, new = split_result(self.cell(x, state), state)
        if output is None:
            output = new if isinstance(new, Tensor) else new[0]
        return output + (x[0] if self.noisy else x), new


def _mask(like: Tensor, shape: tuple[int, ...], rate: float) -> Tensor:
    """0 with probability `rate`, else 1/(1-rate), of the kind of `like`."""
    return (torch.rand(shape, device=like.device) >= rate).to(like.dtype) / (1 - rate)


def _tensors(state: State) -> tuple[Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)
