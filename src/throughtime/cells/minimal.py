"""Units with one gate."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from throughtime.cells.base import Cell


class MinimalGated(Cell):
    """The minimal gated unit: one gate both resets and updates.

        f_t = σ(W_if x_t + b_if + W_hf h_{t-1} + b_hf)
        n_t = tanh(W_in x_t + b_in + W_hn (f_t ⊙ h_{t-1}) + b_hn)
        h_t = (1 - f_t) ⊙ h_{t-1} + f_t ⊙ n_t

    Rows of the weights: f, n.
    Source: Zhou et al. (2016), Minimal gated unit for recurrent neural networks, equations 7 to 9.
    """

    gates = 2
    keep_gate = "keep"
    time_gates: ClassVar[dict[int, int]] = {0: -1}

    def forward(self, x: Tensor, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """One step. x: [B, I]; h: [B, N]; mask: [B, N], by which h is multiplied before the recurrent product sees it. Returns: h
        after it, [B, N]."""
        n = self.hidden_size
        b_f, b_n = (None, None) if self.bias_hh is None else (self.bias_hh[:n], self.bias_hh[n:])
        x_f, x_n = self.project_input(x)
        seen = h if mask is None else h * mask
        f = self.watch("update", torch.sigmoid(x_f + F.linear(seen, self.weight_hh[:n], b_f)))
        new = self.watch("new", torch.tanh(x_n + F.linear(f * seen, self.weight_hh[n:], b_n)))
        return self.watch("h", self.watch("keep", 1 - f) * h + f * new)


class UGRNN(Cell):
    """The update gate network: a plain recurrent network that may keep its state.

        g_t = σ(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)
        n_t = tanh(W_in x_t + b_in + W_hn h_{t-1} + b_hn)
        h_t = g_t ⊙ h_{t-1} + (1 - g_t) ⊙ n_t

    Rows of the weights: g, n. The gate keeps the old state where it is 1, so its bias is a forget gate's.
    Source: Collins, Sohl-Dickstein, Sussillo (2017), Capacity and trainability in recurrent neural networks, section 1.1.
    """

    gates = 2
    forget_gate = 0
    time_gates: ClassVar[dict[int, int]] = {0: 1}

    def forward(self, x: Tensor, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """One step. x: [B, I]; h: [B, N]; mask: [B, N], by which h is multiplied before the recurrent product sees it. Returns: h
        after it, [B, N]."""
        (x_g, x_n), (h_g, h_n) = self.project_input(x), self.project_state(h, mask)
        g = self.watch("forget", torch.sigmoid(x_g + h_g))
        n = self.watch("new", torch.tanh(x_n + h_n))
        return self.watch("h", g * h + (1 - g) * n)
