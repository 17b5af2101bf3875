"""The compiled loop as one operation of PyTorch's: with a gradient, and with shapes that PyTorch can ask for without running it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from throughtime.scanning import reference
from throughtime.scanning.call import Call
from throughtime.scanning.cpu import memory
from throughtime.scanning.cpu.engine import Compiled, Given, Wanted, is_turned
from throughtime.scanning.cpu.threads import safe_after_fork
from throughtime.scanning.evaluate import evaluate, linear, side_by_side
from throughtime.scanning.nodes import Node
from throughtime.scanning.program import Program

# programs and what is wanted of them have numbers, since an operation takes tensors and plain values
_compiled: list[Compiled] = []
_wanted: list[Wanted] = []
_wanted_numbers: dict[Wanted, int] = {}


def register(compiled: Compiled) -> int:
    """The number of a compiled program."""
    _compiled.append(compiled)
    return len(_compiled) - 1


def number_of(wanted: Wanted) -> int:
    """The number of a set of gradients."""
    if wanted not in _wanted_numbers:
        _wanted.append(wanted)
        _wanted_numbers[wanted] = len(_wanted) - 1
    return _wanted_numbers[wanted]


# defined by the plain Library, not by `custom_op`, whose first call imports all of torch.compile
_library = torch.library.Library("throughtime", "DEF")  # type: ignore[no-untyped-call]
_GIVEN = (
    "int program, int wanted, SymInt steps, int step, Tensor[] arrays, Tensor[] vectors, Tensor[] matrices, Tensor[] state, "
    "Tensor[] initial, Tensor? resets, Tensor? lengths"
)
_library.define(f"scan({_GIVEN}) -> Tensor[]")  # type: ignore[no-untyped-call]
_library.define(  # type: ignore[no-untyped-call]
    f"scan_backward({_GIVEN}, Tensor[] outputs, Tensor[] kept, Tensor[] gradients, bool[] present) -> Tensor[]"
)


@safe_after_fork
def _scan(
    program: int,
    wanted: int,
    steps: int,
    step: int,
    arrays: Sequence[Tensor],
    vectors: Sequence[Tensor],
    matrices: Sequence[Tensor],
    state: Sequence[Tensor],
    initial: Sequence[Tensor],
    resets: Tensor | None,
    lengths: Tensor | None,
) -> list[Tensor]:
    """The loop over time: states [T, B, n], extras [T, B, n], final states [B, n], and what is kept.

    program, wanted: numbers of the registry; wanted -1 keeps nothing.
    """
    compiled = _compiled[program]
    given = Given(steps, arrays, vectors, matrices, state, initial, resets, lengths, step)
    outputs, extras = _results(compiled.program, given, state)
    keep = wanted >= 0
    kept = _kept(compiled, _wanted[wanted], given, state) if keep else []
    batch = state[0].shape[0]
    if steps and batch:
        loop = compiled.backward(_wanted[wanted])[1] if keep else compiled.program.forward
        compiled.run_forward(given, loop, kept, outputs, extras)
    finals = [_final(given, k, out) for k, out in enumerate(outputs)]
    return [*outputs, *extras, *finals, *kept]


def _final(given: Given, k: int, out: Tensor) -> Tensor:
    """The state after each sequence's last step."""
    first = given.state[k]
    if given.steps == 0 or first.shape[0] == 0:
        return first.clone()
    if given.lengths is None:
        return out[-1 if given.step > 0 else 0].clone()
    last = out.gather(0, (given.lengths - 1).clamp(min=0).view(1, -1, 1).expand(1, *first.shape))[0]
    return torch.where(given.lengths.view(-1, 1) > 0, last, first)


