"""Pictures of learning curves, drawn once for each kind of training in a process: of another of its kind the same is written."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any


def once_a_kind(draw: Callable[..., str | None]) -> Callable[..., str | None]:
    """`draw_curve`, which draws a curve with the same scores and lines only once. What it says, and refuses, stays as it is; that
    the picture is right is tested with `draw_curve` itself."""
    drawn: dict[Any, bytes] = {}

    @functools.wraps(draw)
    def draw_or_copy(run: Any, decides: str = "loss", **how: Any) -> str | None:
        kind = (decides, how.get("measure"), how.get("loss"), *(how.get("baselines") or ()))
        there = kind in drawn and importlib.util.find_spec("matplotlib") is not None
        if there and sum("loss" in line for line in run.read_metrics()) > 1:
            run.curve.write_bytes(drawn[kind])
            return None
        why = draw(run, decides, **how)
        if why is None:
            drawn[kind] = run.curve.read_bytes()
        return why

    return draw_or_copy
