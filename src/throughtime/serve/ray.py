"""Replicas of a server under Ray Serve, which sends each session to the replica that it hashes to. Needs the extra `ray`.

serve run throughtime.serve.ray:build runs=runs/book shared=redis://host replicas=3
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from throughtime.errors import UserError
from throughtime.serve.running import check_packages
from throughtime.serve.settings import Settings
from throughtime.serve.stores.leased import LEASE

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves the machine; Ray reads it when it starts
ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"


class Replica:
    """One of several servers of the same sessions, in a process of its own. Arguments: as of `deployment`."""

    def __init__(self, runs: Sequence[Path], settings: Settings) -> None:
        import torch

        from throughtime.serve.server import Server
        from throughtime.tasks import load

        torch.set_num_threads(1)  # each of the threads that compute
        self._server = Server({run.name: load(run) for run in runs}, settings)

    def __serve_build_asgi_app__(self) -> Callable[..., Awaitable[None]]:
        """The application, as Ray asks for it: the one that `throughtime serve` serves."""
        from throughtime.serve.app import make_app

        return make_app(self._server)


def deployment(runs: Sequence[str | Path], settings: Settings, replicas: int = 3) -> Any:
    """An application for `ray.serve.run`.

    Requests that name their session in the header `x-session-id` go to the replica that has it in memory. The header is a hint:
    what goes elsewhere, because a replica is new, full or gone, takes the session along.

    Args: runs: folders that every machine finds there; each is a model of its folder's name. settings: `shared` says where the
        sessions are kept. replicas: how many there are at first; the same application run again with another number has that many.
    Raises: UserError where Ray is not installed, the settings share nothing, or two folders have one name.
    """
    try:
        from ray import serve
        from ray.serve.config import RequestRouterConfig
    except ImportError as error:
        raise UserError(f"replicas need {error.name}: pip install 'throughtime[ray]'") from error
    check_packages()
    if settings.shared is None:
        raise UserError("shared: replicas have their sessions in common; name redis://HOST, or a folder of one machine")
    if "://" not in settings.shared:
        settings = dataclasses.replace(settings, shared=str(Path(settings.shared).resolve()))
    folders = [Path(run).resolve() for run in runs]
    if len({folder.name for folder in folders}) < len(folders):
        raise UserError(f"runs: {', '.join(map(str, runs))}: two have one name; rename one of the folders")
    made = serve.deployment(
        name="throughtime",
        num_replicas=replicas,
        max_ongoing_requests=settings.waiting,  # what waits together is stepped together
        request_router_config=RequestRouterConfig(request_router_class=ROUTER),
    )
    return made(serve.ingress()(Replica)).bind(folders, settings)


class Arguments(BaseModel, extra="forbid"):
    """What `serve run` is given as NAME=VALUE. runs: folders, with commas. Tokens are those in THROUGHTIME_TOKENS, with commas."""

    runs: str
    shared: str
    replicas: int = 3
    lease: float = LEASE
    slots: int = 8192


def build(arguments: dict[str, Any]) -> Any:
    """An application for `serve run` and `serve deploy`. arguments: see `Arguments`. Raises: as `deployment`."""
    try:
        given = Arguments.model_validate(arguments)
    except ValidationError as error:
        first = error.errors()[0]
        where, names = ".".join(map(str, first["loc"])), ", ".join(Arguments.model_fields)
        raise UserError(f"{where}: {first['msg']}; the arguments are {names}") from None
    named = [token.strip() for token in os.environ.get("THROUGHTIME_TOKENS", "").split(",")]
    tokens = tuple(dict.fromkeys(filter(None, named)))
    settings = Settings(Path(), given.shared, given.lease, tokens=tokens, slots=given.slots)
    return deployment(given.runs.split(","), settings, given.replicas)
