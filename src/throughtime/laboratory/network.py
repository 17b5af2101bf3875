"""The networks that are compared: one layer of a cell and a linear answer, all of about as many parameters.

Shapes: T time, B batch, I input, N hidden, A answered steps, O output.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from throughtime.cells import NAMED, Cell, Elman, chrono_, orthogonal_, set_forget_bias_
from throughtime.errors import UserError, unknown
from throughtime.layers import Recurrent
from throughtime.models.stacks import Memoryless
from throughtime.models.transformer import parameters_of

Made = Callable[[int, int], nn.Module]
NONE = "none"
CELLS: dict[str, Made] = {"rnn": Elman, "rnn-relu": functools.partial(Elman, nonlinearity="relu"), **NAMED}
WIDEST = 1 << 13


def find_cell(name: str) -> Made | None:
    """The cell called `name`, or `module:Class` for one's own; None for "none", a network without a memory.

    Raises: UserError that names the nearest, or says what is wrong with the module.
    """
    if name == NONE:
        return None
    module_name, colon, attribute = name.partition(":")
    if not colon:
        if name not in CELLS:
            raise UserError("--cells: " + unknown("cell", name, [*CELLS, NONE]) + " (one's own: module:Class)")
        return CELLS[name]
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` does
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise UserError(f"--cells: {name}: cannot import {module_name!r}: {type(error).__name__}: {error}") from error
    made = getattr(module, attribute, None)
    if not isinstance(made, type) or not issubclass(made, nn.Module):
        classes = [n for n, v in vars(module).items() if isinstance(v, type) and issubclass(v, nn.Module)]
        raise UserError(f"--cells: {name}: " + unknown("cell", attribute, classes))
    return made


class Network(nn.Module):
    """One layer of a cell, and a linear answer at the last steps.

    Recurrent weights begin orthogonal and forget gates open (bias 1), as in everything that is trained here; what is not a
    `throughtime.cells.Cell` begins as it comes.

    Args: cell: as `find_cell` gives it. inputs: I. hidden_size: N. outputs: O. chrono: gates that keep begin so that units
        remember for 1 to so many steps, each for a time of its own, in the place of a bias of 1.
    """

    def __init__(
        self, cell: Made | None, inputs: int, hidden_size: int, outputs: int, chrono: int | None = None
    ) -> None:
        super().__init__()
        self.stack: nn.Module
        if cell is None:
            self.stack = made = Memoryless(inputs, hidden_size, 1, 0.0)
            self.output = nn.Linear(made.output_size, outputs)
            return
        self.stack = stack = Recurrent(cell, inputs, hidden_size)
        self.output = nn.Linear(stack.output_size, outputs)
        for step in stack.cells:
            if isinstance(step, Cell) and step.has_recurrent_weights:
                orthogonal_(step)
            if isinstance(step, Cell) and step.bias:
                if chrono is not None and step.time_gates:
                    chrono_(step, chrono)
                elif step.forget_gate is not None:
                    set_forget_bias_(step, 1.0)

    def forward(self, inputs: Tensor, answered: int) -> Tensor:
        """inputs: [T, B, I]. Returns: [answered, B, O]."""
        outputs, _ = self.stack(inputs, lengths=None)
        return self.output(outputs[-answered:])  # type: ignore[no-any-return]


def matched_size(count: Callable[[int], int], parameters: int) -> int:
    """The width whose count of parameters is nearest to `parameters`.

    Args: count: parameters of the network of a width; it grows with it.
    Raises: UserError where it has more at a width of 1, or does not grow to so many.
    """
    low, high = 1, 2
    if count(low) > parameters:
        raise UserError(f"has at least {count(low)} parameters; --parameters asks for {parameters}")
    while count(high) < parameters:
        low, high = high, 2 * high
        if high > WIDEST:
            raise UserError(f"has {count(low):,} parameters at a width of {low:,}; --parameters asks for {parameters}")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < parameters else (low, middle)
    return min(low, high, key=lambda size: abs(count(size) - parameters))


def size_of(
    name: str, cell: Made | None, inputs: int, outputs: int, parameters: int, hidden: int | None
) -> tuple[int, int]:
    """The width of a cell's network and its parameters: of the width `hidden`, or the width that comes nearest to `parameters`.

    Raises: UserError where the cell cannot be made or take a step, or cannot have about so many parameters.
    """

    def count(size: int) -> int:
        with torch.device("meta"):  # of no memory
            return parameters_of(Network(cell, inputs, size, outputs))

    if hidden is not None and hidden > WIDEST:
        raise UserError(f"--hidden: got {hidden}; at most {WIDEST:,}")
    with torch.random.fork_rng(devices=[]):  # made to be counted and tried
        try:
            size = hidden or matched_size(count, parameters)
            with torch.no_grad():
                Network(cell, inputs, size, outputs)(torch.zeros(2, 3, inputs), 1)
            return size, count(size)
        except UserError as error:
            raise UserError(f"--cells: {name}: {error}") from error
        except Exception as error:  # whatever a cell of one's own may raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(f"--cells: {name}: cannot be run as a cell: {reason}") from error


def stretch_(name: str, network: Network, radius: float) -> None:
    """Scale the recurrent weights of each gate so that their largest eigenvalue has the modulus `radius`.

    Raises: UserError where the cell has no such weights.
    """
    for cell in network.stack.cells if isinstance(network.stack, Recurrent) else ():
        weight = getattr(cell, "weight_hh", None)
        if isinstance(weight, Tensor) and weight.shape[0] % weight.shape[1] == 0:
            with torch.no_grad():
                for block in torch.split(weight, weight.shape[1]):
                    block *= radius / torch.linalg.eigvals(block).abs().max()
            return
    raise UserError(f"--cells: {name}: has no recurrent weights to stretch; take rnn, rnn-relu, gru or lstm")
