"""Music that a session writes: each moment drawn from what the network expects, and read before the next is drawn."""

from __future__ import annotations

import asyncio
from typing import Any

import torch

from throughtime.serve.bodies import Compose
from throughtime.serve.catalogue import to_the_end
from throughtime.serve.readers import MusicReader
from throughtime.serve.refused import Refused
from throughtime.serve.server import Server
from throughtime.serve.sessions import Sessions
from throughtime.serve.stepping import Writing
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


@to_the_end
async def write(reader: MusicReader, sessions: Sessions, owner: str, id: str, asked: Compose) -> dict[str, Any]:
    """Let a session write on. Returns: what is answered. Raises: Refused, UserError."""
    kept = await sessions.about(owner, id)
    again = asked.first is not None and asked.seed is not None and asked.first < kept.time
    opened = sessions.write_again(owner, id, asked.first or 0) if again else sessions.write_on(owner, id, asked.first)
    async with opened as stream:
        first = stream.time
        written, piece = await _written(reader, stream, asked, sessions.longest)
    return {
        "first": first,
        "time": first + len(written),
        "moments": [list(moment) for moment in written],
        "words": [reader.engine.writing.called(moment) for moment in written],
        **heard(piece),
    }


async def _written(reader: MusicReader, stream: Writing, asked: Compose, longest: int) -> tuple[list[Moment], Piece]:
    generator = None if asked.seed is None else torch.Generator().manual_seed(asked.seed)
    assert stream.output is not None
    past = await asyncio.to_thread(moments_in, stream.last(None))
    taste = Taste(asked.temperature, asked.top_k, asked.top_p, generator)
    composing, listener = reader.composing(past, stream.output, taste)
    extent = Extent(composing.walker.begun + asked.bars)
    composing.walker.stops = False
    while not extent.over(composing) and len(composing.moments) - len(past) < longest:
        drawn = await asyncio.to_thread(composing.drawn, extent)
        if drawn is None:
            break
        composing.read(drawn)
        (listener.output,) = await stream.read(reader.engine.row(listener.row))
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
