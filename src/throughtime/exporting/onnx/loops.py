"""Whole sequences by ONNX's Scan, whose body is one step of the cell; what needs no state is done before it and after it.

Shapes: T time, B batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import GraphProto, TensorProto, ValueInfoProto, helper

from throughtime.exporting.onnx.nodes import Array, Nodes
from throughtime.exporting.onnx.operations import OnnxOperations, Value
from throughtime.exporting.stack import Step
from throughtime.scanning.nodes import ordered
from throughtime.scanning.program import Program

ACTIVE = ("active", 0)  # among what is scanned: whether a sequence has got this step


@dataclass(frozen=True)
class Constants:
    """The constants of a step as arrays: leaves "v" and what products name; all of one type of number."""

    vectors: list[Array]
    matrices: list[Array]
    dtype: Any

    @classmethod
    def of(cls, step: Step) -> Constants:
        """Those of a step."""
        dtype = np.dtype(str(step.program.captured.constants.dtype).removeprefix("torch."))
        return cls([v.numpy() for v in step.vectors], [m.numpy() for m in step.matrices], dtype)

    def operations(self, nodes: Nodes, rows: dict[tuple[str, int], Value], like: str, axes: int) -> OnnxOperations:
        """Operations on these constants, and on leaves that have a row for each sequence."""

        def leaf(kind: str, index: int) -> Value:
            if kind != "v":
                return rows[kind, index]
            vector = self.vectors[index]
            return Value(nodes.constant(vector), len(vector), rows=False)

        return OnnxOperations(nodes, leaf, self.matrices, like, axes, self.dtype)


def scan_nodes(
    nodes: Nodes, step: Step, inputs: Sequence[str], states: Sequence[str], active: str | None, *, reverse: bool
) -> tuple[str, list[str]]:
    """A step through time, as nodes.

    Args: step: hoisted. inputs: each [T, B, n]; states: each [B, n]; active: bool [T, B, 1], whether a sequence has got a step t;
        past its end its state stands still, and outputs are 0.
    Returns: the output [T, B, n], and the final states.
    """
    program, constants = step.program, Constants.of(step)
    arrays = _before(nodes, program, constants, inputs)
    read = {n.attribute[:2] for n in program.forward.nodes if n.op == "leaf"}
    scanned = {key: value for key, value in arrays.items() if key in read}
    if active is not None:
        scanned[ACTIVE] = Value(active, 1, rows=True, boolean=True)
    if not scanned:  # a step that reads no input still is taken as often as there are inputs
        scanned["x", 0] = Value(inputs[0], program.captured.input_widths[0], rows=True)
    written = {("n", i): w for i, w in enumerate(program.state_widths)}
    written |= {("o", i): w for i, w in enumerate(program.extra_widths)}
    wanted = {n.attribute[:2] for n in ordered(program.outputs[0]) if n.op == "leaf"}
    shown = [key for key in written if key in wanted]
    results = nodes.several(
        "Scan",
        len(states) + len(shown),
        *states,
        *(value.name for value in scanned.values()),
        body=_body(Nodes(f"{nodes.prefix}body{len(nodes.nodes)}_"), program, constants, scanned, shown),
        num_scan_inputs=len(scanned),
        scan_input_directions=[int(reverse)] * len(scanned),
        **({"scan_output_directions": [int(reverse)] * len(shown)} if shown else {}),
    )
    finals, stacked = results[: len(states)], results[len(states) :]
    rows = arrays | {key: Value(name, written[key], rows=True) for key, name in zip(shown, stacked, strict=True)}
    (output,) = constants.operations(nodes, rows, inputs[0], 2).rows(program.graph, [program.outputs[0]])
    if active is None:
        return output.name, finals
    return nodes.add("Where", active, output.name, nodes.constant(np.zeros(1, constants.dtype))), finals


def _before(
    nodes: Nodes, program: Program, constants: Constants, inputs: Sequence[str]
) -> dict[tuple[str, int], Value]:
    """What is worked out before the loop, [T, B, n]: leaves "a" and "u"."""
    given = {
        ("x", i): Value(name, width, rows=True)
        for i, (name, width) in enumerate(zip(inputs, program.captured.input_widths, strict=True))
    }
    operations = constants.operations(nodes, given, inputs[0], 2)
    arrays = operations.rows(program.graph, [(node,) for node in program.arrays])
    made = {("a", i): value for i, value in enumerate(arrays)}
    for i, h in enumerate(program.hoisted):
        bias = None if h.bias is None else operations.whole("v", h.bias)
        made["u", i] = operations.product([arrays[h.array]], h.weights, bias)
    return made


def _body(
    nodes: Nodes,
    program: Program,
    constants: Constants,
    scanned: dict[tuple[str, int], Value],
    shown: list[tuple[str, int]],
) -> GraphProto:
    """One step: states, and a row of all that is scanned -> new states, and what is shown of it."""
    types = {True: TensorProto.BOOL, False: helper.np_dtype_to_tensor_dtype(constants.dtype)}

    def tensor(name: str, width: int, boolean: bool = False) -> ValueInfoProto:
        return helper.make_tensor_value_info(nodes.prefix + name, types[boolean], ["B", width])

    given = [tensor(f"state{i}", width) for i, width in enumerate(program.state_widths)]
    given += [tensor(f"{kind}{i}", v.width, v.boolean) for (kind, i), v in scanned.items()]
    keys = [*((("s", i)) for i in range(len(program.states))), *scanned]
    rows = {
        key: Value(info.name, info.type.tensor_type.shape.dim[1].dim_value, rows=True)
        for key, info in zip(keys, given, strict=True)
    }
    made = constants.operations(nodes, rows, given[0].name, 1).rows(program.graph, [*program.states, *program.extras])
    news, extras = made[: len(program.states)], made[len(program.states) :]
    finals = [v.name for v in news]
    if ACTIVE in scanned:
        finals = [nodes.add("Where", rows[ACTIVE].name, v.name, s.name) for v, s in zip(news, given, strict=False)]
    values = {("n", i): v for i, v in enumerate(news)} | {("o", i): v for i, v in enumerate(extras)}
    results = [
        *(
            (tensor(f"new{i}", width), name)
            for i, (width, name) in enumerate(zip(program.state_widths, finals, strict=True))
        ),
        *((tensor(f"{kind}{i}_out", values[kind, i].width), values[kind, i].name) for kind, i in shown),
    ]
    for info, name in results:
        nodes.named(name, info.name)
    return nodes.graph("step", given, [info for info, _ in results])
