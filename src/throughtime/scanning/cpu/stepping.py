"""A step at a time: a stream's state held where the compiled code reads it, and a whole stack in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from throughtime.cells import State
from throughtime.cells.base import split_result
from throughtime.scanning.call import map_states, tensors_of
from throughtime.scanning.cpu.chain import Chain
from throughtime.scanning.foreign import context, is_plain_memory
from throughtime.scanning.int8 import FLOAT, INT8, check_weights
from throughtime.scanning.symbols import Unsupported


class Stepper:
    """Steps one or many streams through a stack of cells, holding their states.

    >>> import torch, throughtime as tt
    >>> stepper = tt.GRU(3, 5, num_layers=2).stepper()
    >>> stepper(torch.randn(1, 3)).shape
    torch.Size([1, 5])

    Made by `stepper` of a layer. The weights are those of when it was made, or of the last `refresh`. No gradients pass through
    it. One Python thread at a time may use it.

    Args:
        cells: the stack, each fed the output of the one before.
        states: of each cell, [B, ...].
        x: what a step is given, [B, I].
        extra: for each cell, what it is given beside its input (the noise of a wrapper), or None.
        backend: "auto", "cpu" or "reference".
        again: makes the cells anew for `refresh`, where they are views of weights that may be put in others' place.
        weights: "float": as they are; "int8": rounded to eight bits, a scale for each output, and what they are multiplied by to
            sixteen. See `docs/engine.md`.
    Raises: RuntimeError where the named backend, or weights in int8, cannot run a cell, saying why; ValueError for a name that
        there is not.
    """

    @torch.inference_mode(False)  # what it holds is written to later, wherever that is
    def __init__(
        self,
        cells: Sequence[nn.Module],
        states: Sequence[State],
        x: Tensor,
        extra: Sequence[Any] | None = None,
        backend: str = "auto",
        again: Callable[[], Sequence[nn.Module]] | None = None,
        weights: str = FLOAT,
    ) -> None:
        if x.shape[0] < 1:
            raise ValueError(f"a stepper steps at least one stream, got {x.shape[0]}")
        self.again = again
        self.cells, self.extra = list(cells), list(extra or [None] * len(cells))
        self.shape, self.dtype, self._asked = x.shape, x.dtype, backend
        self._first = [map_states(lambda s: s.detach().clone(), s) for s in states]
        self.why_not: str | None = None  # why the compiled code does not run it
        if backend not in ("auto", "cpu", "reference"):
            raise ValueError(f"a stepper runs on 'auto', 'cpu' or 'reference', got {backend!r}")
        check_weights(weights, backend)
        self.chain: Chain | None = None
        if backend != "reference":
            operands = torch.int16 if weights == INT8 else None
            try:
                self.chain = Chain(self.cells, self._first, x, self.extra, operands)
            except Unsupported as error:
                self.why_not = str(error)
                if weights == INT8:
                    raise RuntimeError(f"weights in int8 cannot run this: {error}; use weights='float'") from None
                if backend == "cpu":
                    raise RuntimeError(f"backend 'cpu' cannot run this: {error}; use backend='auto'") from None
        self.weights = weights
        self.backend = "reference" if self.chain is None else "cpu"
        self._states: list[State] = []  # of the reference
        self.state = self._first
        if self.chain is not None:
            self.chain.refresh(self.cells)

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: cells and states. A copy takes the weights as they are when it is made."""
        like = torch.empty(self.shape, dtype=self.dtype, device=tensors_of(self._first[0])[0].device)
        return {"cells": self.cells, "first": self._first, "x": like, "extra": self.extra, "backend": self._asked,
                "state": self.state, "again": self.again, "weights": self.weights}  # fmt: skip

    def __setstate__(self, made: dict[str, Any]) -> None:
        names = ("cells", "first", "x", "extra", "backend", "again", "weights")
        self.__init__(*(made[name] for name in names))  # type: ignore[misc]
        self.state = made["state"]

    def __call__(self, x: Tensor) -> Tensor:
        """One step. x: [B, I], of the type the stepper was made for. Returns: the output of the last cell, [B, N], newly made."""
        if x.shape != self.shape or x.dtype is not self.dtype:
            raise ValueError(f"a step takes {list(self.shape)} of {self.dtype}, got {list(x.shape)} of {x.dtype}")
        if self.chain is None:
            return self._plainly(x)
        if not is_plain_memory(x):
            reason = context((x,)) or f"its input is a {type(x).__name__} on {x.device}"
            raise RuntimeError(f"a stepper reads memory, which cannot be here: {reason}; use the layer's step()")
        return self.chain.step(x if x.is_contiguous() else x.contiguous())

    @property
    def state(self) -> list[State]:
        """The states of the cells, as copies; set it to go on from other ones."""
        if self.chain is None:
            return [map_states(torch.clone, s) for s in self._states]
        made: list[State] = []
        for rows, first in zip(self.chain.states, self._first, strict=True):
            tensors = [r.clone().view_as(f) for r, f in zip(rows, tensors_of(first), strict=True)]
            made.append(tuple(tensors) if isinstance(first, tuple) else tensors[0])
        return made

    @state.setter
    def state(self, states: Sequence[State]) -> None:
        for given, first in zip(states, self._first, strict=True):
            for one, other in zip(tensors_of(given), tensors_of(first), strict=True):
                if one.shape != other.shape:
                    raise ValueError(f"a state of these streams is {list(other.shape)}, got {list(one.shape)}")
        with torch.no_grad():
            if self.chain is None:
                self._states = [map_states(lambda s, f: s.detach().to(f.dtype).clone(), s, f)
                                for s, f in zip(states, self._first, strict=True)]  # fmt: skip
                return
            for rows, state in zip(self.chain.states, states, strict=True):
                for row, tensor in zip(rows, tensors_of(state), strict=True):
                    row.copy_(tensor.reshape(row.shape))

    def reset(self, rows: Sequence[int] | Tensor | None = None) -> None:
        """Put the first state back, in all streams or in some: their numbers, or a truth value for each."""
        if rows is None:
            self.state = self._first
            return
        rows = torch.as_tensor(rows).reshape(-1)
        rows = rows.nonzero().flatten() if rows.dtype == torch.bool and len(rows) == self.shape[0] else rows.long()
        if len(rows) and not -self.shape[0] <= int(rows.min()) <= int(rows.max()) < self.shape[0]:
            raise ValueError(f"there are {self.shape[0]} streams, and no number {rows.tolist()}")
        rows %= self.shape[0]
        states = self.state
        for state, first in zip(states, self._first, strict=True):
            map_states(lambda s, f: s.index_copy_(0, rows, f[rows]), state, first)
        self.state = states

    def refresh(self) -> None:
        """Take the weights as they are now. Raises: ValueError where they have other shapes than when this was made."""
        if self.again is not None:
            self.cells = list(self.again())
        if self.chain is not None:
            self.chain.refresh(self.cells)

    def _plainly(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            for k, (cell, extra) in enumerate(zip(self.cells, self.extra, strict=True)):
                given = x if extra is None else (x, extra)
                output, new = split_result(cell(given, self._states[k]), self._states[k])
                self._states[k] = new
                x = output if output is not None else (new if isinstance(new, Tensor) else new[0])
        return x.clone()

    def __repr__(self) -> str:
        reason = "" if self.why_not is None else f", since {self.why_not}"
        return f"Stepper({len(self.cells)} cells, {self.shape[0]} streams, on {self.backend!r}{reason})"
