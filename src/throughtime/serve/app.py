"""The server as an ASGI application: which path is answered by what, and every error as one line of JSON."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from starlette.exceptions import HTTPException

import throughtime
from throughtime.errors import UserError
from throughtime.serve import completions, music_paths, page, predictions, session_paths, sockets, transcriptions
from throughtime.serve.answers import Answer
from throughtime.serve.bodies import Failure
from throughtime.serve.gate import Gate
from throughtime.serve.invalid import in_words
from throughtime.serve.origins import Origins
from throughtime.serve.refused import FAULT, Refused, as_error
from throughtime.serve.server import Server
from throughtime.serve.stores.leased import Leased

ABOUT = (
    "Streams of recurrent networks: sessions that survive the server. /v1/stream is a WebSocket that carries many of them; its "
    "messages are those of POST /v1/sessions/ID/steps, with the session; write: what POST /v1/sessions/ID/write takes."
)


def make_app(server: Server, extended: Callable[[FastAPI], None] = lambda app: None) -> Callable[..., Awaitable[None]]:
    """An application that serves; it closes the server when it is shut down. extended: lets it answer more than this room does."""
    app = FastAPI(
        title="throughtime",
        version=throughtime.__version__,
        description=ABOUT,
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
        default_response_class=Answer,
        responses={"default": {"model": Failure, "description": "What cannot be done, and why."}},
    )
    app.state.server = server
    for part in (session_paths, music_paths, completions, predictions, sockets, transcriptions, page):
        app.include_router(part.router)
    extended(app)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether it serves."""
        return {"status": "ok"}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> str:
        """Counts, as Prometheus reads them."""
        return server.counts()

    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(UserError, _mistaken)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _unfit)
    app.add_exception_handler(Exception, _fault)
    gated = Gate(app, server.settings, server.metrics)
    if not server.settings.cors:
        return gated
    return Origins(gated, server.settings.cors)


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    server: Server = app.state.server
    tasks = [] if server.settings.idle is None else [asyncio.create_task(server.forget_idle())]
    if isinstance(server.store, Leased):
        tasks.append(asyncio.create_task(server.hold(server.store)))
    yield
    for task in tasks:
        task.cancel()
    await asyncio.to_thread(server.close)


def _refused(request: Request, error: Any) -> Response:
    later = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
    return Answer(as_error(error.status, str(error)), error.status, headers=later)


def _mistaken(request: Request, error: Exception) -> Response:
    return Answer(as_error(400, str(error)), 400)


def _invalid(request: Request, error: Any) -> Response:
    return Answer(as_error(400, in_words(error.errors())), 400)


def _unfit(request: Request, error: Any) -> Response:
    words = {
        404: f"there is no {request.url.path!r} here; GET /openapi.json lists what there is",
        405: f"{request.method} is not for {request.url.path!r}; GET /openapi.json lists what is",
    }
    known = error.status_code in words
    message = words[error.status_code] if known else str(error.detail)
    headers = dict(error.headers or {})
    path = getattr(request.scope.get("route"), "path", "")
    methods = request.app.openapi()["paths"].get(path, {}) if error.status_code == 405 else {}
    if methods:  # of all there is at this path, where the router names what its first entry takes
        headers["allow"] = ", ".join(method.upper() for method in methods)
    return Answer(as_error(error.status_code, message), error.status_code, headers=headers)


def _fault(request: Request, error: Exception) -> Response:
    """What went wrong is printed where the server runs; whoever asked is told no more than that."""
    return Answer(as_error(500, FAULT), 500)
