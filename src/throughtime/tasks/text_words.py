"""How likely a word is after the words before it, as a language model of texts has it: for a search over words.

Shapes: V vocabulary.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from throughtime.errors import UserError
from throughtime.tasks.tokens import UNKNOWN

if TYPE_CHECKING:
    from throughtime.tasks.text import TextModel
    from throughtime.travel import Moment

Read = tuple[int, ...]  # tokens that were read since an utterance began
MEMORY = 1 << 26  # bytes of what is remembered of texts that were read
END = "\n"  # of an utterance: its text is a line


class TextWords:
    """A `decode.lexicon.WordModel` over a model of the task text, whatever its tokens are.

        log P(word | words before) = Σ over the tokens of the word, with the space before it, log p(token | all tokens before)

    so that the words of a line and its end have the log p of the line. An utterance is a line: it begins as a document does where
    documents are lines or paragraphs, and after the end of a line where they are files. A word that the vocabulary does not know
    has the probability of the unknown token. States are the tokens read; what the network says after them is computed where it is
    asked for, and remembered in a bounded memory.
    """

    def __init__(self, model: TextModel, words: Collection[str]) -> None:
        """Args: words: those that may be asked for.

        Raises: UserError where the model is a Transformer, which has no state to go on from, or knows none of the words. Warns of
        those that it does not know.
        """
        self._where = model.run.folder
        if model.config.model.kind == "transformer":
            raise UserError(
                f"{self._where}: is a Transformer, which cannot go on word by word; take a recurrent network"
            )
        self._tokens, self._engine = model.tokens, model.engine()
        self._check(words)
        moment = self._engine.first()  # START is read
        (end,) = self._tokens.encode(END).tolist()
        self._end = end if end != UNKNOWN else None  # None: a model of texts without lines
        self._begin: Read = ()
        if model.config.data.documents == "file" and self._end is not None:
            moment, self._begin = self._engine.run(moment, self._engine.checked([end])), (end,)
        self._known: OrderedDict[Read, tuple[np.ndarray[Any, Any], Moment]] = OrderedDict()
        self._first = self._said(moment), moment
        size = sum(t.nbytes for s in moment.state for t in (s if isinstance(s, tuple) else (s,)))
        self._most = max(16, MEMORY // (size + self._first[0].nbytes))
        self._spelled: dict[tuple[bool, str], list[int]] = {}

    def _check(self, words: Collection[str]) -> None:
        unknown = [word for word in words if all(UNKNOWN in self._tokens.encode(text) for text in (word, f" {word}"))]
        if len(unknown) == len(words):
            raise UserError(
                f"{self._where}: knows none of the words, as {unknown[0]!r}; train it on texts written as the transcripts are"
            )
        if unknown:
            more = f" and {len(unknown) - 5:,} others" if len(unknown) > 5 else ""
            warnings.warn(
                f"{self._where}: does not know {', '.join(map(repr, unknown[:5]))}{more}, of {len(words):,} words",
                stacklevel=3,
            )

    def begin(self) -> Read:
        """The state at the beginning of an utterance."""
        return self._begin

    def score(self, state: Read, word: str) -> tuple[float, Read]:
        """log P(word | state), natural, and the state after the word."""
        total = 0.0
        for token in self._cut(state, word):
            total += float(self._at(state)[0][token])
            state = (*state, token)
        return total, state

    def end(self, state: Read) -> float:
        """log P(the line ends | state), natural; 0 where the model was trained on texts without lines."""
        return 0.0 if self._end is None else float(self._at(state)[0][self._end])

    def _cut(self, state: Read, word: str) -> list[int]:
        first = state == self._begin
        if (first, word) not in self._spelled:
            self._spelled[first, word] = self._tokens.encode(word if first else f" {word}").tolist()
        return self._spelled[first, word]

    def _at(self, state: Read) -> tuple[np.ndarray[Any, Any], Moment]:
        """log p of what comes next, [V], and where the network is, after some tokens."""
        if state == self._begin:
            return self._first
        found = self._known.get(state)
        if found is None:
            place = len(state) - 1
            while place > len(self._begin) and state[:place] not in self._known:
                place -= 1
            _, moment = self._known.get(state[:place], self._first)
            moment = self._engine.run(moment, self._engine.checked(state[place:]))
            found = self._known[state] = self._said(moment), moment
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(state)
        return found

    def _said(self, moment: Moment) -> np.ndarray[Any, Any]:
        assert moment.output is not None
        return self._engine.answer(moment.output).cpu().numpy()


def open_words(folder: str, words: Collection[str]) -> TextWords:
    """The run of a language model for some words. Raises: UserError that begins with the option, where it is none, or as
    `TextWords`."""
    from throughtime.tasks.registry import load

    try:
        return TextWords(load(folder, "text"), words)
    except UserError as error:
        raise UserError(f"language_model: {error}") from error