def _results(program: Program, given: Given, state: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    make = _maker(given, state)
    outputs = [make(n) for n in program.state_widths]
    return outputs, [make(n) for n in program.extra_widths]


def _kept(compiled: Compiled, wanted: Wanted, given: Given, state: Sequence[Tensor]) -> list[Tensor]:
    return list(map(_maker(given, state), compiled.kept_widths(wanted)))


def _maker(given: Given, state: Sequence[Tensor]) -> Callable[[int], Tensor]:
    """What makes a new [T, B, width]; with lengths, zeros where the loop does not come."""
    steps, batch, dtype = given.steps, state[0].shape[0], state[0].dtype
    if type(state[0]) is not Tensor:  # under PyTorch's tracing, where nothing lies in memory
        return lambda width: state[0].new_empty(steps, batch, width)
    make = memory.zeros if given.lengths is not None else memory.empty
    return lambda width: make(steps, batch, width, dtype=dtype)


def _scan_fake(
    program: int, wanted: int, steps: int, step: int, arrays: Any, vectors: Any, matrices: Any, state: Any, initial: Any,
    resets: Any, lengths: Any,
) -> list[Tensor]:  # fmt: skip
    compiled = _compiled[program]
    given = Given(steps, arrays, vectors, matrices, state, initial, resets, lengths, step)
    outputs, extras = _results(compiled.program, given, state)
    kept = _kept(compiled, _wanted[wanted], given, state) if wanted >= 0 else []
    return [*outputs, *extras, *(torch.empty_like(s) for s in state), *kept]


@safe_after_fork
def _scan_backward(
    program: int,
    wanted: int,
    steps: int,
    step: int,
    arrays: Sequence[Tensor],
    vectors: Sequence[Tensor],
    matrices: Sequence[Tensor],
    state: Sequence[Tensor],
    initial: Sequence[Tensor],
    resets: Tensor | None,
    lengths: Tensor | None,
    outputs: Sequence[Tensor],
    kept: Sequence[Tensor],
    gradients: Sequence[Tensor],
    present: Sequence[bool],
) -> list[Tensor]:
    """The gradients of arrays, vectors, matrices, state and initial, in this order; empty where not wanted.

    gradients: those of states, extras and final states that are present.
    """
    compiled = _compiled[program]
    given = Given(steps, arrays, vectors, matrices, state, initial, resets, lengths, step)
    left = iter(gradients)
    all_of = [next(left) if p else None for p in present]
    finals = all_of[len(all_of) - len(state) :]
    rest = all_of[: len(all_of) - len(state)]
    if steps == 0 or state[0].shape[0] == 0:
        found: dict[tuple[str, int], Tensor] = {("s", k): g for k, g in enumerate(finals) if g is not None}
    else:
        found = compiled.run_backward(given, _wanted[wanted], outputs, kept, rest, finals)
    result = []  # type: ignore[var-annotated]
    for kind, tensors in (("a", arrays), ("v", vectors), ("w", matrices), ("s", state), ("i", initial)):
        for i, tensor in enumerate(tensors):
            asked = kind == "s" or (kind, i) in _wanted[wanted]
            g = found.get((kind, i)) if asked else None
            if g is not None and g.shape != tensor.shape:  # a constant row of which the loop reads only the beginning
                g = torch.cat([g, g.new_zeros(tensor.shape[-1] - g.shape[-1])])
            if not asked:
                g = tensor.new_empty(0)
            elif g is None:
                g = _like(tensor, torch.zeros)
            result.append(_own(g, tensor, result))
    return result


def _like(tensor: Tensor, make: Callable[..., Tensor]) -> Tensor:
    """A new tensor for a gradient: dense, and transposed where a transposed matrix is meant."""
    options: dict[str, Any] = {"dtype": tensor.dtype, "device": tensor.device}
    if tensor.dim() == 2 and is_turned(tensor):
        return make(*reversed(tensor.shape), **options).t()
    return make(*tensor.shape, **options)


def _own(g: Tensor, tensor: Tensor, others: list[Tensor]) -> Tensor:
    """The gradient of a tensor in memory of its own, whole: operations may not return the same memory twice."""
    if not g.numel():
        return g
    shares = any(o.numel() and o.untyped_storage().data_ptr() == g.untyped_storage().data_ptr() for o in others)
    as_wanted = g.t() if tensor.dim() == 2 and is_turned(tensor) else g
    return _like(tensor, torch.empty).copy_(g) if shares or not as_wanted.is_contiguous() else g


def _scan_backward_fake(
    program: int, wanted: int, steps: int, step: int, arrays: Any, vectors: Any, matrices: Any, state: Any, initial: Any,
    resets: Any, lengths: Any, outputs: Any, kept: Any, gradients: Any, present: Any,
) -> list[Tensor]:  # fmt: skip
    result = []
    for kind, tensors in (("a", arrays), ("v", vectors), ("w", matrices), ("s", state), ("i", initial)):
        for i, tensor in enumerate(tensors):
            asked = kind == "s" or (kind, i) in _wanted[wanted]
            result.append(_like(tensor, torch.empty) if asked else tensor.new_empty(0))
    return result


def _remember(
    ctx: Any, numbers: tuple[int, int, int, int], groups: Sequence[Sequence[Tensor]], resets: Tensor | None,
    lengths: Tensor | None, outputs: Sequence[Tensor], kept: Sequence[Tensor],
) -> None:  # fmt: skip
    """Keep for the backward what it needs. numbers: program, wanted, steps, step."""
    loop = _compiled[numbers[0]].program
    ctx.numbers, ctx.counts = numbers, [len(g) for g in groups]
    ctx.given_back = len(loop.state_widths) + len(loop.extra_widths)
    ctx.optional = (resets is not None, lengths is not None)
    optional = [t for t in (resets, lengths) if t is not None]
    ctx.save_for_backward(*(t for g in groups for t in g), *optional, *outputs, *kept)
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, gradients: Sequence[Tensor | None], backward: Callable[..., list[Tensor]]) -> list[Any]:
    """The gradients of all tensors given, in order. backward: the operation, or what it runs."""
    saved = list(ctx.saved_tensors)
    groups = []
    for count in ctx.counts:
        groups.append(saved[:count])
        saved = saved[count:]
    resets = saved.pop(0) if ctx.optional[0] else None
    lengths = saved.pop(0) if ctx.optional[1] else None
    states = len(groups[3])
    outputs, kept = saved[:states], saved[states:]
    program, wanted, steps, step = ctx.numbers
    asked = gradients[: ctx.given_back + states]
    inputs = [t for g in groups for t in g]
    if torch.is_grad_enabled():
        return _again(program, steps, step, groups, resets, lengths, asked)
    if wanted < 0:
        return [None] * len(inputs)
    present = [g is not None for g in asked]
    given = [g for g in asked if g is not None]
    found = backward(*ctx.numbers, *groups, resets, lengths, outputs, kept, given, present)
    return [f if f.shape == t.shape else None for f, t in zip(found, inputs, strict=True)]


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    numbers, groups, (resets, lengths) = inputs[:4], inputs[4:9], inputs[9:]
    states = len(groups[3])
    loop = _compiled[numbers[0]].program
    kept = output[2 * states + len(loop.extra_widths) :]
    _remember(ctx, numbers, groups, resets, lengths, output[:states], kept)


