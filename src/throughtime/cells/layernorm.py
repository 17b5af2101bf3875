"""The LSTM and the GRU with layer normalisation."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from throughtime.cells.base import Cell


class _Normalised(Cell):
    """A cell whose products are normalised; `gain_…` are the gains, ones at first, and the biases are the shifts."""

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for name, parameter in self.named_parameters():
            if name.startswith("gain"):
                nn.init.ones_(parameter)
            elif name == "bias_c":
                nn.init.zeros_(parameter)

    @staticmethod
    def norm(x: Tensor, gain: Tensor, shift: Tensor | None) -> Tensor:
        """g ⊙ (x - mean) / √(variance + 1e-5) + b, over the features."""
        return F.layer_norm(x, x.shape[-1:], gain, shift)


class LayerNormLSTM(_Normalised):
    """The LSTM with layer normalisation of both products and of the cell.

        (i, f, g, o)_t = LN(W_ih x_t; γ_ih, b_ih) + LN(W_hh h_{t-1}; γ_hh, b_hh)
        c_t = σ(f_t) ⊙ c_{t-1} + σ(i_t) ⊙ tanh(g_t)
        h_t = σ(o_t) ⊙ tanh(LN(c_t; γ_c, b_c))

    The state is (h, c). Rows of the weights: i, f, g, o; each normalisation of a product is over all four.
    Args: as `Cell`; `bias=False` leaves out the shifts too.
    Source: Ba, Kiros, Hinton (2016), Layer normalization, equations 20 to 22; the bias b there and the shifts β are one here.
    """

    gates = 4
    forget_gate = 1
    time_gates: ClassVar[dict[int, int]] = {0: -1, 1: 1}

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, **options: Any) -> None:
        super().__init__(input_size, hidden_size, bias, **options)
        self.state_sizes = (hidden_size, hidden_size)
        like = self.weight_hh
        self.gain_ih = nn.Parameter(like.new_ones(4 * hidden_size))
        self.gain_hh = nn.Parameter(like.new_ones(4 * hidden_size))
        self.gain_c = nn.Parameter(like.new_ones(hidden_size))
        self.bias_c = nn.Parameter(like.new_zeros(hidden_size)) if bias else None

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor], mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One step. x: [B, I]; state: (h, c), [B, N] each; mask: [B, N], by which h is multiplied before the recurrent product
        sees it. Returns: (h, c) after it."""
        h, c = state
        x_ifgo = self.norm(F.linear(x, self.weight_ih), self.gain_ih, self.bias_ih)
        h_ifgo = self.norm(F.linear(h if mask is None else h * mask, self.weight_hh), self.gain_hh, self.bias_hh)
        i, f, g, o = (x_ifgo + h_ifgo).chunk(4, -1)
        i = self.watch("input", torch.sigmoid(i))
        f = self.watch("forget", torch.sigmoid(f))
        g = self.watch("cell", torch.tanh(g))
        o = self.watch("output", torch.sigmoid(o))
        c = self.watch("c", f * c + i * g)
        return self.watch("h", o * torch.tanh(self.norm(c, self.gain_c, self.bias_c))), c


class LayerNormGRU(_Normalised):
    """The GRU with layer normalisation of its products.

        r_t, z_t = σ(LN(W_i[rz] x_t; γ_i[rz], b_i[rz]) + LN(W_h[rz] h_{t-1}; γ_h[rz], b_h[rz]))
        n_t = tanh(LN(W_in x_t; γ_in, b_in) + r_t ⊙ LN(W_hn h_{t-1}; γ_hn, b_hn))
        h_t = (1 - z_t) ⊙ n_t + z_t ⊙ h_{t-1}

    Rows of the weights: r, z, n. The two gates are normalised together, the candidate by itself.
    Args: as `Cell`; `bias=False` leaves out the shifts.
    Source: Ba, Kiros, Hinton (2016), supplementary material, equations 26 to 29; z keeps the old state here, as in torch.nn.
    """

    gates = 3
    keep_gate = "update"
    time_gates: ClassVar[dict[int, int]] = {1: 1}

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, **options: Any) -> None:
        super().__init__(input_size, hidden_size, bias, **options)
        self.gain_ih = nn.Parameter(self.weight_hh.new_ones(3 * hidden_size))
        self.gain_hh = nn.Parameter(self.weight_hh.new_ones(3 * hidden_size))

    def forward(self, x: Tensor, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """One step. x: [B, I]; h: [B, N]; mask: [B, N], by which h is multiplied before the recurrent product sees it. Returns: h
        after it, [B, N]."""
        x_r, x_z, x_n = self._normed(F.linear(x, self.weight_ih), self.gain_ih, self.bias_ih)
        seen = h if mask is None else h * mask
        h_r, h_z, h_n = self._normed(F.linear(seen, self.weight_hh), self.gain_hh, self.bias_hh)
        r = self.watch("reset", torch.sigmoid(x_r + h_r))
        z = self.watch("update", torch.sigmoid(x_z + h_z))
        n = self.watch("new", torch.tanh(x_n + r * h_n))
        return self.watch("h", (1 - z) * n + z * h)

    def _normed(self, a: Tensor, gain: Tensor, shift: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        n = 2 * self.hidden_size
        r, z = self.norm(a[:, :n], gain[:n], None if shift is None else shift[:n]).chunk(2, -1)
        return r, z, self.norm(a[:, n:], gain[n:], None if shift is None else shift[n:])
