"""The compiled loop as one operation of PyTorch's, with a gradient; whatever the engine."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from throughtime.scanning import reference
from throughtime.scanning.call import Call
from throughtime.scanning.division import divide
from throughtime.scanning.engine import Given, LoopEngine, Past
from throughtime.scanning.evaluate import TorchOperations, bfloat16_linear, joined, linear
from throughtime.scanning.foreign import context, without_autocast
from throughtime.scanning.program import Program, Wanted
from throughtime.scanning.symbols import Unsupported

NO_GRADIENT = "weights in int8 have no gradients: train with weights in float, and round them when they are trained"


def run_loop(engine: LoopEngine, given: Given, wanted: Wanted | None) -> tuple[Sequence[Tensor], ...]:
    """States [T, B, n], extras [T, B, n] and final states [B, n].

    wanted: which gradients may be asked for; None: none, and nothing is saved for them. Raises: Unsupported.
    """
    _check_memory(engine, given)
    if wanted is None:
        return _without_saving(engine, given)
    made = _Loop.apply(engine, wanted, given.remake(), *given.tensors)  # type: ignore[no-untyped-call]
    states, end = len(given.state), len(made) - len(given.state)
    return made[:states], made[states:end], made[end:]


def _without_saving(engine: LoopEngine, given: Given) -> tuple[Sequence[Tensor], ...]:
    if torch.is_grad_enabled():
        with torch.no_grad():
            return _without_saving(engine, given)
    return engine.run(_forward, engine, given, None)[1:]


def _forward(
    engine: LoopEngine, given: Given, wanted: Wanted | None
) -> tuple[Past, Sequence[Tensor], list[Tensor], list[Tensor]]:
    past, extras = engine.forward(given, wanted)
    states = past.given_back(given.rounded) if given.rounded else past.states
    return past, states, extras, [_final(given, k, out) for k, out in enumerate(states)]


def _final(given: Given, k: int, out: Tensor) -> Tensor:
    """The state after each sequence's last step."""
    first = given.state[k].to(out.dtype)
    if given.steps == 0 or given.batch == 0:
        return first.clone()
    if given.lengths is None:
        return out[-1 if given.step > 0 else 0].clone()
    last = out.gather(0, (given.lengths - 1).clamp(min=0).view(1, -1, 1).expand(1, *first.shape))[0]
    return torch.where(given.lengths.view(-1, 1) > 0, last, first)


class _NoGradient(torch.autograd.Function):
    """Tensors as they are, of which nobody may ask the gradient. sources: what they were made of."""

    @staticmethod
    def forward(ctx: Any, made: list[Tensor], *sources: Tensor) -> Any:  # type: ignore[override]
        return tuple(t.view_as(t) for t in made)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        raise RuntimeError(NO_GRADIENT)


def without_gradient(sources: Sequence[Tensor], *groups: Sequence[Tensor]) -> list[list[Tensor]]:
    """Groups of tensors, whose gradient raises RuntimeError."""
    made = iter(_NoGradient.apply([t for group in groups for t in group], *sources))  # type: ignore[no-untyped-call]
    return [[next(made) for _ in group] for group in groups]


