"""Whether a held-out text is of the kind of the training text, told by their sequences of characters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from throughtime.tasks.spans import Span, read_blocks

ORDER = 5  # characters in a sequence
PIECES = 20  # that the held-out text is cut into
SIZE = (500, 20_000)  # characters of a piece, at least and at most
MOST = 100  # pieces of the training text that are looked at, from all over it
STRANGE = 1.5  # times as many new sequences as any piece of the training text has, and a piece is of another kind
NEW = 0.1  # of its sequences, at least
SHARE = 0.15  # of the held-out text that has to be of another kind for this to be said


def unlike(train: Sequence[Span], held: Sequence[Span]) -> str | None:
    """In what the held-out text differs from the training text, in a sentence; None where it does not, or where too little is
    there to tell.

    A piece of text is held against the whole training text: which share of its sequences of ORDER characters stands nowhere in it.
    For a piece of the training text itself the rest of that is taken. A licence after a novel, tables after prose, another
    language have far more that is new than any piece of what is learned from.
    """
    size = min(max(sum(span.size for span in held) // PIECES, SIZE[0]), SIZE[1])
    own, others = list(_grams(held, size, PIECES)), list(_grams(train, size, MOST))
    if len(own) < 2 or len(others) < PIECES:
        return None
    known, usual = _new_within(others)
    new = [float(np.isin(grams, known, invert=True).mean()) for grams in own]
    bound = max(STRANGE * max(usual), NEW)
    strange = [share for share in new if share > bound]
    if len(strange) < SHARE * len(new):
        return None
    return (
        f"held-out and training text differ in kind: in {len(strange) / len(new):.0%} of the held-out text "
        f"{np.mean(strange):.0%} of all sequences of {ORDER} characters are new, in no part of the training text are more than "
        f"{max(usual):.0%}"
    )


def _grams(spans: Sequence[Span], size: int, most: int) -> Iterator[np.ndarray[Any, Any]]:
    """The sequences of ORDER characters, as numbers, of up to `most` pieces of `size` characters, from all over a text."""
    step = max(sum(span.size for span in spans) // most, size)
    waiting, skip = "", 0
    for text in (text for span in spans for text in read_blocks(span)):
        waiting += text[skip:]
        skip = max(skip - len(text), 0)
        while len(waiting) >= size:
            points = np.frombuffer(waiting[:size].encode("utf-32-le"), np.uint32).astype(np.uint64)
            grams = np.zeros(size - ORDER + 1, np.uint64)
            for i in range(ORDER):
                grams = grams * np.uint64(0x9E3779B97F4A7C15) + points[i : len(grams) + i]
            yield grams
            waiting, skip = waiting[step:], max(step - len(waiting), 0)


def _new_within(pieces: list[np.ndarray[Any, Any]]) -> tuple[np.ndarray[Any, Any], list[float]]:
    """All sequences of some pieces, sorted; and of each piece the share of its own that no other has."""
    grams = np.concatenate(pieces)
    piece = np.repeat(np.arange(len(pieces)), [len(p) for p in pieces])
    order = np.argsort(grams, kind="stable")
    grams, piece = grams[order], piece[order]
    first = np.flatnonzero(np.append(True, grams[1:] != grams[:-1]))
    ends = np.append(first[1:], len(grams))
    alone = np.repeat(piece[first] == piece[ends - 1], ends - first)  # stable: the pieces of a sequence are sorted
    return grams[first], (np.bincount(piece, alone, len(pieces)) / np.bincount(piece, minlength=len(pieces))).tolist()
