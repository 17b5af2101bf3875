"""What if a word had been another: the answer before and after, for every task."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any

from throughtime.errors import UserError
from throughtime.tasks.words import SIGNS_TOGETHER as WORDS

if TYPE_CHECKING:
    from throughtime.tasks.base import Trained
    from throughtime.travel import Difference


@dataclass(frozen=True)
class WhatIf:
    """Two futures.

    positions: of the words that were replaced. before, after: the `words` of each text and what `answer` gives for it; of a
    language model log_probabilities (of each word, nats), log_probability, and next (the likeliest tokens and their probabilities).
    difference: of a language model, where and how far the futures part, at the end of each word from the first that was replaced.
    """

    positions: list[int]
    before: dict[str, Any]
    after: dict[str, Any]
    difference: Difference | None = None

    def as_json(self) -> dict[str, Any]:
        """Its values by name."""
        return asdict(self)


def spans(text: str, pattern: str = WORDS) -> list[tuple[int, int]]:
    """Where each word of a text begins and ends."""
    return [match.span() for match in re.finditer(pattern, text)]


def check_change(position: int, word: str, count: int, pattern: str = WORDS) -> None:
    """Raises: UserError where there is no such position among `count` words, or the replacement is not one word."""
    if isinstance(position, bool) or not isinstance(position, Integral):  # also NumPy's
        raise UserError(f"a position is a whole number, got {position!r}; words are numbered 0 to {count - 1}")
    if not 0 <= position < count:
        raise UserError(f"there is no word {position}; the {count} words are numbered 0 to {count - 1}")
    if not isinstance(word, str):
        raise UserError(f"word {position}: its replacement is a word, got {word!r}")
    found = len(spans(word, pattern))
    if found != 1 or word != word.strip():
        how = "a word cannot be taken out, since all later ones would move" if not found else f"it is {found} words"
        if found == 1:
            how = "leave out the space around it"
        raise UserError(f"word {position}: cannot be replaced by {word!r}: {how}; positions go from 0 to {count - 1}")


def as_changes(given: Any) -> dict[int, str]:
    """Changes as position -> word, of what a user gives for them: that, a pair, or many pairs.

    Raises: UserError for anything else.
    """
    pairs = [given] if isinstance(given, tuple) and len(given) == 2 and not isinstance(given[0], tuple) else given
    try:
        found = dict(pairs)
    except (TypeError, ValueError):
        found = {}
    if not found:
        raise UserError(f"what_if: takes changes as {{position: word}}, got {given!r}")
    return found


def rewritten(text: str, changes: Mapping[int, str], pattern: str = WORDS) -> tuple[list[str], list[str], str]:
    """A text with words replaced: the words before and after, and the text after.

    Args: changes: position -> word. pattern: what a word is.
    Raises: UserError as `check_change`; where there are no words; and where the words run into one another.
    """
    if not isinstance(text, str):
        raise UserError(f"what_if: takes a text first, got a {type(text).__name__}")
    places = spans(text, pattern)
    if not places:
        raise UserError("the text is empty: there is no word to replace")
    for position, word in changes.items():
        check_change(position, word, len(places), pattern)
    before = [text[low:high] for low, high in places]
    after = [changes.get(i, word) for i, word in enumerate(before)]
    new = text
    for i in sorted(changes, reverse=True):
        low, high = places[i]
        new = new[:low] + changes[i] + new[high:]
    if [new[low:high] for low, high in spans(new, pattern)] != after:
        raise UserError(f"the words of {new!r} run into one another; replace a word by a word, a sign by a sign")
    return before, after, new


def what_if(model: Trained[Any], text: str, changes: Mapping[int, str]) -> WhatIf:
    """See `Trained.what_if`."""
    changes = as_changes(changes)
    before, after, new = rewritten(text, changes, model.words)
    return WhatIf(sorted(changes), {"words": before, **model.answer(text)}, {"words": after, **model.answer(new)})
