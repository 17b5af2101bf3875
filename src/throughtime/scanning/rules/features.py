"""Sums, norms and the like over features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from throughtime.scanning import symbols
from throughtime.scanning.lowering import Lowering, rule
from throughtime.scanning.rules.shapes import squeeze
from throughtime.scanning.symbols import Symbol, Unsupported


def _dims(a: Symbol, dims: Any) -> list[int]:
    if dims is None or (isinstance(dims, list | tuple) and not dims):
        return list(range(len(a.shape)))
    return [d % len(a.shape) for d in ([dims] if isinstance(dims, int) else dims)]


@rule("sum.dim_IntList", "sum")
def _sum(low: Lowering, a: Symbol, dims: Any = None, keep: bool = False, dtype: Any = None) -> Symbol:
    return low.sum(a, _dims(a, dims), keep)


@rule("mean.dim", "mean")
def _mean(low: Lowering, a: Symbol, dims: Any = None, keep: bool = False, dtype: Any = None) -> Symbol:
    return low.mean(a, _dims(a, dims), keep)


def _moments(low: Lowering, a: Symbol, dims: list[int], correction: float) -> tuple[Symbol, Symbol]:
    mean = low.mean(a, dims, True)
    centred = low.op("sub", a, mean)
    count = math.prod(a.shape[d] for d in dims) - correction
    return mean, low.op("div", low.sum(low.op("mul", centred, centred), dims, True), float(max(count, 0)) or math.nan)


def _squeezed(low: Lowering, a: Symbol, dims: list[int], keep: bool) -> Symbol:
    return a if keep else squeeze(low, a, dims)


@rule("var.correction")
def _var(low: Lowering, a: Symbol, dims: Any = None, correction: float | None = None, keepdim: bool = False) -> Symbol:
    dims = _dims(a, dims)
    return _squeezed(low, _moments(low, a, dims, 1 if correction is None else correction)[1], dims, keepdim)


def _root(low: Lowering, a: Symbol) -> Symbol:
    """A square root whose gradient at 0 is 0, as that of a norm or of a standard deviation is in PyTorch."""
    zero = low.op("eq", a, 0.0)
    return low.op("select", zero, 0.0, low.op("sqrt", low.op("select", zero, 1.0, a)))


@rule("std.correction")
def _std(low: Lowering, a: Symbol, dims: Any = None, correction: float | None = None, keepdim: bool = False) -> Symbol:
    return _root(low, _var(low, a, dims, correction, keepdim))


@rule("var_mean.correction")
def _var_mean(
    low: Lowering, a: Symbol, dims: Any = None, correction: float | None = None, keepdim: bool = False
) -> tuple[Symbol, Symbol]:
    dims = _dims(a, dims)
    mean, var = _moments(low, a, dims, 1 if correction is None else correction)
    return _squeezed(low, var, dims, keepdim), _squeezed(low, mean, dims, keepdim)


@rule("native_layer_norm")
def _layer_norm(low: Lowering, a: Symbol, shape: Sequence[int], weight: Any, bias: Any, eps: float) -> Any:
    dims = list(range(len(a.shape) - len(shape), len(a.shape)))
    mean, var = _moments(low, a, dims, 0)
    rstd = low.op("rsqrt", low.op("add", var, eps))
    y = low.op("mul", low.op("sub", a, mean), rstd)
    if weight is not None:
        y = low.op("mul", y, weight)
    if bias is not None:
        y = low.op("add", y, bias)
    return y, mean, rstd


@rule("_fused_rms_norm")
def _rms_norm(low: Lowering, a: Symbol, shape: Sequence[int], weight: Any, eps: float | None) -> Any:
    dims = list(range(len(a.shape) - len(shape), len(a.shape)))
    rstd = low.op(
        "rsqrt",
        low.op("add", low.mean(low.op("mul", a, a), dims, True), 1.1920928955078125e-07 if eps is None else eps),
    )
    y = low.op("mul", a, rstd)
    return (y if weight is None else low.op("mul", y, weight)), rstd


@rule("linalg_vector_norm")
def _norm(
    low: Lowering, a: Symbol, order: float = 2, dims: Any = None, keep: bool = False, dtype: Any = None
) -> Symbol:
    if order == 2:
        return _root(low, low.sum(low.op("mul", a, a), _dims(a, dims), keep))
    if order == 1:
        return low.sum(low.op("abs", a), _dims(a, dims), keep)
    raise Unsupported(f"a norm of order {order}")


@rule("amax")
def _amax(low: Lowering, a: Symbol, dims: Any = None, keep: bool = False) -> Symbol:
    return symbols.reduced(low.graph, "max", low.as_number(a), _dims(a, dims), keep)


@rule("amin")
def _amin(low: Lowering, a: Symbol, dims: Any = None, keep: bool = False) -> Symbol:
    return low.op("neg", _amax(low, low.op("neg", a), dims, keep))


@rule("_softmax")
def _softmax(low: Lowering, a: Symbol, dim: int, half_to_float: bool = False) -> Symbol:
    e = low.op("exp", low.op("sub", a, low.op("detach", _amax(low, a, dim, True))))
    return low.op("div", e, low.sum(e, [dim], True))


@rule("_log_softmax")
def _log_softmax(low: Lowering, a: Symbol, dim: int, half_to_float: bool = False) -> Symbol:
    shifted = low.op("sub", a, low.op("detach", _amax(low, a, dim, True)))
    return low.op("sub", shifted, low.op("log", low.sum(low.op("exp", shifted), [dim], True)))


@rule("logsumexp")
def _logsumexp(low: Lowering, a: Symbol, dims: Any, keep: bool = False) -> Symbol:
    top = low.op("detach", _amax(low, a, dims, True))
    top = low.op("select", low.op("eq", low.op("abs", top), math.inf), 0.0, top)
    total = low.op("log", low.sum(low.op("exp", low.op("sub", a, top)), _dims(a, dims), True))
    return _squeezed(low, low.op("add", total, top), _dims(a, dims), keep)


@rule("cumsum")
def _cumsum(low: Lowering, a: Symbol, dim: int, dtype: Any = None) -> Symbol:
    dim %= len(a.shape)
    if a.axes[dim] != "e":
        raise Unsupported("a running sum along the features")
    parts = [symbols.narrowed(low.graph, a, dim, i, i + 1) for i in range(a.shape[dim])]
    for i in range(1, len(parts)):
        parts[i] = low.op("add", parts[i - 1], parts[i])
    return symbols.joined(low.graph, parts, dim)
