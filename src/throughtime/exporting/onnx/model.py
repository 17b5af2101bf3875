"""A stack as ONNX: one step, and whole sequences.

Shapes: T time, B batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto, checker, helper

from throughtime.errors import UserError
from throughtime.exporting.interface import Interface, Named, interface_of
from throughtime.exporting.onnx.loops import Constants, scan_nodes
from throughtime.exporting.onnx.nodes import Nodes
from throughtime.exporting.onnx.operations import Value
from throughtime.exporting.onnx.recognition import recognised
from throughtime.exporting.onnx.standard import standard
from throughtime.exporting.stack import Direction, Stack
from throughtime.scanning.call import leaves, tensors_of

OPSET = 18  # that in which reductions take their axes as an input, for what is to come
IR_VERSION = 8  # as old as goes with that opset
STANDARD = ("LSTM", "GRU", "RNN")


def step_model(stack: Stack) -> ModelProto:
    """One step of a stack: `x` [B, ...] and the states -> `y` [B, ...], and the states after it."""
    names, nodes = interface_of(stack), Nodes()
    _check_types(names)
    x, finals = [n.name for n in names.inputs], list[str]()
    left = iter(names.states)
    for layer in stack.layers:
        (direction,) = layer.directions
        states = [next(left) for _ in tensors_of(direction.state)]
        output, new = step_nodes(nodes, direction, x, [s.name for s in states])
        finals += new
        x = [nodes.add("Add", output, x[0]) if layer.residual else output]
    return _model(nodes, names, x[0], finals, ["B"], f"One step of {stack.name}", [])


def sequence_model(stack: Stack, *, lengths: bool = False, allowed: Sequence[str] = STANDARD) -> ModelProto:
    """A stack through time: `x` [T, B, ...], the states and perhaps `lengths` -> `y` [T, B, ...], and the states at the end.

    allowed: the operators that may stand for a loop where a step is that of one.
    """
    names, nodes = interface_of(stack), Nodes()
    _check_types(names)
    output, finals = sequence_nodes(
        nodes,
        stack,
        [n.name for n in names.inputs],
        [n.name for n in names.states],
        "lengths" if lengths else None,
        allowed,
    )
    given = [helper.make_tensor_value_info("lengths", TensorProto.INT64, ["B"])] if lengths else []
    return _model(nodes, names, output, finals, ["T", "B"], f"{stack.name} through time", given)


def step_nodes(
    nodes: Nodes, direction: Direction, inputs: Sequence[str], states: Sequence[str]
) -> tuple[str, list[str]]:
    """One step of a cell. inputs, states: [B, ...], of the cell's own shapes. Returns: the output and the new states, likewise."""
    step = direction.step()
    program, constants = step.program, Constants.of(step)
    flat = [
        _flat(nodes, x, t.dim(), w, 1)
        for x, t, w in zip(inputs, leaves(direction.inputs), program.captured.input_widths, strict=True)
    ]
    rows = {("a", i): Value(flat[n.attribute[1]], n.width, rows=True) for i, n in enumerate(program.arrays)}
    for i, (name, tensor) in enumerate(zip(states, tensors_of(direction.state), strict=True)):
        width = program.state_widths[i]
        rows["s", i] = Value(_flat(nodes, name, tensor.dim(), width, 1), width, rows=True)
    made = constants.operations(nodes, rows, rows["s", 0].name, 1).rows(
        program.graph, [*program.states, *program.extras]
    )
    shapes = [*program.captured.state_shapes, *program.captured.shapes]
    *news, output = [_shaped(nodes, v.name, shape, 1) for v, shape in zip(made, shapes, strict=True)]
    return output, news


