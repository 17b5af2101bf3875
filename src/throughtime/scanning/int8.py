"""Weights in eight bits: whole numbers from -127 to 127, times a scale for each output.

A scale has 16 bits, so that its products with such numbers are exact in float32, and rounding what is rounded changes no bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from throughtime.errors import unknown

MOST = 127
SCALE = 1 << 16
FLOAT, INT8 = "float", "int8"  # how weights are held


def check_weights(weights: str, backend: str) -> None:
    """Raises: ValueError for a way to hold weights that there is not, or not on a backend."""
    if weights not in (FLOAT, INT8):
        raise ValueError(unknown("kind of weights", weights, [FLOAT, INT8]))
    if weights == INT8 and backend not in ("auto", "cpu"):
        raise ValueError(f"weights in int8 run on the backend 'cpu' alone, and it is to be {backend!r}")


def quantised(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix [K, N] as whole numbers, int8 [K, N], and what each column of them is multiplied by, [N]."""
    part, power = torch.frexp(matrix.abs().amax(0) / MOST)
    scales = torch.ldexp((part * SCALE).round() / SCALE, power)
    scales = scales.where(scales != 0, 1.0)  # a column of zeros; one that is not finite stays so
    return (matrix / scales).round().clamp(-MOST, MOST).char(), scales


def dequantised(matrix: Tensor) -> Tensor:
    """A matrix [K, N] as its eight bits tell it."""
    whole, scales = quantised(matrix)
    return whole.to(matrix.dtype) * scales
