"""The marks of a traced network as operators of ONNX: Scan, with the step of the cell as its body.

A sequence past its length stands still and gives zeros: each step is told which sequences are still running.

Shapes: T time, B batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from throughtime.cells.base import split_result, watching
from throughtime.errors import UserError
from throughtime.exporting.tracing import DOMAIN, MARK, Taken, trace
from throughtime.scanning.call import Call, Inputs, leaves, map_leaves, tensors_of
from throughtime.scanning.cell import name_of


def unmarked(model: Any, taken: Sequence[Taken]) -> None:
    """Put operators in the place of the marks of a ModelProto, in place."""
    nodes = []
    for node in model.graph.node:
        if node.domain == DOMAIN and node.op_type == MARK:
            (number,) = (a.i for a in node.attribute if a.name == "number")
            nodes += _Scan(taken[number].call, f"scan{number}.", node).nodes()
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    kept = [entry for entry in model.opset_import if entry.domain != DOMAIN]
    del model.opset_import[:]
    model.opset_import.extend(kept)


class _Step(nn.Module):
    """One step of a cell, of flat tensors: output, new states, records."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self.cell, self.record = call.cell, call.record
        self.pair = isinstance(call.state, tuple)
        self.inputs = map_leaves(lambda leaf: leaf[0], call.inputs)
        self.count = len(leaves(self.inputs))

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        left = iter(given)
        x: Inputs = map_leaves(lambda _: next(left), self.inputs)
        states = tuple(left)
        with watching() as seen:
            output, new = split_result(self.cell(x, states if self.pair else states[0]), states if self.pair else states[0])
        found = tensors_of(new)
        return (found[0] if output is None else output, *found, *(seen[name] for name in self.record))


class _Scan:
    """A Scan in the place of a mark. names: of everything that it makes begin with `prefix`."""

    def __init__(self, call: Call, prefix: str, mark: Any) -> None:
        from onnx import helper

        self.helper, self.call, self.prefix, self.mark = helper, call, prefix, mark
        count, states = len(leaves(call.inputs)), tensors_of(call.state)
        given = list(mark.input) + [""] * 2  # what stands last and is missing may be left out
        self.inputs, given = given[:count], given[count:]
        self.states, given = given[: len(states)], given[len(states) :]
        self.initial: list[str] = []
        if call.resets is not None:
            self.initial, given = given[: len(states)], given[len(states) :]
        self.lengths, self.resets = given[:2]

    def nodes(self) -> list[Any]:
        """What stands in the place of the mark."""
        outer, asked = self._asked()
        body = self._body([name for name, _, _ in asked])
        count, records = len(self.states), len(self.call.record)
        output, *rest = self.mark.output
        finals, seen = rest[:count], rest[count:]
        scan = self.helper.make_node(
            "Scan",
            [*self.states, *self.inputs, *(value for _, value, _ in asked)],
            [*finals, output, *seen],
            name=f"{self.prefix}scan",
            body=body,
            num_scan_inputs=len(self.inputs) + len(asked),
            scan_input_directions=[int(self.call.reverse)] * (len(self.inputs) + len(asked)),
            scan_output_directions=[int(self.call.reverse)] * (1 + records),
        )
        return [*outer, scan]

    def _asked(self) -> tuple[list[Any], list[tuple[str, str, Any]]]:
        """What each step is told beside its inputs: name in the body, value [T, B], and the nodes that make them."""
        p, make = self.prefix, self.helper.make_node
        asked, nodes = [], []
        if self.lengths:
            nodes = [
                make("Constant", [], [f"{p}zero"], value_int=0),
                make("Constant", [], [f"{p}one"], value_int=1),
                make("Constant", [], [f"{p}axis"], value_ints=[1]),
                make("Shape", [self.inputs[0]], [f"{p}T1"], start=0, end=1),
                make("Squeeze", [f"{p}T1"], [f"{p}T"]),
                make("Range", [f"{p}zero", f"{p}T", f"{p}one"], [f"{p}t"]),
                make("Unsqueeze", [f"{p}t", f"{p}axis"], [f"{p}t1"]),
                make("Less", [f"{p}t1", self.lengths], [f"{p}running_TB"]),
            ]
            asked.append((f"{p}running", f"{p}running_TB", None))
        if self.call.resets is not None:
            asked.append((f"{p}reset", self.resets, None))
        return nodes, asked

    def _body(self, asked: Sequence[str]) -> Any:
        """The graph of a step: states, then what it is told, in; new states, then output and records, out."""
        from onnx import TensorProto, compose

        helper, p, call = self.helper, self.prefix, self.call
        step = _Step(call).eval()
        example = [leaf[0] for leaf in leaves(call.inputs)] + list(tensors_of(call.state))
        axes = [("B", *t.shape[1:]) for t in example]
        try:
            model, inner = trace(step, step.forward, example, axes)
        except UserError as error:
            raise UserError(f"{name_of(call.cell)} cannot be exported: {error}") from error
        assert not inner, "a step runs no scan"
        graph = compose.add_prefix_graph(model.graph, p)
        given, found = list(graph.input), [value.name for value in graph.output]
        x, states = given[: step.count], given[step.count :]
        nodes, told = [], [helper.make_tensor_value_info(name, TensorProto.BOOL, ["B"]) for name in asked]
        before = [value.name for value in states]
        if call.resets is not None:
            outside = [f"{p}given_{i}" for i in range(len(states))]
            before = outside
            for i, (value, first) in enumerate(zip(states, self.initial, strict=True)):
                nodes += self._where(f"{p}reset", first, outside[i], value.name, tensors_of(call.state)[i].dim())
                value.name = outside[i]
        nodes += list(graph.node)
        news, outputs = found[1 : 1 + len(states)], [found[0], *found[1 + len(states) :]]
        ends, outs = [f"{p}end_{i}" for i in range(len(news))], [f"{p}out_{i}" for i in range(len(outputs))]
        kinds = [v.type for v in graph.output]
        ranks = [len(kind.tensor_type.shape.dim) for kind in kinds]
        running = bool(self.lengths)
        if running:
            nodes.append(helper.make_node("Constant", [], [f"{p}nothing"], value_float=0.0))
        for i, (new, end) in enumerate(zip(news, ends, strict=True)):
            nodes += self._where(f"{p}running", new, before[i], end, ranks[1 + i]) if running else self._same(new, end)
        for i, (value, out) in enumerate(zip(outputs, outs, strict=True)):
            rank = ranks[0 if not i else len(states) + i]
            nodes += self._where(f"{p}running", value, f"{p}nothing", out, rank) if running else self._same(value, out)
        made = [helper.make_value_info(end, kinds[1 + i]) for i, end in enumerate(ends)]
        made += [helper.make_value_info(out, kinds[0 if not i else len(states) + i]) for i, out in enumerate(outs)]
        return helper.make_graph(nodes, f"{p}step", [*states, *x, *told], made, initializer=list(graph.initializer))

    def _same(self, value: str, name: str) -> list[Any]:
        return [self.helper.make_node("Identity", [value], [name])]

    def _where(self, rows: str, value: str, other: str, name: str, rank: int) -> list[Any]:
        """`value` in the rows that are true, `other` in the rest."""
        make, axes = self.helper.make_node, f"{name}.axes"
        return [
            make("Constant", [], [axes], value_ints=list(range(1, rank))),
            make("Unsqueeze", [rows, axes], [f"{name}.rows"]),
            make("Where", [f"{name}.rows", value, other], [name]),
        ]


