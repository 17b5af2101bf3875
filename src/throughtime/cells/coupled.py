"""The LSTM with one gate for forgetting and for writing."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from throughtime.cells.base import Cell


class CoupledLSTM(Cell):
    """The LSTM with coupled input and forget gates: it forgets just where it writes.

        f_t = σ(W_if x_t + b_if + W_hf h_{t-1} + b_hf)
        g_t = tanh(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)
        o_t = σ(W_io x_t + b_io + W_ho h_{t-1} + b_ho)
        c_t = f_t ⊙ c_{t-1} + (1 - f_t) ⊙ g_t
        h_t = o_t ⊙ tanh(c_t)

    The state is (h, c). Rows of the weights: f, g, o.
    Source: Greff et al. (2017), LSTM: a search space odyssey, section III, variant CIFG, here without peepholes.
    """

    gates = 3
    forget_gate = 0
    time_gates: ClassVar[dict[int, int]] = {0: 1}

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, **options: Any) -> None:
        super().__init__(input_size, hidden_size, bias, **options)
        self.state_sizes = (hidden_size, hidden_size)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor], mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One step. x: [B, I]; state: (h, c), [B, N] each; mask: [B, N], by which h is multiplied before the recurrent product
        sees it. Returns: (h, c) after it."""
        h, c = state
        (x_f, x_g, x_o), (h_f, h_g, h_o) = self.project_input(x), self.project_state(h, mask)
        f = self.watch("forget", torch.sigmoid(x_f + h_f))
        g = self.watch("cell", torch.tanh(x_g + h_g))
        o = self.watch("output", torch.sigmoid(x_o + h_o))
        c = self.watch("c", f * c + (1 - f) * g)
        return self.watch("h", o * torch.tanh(c)), c
