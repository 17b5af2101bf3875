"""What layers that answer have in common: weights in eight bits, and many streams at once."""

from __future__ import annotations

from typing import Self

from torch import nn

from throughtime.layers.int8 import hold_in_int8
from throughtime.scanning import Streams
from throughtime.scanning.int8 import FLOAT


class Answering(nn.Module):
    """A layer that has a `stepper`."""

    weights = FLOAT  # how they are held: handed to `scan`

    def quantize(self) -> Self:
        """Round the weights to eight bits, in place, a scale for each output: from now on it runs with weights in int8, which is
        quicker and has no gradients (`docs/engine.md`).

        Returns: itself.
        """
        hold_in_int8(self)
        return self

    def streams(self, slots: int, *, weights: str | None = None) -> Streams:
        """Many streams through the stack, whose states are a table of so many rows: see `Streams`. weights: as of `stepper`.
        Raises: as `stepper`."""
        return Streams(self, slots, weights)  # type: ignore[arg-type]  # its `stepper` is of the layer that inherits this