class _Loop(torch.autograd.Function):
    """The loop with its gradient. remake: what makes a `Given` of its tensors."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, engine: LoopEngine, wanted: Wanted, remake: Callable[..., Given], *tensors: Tensor
    ) -> Any:
        past, states, extras, finals = engine.run(_forward, engine, remake(tensors), wanted)
        ctx.engine, ctx.wanted, ctx.remake = engine, wanted, remake
        ctx.counts, ctx.halves = (len(tensors), len(states), len(past.saved)), list(past.halves)
        ctx.save_for_backward(*tensors, *past.states, *past.saved, *past.halves.values())
        ctx.set_materialize_grads(False)
        return (*states, *extras, *finals)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        saved = ctx.saved_tensors  # asked for once: a checkpoint makes them anew
        first, second, third = itertools.accumulate(ctx.counts)
        tensors = saved[:first]
        given = ctx.remake(tensors)
        with without_autocast():  # what was done forwards says in which type
            if torch.is_grad_enabled() or context((*(g for g in gradients if g is not None), *tensors)) is not None:
                found = _again(ctx.engine, given, gradients)
            else:
                halves = dict(zip(ctx.halves, saved[third:], strict=True))
                past = Past(saved[first:second], saved[second:third], halves)
                found = ctx.engine.run(_gradients, ctx.engine, given, ctx.wanted, past, gradients)
        return (None, None, None, *found)


def _gradients(
    engine: LoopEngine, given: Given, wanted: Wanted, past: Past, gradients: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """The gradients of the tensors given, in their order; None where they are not wanted."""
    found: dict[tuple[str, int], Tensor]
    if given.steps == 0 or given.batch == 0:
        finals = gradients[len(gradients) - len(given.state) :]
        found = {("s", k): g.to(given.state[k].dtype) for k, g in enumerate(finals) if g is not None}
    else:
        found = engine.backward(given, wanted, past, gradients)
    result: list[Tensor | None] = []
    taken: set[int] = set()  # memory that one of them lies in
    for kind, tensors in given.groups:
        for i, tensor in enumerate(tensors):
            if kind != "s" and (kind, i) not in wanted:
                result.append(None)
                continue
            g = found.get((kind, i))
            if g is None:
                g = _like(tensor, torch.zeros)
            elif g.shape != tensor.shape:  # a constant row of which the loop reads only the beginning
                g = torch.cat([g, g.new_zeros(tensor.shape[-1] - g.shape[-1])])
            result.append(_own(g, tensor, taken))
    return result


def is_transposed(matrix: Tensor) -> bool:
    """Whether a tensor is a matrix that lies in memory as its transpose."""
    if matrix.dim() != 2 or matrix.is_contiguous():
        return False
    rows, columns = matrix.shape
    return (rows == 1 or matrix.stride(0) == 1) and (columns == 1 or matrix.stride(1) == rows)


def _like(tensor: Tensor, make: Callable[..., Tensor]) -> Tensor:
    """A new tensor for a gradient: dense, and transposed where a transposed matrix is meant."""
    options: dict[str, Any] = {"dtype": tensor.dtype, "device": tensor.device}
    if is_transposed(tensor):
        return make(*reversed(tensor.shape), **options).t()
    return make(*tensor.shape, **options)


def _own(g: Tensor, tensor: Tensor, taken: set[int]) -> Tensor:
    """The gradient of a tensor in memory of its own, whole: operations may not return the same memory twice. taken: is added to."""
    if not g.numel():
        return g
    as_wanted = g.t() if is_transposed(tensor) else g
    place = g.untyped_storage().data_ptr()
    if place in taken or not as_wanted.is_contiguous():
        g = _like(tensor, torch.empty).copy_(g)
        place = g.untyped_storage().data_ptr()
    taken.add(place)
    return g


def _check_memory(engine: LoopEngine, given: Given) -> None:
    """What the compiled code will read is of its type and sizes. Raises: Unsupported."""
    program, steps, batch, dtype = engine.program, given.steps, given.batch, engine.dtype
    fits = (  # of lists, which are made sooner than their parts are asked for one by one
        not [t for t in given.tensors if t.dtype is not dtype]
        and [t.shape for t in given.arrays] == [(steps, batch, n) for n in program.array_widths]
        and [t.shape for t in given.state] == [(batch, n) for n in program.state_widths]
        and (not program.resets or [t.shape for t in given.initial] == [t.shape for t in given.state])
        and not [i for i, n in program.vector_widths.items() if given.vectors[i].size(0) < n]
        and not [t for t in given.matrices if t.dim() != 2]
    )
    if not fits:
        sizes = [[(list(t.shape), t.dtype) for t in group] for _, group in given.groups]
        raise Unsupported(f"what was made for the loop is not what the loop was compiled for: {sizes}")


class _Step(nn.Module):
    """The program's own step, worked out by PyTorch: as a cell for the reference. operands: as of an engine."""

    def __init__(self, program: Program, given: Given, operands: torch.dtype) -> None:
        super().__init__()
        self.linear = bfloat16_linear if operands is torch.bfloat16 else linear
        self.program = program
        self.given = given  # its tensors are not registered: they are used as they are

    def forward(self, x: tuple[Tensor, ...], state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        program, given = self.program, self.given

        def hoisted(u: int) -> Tensor:
            h = program.hoisted[u]
            weight = joined([given.matrices[w] for w in h.weights])
            return self.linear(x[1 + h.array], weight, None if h.bias is None else given.vectors[h.bias])

        kinds: dict[str, Callable[[int], Tensor]] = {
            "a": lambda i: x[1 + i], "s": lambda k: state[k], "v": lambda i: given.vectors[i], "u": hoisted,
        }  # fmt: skip
        operations = TorchOperations(lambda kind, i: kinds[kind](i), given.matrices, state[0], self.linear)
        rows = operations.rows([*program.states, *program.extras])
        rows = [row.expand(state[0].shape[0], row.shape[-1]) for row in rows]
        return torch.cat(rows, -1), tuple(rows[: len(program.states)])


def _again(engine: LoopEngine, given: Given, asked: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Gradients by PyTorch's own operations: derivatives of derivatives, and many at once (`is_grads_batched`)."""
    program, further = engine.program, torch.is_grad_enabled()
    if further:
        warnings.warn(
            "throughtime: a derivative of a derivative is asked for; the compiled loop has first derivatives, "
            "so this one runs on the reference",
            stacklevel=2,
        )
    # apart: one may be made of another, as a transposed matrix, whose gradient is not its own
    with torch.enable_grad():
        given = given.remake()([t.view_as(t) for t in given.tensors])
    plain = divide(program.captured, resets=False) if program.resets else program  # the reference does the resets
    nothing = given.state[0].new_empty(given.steps, given.batch, 0)  # an input for steps that no array was made for
    call = Call(
        _Step(plain, given, engine.operands), (nothing, *given.arrays), tuple(given.state), tuple(given.initial or given.state),
        given.lengths, given.step < 0, None if given.resets is None else given.resets > 0, (),
    )  # fmt: skip
    with torch.enable_grad():
        scanned = reference.run(call)
        widths = [*plain.state_widths, *plain.extra_widths]
        outs = [*scanned.outputs.split(widths, -1), *scanned.state]  # type: ignore[no-untyped-call]
    wanted = [t for t in given.tensors if t.requires_grad]
    pairs = [(o, g.to(o.dtype)) for o, g in zip(outs, asked, strict=True) if g is not None and o.requires_grad]
    if not pairs:
        return [None] * len(given.tensors)
    made, gradients = zip(*pairs, strict=True)
    found = iter(torch.autograd.grad(made, wanted, gradients, create_graph=further, allow_unused=True))
    return [next(found) if t.requires_grad else None for t in given.tensors]
