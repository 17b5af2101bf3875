"""A scan by an engine: what is done before and after the loop over time, whatever the engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from throughtime.cells import State
from throughtime.scanning.call import Call, Scanned, leaves, tensors_of
from throughtime.scanning.constants import own_tensors
from throughtime.scanning.engine import Given, LoopEngine, Types
from throughtime.scanning.evaluate import TorchOperations
from throughtime.scanning.nodes import Row, ordered
from throughtime.scanning.operator import run_loop, without_gradient
from throughtime.scanning.order import Order
from throughtime.scanning.program import Wanted
from throughtime.scanning.programs import fault
from throughtime.scanning.symbols import Unsupported


def run(engine: LoopEngine, call: Call, types: Types | None = None) -> Scanned:
    """Run a cell by its compiled loop, as `scan` documents. types: in which what it gives is wanted, and comes as far as a loop can
    give it so. Raises: Unsupported where the loop cannot be compiled after all."""
    around = _Around(engine, call)
    given = around.given()
    if types is not None:
        given = given._replace(rounded=around.rounded(types))
    wanted = _wanted(given)
    refused, wanted = (
        wanted if engine.operands is torch.int8 else None,
        None if engine.operands is torch.int8 else wanted,
    )
    try:
        engine.prepare(wanted, given.batch, given.rounded)
    except Exception as error:
        raise Unsupported(fault(error)) from error
    states, extras, finals = run_loop(engine, given, wanted)
    if refused is not None:
        states, extras, finals = without_gradient(given.tensors, states, extras, finals)
    outputs = around.outputs({"n": states, "o": extras, "a": given.arrays, "s": given.state})
    ends = around.states(finals)
    new: State = tuple(ends) if isinstance(call.state, tuple) else ends[0]
    return Scanned(outputs[0], new, dict(zip(call.record, outputs[1:], strict=True)))


def _wanted(given: Given) -> Wanted | None:
    """The gradients that may be asked for, beside those of the state; None where none may be."""
    if not torch.is_grad_enabled():
        return None
    needs = [(kind, i) for kind, tensors in given.groups for i, t in enumerate(tensors) if t.requires_grad]
    return frozenset([need for need in needs if need[0] != "s"]) if needs else None


class _Around:
    """One call, around its loop. Sequences of several lengths run the longest first, and what is worked out around the loop is
    so on the rows of real steps alone."""

    def __init__(self, engine: LoopEngine, call: Call) -> None:
        self.engine, self.call, self.program = engine, call, engine.program
        self.steps, self.batch = call.steps, call.batch
        constants, widths = self.program.captured.constants, self.program.captured.input_widths
        own = call.found.get("own")
        self.own = list(own_tensors(call.cell).values()) if own is None else own
        self.vectors, self.weights = constants.made_of(self.own)
        self.inputs = [
            leaf if leaf.dim() == 3 else leaf.reshape(self.steps, self.batch, n)
            for leaf, n in zip(leaves(call.inputs), widths, strict=True)
        ]
        self.order = None
        if call.lengths is not None:
            self.order = Order.by_length(call.lengths, self.steps, engine.run, call.reverse)
        self.real: Tensor | None = None  # the rows of real steps, where there are others
        if self.order is not None:
            self.inputs = [self.order.in_time(i, zeros=True) for i in self.inputs]
            if self.program.made_before or None in self.program.whole_outputs:
                self.real = self.order.real

    def given(self) -> Given:
        """What the loop reads."""
        program, call, order = self.program, self.call, self.order
        state = [self._flat(s) for s in tensors_of(call.state)]
        initial = [self._flat(s) for s in tensors_of(call.initial)] if program.resets else []
        resets = call.resets
        if order is not None:
            state, initial = [order.rows(s) for s in state], [order.rows(s) for s in initial]
            resets = None if resets is None else order.selected(resets.unsqueeze(-1), 1, False).squeeze(-1)
        made = self._made_before(state[0]) if program.made_before else iter(())
        arrays = [
            self.inputs[n.attribute[1]] if n.op == "leaf" else self._spread(next(made), n.width) for n in program.arrays
        ]
        operands = program.operands
        return Given(
            arrays=[a.contiguous() if i in operands else _dense(a) for i, a in enumerate(arrays)],
            vectors=[v.contiguous() for v in self.vectors],
            matrices=self.weights,
            state=state,
            initial=initial,
            steps=self.steps,
            step=-1 if call.reverse and order is None else 1,
            resets=None if resets is None else resets.to(state[0].dtype),
            lengths=None if order is None else order.lengths,
            past=order.past if order is not None and order.lengths.is_cpu else None,
            own=self.own,
        )

    def _made_before(self, like: Tensor) -> Iterator[Tensor]:
        """The rows of the arrays that are made before the loop, of which no input is one."""
        rows = self._rows(lambda kind, i: self._part(self.inputs[i]) if kind == "x" else self.vectors[i], like)
        return iter(rows.rows(self.program.made_before))

    def _flat(self, state: Tensor) -> Tensor:
        return _dense(state if state.dim() == 2 else state.reshape(self.batch, math.prod(state.shape[1:])))

    def outputs(self, arrays: dict[str, Sequence[Tensor]]) -> list[Tensor]:
        """What the cell gives, [T, B, ...], of what the loop has written and read."""
        found = []
        program = self.program
        for row, whole, shape in zip(program.outputs, program.whole_outputs, program.captured.shapes, strict=True):
            value = self._after(row, arrays) if whole is None else arrays[whole[0]][whole[1]]
            if self.order is not None:
                value = self.order.inverse.in_time(value)
            found.append(value.reshape(self.steps, self.batch, *shape))
        return found

    def _after(self, row: Row, arrays: dict[str, Sequence[Tensor]]) -> Tensor:
        """A row that is worked out after the loop, [T, B, n]."""

        def leaf(kind: str, index: int) -> Tensor:
            if kind == "v":
                return self.vectors[index]
            return self._part(self.inputs[index] if kind == "x" else arrays[kind][index])

        (value,) = self._rows(leaf, arrays["s"][0]).rows([row])
        return self._spread(value, value.shape[-1])

    def rounded(self, types: Types) -> frozenset[int]:
        """The states that are wanted in bfloat16 alone, at all steps and the last."""
        program, half = self.program, torch.bfloat16
        (output, *ends), records = types
        asked = [output, *(records[name] for name in self.call.record)]
        found = {a[1] for a, t in zip(program.whole_outputs, asked, strict=True) if a and a[0] == "n" and t is half}
        others = {
            a[1] for a, t in zip(program.whole_outputs, asked, strict=True) if a and a[0] == "n" and t is not half
        }
        for row, whole in zip(program.outputs, program.whole_outputs, strict=True):
            if whole is None:
                others |= {n.attribute[1] for n in ordered(row) if n.op == "leaf" and n.attribute[0] == "n"}
        return frozenset(k for k in found - others if ends[k] is half)

    def states(self, finals: Sequence[Tensor]) -> list[Tensor]:
        """The final states, [B, ...]."""
        if self.order is not None:
            finals = [self.order.inverse.rows(f) for f in finals]
        shapes = self.program.captured.state_shapes
        return [
            f if len(shape) == 1 else f.reshape(self.batch, *shape) for f, shape in zip(finals, shapes, strict=True)
        ]

    def _rows(self, leaf: Callable[[str, int], Tensor], like: Tensor) -> TorchOperations:
        return TorchOperations(leaf, self.weights, like, self.engine.linear)

    def _part(self, source: Tensor) -> Tensor:
        """[T, B, n] as the rows of real steps."""
        whole = source.reshape(self.steps * self.batch, source.shape[-1])
        return whole if self.real is None else whole.index_select(0, self.real)

    def _spread(self, value: Tensor, width: int) -> Tensor:
        """Rows of real steps as [T, B, n], zeros between them."""
        value = value.expand(self.steps * self.batch if self.real is None else len(self.real), width)
        if self.real is not None:
            value = value.new_zeros(self.steps * self.batch, width).index_copy(0, self.real, value)
        return value.reshape(self.steps, self.batch, width)


def _dense(value: Tensor) -> Tensor:
    """Rows without gaps between their numbers."""
    return value if value.stride(-1) == 1 or value.shape[-1] == 1 else value.contiguous()
