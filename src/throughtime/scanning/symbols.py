"""Tensors of a step as rows of nodes: which axis is the batch, which runs along the vectors, and which are written out.

A cell's tensor of shape [B, N], [B, G, N], [G, B, N] … becomes an array, over all axes but two, of rows: the axis `b` is the batch
(every sequence has its own row), the axis `l` lies along the row, and every other axis (`e`) is unrolled. So slicing, chunking,
stacking and reshaping cost nothing: they only choose among nodes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from throughtime.scanning.nodes import Graph, Node, Row, width_of

MOST_UNROLLED = 256  # rows that one tensor may be written out as


class Unsupported(Exception):
    """The engine cannot compile this; the message says what."""


@dataclass(frozen=True)
class Symbol:
    """A tensor of the step: its shape, a letter of `b l e` for each axis, and its rows over the `e` axes in their order."""

    shape: tuple[int, ...]
    axes: str
    rows: Any  # numpy array of Row

    def __post_init__(self) -> None:
        assert len(self.shape) == len(self.axes) and self.axes.count("l") <= 1 and self.axes.count("b") <= 1
        assert self.rows.shape == tuple(n for n, a in zip(self.shape, self.axes, strict=True) if a == "e")

    @property
    def boolean(self) -> bool:
        return bool(self.rows.size) and bool(self.rows.flat[0]) and self.rows.flat[0][0].boolean

    def extra(self, axis: int) -> int:
        """The axis of `rows` that an `e` axis is."""
        return self.axes[:axis].count("e")


def array_of(shape: Sequence[int], make: Callable[[tuple[int, ...]], Row]) -> Any:
    """An array of rows."""
    size = int(np.prod(shape, dtype=int)) if shape else 1
    if size > MOST_UNROLLED:
        raise Unsupported(f"a tensor of {size} separate rows (at most {MOST_UNROLLED})")
    rows = np.empty(tuple(shape), dtype=object)
    for index in np.ndindex(*shape):
        rows[index] = make(index)
    return rows


def mapped(function: Callable[[Row], Row], symbol: Symbol) -> Symbol:
    """A function of every row, which leaves their width."""
    return Symbol(symbol.shape, symbol.axes, array_of(symbol.rows.shape, lambda i: function(symbol.rows[i])))


def explode(graph: Graph, symbol: Symbol) -> Symbol:
    """The lane axis written out as an `e` axis, each entry a row of width 1."""
    if "l" not in symbol.axes:
        return symbol
    axis = symbol.axes.index("l")
    at = symbol.axes[:axis].count("e")
    shape = (*symbol.rows.shape[:at], symbol.shape[axis], *symbol.rows.shape[at:])
    return Symbol(
        symbol.shape,
        symbol.axes.replace("l", "e"),
        array_of(shape, lambda i: graph.piece(symbol.rows[i[:at] + i[at + 1 :]], i[at], 1)),
    )


def pointwise(graph: Graph, op: str, *symbols: Symbol) -> Symbol:
    """A pointwise op over broadcast tensors."""
    dims = max(len(s.shape) for s in symbols)
    padded = [
        Symbol((1,) * (dims - len(s.shape)) + s.shape, "e" * (dims - len(s.shape)) + s.axes, _padded(s, dims))
        for s in symbols
    ]
    for axis in range(dims):  # an axis that lies along the row in one and not in the other is written out
        kinds = {s.axes[axis] for s in padded if s.shape[axis] != 1}
        if len(kinds) > 1:
            if "b" in kinds:
                raise Unsupported("a constant, or another axis, of the size of the batch")
            padded = [explode(graph, s) if s.axes[axis] == "l" else s for s in padded]
    while len(lanes := {s.axes.index("l") for s in padded if "l" in s.axes and s.shape[s.axes.index("l")] != 1}) > 1:
        sizes = {axis: max(s.shape[axis] for s in padded) for axis in lanes}
        least = min(lanes, key=lambda axis: sizes[axis])
        padded = [explode(graph, s) if "l" in s.axes and s.axes.index("l") == least else s for s in padded]
    ones = [s.axes.index("l") for s in padded if "l" in s.axes]  # lanes of size 1, where there is no longer one
    lane = lanes.pop() if lanes else next((a for a in ones if all(s.shape[a] == 1 for s in padded)), None)
    # a lane of size 1 elsewhere is just an axis
    padded = [explode(graph, s) if "l" in s.axes and s.axes.index("l") != lane else s for s in padded]
    shape = tuple(max((s.shape[a] for s in padded), key=lambda n: (n != 1, n)) for a in range(dims))
    axes = ""
    for axis in range(dims):
        kinds = {s.axes[axis] for s in padded}
        axes += "l" if axis == lane else "b" if "b" in kinds else "e"
    extras = [axis for axis in range(dims) if axes[axis] == "e"]
    width = shape[lane] if lane is not None else 1

    def row_of(symbol: Symbol, index: tuple[int, ...]) -> Row:
        at = dict(zip(extras, index, strict=True))
        own = tuple(0 if symbol.shape[axis] == 1 else at[axis] for axis in range(dims) if symbol.axes[axis] == "e")
        row: Row = symbol.rows[own]
        return row

    made = array_of([shape[a] for a in extras], lambda i: over_pieces(graph, op, [row_of(s, i) for s in padded], width))
    return Symbol(shape, axes, made)


def _padded(symbol: Symbol, dims: int) -> Any:
    return symbol.rows.reshape((1,) * (dims - len(symbol.shape)) + symbol.rows.shape)


def over_pieces(graph: Graph, op: str, rows: Sequence[Row], width: int) -> Row:
    """A pointwise op over rows cut at each other's borders; a row of width 1 goes with every piece."""
    cuts = {0, width}
    for row in rows:
        if width_of(row) == 1 and width != 1:
            continue
        start = 0
        for node in row:
            start += node.width
            cuts.add(start)
    borders = sorted(cuts)
    out = []
    for low, high in itertools.pairwise(borders):
        args = [row[0] if width_of(row) == 1 and width != 1 else graph.piece(row, low, high - low)[0] for row in rows]
        if op == "pass":
            out.append(graph.expand(args[0], high - low))
        else:
            out.append(graph.expand(graph.apply(op, *args), high - low))
    return tuple(out)


