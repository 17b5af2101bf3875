"""Numbers rounded, cut off and shrunk."""

from __future__ import annotations

from typing import Any

from throughtime.scanning.lowering import Lowering, rule
from throughtime.scanning.symbols import Symbol


@rule("ceil")
def _ceil(low: Lowering, a: Any) -> Symbol:
    return low.op("neg", low.op("floor", low.op("neg", a)))


@rule("trunc")
def _trunc(low: Lowering, a: Any) -> Symbol:
    return low.op("select", low.op("lt", a, 0.0), _ceil(low, a), low.op("floor", a))


@rule("frac")
def _frac(low: Lowering, a: Any) -> Symbol:
    return low.op("sub", a, _trunc(low, a))


@rule("round")
def _round(low: Lowering, a: Any) -> Symbol:
    """To the nearest whole number; of two, to the even one."""
    a = low.op("detach", a)
    size = low.op("abs", a)
    below = low.op("floor", size)
    rest, above = low.op("sub", size, below), low.op("add", below, 1.0)
    even = low.op("eq", below, low.op("mul", low.op("floor", low.op("mul", below, 0.5)), 2.0))
    down = low.op("or", low.op("lt", rest, 0.5), low.op("and", low.op("eq", rest, 0.5), even))
    nearest = low.op("select", low.op("eq", size, below), size, low.op("select", down, below, above))
    return low.op("select", low.op("lt", a, 0.0), low.op("neg", nearest), nearest)


@rule("softshrink")
def _softshrink(low: Lowering, a: Any, limit: float = 0.5) -> Symbol:
    below = low.op("select", low.op("lt", a, -limit), low.op("add", a, limit), low.op("mul", a, 0.0))
    return low.op("select", low.op("gt", a, limit), low.op("sub", a, limit), below)


@rule("hardshrink")
def _hardshrink(low: Lowering, a: Any, limit: float = 0.5) -> Symbol:
    inside = low.op("and", low.op("ge", a, -limit), low.op("le", a, limit))
    return low.op("select", inside, 0.0, a)


@rule("isnan")
def _isnan(low: Lowering, a: Any) -> Symbol:
    return low.op("ne", a, a)
