"""A list of words as a tree of the units that spell them: what a search that stays within the list may write next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from throughtime.decode.ctc import BLANK, Array

ROOT = 0


class Trie:
    """Words, each spelled by units; those that begin alike share a path from the root.

    Where words end in a sequence of units is told in one of two ways: by units that begin a word (`starts`), or by a unit
    that stands between words (`separator`) and in none.

    Nodes are whole numbers, the root is 0. `word[node]` is the word whose last unit leads to a node, None within a word;
    `best[node]` is the greatest prior of the words at a node and below it.
    """

    def __init__(
        self,
        words: Mapping[str, Sequence[int]],
        *,
        starts: Array | None = None,
        separator: int | None = None,
        prior: Callable[[str], float] | None = None,
    ) -> None:
        """Args:
            words: of each word the units that spell it, none of them the blank 0.
            starts: [U], whether a unit begins a word: the first unit of each word must, no other may.
            separator: a unit that stands between words. Exactly one of the two is given.
            prior: log P(word) whatever stands before, for `best`; None: 0 for every word.
        Raises: ValueError where a word is spelled by no units, by units that are not a word's, or as another word is.
        """
        if (starts is None) == (separator is None):
            raise ValueError("where words end is told by starts or by separator; give one of them")
        self.separator = separator
        self.starts = frozenset() if starts is None else frozenset(u for u, begins in enumerate(starts) if begins)
        self.word: list[str | None] = [None]
        self.best = [-float("inf")]
        self._next: dict[int, int] = {}
        for word, units in words.items():
            self._add(word, units, 0.0 if prior is None else prior(word))

    def __len__(self) -> int:
        """How many nodes there are, the root among them."""
        return len(self.word)

    def follow(self, node: int, unit: int) -> int | None:
        """The node that `unit` leads to from `node`, or None where no word goes on so."""
        return self._next.get(node << 32 | unit)

    def _add(self, word: str, units: Sequence[int], prior: float) -> None:
        marked = self.separator is None
        begins = [unit in self.starts for unit in units]
        if not units or BLANK in units or self.separator in units or begins != [marked] + [False] * (len(units) - 1):
            rule = "its first unit alone begins a word" if marked else f"none is the separator {self.separator}"
            raise ValueError(f"{word!r} is spelled {list(units)}; a word has units, none is the blank 0, and {rule}")
        node = ROOT
        self.best[node] = max(self.best[node], prior)
        for unit in units:
            key = node << 32 | int(unit)
            node = self._next.setdefault(key, len(self.word))
            if node == len(self.word):
                self.word.append(None)
                self.best.append(prior)
            elif prior > self.best[node]:
                self.best[node] = prior
        if self.word[node] is not None:
            raise ValueError(f"{word!r} and {self.word[node]!r} are both spelled {list(units)}; leave one out")
        self.word[node] = word
