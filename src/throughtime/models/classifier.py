"""A label for a whole sequence.

Shapes: T time, B batch, E embedding, N hidden, C classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from throughtime.models.counts import Counts
from throughtime.models.reader import Reader

POOLINGS = ("last", "mean", "max", "attention")


class Pool(nn.Module):
    """One vector for a sequence: [T, B, N] to [B, N].

    last: what stands at the end; of a bidirectional network, the ends of both directions. mean, max: over time.
    attention: a mean weighted by softmax_t v · tanh(W h_t).
    Source: attention after Yang et al. (2016), equations 5 to 7.
    """

    def __init__(self, kind: str, size: int, directions: int) -> None:
        super().__init__()
        if kind not in POOLINGS:
            raise ValueError(f"pooling is one of {', '.join(POOLINGS)}, got {kind!r}")
        self.kind, self.directions = kind, directions
        if kind == "attention":
            self.inner, self.score = nn.Linear(size, size), nn.Linear(size, 1, bias=False)

    def weights(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """How much each step counts: [T, B], its sum over time 1 (attention and mean)."""
        real = torch.arange(len(hidden), device=hidden.device).unsqueeze(1) < lengths.clamp(min=1)
        if self.kind == "attention":
            scores: Tensor = self.score(torch.tanh(self.inner(hidden))).squeeze(-1)
            return scores.masked_fill(~real, -torch.inf).softmax(0)
        return real / real.sum(0)

    def forward(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        if self.kind == "last":
            ends = (lengths - 1).clamp(min=0)
            last = hidden[ends, torch.arange(len(ends), device=hidden.device)]
            if self.directions == 1:
                return last
            n = hidden.shape[-1] // 2
            return torch.cat([last[:, :n], hidden[0, :, n:]], -1)
        if self.kind == "max":
            real = torch.arange(len(hidden), device=hidden.device).unsqueeze(1) < lengths.clamp(min=1)
            return hidden.masked_fill(~real.unsqueeze(-1), -torch.inf).amax(0)
        return (hidden * self.weights(hidden, lengths).unsqueeze(-1)).sum(0)


class Classifier(nn.Module):
    """A reader, a pooling over time, and a distribution over labels; beside it, where asked for, what plain counting says.

    Args: reader: what reads the tokens. classes: C. pooling: as in `Pool`. dropout: before the output.
        counts: what counts, filled by `Counts.count` or by loaded weights; None: nothing does.
        weights: [C], how much an example of each class counts in training.
    """

    def __init__(
        self,
        reader: Reader,
        classes: int,
        pooling: str,
        dropout: float,
        counts: Counts | None = None,
        weights: list[float] | None = None,
    ) -> None:
        super().__init__()
        self.reader = reader
        self.pool = Pool(pooling, reader.output_size, reader.directions)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(reader.output_size, classes)
        self.counts = counts
        if counts is not None:  # naive Bayes is right too loudly: it begins with a fraction of its voice
            self.voice = nn.Parameter(torch.tensor([0.25, 0.125]))
        self.class_weights = weights

    def logits(self, tokens: Tensor, lengths: Tensor, labels: Tensor | None = None) -> Tensor:
        """tokens [T, B], lengths [B]; labels [B] of sequences that were counted. Returns: [B, C]."""
        out: Tensor = self.output(self.dropout(self.pool(self.reader(tokens, lengths), lengths)))
        if self.counts is not None:
            singles, pairs = self.counts(tokens, lengths, labels).chunk(2, -1)
            out = out + self.voice[0] * singles + self.voice[1] * pairs
        return out

    def forward(self, batch: tuple[Tensor, Tensor, Tensor], state: None) -> tuple[Tensor, Tensor, None]:
        """(tokens [T, B], lengths [B], labels [B]): nats summed over the examples, how many they are."""
        tokens, lengths, labels = batch
        weights = None
        if self.training and self.class_weights is not None:
            weights = torch.tensor(self.class_weights, device=tokens.device)
        logits = self.logits(tokens, lengths, labels if self.training else None)
        nats = F.cross_entropy(logits, labels, weights, reduction="sum")
        return nats, torch.tensor(len(labels), device=tokens.device), None
