"""A session of a model of music: a piece that is read and written moment by moment, and can be gone back in.

Shapes: T time, R numbers of a row, N output of the stack.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from throughtime.config import build_options
from throughtime.errors import UserError
from throughtime.tasks.composing import Composing, Extent, Listener, Taste, moments_of
from throughtime.tasks.moments import Moment
from throughtime.tasks.music_engine import MusicEngine, moments_in
from throughtime.tasks.music_settings import ComposeOptions
from throughtime.tasks.pieces import Piece
from throughtime.travel import Session
from throughtime.travel.session import KEEP, SNAPSHOTS, whole

PIECE = 256  # moments that are scored together


class MusicSession(Session):
    """A piece that is read and written, made by `MusicModel.session`. An input is a moment: a frame, or notes that begin together.

        session = throughtime.load("runs/chorales").session()
        session.feed("C4+E4+G4+C5 B3+D4+G4+D5")
        session.write(bars=4)
        other = session.branch()
        other.rewind(bars=2)
        other.edit(3, input="A3+C4+F4+C5")
        other.write(bars=2)
        sum(session.surprise()), sum(other.surprise())

    Notes are typed as `C4 E4 G4`, a quarter note each, those that are struck at once with + between. At time 0 nothing is read; of
    events the first moment is a heading, that says metre, key, tempo and instruments. All of a piece is kept: `keep` is how many
    moments it may have.
    """

    _engine: MusicEngine

    def __init__(self, engine: MusicEngine, *, snapshots: int = SNAPSHOTS, keep: int = KEEP) -> None:
        self.writing = engine.writing
        self._begin(engine, None, snapshots, keep)

    # -- what has been read

    def moments(self, start: int | None = None, stop: int | None = None) -> list[Moment]:
        """The moments from time `start` to `stop`, each the symbols it has; None: all, with those that lie ahead."""
        return moments_in(self.inputs(start, stop))

    @property
    def piece(self) -> Piece:
        """What has been read, up to the present."""
        return self.writing.piece(self.moments(0, self.time))

    @property
    def words(self) -> list[str]:
        """What was read and lies ahead in words, moment by moment: the keys."""
        return [self.writing.called(moment) for moment in self.moments()]

    def bars(self) -> list[int]:
        """How many bars have begun at each time, from 0 to the end of all that is known."""
        walker = self.writing.walker()
        found = [walker.begun]
        for moment in self.moments():
            walker.read(moment)
            found.append(walker.begun)
        return found

    def surprise(self, start: int | None = None, stop: int | None = None) -> list[float]:
        """-log p of each moment from time `start` to `stop`, in nats, given all before it; None: of all, with what lies ahead."""
        rows, low, found = self.inputs(start, stop), start or 0, list[float]()
        for part in torch.split(rows, PIECE):
            at = low + len(found)
            outputs = [now.output for now in self._history.walk(range(at, at + len(part))) if now.output is not None]
            found += self._engine.nats(part, torch.stack(outputs), at) if len(part) else []
        return found

    # -- reading on, and changing what was read

    def feed(self, x: Any) -> list[float]:
        """Read notes, a `Piece`, a moment or moments as `moments` gives them; what lay ahead is dropped. A piece begins where what
        has been read ends; in the metre, at the tempo and on the tracks of that.

        Returns: of each moment that was read -log p, in nats. Raises: UserError where it cannot stand there.
        """
        begin = self.time
        rows = self._rows(begin, self._engine.given(x, self.moments(0, begin), "feed"), [])
        if not len(rows):
            raise UserError("feed: there is no note in it")
        self._feed(rows)
        return self.surprise(begin, self.time)

    def edit(self, t: int, *, input: Any = None, state: Any = None) -> None:
        """Change what was at time t, as `Session.edit` does; all that comes later is read again as it was.

        Args: input: a moment, or keys (`C4+E4`) in the place of those of moment t, as long and as hard as they are, the lowest
            for its first note.
        Raises: UserError where t is out of range, or what is given cannot stand there.
        """
        if (input is None) == (state is None) or state is not None:
            super().edit(t, input=input, state=state)
            return
        if not 0 <= whole("edit: a time", t) < len(self):
            raise UserError(f"edit: there is no moment {t}; they go from 0 to {len(self) - 1}")
        if isinstance(input, str):
            input = self._engine.with_keys(self.moments(t, t + 1)[0], t, input)
        self.replace(t, t + 1, [tuple(input)])

    def replace(self, start: int, stop: int, inputs: Any) -> None:
        """Put other moments, notes or a piece in the place of those from time `start` to `stop`, as `Session.replace` does.

        Raises: UserError where a time is out of range, or what is given, or what comes later, cannot stand there.
        """
        self._check_time("replace", start)
        self._check_time("replace", stop)
        if stop < start:
            raise UserError(f"replace: from {start} to {stop} is backwards; exchange them")
        given = self._engine.given(inputs, self.moments(0, start), "replace")
        rows = self._rows(start, given, self.moments(stop, len(self)))
        # the keys before what comes later, and its place, follow from what is changed
        was, now = self.inputs(stop, len(self)), rows[len(given) :]
        later = {start + len(given) + i: now[i : i + 1] for i in (was != now).any(1).nonzero().flatten().tolist()}
        self._splice(start, stop, rows[: len(given)], later)

    def _rows(self, at: int, given: Sequence[Moment], later: Sequence[Moment]) -> Tensor:
        self._check_length(at + len(given) + len(later))
        return self._engine.rows(self.moments(0, at), [*given, *later])

    def _check_length(self, count: int) -> None:
        if count > self.keep:
            raise UserError(
                f"a session of music keeps all of a piece: {self.keep:,} moments, and this would be {count:,}"
            )

    # -- to and fro

    def rewind(self, t: int | None = None, *, bars: int | None = None) -> None:
        """Go to time t, as `Session.rewind` does; or so many bars back: the last that have begun are taken back, to the line at
        which the first of them begins.

        Raises: UserError where t is not known, there are not so many bars, or not just one of the two is given.
        """
        if (t is None) == (bars is None):
            raise UserError("rewind: give t or bars=, just one of them")
        if bars is not None:
            begun = self.bars()[: self.time + 1]
            if not 0 <= whole("rewind: bars", bars) <= begun[-1]:
                raise UserError(f"rewind: got {bars} bars; {begun[-1]} have begun")
            t = bisect_right(begun, begun[-1] - bars) - 1
        assert t is not None
        super().rewind(t)

    # -- what comes next

    def next(self, k: int = 5) -> list[tuple[str, float]]:
        """The k likeliest moments that may come next, as a beam search finds them, in words, and their probabilities."""
        if whole("next: k", k) < 1:
            raise UserError(f"next: got {k}; at least 1")
        return self._engine.next(self._composing(Taste()), k)

    def write(
        self,
        bars: int = 4,
        *,
        temperature: float = 1.0,
        top_p: float = 0.95,
        top_k: int | None = None,
        seed: int | None = None,
    ) -> Piece:
        """Go on from the present until so many more bars are over, and read what is written; what lay ahead is dropped. A bar that
        has begun is finished first. If it fails on the way, the session is where it was.

        Args: temperature, top_p, top_k, seed: as of `MusicModel.compose`.
        Returns: what was written, as a piece by itself; `piece` is the whole. Raises: UserError for a value out of range.
        """
        chosen = {"bars": bars, "temperature": temperature, "top_p": top_p, "top_k": top_k, "seed": seed}
        build_options(ComposeOptions, chosen)
        generator = torch.Generator().manual_seed(seed) if seed is not None else None
        other, begin = self.branch(), self.time
        composing = other._composing(Taste(temperature, top_k, top_p, generator))
        for _ in moments_of(composing, [], Extent(composing.walker.begun + bars)):
            pass
        self.__dict__.update(other.__dict__)
        return self.writing.part(composing.moments, begin)

    def _composing(self, taste: Taste) -> Composing:
        past = self.moments(0, self.time)
        return Composing(self._engine.composer, self.writing, taste, past=past, listener=_Reader(self))


class _Reader(Listener):
    """A session, which reads what is written."""

    def __init__(self, session: MusicSession) -> None:
        self._session = session

    @property
    def heard(self) -> Tensor:
        output = self._session._now.output
        assert output is not None
        return output.unsqueeze(0)

    def read(self, row: Sequence[int]) -> None:
        self._session._check_length(self._session.time + 1)
        self._session._feed(self._session._engine.row(row))
