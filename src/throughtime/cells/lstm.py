"""Long short-term memory."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from throughtime.cells.base import Cell


class LSTM(Cell):
    """Long short-term memory.

        i_t = σ(W_ii x_t + b_ii + W_hi h_{t-1} + b_hi)
        f_t = σ(W_if x_t + b_if + W_hf h_{t-1} + b_hf)
        g_t = tanh(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)
        o_t = σ(W_io x_t + b_io + W_ho h_{t-1} + b_ho)
        c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
        h_t = o_t ⊙ tanh(c_t)              with a projection: h_t = W_hr (o_t ⊙ tanh(c_t))

    The state is (h, c). Rows of the weights: i, f, g, o.
    Args: as `Cell`; proj_size: P, the width of h where it is projected (0: it is not, and h is [B, N]).
    Source: Hochreiter, Schmidhuber (1997), with the forget gate of Gers et al. (2000); the projection of Sak et al. (2014).
    Parameters as in torch.nn.LSTMCell.
    """

    gates = 4
    forget_gate = 1
    time_gates: ClassVar[dict[int, int]] = {0: -1, 1: 1}

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, proj_size: int = 0, **options: Any
    ) -> None:
        if not 0 <= proj_size < hidden_size:
            raise ValueError(f"proj_size must be at least 0 and under hidden_size {hidden_size}, got {proj_size}")
        device, dtype = options.get("device"), options.get("dtype")
        super().__init__(input_size, hidden_size, bias, recurrent_size=proj_size or None, **options)
        self.state_sizes = (proj_size or hidden_size, hidden_size)
        self.weight_hr = None
        if proj_size:
            self.weight_hr = nn.Parameter(torch.empty(proj_size, hidden_size, device=device, dtype=dtype))
            nn.init.uniform_(self.weight_hr, -(hidden_size**-0.5), hidden_size**-0.5)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor], mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One step. x: [B, I]; state: (h, c), [B, P or N] and [B, N]; mask: as h, which is multiplied by it before the recurrent
        product sees it. Returns: (h, c) after it."""
        h, c = state
        x_i, x_f, x_g, x_o = self.project_input(x)
        h_i, h_f, h_g, h_o = self.project_state(h, mask)
        i = self.watch("input", torch.sigmoid(x_i + h_i))
        f = self.watch("forget", torch.sigmoid(x_f + h_f))
        g = self.watch("cell", torch.tanh(x_g + h_g))
        o = self.watch("output", torch.sigmoid(x_o + h_o))
        c = self.watch("c", f * c + i * g)
        h = o * torch.tanh(c)
        if self.weight_hr is not None:
            h = F.linear(h, self.weight_hr)
        return self.watch("h", h), c