def _backward(ctx: Any, gradients: Any) -> Any:
    found = _gradients(ctx, gradients, scan_backward_op)
    parts = []
    for count in ctx.counts:
        parts.append(found[:count])
        found = found[count:]
    return (*(None,) * 4, *parts, None, None)


class _Direct(torch.autograd.Function):
    """The same without PyTorch's dispatcher, which takes as long as a short loop does."""

    @staticmethod
    def forward(ctx: Any, numbers: Any, counts: Any, resets: Any, lengths: Any, *tensors: Tensor) -> Any:  # type: ignore[override]
        left = iter(tensors)
        groups = [[next(left) for _ in range(count)] for count in counts]
        result = _scan(*numbers, *groups, resets, lengths)
        states = counts[3]
        end = 2 * states + len(_compiled[numbers[0]].program.extra_widths)
        _remember(ctx, numbers, groups, resets, lengths, result[:states], result[end:])
        return tuple(result[:end])

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return (*(None,) * 4, *_gradients(ctx, gradients, _scan_backward))


def run_scan(numbers: tuple[int, int, int, int], groups: Sequence[Sequence[Tensor]], resets: Tensor | None,
             lengths: Tensor | None) -> Sequence[Tensor]:  # fmt: skip
    """States [T, B, n], extras [T, B, n] and final states [B, n].

    Args: numbers: program, what is wanted (-1: no gradient), steps, step. groups: arrays, vectors, matrices, state, initial.
    """
    tensors = [t for g in groups for t in g]
    watched = torch._C._len_torch_dispatch_stack() or torch._C._are_functorch_transforms_active()
    if watched or any(type(t) not in (Tensor, nn.Parameter) for t in tensors):
        return scan_op(*numbers, *groups, resets, lengths)  # type: ignore[no-any-return]
    if numbers[1] < 0:
        with torch.no_grad():
            return _scan(*numbers, *groups, resets, lengths)
    return _Direct.apply(numbers, [len(g) for g in groups], resets, lengths, *tensors)  # type: ignore[no-any-return, no-untyped-call]


