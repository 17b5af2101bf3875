"""A network as a graph of ONNX, in which each scan is one mark.

The network runs once as it is, where every scan is written down; then PyTorch traces it with open sizes, and the n-th scan stands
in the graph as a node `throughtime.Scan` with that number, to be replaced.

Shapes: T time, B batch.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from throughtime.cells import State
from throughtime.errors import UserError
from throughtime.scanning import initial_state, reference
from throughtime.scanning.backends import run_call
from throughtime.scanning.call import Call, Inputs, Scanned, leaves, make_call, map_leaves, tensors_of
from throughtime.scanning.cell import as_cell, name_of
from throughtime.scanning.replaced import replacing

DOMAIN, MARK = "throughtime", "Scan"
OPSET = 18  # as `onnx.model` has it


@dataclass(frozen=True)
class Taken:
    """A scan that a network runs: what was asked, and the shape of a step's output, [B, ...] without B."""

    call: Call
    shape: list[int]


@torch.library.custom_op("throughtime::marked", mutates_args=())
def marked(
    number: int,
    inputs: list[Tensor],
    states: list[Tensor],
    lengths: Tensor | None,
    shape: list[int],
) -> list[Tensor]:
    """The place of a scan in what is traced: outputs, and final states."""
    raise NotImplementedError("a scan is marked where a network is traced, and run nowhere")


@marked.register_fake
def _(
    number: int,
    inputs: list[Tensor],
    states: list[Tensor],
    lengths: Tensor | None,
    shape: list[int],
) -> list[Tensor]:
    return [states[0].new_empty(*inputs[0].shape[:2], *shape), *(torch.empty_like(s) for s in states)]


class Traced(nn.Module):
    """A function of tensors, and the module whose weights it uses, as a module that PyTorch can trace."""

    def __init__(self, module: nn.Module, call: Callable[..., tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.module, self.call = module, call

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """What the function gives."""
        return self.call(*given)


def trace(
    module: nn.Module, call: Callable[..., tuple[Tensor, ...]], example: Sequence[Tensor], axes: Sequence[Sequence[Any]]
) -> tuple[Any, list[Taken]]:
    """A function of tensors as a ModelProto with marks, and what each mark stands for.

    axes: of each tensor; what is no number is free. Raises: UserError where PyTorch cannot trace it.
    """
    from torch.onnx import export

    taken: list[Taken] = []
    with torch.no_grad(), replacing(lambda *given, **asked: _write_down(taken, *given, **asked)):
        call(*example)
    number = iter(range(len(taken)))

    def mark(*given: Any, **asked: Any) -> Scanned:
        return _mark(taken, number, *given, **asked)

    free = tuple({i: Dim.DYNAMIC for i, axis in enumerate(of_one) if not isinstance(axis, int)} for of_one in axes)
    with torch.no_grad(), replacing(mark), quiet():
        try:
            program = torch.export.export(Traced(module, call), tuple(example), dynamic_shapes=(free,), strict=False)
            made = export(
                program, dynamo=True, verbose=False, opset_version=OPSET,
                custom_translation_table={torch.ops.throughtime.marked.default: _translated},
            )  # fmt: skip
        except Exception as error:
            raise UserError(f"PyTorch cannot trace it: {_first_cause(error)}") from error
    assert made is not None
    return made.model_proto, taken


def _first_cause(error: BaseException) -> str:
    """What an error began with, on one line: PyTorch's exporter wraps it in advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _write_down(taken: list[Taken], cell: Any, inputs: Inputs, state: State | None = None, **asked: Any) -> Scanned:
    """Run a scan as it is. One step alone is not written down: it is traced as what it does."""
    call = make_call(cell, inputs, state, **asked)
    found = run_call(call, "auto")
    if not _alone(inputs, call.lengths):
        if call.record or call.resets is not None:
            raise UserError(
                f"{name_of(call.cell)}: a scan that shows inner values, or puts its state back, is not exported"
            )
        taken.append(Taken(call, list(found.outputs.shape[2:])))
    return found


def _alone(inputs: Inputs, lengths: Any) -> bool:
    """Whether it is one step, whatever the sizes that are free."""
    steps = leaves(inputs)[0].shape[0]
    return isinstance(steps, int) and steps == 1 and lengths is None


def _mark(
    taken: list[Taken],
    number: Iterator[int],
    cell: Any,
    inputs: Inputs,
    state: State | None = None,
    *,
    initial: State | None,
    lengths: Any,
    reverse: bool,
    resets: Tensor | None,
    record: tuple[str, ...],
) -> Scanned:
    if _alone(inputs, lengths):
        return reference.run(make_call(cell, inputs, state, initial=initial, resets=resets, record=record))
    n = next(number)
    steps, batch = leaves(inputs)[0].shape[:2]
    if state is None:
        state = initial_state(as_cell(cell), batch) if initial is None else initial
    padded = _may_be_none(steps)
    if padded:
        inputs = map_leaves(_padded, inputs)
        lengths = torch.full((batch,), steps) if lengths is None else lengths
    output, *found = torch.ops.throughtime.marked(n, leaves(inputs), list(tensors_of(state)), lengths, taken[n].shape)
    return Scanned(output[:-1] if padded else output, tuple(found) if isinstance(state, tuple) else found[0], {})


def _may_be_none(steps: Any) -> bool:
    """Whether there may be no step at all, which onnxruntime's Scan does not run: the size is made of an axis of an input."""
    return isinstance(steps, torch.SymInt) and not steps.node.expr.is_symbol


def _padded(value: Tensor) -> Tensor:
    """With one more step, [T + 1, B, ...]."""
    return torch.cat([value, value.new_zeros(1, *value.shape[1:])])


def _translated(number: int, inputs: Any, states: Any, lengths: Any, shape: Any) -> Any:
    import onnx_ir
    from onnxscript import evaluator

    given = [*inputs, *states] if lengths is None else [*inputs, *states, lengths]
    node = onnx_ir.Node(
        DOMAIN, MARK, given, attributes=[onnx_ir.AttrInt64("number", number)],
        num_outputs=1 + len(states),
    )  # fmt: skip
    evaluator.default().nodes.append(node)  # type: ignore[attr-defined]  # the recorder of a translation
    return list(node.outputs)


@contextmanager
def quiet() -> Iterator[None]:
    """PyTorch's exporter tells of packages that are not needed, and of its own use of what is deprecated."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
