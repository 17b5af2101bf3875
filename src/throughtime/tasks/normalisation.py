"""Transcripts as they are learned: their white space, case, signs and tags as asked, and what was changed by it."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from throughtime.errors import UserError, unknown

CASES = ("keep", "lower", "upper")
KEPT_OR_DROPPED = ("keep", "drop")
INNER = "'·׳״"  # signs that may stand between two letters of a word
JOINERS = "\u200c\u200d"  # are spelling, in Persian and in the scripts of India
SHOWN = 60  # characters of an example
NAMED = 8  # signs and tags of each kind that are named
# a word of its own, or some, in angle or square brackets: <s>, </s>, [noise], [door slams]
_TAG = re.compile(r"(?<!\S)(?:<[^\s<>](?:[^<>]*[^\s<>])?>|\[[^\s\[\]](?:[^\[\]]*[^\s\[\]])?\])(?!\S)")
# the name of an utterance at the end of its line, as CMU's transcripts have it: (an406-fcaw-b)
_NAME = re.compile(r"(?<!\S)\([^\s()]*\d[^\s()]*\)\s*\Z")


@dataclass
class Changes:
    """What normalising some transcripts changed; as a text, one line that says it.

    transcripts: how many there were. changed: how many are no longer what they were. cased: in how many letters became small or
    capital ones. empty: how many were some text and are none. apostrophes: how many were typographic and are plain.
    signs, tags: how often each was dropped. example: the first that was changed, before and after.
    """

    transcripts: int = 0
    changed: int = 0
    cased: int = 0
    empty: int = 0
    apostrophes: int = 0
    signs: Counter[str] = field(default_factory=Counter)
    tags: Counter[str] = field(default_factory=Counter)
    example: tuple[str, str] | None = None

    def __str__(self) -> str:
        if self.example is None:
            return f"{self.transcripts:,} transcripts are learned as they are"
        said = [f"{self.changed:,} of {self.transcripts:,} transcripts are changed before they are learned"]
        said += [f"the case of {self.cased:,}"] if self.cased else []
        said += [
            f"{what} dropped: {_listed(found)}" for what, found in (("signs", self.signs), ("tags", self.tags)) if found
        ]
        said += [f"’ written as ' {self.apostrophes:,} times"] if self.apostrophes else []
        said += [f"nothing is left of {self.empty:,}"] if self.empty else []
        before, after = (part if len(part) <= SHOWN else f"{part[:SHOWN]}…" for part in self.example)
        return "; ".join([*said, f"{before!r} is learned as {after!r}"])


def _listed(found: Counter[str]) -> str:
    named = [f"{key if key.isprintable() else ascii(key)[1:-1]} ({n:,})" for key, n in found.most_common(NAMED)]
    others = len(found) - len(named)
    return ", ".join(named) + (f" and {others:,} others" if others else "")


@dataclass(frozen=True)
class Normal:
    """How transcripts are normalised: a function from a transcript to what is learned of it.

    Always: Unicode's composed form (NFC), one space for any white space, none at the ends.
    case: "keep", "lower" or "upper". signs: "keep", or "drop": punctuation, symbols and what cannot be seen become spaces, so that
    they never join two words; an apostrophe or a point (·) between two letters stays, the typographic apostrophe ’ as the
    plain one. tags: "drop", or "keep": what stands by itself in <> or [], as `<s>` or `[door slams]`, and the name of the utterance
    in round brackets that ends a line of CMU's transcripts, told by a digit in it: `(an406-fcaw-b)`.
    Raises: UserError where one of the three is something else.
    """

    case: str = "keep"
    signs: str = "keep"
    tags: str = "drop"

    def __post_init__(self) -> None:
        for name, choices in (("case", CASES), ("signs", KEPT_OR_DROPPED), ("tags", KEPT_OR_DROPPED)):
            if getattr(self, name) not in choices:
                raise UserError(unknown(f"{name} of transcripts", str(getattr(self, name)), choices))

    def __call__(self, text: str) -> str:
        """One transcript as it is learned."""
        return self._add(text, Changes())

    def all(self, texts: Iterable[str]) -> tuple[list[str], Changes]:
        """Transcripts as they are learned, in order, and what was changed in them."""
        changes = Changes()
        return [self._add(text, changes) for text in texts], changes

    def _add(self, text: str, changes: Changes) -> str:
        """A transcript as it is learned; what was changed is counted."""
        made = text
        if self.tags == "drop":
            for pattern in (_NAME, _TAG):
                changes.tags.update(" ".join(tag.split()) for tag in pattern.findall(made))
                made = pattern.sub(" ", made)
        if self.signs == "drop":
            made = _without_signs(made, changes)
        cased = made.lower() if self.case == "lower" else made.upper() if self.case == "upper" else made
        changes.transcripts += 1
        changes.cased += cased != made
        made = " ".join(unicodedata.normalize("NFC", cased).split())
        if made != text:
            changes.changed += 1
            changes.empty += not made and bool(text.strip())
            changes.example = changes.example or (text, made)
        return made


def _without_signs(text: str, changes: Changes) -> str:
    """A text with spaces in place of its signs, but for those within words."""
    made = list(text)
    for i, c in enumerate(text):
        if c.isspace() or c in JOINERS or unicodedata.category(c)[0] not in "PSC":
            continue
        plain = "'" if c == "’" else c
        if plain in INNER and _is_letter(text[i - 1 : i]) and _is_letter(text[i + 1 : i + 2]):
            changes.apostrophes += plain != c
            made[i] = plain
        else:
            changes.signs[c] += 1
            made[i] = " "
    return "".join(made)


def _is_letter(c: str) -> bool:
    """Whether a sign is a letter, or a mark on one."""
    return c != "" and unicodedata.category(c)[0] in "LM"
