"""A scan inside `torch.autocast("cpu", torch.bfloat16)`.

It is one of float32, states and pointwise work included, whose products round their operands to bfloat16 where this processor
gains by it. What it gives is of the types that PyTorch's own operations would give.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from throughtime.scanning import native
from throughtime.scanning.call import Call, Scanned, leaves, map_leaves, map_states, tensors_of
from throughtime.scanning.constants import own_tensors
from throughtime.scanning.cpu.engine import Types
from throughtime.scanning.cpu.target import why_not_bfloat16
from throughtime.scanning.foreign import in_bfloat16, transform, without_autocast
from throughtime.scanning.reference import run as run_plainly


@contextmanager
def plainly(call: Call) -> Iterator[Call]:
    """The call as the compiled loop takes it, with autocast off; as it is where autocast is not on, or not to be followed."""
    shown = as_float32(call)
    if shown is None:
        yield call
        return
    with without_autocast():
        yield shown


def as_float32(call: Call) -> Call | None:
    """A call in autocast to bfloat16 as one of float32; None for others."""
    if not in_bfloat16() or transform() is not None:
        return None
    if "float32" not in call.found:
        given = (*leaves(call.inputs), *tensors_of(call.state), *tensors_of(call.initial))
        own = [t for t in own_tensors(call.cell).values() if t.is_floating_point()]
        fits = all(t.is_cpu and t.dtype in (torch.float32, torch.bfloat16) for t in given) and all(
            t.is_cpu and t.dtype is torch.float32 for t in own
        )
        call.found["float32"] = _converted(call) if fits else None
    shown: Call | None = call.found["float32"]
    return shown


def _converted(call: Call) -> Call:
    state = map_states(torch.Tensor.float, call.state)
    return replace(
        call,
        inputs=map_leaves(torch.Tensor.float, call.inputs),
        state=state,
        initial=state if call.initial is call.state else map_states(torch.Tensor.float, call.initial),
        operands=call.operands or (torch.bfloat16 if why_not_bfloat16() is None else None),
    )


def said(call: Call) -> str | None:
    """In which type the products of a call are done, in words, where autocast asks for another."""
    shown = as_float32(call)
    if shown is None:
        return None
    if shown.operands is torch.bfloat16:
        return "products of bfloat16 with sums in float32, all else in float32: autocast is on"
    return f"in float32, though autocast to bfloat16 is on: {why_not_bfloat16()}"


def types(call: Call) -> Types:
    """The types of what PyTorch's own operations would give for a call: they show within two steps."""
    short = replace(
        call,
        inputs=map_leaves(lambda leaf: leaf[:2], call.inputs),
        lengths=None if call.lengths is None else call.lengths.clamp(max=2),
        resets=None if call.resets is None else call.resets[:2],
    )
    with torch.no_grad():
        found = native.run(short) if native.why_not(short) is None else run_plainly(short)
    return (
        (found.outputs.dtype, *(s.dtype for s in tensors_of(found.state))),
        {name: value.dtype for name, value in found.records.items()},
    )


def in_types(scanned: Scanned, wanted: Types) -> Scanned:
    """What a scan gave, in these types."""
    (output, *states), records = wanted
    ends = iter(states)

    def ended(state: Tensor) -> Tensor:
        return state.to(next(ends))

    return Scanned(
        scanned.outputs.to(output),
        map_states(ended, scanned.state),
        {name: value.to(records[name]) for name, value in scanned.records.items()},
    )
