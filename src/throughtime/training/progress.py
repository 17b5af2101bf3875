"""What a person sees while a network trains: a bar on a terminal, lines elsewhere, nothing where nobody asked."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.filesize import decimal
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

RECENT = 50  # steps that a pace is told from
FIRST = 3  # steps before which nothing is said of it
OUTLIER = 5  # how many times the median a step takes that does not count
REFRESH = 4  # times a second that a bar is drawn
LINE_EVERY_S = 15.0  # between two lines where there is no bar


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, s = divmod(int(max(seconds, 0)), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


def in_words(score: str) -> str:
    """What a score is called wherever a person reads of it: its name in the JSON, with spaces."""
    return score.replace("_", " ")


class Pace:
    """How fast the last steps were, whatever a few of them took: the first compiles, and another program may have come between.

    known: seconds that a step took before; it counts as some steps.
    """

    def __init__(self, known: float = 0.0) -> None:
        self._seconds = deque([known] * (FIRST if known else 0), maxlen=RECENT)
        self._rates: deque[float] = deque(maxlen=RECENT)

    def add(self, seconds: float, tokens: float) -> None:
        """A step took so many seconds and learned from so many tokens."""
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


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a training stands after a step.

    share: of the budget that is spent, 0 to 1. loss: of the step, in `measure`. rate: `unit` a second, None while neither it nor
    what is left can be told. left_s: seconds. held_out: name and best value of the score that decides, None before the first.
    gradients: the norm of each layer's. memory: after how many steps back 1 % is left of them, a number for each stack.
    """

    share: float
    loss: float
    measure: str
    unit: str
    rate: float | None
    left_s: float
    held_out: tuple[str, float] | None
    gradients: Mapping[str, float]
    memory: str

    def words(self) -> list[str]:
        """What it is in words, the most telling first."""
        found = [f"loss {self.loss:.3f} {self.measure}"]
        if self.held_out is not None:
            name, value = in_words(self.held_out[0]), self.held_out[1]
            of_the_loss = name.startswith(self.measure)
            found.append(f"held out {value:.3f}" if of_the_loss else f"held-out {name} {value:.3f}")
        if self.rate is not None:
            found.append(
                f"{self.rate:,.0f} {self.unit}/s" if self.rate < 1e4 else f"{self.rate / 1e3:,.0f}k {self.unit}/s"
            )
        # the cells', which say whether they still learn through time; all of them stand in metrics.jsonl
        norms = [norm for name, norm in self.gradients.items() if ".cells." in name]
        low, high = (f"{f(norms or [math.hypot(*self.gradients.values())]):.2g}" for f in (min, max))
        found.append(f"gradient norm {low}" + f" to {high}" * (high != low))
        return [*found, f"memory {self.memory} steps"] if self.memory else found


class Bar:
    """A line with a bar, as wide as the terminal and no wider: words that do not fit are left out, from the last on. The bar, the
    per cent and the time are always there."""

    def __init__(self, head: str = "") -> None:
        self.head, self.share, self.words = head, 0.0, list[str]()
        self._began = self._at = time.monotonic()
        self._left_s: float | None = None

    def update(self, share: float, left_s: float | None, words: list[str]) -> None:
        """left_s: seconds, None while that cannot be told."""
        self.share, self._left_s, self.words, self._at = min(share, 1.0), left_s, words, time.monotonic()

    def elapsed(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self._began

    def _time(self) -> str:
        if self._left_s is None:
            return f"{clock(self.elapsed())} so far"
        return f"{clock(self._left_s - (time.monotonic() - self._at))} left"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        size = max(width // 8, 4)
        line = f" {100 * self.share:3.0f} %  {self._time()}"
        room = width - size - cell_len(line)
        head = f"{self.head}  " if self.head else ""
        if cell_len(head) > room:
            head = set_cell_size(self.head, room - 3) + "…  " if room > 6 else ""
        for word in self.words:
            if size + cell_len(f"{head}{line}  {word}") > width:
                break
            line += f"  {word}"
        yield Text(head, end="")
        yield from ProgressBar(1.0, self.share, width=size, pulse=not self.share).__rich_console__(console, options)
        yield Text(line, end="", no_wrap=True, overflow="crop")


class Reporter:
    """Words and bars, on standard error. `show=False` is silence."""

    def __init__(self, show: bool = True) -> None:
        self.show = show
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.live = show and sys.stderr is not None and sys.stderr.isatty()
        self._bar = Bar()
        self._shown: Live | None = None
        self._last_line = -LINE_EVERY_S

    def say(self, text: str) -> None:
        """A line of words."""
        if self.show:
            try:
                self.console.print(text, markup=False, soft_wrap=not self.live)
            except OSError:  # a full disk, a reader that has gone: nothing is to be lost by that
                self.show = False

    @contextmanager
    def counting(self, what: str, total: float, unit: str) -> Iterator[Callable[..., None]]:
        """A bar for work that is counted; yields what to tell of each piece done, with words of where it stands if there are any:
        beside the bar, or where there is none a line of their own now and then.

        Args: unit: "bytes" are shown in kB, MB or GB; "" is not shown.
        """
        if not self.live:
            yield lambda amount, words="": self._now_and_then(f"{what}: {words}") if words else None
            return
        bar, done, told = Bar(what), 0.0, ""
        total = max(total, 1e-9)

        def advance(amount: float, words: str = "") -> None:
            nonlocal done, told
            done, told = done + amount, words or told
            share = min(done / total, 1.0)
            bar.update(
                share,
                bar.elapsed() * (1 / share - 1) if share else None,
                [text for text in (_amount(done, total, unit), told) if text],
            )

        with Live(bar, console=self.console, transient=True, refresh_per_second=REFRESH):
            yield advance

    def __enter__(self) -> Reporter:
        if self.live:
            self._bar = Bar()
            self._shown = Live(self._bar, console=self.console, transient=True, refresh_per_second=REFRESH)
            self._shown.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            self._shown.stop()
            self._shown = None

    def step(self, standing: Standing) -> None:
        """Where the training stands: on the bar, or where there is none in a line now and then."""
        if not self.show:
            return
        left = None if standing.rate is None else standing.left_s
        if self._shown is not None:
            self._bar.update(standing.share, left, standing.words())
        else:
            told = [] if left is None else [f"{clock(left)} left"]
            self._now_and_then("  ".join([f"{100 * standing.share:3.0f} %", *told, *standing.words()]))

    def _now_and_then(self, words: str) -> None:
        if time.monotonic() - self._last_line > LINE_EVERY_S:
            self._last_line = time.monotonic()
            self.say(words)


def _amount(done: float, total: float, unit: str) -> str:
    """So much of so much, in its unit."""
    if unit == "bytes":
        return f"{decimal(int(done))} of {decimal(int(total))}"
    return f"{done:,.0f} of {total:,.0f} {unit}" if unit else ""
