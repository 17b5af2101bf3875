"""Where a stream is, as bytes: the state of each layer, and the output of the step that led there."""

from __future__ import annotations

import torch
from torch import Tensor

from throughtime.cells import State
from throughtime.errors import UserError
from throughtime.travel import Engine, Moment


class Moments:
    """Moments of one network to and from bytes. output: the width of an output."""

    def __init__(self, engine: Engine, output: int) -> None:
        self._like = engine.first().state
        self._flat = [t for s in self._like for t in _tensors(s)]
        self._numbers = sum(t.numel() for t in self._flat)
        self._output = output

    def packed(self, moment: Moment) -> bytes:
        """A moment as bytes: all tensors of the state end to end, then the output, if there is one."""
        parts = [t.reshape(-1) for s in moment.state for t in _tensors(s)]
        if moment.output is not None:
            parts.append(moment.output.reshape(-1))
        return torch.cat(parts).numpy().tobytes()

    def unpacked(self, data: bytes) -> Moment:
        """The moment again. Raises: UserError where it is of another network."""
        dtype = self._flat[0].dtype
        size = len(data) // dtype.itemsize
        if len(data) % dtype.itemsize or size not in (self._numbers, self._numbers + self._output):
            raise UserError(f"a state of {len(data)} bytes is of another network")
        numbers = torch.frombuffer(bytearray(data), dtype=dtype)
        parts = iter(numbers[: self._numbers].split([t.numel() for t in self._flat]))  # type: ignore[no-untyped-call]
        state: list[State] = []
        for like in self._like:
            found = tuple(next(parts).view(t.shape) for t in _tensors(like))
            state.append(found if isinstance(like, tuple) else found[0])
        return Moment(tuple(state), numbers[self._numbers :] if size > self._numbers else None)


def _tensors(state: State) -> tuple[Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)
