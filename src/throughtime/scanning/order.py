"""Sequences by their length, the longest first: so those still running are always the first; and each from its end, where time
is reversed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Order:
    """Another order of sequences, and the way back.

    order: of the old places, [B]. back: the order that undoes it. lengths, before: of the sequences in the new order and in the
    old one. steps: T. run: what runs the operations, as an engine's `run`. reverse: whether each sequence goes from its end to
    its beginning, what is past its end staying where it is. same: whether the order is that of before.
    """

    order: Tensor
    back: Tensor
    lengths: Tensor
    before: Tensor
    steps: int
    run: Callable[..., Tensor]
    reverse: bool = False
    same: bool = False

    @classmethod
    def by_length(cls, lengths: Tensor, steps: int, run: Callable[..., Tensor], reverse: bool = False) -> Order:
        falling, order = lengths.sort(descending=True, stable=True)
        back = order.argsort()
        # elsewhere than on the CPU one would wait to know
        same = lengths.is_cpu and bool((lengths[1:] <= lengths[:-1]).all())
        return cls(order, back, falling, lengths, steps, run, reverse, same)

    @cached_property
    def inverse(self) -> Order:
        return replace(self, order=self.back, back=self.order, lengths=self.before, before=self.lengths)

    @cached_property
    def real(self) -> Tensor:
        """The rows t · B + b of the sequences' steps, ascending."""
        return (self._times < self.lengths).flatten().nonzero().flatten()

    @cached_property
    def past(self) -> Tensor:
        """The rows t · B + b past the sequences' ends, ascending."""
        return (self._times >= self.lengths).flatten().nonzero().flatten()

    def rows(self, value: Tensor) -> Tensor:
        """[B, n] in this order."""
        return value if self.same else _InOrder.apply(value, 0, self, False)  # type: ignore[no-any-return, no-untyped-call]

    def in_time(self, value: Tensor, zeros: bool = False) -> Tensor:
        """[T, B, n] in this order. zeros: put some past the sequences' ends."""
        if self.same and not self.reverse and not zeros:
            return value
        return _InOrder.apply(value, 1, self, zeros)  # type: ignore[no-any-return, no-untyped-call]

    def selected(self, value: Tensor, dim: int, zeros: bool) -> Tensor:
        """What `rows` (dim 0) and `in_time` (dim 1) give, without a gradient."""
        if dim == 0:
            return value.index_select(0, self.order)
        if self.reverse:
            made = value.flatten(0, 1).index_select(0, self._turned).view(value.shape)
        else:
            made = (
                value.clone(memory_format=torch.contiguous_format) if self.same else value.index_select(1, self.order)
            )
        if zeros and value.is_cpu:
            made.flatten(0, 1).index_fill_(0, self.past, 0.0)
        elif zeros:
            made.masked_fill_((self._times >= self.lengths).unsqueeze(-1), 0.0)
        return made

    @property
    def _times(self) -> Tensor:
        return torch.arange(self.steps, device=self.lengths.device).unsqueeze(1)

    @cached_property
    def _turned(self) -> Tensor:
        """Where each row comes from, where time is reversed, [T · B]."""
        t = torch.where(self._times < self.lengths, self.lengths - 1 - self._times, self._times)
        return (t * len(self.order) + self.order).flatten()


class _InOrder(torch.autograd.Function):
    """Its gradient is itself, the other way round; PyTorch's own would add rows up where each has one place."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, dim: int, order: Order, zeros: bool) -> Tensor:  # type: ignore[override]
        ctx.rest = dim, order, zeros
        return order.run(Order.selected, order, value, dim, zeros)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:  # type: ignore[override]
        dim, order, zeros = ctx.rest
        return _InOrder.apply(g, dim, order.inverse, zeros), None, None, None  # type: ignore[no-untyped-call]
