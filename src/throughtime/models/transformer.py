"""A Transformer in the place of a recurrent stack, of PyTorch's own layers and of as many parameters, to compare the two.

Shapes: T time, B batch, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from throughtime.layers.dropout import Dropout
from throughtime.models.framing import framed

HEADS = 4
MOST_DROPOUT = 0.3  # a recurrent network takes more than a Transformer learns with


class TransformerStack(nn.Module):
    """An encoder, called as `Recurrent` is: a projection, positions, and layers of attention and feed-forward.

    Args: inputs: width of what comes in. size: D, a multiple of 2 · HEADS. layers: how many. dropout: within the layers,
    MOST_DROPOUT at most.
    Source: Vaswani et al. (2017); the norm before each part after Xiong et al. (2020).
    """

    def __init__(self, inputs: int, size: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Linear(inputs, size)
        layer = nn.TransformerEncoderLayer(size, HEADS, 4 * size, min(dropout, MOST_DROPOUT), norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, nn.LayerNorm(size), enable_nested_tensor=False)
        self.output_size, self.directions = size, 1

    def forward(self, inputs: Tensor, *, lengths: Tensor) -> tuple[Tensor, None]:
        """inputs [T, B, I], lengths [B]. Returns: [T, B, D]; past a sequence's length anything; and no state."""
        x = self.project(inputs)
        x = x + positions(x.shape[0], x.shape[-1]).to(x).unsqueeze(1)
        padding = torch.arange(x.shape[0], device=x.device) >= lengths.clamp(min=1).unsqueeze(1)
        return self.layers(x, src_key_padding_mask=padding), None


class TransformerWindow(nn.Module):
    """A causal encoder that steps through a text as `Recurrent` does: each step sees the `window` steps before it, across calls.
    What it carries is not a state but those steps themselves.

    Args: inputs, size, layers, dropout: as in `TransformerStack`. window: W.
    """

    def __init__(self, inputs: int, size: int, layers: int, dropout: float, window: int) -> None:
        super().__init__()
        self.stack = TransformerStack(inputs, size, layers, dropout)
        self.output_size, self.window, self.inputs = size, window, inputs

    def forward(
        self, inputs: Tensor, state: tuple[Tensor, Tensor] | None = None, *, resets: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """inputs [T, B, I]; state: the steps before, [B, W, I], and which of them are there, [B, W] (0 or 1). resets [T, B]: what
        was before this step is not seen. Returns: [T, B, D], and the state to go on from."""
        steps, batch, _ = inputs.shape
        if steps > self.window:  # a window at a time, so that no place is met that training has not
            outputs = []
            for low in range(0, steps, self.window):
                part = slice(low, low + self.window)
                y, state = self(inputs[part], state, resets=None if resets is None else resets[part])
                outputs.append(y)
            assert state is not None
            return torch.cat(outputs), state
        if state is None:
            state = inputs.new_zeros(batch, self.window, self.inputs), inputs.new_zeros(batch, self.window)
        before, there = state
        x = torch.cat([before.transpose(0, 1), inputs])
        begun = torch.zeros(batch, steps, device=x.device) if resets is None else resets.t().cumsum(1)
        # which document each step is of; what is not there is of none
        document = torch.cat([there.detach() - 1, begun.to(there)], 1)
        place = torch.arange(x.shape[0], device=x.device)
        distance = place.unsqueeze(1) - place
        seen = (document.unsqueeze(2) == document.unsqueeze(1)) & (distance >= 0) & (distance <= self.window)
        seen |= distance == 0
        y = self.stack.project(x)
        y = y + positions(y.shape[0], y.shape[-1]).to(y).unsqueeze(1)
        y = self.stack.layers(y, mask=~seen.repeat_interleave(HEADS, 0))
        last = document[:, -self.window :]
        return y[self.window :], (
            x[-self.window :].transpose(0, 1).detach(),
            (last == document[:, -1:]).to(x),
        )


def positions(count: int, size: int) -> Tensor:
    """Sines and cosines of many wavelengths, [count, size] (Vaswani et al. 2017, section 3.5)."""
    rate = torch.exp(torch.arange(0, size, 2) * (-math.log(10_000.0) / size))
    angle = torch.arange(count).unsqueeze(1) * rate
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)


def later(count: int, device: torch.device) -> Tensor:
    """What a step may not see: true above the diagonal, [count, count]."""
    return torch.ones(count, count, dtype=torch.bool, device=device).triu(1)


def parameters_of(module: nn.Module) -> int:
    """How many numbers a network learns."""
    return sum(p.numel() for p in module.parameters())


def matched(make: Callable[[int], nn.Module], like: int) -> nn.Module:
    """Of the networks that `make` makes for a width, the one whose number of parameters is nearest to `like`."""

    def count(size: int) -> int:
        with torch.device("meta"):  # of no memory
            return parameters_of(make(size))

    step, size = 2 * HEADS, 2 * HEADS
    while count(size + step) <= like:
        size += step
    if abs(count(size + step) - like) < abs(count(size) - like):
        size += step
    return make(size)


