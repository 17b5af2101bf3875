"""The matrices and constant rows of steps as one row of numbers, in which they can be trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from throughtime.errors import UserError
from throughtime.exporting.numbers_llvm import widened
from throughtime.exporting.plan import LayerPlan
from throughtime.exporting.stack import Direction
from throughtime.scanning.constants import own_tensors
from throughtime.scanning.program import Array

MOST = 2**23  # numbers, of which float32 tells twice as many apart


@dataclass(frozen=True)
class Part:
    """A matrix [K, N] or a constant row [N] among the numbers.

    name: as the cell calls it. offset: where it begins. stride: numbers from one row of it to the next. trained: whether it is a
    parameter; else it is a constant of the cell.
    """

    name: str
    offset: int
    shape: tuple[int, ...]
    stride: int
    trained: bool


@dataclass(frozen=True)
class Weights:
    """The numbers of a layer, each row up to whole vectors; its parts by ("w", matrix) and ("v", constant row)."""

    values: Tensor
    parts: dict[Array, Part]

    @property
    def trained(self) -> frozenset[Array]:
        """The parts that are trained."""
        return frozenset(array for array, part in self.parts.items() if part.trained)


def weights_of(direction: Direction, plan: LayerPlan, lanes: int) -> Weights:
    """The numbers of a layer. lanes: of a vector.

    Raises: UserError where something that a step reads is worked out of parameters, or one of them stands in two places: to train
        it there would not be to train them.
    """
    constants, own = plan.program.captured.constants, list(own_tensors(direction.cell).values())
    numbers = sum(t.numel() for t in own if _is_parameter(t))
    if numbers >= MOST:
        raise UserError(
            f"{plan.name} cannot be trained where it goes: it has {numbers:,} parameters; less than {MOST:,} can be"
        )
    arrays = [("w", w) for w in sorted({w for p in plan.schedule.loop.products for w in p.attribute})]
    arrays += [("v", i) for i in plan.vectors]
    first, second = (constants.made_of(_counted(own, start)) for start in (1, 1 + numbers))
    values, parts, places = [torch.zeros(0)], dict[Array, Part](), [torch.zeros(0)]
    for kind, index in arrays:
        row, one, other = (
            made[kind == "w"][index] for made in ((plan.step.vectors, plan.step.matrices), first, second)
        )
        name = plan.matrix_named(index) if kind == "w" else plan.vector_name(index)
        if trained := one.requires_grad:
            if not bool(((other == one + numbers) & (one >= 1) & (one <= numbers)).all()):
                raise UserError(
                    f"{plan.name} cannot be trained where it goes: it works {name} out of parameters before it steps"
                )
            places.append(one.detach().flatten())
        wide = widened(row, lanes)
        parts[kind, index] = Part(name, sum(map(len, values)), tuple(row.shape), wide.shape[-1], trained)
        values.append(wide.flatten())
    seen = torch.cat(places).tolist()
    if len(set(seen)) < len(seen):
        raise UserError(f"{plan.name} cannot be trained where it goes: a parameter of it stands in two places")
    return Weights(torch.cat(values), parts)


def _is_parameter(tensor: Tensor) -> bool:
    return tensor.requires_grad and tensor.is_floating_point()


def _counted(own: Sequence[Tensor], start: int) -> list[Tensor]:
    """A cell's own tensors; in the place of the numbers of its parameters start, start + 1, …"""
    made, known = list[Tensor](), dict[int, Tensor]()
    for tensor in own:
        if id(tensor) not in known:
            known[id(tensor)] = tensor.detach()
            if _is_parameter(tensor):
                counted = torch.arange(start, start + tensor.numel(), dtype=tensor.dtype).view(tensor.shape)
                known[id(tensor)] = counted.requires_grad_()
                start += tensor.numel()
        made.append(known[id(tensor)])
    return made
