"""A cell, run once on small tensors under a recorder, as a graph of nodes.

The recorder sees every ATen operation beneath the cell, whoever wrote it. Operations on the cell's own tensors alone are
written down, to be done again at every call (weights change); the others are lowered to nodes. Tracing takes a millisecond or
two and needs none of PyTorch's compiler, so a new process is soon at work.
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
from throughtime.scanning.call import Call, leaves, map_leaves, map_states, tensors_of
from throughtime.scanning.constants import Constants, own_tensors
from throughtime.scanning.evaluate import TorchOperations
from throughtime.scanning.lowering import Constant, Lowering, Unsupported
from throughtime.scanning.nodes import INPUT, STATE, Graph, Row
from throughtime.scanning.reads import Reads
from throughtime.scanning.recorder import NOBODY, NoNumbersOut, Recorder, check_memory, line_of_cell
from throughtime.scanning.symbols import Symbol
from throughtime.scanning.unchanged import Unchanged

_MOST_CHECKED = 32  # rows
_TRIES = 3
# the batches of trial runs: numbers that are seldom sizes of anything else
_PRIMES = (
    13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109, 113, 127, 131, 137,
)  # fmt: skip


class Failed(Unsupported):
    """The cell itself fails, which may be another time not so."""


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
    trial = _Trial(call)
    new_states, outputs = trial.run()
    given, states = leaves(call.inputs), tensors_of(call.state)
    what = ["the output", *(f"the record {name!r}" for name in call.record)]
    return Captured(
        trial.graph,
        [trial.row_of(t, "the new state") for t in new_states],
        [trial.row_of(t, name) for t, name in zip(outputs, what, strict=True)],
        [tuple(t.shape[1:]) for t in outputs],
        [tuple(t.shape[1:]) for t in states],
        [math.prod(t.shape[2:]) for t in given],
        trial.low.constants,
    )


class _Trial:
    """One step of a cell under a recorder."""

    def __init__(self, call: Call) -> None:
        self.call, self.graph = call, Graph()
        self.dtype = leaves(call.inputs)[0].dtype
        own = own_tensors(call.cell)
        self.device = _device(call)
        for name, tensor in own.items():
            check_memory(tensor, f"its tensor {name!r}", self.device)
        self.batch = _stand_in_batch(call, list(own.values()))
        self.low = Lowering(self.graph, self.batch, Constants(list(own), self.dtype))
        # tensors made in inference_mode cannot be saved for a backward, whose operations are the same
        self.with_gradients = not any(tensor.is_inference() for tensor in own.values())
        self.tensors: list[Tensor] = list(own.values())  # all that are known, by their identity
        self.known: dict[int, Any] = {id(t): Constant(i, t.shape, t.dtype) for i, t in enumerate(self.tensors)}
        self.stale: dict[int, str] = {}

    def run(self) -> tuple[tuple[Tensor, ...], list[Tensor]]:
        """The tensors of the new state; and the output and the records."""
        call = self.call
        numbers, places = iter(range(len(leaves(call.inputs)))), iter(range(len(tensors_of(call.state))))
        x = map_leaves(lambda t: self._stand_in("x", next(numbers), t.shape[2:], t.dtype), call.inputs)
        state = map_states(lambda t: self._stand_in("s", next(places), t.shape[1:], t.dtype), call.state)
        recorder = Recorder(self.low, self.known, self.tensors, self.with_gradients)
        self.graph.where = line_of_cell
        try:
            output, new, seen = _run(call.cell, x, state, recorder, bool(call.record))
            if recorder.refused is not None:  # the cell has caught it
                raise recorder.refused
        except Unsupported:
            raise
        except Exception as error:  # the reference will meet it too, on the user's own tensors
            raise Failed(f"the cell fails on a batch of {self.batch}: {type(error).__name__}: {error}") from error
        finally:
            self.graph.where = None
        self.stale = recorder.stale
        for name in call.record:
            if name not in seen:
                raise ValueError(unknown("record", name, seen))
        new_states = tensors_of(new)
        outputs = [new_states[0] if output is None else output, *(seen[name] for name in call.record)]
        self._check_shapes(new_states, outputs)
        return new_states, outputs

    def _stand_in(self, kind: str, index: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A small tensor in the place of an input or of a state."""
        if dtype != self.dtype:
            raise Unsupported(f"inputs and states of {self.dtype} and {dtype} together")
        width = math.prod(shape)
        if width == 0:
            raise Unsupported("an input or a state without features")
        made = torch.full((self.batch, *shape), 0.5, dtype=dtype, device=self.device, requires_grad=self.with_gradients)
        self.tensors.append(made)
        row = self.graph.leaf(kind, index, width, 0, INPUT if kind == "x" else STATE)
        symbol = Symbol((self.batch, width), "bl", symbols.whole([row]))
        self.known[id(made)] = symbols.reshaped(self.graph, symbol, (self.batch, *shape))
        return made

    def _check_shapes(self, new_states: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        for old, tensor in zip(tensors_of(self.call.state), new_states, strict=True):
            if tensor.shape[1:] != old.shape[1:] or tensor.shape[0] != self.batch:
                raise Unsupported(f"the cell turns a state [B, {_sizes(old)}] into {list(tensor.shape)}")
            if tensor.dtype != self.dtype:
                raise Unsupported(f"the cell turns a state of {self.dtype} into one of {tensor.dtype}")
        for name, tensor in zip(("its output", *self.call.record), outputs, strict=True):
            if tensor.dim() == 0 or tensor.shape[0] != self.batch or tensor.dtype != self.dtype:
                raise Unsupported(f"{name} is {list(tensor.shape)} of {tensor.dtype}, not [B, ...] of {self.dtype}")

    def row_of(self, tensor: Tensor, what: str) -> Row:
        """A tensor that the cell has made, as nodes."""
        value = self.known.get(id(tensor))
        if id(tensor) in self.stale:
            raise Unsupported(f"{what} was written over in place by way of a view")
        if isinstance(value, Constant):
            raise Unsupported(f"{what} is the same at every step and in every sequence")
        if value is None:
            raise Unsupported(f"{what} does not come from the cell's inputs and tensors")
        return symbols.flat_row(self.graph, self.low.as_number(value))


def _device(call: Call) -> torch.device:
    """Where the cell's own tensors are; where it has none, the inputs."""
    return next(iter(own_tensors(call.cell).values()), leaves(call.inputs)[0]).device


def _stand_in_batch(call: Call, own: Sequence[Tensor]) -> int:
    """A number of rows that nothing else in the call is as large as."""
    shapes = [t.shape for t in own]
    shapes += [t.shape[2:] for t in leaves(call.inputs)] + [t.shape[1:] for t in tensors_of(call.state)]
    sizes = {n for shape in shapes for n in shape} | {call.batch}  # with which the result is checked
    batch = next((p for p in _PRIMES if p not in sizes), None)
    if batch is None:
        raise Unsupported(f"its sizes are all of {_PRIMES[0]} … {_PRIMES[-1]}, so that none can stand for the batch")
    return batch


def _check(captured: Captured, call: Call) -> None:
    """Set a step of the cell beside the same step as it was captured, on random numbers of other batches than it was captured
    with.

    So what was taken for a constant and is not (a number that hangs on the batch, or on whether gradients are taken) does not
    go unseen, whatever it was.
    Raises: Unsupported where they differ every time. (Once may be chance: a step at a threshold.)
    """
    values = list(own_tensors(call.cell).values())
    with_gradients = not any(tensor.is_inference() for tensor in values)
    with torch.no_grad():
        constants = captured.constants.made_of(values)
    draw = torch.Generator().manual_seed(call.batch)
    given = min(call.batch, _MOST_CHECKED) or 2
    for batch, gradients in ((given, with_gradients), (min(given, 2), False)):
        if not any(_agrees(captured, call, _drawn(call, batch, draw), gradients, constants) for _ in range(_TRIES)):
            what = "a step of it gives other numbers than what was captured"
            raise Unsupported(f"{what}: something in it hangs on more than its tensors")


def _drawn(call: Call, batch: int, draw: torch.Generator) -> tuple[Any, Any]:
    """A random input and state, where the cell's own tensors are."""
    device = _device(call)

    def drawn(tensor: Tensor, shape: Sequence[int]) -> Tensor:
        return torch.randn(batch, *shape, generator=draw, dtype=tensor.dtype).to(device)

    x = map_leaves(lambda t: drawn(t, t.shape[2:]), call.inputs)
    return x, map_states(lambda t: drawn(t, t.shape[1:]), call.state)


def _agrees(
    captured: Captured, call: Call, drawn: tuple[Any, Any], gradients: bool,
    constants: tuple[list[Tensor], list[Tensor]],
) -> bool:  # fmt: skip
    """Whether a step and its capture give the same."""
    (given, state), (vectors, matrices) = drawn, constants
    batch = len(leaves(given)[0])
    try:
        with torch.set_grad_enabled(gradients), saved_tensors_hooks(*NOBODY), watching() as seen:
            output, new = split_result(call.cell(given, state), state)
    except Exception as error:
        raise Failed(f"the cell fails on a batch of {batch}: {type(error).__name__}: {error}") from error
    shown = [*tensors_of(new), tensors_of(new)[0] if output is None else output, *(seen[name] for name in call.record)]
    leaf = {
        "x": [t.reshape(batch, -1) for t in leaves(given)],
        "s": [t.reshape(batch, -1) for t in tensors_of(state)],
        "v": vectors,
    }
    with torch.no_grad():
        rows = TorchOperations(lambda kind, i: leaf[kind][i], matrices, leaf["x"][0]).rows(
            [*captured.state, *captured.outputs]
        )
    tolerance = 1e-3 if captured.constants.dtype == torch.float32 else 1e-7
    for row, right in zip(rows, shown, strict=True):
        value = row.expand(batch, -1)
        if value.numel() != right.numel():
            return False
        if not torch.allclose(value, right.detach().reshape(batch, -1), tolerance, tolerance, equal_nan=True):
            return False
    return True


def _sizes(tensor: Tensor) -> str:
    return ", ".join(map(str, tensor.shape[1:]))


def _run(cell: nn.Module, x: Any, state: Any, recorder: Recorder, watch: bool) -> Any:
    with (
        torch.set_grad_enabled(recorder.with_gradients),
        saved_tensors_hooks(*NOBODY),
        recorder,
        NoNumbersOut(recorder),
    ):
        if watch:
            with watching() as seen:
                result = cell(x, state)
        else:
            seen, result = {}, cell(x, state)
    output, new = split_result(result, state)
    return output, new, seen
