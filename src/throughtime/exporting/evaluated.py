"""A stack by its program: each node worked out by PyTorch, with matrices as they are or as eight bits tell them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from throughtime.exporting import int8 as eight
from throughtime.exporting.agreement import trials
from throughtime.exporting.stack import Stack, Step
from throughtime.scanning import Inputs
from throughtime.scanning.call import leaves
from throughtime.scanning.evaluate import TorchOperations, linear
from throughtime.scanning.int8 import dequantised


@dataclass(frozen=True)
class Evaluated(Stack):
    """A stack that can step, run by the programs of its steps in place of its cells. rounded: what is multiplied by matrices
    is rounded to whole numbers of sixteen bits; not in float64, which tells how far that moves."""

    steps: tuple[Step, ...] = ()
    rounded: bool = False

    @torch.no_grad()
    def run(
        self, inputs: Inputs, states: Sequence[Tensor], lengths: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """As that of `Stack`, without lengths."""
        assert lengths is None
        return self.traced(inputs, states)

    def traced(self, inputs: Inputs, states: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The same, with gradients."""
        given = [t.reshape(*t.shape[:2], -1) for t in leaves(inputs)]
        rows = [s.reshape(len(s), -1) for s in states]
        outputs = []
        for x in zip(*given, strict=True):
            y, rows = self._step(list(x), rows)
            outputs.append(y)
        shape = self.steps[-1].program.captured.shapes[0]
        finals = [row.reshape(s.shape) for row, s in zip(rows, states, strict=True)]
        return torch.stack(outputs).reshape(len(outputs), len(y), *shape), finals

    def _step(self, x: list[Tensor], rows: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        left, news = list(rows), list[Tensor]()
        for step, layer in zip(self.steps, self.layers, strict=True):
            program = step.program
            count, like, batch = len(program.states), x[0], len(x[0])
            leaf = {
                "a": [x[node.attribute[1]] for node in program.arrays],
                "s": left[:count],
                "v": [v.to(like.dtype) for v in step.vectors],
            }
            left = left[count:]
            matrices = [m.to(like.dtype) for m in step.matrices]
            product = _rounded_linear if self.rounded and like.dtype is torch.float32 else linear
            made = TorchOperations(lambda kind, i, leaf=leaf: leaf[kind][i], matrices, like, product)  # type: ignore[misc]
            *new, y = [row.expand(batch, -1) for row in made.rows([*program.states, *program.extras])]
            news += new
            x = [y + x[0] if layer.residual else y]
        return x[0], news


def evaluated(stack: Stack, *, int8: bool = False, rounded: bool = False) -> Evaluated:
    """A stack by its program. int8: with matrices as eight bits tell them. rounded: and what they multiply in sixteen, as
    objects of C and WebAssembly do."""
    steps = [d.step() for d in stack.directions]
    if int8:
        steps = [Step(s.program, s.vectors, [dequantised(m) for m in s.matrices]) for s in steps]
    return Evaluated(stack.name, stack.layers, tuple(steps), rounded)


def _rounded_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return linear(eight.rounded(x), weight, bias)


def moved_by_eight_bits(stack: Stack, other: Stack) -> str:
    """What eight bits change of a stack's outputs, as a sentence. other: the stack as they tell it."""
    worst, largest = 0.0, 0.0
    for trial in trials(stack):
        output, _ = other.run(trial.inputs, trial.states)
        worst = max(worst, float((output - trial.output).abs().max()))
        largest = max(largest, float(trial.output.abs().max()))
    return f"On the random inputs of the check outputs (up to {largest:.3g}) moved by at most {worst:.2g}."
