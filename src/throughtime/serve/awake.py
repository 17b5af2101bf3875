"""Which sessions have a row in memory, who is alone with one, and how rows are let read.

Those that nobody steps leave memory when others need their rows.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from throughtime.scanning import Streams
from throughtime.serve.batcher import EVERY, Batcher, Job
from throughtime.serve.catalogue import Catalogue, wake_first
from throughtime.serve.moments import Moments
from throughtime.serve.store import Elsewhere, Store
from throughtime.travel import Engine, Moment

SPARE = 8  # rows for what is computed anew
WRITERS = 64  # rows for streams that are of no session


@dataclass(slots=True)
class Live:
    """A session that has a row. begun: whether there is an output of a last step."""

    row: int
    owner: str
    time: int
    begun: bool


def _tell(jobs: Sequence[Job]) -> None:
    for job in jobs:
        if not job.group.done():
            job.group.set_result(None)


class Awake(Catalogue):
    """The rows of one network, and the sessions that have one. Arguments: as of `Sessions`."""

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
        super().__init__(name, store, engine.fingerprint(), most)
        self.engine, self.longest = engine, longest
        self.moments = Moments(engine, streams.width_out)
        rows = range(streams.slots)
        streams.grow(streams.slots + SPARE + WRITERS)
        self.batcher = Batcher(streams, self.moments, store, self._answer)
        self._asked: list[Job] = []  # of this turn of the loop
        self._turned = False  # whether one has stepped in it
        self._free = list(rows)
        self._spare: asyncio.Queue[int] = asyncio.Queue()
        self._writers: asyncio.Queue[int] = asyncio.Queue()
        for row in range(len(rows), streams.slots):
            (self._spare if row < len(rows) + SPARE else self._writers).put_nowait(row)
        self._outputs = torch.zeros(len(rows), streams.width_out, dtype=streams.dtype)  # of the last step, by row
        self._live: OrderedDict[str, Live] = OrderedDict()  # the one that was stepped last is the last
        self._without_row: deque[asyncio.Future[None]] = deque()

    @property
    def awake(self) -> int:
        """How many sessions have a row."""
        return len(self._live)

    def _release(self, id: str) -> None:
        super()._release(id)
        if self._without_row and id not in self._held:
            wake_first(self._without_row)

    @property
    def counted(self) -> tuple[int, int]:
        return self.batcher.steps, self.batcher.ticks

    @asynccontextmanager
    async def _row(self, moment: Moment, rows: asyncio.Queue[int] | None = None) -> AsyncIterator[int]:
        """A row in the state of a moment, for as long as it is needed. It is none of those that sessions have, or who has one and
        needs another would wait for ever."""
        rows = self._spare if rows is None else rows
        row = await rows.get()
        try:
            await self._call(lambda streams: streams.put(row, list(moment.state)))
            yield row
        finally:
            rows.put_nowait(row)

    async def _take_row(self) -> int:
        while not self._free:
            idle = next((id for id in self._live if id not in self._held), None)
            if idle is None:
                turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._without_row.append(turn)
                await turn
                continue
            async with self._alone(idle):  # at once, since nobody is; whoever comes meanwhile finds it written
                live = self._live.pop(idle)
                try:
                    with contextlib.suppress(Elsewhere):
                        await self._keep(idle, live)
                finally:
                    self._free.append(live.row)
        return self._free.pop()

    async def _keep(self, id: str, live: Live) -> None:
        """Write the state of a session that leaves memory, so that it comes back in one read."""
        if live.time % EVERY:
            state = await self._call(lambda streams: streams.take(live.row))
            self.store.keep(id, live.time, self.moments.packed(Moment(tuple(state), self._output(live))))

    async def _put_aside(self, id: str) -> None:
        live = self._live.get(id)
        if live is not None:
            await self._keep(id, live)

    def _output(self, live: Live) -> Tensor | None:
        return self._outputs[live.row].clone() if live.begun else None

    def _sleep(self, id: str) -> None:
        """Forget the row of a session whose past has changed."""
        live = self._live.pop(id, None)
        if live is not None:
            self._free.append(live.row)
            wake_first(self._without_row)

    async def _call(self, function: Any) -> Any:
        called = self.batcher.call(function)
        return called.result() if called.done() else await asyncio.wrap_future(called)

    async def _run(self, job: Job) -> list[Tensor]:
        """Let a stream read. Returns: the output of each step, [N]."""
        await self._run_all(job)
        return [output[0] for output in job.outputs]

    async def _run_all(self, job: Job) -> None:
        """Let streams read. What is asked for in one turn of the loop goes its first step together."""
        loop = asyncio.get_running_loop()
        job.group = loop.create_future()
        if not self._asked:
            loop.call_soon(self._ask)
        self._asked.append(job)
        await job.group
        if job.error is not None:
            raise job.error

    def _first_of_turn(self) -> bool:
        """Whether nobody has asked this before in this turn of the loop: who comes later may go together."""
        if self._turned:
            return False
        self._turned = True
        asyncio.get_running_loop().call_soon(self._turn)
        return True

    def _turn(self) -> None:
        self._turned = False

    def _ask(self) -> None:
        self.batcher.run(self._asked)
        self._asked = []

    def _answer(self, jobs: Sequence[Job]) -> None:
        """Tell those who wait, by one call for all; from whichever thread."""
        loop = jobs[0].group.get_loop()
        with contextlib.suppress(RuntimeError):  # no loop runs in this thread
            if asyncio.get_running_loop() is loop:
                _tell(jobs)
                return
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(_tell, jobs)

    def _prepared(self, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            return self.engine.prepared(inputs).contiguous()

    def _unwritten(self, row: int, inputs: Tensor, *, traced: bool = False) -> Job:
        return Job([row], [0], self._prepared(inputs).unsqueeze(1), None, traced)

    def close(self) -> None:
        """Come to the end of what is being read."""
        self.batcher.close()
