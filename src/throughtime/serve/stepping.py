"""How sessions read: a request of one, a frame of many, and a text that is written as it is drawn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from throughtime.serve.awake import Live
from throughtime.serve.batcher import Job
from throughtime.serve.catalogue import to_the_end
from throughtime.serve.past import Past, Read
from throughtime.serve.refused import Refused
from throughtime.serve.store import Elsewhere, Kept

Made = Callable[[Tensor], Tensor]  # of all inputs before: those that are read then


@dataclass(slots=True)
class Writing:
    """A stream that somebody is alone with and that reads what is drawn for it. last: gives so many of the last inputs that it had
    read at first; None: all. output: of the last step. read: lets it read more, and gives the outputs, [n] of [N]. time: how many
    inputs have been read."""

    last: Callable[[int | None], Tensor]
    output: Tensor | None
    time: int
    _steps: Callable[[Tensor], Awaitable[list[Tensor]]]

    async def read(self, inputs: Tensor) -> list[Tensor]:
        """Read inputs, at least one. Returns: the outputs."""
        outputs = await self._steps(inputs)
        self.time, self.output = self.time + len(inputs), outputs[-1]
        return outputs


def _from_elsewhere(first: int, kept: Kept) -> Refused:
    return Refused(
        409, f"first: {first}, but the session has read {kept.time}: go on from there, or rewind it to {first}"
    )


class Stepping(Past):
    """Sessions that read on. Arguments and errors: as of `Sessions`."""

    async def steps(self, owner: str, id: str, first: int, inputs: Tensor | Made) -> Read:
        """Read inputs, the first of which is number `first` of the session; or what is made of all that it has read before.

        Inputs that it has read already, all of them and the same ones, give the same numbers again.
        """
        if not isinstance(inputs, Tensor):
            return await self._steps(owner, id, first, inputs)
        live = self._live.get(id)
        alone = live is not None and (live.owner, live.time) == (owner, first) and id not in self._held
        alone = alone and self.store.owns(id)
        if live is not None and alone and len(inputs) == 1 and self._first_of_turn() and self.batcher.idle:
            before, job = self._output(live), self._job(live, id, inputs)
            if self.batcher.now([job]):  # nobody else has had a turn meanwhile, so that nothing had to be held
                if job.error is not None:
                    self._sleep(id)
                    raise job.error
                self._live.move_to_end(id)
                return Read(before, self._stepped(live, job))
        return await self._steps(owner, id, first, inputs)

    @to_the_end
    async def _steps(self, owner: str, id: str, first: int, inputs: Tensor | Made) -> Read:
        if isinstance(inputs, Tensor):
            self._check_length(inputs)
        async with self._held_alone(id):
            kept = self._found(id, owner)
            if not isinstance(inputs, Tensor):
                if first > kept.time:
                    raise _from_elsewhere(first, kept)
                inputs = await asyncio.to_thread(inputs, self._inputs(id, 0, first))
                self._check_length(inputs)
            if first + len(inputs) <= kept.time and torch.equal(self._inputs(id, first, first + len(inputs)), inputs):
                read = await self._once_more(id, first, inputs)
                self._check_own(id)
                return read
            if first != kept.time:
                raise _from_elsewhere(first, kept)
            live = await self._wake(kept)
            before = self._output(live)
            return Read(before, await self._step(live, id, inputs))

    async def _step(self, live: Live, id: str, inputs: Tensor) -> list[Tensor]:
        job = self._job(live, id, inputs)
        try:
            await self._run_all(job)
        except BaseException:  # what was not written was not read
            self._sleep(id)
            raise
        return self._stepped(live, job)

    def _job(self, live: Live, id: str, inputs: Tensor) -> Job:
        record = (id, inputs.contiguous().numpy().tobytes())
        return Job([live.row], [live.time], self._prepared(inputs).unsqueeze(1), [record])

    def _stepped(self, live: Live, job: Job) -> list[Tensor]:
        for id in job.lost:
            self._sleep(id)
            raise Elsewhere(id)
        live.time, live.begun = live.time + len(job.x), True
        self._outputs[live.row] = job.outputs[-1][0]
        return [output[0] for output in job.outputs]

    @asynccontextmanager
    async def write_on(self, owner: str, id: str, first: int | None = None) -> AsyncIterator[Writing]:
        """Alone with a session, to write on from where it is; all that it reads belongs to it. To be left between two reads alone.
        first: how many inputs it must have read; None: any number."""
        async with self._held_alone(id):
            kept = self._found(id, owner)
            if first not in (None, kept.time):
                raise Refused(
                    409, f"first: {first}, but the session has read {kept.time}: go on from there, or rewind it"
                )
            live = await self._wake(kept)
            output, last = self._output(live), partial(self._last, id, kept.time)
            yield Writing(last, output, kept.time, lambda inputs: self._step(live, id, inputs))

    @asynccontextmanager
    async def write_again(self, owner: str, id: str, first: int) -> AsyncIterator[Writing]:
        """A stream that goes over again what a session has read from time `first` on, and then on from there, where the session
        reads along; what it has not read there is refused. To be left between two reads alone."""
        async with self._held_alone(id):
            kept = self._found(id, owner)
            if first > kept.time:
                raise _from_elsewhere(first, kept)
            moment = await self._moment(id, first)
            async with self._row(moment) as row:

                async def read(inputs: Tensor) -> list[Tensor]:
                    if stream.time >= kept.time:
                        return await self._step(await self._wake(kept), id, inputs)
                    if not torch.equal(self._inputs(id, stream.time, stream.time + len(inputs)), inputs):
                        raise Refused(
                            409, f"first: {first}; what the session has read from there on is not what would be written"
                        )
                    return await self._run(self._unwritten(row, inputs))

                stream = Writing(partial(self._last, id, first), moment.output, first, read)
                yield stream
                self._check_own(id)

    def _last(self, id: str, t: int, count: int | None) -> Tensor:
        """The last inputs before time t, at most `count`; None: all."""
        return self._inputs(id, 0 if count is None else max(t - count, 0), t)

    @asynccontextmanager
    async def write_anew(self) -> AsyncIterator[Writing]:
        """A stream of no session, from the beginning. To be left between two reads alone."""
        first = self.engine.first()
        async with self._row(first, self._writers) as row:
            yield Writing(
                lambda count: self.engine.empty(),
                first.output,
                0,
                lambda inputs: self._run(self._unwritten(row, inputs)),
            )

    async def step_many(
        self, owner: str, ids: Sequence[str], firsts: Sequence[int], inputs: Tensor
    ) -> tuple[Tensor, dict[int, Refused]]:
        """A step of many sessions at once: what `steps` does with one input each, and less ado.

        Returns: the outputs, [n, N], and by their places those that are refused; their outputs are 0.
        """
        ready: list[int] = []
        lives: list[Live] = []
        other: list[int] = []
        for i, (id, first) in enumerate(zip(ids, firsts, strict=True)):
            live = self._live.get(id)
            ready_now = live is not None and (live.time, live.owner) == (first, owner) and id not in self._held
            if live is None or not ready_now or not self.store.owns(id):
                other.append(i)
            else:
                self._held[id] = None
                ready.append(i)
                lives.append(live)
        if not other:
            outputs, lost = await self._step_live(ids, firsts, lives, inputs)
            return outputs, {i: Elsewhere(id) for i, id in enumerate(ids) if id in lost} if lost else {}
        together = None
        if ready:
            together = self._step_live([ids[i] for i in ready], [firsts[i] for i in ready], lives, inputs[ready])
        outputs = torch.zeros(len(ids), self._outputs.shape[1], dtype=self._outputs.dtype)
        alone = [self.steps(owner, ids[i], firsts[i], inputs[i : i + 1]) for i in other]
        refused: dict[int, Refused] = {}
        for i, read in zip(other, await asyncio.gather(*alone, return_exceptions=True), strict=True):
            if isinstance(read, Refused):
                refused[i] = read
            elif isinstance(read, BaseException):
                raise read
            else:
                outputs[i] = read.outputs[0]
        if together is not None:
            outputs[ready], lost = await together
            refused |= {i: Elsewhere(ids[i]) for i in ready if ids[i] in lost}
        return outputs, refused

    @to_the_end
    async def _step_live(
        self, ids: Sequence[str], firsts: Sequence[int], lives: list[Live], inputs: Tensor
    ) -> tuple[Tensor, set[str]]:
        """Step sessions that have their rows, and that nobody else is with. Returns: the outputs; those another process holds."""
        rows, data = [live.row for live in lives], inputs.contiguous().numpy().tobytes()
        size = len(data) // len(ids)
        records = [(id, data[low : low + size]) for id, low in zip(ids, range(0, len(data), size), strict=True)]
        job = Job(rows, list(firsts), self._prepared(inputs).unsqueeze(0), records)
        try:
            await self._run_all(job)
            self._outputs[rows] = job.outputs[0]
            for id, live in zip(ids, lives, strict=True):
                live.time, live.begun = live.time + 1, True
                self._live.move_to_end(id)
            for id in job.lost:
                self._sleep(id)
        except BaseException:
            for id in ids:
                self._sleep(id)
            raise
        finally:
            for id in ids:
                self._release(id)
        return job.outputs[0], job.lost

    def _check_length(self, inputs: Tensor) -> None:
        if not 1 <= len(inputs) <= self.longest:
            raise Refused(
                413 if len(inputs) else 400, f"inputs: {len(inputs)} of them; from 1 to {self.longest} in a request"
            )
