"""The `cpu` backend: any cell that can be captured, on the CPU, in float32 or float64."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from throughtime.cells import State
from throughtime.cells.base import somebody_watches
from throughtime.scanning.call import Call, Scanned, leaves
from throughtime.scanning.capture import capture, own_tensors
from throughtime.scanning.cpu import matrices, operator
from throughtime.scanning.cpu.engine import Compiled
from throughtime.scanning.evaluate import evaluate, side_by_side
from throughtime.scanning.nodes import Node
from throughtime.scanning.program import Program
from throughtime.scanning.symbols import Unsupported

name = "cpu"

_MOST = 256  # programs remembered
_programs: OrderedDict[Any, tuple[Program, int] | str] = OrderedDict()
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_NOT_STATE = {*_HOOKS, "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "_is_full_backward_hook",
              "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks_with_kwargs", "_state_dict_hooks",
              "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"}  # fmt: skip


def why_not(call: Call) -> str | None:
    """Why the compiled loop cannot run this call; None where it can."""
    first = leaves(call.inputs)[0]
    if first.device.type != "cpu":
        return f"it compiles for the CPU, and the inputs are on {first.device}"
    if first.dtype not in matrices.NAMES:
        return f"it computes in float32 and float64, and the inputs are {first.dtype}"
    if somebody_watches():
        return "somebody watches inner values, which a compiled loop does not show (record= does)"
    for module in call.cell.modules():
        if any(getattr(module, h) for h in _HOOKS) or "forward" in module.__dict__:
            return "the cell has hooks or a forward of its own, which would be called once and not at every step"
    found = _program(call)
    return found if isinstance(found, str) else None


def program_of(call: Call) -> Program:
    """The program of a call that `why_not` lets pass."""
    found = _program(call)
    if isinstance(found, str):
        raise RuntimeError(found)
    return found[0]


def _program(call: Call) -> tuple[Program, int] | str:
    """The program of a call and its number among the operations; or why there is none."""
    try:
        key = _key(call)
    except TypeError:
        return _make(call)  # the cell holds something that may change unseen: captured anew each time
    found = _programs.get(key)
    if found is None:
        found = _make(call)
        _programs[key] = found
        while len(_programs) > _MOST:
            _programs.popitem(last=False)
    return found


def _make(call: Call) -> tuple[Program, int] | str:
    try:
        program = Program(capture(call), call.resets is not None)
        return program, operator.register(Compiled(program, leaves(call.inputs)[0].dtype))
    except Unsupported as error:
        return str(error)


def _key(call: Call) -> Any:
    """What a program depends on. Raises TypeError where that cannot be told."""
    seen: dict[int, int] = {}
    state = call.state if isinstance(call.state, tuple) else (call.state,)
    return (
        _signature(call.cell, seen),
        _structure(call.inputs),
        isinstance(call.state, tuple),
        tuple((s.shape[1:], s.dtype) for s in state),
        call.resets is not None,
        call.record,
    )


def _structure(inputs: Any) -> Any:
    if isinstance(inputs, Tensor):
        return inputs.shape[2:], inputs.dtype
    return tuple(_structure(part) for part in inputs)


def _signature(module: nn.Module, seen: dict[int, int]) -> Any:
    """A module's class, its settings, and the kinds of its tensors, with which of them are the same."""
    parts: list[Any] = [type(module), type(module).forward]
    for name_, value in module.__dict__.items():
        if name_ in _NOT_STATE:
            continue
        parts.append((name_, _tensor(value, seen) if isinstance(value, Tensor) else _plain(value)))
    for group in (module._parameters, module._buffers):
        for name_, tensor in group.items():
            parts.append((name_, None if tensor is None else _tensor(tensor, seen)))
    for name_, child in module._modules.items():
        parts.append((name_, None if child is None else _signature(child, seen)))
    return tuple(parts)


def _tensor(tensor: Tensor, seen: dict[int, int]) -> Any:
    return seen.setdefault(id(tensor), len(seen)), tensor.shape, tensor.dtype


def _plain(value: Any) -> Any:
    """A setting as something that can be compared. Raises TypeError for what cannot."""
    if value is None or isinstance(value, bool | int | float | str | torch.dtype | torch.device | type):
        return (type(value), value)
    if isinstance(value, tuple | list | torch.Size):
        return (type(value), tuple(map(_plain, value)))
    if isinstance(value, dict):
        return tuple((k, _plain(v)) for k, v in value.items())
    if isinstance(value, set | frozenset):
        return frozenset(map(_plain, value))
    if (
        callable(value)
        and not isinstance(value, nn.Module)
        and hasattr(value, "__code__")
        and value.__closure__ is None
    ):
        return value
    if callable(value) and isinstance(value, type(torch.tanh)):
        return value
    raise TypeError(f"a setting of type {type(value).__name__}")


class _Linear(torch.autograd.Function):
    """x @ weight (+ bias) over all steps at once, by the compiled product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x, weight)
        ctx.bias = bias is not None
        return matrices.multiply(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad
        if torch.is_grad_enabled():  # a derivative of the derivative may follow
            dx = g @ weight.t() if need_x else None
            dw = x.t() @ g if need_weight else None
        else:
            dx = matrices.multiply(g, weight.t()) if need_x else None
            dw = matrices.outer(x, g) if need_weight else None
        return dx, dw, g.sum(0) if need_bias and ctx.bias else None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x [R, K] @ weight [K, N] (+ bias)."""
    made: Tensor = _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return made


