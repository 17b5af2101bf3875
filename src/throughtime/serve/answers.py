"""How an answer is written, and of whom a request is."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.responses import JSONResponse

from throughtime.serve.server import Server
from throughtime.serve.warned import told


class Answer(JSONResponse):
    """JSON on one line, in ASCII: what is no character of its own may stand in a name. With what was warned of meanwhile."""

    def render(self, content: Any) -> bytes:
        """The bytes of the body."""
        return (as_json(content | told() if isinstance(content, dict) else content) + "\n").encode()


def as_json(content: Any) -> str:
    """A value as JSON on one line."""
    return json.dumps(content, allow_nan=False, separators=(",", ":"))


def plain(value: Any) -> Any:
    """A value as JSON can hold it."""
    if isinstance(value, dict):
        return {name: plain(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# coroutines, since what is none would be called in a thread of its own
async def _server(request: Request) -> Server:
    server: Server = request.app.state.server
    return server


async def _owner(request: Request) -> str:
    owner: str = request.state.owner
    return owner


TheServer = Annotated[Server, Depends(_server)]
Owner = Annotated[str, Depends(_owner)]
