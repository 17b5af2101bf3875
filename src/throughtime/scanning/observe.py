"""What goes on inside every scan of a block of code: states, watched values, and gradients through time.

Shapes: T time, B batch, I input, N hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from throughtime.cells import State
from throughtime.cells.base import Cell, split_result, watching
from throughtime.scanning.call import Call, Inputs, Scanned, first_leaf, map_leaves, map_states, unwrapped

_observed: ContextVar[Observer | None] = ContextVar("throughtime_observed", default=None)
STATE = "state {}"  # the name under which each tensor of the state is recorded


@dataclass
class Observed:
    """One scan, as it was.

    cell: what stepped, out of its wrappers. inputs: [T, B, I]. first: the state before the first step. states: every tensor of
    the state after each step, [T, B, N]; past a sequence's length zeros. records: what the cell watches, [T, B, ...].
    nudges: zeros added to `states`, where gradients are observed: after `backward`, their `grad` is ∂loss/∂state, each tensor of it
    by itself, through all that came of it at this step's output and at later steps.
    """

    cell: nn.Module
    inputs: Tensor
    first: State
    outputs: Tensor
    states: tuple[Tensor, ...]
    records: dict[str, Tensor]
    nudges: tuple[Tensor, ...]
    lengths: Tensor | None
    reverse: bool

    @property
    def gradients(self) -> tuple[Tensor, ...]:
        """∂loss/∂state of every tensor of the state after each step, [T, B, N]. Raises: RuntimeError before a `backward`."""
        if not self.nudges:
            raise RuntimeError("no gradients were observed: write observing(gradients=True)")
        found = []
        for nudge in self.nudges:
            if nudge.grad is None:
                raise RuntimeError("there are no gradients yet: call backward() on what came of the scan")
            found.append(nudge.grad)
        return tuple(found)


@contextmanager
def observing(*, gradients: bool = False) -> Iterator[list[Observed]]:
    """Look into every scan while the block runs; the list fills in the order they run.

    >>> import torch, throughtime as tt
    >>> from throughtime.scanning.observe import observing
    >>> stack = tt.Recurrent(tt.cells.LSTM, 3, 5, num_layers=2)
    >>> with observing(gradients=True) as scans:
    ...     outputs, _ = stack(torch.randn(7, 2, 3))
    >>> outputs[-1].sum().backward()
    >>> len(scans), scans[0].states[1].shape, scans[0].records["forget"].shape
    (2, torch.Size([7, 2, 5]), torch.Size([7, 2, 5]))
    >>> scans[1].gradients[0].norm(dim=-1)[:, 0].argmax()
    tensor(6)

    It goes by the names a cell watches and by a wrapper that shows its state, on whatever backend can record: any cell will do.
    Every step is held in memory, whatever `checkpoint_every` a scan asks for.
    Args: gradients: observe ∂loss/∂state too (of losses made inside or after the block); there are gradients of inputs too then.
    """
    observer = Observer(gradients)
    token = _observed.set(observer)
    try:
        yield observer.scans
    finally:
        _observed.reset(token)


class Observer:
    """What a running `observing` block does with each scan."""

    def __init__(self, gradients: bool) -> None:
        self.gradients = gradients
        self.scans: list[Observed] = []

    @staticmethod
    def current() -> Observer | None:
        """The one that looks at the scans of this thread now; None where nobody does."""
        return _observed.get()

    def run(self, call: Call, run: Callable[[Call], Scanned]) -> Scanned:
        """The scan itself, and all that it shows."""
        states = call.state if isinstance(call.state, tuple) else (call.state,)
        nudges: tuple[Tensor, ...] = ()
        inputs: Inputs = call.inputs
        if self.gradients:
            inputs = map_leaves(_differentiable, inputs)
            call = replace(call, inputs=inputs)
            nudges = tuple(s.new_zeros(call.steps, *s.shape).requires_grad_() for s in states)
            inputs = (inputs, nudges)
        names = self._names(call)
        shown = tuple(STATE.format(i) for i in range(len(states)))
        step = _Shown(call.cell, nudged=self.gradients)
        found = run(replace(call, cell=step, inputs=inputs, record=(*names, *shown)))
        records = {name: found.records[name] for name in names}
        after = tuple(found.records[name] for name in shown)
        given, cell = first_leaf(call.inputs), unwrapped(call.cell)
        self.scans.append(
            Observed(cell, given, call.state, found.outputs, after, records, nudges, call.lengths, call.reverse)
        )
        return found._replace(records={name: records[name] for name in call.record})

    def _names(self, call: Call) -> tuple[str, ...]:
        """What the cell watches, in the order it does, learned from one step of it; and what this call wants to see."""
        if not call.steps:
            return call.record
        with torch.no_grad(), watching() as values:
            call.cell(map_leaves(lambda leaf: leaf[0], call.inputs), call.state)
        return tuple(dict.fromkeys((*values, *call.record)))


def _differentiable(leaf: Tensor) -> Tensor:
    """An input, of which there can be a gradient."""
    return leaf if leaf.requires_grad or not leaf.is_floating_point() else leaf.detach().requires_grad_()


class _Shown(nn.Module):
    """A cell that shows its state; `nudged`: something is added to it, given beside the input."""

    def __init__(self, cell: nn.Module, nudged: bool) -> None:
        super().__init__()
        self.cell, self.nudged = cell, nudged

    def forward(self, x: Any, state: State) -> Any:
        x, nudge = x if self.nudged else (x, None)
        output, new = split_result(self.cell(x, state), state)
        if nudge is not None:
            new = map_states(torch.add, new, nudge if isinstance(new, tuple) else nudge[0])
        for i, tensor in enumerate(new if isinstance(new, tuple) else (new,)):
            Cell.watch(STATE.format(i), tensor)
        return new if output is None else (output, new)
