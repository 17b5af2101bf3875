"""What a cell is: one step of a recurrent network, and nothing about time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

State = Tensor | tuple[Tensor, ...]

_INIT = nn.Module.__init__  # as it is before torch.compile changes it, which then cannot trace it
_watched: ContextVar[dict[str, Tensor] | None] = ContextVar("throughtime_watched", default=None)


def somebody_watches() -> bool:
    """Whether a `watching` block is running."""
    return _watched.get() is not None


@contextmanager
def watching() -> Iterator[dict[str, Tensor]]:
    """Collect what cells `watch` while the block runs: name -> value of the latest step."""
    values: dict[str, Tensor] = {}
    token = _watched.set(values)
    try:
        yield values
    finally:
        _watched.reset(token)


class Cell(nn.Module):
    """One step of a recurrent network, written as its equations.

        state = cell(x, state)        or        output, state = cell(x, state)

    `x` is [B, I]; a state is a tensor [B, N] or a tuple of them. Where `forward` returns a state alone, the output is
    its first tensor. Subclasses set `state_sizes` (an int, or a tuple of ints for a tuple of tensors) and write
    `forward`; weights go in as `weight_ih [G·N, I]`, `weight_hh [G·N, N]`, `bias_ih`, `bias_hh [G·N]`, one block of N rows
    a gate, as in torch.nn, so that a state dict fits both.

    A `forward` that also takes `mask=None` ([B, N], multiplied into what the recurrent products see of the state) can
    be given recurrent dropout.

    Args:
        input_size: I. hidden_size: N. gates: G, blocks of rows in each weight.
        bias: whether there are biases. recurrent_size: columns of `weight_hh` where it is not N (a projected state).
        forget_bias: where the cell has a forget gate, the value its bias starts from; None leaves the uniform draw of
            torch.nn. 1 is the advice of Jozefowicz et al. (2015), section 2.2, after Gers et al. (2000).
    """

    gates: int = 1
    forget_gate: int | None = None  # which block of rows is the forget gate, where there is one
    keep_gate: str | None = (
        None  # the watched gate that keeps the old state where it is 1, where it is not called "forget"
    )
    # blocks of rows that say for how long a unit keeps its state: 1 opens to keep it, -1 to let in what is new
    time_gates: ClassVar[dict[int, int]] = {}
    # a matrix `weight_hh`, which can be made orthogonal or dropped, and `bias_hh`
    has_recurrent_weights: bool = True
    state_sizes: int | tuple[int, ...]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        recurrent_size: int | None = None,
        forget_bias: float | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if input_size < 1 or hidden_size < 1:
            raise ValueError(f"input_size and hidden_size must be at least 1, got {input_size} and {hidden_size}")
        if forget_bias is not None and (self.forget_gate is None or not bias):
            raise ValueError(f"{type(self).__name__} has no forget-gate bias to set to {forget_bias}")
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        self.state_sizes = hidden_size
        rows = self.gates * hidden_size
        make = {"device": device, "dtype": dtype}
        self.weight_ih = nn.Parameter(torch.empty(rows, input_size, **make))  # type: ignore[arg-type]
        if self.has_recurrent_weights:
            self.weight_hh = nn.Parameter(torch.empty(rows, recurrent_size or hidden_size, **make))  # type: ignore[arg-type]
        self.bias_ih = nn.Parameter(torch.empty(rows, **make)) if bias else None  # type: ignore[arg-type]
        if self.has_recurrent_weights:
            self.bias_hh = nn.Parameter(torch.empty(rows, **make)) if bias else None  # type: ignore[arg-type]
        self.forget_bias = forget_bias
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in ±1/√N, in the order torch.nn draws them, so that a seed gives the weights torch.nn gives."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)
        if self.forget_bias is not None:
            set_forget_bias_(self, self.forget_bias)

    @classmethod
    def over(cls, *, input_size: int, hidden_size: int, state_sizes: int | tuple[int, ...], **tensors: Any) -> Cell:
        """A cell over tensors that live elsewhere (a layer's weights); they are used as they are, not copied.

        Nothing is registered: the cell has no parameters of its own, and serves one call.
        """
        cell = cls.__new__(cls)
        _INIT(cell)
        bias = tensors.get("bias_ih") is not None
        cell.__dict__.update(
            input_size=input_size, hidden_size=hidden_size, state_sizes=state_sizes, bias=bias, **tensors
        )
        return cell

    def initial_state(
        self, batch: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> State:
        """The state before the first step: zeros, [batch, N] for each tensor of the state."""
        device, dtype = device or self.weight_ih.device, dtype or self.weight_ih.dtype
        if isinstance(self.state_sizes, tuple):
            return tuple(torch.zeros(batch, n, device=device, dtype=dtype) for n in self.state_sizes)
        return torch.zeros(batch, self.state_sizes, device=device, dtype=dtype)

    def project_input(self, x: Tensor) -> tuple[Tensor, ...]:
        """W_ih x + b_ih, split by gate: G tensors [B, N]."""
        return F.linear(x, self.weight_ih, self.bias_ih).chunk(self.gates, -1)

    def project_state(self, h: Tensor, mask: Tensor | None) -> tuple[Tensor, ...]:
        """W_hh (m ⊙ h) + b_hh, split by gate: G tensors [B, N]."""
        return F.linear(h if mask is None else h * mask, self.weight_hh, self.bias_hh).chunk(self.gates, -1)

    @staticmethod
    def watch(name: str, value: Tensor) -> Tensor:
        """Name an inner value for inspection; returns it unchanged, and costs nothing where nobody watches."""
        if torch.compiler.is_dynamo_compiling():  # its graph has no names, and cannot ask
            return value
        values = _watched.get()
        if values is not None:
            values[name] = value
        return value

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")


def set_forget_bias_(cell: nn.Module, value: float) -> None:
    """Set the bias of the forget gate, the sum of `bias_ih` and `bias_hh`, to `value`.

    Source: Gers, Schmidhuber, Cummins (2000); Jozefowicz, Zaremba, Sutskever (2015), section 2.2, found 1 to close most
    of the gap between the LSTM and the GRU.
    Raises: ValueError where the cell has no forget gate or no bias.
    """
    gate = getattr(cell, "forget_gate", None)
    bias_ih, bias_hh = getattr(cell, "bias_ih", None), getattr(cell, "bias_hh", None)
    if gate is None or bias_ih is None:
        raise ValueError(
            f"{type(cell).__name__} has no forget-gate bias, or does not say by `forget_gate` which block it is"
        )
    rows = slice(gate * cell.hidden_size, (gate + 1) * cell.hidden_size)  # type: ignore[operator]
    with torch.no_grad():
        bias_ih[rows] = value
        if bias_hh is not None:
            bias_hh[rows] = 0.0


def chrono_(cell: nn.Module, longest: int) -> None:
    """Set the biases of the gates so that the units keep their state for about 1 to `longest` steps, each for a time of its own.

    A gate that keeps begins at log u, u drawn uniformly from 1 to `longest` - 1 for each unit; one that lets in at -log u.
    Source: Tallec, Ollivier (2018), Can recurrent neural networks warp time?, section 2 and equation 16.
    Args: longest: steps over which there is something to remember, at least 3.
    Raises: ValueError where the cell has no such gate or no bias, or `longest` is under 3.
    """
    gates = getattr(cell, "time_gates", {})
    bias_ih, bias_hh = getattr(cell, "bias_ih", None), getattr(cell, "bias_hh", None)
    if not gates or bias_ih is None:
        raise ValueError(
            f"{type(cell).__name__} has no bias of a gate that keeps, or does not say by `time_gates` which it is"
        )
    if longest < 3:
        raise ValueError(f"longest must be at least 3 steps, got {longest}")
    n: int = cell.hidden_size  # type: ignore[assignment]
    with torch.no_grad():
        bias = torch.empty_like(bias_ih[:n]).uniform_(1, longest - 1).log_()
        for gate, sign in gates.items():
            bias_ih[gate * n : (gate + 1) * n] = sign * bias
            if bias_hh is not None:
                bias_hh[gate * n : (gate + 1) * n] = 0.0


def orthogonal_(cell: nn.Module) -> None:
    """Make the recurrent weights of each gate orthogonal, so that gradients neither shrink nor grow at first.

    Where the recurrent weights of a gate are not square (a projected state), their columns are orthonormal.

    Source: Saxe, McClelland, Ganguli (2014); for recurrent networks Le, Jaitly, Hinton (2015), Henaff et al. (2016).
    Raises: ValueError where the cell has no `weight_hh`.
    """
    weight = getattr(cell, "weight_hh", None)
    if weight is None:
        raise ValueError(f"{type(cell).__name__} has no weight_hh to make orthogonal")
    with torch.no_grad():
        for block in weight.split(cell.hidden_size, 0):  # type: ignore[operator]
            nn.init.orthogonal_(block)


def split_result(result: object, state: State) -> tuple[Tensor | None, State]:
    """What a cell returned, as (output, new state); the output is None where the cell returned a state alone.

    A result with the state's structure is a state; a pair of a tensor and something of the state's structure is an output
    and a state.
    Raises: TypeError for anything else, naming both structures.
    """
    if same_structure(result, state):
        return None, result  # type: ignore[return-value]
    if (
        isinstance(result, tuple)
        and len(result) == 2
        and isinstance(result[0], Tensor)
        and same_structure(result[1], state)
    ):
        return result
    raise TypeError(
        f"a cell returns its new state ({structure(state)}), or a pair (output, state); it was given a state that is "
        f"{structure(state)} and returned {structure(result)}"
    )


def same_structure(value: object, state: State) -> bool:
    """Whether `value` is made as `state` is: a tensor, or a tuple of as many."""
    if isinstance(state, Tensor):
        return isinstance(value, Tensor)
    return isinstance(value, tuple) and len(value) == len(state) and all(isinstance(v, Tensor) for v in value)


def structure(value: object) -> str:
    """What `value` is made of, for a message."""
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)}"
    if isinstance(value, tuple):
        return "a tuple of (" + ", ".join(structure(v) for v in value) + ")"
    return f"a {type(value).__name__}"