class TransformerTranslator(nn.Module):
    """Encoder and decoder, called as `Translator` is.

    Args: source, target: V of each side. size: D. layers: of each. dropout, smoothing, tied, joint: as in `Translator`.
    Source: Vaswani et al. (2017).
    """

    def __init__(
        self,
        source: int,
        target: int,
        size: int,
        layers: int,
        *,
        dropout: float,
        smoothing: float,
        tied: bool,
        joint: bool,
    ) -> None:
        super().__init__()
        self.size, self.smoothing = size, smoothing
        self.embedding = nn.Embedding(target, size)
        nn.init.normal_(self.embedding.weight, std=size**-0.5)
        self.source_embedding = self.embedding if joint else nn.Embedding(source, size)
        if not joint:
            nn.init.normal_(self.source_embedding.weight, std=size**-0.5)
        rate = min(dropout, MOST_DROPOUT)
        options = {"dropout": rate, "norm_first": True}
        encoder = nn.TransformerEncoderLayer(size, HEADS, 4 * size, **options)  # type: ignore[arg-type]
        decoder = nn.TransformerDecoderLayer(size, HEADS, 4 * size, **options)  # type: ignore[arg-type]
        self.encoder = nn.TransformerEncoder(encoder, layers, nn.LayerNorm(size), enable_nested_tensor=False)
        self.decoder = nn.TransformerDecoder(decoder, layers, nn.LayerNorm(size))
        self.dropout = Dropout(rate)
        self.output = nn.Linear(size, target)
        if tied:
            self.output.weight = self.embedding.weight

    def _embedded(self, tokens: Tensor, embedding: nn.Module) -> Tensor:
        x: Tensor = embedding(tokens) * math.sqrt(self.size)
        return self.dropout(x + positions(x.shape[0], self.size).to(x).unsqueeze(1))  # type: ignore[no-any-return]

    def encode(self, source: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """source [S, B], lengths [B]. Returns: [S, B, D], and what of it is padding, [B, S]."""
        padding = torch.arange(source.shape[0], device=source.device) >= lengths.clamp(min=1).unsqueeze(1)
        return self.encoder(self._embedded(source, self.source_embedding), src_key_padding_mask=padding), padding

    def decode(self, memory: tuple[Tensor, Tensor], tokens: Tensor) -> Tensor:
        """Read tokens [T, B] from the beginning. Returns: logits [T, B, V]."""
        read, padding = memory
        x = self._embedded(tokens, self.embedding)
        mask = later(tokens.shape[0], tokens.device)
        return self.output(self.decoder(x, read, tgt_mask=mask, memory_key_padding_mask=padding))  # type: ignore[no-any-return]

    def attended(self, source: Tensor, lengths: Tensor, tokens: Tensor) -> Tensor:
        """What each token attends to in the last layer, a mean over heads: [T, B, S]."""
        read, padding = self.encode(source, lengths)
        x, mask = self._embedded(tokens, self.embedding), later(tokens.shape[0], tokens.device)
        *lower, last = self.decoder.layers
        for layer in lower:
            x = layer(x, read, tgt_mask=mask, memory_key_padding_mask=padding)
        y = last.norm1(x)
        x = x + last.self_attn(y, y, y, attn_mask=mask, need_weights=False)[0]  # type: ignore[operator]
        weights: Tensor = last.multihead_attn(last.norm2(x), read, read, key_padding_mask=padding)[1]  # type: ignore[operator]
        return weights.transpose(0, 1)

    def stepping(self, source: Tensor, lengths: Tensor) -> tuple[Callable[[Tensor, Any], tuple[Tensor, Any]], Any]:
        """As in `Translator`. It has no memory but the tokens themselves: the state is all that has been read."""
        read, padding = self.encode(source, lengths)

        def step(tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
            numbers, before = state
            whole = torch.cat([before, tokens.unsqueeze(1)], 1)
            memory = read.index_select(1, numbers), padding.index_select(0, numbers)
            return self.decode(memory, whole.t())[-1].log_softmax(-1), (numbers, whole)

        nothing = torch.zeros(lengths.shape[0], 0, dtype=torch.int64, device=source.device)
        return step, (torch.arange(lengths.shape[0], device=source.device), nothing)

    def forward(self, batch: tuple[Tensor, Tensor, Tensor, Tensor], state: None) -> tuple[Tensor, Tensor, None]:
        """As in `Translator`."""
        source, source_lengths, target, lengths = batch
        read, goals = framed(target, lengths)
        logits = self.decode(self.encode(source, source_lengths), read)
        smoothing = self.smoothing if self.training else 0.0
        nats = F.cross_entropy(logits.flatten(0, 1), goals.flatten(), reduction="sum", label_smoothing=smoothing)
        return nats, lengths.sum(), None
