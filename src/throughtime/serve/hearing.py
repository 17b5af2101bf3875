"""Sessions of speech: each a stream of samples, kept as those of a past that is told and where it was every few seconds of it."""

from __future__ import annotations

import asyncio
import contextvars
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from throughtime.serve.catalogue import Catalogue, to_the_end
from throughtime.serve.refused import Refused
from throughtime.serve.store import Appended, Elsewhere, Kept, Store
from throughtime.tasks.logmel import DEFAULT
from throughtime.tasks.speech_state import packed, resume, settled
from throughtime.tasks.speech_stream import Event, SpeechSession
from throughtime.tasks.transcribe_model import TranscribeModel

EVERY, AT_LAST = (
    5.0,
    30.0,
)  # seconds of a stream after which where it is is kept: where nothing is lost by it, in any case
WIDTH = 2  # bytes of a sample
END = b"\0\0"  # what stands for the end among the samples


@dataclass(slots=True)
class Stream:
    """A session in memory. kept: the time at which it was kept last."""

    heard: SpeechSession
    time: int
    kept: int


class Hearing(Catalogue):
    """The sessions of a recogniser that hears a stream.

    What has been answered is written before: the samples, and from time to time where the stream is. It goes on from there itself
    then, and so in memory as after a restart. What lies before the last request, and before the past that a session keeps, is
    forgotten; in the rest a request may come again, and the session goes back to any sample.

    Args: name, store, most: as of `Catalogue`. fingerprint: of the model. longest: frames of 10 ms in a request. slots: sessions in
        memory.
    """

    def __init__(
        self, name: str, model: TranscribeModel, fingerprint: str, store: Store, *, most: int, longest: int, slots: int
    ) -> None:
        super().__init__(name, store, fingerprint, most)
        self._model, self._decoding, self._longest, self._slots = model, model.decoding(), longest, slots
        self._live: OrderedDict[str, Stream] = OrderedDict()  # the one that was heard last is the last
        self._steps = self._requests = 0
        self._thread = ThreadPoolExecutor(1, "throughtime-hearing", lambda: torch.set_num_threads(1))

    @property
    def awake(self) -> int:
        return len(self._live)

    @property
    def counted(self) -> tuple[int, int]:
        return self._steps, self._requests

    async def _put_aside(self, id: str) -> None:
        """Its samples since it was kept are heard again."""

    def _sleep(self, id: str) -> None:
        self._live.pop(id, None)

    def close(self) -> None:
        self._thread.shutdown()
        self._live.clear()

    @to_the_end
    async def create(self, owner: str, id: str | None, rate: int, past: float = 0.0) -> str:
        """A new session. past: seconds of it that are kept, at least. Returns: its id."""
        id = self._named(id)
        self._check_quota(owner)
        async with self._held_alone(id):
            self._fresh(rate)
            if not self.store.make(id, owner, self.name, b"", f"{rate} {past}".encode()):
                raise Refused(409, f"there is a session {id!r} already; go on with it, or choose another id")
        return id

    @to_the_end
    async def hear(self, owner: str, id: str, first: int, samples: bytes, last: bool) -> list[Event]:
        """Hear samples, the first of which is number `first` of the session, and perhaps the end, which counts as one more.

        A request that comes twice is answered the same twice, and heard once.
        """
        count = len(samples) // WIDTH
        async with self._held_alone(id):
            kept, time = self._found(id, owner), first + count + last
            most = self._longest * DEFAULT.hop_ms / 1000
            if not count + last > 0 or count > most * self._rate(id):
                raise Refused(
                    413 if count else 400, f"audio: {count} samples; from 1, and up to {most:g} s, in a request"
                )
            if first != kept.time:
                return await self._call(self._once_more, kept, first, samples, last)
            return await self._call(self._heard, kept, time, samples, last)

    async def _call(self, function: Any, *given: Any) -> list[Event]:
        called = contextvars.copy_context().run
        found: list[Event] = await asyncio.get_running_loop().run_in_executor(self._thread, called, function, *given)
        return found

    # ------------------------------------------------------------------------------------------ in the thread that hears

    def _heard(self, kept: Kept, time: int, samples: bytes, last: bool) -> list[Event]:
        stream = self._awake(kept)
        if stream.heard.ended:
            raise Refused(409, f"the session {kept.id!r} has ended at {kept.time}; make another, or rewind it")
        rate, snapshots = self._rate(kept.id), list[tuple[int, bytes]]()
        forgotten = self._before(kept.id, min(kept.time, int(time - self._past(kept.id) * rate)))
        try:
            events = _fed(stream.heard, samples, last)
            passed = (time - stream.kept) / rate
            if last or passed >= AT_LAST or (passed >= EVERY and settled(stream.heard)):
                snapshots = [(time, packed(stream.heard))]
                stream.heard, stream.kept = self._resumed(rate, snapshots[0][1]), time
            record = Appended(kept.id, kept.time, time - kept.time, samples + END * last, tuple(snapshots))
            if self.store.append([record]):
                raise Elsewhere(kept.id)
        except BaseException:  # what was not written was not heard
            self._sleep(kept.id)
            raise
        stream.time = time
        if snapshots and forgotten is not None:
            self.store.trim(kept.id, forgotten[0])
        self._steps, self._requests = self._steps + time - kept.time, self._requests + 1
        return events

    def _once_more(self, kept: Kept, first: int, samples: bytes, last: bool) -> list[Event]:
        """What was answered before, heard again from where it was kept. Raises: Refused where something else was heard."""
        end, (at, state) = first + len(samples) // WIDTH, self.store.before(kept.id, kept.time)
        ended = at == kept.time and self._resumed(self._rate(kept.id), state).ended
        came = kept.time - ended  # samples
        if end <= came and (not last or (ended and end == came)) and self._samples(kept.id, first, end) == samples:
            heard = self._at(kept.id, first)
            if heard is not None:
                return _fed(heard[0], samples, last)
        where = f"first: {first}, but the session has heard {kept.time}: go on from there"
        if first < kept.time:
            known = self.store.first(kept.id)
            where += f", or rewind it to {first}" if first >= known else f"; what lies before {known} is forgotten"
        raise Refused(409, where)

    def _awake(self, kept: Kept) -> Stream:
        """A session in memory."""
        stream = self._live.get(kept.id)
        if stream is None or stream.time != kept.time:
            found = self._at(kept.id, kept.time)
            assert found is not None
            stream = self._live[kept.id] = Stream(found[0], kept.time, found[1])
        self._live.move_to_end(kept.id)
        if len(self._live) > self._slots:
            self._live.popitem(last=False)
        return stream

    def _at(self, id: str, t: int) -> tuple[SpeechSession, int] | None:
        """A session where it was at time t, and when it was kept before that; None where that is forgotten."""
        found = self._before(id, t)
        if found is None:
            return None
        begin, state = found
        heard = self._resumed(self._rate(id), state)
        if t > begin:
            _fed(heard, self._samples(id, begin, t), last=False)
        return heard, begin

    def _samples(self, id: str, start: int, stop: int) -> bytes:
        parts = self.store.inputs(id, start, stop)
        return b"".join(
            rows[max(0, start - first) * WIDTH : (stop - first) * WIDTH] for first, _, rows in parts if first < stop
        )

    def _before(self, id: str, t: int) -> tuple[int, bytes] | None:
        """Where a session was last kept at time t or before; None where that is forgotten."""
        try:
            return self.store.before(id, t)
        except KeyError:
            return None

    def _rate(self, id: str) -> int:
        return int(self.store.beginning(id).split()[0])

    def _past(self, id: str) -> float:
        """Seconds that a session keeps; one of an earlier version says nothing of it."""
        _, *past = self.store.beginning(id).split()
        return float(past[0]) if past else 0.0

    def _fresh(self, rate: int) -> SpeechSession:
        return self._model.session_of(self._decoding, self.name, rate)

    def _resumed(self, rate: int, state: bytes) -> SpeechSession:
        heard = self._fresh(rate)
        if state:
            resume(heard, state)
        return heard


def _fed(heard: SpeechSession, samples: bytes, last: bool) -> list[Event]:
    events = heard.feed(np.frombuffer(samples, "<i2").astype(np.float32) / np.float32(32768)) if samples else []
    return events + (heard.finish() if last else [])
