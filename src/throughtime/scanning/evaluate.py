"""Nodes worked out by PyTorch, row by row of a matrix: what was hoisted out of time, and the ground truth of the compiled loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from throughtime.scanning.nodes import Node, Row, ordered

_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "neg": torch.neg, "abs": torch.abs, "exp": torch.exp,
    "log": torch.log, "log1p": torch.log1p, "expm1": torch.expm1, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt, "sin": torch.sin,
    "cos": torch.cos, "erf": torch.erf, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "pow": torch.pow, "floor": torch.floor,
    "sign": torch.sgn, "minimum": torch.minimum, "maximum": torch.maximum, "select": torch.where, "lt": torch.lt, "le": torch.le,
    "gt": torch.gt, "ge": torch.ge, "eq": torch.eq, "ne": torch.ne, "and": torch.logical_and, "or": torch.logical_or,
    "not": torch.logical_not, "detach": torch.detach,
    "inverse_root": lambda a: a.pow(-0.5),
    "largest": lambda *args: torch.stack(torch.broadcast_tensors(*args)).amax(0),  # type: ignore[no-untyped-call]
}  # fmt: skip

Linear = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x @ weight (+ bias)."""
    return x @ weight if bias is None else torch.addmm(bias, x, weight)


def evaluate(
    roots: Sequence[Node],
    leaf: Callable[[str, int], Tensor],
    matrices: Sequence[Tensor],
    like: Tensor,
    product: Linear = linear,
) -> list[Tensor]:
    """The values of nodes, [R, width] (a constant [width]).

    leaf: the whole tensor of a leaf, [R, n], or [n] for a constant. matrices: those that products name. like: what kind of numbers.
    """
    values: dict[int, Tensor] = {}
    for node in ordered(roots):
        values[id(node)] = _value(node, values, leaf, matrices, like, product)
    return [values[id(n)] for n in roots]


def _value(
    node: Node,
    values: dict[int, Tensor],
    leaf: Callable[[str, int], Tensor],
    matrices: Sequence[Tensor],
    like: Tensor,
    product: Linear,
) -> Tensor:
    args = [values[id(a)] for a in node.args]
    if node.op == "number":
        return torch.full((1,), node.attribute[0], dtype=like.dtype, device=like.device)
    if node.op == "leaf":
        kind, index, offset = node.attribute
        whole = leaf(kind, index)
        return whole if offset == 0 and whole.shape[-1] == node.width else whole[..., offset : offset + node.width]
    if node.op == "slice":
        return args[0][..., node.attribute : node.attribute + node.width]
    if node.op == "expand":
        return args[0].expand(*args[0].shape[:-1], node.width)
    if node.op in ("product", "affine"):
        bias = args.pop() if node.op == "affine" else None
        weights = [matrices[w] for w in node.attribute]
        weight = weights[0] if len(weights) == 1 else torch.cat(weights, -1)
        return product(args[0] if len(args) == 1 else torch.cat(_wide(args), -1), weight, bias)
    if node.op == "sum":
        return sum(a.sum(-1, keepdim=True) for a in args)  # type: ignore[return-value]
    if node.op == "max":
        return torch.cat(_wide(args), -1).amax(-1, keepdim=True)
    return _FUNCTIONS[node.op](*args)


def _wide(parts: list[Tensor]) -> list[Tensor]:
    """Parts with the same leading shape."""
    rows = max((p.shape[:-1] for p in parts), key=len)
    return [p.expand(*rows, p.shape[-1]) for p in parts]


def side_by_side(row: Row, values: Sequence[Tensor]) -> Tensor:
    """The values of a row's pieces as one tensor."""
    return values[0] if len(values) == 1 else torch.cat(_wide(list(values)), -1)
