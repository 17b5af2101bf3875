"""The parts that networks for tasks are made of: a stack of named cells, set up as it learns best; an embedding at its scale.

Shapes: T time, B batch, E embedding, N hidden.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn

from throughtime.cells import NAMED
from throughtime.layers import Recurrent
from throughtime.layers.dropout import Dropout
from throughtime.models.transformer import TransformerStack, matched, parameters_of


def recurrent(cell: str, input_size: int, hidden_size: int, layers: int = 1, **options: Any) -> Recurrent:
    """`Recurrent` of a named cell with orthogonal recurrent weights (Saxe et al. 2014), and forget gates that begin open
    (Jozefowicz et al. 2015), where the cell has them. options: of `Recurrent`."""
    made = NAMED[cell]
    options["orthogonal"] = made.has_recurrent_weights
    options["forget_bias"] = 1.0 if made.forget_gate is not None else None
    return Recurrent(made, input_size, hidden_size, layers, **options)


def stack_of(
    cell: str,
    inputs: int,
    hidden_size: int,
    layers: int,
    bidirectional: bool,
    dropout: float,
    kind: str = "recurrent",
    variational: bool = True,
) -> Recurrent | Memoryless | TransformerStack:
    """A stack of a named cell, or of layers without a memory; kind "transformer": a Transformer of as many parameters, with at
    least two layers. variational: of recurrent layers, one mask of `dropout` for all steps of a sequence."""
    if kind == "transformer":
        with torch.random.fork_rng(devices=[]):  # made to be counted
            like = parameters_of(stack_of(cell, inputs, hidden_size, layers, bidirectional, dropout))
        found = matched(lambda size: TransformerStack(inputs, size, max(layers, 2), dropout), like)
        assert isinstance(found, TransformerStack)
        return found
    if cell == "none":
        return Memoryless(inputs, hidden_size * (2 if bidirectional else 1), layers, dropout)
    between = dropout if layers > 1 else 0.0
    return recurrent(
        cell,
        inputs,
        hidden_size,
        layers,
        bidirectional=bidirectional,
        dropout=between,
        variational=variational and between > 0,
    )


def embedded(embedding: nn.Embedding, tokens: Tensor) -> Tensor:
    """An embedding that an output shares, drawn with a standard deviation of E^-½, at unit scale, [T, B, E]."""
    found: Tensor = embedding(tokens) * math.sqrt(embedding.embedding_dim)
    return found


def widened(logits: Tensor) -> Tensor:
    """Logits as a loss is taken of them: in float32 where they came in bfloat16, else as they are."""
    return logits.float() if logits.dtype is torch.bfloat16 else logits


class Memoryless(nn.Module):
    """Layers that see one step and nothing else, called as `Recurrent` is."""

    def __init__(self, inputs: int, size: int, layers: int, dropout: float) -> None:
        super().__init__()
        sizes = [inputs, *[size] * layers]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.dropout = Dropout(dropout)
        self.output_size = size

    def forward(self, inputs: Tensor, *, lengths: Tensor) -> tuple[Tensor, None]:
        """Each step by itself. inputs: [T, B, I]; lengths: not looked at. Returns: ([T, B, N], None): there is no state."""
        x = inputs
        for i, layer in enumerate(self.layers):
            x = torch.tanh(layer(self.dropout(x) if i else x))
        return x, None


class SequenceDropout(nn.Module):
    """Dropout with one mask [B, N] for all steps of a sequence (Gal, Ghahramani 2016)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """x: [T, B, N]. Returns: the same in evaluation; in training without some of its N, the same ones for all steps."""
        if not self.training or not self.rate:
            return x
        return x * ((torch.rand(x.shape[1:], device=x.device) >= self.rate) / (1 - self.rate))
