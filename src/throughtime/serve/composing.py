"""Music that a session writes: each moment drawn from what the network expects, and read before the next is drawn."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import torch

from throughtime.serve.bodies import Compose
from throughtime.serve.catalogue import to_the_end
from throughtime.serve.events import DONE, Flow, event
from throughtime.serve.readers import MusicReader
from throughtime.serve.refused import Refused
from throughtime.serve.server import Server
from throughtime.serve.sessions import Sessions
from throughtime.serve.stepping import Writing
from throughtime.serve.warned import told
from throughtime.tasks.clock import seconds, seconds_at
from throughtime.tasks.composing import Extent, Taste
from throughtime.tasks.event_values import DRUMS
from throughtime.tasks.moments import Moment, key_name
from throughtime.tasks.music_engine import moments_in
from throughtime.tasks.pieces import Piece


async def composer(server: Server, owner: str, id: str) -> tuple[MusicReader, Sessions]:
    """What reads and holds a session of music. Raises: Refused where it is of something else."""
    reader, sessions = server.of_session(id)
    await sessions.about(owner, id)
    if not isinstance(reader, MusicReader) or not isinstance(sessions, Sessions):
        raise Refused(400, f"the session {id!r} is of {sessions.name!r}, which is no model of music")
    return reader, sessions


Parts = Flow[dict[str, Any]]


async def events(
    server: Server, reader: MusicReader, sessions: Sessions, owner: str, id: str, asked: Compose
) -> AsyncGenerator[str, None]:
    """What a session writes on, as server-sent events: a moment each; the notes in seconds, once all are known."""
    flow = Parts(server.settings.slow)

    async def written() -> None:
        whole = await write(reader, sessions, owner, id, asked, flow)
        await flow.put({name: value for name, value in whole.items() if name not in ("moments", "words")} | told())

    with server.busy():
        async with contextlib.aclosing(flow.parts([written])) as parts:
            async for part in parts:
                yield event(part)
        yield DONE


@to_the_end
async def write(
    reader: MusicReader, sessions: Sessions, owner: str, id: str, asked: Compose, flow: Parts | None = None
) -> dict[str, Any]:
    """Let a session write on. flow: is given each moment as it is written; once nobody reads there, no more is written. Returns:
    what is answered. Raises: Refused, UserError."""
    kept = await sessions.about(owner, id)
    again = asked.first is not None and asked.seed is not None and asked.first < kept.time
    opened = sessions.write_again(owner, id, asked.first or 0) if again else sessions.write_on(owner, id, asked.first)
    async with opened as stream:
        first = stream.time
        written, piece = await _written(reader, stream, asked, sessions.longest, flow)
    return {**_told(reader, first, written), **heard(piece)}


def _told(reader: MusicReader, first: int, moments: list[Moment]) -> dict[str, Any]:
    """Moments of a session, from time `first` on."""
    return {
        "first": first,
        "time": first + len(moments),
        "moments": [list(moment) for moment in moments],
        "words": [reader.engine.writing.called(moment) for moment in moments],
    }


async def _written(
    reader: MusicReader, stream: Writing, asked: Compose, longest: int, flow: Parts | None
) -> tuple[list[Moment], Piece]:
    generator = None if asked.seed is None else torch.Generator().manual_seed(asked.seed)
    assert stream.output is not None
    past = await asyncio.to_thread(moments_in, stream.last(None))
    taste = Taste(asked.temperature, asked.top_k, asked.top_p, generator)
    composing, listener = reader.composing(past, stream.output, taste)
    extent = Extent(composing.walker.begun + asked.bars)
    composing.walker.stops = False
    while not extent.over(composing) and len(composing.moments) - len(past) < longest:
        if flow is not None and flow.gone:
            break
        drawn = await asyncio.to_thread(composing.drawn, extent)
        if drawn is None:
            break
        composing.read(drawn)
        (listener.output,) = await stream.read(reader.engine.row(listener.row))
        if flow is not None:
            await flow.put(_told(reader, stream.time - 1, [drawn]))
    written = composing.moments[len(past) :]
    return written, await asyncio.to_thread(reader.engine.writing.part, composing.moments, len(past))


def heard(piece: Piece) -> dict[str, Any]:
    """The notes of a piece, in seconds from its beginning. program: of General MIDI, 128 is drums."""
    programs = [DRUMS if track.drums else track.program for track in piece.tracks]
    notes = [
        {
            "key": key_name(int(note["pitch"])),
            "pitch": int(note["pitch"]),
            "start": round(float(start), 6),
            "end": round(float(end), 6),
            "velocity": int(note["velocity"]),
            "program": programs[int(note["track"])],
        }
        for note, (start, end) in zip(piece.notes, seconds(piece), strict=True)
    ]
    return {"notes": notes, "seconds": round(float(seconds_at(piece, piece.ticks)), 6)}
