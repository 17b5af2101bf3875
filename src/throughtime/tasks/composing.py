"""Writing music: a piece moment by moment, each symbol drawn from what the network expects and from what makes a valid piece.

Shapes: B pieces side by side, V symbols, N output of the stack.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from throughtime.decode.sampling import draw
from throughtime.errors import UserError
from throughtime.models.composer import NOW, Composer, Moments
from throughtime.tasks.batches import moved
from throughtime.tasks.moments import END, KEYS, STOP, Moment, Walker, Writing
from throughtime.tasks.music_data import BEFORE, LOOKED, PHRASE
from throughtime.tasks.pieces import Piece

MOST_BARS = 64  # of a piece of which no length is asked, and that does not end
BEAM = 8  # moments in the making that are looked at together
MOST = 256  # symbols of a moment, at most: then it ends as soon as it may


@dataclass(frozen=True)
class Taste:
    """How symbols are drawn: as of `throughtime.decode.sampling.draw`. generator: the source of chance; None: torch's."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    generator: torch.Generator | None = None


class Follower:
    """Where a piece is as its moments come, and the keys that were struck last."""

    def __init__(self, writing: Writing) -> None:
        self.walker = writing.walker()
        self._keys: list[int] = [0] * LOOKED
        self._homes, self._home = writing.homes(), 0

    @property
    def before(self) -> list[int]:
        """The keys struck last, the last first, 0 where there is none; and where the scale of the piece begins; [BEFORE]."""
        return [*self._keys[:LOOKED], self._home]

    def read(self, moment: Moment) -> list[int]:
        """Go on by a moment. Returns: it as a row, all that a network reads of it: its place, its bar in the phrase, what
        was before it, how many symbols it has, and these."""
        self.walker.read(moment)
        row = [self.walker.place, self.walker.bar % PHRASE, *self.before, len(moment), *moment]
        self._keys = [s for s in moment if 1 <= s <= KEYS][::-1] + self._keys[:LOOKED]
        self._home = max([self._home, *self._homes[list(moment)].tolist()])
        return row


HEAD = 2 + BEFORE + 1  # numbers of a row before its symbols


def symbols_in(row: Sequence[int]) -> Moment:
    """The moment that a row of `Follower.read` is of; more may stand after its symbols."""
    return tuple(row[HEAD : HEAD + row[HEAD - 1]])


def as_moments(row: Sequence[int], symbols: int, *, first: bool = False) -> Moments:
    """A row of `Follower.read` as a network takes it. symbols: V. first: whether it is the first of its piece."""
    moment = symbols_in(row)
    whole = [torch.tensor([[number]]) for number in (len(moment), row[0], row[1])]
    flags = [torch.tensor([[first]]), torch.tensor([[True]])]
    before = torch.tensor([[row[2 : 2 + BEFORE]]])
    return Moments._make([torch.tensor([[moment or (symbols,)]]), *whole, before, *flags, torch.tensor([1])])


class Listener(Protocol):
    """What hears a piece while it is written."""

    @property
    def heard(self) -> Tensor:
        """What a stack gives after all that has been read, [1, N]."""

    def read(self, row: Sequence[int]) -> None:
        """Go on by a moment, given as a row of `Follower.read`."""


class StackListener(Listener):
    """The stack of a network, from the beginning of a piece on."""

    def __init__(self, network: Composer) -> None:
        self._network, self._device = network, next(network.parameters()).device
        self._heard = torch.zeros(1, network.stack.output_size, device=self._device)
        self._state: Any = None

    @property
    def heard(self) -> Tensor:
        """What the stack gives after all that has been read, [1, N]."""
        return self._heard

    @torch.no_grad()
    def read(self, row: Sequence[int]) -> None:
        given = self._network.read(moved(as_moments(row, self._network.symbols), self._device))
        self._heard, self._state = self._network.heard(given, self._state)


