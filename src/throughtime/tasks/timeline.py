"""The words of a text on a session's timeline: a word may be several tokens."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from throughtime.errors import UserError
from throughtime.tasks.text_session import TextSession, encoded
from throughtime.tasks.what_if import WhatIf, as_changes, check_change, rewritten, spans
from throughtime.tasks.words import SIGNS_TOGETHER as WORDS
from throughtime.tasks.words import SPACED

if TYPE_CHECKING:
    from throughtime.travel import Difference

NEXT = 5


class Timeline:
    """A session and the words it has read, each with the white space before it.

    Args: session: it goes on from there. by: "words", or "tokens": each token stands for itself.
    """

    def __init__(self, session: TextSession, by: str = "words") -> None:
        self.session, self.by = session, by
        self.pattern = SPACED if session.tokens.spaced else WORDS
        self.units: list[str] = []
        self.ends: list[int] = []
        self._take(session.inputs().tolist())

    def _take(self, ids: list[int]) -> None:
        """Name what the session has read already: by words where they can be told."""
        tokens = self.session.tokens
        pieces = self._cut(tokens.decode(ids))
        if self.by == "tokens" or [i for _, some in pieces for i in some] != ids:
            pieces = [(tokens.entries[i], [i]) for i in ids]
        self._add(pieces, self.session.first)

    @property
    def present(self) -> int:
        """How many words have been read at the present."""
        return sum(end <= self.session.time for end in self.ends)

    @property
    def words(self) -> list[str]:
        """What was read and lies ahead, word by word (or token by token), as it is shown."""
        return [unit.strip() or unit for unit in self.units] if self.by == "words" else list(self.units)

    def feed(self, text: str) -> None:
        """Read on; what lay ahead is dropped. Between the last word and a new one a space is put where there is none."""
        now = self.present
        if self.by == "words" and now and re.match(r"\w", text) and re.search(r"\w$", self.units[now - 1]):
            text = " " + text
        self._read(text)

    def write(self, length: int) -> None:
        """Read on what the network would write, always the likeliest: so many tokens, or to the end of the document. What lay ahead
        is dropped."""
        if text := self.session.write(length):
            self._read(text)

    def _read(self, text: str) -> None:
        now = self.present
        encoded(self.session.tokens, text)  # says what it does not know
        pieces = self._cut(text)
        if not pieces:
            raise UserError("there is nothing to read in it")
        begin, count = self.session.time, sum(len(ids) for _, ids in pieces)
        if begin - self.session.first + count > self.session.keep:
            raise UserError(f"a timeline holds {self.session.keep} tokens, and this is {count} more than its {begin}")
        self.session.feed([i for _, ids in pieces for i in ids])
        del self.units[now:], self.ends[now:]
        self._add(pieces, begin)

    def go(self, position: int) -> None:
        """Make so many words the past. Raises: UserError where there are not so many."""
        if not 0 <= position <= len(self.units):
            raise UserError(f"there is no place {position}; they go from 0 to {len(self.units)}")
        self.session.rewind(self.ends[position - 1] if position else self.session.first)

    def set(self, position: int, word: str) -> None:
        """Replace a word; all that comes later is read again. Raises: UserError where there is no such word, or it is not one."""
        unit = word
        if self.by == "words":
            check_change(position, word, len(self.units), self.pattern)
            old = self.units[position]
            low, high = len(old) - len(old.lstrip()), len(old.rstrip())
            unit = old[:low] + word + old[high:] if low < high else word
            near = [*self.units[max(position - 1, 0) : position], unit, *self.units[position + 1 : position + 2]]
            if len(spans("".join(near), self.pattern)) != len(near):
                raise UserError(
                    f"the words of {''.join(near)!r} run into one another; replace a word by a word, a sign by a sign"
                )
        elif not 0 <= position < len(self.units):
            raise UserError(
                f"there is no token {position}; the {len(self.units)} are numbered 0 to {len(self.units) - 1}"
            )
        ids = encoded(self.session.tokens, unit).tolist()
        if self.by == "tokens" and len(ids) != 1:
            raise UserError(f"token {position}: {word!r} is {len(ids)} tokens of this model; give one")
        if self.by == "tokens":
            unit = self.session.tokens.entries[ids[0]]
        start, stop = self.ends[position - 1] if position else self.session.first, self.ends[position]
        self.session.replace(start, stop, ids)
        moved = len(ids) - (stop - start)
        self.ends[position:] = [end + moved for end in self.ends[position:]]
        self.units[position] = unit

    def branch(self) -> Self:
        """Another that goes its own way from here; they share what lies behind."""
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.session, other.units, other.ends = self.session.branch(), list(self.units), list(self.ends)
        return other

    def log_probabilities(self) -> list[float]:
        """log p of each word: of its tokens together."""
        each = self.session.log_probabilities()
        bounds = [0, *(end - self.session.first for end in self.ends)]
        return [sum(each[a:b]) for a, b in itertools.pairwise(bounds)]

    def diff(self, other: Timeline, start: int = 0) -> Difference:
        """Where and how far two timelines part, at the end of each word from `start` that both have."""
        return self.session.diff(other.session, list(zip(self.ends, other.ends, strict=False))[start:])

    def told(self) -> dict[str, Any]:
        """What the model makes of it: of each word, and what comes after."""
        each = self.log_probabilities()
        return {
            "words": self.words,
            "log_probabilities": each,
            "log_probability": sum(each),
            "next": self.session.next(NEXT),
        }

    def _cut(self, text: str) -> list[tuple[str, list[int]]]:
        """The words of a text, set end to end the text again, and the tokens of each."""
        tokens = self.session.tokens
        if self.by == "tokens":
            return [(tokens.entries[i], [i]) for i in tokens.encode(text).tolist()]
        ends = [high for _, high in spans(text, self.pattern)] or [len(text)] * bool(text)
        if ends:
            ends[-1] = len(text)
        units = [text[low:high] for low, high in zip([0, *ends], ends, strict=False)]
        return [(unit, tokens.encode(unit).tolist()) for unit in units]

    def _add(self, pieces: list[tuple[str, list[int]]], begin: int) -> None:
        for unit, ids in pieces:
            begin += len(ids)
            self.units.append(unit)
            self.ends.append(begin)


def what_if(session: TextSession, text: str, changes: Mapping[int, str]) -> WhatIf:
    """A text with words replaced, read by a language model: see `Trained.what_if`."""
    before, changes = Timeline(session), as_changes(changes)
    rewritten(text, changes, before.pattern)  # refuses what cannot be
    before.feed(text)
    after = before.branch()
    for position in sorted(changes):
        after.set(position, changes[position])
    positions = sorted(changes)
    return WhatIf(positions, before.told(), after.told(), before.diff(after, positions[0]))
