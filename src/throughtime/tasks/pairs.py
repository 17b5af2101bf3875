"""Pairs of a source and a target: from files, as numbers, and how long a target may be."""

from __future__ import annotations

import itertools
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from throughtime.errors import UserError
from throughtime.tasks.delimited import find_delimiter, named_delimiter, read_delimited
from throughtime.tasks.source import Source

if TYPE_CHECKING:
    from throughtime.tasks.batches import Sequences
    from throughtime.tasks.tokens import Tokens

END = 1  # as in models.framing, which imports torch
SCORED = 5000  # tokens of a side that are scored
LEAST, MOST = 250, 1000  # tokens of a side that are learned from: the bound that fits the data lies between
CELLS = 1 << 26  # numbers of an attention, or half of a distribution, of a batch that is learned from
# how the columns of pairs are called, where a first line says so
NAMES = {"source", "src", "input", "question", "target", "tgt", "trg", "output", "answer", "translation"} | {
    *("english", "german", "french", "spanish", "italian", "portuguese", "dutch", "russian", "chinese", "japanese"),
    *("deutsch", "français", "español", "word", "pronunciation"),
}
NEARLY_ALL = 0.9  # of the rows that are looked at
USUAL = 0.99  # the share of pairs whose targets are not longer than the ratio says


class Limit(NamedTuple):
    """How many tokens a translation has at most: `more`, and `ratio` a token of its source."""

    more: int = 20
    ratio: float = 2.0

    def of(self, source: int) -> int:
        """The most tokens that a source of so many is translated into."""
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


class Pair(NamedTuple):
    """A source, its target where there is one, and where they stand."""

    source: str
    target: str | None
    place: str


def pairs(sources: Sequence[Source], *, both: bool | None, delimiter: str | None = None) -> Iterator[Pair]:
    """Sources and their targets: two files aligned by line; TSV of a source, a target and perhaps more; CSV of two columns; lines.

    Args: both: True: what has two sides; pairs with an empty side are left out, counted and said. None: every line in its place,
        with its target where there is one; a file without tabs, and texts in memory, are sources. False: the same without targets.
        delimiter: what stands between a source and a target; None: found.
    Raises: UserError with file and line where the files do not fit each other or cannot be read; and where both is True, and there
        is no pair.
    """
    if len(sources) == 2:
        found = _aligned(*sources)
    elif len(sources) != 1:
        raise UserError(f"{len(sources)} files; give a source and a target aligned by line, or one TSV of pairs")
    elif sources[0].suffix == ".csv" or delimiter is not None:
        found = _delimited(sources[0], delimiter, bool(both))
    elif both or _is_tsv(sources[0]):
        found = _tsv(sources[0], bool(both))
    else:
        found = (Pair(line.rstrip("\r\n"), None, f"{sources[0].name}:{n}") for n, line in enumerate(sources[0], 1))
    if not both:
        yield from (found if both is None else (pair._replace(target=None) for pair in found))
        return
    empty = count = 0
    for pair in found:
        whole = bool(pair.source and pair.target)
        count, empty = count + whole, empty + (not whole)
        if whole:
            yield pair
    if not count:
        raise UserError(f"{sources[0].name}: no pair in it")
    if empty:
        warnings.warn(f"{empty:,} pairs with an empty side are left out", stacklevel=2)


def _aligned(first: Source, second: Source) -> Iterator[Pair]:
    both = itertools.zip_longest(first, second)
    for number, (a, b) in enumerate(both, 1):
        if a is None or b is None:
            lengths = [number - 1, number + sum(1 for _ in both)]
            longer = second if a is None else first
            lengths = lengths if a is None else lengths[::-1]
            raise UserError(
                f"{first.name} has {lengths[0]} lines and {second.name} {lengths[1]}; {longer.name}:{number} has nothing beside it"
            )
        yield Pair(a.strip(), b.strip(), f"{first.name}:{number}")


def _is_tsv(source: Source) -> bool:
    """Whether what may be plain lines is pairs: all that is there of it has a tab in it."""
    if source.in_memory or source.suffix == ".tsv":
        return not source.in_memory
    lines = [line for line in source.sample() if line.strip()]
    return bool(lines) and all("\t" in line for line in lines)


