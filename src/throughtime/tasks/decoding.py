"""How the text is found that log probabilities of units say: greedily, by beam search, or among known words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from throughtime.decode.alignment import WordSpan, align, words_of
from throughtime.decode.ctc import best_path
from throughtime.decode.lexicon import Lexicon, WordModel
from throughtime.decode.ngram import NGram
from throughtime.decode.prefixes import PrefixBeam
from throughtime.decode.trie import Trie
from throughtime.errors import UserError
from throughtime.runs import SETTLED, Run
from throughtime.tasks.units import Units
from throughtime.tasks.worderrors import errors

Array = np.ndarray[Any, Any]
FILE, COUNTED = SETTLED, "words.json"
WEIGHTS = (0.1, 0.2, 0.35, 0.6)  # of log p of words, that are tried
BONUSES = (0.0, 1.0, 2.5)  # of each word, in nats
TRIED_ON = 4000  # steps of held-out speech, at most


@dataclass(frozen=True)
class Decoding:
    """Finds units in log probabilities.

    kind: "greedy", "beam" or "words". lexicon: of "words", the words there are and what they add. size: of the beam.
    """

    units: Units
    kind: str
    lexicon: Lexicon | None = None
    size: int = 16

    def beam(self) -> PrefixBeam:
        """A beam that reads a stream."""
        # without words the text that is kept of those that end alike is often not the likelier one
        return PrefixBeam(self.size, lexicon=self.lexicon, recombine=self.lexicon is not None)

    def found(self, log_p: Array) -> list[int]:
        """The units, [L], in log probabilities [S, U]."""
        if self.kind == "greedy":
            return [span.unit for span in best_path(log_p)]
        beam = self.beam()
        beam.advance(log_p)
        return beam.finish().units

    def text(self, log_p: Array) -> str:
        """What is said."""
        return self.units.text(self.found(log_p))

    def words(self, log_p: Array, units: Sequence[int] | None = None) -> list[WordSpan]:
        """The words that units, found here where None, spell, and the steps they stand in."""
        if units is None:
            units = self.found(log_p)
        spans = best_path(log_p) if self.kind == "greedy" else align(log_p, units) if units else []
        return words_of(spans, self.units.words(units))


def lexicon_of(
    units: Units, words: Sequence[str], model: WordModel, prior: Any, weight: float, bonus: float
) -> Lexicon:
    """The lexicon of some words. Raises: UserError where the units spell none of them."""
    spelled = {word: ids for word in words if (ids := units.spelled(word)) is not None}
    if not spelled:
        raise UserError("the units of this model spell none of the words; name others")
    return Lexicon(Trie(spelled, **boundaries(units), prior=prior), model, weight=weight, bonus=bonus)


def boundaries(units: Units) -> dict[str, Any]:
    """How a trie knows where words end."""
    return {"starts": None if units.starts is None else units.starts.tolist(), "separator": units.separator}


def chosen(units: Units, run: Run, log_probs: Sequence[Array], texts: Sequence[str]) -> Mapping[str, Any]:
    """Which way of decoding writes held-out texts with the fewest wrong words, and with what weights; of those that do as well
    the one that knows most, since other speakers are harder than these. Returns: kind, weight, bonus, and of each way its word
    error rate, as `FILE` holds it."""
    steps = np.cumsum([len(part) for part in log_probs])
    count = max(1, int(np.searchsorted(steps, TRIED_ON)))
    log_probs, texts = log_probs[:count], texts[:count]
    ngram = NGram.load(run.read_json(COUNTED))
    tried: list[tuple[float, float, dict[str, Any]]] = []

    def attempt(decoding: Decoding, **about: Any) -> None:
        found = errors([(text, decoding.text(part)) for text, part in zip(texts, log_probs, strict=True)])
        tried.append((found["wer"] or 0.0, found["cer"] or 0.0, {"kind": decoding.kind, **about}))

    attempt(Decoding(units, "greedy"))
    attempt(Decoding(units, "beam"))
    trie = lexicon_of(units, ngram.words, ngram, ngram.prior, 1.0, 0.0).trie
    for weight in WEIGHTS:
        for bonus in BONUSES:
            attempt(
                Decoding(units, "words", Lexicon(trie, ngram, weight=weight, bonus=bonus)), weight=weight, bonus=bonus
            )
    words = min(tried[2:], key=lambda one: one[:2])
    best = min((words, tried[1], tried[0]), key=lambda one: one[0])
    weights = {name: words[2][name] for name in ("weight", "bonus")}
    found = {one[2]["kind"]: round(one[0], 2) for one in (*tried[:2], words)}
    return {"kind": best[2]["kind"], **weights, "wer": found}
