"""Many streams through one stack: their states in a table, any rows of it taken a step together."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from throughtime.cells import State
from throughtime.scanning.call import map_states, tensors_of
from throughtime.scanning.cpu.chain import Chain
from throughtime.scanning.cpu.stepping import Stepper
from throughtime.scanning.foreign import is_plain_memory

MOST = 1024  # rows that are stepped at once


class Steps(Protocol):
    """What has a stepper: `Recurrent`, and the layers that take torch.nn's place."""

    def stepper(self, batch: int = 1, *, weights: str | None = None) -> Stepper: ...


class Streams:
    """Steps any of many streams through a stack, each with a state of its own.

        h_r ← step(x_r, h_r)    for the rows r that are named, all others stand still

    A row's numbers are the same to the bit whichever rows are stepped beside it.

    >>> import torch, throughtime as tt
    >>> streams = tt.GRU(3, 5).streams(100)
    >>> streams.step([7, 42], torch.randn(2, 3)).shape
    torch.Size([2, 5])
    >>> state = streams.take(7)
    >>> streams.put(8, state)

    Made by `streams` of a layer. The weights are those of when it was made, or of the last `refresh`. No gradients pass
    through it. One Python thread at a time may use it.

    Args: stack: what has a stepper. slots: how many rows the table has; `grow` adds more. weights: as of `stepper`.
    Attributes: slots. width: I. width_out: N. backend: "cpu" or "reference" (a row after the other; `why_not` says why).
    Raises: ValueError where the stack cannot step, or there are no slots.
    """

    @torch.inference_mode(False)
    def __init__(self, stack: Steps, slots: int, weights: str | None = None) -> None:
        if slots < 1:
            raise ValueError(f"there must be at least 1 slot, got {slots}")
        # a cell may go another way for a batch of one (squeeze, an `if` on its size): all go the way of several
        self._most = min(max(slots, 2), MOST)
        self._stepper = stack.stepper(self._most, weights=weights)
        self.backend, self.why_not = self._stepper.backend, self._stepper.why_not
        if self.backend == "reference":
            self._stepper = stack.stepper(1, weights=weights)
        self.width, self.dtype = int(self._stepper.shape[-1]), self._stepper.dtype
        self._output = self._stepper(torch.zeros(self._stepper.shape, dtype=self.dtype)).shape[1:]
        self.width_out = int(self._output[-1])
        self._stepper.reset()
        self._first: list[State] = [map_states(lambda s: s[:1].clone(), s) for s in self._stepper.state]
        self._tables = [[t.expand(slots, *t.shape[1:]).clone() for t in tensors_of(s)] for s in self._first]

    @property
    def slots(self) -> int:
        """How many rows the table has."""
        return self._tables[0][0].shape[0]

    def grow(self, slots: int) -> None:
        """Add rows, in the state that everything starts from, until there are so many."""
        for tables, first in zip(self._tables, self._first, strict=True):
            for i, start in enumerate(tensors_of(first)):
                more = slots - tables[i].shape[0]
                if more > 0:
                    tables[i] = torch.cat([tables[i], start.expand(more, *start.shape[1:])])

    def step(self, rows: Sequence[int] | Tensor, x: Tensor) -> Tensor:
        """One step of some streams.

        Args: rows: which, [R], each once. x: [R, I], what each is given.
        Returns: the output of the last cell, [R, N], newly made.
        Raises: ValueError for a row that there is not or that is named twice, or for inputs that do not fit.
        """
        one = rows[0] if type(rows) is list and len(rows) == 1 else None
        if type(one) is not int or not 0 <= one < self.slots or self.backend == "reference":
            one, rows = None, self._checked(rows)
        if x.shape != (len(rows), self.width) or x.dtype is not self.dtype:
            wanted = f"[{len(rows)}, {self.width}] of {self.dtype}"
            raise ValueError(f"a step of these rows takes {wanted}, got {list(x.shape)} of {x.dtype}")
        if not is_plain_memory(x):
            raise ValueError(f"streams read memory, and the input is a {type(x).__name__} on {x.device}")
        with torch.no_grad():
            if one is not None:
                return self._one(one, x)[0]
            rows = torch.as_tensor(rows)
            if not len(rows):
                return x.new_empty(0, *self._output)
            if self.backend == "reference":
                parts = [self._alone(row, x[i : i + 1]) for i, row in enumerate(rows.tolist())]
            else:
                parts = [
                    self._together(r, part)
                    for r, part in zip(torch.split(rows, self._most), torch.split(x, self._most), strict=True)
                ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def read(self, row: int, x: Tensor, states: list[list[State]] | None = None) -> list[Tensor]:
        """Steps of one stream, one after the other: what `step` gives for each, sooner.

        Args: x: [T, I], T at least 1. states: takes the state after each, as `take` gives it.
        Returns: the output of each, [1, N].
        Raises: ValueError as `step`.
        """
        fits = (
            0 <= row < self.slots and x.shape == (len(x), self.width) and x.dtype is self.dtype and is_plain_memory(x)
        )
        if self.backend == "reference" or not fits:
            outputs = []
            for one in x.split(1):  # type: ignore[no-untyped-call]
                outputs.append(self.step([row], one))
                if states is not None:
                    states.append(self.take(row))
            return outputs
        with torch.no_grad():
            return self._one(row, x, states)

    def _one(self, row: int, x: Tensor, states: list[list[State]] | None = None) -> list[Tensor]:
        """What `_together` does for a row, at a fraction of what it takes to ask for it."""
        chain = self._stepper.chain
        assert chain is not None
        self._move(row, chain, back=False)
        outputs = []
        for one in (x,) if len(x) == 1 else x.split(1):  # type: ignore[no-untyped-call]
            outputs.append(chain.step(one.contiguous(), 1))
            if states is not None:
                states.append([self._as_state(i, [t[:1].clone() for t in s]) for i, s in enumerate(chain.states)])
        self._move(row, chain, back=True)
        return outputs

    def _move(self, row: int, chain: Chain, *, back: bool) -> None:
        """The state of a row to where it is stepped, or back."""
        for tables, states in zip(self._tables, chain.states, strict=True):
            for table, state in zip(tables, states, strict=True):
                size = state.stride(0) * state.itemsize
                ends = (state.data_ptr(), table.data_ptr() + row * size)
                ctypes.memmove(*(ends[::-1] if back else ends), size)

    def _as_state(self, layer: int, tensors: list[Tensor]) -> State:
        return tuple(tensors) if isinstance(self._first[layer], tuple) else tensors[0]

    def _together(self, rows: Tensor, x: Tensor) -> Tensor:
        chain = self._stepper.chain
        assert chain is not None
        for tables, states in zip(self._tables, chain.states, strict=True):
            for table, state in zip(tables, states, strict=True):
                torch.index_select(table.view(table.shape[0], -1), 0, rows, out=state[: len(rows)])
        out = chain.step(x.contiguous(), len(rows))
        for tables, states in zip(self._tables, chain.states, strict=True):
            for table, state in zip(tables, states, strict=True):
                table.view(table.shape[0], -1).index_copy_(0, rows, state[: len(rows)])
        return out

    def _alone(self, row: int, x: Tensor) -> Tensor:
        self._stepper.state = self.take(row)
        out = self._stepper(x)
        self.put(row, self._stepper.state)
        return out

    def take(self, row: int) -> list[State]:
        """The state of a stream, layer by layer, each [1, ...], as a copy."""
        row = int(self._checked([row]))
        return [self._as_state(i, [table[row : row + 1].clone() for table in t]) for i, t in enumerate(self._tables)]

    def put(self, row: int, state: Sequence[State]) -> None:
        """Give a stream a state, as `take` returns it. Raises: ValueError where it does not fit; then nothing has changed."""
        row = int(self._checked([row]))
        given = [tensors_of(s) for s in state]
        if [[t.shape for t in s] for s in given] != [[t.shape for t in tensors_of(f)] for f in self._first]:
            raise ValueError(
                f"a state of these streams is {[[list(t.shape) for t in tensors_of(f)] for f in self._first]}"
            )
        for tables, tensors in zip(self._tables, given, strict=True):
            for table, tensor in zip(tables, tensors, strict=True):
                table[row] = tensor[0].detach()

    def reset(self, rows: Sequence[int] | Tensor) -> None:
        """Put the first state back in some streams."""
        rows = self._checked(rows)
        for tables, first in zip(self._tables, self._first, strict=True):
            for table, start in zip(tables, tensors_of(first), strict=True):
                table[rows] = start

    def refresh(self) -> None:
        """Take the weights as they are now. Raises: ValueError where they have other shapes than when this was made."""
        self._stepper.refresh()

    def _checked(self, rows: Sequence[int] | Tensor) -> Tensor:
        made = torch.as_tensor(rows, dtype=torch.long).reshape(-1)
        if len(made) and not 0 <= int(made.min()) <= int(made.max()) < self.slots:
            raise ValueError(f"there are {self.slots} slots, numbered from 0, and no {made.tolist()}")
        if len(made) > 1 and len(set(made.tolist())) < len(made):
            raise ValueError(f"a stream takes one step at a time, and a row is named twice: {made.tolist()}")
        return made

    def __repr__(self) -> str:
        return f"Streams({self.slots} slots, inputs of {self.width}, on {self.backend!r})"
