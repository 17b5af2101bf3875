"""The plain loop: the ground truth for every other backend. Any cell, any device, any number of derivatives.

This is the only Python loop over time in the library.
"""

from __future__ import annotations

import torch
from torch import Tensor

from throughtime.cells import State
from throughtime.cells.base import split_result, watching
from throughtime.errors import unknown
from throughtime.scanning.call import Call, Scanned, map_leaves, map_states, rows_like, where_rows

name = "reference"


def why_not(call: Call) -> str | None:
    """None: the reference runs everything."""
    return None


def run(call: Call) -> Scanned:
    """Run the cell step by step, as `scan` documents."""
    state = call.state
    steps: list[Step | None] = []  # None: no sequence goes so far
    for t in reversed(range(call.steps)) if call.reverse else range(call.steps):
        x = map_leaves(lambda leaf: leaf[t], call.inputs)  # noqa: B023  (used within the step)
        if call.resets is not None:
            state = where_rows(call.resets[t], call.initial, state)
        if call.lengths is None:
            output, state, seen = _step(call, x, state)
            steps.append((output, seen))
            continue
        active = t < call.lengths
        others = _in_their_place(active)
        if others is None:
            steps.append(None)
            continue
        x = map_leaves(lambda leaf: leaf.index_select(0, others), x)  # noqa: B023
        given = map_states(lambda s: s.index_select(0, others), state)  # noqa: B023
        output, new, seen = _step(call, x, given)
        state = where_rows(active, new, state)
        steps.append((_zero_rows(active, output), {n: _zero_rows(active, seen[n]) for n in call.record}))
    if call.reverse:
        steps.reverse()
    like = next((step for step in steps if step is not None), None) or _step_on_zeros(call)
    rows = [
        step or (torch.zeros_like(like[0]), {n: torch.zeros_like(like[1][n]) for n in call.record}) for step in steps
    ]
    if not rows:
        nothing = {n: like[1][n].new_zeros((0, *like[1][n].shape)) for n in call.record}
        return Scanned(like[0].new_zeros((0, *like[0].shape)), state, nothing)
    records = {n: torch.stack([seen[n] for _, seen in rows]) for n in call.record}
    return Scanned(torch.stack([output for output, _ in rows]), state, records)


Step = tuple[Tensor, dict[str, Tensor]]  # output and records


def _in_their_place(active: Tensor) -> Tensor | None:
    """For each row itself, or where its sequence has ended the first that still runs; None where none does.

    So the cell has as many rows at every step, and none of them is at a place where no sequence ever was: there a derivative may be
    infinite, and zero times that reaches the weights as NaN.
    """
    if not bool(active.any()):
        return None
    own = torch.arange(len(active), device=active.device)
    return torch.where(active, own, active.to(torch.int8).argmax())


def _step(call: Call, x: object, state: State) -> tuple[Tensor, State, dict[str, Tensor]]:
    if call.record:
        with watching() as seen:
            result = call.cell(x, state)
        for n in call.record:
            if n not in seen:
                raise ValueError(unknown("record", n, seen))
    else:
        seen, result = {}, call.cell(x, state)
    output, new = split_result(result, state)
    if output is None:
        output = new if isinstance(new, Tensor) else new[0]
    return output, new, seen


def _zero_rows(active: Tensor, value: Tensor) -> Tensor:
    return torch.where(rows_like(active, value), value, torch.zeros_like(value))


def _step_on_zeros(call: Call) -> Step:
    """Where no step is taken: what one would give, for its shapes."""
    with torch.no_grad():
        zeros = map_leaves(lambda leaf: leaf.new_zeros(leaf.shape[1:]), call.inputs)
        output, _, seen = _step(call, zeros, call.state)
    return output, seen
