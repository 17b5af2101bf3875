"""The one thread that steps: what waits goes a step together, whatever its length, and is written down before it is answered."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from throughtime.cells import State
from throughtime.scanning import Streams
from throughtime.serve.moments import Moments
from throughtime.serve.store import Appended, Store
from throughtime.travel import Moment

EVERY = 512  # steps between two snapshots: what a past moment costs, at most
FEW = 4  # streams that are as soon stepped one by one; whoever asks may do it by itself, where nobody else waits
SHORT = 0.0005  # seconds that nobody minds to wait: a step may have taken so long for that


@dataclass(eq=False, slots=True)
class Job:
    """Streams that are to read some inputs each, as many, a step together.

    rows: of the streams, R. firsts: the time of each before them. x: [n, R, I], what the stack is given. records: for each its
    session, and its inputs as they are written down; None: nothing is. traced: whether the states on the way are wanted. outputs:
    of each step, [R, N], once it is made. states: of the one stream after each, where traced. lost: of its sessions those that
    another process holds, and whose step is not written. error: why it did not come to its end.
    """

    rows: list[int]
    firsts: list[int]
    x: Tensor
    records: list[tuple[str, bytes]] | None
    traced: bool = False
    outputs: list[Tensor] = field(default_factory=list)
    states: list[list[State]] = field(default_factory=list)
    snapshots: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict)  # by the place of the stream
    lost: set[str] = field(default_factory=set)
    error: BaseException | None = None
    group: Any = None  # of whoever asks


class Batcher:
    """Steps the rows of one network.

    A tick takes one input of each stream that waits, or several where they are few. Streams that come meanwhile join the next, so
    that nobody waits for another's end. Those that have come to their end are written to the store together, and then answered.

    Args: answer: is given those that have come to their end, in this thread.
    Attributes: ticks, steps: how many there have been, and steps of streams in them.
    """

    def __init__(
        self, streams: Streams, moments: Moments, store: Store, answer: Callable[[Sequence[Job]], None]
    ) -> None:
        self.streams, self.moments, self.store, self._answer = streams, moments, store, answer
        self.ticks = self.steps = 0
        self._waiting: queue.SimpleQueue[Sequence[Job] | Callable[[], None] | None] = queue.SimpleQueue()
        self._running: list[Job] = []
        self._turn = threading.Lock()  # of whoever uses the rows
        self._took = 0.0  # seconds that a step of the last tick took
        self._thread = threading.Thread(target=self._work, name="throughtime-streams", daemon=True)
        self._thread.start()

    def run(self, jobs: Sequence[Job]) -> None:
        """Let streams read. A row is not to be given to anybody until its job is answered; each job says then what came of it.

        A step or two that would be done sooner than the other thread had woken up are done here and now.
        """
        few = sum(len(job.rows) for job in jobs) <= FEW and all(len(job.x) == 1 for job in jobs)
        if few and self.idle and self.now(jobs):
            self._answer(jobs)
        else:
            self._waiting.put(jobs)

    @property
    def idle(self) -> bool:
        """Whether nobody waits for the other thread, and a step is soon done."""
        return self._took < SHORT and not self._running and self._waiting.empty()

    def now(self, jobs: Sequence[Job]) -> bool:
        """Let streams take one step each in this thread, unless the other has just begun to step.

        Returns: whether they did, or say why they could not; they are not answered.
        """
        if not self._turn.acquire(blocking=False):
            return False
        try:
            if not self.idle:
                return False
            self._running = list(jobs)
            self._tick()
            return True
        finally:
            self._turn.release()

    def call(self, function: Callable[[Streams], Any]) -> Future[Any]:
        """Let a function of the rows be called, between two ticks."""
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()

        def called() -> None:
            try:
                future.set_result(function(self.streams))
            except BaseException as error:
                future.set_exception(error)

        if self.idle and self._turn.acquire(blocking=False):  # sooner done than the other thread had woken up
            try:
                called()
            finally:
                self._turn.release()
        else:
            self._waiting.put(called)
        return future

    def close(self) -> None:
        """Go to the end of all that waits, and end."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        torch.set_num_threads(1)
        open_ = True
        while open_ or self._running:
            while not self._waiting.empty() or (open_ and not self._running):
                found = self._waiting.get()
                with self._turn:
                    if found is None:
                        open_ = False
                    elif callable(found):
                        found()
                    else:
                        self._running.extend(found)
            with self._turn:
                done = self._tick() if self._running else []
            if done:
                self._answer(done)

    def _tick(self) -> list[Job]:
        """A step of all that run, or some of each of few. Returns: those that have come to their end; they are written."""
        began, steps, jobs = time.perf_counter(), 1, self._running
        done, running = list[Job](), list[Job]()
        try:
            if len(jobs) <= FEW and all(len(job.rows) == 1 for job in jobs):
                steps = sum([self._step_one(job) for job in jobs])
            else:
                self._step_all(jobs)
            for job in jobs:
                (done if len(job.outputs) == job.x.shape[0] else running).append(job)
        except BaseException as error:
            done, running = jobs, []
            for job in jobs:
                job.error = error
        self._running = running
        if done:
            self._write(done)
        self._took = (time.perf_counter() - began) / steps
        return done

    def _step_one(self, job: Job) -> int:
        """As many steps of a stream as another would hardly notice that comes meanwhile. Returns: how many."""
        at = len(job.outputs)
        most = min(len(job.x) - at, max(1, int(SHORT / max(self._took, 1e-6))))
        if job.records is not None:
            most = min(most, EVERY - (job.firsts[0] + at) % EVERY)  # to the next snapshot
        job.outputs += self.streams.read(job.rows[0], job.x[at : at + most, 0], job.states if job.traced else None)
        self.ticks, self.steps = self.ticks + most, self.steps + most
        if job.records is not None:
            self._snapshot(job, job.outputs[-1])
        return most

    def _step_all(self, jobs: Sequence[Job]) -> None:
        x = [job.x[len(job.outputs)] for job in jobs]
        rows = list(itertools.chain.from_iterable(job.rows for job in jobs))
        outputs = self.streams.step(rows, x[0] if len(x) == 1 else torch.cat(x))
        self.ticks, self.steps = self.ticks + 1, self.steps + len(rows)
        sizes = [len(job.rows) for job in jobs]
        parts = [outputs] if len(jobs) == 1 else outputs.split(sizes)  # type: ignore[no-untyped-call]
        for job, output in zip(jobs, parts, strict=True):
            job.outputs.append(output)
            if job.traced:
                job.states.append(self.streams.take(job.rows[0]))
            if job.records is not None:
                self._snapshot(job, output)

    def _snapshot(self, job: Job, output: Tensor) -> None:
        """Keep the states of those whose time has come."""
        steps = len(job.outputs)
        for i in [i for i, first in enumerate(job.firsts) if not (first + steps) % EVERY]:
            moment = Moment(tuple(self.streams.take(job.rows[i])), output[i])
            job.snapshots.setdefault(i, []).append((job.firsts[i] + steps, self.moments.packed(moment)))

    def _write(self, jobs: Sequence[Job]) -> None:
        """Write down what has been read."""
        records = [
            Appended(id, first, len(job.outputs), rows, tuple(job.snapshots.get(i, ())) if job.snapshots else ())
            for job in jobs
            if job.records is not None and job.error is None
            for i, (first, (id, rows)) in enumerate(zip(job.firsts, job.records, strict=True))
        ]
        try:
            lost = self.store.append(records) if records else set[str]()
            for job in jobs if lost else ():
                job.lost = lost.intersection(id for id, _ in job.records or ())
        except BaseException as error:
            for job in jobs:
                job.error = job.error or error
