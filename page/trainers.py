"""Writes the networks that the page trains: `python page/trainers.py` makes a module of WebAssembly of each, NAME.wasm, and
trainers.json, which says what their trainer has to know. It needs a linker: pip install 'throughtime[wasm]'.

Shapes: B batch, I input, N hidden, O output.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from throughtime.cells import GRU, LSTM, Cell, Elman
from throughtime.exporting.interface import interface_of
from throughtime.exporting.stack import stack_of
from throughtime.exporting.wasm.training import Training
from throughtime.scanning.call import tensors_of

FOLDER = Path(__file__).parent.parent / "src/throughtime/play/trainers"
CELLS: dict[str, Callable[[int, int], Cell]] = {
    "rnn": Elman,
    "relu": functools.partial(Elman, nonlinearity="relu"),
    "gru": GRU,
    "lstm": LSTM,
}
SIZES = {"problem": (9, 32, 8), "text": (64, 64, 64)}  # I, N, O


class ReadOut(nn.Module):
    """A cell whose first state is read by a linear layer: what is called output is W_o h_t + b_o, [B, O]."""

    def __init__(self, cell: Cell, outputs: int) -> None:
        super().__init__()
        self.cell, self.output = cell, nn.Linear(cell.hidden_size, outputs)
        self.input_size = cell.input_size

    def initial_state(self, batch: int, **options: Any) -> Any:
        """As the cell's."""
        return self.cell.initial_state(batch, **options)

    def forward(self, x: Tensor, state: Any) -> Any:
        """One step. x: [B, I]. Returns: output [B, O]; the state after it."""
        new = self.cell(x, state)
        return self.output(tensors_of(new)[0]), new


def networks() -> dict[str, ReadOut]:
    """By their names, NAME of a cell and of what it is for. All weights are 0: whoever trains one draws them."""
    found = {}
    for what, (inputs, hidden, outputs) in SIZES.items():
        for name, cell in CELLS.items():
            found[f"{name}_{what}"] = network = ReadOut(cell(inputs, hidden), outputs)
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter.zero_()
    return found


def write(folder: Path = FOLDER) -> None:
    """Write all of them."""
    found = {}
    for name, network in networks().items():
        stack = stack_of(network)
        made = Training(stack, name, interface_of(stack))
        if made.made.libm:
            raise RuntimeError(f"{name} calls {', '.join(made.made.libm)}, which the page does not have")
        (folder / f"{name}.wasm").write_bytes(made.module())
        found[name] = made.spec | {"hidden": network.cell.hidden_size, "gates": network.cell.gates}
    (folder / "trainers.json").write_text(json.dumps(found, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    write()
