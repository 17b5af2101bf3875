"""What each PyTorch operation means in nodes.

A rule takes the `Lowering` and the operation's arguments, tensors as `Symbol`s, and gives a `Symbol` or a tuple of them. The
rules follow PyTorch's definitions in the corners too: what a NaN does, what the gradient is at a border (by way of which branch
is chosen).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from throughtime.scanning import symbols
from throughtime.scanning.evaluate import Rows
from throughtime.scanning.nodes import CONSTANT, STATE, Graph, Node, Row, width_of
from throughtime.scanning.symbols import Symbol, Unsupported

RULES: dict[str, Callable[..., Any]] = {}


def rule(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            RULES[name] = function
        return function

    return add


class Lowering:
    """What the rules work with: the graph, the batch size of the tracing, the constants of the cell.

    `constant` takes a constant tensor to (index, shape); `derive(index, how)` is a constant made from another.
    """

    def __init__(self, graph: Graph, batch: int, constants: Any) -> None:
        self.graph, self.batch, self.constants = graph, batch, constants

    # constants

    def symbol_of_constant(self, constant: Constant, lane: int | None) -> Symbol:
        """A constant tensor as rows along `lane`, with no batch; truth values where its numbers are."""
        index, shape = constant.index, constant.shape
        if not shape:
            lane = None
        elif lane is None:
            lane = len(shape) - 1
        order = [a for a in range(len(shape)) if a != lane] + ([lane] if lane is not None else [])
        flat = self.constants.vector(index, order)
        width = shape[lane] if lane is not None else 1
        extras = [shape[a] for a in order if a != lane]

        def piece(i: tuple[int, ...]) -> Row:
            number = 0
            for size, at in zip(extras, i, strict=True):
                number = number * size + at
            return (self.graph.leaf("v", flat, width, number * width),)

        axes = "".join("l" if a == lane else "e" for a in range(len(shape)))
        symbol = Symbol(tuple(shape), axes, symbols.array_of(extras, piece))
        return symbols.pointwise(self.graph, "ne", symbol, self.number(0.0)) if constant.dtype == torch.bool else symbol

    def number(self, value: float | bool) -> Symbol:
        return Symbol((), "", symbols.whole([self.graph.number(float(value))]))

    def value(self, x: Any, like: Sequence[Any] = ()) -> Symbol:
        """An argument as a symbol: a number, a symbol, or a constant laid along the lanes of `like`."""
        if isinstance(x, Symbol):
            return x
        if isinstance(x, bool | int | float):
            return self.number(x)
        if isinstance(x, Constant):
            lane = None
            for other in like:
                if isinstance(other, Symbol) and "l" in other.axes:
                    lane = other.axes.index("l") - len(other.axes) + len(x.shape)
                    if 0 <= lane < len(x.shape) and (x.shape[lane] != 1 or len(x.shape) == 1):
                        break
                    lane = None
            return self.symbol_of_constant(x, lane)
        raise Unsupported(f"an argument of type {type(x).__name__}")

    # arithmetic on symbols

    def op(self, name: str, *args: Any) -> Symbol:
        """A pointwise op; truth values become 0 and 1 where numbers are wanted."""
        values = [self.value(a, args) for a in args]
        if name in ("and", "or", "not"):
            values = [v if v.boolean else self.op("ne", v, 0.0) for v in values]
        elif name == "select":
            first, *rest = values
            if not first.boolean:
                raise Unsupported("where with a condition that is not a truth value")
            values = [first, *(self.as_number(v) for v in rest)]
        else:
            values = [self.as_number(v) for v in values]
        return symbols.pointwise(self.graph, name, *values)

    def as_number(self, symbol: Symbol) -> Symbol:
        if not symbol.boolean:
            return symbol
        return symbols.pointwise(self.graph, "select", symbol, self.number(1.0), self.number(0.0))

    def sum(self, symbol: Symbol, dims: Sequence[int], keep: bool) -> Symbol:
        return symbols.reduced(self.graph, "sum", self.as_number(symbol), dims, keep)

    def mean(self, symbol: Symbol, dims: Sequence[int], keep: bool) -> Symbol:
        count = math.prod(symbol.shape[d] for d in dims)
        return self.op("div", self.sum(symbol, dims, keep), float(count))

    # products

    def product(self, row: Row, weight: Constant, bias: Constant | None) -> Row:
        """row @ weight (+ bias), the parts that need no state apart from those that do."""
        graph = self.graph
        parts: list[tuple[bool, list[Node], int]] = []
        start = 0
        for node in row:
            needs = bool(node.flags & STATE)
            if not parts or parts[-1][0] != needs:
                parts.append((needs, [], start))
            parts[-1][1].append(node)
            start += node.width
        width = weight.shape[1]
        total: Row | None = None
        bias_leaf = None
        if bias is not None:
            flat = self.constants.vector(bias.index, list(range(len(bias.shape))))
            if math.prod(bias.shape) != width:
                raise Unsupported("a bias that is not of the width of the product")
            bias_leaf = graph.leaf("v", flat, width)
        for needs, nodes, offset in sorted(
            parts, key=lambda p: p[0]
        ):  # what needs no state first: it can take the bias
            rows = width_of(nodes)
            index = weight.index
            if len(parts) > 1:
                index = self.constants.derived(
                    weight, f"[{offset}:{offset + rows}]", lambda w, o=offset, r=rows: w.narrow(0, o, r)
                ).index
            if all(node.flags == CONSTANT for node in nodes):
                made = self._constant_product(tuple(nodes), index, width)
                if bias_leaf is not None:
                    made, bias_leaf = graph.apply("add", made, bias_leaf), None
                total = (made,) if total is None else symbols.over_pieces(graph, "add", [total, (made,)], width)
                continue
            made = graph.product(tuple(nodes), (self.constants.matrix(index),), width)
            if bias_leaf is not None:
                if needs:
                    made = graph.apply("add", made, bias_leaf)
                else:
                    made = graph.node("affine", (*made.args, bias_leaf), width, made.attribute)
                bias_leaf = None
            total = (made,) if total is None else symbols.over_pieces(graph, "add", [total, (made,)], width)
        assert total is not None
        return total

    def _constant_product(self, row: Row, weight: int, width: int) -> Node:
        """A product of what is the same at every step and in every sequence: a constant row, worked out before the loop."""
        vectors, dtype = list(self.constants.vectors), self.constants.dtype

        def make(values: list[Any]) -> Any:
            like = values[weight]

            def leaf(kind: str, i: int) -> Any:
                index, order = vectors[i]
                return values[index].permute(order).reshape(-1).to(dtype)

            return Rows(leaf, [], like).rows([row])[0] @ like

        made = self.constants.recipe(make, f"{width} sums over a constant row @ #{weight}", (width,), dtype)
        return self.graph.leaf("v", self.constants.vector(made.index, [0]), width)


class Constant:
    """A tensor that hangs on nothing but the cell: number `index` of the program's constants."""

    def __init__(self, index: int, shape: Sequence[int], dtype: torch.dtype) -> None:
        self.index, self.shape, self.dtype = index, tuple(shape), dtype


