"""What the streams of a model read, and what they answer: as JSON, and as numbers. A file a task.

Shapes: n steps, I input, N output.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import numpy as np
from torch import Tensor

from throughtime.serve.bodies import Create, Edit, Given, Steps
from throughtime.serve.past import Read
from throughtime.serve.refused import Refused
from throughtime.serve.store import Kept, Store
from throughtime.travel import Engine

Array = np.ndarray[Any, Any]
_SHOWN = dict.fromkeys(("top", "logprobs"), "gives probabilities") | dict.fromkeys(("level", "ahead"), "forecasts")


class Reader(ABC):
    """What streams of a network read and answer.

    Attributes: engine, stack: the network. input: the type of the numbers in one input, as NumPy has it.
    """

    keys: ClassVar[tuple[str, ...]]  # of a request, what may be read
    shows: ClassVar[tuple[str, ...]] = ()  # of a request, what may be asked for besides
    engine: Engine
    stack: Any
    input: np.dtype[Any]

    @staticmethod
    @abstractmethod
    def reads(model: Any) -> bool:
        """Whether it is for streams of a model."""

    @abstractmethod
    def __init__(self, model: Any) -> None:
        """Raises: UserError where the model has no streams, saying why."""

    def begun(self, asked: Create) -> tuple[bytes, Tensor]:
        """What a new session is made of: what is kept of it beside its inputs, and what it has read at once, [n, ...].

        Raises: Refused, UserError.
        """
        if asked.history is not None:
            raise Refused(400, "history: of a model of the task forecast alone; leave it out")
        return b"", self.engine.empty()

    def of(self, kept: Kept, store: Store) -> Self:
        """What reads one session."""
        return self

    def given(self, asked: Given, at: int) -> Tensor:
        """The inputs of a request, from a time on, [n, ...]. Raises: Refused, UserError."""
        said = [key for key in Given.model_fields if getattr(asked, key) is not None]
        if len(said) != 1 or said[0] not in self.keys:
            raise Refused(
                400, f"{' and '.join(said) or 'nothing to read'}: give {' or '.join(self.keys)}, just one of them"
            )
        return self.engine.checked(self.value(asked, at))

    @abstractmethod
    def value(self, asked: Given, at: int) -> Any:
        """What a request says is to be read from a time on, as the engine takes it."""

    def changed(self, asked: Edit) -> Tensor:
        """The one input of an edit, [1, ...]. Raises: Refused, UserError."""
        made = Given(
            text=asked.text,
            tokens=None if asked.token is None else [asked.token],
            inputs=None if asked.input is None else [asked.input],
            values=[asked.value] if "value" in asked.model_fields_set else None,
        )
        found = self.given(made, asked.time)
        if len(found) != 1:
            raise Refused(400, f"edit: one input goes in the place of another, and this is {len(found)}")
        return found

    @abstractmethod
    def answers(self, inputs: Tensor, read: Read, asked: Steps) -> dict[str, Any]:
        """What a request is answered, beside its time, as JSON."""

    @abstractmethod
    def answer(self, top: int) -> np.dtype[Any]:
        """The type of the numbers that answer one step."""

    @abstractmethod
    def numbers(self, outputs: Tensor, top: int) -> Array:
        """The answers after steps of several streams, of their outputs [n, N], as numbers: [n] of the type of `answer`."""

    def unknown(self, asked: Given) -> list[str]:
        """What of a text is read as unknown."""
        return []

    def check(self, asked: Steps) -> None:
        """Raises: Refused where it cannot show what a request asks for."""
        for name, what in _SHOWN.items():
            if getattr(asked, name) and name not in self.shows:
                raise Refused(400, f"{name}: of a model that {what} alone; leave it out")


def finite(value: float) -> float | None:
    """A number as JSON can hold it: to seven digits; None where it is not finite."""
    return float(f"{value:.7g}") if math.isfinite(value) else None
