"""A session of a model of music: a piece that is read and written moment by moment, and can be gone back in.

Shapes: T time, R numbers of a row, N output of the stack, E what a moment is read as, V symbols.
"""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from throughtime.config import build_options
from throughtime.errors import UserError
from throughtime.models.composer import Moments
from throughtime.tasks.composing import (
    HEAD,
    Composing,
    Extent,
    Follower,
    Listener,
    Taste,
    as_moments,
    moments_of,
    symbols_in,
)
from throughtime.tasks.moments import END, KEYS, Moment, Writing
from throughtime.tasks.music_files import typed
from throughtime.tasks.music_settings import ComposeOptions
from throughtime.tasks.pieces import Piece
from throughtime.travel import Engine, Session
from throughtime.travel import Moment as Now
from throughtime.travel.session import KEEP, SNAPSHOTS, whole

if TYPE_CHECKING:
    from throughtime.models.composer import Composer

WIDTH = 512  # symbols of a moment, at most
PIECE = 256  # moments that are scored together
NUMBERS = torch.int16  # of rows


class MusicEngine(Engine):
    """Steps a model of music moment by moment. An input is a row of `Follower.read`, [R], filled up to a width for all moments.

    Raises: UserError for a network that has no state: a Transformer, or one of cell none.
    """

    def __init__(self, network: Composer, writing: Writing, backend: str = "auto") -> None:
        if not hasattr(network.stack, "stepper"):
            raise UserError(
                "a Transformer, or a network of cell none, has no state to go back to; train one with another --model.cell"
            )
        super().__init__(network.stack, backend, network)
        self.composer, self.writing = network, writing
        self.follow = writing.follow()
        self.restarts = writing.restarts()
        self._silence = torch.zeros(network.stack.output_size, device=self.device)

    def first(self) -> Now:
        return Now(self._first, self._silence)

    def empty(self) -> Tensor:
        return torch.empty(0, HEAD + WIDTH, dtype=NUMBERS)

    def rows(self, before: Sequence[Moment], moments: Sequence[Moment]) -> Tensor:
        """Moments that come after others as inputs, [T, R]. Raises: UserError where one cannot stand there."""
        follower = Follower(self.writing)
        for moment in before:
            follower.read(moment)
        found = torch.full((len(moments), HEAD + WIDTH), self.composer.symbols, dtype=NUMBERS)
        for t, moment in enumerate(moments):
            follower.walker.stops = False
            self._check(moment, len(before) + t, follower)
            row = follower.read(moment)
            found[t, : len(row)] = torch.tensor(row)
        return found

    def _check(self, moment: Moment, t: int, follower: Follower) -> None:
        """Raises: UserError for a moment that cannot be the t-th."""
        if len(moment) > WIDTH:
            raise UserError(f"moment {t} has {len(moment)} symbols; {WIDTH} at most")
        before, under = self.composer.symbols, 0
        for i, symbol in enumerate((*moment, END)):
            if not 0 <= symbol < self.composer.symbols:
                raise UserError(
                    f"moment {t}: there is no symbol {symbol}; they go from 0 to {self.composer.symbols - 1}"
                )
            key = 1 <= symbol <= KEYS
            allowed = self.follow[min(t, 1), before, symbol] and follower.walker.allowed(moment[:i])[symbol]
            if not allowed or (key and symbol <= under):
                names = self.writing.names
                place = f"after {names[before]!r}" if i else "at its beginning"
                raise UserError(f"moment {t}: {names[symbol]!r} cannot stand {place}, where it lies in the piece")
            under = 0 if self.restarts[symbol] else symbol if key else under
            before = symbol

    @torch.no_grad()
    def prepared(self, inputs: Tensor) -> Tensor:
        # one by one, so that what a moment is read as does not depend on those beside it
        moments = (as_moments(row, self.composer.symbols) for row in inputs.tolist())
        return torch.cat([self.composer.read(Moments._make(x.to(self.device) for x in one))[0] for one in moments])

    @torch.no_grad()
    def nats(self, rows: Tensor, outputs: Tensor, first: int) -> list[float]:
        """-log p of moments, given as rows [T, R], after outputs of the stack [T, N]. first: the time of the first of them."""
        counts = rows[:, HEAD - 1].long()
        symbols = rows[:, HEAD : HEAD + max(int(counts.max()), 1)].long()
        places, bars, before = rows[:, 0].long(), rows[:, 1].long(), rows[:, 2 : HEAD - 1].long()
        opening = torch.arange(first, first + len(rows)) == 0
        made = Moments(symbols, counts, places, bars, before, opening, torch.ones_like(opening), counts)
        found = self.composer.chain_nats(outputs, Moments._make(x.to(self.device) for x in made))
        return [float(nats) for nats in found.double().sum(1)]

    def identity(self) -> dict[str, Any]:
        about = json.dumps([self.writing.kind, self.writing.settings()])
        return {**super().identity(), "writing": hashlib.sha256(about.encode()).hexdigest()}


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
        rows = self.inputs(start, stop)
        return [symbols_in(row) for row in rows[:, : HEAD + int(rows[:, HEAD - 1].max())].tolist()] if len(rows) else []

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
        rows = self._rows(begin, self._given(x, begin, "feed"), [])
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
            keys = [int(note["pitch"]) for note in typed(input, "edit").notes]
            try:
                input = self.writing.with_keys(self.moments(t, t + 1)[0], keys)
            except UserError as error:
                raise UserError(f"edit: moment {t}: {error}") from error
        self.replace(t, t + 1, [tuple(input)])

    def replace(self, start: int, stop: int, inputs: Any) -> None:
        """Put other moments, notes or a piece in the place of those from time `start` to `stop`, as `Session.replace` does.

        Raises: UserError where a time is out of range, or what is given, or what comes later, cannot stand there.
        """
        self._check_time("replace", start)
        self._check_time("replace", stop)
        if stop < start:
            raise UserError(f"replace: from {start} to {stop} is backwards; exchange them")
        given = self._given(inputs, start, "replace")
        rows = self._rows(start, given, self.moments(stop, len(self)))
        # the keys before what comes later, and its place, follow from what is changed
        was, now = self.inputs(stop, len(self)), rows[len(given) :]
        later = {start + len(given) + i: now[i : i + 1] for i in (was != now).any(1).nonzero().flatten().tolist()}
        self._splice(start, stop, rows[: len(given)], later)

    def _given(self, x: Any, at: int, verb: str) -> list[Moment]:
        """What a user gives at a time, as moments."""
        piece = typed(x, verb) if isinstance(x, str) else x
        before = self.moments(0, at)
        if isinstance(piece, Piece):
            if not at:
                return self.writing.opening(piece)
            follower = Follower(self.writing)
            for moment in before:
                follower.read(moment)
            return self.writing.after(follower.walker, piece, self.writing.piece(before).ticks)
        try:
            given = [x] if isinstance(x, tuple) and all(isinstance(symbol, int) for symbol in x) else list(x)
            return [tuple(map(int, moment)) for moment in given]
        except (TypeError, ValueError) as error:
            raise UserError(f"{verb}: takes notes (C4 E4 G4), a Piece, or moments, got a {type(x).__name__}") from error

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
        found = self._composing(Taste()).likeliest(k)
        names = self.writing.names
        return [(" ".join(names[s] for s in moment) or "silence", math.exp(log_p)) for moment, log_p in found]

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
        made = np.full((1, HEAD + WIDTH), self._session._engine.composer.symbols)
        made[0, : len(row)] = row
        self._session._feed(torch.from_numpy(made).to(NUMBERS))
