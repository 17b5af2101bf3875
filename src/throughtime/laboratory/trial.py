"""One cell on one problem: trained within a budget, scored on the way, whatever becomes of it."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Generator, nn

from throughtime.laboratory.network import Network
from throughtime.laboratory.problems import Batch, Problem
from throughtime.training.health import NotFinite, check_finite, gradient_norms

Telling = Callable[[float, str], None]  # a share of the budget that was spent, and words of where it stands or ""
KEPT = 20  # gradient norms before a break that are told


@dataclass(frozen=True)
class Budget:
    """Of one cell at one lag: in steps, or in seconds of which scoring is a part."""

    steps: int | None = None
    seconds: float | None = None

    def spent(self, step: int, elapsed: float) -> float:
        """The share of it, 0 to 1."""
        share = step / self.steps if self.steps else elapsed / (self.seconds or 1.0)
        return min(share, 1.0)


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. method: "adam", or "sgd": plain gradient descent. clip: the largest norm of the gradient, None: no
    clipping."""

    learning_rate: float
    clip: float | None
    method: str = "adam"


@dataclass(frozen=True)
class Lesson:
    """What a network is to learn, and how. seed: of the sequences it learns from."""

    problem: Problem
    budget: Budget
    recipe: Recipe
    seed: int


@dataclass(frozen=True)
class Point:
    """Where it stood after a step. loss: mean of the training's since the point before. score: on held-out sequences.
    gradient_norm: the largest since then, before clipping."""

    step: int
    seconds: float
    loss: float
    score: float
    gradient_norm: float


@dataclass(frozen=True)
class Break:
    """A number that is NaN or infinite. where: the first parameter that holds one, in itself or its gradient; None: the loss alone.
    norms: of the gradient in the steps before, oldest first."""

    step: int
    where: str | None
    norms: list[float]


@dataclass
class Trial:
    """What became of it.

    score: at the end, of the weights that scored best on the way; None where it broke before the first score.
    learned_at: the step after which it first scored as the goal asks; None: it did not learn.
    """

    curve: list[Point] = field(default_factory=list)
    broke: Break | None = None
    score: float | None = None
    learned_at: int | None = None
    steps: int = 0
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Its values by name, those of the curve and the break too."""
        return asdict(self)


def optimizer_of(network: Network, recipe: Recipe) -> torch.optim.Optimizer:
    """What makes the steps. It goes with a network from lag to lag: one that begins anew would jolt what was learned."""
    if recipe.method == "adam":
        return torch.optim.Adam(network.parameters(), lr=recipe.learning_rate, fused=True)
    return torch.optim.SGD(network.parameters(), lr=recipe.learning_rate)


def run_trial(
    network: Network,
    optimizer: torch.optim.Optimizer,
    lesson: Lesson,
    advance: Telling,
    keep: Callable[[Trial], None] = lambda trial: None,
) -> Trial:
    """Train a network on a problem until the goal is met, the budget is spent or a number is NaN or infinite.

    Args: optimizer: as `optimizer_of` gives it. advance: told of each share of the budget that is spent, and of each score in
        words. keep: given what there is after each score.
    """
    problem, budget, recipe = lesson.problem, lesson.budget, lesson.recipe
    trial, generator = Trial(), Generator().manual_seed(lesson.seed)
    parameters = list(network.parameters())
    began, spent = time.monotonic(), 0.0
    best: dict[str, Any] = {}
    best_score: float | None = None
    since: list[tuple[float, float]] = []  # loss and gradient norm of each step since the latest score
    norms: deque[float] = deque(maxlen=KEPT)
    while spent < 1:
        rate = recipe.learning_rate * (0.5 * (1 + math.cos(math.pi * spent)) if problem.falls else 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate
        inputs, targets = problem.batch(generator, problem.batch_size)
        loss = problem.loss(network(inputs, problem.answered), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = math.hypot(*gradient_norms(network).values())
        trial.steps += 1
        try:
            check_finite(trial.steps, loss.item(), norm, network, norms, rate, recipe.clip)
        except NotFinite as error:
            trial.broke = Break(trial.steps, error.parameter, _rounded(norms))
            break
        if recipe.clip is not None:
            nn.utils.clip_grads_with_norm_(parameters, recipe.clip, torch.tensor(norm))
        optimizer.step()
        optimizer.zero_grad()
        since.append((loss.item(), norm))
        norms.append(norm)
        now = budget.spent(trial.steps, time.monotonic() - began)
        advance(now - spent, "")
        spent = now
        if trial.steps % problem.every and spent < 1:
            continue
        score = scored(network, problem, problem.held_out())
        if not math.isfinite(score):  # the next step will say so
            continue
        if best_score is None or problem.better(score, best_score):
            best_score, best = score, copy.deepcopy(network.state_dict())
        losses, recent = zip(*since, strict=True)
        point = Point(trial.steps, round(time.monotonic() - began, 3), statistics.fmean(losses), score, max(recent))
        trial.curve.append(point)
        since = []
        trial.seconds = point.seconds
        advance(0.0, f"{problem.score} {score:.4g} after {trial.steps:,} steps")
        keep(trial)
        if problem.learned(score) and problem.ends:
            break
    if best:
        network.load_state_dict(best)
        trial.score = scored(network, problem, problem.test())
        if problem.learned(trial.score):
            trial.learned_at = next((p.step for p in trial.curve if problem.learned(p.score)), None)
    trial.seconds = round(time.monotonic() - began, 3)
    advance(1 - spent, "")
    return trial


def scored(network: Network, problem: Problem, batches: Iterator[Batch]) -> float:
    """The mean score over the sequences of all batches."""
    total, count = 0.0, 0
    network.eval()
    with torch.no_grad():
        for inputs, targets in batches:
            scores = problem.scores(network(inputs, problem.answered), targets)
            total, count = total + float(scores.double().sum()), count + len(scores)
    network.train()
    return total / count


def _rounded(norms: deque[float]) -> list[float]:
    return [float(f"{norm:.4g}") for norm in norms]
