"""How a target is read and what is to follow.

Shapes: T time, B batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

END = 1  # begins and ends a sequence
IGNORED = -100  # where nothing is to be predicted, as in torch.nn.functional.cross_entropy


def framed(target: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """target [T, B], each with its END, unless it was cut; lengths [B]. Returns: what a decoder reads, END and all but the last of
    the target, [T, B]; and what follows each, the target, IGNORED past it."""
    read = torch.cat([torch.full_like(target[:1], END), target[:-1]])
    place = torch.arange(target.shape[0], device=target.device).unsqueeze(1)
    return read, target.masked_fill(place >= lengths, IGNORED)
