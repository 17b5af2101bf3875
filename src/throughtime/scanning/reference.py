"""The plain loop: the ground truth for every other backend. Any cell, any device, any number of derivatives.

This is the only Python loop over time in the library.
"""

from __future__ import annotations

from dataclasses import dataclass

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


def note(call: Call) -> str | None:
    """None: there is nothing to say."""
    return None


def run(call: Call) -> Scanned:
    """Run the cell step by step, as `scan` documents."""
    state, outputs, records = call.state, [], {n: [] for n in call.record}  # type: ignore[var-annotated]
    shapes: Shapes | None = None  # of a step's output and records, where no sequence goes so far
    for t in reversed(range(call.steps)) if call.reverse else range(call.steps):
        x = map_leaves(lambda leaf: leaf[t], call.inputs)  # noqa: B023  (used within the step)
        if call.resets is not None:
            state = where_rows(call.resets[t], call.initial, state)
        given, active = state, None
        if call.lengths is not None:
            active = t < call.lengths
            others = _in_their_place(active)
            if others is None:
                shapes = shapes or _shapes(call)
                output, seen = shapes.zeros()
                outputs.append(output)
                for n, values in records.items():
                    values.append(seen[n])
                continue
            x = map_leaves(lambda leaf: leaf.index_select(0, others), x)  # noqa: B023
            given = map_states(lambda s: s.index_select(0, others), state)  # noqa: B023
        output, new, seen = _step(call, x, given)
        state = new if active is None else where_rows(active, new, state)
        outputs.append(output if active is None else _zero_rows(active, output))
        for n, values in records.items():
            values.append(seen[n] if active is None else _zero_rows(active, seen[n]))
    if not outputs:
        return _shapes(call).nothing(call)
    if call.reverse:
        outputs.reverse()
        for values in records.values():
            values.reverse()
    return Scanned(torch.stack(outputs), state, {n: torch.stack(values) for n, values in records.items()})


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


@dataclass(frozen=True)
class Shapes:
    """What a step's output and records look like."""

    output: Tensor
    seen: dict[str, Tensor]

    def zeros(self) -> tuple[Tensor, dict[str, Tensor]]:
        return torch.zeros_like(self.output), {n: torch.zeros_like(v) for n, v in self.seen.items()}

    def nothing(self, call: Call) -> Scanned:
        """No steps: empty outputs; the state stands as it was."""
        records = {n: self.seen[n].new_zeros((0, *self.seen[n].shape)) for n in call.record}
        return Scanned(self.output.new_zeros((0, *self.output.shape)), call.state, records)


def _shapes(call: Call) -> Shapes:
    """Found out by a step on zeros."""
    with torch.no_grad():
        zeros = map_leaves(lambda leaf: leaf.new_zeros(leaf.shape[1:]), call.inputs)
        output, _, seen = _step(call, zeros, call.state)
    return Shapes(output, {n: seen[n] for n in call.record})
