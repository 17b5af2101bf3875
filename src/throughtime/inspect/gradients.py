"""Gradients through time: how much of what a network learns from an output reaches the steps before it.

Shapes: T time, B batch, N hidden.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from throughtime.inspect.stacks import Layer, looked_into
from throughtime.inspect.units import gates_of
from throughtime.tasks.base import Example, Trained

FORGETS = "its gates have learned to forget so soon; where more matters, more training or an attention may find it"
SHORT = 8  # steps back below which nothing is said of a rate
VANISHED, EXPLODED = 20, 10.0  # steps until 1 % is left; how many times the last step's gradient
ADVICE = {
    "vanishing": "what is further back is hardly learned from; try a gated cell (--model.cell lstm or gru)",
    "exploding": "steps far back drown the near ones; try a smaller --training.clip, or a lower --training.learning-rate",
    "healthy": "it neither fades at once nor grows",
    "broken": "a gradient is not a number; try a lower learning rate and --training.clip 1",
    "too short to tell": f"give inputs of more than {SHORT} steps",
}


@dataclass(frozen=True)
class ThroughTime:
    """The norm of ∂(-log p of an output)/∂state against the number of steps back, over several inputs.

    scale: geometric mean of it at the output itself. norms: for each number of steps back, as a part of that, again a geometric
    mean over inputs. spread: standard deviation of their natural logarithm. inputs: how many reach so far back.
    rate: what a step back multiplies it with, fitted. horizon_e, horizon_1: steps until 1/e and 1 % of it is left; None where
    more is left at the end. verdict, advice: in words.
    """

    scale: float | None
    norms: list[float]
    spread: list[float]
    inputs: list[int]
    rate: float | None
    horizon_e: float | None
    horizon_1: float | None
    verdict: str
    advice: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def reach(self) -> str:
        """Steps until 1 % of it is left, in short."""
        return f"{self.horizon_1:.0f}" if self.horizon_1 is not None else f">{max(len(self.norms) - 1, 0)}"

    def brief(self) -> dict[str, Any]:
        """What it comes to, without the curve."""
        values = {name: getattr(self, name) for name in ("scale", "rate", "horizon_e", "horizon_1")}
        return {name: v if v is None else float(f"{v:.4g}") for name, v in values.items()} | {"verdict": self.verdict}


class Curve(NamedTuple):
    """norms: of the gradient, by steps back, [L]. gated: whether the cell has gates."""

    norms: np.ndarray[Any, Any]
    gated: bool


def gradients_of(model: Trained, example: Example, output: int | None = None) -> dict[str, Curve]:
    """The norm of ∂(-log p of an output)/∂state for every layer and direction, by steps back from that output.

    All tensors of a state count together (of an LSTM h and c). Where the outputs are no steps of the stack (a label for a whole
    text), steps are counted from the end that the direction reads last.
    Args: output: its number; None: for each direction the one at the end that it reads last.
    """
    count = len(example.outputs)
    found = {}
    for number, reverse in ((count - 1, False), (0, True)) if output is None else ((output, None),):
        with looked_into(model, example, gradients=True) as layers:
            log_p = example.answers(example.batch)
        # of the states alone: the weights' gradients, if anybody holds some, stay as they are
        nudges = [nudge for layer in layers() for nudge in layer.scan.nudges]
        torch.autograd.backward(-log_p[number, example.chosen[number]], inputs=nudges)
        for layer in layers():
            if reverse in (None, layer.scan.reverse):
                found[layer.name] = Curve(_back_from(layer, number, count), bool(gates_of(layer.scan)))
        if not any(layer.scan.reverse for layer in layers()):
            break
    return found


def _back_from(layer: Layer, output: int, outputs: int) -> np.ndarray[Any, Any]:
    norms = sum(g[:, 0].double().square().sum(-1) for g in layer.scan.gradients)
    found: np.ndarray[Any, Any] = norms.sqrt().cpu().numpy()  # type: ignore[union-attr]
    if layer.scan.reverse:
        return found[output if len(found) == outputs else 0 :]
    return found[: (output if len(found) == outputs else len(found) - 1) + 1][::-1]


def summarise(curves: Iterable[Curve]) -> ThroughTime:
    """Many curves, each by steps back, as one."""
    curves = list(curves)
    gated = any(c.gated for c in curves)
    many = [c.norms for c in curves if len(c.norms)]
    longest = max((len(c) for c in many), default=0)
    if any(not np.isfinite(c).all() for c in many):
        return ThroughTime(None, [], [], [], None, None, None, "broken", ADVICE["broken"])
    many = [c for c in many if c[0] > 0]  # of an output that nothing can make likelier there is no gradient
    if not many:
        return ThroughTime(
            None, [], [], [], None, None, None, "too short to tell", "the outputs are certain: give other inputs"
        )
    with np.errstate(divide="ignore"):
        logs = [np.log([c[i] / c[0] for c in many if len(c) > i]) for i in range(longest)]
    logs = [row[np.isfinite(row)] for row in logs]  # where nothing arrives it is said by how many do
    reach = next((i for i, row in enumerate(logs) if not len(row)), longest)
    mean = np.array([row.mean() for row in logs[:reach]])
    spread = [float(row.std()) for row in logs[:reach]]
    rate = None
    if reach > 2:
        rate = float(math.exp(np.polyfit(np.arange(1, reach), mean[1:], 1)[0]))
    e, one = _until(mean, 1.0), _until(mean, math.log(100))
    if longest <= SHORT:
        verdict = "too short to tell"
    elif mean.max(initial=-np.inf) - mean[0] > math.log(EXPLODED):
        verdict = "exploding"
    elif (one if one is not None else _steps_at(rate)) < VANISHED:
        verdict = "vanishing"
    else:
        verdict = "healthy"
    scale = float(np.exp(np.mean([math.log(c[0]) for c in many])))
    reached = [len(row) for row in logs[:reach]]
    advice = FORGETS if verdict == "vanishing" and gated else ADVICE[verdict]
    return ThroughTime(scale, np.exp(mean).tolist(), spread, reached, rate, e, one, verdict, advice)


def _steps_at(rate: float | None) -> float:
    """Steps until 1 % is left at a rate."""
    return math.log(100) / -math.log(rate) if rate is not None and 0 < rate < 1 else math.inf


def _until(log_norms: np.ndarray[Any, Any], fall: float) -> float | None:
    """Steps until a curve has fallen by `fall` nats for good, between two steps on a straight line; None where it has not."""
    below = log_norms - (log_norms[0] if len(log_norms) else 0.0) + fall
    over = np.flatnonzero(below > 0)
    last = int(over[-1]) if len(over) else -1
    if last + 1 >= len(below):
        return None
    return last + float(below[last] / (below[last] - below[last + 1]))
