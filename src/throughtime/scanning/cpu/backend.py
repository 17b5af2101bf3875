"""The `cpu` backend: any cell that can be captured, on the CPU, in float32 or float64."""

from __future__ import annotations

import math
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from throughtime.cells import State
from throughtime.cells.base import somebody_watches
from throughtime.scanning.call import Call, Scanned, leaves, tensors_of, unwrapped
from throughtime.scanning.capture import Failed, capture
from throughtime.scanning.constants import own_tensors
from throughtime.scanning.cpu import locks, matrices, operator
from throughtime.scanning.cpu.engine import Compiled, Wanted
from throughtime.scanning.cpu.order import in_order
from throughtime.scanning.cpu.threads import as_the_team
from throughtime.scanning.evaluate import evaluate, side_by_side
from throughtime.scanning.foreign import context
from throughtime.scanning.nodes import Node
from throughtime.scanning.program import Program
from throughtime.scanning.signature import HOOKS, Changing, Reads, signature
from throughtime.scanning.symbols import Unsupported

name = "cpu"

_MOST = 256  # programs remembered
_MOST_ANEW, _WORTH = 16, 64  # programs made for one cell, after which each must have served so many calls
_programs: OrderedDict[Any, tuple[Compiled | str, Reads]] = OrderedDict()


@dataclass
class _History:
    """What one cell has been through: how often it ran, how many programs were made for it, and how often it failed itself."""

    calls: int = 0
    made: int = 0
    failed: int = 0

    @property
    def restless(self) -> bool:
        return self.made > _MOST_ANEW and _WORTH * self.made > self.calls


_histories: weakref.WeakKeyDictionary[nn.Module, _History] = weakref.WeakKeyDictionary()


def why_not(call: Call) -> str | None:
    """Why the compiled loop cannot run this call; None where it can."""
    given = leaves(call.inputs)
    tensors = (*given, *tensors_of(call.state), *tensors_of(call.initial))
    own = call.found["own"] = list(own_tensors(call.cell).values())
    reason = context((*tensors, *own))
    if reason is not None:
        return reason
    first = given[0]
    for tensor in tensors:
        if tensor.device.type != "cpu":
            return f"it compiles for the CPU, and the inputs are on {tensor.device}"
        if tensor.dtype not in matrices.NAMES:
            return f"it computes in float32 and float64, and the inputs are {tensor.dtype}"
        if tensor.dtype != first.dtype:
            return f"inputs and states are {first.dtype} and {tensor.dtype} together"
    if somebody_watches():
        return "somebody watches inner values, which a compiled loop does not show (record= does)"
    for module in call.cell.modules():
        if any(getattr(module, h) for h in HOOKS) or "forward" in module.__dict__:
            return "the cell has hooks or a forward of its own, which would be called once and not at every step"
    found = _compiled(call)
    return found if isinstance(found, str) else None


def program_of(call: Call) -> Program:
    """The program of a call that `why_not` lets pass."""
    found = _compiled(call)
    if isinstance(found, str):
        raise RuntimeError(found)
    return found.program


def _compiled(call: Call) -> Compiled | str:
    """The program of a call, compiled as far as it was needed; or why there is none."""
    if "compiled" not in call.found:
        with locks.PROGRAMS:
            call.found["compiled"] = _find(call)
    return call.found["compiled"]  # type: ignore[no-any-return]


def _find(call: Call) -> Compiled | str:
    history = _histories.setdefault(unwrapped(call.cell), _History())
    history.calls += 1
    try:
        key = call.found["key"] = signature(call)
        found = _programs.get(key)
        if found is not None and found[1].same():
            return found[0]
        if history.restless:
            return (
                f"something that it holds or reads has changed {history.made - 1} times in {history.calls} calls, and each time "
                f"it would be compiled anew: make the number that changes a buffer, or an input"
            )
        history.made += 1
        reads = Reads(call.cell)
    except Changing as error:  # what was captured once might be out of date at the next call
        call.found.pop("key", None)
        return f"{error}, so that a compiled step could be out of date"
    try:
        made = _make(call, reads)
        if not isinstance(made, str) and signature(call) != key:
            made = "it changes its settings as it steps"
    except Failed as error:  # perhaps not the next time; one that always does is not tried for ever
        history.made -= 1
        history.failed += 1
        made = str(error)
        if history.failed <= _MOST_ANEW:
            call.found.pop("key", None)
            return made
    _programs[key] = made, reads
    while len(_programs) > _MOST:
        _programs.popitem(last=False)
    return made


def _make(call: Call, reads: Reads) -> Compiled | str:
    if reads.writes is not None:
        return f"it writes the global {reads.writes!r} as it steps"
    try:
        return Compiled(Program(capture(call, reads), call.resets is not None), leaves(call.inputs)[0].dtype)
    except Failed:
        raise
    except Unsupported as error:
        return str(error)
    except Exception as error:  # a fault of the engine's, which need not be the user's: the loop runs it
        return _fault(error)


def _fault(error: Exception) -> str:
    return (
        f"the compiler of throughtime fails on it ({type(error).__name__}: {error}), which is a fault worth reporting"
    )


def refuse(call: Call, reason: str) -> None:
    """Remember that a call cannot be run after all."""
    call.found["compiled"] = reason
    key = call.found.get("key")
    if key in _programs:
        _programs[key] = reason, _programs[key][1]


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
        if torch.is_grad_enabled() or context((g,)) is not None:  # a derivative of the derivative, or many at once
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


