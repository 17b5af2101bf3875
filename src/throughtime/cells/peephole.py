"""The LSTM whose gates see the cell."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from throughtime.cells.base import Cell


class PeepholeLSTM(Cell):
    """The LSTM with peephole connections: one weight from each cell to each of its gates.

        i_t = σ(W_ii x_t + b_ii + W_hi h_{t-1} + b_hi + p_i ⊙ c_{t-1})
        f_t = σ(W_if x_t + b_if + W_hf h_{t-1} + b_hf + p_f ⊙ c_{t-1})
        g_t = tanh(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)
        c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
        o_t = σ(W_io x_t + b_io + W_ho h_{t-1} + b_ho + p_o ⊙ c_t)
        h_t = o_t ⊙ tanh(c_t)

    The state is (h, c). Rows of the weights: i, f, g, o; `peephole` [3, N] holds p_i, p_f, p_o.
    Source: Gers, Schraudolph, Schmidhuber (2002), section 3; in this form Graves (2013), equations 7 to 11.
    """

    gates = 4
    forget_gate = 1
    time_gates: ClassVar[dict[int, int]] = {0: -1, 1: 1}

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, **options: Any) -> None:
        super().__init__(input_size, hidden_size, bias, **options)
        self.state_sizes = (hidden_size, hidden_size)
        self.peephole = nn.Parameter(self.weight_hh.new_empty(3, hidden_size))
        nn.init.uniform_(self.peephole, -(hidden_size**-0.5), hidden_size**-0.5)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor], mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One step. x: [B, I]; state: (h, c), [B, N] each; mask: [B, N], by which h is multiplied before the recurrent product
        sees it. Returns: (h, c) after it."""
        h, c = state
        x_i, x_f, x_g, x_o = self.project_input(x)
        h_i, h_f, h_g, h_o = self.project_state(h, mask)
        p_i, p_f, p_o = self.peephole.unbind()
        i = self.watch("input", torch.sigmoid(x_i + h_i + p_i * c))
        f = self.watch("forget", torch.sigmoid(x_f + h_f + p_f * c))
        g = self.watch("cell", torch.tanh(x_g + h_g))
        c = self.watch("c", f * c + i * g)
        o = self.watch("output", torch.sigmoid(x_o + h_o + p_o * c))
        return self.watch("h", o * torch.tanh(c)), c
