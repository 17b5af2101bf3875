"""Weights in eight bits: whole numbers from -127 to 127, times a scale for each output."""

from __future__ import annotations

from torch import Tensor

MOST = 127


def quantised(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix [K, N] as whole numbers, int8 [K, N], and what each column of them is multiplied by, [N]."""
    scales = matrix.abs().amax(0) / MOST
    scales = scales.where(scales > 0, 1.0)  # a column of zeros
    return (matrix / scales).round().clamp(-MOST, MOST).char(), scales


def dequantised(matrix: Tensor) -> Tensor:
    """A matrix [K, N] as its eight bits tell it."""
    whole, scales = quantised(matrix)
    return whole.to(matrix.dtype) * scales
