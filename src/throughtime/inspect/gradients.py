"""Gradients through time: how much of what a network learns from an output reaches the steps before it.

Shapes: T time, B batch, N hidden.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from throughtime.inspect.stacks import Layer, looked_into
from throughtime.inspect.units import gates_of
from throughtime.tasks.base import Trained
from throughtime.tasks.look import Look

Array = np.ndarray[Any, Any]
FORGETS = "its gates have learned to forget so soon; where more matters, more training or an attention may find it"
SHORT = 8  # steps back below which nothing is said of a rate
VANISHED, EXPLODED = 20, 10.0  # steps until 1 % is left; how many times the last step's gradient
TOO_SHORT, NEWEST_STEP = "too short to tell", "mostly the newest step"
NEWEST = 2  # steps until 1/e is left, under which the newest outweighs all others
ADVICE = {
    "vanishing": "what is further back is hardly learned from; try a gated cell (--model.cell lstm or gru)",
    NEWEST_STEP: "what came before it counts for little, step by step",
    "exploding": "steps far back drown the near ones; try a smaller --training.clip, or a lower --training.learning-rate",
    "healthy": "it neither fades at once nor grows: steps far back can be learned from",
    "broken": "a gradient is not a number; try a lower learning rate and --training.clip 1",
    TOO_SHORT: f"inputs of more than {SHORT} steps would tell how far it reaches",
}


@dataclass(frozen=True)
class ThroughTime:
    """The norm of ∂(-log p of an output)/∂state against the number of steps back, over several inputs.

    scale: geometric mean of it at the output itself. norms: for each number of steps back, as a part of that, again a geometric
    mean over inputs. spread: standard deviation of their natural logarithm. inputs: how many reach so far back.
    rate: what a step back multiplies it with, fitted. horizon_e, horizon_1: steps until 1/e and 1 % of it is left; None where
    more is left at the end. verdict: vanishing where 1 % is left within VANISHED steps, or would be at that rate; mostly the newest
    step where 1/e is left within NEWEST but a tail reaches further; exploding where it grows more than EXPLODED times; healthy;
    broken; too short to tell. advice: what to make of it.
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
        """Its values by name."""
        return asdict(self)

    def reach(self) -> str:
        """Steps until 1 % of it is left, in short."""
        return f"{self.horizon_1:.0f}" if self.horizon_1 is not None else f">{max(len(self.norms) - 1, 0)}"

    def brief(self) -> dict[str, Any]:
        """What it comes to, without the curve."""
        values = {name: getattr(self, name) for name in ("scale", "rate", "horizon_e", "horizon_1")}
        return {name: v if v is None else float(f"{v:.4g}") for name, v in values.items()} | {"verdict": self.verdict}


class Curve(NamedTuple):
    """norms: of the gradient, by steps back, [L]. gated: whether the cell has gates. begins: the step that none is back from."""

    norms: Array
    gated: bool
    begins: int = 0


def gradients_of(model: Trained[Any], look: Look, output: int | None = None) -> dict[str, Curve]:
    """The norm of ∂(-log p of an output)/∂state for every layer and direction, by steps back from that output.

    All tensors of a state count together (of an LSTM h and c). Of a stack whose steps are no outputs (a label is read off all of
    them, a translator attends to all) only what comes through its last step is counted, from there: the rest goes past time.
    Args: output: its number; None: for each direction the one at the end that it reads last.
    """
    return gradients_of_each(model, look, [output])[0]


def gradients_of_each(model: Trained[Any], look: Look, outputs: Sequence[int | None]) -> list[dict[str, Curve]]:
    """The same of several outputs, with one run of the network."""
    with looked_into(model, look, gradients=True) as looked:
        score = look.score(look.batch)
    layers = looked()
    return [_curves(layers, look, score, output) for output in outputs]


def _curves(layers: list[Layer], look: Look, score: Tensor, output: int | None) -> dict[str, Curve]:
    count, found = len(look.outputs), {}
    for stack, reverse in dict.fromkeys((layer.stack, layer.scan.reverse) for layer in layers):
        some = [layer for layer in layers if (layer.stack, layer.scan.reverse) == (stack, reverse)]
        number = (0 if reverse else count - 1) if output is None else output
        of = look.stacks[stack]
        wanted, step = -score[number], number // of.stride if of.at is None else of.at[number]
        if of.whole or of.last:
            step = 0 if reverse else len(some[0].scan.inputs) - 1
        if of.whole:
            last = max(some, key=lambda layer: layer.depth).scan.outputs
            (slope,) = torch.autograd.grad(wanted, last, retain_graph=True)
            wanted = (slope[step] * last[step]).sum()
        nudges = [nudge for layer in some for nudge in layer.scan.nudges]
        slopes = iter(torch.autograd.grad(wanted, nudges, retain_graph=True, materialize_grads=True))
        for layer in some:
            squares = [next(slopes)[:, 0].double().square().sum(-1) for _ in layer.scan.nudges]
            norms = torch.stack(squares).sum(0).sqrt().cpu().numpy()
            back, skipped = _back_from(norms, step, reverse)
            found[layer.name] = Curve(back, bool(gates_of(layer.scan)), step + skipped * (1 if reverse else -1))
    return found


def _back_from(norms: Array, step: int, reverse: bool) -> tuple[Array, int]:
    """By steps back, from the first that has any: of an output of a cell's own making nothing came of the state after it. Also how
    many were skipped."""
    back = norms[step:] if reverse else norms[: step + 1][::-1]
    reached = np.flatnonzero(back != 0)
    skipped = int(reached[0]) if len(reached) else 0
    return back[skipped:], skipped


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
        return ThroughTime(None, [], [], [], None, None, None, TOO_SHORT, "the outputs are certain: give other inputs")
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
    verdict = _verdict(mean, e, one, math.inf if longest <= SHORT else _steps_at(rate), longest <= SHORT)
    scale = float(np.exp(np.mean([math.log(c[0]) for c in many])))
    reached = [len(row) for row in logs[:reach]]
    advice = FORGETS if verdict == "vanishing" and gated else ADVICE[verdict]
    if verdict == NEWEST_STEP:
        advice += f"; {ADVICE[TOO_SHORT] if longest <= SHORT else 'a little of it reaches far'}"
    return ThroughTime(scale, np.exp(mean).tolist(), spread, reached, rate, e, one, verdict, advice)


def _verdict(mean: Array, e: float | None, one: float | None, extrapolated: float, short: bool) -> str:
    """Of the logarithms of a curve. e, one: its horizons; extrapolated: where 1 % would be left at its rate.

    What is seen counts however short the inputs: what has faded or grown within four steps has. Only of what has not can a
    short input not tell.
    """
    if mean.max() - mean[0] > math.log(EXPLODED):
        return "exploding"
    if (one if one is not None else extrapolated) < VANISHED:
        return "vanishing"
    if e is not None and e < NEWEST:
        return NEWEST_STEP
    return TOO_SHORT if short else "healthy"


def _steps_at(rate: float | None) -> float:
    """Steps until 1 % is left at a rate."""
    return math.log(100) / -math.log(rate) if rate is not None and 0 < rate < 1 else math.inf


def _until(log_norms: Array, fall: float) -> float | None:
    """Steps until a curve has fallen by `fall` nats for good, between two steps on a straight line; None where it has not."""
    below = log_norms - (log_norms[0] if len(log_norms) else 0.0) + fall
    over = np.flatnonzero(below > 0)
    last = int(over[-1]) if len(over) else -1
    if last + 1 >= len(below):
        return None
    return last + float(below[last] / (below[last] - below[last + 1]))
