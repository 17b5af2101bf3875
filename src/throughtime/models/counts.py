"""What plain counting says of a sequence's label, as features for a network.

Shapes: T time, B batch, C classes, n kinds that stand in a sequence of the batch.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from throughtime.models.reader import Read

BUCKETS = 1 << 17  # of pairs


class Counts(nn.Module):
    """Naive Bayes over the tokens of a sequence, over its pairs of neighbours and over the pieces its words are spelt with, each
    kind counted once a sequence:

        r_c = sum over kinds k of log (p(k | c) / p(k | not c)),   p by counting, α added to each count

    Where a sequence's own label is given, it is taken out of the counts first: what the network sees in training is what it
    will see of a sequence that was never counted.

    Args: vocabulary: of the tokens. classes: C. pieces: how many there are; 0: none are counted. alpha: α.
    Attributes: width: how many numbers it gives for each class.
    Source: Wang, Manning (2012), equations 1 to 3; the leaving out is ours.
    """

    def __init__(self, vocabulary: int, classes: int, pieces: int = 0, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha, self.width = alpha, 3 if pieces else 2
        self.register_buffer("tokens", torch.zeros(vocabulary, classes))
        self.register_buffer("pairs", torch.zeros(BUCKETS, classes))
        if pieces:
            self.register_buffer("pieces", torch.zeros(pieces, classes))

    tokens: Tensor
    pairs: Tensor
    pieces: Tensor

    def count(self, batches: Iterable[tuple[Read, Tensor]]) -> None:
        """Count sequences: what is read, and labels [B]."""
        for read, labels in batches:
            for table, kinds, owners in self._kinds(read):
                table.index_put_((kinds, labels[owners]), torch.ones(len(owners)), accumulate=True)

    def forward(self, read: Read, labels: Tensor | None = None) -> Tensor:
        """What is read of B sequences, labels [B] or None. Returns: r of each kind, [B, width, C]."""
        out = []
        for table, kinds, owners in self._kinds(read):
            counts = table[kinds]  # [n, C]
            if labels is not None:
                counts = (counts - nn.functional.one_hot(labels[owners], table.shape[1]).to(counts)).clamp(min=0)
            known = counts.sum(-1, keepdim=True) > 0
            totals = table.sum(0) + self.alpha * len(table)
            rest, rest_totals = counts.sum(-1, keepdim=True) - counts, totals.sum() - totals
            ratio = ((counts + self.alpha) / totals).log() - ((rest + self.alpha) / rest_totals).log()
            empty = ratio.new_zeros(read.tokens.shape[1], table.shape[1])
            out.append(empty.index_add(0, owners, ratio * known))
        return torch.stack(out, 1)

    def _kinds(self, read: Read) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Of each sort: its table, the kinds [n], each once a sequence, and whose they are [n]."""
        tokens, batch = read.tokens, read.tokens.shape[1]
        real = torch.arange(len(tokens), device=tokens.device).unsqueeze(1) < read.lengths
        column = torch.arange(batch, device=tokens.device).expand_as(tokens)
        pairs = (tokens[:-1] * 1_000_003 + tokens[1:] * 7_919) % BUCKETS
        found = [
            (self.tokens, tokens[real], column[real]),
            (self.pairs, pairs[real[1:]], column[1:][real[1:]]),
        ]
        if self.width == 3:
            assert read.spelt is not None
            index, pieces, starts = read.spelt
            words, owners = index[real], column[real]
            sizes = starts.diff()[words]
            before = sizes.cumsum(0) - sizes  # where each word's begin in what follows
            place = torch.arange(int(sizes.sum()), device=tokens.device) + (starts[words] - before).repeat_interleave(
                sizes
            )
            found.append((self.pieces, pieces[place], owners.repeat_interleave(sizes)))
        once = [(table, torch.unique(kinds * batch + owners)) for table, kinds, owners in found]
        return [(table, both // batch, both % batch) for table, both in once]