def sequence_nodes(
    nodes: Nodes,
    stack: Stack,
    inputs: Sequence[str],
    states: Sequence[str],
    lengths: str | None = None,
    allowed: Sequence[str] = STANDARD,
) -> tuple[str, list[str]]:
    """A stack through time, as nodes of a graph.

    Args: inputs: each [T, B, ...]; states: each [B, ...], in the order of the stack's; lengths: int64 [B], or None; allowed: as in
        `sequence_model`.
    Returns: the output [T, B, ...], 0 past a sequence's length, and the states after each sequence's last step.
    """
    left, finals, x = iter(states), list[str](), list(inputs)
    active = None if lengths is None else _active(nodes, x[0], lengths)
    for layer in stack.layers:
        outputs = []
        for direction in layer.directions:
            given = [next(left) for _ in tensors_of(direction.state)]
            known = recognised(direction.step())
            if known is not None and known.operator in allowed:
                read, inputs_ = known.input, leaves(direction.inputs)
                flat = _flat(nodes, x[read], inputs_[read].dim() + 1, known.gates[0].input.shape[1], 2)
                output, new = standard(nodes, known, flat, given, lengths, reverse=direction.reverse)
            else:
                output, new = _loop(nodes, direction, x, given, active)
            outputs.append(output)
            finals += new
        output = outputs[0] if len(outputs) == 1 else nodes.add("Concat", *outputs, axis=-1)
        x = [nodes.add("Add", output, x[0]) if layer.residual else output]
    return x[0], finals


def operators(model: ModelProto) -> list[str]:
    """What goes through time in a model: LSTM, GRU, RNN or Scan, in the order of the cells."""
    return [node.op_type for node in model.graph.node if node.op_type in (*STANDARD, "Scan")]


def _loop(
    nodes: Nodes, direction: Direction, inputs: Sequence[str], states: Sequence[str], active: str | None
) -> tuple[str, list[str]]:
    step = direction.step(hoist=True)
    captured = step.program.captured
    xs = zip(inputs, leaves(direction.inputs), captured.input_widths, strict=True)
    ss = zip(states, tensors_of(direction.state), step.program.state_widths, strict=True)
    output, finals = scan_nodes(
        nodes,
        step,
        [_flat(nodes, name, tensor.dim() + 1, width, 2) for name, tensor, width in xs],
        [_flat(nodes, name, tensor.dim(), width, 1) for name, tensor, width in ss],
        active,
        reverse=direction.reverse,
    )
    shaped = [_shaped(nodes, f, shape, 1) for f, shape in zip(finals, captured.state_shapes, strict=True)]
    return _shaped(nodes, output, captured.shapes[0], 2), shaped


def _flat(nodes: Nodes, name: str, rank: int, width: int, axes: int) -> str:
    """[..., n, m] as [..., n · m], behind so many axes."""
    return name if rank == axes + 1 else nodes.add("Reshape", name, nodes.whole(*[0] * axes, width))


def _shaped(nodes: Nodes, name: str, shape: Sequence[int], axes: int) -> str:
    """The other way round."""
    return name if len(shape) == 1 else nodes.add("Reshape", name, nodes.whole(*[0] * axes, *shape))


def _active(nodes: Nodes, x: str, lengths: str) -> str:
    """Whether a sequence has got a step: bool [T, B, 1]."""
    n = nodes
    count = n.add("Squeeze", n.add("Shape", x, start=0, end=1), n.whole(0))
    zero, one = (n.constant(np.array(value, np.int64)) for value in (0, 1))
    steps = n.add("Unsqueeze", n.add("Range", zero, count, one), n.whole(1))
    return n.add("Unsqueeze", n.add("Less", steps, lengths), n.whole(2))


def _check_types(names: Interface) -> None:
    for named in (*names.inputs, *names.states):
        if named.dtype not in ("float32", "float64"):
            raise UserError(f"{named.name} is {named.dtype}: what is exported to onnx is of float32 or float64")


def _model(
    nodes: Nodes, names: Interface, output: str, finals: Sequence[str], lead: Sequence[str], said: str,
    more: Sequence[ValueInfoProto],
) -> ModelProto:  # fmt: skip
    import throughtime

    def info(named: Named, axes: Sequence[str]) -> ValueInfoProto:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(named.dtype))
        made = helper.make_tensor_value_info(named.name, kind, [*axes, *named.shape])
        made.doc_string = named.meaning
        return made

    for value, named in zip([output, *finals], [names.output, *names.finals], strict=True):
        nodes.named(value, named.name)
    graph = nodes.graph(
        "throughtime",
        [*(info(n, lead) for n in names.inputs), *(info(n, ["B"]) for n in names.states), *more],
        [info(names.output, lead), *(info(n, ["B"]) for n in names.finals)],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="throughtime",
        producer_version=throughtime.__version__,
        doc_string=said,
    )
    checker.check_model(model, full_check=True)
    return model