def run(call: Call) -> Scanned:
    """Run the cell by the compiled loop, as `scan` documents."""
    found = _program(call)
    assert not isinstance(found, str)
    program, number = found
    turn_back = None
    if call.reverse and call.lengths is not None:
        call, turn_back = call.forwards()
    steps, batch = call.steps, call.batch
    constants = program.captured.constants
    vectors, weights = constants.evaluate(list(own_tensors(call.cell).values()))
    widths = program.captured.input_widths
    inputs = [leaf.reshape(steps, batch, n) for leaf, n in zip(leaves(call.inputs), widths, strict=True)]
    state = [_rows(s) for s in _tensors(call.state)]
    initial = [_rows(s) for s in _tensors(call.initial)] if program.resets else []
    resets, lengths, back = call.resets, call.lengths, None
    if lengths is not None:  # the longest first, so that those still running are always the first
        lengths, order = lengths.sort(descending=True, stable=True)
        back = order.argsort()
        inputs = [i.index_select(1, order) for i in inputs]
        state = [s.index_select(0, order) for s in state]
        initial = [s.index_select(0, order) for s in initial]
        resets = None if resets is None else resets.index_select(1, order)
        inputs = [_zero_past(i, lengths) for i in inputs]
    like = state[0]

    def flat(index: int) -> Tensor:
        return inputs[index].reshape(steps * batch, widths[index])

    def before(kind: str, index: int) -> Tensor:
        return flat(index) if kind == "x" else vectors[index]

    arrays: list[Tensor | None] = [inputs[n.attribute[1]] if n.op == "leaf" else None for n in program.arrays]
    missing = [n for n, a in zip(program.arrays, arrays, strict=True) if a is None]
    values = iter(evaluate(missing, before, weights, like, linear))
    made = [next(values).expand(steps * batch, n.width).view(steps, batch, n.width) if a is None else a
            for n, a in zip(program.arrays, arrays, strict=True)]  # fmt: skip
    products = {h.array for h in program.hoisted}  # whose steps and rows must lie evenly
    made = [
        a.contiguous() if i in products or (a.stride(-1) != 1 and a.shape[-1] != 1) else a for i, a in enumerate(made)
    ]
    loop_vectors = [v.contiguous() for v in vectors]

    wanted = -1
    if torch.is_grad_enabled():
        groups = (("a", made), ("v", loop_vectors), ("w", weights), ("i", initial))
        needs = frozenset((kind, i) for kind, tensors in groups for i, t in enumerate(tensors) if t.requires_grad)
        if needs or any(s.requires_grad for s in state):
            wanted = operator.number_of(needs)
    flags = None if resets is None else resets.to(like.dtype)
    numbers = (number, wanted, steps, -1 if call.reverse else 1)
    result = operator.run_scan(numbers, (made, loop_vectors, weights, state, initial), flags, lengths)
    count, extra = len(program.state_widths), len(program.extra_widths)
    states, extras, finals = result[:count], result[count : count + extra], result[count + extra : 2 * count + extra]

    real = None  # the rows of real steps, where there are others: what comes after the loop is worked out on them alone
    if lengths is not None and any(not isinstance(out[0], str) for out in program.outputs):
        real = (torch.arange(steps).unsqueeze(1) < lengths).flatten().nonzero().flatten()

    def after(kind: str, index: int) -> Tensor:
        if kind == "v":
            return vectors[index]
        source: Tensor = inputs[index] if kind == "x" else {"n": states, "o": extras, "a": made}[kind][index]
        whole = source.reshape(steps * batch, source.shape[-1])
        return whole if real is None else whole.index_select(0, real)

    outs = []
    for out, shape in zip(program.outputs, program.captured.shapes, strict=True):
        if isinstance(out[0], str):
            value = states[int(out[1])]  # type: ignore[call-overload]
        else:
            nodes: list[Node] = [n for n in out if isinstance(n, Node)]
            value = side_by_side(tuple(nodes), evaluate(nodes, after, weights, like, linear))
            value = value.expand(steps * batch if real is None else len(real), value.shape[-1])
            if real is not None:
                value = value.new_zeros(steps * batch, value.shape[-1]).index_copy(0, real, value)
            value = value.reshape(steps, batch, value.shape[-1])
        if back is not None:
            value = value.index_select(1, back)
        value = value.reshape(steps, batch, *shape)
        outs.append(value if turn_back is None else turn_back(value))
    if back is not None:
        finals = [f.index_select(0, back) for f in finals]
    ends = [f.reshape(batch, *shape) for f, shape in zip(finals, program.captured.state_shapes, strict=True)]
    new: State = tuple(ends) if isinstance(call.state, tuple) else ends[0]
    return Scanned(outs[0], new, dict(zip(call.record, outs[1:], strict=True)))


def _rows(state: Tensor) -> Tensor:
    """A state as dense rows [B, n]."""
    flat = state.reshape(state.shape[0], math.prod(state.shape[1:]))
    return flat if flat.stride(-1) == 1 or flat.shape[-1] == 1 else flat.contiguous()


def _zero_past(value: Tensor, lengths: Tensor) -> Tensor:
    """Zeros past each sequence's length, whatever stands there."""
    t = torch.arange(value.shape[0]).unsqueeze(1)
    return torch.where((t < lengths).unsqueeze(-1), value, torch.zeros((), dtype=value.dtype))


def _tensors(state: State) -> Sequence[Tensor]:
    return state if isinstance(state, tuple) else (state,)
