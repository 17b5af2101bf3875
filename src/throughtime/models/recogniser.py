"""What is said in features of speech.

Shapes: T frames, F features of a frame, K frames that a step sees, S steps of the network, L units, B batch, N hidden, U units
in all, of which 0 is the blank.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from throughtime.layers import Attention
from throughtime.layers.dropout import Dropout
from throughtime.models.stacks import SequenceDropout, recurrent, stack_of, widened

SMOOTHING = 0.1  # of what the decoder is to write
MASKS = 2  # of each kind, in an utterance
WIDEST = 16  # bins of a mask, at most
LONGEST = 25  # frames of a mask, at most, and no more than a fifth of the utterance


class Speech(NamedTuple):
    """Utterances side by side: normalised features [T, B, F], how many frames of each are real [B]; what is said, [L, B], and how
    many units that is [B]."""

    features: Tensor
    lengths: Tensor
    units: Tensor
    unit_lengths: Tensor


class Noise(NamedTuple):
    """What is done to features in training. masks: how large those are that hide bins and frames, 1: as `WIDEST` and `LONGEST` say
    (Park et al. 2019). deviation: of noise on normalised features, at most, another of each utterance."""

    masks: float
    deviation: float

    def __call__(self, features: Tensor, lengths: Tensor) -> Tensor:
        """features [T, B, F], lengths [B]. Returns: others of this shape."""
        frames, batch, bins = features.shape
        if self.deviation:
            wide = self.deviation * torch.rand(batch, 1, device=features.device)
            features = features + wide * torch.randn_like(features)
        for _ in range(MASKS if self.masks else 0):
            widest = torch.full_like(lengths, WIDEST, dtype=torch.float32)
            features = features * self._keep(bins, bins, widest).t().unsqueeze(0)
            features = features * self._keep(frames, lengths, (lengths / 5).clamp(max=LONGEST)).unsqueeze(-1)
        return features

    def _keep(self, count: int, within: Any, widest: Tensor) -> Tensor:
        """0 in a random stretch of each column, else 1, [count, B]."""
        wide = torch.rand_like(widest) * widest * self.masks
        start = torch.rand_like(widest) * (within - wide).clamp(min=0)
        place = torch.arange(count, device=widest.device).unsqueeze(1)
        kept: Tensor = (place < start) | (place >= start + wide)
        return kept.to(torch.float32)


class Sizes(NamedTuple):
    """features: F. units: U, or how many classes else are told apart. stride: frames from step to step. before, after: frames that
    a step sees beside that at its place. ahead: steps after its own that an answer waits for. heard: features that are read, from
    the first on; None: all."""

    features: int
    units: int
    stride: int
    before: int
    after: int
    ahead: int = 0
    heard: int | None = None


class Front(nn.Module):
    """Some frames make a step, and a stack of cells reads the steps.

        e_s = relu(W_e [x_{rs - before}; …; x_{rs + after}] + b_e);  h = stack(e);  h'_s = Σ_k w_k ⊙ h_{s + k}

    r is the stride; k goes from 0 to `ahead`, which is 0 where the stack reads from both ends.

    Args: cell, hidden_size, layers, bidirectional, dropout, kind: of the stack, as in `stack_of`. noise: on features, in training.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        cell: str,
        hidden_size: int,
        layers: int,
        bidirectional: bool,
        dropout: float,
        kind: str = "recurrent",
        noise: Noise | None = None,
    ) -> None:
        super().__init__()
        self.sizes, self.noise = sizes, noise or Noise(0.0, 0.0)
        width = sizes.before + 1 + sizes.after
        self.inner = nn.Linear((sizes.heard or sizes.features) * width, hidden_size)
        # alignments are found sooner where each step has a mask of its own
        self.stack = stack_of(cell, hidden_size, hidden_size, layers, bidirectional, dropout, kind, variational=False)
        self.dropout = Dropout(dropout)
        self.ahead = Ahead(self.stack.output_size, sizes.ahead) if sizes.ahead else nn.Identity()

    def steps(self, frames: Any) -> Any:
        """How many steps so many frames are."""
        return (frames + self.sizes.stride - 1) // self.sizes.stride

    def read(self, features: Tensor) -> Tensor:
        """The frames [T, B, F] that each step sees, all there is to be seen, as the stack reads them, [S, B, N]."""
        width = self.sizes.before + 1 + self.sizes.after
        seen = features[..., : self.sizes.heard].unfold(0, width, self.sizes.stride)  # [S, B, F, K]
        return torch.relu(self.inner(seen.flatten(2)))

    def hidden(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features [T, B, F], lengths [B]. Returns: h [S, B, N], and how many steps of each are real [B]."""
        missing = self.steps(features.shape[0]) * self.sizes.stride - features.shape[0]
        padded = F.pad(features, (0, 0, 0, 0, self.sizes.before, self.sizes.after + missing))
        real = self.steps(lengths)
        return self.dropout(self.ahead(self.stack(self.read(padded), lengths=real)[0])), real


class Ahead(nn.Module):
    """What a step says, of its own output and those of the steps that come next: h'_s = Σ_k w_k ⊙ h_{s + k}, k from 0 to K.

    Source: the row convolution of Amodei et al. (2016), section 3.7.
    """

    def __init__(self, size: int, steps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(steps + 1, size))
        nn.init.ones_(self.weight[0])

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden [S, B, N]. Returns: [S, B, N]; past the end is nothing."""
        steps = self.weight.shape[0] - 1
        padded = F.pad(hidden, (0, 0, 0, 0, 0, steps))
        return torch.stack([w * padded[k : k + hidden.shape[0]] for k, w in enumerate(self.weight)]).sum(0)


class Recogniser(Front):
    """The probabilities of the units at each step of a `Front`, for CTC.

        p_s = softmax(W_o h_s + b_o)

    Beside it, in training, a decoder that attends to h and writes the units one after another, so that h says more than where units
    are; its loss counts for `attention`, that of CTC for the rest.

    Args: attention: 0 to 1; 0: no decoder. others: of `Front`.
    Source: Graves et al. (2006); the two losses together, Kim et al. (2017).
    """

    def __init__(
        self, sizes: Sizes, *, cell: str, hidden_size: int, dropout: float, attention: float = 0.0, **front: Any
    ):
        super().__init__(sizes, cell=cell, hidden_size=hidden_size, dropout=dropout, **front)
        self.attention = attention
        self.output = nn.Linear(self.stack.output_size, sizes.units)
        self.decoder = (
            _Decoder("gru" if cell == "none" else cell, self.stack.output_size, hidden_size, sizes.units, dropout)
            if attention
            else None
        )

    def log_probabilities(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Log p of each unit at each step, [S, B, U], and how many steps of each are real [B]."""
        hidden, real = self.hidden(features, lengths)
        return self.output(hidden).log_softmax(-1), real

    def forward(self, batch: Speech, state: None) -> tuple[Tensor, Tensor, None]:
        """-log p of all units of what is said, in training with the decoder's, and how many units these are."""
        return self.learned(batch)[0], batch.unit_lengths.sum(), None

    def learned(self, batch: Speech) -> tuple[Tensor, Tensor, Tensor]:
        """-log p as of `forward`; log p of each unit at each step, [S, B, U], and how many steps are real [B]."""
        features = self.noise(batch.features, batch.lengths) if self.training else batch.features
        hidden, real = self.hidden(features, batch.lengths)
        log_p = widened(self.output(hidden)).log_softmax(-1)
        nats = ctc(log_p, real, batch)
        if self.training and self.decoder is not None:
            written = self.decoder(hidden, real, batch.units, batch.unit_lengths)
            nats = (1 - self.attention) * nats + self.attention * written
        return nats, log_p, real


class Recognisers(nn.Module):
    """Several recognisers of one kind, trained beside each other; at each step a unit is as likely as they say in the geometric
    mean.

    Half of the loss is theirs, each by itself, so that none relies on the others; half is that of their mean, so that they say a
    unit at the same step: what one says where the others are still silent would be lost in it. In an arithmetic mean they may go
    on saying it at two steps, since what is next to impossible has next to no gradient there.

    Args: make: makes one of them. members: how many.
    """

    def __init__(self, make: Callable[[], Recogniser], members: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(make() for _ in range(members))
        self.sizes: Sizes = self.members[0].sizes  # type: ignore[assignment]

    def log_probabilities(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """As of `Recogniser`."""
        every = [member.log_probabilities(features, lengths) for member in self.members]  # type: ignore[operator]
        return _mean([log_p for log_p, _ in every]), every[0][1]

    def forward(self, batch: Speech, state: None) -> tuple[Tensor, Tensor, None]:
        """As of `Recogniser`: of the mean, in training by half."""
        every = [member.learned(batch) for member in self.members]  # type: ignore[operator]
        nats = ctc(_mean([log_p for _, log_p, _ in every]), every[0][2], batch)
        if self.training:
            nats = (nats + torch.stack([own for own, _, _ in every]).mean()) / 2
        return nats, batch.unit_lengths.sum(), None


def _mean(log_p: list[Tensor]) -> Tensor:
    """log of the geometric mean of probabilities, which are 1 together again."""
    return torch.stack(log_p).mean(0).log_softmax(-1)


def ctc(log_p: Tensor, real: Tensor, said: Speech) -> Tensor:
    """-log p of all that is said, of the probabilities [S, B, U] at so many steps [B]."""
    return F.ctc_loss(log_p, said.units.t(), real, said.unit_lengths, reduction="sum")


class _Decoder(nn.Module):
    """Writes units while it attends to what was heard. The blank, which is never written, begins and ends."""

    def __init__(self, cell: str, heard: int, size: int, units: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(units, size // 2)
        self.stack = recurrent(cell, size // 2, size)
        self.attention = Attention(self.stack.output_size, heard, "additive")
        self.dropout = SequenceDropout(dropout)
        self.output = nn.Linear(self.stack.output_size + heard, units)

    def forward(self, hidden: Tensor, real: Tensor, units: Tensor, lengths: Tensor) -> Tensor:
        """-log p of the units [L, B] and their ends, summed, after h [S, B, N]."""
        nothing = units.new_zeros(1, units.shape[1])
        goals = torch.cat([units, nothing])
        written, _ = self.stack(self.dropout(self.embedding(torch.cat([nothing, units]))))
        context, _ = self.attention(written, self.attention.remember(hidden, real.clamp(min=1)))
        logits = self.output(self.dropout(torch.cat([written, context], -1)))
        past = torch.arange(goals.shape[0], device=goals.device).unsqueeze(1) > lengths
        goals = goals.masked_fill(past, -100)
        return F.cross_entropy(
            logits.flatten(0, 1), goals.flatten(), ignore_index=-100, reduction="sum", label_smoothing=SMOOTHING
        )
