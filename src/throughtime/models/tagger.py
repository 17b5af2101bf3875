"""A tag for every word of a sentence.

Shapes: T words, B sentences, U different words of a batch, L their characters, K tags, N hidden.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from throughtime.models.encoder import UNKNOWN
from throughtime.models.stacks import SequenceDropout, stack_of, widened
from throughtime.scanning import scan


class Crf(nn.Module):
    """A score for every tag after every other, so that the tags of a sentence are chosen together.

        p(y | x) = exp(sum_t e_t[y_t] + A[y_{t-1}, y_t]) / Z

    Source: Lafferty et al. (2001); over a recurrent network: Huang et al. (2015).
    """

    def __init__(self, tags: int) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.zeros(tags))
        self.last = nn.Parameter(torch.zeros(tags))
        self.after = nn.Parameter(torch.zeros(tags, tags))

    def nats(self, scores: Tensor, lengths: Tensor, tags: Tensor) -> Tensor:
        """-log p of the tags of each sentence, whatever those that are not given. scores [T, B, K], lengths [B], tags
        [T, B], under 0 where not given. Returns: [B]."""
        lengths = lengths.clamp(min=1)  # an empty sentence is one of a word whose tag is not given
        real = torch.arange(scores.shape[0], device=scores.device).unsqueeze(1) < lengths
        total = self._all_ways(scores, lengths)
        open_ = real & (tags < 0)
        if bool(open_.any()):  # all ways that go through the tags that are given
            others = F.one_hot(tags.clamp(min=0), scores.shape[-1]) == 0
            return total - self._all_ways(scores.masked_fill(others & ~open_.unsqueeze(-1), -torch.inf), lengths)
        ends, tags = (lengths - 1).unsqueeze(0), tags.clamp(min=0)
        path = scores.gather(-1, tags.unsqueeze(-1)).squeeze(-1)
        path[1:] = path[1:] + self.after[tags[:-1], tags[1:]]
        gold = (path * real).sum(0) + self.first[tags[0]] + self.last[tags.gather(0, ends)[0]]
        return total - gold

    def _all_ways(self, scores: Tensor, lengths: Tensor) -> Tensor:
        """log of the sum over all ways through a sentence, [B]."""
        _, total, _ = scan(
            _Sum(self.after), scores[1:], self.first + scores[0], lengths=lengths - 1, backend="reference"
        )
        assert isinstance(total, Tensor)
        return (total + self.last).logsumexp(-1)

    def best(self, scores: Tensor, lengths: Tensor) -> Tensor:
        """The likeliest tags, [T, B], by the algorithm of Viterbi (1967)."""
        lengths = lengths.clamp(min=1)
        step = _Best(self.after)
        before, top, _ = scan(step, scores[1:], self.first + scores[0], lengths=lengths - 1, backend="reference")
        assert isinstance(top, Tensor)
        tag = (top + self.last).argmax(-1, keepdim=True)
        way, _, _ = scan(_Back(), before, tag.to(scores.dtype), lengths=lengths - 1, reverse=True, backend="reference")
        out = torch.cat([way, way.new_zeros(1, *tag.shape)])
        out[lengths - 1, torch.arange(lengths.shape[0], device=out.device)] = tag.to(out.dtype)
        return out.squeeze(-1).long()


class _Sum(nn.Module):
    """log of the sum over all ways to each tag."""

    def __init__(self, after: Tensor) -> None:
        super().__init__()
        self.after = after

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        return x + (state.unsqueeze(-1) + self.after).logsumexp(-2)


class _Best(nn.Module):
    """The tag that the best way to each tag comes from, and the score of that way."""

    def __init__(self, after: Tensor) -> None:
        super().__init__()
        self.after = after

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        top = (state.unsqueeze(-1) + self.after).max(-2)
        return top.indices.to(x.dtype), x + top.values


class _Back(nn.Module):
    """The tag before, of each tag's best way: from the last back to the first."""

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        return x.gather(-1, state.long())


