"""What the ops of nodes are in ONNX: a table, as `evaluate.TORCH` is PyTorch's.

Values are [..., width], numbers of the cell's type or truth values; what hangs on constants alone is [width]. Where ONNX has no
operator, or onnxruntime's is another than PyTorch's at NaN or near 0, a few of them stand for one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from throughtime.errors import UserError
from throughtime.exporting.onnx.nodes import Array, Nodes
from throughtime.exporting.onnx.refining import refined
from throughtime.scanning.evaluate import evaluate
from throughtime.scanning.nodes import Graph, Row


@dataclass(frozen=True)
class Value:
    """A value of a graph. rows: whether it has a row for each sequence (and step), or is the same for all."""

    name: str
    width: int
    rows: bool
    boolean: bool = False


Leaf = Callable[[str, int], Value]  # the whole tensor of a leaf, by kind and number


class OnnxOperations:
    """Writes nodes into a graph.

    Args: leaf: what leaves are. matrices: those that products name, [K, N]. like: a value with a row for each sequence, [..., n]
        of `axes` leading axes, by which those that have none are repeated.
    """

    def __init__(self, nodes: Nodes, leaf: Leaf, matrices: Sequence[Array], like: str, axes: int, dtype: Any) -> None:
        self.nodes, self.whole, self.matrices, self.dtype = nodes, leaf, matrices, np.dtype(dtype)
        self.like, self.axes = like, axes
        self.pointwise: Mapping[str, Callable[..., Value]] = {op: partial(make, self) for op, make in ONNX.items()}

    # what `evaluate` asks for

    def number(self, value: float) -> Value:
        """A constant, [1]."""
        return Value(self.nodes.constant(np.array([value], self.dtype)), 1, rows=False)

    def leaf(self, kind: str, index: int, offset: int, width: int) -> Value:
        """A piece of a tensor that is given."""
        return self.slice(self.whole(kind, index), offset, width)

    def slice(self, value: Value, offset: int, width: int) -> Value:
        """A piece of a value."""
        if offset == 0 and width == value.width:
            return value
        name = self.nodes.piece(value.name, value.width, offset, width)
        return Value(name, width, value.rows, value.boolean)

    def expand(self, value: Value, width: int) -> Value:
        """One number a row, repeated."""
        value = self.as_number(value)
        held = self.nodes.held.get(value.name)
        if held is not None:
            return Value(self.nodes.constant(np.repeat(held, width)), width, rows=False)
        return Value(self.nodes.add("Expand", value.name, self.nodes.whole(width)), width, value.rows)

    def product(self, row: list[Value], weights: tuple[int, ...], bias: Value | None) -> Value:
        """Values side by side times matrices side by side."""
        matrix = np.concatenate([self.matrices[w] for w in weights], -1)
        left = self.joined(row)
        if len(matrix) == 1:  # a product by name only, and one that a scale before it would break: see `_scaled`
            made = self.make("Mul", left, Value(self.nodes.constant(matrix[0]), matrix.shape[1], rows=False))
        else:
            made = Value(self.nodes.add("MatMul", left.name, self.nodes.constant(matrix)), matrix.shape[1], left.rows)
        return made if bias is None else self.make("Add", made, bias)

    def sum(self, row: list[Value]) -> Value:
        """The sum of each row, [..., 1]."""
        parts = [self._reduced("ReduceSum", value) for value in row]
        total = parts[0]
        for part in parts[1:]:
            total = self.make("Add", total, part)
        return total

    def max(self, row: list[Value]) -> Value:
        """The largest of a row; NaN where one is, which the runtime's passes over."""
        value = self.joined(row)
        odd = self._reduced("ReduceMax", self.as_number(self.make("IsNaN", value, boolean=True)))
        return self.make("Where", self.as_truth(odd), self.number(np.nan), self._reduced("ReduceMax", value))

    # what the table is written with

    def make(self, op: str, *args: Value, boolean: bool = False, **attributes: Any) -> Value:
        """A pointwise operator."""
        name = self.nodes.add(op, *(a.name for a in args), **attributes)
        return Value(name, max(a.width for a in args), any(a.rows for a in args), boolean)

    def as_number(self, value: Value) -> Value:
        """A truth value as 1 or 0."""
        return self.make("Where", value, self.number(1), self.number(0)) if value.boolean else value

    def as_truth(self, value: Value) -> Value:
        """A number as whether it is not 0."""
        if value.boolean:
            return value
        return self.make("Not", self.make("Equal", value, self.number(0), boolean=True), boolean=True)

    def joined(self, row: Sequence[Value]) -> Value:
        """Values side by side."""
        parts = [self.as_number(value) for value in row]
        if len(parts) == 1:
            return parts[0]
        rows = any(value.rows for value in parts)
        if rows:
            parts = [self.in_rows(value) for value in parts]
        return Value(self.nodes.add("Concat", *(p.name for p in parts), axis=-1), sum(p.width for p in parts), rows)

    def in_rows(self, value: Value) -> Value:
        """A constant row, repeated for each sequence."""
        if value.rows:
            return value
        n = self.nodes
        sizes = n.add("Concat", n.add("Shape", self.like, start=0, end=self.axes), n.whole(1), axis=0)
        return Value(n.add("Expand", value.name, sizes), value.width, rows=True)

    def rows(self, graph: Graph, rows: Sequence[Row]) -> list[Value]:
        """The values of rows of a graph's nodes, each as one value with a row for each sequence."""
        rows = refined(graph, rows, lambda kind, index: self.whole(kind, index).width)
        values = iter(evaluate([n for row in rows for n in row], self))
        return [self.in_rows(self.joined([next(values) for _ in row])) for row in rows]

    def _reduced(self, op: str, value: Value) -> Value:
        value = self.as_number(value)
        return Value(self.nodes.add(op, value.name, self.nodes.whole(-1), keepdims=1), 1, value.rows)


