"""Sequences in another order, with zeros past their ends."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from throughtime.scanning.cpu.threads import as_the_team


class _Order(torch.autograd.Function):
    """Its gradient is itself, the other way round; PyTorch's own would add rows up where each has one place."""

    @staticmethod
    @as_the_team
    def forward(  # type: ignore[override]
        ctx: Any, value: Tensor, dim: int, order: Tensor, back: Tensor, after: Tensor | None, before: Tensor | None
    ) -> Tensor:
        ctx.dim, ctx.rest = dim, (back, order, before, after)
        made = value.index_select(dim, order)
        if after is not None:
            steps = torch.arange(value.shape[0]).unsqueeze(1)
            made.masked_fill_((steps >= after).unsqueeze(-1), 0.0)
        return made

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:  # type: ignore[override]
        return _Order.apply(g, ctx.dim, *ctx.rest), None, None, None, None, None  # type: ignore[no-untyped-call]


def in_order(
    value: Tensor, dim: int, order: Tensor, back: Tensor, after: Tensor | None = None, before: Tensor | None = None
) -> Tensor:
    """The rows of dimension `dim` in another order.

    Args: value: [T, B, n] at dim 1, [B, n] at dim 0. back: the order that undoes `order`. after, before: the lengths of the
        sequences in the new order and in the old one, past which zeros are put; None: none are.
    """
    made: Tensor = _Order.apply(value, dim, order, back, after, before)  # type: ignore[no-untyped-call]
    return made
