"""The gated linear recurrence of Griffin."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from throughtime.cells.base import Cell

SHARPNESS = 8.0  # c of the paper


class RGLRU(Cell):
    """The real-gated linear recurrent unit, which is linear in its state.

        v_t = W_iv x_t + b_iv
        r_t = σ(W_ir x_t + b_ir)
        i_t = σ(W_ii x_t + b_ii)
        a_t = σ(Λ)^(c r_t),   c = 8
        h_t = a_t ⊙ h_{t-1} + √(1 - a_t²) ⊙ (i_t ⊙ v_t)

    `decay` is Λ [N], drawn so that σ(Λ)^c lies between 0.9 and 0.999. Rows of the weights: v, r, i. There is no `weight_hh`.
    Args: as `Cell`.
    Source: De et al. (2024), Griffin: mixing gated linear recurrences with local attention, section 2.4 and appendix A. What is
        x there, N wide, a projection of what goes into the block, is v here; its gates see the projection, and here what goes in.
    """

    gates = 3
    has_recurrent_weights = False

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, **options: Any) -> None:
        super().__init__(input_size, hidden_size, bias, **options)
        self.decay = nn.Parameter(self.weight_ih.new_empty(hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if hasattr(self, "decay"):
            with torch.no_grad():
                self.decay.uniform_(0.9, 0.999).pow_(1 / SHARPNESS).logit_()

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """One step. x: [B, I]; h: [B, N]. Returns: h after it, [B, N]."""
        v, x_r, x_i = self.project_input(x)
        r, i = self.watch("recurrence", torch.sigmoid(x_r)), self.watch("input", torch.sigmoid(x_i))
        log_a = -SHARPNESS * F.softplus(-self.decay) * r
        a = self.watch("forget", torch.exp(log_a))
        return self.watch("h", a * h + torch.sqrt(-torch.expm1(2 * log_a)) * (i * v))
