"""Dropout (Srivastava et al. 2014) whose noise costs little: PyTorch draws a number of 53 bits for every element, one after the
other, which takes an eighth of a training step in bfloat16; sixteen bits of a random word are enough to choose by."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from throughtime.scanning.foreign import transform

LEVELS = 1 << 16  # of which a rate is a multiple


def dropout(x: Tensor, rate: float) -> Tensor:
    """x with each element zero with probability `rate`, the others times 1 / (1 - rate).

    On a CPU the probability is the nearest multiple of 2^-16; elsewhere, and within transforms of functions (`torch.func`),
    PyTorch's own dropout runs. Both draw from PyTorch's generator, so that `torch.manual_seed` gives the same noise again.
    """
    dropped = round(rate * LEVELS)
    if not x.is_cpu or not 0 < dropped < LEVELS or torch.compiler.is_compiling() or transform() is not None:
        return torch.dropout(x, rate, True)
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    kept = words.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - LEVELS // 2
    return x * kept.to(x.dtype).mul_(1 / (1 - rate))


class Dropout(nn.Dropout):
    """`torch.nn.Dropout` by `dropout`: nothing in evaluation."""

    def forward(self, input: Tensor) -> Tensor:
        """input: of any shape. Returns: the same shape; the input itself in evaluation."""
        return dropout(input, self.p) if self.training and self.p else input
