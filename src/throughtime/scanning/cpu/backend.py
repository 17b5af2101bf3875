"""The `cpu` backend: any cell that can be captured, on the CPU, in float32 or float64; in bfloat16 see `autocast`."""

from __future__ import annotations

import torch
from torch import nn

from throughtime.cells.base import somebody_watches
from throughtime.scanning import compiled
from throughtime.scanning.call import Call, Scanned, leaves, tensors_of
from throughtime.scanning.constants import own_tensors
from throughtime.scanning.cpu.autocast import as_float32, in_types, types
from throughtime.scanning.cpu.engine import CPUEngine
from throughtime.scanning.cpu.matrices import NAMES, QUADS
from throughtime.scanning.cpu.threads import as_the_team
from throughtime.scanning.engine import Types
from throughtime.scanning.foreign import context, without_autocast
from throughtime.scanning.programs import Programs
from throughtime.scanning.signature import HOOKS
from throughtime.scanning.symbols import Unsupported

name = "cpu"
programs = Programs(CPUEngine)

HOOKED = "the cell has hooks or a forward of its own, which would be called once and not at every step"


def why_not(call: Call) -> str | None:
    """Why the compiled loop cannot run this call; None where it can."""
    found = find(call)
    return found if isinstance(found, str) else None


def find(call: Call, hoist: bool = True) -> CPUEngine | str:
    """The engine of a call, or why there is none. hoist: as `divide` takes it."""
    shown = as_float32(call)
    if shown is None:
        return _refusal(call) or programs.find(call, hoist)
    with without_autocast():
        return _refusal(shown) or programs.find(shown, hoist)


def _refusal(call: Call) -> str | None:
    """What a call has about it that no program can help."""
    given = (*leaves(call.inputs), *tensors_of(call.state))
    if call.initial is not call.state:
        given += tensors_of(call.initial)
    own = call.found["own"] = list(own_tensors(call.cell).values())
    reason = context((*given, *own))
    if reason is not None:
        return reason
    for tensor in given:
        if not tensor.is_cpu:
            return f"it compiles for the CPU, and the inputs are on {tensor.device}"
        if tensor.dtype not in NAMES:
            return f"it computes in float32 and float64, and the inputs are {tensor.dtype}"
        if call.operands in QUADS and tensor.dtype is not torch.float32:
            return f"weights in int8 are for inputs in float32, and these are {tensor.dtype}"
        if tensor.dtype is not given[0].dtype:
            return f"inputs and states are {given[0].dtype} and {tensor.dtype} together"
    for tensor in own:
        if not tensor.is_cpu:
            return f"it compiles for the CPU, and the cell has a tensor on {tensor.device}"
    if somebody_watches():
        return "somebody watches inner values, which a compiled loop does not show (record= does)"
    return _hooks(call.cell)


def _hooks(cell: nn.Module) -> str | None:
    for name in HOOKS:
        if getattr(cell, name):
            return HOOKED
    if "forward" in cell.__dict__:
        return HOOKED
    for child in cell._modules.values():
        if child is not None and _hooks(child) is not None:
            return HOOKED
    return None


@as_the_team
def run(call: Call) -> Scanned:
    """Run the cell by the compiled loop, as `scan` documents."""
    shown = as_float32(call)
    if shown is None:
        return _run(_found(call), call)
    with without_autocast():
        engine = _found(shown)
    wanted = _types(engine, call)
    with without_autocast():
        made = _run(engine, shown, wanted if engine.operands is torch.bfloat16 else None)
    return in_types(made, wanted)


def _found(call: Call) -> CPUEngine:
    engine = programs.find(call)
    assert not isinstance(engine, str)
    return engine


def _run(engine: CPUEngine, call: Call, wanted: Types | None = None) -> Scanned:
    try:
        return compiled.run(engine, call, wanted)
    except Unsupported as error:
        programs.refuse(call, str(error))
        raise


def _types(engine: CPUEngine, call: Call) -> Types:
    """The types of what a call in bfloat16 gives, found out once for each kind of call."""
    given = (*leaves(call.inputs), *tensors_of(call.state), *tensors_of(call.initial))
    kind = tuple(t.dtype for t in given), min(call.steps, 2), call.lengths is None
    if kind not in engine.types:
        engine.types[kind] = types(call)
    return engine.types[kind]
