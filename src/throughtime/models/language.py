"""A recurrent language model: what comes next, given all that came before.

Shapes: T time, B batch, E embedding, N hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from throughtime.layers import Recurrent
from throughtime.layers.dropout import Dropout
from throughtime.layers.recurrent import Stack
from throughtime.models.stacks import embedded, recurrent, widened
from throughtime.models.transformer import TransformerWindow, matched, parameters_of

START = 1  # begins a document: read, never predicted; before it the state is the initial one


class LanguageModel(nn.Module):
    """Embedding, a stack of recurrent cells, and a distribution over the next token.

    Reading START puts the initial state back, so that no document leaks into the next.

    Args:
        vocabulary: V. cell: a name in `throughtime.cells.NAMED`. hidden_size: N. embedding_size: E. layers: of the stack.
        dropout: on what goes into and out of every layer. recurrent_dropout, weight_dropout, zoneout: as in `Recurrent`.
        tied: the output weights are the embedding (Press, Wolf 2017; Inan et al. 2017).
        cutoffs: where given, the output is an adaptive softmax (Grave et al. 2017) over entries sorted by frequency, with
            these borders between its parts: the same exact distribution for a large V, much sooner. It is not tied.
        window: where given, a Transformer of as many parameters, that sees so many steps back, stands in the place of the stack.
    """

    def __init__(  # noqa: PLR0913
        self,
        vocabulary: int,
        cell: str,
        hidden_size: int,
        embedding_size: int,
        layers: int = 1,
        *,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        zoneout: float = 0.0,
        tied: bool = True,
        cutoffs: tuple[int, ...] = (),
        window: int | None = None,
    ) -> None:
        super().__init__()
        self.settings = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        self.embedding_size = embedding_size
        self.embedding = nn.Embedding(vocabulary, embedding_size)
        nn.init.normal_(self.embedding.weight, std=embedding_size**-0.5)
        self.stack: Recurrent | TransformerWindow = recurrent(
            cell,
            embedding_size,
            hidden_size,
            layers,
            dropout=dropout if layers > 1 else 0.0,
            recurrent_dropout=recurrent_dropout,
            weight_dropout=weight_dropout,
            zoneout=zoneout,
            residual=layers > 1,
        )
        if window is not None:
            sizes, like, depth = embedding_size, parameters_of(self.stack), max(layers, 2)
            found = matched(lambda size: TransformerWindow(sizes, size, depth, dropout, window), like)
            assert isinstance(found, TransformerWindow)
            self.stack = found
        self.dropout = Dropout(dropout)
        width = self.stack.output_size
        self.project: nn.Module = nn.Identity()
        if tied and not cutoffs and width != embedding_size:
            self.project = nn.Linear(width, embedding_size, bias=False)
            width = embedding_size
        self.output: nn.Linear | nn.AdaptiveLogSoftmaxWithLoss
        if cutoffs:
            # each part a fourth as wide as the one before, as in the paper, but never narrower than 16
            divide = max(1.0, min(4.0, (width / 16) ** (1 / len(cutoffs))))
            self.output = nn.AdaptiveLogSoftmaxWithLoss(width, vocabulary, list(cutoffs), div_value=divide)
        else:
            self.output = nn.Linear(width, vocabulary)
            nn.init.zeros_(self.output.bias)
            if tied:
                self.output.weight = self.embedding.weight

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> LanguageModel:
        """One of the `settings` of another, as JSON may have held them."""
        return cls(**{**settings, "cutoffs": tuple(settings["cutoffs"])})

    def forward(self, batch: tuple[Tensor, Tensor], state: Stack | None) -> tuple[Tensor, Tensor, Stack]:
        """Score a batch: (inputs, targets), each [T, B].

        Returns: nats summed over the targets that count (all but START); how many they are; the state to go on from.
        """
        nats, state = self.nats(*batch, state)
        return nats.sum(), (batch[1] != START).sum(), state

    def nats(self, inputs: Tensor, targets: Tensor, state: Stack | None) -> tuple[Tensor, Stack]:
        """-log p(target | all before), [T, B]; 0 where the target is START. And the state to go on from."""
        hidden, state = self._hidden(inputs, state)
        counts = targets != START
        if isinstance(self.output, nn.AdaptiveLogSoftmaxWithLoss):
            safe = torch.where(counts, targets, torch.zeros_like(targets))
            nats = _adaptive_nats(self.output, hidden.flatten(0, 1), safe.flatten())
        else:
            logits = self.output(hidden).flatten(0, 1)
            nats = F.cross_entropy(logits, targets.flatten(), reduction="none")
        return torch.where(counts, nats.view_as(targets), 0.0), state

    def log_probabilities(self, tokens: Tensor) -> Tensor:
        """log p of what comes after each of the tokens [T, B], from the beginning: [T, B, V]."""
        hidden, _ = self._hidden(tokens, None)
        return self.log_p(hidden)

    def read(self, tokens: Tensor, state: Stack | None) -> tuple[Tensor, Stack]:
        """Read tokens [T, B]; returns log p of what comes next in every stream, [B, V], and the state to go on from."""
        hidden, state = self._hidden(tokens, state)
        return self.log_p(hidden[-1]), state

    def embedded(self, tokens: Tensor) -> Tensor:
        """What the stack is given for tokens: the embedding, drawn small for the output that shares it, at unit scale (Vaswani et
        al. 2017, section 3.4)."""
        return embedded(self.embedding, tokens)

    def log_p(self, hidden: Tensor) -> Tensor:
        """log p of what comes next, [..., V], of what `project` gives, [..., E]."""
        if isinstance(self.output, nn.AdaptiveLogSoftmaxWithLoss):
            found: Tensor = self.output.log_prob(hidden.reshape(-1, hidden.shape[-1]))
            return found.view(*hidden.shape[:-1], -1)
        logits: Tensor = self.output(hidden)
        return logits.log_softmax(-1)

    def _hidden(self, tokens: Tensor, state: Stack | None) -> tuple[Tensor, Stack]:
        starts = tokens == START
        begins = torch.compiler.is_exporting() or bool(starts.any())  # a graph does not look at numbers
        output, state = self.stack(self.dropout(self.embedded(tokens)), state, resets=starts if begins else None)
        return self.project(self.dropout(output)), state


def _adaptive_nats(output: nn.AdaptiveLogSoftmaxWithLoss, hidden: Tensor, targets: Tensor) -> Tensor:
    """-log p of targets [R] by an adaptive softmax of hidden [R, N]: what its `forward` gives, but in autocast too, where that puts
    parts of two types into one tensor."""
    first, borders = output.shortlist_size, output.cutoffs
    # 0: among the most frequent
    part = torch.bucketize(targets, torch.tensor(borders, device=targets.device), right=True)
    heads = torch.where(part == 0, targets, first + part - 1)
    nats = F.cross_entropy(widened(output.head(hidden)), heads, reduction="none")
    for i, tail in enumerate(output.tail):
        (rows,) = (part == i + 1).nonzero(as_tuple=True)
        logits = widened(tail(hidden[rows]))
        nats = nats.index_add(0, rows, F.cross_entropy(logits, targets[rows] - borders[i], reduction="none"))
    return nats
