"""What an export multiplies weights of eight bits by: rows rounded to sixteen."""

from __future__ import annotations

import torch
from torch import Tensor

from throughtime.scanning.int8 import MOST

LEAST = 2.0**-100  # no row is taken to be smaller than this


def most_of(depth: int) -> int:
    """The largest whole number of an operand of so many numbers: of sixteen bits, and such that no sum of products with weights,
    |sum| <= depth · 127 · most, leaves 32 bits."""
    return min(2**15 - 1, (2**31 - 1) // (MOST * max(depth, 1)))


def rounded(rows: Tensor) -> Tensor:
    """Rows [..., K] as an export multiplies them by weights of eight bits: whole numbers q, times a scale for each row.

        scale = max |row| / most,   q = round(row / scale)

    A row with a number that is not finite is NaN.
    """
    if not rows.shape[-1]:
        return rows
    most = most_of(rows.shape[-1])
    size = rows.abs().amax(-1, keepdim=True).clamp(min=LEAST)
    times = torch.full_like(size, most) / size  # `most / size` would be rounded twice
    made = (rows * times).round() * (size * (1 / most))
    return made.where(size.isfinite(), torch.nan)
