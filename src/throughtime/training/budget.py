"""How long to train: a number of steps, which a budget of minutes is turned into and held to."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from throughtime.config import Training


@dataclass
class Plan:
    """The length of a training, as it was decided and recorded.

    segments: (from step, total steps): from that step on the training was to end at that total. There is more than one where
        the machine's speed made minutes cost another number of steps than it had seemed.
    evaluations: how many times the held-out data are scored on the way. seconds: the budget, None where it is in steps.
    most: steps at most, whatever the budget.
    """

    segments: list[tuple[int, int]]
    evaluations: int
    seconds: float | None = None
    most: int | None = None
    training: Training = field(default_factory=Training)

    @property
    def total(self) -> int:
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

    def rate(self, step: int) -> float:
        """The learning rate of the step after `step` steps: a linear rise, then a cosine that ends with the budget.

        Source: the cosine of Loshchilov, Hutter (2017), equation 5, without restarts.
        """
        t = self.training
        assert t.learning_rate is not None
        rise = min(t.warmup, max(self.segments[0][1] // 10, 1))
        warm = min((step + 1) / rise, 1.0) if rise else 1.0
        fall = t.final_rate + (1 - t.final_rate) * 0.5 * (1 + math.cos(math.pi * self.progress(step)))
        return t.learning_rate * warm * fall

    def evaluates_at(self, step: int) -> bool:
        """Whether the held-out data are scored after `step` steps."""
        if step >= self.total:
            return True
        return int(self.progress(step) * self.evaluations) > int(self.progress(step - 1) * self.evaluations)

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
        time_left = self.seconds - elapsed - left * self.evaluations * evaluation_s
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
        return {"segments": self.segments, "evaluations": self.evaluations, "seconds": self.seconds, "most": self.most}

    @classmethod
    def from_json(cls, values: dict[str, Any], training: Training) -> Plan:
        segments = [(int(a), int(b)) for a, b in values["segments"]]
        return cls(segments, int(values["evaluations"]), values["seconds"], values.get("most"), training)


def plan_steps(steps: int, batch_tokens: int, scored_tokens: int, training: Training) -> Plan:
    """A plan for a budget in steps; held-out data are scored so often that it costs about a sixth of the training at most.

    Args: batch_tokens: what a step learns from. scored_tokens: what an evaluation reads, at a third of the cost.
    """
    evaluations = max(2, steps * batch_tokens // (2 * scored_tokens))
    return Plan([(0, steps)], min(evaluations, training.evaluations, steps), None, None, training)


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
    return Plan([(0, steps)], min(evaluations, steps), seconds, most, training)
