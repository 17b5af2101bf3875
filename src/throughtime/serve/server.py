"""The models that are served, their sessions, and how much may wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from throughtime.errors import UserError, unknown
from throughtime.serve.catalogue import NAME, Catalogue
from throughtime.serve.metrics import Metrics
from throughtime.serve.readers import Reader, Stepwise, reader_of
from throughtime.serve.refused import Refused
from throughtime.serve.sessions import Sessions
from throughtime.serve.settings import Settings
from throughtime.serve.stores.leased import Leased
from throughtime.serve.stores.opening import opened
from throughtime.tasks.base import Trained


@dataclass
class Served:
    """A model that is served. reader, sessions: None where it has no streams; why_not says why."""

    name: str
    task: str
    model: Trained[Any] | None
    reader: Reader | None
    sessions: Catalogue | None
    why_not: str = ""
    made: int = field(default_factory=lambda: int(time.time()))
    predicting: asyncio.Lock = field(default_factory=asyncio.Lock)  # one at a time

    def streaming(self) -> tuple[Reader, Catalogue]:
        """Raises: Refused where it has no streams."""
        if self.reader is None or self.sessions is None:
            raise Refused(400, f"model: {self.name!r} has no streams: {self.why_not}; ask POST /v1/predict")
        return self.reader, self.sessions


class Server:
    """What is served, and from where.

    Args: models: by their names: trained models, or stacks of layers.
    Raises: UserError where the store cannot be had, or holds sessions of other models of these names.
    """

    def __init__(self, models: dict[str, Trained[Any] | nn.Module], settings: Settings) -> None:
        self.settings, self.metrics, self.waiting, self.written = settings, Metrics(), 0, 0
        self.store = opened(settings)
        self.models: dict[str, Served] = {}
        try:
            for name, model in models.items():
                self.models[name] = self._served(name, model)
        except BaseException:
            self.close()
            raise

    def _served(self, name: str, model: Trained[Any] | nn.Module) -> Served:
        if not NAME.fullmatch(name):
            raise UserError(f"{name}: is no name for a model: letters, digits, '_', '.', ':' and '-', up to 128")
        task = model.task.name if isinstance(model, Trained) else "numbers"
        trained = model if isinstance(model, Trained) else None
        try:
            reader = reader_of(model)
        except UserError as error:
            return Served(name, task, trained, None, None, str(error))
        if reader is None:
            return Served(name, task, trained, None, None, f"the task {task!r} answers whole inputs")
        return Served(name, task, trained, reader, reader.sessions(name, self.store, self.settings))

    def find(self, name: str | None) -> Served:
        """A model by its name; None: the first. Raises: Refused."""
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            raise Refused(404, f"model: {unknown('model', name, self.models)}")
        return self.models[name]

    def of_session(self, id: str) -> tuple[Reader, Catalogue]:
        """What reads a session, and holds it. Raises: Refused."""
        kept = self.store.find(id) if NAME.fullmatch(id) else None
        served = None if kept is None else self.models.get(kept.model)
        if kept is None or served is None:
            raise Refused(404, f"there is no session {id!r}; make it by POST /v1/sessions")
        reader, sessions = served.streaming()
        return reader.of(kept, self.store), sessions

    async def with_past(self, owner: str, id: str) -> tuple[Stepwise, Sessions]:
        """The same of a session whose states can be looked at and changed. Raises: Refused where they cannot."""
        reader, sessions = self.of_session(id)
        if not isinstance(reader, Stepwise) or not isinstance(sessions, Sessions):
            await sessions.about(owner, id)
            raise Refused(
                400,
                f"sessions of {sessions.name!r} are rewound and branched alone: what is heard has no state to show or change",
            )
        return reader, sessions

    @contextmanager
    def busy(self, count: int = 1) -> Iterator[None]:
        """While requests are worked on, or wait for it. Raises: Refused where too many do."""
        if self.waiting + count > self.settings.waiting:
            raise Refused(429, f"{self.waiting} requests wait already; ask again later", retry_after=1)
        self.waiting += count
        try:
            yield
        finally:
            self.waiting -= count

    async def forget_idle(self) -> None:
        """From now on forget the sessions that nobody touches for long."""
        assert self.settings.idle is not None
        while True:
            for served in self.models.values():
                if served.sessions is not None:
                    await served.sessions.forget(time.time() - self.settings.idle)
            await asyncio.sleep(min(self.settings.idle / 4, 60))

    async def hold(self, store: Leased) -> None:
        """From now on hold the sessions of this process, and release those that others ask for."""
        while True:
            with suppress(Refused):  # the store does not answer: what is asked now says so
                for id in store.renew():
                    kept = store.find(id)
                    served = None if kept is None else self.models.get(kept.model)
                    if served is None or served.sessions is None:
                        store.release(id)
                    else:
                        served.sessions.release(id)  # goes on by itself
            await asyncio.sleep(store.lease / 3)

    def counts(self) -> str:
        """What has been counted, as Prometheus reads it."""
        live = {n: s.sessions for n, s in self.models.items() if s.sessions is not None}
        label = '{{model="{}"}}'.format
        return self.metrics.text(
            [
                ("sessions", "gauge", "Sessions that are kept.", {"": self.store.count()}),
                ("sessions_awake", "gauge", "Sessions in memory.", {label(n): s.awake for n, s in live.items()}),
                ("steps_total", "counter", "Steps of streams.", {label(n): s.counted[0] for n, s in live.items()}),
                ("ticks_total", "counter", "Steps of all together.", {label(n): s.counted[1] for n, s in live.items()}),
                ("tokens_written_total", "counter", "Tokens of completions.", {"": self.written}),
                ("waiting", "gauge", "Requests that are worked on or wait.", {"": self.waiting}),
            ]
        )

    def close(self) -> None:
        """Come to the end of what is being read, and give the store back."""
        for served in self.models.values():
            if served.sessions is not None:
                served.sessions.close()
        self.store.close()


def warm(models: dict[str, Trained[Any] | nn.Module]) -> None:
    """Compile what serves models."""
    for model in models.values():
        with suppress(UserError):  # a model that has no streams
            reader = reader_of(model)
            if reader is not None:
                reader.warm()
