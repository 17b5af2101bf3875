"""Whether a held-out text is of the kind of the training text: a shift between the two, told by their character n-grams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from throughtime.tasks.spans import Span, read_blocks

# chosen on plays, articles and programs alone (148 texts of 30 to 300 KB, of which 2 are said to be of two kinds), and with
# licences of 11 and 19 KB after them (48, of which 42 are)
ORDER = 4  # of the n-grams
PIECES = 20  # that the held-out text is cut into
SIZE = (500, 20_000)  # characters of a piece, at least and at most
MOST = 100  # pieces of the training text that are looked at, from all over it
ALL_BUT = 0.95  # of the pieces of the training text say what is usual
STRANGE = 2.0  # times as many new n-grams as is usual, and a piece is of another kind
NEW = 0.1  # of its n-grams, at least
SHARE = 0.15  # of the held-out text that has to be of another kind for this to be said


def unlike(train: Sequence[Span], held: Sequence[Span]) -> str | None:
    """In what the held-out text differs from the training text, in a sentence; None where it does not, or where too little is
    there to tell.

    A piece of text is held against the training text: which share of its n-grams stands nowhere in it. A piece of the training
    text itself is held against the rest of that. In a licence after a novel, tables after prose or another language far more is
    new than in nearly every piece of what is learned from.
    """
    size = min(max(sum(span.size for span in held) // PIECES, SIZE[0]), SIZE[1])
    own, others = list(_grams(held, size, PIECES)), list(_grams(train, size, MOST))
    if len(own) < 2 or len(others) < PIECES:
        return None
    known, usual = _new_within(others)
    new = [float(np.isin(grams, known, invert=True).mean()) for grams in own]
    most = float(np.quantile(usual, ALL_BUT))
    bound = max(STRANGE * most, NEW)
    strange = [share for share in new if share > bound]
    if len(strange) < SHARE * len(new):
        return None
    return (
        f"held-out and training text differ in kind: in {len(strange) / len(new):.0%} of the held-out text "
        f"{np.mean(strange):.0%} of the character {ORDER}-grams are new, in {ALL_BUT:.0%} of the training text at most {most:.0%} "
        f"stand nowhere else in it"
    )


def _grams(spans: Sequence[Span], size: int, most: int) -> Iterator[np.ndarray[Any, Any]]:
    """The n-grams, as numbers, of up to `most` pieces of `size` characters, from all over a text."""
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
    """All n-grams of some pieces, sorted; and of each piece the share of its own that no other has."""
    grams = np.concatenate(pieces)
    piece = np.repeat(np.arange(len(pieces)), [len(p) for p in pieces])
    order = np.argsort(grams, kind="stable")
    grams, piece = grams[order], piece[order]
    first = np.flatnonzero(np.append(True, grams[1:] != grams[:-1]))
    ends = np.append(first[1:], len(grams))
    alone = np.repeat(
        piece[first] == piece[ends - 1], ends - first
    )  # stable: the pieces that an n-gram stands in are sorted
    return grams[first], (np.bincount(piece, alone, len(pieces)) / np.bincount(piece, minlength=len(pieces))).tolist()
