"""Numbers, one by one. In the corners too: what a NaN does, what the gradient is at a border (by way of which branch is chosen)."""

from __future__ import annotations

import math
from typing import Any

from throughtime.scanning.lowering import RULES, Constant, Lowering, rule
from throughtime.scanning.symbols import Symbol, Unsupported

for _name, _op in {
    "mul.Tensor": "mul", "mul.Scalar": "mul", "div.Scalar": "div", "neg": "neg", "abs": "abs", "exp": "exp", "log": "log",
    "log1p": "log1p", "expm1": "expm1", "sqrt": "sqrt", "rsqrt": "rsqrt", "sin": "sin", "cos": "cos", "erf": "erf", "tanh": "tanh",
    "tan": "tan", "asin": "asin", "acos": "acos", "atan": "atan", "sinh": "sinh", "cosh": "cosh", "asinh": "asinh",
    "acosh": "acosh", "atanh": "atanh", "sigmoid": "sigmoid",
    "sign": "sign", "sgn": "sign", "minimum": "minimum", "maximum": "maximum", "floor": "floor",
    "lt.Tensor": "lt", "lt.Scalar": "lt", "le.Tensor": "le", "le.Scalar": "le", "gt.Tensor": "gt", "gt.Scalar": "gt",
    "ge.Tensor": "ge", "ge.Scalar": "ge", "eq.Tensor": "eq", "eq.Scalar": "eq", "ne.Tensor": "ne", "ne.Scalar": "ne",
    "where.self": "select", "where.ScalarSelf": "select", "where.ScalarOther": "select", "where.Scalar": "select",
    "logical_and": "and", "logical_or": "or", "logical_not": "not", "bitwise_and.Tensor": "and", "bitwise_or.Tensor": "or",
    "bitwise_not": "not", "detach": "detach",
}.items():  # fmt: skip
    RULES[_name] = lambda low, *args, _op=_op: low.op(_op, *args)


@rule("div.Tensor")
def _div(low: Lowering, a: Any, b: Any) -> Symbol:
    return low.op("div", a, b)


@rule("add.Tensor", "add.Scalar")
def _add(low: Lowering, a: Any, b: Any, alpha: float = 1) -> Symbol:
    return low.op("add", a, b if alpha == 1 else low.op("mul", b, alpha))


@rule("sub.Tensor", "sub.Scalar")
def _sub(low: Lowering, a: Any, b: Any, alpha: float = 1) -> Symbol:
    return low.op("sub", a, b if alpha == 1 else low.op("mul", b, alpha))


@rule("rsub.Scalar", "rsub.Tensor")
def _rsub(low: Lowering, a: Any, b: Any, alpha: float = 1) -> Symbol:
    return _sub(low, b, a, alpha)  # type: ignore[no-any-return]


@rule("reciprocal")
def _reciprocal(low: Lowering, a: Any) -> Symbol:
    return low.op("div", 1.0, a)


@rule("pow.Tensor_Scalar")
def _pow(low: Lowering, a: Any, exponent: float) -> Symbol:
    if exponent == 2:
        return low.op("mul", a, a)
    if exponent == 3:
        return low.op("mul", low.op("mul", a, a), a)
    if exponent == 1:
        return low.value(a)
    if exponent == 0.5:
        return low.op("sqrt", a)
    if exponent == -0.5:  # the value of rsqrt with the gradient of a power
        return low.op("inverse_root", a)
    if exponent == -1:
        return low.op("div", 1.0, a)
    return low.op("pow", a, float(exponent))


@rule("pow.Tensor_Tensor", "pow.Scalar")
def _pow_tensor(low: Lowering, a: Any, b: Any) -> Symbol:
    return low.op("pow", a, b)


@rule("exp2")
def _exp2(low: Lowering, a: Any) -> Symbol:
    return low.op("pow", 2.0, a)


@rule("log2")
def _log2(low: Lowering, a: Any) -> Symbol:
    return low.op("div", low.op("log", a), math.log(2))


@rule("log10")
def _log10(low: Lowering, a: Any) -> Symbol:
    return low.op("div", low.op("log", a), math.log(10))


@rule("lerp.Scalar", "lerp.Tensor")
def _lerp(low: Lowering, a: Any, b: Any, weight: Any) -> Symbol:
    if isinstance(weight, Constant) and not weight.dtype.is_floating_point:
        raise Unsupported(f"a weight of {weight.dtype}, whose gradient PyTorch works out in that type")
    gap = low.op("sub", b, a)
    near_a = low.op("add", a, low.op("mul", weight, gap))
    near_b = low.op("sub", b, low.op("mul", gap, low.op("sub", 1.0, weight)))
    if isinstance(weight, int | float):
        return near_a if abs(weight) < 0.5 else near_b
    return low.op("select", low.op("lt", low.op("abs", weight), 0.5), near_a, near_b)  # exact at both ends


