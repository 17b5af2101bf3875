"""A WebSocket that carries many sessions: messages as JSON, and binary frames of numbers."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import ValidationError

from throughtime.errors import UserError
from throughtime.serve.answers import as_json
from throughtime.serve.bodies import ComposeMessage, Create, Message, Open
from throughtime.serve.catalogue import Catalogue
from throughtime.serve.composing import composer, write
from throughtime.serve.invalid import in_words
from throughtime.serve.readers import Reader
from throughtime.serve.refused import FAULT, Refused, as_error, tell_fault
from throughtime.serve.server import Server
from throughtime.serve.warned import heard, told

AT_ONCE = 1024  # messages of a socket that are worked on
TRY_AGAIN_LATER = 1013
GRACE = 60  # seconds in which a socket that is closed for being slow may still take what it was sent, and be told why
router = APIRouter()


class _Slow(Exception):
    """Answers are not taken."""


class _Socket:
    """One connection. What is asked of one session is done in the order it comes."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._server: Server = socket.app.state.server
        self._owner: str = socket.state.owner
        self._ids: list[str] = []  # by their number in binary frames
        self._model: tuple[Reader, Catalogue] | None = None  # of these
        self._top = 0
        self._room = asyncio.Semaphore(AT_ONCE)
        self._sending = asyncio.Lock()

    async def serve(self) -> None:
        """Answer until it is closed."""
        await self._socket.accept()
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    await self._room.acquire()
                    message = await self._socket.receive()
                    if message["type"] == "websocket.disconnect":
                        raise WebSocketDisconnect(message.get("code", 1000))
                    tasks.create_task(self._answer(message.get("bytes"), message.get("text")))
        except* WebSocketDisconnect:
            pass
        except* _Slow:
            with contextlib.suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
                async with asyncio.timeout(GRACE):
                    await self._socket.close(TRY_AGAIN_LATER, "answers are not taken")

    async def _answer(self, data: bytes | None, text: str | None) -> None:
        try:
            with heard():
                answer = await (self._text(text or "") if data is None else self._binary(data))
                await self._send(answer if isinstance(answer, bytes) else as_json(answer | told()))
        finally:
            self._room.release()

    async def _send(self, answer: str | bytes) -> None:
        try:
            async with asyncio.timeout(self._server.settings.slow), self._sending:
                if isinstance(answer, str):
                    await self._socket.send_text(answer)
                else:
                    await self._socket.send_bytes(answer)
        except TimeoutError:
            raise _Slow from None
        except RuntimeError as error:  # it was closed while the answer was worked out, for what broke its protocol
            raise WebSocketDisconnect(1006) from error

    # ------------------------------------------------------------------------------------------ JSON

    async def _text(self, text: str) -> dict[str, Any]:
        tags: dict[str, Any] = {}
        try:
            try:
                given = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise Refused(400, f"the message is no JSON: {error}") from None
            if not isinstance(given, dict):
                raise Refused(400, 'a message is an object: {"session": …, "first": …, "text": …}')
            tags = {name: given[name] for name in ("tag", "session") if name in given}
            if "open" in given:
                return tags | await self._open(Open.model_validate(given))
            if "write" in given:
                return tags | await self._write(ComposeMessage.model_validate(given))
            asked = Message.model_validate(given)
            reader, sessions = self._server.of_session(asked.session)
            with self._server.busy():
                return tags | await reader.step(sessions, self._owner, asked.session, asked)
        except Exception as error:
            return self._refusal(error, tags)

    def _refusal(self, error: Exception, tags: dict[str, Any]) -> dict[str, Any]:
        """An error as a message. Raises: it, where it is a fault of ours."""
        if isinstance(error, Refused):
            return tags | as_error(error.status, str(error))
        if isinstance(error, UserError):
            return tags | as_error(400, str(error))
        if isinstance(error, ValidationError):
            return tags | as_error(400, in_words(error.errors()))
        tell_fault("/v1/stream", error)
        return tags | as_error(500, FAULT)

    async def _write(self, asked: ComposeMessage) -> dict[str, Any]:
        """Let a session of music write on."""
        if asked.write.stream:
            raise Refused(400, "stream: a message has one answer; ask POST /v1/sessions/ID/write for events")
        reader, sessions = await composer(self._server, self._owner, asked.session)
        with self._server.busy():
            return await write(reader, sessions, self._owner, asked.session, asked.write)

    async def _open(self, asked: Open) -> dict[str, Any]:
        """Give sessions numbers."""
        found: list[tuple[Reader, Catalogue]] = []
        for id in asked.open:
            if asked.make and self._server.store.find(id) is None:
                found.append(self._server.find(asked.model).streaming())
                await found[-1][0].create(found[-1][1], self._owner, Create(id=id))
            else:
                found.append(self._server.of_session(id))
                await found[-1][1].about(self._owner, id)
        models = {sessions.name for _, sessions in [*found, *([self._model] if self._model else [])]}
        if len(models) > 1:
            raise Refused(400, f"open: the sessions of a socket are of one model, and these are of {', '.join(models)}")
        found[0][0].check_frames(asked.top)
        self._model, self._top = found[0], asked.top
        first = len(self._ids)
        self._ids += asked.open
        return {"open": list(range(first, len(self._ids)))}

    # ------------------------------------------------------------------------------------------ binary

    async def _binary(self, data: bytes) -> dict[str, Any] | bytes:
        tags: dict[str, Any] = {}
        if len(data) >= 4:
            tags = {"tag": int.from_bytes(data[:4], "little")}
        try:
            if self._model is None:
                raise Refused(400, 'no session has a number here; send {"open": [ids]} first')
            reader, sessions = self._model
            found = await reader.frame(sessions, self._owner, self._ids, data, self._top, self._server.busy)
            return found if isinstance(found, bytes) else tags | found
        except Exception as error:
            return self._refusal(error, tags)


@router.websocket("/v1/stream")
async def stream(socket: WebSocket) -> None:
    """Steps of many sessions over one connection."""
    await _Socket(socket).serve()