def permuted(symbol: Symbol, order: Sequence[int]) -> Symbol:
    """A symbol whose axes stand in another order, as `Tensor.permute` counts them."""
    order = [o % len(symbol.shape) for o in order]
    extras = [o for o in order if symbol.axes[o] == "e"]
    return Symbol(
        tuple(symbol.shape[o] for o in order),
        "".join(symbol.axes[o] for o in order),
        symbol.rows.transpose([symbol.extra(o) for o in extras]),
    )


def inserted(symbol: Symbol, axis: int) -> Symbol:
    """Another axis of size 1."""
    axis %= len(symbol.shape) + 1
    shape = (*symbol.shape[:axis], 1, *symbol.shape[axis:])
    axes = symbol.axes[:axis] + "e" + symbol.axes[axis:]
    return Symbol(shape, axes, np.expand_dims(symbol.rows, axes[:axis].count("e")))


def removed(graph: Graph, symbol: Symbol, axis: int) -> Symbol:
    """Without an axis of size 1."""
    axis %= len(symbol.shape)
    if symbol.shape[axis] != 1 or symbol.axes[axis] == "b":
        return symbol
    if symbol.axes[axis] == "l":
        symbol = explode(graph, symbol)
    return Symbol(
        symbol.shape[:axis] + symbol.shape[axis + 1 :],
        symbol.axes[:axis] + symbol.axes[axis + 1 :],
        symbol.rows.squeeze(symbol.extra(axis)),
    )


