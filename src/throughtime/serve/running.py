"""A server that listens, until it is told to stop. Needs the extra `serve`: fastapi, uvicorn, websockets."""

from __future__ import annotations

import gc
import signal
import socket
from collections.abc import Callable
from typing import Any

from throughtime.errors import UserError, reason
from throughtime.serve.settings import Settings

GRACE = 30  # seconds for what is running when it is told to stop
SLOWEST = (
    90  # seconds, besides those that a client has, until its connection is ended though it may want to be told why
)


def check_packages(verb: str = "serve") -> None:
    """verb: the command that needs them. Raises: UserError where what serves is not installed."""
    try:
        import fastapi
        import uvicorn
        import websockets
    except ImportError as error:
        raise UserError(f"{verb} needs {error.name}: pip install 'throughtime[serve]'") from error
    assert fastapi and uvicorn and websockets


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. port: 0 for any that is free. Raises: UserError where it cannot be had."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # asyncio sends what is written at once, and does not wait for more to send along, where a socket says that it is TCP
        made = socket.socket(family, kind, socket.IPPROTO_TCP)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(2048)
        return made
    except (OSError, OverflowError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise UserError(f"{host}:{port}: cannot listen there: {why}; choose another --port or --host") from error


def prepare(models: dict[str, Any]) -> None:
    """Import and compile all that `run` will need for models, but start no thread: what is forked from this process has it then."""
    import torch
    import uvicorn

    from throughtime.serve import app, server

    torch.set_num_threads(1)
    server.warm(models)
    assert app and uvicorn


def run(
    models: dict[str, Any],
    settings: Settings,
    listening: socket.socket,
    ready: Callable[[], None],
    extended: Callable[[Any], None] = lambda app: None,
) -> None:
    """Serve models until SIGTERM or SIGINT; what is running then is brought to its end. ready: called once it serves. extended: see
    `make_app`.

    Raises: UserError where the store cannot be had.
    """
    import torch
    import uvicorn

    from throughtime.serve.app import make_app
    from throughtime.serve.server import Server

    torch.set_num_threads(1)  # each of the threads that compute
    if hasattr(
        socket, "TCP_USER_TIMEOUT"
    ):  # what a client does not take is held by the system, which else never gives up
        milliseconds = int(1000 * (settings.slow + SLOWEST))
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
    config = uvicorn.Config(
        make_app(Server(models, settings), extended),
        log_config=None,
        log_level="critical",
        access_log=False,
        ws="websockets-sansio",
        ws_max_size=settings.body,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=GRACE,
        server_header=False,
        proxy_headers=False,
    )

    class Told(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            gc.collect()
            gc.freeze()  # what is there now stays, and is not looked through again and again
            ready()

        async def main_loop(self) -> None:
            self.should_exit = self.should_exit or bool(told)
            await super().main_loop()

    told: list[
        int
    ] = []  # signals that came before uvicorn listened to them; it raises its own once more when it has stopped
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: told.append(number))
    Told(config).run(sockets=[listening])
