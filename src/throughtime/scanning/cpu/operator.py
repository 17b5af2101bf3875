"""The compiled loop as one operation of PyTorch's, with a gradient."""

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
from throughtime.scanning.cpu.threads import as_the_team, safe_after_fork
from throughtime.scanning.evaluate import evaluate, linear, side_by_side
from throughtime.scanning.foreign import context
from throughtime.scanning.nodes import Node
from throughtime.scanning.program import Program
from throughtime.scanning.symbols import Unsupported


@safe_after_fork
@as_the_team
def _scan(
    compiled: Compiled,
    wanted: Wanted | None,
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

    wanted: which gradients may be asked for; None keeps nothing for them.
    """
    given = Given(steps, arrays, vectors, matrices, state, initial, resets, lengths, step)
    outputs, extras = _results(compiled.program, given, state)
    kept = [] if wanted is None else list(map(_maker(given, state), compiled.kept_widths(wanted)))
    batch = state[0].shape[0]
    if steps and batch:
        loop = compiled.program.forward if wanted is None else compiled.backward(wanted)[1]
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


def _maker(given: Given, state: Sequence[Tensor]) -> Callable[[int], Tensor]:
    """What makes a new [T, B, width]; with lengths, zeros where the loop does not come."""
    steps, batch, dtype = given.steps, state[0].shape[0], state[0].dtype
    make = memory.zeros if given.lengths is not None else memory.empty
    return lambda width: make(steps, batch, width, dtype=dtype)


@safe_after_fork
@as_the_team
def _scan_backward(
    compiled: Compiled,
    wanted: Wanted,
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
    given = Given(steps, arrays, vectors, matrices, state, initial, resets, lengths, step)
    left = iter(gradients)
    all_of = [next(left) if p else None for p in present]
    finals = all_of[len(all_of) - len(state) :]
    rest = all_of[: len(all_of) - len(state)]
    if steps == 0 or state[0].shape[0] == 0:
        found: dict[tuple[str, int], Tensor] = {("s", k): g for k, g in enumerate(finals) if g is not None}
    else:
        found = compiled.run_backward(given, wanted, outputs, kept, rest, finals)
    result = []  # type: ignore[var-annotated]
    for kind, tensors in (("a", arrays), ("v", vectors), ("w", matrices), ("s", state), ("i", initial)):
        for i, tensor in enumerate(tensors):
            asked = kind == "s" or (kind, i) in wanted
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


class _Scan(torch.autograd.Function):
    """The loop with its gradient. numbers: as for `run_scan`, with gradients wanted."""

    @staticmethod
    def forward(ctx: Any, numbers: Numbers, counts: Any, resets: Any, lengths: Any, *tensors: Tensor) -> Any:  # type: ignore[override]
        left = iter(tensors)
        groups = [[next(left) for _ in range(count)] for count in counts]
        result = _scan(*numbers, *groups, resets, lengths)
        program, states = numbers[0].program, counts[3]
        end = 2 * states + len(program.extra_widths)
        ctx.numbers, ctx.counts = numbers, counts
        ctx.optional = (resets is not None, lengths is not None)
        optional = [t for t in (resets, lengths) if t is not None]
        ctx.save_for_backward(*tensors, *optional, *result[:states], *result[end:])
        ctx.set_materialize_grads(False)
        return tuple(result[:end])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        saved = list(ctx.saved_tensors)
        groups = []
        for count in ctx.counts:
            groups.append(saved[:count])
            saved = saved[count:]
        resets = saved.pop(0) if ctx.optional[0] else None
        lengths = saved.pop(0) if ctx.optional[1] else None
        states = len(groups[3])
        outputs, kept = saved[:states], saved[states:]
        compiled, _, steps, step = ctx.numbers
        inputs = [t for g in groups for t in g]
        given = [g for g in gradients if g is not None]
        if torch.is_grad_enabled() or context((*given, *inputs)) is not None:
            found = _again(compiled, steps, step, groups, resets, lengths, gradients)
        else:
            present = [g is not None for g in gradients]
            made = _scan_backward(*ctx.numbers, *groups, resets, lengths, outputs, kept, given, present)
            found = [f if f.shape == t.shape else None for f, t in zip(made, inputs, strict=True)]
        return (*(None,) * 4, *found)


Numbers = tuple[Compiled, Wanted | None, int, int]


def run_scan(numbers: Numbers, groups: Sequence[Sequence[Tensor]], resets: Tensor | None,
             lengths: Tensor | None) -> Sequence[Tensor]:  # fmt: skip
    """States [T, B, n], extras [T, B, n] and final states [B, n].

    Args: numbers: compiled program, gradients wanted (None: none), steps, step. groups: arrays, vectors, matrices, state, initial.
    """
    _check_memory(numbers[0], numbers[2], groups)
    tensors = [t for g in groups for t in g]
    if numbers[1] is None:
        with torch.no_grad():
            return _scan(*numbers, *groups, resets, lengths)
    return _Scan.apply(numbers, [len(g) for g in groups], resets, lengths, *tensors)  # type: ignore[no-any-return, no-untyped-call]


def _check_memory(compiled: Compiled, steps: int, groups: Sequence[Sequence[Tensor]]) -> None:
    """What the compiled code will read is of its type and sizes. Raises: Unsupported."""
    arrays, vectors, matrices, state, initial = groups
    program, batch = compiled.program, state[0].shape[0]
    fits = (
        all(t.dtype is compiled.dtype for g in groups for t in g)
        and all(t.shape == (steps, batch, n) for t, n in zip(arrays, program.array_widths, strict=True))
        and all(t.shape == (batch, n) for t, n in zip(state, program.state_widths, strict=True))
        and (not program.resets or all(t.shape == s.shape for t, s in zip(initial, state, strict=True)))
        and all(len(vectors[i]) >= n for i, n in program.vector_widths.items())
        and all(t.dim() == 2 for t in matrices)
    )
    if not fits:
        sizes = [[(list(t.shape), t.dtype) for t in g] for g in groups]
        raise Unsupported(f"what was made for the loop is not what the loop was compiled for: {sizes}")


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
    compiled: Compiled, steps: int, step: int, groups: Any, resets: Any, lengths: Any, asked: Any
) -> list[Tensor | None]:
    """Gradients by PyTorch's own operations: derivatives of derivatives, and many at once (`is_grads_batched`)."""
    further = torch.is_grad_enabled()
    if further:
        warnings.warn(
            "throughtime: a derivative of a derivative is asked for; the compiled loop has first derivatives, "
            "so this one runs on the reference",
            stacklevel=2,
        )
    arrays, vectors, matrices, state, initial = groups
    plain = _without_resets(compiled.program)
    cell = _Step(plain, vectors, matrices)
    call = Call(
        cell, (arrays_or_nothing(steps, state), *arrays), tuple(state), tuple(initial or state), lengths, step < 0,
        None if resets is None else resets > 0, (),
    )  # fmt: skip
    widths = [*plain.state_widths, *plain.extra_widths]
    with torch.enable_grad():
        scanned = reference.run(call)
        outs = [*scanned.outputs.split(widths, -1), *scanned.state]  # type: ignore[no-untyped-call]
    inputs = [t for g in groups for t in g]
    wanted = [t for t in inputs if t.requires_grad]
    pairs = [(o, g) for o, g in zip(outs, asked, strict=True) if g is not None and o.requires_grad]
    if not pairs:
        return [None] * len(inputs)
    found = iter(
        torch.autograd.grad(
            [o for o, _ in pairs], wanted, [g for _, g in pairs], create_graph=further, allow_unused=True
        )
    )
    return [next(found) if t.requires_grad else None for t in inputs]


def arrays_or_nothing(steps: int, state: Sequence[Tensor]) -> Tensor:
    """[T, B, 0], so that a step has an input even where no array was made before the loop."""
    return state[0].new_empty(steps, state[0].shape[0], 0)


def _without_resets(program: Program) -> Program:
    """The same step where the reference, not the step, puts the initial state back."""
    return Program(program.captured, resets=False) if program.resets else program
