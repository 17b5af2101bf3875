"""Streams of a stack of layers: rows of numbers in, rows of numbers out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from throughtime.serve.bodies import Given, Steps
from throughtime.serve.past import Read
from throughtime.serve.readers.reader import Array, Stepwise, finite
from throughtime.serve.refused import Refused
from throughtime.tasks.base import Trained
from throughtime.travel import Engine


class NumberReader(Stepwise):
    """Of a stack of layers: rows of numbers in, rows of numbers out."""

    keys = ("inputs",)

    @staticmethod
    def reads(model: Any) -> bool:
        return not isinstance(model, Trained)

    def __init__(self, stack: nn.Module) -> None:
        self.engine = Engine(stack)
        self.stack, self.width = stack, self.engine.width
        like = self.engine.empty().numpy()
        self.input = np.dtype((like.dtype, self.width))
        self._output = np.dtype((like.dtype, stack.streams(1).width_out))  # type: ignore[operator]

    def value(self, asked: Given, at: int) -> Any:
        with np.errstate(over="ignore"):
            rows = np.asarray(asked.inputs, dtype=self.input.base) if _even(asked.inputs) else None
        if rows is None or rows.ndim != 2 or not np.isfinite(rows).all():
            raise Refused(400, f"inputs: rows of {self.width} finite numbers each")
        return torch.from_numpy(rows)

    def answers(self, inputs: Tensor, read: Read, asked: Steps) -> dict[str, Any]:
        return {"outputs": [[finite(v) for v in output.tolist()] for output in read.outputs]}

    def answer(self, top: int) -> np.dtype[Any]:
        return self._output

    def numbers(self, outputs: Tensor, top: int) -> Array:
        return outputs.numpy()


def _even(rows: Any) -> bool:
    return len({len(row) for row in rows}) == 1
