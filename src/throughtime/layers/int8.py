"""Weights of layers rounded to eight bits, in place."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from throughtime.scanning.int8 import INT8, dequantised

# how those are called that products read; other parameters of two dimensions are few numbers
MATRICES = ("weight", "deeper")


def round_(weight: Tensor) -> None:
    """Round a matrix [N, K] to eight bits, a scale for each of its N outputs. One that is rounded stays as it is to the bit."""
    with torch.no_grad():
        weight.copy_(dequantised(weight.t()).t())


def hold_in_int8(layer: nn.Module) -> None:
    """Round the matrices of a recurrent layer, which is to multiply by them as whole numbers; its weights have no gradients."""
    for weight in _matrices(layer):
        round_(weight)
    layer.requires_grad_(False)
    layer.weights = INT8  # type: ignore[assignment]  # an attribute of its class


def _matrices(layer: nn.Module) -> Iterator[nn.Parameter]:
    for name, parameter in layer.named_parameters():
        parts = name.split(".")
        if parameter.dim() == 2 and any(part.startswith(MATRICES) for part in parts[-2:]):
            yield parameter
