"""What reads a sequence of tokens: an embedding, and a network with or without a memory above it.

Shapes: T time, B batch, E embedding, N hidden, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from throughtime.layers.dropout import Dropout
from throughtime.models.language import START, LanguageModel
from throughtime.models.stacks import SequenceDropout, embedded, stack_of

UNKNOWN = 0


class TokenBatch(NamedTuple):
    """A batch of sequences, as it is read.

    tokens [T, B], lengths [B]. spelt, where words are spelt: index [T, B] into the batch's different words, the pieces of all
    these words [P], where each word's begin [U + 1]. language: the tokens [T, B] as a language model numbers them.
    """

    tokens: Tensor
    lengths: Tensor
    spelt: tuple[Tensor, Tensor, Tensor] | None = None
    language: Tensor | None = None


class Encoder(nn.Module):
    """Embedding and a stack of recurrent cells.

    Args:
        vocabulary: V. cell: a name in `throughtime.cells.NAMED`, or "none": a network of the same shape without a memory, to
            compare with. hidden_size: N of each direction. embedding_size: E. layers: of the stack.
        bidirectional: read from both ends. dropout: on what goes into and out of every layer, one mask for a sequence.
        word_dropout: how often a token is read as unknown, in training. kind: "transformer" puts one of as many parameters in
            the place of the stack.
        language: a trained language model, whose embedding and states are read beside the embedding; it learns no more.
        pieces: how many pieces words are spelt with; a word's embedding is its own and the mean of its pieces'. 0: none.
    Attributes: output_size: the width of what it gives.
    """

    def __init__(  # noqa: PLR0913
        self,
        vocabulary: int,
        cell: str,
        hidden_size: int,
        embedding_size: int,
        layers: int = 1,
        *,
        bidirectional: bool = True,
        dropout: float = 0.0,
        word_dropout: float = 0.0,
        kind: str = "recurrent",
        language: LanguageModel | None = None,
        pieces: int = 0,
    ) -> None:
        super().__init__()
        self.language = None if language is None else Features(language, embedding_size)
        self.embedding = nn.Embedding(vocabulary, embedding_size)
        nn.init.normal_(self.embedding.weight, std=0.1)  # small, so that what is seldom seen says little
        self.word_dropout = word_dropout
        self.dropout = SequenceDropout(dropout)
        self.pieces = None
        if pieces:
            self.pieces = nn.EmbeddingBag(pieces, embedding_size, mode="mean", include_last_offset=True)
            nn.init.normal_(self.pieces.weight, std=0.1)
        width = embedding_size * (1 if self.language is None else 2)
        self.stack = stack_of(cell, width, hidden_size, layers, bidirectional, dropout, kind)
        self.output_size = self.stack.output_size
        self.directions = getattr(self.stack, "directions", 1)

    def forward(self, read: TokenBatch) -> Tensor:
        """Returns: [T, B, output_size]; past a sequence's length anything."""
        tokens = read.tokens
        if self.training and self.word_dropout:
            tokens = tokens.masked_fill(_some(tokens, self.word_dropout), UNKNOWN)
        x = self.embedding(tokens)
        if self.pieces is not None:
            assert read.spelt is not None
            index, pieces, starts = read.spelt
            spelt = self.pieces(pieces, starts)[index]
            if self.training and self.word_dropout:
                spelt = spelt.masked_fill(_some(tokens, self.word_dropout / 2).unsqueeze(-1), 0.0)
            x = x + spelt
        if self.language is not None:
            x = torch.cat([x, self.language(read.tokens if read.language is None else read.language)], -1)
        return self.dropout(self.stack(self.dropout(x), lengths=read.lengths)[0])  # type: ignore[no-any-return]


def _some(tokens: Tensor, rate: float) -> Tensor:
    """True for a random part of the tokens."""
    return torch.rand(tokens.shape, device=tokens.device) < rate


class Features(nn.Module):
    """What a language model makes of each token and all before it: its embedding beside its last layer's output, projected to
    `size` numbers. Source: after Peters et al. (2018), forwards alone."""

    SCALE = 0.2  # by that of the reader's own embedding: what it says of a task is small beside it

    def __init__(self, model: LanguageModel, size: int) -> None:
        super().__init__()
        self.embedding, self.stack = model.embedding, model.stack
        self.requires_grad_(False)
        self.dropout = Dropout(0.5)
        self.project = nn.Linear(model.embedding_size + self.stack.output_size, size)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [T, B]. Returns: [T, B, size]."""
        self.stack.eval()  # it is not trained: no noise
        with torch.no_grad():
            whole = torch.cat([torch.full_like(tokens[:1], START), tokens])
            x = embedded(self.embedding, whole)
            found = torch.cat([x[1:], self.stack(x)[0][1:]], -1)
        return self.project(self.dropout(found * self.SCALE))  # type: ignore[no-any-return]
