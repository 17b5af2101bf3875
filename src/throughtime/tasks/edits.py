"""The fewest edits that make one sequence of another (Levenshtein 1966), and where they stand."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator, Sequence


def edits(found: Sequence[Hashable], truth: Sequence[Hashable]) -> int:
    """How many insertions, deletions and substitutions make one sequence of the other, at least."""
    ((up, down),) = deque(_steps(found, truth), maxlen=1)
    return len(truth) + up.bit_count() - down.bit_count()


def alignment(reference: Sequence[Hashable], hypothesis: Sequence[Hashable]) -> list[tuple[int | None, int | None]]:
    """Which unit of a hypothesis stands for which of the reference, with as few edits as can be.

    Returns: pairs of an index into the reference and one into the hypothesis, in order: units that are the same or substituted.
        (i, None) is a deletion, (None, j) an insertion. Of several ways with as few edits, the one that RapidFuzz and thereby
        jiwer take: units that both sequences begin and end with belong together; then, from the end, a deletion goes before
        an insertion, and that before a substitution.
    """
    shorter = min(len(reference), len(hypothesis))
    before = next((k for k in range(shorter) if reference[k] != hypothesis[k]), shorter)
    left = shorter - before
    after = next((k for k in range(left) if reference[-1 - k] != hypothesis[-1 - k]), left)
    i, j = len(reference) - after, len(hypothesis) - after
    steps = list(_steps(reference[before:i], hypothesis[before:j]))
    pairs: list[tuple[int | None, int | None]] = [(i + k, j + k) for k in reversed(range(after))]
    while i > before or j > before:
        bit = 1 << (i - before - 1) if i > before else 0
        if steps[j - before][0] & bit:
            i -= 1
            pairs.append((i, None))
        elif not bit or steps[j - before - 1][1] & bit:
            j -= 1
            pairs.append((None, j))
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    return [(k, k) for k in range(before)] + pairs[::-1]


def _steps(a: Sequence[Hashable], b: Sequence[Hashable]) -> Iterator[tuple[int, int]]:
    """Column after column of the table of distances D between the beginnings of `a` and of `b`, its differences as bits.

    Yields: for each j from 0 to len(b) the bits i at which D[i + 1, j] - D[i, j] is 1, and those at which it is -1. D[0, j] is j.
    Source: Myers (1999) in the form of Hyyrö (2003); integers of any length stand for the words of a machine.
    """
    where: dict[Hashable, int] = {}
    for i, unit in enumerate(a):
        where[unit] = where.get(unit, 0) | 1 << i
    whole = (1 << len(a)) - 1
    up, down = whole, 0
    yield up, down
    for unit in b:
        same = where.get(unit, 0)
        diagonal = ((((same & up) + up) ^ up) | same | down) & whole
        right = (down | (whole & ~(diagonal | up))) << 1 | 1
        left = (diagonal & up) << 1
        up, down = (left | ~(diagonal | right)) & whole, right & diagonal
        yield up, down
