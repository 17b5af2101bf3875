"""What stands before the server: who may come in, with how much, and what those are told who may not."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from throughtime.serve.metrics import Metrics
from throughtime.serve.page import PATHS
from throughtime.serve.refused import FAULT, Refused, as_error, tell_fault
from throughtime.serve.settings import Settings
from throughtime.serve.warned import heard, in_header

HERE = ("localhost", "127.0.0.1", "::1")  # names of this machine, as it calls itself
WARNINGS = b"throughtime-warnings"  # the header of an answer that holds none itself
HOLDING = (b"application/json", b"text/event-stream")  # kinds of answers that do
FREE = ("/healthz", "/openapi.json", *PATHS)  # what needs no token
EVERYBODY = ""  # the owner of sessions where there are no tokens

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Gate:
    """Lets through those who have a token, and puts into `scope["state"]["owner"]` whose sessions they may have.

    A page of somebody else's that is open in a browser on this machine could reach a server that listens to this machine alone: so
    where no token is needed, requests that name another origin, or that came here by another name, are refused.
    """

    def __init__(
        self, app: Callable[[Scope, Receive, Send], Awaitable[None]], settings: Settings, metrics: Metrics
    ) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._tokens = [token.encode() for token in settings.tokens]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        began, sent = time.perf_counter(), _Sent(send, self._settings.slow if scope["type"] == "http" else None)
        try:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            self._check_place(headers)
            scope.setdefault("state", {})["owner"] = self._owner(scope["path"], headers.get("authorization", ""))
            if scope["type"] == "http":
                receive = self._limited(headers, receive)
            with heard():
                await self._app(scope, receive, sent)
        except Refused as refused:
            if not sent.status:
                await _refuse(scope, sent, refused)
        except ClientDisconnect:  # while its request was read, or who takes no answers
            pass
        except Exception as error:
            tell_fault(scope["path"], error)
            if not sent.status:
                await _refuse(scope, sent, Refused(500, FAULT))
        route = getattr(scope.get("route"), "path", "other")
        self._metrics.count(route, sent.status, time.perf_counter() - began)

    def _check_place(self, headers: dict[str, str]) -> None:
        """Raises: Refused where a page of somebody else's may be asking, and no token says who does."""
        if self._tokens:
            return
        host = headers.get("host", "")
        if self._settings.here and _place(f"//{host}").hostname not in HERE:
            raise Refused(403, f"host: {host[:100]!r}: this server is reached by localhost or 127.0.0.1 alone")
        origin = headers.get("origin")
        if origin is None or origin in self._settings.cors or "*" in self._settings.cors:
            return
        if _place(origin).netloc != host:
            raise Refused(
                403, f"origin: {origin[:100]!r}: pages from there may not ask; start the server with --cors for it"
            )

    def _owner(self, path: str, authorization: str) -> str:
        if not self._tokens or path in FREE:
            return EVERYBODY
        kind, _, token = authorization.partition(" ")
        given = token.strip().encode("latin-1")
        # all are compared, so that the time says nothing of which it is near to
        right = [hmac.compare_digest(given, one) for one in self._tokens]
        if kind.lower() != "bearer" or not any(right):
            raise Refused(401, "authorization: send 'Authorization: Bearer TOKEN' with a token of this server")
        return hashlib.sha256(given).hexdigest()[:32]

    def _limited(self, headers: dict[str, str], receive: Receive) -> Receive:
        """Takes a body of limited size, in limited time."""
        settings = self._settings
        too_large = HTTPException(413, f"the body has more than {settings.body} bytes; send it in several requests")
        size = headers.get("content-length", "")
        if size.isdigit() and int(size) > settings.body:
            raise Refused(413, too_large.detail)
        taken, ended = 0, asyncio.get_running_loop().time() + settings.slow
        whole = False

        async def limited() -> MutableMapping[str, Any]:
            nonlocal taken, whole
            if whole:  # what comes now is that the client goes away
                return await receive()
            try:
                async with asyncio.timeout_at(ended):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, f"the request did not come within {settings.slow:g} seconds") from None
            taken += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if taken > settings.body:
                raise too_large
            return message

        return limited


class _Sent:
    """Sends what answers a request. status: 0 until there is one.

    Args: slow: seconds in which a part must be taken; None: any.
    Raises: ClientDisconnect, called, where it is not.
    """

    def __init__(self, send: Send, slow: float | None) -> None:
        self._send, self._slow, self.status = send, slow, 0

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            self.status = message["status"]
            self._warn(message.get("headers", []))
        elif message["type"] == "websocket.accept":
            self.status = 101
        try:
            async with asyncio.timeout(self._slow):
                await self._send(message)
        except TimeoutError:
            raise ClientDisconnect from None

    def _warn(self, headers: list[tuple[bytes, bytes]]) -> None:
        if not any(name == b"content-type" and kind.startswith(HOLDING) for name, kind in headers):
            words = in_header()
            headers += [(WARNINGS, words)] if words else []


def _place(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


async def _refuse(scope: Scope, send: Send, refused: Refused) -> None:
    kind = "http.response" if scope["type"] == "http" else "websocket.http.response"
    body = json.dumps(as_error(refused.status, str(refused))).encode() + b"\n"
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(b"connection", b"close")] if scope["type"] == "http" else []
    headers += [(b"www-authenticate", b"Bearer")] if refused.status == 401 else []
    await send({"type": f"{kind}.start", "status": refused.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
