"""Writing music: a piece moment by moment, each symbol drawn from what the network expects and from what makes a valid piece.

Shapes: B pieces side by side, V symbols, N output of the stack.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from throughtime.decode.sampling import draw
from throughtime.errors import UserError
from throughtime.models.composer import NOW, Composer, Moments
from throughtime.tasks.batches import moved
from throughtime.tasks.clock import ticks_at
from throughtime.tasks.moments import END, KEYS, STOP, Moment, Writing
from throughtime.tasks.music_data import BEFORE, PHRASE
from throughtime.tasks.pieces import Piece, Tempo

MOST_BARS = 64  # of a piece of which no length is asked, and that does not end
MOST = 256  # symbols of a moment, at most: then it ends as soon as it may


@dataclass(frozen=True)
class Taste:
    """How symbols are drawn: as of `throughtime.decode.sampling.draw`. generator: the source of chance; None: torch's."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    generator: torch.Generator | None = None


class Composing:
    """A piece in the making: what has been written, and what the network remembers of it.

    Args: network, writing: of a model. taste: how symbols are drawn. asked: symbols that the first moment is to have.
    """

    def __init__(self, network: Composer, writing: Writing, taste: Taste, asked: Sequence[int] = ()) -> None:
        self.network, self.writing, self.taste, self.asked = network, writing, taste, asked
        self.device = next(network.parameters()).device
        self.walker = writing.walker()
        self.moments: list[Moment] = []
        self.nats = 0.0  # -log p of what was drawn, at a temperature of 1 and from all symbols
        self._keys: list[int] = [0] * BEFORE
        self._state: Any = None
        self._heard = torch.zeros(1, network.stack.output_size, device=self.device)

    @torch.no_grad()
    def read(self, moment: Moment) -> None:
        """Take a moment for the next of the piece."""
        self.walker.read(moment)
        place, bar = self.walker.place, self.walker.bar
        symbols = torch.tensor(moment or (self.network.symbols,)).view(1, 1, -1)
        whole = [torch.tensor([[x]]) for x in (len(moment), place, bar % PHRASE)]
        flags = [torch.tensor([[x]]) for x in (not self.moments, True)]
        batch = Moments._make([symbols, *whole, self._before().unsqueeze(0), *flags, torch.tensor([1])])
        given = self.network.read(moved(batch, self.device))
        self._heard, self._state = self.network.heard(given, self._state)
        self._keys = [s for s in moment if 1 <= s <= KEYS][::-1] + self._keys[:BEFORE] if moment else self._keys
        self.moments.append(moment)

    def _before(self) -> Tensor:
        return torch.tensor([self._keys[:BEFORE]])

    @torch.no_grad()
    def drawn(self, extent: Extent) -> Moment | None:
        """A moment that may come next; None where the piece ends instead."""
        network, symbols = self.network, list[int]()
        before, first = self._before().to(self.device), torch.tensor([not self.moments], device=self.device)
        state, given = None, network.given(self._heard)
        nats = 0.0
        while True:
            read = torch.tensor([[symbols[-1] if symbols else network.symbols]], device=self.device)
            own = [s for s in symbols if 1 <= s <= KEYS][::-1]
            now = torch.tensor([[(own + [0] * NOW)[:NOW]]], device=self.device)
            chain, state = network.chain(network.chain_input(read, before, now) + given, state)
            log_p = network.log_p(
                torch.cat([chain[0], self._heard], -1),
                torch.cat([before, now[0]], -1),
                read[0],
                torch.tensor([self._under(symbols)], device=self.device),
                first,
            ).cpu()
            log_p = log_p.masked_fill(~torch.from_numpy(self.walker.allowed(symbols)), -torch.inf)
            symbol = self._chosen(log_p, len(symbols))
            nats -= float(log_p[0, symbol])
            if symbol != END:
                symbols.append(symbol)
            if self.writing.names[symbol] == STOP or extent.over(self, symbols):
                return None
            if symbol == END:
                self.nats += nats
                return tuple(symbols)

    def _chosen(self, log_p: Tensor, count: int) -> int:
        """The next symbol of a moment that has so many: one that is asked for, where it may come; else one that is drawn."""
        asked = [symbol for symbol in self.asked if not self.moments and log_p[0, symbol] > -torch.inf]
        if asked or (count >= MOST and log_p[0, END] > -torch.inf):
            return asked[0] if asked else END
        t = self.taste
        return int(draw(log_p, temperature=t.temperature, top_k=t.top_k, top_p=t.top_p, generator=t.generator))

    def _under(self, symbols: Sequence[int]) -> int:
        """The key that the next has to be higher than; 0: any."""
        restarts = self.writing.restarts()
        last = 0
        for symbol in symbols:
            last = 0 if restarts[symbol] else symbol if 1 <= symbol <= KEYS else last
        return last


@dataclass(frozen=True)
class Extent:
    """How long a piece is to be: bars, or seconds; with neither until the model ends it, MOST_BARS bars at most. tempo: quarter
    notes a minute that it will be played at; None: as it says."""

    bars: int | None = None
    seconds: float | None = None
    tempo: float | None = None

    @property
    def asked(self) -> bool:
        """Whether a length is asked for."""
        return self.bars is not None or self.seconds is not None

    def over(self, composing: Composing, symbols: Sequence[int] = ()) -> bool:
        """Whether a moment that begins so lies past the end."""
        if self.seconds is not None:
            return self._seconds(composing) >= self.seconds
        return composing.walker.passed(symbols) >= (self.bars or MOST_BARS)

    def _seconds(self, composing: Composing) -> float:
        walker = composing.walker
        return walker.seconds if self.tempo is None else walker.steps * 60 / (self.tempo * composing.writing.grid)

    def end(self, composing: Composing, piece: Piece) -> int | None:
        """The step of the grid at which a piece ends; None: where its last note does."""
        if self.seconds is not None:
            played = piece if self.tempo is None else replace(piece, tempos=(Tempo(0, self.tempo),))
            return max(round(float(ticks_at(played, self.seconds))), 1)
        return None if self.bars is None else composing.walker.line_of(self.bars)


class Composed(NamedTuple):
    """A piece that was written. read: how many moments of it are the primer's; written: how many are the model's; nats: what these
    cost it, a note, at a temperature of 1."""

    piece: Piece
    read: int
    written: int
    nats: float


def moments_of(composing: Composing, primer: Sequence[Moment], extent: Extent) -> Iterator[Moment]:
    """The moments of a piece, those of the primer first, until it ends. Raises: UserError where the primer is too long."""
    for moment in primer:
        composing.read(moment)
        yield moment
    if primer and extent.over(composing):
        raise UserError("primer: it is as long as what is asked, or longer; ask for more bars, or give a shorter one")
    while not extent.over(composing):
        composing.walker.stops = not extent.asked
        drawn = composing.drawn(extent)
        if drawn is None:
            return
        composing.read(drawn)
        yield drawn


def finished(composing: Composing, read: int, extent: Extent) -> Composed:
    """The piece, once its moments are written. read: how many of them are the primer's."""
    piece = composing.writing.piece(composing.moments)
    notes, end = piece.notes.copy(), extent.end(composing, piece)
    if end is not None:
        notes = notes[notes["start"] < end]
        notes["duration"] = np.minimum(notes["duration"], end - notes["start"])
        piece = replace(piece, notes=notes, length=end)
    own = [symbol for moment in composing.moments[read:] for symbol in moment]
    count = int(composing.writing.notes()[own].sum()) if own else 0
    return Composed(piece, read, len(composing.moments) - read, composing.nats / max(count, 1))
