"""What words add to the score of a hypothesis, as its units spell them."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Protocol

from throughtime.decode.trie import ROOT, Trie


class WordModel(Protocol):
    """How likely a word is after the words before it. A state stands for these: hashable, never changed, and equal to another
    only where every word is as likely after both, for a search keeps the better of two hypotheses in one state."""

    def begin(self) -> Any:
        """The state at the beginning of an utterance."""

    def score(self, state: Any, word: str) -> tuple[float, Any]:
        """log P(word | state), natural, and the state after the word."""

    def end(self, state: Any) -> float:
        """log P(the utterance ends | state), natural."""


class Place:
    """Where a hypothesis stands among the words.

    node: of the trie, the root between words. whole: what the whole words before add to the score. state: of the model,
    after these. added: what they add and the begun word is expected to.
    """

    __slots__ = ("added", "ended", "node", "state", "whole")

    def __init__(self, node: int, whole: float, state: Hashable, added: float) -> None:
        self.node, self.whole, self.state, self.added = node, whole, state, added
        self.ended: tuple[float, Hashable] | None = None  # what `Lexicon.end_word` gave


class Lexicon:
    """The words that may be written, and what they add to the score of a hypothesis.

        Σ over words (weight · log P(word | words before) + bonus), and at the end weight · log P(end | words)

    Before the end of a word its part is expected to be weight · `trie.best` + bonus: a model wants a trie made with its prior.
    """

    def __init__(self, trie: Trie, model: WordModel | None = None, *, weight: float = 1.0, bonus: float = 0.0) -> None:
        """Args: model: of the words of `trie`; None: log P is 0. weight: of log P. bonus: of each word, in nats."""
        self.trie, self.model, self.weight, self.bonus = trie, model, weight, bonus

    def begin(self) -> Place:
        """At the beginning of an utterance."""
        return Place(ROOT, 0.0, None if self.model is None else self.model.begin(), 0.0)

    def step(self, place: Place, unit: int) -> Place | None:
        """After one more unit; None where no word goes on so, or the one begun is not whole and would have to be."""
        trie = self.trie
        if unit == trie.separator:
            ended = None if place.node == ROOT else self.end_word(place)
            return ended and Place(ROOT, *ended, ended[0])
        begins = unit in trie.starts
        node = trie.follow(ROOT if begins else place.node, unit)
        if node is None:
            return None
        ended = self.end_word(place) if begins else (place.whole, place.state)
        return ended and Place(node, *ended, ended[0] + self.weight * trie.best[node] + self.bonus)

    def end_word(self, place: Place) -> tuple[float, Hashable] | None:
        """What the whole words add and the state after them, if the last ends here; None where it is unfinished."""
        if place.node == ROOT:
            return place.whole, place.state
        word = self.trie.word[place.node]
        if place.ended is None and word is not None:  # the model is asked once
            log_p, state = (0.0, None) if self.model is None else self.model.score(place.state, word)
            place.ended = place.whole + self.weight * log_p + self.bonus, state
        return place.ended

    def end(self, place: Place) -> float | None:
        """What all words and the end of the utterance add; None where the last word is unfinished."""
        ended = self.end_word(place)
        if ended is None or self.model is None:
            return ended and ended[0]
        return ended[0] + self.weight * self.model.end(ended[1])
