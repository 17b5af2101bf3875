"""A cell of bfloat16 as one of float32 whose state is rounded to bfloat16 after each step.

Its tensors, inputs and states are bfloat16 numbers, so that products of them have exact operands; sums and pointwise work are
in float32. Gradients pass a rounding as they are, as PyTorch's conversions pass them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from throughtime.cells import State
from throughtime.cells.base import split_result
from throughtime.scanning.call import map_states, tensors_of

SPLITTER = 2.0**16 + 1  # float32 has 24 significant bits and bfloat16 8: what is to be lost, 16, in Dekker's product
LARGEST = 2.0**100  # of what is split: the product must not overflow


class RoundedStep(nn.Module):
    """A step of a cell of bfloat16: what it works out in float32 of a state, which it then rounds.

    Source: the splitting of Dekker (1971), section 5, whose high part is nearest.
    """

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Any, state: State) -> tuple[Tensor, State]:
        output, new = split_result(self.cell(x, state), state)
        ends = map_states(nearest, new)
        for before, after in zip(tensors_of(new), tensors_of(ends), strict=True):
            if output is before:
                output = after
        return (tensors_of(ends)[0] if output is None else output), ends


def nearest(x: Tensor) -> Tensor:
    """The bfloat16 number that is nearest, in float32; what cannot be split is as it was."""
    d = x.detach()
    product = d * SPLITTER
    high = product - (product - d)
    return x + torch.where(d.abs() < LARGEST, high - d, 0.0)


def in_float32(cell: nn.Module) -> nn.Module:
    """The same module over its tensors in float32, which pass their gradients on; it serves one call."""
    known: dict[int, Any] = {}

    def widened(value: Any) -> Any:
        if not (isinstance(value, Tensor) and value.dtype is torch.bfloat16):
            return value
        if id(value) not in known:
            known[id(value)] = value.float()
        return known[id(value)]

    def twin(module: nn.Module) -> nn.Module:
        if id(module) in known:
            return known[id(module)]  # type: ignore[no-any-return]
        made: nn.Module = module.__class__.__new__(module.__class__)
        known[id(module)] = made
        made.__dict__.update({name: widened(value) for name, value in module.__dict__.items()})
        for group in ("_parameters", "_buffers"):
            made.__dict__[group] = {name: widened(value) for name, value in getattr(module, group).items()}
        made.__dict__["_modules"] = {name: child and twin(child) for name, child in module._modules.items()}
        return made

    return twin(cell)
