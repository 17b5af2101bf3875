"""Where and how far two futures part.

Shapes: N numbers, V classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from throughtime.cells import State
from throughtime.travel.engine import Engine, Moment


@dataclass(frozen=True, repr=False)
class Difference:
    """Two timelines of one network, compared time by time.

        distance = ‖a − b‖ / max(‖a‖, ‖b‖), 0 where they are the same; 2 at most

    parts: the first of the times, in the first of the two, at which a state or an output differs at all; None: nowhere.
    times: which time of the one is compared with which of the other. states: for each, the distance of every layer's state, all its
    tensors together (of an LSTM h and c). outputs: of the outputs. Where the network gives distributions: divergence:
    KL(one ‖ other), nats; likeliest: whether another class is the likeliest; otherwise both are None.
    """

    parts: int | None
    times: list[tuple[int, int]]
    states: list[list[float]]
    outputs: list[float]
    divergence: list[float] | None
    likeliest: list[bool] | None

    def as_json(self) -> dict[str, Any]:
        """Its values by name."""
        return asdict(self)

    def __repr__(self) -> str:
        if self.parts is None:
            return f"Difference(none at {len(self.times)} times)"
        most = max((distance for layers in self.states for distance in layers), default=0.0)
        return f"Difference(parts at {self.parts}, {len(self.times)} times, states {most:.3g} apart at most)"


def difference(engine: Engine, pairs: Iterable[tuple[tuple[int, int], Moment, Moment]]) -> Difference:
    """Of moments of two timelines: ((time of the one, of the other), moment of the one, of the other)."""
    found = Difference(None, [], [], [], *([], []) if engine.distributions else (None, None))
    parts = None
    for pair, a, b in pairs:
        found.times.append(pair)
        found.states.append([distance(joined(x), joined(y)) for x, y in zip(a.state, b.state, strict=True)])
        found.outputs.append(0.0 if a.output is None or b.output is None else distance(a.output, b.output))
        if parts is None and not same(a, b):
            parts = pair[0]
        if found.divergence is not None and found.likeliest is not None:
            assert a.output is not None and b.output is not None
            p, q = (engine.answer(output).double().log_softmax(-1) for output in (a.output, b.output))
            found.divergence.append(float(torch.where(p > -torch.inf, p.exp() * (p - q), 0.0).sum()))
            found.likeliest.append(bool(p.argmax() != q.argmax()))
    return replace(found, parts=parts)


def same(a: Moment, b: Moment) -> bool:
    """Whether two moments hold the same numbers, and NaN in the same places."""
    if (a.output is None) != (b.output is None):
        return False
    pairs = [(joined(x), joined(y)) for x, y in zip(a.state, b.state, strict=True)]
    if a.output is not None and b.output is not None:
        pairs.append((a.output, b.output))
    return not any(bool(unlike(x, y).any()) for x, y in pairs)


def unlike(a: Tensor, b: Tensor) -> Tensor:
    """Where two tensors differ; NaN is like NaN."""
    return (a != b) & ((a == a) | (b == b))


def distance(a: Tensor, b: Tensor) -> float:
    """‖a − b‖ / max(‖a‖, ‖b‖); 0 where both are 0."""
    a, b = a.double(), b.double()
    size = max(float(a.norm()), float(b.norm()))
    return float((a - b).norm()) / size if size else 0.0


def joined(state: State) -> Tensor:
    """All tensors of a state end to end."""
    return torch.cat([t.reshape(-1) for t in state]) if isinstance(state, tuple) else state.reshape(-1)
