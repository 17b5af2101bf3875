"""What a step is lowered with: the graph, the constants of the cell, and arithmetic on symbols."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from throughtime.scanning import symbols
from throughtime.scanning.evaluate import TorchOperations
from throughtime.scanning.nodes import CONSTANT, STATE, Graph, Node, Row, width_of
from throughtime.scanning.symbols import Symbol, Unsupported

RULES: dict[str, Callable[..., Any]] = {}


def rule(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as what is done for PyTorch's operations of these names."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            RULES[name] = function
        return function

    return add


class Constant:
    """A tensor that hangs on nothing but the cell: number `index` of the program's constants."""

    def __init__(self, index: int, shape: Sequence[int], dtype: torch.dtype) -> None:
        self.index, self.shape, self.dtype = index, tuple(shape), dtype


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
        bias_leaf: Node | None = None
        if bias is not None:
            flat = self.constants.vector(bias.index, list(range(len(bias.shape))))
            if math.prod(bias.shape) != width:
                raise Unsupported("a bias that is not of the width of the product")
            bias_leaf = graph.leaf("v", flat, width)
        for _, nodes, offset in sorted(parts, key=lambda p: p[0]):  # what needs no state first: it can take the bias
            part = weight
            if len(parts) > 1:
                rows = width_of(nodes)
                text = f"[{offset}:{offset + rows}]"
                part = self.constants.derived(weight, text, lambda w, o=offset, r=rows: w.narrow(0, o, r))
            made, bias_leaf = (self._product_of_part(tuple(nodes), part.index, width, bias_leaf),), None
            total = made if total is None else symbols.over_pieces(graph, "add", [total, made], width)
        assert total is not None
        return total

    def _product_of_part(self, row: Row, weight: int, width: int, bias: Node | None) -> Node:
        """A product of what needs the state, what needs none or what is constant, and a constant tensor, by its number."""
        if all(node.flags == CONSTANT for node in row):
            made = self._constant_product(row, weight, width)
        else:
            made = self.graph.product(row, (self.constants.matrix(weight),), width)
            if bias is not None and not row[0].flags & STATE:
                return self.graph.node("affine", (*made.args, bias), width, made.attribute)
        return made if bias is None else self.graph.apply("add", made, bias)

    def _constant_product(self, row: Row, weight: int, width: int) -> Node:
        """A product of what is the same at every step and in every sequence: a constant row, worked out before the loop."""
        vectors, dtype = list(self.constants.vectors), self.constants.dtype

        def make(values: list[Any]) -> Any:
            like = values[weight]

            def leaf(kind: str, i: int) -> Any:
                index, order = vectors[i]
                return values[index].permute(order).reshape(-1).to(dtype)

            return TorchOperations(leaf, [], like).rows([row])[0] @ like

        made = self.constants.recipe(make, f"{width} sums over a constant row @ #{weight}", (width,), dtype)
        return self.graph.leaf("v", self.constants.vector(made.index, [0]), width)
