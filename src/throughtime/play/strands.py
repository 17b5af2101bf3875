"""Texts as a network has read them, with the moment at every time; one that begins as another did is read on from there.

Shapes: T time, N hidden.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from throughtime.cells import State
from throughtime.errors import UserError
from throughtime.travel import Engine, Moment

KEPT = 16  # strands of a model, of those that were asked for last


class Put(NamedTuple):
    """A number of a state that is put in: into which layer, which of its tensors, which unit, and what."""

    layer: int
    tensor: int
    unit: int
    value: float


@dataclass(frozen=True, eq=False)
class Strand:
    """What is read and put in, and what comes of it.

    tokens: [T]. puts: what is put in at each time from 0 to T, after the input that leads there. moments: at each of these times.
    """

    tokens: tuple[int, ...]
    puts: tuple[tuple[Put, ...], ...]
    moments: tuple[Moment, ...]

    def agrees(self, other_tokens: Sequence[int], other_puts: Sequence[tuple[Put, ...]]) -> int:
        """At how many of the times from 0 on the same has been read and put in."""
        if self.puts[0] != other_puts[0]:
            return 0
        both = zip(self.tokens, other_tokens, self.puts[1:], other_puts[1:], strict=False)
        count = 1
        for mine, theirs, put_here, put_there in both:
            if mine != theirs or put_here != put_there:
                break
            count += 1
        return count


class Strands:
    """The strands of a network that were asked for last.

    What is read is stepped by the engine, one input at a time, so that every number is the one that a session has, to the bit.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._kept: list[Strand] = []
        self._lock = threading.Lock()

    def of(self, tokens: Sequence[int], puts: dict[int, list[Put]]) -> Strand:
        """What comes of tokens [T], and of what is put in at times from 0 to T.

        Raises: UserError where there is no such token, time, layer, tensor or unit.
        """
        rows = self.engine.checked(list(tokens))
        if wrong := [t for t in puts if not 0 <= t <= len(rows)]:
            raise UserError(f"changes: there is no time {wrong[0]}; they go from 0 to {len(rows)}")
        given = tuple(tuple(sorted(puts.get(t, ()))) for t in range(len(rows) + 1))
        with self._lock:
            near = max(self._kept, key=lambda s: s.agrees(tokens, given), default=None)
            shared = 0 if near is None else near.agrees(tokens, given)
        moments = [] if near is None else list(near.moments[:shared])
        if not moments:
            moments = [self._put(self.engine.first(), given[0])]
        for t in range(len(moments), len(given)):
            moments.append(self._put(self.engine.run(moments[-1], rows[t - 1 : t]), given[t]))
        found = Strand(tuple(tokens), given, tuple(moments))
        with self._lock:
            if near is not None and near in self._kept and shared == len(near.moments):  # this is the same, and goes on
                self._kept.remove(near)
            self._kept = [*self._kept[1 - KEPT :], found]
        return found

    def _put(self, moment: Moment, puts: Sequence[Put]) -> Moment:
        """A moment with other numbers in its state; its output is still that of the step that led to it."""
        if not puts:
            return moment
        layers = [list(copies(s)) for s in moment.state]
        for layer, tensor, unit, value in puts:
            for name, number, there in (
                ("layer", layer, len(layers)),
                ("tensor", tensor, len(layers[layer]) if layer < len(layers) else 0),
            ):
                if number >= there:
                    raise UserError(f"changes: there is no {name} {number} of a state; they go from 0 to {there - 1}")
            units = layers[layer][tensor].shape[-1]
            if unit >= units:
                raise UserError(f"changes: there is no unit {unit}; they go from 0 to {units - 1}")
            layers[layer][tensor][0, unit] = value
        state = tuple(tuple(n) if isinstance(s, tuple) else n[0] for s, n in zip(moment.state, layers, strict=True))
        return Moment(state, moment.output)


def tensors(state: State) -> tuple[Tensor, ...]:
    """Those of a state of a layer."""
    return state if isinstance(state, tuple) else (state,)


def copies(state: State) -> tuple[Tensor, ...]:
    """Those of a state of a layer, to be written to."""
    return tuple(t.clone() for t in tensors(state))


def beside(states: Sequence[tuple[State, ...]]) -> list[State]:
    """States of several moments as one of so many rows: of each layer a tensor [T, N], or a tuple of such."""
    found: list[State] = []
    for layer in zip(*states, strict=True):
        parts = tuple(torch.cat(t) for t in zip(*(tensors(s) for s in layer), strict=True))
        found.append(parts if isinstance(layer[0], tuple) else parts[0])
    return found
