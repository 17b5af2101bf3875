"""The plain recurrent network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from throughtime.cells.base import Cell


class Elman(Cell):
    """The plain recurrent network.

        h_t = f(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh),    f = tanh or ReLU

    Args: as `Cell`; nonlinearity: "tanh" or "relu".
    Source: Elman (1990), Finding structure in time. Parameters as in torch.nn.RNNCell.
    """

    gates = 1

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh", **options: Any
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"nonlinearity must be 'tanh' or 'relu', got {nonlinearity!r}")
        super().__init__(input_size, hidden_size, bias, **options)
        self.nonlinearity = nonlinearity

    def forward(self, x: Tensor, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """One step. x: [B, I]; h: [B, N]; mask: [B, N], by which h is multiplied before the recurrent product sees it. Returns: h
        after it, [B, N]."""
        (x_h,), (h_h,) = self.project_input(x), self.project_state(h, mask)
        a = self.watch("a", x_h + h_h)
        return self.watch("h", torch.tanh(a) if self.nonlinearity == "tanh" else torch.relu(a))

    def extra_repr(self) -> str:
        return super().extra_repr() + f", nonlinearity={self.nonlinearity!r}"
