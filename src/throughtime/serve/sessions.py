"""Sessions over HTTP or anything else: each a log of inputs, whatever connection they come by."""

from __future__ import annotations

import asyncio
import itertools
import re
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from throughtime.cells import State
from throughtime.scanning import Streams
from throughtime.serve.batcher import EVERY, Batcher, Job
from throughtime.serve.moments import Moments
from throughtime.serve.store import Appended, Kept, Store
from throughtime.travel import Difference, Engine, Moment
from throughtime.travel.difference import difference

SPARE = 8  # rows for what is computed anew
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}", re.ASCII)  # of a session


class Refused(Exception):
    """What cannot be done, as an API answers it. status: of HTTP. The message says what, where, and what to do."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class _Live:
    """A session that has a row. output: of its last step."""

    row: int
    time: int
    output: Tensor | None


class Sessions:
    """The sessions of one network.

    A request names the number of its first step, so that one that comes twice changes nothing the second time and gets the same
    numbers. Sessions that nobody steps leave memory and come back when they are.

    Args: name: of the model. engine: of the trained model or the stack. streams: a table of rows for those that are awake.
        store: where they are kept. most: how many an owner may have. longest: how many steps a request may have.
    Raises, all verbs: Refused.
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        streams: Streams,
        store: Store,
        *,
        most: int = 1_000_000,
        longest: int = 100_000,
    ) -> None:
        self.name, self.engine, self.store = name, engine, store
        self.most, self.longest = most, longest
        self.moments = Moments(engine, streams.width_out)
        self.batcher = Batcher(streams, self.moments, store)
        store.check_model(name, engine.fingerprint())
        rows = range(streams.slots)
        streams.grow(streams.slots + SPARE)
        self._free = list(rows)
        self._spare: asyncio.Queue[int] = asyncio.Queue()
        for row in range(len(rows), streams.slots):
            self._spare.put_nowait(row)
        self._live: OrderedDict[str, _Live] = OrderedDict()  # the one that was stepped last is the last
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}
        self._row_freed = asyncio.Condition()

    # ------------------------------------------------------------------------------------------ one after the other

    @asynccontextmanager
    async def _held(self, *ids: str) -> AsyncIterator[None]:
        """Alone with some sessions: what comes meanwhile waits. Taken in order, so that nobody waits for ever."""
        taken = []
        for id in sorted(set(ids)):
            lock, waiting = self._locks.get(id, (asyncio.Lock(), 0))
            self._locks[id] = lock, waiting + 1
            taken.append((id, lock))
        held = []
        try:
            for _, lock in taken:
                await lock.acquire()
                held.append(lock)
            yield
        finally:
            for lock in held:
                lock.release()
            for id, lock in taken:
                left = self._locks[id][1] - 1
                if left:
                    self._locks[id] = lock, left
                else:
                    del self._locks[id]
            async with self._row_freed:  # its row may be had by another now
                self._row_freed.notify()

    def _found(self, id: str, owner: str) -> Kept:
        kept = self.store.find(id)
        if kept is None or kept.owner != owner or kept.model != self.name:
            raise Refused(404, f"there is no session {id!r}; make it by POST /v1/sessions")
        return kept

    # ------------------------------------------------------------------------------------------ rows

    @asynccontextmanager
    async def _row(self, moment: Moment) -> AsyncIterator[int]:
        """A row in the state of a moment, for as long as it is needed. It is none of those that sessions have, or who has one and
        needs another would wait for ever."""
        row = await self._spare.get()
        try:
            await self._call(lambda streams: streams.put(row, list(moment.state)))
            yield row
        finally:
            self._spare.put_nowait(row)

    async def _take_row(self) -> int:
        async with self._row_freed:
            while not self._free:
                idle = next((id for id in self._live if id not in self._locks), None)
                if idle is None:
                    await self._row_freed.wait()
                    continue
                live = self._live.pop(idle)
                await self._keep(idle, live)
                self._free.append(live.row)
            return self._free.pop()

    async def _give_row(self, row: int) -> None:
        async with self._row_freed:
            self._free.append(row)
            self._row_freed.notify()

    async def _keep(self, id: str, live: _Live) -> None:
        """Write the state of a session that leaves memory, so that it comes back in one read."""
        if live.time % EVERY:
            state = await self._call(lambda streams: streams.take(live.row))
            self.store.keep(id, live.time, self.moments.packed(Moment(tuple(state), live.output)))

    async def _wake(self, id: str, kept: Kept) -> _Live:
        """A session with its row."""
        live = self._live.get(id)
        if live is not None:
            self._live.move_to_end(id)
            return live
        moment = await self._moment(id, kept.time)
        row = await self._take_row()
        await self._call(lambda streams: streams.put(row, list(moment.state)))
        made = self._live[id] = _Live(row, kept.time, moment.output)
        return made

    async def _sleep(self, id: str) -> None:
        """Forget the row of a session whose past has changed."""
        live = self._live.pop(id, None)
        if live is not None:
            await self._give_row(live.row)

    async def _call(self, function: Any) -> Any:
        return await asyncio.wrap_future(self.batcher.call(function))

    # ------------------------------------------------------------------------------------------ moments of the past

    async def _moment(self, id: str, t: int) -> Moment:
        """Where a session was at time t, computed anew from the state before that is kept."""
        start, data = self.store.before(id, t)
        moment = self.moments.unpacked(data)
        if start == t:
            return moment
        outputs, state = await self._again(moment, self._inputs(id, start, t))
        return Moment(state, outputs[-1])

    async def _again(self, moment: Moment, inputs: Tensor) -> tuple[Tensor, tuple[State, ...]]:
        """What comes of reading inputs from a moment on, written nowhere: the outputs, and the state at the end."""
        async with self._row(moment) as row:
            outputs = await asyncio.wrap_future(self.batcher.run(Job(row, 0, self._prepared(inputs), None)))
            return outputs, tuple(await self._call(lambda streams: streams.take(row)))

    def _inputs(self, id: str, start: int, stop: int) -> Tensor:
        """The inputs from time start to stop."""
        like = self.engine.empty()
        parts = []
        for first, count, rows in self.store.inputs(id, start, stop):
            part = torch.frombuffer(bytearray(rows), dtype=like.dtype).view(count, *like.shape[1:])
            parts.append(part[max(0, start - first) : stop - first])
        return torch.cat(parts) if parts else like

    def _prepared(self, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            return self.engine.prepared(inputs).contiguous()

    # ------------------------------------------------------------------------------------------ verbs

    async def create(self, owner: str, id: str | None = None) -> str:
        """A new session. id: one's own name for it. Returns: its id. One that there is already is an error (409)."""
        id = secrets.token_urlsafe(12).replace("-", "x").replace("_", "y") if id is None else id
        if not NAME.fullmatch(id):
            raise Refused(
                400, f"id: {id[:40]!r}: letters, digits, '_', '.', ':' and '-', up to 128, the first a letter or digit"
            )
        if self.store.count(owner) >= self.most:
            raise Refused(429, f"there are {self.most} sessions already; delete some")
        if not self.store.make(id, owner, self.name, self.moments.packed(self.engine.first())):
            raise Refused(409, f"there is a session {id!r} already; go on with it, or choose another id")
        return id

    async def about(self, owner: str, id: str) -> Kept:
        """What the catalogue says of a session."""
        return self._found(id, owner)

    async def delete(self, owner: str, id: str) -> None:
        """Forget a session."""
        async with self._held(id):
            self._found(id, owner)
            await self._sleep(id)
            self.store.drop(id)

    async def steps(self, owner: str, id: str, first: int, inputs: Tensor) -> Tensor:
        """Read inputs, the first of which is number `first` of the session. Returns: the outputs, [n, N].

        Inputs that it has read already, all of them and the same ones, give the same numbers again.
        """
        if not 1 <= len(inputs) <= self.longest:
            raise Refused(
                413 if len(inputs) else 400, f"inputs: {len(inputs)} of them; from 1 to {self.longest} in a request"
            )
        async with self._held(id):
            kept = self._found(id, owner)
            if first + len(inputs) <= kept.time and torch.equal(self._inputs(id, first, first + len(inputs)), inputs):
                return (await self._again(await self._moment(id, first), inputs))[0]
            if first != kept.time:
                raise Refused(
                    409,
                    f"first: {first}, but the session has read {kept.time}: go on from there, or rewind it to {first}",
                )
            live = await self._wake(id, kept)
            job = Job(live.row, first, self._prepared(inputs), (id, inputs.contiguous().numpy().tobytes()))
            try:
                outputs = await asyncio.wrap_future(self.batcher.run(job))
            except BaseException:  # what was not written was not read
                await self._sleep(id)
                raise
            live.time, live.output = first + len(inputs), outputs[-1]
            return outputs

    async def moment(self, owner: str, id: str, t: int | None = None) -> tuple[int, Moment]:
        """Where a session is, or was at time t: the time, and the moment."""
        async with self._held(id):
            kept = self._found(id, owner)
            t = self._checked(kept, kept.time if t is None else t)
            return t, await self._moment(id, t)

    async def rewind(self, owner: str, id: str, t: int) -> None:
        """Go back to time t; what came after it is forgotten (branch first to keep it)."""
        async with self._held(id):
            self._checked(self._found(id, owner), t)
            await self._sleep(id)
            self.store.cut(id, t)

    async def branch(self, owner: str, id: str, other: str | None = None, t: int | None = None) -> str:
        """Another session with the same past, up to time t. Returns: its id."""
        other = secrets.token_urlsafe(12).replace("-", "x").replace("_", "y") if other is None else other
        if not NAME.fullmatch(other):
            raise Refused(400, f"id: {other[:40]!r} is no name for a session")
        async with self._held(id, other):
            t = self._checked(kept := self._found(id, owner), kept.time if t is None else t)
            if not self.store.branch(id, other, owner):
                raise Refused(409, f"there is a session {other!r} already; choose another id")
            if t < kept.time:
                self.store.cut(other, t)
        return other

    async def edit(
        self, owner: str, id: str, t: int, *, input: Tensor | None = None, state: Sequence[State] | None = None
    ) -> None:
        """Change the input that was read at time t, [1, ...], or the state there; all later inputs are read again."""
        if (input is None) == (state is None):
            raise Refused(400, "edit: give an input or a state, just one of them")
        async with self._held(id):
            kept = self._found(id, owner)
            if not 0 <= t <= kept.time - (input is not None):
                raise Refused(
                    400, f"time: {t}; the session has read {kept.time}, so from 0 to {kept.time - (input is not None)}"
                )
            await self._sleep(id)
            later = self._inputs(id, t, kept.time)
            edits = self.store.edits(id, t)
            moment = await self._moment(id, t)
            if input is not None:
                later = torch.cat([input.to(later.dtype), later[1:]])
            else:
                assert state is not None
                moment = Moment(tuple(state), moment.output)
                edits[t] = self.moments.packed(moment)
            records = await self._read_again(id, t, moment, later, edits)
            self.store.rewrite(id, t, records, edits)

    async def _read_again(
        self, id: str, t: int, moment: Moment, inputs: Tensor, edits: dict[int, bytes]
    ) -> list[Appended]:
        """The records of inputs that are read from time t on, by pieces between snapshots and states that were put in."""
        records = []
        end = t + len(inputs)
        borders = sorted({t, end, *range(t + EVERY - t % EVERY, end, EVERY), *(at for at in edits if t < at < end)})
        for start, stop in itertools.pairwise(borders):
            part = inputs[start - t : stop - t]
            outputs, state = await self._again(moment, part)
            moment = Moment(state, outputs[-1])
            snapshots = ((stop, self.moments.packed(moment)),)
            records.append(Appended(id, start, len(part), part.contiguous().numpy().tobytes(), snapshots))
            if stop in edits:  # its state is another one; what led there stays
                moment = Moment(self.moments.unpacked(edits[stop]).state, outputs[-1])
                edits[stop] = self.moments.packed(moment)
        return records

    async def diff(self, owner: str, id: str, other: str, start: int, stop: int) -> Difference:
        """Where and how far two sessions part, between two times that both have."""
        async with self._held(id, other):
            for kept in (self._found(id, owner), self._found(other, owner)):
                self._checked(kept, start)
                self._checked(kept, stop)
            pairs = []
            for t in range(start, stop + 1):
                pairs.append(((t, t), await self._moment(id, t), await self._moment(other, t)))
            return difference(self.engine, pairs)

    def _checked(self, kept: Kept, t: int) -> int:
        if not 0 <= t <= kept.time:
            raise Refused(400, f"time: {t}; the session has read {kept.time}, so from 0 to {kept.time}")
        return t

    def close(self) -> None:
        """Come to the end of what is being read."""
        self.batcher.close()
