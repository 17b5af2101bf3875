"""Pairs of a source and a target: from files, as numbers, and how long a target may be."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from throughtime.errors import UserError

if TYPE_CHECKING:
    from throughtime.tasks.batches import Sequences
    from throughtime.tasks.tokens import Tokens

END = 1  # as in models.framing, which imports torch
SCORED = 5000  # tokens of a side that are scored
LEAST, MOST = 250, 1000  # tokens of a side that are learned from: the bound that fits the data lies between
CELLS = 1 << 26  # numbers of an attention, or half of a distribution, of a batch that is learned from
USUAL = 0.99  # the share of pairs whose targets are not longer than the ratio says


class Limit(NamedTuple):
    """How many tokens a translation has at most: `more`, and `ratio` a token of its source."""

    more: int = 20
    ratio: float = 2.0

    def of(self, source: int) -> int:
        return math.ceil(self.more + self.ratio * source)

    @classmethod
    def fitted(cls, source: Any, target: Any) -> Limit:
        """A limit with room above all pairs of these lengths: the ratio is that of nearly all of them, what is more is added."""
        import numpy as np

        ratio = max(cls().ratio, float(np.quantile(target / np.maximum(source, 1), USUAL)))
        return cls(cls().more + max(0, math.ceil(float((target - ratio * source).max()))), round(ratio, 3))

    @classmethod
    def read(cls, values: Any) -> Limit:
        """As a run holds it; None of a run that has none. Raises: ValueError where it is no limit."""
        if values is None:
            return cls()
        more, ratio = values
        if not 0 <= more <= 1_000_000 or not 0 <= ratio <= 10_000:
            raise ValueError(f"the limit {values} is out of range")
        return cls(int(more), float(ratio))


def read_pairs(files: list[Path]) -> list[tuple[str, str]]:
    """Pairs of lines, from two files aligned by line or one TSV. Pairs with an empty side are left out.

    Raises: UserError where the files do not fit each other, with the line.
    """
    from throughtime.tasks.tables import name_of, read_utf8

    if len(files) == 1:
        name, pairs = name_of(files[0]), []
        for number, line in enumerate(read_utf8(files[0]).removesuffix("\n").split("\n"), 1):
            fields = line.split("\t")
            if line.strip() and len(fields) != 2:
                raise UserError(
                    f"{name}:{number}: {len(fields)} fields; a line has a source and a target with a tab between them, or give "
                    f"two files aligned by line"
                )
            if line.strip():
                pairs.append((fields[0].strip(), fields[1].strip()))
    elif len(files) == 2:
        a, b = (read_utf8(f).removesuffix("\n").split("\n") for f in files)
        if len(a) != len(b):
            longer = files[len(b) > len(a)]
            raise UserError(
                f"{name_of(files[0])} has {len(a)} lines and {name_of(files[1])} {len(b)}; {name_of(longer)}:"
                f"{min(len(a), len(b)) + 1} has nothing beside it"
            )
        pairs = [(x.strip(), y.strip()) for x, y in zip(a, b, strict=True)]
    else:
        raise UserError(f"{len(files)} files; give a source and a target aligned by line, or one TSV of pairs")
    whole = [pair for pair in pairs if all(pair)]
    if len(whole) < len(pairs):
        warnings.warn(f"{len(pairs) - len(whole):,} pairs with an empty side are left out", stacklevel=2)
    if not whole:
        raise UserError(f"{name_of(files[0])}: no pair in it")
    return whole


def longest_learned(batch: int, target: int, width: int) -> int:
    """How many tokens of a side can be learned from, so that a batch fits a usual memory.

    Args: batch: pairs side by side. target: entries of the target's vocabulary. width: numbers that attention takes for a step
        of the one side and a step of the other.
    """
    fits = min(math.isqrt(CELLS // max(batch * width, 1)), 2 * CELLS // (batch * target))
    return max(LEAST, min(fits, MOST))


def read_tokens(tokens: Tokens, text: str, longest: int) -> tuple[Any, bool]:
    """The first tokens of a text, `longest` at most, and whether these are all."""
    ids = tokens.beginning(text, longest)
    return ids[:longest], len(ids) <= longest


def coded(
    pairs: Sequence[tuple[str, str]], tokens: tuple[Tokens, Tokens], longest: int
) -> tuple[Sequences, Sequences, int]:
    """Both sides of pairs as numbers, each cut to its first `longest` tokens; a target that is whole ends with END. And how many
    pairs had to be cut."""
    import numpy as np

    from throughtime.tasks.batches import Sequences

    sources, targets, cut = [], [], 0
    for pair in pairs:
        (source, all_source), (target, all_target) = (
            read_tokens(t, text, longest) for t, text in zip(tokens, pair, strict=True)
        )
        sources.append(source)
        targets.append(np.append(target, END) if all_target else target)
        cut += not (all_source and all_target)
    return Sequences.of(sources), Sequences.of(targets), cut


def scored(pairs: Sequence[tuple[str, str]], tokens: tuple[Tokens, Tokens]) -> tuple[Sequences, Sequences]:
    """Both sides of pairs as they are scored: whole, but for what no memory would hold, which is said."""
    source, target, cut = coded(pairs, tokens, SCORED)
    if cut:
        warnings.warn(
            f"{cut:,} of {len(pairs):,} pairs have a side of over {SCORED:,} tokens: their first {SCORED:,} are scored",
            stacklevel=2,
        )
    return source, target
