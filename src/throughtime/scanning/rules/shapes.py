"""Views and what else only chooses among nodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from throughtime.scanning import symbols
from throughtime.scanning.lowering import Lowering, rule
from throughtime.scanning.symbols import Symbol


@rule("view", "reshape", "_unsafe_view", "_reshape_alias")
def _view(low: Lowering, a: Symbol, shape: Sequence[int], *strides: Any) -> Symbol:
    known = -math.prod(shape)
    shape = [math.prod(a.shape) // max(known, 1) if n == -1 else n for n in shape]
    return symbols.reshaped(low.graph, a, shape)


@rule("t", "numpy_T")
def transposed(low: Lowering, a: Symbol) -> Symbol:
    """`t` and `.T`: the axes in the opposite order."""
    return symbols.permuted(a, list(range(len(a.shape)))[::-1])


@rule("transpose.int")
def _transpose(low: Lowering, a: Symbol, one: int, other: int) -> Symbol:
    order = list(range(len(a.shape)))
    order[one], order[other] = order[other], order[one]
    return symbols.permuted(a, order)


@rule("permute")
def _permute(low: Lowering, a: Symbol, order: Sequence[int]) -> Symbol:
    return symbols.permuted(a, order)


@rule("unsqueeze")
def _unsqueeze(low: Lowering, a: Symbol, axis: int) -> Symbol:
    return symbols.inserted(a, axis)


@rule("squeeze.dim", "squeeze.dims", "squeeze")
def squeeze(low: Lowering, a: Symbol, axes: Any = None) -> Symbol:
    """Without the axes that are named, or all, where they have one entry."""
    axes = range(len(a.shape)) if axes is None else [axes] if isinstance(axes, int) else axes
    for axis in sorted((d % len(a.shape) for d in axes), reverse=True):
        a = symbols.removed(low.graph, a, axis)
    return a


@rule("select.int")
def _select(low: Lowering, a: Symbol, axis: int, at: int) -> Symbol:
    return symbols.chosen(low.graph, a, axis, at)


@rule("slice.Tensor")
def _slice(low: Lowering, a: Symbol, axis: int = 0, start: Any = None, stop: Any = None, step: int = 1) -> Symbol:
    return symbols.narrowed(low.graph, a, axis, start, stop, step)


@rule("narrow")
def _narrow(low: Lowering, a: Symbol, axis: int, start: int, length: int) -> Symbol:
    return symbols.narrowed(low.graph, a, axis, start, start + length)


@rule("split.Tensor", "unsafe_split.Tensor")
def _split(low: Lowering, a: Symbol, size: int, axis: int = 0) -> tuple[Symbol, ...]:
    return tuple(
        symbols.narrowed(low.graph, a, axis, s, min(s + size, a.shape[axis])) for s in range(0, a.shape[axis], size)
    )


@rule("split_with_sizes", "unsafe_split_with_sizes")
def _split_sizes(low: Lowering, a: Symbol, sizes: Sequence[int], axis: int = 0) -> tuple[Symbol, ...]:
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return tuple(symbols.narrowed(low.graph, a, axis, s, s + n) for s, n in zip(starts, sizes, strict=True))


@rule("unbind.int")
def _unbind(low: Lowering, a: Symbol, axis: int = 0) -> tuple[Symbol, ...]:
    return tuple(symbols.chosen(low.graph, a, axis, i) for i in range(a.shape[axis]))


@rule("cat")
def _cat(low: Lowering, parts: Sequence[Any], axis: int = 0) -> Symbol:
    values = [low.as_number(low.value(p, [q for q in parts if isinstance(q, Symbol)])) for p in parts]
    return symbols.joined(low.graph, values, axis)


@rule("stack")
def _stack(low: Lowering, parts: Sequence[Any], axis: int = 0) -> Symbol:
    values = [low.as_number(low.value(p, [q for q in parts if isinstance(q, Symbol)])) for p in parts]
    axis %= len(values[0].shape) + 1
    return symbols.joined(low.graph, [symbols.inserted(v, axis) for v in values], axis)


@rule("expand")
def _expand(low: Lowering, a: Any, shape: Sequence[int], implicit: bool = False) -> Symbol:
    return symbols.expanded(low.graph, low.value(a), shape, low.batch)


@rule("clone", "contiguous", "alias", "lift_fresh")
def _clone(low: Lowering, a: Symbol, memory_format: Any = None) -> Symbol:
    return a


@rule("flip")
def _flip(low: Lowering, a: Symbol, dims: Sequence[int]) -> Symbol:
    for axis in dims:
        parts = [symbols.narrowed(low.graph, a, axis, i, i + 1) for i in reversed(range(a.shape[axis]))]
        a = symbols.joined(low.graph, parts, axis)
    return a
