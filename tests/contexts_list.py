"""The contexts of PyTorch in which a layer may find itself: each a function that runs a layer there and returns what came out.

The function does not know whose layer it runs. What it returns is compared, ours with torch.nn's or a loop's, so it returns
whatever ought to be the same: numbers, gradients, how often a hook was called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.func import functional_call

from contexts_subjects import Case


@dataclass(frozen=True)
class Context:
    """One row of the table.

    double: in float64. alike: only shapes, types and devices can be compared. only: subjects it is run for; None: all.
    temperatures: cold, warm or both. missing: why it cannot be run here. slow: takes seconds, and is left out of the quick run.
    right: gives what is right by plain calls, where torch.nn's layer is not one to compare with; None: `run` does.
    """

    name: str
    group: str
    run: Callable[[Case], Any]
    double: bool = False
    alike: bool = False
    tolerance: float = 1e-5
    only: tuple[str, ...] | None = None
    temperatures: tuple[str, ...] = ("cold", "warm")
    missing: str | None = None
    slow: bool = False
    right: Callable[[Case], Any] | None = None


CONTEXTS: list[Context] = []


def context(group: str, name: str, **options: Any) -> Callable[[Callable[[Case], Any]], Callable[[Case], Any]]:
    def add(run: Callable[[Case], Any]) -> Callable[[Case], Any]:
        CONTEXTS.append(Context(name, group, run, **options))
        return run

    return add


def called(case: Case, weights: dict[str, Tensor], x: Tensor) -> Tensor:
    return functional_call(case.layer, weights, (x,))[0]
