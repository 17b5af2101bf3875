"""Where and how far two futures part.

Shapes: N numbers, V classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from throughtime.cells import State
from throughtime.travel.engine import Engine, Moment

TOGETHER = 256  # times that are compared at once


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
    parts, pairs = None, iter(pairs)
    while block := list(itertools.islice(pairs, TOGETHER)):
        times, ones, others = zip(*block, strict=True)
        both = [a.output is not None and b.output is not None for a, b in zip(ones, others, strict=True)]
        layers = [
            [torch.stack([joined(m.state[layer]) for m in moments]) for moments in (ones, others)]
            for layer in range(len(ones[0].state))
        ]
        outputs = [_outputs(moments, both) for moments in (ones, others)]
        apart = torch.stack([unlike(a, b).any(1) for a, b in [*layers, outputs]]).any(0).tolist()
        found.times.extend(times)
        found.states.extend(map(list, zip(*(_distances(a, b).tolist() for a, b in layers), strict=True)))
        found.outputs.extend(_distances(*outputs).tolist())
        if parts is None:
            alike = [(a.output is None) == (b.output is None) for a, b in zip(ones, others, strict=True)]
            parts = next((t for (t, _), d, e in zip(times, apart, alike, strict=True) if d or not e), None)
        if found.divergence is not None and found.likeliest is not None:
            p, q = (engine.answer(output).double().log_softmax(-1) for output in outputs)
            found.divergence.extend(torch.where(p > -torch.inf, p.exp() * (p - q), 0.0).sum(-1).tolist())
            found.likeliest.extend((p.argmax(-1) != q.argmax(-1)).tolist())
    return replace(found, parts=parts)


def _outputs(moments: Sequence[Moment], there: Sequence[bool]) -> Tensor:
    """The outputs that led to moments, [n, N]; zeros where there is none, or none to compare with."""
    like = next((m.output for m, it in zip(moments, there, strict=True) if it), torch.zeros(1))
    assert like is not None
    rows = [m.output if it else None for m, it in zip(moments, there, strict=True)]
    return torch.stack([torch.zeros_like(like) if row is None else row for row in rows])


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """`distance` of each row of two tensors [n, N]: [n]."""
    a, b = a.double(), b.double()
    size = torch.maximum(a.norm(dim=1), b.norm(dim=1))
    return torch.where(size == 0, 0.0, (a - b).norm(dim=1) / size)


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
    return float(_distances(a.reshape(1, -1), b.reshape(1, -1)))


def joined(state: State) -> Tensor:
    """All tensors of a state end to end."""
    return torch.cat([t.reshape(-1) for t in state]) if isinstance(state, tuple) else state.reshape(-1)
