"""serve: models over HTTP, whose streams survive."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from throughtime.cli.output import Download, opened, whole
from throughtime.errors import UserError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
ACCESS, LIMITS, SEVERAL = (
    Group(name, sort_key=10 + place) for place, name in enumerate(("Access", "Limits", "Several processes"))
)
Count = Annotated[int, Parameter(converter=whole, group=LIMITS)]


def serve(  # noqa: PLR0913  (a user's to give)
    runs: Annotated[list[Path], Parameter(help="Run folders; each is a model of its folder's name.", negative="")],
    /,
    *,
    host: Annotated[str, Parameter(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="0 takes any that is free.", converter=whole)] = 8000,
    store: Annotated[Path, Parameter(help="A folder that sessions are kept in.")] = Path("throughtime-sessions"),
    shared: Annotated[
        str | None,
        Parameter(
            help="In place of --store where several processes serve the same sessions: a folder of this machine, or "
            "redis://HOST for several machines.",
            group=SEVERAL,
        ),
    ] = None,
    lease: Annotated[
        float,
        Parameter(help="Seconds after which others take the sessions of a process that is silent.", group=SEVERAL),
    ] = 3.0,
    durable: Annotated[
        Literal["kill", "power"],
        Parameter(
            help="What an answered step survives: the server killed, or the power lost as well, which is slower."
        ),
    ] = "kill",
    token: Annotated[
        list[str] | None,
        Parameter(
            help="Who may ask; several times for several, each with sessions of its own. Or THROUGHTIME_TOKENS, with commas.",
            negative="",
            group=ACCESS,
        ),
    ] = None,
    open: Annotated[bool, Parameter(help="Let everybody ask who can reach --host.", negative="", group=ACCESS)] = False,
    cors: Annotated[
        list[str] | None,
        Parameter(
            help="An origin, https://name, whose pages may ask; several times for several.", negative="", group=ACCESS
        ),
    ] = None,
    slots: Annotated[Count, Parameter(help="Sessions of a model in memory at once.")] = 8192,
    idle: Annotated[
        float | None,
        Parameter(help="Forget sessions that nobody touches for so many seconds. [default: never]", group=LIMITS),
    ] = None,
    sessions: Annotated[Count, Parameter(help="Sessions that a token may have.")] = 1_000_000,
    longest: Annotated[Count, Parameter(help="Steps in a request.")] = 100_000,
    waiting: Annotated[Count, Parameter(help="Requests that may wait; others are told to ask later.")] = 20_000,
    body: Annotated[Count, Parameter(help="Bytes of a request.")] = 16 << 20,
    slow: Annotated[
        float, Parameter(help="Seconds to send a request in, and to take an answer in.", group=LIMITS)
    ] = 30.0,
    download: Download = False,
) -> int:
    """Serve trained models over HTTP. Streams of text, series and music are sessions: they are kept in --store, go on after the
    server was killed, and can be taken back, branched, changed and compared; those of speech can be taken back and branched. POST
    /v1/completions and /v1/audio/transcriptions answer as OpenAI's API does, POST /v1/predict answers whole inputs of every task.
    GET /docs shows all there is. Stop it with Ctrl-C."""
    from throughtime.serve.running import check_packages, listen, prepare, run
    from throughtime.serve.settings import Settings
    from throughtime.serve.supervising import can_fork, keep_serving

    tokens = _tokens(token)
    for name, value in (
        ("slots", slots),
        ("sessions", sessions),
        ("longest", longest),
        ("waiting", waiting),
        ("body", body),
    ):
        if value < 1:
            raise UserError(f"--{name}: got {value}; at least 1")
    for name, seconds in (("idle", idle), ("slow", slow), ("lease", lease)):
        if seconds is not None and not 0 < seconds < 1e9:
            raise UserError(f"--{name}: got {seconds:g}; more than 0 seconds")
    if host not in LOOPBACK and not tokens and not open:
        raise UserError(
            f"--host {host}: others could reach it, and it asks for no token; give --token, or --open to let them"
        )
    check_packages()
    listening = listen(host, port)
    models = _models(runs, download)
    settings = Settings(
        store=store,
        shared=shared,
        lease=lease,
        tokens=tokens,
        cors=tuple(cors or ()),
        here=host in LOOPBACK,
        durable=durable,
        slots=slots,
        idle=idle,
        sessions=sessions,
        longest=longest,
        waiting=waiting,
        body=body,
        slow=slow,
    )
    kept = shared.rpartition("@")[2] if shared else str(store)
    where = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"

    def ready() -> None:
        what = ", ".join(f"{name} ({model.task.name})" for name, model in models.items())
        print(
            f"throughtime: serving {what} at {where}, sessions in {kept}, process {os.getpid()}",
            file=sys.stderr,
            flush=True,
        )

    def served() -> None:
        run(models, settings, listening, ready)

    if not can_fork():
        print("throughtime: serves from one process here; should it die, nothing starts it again", file=sys.stderr)
        served()
        return 0
    with listening:
        prepare(models)
        return keep_serving(served)


def _tokens(given: list[str] | None) -> tuple[str, ...]:
    named = os.environ.get("THROUGHTIME_TOKENS", "")
    tokens = tuple(dict.fromkeys([*(given or ()), *(part.strip() for part in named.split(",") if part.strip())]))
    for token in tokens:
        if not token.isascii() or not token.isprintable() or not token or " " in token:
            raise UserError("--token: a token is letters, digits and signs, without spaces")
    return tokens


def _models(runs: list[Path], download: bool) -> dict[str, Any]:
    import torch

    torch.set_num_threads(1)  # so that loading starts no other, which a child would not have
    models: dict[str, Any] = {}
    for folder in runs:
        name = folder.resolve().name
        if name in models:
            raise UserError(f"{folder}: there is a model {name!r} already; rename one of the folders")
        models[name] = opened(folder, download)
    return models
