"""The loop in a graph that torch.export makes: every step in turn where it knows how many there are, else one loop of PyTorch's.

The graph is of PyTorch's own operations: it runs, is saved and is translated (to ONNX, a Loop) without throughtime.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter, tree_map_only

from throughtime.cells import State
from throughtime.cells.base import split_result
from throughtime.scanning import reference
from throughtime.scanning.call import (
    Call,
    Scanned,
    first_leaf,
    leaves,
    map_leaves,
    map_states,
    tensors_of,
    where_rows,
)


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
    steps, batch = first_leaf(call.inputs).shape[:2]
    device, lengths = first_leaf(call.inputs).device, call.lengths
    start = torch.zeros((), dtype=torch.int64, device=device)
    # no step is taken past the longest sequence, whose row is the one that others are replaced by where they have ended
    count = start + steps if lengths is None else lengths.amax()
    longest, rows = (None, None) if lengths is None else (lengths.argmax(), torch.arange(batch, device=device))

    def step(at: Tensor, state: State) -> tuple[Tensor, State]:
        x = map_leaves(lambda leaf: leaf.index_select(0, at)[0], call.inputs)
        if call.resets is not None:
            state = where_rows(call.resets.index_select(0, at)[0], call.initial, state)
        if lengths is None:
            return _step(call.cell, x, state)
        active = at < lengths
        others = torch.where(active, rows, longest)  # type: ignore[arg-type]
        x = map_leaves(lambda leaf: leaf.index_select(0, others), x)
        output, new = _step(call.cell, x, map_states(lambda s: s.index_select(0, others), state))
        return where_rows(active, output, torch.zeros_like(output)), where_rows(active, new, state)  # type: ignore[return-value]

    like, read = _tried(step, call)
    outputs = torch.zeros(steps, batch, *like.shape[1:], dtype=like.dtype, device=device)
    states = [s.clone(memory_format=torch.contiguous_format) for s in tensors_of(call.state)]
    outputs, *states = _linked([outputs, *states], (*read, *states))

    def goes_on(number: Tensor, count: Tensor, *others: Tensor) -> Tensor:
        return number < count

    def body(number: Tensor, count: Tensor, outputs: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        at = (count - 1 - number if call.reverse else number).reshape(1)
        output, new = step(at, states if isinstance(call.state, tuple) else states[0])
        kept = (s.clone(memory_format=torch.contiguous_format) for s in tensors_of(new))
        return number + 1, count.clone(), outputs.index_put((at,), output.unsqueeze(0)), *kept

    _, _, outputs, *last = _while(goes_on, body, (start, count, outputs, *states), read)
    return Scanned(outputs, tuple(last) if isinstance(call.state, tuple) else last[0], {})


def _step(cell: nn.Module, x: object, state: State) -> tuple[Tensor, State]:
    output, new = split_result(cell(x, state), state)
    return tensors_of(new)[0] if output is None else output, new


def _tried(step: Callable[[Tensor, State], tuple[Tensor, State]], call: Call) -> tuple[Tensor, tuple[Tensor, ...]]:
    """What a step gives, for its shape and type, and all tensors from outside that it reads, or that are made of these."""
    from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing

    if torch.compiler.is_dynamo_compiling():  # it does not say what is read: a step of no sequences is made of all that
        nothing = map_leaves(lambda leaf: leaf.new_zeros(0, *leaf.shape[2:]), call.inputs)
        output, new = _step(call.cell, nothing, map_states(lambda s: s[:0], call.state))
        return output, (*leaves(call.inputs), *tensors_of(call.initial), output, *tensors_of(new))
    first = torch.zeros(1, dtype=torch.int64, device=first_leaf(call.inputs).device)
    state = map_states(torch.clone, call.state)
    with disable_proxy_modes_tracing(), _Reads((first, *tensors_of(state))) as reads:  # it is not in the graph
        output, _ = step(first, state)
    return output, tuple(reads.read.values())


def _while(
    goes_on: Callable[..., Tensor],
    body: Callable[..., tuple[Tensor, ...]],
    carried: tuple[Tensor, ...],
    read: tuple[Tensor, ...],
) -> tuple[Tensor, ...]:
    """PyTorch's `while_loop`.

    Under torch.export(strict=False) it would call torch.compile, which remembers sizes from one export to the next: so there it is
    told what is read, and is not compiled.
    """
    from torch._higher_order_ops.while_loop import while_loop, while_loop_op

    if torch.compiler.is_dynamo_compiling():
        return while_loop(goes_on, body, carried)  # type: ignore[no-any-return, no-untyped-call]

    def replaced(*given: Tensor) -> tuple[Tensor, ...]:
        with _Replaced({id(old): new for old, new in zip(read, given[len(carried) :], strict=True)}):
            return body(*given[: len(carried)])

    return while_loop_op(goes_on, replaced, carried, read)  # type: ignore[arg-type, no-any-return]


class _Reads(TorchFunctionMode):
    """Notes every tensor that PyTorch's functions are given and that none of them made."""

    def __init__(self, own: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.read: dict[int, Tensor] = {}
        self.made = {id(tensor): tensor for tensor in own}  # held, so that no other takes its id

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [value for value in tree_iter((args, kwargs)) if isinstance(value, Tensor)]
        self.read |= {id(tensor): tensor for tensor in given if id(tensor) not in self.made}
        result = func(*args, **kwargs or {})
        self.made |= {id(value): value for value in tree_iter(result) if isinstance(value, Tensor)}
        return result


class _Replaced(TorchFunctionMode):
    """Gives PyTorch's functions other tensors in the place of some."""

    def __init__(self, others: dict[int, Tensor]) -> None:
        super().__init__()
        self.others = others

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map_only(Tensor, lambda value: self.others.get(id(value), value), (args, kwargs or {}))
        return func(*args, **kwargs)


def _linked(carried: list[Tensor], read: tuple[Tensor, ...]) -> list[Tensor]:
    """What is carried, and 0 added to it that is made of no number of any tensor that is read.

    PyTorch's `while_loop` has a derivative, but takes none through what it carries where that needs no gradient to begin with, as
    outputs and states of zeros do not.
    """
    nothing = [tensor.reshape(-1)[:0].sum() for tensor in read if tensor.is_floating_point()]
    if not nothing:
        return carried
    zero = torch.stack(nothing).sum()
    return [t + (zero if t.dtype == zero.dtype else zero.to(t.dtype)) if t.is_floating_point() else t for t in carried]
