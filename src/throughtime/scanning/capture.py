"""A cell, run once on small tensors under a recorder, as a graph of nodes.

The recorder sees every ATen operation beneath the cell, whoever wrote it. Operations on the cell's own tensors alone are kept to be
done again at every call (weights change); the others are lowered to nodes. Tracing takes a millisecond or two and needs
none of PyTorch's
compiler, so a new process is soon at work.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from throughtime.cells.base import split_result, watching
from throughtime.errors import unknown
from throughtime.scanning import symbols
from throughtime.scanning.call import Call, leaves, map_leaves, map_states
from throughtime.scanning.constants import Constants, own_tensors
from throughtime.scanning.evaluate import evaluate, side_by_side
from throughtime.scanning.lowering import Constant, Lowering, Unsupported
from throughtime.scanning.nodes import INPUT, STATE, Graph, Row
from throughtime.scanning.recorder import NOBODY, Readings, Recorder, check_memory
from throughtime.scanning.signature import Reads
from throughtime.scanning.symbols import Symbol
from throughtime.scanning.unchanged import Unchanged


@dataclass(frozen=True)
class Captured:
    """One step: what it gives, as rows of nodes, and the constants it is made with.

    state: the rows of the new state's tensors. outputs: those of the output and of each record.
    shapes: for each output, its shape behind the batch. state_shapes: likewise for the state.
    """

    graph: Graph
    state: list[Row]
    outputs: list[Row]
    shapes: list[tuple[int, ...]]
    state_shapes: list[tuple[int, ...]]
    input_widths: list[int]
    constants: Constants


@torch.inference_mode(False)  # in it the operations that are traced would be others
def capture(call: Call, reads: Reads | None = None) -> Captured:
    """Trace the cell of a call. reads: what its code reads from outside, which may not change either.

    Raises: Unsupported where the engine cannot compile it, naming the operation and its line.
    """
    for _ in range(_TRIES):
        with Unchanged(call.cell, reads) as before:
            captured = _capture(call)
            _check(captured, call)
        if before.changed is not None:
            raise Unsupported(before.changed)
        if before.drawn is None:  # else it may have been another thread
            return captured
    before.undo_draws()
    raise Unsupported(before.drawn)


def _capture(call: Call) -> Captured:
    cell = call.cell
    dtype = leaves(call.inputs)[0].dtype
    own = own_tensors(cell)
    for name, tensor in own.items():
        check_memory(tensor, f"its tensor {name!r}")
    given = leaves(call.inputs)
    states = call.state if isinstance(call.state, tuple) else (call.state,)
    sizes: set[int] = set()  # that the batch must not be taken for
    for shape in (*(t.shape for t in own.values()), *(t.shape[2:] for t in given), *(t.shape[1:] for t in states)):
        sizes.update(shape)
    sizes.add(call.batch)  # nor for that of the call, with which the result is checked
    batch = next((p for p in _PRIMES if p not in sizes), None)
    if batch is None:
        raise Unsupported(f"its sizes are all of {_PRIMES[0]} … {_PRIMES[-1]}, so that none can stand for the batch")
    graph = Graph()
    constants = Constants(list(own), dtype)
    low = Lowering(graph, batch, constants)

    # tensors made in inference_mode cannot be saved for a backward, whose operations are the same
    with_gradients = not any(tensor.is_inference() for tensor in own.values())
    known: dict[int, Any] = {}
    keep: list[Tensor] = []
    for index, tensor in enumerate(own.values()):
        known[id(tensor)] = Constant(index, tensor.shape, tensor.dtype)
        keep.append(tensor)

    def stand_in(kind: str, index: int, tensor: Tensor, shape: Sequence[int], flags: int) -> Tensor:
        if tensor.dtype != dtype:
            raise Unsupported(f"inputs and states of {dtype} and {tensor.dtype} together")
        small = torch.full((batch, *shape), 0.5, dtype=dtype, device="cpu", requires_grad=with_gradients)
        keep.append(small)
        width = 1
        for n in shape:
            width *= n
        if width == 0:
            raise Unsupported("an input or a state without features")
        symbol = Symbol((batch, width), "bl", symbols.whole([graph.leaf(kind, index, width, 0, flags)]))
        if len(shape) != 1:
            symbol = symbols.reshaped(graph, symbol, (batch, *shape))
        known[id(small)] = symbol
        return small

    numbers = iter(range(len(given)))
    x = map_leaves(lambda t: stand_in("x", next(numbers), t, t.shape[2:], INPUT), call.inputs)
    places = iter(range(len(states)))
    state = map_states(lambda t: stand_in("s", next(places), t, t.shape[1:], STATE), call.state)

    recorder = Recorder(low, known, keep, with_gradients)
    try:
        output, new, seen = _run(cell, x, state, recorder, bool(call.record))
        if recorder.refused is not None:  # the cell has caught it
            raise recorder.refused
    except Unsupported:
        raise
    except Exception as error:  # the reference will meet it too, on the user's own tensors
        raise Failed(f"the cell fails on a batch of {batch}: {type(error).__name__}: {error}") from error
    new_states = new if isinstance(new, tuple) else (new,)
    for old, tensor in zip(states, new_states, strict=True):
        if tensor.shape[1:] != old.shape[1:] or tensor.shape[0] != batch:
            raise Unsupported(f"the cell turns a state [B, {_sizes(old)}] into {list(tensor.shape)}")
        if tensor.dtype != dtype:
            raise Unsupported(f"the cell turns a state of {dtype} into one of {tensor.dtype}")
    wanted = [new_states[0] if output is None else output]
    for name in call.record:
        if name not in seen:
            raise ValueError(unknown("record", name, seen))
        wanted.append(seen[name])
    for name, tensor in zip(("its output", *call.record), wanted, strict=True):
        if tensor.dim() == 0 or tensor.shape[0] != batch or tensor.dtype != dtype:
            raise Unsupported(f"{name} is {list(tensor.shape)} of {tensor.dtype}, not [B, ...] of {dtype}")

    def row_of(tensor: Tensor, what: str) -> Row:
        value = known.get(id(tensor))
        if id(tensor) in recorder.stale:
            raise Unsupported(f"{what} was written over in place by way of a view")
        if isinstance(value, Constant):
            raise Unsupported(f"{what} is the same at every step and in every sequence")
        if value is None:
            raise Unsupported(f"{what} does not come from the cell's inputs and tensors")
        return symbols.flat_row(graph, low.as_number(value))

    return Captured(
        graph,
        [row_of(t, "the new state") for t in new_states],
        [row_of(t, "the output" if i == 0 else f"the record {call.record[i - 1]!r}") for i, t in enumerate(wanted)],
        [tuple(t.shape[1:]) for t in wanted],
        [tuple(t.shape[1:]) for t in states],
        [math.prod(t.shape[2:]) for t in given],
        constants,
    )


def _check(captured: Captured, call: Call) -> None:
    """Set a step of the cell beside the same step as it was captured, on random numbers of other batches than it was captured with.

    So what was taken for a constant and is not (a number that hangs on the batch, or on whether gradients are taken) does not
    go unseen, whatever it was.
    Raises: Unsupported where they differ every time. (Once may be chance: a step at a threshold.)
    """
    values = list(own_tensors(call.cell).values())
    with_gradients = not any(tensor.is_inference() for tensor in values)
    with torch.no_grad():
        vectors, matrices = captured.constants.evaluate(values)
    draw = torch.Generator().manual_seed(call.batch)
    given = min(call.batch, _MOST_CHECKED) or 2
    for batch, gradients in ((given, with_gradients), (min(given, 2), False)):
        if not any(_agrees(captured, call, batch, gradients, vectors, matrices, draw) for _ in range(_TRIES)):
            what = "a step of it gives other numbers than what was captured"
            raise Unsupported(f"{what}: something in it hangs on more than its tensors")


def _agrees(
    captured: Captured, call: Call, batch: int, gradients: bool, vectors: list[Tensor], matrices: list[Tensor],
    draw: torch.Generator,
) -> bool:  # fmt: skip
    """Whether a step on random numbers and its capture give the same."""
    tolerance = 1e-3 if captured.constants.dtype == torch.float32 else 1e-7
    given, state = (
        map_leaves(lambda t, s=start: torch.randn(batch, *t.shape[s:], generator=draw, dtype=t.dtype), tensors)  # type: ignore[misc]
        for tensors, start in ((call.inputs, 2), (call.state, 1))
    )
    try:
        with torch.set_grad_enabled(gradients), saved_tensors_hooks(*NOBODY), watching() as seen:
            output, new = split_result(call.cell(given, state), state)
    except Exception as error:
        raise Failed(f"the cell fails on a batch of {batch}: {type(error).__name__}: {error}") from error
    first = new[0] if isinstance(new, tuple) else new
    shown = [*(new if isinstance(new, tuple) else (new,)), first if output is None else output]
    shown += [seen[name] for name in call.record]
    leaf = {
        "x": [t.reshape(batch, -1) for t in leaves(given)],
        "s": [t.reshape(batch, -1) for t in leaves(state)],
        "v": vectors,
    }
    rows = (*captured.state, *captured.outputs)
    nodes = [n for row in rows for n in row]
    with torch.no_grad():
        parts = iter(evaluate(nodes, lambda kind, i: leaf[kind][i], matrices, leaf["s"][0]))
    for row, right in zip(rows, shown, strict=True):
        value = side_by_side(row, [next(parts) for _ in row]).expand(batch, -1)
        if value.numel() != right.numel():
            return False
        if not torch.allclose(value, right.detach().reshape(batch, -1), tolerance, tolerance, equal_nan=True):
            return False
    return True


class Failed(Unsupported):
    """The cell itself fails, which may be another time not so."""


_MOST_CHECKED = 32  # rows
_TRIES = 3


def _sizes(tensor: Tensor) -> str:
    return ", ".join(map(str, tensor.shape[1:]))


def _run(cell: nn.Module, x: Any, state: Any, recorder: Recorder, watch: bool) -> Any:
    with torch.set_grad_enabled(recorder.with_gradients), saved_tensors_hooks(*NOBODY), recorder, Readings(recorder):
        if watch:
            with watching() as seen:
                result = cell(x, state)
        else:
            seen, result = {}, cell(x, state)
    output, new = split_result(result, state)
    return output, new, seen


_PRIMES = (
    13,
    17,
    19,
    23,
    29,
    31,
    37,
    41,
    43,
    47,
    53,
    59,
    61,
    67,
    71,
    73,
    79,
    83,
    89,
    97,
    101,
    103,
    107,
    109,
    113,
    127,
    131,
    137,
)