_library.impl("scan", _scan, "CPU")  # type: ignore[no-untyped-call]
_library.impl("scan_backward", _scan_backward, "CPU")  # type: ignore[no-untyped-call]
torch.library.register_fake("throughtime::scan", _scan_fake, lib=_library)
torch.library.register_fake("throughtime::scan_backward", _scan_backward_fake, lib=_library)
torch.library.register_autograd("throughtime::scan", _backward, setup_context=_setup, lib=_library)
scan_op = torch.ops.throughtime.scan.default
scan_backward_op = torch.ops.throughtime.scan_backward.default


class _Step(nn.Module):
    """The program's own step, worked out by PyTorch: as a cell for the reference."""

    def __init__(self, program: Program, vectors: Sequence[Tensor], matrices: Sequence[Tensor]) -> None:
        super().__init__()
        self.program = program
        self.tensors = (vectors, matrices)  # not registered: they are used as they are

    def forward(self, x: tuple[Tensor, ...], state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        vectors, weights = self.tensors
        program = self.program

        def hoisted(u: int) -> Tensor:
            h = program.hoisted[u]
            weight = torch.cat([weights[w] for w in h.weights], -1)
            return linear(x[1 + h.array], weight, None if h.bias is None else vectors[h.bias])

        kinds: dict[str, Callable[[int], Tensor]] = {
            "a": lambda i: x[1 + i], "s": lambda k: state[k], "v": lambda i: vectors[i], "u": hoisted,
        }  # fmt: skip
        rows = [*program.states, *((n,) for n in program.extras)]
        nodes: list[Node] = [n for row in rows for n in row]
        values = evaluate(nodes, lambda kind, i: kinds[kind](i), weights, state[0])
        whole = []
        for row in rows:
            part = side_by_side(row, values[: len(row)])
            whole.append(part.expand(state[0].shape[0], part.shape[-1]))
            values = values[len(row) :]
        count = len(program.states)
        return torch.cat(whole, -1), tuple(whole[:count])


def _again(
    program: int, steps: int, step: int, groups: Any, resets: Any, lengths: Any, asked: Any
) -> list[Tensor | None]:
    """Gradients with a graph of their own, by the reference: for derivatives of derivatives."""
    warnings.warn(
        "throughtime: a derivative of a derivative is asked for; the compiled loop has first derivatives, "
        "so this one runs on the reference",
        stacklevel=2,
    )
    compiled = _compiled[program]
    arrays, vectors, matrices, state, initial = groups
    plain = _without_resets(compiled.program)
    cell = _Step(plain, vectors, matrices)
    call = Call(
        cell, (arrays_or_nothing(steps, state), *arrays), tuple(state), tuple(initial or state), lengths, step < 0,
        None if resets is None else resets > 0, (),
    )  # fmt: skip
    scanned = reference.run(call)
    widths = [*plain.state_widths, *plain.extra_widths]
    outs = [*scanned.outputs.split(widths, -1), *scanned.state]  # type: ignore[no-untyped-call]
    inputs = [t for g in groups for t in g]
    wanted = [t for t in inputs if t.requires_grad]
    pairs = [(o, g) for o, g in zip(outs, asked, strict=True) if g is not None and o.requires_grad]
    if not pairs:
        return [None] * len(inputs)
    found = iter(
        torch.autograd.grad([o for o, _ in pairs], wanted, [g for _, g in pairs], create_graph=True, allow_unused=True)
    )
    return [next(found) if t.requires_grad else None for t in inputs]


def arrays_or_nothing(steps: int, state: Sequence[Tensor]) -> Tensor:
    """[T, B, 0], so that a step has an input even where no array was made before the loop."""
    return state[0].new_empty(steps, state[0].shape[0], 0)


def _without_resets(program: Program) -> Program:
    """The same step where the reference, not the step, puts the initial state back."""
    return Program(program.captured, resets=False) if program.resets else program
