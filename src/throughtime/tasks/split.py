"""The hold-out: items that training does not see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from throughtime.errors import UserError
from throughtime.tasks.source import name_of

Item = TypeVar("Item")


def hold_out(
    items: list[Item], share: float, seed: int, file: Path, labels: Callable[[Item], Iterable[str]] = lambda _: ()
) -> tuple[list[Item], list[Item]]:
    """A part of the items of a file, drawn at random; not those with a label that no other has.

    Returns: what is left, and what is held out. Raises: UserError where there are too few.
    """
    import numpy as np

    if len(items) < 2:
        raise UserError(
            f"{name_of(file)}: {len(items)} example{'s are' if not items else ' is'} too few: at least 2 are needed, one of them "
            f"held out; add some, or give --valid"
        )
    order = np.random.default_rng((seed, 1)).permutation(len(items))
    count = min(max(1, round(share * len(items))), len(items) - 1)
    often = Counter(label for item in items for label in set(labels(item)))
    held = set[int]()
    for i in order.tolist():
        if len(held) < count and all(often[label] > 1 for label in labels(items[i])):
            held.add(i)
            often.subtract(set(labels(items[i])))
    if not held:
        raise UserError(f"{name_of(file)}: no label has two examples, one of them to hold out; give --valid")
    return [r for i, r in enumerate(items) if i not in held], [r for i, r in enumerate(items) if i in held]