@rule("addcmul")
def _addcmul(low: Lowering, a: Any, b: Any, c: Any, value: float = 1) -> Symbol:
    return low.op("add", a, low.op("mul", low.op("mul", b, c), value))


@rule("addcdiv")
def _addcdiv(low: Lowering, a: Any, b: Any, c: Any, value: float = 1) -> Symbol:
    return low.op("add", a, low.op("mul", low.op("div", b, c), value))


@rule("clamp", "clamp.Tensor")
def _clamp(low: Lowering, a: Any, least: Any = None, most: Any = None) -> Symbol:
    if isinstance(least, Symbol | Constant) or isinstance(most, Symbol | Constant):
        a = low.value(a, (least, most))
    for limit, inside in ((least, "ge"), (most, "le")):
        if limit is not None:  # a NaN stays, and has no gradient
            still = low.op("select", low.op("ne", a, a), low.op("detach", a), limit)
            a = low.op("select", low.op(inside, a, limit), a, still)
    return low.value(a)


@rule("clamp_min", "clamp_min.Tensor")
def _clamp_min(low: Lowering, a: Any, least: Any) -> Symbol:
    return _clamp(low, a, least)  # type: ignore[no-any-return]


@rule("clamp_max", "clamp_max.Tensor")
def _clamp_max(low: Lowering, a: Any, most: Any) -> Symbol:
    return _clamp(low, a, None, most)  # type: ignore[no-any-return]


@rule("hardtanh")
def _hardtanh(low: Lowering, a: Any, least: float = -1, most: float = 1) -> Symbol:
    a = low.op("select", low.op("le", a, least), least, a)
    return low.op("select", low.op("ge", a, most), most, a)


@rule("relu")
def _relu(low: Lowering, a: Any) -> Symbol:
    return low.op("select", low.op("le", a, 0.0), 0.0, a)


@rule("threshold")
def _threshold(low: Lowering, a: Any, threshold: float, value: float) -> Symbol:
    return low.op("select", low.op("le", a, threshold), value, a)


@rule("leaky_relu")
def _leaky_relu(low: Lowering, a: Any, slope: float = 0.01) -> Symbol:
    return low.op("select", low.op("gt", a, 0.0), a, low.op("mul", a, slope))


@rule("elu")
def _elu(low: Lowering, a: Any, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Symbol:
    positive = low.op("gt", a, 0.0)
    below = low.op("select", positive, 0.0, a)  # so that no overflow of the branch not taken meets a gradient of zero
    negative = low.op("mul", low.op("expm1", low.op("mul", below, input_scale)), alpha * scale)
    return low.op("select", positive, low.op("mul", a, scale), negative)


@rule("gelu")
def _gelu(low: Lowering, a: Any, approximate: str = "none") -> Symbol:
    half = low.op("mul", a, 0.5)
    if approximate == "tanh":
        cube = low.op("mul", low.op("mul", a, a), a)
        inner = low.op("mul", low.op("add", a, low.op("mul", cube, 0.044715)), math.sqrt(2 / math.pi))
        return low.op("mul", half, low.op("add", 1.0, low.op("tanh", inner)))
    return low.op("mul", half, low.op("add", 1.0, low.op("erf", low.op("mul", a, math.sqrt(0.5)))))


@rule("silu")
def _silu(low: Lowering, a: Any) -> Symbol:
    return low.op("mul", a, low.op("sigmoid", a))


@rule("softplus")
def _softplus(low: Lowering, a: Any, beta: float = 1, threshold: float = 20) -> Symbol:
    scaled = low.op("mul", a, beta)
    large = low.op("gt", scaled, threshold)
    safe = low.op("select", large, 0.0, scaled)
    return low.op("select", large, a, low.op("div", low.op("log1p", low.op("exp", safe)), beta))


@rule("mish")
def _mish(low: Lowering, a: Any) -> Symbol:
    return low.op("mul", a, low.op("tanh", _softplus(low, a)))


@rule("hardsigmoid")
def _hardsigmoid(low: Lowering, a: Any) -> Symbol:
    inner = low.op("select", low.op("le", a, -3.0), -3.0, a)
    inner = low.op("select", low.op("ge", inner, 3.0), 3.0, inner)
    return low.op("div", low.op("add", inner, 3.0), 6.0)


@rule("hardswish")
def _hardswish(low: Lowering, a: Any) -> Symbol:
    return low.op("mul", a, _hardsigmoid(low, a))


@rule("log_sigmoid_forward")
def _log_sigmoid(low: Lowering, a: Any) -> tuple[Symbol, None]:
    below = low.op("lt", a, 0.0)
    least = low.op("select", below, a, 0.0)
    return low.op("sub", least, low.op("log1p", low.op("exp", low.op("select", below, a, low.op("neg", a))))), None


@rule("masked_fill.Scalar", "masked_fill.Tensor")
def _masked_fill(low: Lowering, a: Any, mask: Any, value: Any) -> Symbol:
    return low.op("select", mask, value, a)
