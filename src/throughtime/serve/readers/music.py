"""Streams of a model of music: notes or moments in; what each cost, and which moments may come next, out.

What a moment is read as depends on all before it: the keys that were struck last, where it lies in its bar. So inputs are made
where nobody else is with the session.
"""

from __future__ import annotations

import asyncio
from typing import Any

import torch
from torch import Tensor

from throughtime.serve.bodies import Edit, Given, Steps
from throughtime.serve.inputs import piece_of
from throughtime.serve.past import Read
from throughtime.serve.readers.reader import Array, Stepwise, finite
from throughtime.serve.refused import Refused
from throughtime.serve.sessions import Sessions
from throughtime.serve.settings import Settings
from throughtime.serve.store import Store
from throughtime.tasks.composing import Composing, Listener, Taste
from throughtime.tasks.moments import Moment
from throughtime.tasks.music_engine import MusicEngine, moments_in
from throughtime.tasks.music_model import MusicModel
from throughtime.tasks.pieces import Piece

FRAMES = "sessions of music read moments, which depend on what was before; send them messages, not frames"


class MusicReader(Stepwise):
    """Of a model of music that goes from moment to moment."""

    keys, shows = ("notes", "moments"), ("top", "logprobs")
    engine: MusicEngine

    @staticmethod
    def reads(model: Any) -> bool:
        return isinstance(model, MusicModel)

    def __init__(self, model: MusicModel) -> None:
        self.engine = model.engine()
        self.stack, self.model = self.engine.stack, model
        self._longest = 0

    def sessions(self, name: str, store: Store, settings: Settings) -> Sessions:
        self._longest = settings.longest
        return super().sessions(name, store, settings)

    async def step(self, sessions: Sessions, owner: str, id: str, asked: Steps) -> dict[str, Any]:
        given = await asyncio.to_thread(self._piece, asked)
        self.check(asked)
        reading = Reading(self, given)
        read = await sessions.steps(owner, id, asked.first, reading)
        shown = await asyncio.to_thread(self._shown, reading, read, asked)
        return {"first": asked.first, "time": asked.first + len(reading.rows), **shown}

    def _piece(self, asked: Given) -> Piece | list[Moment]:
        """What a request says is to be read. Raises: Refused, UserError."""
        if self.given_key(asked) == "moments":
            return [tuple(moment) for moment in asked.moments or []]
        return piece_of(self.model, asked.notes or "", "notes", self._longest)

    def _shown(self, reading: Reading, read: Read, asked: Steps) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if asked.top:
            past = [*reading.before, *moments_in(reading.rows)]
            composing, _ = self.composing(past, read.outputs[-1], Taste())
            found["next"] = [{"notes": words, "p": finite(p)} for words, p in self.engine.next(composing, asked.top)]
        if asked.logprobs:
            assert read.before is not None
            outputs = torch.stack([read.before, *read.outputs[:-1]])
            found["logprobs"] = [finite(-nats) for nats in self.engine.nats(reading.rows, outputs, asked.first)]
        return found

    def composing(self, past: list[Moment], output: Tensor, taste: Taste) -> tuple[Composing, Heard]:
        """A piece in the making, that goes on from moments that were heard, and what takes what it writes. output: [N], of the last
        of them."""
        listener = Heard(output)
        return Composing(self.engine.composer, self.engine.writing, taste, past=past, listener=listener), listener

    async def edit(self, sessions: Sessions, owner: str, id: str, asked: Edit) -> None:
        said = [name for name in ("notes", "moment") if getattr(asked, name) is not None]
        if len(said) != 1 or asked.model_fields_set & {"text", "token", "input", "value"}:
            raise Refused(400, "edit: give notes or moment, just one of them")

        def again(before: Tensor, later: Tensor) -> Tensor:
            moments = moments_in(later)
            put = None if asked.moment is None else tuple(asked.moment)
            moments[0] = self.engine.with_keys(moments[0], asked.time, asked.notes or "") if put is None else put
            return self.engine.rows(moments_in(before), moments)

        await sessions.edit(owner, id, asked.time, input=again)

    def value(self, asked: Given, at: int) -> Any:
        raise Refused(400, FRAMES)

    def answers(self, inputs: Tensor, read: Read, asked: Steps) -> dict[str, Any]:
        raise Refused(400, FRAMES)

    def answer(self, top: int) -> Any:
        raise Refused(400, f"open: {FRAMES}")

    def numbers(self, outputs: Tensor, top: int) -> Array:
        raise Refused(400, FRAMES)


class Reading:
    """What a request reads, made of what was read before it. before: that; rows: what is read, [T, R]; both once it was made."""

    def __init__(self, reader: MusicReader, given: Piece | list[Moment]) -> None:
        self._engine, self._given = reader.engine, given
        self.before: list[Moment] = []
        self.rows = reader.engine.empty()

    def __call__(self, inputs: Tensor) -> Tensor:
        """Raises: UserError where a moment cannot stand there."""
        self.before = moments_in(inputs)
        self.rows = self._engine.rows(self.before, self._engine.given(self._given, self.before, "notes"))
        return self.rows


class Heard(Listener):
    """What a stream has heard, while the next moment is written; row: that moment, as it is to be read."""

    def __init__(self, output: Tensor) -> None:
        self.output = output
        self.row: list[int] = []

    @property
    def heard(self) -> Tensor:
        return self.output.unsqueeze(0)

    def read(self, row: Any) -> None:
        self.row = list(row)
