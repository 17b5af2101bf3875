"""What `travel` can do with a series of numbers: go back in it, change a value, and see both futures as curves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from throughtime.cli.futures import Futures
from throughtime.errors import UserError
from throughtime.tasks.futures import Command, given, number

if TYPE_CHECKING:
    from throughtime.tasks.base import Trained
    from throughtime.tasks.series import Series

BARS = "▁▂▃▄▅▆▇█"
MISSING = "·"
SHOWN = 48  # values before the present that are drawn


class SeriesFutures(Futures):
    """A series up to the present, and what is forecast from there: as it was, and with other values."""

    def __init__(self, model: Trained[Any]) -> None:
        self.model = model
        self.series: Series | None = None
        self.changes: dict[int, float] = {}
        self.present = 0

    def commands(self) -> dict[str, Command]:
        """By name, in the order of the help."""
        return {
            "read": Command("FILE [ID]", "A file of series; of several, the one called ID.", self.read),
            "back": Command("[N]", "Go N steps back; 1.", lambda rest: self._go(self.present - number("back", rest, 1))),
            "forward": Command(
                "[N]", "Go N steps forward; 1.", lambda rest: self._go(self.present + number("forward", rest, 1))
            ),
            "go": Command("T", "Go to where T steps are known.", lambda rest: self._go(number("go", rest, None))),
            "set": Command("T VALUE", "Make the value at step T (a number, or its time) another.", self._set),
            "reset": Command("", "Take all changes back.", lambda _: self._reset()),
            "futures": Command("", "What is forecast from here: as it was, and with the changes.", lambda _: self._futures()),
            "show": Command("", "The series.", lambda _: self.shown()),
        }  # fmt: skip

    def read(self, text: str) -> dict[str, Any]:
        """Read a series of a file."""
        name, _, wanted = given("read", "FILE", text).partition(" ")
        found = self.model.task.read(self.model.config, [Path(name)], self.model.task.inspect_options())
        chosen = [one for one in found if one.id == wanted.strip()] if wanted.strip() else found
        if len(chosen) != 1:
            names = ", ".join(one.id for one in found[:5]) + (", …" if len(found) > 5 else "")
            raise UserError(f"read: {name} holds {len(found):,} series ({names}); name one: read {name} ID")
        self.series, self.changes, self.present = chosen[0], {}, len(chosen[0].values)
        return self.shown()

    def shown(self) -> dict[str, Any]:
        """The last values before the present, and which were changed."""
        series = self._read()
        start = max(self.present - SHOWN, 0)
        values = self._changed().values[start : self.present]
        return {
            "series": series.id,
            "present": self.present,
            "time": series.clock.date(self.present - 1),
            "values": [None if np.isnan(v) else float(v) for v in values],
            "changed": {series.clock.date(t): v for t, v in self.changes.items()},
        }

    def _read(self) -> Series:
        if self.series is None:
            raise UserError("no series is read yet: read FILE")
        return self.series

    def _changed(self) -> Series:
        series = self._read()
        values = series.values.copy()
        for t, value in self.changes.items():
            values[t] = value
        return replace(series, values=values)

    def _go(self, position: int) -> dict[str, Any]:
        steps = len(self._read().values)
        if not 1 <= position <= steps:
            raise UserError(f"go: takes 1 to {steps}, got {position}")
        self.present = position
        return self.shown()

    def _set(self, rest: str) -> dict[str, Any]:
        series = self._read()
        at, _, text = given("set", "T VALUE", rest).rpartition(" ")
        try:
            value = float(text)
        except ValueError as error:
            raise UserError(f"set: takes a step and a number, got {rest.strip()!r}") from error
        step = int(at) if at.isdecimal() and not series.clock.counted else series.clock.index(at.strip())
        if step is None or not 0 <= step < len(series.values):
            first, last = series.clock.date(0), series.clock.date(len(series.values) - 1)
            raise UserError(
                f"set: there is no step {at.strip()!r}; they go from 0 to {len(series.values) - 1}, {first} to {last}"
            )
        self.changes[step] = value
        return self._futures()

    def _reset(self) -> dict[str, Any]:
        self.changes = {}
        return self.shown()

    def _futures(self) -> dict[str, Any]:
        series = self._read()
        lines = {"as it was": series} | ({"changed": self._changed()} if self.changes else {})
        options = self.model.task.predict_options()
        futures = {}
        for name, line in lines.items():
            rows = list(self.model.answers([line.upto(self.present)], options))
            futures[name] = [row["forecast"] for row in rows]
        dates = [series.clock.date(self.present + h) for h in range(len(futures["as it was"]))]
        return {"futures": futures, "dates": dates}

    def drawn(self, values: dict[str, Any]) -> Iterator[Any]:
        """The values of a command, as what rich can print."""
        from throughtime.cli import drawing

        if "values" in values:
            known = [v for v in values["values"] if v is not None]
            yield f"{values['series']}, {values['present']} steps, up to {values['time']}"
            yield _bars(values["values"], min(known, default=0.0), max(known, default=1.0))
        elif "futures" in values:
            both = [v for line in values["futures"].values() for v in line]
            low, high = min(both), max(both)
            yield f"{values['dates'][0]} to {values['dates'][-1]}, from {low:.6g} to {high:.6g}"
            width = max(map(len, values["futures"]))
            for name, line in values["futures"].items():
                yield f"{name:<{width}}  {_bars(line, low, high)}"
            if len(values["futures"]) > 1:
                was, now = values["futures"].values()
                apart = max(range(len(was)), key=lambda h: abs(now[h] - was[h]))
                yield f"farthest apart at {values['dates'][apart]}: {was[apart]:.6g} and {now[apart]:.6g}"
        else:
            yield from drawing.other(values)


def _bars(values: list[float | None], low: float, high: float) -> str:
    """A curve on one line."""
    wide = (high - low) or 1.0
    return "".join(
        MISSING if v is None else BARS[min(int((v - low) / wide * len(BARS)), len(BARS) - 1)] for v in values
    )
