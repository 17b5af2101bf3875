"""What steps a session: a stack of cells, one input at a time.

Shapes: I input, N output, V classes.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from throughtime.cells import State
from throughtime.cells.base import same_structure, structure
from throughtime.errors import UserError

BLOCK = 1024  # inputs that are made ready together


class Moment(NamedTuple):
    """Where a stream is: the state of each layer, [1, N] or a tuple of such; and the output of the step that led here, [N], None
    before the first."""

    state: tuple[State, ...]
    output: Tensor | None


class Engine:
    """Steps one stream through a stack, from any moment to the next. It keeps nothing of the stream: sessions may share one.

    Every step is one call of the same code with one row, never many at once, and what goes in lies in memory of its own: the same
    inputs from the same state give the same bits, on one machine.

    Args: stack: `Recurrent`, or one of the layers that take torch.nn's place: what has a `stepper`. backend: as a stepper takes it.
        network: whose weights are its identity; None: the stack.
    Raises: UserError where the stack cannot step, saying why.
    """

    distributions = False

    def __init__(self, stack: nn.Module, backend: str = "auto", network: nn.Module | None = None) -> None:
        make: Any = getattr(stack, "stepper", None)
        if make is None or isinstance(stack, type):
            raise UserError(f"a session steps a stack of layers, got {_advised(stack)}")
        try:
            self._stepper = make(backend=backend)
        except (ValueError, RuntimeError) as error:  # it has two directions, draws noise, or the backend cannot
            raise UserError(str(error)) from error
        self.stack, self.network = stack, stack if network is None else network
        self.backend: str = self._stepper.backend
        self.width: int = self._stepper.shape[-1]
        self._versions = self._versions_now()
        self._print: str | None = None
        self._lock = threading.Lock()
        self._first = tuple(self._stepper.state)
        self.device = _tensors(self._first[0])[0].device

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.stack).__name__}, inputs of {self.width}, backend {self.backend!r})"

    def first(self) -> Moment:
        """Before the first input."""
        return Moment(self._first, None)

    def empty(self) -> Tensor:
        """No input, of the type and shape of one: [0, I]."""
        return torch.empty(0, self.width, dtype=self._stepper.dtype)

    def checked(self, given: Any) -> Tensor:
        """Inputs [T, I] of a user. Raises: UserError where they do not fit."""
        rows = self.tensor(given)
        if not rows.numel():
            return self.empty()
        if rows.dim() not in (1, 2) or rows.shape[-1] != self.width:
            raise UserError(f"an input is [{self.width}], many are [T, {self.width}], got {list(rows.shape)}")
        if rows.dtype is not self._stepper.dtype:
            raise UserError(f"the network takes {self._stepper.dtype}, got {rows.dtype}; convert it by .to(...)")
        return rows.detach().reshape(-1, self.width)

    def tensor(self, given: Any) -> Tensor:
        """What a user gives for one input [I] or many [T, I], of the type of the network: a tensor, numbers, arrays, or tensors one
        after the other. Of one feature each number is an input. Raises: UserError where it holds something else."""
        if isinstance(given, Iterator):
            given = list(given)
        try:
            if isinstance(given, Sequence) and len(given) and all(isinstance(row, Tensor) for row in given):
                given = torch.stack(list(given))
            rows = given if isinstance(given, Tensor) else torch.as_tensor(np.asarray(given), dtype=self._stepper.dtype)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"an input is {self.width} numbers, got a {type(given).__name__}: {error}") from error
        return (
            rows.unsqueeze(-1)
            if self.width == 1 and (rows.dim() == 0 or (rows.dim() == 1 and len(rows) != 1))
            else rows
        )

    def prepared(self, inputs: Tensor) -> Tensor:
        """What the stack is given for inputs: [T, I]."""
        return inputs.to(self.device)

    def answer(self, output: Tensor) -> Tensor:
        """log p of the classes, [..., V], of outputs [..., N], where `distributions` says that the network gives it."""
        raise NotImplementedError

    def run(self, moment: Moment, inputs: Tensor, outputs: list[Tensor] | None = None) -> Moment:
        """Read inputs from a moment on, one by one. outputs: takes the output of each, [1, N]."""
        if not len(inputs):
            return moment
        stepper, out = self._stepper, None
        with self._lock, torch.no_grad():
            stepper.state = moment.state
            for low in range(0, len(inputs), BLOCK):
                for row in self.prepared(inputs[low : low + BLOCK]).unsqueeze(1):
                    out = stepper(row.clone())
                    if self.backend == "reference":  # a cell may give a view; from a snapshot it would get no view
                        stepper.state = stepper.state
                    if outputs is not None:
                        outputs.append(out)
            assert out is not None
            return Moment(tuple(stepper.state), out[0])

    def checked_state(self, given: Any) -> tuple[State, ...]:
        """A state of a user, as a copy: a layer after the other, as `Session.state`, or as `Recurrent` returns it.

        Raises: UserError where it does not fit.
        """
        layers = list(given) if isinstance(given, Sequence | Tensor) else []
        if len(layers) != len(self._first):
            raise UserError(f"a state holds {_count(len(self._first), 'layer')}, got {_told(given)}")
        found = []
        for number, (layer, like) in enumerate(zip(layers, self._first, strict=True)):
            if not same_structure(layer, like) and isinstance(layer, tuple) and len(layer) == 1:
                layer = layer[0]  # of the one direction
            sizes = [t.shape for t in _tensors(like)]
            if not same_structure(layer, like) or [t.shape for t in _tensors(layer)] != sizes:
                raise UserError(f"the state of layer {number} is {structure(like)}, got {_told(layer)}")
            copies = [t.detach().to(u, copy=True) for t, u in zip(_tensors(layer), _tensors(like), strict=True)]
            found.append(tuple(copies) if isinstance(like, tuple) else copies[0])
        return tuple(found)

    # ---------------------------------------------------------------------------------------------- which network it is

    def check_weights(self) -> None:
        """Raises: UserError where the weights are no longer those it was made with."""
        if self._versions != self._versions_now():
            raise UserError("the weights have changed since the session was made; make a new one")

    def _versions_now(self) -> list[int]:
        return [0 if p.is_inference() else p._version for p in self.network.parameters()]

    def identity(self) -> dict[str, Any]:
        """What of a network its weights do not tell."""
        names = {name: getattr(self.stack, name, None) for name in ("residual", "zoneout", "mode", "nonlinearity")}
        return {**names, "modules": [type(m).__name__ for m in self.network.modules()]}

    def fingerprint(self) -> str:
        """The same for two networks whose weights, to the bit, and kinds of cells are the same."""
        if self._print is None:
            sum_ = hashlib.sha256(json.dumps(self.identity()).encode())
            for name, tensor in sorted(self.network.state_dict().items()):
                sum_.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
                sum_.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
            self._print = sum_.hexdigest()
        return self._print


def _advised(stack: Any) -> str:
    """What was given for a stack, and what to give."""
    if isinstance(stack, type):
        return f"the class {stack.__name__}; make one: {stack.__name__}(input_size, hidden_size)"
    if hasattr(stack, "session"):
        return f"a {type(stack).__name__}, which makes its own: call its session()"
    if isinstance(stack, str | Path):
        return f"{str(stack)!r}; of a trained model: throughtime.load({str(stack)!r}).session()"
    if isinstance(stack, nn.RNNBase):
        return f"torch.nn's {type(stack).__name__}; throughtime.{type(stack).__name__} takes its place and its weights"
    return f"a {type(stack).__name__}; put a cell into a stack: Recurrent(cell, input_size, hidden_size)"


def _tensors(state: State) -> tuple[Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)


def _told(value: object) -> str:
    return f"a list of {len(value)}" if isinstance(value, list) else structure(value)


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' if n != 1 else ''}"
