"""Sequences by their length, the longest first: so those still running are always the first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Order(NamedTuple):
    """Another order of sequences, and the way back.

    order: of the old places, [B]. back: the order that undoes it. lengths, before: of the sequences in the new order and in the
    old one. run: what runs the operations, as an engine's `run`.
    """

    order: Tensor
    back: Tensor
    lengths: Tensor
    before: Tensor
    run: Callable[..., Tensor]

    @classmethod
    def by_length(cls, lengths: Tensor, run: Callable[..., Tensor]) -> Order:
        falling, order = lengths.sort(descending=True, stable=True)
        return cls(order, order.argsort(), falling, lengths, run)

    @property
    def inverse(self) -> Order:
        return Order(self.back, self.order, self.before, self.lengths, self.run)

    def rows(self, value: Tensor) -> Tensor:
        """[B, n] in this order."""
        return _InOrder.apply(value, 0, self, False)  # type: ignore[no-any-return, no-untyped-call]

    def steps(self, value: Tensor, zeros: bool = False) -> Tensor:
        """[T, B, n] in this order. zeros: put some past the sequences' ends."""
        return _InOrder.apply(value, 1, self, zeros)  # type: ignore[no-any-return, no-untyped-call]


class _InOrder(torch.autograd.Function):
    """Its gradient is itself, the other way round; PyTorch's own would add rows up where each has one place."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, dim: int, order: Order, zeros: bool) -> Tensor:  # type: ignore[override]
        ctx.rest = dim, order, zeros
        return order.run(_selected, value, dim, order.order, order.lengths if zeros else None)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:  # type: ignore[override]
        dim, order, zeros = ctx.rest
        return _InOrder.apply(g, dim, order.inverse, zeros), None, None, None  # type: ignore[no-untyped-call]


def _selected(value: Tensor, dim: int, order: Tensor, lengths: Tensor | None) -> Tensor:
    made = value.index_select(dim, order)
    if lengths is not None:
        made.masked_fill_((torch.arange(len(value), device=value.device).unsqueeze(1) >= lengths).unsqueeze(-1), 0.0)
    return made
