"""Sessions over HTTP or anything else: each a log of inputs, whatever connection they come by."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import re
import secrets
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor

from throughtime.cells import State
from throughtime.scanning import Streams
from throughtime.serve.batcher import EVERY, Batcher, Job
from throughtime.serve.moments import Moments
from throughtime.serve.refused import Refused
from throughtime.serve.store import Appended, Kept, Store
from throughtime.travel import Difference, Engine, Moment
from throughtime.travel.difference import difference

SPARE = 8  # rows for what is computed anew
WRITERS = 64  # rows for streams that are of no session
LAST = 4  # inputs that tell whether a line, or half a character, begins
COMPARED = 10_000  # times that are compared in one request, at most
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}", re.ASCII)  # of a session

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Read(NamedTuple):
    """What came of reading inputs. before: the output of the step before the first, [N]; None where there is none. outputs: of
    each, [N]."""

    before: Tensor | None
    outputs: list[Tensor]


@dataclass(slots=True)
class _Live:
    """A session that has a row. begun: whether there is an output of a last step."""

    row: int
    owner: str
    time: int
    begun: bool


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


def _to_the_end(verb: Callable[_P, Coroutine[Any, Any, _T]]) -> Callable[_P, Awaitable[_T]]:
    """A verb that comes to its end though whoever called it is gone: what it holds is in order then."""

    @functools.wraps(verb)
    def called(*args: _P.args, **kwargs: _P.kwargs) -> Awaitable[_T]:
        task = asyncio.ensure_future(verb(*args, **kwargs))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # though nobody is there to be told
        return asyncio.shield(task)

    return called


def _tell(jobs: Sequence[Job]) -> None:
    for job in jobs:
        if not job.group.done():
            job.group.set_result(None)


def _wake_first(waiting: deque[asyncio.Future[None]]) -> bool:
    """Let the first of those that wait go on. Returns: whether there is one."""
    while waiting:
        turn = waiting.popleft()
        if not turn.done():
            turn.set_result(None)
            return True
    return False


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
        store.check_model(name, engine.fingerprint())
        self.name, self.engine, self.store = name, engine, store
        self.most, self.longest = most, longest
        self.moments = Moments(engine, streams.width_out)
        rows = range(streams.slots)
        streams.grow(streams.slots + SPARE + WRITERS)
        self.batcher = Batcher(streams, self.moments, store, self._answer)
        self._asked: list[Job] = []  # of this turn of the loop
        self._free = list(rows)
        self._spare: asyncio.Queue[int] = asyncio.Queue()
        self._writers: asyncio.Queue[int] = asyncio.Queue()
        for row in range(len(rows), streams.slots):
            (self._spare if row < len(rows) + SPARE else self._writers).put_nowait(row)
        self._outputs = torch.zeros(len(rows), streams.width_out, dtype=streams.dtype)  # of the last step, by row
        self._live: OrderedDict[str, _Live] = OrderedDict()  # the one that was stepped last is the last
        self._held: dict[
            str, deque[asyncio.Future[None]]
        ] = {}  # sessions somebody is alone with, and who waits for each
        self._without_row: deque[asyncio.Future[None]] = deque()

    @property
    def awake(self) -> int:
        """How many sessions have a row."""
        return len(self._live)

    # ------------------------------------------------------------------------------------------ one after the other

    @asynccontextmanager
    async def _alone(self, *ids: str) -> AsyncIterator[None]:
        """Alone with some sessions: what comes meanwhile waits. Taken in order, so that nobody waits for ever."""
        async with AsyncExitStack() as stack:
            for id in sorted(set(ids)):
                if id in self._held:
                    turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._held[id].append(turn)
                    await turn
                else:
                    self._held[id] = deque()
                stack.callback(self._release, id)
            yield

    def _release(self, id: str) -> None:
        if not _wake_first(self._held[id]):
            del self._held[id]
            _wake_first(self._without_row)

    def _found(self, id: str, owner: str) -> Kept:
        kept = self.store.find(id) if NAME.fullmatch(id) else None
        if kept is None or kept.owner != owner or kept.model != self.name:
            raise Refused(404, f"there is no session {id!r}; make it by POST /v1/sessions")
        return kept

    # ------------------------------------------------------------------------------------------ rows

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
                    await self._keep(idle, live)
                finally:
                    self._free.append(live.row)
        return self._free.pop()

    async def _keep(self, id: str, live: _Live) -> None:
        """Write the state of a session that leaves memory, so that it comes back in one read."""
        if live.time % EVERY:
            state = await self._call(lambda streams: streams.take(live.row))
            self.store.keep(id, live.time, self.moments.packed(Moment(tuple(state), self._output(live))))

    def _output(self, live: _Live) -> Tensor | None:
        return self._outputs[live.row].clone() if live.begun else None

    async def _wake(self, kept: Kept) -> _Live:
        """A session with its row."""
        live = self._live.get(kept.id)
        if live is not None:
            self._live.move_to_end(kept.id)
            return live
        moment = await self._moment(kept.id, kept.time)
        row = await self._take_row()
        await self._call(lambda streams: streams.put(row, list(moment.state)))
        if moment.output is not None:
            self._outputs[row] = moment.output
        made = self._live[kept.id] = _Live(row, kept.owner, kept.time, moment.output is not None)
        return made

    def _sleep(self, id: str) -> None:
        """Forget the row of a session whose past has changed."""
        live = self._live.pop(id, None)
        if live is not None:
            self._free.append(live.row)
            _wake_first(self._without_row)

    async def _call(self, function: Any) -> Any:
        return await asyncio.wrap_future(self.batcher.call(function))

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

    # ------------------------------------------------------------------------------------------ moments of the past

    async def _moment(self, id: str, t: int) -> Moment:
        """Where a session was at time t, computed anew from the state before that is kept."""
        live = self._live.get(id)
        if live is not None and live.time == t:
            return Moment(tuple(await self._call(lambda streams: streams.take(live.row))), self._output(live))
        start, data = self.store.before(id, t)
        moment = self.moments.unpacked(data)
        if start == t:
            return moment
        outputs, state = await self._again(moment, self._inputs(id, start, t))
        return Moment(state, outputs[-1])

    async def _again(self, moment: Moment, inputs: Tensor) -> tuple[list[Tensor], tuple[State, ...]]:
        """What comes of reading inputs from a moment on, written nowhere: the outputs, and the state at the end."""
        async with self._row(moment) as row:
            outputs = await self._run(self._unwritten(row, inputs))
            return outputs, tuple(await self._call(lambda streams: streams.take(row)))

    async def _course(self, id: str, start: int, stop: int) -> list[Moment]:
        """Where a session was at each time from start to stop."""
        moments = [await self._moment(id, start)]
        edits = self.store.edits(id, start)
        for a, b in itertools.pairwise(sorted({start, stop, *(t for t in edits if t < stop)})):
            async with self._row(moments[-1]) as row:
                job = self._unwritten(row, self._inputs(id, a, b), traced=True)
                outputs = await self._run(job)
            moments += [Moment(tuple(s), o) for s, o in zip(job.states, outputs, strict=True)]
            if b in edits:
                moments[-1] = self.moments.unpacked(edits[b])
        return moments

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

    def _unwritten(self, row: int, inputs: Tensor, *, traced: bool = False) -> Job:
        return Job([row], [0], self._prepared(inputs).unsqueeze(1), None, traced)

    # ------------------------------------------------------------------------------------------ verbs

    @_to_the_end
    async def create(self, owner: str, id: str | None = None) -> str:
        """A new session. id: one's own name for it. Returns: its id. One that there is already is an error (409)."""
        id = self._named(id)
        self._check_quota(owner)
        async with self._alone(id):
            if not self.store.make(id, owner, self.name, self.moments.packed(self.engine.first())):
                raise Refused(409, f"there is a session {id!r} already; go on with it, or choose another id")
        return id

    def _named(self, id: str | None) -> str:
        id = secrets.token_hex(8) if id is None else id
        if not NAME.fullmatch(id):
            raise Refused(
                400, f"id: {id[:40]!r}: letters, digits, '_', '.', ':' and '-', up to 128, the first a letter or digit"
            )
        return id

    def _check_quota(self, owner: str) -> None:
        if self.store.count(owner) >= self.most:
            raise Refused(429, f"there are {self.most} sessions already; delete some")

    async def about(self, owner: str, id: str) -> Kept:
        """What the catalogue says of a session."""
        return self._found(id, owner)

    @_to_the_end
    async def delete(self, owner: str, id: str) -> None:
        """Forget a session."""
        async with self._alone(id):
            self._found(id, owner)
            self._sleep(id)
            self.store.drop(id)

    @_to_the_end
    async def forget(self, since: float) -> int:
        """Forget the sessions that nobody has touched since a time, in seconds since 1970. Returns: how many."""
        ids = [kept.id for kept in self.store.untouched(since) if kept.model == self.name]
        for id in ids:
            async with self._alone(id):
                kept = self.store.find(id)
                if kept is not None and kept.touched < since:
                    self._sleep(id)
                    self.store.drop(id)
        return len(ids)

    @_to_the_end
    async def steps(self, owner: str, id: str, first: int, inputs: Tensor) -> Read:
        """Read inputs, the first of which is number `first` of the session.

        Inputs that it has read already, all of them and the same ones, give the same numbers again.
        """
        self._check_length(inputs)
        async with self._alone(id):
            kept = self._found(id, owner)
            if first + len(inputs) <= kept.time and torch.equal(self._inputs(id, first, first + len(inputs)), inputs):
                return await self._once_more(id, first, inputs)
            if first != kept.time:
                raise Refused(
                    409,
                    f"first: {first}, but the session has read {kept.time}: go on from there, or rewind it to {first}",
                )
            live = await self._wake(kept)
            before = self._output(live)
            return Read(before, await self._step(live, id, inputs))

    async def _step(self, live: _Live, id: str, inputs: Tensor) -> list[Tensor]:
        record = (id, inputs.contiguous().numpy().tobytes())
        try:
            outputs = await self._run(Job([live.row], [live.time], self._prepared(inputs).unsqueeze(1), [record]))
        except BaseException:  # what was not written was not read
            self._sleep(id)
            raise
        live.time, live.begun = live.time + len(inputs), True
        self._outputs[live.row] = outputs[-1]
        return outputs

    @asynccontextmanager
    async def write_on(self, owner: str, id: str, first: int | None = None) -> AsyncIterator[Writing]:
        """Alone with a session, to write on from where it is; all that it reads belongs to it. To be left between two reads alone.
        first: how many inputs it must have read; None: any number."""
        async with self._alone(id):
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

    async def _once_more(self, id: str, first: int, inputs: Tensor) -> Read:
        moment, outputs = await self._moment(id, first), list[Tensor]()
        stop = first + len(inputs)
        edits = self.store.edits(id, first)
        before = moment.output
        for a, b in itertools.pairwise(sorted({first, stop, *(t for t in edits if t < stop)})):
            made, state = await self._again(moment, inputs[a - first : b - first])
            outputs += made
            moment = self.moments.unpacked(edits[b]) if b in edits else Moment(state, made[-1])
        return Read(before, outputs)

    async def step_many(
        self, owner: str, ids: Sequence[str], firsts: Sequence[int], inputs: Tensor
    ) -> tuple[Tensor, dict[int, Refused]]:
        """A step of many sessions at once: what `steps` does with one input each, and less ado.

        Returns: the outputs, [n, N], and by their places those that are refused; their outputs are 0.
        """
        ready: list[int] = []
        lives: list[_Live] = []
        other: list[int] = []
        for i, (id, first) in enumerate(zip(ids, firsts, strict=True)):
            live = self._live.get(id)
            if live is None or live.time != first or live.owner != owner or id in self._held:
                other.append(i)
            else:
                self._held[id] = deque()
                ready.append(i)
                lives.append(live)
        some = inputs if not other else inputs[ready]
        together = self._step_live([ids[i] for i in ready], lives, some) if ready else None
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
            outputs[ready] = await together
        return outputs, refused

    @_to_the_end
    async def _step_live(self, ids: list[str], lives: list[_Live], inputs: Tensor) -> Tensor:
        """Step sessions that have their rows, and that nobody else is with."""
        rows, data = [live.row for live in lives], inputs.contiguous().numpy().tobytes()
        size = len(data) // len(ids)
        records = [(id, data[low : low + size]) for id, low in zip(ids, range(0, len(data), size), strict=True)]
        job = Job(rows, [live.time for live in lives], self._prepared(inputs).unsqueeze(0), records)
        try:
            await self._run_all(job)
            self._outputs[rows] = job.outputs[0]
            for id, live in zip(ids, lives, strict=True):
                live.time, live.begun = live.time + 1, True
                self._live.move_to_end(id)
        except BaseException:
            for id in ids:
                self._sleep(id)
            raise
        finally:
            for id in ids:
                self._release(id)
        return job.outputs[0]

    def _check_length(self, inputs: Tensor) -> None:
        if not 1 <= len(inputs) <= self.longest:
            raise Refused(
                413 if len(inputs) else 400, f"inputs: {len(inputs)} of them; from 1 to {self.longest} in a request"
            )

    @_to_the_end
    async def moment(self, owner: str, id: str, t: int | None = None) -> tuple[int, Moment]:
        """Where a session is, or was at time t: the time, and the moment."""
        async with self._alone(id):
            kept = self._found(id, owner)
            t = self._checked(kept, kept.time if t is None else t)
            return t, await self._moment(id, t)

    @_to_the_end
    async def rewind(self, owner: str, id: str, t: int) -> None:
        """Go back to time t; what came after it is forgotten (branch first to keep it)."""
        async with self._alone(id):
            self._checked(self._found(id, owner), t)
            self._sleep(id)
            self.store.cut(id, t)

    @_to_the_end
    async def branch(self, owner: str, id: str, other: str | None = None, t: int | None = None) -> str:
        """Another session with the same past, up to time t. Returns: its id."""
        other = self._named(other)
        self._check_quota(owner)
        async with self._alone(id, other):
            t = self._checked(kept := self._found(id, owner), kept.time if t is None else t)
            if not self.store.branch(id, other, owner, t):
                raise Refused(409, f"there is a session {other!r} already; choose another id")
        return other

    @_to_the_end
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
        async with self._alone(id):
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

    @_to_the_end
    async def diff(self, owner: str, id: str, other: str, start: int, stop: int | None) -> Difference:
        """Where and how far two sessions part, between two times that both have; stop: None: the last of these."""
        async with self._alone(id, other):
            both = [self._found(id, owner), self._found(other, owner)]
            stop = min(kept.time for kept in both) if stop is None else stop
            for kept in both:
                self._checked(kept, start, "start")
                self._checked(kept, stop, "stop")
            if not start <= stop < start + COMPARED:
                raise Refused(
                    400, f"diff: from {start} to {stop}; up to {COMPARED} times in a request, the later one last"
                )
            one, two = await self._course(id, start, stop), await self._course(other, start, stop)
        pairs = (((t, t), a, b) for t, a, b in zip(range(start, stop + 1), one, two, strict=True))
        return await asyncio.to_thread(difference, self.engine, pairs)

    def _checked(self, kept: Kept, t: int, what: str = "time") -> int:
        if not 0 <= t <= kept.time:
            raise Refused(400, f"{what}: {t}; the session {kept.id!r} has read {kept.time}, so from 0 to {kept.time}")
        return t

    def close(self) -> None:
        """Come to the end of what is being read."""
        self.batcher.close()