# ------------------------------------------------------------------------------------------------ pointwise

for _name, _op in {
    "mul.Tensor": "mul", "mul.Scalar": "mul", "div.Scalar": "div", "neg": "neg", "abs": "abs", "exp": "exp", "log": "log",
    "log1p": "log1p", "expm1": "expm1", "sqrt": "sqrt", "rsqrt": "rsqrt", "sin": "sin", "cos": "cos", "erf": "erf", "tanh": "tanh",
    "sigmoid": "sigmoid", "sign": "sign", "sgn": "sign", "minimum": "minimum", "maximum": "maximum", "floor": "floor",
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


# ------------------------------------------------------------------------------------------------ shapes


@rule("view", "reshape", "_unsafe_view", "_reshape_alias")
def _view(low: Lowering, a: Symbol, shape: Sequence[int], *strides: Any) -> Symbol:
    known = -math.prod(shape)
    shape = [math.prod(a.shape) // max(known, 1) if n == -1 else n for n in shape]
    return symbols.reshaped(low.graph, a, shape)


@rule("t", "numpy_T")
def _t(low: Lowering, a: Symbol) -> Symbol:
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
def _squeeze(low: Lowering, a: Symbol, axes: Any = None) -> Symbol:
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


# ------------------------------------------------------------------------------------------------ over features


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
    return a if keep else _squeeze(low, a, dims)


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


# ------------------------------------------------------------------------------------------------ products


@rule("mm")
def _mm(low: Lowering, a: Any, b: Any, bias: Constant | None = None) -> Symbol:
    if isinstance(a, Constant):  # W @ h.T is (h @ W.T).T
        transposed = low.constants.derived(a, ".t", lambda w: w.t())
        return _t(low, _mm(low, _t(low, b), transposed))  # type: ignore[no-any-return]
    if not isinstance(b, Constant):
        raise Unsupported("a product of two values that change from step to step")
    if a.axes == "be":
        a = symbols.reshaped(low.graph, symbols.inserted(a, 1), a.shape)
    if a.axes not in ("bl", "be"):
        raise Unsupported(f"a product of a tensor {list(a.shape)} whose first axis is not the batch")
    row = symbols.flat_row(low.graph, low.as_number(a))
    return Symbol((a.shape[0], b.shape[1]), "bl", symbols.whole(low.product(row, b, bias)))


@rule("addmm")
def _addmm(low: Lowering, c: Any, a: Any, b: Any, beta: float = 1, alpha: float = 1) -> Symbol:
    if (
        isinstance(c, Constant)
        and isinstance(b, Constant)
        and beta == alpha == 1
        and c.shape in ((b.shape[1],), (1, b.shape[1]))
    ):
        return _mm(low, a, b, c)  # type: ignore[no-any-return]
    made = _mm(low, a, b)
    made = made if alpha == 1 else low.op("mul", made, alpha)
    return low.op("add", made, c if beta == 1 else low.op("mul", c, beta))


@rule("mv")
def _mv(low: Lowering, a: Any, b: Any) -> Symbol:
    if not isinstance(b, Constant) or isinstance(a, Constant):
        raise Unsupported("a product of two values that change from step to step")
    return _squeeze(low, _mm(low, a, low.constants.derived(b, ".unsqueeze(1)", lambda w: w.unsqueeze(1))), 1)  # type: ignore[no-any-return]


__all__ = ["CONSTANT", "RULES", "Constant", "Lowering", "Symbol", "Unsupported"]
