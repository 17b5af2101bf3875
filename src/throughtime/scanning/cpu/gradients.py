"""Gradients as a backward loop reads them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from throughtime.scanning.engine import Given
from throughtime.scanning.program import Loop, Program


def dense_rows(program: Program, given: Given, gradients: Sequence[Tensor | None], loop: Loop) -> list[Tensor]:
    """Those of states and extras, [T, B, n], with dense rows, in the type that the loop reads; one row of zeros stands for all of
    one that is none."""
    dtype, made = given.state[0].dtype, []
    for k, g in enumerate(gradients):
        if g is None:
            n = (program.state_widths + program.extra_widths)[k]
            made.append(torch.zeros(n, dtype=dtype).expand(given.steps, given.batch, n))
        else:
            rows = _dense(g)
            made.append(rows if g.dtype is dtype or ("g", k) in loop.halved else rows.to(dtype))
    return made


def carried_by(given: Given, finals: Sequence[Tensor | None]) -> list[Tensor]:
    """The gradient of each tensor of the state, in two buffers in turn, [2, B, n]: at first that of the final state."""
    made = [torch.zeros(2, *state.shape, dtype=state.dtype) for state in given.state]
    for two, final in zip(made, finals, strict=True):
        if final is not None:
            two.copy_(final)
    return made


def _dense(g: Tensor) -> Tensor:
    """A gradient with dense rows; one row stands for all where they are one memory, as those of a sum are."""
    if g.stride(-1) == 1:
        return g
    return g[0, 0].contiguous().expand_as(g) if g.stride(0) == g.stride(1) == 0 else g.contiguous()
