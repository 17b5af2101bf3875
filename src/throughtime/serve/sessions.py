"""Sessions over HTTP or anything else: each a log of inputs, whatever connection they come by."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from throughtime.cells import State
from throughtime.serve.awake import Live
from throughtime.serve.batcher import Job
from throughtime.serve.catalogue import to_the_end
from throughtime.serve.past import Past, Read
from throughtime.serve.refused import Refused
from throughtime.serve.store import Appended, Elsewhere, Kept
from throughtime.travel import Difference, Moment
from throughtime.travel.difference import difference

LAST = 4  # inputs that tell whether a line, or half a character, begins
COMPARED = 10_000  # times that are compared in one request, at most


@dataclass(slots=True)
class Writing:
    """A stream that somebody is alone with and that reads what is drawn for it. last: the last inputs that it has read. output: of
    the last step. read: lets it read more, and gives the outputs, [n] of [N]. time: how many inputs have been read."""

    last: Tensor
    output: Tensor | None
    time: int
    _steps: Callable[[Tensor], Awaitable[list[Tensor]]]

    async def read(self, inputs: Tensor) -> list[Tensor]:
        """Read inputs, at least one. Returns: the outputs."""
        outputs = await self._steps(inputs)
        self.time, self.output = self.time + len(inputs), outputs[-1]
        return outputs


class Sessions(Past):
    """The sessions of one network.

    A request names the number of its first step, so that one that comes twice changes nothing the second time and gets the same
    numbers. Sessions that nobody steps leave memory and come back when they are.

    Args: name: of the model. engine: of the trained model or the stack. streams: a table of rows for those that are awake.
        store: where they are kept. most: how many an owner may have. longest: how many steps a request may have.
    Raises, all verbs: Refused.
    """

    @to_the_end
    async def create(self, owner: str, id: str | None = None, about: bytes = b"", inputs: Tensor | None = None) -> str:
        """A new session. One that there is already is an error (409).

        Args: id: one's own name for it. about: what is kept of it, for what reads it. inputs: what it has read at once.
        Returns: its id.
        """
        id = self._named(id)
        self._check_quota(owner)
        first, records = self.engine.first(), list[Appended]()
        async with self._held_alone(id):
            if inputs is not None and len(inputs):
                self._check_length(inputs)
                records = await self._read_again(id, 0, first, inputs, {})
            if not self.store.make(id, owner, self.name, self.moments.packed(first), about, records):
                raise Refused(409, f"there is a session {id!r} already; go on with it, or choose another id")
        return id

    async def steps(self, owner: str, id: str, first: int, inputs: Tensor) -> Read:
        """Read inputs, the first of which is number `first` of the session.

        Inputs that it has read already, all of them and the same ones, give the same numbers again.
        """
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
    async def _steps(self, owner: str, id: str, first: int, inputs: Tensor) -> Read:
        self._check_length(inputs)
        async with self._held_alone(id):
            kept = self._found(id, owner)
            if first + len(inputs) <= kept.time and torch.equal(self._inputs(id, first, first + len(inputs)), inputs):
                read = await self._once_more(id, first, inputs)
                self._check_own(id)
                return read
            if first != kept.time:
                raise Refused(
                    409,
                    f"first: {first}, but the session has read {kept.time}: go on from there, or rewind it to {first}",
                )
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
            last = self._inputs(id, max(kept.time - LAST, 0), kept.time)
            yield Writing(last, self._output(live), kept.time, lambda inputs: self._step(live, id, inputs))

    @asynccontextmanager
    async def write_anew(self) -> AsyncIterator[Writing]:
        """A stream of no session, from the beginning. To be left between two reads alone."""
        first = self.engine.first()
        async with self._row(first, self._writers) as row:
            yield Writing(
                self.engine.empty(),
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

    @to_the_end
    async def moment(self, owner: str, id: str, t: int | None = None) -> tuple[int, Moment]:
        """Where a session is, or was at time t: the time, and the moment."""
        async with self._held_alone(id):
            kept = self._found(id, owner)
            t = self._checked(kept, kept.time if t is None else t)
            moment = await self._moment(id, t)
            self._check_own(id)
            return t, moment

    @to_the_end
    async def rewind(self, owner: str, id: str, t: int) -> None:
        """Go back to time t; what came after it is forgotten (branch first to keep it)."""
        async with self._held_alone(id):
            self._checked(self._found(id, owner), t)
            self._sleep(id)
            self.store.cut(id, t)

    @to_the_end
    async def branch(self, owner: str, id: str, other: str | None = None, t: int | None = None) -> str:
        """Another session with the same past, up to time t. Returns: its id."""
        other = self._named(other)
        self._check_quota(owner)
        async with self._held_alone(id, other):
            t = self._checked(kept := self._found(id, owner), kept.time if t is None else t)
            if not self.store.branch(id, other, owner, t):
                raise Refused(409, f"there is a session {other!r} already; choose another id")
        return other

    @to_the_end
    async def edit(
        self,
        owner: str,
        id: str,
        t: int | None = None,
        *,
        input: Tensor | None = None,
        state: Sequence[State] | None = None,
        output: Tensor | None = None,
    ) -> int:
        """Change the input that was read at time t, [1, ...], or the state there and perhaps the output that led to it; all later
        inputs are read again. t: None: the present. Returns: t."""
        if (input is None) == (state is None):
            raise Refused(400, "edit: give an input or a state, just one of them")
        async with self._held_alone(id):
            kept = self._found(id, owner)
            t = kept.time if t is None else t
            if not 0 <= t <= kept.time - (input is not None):
                what = "has read nothing, so that there is no input to change"
                if kept.time or input is None:
                    what = f"has read {kept.time}, so from 0 to {kept.time - (input is not None)}"
                raise Refused(400, f"time: {t}; the session {what}")
            later = self._inputs(id, t, kept.time)
            edits = self.store.edits(id, t)
            moment = await self._moment(id, t)
            self._sleep(id)
            if input is not None:
                later = torch.cat([input.to(later.dtype), later[1:]])
            else:
                assert state is not None
                moment = Moment(tuple(state), moment.output if output is None else output)
                edits[t] = self.moments.packed(moment)
            records = await self._read_again(id, t, moment, later, edits)
            self.store.rewrite(id, t, records, edits)
            return t

    @to_the_end
    async def diff(self, owner: str, id: str, other: str, start: int, stop: int | None) -> Difference:
        """Where and how far two sessions part, between two times that both have; stop: None: the last of these."""
        async with self._held_alone(id, other):
            both = [self._found(id, owner), self._found(other, owner)]
            stop = min(kept.time for kept in both) if stop is None else stop
            for kept in both:
                self._checked(kept, start, "start")
                self._checked(kept, stop, "stop")
            if not start <= stop < start + COMPARED:
                raise Refused(
                    400, f"diff: from {start} to {stop}; up to {COMPARED} times in a request, the later one last"
                )
            one, two = await asyncio.gather(self._course(id, start, stop), self._course(other, start, stop))
            self._check_own(id, other)
        pairs = (((t, t), a, b) for t, a, b in zip(range(start, stop + 1), one, two, strict=True))
        return await asyncio.to_thread(difference, self.engine, pairs)

    def _checked(self, kept: Kept, t: int, what: str = "time") -> int:
        if not 0 <= t <= kept.time:
            raise Refused(400, f"{what}: {t}; the session {kept.id!r} has read {kept.time}, so from 0 to {kept.time}")
        return t
