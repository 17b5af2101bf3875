"""Which inputs mattered for an output: by the gradient, and by taking them away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

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


def influence(model: Trained[Any], look: Look, outputs: Sequence[int]) -> list[Influence]:
    """Of all inputs of an item on some outputs: a backward pass an output, and a forward pass for each input that is taken away.

    Source: gradient × input after Denil, Demiraj, de Freitas (2014); removal after Li, Monroe, Jurafsky (2016).
    """
    with looked_into(model, look, gradients=True) as layers:
        score = look.score(look.batch)
    given = look.numbers
    if given is None:  # what the lowest layer that reads the inputs was given; both directions are given the same
        given = next(a.scan.inputs for a in layers() if a.depth == 0 and a.of.steps is look.inputs)
    gradients = [_gradient(score[output], given) for output in outputs]
    score, attention = score.detach(), None
    with torch.no_grad():
        others = (look.without(i) for i in range(len(look.inputs)))
        removals = [None if other is None else (score - look.score(other)).tolist() for other in others]
        if look.attention is not None:
            attention = look.attention(look.batch).cpu().tolist()
    found = []
    for output, gradient in zip(outputs, gradients, strict=True):
        removal = [None if row is None else row[output] for row in removals]
        agreement, disagree = _compared(
            [(abs(g), abs(r)) for g, r in zip(gradient, removal, strict=True) if r is not None]
        )
        found.append(
            Influence(
                output,
                look.outputs.labels[output],
                float(score[output].exp()),
                gradient,
                removal,
                agreement,
                disagree,
                None if attention is None else attention[output],
            )
        )
    return found


def _gradient(log_p: Tensor, given: Tensor) -> list[float]:
    """Gradient × input by step."""
    (slope,) = torch.autograd.grad(log_p, given, retain_graph=True, materialize_grads=True)
    by_step = (slope * given).detach().nan_to_num(0.0).reshape(len(given), -1)
    return by_step.sum(-1).cpu().tolist()  # type: ignore[no-any-return]


def _compared(both: list[tuple[float, float]]) -> tuple[float | None, bool]:
    """Spearman's rank correlation of two sizes of the same inputs, where there are enough, and whether they disagree."""
    if not both:
        return None, False
    largest = [max(range(len(both)), key=lambda i: both[i][side]) for side in (0, 1)]
    agreement = None
    if len(both) > 2:
        a, b = (np.argsort(np.argsort([p[i] for p in both], kind="stable")) for i in (0, 1))
        agreement = float(np.corrcoef(a, b)[0, 1])
    return agreement, largest[0] != largest[1] or (agreement is not None and agreement < AGREE)