def _plain(op: str) -> Callable[..., Value]:
    return lambda o, *args: o.make(op, *map(o.as_number, args))


def _scaled(op: str) -> Callable[..., Value]:
    """By a number as by a row of it.

    onnxruntime's optimiser (MatMulScaleFusion, in 1.32) takes a scale that is one number into the product behind it, also where
    something else reads what was scaled; then the file cannot be loaded.
    """

    def make(o: OnnxOperations, *args: Value) -> Value:
        width = max(a.width for a in args)
        return _plain(op)(o, *(o.expand(a, width) if a.width < width and not a.rows else a for a in args))

    return make


def _compared(op: str) -> Callable[..., Value]:
    return lambda o, a, b: o.make(op, o.as_number(a), o.as_number(b), boolean=True)


def _logical(op: str) -> Callable[..., Value]:
    return lambda o, *args: o.make(op, *map(o.as_truth, args), boolean=True)


def _select(o: OnnxOperations, condition: Value, a: Value, b: Value) -> Value:
    return o.make("Where", o.as_truth(condition), o.as_number(a), o.as_number(b))


def _sign(o: OnnxOperations, a: Value) -> Value:
    """PyTorch's sign of NaN is 0."""
    a = o.as_number(a)
    return o.make("Where", o.make("IsNaN", a, boolean=True), o.number(0), o.make("Sign", a))


def _inverse_root(o: OnnxOperations, a: Value) -> Value:
    return o.make("Reciprocal", o.make("Sqrt", o.as_number(a)))


FLOAT32_ALONE = ("Erf", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh")  # in onnxruntime


def _of_float32(op: str) -> Callable[..., Value]:
    def make(o: OnnxOperations, a: Value) -> Value:
        if o.dtype != np.float32:
            raise UserError(
                f"{op.lower()} of {o.dtype} cannot be exported to onnx: onnxruntime has that of float32 alone"
            )
        return o.make(op, o.as_number(a))

    return make


def _log1p(o: OnnxOperations, a: Value) -> Value:
    """log(1 + a) by u = 1 + a, which is rounded: log(u) · (a / (u - 1)), where the rounding falls out; a itself where u is 1.

    Source: Kahan, as in the HP-15C Advanced Functions Handbook (1982), appendix.
    """
    a = o.as_number(a)
    u = o.make("Add", a, o.number(1))
    near = o.make("Mul", o.make("Log", u), o.make("Div", a, o.make("Sub", u, o.number(1))))
    value = o.make("Where", o.make("Equal", u, o.number(1), boolean=True), a, near)
    return o.make("Where", o.make("Equal", a, o.number(np.inf), boolean=True), a, value)


def _expm1(o: OnnxOperations, a: Value) -> Value:
    """exp(a) - 1 by u = exp(a): (u - 1) · a / log(u); a itself where u is 1, and u - 1 where that is far from 0.

    Source: as `_log1p`.
    """
    a = o.as_number(a)
    u = o.make("Exp", a)
    less = o.make("Sub", u, o.number(1))
    near = o.make("Div", o.make("Mul", less, a), o.make("Log", u))
    value = o.make("Where", o.make("Equal", u, o.number(1), boolean=True), a, near)
    return o.make("Where", o.make("Less", o.make("Abs", a), o.number(1), boolean=True), value, less)


ONNX: dict[str, Callable[..., Value]] = {
    "add": _plain("Add"), "sub": _plain("Sub"), "mul": _scaled("Mul"), "div": _scaled("Div"), "neg": _plain("Neg"),
    "abs": _plain("Abs"), "exp": _plain("Exp"), "log": _plain("Log"), "sqrt": _plain("Sqrt"), "sin": _plain("Sin"),
    "cos": _plain("Cos"), "tanh": _plain("Tanh"), "sigmoid": _plain("Sigmoid"), "pow": _plain("Pow"), "floor": _plain("Floor"),
    "minimum": _plain("Min"), "maximum": _plain("Max"), "largest": _plain("Max"), "rsqrt": _inverse_root,
    "inverse_root": _inverse_root, "sign": _sign, "log1p": _log1p, "expm1": _expm1, "select": _select,
    **{op.lower(): _of_float32(op) for op in FLOAT32_ALONE},
    "lt": _compared("Less"), "le": _compared("LessOrEqual"), "gt": _compared("Greater"), "ge": _compared("GreaterOrEqual"),
    "eq": _compared("Equal"), "ne": lambda o, a, b: o.make("Not", _compared("Equal")(o, a, b), boolean=True),
    "and": _logical("And"), "or": _logical("Or"), "not": _logical("Not"), "detach": lambda o, a: a,
}  # fmt: skip
