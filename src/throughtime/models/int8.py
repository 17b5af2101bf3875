"""Networks whose recurrent layers have weights in eight bits, and how these are written."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from throughtime.layers.dropin import GRU, LSTM, RNN
from throughtime.layers.int8 import round_
from throughtime.layers.recurrent import Recurrent
from throughtime.scanning.int8 import INT8, dequantised, quantised

LAYERS = (Recurrent, RNN, LSTM, GRU)
LEAST = 4096  # numbers of a matrix outside of recurrent layers, from which rounding it pays


def rounded(network: nn.Module) -> nn.Module | None:
    """A copy of a network with weights in eight bits: its recurrent layers multiply by whole numbers; its other large matrices are
    rounded, and multiply as before. None where it has no recurrent layer."""
    made = copy.deepcopy(network)
    layers = [module for module in made.modules() if isinstance(module, LAYERS)]
    if not layers:
        return None
    for module in made.modules():
        if isinstance(module, LAYERS):
            module.quantize()
        elif isinstance(module, nn.Linear | nn.Embedding | nn.EmbeddingBag) and module.weight.numel() >= LEAST:
            round_(module.weight)
    return made.requires_grad_(False)


def is_rounded(network: nn.Module) -> bool:
    """Whether a network's recurrent layers have weights in eight bits."""
    return any(isinstance(module, LAYERS) and module.weights == INT8 for module in network.modules())


def as_rounded(tensor: Tensor) -> Tensor:
    """What `rounded` makes of a matrix of a network."""
    return dequantised(tensor.t()).t() if tensor.dim() == 2 and tensor.is_floating_point() else tensor


def in_eight_bits(tensors: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """The matrices [N, K] among the tensors of a network that lose nothing by it, as int8 [N, K] and scales [N]."""
    found = {}
    for name, tensor in tensors.items():
        if tensor.dim() == 2 and tensor.dtype is torch.float32 and torch.equal(as_rounded(tensor), tensor):
            whole, scales = quantised(tensor.t())
            found[name] = whole.t().contiguous(), scales
    return found
