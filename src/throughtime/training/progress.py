"""What a person sees while a network trains: a bar on a terminal, lines elsewhere, nothing where nobody asked."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

RECENT = 50  # steps that a pace is told from
FIRST = 3  # steps before which nothing is said of it
OUTLIER = 5  # how many times the median a step takes that does not count


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, s = divmod(int(max(seconds, 0)), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


class Pace:
    """How fast the last steps were, whatever a few of them took: the first compiles, and another program may have come between.

    known: seconds that a step took before; it counts as some steps.
    """

    def __init__(self, known: float = 0.0) -> None:
        self._seconds = deque([known] * (FIRST if known else 0), maxlen=RECENT)
        self._rates: deque[float] = deque(maxlen=RECENT)

    def add(self, seconds: float, tokens: float) -> None:
        self._seconds.append(seconds)
        self._rates.append(tokens / max(seconds, 1e-9))

    @property
    def step_s(self) -> float:
        """Seconds a step: the mean, without those that took many times the median."""
        if not self._seconds:
            return 0.0
        usual = statistics.median(self._seconds)
        return statistics.fmean(s for s in self._seconds if s <= OUTLIER * usual)

    @property
    def tokens_s(self) -> float | None:
        """Tokens a second: the median; None while there are too few steps to tell."""
        return statistics.median(self._rates) if len(self._rates) >= FIRST else None


class Reporter:
    """Words and bars, on standard error. `show=False` is silence."""

    def __init__(self, show: bool = True) -> None:
        self.show = show
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.live = show and sys.stderr is not None and sys.stderr.isatty()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._last_line = 0.0

    def say(self, text: str) -> None:
        """A line of words."""
        if self.show:
            try:
                (self._bar.console if self._bar else self.console).print(text, markup=False)
            except OSError:  # a full disk, a reader that has gone: nothing is to be lost by that
                self.show = False

    @contextmanager
    def counting(self, what: str, total: float, unit: str) -> Iterator[Any]:
        """A bar for work that is counted; yields what to tell of each piece done, with words of where it stands if there are any:
        beside the bar, or where there is none a line of their own now and then."""
        if not self.live:
            yield lambda amount, words="": self._now_and_then(f"{what}: {words}") if words else None
            return
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
        with Progress(*columns, TimeElapsedColumn(), console=self.console, transient=True) as bar:
            task = bar.add_task(what, total=max(total, 1))
            yield lambda amount, words="": bar.update(
                task, advance=amount, description=f"{what}: {words}" if words else None
            )

    def __enter__(self) -> Reporter:
        if self.live:
            columns = (
                BarColumn(bar_width=28),
                TextColumn("{task.percentage:>3.0f} %"),
                TextColumn("{task.description}"),
            )
            self._bar = Progress(*columns, console=self.console, transient=True)
            self._bar.start()
            self._task = self._bar.add_task("", total=1.0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None

    def step(
        self,
        share: float,
        loss: float,
        tokens_s: float | None,
        left_s: float,
        valid: float | None,
        gradients: Mapping[str, float],
        memory: str,
    ) -> None:
        """Where the training stands. tokens_s: None while neither it nor what is left can be told. gradients: the norm of each
        layer's. memory: after how many steps back 1 % is left of them."""
        if not self.show:
            return
        words = f"loss {loss:.3f}" + (f"  held out {valid:.3f}" if valid is not None else "")
        # the cells', which say whether they still learn through time; all of them stand in metrics.jsonl
        cells = [f"{norm:.2g}" for name, norm in gradients.items() if ".cells." in name] or [
            f"{math.hypot(*gradients.values()):.2g}"
        ]
        words += f"  gradient {' '.join(cells[:6])}{' …' * (len(cells) > 6)}" + (
            f"  memory {memory} steps" if memory else ""
        )
        if tokens_s is not None:
            words += f"  {tokens_s:,.0f} tokens/s  {clock(left_s)} left"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=share, description=words)
        else:
            self._now_and_then(f"{share:4.0%}  {words}")

    def _now_and_then(self, words: str) -> None:
        if time.monotonic() - self._last_line > 15:
            self._last_line = time.monotonic()
            self.say(words)
