"""A graph of ONNX nodes as it is written: nodes one after the other, and the constants that they read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class _Pieces:
    """Pieces of a value, by offset and width. place: before which node they are cut. whole: how wide the value is."""

    place: int
    whole: int
    names: dict[tuple[int, int], str]


class Nodes:
    """Nodes and initializers, each under a name of its own. prefix: of all names, for a graph within another."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.held: dict[str, Array] = {}  # the constants, by name
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._pieces: dict[str, _Pieces] = {}  # of values along their last axis

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """A node of one output. Returns: its name."""
        name = f"{self.prefix}{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def several(self, op: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        """A node of several outputs. inputs: an empty name is one that is left out. Returns: their names."""
        name = f"{self.prefix}{op.lower()}{len(self.nodes)}"
        names = [f"{name}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, name=name, **attributes))
        return names

    def piece(self, value: str, whole: int, offset: int, width: int) -> str:
        """A piece of a value along its last axis, which is `whole` wide. Pieces side by side become one node."""
        if value not in self._pieces:
            self._pieces[value] = _Pieces(len(self.nodes), whole, {})
        name = f"{value}_{offset}_{offset + width}"
        self._pieces[value].names[offset, width] = name
        return name

    def named(self, value: str, name: str) -> str:
        """A value under a name that is given, as outputs of graphs need."""
        self.nodes.append(helper.make_node("Identity", [value], [name], name=name))
        return name

    def constant(self, value: Array) -> str:
        """A constant, held once."""
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._constants:
            name = self._constants[key] = f"{self.prefix}constant{len(self.initializers)}"
            self.held[name] = value
            self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name))
        return self._constants[key]

    def whole(self, *numbers: int) -> str:
        """Whole numbers as a constant: a shape, axes, where a slice begins."""
        return self.constant(np.array(numbers, np.int64))

    def graph(self, name: str, inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto]) -> GraphProto:
        """What has been written, as a graph."""
        nodes = list(self.nodes)
        for value, pieces in sorted(self._pieces.items(), key=lambda item: item[1].place)[::-1]:
            nodes[pieces.place : pieces.place] = self._cut(value, pieces)
        return helper.make_graph(nodes, name, inputs, outputs, self.initializers)

    def _cut(self, value: str, pieces: _Pieces) -> list[NodeProto]:
        """A Split where pieces do not overlap, with names for what is wanted of nobody; else a Slice for each."""
        ends, at = list[tuple[str, int]](), 0
        for (offset, width), name in sorted(pieces.names.items()):
            if offset > at:
                ends.append((f"{value}_{at}_{offset}", offset - at))
            if offset < at or len(pieces.names) == 1:
                return [self._slice(value, o, w, n) for (o, w), n in pieces.names.items()]
            ends.append((name, width))
            at = offset + width
        if at < pieces.whole:
            ends.append((f"{value}_{at}_{pieces.whole}", pieces.whole - at))
        sizes = self.whole(*(size for _, size in ends))
        return [helper.make_node("Split", [value, sizes], [n for n, _ in ends], name=f"{value}_split", axis=-1)]

    def _slice(self, value: str, offset: int, width: int, name: str) -> NodeProto:
        ends = [self.whole(offset), self.whole(offset + width), self.whole(-1)]
        return helper.make_node("Slice", [value, *ends], [name], name=name)