@as_the_team
def run(call: Call) -> Scanned:
    """Run the cell by the compiled loop, as `scan` documents."""
    compiled = _compiled(call)
    assert not isinstance(compiled, str)
    program, whole = compiled.program, call
    turn_back = None
    if call.reverse and call.lengths is not None:
        call, turn_back = call.forwards()
    steps, batch = call.steps, call.batch
    constants = program.captured.constants
    own = call.found.get("own")
    vectors, weights = constants.evaluate(list(own_tensors(call.cell).values()) if own is None else own)
    widths = program.captured.input_widths
    inputs = [leaf.reshape(steps, batch, n) for leaf, n in zip(leaves(call.inputs), widths, strict=True)]
    state = [_rows(s) for s in tensors_of(call.state)]
    initial = [_rows(s) for s in tensors_of(call.initial)] if program.resets else []
    resets, lengths, back = call.resets, call.lengths, None
    if lengths is not None:  # the longest first, so that those still running are always the first
        given = lengths
        lengths, order = given.sort(descending=True, stable=True)
        back = order.argsort()
        inputs = [in_order(i, 1, order, back, lengths, given) for i in inputs]
        state = [in_order(s, 0, order, back) for s in state]
        initial = [in_order(s, 0, order, back) for s in initial]
        resets = None if resets is None else resets.index_select(1, order)
    like = state[0]

    arrays: list[Tensor | None] = [inputs[n.attribute[1]] if n.op == "leaf" else None for n in program.arrays]
    missing = [n for n, a in zip(program.arrays, arrays, strict=True) if a is None]
    real = (
        None  # the rows of real steps, where there are others: what is worked out around the loop is so on them alone
    )
    if lengths is not None and (missing or any(not isinstance(out[0], str) for out in program.outputs)):
        real = (torch.arange(steps).unsqueeze(1) < lengths).flatten().nonzero().flatten()

    def rows(source: Tensor) -> Tensor:
        """[T, B, n] as the rows of real steps."""
        whole = source.reshape(steps * batch, source.shape[-1])
        return whole if real is None else whole.index_select(0, real)

    def spread(value: Tensor, width: int) -> Tensor:
        """Rows of real steps as [T, B, n], zeros between them."""
        value = value.expand(steps * batch if real is None else len(real), width)
        if real is not None:
            value = value.new_zeros(steps * batch, width).index_copy(0, real, value)
        return value.reshape(steps, batch, width)

    def before(kind: str, index: int) -> Tensor:
        return rows(inputs[index]) if kind == "x" else vectors[index]

    values = iter(evaluate(missing, before, weights, like, linear))
    made = [spread(next(values), n.width) if a is None else a for n, a in zip(program.arrays, arrays, strict=True)]
    products = {h.array for h in program.hoisted}  # whose steps and rows must lie evenly
    made = [
        a.contiguous() if i in products or (a.stride(-1) != 1 and a.shape[-1] != 1) else a for i, a in enumerate(made)
    ]
    loop_vectors = [v.contiguous() for v in vectors]

    wanted: Wanted | None = None
    if torch.is_grad_enabled():
        groups = (("a", made), ("v", loop_vectors), ("w", weights), ("i", initial))
        needs = frozenset((kind, i) for kind, tensors in groups for i, t in enumerate(tensors) if t.requires_grad)
        if needs or any(s.requires_grad for s in state):
            wanted = needs
    try:
        compiled.prepare(wanted)
    except Exception as error:
        refuse(whole, _fault(error))
        raise Unsupported(_fault(error)) from error
    flags = None if resets is None else resets.to(like.dtype)
    numbers = (compiled, wanted, steps, -1 if call.reverse else 1)
    try:
        result = operator.run_scan(numbers, (made, loop_vectors, weights, state, initial), flags, lengths)
    except Unsupported as error:
        refuse(whole, str(error))
        raise
    count, extra = len(program.state_widths), len(program.extra_widths)
    states, extras, finals = result[:count], result[count : count + extra], result[count + extra : 2 * count + extra]

    def after(kind: str, index: int) -> Tensor:
        if kind == "v":
            return vectors[index]
        return rows(inputs[index] if kind == "x" else {"n": states, "o": extras, "a": made}[kind][index])

    outs = []
    for out, shape in zip(program.outputs, program.captured.shapes, strict=True):
        if isinstance(out[0], str):
            value = states[int(out[1])]  # type: ignore[call-overload]
        else:
            nodes: list[Node] = [n for n in out if isinstance(n, Node)]
            value = side_by_side(tuple(nodes), evaluate(nodes, after, weights, like, linear))
            value = spread(value, value.shape[-1])
        if back is not None:
            value = in_order(value, 1, back, order)
        value = value.reshape(steps, batch, *shape)
        outs.append(value if turn_back is None else turn_back(value))
    if back is not None:
        finals = [in_order(f, 0, back, order) for f in finals]
    ends = [f.reshape(batch, *shape) for f, shape in zip(finals, program.captured.state_shapes, strict=True)]
    new: State = tuple(ends) if isinstance(call.state, tuple) else ends[0]
    return Scanned(outs[0], new, dict(zip(call.record, outs[1:], strict=True)))


def _rows(state: Tensor) -> Tensor:
    """A state as dense rows [B, n]."""
    flat = state.reshape(state.shape[0], math.prod(state.shape[1:]))
    return flat if flat.stride(-1) == 1 or flat.shape[-1] == 1 else flat.contiguous()