class Composing:
    """A piece in the making: what has been written, and what the network remembers of it.

    Args: network, writing: of a model. taste: how symbols are drawn. asked: symbols that the first moment is to have. past: moments
        that have been heard. listener: what heard them; None: the network's stack, which has heard nothing.
    """

    def __init__(
        self,
        network: Composer,
        writing: Writing,
        taste: Taste,
        asked: Sequence[int] = (),
        *,
        past: Sequence[Moment] = (),
        listener: Listener | None = None,
    ) -> None:
        self.network, self.writing, self.taste, self.asked = network, writing, taste, asked
        self.device = next(network.parameters()).device
        self.moments: list[Moment] = list(past)
        self.nats = 0.0  # -log p of what was drawn, at a temperature of 1 and from all symbols
        self._listener = StackListener(network) if listener is None else listener
        self._follower, self._restarts = Follower(writing), writing.restarts()
        for moment in past:
            self._follower.read(moment)

    @property
    def walker(self) -> Walker:
        """Where it is."""
        return self._follower.walker

    def read(self, moment: Moment) -> None:
        """Take a moment for the next of the piece."""
        self._listener.read(self._follower.read(moment))
        self.moments.append(moment)

    @torch.no_grad()
    def expected(self, symbols: Sequence[int], state: Any) -> tuple[Tensor, Any]:
        """log p of what follows the symbols of a moment so far, [1, V]; -inf where it may not.

        Args: state: of the chain, before it reads the last of them; None: there is none. Returns: that and the state after it.
        """
        network, heard = self.network, self._listener.heard
        before = torch.tensor([self._follower.before], device=self.device)
        read = torch.tensor([[symbols[-1] if symbols else network.symbols]], device=self.device)
        own = [s for s in symbols if 1 <= s <= KEYS][::-1]
        now = torch.tensor([[(own + [0] * NOW)[:NOW]]], device=self.device)
        chain, state = network.chain(network.chain_input(read, before, now) + network.given(heard), state)
        log_p = network.log_p(
            torch.cat([chain[0], heard], -1),
            torch.cat([before, now[0]], -1),
            read[0],
            torch.tensor([self._under(symbols)], device=self.device),
            torch.tensor([not self.moments], device=self.device),
        ).cpu()
        return log_p.masked_fill(~torch.from_numpy(self.walker.allowed(symbols)), -torch.inf), state

    def drawn(self, extent: Extent) -> Moment | None:
        """A moment that may come next; None where the piece ends instead."""
        symbols, state, nats = list[int](), None, 0.0
        while True:
            log_p, state = self.expected(symbols, state)
            symbol = self._chosen(log_p, len(symbols))
            nats -= float(log_p[0, symbol])
            if symbol != END:
                symbols.append(symbol)
            if self.writing.names[symbol] == STOP or extent.over(self, symbols):
                return None
            if symbol == END:
                self.nats += nats
                return tuple(symbols)

    def likeliest(self, count: int) -> list[tuple[Moment, float]]:
        """The likeliest moments that may come next, and log p of each, as a beam of BEAM moments in the making, or of `count`,
        finds them."""
        found: list[tuple[Moment, float]] = []
        beam: list[tuple[float, list[int], Any]] = [(0.0, [], None)]
        while beam:
            grown: list[tuple[float, list[int], Any]] = []
            for before, symbols, state in beam:
                log_p, after = self.expected(symbols, state)
                best = log_p[0].topk(min(max(count, BEAM), log_p.shape[1]))
                for value, symbol in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                    if symbol == END and value > -math.inf:
                        found.append((tuple(symbols), before + value))
                    elif value > -math.inf and len(symbols) < MOST:
                        grown.append((before + value, [*symbols, symbol], after))
            found = sorted(found, key=lambda one: -one[1])[:count]
            least = found[-1][1] if len(found) == count else -math.inf
            beam = sorted((one for one in grown if one[0] > least), key=lambda one: -one[0])[: max(count, BEAM)]
        return found

    def _chosen(self, log_p: Tensor, count: int) -> int:
        """The next symbol of a moment that has so many: one that is asked for, where it may come; else one that is drawn."""
        asked = [symbol for symbol in self.asked if not self.moments and log_p[0, symbol] > -torch.inf]
        if asked or (count >= MOST and log_p[0, END] > -torch.inf):
            return asked[0] if asked else END
        t = self.taste
        return int(draw(log_p, temperature=t.temperature, top_k=t.top_k, top_p=t.top_p, generator=t.generator))

    def _under(self, symbols: Sequence[int]) -> int:
        """The key that the next has to be higher than; 0: any."""
        last = 0
        for symbol in symbols:
            last = 0 if self._restarts[symbol] else symbol if 1 <= symbol <= KEYS else last
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
            return self._step_at(self.seconds, composing) <= composing.walker.reached(symbols)
        return composing.walker.passed(symbols) >= (self.bars or MOST_BARS)

    def _step_at(self, seconds: float, composing: Composing) -> int:
        """The step of the grid, from the last moment on, before which so many seconds pass."""
        walker = composing.walker
        steps = (self.tempo or walker.tempo) * composing.writing.grid / 60  # a second
        now = walker.seconds if self.tempo is None else walker.step / steps
        return walker.step + max(math.ceil((seconds - now) * steps - 1e-6), 0)

    def end(self, composing: Composing) -> int | None:
        """The step of the grid at which it ends; None: where its last note does."""
        if self.seconds is not None:
            return self._step_at(self.seconds, composing)
        return None if self.bars is None else composing.walker.line_of(self.bars)


class Composed(NamedTuple):
    """A piece that was written. moments: all of it; read: how many of them are the primer's; nats: what the others cost the model,
    a note, at a temperature of 1."""

    piece: Piece
    moments: list[Moment]
    read: int
    nats: float

    def end(self) -> int | None:
        """The step at which it was made to end; None: where its last note does."""
        return self.piece.length or None


def moments_of(composing: Composing, primer: Sequence[Moment], extent: Extent) -> Iterator[Moment]:
    """The moments of a piece, those of the primer first, until it ends. Raises: UserError where the primer is too long."""
    for moment in primer:
        composing.read(moment)
    if primer and extent.over(composing):
        raise UserError("primer: it is as long as what is asked, or longer; ask for more bars, or give a shorter one")
    yield from primer
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
    notes, end = piece.notes.copy(), extent.end(composing)
    if end is not None:
        notes = notes[notes["start"] < end]
        notes["duration"] = np.minimum(notes["duration"], end - notes["start"])
        piece = replace(piece, notes=notes, length=end)
    own = [symbol for moment in composing.moments[read:] for symbol in moment]
    count = int(composing.writing.notes()[own].sum()) if own else 0
    return Composed(piece, composing.moments, read, composing.nats / max(count, 1))
