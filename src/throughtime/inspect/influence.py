"""Which inputs mattered for an output: by the gradient, and by taking them away."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from throughtime.inspect.stacks import looked_into
from throughtime.tasks.base import Trained
from throughtime.tasks.look import Look

AGREE = 0.5  # rank correlation under which the two ways are said to disagree


@dataclass(frozen=True)
class Influence:
    """What each input did for one output.

    output: its number. chosen: the class that is looked at. probability: of it. gradient: gradient × input of log p, what it would
    change by to first order were the input's embedding zero. removal: log p as it is, less log p with the input replaced by what is
    not known; None where that cannot be. agreement: rank correlation of the two sizes; None for fewer than three inputs.
    disagree: whether the page says so. attention: the weights of the inputs, where the network has them.
    """

    output: int
    chosen: str
    probability: float
    gradient: list[float]
    removal: list[float | None]
    agreement: float | None
    disagree: bool
    attention: list[float] | None

    def as_json(self) -> dict[str, Any]:
        """Its values by name."""
        return asdict(self)


def influence(model: Trained[Any], look: Look, output: int) -> Influence:
    """Of all inputs of an item on one output.

    Source: gradient × input after Denil, Demiraj, de Freitas (2014); removal after Li, Monroe, Jurafsky (2016).
    """
    with looked_into(model, look, gradients=True) as layers:
        log_p = look.score(look.batch)[output]
    # what the lowest layer that reads the inputs was given; both directions are given the same
    given = next(a.scan.inputs for a in layers() if a.depth == 0 and a.of.steps is look.inputs)
    (slope,) = torch.autograd.grad(log_p, given)
    gradient = (slope * given).sum(-1)[:, 0].detach().cpu().tolist()
    removal: list[float | None] = []
    with torch.no_grad():
        for i in range(len(look.inputs)):
            other = look.without(i)
            removal.append(None if other is None else float(log_p.detach() - look.score(other)[output]))
    attention = None
    if look.attention is not None:
        with torch.no_grad():
            attention = look.attention(look.batch)[output].cpu().tolist()
    both = [(abs(g), abs(r)) for g, r in zip(gradient, removal, strict=True) if r is not None]
    agreement = _rank_correlation(both) if len(both) > 2 else None
    largest = [max(range(len(both)), key=lambda i: both[i][side]) for side in (0, 1)] if both else [0, 0]
    return Influence(
        output,
        look.outputs.labels[output],
        float(log_p.detach().exp()),
        gradient,
        removal,
        agreement,
        largest[0] != largest[1] or (agreement is not None and agreement < AGREE),
        attention,
    )


def _rank_correlation(pairs: list[tuple[float, float]]) -> float:
    """Spearman's."""
    a, b = (np.argsort(np.argsort([p[i] for p in pairs], kind="stable")) for i in (0, 1))
    return float(np.corrcoef(a, b)[0, 1])
