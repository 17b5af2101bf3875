"""A label for a whole sequence.

Shapes: T time, B batch, E embedding, N hidden, C classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from throughtime.layers.dropout import Dropout
from throughtime.models.counts import Counts
from throughtime.models.encoder import Encoder, TokenBatch

POOLINGS = ("last", "mean", "max", "attention")
VOICE = [0.25, 0.125, 0.03]  # of tokens, pairs and pieces, to begin with


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
        real = torch.arange(hidden.shape[0], device=hidden.device).unsqueeze(1) < lengths.clamp(min=1)
        if self.kind == "attention":
            scores: Tensor = self.score(torch.tanh(self.inner(hidden))).squeeze(-1)
            return scores.masked_fill(~real, -torch.inf).softmax(0)
        return real / real.sum(0)

    def forward(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """One vector a sequence. hidden: [T, B, N]; lengths: [B]. Returns: [B, N]."""
        if self.kind == "last":
            ends = (lengths - 1).clamp(min=0)
            last = hidden[ends, torch.arange(ends.shape[0], device=hidden.device)]
            if self.directions == 1:
                return last
            n = hidden.shape[-1] // 2
            return torch.cat([last[:, :n], hidden[0, :, n:]], -1)
        if self.kind == "max":
            real = torch.arange(hidden.shape[0], device=hidden.device).unsqueeze(1) < lengths.clamp(min=1)
            return hidden.masked_fill(~real.unsqueeze(-1), -torch.inf).amax(0)
        return (hidden * self.weights(hidden, lengths).unsqueeze(-1)).sum(0)


class Classifier(nn.Module):
    """A reader, a pooling over time, and a distribution over labels; beside it, where asked for, what plain counting says.

    Beside counts there are three that learn, each with a loss of its own, from the mean of the losses: the network with what
    counting says; the network alone (by the first alone it would only learn what counting leaves over); the weighed counts. The
    answer is that of the first and the third, (joint + 2 weighed) / 3 in logits.

    Args: reader: what reads the tokens. classes: C. pooling: as in `Pool`. dropout: before the output.
        counts: what counts, filled by `Counts.count` or by loaded weights; None: nothing does.
        weights: [C], how much an example of each class counts in training.
    """

    def __init__(
        self,
        reader: Encoder,
        classes: int,
        pooling: str,
        dropout: float,
        counts: Counts | None = None,
        weights: list[float] | None = None,
    ) -> None:
        super().__init__()
        self.reader = reader
        self.pool = Pool(pooling, reader.output_size, reader.directions)
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(reader.output_size, classes)
        self.counts = counts
        if counts is not None:  # naive Bayes is right too loudly: it begins with a fraction of its voice
            self.voice = nn.Parameter(torch.tensor(VOICE[: counts.width]))
        self.class_weights = weights

    def _alone(self, read: TokenBatch) -> Tensor:
        hidden = self.pool(self.reader(read), read.lengths)
        return self.output(self.dropout(hidden))  # type: ignore[no-any-return]

    def logits(self, read: TokenBatch) -> Tensor:
        """Returns: [B, C]."""
        alone = self._alone(read)
        if self.counts is None:
            return alone
        said, weighed = self.counts(read)
        return (alone + self._voiced(said) + 2 * weighed) / 3  # type: ignore[no-any-return]

    def _voiced(self, said: Tensor) -> Tensor:
        return torch.einsum("k,bkc->bc", self.voice, said)  # type: ignore[no-any-return]

    def forward(self, batch: tuple[TokenBatch, Tensor], state: None) -> tuple[Tensor, Tensor, None]:
        """(what is read of B examples, labels [B]): nats summed over the examples, how many they are."""
        read, labels = batch
        count = torch.tensor(labels.shape[0], device=labels.device)
        if not self.training:
            return F.cross_entropy(self.logits(read), labels, reduction="sum"), count, None
        weights = None
        if self.class_weights is not None:
            weights = torch.tensor(self.class_weights, device=labels.device)

        def nats(logits: Tensor) -> Tensor:
            return F.cross_entropy(logits, labels, weights, reduction="sum")

        alone = self._alone(read)
        if self.counts is None:
            return nats(alone), count, None
        said, weighed = self.counts(read, labels)
        penalty = labels.shape[0] * self.counts.penalty()
        return (nats(alone + self._voiced(said)) + nats(alone) + nats(weighed) + penalty) / 3, count, None
