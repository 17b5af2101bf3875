"""Streams of a recogniser that hears as it comes: samples in; what is heard so far, and utterances once they have ended, out."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Sequence
from typing import Any

from throughtime.errors import UserError
from throughtime.serve.bodies import Create, Steps
from throughtime.serve.hearing import WIDTH, Hearing
from throughtime.serve.readers.reader import Busy, Reader
from throughtime.serve.refused import Refused
from throughtime.serve.settings import Settings
from throughtime.serve.store import Store
from throughtime.tasks.audio import RATE
from throughtime.tasks.speech_stream import Event, Partial
from throughtime.tasks.transcribe_model import TranscribeModel, values_of
from throughtime.travel import Engine

HEAD = struct.Struct("<IIQ")  # of a binary frame: tag, number of the session, first; samples follow


class SpeechReader(Reader):
    """Of a recogniser that hears a stream."""

    keys, shows, begins = ("audio",), ("last",), ("rate", "past")

    @staticmethod
    def reads(model: Any) -> bool:
        return isinstance(model, TranscribeModel)

    def __init__(self, model: TranscribeModel) -> None:
        if not model.config.model.streaming:
            raise UserError(
                "a network that reads from both ends hears whole recordings; train one with --model.streaming"
            )
        self.model = model

    def warm(self) -> None:
        self.model.session()

    def sessions(self, name: str, store: Store, settings: Settings) -> Hearing:
        network: Any = self.model.network
        return Hearing(
            name,
            self.model,
            Engine(network.stack, "auto", network).fingerprint(),
            store,
            most=settings.sessions,
            longest=settings.longest,
            slots=settings.slots,
        )

    async def begin(self, sessions: Hearing, owner: str, asked: Create) -> str:
        return await sessions.create(owner, asked.id, asked.rate or RATE, asked.past or 0.0)

    async def step(self, sessions: Hearing, owner: str, id: str, asked: Steps) -> dict[str, Any]:
        self.check(asked)
        if not asked.last or asked.audio is not None:
            self.given_key(asked)
        samples = _samples(asked.audio or "")
        events = await sessions.hear(owner, id, asked.first, samples, asked.last)
        time = asked.first + len(samples) // WIDTH + asked.last
        return {"first": asked.first, "time": time, "events": [_told(event) for event in events]}

    async def frame(
        self, sessions: Hearing, owner: str, ids: Sequence[str], data: bytes, top: int, busy: Busy
    ) -> dict[str, Any]:
        if len(data) < HEAD.size:
            raise Refused(
                400, f"a frame of {len(data)} bytes; there are at least {HEAD.size}: tag u32, number u32, first u64"
            )
        tag, number, first = HEAD.unpack_from(data)
        if number >= len(ids) or first >= 2**53:
            raise Refused(
                400, f"frame {tag}: session {number}, first {first}; {len(ids)} are open, and first is under 2**53"
            )
        audio = base64.b64encode(data[HEAD.size :]).decode()
        with busy(1):
            return {"session": ids[number]} | await self.step(
                sessions, owner, ids[number], Steps(first=first, audio=audio)
            )


def _samples(audio: str) -> bytes:
    """Raises: Refused where they are none."""
    try:
        found = base64.b64decode(audio, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(
            400, f"audio: is no base64: {error}; send samples of 16 bits so, or to .../audio as they are"
        ) from error
    if len(found) % WIDTH:
        raise Refused(400, f"audio: {len(found)} bytes; a sample has {WIDTH}")
    return found


def _told(event: Event) -> dict[str, Any]:
    """An event as JSON: `partial`, or the text and words of an utterance; times in seconds of the stream."""
    if isinstance(event, Partial):
        return {"partial": event.text, "time": round(event.time, 3)}
    return {name: value for name, value in values_of(event).items() if name != "audio"}
