"""The simple recurrent unit."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from throughtime.cells.base import Cell


class SRU(Cell):
    """The simple recurrent unit: a light recurrence, and a highway past it. The state is c, the output h.

        n_t = W_in x_t + b_in
        f_t = σ(W_if x_t + b_if + v_f ⊙ c_{t-1})
        r_t = σ(W_ir x_t + b_ir + v_r ⊙ c_{t-1})
        c_t = f_t ⊙ c_{t-1} + (1 - f_t) ⊙ n_t
        h_t = r_t ⊙ c_t + (1 - r_t) ⊙ x_t            where I = N, else W_is x_t + b_is in the place of x_t

    Rows of the weights: n, f, r and, where I is not N, s. `peephole` is (v_f, v_r), [2, N]. There is no `weight_hh`.
    Args: as `Cell`; peephole: whether the gates see the state. Without, it is linear in the state.
    Source: Lei et al. (2018), Simple recurrent units for highly parallelizable recurrence, equations 1 to 4, here with biases in
        all rows and without the scaling of the highway; without peepholes the first version of it (2017).
    """

    forget_gate = 1
    has_recurrent_weights = False
    time_gates: ClassVar[dict[int, int]] = {1: 1}

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, peephole: bool = True, **options: Any
    ) -> None:
        self.gates = 3 if input_size == hidden_size else 4
        super().__init__(input_size, hidden_size, bias, **options)
        self.peephole = nn.Parameter(self.weight_ih.new_empty(2, hidden_size)) if peephole else None
        self.reset_parameters()

    def forward(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """One step. x: [B, I]; c: [B, N]. Returns: the output h, [B, N], and c after it, [B, N]."""
        n, x_f, x_r, *passed = self.project_input(x)
        if self.peephole is not None:
            x_f, x_r = x_f + self.peephole[0] * c, x_r + self.peephole[1] * c
        f, r = self.watch("forget", torch.sigmoid(x_f)), self.watch("reset", torch.sigmoid(x_r))
        c = self.watch("c", f * c + (1 - f) * self.watch("new", n))
        return self.watch("h", r * c + (1 - r) * (passed[0] if passed else x)), c
