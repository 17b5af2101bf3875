"""What is exported: cells above each other, in one direction or both, with what each starts from.

Shapes: T time, B batch, I input, N hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from throughtime.cells import State, Zoneout
from throughtime.errors import UserError
from throughtime.layers import GRU, LSTM, RNN, Recurrent
from throughtime.scanning import Inputs, initial_state, scan
from throughtime.scanning.call import leaves, make_call, map_leaves, map_states, tensors_of
from throughtime.scanning.capture import capture
from throughtime.scanning.cell import AnyCell, as_cell, name_of
from throughtime.scanning.constants import own_tensors
from throughtime.scanning.division import divide
from throughtime.scanning.program import Program
from throughtime.scanning.symbols import Unsupported


@dataclass(frozen=True)
class Step:
    """One step of a cell as a program that works out everything, and its constants as they are now.

    vectors, matrices: by the numbers that leaves "v" and products name them by; a matrix is [K, N].
    """

    program: Program
    vectors: list[Tensor]
    matrices: list[Tensor]


@dataclass(frozen=True)
class Direction:
    """One cell of a layer, and what it starts from, [1, ...]. inputs: an example of what a step is given, [1, ...]."""

    cell: nn.Module
    inputs: Inputs
    state: State
    reverse: bool = False

    @property
    def name(self) -> str:
        """What its cell is called."""
        return name_of(self.cell)

    def step(self, *, hoist: bool = False) -> Step:
        """Its step. hoist: with what needs no state before it and after it, for whole sequences.

        Raises: UserError where an operation cannot be exported, naming it and its line.
        """
        inputs = map_leaves(lambda t: t.detach().unsqueeze(0), self.inputs)
        state = map_states(lambda t: t.detach(), self.state)
        first = leaves(inputs)[0].dtype
        if not first.is_floating_point:
            raise UserError(f"{self.name} cannot be exported: a step is given {first}, not numbers with a point")
        try:
            captured = capture(make_call(self.cell, inputs, state, initial=state))
        except Unsupported as error:
            raise UserError(f"{self.name} cannot be exported: {error}") from error
        own = [t.detach() for t in own_tensors(self.cell).values()]
        with torch.no_grad():
            vectors, matrices = captured.constants.made_of(own)
        return Step(divide(captured, resets=False, hoist=hoist), vectors, matrices)


@dataclass(frozen=True)
class Layer:
    """Cells that read the same input. residual: the input is added to the output."""

    directions: tuple[Direction, ...]
    residual: bool = False


@dataclass(frozen=True)
class Stack:
    """Layers above each other; each reads the output of the one below."""

    name: str
    layers: tuple[Layer, ...]

    @property
    def directions(self) -> list[Direction]:
        """All cells, in the order of their states: layer by layer, forwards before backwards."""
        return [d for layer in self.layers for d in layer.directions]

    @property
    def inputs(self) -> Inputs:
        """An example of what a step is given, [1, ...]."""
        return self.layers[0].directions[0].inputs

    @property
    def states(self) -> list[Tensor]:
        """What it starts from, all tensors in order, each [1, ...]."""
        return [t.detach() for d in self.directions for t in tensors_of(d.state)]

    @property
    def can_step(self) -> bool:
        """Whether it can be run a step at a time: nothing of it begins at the end of a sequence."""
        return not any(d.reverse for d in self.directions)

    @torch.no_grad()
    def run(
        self, inputs: Inputs, states: Sequence[Tensor], lengths: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """The reference. inputs [T, B, ...]; states: each [B, ...]; lengths [B].

        Returns: the output of the last layer [T, B, ...], and the states after each sequence's end, in their order.
        """
        left, finals = iter(states), list[Tensor]()
        x: Any = inputs
        for layer in self.layers:
            outputs = []
            for d in layer.directions:
                state = tuple(next(left) for _ in tensors_of(d.state))
                output, end, _ = scan(
                    d.cell, x, state if isinstance(d.state, tuple) else state[0], lengths=lengths, reverse=d.reverse,
                    backend="reference",
                )  # fmt: skip
                outputs.append(output)
                finals += tensors_of(end)
            output = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
            x = output + x if layer.residual else output
        return x, finals


def stack_of(
    what: AnyCell, inputs: Inputs | None = None, state: State | None = None, *, reverse: bool = False
) -> Stack:
    """A cell, a layer (RNN, LSTM, GRU) or a Recurrent as what is exported: as it is in evaluation, without noise.

    Args: inputs: an example of what one step is given, [B, I] or a tuple of such tensors, where a cell does not say its
        `input_size`. state: likewise, where nothing says what it starts from; else what it starts from. reverse: a cell is to
        run from the last step to the first.
    Raises: UserError, saying what to give.
    """
    try:
        _check_memory(what)
        if isinstance(what, Recurrent):
            return _of_recurrent(what)
        if isinstance(what, RNN | LSTM | GRU):
            return _of_layers(what)
        if isinstance(what, str | Path):
            raise UserError(f"a folder is not exported, but what is loaded of it: throughtime.load({str(what)!r})")
        if isinstance(what, nn.RNNBase):
            raise UserError(f"torch.nn's {type(what).__name__} is exported by its twin: tt.{type(what).__name__}")
        return _of_cell(as_cell(what), inputs, state, reverse)
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from error


def _check_memory(what: AnyCell) -> None:
    if isinstance(what, nn.Module):
        for name, tensor in own_tensors(what).items():
            if tensor.device.type != "cpu":
                raise UserError(f"{name_of(what)} is on {tensor.device} ({name}): export a copy of it on the CPU")


def _of_cell(cell: nn.Module, inputs: Inputs | None, state: State | None, reverse: bool) -> Stack:
    if inputs is None:
        size = getattr(cell, "input_size", None)
        if not isinstance(size, int):
            raise UserError(
                f"{name_of(cell)} does not say its input_size: pass inputs=, an example of what a step is given"
            )
        inputs = _like(cell).new_zeros(1, size)
    one = map_leaves(lambda t: t.detach()[:1], inputs)
    first = initial_state(cell, 1, device=leaves(inputs)[0].device, like=state) if state is None else state
    return Stack(name_of(cell), (Layer((Direction(cell, one, map_states(lambda t: t[:1], first), reverse),)),))


def _like(module: nn.Module) -> Tensor:
    return next((t for t in own_tensors(module).values() if t.is_floating_point()), torch.zeros(1)).detach()


def _of_recurrent(stack: Recurrent) -> Stack:
    layers, width = [], stack.input_size
    state = stack.initial_state(1)
    for number in range(stack.num_layers):
        cells = stack.cells[number * stack.directions : (number + 1) * stack.directions]
        x = _like(stack).new_zeros(1, width)
        made = tuple(
            Direction(_quiet(cell, stack.zoneout, first), x, first, reverse=bool(k))
            for k, (cell, first) in enumerate(zip(cells, state[number], strict=True))
        )
        size = sum(stack._output_size(cell) for cell in cells)
        layers.append(Layer(made, stack.residual and size == width))
        width = size
    return Stack(type(stack).__name__, tuple(layers))


def _of_layers(layers: RNN | LSTM | GRU) -> Stack:
    directions = 2 if layers.bidirectional else 1
    sizes = [layers.proj_size or layers.hidden_size] + [layers.hidden_size] * (layers.mode == "LSTM")
    made, width = [], layers.input_size
    for number in range(layers.num_layers):
        x = _like(layers).new_zeros(1, width)
        states: list[State] = [tuple(x.new_zeros(1, n) for n in sizes) for _ in range(directions)]
        made.append(
            Layer(tuple(
                Direction(layers._cell(number, k), x, state if len(sizes) > 1 else state[0], reverse=bool(k))
                for k, state in enumerate(states)
            ))
        )  # fmt: skip
        width = sizes[0] * directions
    return Stack(type(layers).__name__, tuple(made))


def _quiet(cell: nn.Module, zoneout: float, first: State) -> nn.Module:
    """A cell as it steps in evaluation: with zoneout so much of a new state is the old one."""
    return _Zoned(cell, map_states(lambda s: torch.full_like(s[0], zoneout), first)) if zoneout else cell


class _Zoned(nn.Module):
    """Zoneout whose rate is a constant of the cell."""

    def __init__(self, cell: nn.Module, keep: State) -> None:
        super().__init__()
        self.cell, self.pair = Zoneout(cell), isinstance(keep, tuple)
        for number, tensor in enumerate(tensors_of(keep)):
            self.register_buffer(f"keep_{number}", tensor)

    def forward(self, x: Any, state: State) -> Any:
        keep = tuple(getattr(self, f"keep_{number}") for number in range(len(tensors_of(state))))
        return self.cell((x, keep if self.pair else keep[0]), state)
