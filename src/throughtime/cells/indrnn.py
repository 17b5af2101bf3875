"""The network of independent units."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from throughtime.cells.base import Cell


class IndRNN(Cell):
    """The independently recurrent network: each unit sees its own past alone.

        h_t = ReLU(W_ih x_t + b_ih + u ⊙ h_{t-1})

    `recurrent` is u [N], drawn from 0 to 1, so that units with a long and a short memory stand side by side. There is no
    `weight_hh`.
    Args: as `Cell`.
    Source: Li et al. (2018), Independently recurrent neural network, equation 4 and section 3.1.
    """

    gates = 1
    has_recurrent_weights = False

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, **options: Any) -> None:
        super().__init__(input_size, hidden_size, bias, **options)
        self.recurrent = nn.Parameter(self.weight_ih.new_empty(hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if hasattr(self, "recurrent"):
            nn.init.uniform_(self.recurrent, 0.0, 1.0)

    def forward(self, x: Tensor, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """One step. x: [B, I]; h: [B, N]; mask: [B, N], by which h is multiplied before it is weighted. Returns: h after it, [B,
        N]."""
        (x_h,) = self.project_input(x)
        a = self.watch("a", x_h + self.recurrent * (h if mask is None else h * mask))
        return self.watch("h", torch.relu(a))
