"""The gated recurrent unit as it was first published."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from throughtime.cells.base import Cell


class ResetBeforeGRU(Cell):
    """The gated recurrent unit with the reset gate before the recurrent product.

        r_t = σ(W_ir x_t + b_ir + W_hr h_{t-1} + b_hr)
        z_t = σ(W_iz x_t + b_iz + W_hz h_{t-1} + b_hz)
        n_t = tanh(W_in x_t + b_in + W_hn (r_t ⊙ h_{t-1}) + b_hn)
        h_t = (1 - z_t) ⊙ n_t + z_t ⊙ h_{t-1}

    Rows of the weights: r, z, n.
    Source: Cho et al. (2014), equations 5 to 8 (z keeps the old state). Two products in a row, where `GRU` needs one.
    """

    gates = 3
    keep_gate = "update"
    time_gates: ClassVar[dict[int, int]] = {1: 1}

    def forward(self, x: Tensor, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """One step. x: [B, I]; h: [B, N]; mask: [B, N], by which h is multiplied before the recurrent product sees it. Returns: h
        after it, [B, N]."""
        n = 2 * self.hidden_size  # the rows of the gates
        b_rz, b_n = (None, None) if self.bias_hh is None else (self.bias_hh[:n], self.bias_hh[n:])
        x_r, x_z, x_n = self.project_input(x)
        seen = h if mask is None else h * mask
        h_r, h_z = F.linear(seen, self.weight_hh[:n], b_rz).chunk(2, -1)
        r = self.watch("reset", torch.sigmoid(x_r + h_r))
        z = self.watch("update", torch.sigmoid(x_z + h_z))
        new = self.watch("new", torch.tanh(x_n + F.linear(r * seen, self.weight_hh[n:], b_n)))
        return self.watch("h", (1 - z) * new + z * h)
