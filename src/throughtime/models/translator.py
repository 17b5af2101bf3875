"""A sequence from a sequence: encoder, attention, decoder.

Shapes: S source, T target, B batch, E embedding, N hidden, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from throughtime.cells import Cell
from throughtime.cells.base import split_result
from throughtime.layers import Attention, Memory, Recurrent
from throughtime.layers.dropout import Dropout
from throughtime.layers.recurrent import Stack
from throughtime.models.encoder import Encoder, TokenBatch
from throughtime.models.framing import framed
from throughtime.models.stacks import SequenceDropout, recurrent
from throughtime.scanning import scan

CELLS = 1 << 24  # numbers of an attention, steps × steps, that are in memory together where nothing is learned


class Translator(nn.Module):
    """A bidirectional encoder; a recurrent decoder that attends to it; a distribution over the next token.

    Without input feeding the decoder is two recurrent layers with the attention between them, so that all steps of a target
    are attended, and each layer is run through time, at once:

        h1_t = cell1(y_{t-1}, h1_{t-1});  c_t = attention(h1_t);  h2_t = cell2([h1_t; c_t], h2_{t-1});
        p_t = softmax(E tanh(W [h2_t; c_t]))

    With it, one layer reads its last attentional vector beside the token (Luong et al. 2015, section 3.3), a step at a time:

        h_t = cell([y_{t-1}; a_{t-1}], h_{t-1});  a_t = tanh(W [h_t; c_t]);  p_t = softmax(E a_t)

    Args:
        source, target: V of each side. cell: a name in `throughtime.cells.NAMED`. hidden_size: N, of the encoder in each direction.
        embedding_size: E. layers: of the encoder. attention: "additive" or "multiplicative". input_feeding: see above.
        dropout: on embeddings, between layers and before the output. smoothing: label smoothing (Szegedy et al. 2016, section 7).
        tied: the output weights are the target's embedding. joint: the source's embedding is too.
    Source: encoder and attention after Bahdanau et al. (2015); attention between layers after Wu et al. (2016), section 3.
    """

    def __init__(  # noqa: PLR0913
        self,
        source: int,
        target: int,
        *,
        cell: str,
        hidden_size: int,
        embedding_size: int,
        layers: int,
        attention: str,
        input_feeding: bool,
        dropout: float,
        smoothing: float,
        tied: bool,
        joint: bool,
    ) -> None:
        super().__init__()
        self.scale = math.sqrt(embedding_size) * 0.5  # of the target's embeddings
        self.encoder = Encoder(source, cell, hidden_size, embedding_size, layers, dropout=dropout)
        stack = self.encoder.stack
        assert isinstance(stack, Recurrent)
        # the source's are to count as much: where outputs hardly differ attention is learned late
        with torch.no_grad():
            for lowest in stack.cells[: stack.directions]:
                lowest.weight_ih.mul_(self.scale)  # type: ignore[operator, union-attr]
        width = self.encoder.output_size
        self.embedding = nn.Embedding(target, embedding_size)
        nn.init.normal_(self.embedding.weight, std=0.1)
        if joint:
            self.encoder.embedding = self.embedding
        self.input_feeding, self.smoothing = input_feeding, smoothing
        feed = embedding_size if input_feeding else 0
        self.first = recurrent(cell, embedding_size + feed, hidden_size)
        n = self.first.output_size
        self.attention = Attention(n, width, attention)
        self.second = None if input_feeding else recurrent(cell, n + width, hidden_size)
        states = sum(_width(s) for s in self.first.initial_state(1)[0])
        states += sum(_width(s) for s in self.second.initial_state(1)[0]) if self.second is not None else 0
        self.bridge = nn.Linear(width, states)
        self.readout = nn.Linear(n + width, embedding_size)
        self.output = nn.Linear(embedding_size, target)
        if tied:
            self.output.weight = self.embedding.weight
        self.dropout, self.last_dropout = SequenceDropout(dropout), Dropout(dropout)

    def encode(self, source: Tensor, lengths: Tensor) -> tuple[Memory, Any]:
        """source [S, B], lengths [B]. Returns: the memory, and the decoder's first state."""
        read = self.encoder(TokenBatch(source, lengths))
        real = (torch.arange(read.shape[0], device=read.device).unsqueeze(1) < lengths).unsqueeze(-1)
        mean = (read * real).sum(0) / lengths.clamp(min=1).unsqueeze(-1)
        flat, start = torch.tanh(self.bridge(mean)), 0

        def filled(stack: Recurrent) -> Stack:
            nonlocal start
            (states,) = stack.initial_state(flat.shape[0])
            out = []
            for state in states:
                many = state if isinstance(state, tuple) else (state,)
                parts = []
                for s in many:
                    parts.append(flat[:, start : start + s.shape[-1]])
                    start += s.shape[-1]
                out.append(tuple(parts) if isinstance(state, tuple) else parts[0])
            return (tuple(out),)

        first = filled(self.first)
        memory = self.attention.remember(read, lengths.clamp(min=1))
        if self.second is None:
            return memory, (first, flat.new_zeros(flat.shape[0], self.output.in_features))
        return memory, (first, filled(self.second))

    def decode(self, memory: Memory, state: Any, tokens: Tensor) -> tuple[Tensor, Any, Tensor]:
        """Read tokens [T, B] of the target. Returns: logits [T, B, V], the state after them, attention [T, B, S]."""
        embedded = self.dropout(self.embedding(tokens) * self.scale)
        if self.second is None:
            ((first,),), feed = state
            step = _Feeding(self.first.cells[0], self.attention, memory, self.readout)
            parts = first if isinstance(first, tuple) else (first,)
            vectors, end, records = scan(step, embedded, (*parts, feed), record=("attention",), backend="reference")
            *rest, feed = end
            last = tuple(rest) if isinstance(first, tuple) else rest[0]
            hidden, state, weights = vectors, (((last,),), feed), records["attention"]
        else:
            first, second = state
            lower, first = self.first(embedded, first)
            context, weights = self.attention(lower, memory)
            upper, second = self.second(self.dropout(torch.cat([lower, context], -1)), second)
            hidden, state = torch.tanh(self.readout(torch.cat([upper, context], -1))), (first, second)
        return self.output(self.last_dropout(hidden)), state, weights

    def attended(self, source: Tensor, lengths: Tensor, tokens: Tensor) -> Tensor:
        """What each token of a target [T, B] attends to: [T, B, S]."""
        return torch.cat([weights for _, weights in self._in_parts(source, lengths, tokens)])

    def _in_parts(self, source: Tensor, lengths: Tensor, read: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits and attention of what is read, [T, B]: at once where gradients need it whole, else as much at a time as fits."""
        memory, state = self.encode(source, lengths)
        size = read.shape[0] if torch.is_grad_enabled() else max(1, CELLS // (self.attention.width * source.numel()))
        for low in range(0, read.shape[0], size):
            logits, state, weights = self.decode(memory, state, read[low : low + size])
            yield logits, weights

    def stepping(self, source: Tensor, lengths: Tensor) -> tuple[Callable[[Tensor, Any], tuple[Tensor, Any]], Any]:
        """For decoding: a step function, (tokens [R], state) -> (log_p [R, V], state), and the state before anything is read.

        The state says of each row which line it is of, so that rows may be chosen and doubled.
        """
        memory, begin = self.encode(source, lengths)
        last: tuple[Tensor, Memory] | None = None

        def step(tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
            nonlocal last
            numbers, inner = state
            if last is None or not torch.equal(last[0], numbers):  # rows of one line share its memory
                last = numbers, Memory(*(part.index_select(1, numbers) for part in memory))
            logits, inner, _ = self.decode(last[1], inner, tokens.unsqueeze(0))
            return logits[0].log_softmax(-1), (numbers, inner)

        return step, (torch.arange(lengths.shape[0], device=source.device), begin)

    def forward(self, batch: tuple[Tensor, Tensor, Tensor, Tensor], state: None) -> tuple[Tensor, Tensor, None]:
        """(source [S, B], its lengths, target [T, B] with its ends, its lengths): nats summed over the target, how many they are.
        In training the nats are those of smoothed labels."""
        source, source_lengths, target, lengths = batch
        read, goals = framed(target, lengths)
        smoothing = self.smoothing if self.training else 0.0
        nats, low = torch.zeros((), device=source.device), 0
        for logits, _ in self._in_parts(source, source_lengths, read):
            goal = goals[low : low + logits.shape[0]].flatten()
            nats = nats + F.cross_entropy(logits.flatten(0, 1), goal, reduction="sum", label_smoothing=smoothing)
            low += logits.shape[0]
        return nats, lengths.sum(), None


class _Feeding(nn.Module):
    """One step of a decoder with input feeding. State: the cell's, and the attentional vector."""

    def __init__(self, cell: nn.Module, attention: Attention, memory: Memory, readout: nn.Module) -> None:
        super().__init__()
        self.inner, self.attention, self.memory, self.readout = cell, attention, memory, readout

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        *own, feed = state
        before = own[0] if len(own) == 1 else tuple(own)
        output, new = split_result(self.inner(torch.cat([x, feed], -1), before), before)
        many = new if isinstance(new, tuple) else (new,)
        hidden = many[0] if output is None else output
        context, weights = self.attention(hidden.unsqueeze(0), self.memory)
        Cell.watch("attention", weights[0])
        vector = torch.tanh(self.readout(torch.cat([hidden, context[0]], -1)))
        return vector, (*many, vector)


def _width(state: Any) -> int:
    return sum(s.shape[-1] for s in (state if isinstance(state, tuple) else (state,)))
