"""The gated recurrent unit."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from throughtime.cells.base import Cell


class GRU(Cell):
    """The gated recurrent unit, with the reset gate after the recurrent product.

        r_t = σ(W_ir x_t + b_ir + W_hr h_{t-1} + b_hr)
        z_t = σ(W_iz x_t + b_iz + W_hz h_{t-1} + b_hz)
        n_t = tanh(W_in x_t + b_in + r_t ⊙ (W_hn h_{t-1} + b_hn))
        h_t = (1 - z_t) ⊙ n_t + z_t ⊙ h_{t-1}

    Rows of the weights: r, z, n.
    Source: Cho et al. (2014), in the form of cuDNN and torch.nn.GRUCell: the reset gate multiplies the product, not
    its input, and z keeps the old state.
    """

    gates = 3
    keep_gate = "update"
    time_gates: ClassVar[dict[int, int]] = {1: 1}

    def forward(self, x: Tensor, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """One step. x: [B, I]; h: [B, N]; mask: [B, N], by which h is multiplied before the recurrent product sees it. Returns: h
        after it, [B, N]."""
        x_r, x_z, x_n = self.project_input(x)
        h_r, h_z, h_n = self.project_state(h, mask)
        r = self.watch("reset", torch.sigmoid(x_r + h_r))
        z = self.watch("update", torch.sigmoid(x_z + h_z))
        n = self.watch("new", torch.tanh(x_n + r * h_n))
        return self.watch("h", (1 - z) * n + z * h)
