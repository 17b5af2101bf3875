"""One step of a cell as what is to be written, in whatever language: its sweeps in order, its constants, and where numbers lie."""

from __future__ import annotations

import itertools
import re

import torch
from torch import Tensor

from throughtime.errors import UserError
from throughtime.exporting.stack import Direction, Stack
from throughtime.scanning.nodes import width_of
from throughtime.scanning.program import Array
from throughtime.scanning.schedule import Schedule


class LayerPlan:
    """A layer of a stack, for one stream.

    inputs, outputs: numbers. states: those of each tensor of its state. scratch: arrays of its own, with their widths: what lies
    between products and sweeps, and the new states, ("n", k). Raises: UserError where an operation cannot be exported, or its
    numbers are not float32.
    """

    def __init__(self, number: int, direction: Direction) -> None:
        self.number, self.name = number, direction.name
        self.step = direction.step()
        self.program = self.step.program
        captured = self.program.captured
        if captured.constants.dtype is not torch.float32:
            raise UserError(f"{self.name} works in {captured.constants.dtype}: convert it by .float()")
        self.schedule = Schedule(self.program.forward)
        self.states = self.program.state_widths
        self.inputs, self.outputs = sum(captured.input_widths), width_of(self.program.extras[0])
        own = {("n", k): width for k, width in enumerate(self.states)}
        self.scratch: dict[Array, int] = {**self.schedule.scratch, **own}
        state = itertools.accumulate(self.states, initial=0)
        given = list(itertools.accumulate(captured.input_widths, initial=0))
        # arrays that are a part of what a step is given: its argument, and how many numbers lie before
        self.passed: dict[Array, tuple[str, int]] = {
            **{("s", k): ("state", before) for k, before in zip(range(len(self.states)), state, strict=False)},
            **{("a", i): ("x", given[node.attribute[1]]) for i, node in enumerate(self.program.arrays)},
            ("o", 0): ("y", 0),
        }

    @property
    def vectors(self) -> dict[int, Tensor]:
        """The constant rows that are read, by number."""
        return {i: self.step.vectors[i] for i in sorted(self.program.vector_widths)}

    def constants(self, int8: bool) -> int:
        """Bytes of the matrices of all products; int8: of eight bits, and of what goes with each column."""
        products = self.schedule.loop.products
        numbers = sum(self.matrix(i).numel() for i in range(len(products)))
        return numbers + 8 * sum(p.width for p in products) if int8 else 4 * numbers

    def matrix(self, product: int) -> Tensor:
        """What the left operand of a product is multiplied by, [K, N]."""
        return torch.cat([self.step.matrices[w] for w in self.schedule.loop.products[product].attribute], 1)

    def vector_name(self, number: int) -> str:
        """A constant row as the cell calls it, an identifier."""
        return self._name(self.program.captured.constants.vectors[number][0])

    def matrix_name(self, product: int) -> str:
        """The matrix of a product as the cell calls it, an identifier."""
        return "_".join(self.matrix_named(w) for w in self.schedule.loop.products[product].attribute)

    def matrix_named(self, number: int) -> str:
        """A matrix as the cell calls it."""
        return self._name(self.program.captured.constants.matrices[number])

    def _name(self, constant: int) -> str:
        """What a constant is called, or the tensors that it is made of."""
        constants = self.program.captured.constants
        if constant < len(constants.names):
            return re.sub(r"\W", "_", constants.names[constant])
        made = re.findall(r"#(\d+)", constants.text[constant - len(constants.names)])
        return "_".join(self._name(int(k)) for k in made) or f"constant_{constant}"


def plans_of(stack: Stack) -> list[LayerPlan]:
    """The layers of a stack that can step."""
    return [LayerPlan(number, d) for number, d in enumerate(stack.directions)]
