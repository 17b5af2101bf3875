"""What plain counting says of a sequence's label, beside a network.

Shapes: T time, B batch, C classes, n kinds that stand in a sequence of the batch.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from throughtime.models.encoder import TokenBatch

BUCKETS = 1 << 17  # of pairs


class Counts(nn.Module):
    """Naive Bayes over the tokens of a sequence, over its pairs of neighbours and over the pieces its words are spelt with, each
    kind k counted once a sequence, and the same with learned weights w_k:

        r_kc = log (p(k | c) / p(k | not c)), less its mean over c;   p by counting, α added to each count
        said_c = sum over k of r_kc
        weighed_c = b_c + sum over k of w_k r_kc / |r|,   |r|² = width · sum over the k of its sort of mean_c r_kc²

    Where a sequence's own label is given, it is taken out of the counts of `said` first: what the network sees in training is
    what it will see of a sequence that was never counted. The weights want the counts as they are, and a penalty.

    Args: vocabulary: of the tokens. classes: C. pieces: how many there are; 0: none are counted. alpha: α.
    Attributes: width: how many sorts there are: tokens, pairs and perhaps pieces.
    Source: Wang, Manning (2012), equations 1 to 3, with logistic regression for the support vectors, each sort scaled for
        itself, and one weight for all classes; the leaving out is ours.
    """

    SCALE = 8.0  # of the weights: they learn that much faster than the network
    PENALTY = 4e-5  # on w², for each example

    def __init__(self, vocabulary: int, classes: int, pieces: int = 0, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha, self.width = alpha, 3 if pieces else 2
        sizes = {"tokens": vocabulary, "pairs": BUCKETS, **({"pieces": pieces} if pieces else {})}
        for name, size in sizes.items():
            self.register_buffer(name, torch.zeros(size, classes))
        self.weights = nn.ParameterList(torch.zeros(size) for size in sizes.values())
        self.bias = nn.Parameter(torch.zeros(classes))

    tokens: Tensor
    pairs: Tensor
    pieces: Tensor

    def count(self, batches: Iterable[tuple[TokenBatch, Tensor]]) -> None:
        """Count sequences: what is read, and labels [B]."""
        for read, labels in batches:
            for table, kinds, owners in self._kinds(read):
                table.index_put_((kinds, labels[owners]), torch.ones(owners.shape[0]), accumulate=True)

    def forward(self, read: TokenBatch, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What is read of B sequences, labels [B] or None. Returns: said, of each sort, [B, width, C]; weighed, [B, C]."""
        said = []
        weighed = self.bias.expand(read.tokens.shape[1], -1)
        for (table, kinds, owners), weights in zip(self._kinds(read), self.weights, strict=True):
            counts = table[kinds]  # [n, C]
            empty = torch.zeros_like(weighed)
            ratio = self._ratio(table, counts)
            square = ratio.new_zeros(empty.shape[0]).index_add(0, owners, ratio.square().mean(-1))
            weight = self.SCALE * weights[kinds] / (self.width * square.clamp(min=1e-12)).sqrt()[owners]
            weighed = weighed + empty.index_add(0, owners, ratio * weight.unsqueeze(-1))
            if labels is not None:
                own = nn.functional.one_hot(labels[owners], table.shape[1]).to(counts)
                ratio = self._ratio(table, (counts - own).clamp(min=0))
            said.append(empty.index_add(0, owners, ratio))
        return torch.stack(said, 1), weighed

    def penalty(self) -> Tensor:
        """What large weights cost for each example."""
        squares = [(self.SCALE * weights).square().sum() for weights in self.weights]
        return self.PENALTY * torch.stack(squares).sum()

    def _ratio(self, table: Tensor, counts: Tensor) -> Tensor:
        """r for the counts [n, C] of n kinds; 0 for a kind that was never counted."""
        known = counts.sum(-1, keepdim=True) > 0
        everything, added = table.sum(0), self.alpha * table.shape[0]
        rest, rest_everything = counts.sum(-1, keepdim=True) - counts, everything.sum() - everything
        here = (counts + self.alpha) / (everything + added)
        elsewhere = (rest + self.alpha) / (rest_everything + added)
        ratio = (here / elsewhere).log()
        return (ratio - ratio.mean(-1, keepdim=True)) * known

    def _kinds(self, read: TokenBatch) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Of each sort: its table, the kinds [n], each once a sequence, and whose they are [n]."""
        tokens, batch = read.tokens, read.tokens.shape[1]
        real = torch.arange(tokens.shape[0], device=tokens.device).unsqueeze(1) < read.lengths
        pairs = (tokens[:-1] * 1_000_003 + tokens[1:] * 7_919) % BUCKETS
        # of one nonzero each, since an exported graph does not know that two are as long
        here, after = real.nonzero(as_tuple=True), real[1:].nonzero(as_tuple=True)
        found = [(self.tokens, tokens[here], here[1]), (self.pairs, pairs[after], after[1])]
        if self.width == 3:
            assert read.spelt is not None
            index, pieces, starts = read.spelt
            words = index[here]
            sizes = starts.diff()[words]
            before = sizes.cumsum(0) - sizes  # where each word's begin in what follows
            which = torch.arange(words.shape[0], device=tokens.device).repeat_interleave(sizes)
            place = torch.arange(which.shape[0], device=tokens.device) + (starts[words] - before)[which]
            found.append((self.pieces, pieces[place], here[1][which]))
        once = [(table, torch.unique(kinds * batch + owners)) for table, kinds, owners in found]
        return [(table, both // batch, both - both // batch * batch) for table, both in once]
