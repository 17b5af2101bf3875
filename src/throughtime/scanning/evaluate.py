"""Nodes worked out one after the other: by PyTorch, for what was hoisted out of time and as the ground truth of the compiled
loop, or by whatever else has a table of operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor

from throughtime.scanning.nodes import Node, Row, ordered

V = TypeVar("V")
Linear = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class Operations(Protocol[V]):
    """What the ops of nodes mean to a target: what a value is there, and how one is made of others.

    pointwise: a function for each op of `nodes.POINTWISE` but "expand". The others have methods of their names.
    """

    @property
    def pointwise(self) -> Mapping[str, Callable[..., V]]: ...
    def number(self, value: float) -> V: ...
    def leaf(self, kind: str, index: int, offset: int, width: int) -> V: ...
    def slice(self, value: V, offset: int, width: int) -> V: ...
    def expand(self, value: V, width: int) -> V: ...
    def product(self, row: list[V], weights: tuple[int, ...], bias: V | None) -> V: ...
    def sum(self, row: list[V]) -> V: ...
    def max(self, row: list[V]) -> V: ...


def evaluate(roots: Sequence[Node], operations: Operations[V]) -> list[V]:
    """The values of nodes."""
    values: dict[Node, V] = {}
    for node in ordered(roots):
        values[node] = _value(node, [values[a] for a in node.args], operations)
    return [values[n] for n in roots]


def _value(node: Node, args: list[V], operations: Operations[V]) -> V:
    match node.op:
        case "number":
            return operations.number(node.attribute[0])
        case "leaf":
            kind, index, offset = node.attribute
            return operations.leaf(kind, index, offset, node.width)
        case "slice":
            return operations.slice(args[0], node.attribute, node.width)
        case "expand":
            return operations.expand(args[0], node.width)
        case "product":
            return operations.product(args, node.attribute, None)
        case "affine":
            return operations.product(args[:-1], node.attribute, args[-1])
        case "sum":
            return operations.sum(args)
        case "max":
            return operations.max(args)
        case op:
            return operations.pointwise[op](*args)


TORCH: dict[str, Callable[..., Tensor]] = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "neg": torch.neg, "abs": torch.abs, "exp": torch.exp,
    "log": torch.log, "log1p": torch.log1p, "expm1": torch.expm1, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt, "sin": torch.sin,
    "cos": torch.cos, "erf": torch.erf, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "pow": torch.pow, "floor": torch.floor,
    "sign": torch.sgn, "minimum": torch.minimum, "maximum": torch.maximum, "select": torch.where, "lt": torch.lt, "le": torch.le,
    "gt": torch.gt, "ge": torch.ge, "eq": torch.eq, "ne": torch.ne, "and": torch.logical_and, "or": torch.logical_or,
    "not": torch.logical_not, "detach": torch.detach,
    "tan": torch.tan, "asin": torch.asin, "acos": torch.acos, "atan": torch.atan, "sinh": torch.sinh, "cosh": torch.cosh,
    "asinh": torch.asinh, "acosh": torch.acosh, "atanh": torch.atanh,
    "inverse_root": lambda a: a.pow(-0.5),
    "largest": lambda *args: torch.stack(torch.broadcast_tensors(*args)).amax(0),  # type: ignore[no-untyped-call]
}  # fmt: skip


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x @ weight (+ bias)."""
    return x @ weight if bias is None else torch.addmm(bias, x, weight)


class _Rounded(torch.autograd.Function):
    """Rounded to bfloat16; its gradient is passed on as it is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        return x.to(torch.bfloat16).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
        return g


class _RoundedBack(torch.autograd.Function):
    """As it is; its gradient is rounded to bfloat16."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
        made: Tensor = _Rounded.apply(g)  # type: ignore[no-untyped-call]
        return made


def bfloat16_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The same of operands rounded to bfloat16, in this product and in those of its gradient; sums are not rounded."""
    made: Tensor = _RoundedBack.apply(_Rounded.apply(x) @ _Rounded.apply(weight))  # type: ignore[no-untyped-call]
    return made if bias is None else made + bias


@dataclass
class TorchOperations:
    """PyTorch's operations on the rows of matrices: a value is [R, width], or [width] where it is constant.

    whole: the whole tensor of a leaf, by kind and number. matrices: those that products name. like: what kind of numbers.
    """

    whole: Callable[[str, int], Tensor]
    matrices: Sequence[Tensor]
    like: Tensor
    linear: Linear = linear
    pointwise: ClassVar[Mapping[str, Callable[..., Tensor]]] = TORCH

    def number(self, value: float) -> Tensor:
        return torch.full((1,), value, dtype=self.like.dtype, device=self.like.device)

    def leaf(self, kind: str, index: int, offset: int, width: int) -> Tensor:
        whole = self.whole(kind, index)
        return whole if offset == 0 and whole.shape[-1] == width else whole[..., offset : offset + width]

    def slice(self, value: Tensor, offset: int, width: int) -> Tensor:
        return value[..., offset : offset + width]

    def expand(self, value: Tensor, width: int) -> Tensor:
        return value.expand(*value.shape[:-1], width)

    def product(self, row: list[Tensor], weights: tuple[int, ...], bias: Tensor | None) -> Tensor:
        return self.linear(joined(row), joined([self.matrices[w] for w in weights]), bias)

    def sum(self, row: list[Tensor]) -> Tensor:
        return sum(a.sum(-1, keepdim=True) for a in row)  # type: ignore[return-value]

    def max(self, row: list[Tensor]) -> Tensor:
        return joined(row).amax(-1, keepdim=True)

    def rows(self, rows: Sequence[Row]) -> list[Tensor]:
        """The values of rows of nodes, each as one tensor."""
        values = iter(evaluate([n for row in rows for n in row], self))
        return [joined([next(values) for _ in row]) for row in rows]


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Parts side by side, with the same leading shape."""
    if len(parts) == 1:
        return parts[0]
    rows = max((p.shape[:-1] for p in parts), key=len)
    return torch.cat([p.expand(*rows, p.shape[-1]) for p in parts], -1)
