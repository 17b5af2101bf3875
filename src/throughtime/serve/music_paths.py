"""Sessions of music over HTTP: write on, and what has been read as notes or as a MIDI file."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fastapi import APIRouter, Response

from throughtime.serve.answers import Answer, Owner, TheServer
from throughtime.serve.bodies import Compose
from throughtime.serve.composing import composer, events, heard, write
from throughtime.serve.events import sent
from throughtime.serve.readers import MusicReader
from throughtime.serve.session_paths import AtTime
from throughtime.serve.sessions import Sessions
from throughtime.tasks.moments import Moment
from throughtime.tasks.music_engine import moments_in
from throughtime.tasks.music_files import write as write_file

MIDI = "audio/midi"
router = APIRouter(prefix="/v1/sessions", tags=["sessions"])


@router.post("/{id}/write", response_model=None)
async def write_on(server: TheServer, owner: Owner, id: str, body: Compose | None = None) -> Response:
    """Let a session of music write on, and read what it writes; with a seed what `MusicSession.write` writes with it."""
    reader, sessions = await composer(server, owner, id)
    asked = Compose() if body is None else body
    if asked.stream:
        return await sent(events(server, reader, sessions, owner, id, asked))
    with server.busy():
        return Answer(await write(reader, sessions, owner, id, asked))


@router.get("/{id}/piece")
async def piece(server: TheServer, owner: Owner, id: str, time: AtTime = None) -> dict[str, Any]:
    """What a session of music has read, as moments and as notes in seconds."""
    reader, sessions = await composer(server, owner, id)
    moments = await _read(reader, sessions, owner, id, time)
    writing = reader.engine.writing
    made = await asyncio.to_thread(lambda: heard(writing.piece(moments)))
    return {
        "id": id,
        "time": len(moments),
        "moments": [list(moment) for moment in moments],
        "words": [writing.called(moment) for moment in moments],
        **made,
    }


@router.get("/{id}/piece.mid", response_class=Response)
async def midi(server: TheServer, owner: Owner, id: str, time: AtTime = None) -> Response:
    """What a session of music has read, as a MIDI file."""
    reader, sessions = await composer(server, owner, id)
    moments = await _read(reader, sessions, owner, id, time)
    return Response(await asyncio.to_thread(_midi, reader, moments), media_type=MIDI)


async def _read(reader: MusicReader, sessions: Sessions, owner: str, id: str, time: int | None) -> list[Moment]:
    return await asyncio.to_thread(moments_in, await sessions.read_inputs(owner, id, time))


def _midi(reader: MusicReader, moments: list[Moment]) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "piece.mid"
        write_file(reader.engine.writing.piece(moments), path)
        return path.read_bytes()