def narrowed(graph: Graph, symbol: Symbol, axis: int, start: int, stop: int, step: int = 1) -> Symbol:
    """A slice along one axis."""
    axis %= len(symbol.shape)
    size = symbol.shape[axis]
    start, stop, step = slice(start, stop, step).indices(size)
    count = len(range(start, stop, step))
    if count == size and step == 1:
        return symbol
    if symbol.axes[axis] == "b":
        raise Unsupported("a slice of the batch")
    shape = (*symbol.shape[:axis], count, *symbol.shape[axis + 1 :])
    if symbol.axes[axis] == "e":
        index: list[Any] = [slice(None)] * symbol.rows.ndim
        index[symbol.extra(axis)] = slice(start, stop, step)
        return Symbol(shape, symbol.axes, symbol.rows[tuple(index)])
    if step == 1:
        rows = array_of(symbol.rows.shape, lambda i: graph.piece(symbol.rows[i], start, count))
    else:
        if count > MOST_UNROLLED:
            raise Unsupported(f"a slice with a step that takes {count} entries (at most {MOST_UNROLLED})")
        rows = array_of(
            symbol.rows.shape,
            lambda i: sum((graph.piece(symbol.rows[i], j, 1) for j in range(start, stop, step)), ()),
        )
    return Symbol(shape, symbol.axes, rows)


def chosen(graph: Graph, symbol: Symbol, axis: int, at: int) -> Symbol:
    """One entry along an axis, which goes."""
    axis %= len(symbol.shape)
    at %= symbol.shape[axis]
    return removed(graph, narrowed(graph, symbol, axis, at, at + 1), axis)


def joined(graph: Graph, symbols: Sequence[Symbol], axis: int) -> Symbol:
    """Tensors side by side along an axis."""
    axis %= len(symbols[0].shape)
    symbols = [s for s in symbols if s.shape[axis]] or [symbols[0]]
    if any("l" in s.axes and s.axes.index("l") == axis for s in symbols):  # one number beside a row is a row of one
        symbols = [
            Symbol(s.shape, s.axes[:axis] + "l" + s.axes[axis + 1 :], s.rows.squeeze(s.extra(axis)))
            if "l" not in s.axes and s.axes[axis] == "e" and s.shape[axis] == 1
            else s
            for s in symbols
        ]
    lanes = [s.axes.index("l") if "l" in s.axes else None for s in symbols]
    if any(lane != lanes[0] for lane in lanes):
        symbols = [explode(graph, s) for s in symbols]
    if any(s.axes != symbols[0].axes for s in symbols) or symbols[0].axes[axis] == "b":
        raise Unsupported("cat of tensors whose batch lies on different axes, or along the batch")
    shape = list(symbols[0].shape)
    shape[axis] = sum(s.shape[axis] for s in symbols)
    if symbols[0].axes[axis] == "l":
        rows = array_of(symbols[0].rows.shape, lambda i: sum((s.rows[i] for s in symbols), ()))
    else:
        rows = np.concatenate([s.rows for s in symbols], symbols[0].extra(axis))
    return Symbol(tuple(shape), symbols[0].axes, rows)


def expanded(graph: Graph, symbol: Symbol, shape: Sequence[int], batch: int) -> Symbol:
    """Axes of size 1 repeated; new ones in front."""
    while len(symbol.shape) < len(shape):
        symbol = inserted(symbol, 0)
    for axis, (old, new) in enumerate(zip(symbol.shape, shape, strict=True)):
        if new in (-1, old):
            continue
        grown = (*symbol.shape[:axis], new, *symbol.shape[axis + 1 :])
        kind = symbol.axes[axis]
        if new == batch and "b" not in symbol.axes:
            symbol = explode(graph, symbol) if kind == "l" else symbol
            rows = symbol.rows.squeeze(symbol.extra(axis))
            symbol = Symbol(grown, symbol.axes[:axis] + "b" + symbol.axes[axis + 1 :], rows)
        elif kind == "l" or ("l" not in symbol.axes and kind == "e"):
            if kind == "e":
                symbol = Symbol(symbol.shape, symbol.axes[:axis] + "l" + symbol.axes[axis + 1 :],
                                symbol.rows.squeeze(symbol.extra(axis)))  # fmt: skip
            rows = array_of(symbol.rows.shape, lambda i, s=symbol, n=new: over_pieces(graph, "pass", [s.rows[i]], n))  # type: ignore[misc]
            symbol = Symbol(grown, symbol.axes, rows)
        else:
            symbol = Symbol(grown, symbol.axes, np.repeat(symbol.rows, new, symbol.extra(axis)))
    return symbol