class Tagger(nn.Module):
    """Word embeddings beside what a recurrent network makes of a word's characters; a stack over the sentence; a tag for
    each word.

    Args: words, characters, tags: how many there are. cell: a name in `throughtime.cells.NAMED`, or "none": no memory of other
        words. hidden_size: of the stack, in each direction. embedding_size: of words. character_size: of the network
        over characters, in each direction. layers: of the stack. dropout: on what goes into and out of it.
        crf: choose the tags of a sentence together. kind: "transformer" puts one of as many parameters in the place of the stack.
    Source: the two levels after Ling et al. (2015) and Plank et al. (2016).
    """

    def __init__(  # noqa: PLR0913
        self,
        words: int,
        characters: int,
        tags: int,
        *,
        cell: str,
        hidden_size: int,
        embedding_size: int,
        character_size: int,
        layers: int,
        dropout: float,
        crf: bool,
        kind: str = "recurrent",
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(words, embedding_size)
        nn.init.normal_(self.words.weight, std=0.1)
        self.characters = nn.Embedding(characters, character_size)
        spelling = "lstm" if cell == "none" else cell  # a word's letters are one step of the sentence
        self.spelling = stack_of(spelling, character_size, character_size, 1, True, 0.0)
        width = embedding_size + self.spelling.output_size
        self.stack = stack_of(cell, width, hidden_size, layers, True, dropout, kind)
        self.dropout = SequenceDropout(dropout)
        self.output = nn.Linear(self.stack.output_size, tags)
        self.crf = Crf(tags) if crf else None
        self.rarity = torch.zeros(words)  # how often each word is read as unknown in training

    def scores(self, words: Tensor, lengths: Tensor, index: Tensor, spelt: Tensor, spelt_lengths: Tensor) -> Tensor:
        """words [T, B]; lengths [B]; index [T, B] into the different words, spelt [L, U]. Returns: [T, B, K]."""
        if self.training:
            words = words.masked_fill(
                torch.rand(words.shape, device=words.device) < self.rarity.to(words.device)[words], UNKNOWN
            )
        letters, _ = self.spelling(self.characters(spelt), lengths=spelt_lengths)
        ends = (spelt_lengths - 1).clamp(min=0)
        n = letters.shape[-1] // 2
        of_word = torch.cat([letters[ends, torch.arange(ends.shape[0], device=ends.device), :n], letters[0, :, n:]], -1)
        x = self.dropout(torch.cat([self.words(words), of_word[index]], -1))
        hidden, _ = self.stack(x, lengths=lengths)
        return self.output(self.dropout(hidden))  # type: ignore[no-any-return]

    def nats(self, scores: Tensor, lengths: Tensor, tags: Tensor) -> tuple[Tensor, Tensor]:
        """-log p of tags [T, B] by their scores [T, B, K], summed over those that are given (from 0 on), and how many these are."""
        real = (torch.arange(scores.shape[0], device=scores.device).unsqueeze(1) < lengths) & (tags >= 0)
        if self.crf is not None:
            return self.crf.nats(widened(scores), lengths, tags).sum(), real.sum()
        nats = F.cross_entropy(scores.flatten(0, 1), tags.clamp(min=0).flatten(), reduction="none").view_as(tags)
        return (nats * real).sum(), real.sum()

    def best(self, scores: Tensor, lengths: Tensor) -> Tensor:
        """The likeliest tags, [T, B]."""
        return scores.argmax(-1) if self.crf is None else self.crf.best(scores, lengths)

    def forward(self, batch: Any, state: None) -> tuple[Tensor, Tensor, None]:
        """(words, lengths, index, spelt, their lengths, tags [T, B]): nats summed over the words, how many they are."""
        *given, tags = batch
        return *self.nats(self.scores(*given), given[1], tags), None
