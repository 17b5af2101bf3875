"""The LSTM without what keeps it from running in parallel."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from throughtime.cells.base import Cell


class MinLSTM(Cell):
    """The minimal LSTM, whose gates see the input alone and share out one whole, so that it is linear in its state.

        f_t = σ(W_if x_t + b_if)
        i_t = σ(W_ii x_t + b_ii)
        n_t = W_in x_t + b_in
        h_t = f_t / (f_t + i_t) ⊙ h_{t-1} + i_t / (f_t + i_t) ⊙ n_t

    Rows of the weights: f, i, n. There is no `weight_hh`.
    Source: Feng et al. (2024), Were RNNs all we needed?, section 3.2, whose scale of h does not hang on time.
    """

    gates = 3
    forget_gate = 0
    has_recurrent_weights = False
    time_gates: ClassVar[dict[int, int]] = {0: 1, 1: -1}

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """One step. x: [B, I]; h: [B, N]. Returns: h after it, [B, N]."""
        x_f, x_i, x_n = self.project_input(x)
        f, i, n = torch.sigmoid(x_f), torch.sigmoid(x_i), self.watch("new", x_n)
        both = f + i
        return self.watch("h", self.watch("forget", f / both) * h + self.watch("input", i / both) * n)
