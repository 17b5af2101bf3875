"""The plain loop: the ground truth for every other backend. Any cell, any device, any number of derivatives.

This is the only Python loop over time in the library.
"""

from __future__ import annotations

import torch
from torch import Tensor

from throughtime.cells import State
from throughtime.cells.base import split_result, watching
from throughtime.errors import unknown
from throughtime.scanning.call import Call, Scanned, map_leaves, rows_like, where_rows

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
    for t in reversed(range(call.steps)) if call.reverse else range(call.steps):
        x = map_leaves(lambda leaf: leaf[t], call.inputs)  # noqa: B023  (used within the step)
        if call.resets is not None:
            state = where_rows(call.resets[t], call.initial, state)
        active = None
        if call.lengths is not None:
            active = t < call.lengths
            # whatever stands in the padding must not reach a gradient, as 0 · NaN would
            x = map_leaves(lambda leaf: _zero_rows(active, leaf), x)  # noqa: B023
        output, new, seen = _step(call, x, state)
        state = new if active is None else where_rows(active, new, state)
        outputs.append(output if active is None else _zero_rows(active, output))
        for n, values in records.items():
            values.append(seen[n] if active is None else _zero_rows(active, seen[n]))
    if not outputs:
        return _nothing(call)
    if call.reverse:
        outputs.reverse()
        for values in records.values():
            values.reverse()
    return Scanned(torch.stack(outputs), state, {n: torch.stack(values) for n, values in records.items()})


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


def _nothing(call: Call) -> Scanned:
    """No steps: empty outputs, whose width one step on zeros tells; the state stands as it was."""
    with torch.no_grad():
        zeros = map_leaves(lambda leaf: leaf.new_zeros(leaf.shape[1:]), call.inputs)
        output, _, seen = _step(call, zeros, call.state)
    records = {n: seen[n].new_zeros((0, *seen[n].shape)) for n in call.record}
    return Scanned(output.new_zeros((0, *output.shape)), call.state, records)
