"""The marks of a traced network as operators of ONNX: LSTM, GRU, RNN, or Scan with one step as its body.

Where the engine can capture a step, its program is written, as of a cell that is exported by itself; the step of any other cell is
traced by PyTorch.

Shapes: T time, B batch.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, compose, helper
from torch import Tensor, nn

from throughtime.cells.base import split_result
from throughtime.errors import UserError
from throughtime.exporting.onnx.model import STANDARD, sequence_nodes
from throughtime.exporting.onnx.nodes import Nodes
from throughtime.exporting.onnx.quantised import QUANTISED
from throughtime.exporting.stack import Direction, Layer, Stack
from throughtime.exporting.tracing import DOMAIN, MARK, Taken, trace
from throughtime.scanning.call import Call, Inputs, leaves, map_leaves, map_states, tensors_of
from throughtime.scanning.cell import name_of


def unmarked(model: ModelProto, taken: Sequence[Taken], *, int8: bool = False) -> None:
    """Put operators in the place of the marks of a model, in place. taken: what the marks stand for, by their numbers. int8: those
    operators alone that can be put into eight bits.

    Raises: UserError where a cell cannot be exported.
    """
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        if node.domain == DOMAIN and node.op_type == MARK:
            (number,) = (a.i for a in node.attribute if a.name == "number")
            made = _operators(taken[number].call, node, f"scan{number}_", QUANTISED if int8 else STANDARD)
            graph = made.graph("scan", [], [])
            model.graph.node.extend(graph.node)
            model.graph.initializer.extend(graph.initializer)
        else:
            model.graph.node.append(node)
    kept = [entry for entry in model.opset_import if entry.domain != DOMAIN]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _operators(call: Call, mark: NodeProto, prefix: str, allowed: Sequence[str]) -> Nodes:
    """What stands in the place of a mark."""
    count, states, nodes = len(leaves(call.inputs)), len(tensors_of(call.state)), Nodes(prefix)
    lengths = "".join(mark.input[count + states :])
    # pieces of what is given are called by its name
    given = [nodes.add("Identity", name) for name in mark.input[: count + states]]
    try:
        output, finals = sequence_nodes(nodes, _stack_of(call), given[:count], given[count:], lengths or None, allowed)
    except UserError:  # which of its operations is none of the engine's
        return _traced(call, mark, prefix, lengths)
    for value, name in zip([output, *finals], mark.output, strict=True):
        nodes.named(value, name)
    return nodes


def _stack_of(call: Call) -> Stack:
    """The cell of a call as what is exported by itself."""
    inputs = map_leaves(lambda leaf: leaf[0, :1].detach(), call.inputs)
    direction = Direction(call.cell, inputs, map_states(lambda s: s[:1].detach(), call.state), call.reverse)
    return Stack(name_of(call.cell), (Layer((direction,)),))


class _Step(nn.Module):
    """One step of a cell, of flat tensors: inputs, then states; gives the output, and new states."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self.cell, self.like = call.cell, call.state
        self.inputs = map_leaves(lambda leaf: leaf[0], call.inputs)

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """The step."""
        left = iter(given)
        x: Inputs = map_leaves(lambda _: next(left), self.inputs)
        state = map_states(lambda _: next(left), self.like)
        output, new = split_result(self.cell(x, state), state)
        found = tensors_of(new)
        return (found[0] if output is None else output, *found)


def _traced(call: Call, mark: NodeProto, prefix: str, lengths: str) -> Nodes:
    """A Scan whose body PyTorch traces."""
    states = len(tensors_of(call.state))
    inputs = list(mark.input[: len(mark.input) - states - bool(lengths)])
    nodes = Nodes(prefix)
    scanned = [*inputs, _running(nodes, inputs[0], lengths)] if lengths else inputs
    output, *finals = mark.output
    nodes.nodes.append(
        helper.make_node(
            "Scan",
            [*mark.input[len(inputs) : len(inputs) + states], *scanned],
            [*finals, output],
            name=f"{prefix}scan",
            body=_body(call, f"{prefix}body_", bool(lengths)),
            num_scan_inputs=len(scanned),
            scan_input_directions=[int(call.reverse)] * len(scanned),
            scan_output_directions=[int(call.reverse)],
        )
    )
    return nodes


def _running(nodes: Nodes, x: str, lengths: str) -> str:
    """Whether a sequence has a step, bool [T, B]."""
    count = nodes.add("Squeeze", nodes.add("Shape", x, start=0, end=1))
    zero, one = (nodes.add("Constant", value_int=value) for value in (0, 1))
    steps = nodes.add("Unsqueeze", nodes.add("Range", zero, count, one), nodes.whole(1))
    return nodes.add("Less", steps, lengths)


def _body(call: Call, prefix: str, stops: bool) -> GraphProto:
    """The graph of a step: states, inputs, perhaps whether it is taken -> states, output."""
    step = _Step(call).eval()
    example = [*(leaf[0] for leaf in leaves(call.inputs)), *tensors_of(call.state)]
    try:
        model, inner = trace(step, step.forward, example, [("B", *t.shape[1:]) for t in example])
    except UserError as error:
        raise UserError(f"{name_of(call.cell)} cannot be exported: {error}") from error
    assert not inner, "a step runs no scan"
    graph = compose.add_prefix_graph(model.graph, prefix)
    states = len(tensors_of(call.state))
    x, before = graph.input[:-states], graph.input[-states:]
    output, *ends = graph.output
    found, nodes = [*ends, output], Nodes(f"{prefix}end_")
    nodes.nodes += graph.node
    nodes.initializers += graph.initializer
    given, results = [*before, *x], []
    if stops:
        given.append(helper.make_tensor_value_info(f"{prefix}running", TensorProto.BOOL, ["B"]))
    for i, value in enumerate(found):
        name = value.name
        if stops:
            behind = nodes.whole(*range(1, len(value.type.tensor_type.shape.dim)))
            stands = before[i].name if i < states else nodes.add("Constant", value_float=0.0)
            name = nodes.add("Where", nodes.add("Unsqueeze", f"{prefix}running", behind), name, stands)
        results.append(helper.make_value_info(nodes.named(name, f"{prefix}result{i}"), value.type))
    return nodes.graph("step", given, results)
