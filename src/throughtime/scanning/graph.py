"""The loop in a graph that torch.export makes: every step in turn where it knows how many there are, else one loop of PyTorch's.

The graph is of PyTorch's own operations: it runs, is saved and is translated (to ONNX, a Loop) without throughtime.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from throughtime.cells import State
from throughtime.cells.base import split_result
from throughtime.scanning import reference
from throughtime.scanning.call import Call, Scanned, first_leaf, leaves, map_leaves, tensors_of, where_rows
from throughtime.scanning.cell import FunctionCell


def is_fixed(size: int) -> bool:
    """Whether torch.export writes this size of a tensor into the graph as a number; one of `Dim.DYNAMIC` stays open."""
    from torch.fx.experimental.symbolic_shapes import has_static_value

    return has_static_value(size)


def run(call: Call) -> Scanned:
    """The call as operations of a graph. Raises: ValueError for records, where the graph does not go through the cell's Python."""
    fixed = is_fixed(first_leaf(call.inputs).shape[0])
    if call.record and (torch.compiler.is_dynamo_compiling() or not fixed):
        raise ValueError(
            f"throughtime: an exported graph has no records ({', '.join(call.record)}), but for a fixed number of steps and "
            "with strict=False; give them out as the cell's output"
        )
    return reference.run(call) if fixed and call.lengths is None else _loop(call)


def _loop(call: Call) -> Scanned:
    """The call as one `while_loop`, which carries the step's number, all outputs and the state."""
    from torch._higher_order_ops.while_loop import while_loop

    steps, batch = first_leaf(call.inputs).shape[:2]
    device, lengths = first_leaf(call.inputs).device, call.lengths
    output = _output_of_zeros(call)
    link = _link(call)
    outputs = output.new_zeros(steps, batch, *output.shape[1:]) + link.to(output.dtype)
    states = [s.clone(memory_format=torch.contiguous_format) for s in tensors_of(call.state)]
    states = [s + link.to(s.dtype) if s.is_floating_point() else s for s in states]
    start = torch.zeros((), dtype=torch.int64, device=device)
    # no step is taken past the longest sequence, whose row is the one that others are replaced by where they have ended
    count = start + steps if lengths is None else lengths.amax()
    longest, rows = (None, None) if lengths is None else (lengths.argmax(), torch.arange(batch, device=device))

    def goes_on(number: Tensor, outputs: Tensor, *states: Tensor) -> Tensor:
        return number < count

    def step(number: Tensor, outputs: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        t = count - 1 - number if call.reverse else number
        at = t.reshape(1)
        x = map_leaves(lambda leaf: leaf.index_select(0, at)[0], call.inputs)
        state: State = states if isinstance(call.state, tuple) else states[0]
        if call.resets is not None:
            state = where_rows(call.resets.index_select(0, at)[0], call.initial, state)
        if lengths is None:
            output, new = _step(call.cell, x, state)
        else:
            active = t < lengths
            others = torch.where(active, rows, longest)  # type: ignore[arg-type]
            given: State = tuple(s.index_select(0, others) for s in tensors_of(state))
            x = map_leaves(lambda leaf: leaf.index_select(0, others), x)
            output, new = _step(call.cell, x, given if isinstance(state, tuple) else given[0])
            new = where_rows(active, new, state)
            output = where_rows(active, output, torch.zeros_like(output))  # type: ignore[assignment]
        kept = (s.clone(memory_format=torch.contiguous_format) for s in tensors_of(new))
        return number + 1, outputs.index_put((at,), output.unsqueeze(0)), *kept

    _, outputs, *last = while_loop(goes_on, step, (start, outputs, *states))  # type: ignore[no-untyped-call]
    return Scanned(outputs, tuple(last) if isinstance(call.state, tuple) else last[0], {})


def _step(cell: nn.Module, x: object, state: State) -> tuple[Tensor, State]:
    output, new = split_result(cell(x, state), state)
    return tensors_of(new)[0] if output is None else output, new


def _output_of_zeros(call: Call) -> Tensor:
    """What a step gives, for its shape and type."""
    zeros = map_leaves(lambda leaf: leaf.new_zeros(leaf.shape[1:]), call.inputs)
    return _step(call.cell, zeros, call.state)[0].detach()


def _link(call: Call) -> Tensor:
    """0, made of no number of any tensor that the step reads.

    PyTorch's `while_loop` has a derivative, but takes none through what it carries where that needs no gradient to begin with, as
    outputs and states of zeros do not.
    """
    tensors = (*leaves(call.inputs), *tensors_of(call.state), *tensors_of(call.initial), *_tensors_in(call.cell))
    zero = first_leaf(call.inputs).new_zeros((), dtype=torch.get_default_dtype())
    for tensor in tensors:
        if tensor.is_floating_point():
            zero = zero + tensor.reshape(-1)[:0].sum()
    return zero


def _tensors_in(cell: nn.Module) -> Iterator[Tensor]:
    """Parameters and other tensors of a cell, or of those that a function closes over."""
    for module in cell.modules():
        yield from module.parameters(recurse=False)
        yield from (value for value in vars(module).values() if isinstance(value, Tensor))
        if isinstance(module, FunctionCell):
            closed = inspect.getclosurevars(module.function)
            for value in (*closed.nonlocals.values(), *closed.globals.values()):
                if isinstance(value, nn.Module):
                    yield from _tensors_in(value)
                elif isinstance(value, Tensor):
                    yield value
