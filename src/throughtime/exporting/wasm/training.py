"""Training where a network goes: NAME_training.wasm, with steps both ways, and NAME_training.js, which moves the weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from throughtime.errors import UserError
from throughtime.exporting.agreement import TOLERANCE, UNCERTAIN, trials
from throughtime.exporting.evaluated import evaluated
from throughtime.exporting.interface import Interface
from throughtime.exporting.numbers_llvm import widened
from throughtime.exporting.stack import Stack, Step
from throughtime.exporting.training_llvm import TrainingModule, training_module
from throughtime.exporting.wasm.linking import STACK, WASM, link
from throughtime.exporting.wasm.node import Pipe, beside, running
from throughtime.exporting.wasm.script import TEMPLATES, libm_of
from throughtime.scanning.call import leaves, map_leaves

SIZES = ((1, 1), (7, 3), (5, 2))  # T and B


class Training:
    """What trains a stack. Raises: UserError where it cannot be trained."""

    def __init__(self, stack: Stack, name: str, names: Interface) -> None:
        self.stack, self.name, self.names = stack, name, names
        self.made = training_module(stack, name, WASM)

    @property
    def spec(self) -> dict[str, Any]:
        """What `Trainer` in trainer.mjs takes beside the module: its name, sizes in numbers, and the parts of the weights."""
        return {
            "name": self.name,
            "input": sum(n.width for n in self.names.inputs),
            "output": self.names.output.width,
            "state": sum(n.width for n in self.names.states),
            "weights": self.made.weights,
            "tape": self.made.tape,
            "parts": [asdict(part) for _, _, part in self.made.parts],
        }

    def module(self) -> bytes:
        """NAME_training.wasm."""
        functions = [f"{self.name}_{what}" for what in ("init", "weights", "forward", "backward")]
        return link(WASM.compiled(self.made.text), functions, STACK + self.made.stack)

    def write(self, folder: Path) -> None:
        """Write the files beside those of the network."""
        name, made = self.name, self.made
        text = (TEMPLATES / "training.js").read_text(encoding="utf-8")
        heading = f"{self.stack.name}, to be trained; README.md tells how it is used."
        for part, value in {
            "heading": heading,
            "name": name,
            "spec": json.dumps(self.spec),
            "libm": libm_of(made.libm),
            "trainer": (TEMPLATES / "trainer.mjs").read_text(encoding="utf-8").replace("export class", "class"),
        }.items():
            text = text.replace("{{" + part + "}}", value)
        (folder / f"{name}_training.wasm").write_bytes(self.module())
        (folder / f"{name}_training.js").write_text(text, encoding="utf-8")
        types = (TEMPLATES / "training.d.ts").read_text(encoding="utf-8")
        (folder / f"{name}_training.d.ts").write_text(types, encoding="utf-8")

    def check(self, node: str, folder: Path) -> None:
        """Set its outputs, states and gradients beside autograd's. Raises: UserError where they differ."""
        what = f"{self.name}_training.wasm"
        with running(node, "check_training.mjs", folder / f"{self.name}_training.js", what) as pipe:
            for trial in trials(self.stack, SIZES, seed=3):
                draw = torch.Generator().manual_seed(len(trial.output))
                dy = torch.randn(trial.output.shape, generator=draw)
                given = self.stack, self.made, trial.inputs, trial.states, dy
                right, exact = gradients(*given, torch.float32), gradients(*given, torch.float64)
                got = self._run(pipe, trial.inputs, trial.states, dy)
                for (name, a), b, c in zip(right.items(), exact.values(), got, strict=True):
                    if not a.numel():
                        continue
                    largest = a.nan_to_num(0.0, 0.0, 0.0).abs().max().clamp(min=1)  # of sums that may cancel
                    allowed = TOLERANCE * largest + UNCERTAIN * (a - b).abs()
                    if not bool(((c == a) | ((c - b).abs() <= allowed) | (c.isnan() & a.isnan())).all()):
                        away = float((c - b).abs().nan_to_num(torch.inf).max())
                        raise UserError(f"{what}: {name} differs from the reference by {away:.3g}: nothing was written")

    def _run(self, pipe: Pipe, inputs: Any, states: Sequence[Tensor], dy: Tensor) -> list[Tensor]:
        steps, batch = dy.shape[:2]
        x, rows = beside(leaves(inputs), steps, batch), beside(states, batch)
        pipe.send(torch.tensor([steps, batch], dtype=torch.int32), x, rows, dy)
        shapes = [dy.shape, rows.shape, (self.made.weights,), x.shape, rows.shape]
        return [pipe.read(*shape) for shape in shapes]


def gradients(
    stack: Stack, made: TrainingModule, inputs: Any, states: Sequence[Tensor], dy: Tensor, dtype: torch.dtype
) -> dict[str, Tensor]:
    """What autograd says of a stack by its program, worked out in `dtype`: the output, final states [B, S], and the gradients of
    the weights, as they lie, of the input [T, B, I] and of the states [B, S], those of several tensors side by side."""

    def leaf(t: Tensor) -> Tensor:
        return t.detach().to(dtype).requires_grad_()

    plain = evaluated(stack)
    steps = tuple(Step(s.program, [*map(leaf, s.vectors)], [*map(leaf, s.matrices)]) for s in plain.steps)
    x, first = map_leaves(leaf, inputs), [leaf(s) for s in states]
    y, finals = replace(plain, steps=steps).traced(x, first)
    # the last states have gradients of zeros, as the engine has them: not the same as none where a derivative is infinite
    ends = [(t, g.to(dtype)) for t, g in [(y, dy), *((s, torch.zeros_like(s)) for s in finals)] if t.requires_grad]
    torch.autograd.backward([t for t, _ in ends], [g for _, g in ends])
    length, batch = y.shape[:2]
    weights = torch.zeros(made.weights, dtype=dtype)
    for number, (kind, i), part in made.parts:
        if part.trained:
            row = widened(
                _grad(steps[number].matrices[i] if kind == "w" else steps[number].vectors[i]), WASM.lanes("float")
            )
            weights[part.offset : part.offset + row.numel()] = row.flatten()
    return {
        "the output": y.detach(),
        "the state": beside([s.detach() for s in finals], batch),
        "the gradient of the weights": weights,
        "the gradient of the input": beside([_grad(t) for t in leaves(x)], length, batch),
        "the gradient of the state": beside([_grad(s) for s in first], batch),
    }


def _grad(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
