"""The page over HTTP: its files, and what it asks."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response

from throughtime.play.bodies import Ask, Cut, Foresee, Imagine, Parting, Reaching, Speak, Write
from throughtime.play.play import Play
from throughtime.play.reach import reach
from throughtime.serve.answers import TheServer
from throughtime.serve.refused import Refused

STATIC = Path(__file__).with_name("static")
FILES = {
    "index.html": "text/html; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "shared.js": "text/javascript; charset=utf-8",  # of the page and of panels.js
    "train.js": "text/javascript; charset=utf-8",
    "panels.js": "text/javascript; charset=utf-8",
    "panels.css": "text/css; charset=utf-8",
    "microphone.js": "text/javascript; charset=utf-8",
}
TRAINERS = Path(__file__).with_name("trainers")  # networks that the page trains
# from this server alone, and no code but the page's own; wasm-unsafe-eval lets it run WebAssembly, and no other text as code
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
router = APIRouter(include_in_schema=False)


def extended(app: FastAPI, opening: dict[str, str] | None = None) -> None:
    """Let a server's application answer the page too. opening: see `Play`."""
    app.state.play = Play(app.state.server, opening)
    app.include_router(router)


async def _play(request: Request) -> Play:
    play: Play = request.app.state.play
    return play


ThePlay = Annotated[Play, Depends(_play)]


def _file(name: str) -> Response:
    headers = {
        "content-security-policy": POLICY,
        "cache-control": "no-cache",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
    }
    return Response((STATIC / name).read_bytes(), media_type=FILES[name], headers=headers)


@router.get("/")
async def index() -> Response:
    """The page."""
    return _file("index.html")


for _name in FILES.keys() - {"index.html"}:
    router.get(f"/{_name}", name=_name)(partial(_file, _name))


@router.get("/trainers/{name}")
def trainer(name: str) -> Response:
    """A network that it trains, or what there is to know of all of them."""
    kinds = {".wasm": "application/wasm", ".json": "application/json"}
    if name not in {path.name for path in TRAINERS.iterdir()}:
        raise Refused(404, f"there is no {name} here")
    return Response(
        (TRAINERS / name).read_bytes(), media_type=kinds[Path(name).suffix], headers={"cache-control": "no-cache"}
    )


@router.get("/play/models")
async def models(play: ThePlay) -> dict[str, Any]:
    """The models, and what each can show."""
    return {"models": await asyncio.to_thread(play.models)}


@router.post("/play/columns")
async def columns(server: TheServer, play: ThePlay, body: Ask) -> Response:
    """What a model does with a text, step by step, in binary."""
    with server.busy():
        return Response(await asyncio.to_thread(play.columns, body), media_type="application/octet-stream")


@router.post("/play/parting")
async def parting(server: TheServer, play: ThePlay, body: Parting) -> dict[str, Any]:
    """Where two pasts part, and how far."""
    with server.busy():
        return await asyncio.to_thread(play.parting, body)


@router.post("/play/reach")
async def reaching(server: TheServer, body: Reaching) -> dict[str, Any]:
    """The gradient of an output, back over a text."""
    with server.busy():
        return await asyncio.to_thread(reach, server, body)


@router.post("/play/written")
async def written(server: TheServer, play: ThePlay, body: Write) -> dict[str, Any]:
    """What a model would write from a time on."""
    with server.busy():
        return await asyncio.to_thread(play.written, body)


@router.post("/play/forecast")
async def forecast(server: TheServer, play: ThePlay, body: Foresee) -> dict[str, Any]:
    """What comes after a series, as it was and with values changed."""
    with server.busy():
        return await asyncio.to_thread(play.forecast, body)


@router.post("/play/music")
async def music(server: TheServer, play: ThePlay, body: Imagine) -> dict[str, Any]:
    """A piece that goes on, as it was and with moments changed."""
    with server.busy():
        return await asyncio.to_thread(play.music, body)


@router.post("/play/spoken")
async def spoken(server: TheServer, play: ThePlay, body: Speak) -> dict[str, Any]:
    """A command of `throughtime travel`."""
    with server.busy():
        return await asyncio.to_thread(play.spoken, body)


@router.post("/play/tokens")
async def tokens(play: ThePlay, body: Cut) -> dict[str, Any]:
    """The tokens of a text."""
    return await asyncio.to_thread(play.tokens, body)
