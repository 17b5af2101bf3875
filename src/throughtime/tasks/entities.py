"""Named entities as tags of words: their spans, and how many of them are found.

Tags are `O`, or a type after a sign that says where in the entity the word stands: IOB1, IOB2 (Ramshaw, Marcus 1995; Tjong Kim
Sang, Veenstra 1999), BIOES and BILOU (Ratinov, Roth 2009). Spans are as the evaluation of CoNLL-2003 has them, for all alike.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

OUTSIDE = "O"
_TAG = re.compile(r"([BIESLU])(?:-(.+))?", re.S)


class Entity(NamedTuple):
    """Words `start` to `end` of a sentence, `end` not among them, and what they are."""

    start: int
    end: int
    kind: str


def are_entities(tags: Iterable[str | None]) -> bool:
    """Whether tags are of entities: each `O`, or a sign with a type, and some of them begin or go on with one."""
    kinds = {tag for tag in tags if tag not in (None, OUTSIDE)}
    return any("-" in tag for tag in kinds if tag) and all(_TAG.fullmatch(tag) for tag in kinds if tag)


def entities(tags: Sequence[str | None]) -> list[Entity]:
    """The entities of a sentence. A word that goes on with nothing, or with another type, begins one; None stands for `O`."""
    found: list[Entity] = []
    start, kind, ended = (
        0,
        None,
        True,
    )  # of the entity that is open, if one is; and whether its last word said that it is that
    for i, tag in enumerate([*tags, OUTSIDE]):
        match = _TAG.fullmatch(tag or OUTSIDE)
        sign, own = (match[1], match[2] or "") if match else (OUTSIDE, None)
        goes_on = kind is not None and own == kind and not ended and sign in "IEL"
        if kind is not None and not goes_on:
            found.append(Entity(start, i, kind))
        if own is not None and not goes_on:
            start = i
        kind, ended = own, sign in "ESLU"
    return found


def entity_scores(given: Iterable[Sequence[str]], truth: Iterable[Sequence[str | None]]) -> dict[str, Any]:
    """Precision, recall and F1 of whole entities, each right where both its ends and its type are, and how many there are.

    Args: given, truth: tags, sentence by sentence. Where the truth is None the word is left out of both.
    Returns: precision, recall, f1 (micro averages), entities; and of each type the same, under `types`.
    """
    found, there, right = Counter[str](), Counter[str](), Counter[str]()
    for some, true in zip(given, truth, strict=True):
        kept = [tag if gold is not None else OUTSIDE for tag, gold in zip(some, true, strict=True)]
        a, b = set(entities(kept)), set(entities(true))
        for counter, spans in ((found, a), (there, b), (right, a & b)):
            counter.update(span.kind for span in spans)

    def scores(right: int, found: int, there: int) -> dict[str, float]:
        return {
            "precision": right / found if found else 0.0,
            "recall": right / there if there else 0.0,
            "f1": 2 * right / (found + there) if found + there else 0.0,
            "entities": there,
        }

    types = {kind: scores(right[kind], found[kind], there[kind]) for kind in sorted(found | there)}
    return {**scores(right.total(), found.total(), there.total()), "types": types}
