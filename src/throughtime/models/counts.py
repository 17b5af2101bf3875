"""What plain counting says of a sequence's label, as features for a network.

Shapes: T time, B batch, C classes, K kinds.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

BUCKETS = 1 << 17  # of pairs


class Counts(nn.Module):
    """Naive Bayes over the tokens of a sequence and over its pairs of neighbours, each kind counted once a sequence:

        r_c = sum over kinds k of log (p(k | c) / p(k | not c)),   p by counting, α added to each count

    Where a sequence's own label is given, it is taken out of the counts first: what the network sees in training is what it
    will see of a sequence that was never counted.

    Args: vocabulary: of the tokens. classes: C. alpha: α.
    Source: Wang, Manning (2012), equations 1 to 3; the leaving out is ours.
    """

    def __init__(self, vocabulary: int, classes: int, alpha: float = 1.0) -> None:
        super().__init__()
        self.vocabulary, self.alpha = vocabulary, alpha
        self.register_buffer("tokens", torch.zeros(vocabulary, classes))
        self.register_buffer("pairs", torch.zeros(BUCKETS, classes))

    tokens: Tensor
    pairs: Tensor

    def count(self, batches: Iterable[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Count sequences: (tokens [T, B], lengths [B], labels [B])."""
        for tokens, lengths, labels in batches:
            for table, (kinds, once) in zip((self.tokens, self.pairs), self._kinds(tokens, lengths), strict=True):
                owners = once.nonzero()[:, 1]
                table.index_put_((kinds[once], labels[owners]), torch.ones(len(owners)), accumulate=True)

    def forward(self, tokens: Tensor, lengths: Tensor, labels: Tensor | None = None) -> Tensor:
        """tokens [T, B], lengths [B], labels [B] or None. Returns: r of tokens and of pairs, [B, 2 C]."""
        out = []
        for table, (kinds, once) in zip((self.tokens, self.pairs), self._kinds(tokens, lengths), strict=True):
            counts = table[kinds]  # [T, B, C]
            if labels is not None:
                own = nn.functional.one_hot(labels, table.shape[1]).to(counts)
                counts = (counts - own * once.unsqueeze(-1)).clamp(min=0)
            known = (counts.sum(-1, keepdim=True) > 0) & once.unsqueeze(-1)
            totals = table.sum(0) + self.alpha * len(table)
            rest, rest_totals = counts.sum(-1, keepdim=True) - counts, totals.sum() - totals
            ratio = ((counts + self.alpha) / totals).log() - ((rest + self.alpha) / rest_totals).log()
            out.append((ratio * known).sum(0))
        return torch.cat(out, -1)

    def _kinds(self, tokens: Tensor, lengths: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The kinds of each sequence, [T, B], sorted, and which of them stand there for the first time."""
        place = torch.arange(len(tokens), device=tokens.device).unsqueeze(1)
        pairs = (tokens[:-1] * 1_000_003 + tokens[1:] * 7_919) % BUCKETS
        found = []
        for kinds, real in ((tokens, place < lengths), (pairs, place[1:] < lengths)):
            nothing = self.vocabulary + BUCKETS  # sorts behind all others
            ordered = kinds.masked_fill(~real, nothing).sort(0).values
            once = ordered != nothing
            if len(ordered):
                once[1:] &= ordered[1:] != ordered[:-1]
            found.append((ordered.masked_fill(ordered == nothing, 0), once))
        return found