def flat_row(graph: Graph, symbol: Symbol) -> Row:
    """All that a sequence has of a tensor [B, ...], as one row in the order of memory."""
    if symbol.axes[:1] != "b":
        raise Unsupported("a tensor whose first axis is not the batch")
    if "l" in symbol.axes and symbol.axes[-1] != "l":
        after = symbol.shape[symbol.axes.index("l") + 1 :]
        if any(n != 1 for n in after):
            symbol = explode(graph, symbol)
    row: Row = sum((symbol.rows[i] for i in np.ndindex(*symbol.rows.shape)), ())
    return row


def reshaped(graph: Graph, symbol: Symbol, shape: Sequence[int]) -> Symbol:
    """Another shape; axes up to the batch must stay."""
    if tuple(shape) == symbol.shape:
        return symbol
    at = symbol.axes.index("b") if "b" in symbol.axes else -1
    if tuple(shape[: at + 1]) != symbol.shape[: at + 1]:
        raise Unsupported(f"a reshape of {list(symbol.shape)} to {list(shape)}, which mixes the batch with other axes")
    rest = tuple(shape[at + 1 :])
    lead = symbol.shape[: max(at, 0)]
    if "l" in symbol.axes[: max(at, 0)]:
        symbol = explode(graph, symbol)
    axes = "e" * max(at, 0) + ("b" if at >= 0 else "")

    def features(index: tuple[int, ...]) -> Row:
        part = Symbol((1, *symbol.shape[at + 1 :]), "b" + symbol.axes[at + 1 :], symbol.rows[(*index, ...)])
        return flat_row(graph, part)

    if not rest:
        return Symbol(tuple(shape), axes, array_of(lead, features))
    inner = rest[:-1]

    def piece(index: tuple[int, ...]) -> Row:
        whole = features(index[: len(lead)])
        number = int(np.ravel_multi_index(index[len(lead) :], inner)) if inner else 0
        return graph.piece(whole, number * rest[-1], rest[-1])

    return Symbol(tuple(shape), axes + "e" * len(inner) + "l", array_of((*lead, *inner), piece))


def reduced(graph: Graph, op: str, symbol: Symbol, dims: Sequence[int], keep: bool) -> Symbol:
    """The sum or the maximum over some axes."""
    axes = sorted({d % len(symbol.shape) for d in dims})
    if any(symbol.axes[a] == "b" for a in axes):
        raise Unsupported("a sum over the batch")
    for axis in axes:
        if symbol.axes[axis] == "l":
            rows = array_of(symbol.rows.shape, lambda i, s=symbol: (graph.total(op, s.rows[i]),))  # type: ignore[misc]
            shape = (*symbol.shape[:axis], 1, *symbol.shape[axis + 1 :])
            symbol = Symbol(shape, symbol.axes, rows)
        else:
            at = symbol.extra(axis)
            parts = [np.take(symbol.rows, [j], at) for j in range(symbol.shape[axis])]
            if not parts:
                raise Unsupported("a sum over nothing")
            shape = (*symbol.shape[:axis], 1, *symbol.shape[axis + 1 :])
            pieces = [Symbol(shape, symbol.axes, part) for part in parts]
            if op == "max" and len(pieces) > 1:
                symbol = pointwise(graph, "largest", *pieces)
            else:
                symbol = pieces[0]
                for piece in pieces[1:]:
                    symbol = pointwise(graph, "add", symbol, piece)
    if not keep:
        for axis in reversed(axes):
            symbol = removed(graph, symbol, axis)
    return symbol


def whole(nodes: Sequence[Node]) -> Any:
    """A row as the only entry of an array."""
    rows = np.empty((), dtype=object)
    rows[()] = tuple(nodes)
    return rows
