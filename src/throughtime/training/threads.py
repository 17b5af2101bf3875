"""How many threads a training computes with: those that are quickest now, on this machine, beside whatever else runs there.

PyTorch's operations end when every one of their threads has come to their end. Beside a busy program one always comes late, and a
step with hundreds of operations takes many times as long as with one thread. So the choice is measured, at first and later on.
Sums of PyTorch's may depend on the number of threads in their last digits: it stands in the checkpoint, and a change is said.
"""

from __future__ import annotations

import os
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from throughtime.errors import UserError

WINDOW = 11  # steps whose median counts
FEW = 5  # of them that are enough where the difference is large
SLOWER, MUCH_SLOWER = 1.25, 2.0  # than with one thread: then one thread fewer is tried
QUICKER = 0.9  # of the time before: then what was tried is kept
FEWER, MORE = -1, 1
AGAIN_S, LATEST_S = 60.0, 600.0  # from one trial to the next


class Wait:
    """The time until the same is tried again: twice as long after each try."""

    def __init__(self) -> None:
        self._until, self._pause = 0.0, AGAIN_S

    def begin(self, now: float) -> None:
        """Wait from now on, seconds of a clock."""
        self._until = now + self._pause
        self._pause = min(2 * self._pause, LATEST_S)

    def over(self, now: float) -> bool:
        """Whether the same may be tried again."""
        return now >= self._until


class Threads:
    """The threads of one training.

    most: as many as there may be. fixed: whether there are to be so many whatever happens. now: a clock.
    """

    def __init__(self, most: int, fixed: bool = False, now: Callable[[], float] = time.monotonic) -> None:
        self.most, self.fixed, self._now = most, fixed or most == 1, now
        self.count = most
        self.alone: float | None = None  # seconds that a token takes with one thread, where that was measured
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._before: tuple[int, float] | None = None  # in a trial: the threads before it, and seconds a token
        self._waits = {FEWER: Wait(), MORE: Wait()}

    def set(self, count: int) -> None:
        """Compute with so many from now on."""
        self.count = count
        self._recent.clear()
        import torch

        torch.set_num_threads(count)

    def choose(self, times: dict[int, float]) -> str:
        """Take the quickest number of threads, or fewer where they are nearly as quick. times: seconds a token, with so many.

        Returns: what was chosen, in words.
        """
        self.alone = times[1]
        least = min(times.values())
        self.set(min(count for count, took in times.items() if took * QUICKER <= least))
        self._waits[MORE].begin(self._now())
        measured = ", ".join(f"{1 / took:,.0f} tokens/s with {count}" for count, took in sorted(times.items()))
        return f"threads: {self.count} ({measured})"

    def after_step(self, seconds: float, tokens: float) -> str | None:
        """Take account of a step; try one thread fewer where steps are slow, one more when there was time enough.

        Returns: where the number of threads has changed for good, why, in words.
        """
        if self.fixed or self.alone is None or self.most == 1 or tokens <= 0:
            return None
        self._recent.append(seconds / tokens)
        took, now = statistics.median(self._recent), self._now()
        standard = self._before[1] if self._before else self.alone
        if len(self._recent) < (FEW if took > MUCH_SLOWER * standard else WINDOW):
            return None
        if self._before is not None:
            return self._after_trial(took, *self._before)
        if self.count > 1 and took > SLOWER * self.alone and self._waits[FEWER].over(now):
            self._try(FEWER, took)
        elif self.count < self.most and self._waits[MORE].over(now):
            self._try(MORE, took)
        return None

    def _try(self, step: int, took: float) -> None:
        self._before = (self.count, took)
        self.set(self.count + step)

    def _after_trial(self, took: float, count: int, before: float) -> str | None:
        """Keep the threads that were tried, or go back."""
        self._before = None
        step = self.count - count
        if took >= QUICKER * before:
            self.set(count)
            self._waits[step].begin(self._now())
            return None
        self._waits[step] = Wait()
        if step == FEWER:
            self._waits[MORE].begin(self._now())
        self.set(self.count)
        return f"threads: {self.count} from now on, {1 / took:,.0f} tokens/s; with {count} it was {1 / before:,.0f}"

    def as_json(self) -> dict[str, Any]:
        """In the midst of a trial: what was before it."""
        return {"count": self._before[0] if self._before else self.count, "most": self.most, "alone": self.alone}

    def go_on(self, values: dict[str, Any]) -> None:
        """Take up what was recorded, with no more threads than there may be now."""
        if self.fixed:
            return
        self.most, self.alone = min(int(values["most"]), self.most), values["alone"]
        self.set(min(int(values["count"]), self.most))
        self._waits[MORE].begin(self._now())


def check_threads(asked: int | None) -> None:
    """Raises: UserError for more threads than there are cores."""
    cores = os.cpu_count() or 1
    if asked is not None and asked > cores:
        raise UserError(f"training.threads: got {asked}; from 1 to {cores}, as many as there are cores here")


@contextmanager
def threads_restored() -> Iterator[None]:
    """Puts back the number of PyTorch's threads that was before."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
