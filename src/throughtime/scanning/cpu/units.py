"""Loops whose units are each by themselves, so that threads can share out the units where there are few sequences.

No unit reads another: there is no product of the state and no reduction, and what a value reads of the state is at its own place.
So it is with steps that are linear in their state, and with others too (`h' = relu(x + u ⊙ h)`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from throughtime.scanning.cpu.assembly import Assembly
from throughtime.scanning.nodes import REDUCTIONS, Node, ordered
from throughtime.scanning.program import Array
from throughtime.scanning.schedule import Schedule, Work


class Span(NamedTuple):
    """The whole vectors of a sweep that a task does, from the feature `first` to `end`; and whether the last vector, which is not
    whole, is its own."""

    first: str
    end: str
    last: str


def by_themselves(schedule: Schedule) -> bool:
    """Whether each unit of a loop can be run through time without the others."""
    if schedule.loop.products or any(n.op in REDUCTIONS for n in schedule.nodes):
        return False
    return all(_reads_its_own(work, schedule.loop.targets) for work in sweeps(schedule))


def sweeps(schedule: Schedule) -> list[Work]:
    """All of a loop."""
    return [work for stage in schedule.stages for phase in stage.phases for work in phase]


def _reads_its_own(work: Work, targets: tuple[tuple[Array, tuple[Node, ...]], ...]) -> bool:
    """Whether what a sweep reads of what the step before wrote, it wrote in the same place of the same sweep."""
    written = {(array, offset) for _, array, offset in work.stores}
    arrays = {array for array, _ in targets}
    for leaf in ordered(work.roots):
        if leaf.op != "leaf":
            continue
        kind, index, offset = leaf.attribute
        before = {"s": ("n", index), "c": ("c", index)}.get(kind)  # a backward loop reads states that it does not write
        if before in arrays and (leaf.width != work.width or (before, offset) not in written):
            return False
    return True


def spans(code: Assembly, widths: Iterable[int], part: str, parts: str) -> dict[int, Span]:
    """What one of so many parts does of the sweeps of each width."""
    found = {}
    for width in widths:
        whole, left = divmod(width, code.lanes)
        vectors = whole + (left > 0)
        low, high = (code.let(f"udiv i64 {code.mul(vectors, n)}, {parts}") for n in (part, code.add(part, 1)))
        last = code.let(f"and i1 {code.less(low, high)}, {code.let(f'icmp eq i64 {high}, {vectors}')}")
        found[width] = Span(code.mul(low, code.lanes), code.mul(code.least(high, whole), code.lanes), last)
    return found
