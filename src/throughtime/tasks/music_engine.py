"""Steps a model of music moment by moment, and makes inputs of moments and notes.

Shapes: T time, R numbers of a row, N output of the stack, E what a moment is read as, V symbols.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from throughtime.errors import UserError
from throughtime.models.composer import Moments
from throughtime.tasks.composing import HEAD, Composing, Follower, as_moments, symbols_in
from throughtime.tasks.moments import END, KEYS, Moment, Writing, key_name
from throughtime.tasks.music_files import typed
from throughtime.tasks.pieces import HIGHEST, LOWEST, Piece
from throughtime.travel import Engine
from throughtime.travel import Moment as Now

if TYPE_CHECKING:
    from throughtime.models.composer import Composer

WIDTH = 512  # symbols of a moment, at most
NUMBERS = torch.int16  # of rows


def moments_in(rows: Tensor) -> list[Moment]:
    """The moments of inputs, [T, R]."""
    return [symbols_in(row) for row in rows[:, : HEAD + int(rows[:, HEAD - 1].max())].tolist()] if len(rows) else []


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

    def given(self, x: Any, before: Sequence[Moment], verb: str) -> list[Moment]:
        """What a user gives after some moments, notes, a `Piece`, a moment or moments, as moments. verb: what it is given to.

        Raises: UserError where it is none of these.
        """
        piece = typed(x, verb) if isinstance(x, str) else x
        if isinstance(piece, Piece):
            if not before:
                return self.writing.opening(piece)
            walker = self._follower(before).walker
            return self.writing.after(walker, piece, self.writing.piece(before).ticks)
        try:
            given = [x] if isinstance(x, tuple) and all(isinstance(symbol, int) for symbol in x) else list(x)
            return [tuple(map(int, moment)) for moment in given]
        except (TypeError, ValueError) as error:
            raise UserError(f"{verb}: takes notes (C4 E4 G4), a Piece, or moments, got a {type(x).__name__}") from error

    def with_keys(self, moment: Moment, t: int, notes: str) -> Moment:
        """The t-th moment with other keys (`C4+E4`). Raises: UserError where they are none, or cannot be its keys."""
        keys = [int(note["pitch"]) for note in typed(notes, "edit").notes]
        try:
            if max(keys, default=LOWEST) > HIGHEST:
                raise UserError(f"{key_name(max(keys))} is on no key of a piano, {LOWEST} to {HIGHEST}")
            return self.writing.with_keys(moment, keys)
        except UserError as error:
            raise UserError(f"edit: moment {t}: {error}") from error

    def _follower(self, before: Sequence[Moment]) -> Follower:
        found = Follower(self.writing)
        for moment in before:
            found.read(moment)
        return found

    def rows(self, before: Sequence[Moment], moments: Sequence[Moment]) -> Tensor:
        """Moments that come after others as inputs, [T, R]. Raises: UserError where one cannot stand there."""
        follower = self._follower(before)
        found = torch.full((len(moments), HEAD + WIDTH), self.composer.symbols, dtype=NUMBERS)
        for t, moment in enumerate(moments):
            follower.walker.stops = False
            self._check(moment, len(before) + t, follower)
            row = follower.read(moment)
            found[t, : len(row)] = torch.tensor(row)
        return found

    def row(self, numbers: Sequence[int]) -> Tensor:
        """A row of `Follower.read` as an input, [1, R]."""
        made = torch.full((1, HEAD + WIDTH), self.composer.symbols, dtype=NUMBERS)
        made[0, : len(numbers)] = torch.tensor(numbers)
        return made

    def next(self, composing: Composing, k: int) -> list[tuple[str, float]]:
        """The k likeliest moments that may come next in a piece, in words, and their probabilities."""
        names = self.writing.names
        found = composing.likeliest(k)
        return [(" ".join(names[s] for s in moment) or "silence", math.exp(log_p)) for moment, log_p in found]

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
