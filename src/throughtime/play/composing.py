"""A piece that was read and written, and what a model writes on, as it was and if a moment of it had been another."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from throughtime.errors import UserError
from throughtime.play.bodies import MOMENTS, Imagine
from throughtime.serve.answers import plain
from throughtime.serve.composing import heard
from throughtime.serve.inputs import piece_of
from throughtime.serve.readers import finite
from throughtime.serve.refused import Refused
from throughtime.tasks.moments import KEYS
from throughtime.tasks.music_model import MusicModel
from throughtime.tasks.music_session import MusicSession

AT_HAND = 8  # pieces that are not read and written anew
LIKELIEST = 5


class Imagining:
    """The pieces of one model."""

    def __init__(self, model: MusicModel) -> None:
        self.model = model
        self._pieces: OrderedDict[tuple[Any, ...], MusicSession] = OrderedDict()
        self._lock = threading.Lock()

    def answered(self, asked: Imagine) -> dict[str, Any]:
        """A piece as it was, and with moments changed: its moments, its notes in seconds, what each moment cost, and what the model
        goes on with. Raises: Refused, UserError."""
        with self._lock:
            past = self._line(asked, None)
            if past.time > MOMENTS:
                raise Refused(413, f"notes: make {past.time:,} moments; the page shows up to {MOMENTS:,}")
            other = None
            if asked.changes:
                other = past.branch()
                for number, change in enumerate(asked.changes):
                    if change.time >= past.time:
                        raise Refused(400, f"changes.{number}: there is no moment {change.time} among {past.time}")
                    other.edit(change.time, input=change.notes)
            found = {
                "present": past.time,
                "expected": past.next(LIKELIEST),
                "was": self._told(self._line(asked, asked.ahead), past.time),
                "now": None,
            }
            if other is not None:
                apart = past.diff(other, [(t, t) for t in range(past.time + 1)])
                other.write(asked.ahead, seed=asked.seed + 1) if asked.ahead else None
                found |= {
                    "now": self._told(other, past.time),
                    "parts": apart.parts,
                    "states": [[finite(d) for d in layers] for layers in apart.states],
                }
        return {name: plain(value) for name, value in found.items()}

    def _line(self, asked: Imagine, ahead: int | None) -> MusicSession:
        """What was read and written; ahead: with so many bars that the model goes on."""
        key = (asked.notes, asked.bars, asked.seed, ahead or 0)
        if key not in self._pieces:
            if ahead:
                session = self._line(asked, None).branch()
                session.write(ahead, seed=asked.seed + 1)
            else:
                session = self._read(asked)
            self._pieces[key] = session
            if len(self._pieces) > AT_HAND:
                self._pieces.popitem(last=False)
        self._pieces.move_to_end(key)
        return self._pieces[key].branch()

    def _read(self, asked: Imagine) -> MusicSession:
        session = self.model.session()
        if asked.notes:
            session.feed(piece_of(self.model, asked.notes, "notes", MOMENTS))
        if asked.bars:
            session.write(asked.bars, seed=asked.seed)
        if not session.time:
            raise UserError("notes: nothing is read, and nothing written; give notes, or bars to write")
        return session

    def _told(self, line: MusicSession, present: int) -> dict[str, Any]:
        """present: up to which moment it is the past."""
        writing, walker = line.writing, line.writing.walker()
        moments, surprise, told = line.moments(), line.surprise(), []
        for moment, nats in zip(moments, surprise, strict=True):
            walker.read(moment)
            told.append({
                "seconds": round(walker.seconds, 6),
                "bar": walker.begun,
                "words": writing.called(moment),
                "keys": "+".join(writing.names[s] for s in moment if 1 <= s <= KEYS),
                "nats": finite(nats),
            })  # fmt: skip
        return {"moments": told, "nats": finite(sum(surprise[:present])), **heard(line.piece)}
