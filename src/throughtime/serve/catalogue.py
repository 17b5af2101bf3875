"""The sessions of a model by their names: whose they are, who is alone with one, and how one is forgotten."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
import secrets
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, ParamSpec, TypeVar

from throughtime.serve.refused import Refused
from throughtime.serve.store import Elsewhere, Kept, Store

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}", re.ASCII)  # of a session

# seconds in which a session is to come from another process: one that died has it for the rest of its lease
PATIENCE = 10.0
PAUSE = 0.1  # seconds between two tries

_P = ParamSpec("_P")
_T = TypeVar("_T")


def to_the_end(verb: Callable[_P, Coroutine[Any, Any, _T]]) -> Callable[_P, Awaitable[_T]]:
    """A verb that comes to its end though whoever called it is gone: what it holds is in order then."""

    @functools.wraps(verb)
    def called(*args: _P.args, **kwargs: _P.kwargs) -> Awaitable[_T]:
        task = asyncio.ensure_future(verb(*args, **kwargs))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # though nobody is there to be told
        return asyncio.shield(task)

    return called


def wake_first(waiting: deque[asyncio.Future[None]]) -> bool:
    """Let the first of those that wait go on. Returns: whether there is one."""
    while waiting:
        turn = waiting.popleft()
        if not turn.done():
            turn.set_result(None)
            return True
    return False


class Catalogue(ABC):
    """The sessions of one model.

    Args: name, fingerprint: of the model. store: where they are kept. most: how many an owner may have.
    Raises, all verbs: Refused.
    """

    def __init__(self, name: str, store: Store, fingerprint: str, most: int) -> None:
        store.check_model(name, fingerprint)
        self.name, self.store, self.most = name, store, most
        # those somebody is alone with, and who waits for each, once anybody has
        self._held: dict[str, deque[asyncio.Future[None]] | None] = {}

    @property
    @abstractmethod
    def awake(self) -> int:
        """How many sessions are in memory."""

    @property
    @abstractmethod
    def counted(self) -> tuple[int, int]:
        """How many steps of streams there have been, and steps of all together."""

    @abstractmethod
    async def _put_aside(self, id: str) -> None:
        """Write what lets a session that leaves memory come back in one read."""

    @abstractmethod
    def _sleep(self, id: str) -> None:
        """Take a session out of memory."""

    @abstractmethod
    def close(self) -> None:
        """Come to the end of what is being read."""

    @asynccontextmanager
    async def _alone(self, *ids: str) -> AsyncIterator[None]:
        """Alone with some sessions: what comes meanwhile waits. Taken in order, so that nobody waits for ever."""
        async with AsyncExitStack() as stack:
            for id in sorted(set(ids)):
                if id in self._held:
                    turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    waiting = self._held[id] = self._held[id] or deque()
                    waiting.append(turn)
                    await turn
                else:
                    self._held[id] = None
                stack.callback(self._release, id)
            yield

    def _release(self, id: str) -> None:
        waiting = self._held[id]
        if not waiting or not wake_first(waiting):
            del self._held[id]

    @asynccontextmanager
    async def _held_alone(self, *ids: str) -> AsyncIterator[None]:
        """Alone with some sessions, which no other process has either.

        Raises: Elsewhere where another holds one of them, and does not release it.
        """
        async with self._alone(*ids):
            for id in ids:
                await self._own(id)
            yield

    async def _own(self, id: str) -> None:
        ended = asyncio.get_running_loop().time() + PATIENCE
        while True:
            try:
                if self.store.own(id):
                    self._sleep(id)
                return
            except Elsewhere:
                if asyncio.get_running_loop().time() > ended:
                    raise
            await asyncio.sleep(PAUSE)

    def _check_own(self, *ids: str) -> None:
        """Raises: Elsewhere where another process may have taken a session since, so that what was read of it is of no one time."""
        for id in ids:
            if not self.store.owns(id):
                raise Elsewhere(id)

    def _found(self, id: str, owner: str) -> Kept:
        kept = self.store.find(id) if NAME.fullmatch(id) else None
        if kept is None or kept.owner != owner or kept.model != self.name:
            raise Refused(404, f"there is no session {id!r}; make it by POST /v1/sessions")
        return kept

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

    @to_the_end
    async def delete(self, owner: str, id: str) -> None:
        """Forget a session."""
        async with self._held_alone(id):
            self._found(id, owner)
            self._sleep(id)
            self.store.drop(id)

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

    def _checked(self, kept: Kept, t: int, what: str = "time") -> int:
        """A time of a session. Raises: Refused where it has not come, or is forgotten."""
        first = self.store.first(kept.id)
        if not first <= t <= kept.time:
            past = f", and forgotten what lies before {first}" if first else ""
            raise Refused(
                400,
                f"{what}: {t}; the session {kept.id!r} has read {kept.time}{past}, so from {first} to {kept.time}",
            )
        return t

    @to_the_end
    async def forget(self, since: float) -> int:
        """Forget the sessions that nobody has touched since a time, in seconds since 1970. Returns: how many."""
        ids = [kept.id for kept in self.store.untouched(since) if kept.model == self.name]
        for id in ids:
            async with self._held_alone(id):
                kept = self.store.find(id)
                if kept is not None and kept.touched < since:
                    self._sleep(id)
                    self.store.drop(id)
        return len(ids)

    @to_the_end
    async def release(self, id: str) -> None:
        """Let another process have a session that this one has in memory, once nobody is with it."""
        async with self._alone(id):
            with contextlib.suppress(Elsewhere):
                await self._put_aside(id)
            self._sleep(id)
            self.store.release(id)
