"""The one thread that steps: what waits goes a step together, whatever its length, and is written down before it is answered."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from throughtime.scanning import Streams
from throughtime.serve.moments import Moments
from throughtime.serve.store import Appended, Store
from throughtime.travel import Moment

EVERY = 512  # steps between two snapshots: what a past moment costs, at most


@dataclass(eq=False)
class Job:
    """A stream that is to read some inputs.

    row: of the streams. first: the time before them. x: [n, I], what the stack is given. record: the inputs as they are written
    down, and of which session; None: nothing is. outputs: of each step, once they are there, [n, N].
    """

    row: int
    first: int
    x: Tensor
    record: tuple[str, bytes] | None
    future: Future[Tensor] = field(default_factory=Future)
    outputs: list[Tensor] = field(default_factory=list)
    snapshots: list[tuple[int, bytes]] = field(default_factory=list)


class Batcher:
    """Steps the rows of one network.

    A tick takes one input of each stream that waits. Streams that come meanwhile join the next tick, so that nobody waits for
    another's end. Those that have come to their end are written to the store together, and then answered.

    Attributes: ticks, steps: how many there have been, and steps of streams in them.
    """

    def __init__(self, streams: Streams, moments: Moments, store: Store) -> None:
        self.streams, self.moments, self.store = streams, moments, store
        self.ticks = self.steps = 0
        self._waiting: queue.SimpleQueue[Job | Callable[[], None] | None] = queue.SimpleQueue()
        self._running: list[Job] = []
        self._thread = threading.Thread(target=self._work, name="throughtime-streams", daemon=True)
        self._thread.start()

    def run(self, job: Job) -> Future[Tensor]:
        """Let a stream read. Its row is not to be given to anybody until the future is done. Returns: the outputs, [n, N]."""
        self._waiting.put(job)
        return job.future

    def call(self, function: Callable[[Streams], Any]) -> Future[Any]:
        """Let the thread that owns the rows call a function of them, between two ticks."""
        future: Future[Any] = Future()

        def called() -> None:
            try:
                future.set_result(function(self.streams))
            except BaseException as error:
                future.set_exception(error)

        self._waiting.put(called)
        return future

    def close(self) -> None:
        """Go to the end of all that waits, and end."""
        self._waiting.put(None)
        self._thread.join()

    @property
    def waiting(self) -> int:
        """About how many streams wait or run."""
        return self._waiting.qsize() + len(self._running)

    def _work(self) -> None:
        torch.set_num_threads(1)
        open_ = True
        while open_ or self._running:
            while not self._waiting.empty() or (open_ and not self._running):
                found = self._waiting.get()
                if found is None:
                    open_ = False
                elif isinstance(found, Job):
                    self._running.append(found)
                else:
                    found()
            if self._running:
                self._tick()

    def _tick(self) -> None:
        jobs = self._running
        try:
            outputs = self.streams.step([j.row for j in jobs], torch.stack([j.x[len(j.outputs)] for j in jobs]))
        except BaseException as error:  # nobody's stream has moved
            self._running = []
            for job in jobs:
                job.future.set_exception(error)
            return
        self.ticks, self.steps = self.ticks + 1, self.steps + len(jobs)
        done, running = list[Job](), list[Job]()
        for job, output in zip(jobs, outputs.unbind(), strict=True):
            job.outputs.append(output)
            time = job.first + len(job.outputs)
            if job.record is not None and time % EVERY == 0:
                job.snapshots.append((time, self.moments.packed(Moment(tuple(self.streams.take(job.row)), output))))
            (done if len(job.outputs) == len(job.x) else running).append(job)
        self._running = running
        if done:
            self._answer(done)

    def _answer(self, jobs: list[Job]) -> None:
        records = [
            Appended(j.record[0], j.first, len(j.x), j.record[1], tuple(j.snapshots))
            for j in jobs
            if j.record is not None
        ]
        try:
            if records:
                self.store.append(records)
        except BaseException as error:
            for job in jobs:
                job.future.set_exception(error)
            return
        for job in jobs:
            job.future.set_result(torch.stack(job.outputs))
