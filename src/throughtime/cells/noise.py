"""Cells around a cell: the noise that keeps a recurrent network from learning its training set by heart.

The noise comes in with the input, as a pair (x, noise), so that a step stays a pure function and any backend can run it.
"""

from __future__ import annotations

import copy
import inspect

import torch
from torch import Tensor, nn

from throughtime.cells.base import State, split_result


class RecurrentDropout(nn.Module):
    """Dropout on what the recurrent products see of the state, with one mask for all steps of a sequence.

        W_hh h_{t-1}   becomes   W_hh (m ⊙ h_{t-1})

    The step takes ((x, m), state), m [B, N] holding 0 or 1/(1-p).
    Args: cell: one whose `forward` takes `mask`.
    Raises: TypeError where it does not.
    Source: Gal, Ghahramani (2016), section 4.
    """

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        if "mask" not in inspect.signature(cell.forward).parameters:
            raise TypeError(
                f"recurrent dropout needs a cell that says where its recurrent product is; give the forward of "
                f"{type(cell).__name__} a parameter mask=None and multiply it into the state the product sees"
            )
        self.cell = cell

    def forward(self, x_and_mask: tuple[Tensor, Tensor], state: State) -> State | tuple[Tensor, State]:
        """One step. x_and_mask: [B, I] and [B, N]; state: as the cell has it. Returns: what the cell gives."""
        x, mask = x_and_mask
        result: State | tuple[Tensor, State] = self.cell(x, state, mask=mask)
        return result


def drop_weights(cell: nn.Module, rate: float) -> nn.Module:
    """A cell over the same parameters, but with recurrent weights dropped: W_hh becomes D ⊙ W_hh, D holding 0 or 1/(1-p).

    The step itself is the cell's own, so that a backend that knows the cell can run it. Gradients reach `weight_hh`.
    Raises: TypeError where the cell has no `weight_hh`.
    Source: DropConnect (Wan et al. 2013) on recurrent weights, Merity, Keskar, Socher (2018), section 2.
    """
    weight = getattr(cell, "weight_hh", None)
    if weight is None:
        raise TypeError(
            f"weight dropout needs a cell whose recurrent weights are called weight_hh; {type(cell).__name__} has none"
        )
    twin = copy.copy(cell)
    twin.__dict__["_parameters"] = {name: p for name, p in cell._parameters.items() if name != "weight_hh"}
    twin.__dict__["weight_hh"] = torch.dropout(weight, rate, True)
    return twin


class Zoneout(nn.Module):
    """Zoneout: at every step each unit of the state keeps its old value with probability p.

        s_t = k ⊙ s_{t-1} + (1 - k) ⊙ s̃_t

    The step takes ((x, k), state); k has the structure of the state and holds 0 or 1 in training, p in evaluation
    (the expectation). The output follows where it is the first tensor of the state.
    Source: Krueger et al. (2017), section 3.
    """

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x_and_keep: tuple[Tensor, State], state: State) -> State | tuple[Tensor, State]:
        """One step. x_and_keep: [B, I], and how much of each unit is kept, as the state; state: as the cell has it. Returns: the
        state mixed of the new and the old one, beside the cell's output where it has one."""
        x, keep = x_and_keep
        output, new = split_result(self.cell(x, state), state)
        if isinstance(new, Tensor):
            assert isinstance(keep, Tensor) and isinstance(state, Tensor)
            mixed: State = torch.lerp(new, state, keep)
        else:
            mixed = tuple(torch.lerp(n, s, k) for n, s, k in zip(new, state, keep, strict=True))
        return mixed if output is None else (output, mixed)
