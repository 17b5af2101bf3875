"""What a speech recogniser writes with: characters, pieces of words or words, numbered from 1; 0 is the blank of CTC."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from throughtime.errors import UserError, unknown

if TYPE_CHECKING:
    import numpy as np

    from throughtime.runs import Run

FILE = "units.json"
KINDS = ("marked", "characters", "bpe", "words")
BLANK = 0
_BLANK_NAME = "<blank>"
MARK = "▁"  # begins the name of a unit that begins a word
SPACE = " "


@dataclass(frozen=True)
class Units:
    """The units of a recogniser's output. Two are equal, and hash alike, where they number the same units.

    kind: what they are.
        "marked": characters; one that begins a word is a unit of its own, named with ▁ before it: "▁B" and "B".
        "characters": characters, and a space that stands between words.
        "bpe": pieces of words, those that begin a word named with ▁ before them: "▁SEV", "EN".
        "words": whole words.
    names: of each unit its name, [U]; names[0] is "<blank>".
    merges: of "bpe" the pairs of pieces that were merged, in order; else empty.

    Texts are read in Unicode's composed form (NFC) and cut into words at white space, and are written so. A character is a code
    point. Case and signs are spelled as they stand.
    """

    kind: str
    names: tuple[str, ...]
    merges: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, kind: str, texts: Iterable[str], *, size: int = 100) -> Units:
        """The units of some transcripts: every one that stands in them, sorted by code points ("bpe": as they were merged).

        Args: kind: as above. size: of "bpe" how many units there are at most, the blank among them; the same transcripts always
            give the same. It has no effect on other kinds.
        Raises: UserError where the kind is unknown, there is no word in the transcripts, one of them holds the character ▁ and
            the kind needs it as its mark, or `size` has no room for the single characters of the transcripts.
        """
        if kind not in KINDS:
            raise UserError(unknown("kind of units", kind, KINDS))
        words = [word for text in texts for word in _words(text)]
        if not words:
            raise UserError("no word stands in the transcripts: there is nothing to make units of")
        if kind == "characters":
            return cls(kind, (_BLANK_NAME, SPACE, *sorted({c for word in words for c in word})))
        if kind == "words":
            return cls(kind, (_BLANK_NAME, *sorted(set(words))))
        for word in words:
            if MARK in word:
                raise UserError(
                    f"the word {word!r} of a transcript holds {MARK}, by which units of the kind {kind!r} are marked; "
                    f"take it out, or take units of the kind 'characters' or 'words'"
                )
        if kind == "marked":
            names = sorted({MARK + word[0] for word in words} | {c for word in words for c in word[1:]})
            return cls(kind, (_BLANK_NAME, *names))
        return cls(kind, *_learn_bpe(words, size))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def separator(self) -> int | None:
        """The unit that stands between words: that of the space of "characters"; None of other kinds."""
        return self._index[SPACE] if self.kind == "characters" else None

    @cached_property
    def starts(self) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
        """Which units begin a word, bool [U]; None of "characters", which have a `separator` instead. The blank does not."""
        import numpy as np

        if self.kind == "characters":
            return None
        begins = [self.kind == "words" or name.startswith(MARK) for name in self.names]
        return np.array([False, *begins[1:]])

    def spelled(self, word: str) -> list[int] | None:
        """The units of a word as it stands in a text after another; of "characters" without the space before it.

        Returns: None where it lacks a unit for the word (`missing` names it), and where that is not one word.
        """
        (word, *others) = _words(word) or [""]
        if not word or others or self._missing(word):
            return None
        return [self._index[unit] for unit in self._cut(word)]

    def encode(self, text: str) -> list[int] | None:
        """The units of a text, blanks not among them; of one without words none.

        Returns: None where it lacks a unit for some word; `missing` names it.
        """
        ids: list[int] = []
        for word in _words(text):
            found = self.spelled(word)
            if found is None:
                return None
            if ids and self.separator is not None:
                ids.append(self.separator)
            ids += found
        return ids

    def missing(self, text: str) -> list[str]:
        """What a text needs and these units lack, by their names, each once, in order: characters, marked ones, or words."""
        return list(dict.fromkeys(name for word in _words(text) for name in self._missing(word)))

    def words(self, ids: Sequence[int]) -> list[tuple[str, int, int]]:
        """The words that some units spell, blanks and separators passed over.

        Returns: each word, the index in `ids` of its first unit, and that of its last and one more. What stands before the first
            unit that begins a word is a word as well.
        """
        spans: list[tuple[list[str], int, int]] = []
        apart = True  # whether the next unit begins a word, whatever it is
        for i, unit in enumerate(map(int, ids)):
            if unit == BLANK:
                continue
            if unit == self.separator:
                apart = True
            elif apart or (self.starts is not None and self.starts[unit]):
                spans.append(([self._written(unit)], i, i + 1))
                apart = False
            else:
                written, first, _ = spans[-1]
                spans[-1] = ([*written, self._written(unit)], first, i + 1)
        words = ((unicodedata.normalize("NFC", "".join(written)), first, end) for written, first, end in spans)
        return [word for word in words if word[0]]

    def text(self, ids: Sequence[int]) -> str:
        """The text that some units spell: its words, one space between two."""
        return " ".join(word for word, _, _ in self.words(ids))

    def save(self, run: Run) -> None:
        """Write them into a run, for `open`."""
        run.write_json(FILE, {"kind": self.kind, "names": self.names, "merges": self.merges})

    @classmethod
    def open(cls, run: Run) -> Units:
        """Those of a run. Raises: UserError where they are missing or damaged."""
        values = run.read_json(FILE)
        try:
            units = cls(values["kind"], tuple(values["names"]), tuple((a, b) for a, b in values["merges"]))
            sound = units.kind in KINDS and units.names[:1] == (_BLANK_NAME,) and set(map(type, units.names)) == {str}
            if not sound or len(units._index) < len(units) - 1 or (units.kind == "bpe" and not units._bpe):
                raise ValueError("no names of units")
        except Exception as error:  # of merges that do not fit, tokenizers raises nothing narrower
            raise UserError(f"{run.folder / FILE}: the run is damaged: no units in it ({error!r})") from error
        return units

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names) if i != BLANK}

    @cached_property
    def _bpe(self) -> Any:
        from tokenizers import models

        return models.BPE(vocab=self._index, merges=list(self.merges))

    def _cut(self, word: str) -> list[str]:
        """The names of a word's units."""
        if self.kind == "bpe":
            return [piece.value for piece in self._bpe.tokenize(MARK + word)]
        if self.kind == "marked":
            return [MARK + word[0], *word[1:]]
        return [word] if self.kind == "words" else list(word)

    def _missing(self, word: str) -> list[str]:
        """Names that a word needs and there are none of; of pieces the characters that no piece is made of."""
        if self.kind == "bpe":
            return [c for c in word if c == MARK or c not in self._index]
        return [name for name in self._cut(word) if name not in self._index]

    def _written(self, unit: int) -> str:
        name = self.names[unit]
        return name.removeprefix(MARK) if self.kind in ("marked", "bpe") else name


def _words(text: str) -> list[str]:
    return unicodedata.normalize("NFC", text).split()


def _learn_bpe(words: list[str], size: int) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Names and merges of byte-pair pieces (Sennrich et al. 2016) of words, each with its beginning marked."""
    from tokenizers import Tokenizer, models, trainers

    single = {MARK, *(c for word in words for c in word)}
    if size < len(single) + 1:
        raise UserError(
            f"{size:,} units are too few for pieces of words: the blank, {MARK} and the {len(single) - 1:,} characters of the "
            f"transcripts alone are {len(single) + 1:,}; ask for more, or for units of the kind 'marked'"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.train_from_iterator(
        (MARK + word for word in words), trainers.BpeTrainer(vocab_size=size - 1, show_progress=False)
    )
    model = json.loads(tokenizer.to_str())["model"]
    names = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return (_BLANK_NAME, *names), tuple((a, b) for a, b in model["merges"])
