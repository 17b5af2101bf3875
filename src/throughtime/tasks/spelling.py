"""How texts of words become what a network reads: the vocabulary's numbers, and how each word is spelt.

Shapes: T time, B batch, U different words of a batch, P their pieces end to end.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from throughtime.runs import write_text
from throughtime.tasks.tokens import UNKNOWN, Tokens

if TYPE_CHECKING:
    from torch import Tensor

    from throughtime.models.encoder import TokenBatch
    from throughtime.tasks.batches import Sequences

SHORTEST, LONGEST = 3, 6  # letters in a piece, the word's borders counted
MOST = 50_000  # pieces


class Spelling:
    """The pieces that words are made of, numbered.

    Source: Bojanowski et al. (2017), section 3.2; ours are listed, not hashed: those that two words or more share.
    """

    def __init__(self, pieces: list[str]) -> None:
        self.pieces = pieces
        self._index = {piece: i for i, piece in enumerate(pieces)}
        self._known: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.pieces)

    @classmethod
    def learn(cls, words: Iterable[str]) -> Spelling:
        """Of the pieces of different words, those in two or more, the most frequent first."""
        counts = Counter(piece for word in words for piece in pieces_of(word))
        shared = [piece for piece, n in counts.most_common() if n > 1]
        if len(shared) > MOST:
            warnings.warn(
                f"of {len(shared):,} pieces that words share the {MOST:,} most frequent are read", stacklevel=2
            )
        return cls(shared[:MOST])

    def of(self, word: str) -> Any:
        """The numbers of a word's pieces, int64 [n]."""
        import numpy as np

        found = self._known.get(word)
        if found is None:
            numbers = [self._index[p] for p in pieces_of(word) if p in self._index]
            found = self._known[word] = np.array(numbers, dtype=np.int64)
        return found

    def spelt(self, block: Any, words: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        """The spelling of a block of words, given by their numbers [T, B] in `words`.

        Returns: index [T, B] into the different words; the pieces of all these, [P]; where each word's begin, [U + 1].
        """
        import numpy as np
        import torch

        different, index = np.unique(block, return_inverse=True)
        parts = [self.of(words[i]) for i in different]
        starts = np.cumsum([0, *map(len, parts)])
        return (
            torch.from_numpy(index.reshape(block.shape)),
            torch.from_numpy(np.concatenate(parts)),
            torch.from_numpy(starts),
        )


class Reading:
    """How texts are read: cut by a vocabulary; of words, also spelt, and numbered as a language model has them.

    normalise: a text on one line, as the vocabulary cuts it; words are what stands between its spaces.
    """

    def __init__(
        self, tokens: Tokens, normalise: Callable[[str], str], spelling: Spelling | None, language: Tokens | None
    ) -> None:
        self.tokens, self.normalise, self.spelling, self.language = tokens, normalise, spelling, language
        self.words = ["", "", *tokens.entries[2:]]  # what is not known has no spelling
        self.numbers = None if language is None else _numbers(self.words, language)

    def exported(self) -> dict[str, Any]:
        """What an export needs of it beside the vocabulary, as JSON holds it."""
        return {
            "pieces": None if self.spelling is None else self.spelling.pieces,
            "piece_sizes": [SHORTEST, LONGEST],
            "language": None if self.language is None else self.language.entries,
        }

    def texts(self, texts: Iterable[str], longest: int) -> Texts:
        """Read texts; of one of more than `longest` tokens its beginning and its end."""
        from throughtime.tasks.batches import Sequences

        size, others = len(self.tokens), dict[str, int]()
        half = longest // 2

        cut = 0

        def within(read: Any) -> Any:
            nonlocal cut
            if len(read) <= longest:
                return read
            cut += 1
            return [*read[:half], *read[-half:]]

        def one(text: str) -> Any:
            text = self.normalise(text)
            if self.spelling is None and self.language is None:
                return within(self.tokens.encode(text))
            get = self.tokens.index.get
            words = within(text.split(" ") if text else [])
            return [i if (i := get(w)) is not None else others.setdefault(w, size + len(others)) for w in words]

        found = Sequences.of(one(text) for text in texts)
        if cut:
            warnings.warn(
                f"{cut:,} texts of over {longest:,} {self.tokens.kind}: their beginning and end are read", stacklevel=2
            )
        return Texts(self, found, list(others))

    def open(self, path: Path) -> Texts:
        """What `Texts.save` wrote."""
        from throughtime.tasks.batches import Sequences

        return Texts(self, Sequences.open(path), json.loads(_others(path).read_text(encoding="utf-8")))


class Texts:
    """Texts that were read: each token's number; those past the vocabulary's are words that it lacks, in `others`."""

    def __init__(self, reading: Reading, sequences: Sequences, others: list[str]) -> None:
        import numpy as np

        self.reading, self.sequences, self.others = reading, sequences, others
        self.words = [*reading.words, *others]
        self.language = None
        if reading.language is not None:
            self.language = np.concatenate([reading.numbers, _numbers(others, reading.language)])

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def lengths(self) -> Any:
        """Of each text, in tokens, [n]."""
        return self.sequences.lengths

    def text(self, number: int) -> str:
        """One of the texts, as it was cut."""
        between = " " if self.reading.tokens.kind == "words" else ""
        return between.join(self.words[i] for i in self.sequences[number])

    def batch(self, numbers: Iterable[int]) -> TokenBatch:
        """As `Examples` have it."""
        return self.read(numbers)

    def read(self, chosen: Iterable[int]) -> TokenBatch:
        """Some of the texts, side by side."""
        import torch

        from throughtime.models.encoder import TokenBatch
        from throughtime.tasks.batches import padded

        found, lengths = padded([self.sequences[i] for i in chosen])
        block, spelling = found.numpy(), self.reading.spelling
        return TokenBatch(
            found.masked_fill(found >= len(self.reading.tokens), UNKNOWN),
            lengths,
            None if spelling is None else spelling.spelt(block, self.words),
            None if self.language is None else torch.from_numpy(self.language[block]),
        )

    def save(self, path: Path) -> None:
        """Write them to `path` and beside it, for `Reading.open`."""
        self.sequences.save(path)
        write_text(_others(path), json.dumps(self.others, ensure_ascii=False))


def _others(path: Path) -> Path:
    return path.with_name(f"{path.stem}-others.json")


def _numbers(words: list[str], tokens: Tokens) -> Any:
    """Words as another vocabulary numbers them, int64 [n]."""
    import numpy as np

    return np.array([_nearest(word, tokens) for word in words], dtype=np.int64)


def _nearest(word: str, tokens: Tokens) -> int:
    """A word's number in another vocabulary, which may have it with a space before it or with a capital."""
    for form in (word, f" {word}", word.capitalize(), f" {word.capitalize()}"):
        if form in tokens.index:
            return tokens.index[form]
    return UNKNOWN


def pieces_of(word: str) -> list[str]:
    """Each run of letters of a word once, its beginning and its end marked."""
    marked = f"<{word}>"
    return list(
        dict.fromkeys(marked[i : i + n] for n in range(SHORTEST, LONGEST + 1) for i in range(len(marked) - n + 1))
    )
