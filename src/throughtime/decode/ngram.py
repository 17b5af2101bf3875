"""How likely a word is after the words before it, counted in transcripts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from throughtime.errors import UserError

Gram = tuple[str, ...]
# no words, for they hold a space
BEGIN, END, UNKNOWN = " begin", " end", " unknown"
LEAST, MOST = 0.1, 0.9  # between which a discount lies, however few the transcripts


@dataclass(frozen=True)
class NGram:
    """Words after up to order - 1 words: interpolated Kneser-Ney, with a share for words that were never seen.

        p(w | c) = max(n(c w) - D, 0) / n(c) + D · N(c) / n(c) · p(w | c'),    p(w | no context left) = 1 / V

    n counts, of the longest n-grams and those from the beginning of a transcript how often they stand in the transcripts,
    of others how many different words stand before them; N(c) is how many different words follow the context c; c' is c
    without its oldest word; D = n_1 / (n_1 + 2 n_2) of each length, n_k how many n-grams are counted k times, and lies in
    0.1 to 0.9; V is the number of words seen, the end and the unknown word among them. A context never seen leaves
    p(w | c'). The end of a transcript is a word that is predicted, its beginning one that is context alone.

    States, for `score` and `end`, are tuples of the words before. Logarithms are natural.

    Source: Ney, Essen, Kneser (1994); interpolated as in Chen, Goodman (1999), sections 2.7 and 3.

    Args:
        order: the words of the longest n-grams, 1 or more; 1 heeds no word before.
        counts: of the longest n-grams that end at each word, and at the end, how often they stand in the transcripts.
        new: how many words never seen there may be; they share the probability of the unknown word evenly.
    """

    order: int
    counts: dict[Gram, int]
    new: int = 1
    _log_p: dict[Gram, float] = field(init=False, repr=False, compare=False)
    _log_rest: dict[Gram, float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.order < 1 or self.new < 1:
            raise ValueError(f"order and new are 1 or more, got {self.order} and {self.new}")
        if not self.counts:
            raise UserError("an n-gram needs at least one transcript; give some")
        log_p, log_rest = _interpolated(self.order, self.counts)
        object.__setattr__(self, "_log_p", log_p)
        object.__setattr__(self, "_log_rest", log_rest)

    @classmethod
    def of(cls, transcripts: Iterable[str], order: int = 4) -> NGram:
        """Count transcripts, whose words stand between white space.

        Raises: UserError where there is no transcript; ValueError where order is below 1.
        """
        counts: Counter[Gram] = Counter()
        for transcript in transcripts:
            words = (BEGIN, *transcript.split(), END)
            counts.update(words[max(0, k + 1 - order) : k + 1] for k in range(1, len(words)))
        return cls(order, dict(counts))

    @classmethod
    def load(cls, values: Any) -> NGram:
        """The n-gram that `values` gave. Raises: UserError where they are not such values."""
        try:
            counts = {tuple(map(str, words)): int(count) for *words, count in values["counts"]}
            return cls(int(values["order"]), counts)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"the values of an n-gram are damaged: {error}; train again") from error

    def values(self) -> dict[str, Any]:
        """All that `load` needs, to be written as JSON: the order, and each n-gram followed by its count."""
        return {"order": self.order, "counts": [[*gram, count] for gram, count in self.counts.items()]}

    @property
    def words(self) -> list[str]:
        """The words seen in the transcripts, in order of the alphabet."""
        return sorted({gram[-1] for gram in self.counts} - {END})

    def allowing(self, words: Iterable[str]) -> NGram:
        """The same model for a list of words: as many of them as it has never seen share the unknown word's probability."""
        return replace(self, new=max(1, len(set(words).difference(self.words))))

    def begin(self) -> Gram:
        """The state at the beginning of a transcript."""
        return (BEGIN,) if self.order > 1 else ()

    def score(self, state: Gram, word: str) -> tuple[float, Gram]:
        """log P(word | state), and the state after the word. A word never seen has its share of the unknown word's P."""
        known = (word,) in self._log_p
        if not known:
            word = UNKNOWN
        log_p = 0.0 if known else -math.log(self.new)
        context = state
        while (*context, word) not in self._log_p:
            log_p += self._log_rest.get(context, 0.0)
            context = context[1:]
        following = (*state, word)
        while following not in self._log_rest:  # longer than any context, or nothing has gone on from it
            following = following[1:]
        return log_p + self._log_p[*context, word], following

    def end(self, state: Gram) -> float:
        """log P(the transcript ends | state)."""
        return self.score(state, END)[0]

    def prior(self, word: str) -> float:
        """log P(word), whatever stands before."""
        return self.score((), word)[0]

    def perplexity(self, transcripts: Iterable[str]) -> float:
        """exp of the mean -log P of the words of transcripts and of their ends; unknown words count as `score` has them."""
        total, count = 0.0, 0
        for transcript in transcripts:
            state = self.begin()
            for word in (*transcript.split(), END):
                log_p, state = self.score(state, word)
                total, count = total - log_p, count + 1
        return math.exp(total / count) if count else math.nan


def _interpolated(order: int, counts: dict[Gram, int]) -> tuple[dict[Gram, float], dict[Gram, float]]:
    """log p of every n-gram seen, and of every context what its shorter one's probabilities are weighted by."""
    by_length = _counted(order, counts)
    log_p: dict[Gram, float] = {(): -math.log(len(by_length[0]) + 1)}
    log_rest: dict[Gram, float] = {}
    for n_gram in by_length:
        how_often = Counter(n_gram.values())
        discount = min(max(how_often[1] / max(how_often[1] + 2 * how_often[2], 1), LEAST), MOST)
        total: Counter[Gram] = Counter()
        types: Counter[Gram] = Counter()
        for gram, n in n_gram.items():
            total[gram[:-1]] += n
            types[gram[:-1]] += 1
        rest = {context: discount * types[context] / total[context] for context in total}
        for gram, n in n_gram.items():
            context = gram[:-1]
            log_p[gram] = math.log((n - discount) / total[context] + rest[context] * math.exp(log_p[gram[1:]]))
        log_rest.update({context: math.log(share) for context, share in rest.items()})
    log_p[UNKNOWN,] = log_rest[()] + log_p[()]
    return log_p, log_rest


def _counted(order: int, counts: dict[Gram, int]) -> list[dict[Gram, int]]:
    """The counts of n-grams of each length from 1 on, as Kneser and Ney count them."""
    whole: list[Counter[Gram]] = [Counter() for _ in range(order)]
    for gram, count in counts.items():
        for length in range(1, len(gram) + 1):
            whole[length - 1][gram[-length:]] += count
    before = [Counter(gram[1:] for gram in longer) for longer in whole[1:]]
    return [
        {gram: fewer.get(gram, n) for gram, n in seen.items()}  # before those from the beginning there is none
        for seen, fewer in zip(whole, before, strict=False)
    ] + [dict(whole[-1])]
