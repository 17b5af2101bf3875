"""What an experiment is asked to measure. No torch here: `--help` reads this."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from throughtime.errors import UserError

LONGEST = 1_000_000  # lag


@dataclass(frozen=True)
class Asked:
    """What is to be measured; None: as the problem has it.

    lags: rising. minutes or steps: the budget of a cell at a lag, one of the two or neither. hidden: the width of every cell, in
    the place of `parameters`. chrono: whether gates begin with times up to the longest lag (`cells.chrono_`).
    mnist: the folder of the images. spectral_radius: of the recurrent weights, for "exploding".
    Raises: UserError for a value out of range, and for two that exclude one another.
    """

    problem: str
    cells: tuple[str, ...] | None = None
    lags: tuple[int, ...] | None = None
    minutes: float | None = None
    steps: int | None = None
    parameters: int | None = None
    hidden: int | None = None
    learning_rate: float | None = None
    clip: float | None = None
    spectral_radius: float | None = None
    chrono: bool = True
    mnist: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.minutes is not None and self.steps is not None:
            raise UserError("--minutes and --steps are two budgets; give one")
        if self.parameters is not None and self.hidden is not None:
            raise UserError("--parameters and --hidden both say how wide the networks are; give one")
        for name in ("minutes", "learning_rate", "clip", "spectral_radius"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise UserError(f"--{name.replace('_', '-')}: got {value}; it must be over 0")
        for name in ("steps", "parameters", "hidden"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name}: got {value}; at least 1")
        if not 0 <= self.seed < 2**63:
            raise UserError(f"--seed: got {self.seed}; from 0 to 2^63 - 1")
        _check_once("--cells", self.cells)
        _check_once("--lags", self.lags)

    def check_problem(self, least: int, reads_images: bool, explodes: bool) -> None:
        """Whether the options go with the problem. least: its shortest lag. Raises: UserError."""
        if self.lags is not None and reads_images:
            raise UserError(f"--lags: {self.problem} has one length, that of its images; leave it out")
        if self.lags is not None and max(self.lags) > LONGEST:
            raise UserError(f"--lags: got {max(self.lags)}; at most {LONGEST:,}")
        if self.lags is not None and (min(self.lags) < least or list(self.lags) != sorted(self.lags)):
            raise UserError(f"--lags: got {','.join(map(str, self.lags))}; at least {least}, and rising")
        if reads_images and self.mnist is None:
            raise UserError(f"--mnist: {self.problem} reads images; name the folder of train-images-idx3-ubyte.gz")
        if self.mnist is not None and not reads_images:
            raise UserError(f"--mnist: {self.problem} reads no images; it is for the problems mnist and pmnist")
        if self.spectral_radius is not None and not explodes:
            raise UserError(f"--spectral-radius: is for the problem exploding, not {self.problem}")


def _check_once(option: str, values: Sequence[Any] | None) -> None:
    if values is None:
        return
    twice = next((v for i, v in enumerate(values) if v in values[:i]), None)
    if twice is not None or not values:
        raise UserError(f"{option}: {f'{twice} stands there twice' if values else 'got nothing'}")
