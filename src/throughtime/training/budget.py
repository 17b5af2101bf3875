"""How long to train, and how fast: a number of steps, which a budget of minutes is turned into and held to, and the learning rate
of each. Where the held-out score stops getting better before, a short cool-down takes the place of the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from throughtime.config import Training

HOLDS = 0.5  # the share of a budget over which the learning rate holds, where nothing else lets it fall before
COOLING = 0.5  # the length of a cool-down, by the steps that led to the best weights


@dataclass
class Plan:
    """The length of a training, as it was decided and recorded.

    segments: (from step, total steps): from that step on the training was to end at that total. There is more than one where
        the machine's speed made minutes cost another number of steps than it had seemed.
    evaluations: how many times the held-out data are scored on the way. seconds: the budget, None where it is in steps.
    most: steps at most, whatever the budget.
    cooling: (step, share): after that step the training went back to its best weights, and the learning rate falls from that
        share of the highest; None where it has not come to that.
    """

    segments: list[tuple[int, int]]
    evaluations: int
    seconds: float | None = None
    most: int | None = None
    cooling: tuple[int, float] | None = None
    training: Training = field(default_factory=Training)

    @property
    def total(self) -> int:
        """Steps of the whole training, as it is planned now."""
        return self.segments[-1][1]

    def progress(self, step: int) -> float:
        """The share of the training that lies behind after `step` steps, 0 to 1."""
        done = 0.0
        for i, (start, total) in enumerate(self.segments):
            end = min(self.segments[i + 1][0], step) if i + 1 < len(self.segments) else step
            if end <= start:
                break
            done += (1 - done) * (end - start) / max(total - start, 1)
        return min(done, 1.0)

    @property
    def rise(self) -> int:
        """Steps over which the learning rate rises."""
        return min(self.training.warmup, max(self.segments[0][1] // 10, 1))

    def rate(self, step: int) -> float:
        """The learning rate of the step after `step` steps: a linear rise; level for half of the budget, or until the held-out
        score stops getting better; then a fall along half a cosine.

        Source: the level and the fall after it, Hägele et al. (2024), section 3; the cosine, Loshchilov, Hutter (2017), equation 5.
        """
        t = self.training
        assert t.learning_rate is not None
        warm = min((step + 1) / self.rise, 1.0) if self.rise else 1.0
        return t.learning_rate * warm * self._share(step)

    def _share(self, step: int) -> float:
        """The learning rate after the rise, as a share of the highest."""
        begin, height = HOLDS, 1.0
        if self.cooling is not None and step >= self.cooling[0]:
            begin, height = self.progress(self.cooling[0]), self.cooling[1]
        fallen = max(self.progress(step) - begin, 0.0) / (1 - begin)
        last = self.training.final_rate
        return last + (height - last) * 0.5 * (1 + math.cos(math.pi * fallen))

    def cool_down(self, step: int, best: int) -> None:
        """After `step` steps, of which `best` led to the best weights, make a short fall of the learning rate what is left."""
        share = self._share(best)
        end = step + max(min(math.ceil(COOLING * best), self.total - step), 1)
        self.segments.append((step, end))
        self.cooling, self.most = (step, share), end

    def cools_down_at(self, step: int) -> bool:
        """Whether the training goes back to its best weights after `step` steps."""
        return self.cooling is not None and self.cooling[0] == step

    def evaluates_at(self, step: int) -> bool:
        """Whether the held-out data are scored after `step` steps: the oftener, the less of the budget lies behind, since few data
        are learned by heart in a small part of it."""
        if step >= self.total:
            return True
        return int(self._scored(step)) > int(self._scored(step - 1))

    def _scored(self, step: int) -> float:
        """How many of the evaluations lie behind after `step` steps."""
        if self.cooling is None or step <= self.cooling[0]:
            return math.sqrt(self.progress(step)) * self.evaluations
        begin = self.cooling[0]
        return int(self._scored(begin)) + (step - begin) / (self.total - begin) * self.evaluations / 3

    def evaluations_left(self, step: int) -> float:
        """How many evaluations there are still to be after `step` steps."""
        return self._scored(self.total) - self._scored(step)

    def looks_at_the_clock(self, step: int) -> bool:
        """Whether, after `step` steps, it is time to see if the budget will be met: fifty times in a training."""
        return self.seconds is not None and int(self.progress(step) * 50) > int(self.progress(step - 1) * 50)

    def replan(self, step: int, elapsed: float, step_s: float, evaluation_s: float) -> bool:
        """Make what is left fit what is left of the budget, where it would miss it by more than a twentieth.

        Args: elapsed: seconds since the training began. step_s, evaluation_s: what one takes now.
        Returns: whether the plan changed.
        """
        left = 1 - self.progress(step)
        if self.seconds is None or step <= self.segments[-1][0] or left < 0.02:
            return False
        time_left = self.seconds - elapsed - self.evaluations_left(step) * evaluation_s
        needed = (self.total - step) * step_s
        if abs(needed - time_left) <= 0.05 * max(time_left, step_s):
            return False
        # even out of time a training lands: the last twentieth lets the learning rate fall
        steps = max(int(time_left / step_s), step // 20, 1)
        if self.most is not None:
            steps = max(min(steps, self.most - step), 1)
        if steps == self.total - step:
            return False
        self.segments.append((step, step + steps))
        return True

    def as_json(self) -> dict[str, Any]:
        """All of it but the settings, which the run has."""
        return {
            "segments": self.segments,
            "evaluations": self.evaluations,
            "seconds": self.seconds,
            "most": self.most,
            "cooling": self.cooling,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any], training: Training) -> Plan:
        """What `as_json` gave."""
        segments = [(int(a), int(b)) for a, b in values["segments"]]
        cooling = None
        if values.get("cooling") is not None:
            step, share = values["cooling"]
            cooling = int(step), float(share)
        return cls(segments, int(values["evaluations"]), values["seconds"], values.get("most"), cooling, training)


def plan_steps(steps: int, batch_tokens: int, scored_tokens: int, training: Training) -> Plan:
    """A plan for a budget in steps; held-out data are scored so often that it costs about a sixth of the training at most.

    Args: batch_tokens: what a step learns from. scored_tokens: what an evaluation reads, at a third of the cost.
    """
    evaluations = max(2, steps * batch_tokens // (2 * scored_tokens))
    return Plan([(0, steps)], min(evaluations, training.evaluations, steps), training=training)


def plan_seconds(
    seconds: float, spent: float, step_s: float, evaluation_s: float, training: Training, most: int | None = None
) -> Plan:
    """A plan for a budget in seconds, of which `spent` are gone; at most a twelfth of it goes into evaluations.

    most: steps at most, whatever the budget.
    """
    evaluations = max(1, min(training.evaluations, int(seconds / 12 / max(evaluation_s, 1e-6))))
    left = seconds - spent - evaluations * evaluation_s
    steps = max(int(left / step_s), 1)
    steps = steps if most is None else max(min(steps, most), 1)
    return Plan([(0, steps)], min(evaluations, steps), seconds, most, training=training)
