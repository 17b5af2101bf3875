"""What the streams of a model read, and what they answer: as JSON, and as numbers. A file a task.

Shapes: n steps, I input, N output.
"""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from throughtime.serve.bodies import Create, Edit, Given, Steps
from throughtime.serve.catalogue import Catalogue
from throughtime.serve.frames import packed, unpacked
from throughtime.serve.past import Read
from throughtime.serve.refused import Refused
from throughtime.serve.sessions import Sessions
from throughtime.serve.settings import Settings
from throughtime.serve.store import Kept, Store
from throughtime.travel import Engine

Array = np.ndarray[Any, Any]
Busy = Callable[[int], AbstractContextManager[None]]
MANY = 64  # steps whose answers are computed beside what else is served
_BEGUN = {"history": "forecasts", "rate": "transcribes", "past": "transcribes"}
_SHOWN = (
    {"last": "transcribes"}
    | dict.fromkeys(("top", "logprobs"), "gives probabilities")
    | dict.fromkeys(("level", "ahead"), "forecasts")
)


class Reader(ABC):
    """What streams of a model read and answer. A class a task."""

    keys: ClassVar[tuple[str, ...]]  # of a request, what may be read
    shows: ClassVar[tuple[str, ...]] = ()  # of a request, what may be asked for besides
    begins: ClassVar[tuple[str, ...]] = ()  # of a new session, what may be said besides

    @staticmethod
    @abstractmethod
    def reads(model: Any) -> bool:
        """Whether it is for streams of a model."""

    @abstractmethod
    def __init__(self, model: Any) -> None:
        """Raises: UserError where the model has no streams, saying why."""

    @abstractmethod
    def warm(self) -> None:
        """Compile what steps."""

    @abstractmethod
    def sessions(self, name: str, store: Store, settings: Settings) -> Catalogue:
        """The sessions of its model. Raises: UserError where the store has some of another."""

    async def create(self, sessions: Any, owner: str, asked: Create) -> str:
        """A new session. Returns: its id. Raises: Refused, UserError."""
        for name, what in _BEGUN.items():
            if getattr(asked, name) is not None and name not in self.begins:
                raise Refused(400, f"{name}: of a model that {what} alone; leave it out")
        id: str = await self.begin(sessions, owner, asked)
        return id

    @abstractmethod
    async def begin(self, sessions: Any, owner: str, asked: Create) -> str:
        """As `create`, of what has been looked at."""

    def of(self, kept: Kept, store: Store) -> Self:
        """What reads one session."""
        return self

    def given_key(self, asked: Given) -> str:
        """Which key of a request says what is to be read. Raises: Refused where none does, or several."""
        said = [key for key in Given.model_fields if getattr(asked, key) is not None]
        if len(said) != 1 or said[0] not in self.keys:
            raise Refused(
                400, f"{' and '.join(said) or 'nothing to read'}: give {' or '.join(self.keys)}, just one of them"
            )
        return said[0]

    @abstractmethod
    async def step(self, sessions: Any, owner: str, id: str, asked: Steps) -> dict[str, Any]:
        """Let a session read, and say what comes of it. Raises: Refused, UserError."""

    @abstractmethod
    async def frame(
        self, sessions: Any, owner: str, ids: Sequence[str], data: bytes, top: int, busy: Busy
    ) -> bytes | dict[str, Any]:
        """Answer a binary frame. ids: of the sessions, by their number in it. busy: while so many are stepped. Raises: Refused,
        UserError."""

    def check_frames(self, top: int) -> None:
        """Raises: Refused where it takes no binary frames."""
        self.check(Steps(first=0, top=top))

    def check(self, asked: Steps) -> None:
        """Raises: Refused where it cannot show what a request asks for."""
        for name, what in _SHOWN.items():
            if getattr(asked, name) and name not in self.shows:
                raise Refused(400, f"{name}: of a model that {what} alone; leave it out")


class Stepwise(Reader):
    """Of a network whose streams go step by step, all together, and can be gone back in.

    Attributes: engine, stack: the network. input: the type of the numbers in one input, as NumPy has it.
    """

    engine: Engine
    stack: Any
    input: np.dtype[Any]

    def warm(self) -> None:
        streams = self.stack.streams(2)
        streams.step([0, 1], torch.zeros(2, streams.width, dtype=streams.dtype))

    def sessions(self, name: str, store: Store, settings: Settings) -> Sessions:
        streams = self.stack.streams(settings.slots)
        return Sessions(name, self.engine, streams, store, most=settings.sessions, longest=settings.longest)

    async def begin(self, sessions: Sessions, owner: str, asked: Create) -> str:
        about, inputs = await asyncio.to_thread(self.begun, asked)
        return await sessions.create(owner, asked.id, about, inputs)

    def begun(self, asked: Create) -> tuple[bytes, Tensor]:
        """What a new session is made of: what is kept of it beside its inputs, and what it has read at once, [n, ...].

        Raises: Refused, UserError.
        """
        return b"", self.engine.empty()

    async def step(self, sessions: Sessions, owner: str, id: str, asked: Steps) -> dict[str, Any]:
        inputs = self.given(asked, asked.first)
        self.check(asked)
        read = await sessions.steps(owner, id, asked.first, inputs)
        if asked.logprobs and len(inputs) > MANY:
            shown = await asyncio.to_thread(self.answers, inputs, read, asked)
        else:
            shown = self.answers(inputs, read, asked)
        unknown = self.unknown(asked)
        found = {"first": asked.first, "time": asked.first + len(inputs), **shown}
        return found | ({"unknown": unknown} if unknown else {})

    async def frame(
        self, sessions: Sessions, owner: str, ids: Sequence[str], data: bytes, top: int, busy: Busy
    ) -> bytes:
        frame = unpacked(data, self.input)
        if int(frame.number.max()) >= len(ids):
            raise Refused(400, f"frame {frame.tag}: session {frame.number.max()}; {len(ids)} are open")
        those = [ids[number] for number in frame.number.tolist()]
        with busy(len(those)):
            inputs = self.engine.checked(torch.from_numpy(frame.inputs.copy()))
            outputs, refused = await sessions.step_many(owner, those, frame.first.tolist(), inputs)
        status, time = np.full(len(those), 200), frame.first + 1
        answers = self.numbers(outputs, top)
        for i, why in refused.items():
            kept = sessions.store.find(those[i])
            status[i], time[i] = why.status, 0 if kept is None or why.status == 404 else kept.time
            answers[i] = np.zeros(1, self.answer(top))[0]
        return packed(frame, status, time, answers)

    def check_frames(self, top: int) -> None:
        super().check_frames(top)
        self.answer(top)

    def given(self, asked: Given, at: int) -> Tensor:
        """The inputs of a request, from a time on, [n, ...]. Raises: Refused, UserError."""
        self.given_key(asked)
        return self.engine.checked(self.value(asked, at))

    @abstractmethod
    def value(self, asked: Given, at: int) -> Any:
        """What a request says is to be read from a time on, as the engine takes it."""

    async def edit(self, sessions: Sessions, owner: str, id: str, asked: Edit) -> None:
        """Change an input of a session. Raises: Refused, UserError."""
        if asked.notes is not None or asked.moment is not None:
            raise Refused(400, "edit: notes, moment: of a model of music alone; leave them out")
        await sessions.edit(owner, id, asked.time, input=self.changed(asked))

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


def finite(value: float) -> float | None:
    """A number as JSON can hold it: to seven digits; None where it is not finite."""
    return float(f"{value:.7g}") if math.isfinite(value) else None
