"""The recurrent highway network: several layers within one step."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from throughtime.cells.base import Cell


class Highway(Cell):
    """The recurrent highway network: a step of L layers, each of which may change the state or let it pass.

        s_0 = h_{t-1}
        n_l = tanh([l = 1] (W_in x_t + b_in) + R_nl s_{l-1} + b_nl)
        t_l = σ   ([l = 1] (W_it x_t + b_it) + R_tl s_{l-1} + b_tl)             for l = 1 … L
        s_l = t_l ⊙ n_l + (1 - t_l) ⊙ s_{l-1}
        h_t = s_L

    Rows of the weights: n, t. `weight_hh` and `bias_hh` are those of the first layer; `deeper` and `deeper_bias` hold the others'.
    Args: as `Cell`; depth: L; transform_bias: where the biases of t start, so that at first most of the state passes.
    Source: Zilly et al. (2017), Recurrent highway networks, equations 7 to 9, with the carry gate 1 - t and biases of section 5.
    """

    gates = 2

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        depth: int = 3,
        transform_bias: float = -2.0,
        **options: Any,
    ) -> None:
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")
        self.transform_bias = transform_bias
        super().__init__(input_size, hidden_size, bias, **options)
        n = hidden_size
        rest = range(depth - 1)
        self.deeper = nn.ParameterList(nn.Parameter(self.weight_hh.new_empty(2 * n, n)) for _ in rest)
        self.deeper_bias = nn.ParameterList(nn.Parameter(self.weight_hh.new_empty(2 * n)) for _ in rest if bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        with torch.no_grad():
            for bias in [b for b in (self.bias_hh,) if b is not None] + list(getattr(self, "deeper_bias", [])):
                bias[self.hidden_size :] = self.transform_bias

    def forward(self, x: Tensor, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """One step. x: [B, I]; h: [B, N]; mask: [B, N], by which h is multiplied before the first layer's product sees it.
        Returns: h after it, [B, N]."""
        x_n, x_t = self.project_input(x)
        h_n, h_t = self.project_state(h, mask)
        s = self._layer(x_n + h_n, x_t + h_t, h, 1)
        for layer, weight in enumerate(self.deeper):
            bias = self.deeper_bias[layer] if self.bias else None
            s_n, s_t = F.linear(s if mask is None else s * mask, weight, bias).chunk(2, -1)
            s = self._layer(s_n, s_t, s, layer + 2)
        return self.watch("h", s)

    def _layer(self, a_n: Tensor, a_t: Tensor, s: Tensor, number: int) -> Tensor:
        n = torch.tanh(a_n)
        t = self.watch(f"transform{number}", torch.sigmoid(a_t))
        return t * n + (1 - t) * s
