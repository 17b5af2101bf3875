"""What is given to `scan` as a cell, as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from throughtime.cells import State

AnyCell = nn.Module | Callable[..., Any]


class FunctionCell(nn.Module):
    """A plain function of an input and a state, as a cell. It has no tensors of its own."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Any, state: State) -> Any:
        return self.function(x, state)


def as_cell(given: AnyCell) -> nn.Module:
    """The cell that is meant. Raises: TypeError for what is none, saying what to give."""
    if isinstance(given, nn.Module):
        if isinstance(given, nn.RNNBase) or hasattr(type(given), "stepper"):
            raise TypeError(
                f"{name_of(given)} is a layer, which runs through time by itself: call it, "
                f"or give one step of it, {_step_of(given)}"
            )
        return given
    if isinstance(given, type):
        raise TypeError(
            f"{given.__name__} is a class: give a cell made of it, as {given.__name__}(input_size, hidden_size)"
        )
    if not callable(given):
        raise TypeError(f"a cell is a module or a function of (x, state), got {type(given).__name__}")
    return FunctionCell(given)


def name_of(cell: nn.Module) -> str:
    """What a cell is called: its class, or its function's name."""
    named = cell.function if isinstance(cell, FunctionCell) else type(cell)
    return getattr(named, "__name__", type(named).__name__)


def _step_of(layer: nn.Module) -> str:
    if not isinstance(layer, nn.RNNBase):
        return "as its cells[0]"
    return f"as tt.cells.{layer.mode if layer.mode in ('GRU', 'LSTM') else 'Elman'}({layer.input_size}, {layer.hidden_size})"
