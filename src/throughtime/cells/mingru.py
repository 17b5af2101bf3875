"""The GRU without what keeps it from running in parallel."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from throughtime.cells.base import Cell


class MinGRU(Cell):
    """The minimal GRU, whose gate and candidate see the input alone, so that it is linear in its state.

        z_t = σ(W_iz x_t + b_iz)
        n_t = W_in x_t + b_in
        h_t = (1 - z_t) ⊙ h_{t-1} + z_t ⊙ n_t

    Rows of the weights: z, n. There is no `weight_hh`.
    Source: Feng et al. (2024), Were RNNs all we needed?, section 3.1.
    """

    gates = 2
    has_recurrent_weights = False
    keep_gate = "keep"
    time_gates: ClassVar[dict[int, int]] = {0: -1}

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """One step. x: [B, I]; h: [B, N]. Returns: h after it, [B, N]."""
        x_z, x_n = self.project_input(x)
        z, n = self.watch("update", torch.sigmoid(x_z)), self.watch("new", x_n)
        return self.watch("h", self.watch("keep", 1 - z) * h + z * n)
