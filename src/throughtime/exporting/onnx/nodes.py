"""A graph of ONNX nodes as it is written: nodes one after the other, and the constants that they read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

Array = np.ndarray[Any, np.dtype[Any]]


class Nodes:
    """Nodes and initializers, each under a name of its own. prefix: of all names, for a graph within another."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}

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

    def named(self, value: str, name: str) -> str:
        """A value under a name that is given, as outputs of graphs need."""
        self.nodes.append(helper.make_node("Identity", [value], [name], name=name))
        return name

    def constant(self, value: Array) -> str:
        """A constant, held once."""
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._constants:
            name = self._constants[key] = f"{self.prefix}constant{len(self.initializers)}"
            self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name))
        return self._constants[key]

    def whole(self, *numbers: int) -> str:
        """Whole numbers as a constant: a shape, axes, where a slice begins."""
        return self.constant(np.array(numbers, np.int64))

    def graph(self, name: str, inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto]) -> GraphProto:
        """What has been written, as a graph."""
        return helper.make_graph(self.nodes, name, inputs, outputs, self.initializers)
