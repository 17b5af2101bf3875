"""How a target is read and what is to follow.

Shapes: T time, B batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

END = 1  # begins and ends a sequence
IGNORED = -100  # where nothing is to be predicted, as in torch.nn.functional.cross_entropy


def framed(target: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """target [T, B], lengths [B]. Returns: what a decoder reads, END and the target, [T + 1, B]; and what follows each, the
    target and END, IGNORED past it."""
    ends = torch.full_like(target[:1], END)
    read, goals = torch.cat([ends, target]), torch.cat([target, ends])
    place = torch.arange(len(goals), device=target.device).unsqueeze(1)
    return read, torch.where(place == lengths, END, torch.where(place < lengths, goals, IGNORED))
