"""What is written is set beside the reference first: the same inputs, at several lengths and batches, and cut in two.

Shapes: T time, B batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from throughtime.errors import UserError
from throughtime.exporting.stack import Direction, Stack
from throughtime.scanning import Inputs
from throughtime.scanning.call import leaves, map_leaves, map_states

SIZES = ((1, 1), (7, 3), (2, 1), (5, 4), (23, 2))  # T and B
TOLERANCE = 1e-4  # of a number's size, and at least of 1
UNCERTAIN = 10  # times what float32 itself is away from float64 there

# what is run: inputs [T, B, ...], states, lengths or None -> outputs [T, B, ...], final states
Run = Callable[[Inputs, Sequence[Tensor], Tensor | None], tuple[Tensor, Sequence[Tensor]]]


@dataclass(frozen=True)
class Trial:
    """Random inputs, states and lengths, with what the reference gives for them."""

    inputs: Inputs
    states: list[Tensor]
    lengths: Tensor | None
    output: Tensor
    finals: list[Tensor]
    allowed: list[Tensor]  # for the output and each final state, how far from it a right answer may be


def trials(
    stack: Stack, sizes: Sequence[tuple[int, int]] = SIZES, *, lengths: bool = False, seed: int = 0
) -> Iterator[Trial]:
    """One of each size T, B, from random states. lengths: with sequences of random lengths, 0 among them."""
    draw = torch.Generator().manual_seed(seed)
    exact = _doubled(stack)
    for steps, batch in sizes:

        def drawn(like: Tensor, *shape: int) -> Tensor:
            return torch.randn(*shape, *like.shape[1:], generator=draw, dtype=like.dtype)

        inputs = map_leaves(lambda t, n=steps, b=batch: drawn(t, n, b), stack.inputs)  # type: ignore[misc]
        states = [drawn(s, batch) for s in stack.states]
        given = torch.randint(0, steps + 1, (batch,), generator=draw) if lengths else None
        output, finals = stack.run(inputs, states, given)
        try:
            truth, ends = exact.run(map_leaves(_double, inputs), [s.double() for s in states], given)
        except Exception:  # a cell that is made for one type of number alone
            truth, ends = output, finals
        yield Trial(inputs, states, given, output, finals,
                    [_allowed(a, b) for a, b in zip([output, *finals], [truth, *ends], strict=True)])  # fmt: skip


def _allowed(value: Tensor, exact: Tensor) -> Tensor:
    return TOLERANCE * value.double().abs().clamp(min=1) + UNCERTAIN * (value.double() - exact).abs()


def _doubled(stack: Stack) -> Stack:
    """The same in float64."""

    def one(d: Direction) -> Direction:
        return replace(d, cell=_twin(d.cell), inputs=map_leaves(_double, d.inputs), state=map_states(_double, d.state))

    return replace(stack, layers=tuple(replace(la, directions=tuple(map(one, la.directions))) for la in stack.layers))


def _twin(module: nn.Module) -> nn.Module:
    """A module in float64 beside the one it is made of, whichever way its tensors hang on it."""
    made = object.__new__(type(module))  # a parametrised module refuses to be copied
    made.__dict__ = dict(module.__dict__)
    for group in ("_parameters", "_buffers"):
        made.__dict__[group] = {k: None if t is None else _double(t) for k, t in module.__dict__[group].items()}
    made.__dict__["_modules"] = {k: None if m is None else _twin(m) for k, m in module._modules.items()}
    made.__dict__.update({k: _double(t) for k, t in module.__dict__.items() if isinstance(t, Tensor)})
    return made


def _double(tensor: Tensor) -> Tensor:
    return tensor.detach().double() if tensor.is_floating_point() else tensor


def check(
    stack: Stack, run: Run, what: str, *, lengths: bool = False, sizes: Sequence[tuple[int, int]] = SIZES
) -> float:
    """Set what was written beside the reference: whole, and cut in two with the state carried where it can step.

    what: its name in messages. Returns: the largest difference.
    Raises: UserError where it differs by more than rounding, with the difference.
    """
    worst = 0.0
    for trial in trials(stack, sizes, lengths=lengths):
        worst = max(worst, _compare(trial, *run(trial.inputs, trial.states, trial.lengths), what))
        steps = trial.output.shape[0]
        if stack.can_step and trial.lengths is None and steps > 1:
            cut = steps // 2
            first, middle = run(map_leaves(lambda t, c=cut: t[:c], trial.inputs), trial.states, None)  # type: ignore[misc]
            second, finals = run(map_leaves(lambda t, c=cut: t[c:], trial.inputs), middle, None)  # type: ignore[misc]
            worst = max(worst, _compare(trial, torch.cat([first, second]), finals, f"{what}, cut in two"))
    return worst


def _compare(trial: Trial, output: Tensor, finals: Sequence[Tensor], what: str) -> float:
    worst = 0.0
    names = ["the output", *(f"final state {i}" for i in range(len(finals)))]
    for name, got, right, allowed in zip(
        names, [output, *finals], [trial.output, *trial.finals], trial.allowed, strict=True
    ):
        if got.shape != right.shape:
            raise UserError(f"{what}: {name} is {list(got.shape)}, not {list(right.shape)}: nothing was written")
        away = (got.double() - right.double()).abs()
        same = (got == right) | (got.isnan() & right.isnan()) | (away <= allowed)
        if not bool(same.all()):
            steps, batch = leaves(trial.inputs)[0].shape[:2]
            raise UserError(
                f"{what}: {name} differs from the reference by {float(away[~same].nan_to_num(torch.inf).max()):.3g} "
                f"at T = {steps}, B = {batch}: nothing was written"
            )
        finite = away[away.isfinite()]
        worst = max(worst, float(finite.max()) if finite.numel() else 0.0)
    return worst
