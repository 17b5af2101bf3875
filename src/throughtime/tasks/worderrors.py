"""Errors of recognised texts against what was said: rates of words and characters, the worst side by side, confusions.

Words are what stands between white space, characters those of the words and one space between two. Texts are compared as they
are, letter for letter; what is to count as the same has to be made the same before (`tasks.normalisation`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from throughtime.tasks.edits import alignment, edits

HOLE = "***"  # where a word is missing on one side


def errors(pairs: Iterable[tuple[str, str]], speakers: Sequence[str | None] | None = None) -> dict[str, Any]:
    """Error rates of texts, over all of them together and by speaker.

    Args: pairs: each reference (what was said) with its hypothesis (what was recognised). speakers: of each pair its speaker,
        None where that is not known.
    Returns: utterances; words, how many the references have; cer and wer, the character and the word error rate in percent, edits
        by 100 units of the references, which may be over 100; substitutions, deletions and insertions of words. Where speakers
        are known also `speakers`: the same of each, by name; pairs without one are in none of these. All are those of jiwer,
        which gives its rates as fractions. Where the references hold no word at all cer and wer are None.
    Warns: where references are empty, of how many, and how many words were recognised there: these count as insertions.
    """
    pairs = list(pairs)
    counts = [_counts(reference.split(), hypothesis.split()) for reference, hypothesis in pairs]
    empty = [hypothesis for reference, hypothesis in pairs if not reference.split()]
    if empty:
        heard = sum(len(hypothesis.split()) for hypothesis in empty)
        warnings.warn(
            f"{len(empty):,} of {len(pairs):,} references are empty; {heard:,} words recognised there count as insertions",
            stacklevel=2,
        )
    scores = _scores(counts)
    by_speaker: dict[str, list[tuple[int, ...]]] = {}
    for speaker, row in zip([None] * len(pairs) if speakers is None else speakers, counts, strict=True):
        if speaker is not None:
            by_speaker.setdefault(speaker, []).append(row)
    if by_speaker:
        scores["speakers"] = {speaker: _scores(rows) for speaker, rows in sorted(by_speaker.items())}
    return scores


def _counts(reference: list[str], hypothesis: list[str]) -> tuple[int, ...]:
    """Words and characters of the reference; edits of characters; substitutions, deletions and insertions of words."""
    pairs = alignment(reference, hypothesis)
    deletions, insertions = sum(j is None for _, j in pairs), sum(i is None for i, _ in pairs)
    other = sum(i is not None and j is not None and reference[i] != hypothesis[j] for i, j in pairs)
    said, heard = " ".join(reference), " ".join(hypothesis)
    return len(reference), len(said), edits(heard, said), other, deletions, insertions


def _scores(counts: list[tuple[int, ...]]) -> dict[str, Any]:
    words, characters, edited, *kinds = map(sum, zip(*counts, strict=True)) if counts else [0] * 6
    return {
        "utterances": len(counts),
        "words": words,
        "cer": 100 * edited / characters if words else None,
        "wer": 100 * sum(kinds) / words if words else None,
        **dict(zip(("substitutions", "deletions", "insertions"), kinds, strict=True)),
    }


def worst(pairs: Sequence[tuple[str, str]], count: int = 10) -> list[int]:
    """The numbers of at most `count` pairs of reference and hypothesis that have most wrong words, the worst first; of those with
    as many the shorter reference, then the earlier. Pairs without an error are not among them."""
    cut = [(reference.split(), hypothesis.split()) for reference, hypothesis in pairs]
    wrong = [edits(hypothesis, reference) for reference, hypothesis in cut]
    ordered = sorted(range(len(cut)), key=lambda k: (-wrong[k], len(cut[k][0])))
    return [k for k in ordered[:count] if wrong[k]]


def side_by_side(reference: str, hypothesis: str) -> tuple[str, str]:
    """A reference and its hypothesis as two lines, words that belong together one above the other, `***` where one is missing.

    A word that only one of the lines has is opposite `***`; columns are as wide as a terminal shows them, with two spaces between.
    """
    from rich.cells import cell_len

    said, heard = reference.split(), hypothesis.split()
    above, below = [], []
    for i, j in alignment(said, heard):
        a, b = HOLE if i is None else said[i], HOLE if j is None else heard[j]
        width = max(cell_len(a), cell_len(b))
        above.append(a + " " * (width - cell_len(a)))
        below.append(b + " " * (width - cell_len(b)))
    return "  ".join(above).rstrip(), "  ".join(below).rstrip()


def confusions(pairs: Sequence[tuple[str, str]]) -> dict[str, dict[str, int]] | None:
    """How often each word (rows) was recognised as each text (columns), of data in which every reference is one word.

    Returns: by what was said, how often each text was heard: first the words that were said, sorted, then what else was
        heard, sorted; `***` is nothing heard. None where some reference is not one word.
    """
    said = [" ".join(reference.split()) for reference, _ in pairs]
    if not all(said) or any(" " in word for word in said):
        return None
    heard = [" ".join(hypothesis.split()) or HOLE for _, hypothesis in pairs]
    rows = sorted(set(said))
    table = {row: dict.fromkeys([*rows, *sorted(set(heard) - set(rows))], 0) for row in rows}
    for word, text in zip(said, heard, strict=True):
        table[word][text] += 1
    return table