def _tsv(source: Source, both: bool) -> Iterator[Pair]:
    sample = [line.rstrip("\n").split("\t") for line in source.sample() if line.strip()]
    # numbers of sentences before the source and the target, as Tatoeba exports them
    numbered = bool(sample) and all(len(f) == 4 and f[0].isdecimal() and f[2].isdecimal() for f in sample)
    which = (1, 3) if numbered else (0, 1)
    more = 0
    for number, line in enumerate(source, 1):
        place, fields = f"{source.name}:{number}", [cell.strip() for cell in line.rstrip("\r\n").split("\t")]
        if not line.strip():
            if not both:
                yield Pair("", None, place)
            continue
        if number == 1 and _names_sides(fields):
            warnings.warn(f"{place}: {fields[0]!r} and {fields[1]!r} name the columns, and are left out", stacklevel=2)
            continue
        if both and len(fields) <= which[1]:
            raise UserError(
                f"{place}: {len(fields)} fields; a line has a source and a target with a tab between them, or give two files "
                f"aligned by line"
            )
        if number == 1 and not numbered:
            _say_possible_names(place, [fields, *sample[1:]])
        more += len(fields) > 2
        yield Pair(
            fields[which[0]] if len(fields) > which[0] else "",
            fields[which[1]] if len(fields) > which[1] else None,
            place,
        )
    if numbered or more:
        what = (
            "fields 2 and 4 are the source and the target"
            if numbered
            else "all fields past a source and a target are left out"
        )
        warnings.warn(f"{source.name}: {what}", stacklevel=2)


def _delimited(source: Source, delimiter: str | None, both: bool) -> Iterator[Pair]:
    text = source.text()
    found = find_delimiter(text, source.suffix, NAMES) or "," if delimiter is None else None
    rows = read_delimited(source.name, text, found or named_delimiter(delimiter or "", source.option))
    for i, (line, row) in enumerate(rows):
        place, fields = f"{source.name}:{line}", [" ".join(cell.split()) for cell in row]
        if i == 0 and _names_sides(fields):
            warnings.warn(f"{place}: {fields[0]!r} and {fields[1]!r} name the columns, and are left out", stacklevel=2)
        elif both and len(row) == 1:
            raise UserError(f"{place}: 1 fields; a line has a source and a target")
        elif row or not both:
            if i == 0:
                _say_possible_names(place, [row for _, row in rows])
            yield Pair(fields[0] if fields else "", fields[1] if len(fields) > 1 else None, place)
    if rows and len(rows[0][1]) > 2:
        warnings.warn(f"{source.name}: all fields past a source and a target are left out", stacklevel=2)


def _names_sides(fields: Sequence[str]) -> bool:
    """Whether a line names its columns."""
    return len(fields) > 1 and all(field.lower() in NAMES for field in fields[:2])


def _say_possible_names(place: str, rows: Sequence[Sequence[str]]) -> None:
    """Say where the first row is read as a pair and may name the columns: two short words that stand nowhere in the others, which
    are sentences."""
    first, others = [cell.strip() for cell in rows[0][:2]], [row[:2] for row in rows[1:] if len(row) > 1]
    sentences = sum(all(" " in cell.strip() for cell in row) for row in others)
    if len(first) < 2 or len(others) < 3 or sentences < NEARLY_ALL * len(others):
        return
    words = {word.lower() for row in others for cell in row for word in re.findall(r"[\w-]+", cell)}
    if all(re.fullmatch(r"[\w-]{1,20}", cell) and cell.lower() not in words for cell in first):
        warnings.warn(
            f"{place}: {first[0]!r} and {first[1]!r} are read as a pair; if they name the columns, take this line out",
            stacklevel=3,
        )


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


def coded(pairs: Sequence[Pair], tokens: tuple[Tokens, Tokens], longest: int) -> tuple[Sequences, Sequences, int]:
    """Both sides of pairs as numbers, each cut to its first `longest` tokens; a target that is whole ends with END. And how many
    pairs had to be cut."""
    import numpy as np

    from throughtime.tasks.batches import Sequences

    sources, targets, cut = [], [], 0
    for pair in pairs:
        (source, all_source), (target, all_target) = (
            read_tokens(t, text, longest) for t, text in zip(tokens, (pair.source, pair.target or ""), strict=True)
        )
        sources.append(source)
        targets.append(np.append(target, END) if all_target else target)
        cut += not (all_source and all_target)
    return Sequences.of(sources), Sequences.of(targets), cut


def scored(pairs: Sequence[Pair], tokens: tuple[Tokens, Tokens]) -> tuple[Sequences, Sequences]:
    """Both sides of pairs as they are scored: whole, but for what no memory would hold, which is said."""
    source, target, cut = coded(pairs, tokens, SCORED)
    if cut:
        warnings.warn(
            f"{cut:,} of {len(pairs):,} pairs have a side of over {SCORED:,} tokens: their first {SCORED:,} are scored",
            stacklevel=2,
        )
    return source, target
