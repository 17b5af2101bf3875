"""How a server is to behave."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from throughtime.serve.stores.leased import LEASE


@dataclass(frozen=True)
class Settings:
    """Of a server.

    store: the folder that sessions are kept in. shared: in its place the folder, or the Redis (redis://…), that several processes
    keep them in. lease: after how many seconds they take those of a process that is silent. tokens: who may ask; none: everybody
    who can reach it. cors: the origins of pages whose scripts may ask. here: whether it listens to this machine alone. durable: see
    `Tables`. slots: how many sessions of a model are in memory at once. idle: after how many seconds a session that nobody touches
    is forgotten; None: never. sessions: how many a token may have. longest: steps, or tokens of a prompt, in a request. waiting:
    requests that may wait. body: bytes that a request may have. slow: seconds until a request must have been sent, and until an
    answer must have been taken.
    """

    store: Path
    shared: str | None = None
    lease: float = LEASE
    tokens: tuple[str, ...] = ()
    cors: tuple[str, ...] = ()
    here: bool = True
    durable: Literal["kill", "power"] = "kill"
    slots: int = 8192
    idle: float | None = None
    sessions: int = 1_000_000
    longest: int = 100_000
    waiting: int = 20_000
    body: int = 16 << 20
    slow: float = 30.0
