"""The matrices and constant rows of steps as one row of numbers, in which they can be trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from throughtime.errors import UserError
from throughtime.exporting.plan import LayerPlan
from throughtime.exporting.stack import Direction
from throughtime.exporting.steps_llvm import padded, widened
from throughtime.scanning.constants import own_tensors
from throughtime.scanning.program import Array

MOST = 2**23  # numbers, of which float32 tells twice as many apart


@dataclass(frozen=True)
class Part:
    """A matrix [K, N] or a constant row [N] among numbers: what the cell calls it, where it begins, how many numbers lie from one row
    to the next, and whether it is trained."""

    name: str
    offset: int
    shape: tuple[int, ...]
    stride: int
    trained: bool


@dataclass(frozen=True)
class Weights:
    """The numbers of a layer, each row up to whole vectors, by ("w", matrix) and ("v", constant row)."""

    values: Tensor
    parts: dict[Array, Part]

    @property
    def trained(self) -> frozenset[Array]:
        """Those that are the cell's parameters; others are constants of it."""
        return frozenset(array for array, part in self.parts.items() if part.trained)


def weights_of(direction: Direction, plan: LayerPlan, lanes: int) -> Weights:
    """The numbers of a layer. lanes: of a vector.

    Raises: UserError where what a step reads is worked out of parameters (as a product of two, or one of them in two places), so that
        to train it would not be to train them.
    """
    step, constants = plan.step, plan.program.captured.constants
    matrices = {w: product for product, p in enumerate(plan.schedule.loop.products) for w in p.attribute}
    arrays: dict[Array, str] = {("w", w): _matrix_name(plan, w) for w in sorted(matrices)}
    arrays |= {("v", i): plan.vector_name(i) for i in plan.vectors}
    values = {array: (step.matrices if array[0] == "w" else step.vectors)[array[1]] for array in arrays}
    own = list(own_tensors(direction.cell).values())
    first, second = (constants.made_of(_numbered(own, turn)) for turn in (0, 1))
    count, seen, parts, rows, at = _count(own), list[Tensor](), dict[Array, Part](), list[Tensor](), 0
    for array, name in arrays.items():
        one, other = ((found[1] if array[0] == "w" else found[0])[array[1]].flatten() for found in (first, second))
        trained = not torch.equal(one, other)
        if trained and not (bool((other == one + count).all()) and bool(((one > 0) & (one <= count)).all())):
            raise UserError(
                f"{plan.name} cannot be trained where it goes: it works {name} out of its parameters before it steps"
            )
        seen += [one] * trained
        row = widened(values[array], lanes)
        parts[array] = Part(name, at, tuple(values[array].shape), row.shape[-1], trained)
        rows.append(row.flatten())
        at += row.numel()
    if seen and len(torch.cat(seen).unique()) < sum(map(len, seen)):
        raise UserError(f"{plan.name} cannot be trained where it goes: it has a parameter in two places")
    return Weights(torch.cat([torch.zeros(0), *rows]), parts)


def _matrix_name(plan: LayerPlan, matrix: int) -> str:
    raise NotImplementedError


def _is_trained(tensor: Tensor) -> bool:
    return tensor.requires_grad and tensor.is_floating_point()


def _count(own: Sequence[Tensor]) -> int:
    """How many numbers are trained. Raises: UserError where there are too many."""
    return sum(t.numel() for t in own if _is_trained(t))


def _numbered(own: Sequence[Tensor], turn: int) -> list[Tensor]:
    """A cell's own tensors, each number of a parameter its place among all of them, from 1 on; in another turn as much higher as
    there are."""
    count, made = _count(own), []
    at = 1 + turn * count
    for tensor in own:
        if _is_trained(tensor):
            made.append(torch.arange(at, at + tensor.numel(), dtype=tensor.dtype).view(tensor.shape))
            at += tensor.numel()
        else:
            made.append(tensor.detach())
    return made
