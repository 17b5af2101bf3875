"""A scan inside `torch.autocast("cpu", torch.bfloat16)`, or of a module of bfloat16.

It is one of float32, pointwise work included, whose products round their operands to bfloat16 where this processor gains by it;
states are float32 in autocast, and rounded to bfloat16 in a module (`modules`). What it gives is of the types that PyTorch's own
operations would give.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from throughtime.scanning import native
from throughtime.scanning.call import (
    Call,
    Scanned,
    first_leaf,
    leaves,
    map_leaves,
    map_states,
    tensors_of,
    unwrapped,
)  # fmt: skip
from throughtime.scanning.constants import own_tensors
from throughtime.scanning.cpu.modules import RoundedStep, in_float32
from throughtime.scanning.cpu.target import why_not_bfloat16
from throughtime.scanning.engine import Types
from throughtime.scanning.foreign import context, in_bfloat16, transform, without_autocast
from throughtime.scanning.reference import run as run_plainly


def as_float32(call: Call) -> Call | None:
    """A call in bfloat16, by autocast or by its module, as one of float32; None for others."""
    module = first_leaf(call.inputs).dtype is torch.bfloat16
    if not (module or in_bfloat16()) or transform() is not None:
        return None
    if "float32" not in call.found:
        call.found["float32"] = _converted(call)
    shown: Call | None = call.found["float32"]
    return shown


def _converted(call: Call) -> Call | None:
    given = (*leaves(call.inputs), *tensors_of(call.state), *tensors_of(call.initial))
    own = [t for t in own_tensors(call.cell).values() if t.is_floating_point()]
    if not all(t.is_cpu and t.dtype in (torch.float32, torch.bfloat16) for t in (*given, *own)):
        return None
    kinds = {t.dtype for t in own}
    if in_bfloat16() and kinds <= {torch.float32}:
        cell = call.cell
    elif kinds == {torch.bfloat16} and all(t.dtype is torch.bfloat16 for t in given):
        with without_autocast():
            if context((*given, *own)) is not None:
                return None
        cell = RoundedStep(in_float32(call.cell))
    else:
        return None
    state = map_states(torch.Tensor.float, call.state)
    shown = replace(
        call,
        cell=cell,
        inputs=map_leaves(torch.Tensor.float, call.inputs),
        state=state,
        initial=state if call.initial is call.state else map_states(torch.Tensor.float, call.initial),
        operands=call.operands or (torch.bfloat16 if why_not_bfloat16() is None else None),
    )
    shown.found["owner"] = unwrapped(call.cell)
    return shown


def said(call: Call) -> str | None:
    """In which type a call is done, in words, where autocast or its module asks for another than float32."""
    shown = as_float32(call)
    if shown is None:
        return None
    quick = shown.operands is torch.bfloat16
    if isinstance(shown.cell, RoundedStep):
        rest = "" if quick else f", products too: {why_not_bfloat16()}"
        products = "products of bfloat16 with sums in float32; " if quick else ""
        return f"{products}states rounded to bfloat16 after each step, all else in float32{rest}: the module is of bfloat16"
    if quick:
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
