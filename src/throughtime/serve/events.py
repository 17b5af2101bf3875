"""Answers that are sent as they are made: server-sent events, and what makes their parts whether or not anybody takes them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

from fastapi.responses import StreamingResponse

from throughtime.errors import UserError
from throughtime.serve.answers import as_json
from throughtime.serve.refused import FAULT, Refused, as_error
from throughtime.serve.warned import told

AHEAD = 256  # parts that are made before somebody takes the first
DONE = "data: [DONE]\n\n"
_T = TypeVar("_T")


class Flow(Generic[_T]):
    """Parts that tasks make and one reader takes.

    A task comes to its end though nobody takes anything any more, since what it holds is in order then; it may see that by `gone`
    and end sooner.

    Args: slow: seconds after which a reader who takes nothing is gone.
    """

    def __init__(self, slow: float) -> None:
        self.gone = False
        self._slow = slow
        self._ready: asyncio.Queue[_T | _End] = asyncio.Queue(AHEAD)

    async def put(self, part: _T) -> None:
        """Give a part to whoever reads."""
        await self._put(part)

    async def parts(self, making: Sequence[Callable[[], Awaitable[None]]]) -> AsyncGenerator[_T, None]:
        """What tasks make, as it comes. Raises: what goes wrong with one; Refused where too little was taken for too long."""
        tasks = [asyncio.create_task(self._made(one)) for one in making]
        try:
            left = len(tasks)
            while left:
                if self.gone and self._ready.empty():
                    raise Refused(408, f"nothing was taken for {self._slow:g} seconds, and no more was made")
                part = await self._ready.get()
                if not isinstance(part, _End):
                    yield part
                elif part.error is not None:
                    raise part.error
                else:
                    left -= 1
        finally:
            self.gone = True
            while not self._ready.empty():  # whoever waits to put something there goes on, and ends
                self._ready.get_nowait()
            _KEPT.update(tasks)
            for task in tasks:
                task.add_done_callback(_KEPT.discard)

    async def _made(self, one: Callable[[], Awaitable[None]]) -> None:
        end = _End(None)
        try:
            await one()
        except BaseException as error:
            end = _End(error)
        await self._put(end)

    async def _put(self, part: _T | _End) -> None:
        try:
            async with asyncio.timeout(None if self.gone else self._slow):
                if not self.gone:
                    await self._ready.put(part)
        except TimeoutError:
            self.gone = True


class _End:
    """The end of a task. error: what went wrong with it."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


_KEPT: set[asyncio.Future[None]] = set()  # tasks that nobody else holds


class Events(StreamingResponse):
    """Events as they come. However sending them ends, they come to their end as well, and give back what they hold."""

    def __init__(self, first: str, rest: AsyncGenerator[str, None]) -> None:
        super().__init__(_after(first, rest), media_type="text/event-stream")
        self._rest = rest

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async with contextlib.aclosing(self._rest):
            await super().__call__(scope, receive, send)


async def sent(events: AsyncGenerator[str, None]) -> Events:
    """An answer of events. Raises: what goes wrong before the first, so that it is refused with its status."""
    guarded = _guarded(events)
    return Events(await anext(guarded), guarded)


def event(body: dict[str, Any]) -> str:
    """One of them."""
    return f"data: {as_json(body)}\n\n"


async def _guarded(events: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    """What goes wrong after the first is an event too."""
    begun = False
    try:
        async with contextlib.aclosing(events):
            async for one in events:
                yield one
                begun = True
    except Exception as error:
        if not begun:
            raise
        status = error.status if isinstance(error, Refused) else 400 if isinstance(error, UserError) else 500
        words = FAULT if status == 500 else str(error)
        yield event(as_error(status, words) | told())
        if status == 500:
            raise


async def _after(first: str, rest: AsyncGenerator[str, None]) -> AsyncIterator[str]:
    yield first
    async for one in rest:
        yield one
