"""How a piece is written for a network: moments one after another, each a short chain of symbols that an end closes.

A moment is all that begins together: the keys of a frame, or the notes that are struck at once. The nats of a chain, symbol by
symbol, are those of the moment as a whole, so that what is said of a frame is exact and joint.

Shapes: n moments, V symbols.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from throughtime.errors import UserError
from throughtime.tasks.pieces import HIGHEST, LOWEST, Piece

Array = np.ndarray[Any, Any]
Moment = tuple[int, ...]

END = 0  # closes every moment
STOP = "end of piece"  # the name of the symbol that says so, where there is one
KEYS = HIGHEST - LOWEST + 1  # of a piano; symbols 1 to KEYS, in every way of writing


class Writing(ABC):
    """A way to write pieces as moments.

    Symbol 0 is the end of a moment, symbols 1 to 88 are the keys of a piano, from A0 on; the others are the subclass's.
    """

    kind: ClassVar[str]
    grid: int  # steps a quarter note

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """What each symbol is called, V of them."""

    def called(self, moment: Moment) -> str:
        """A moment in words: its keys, or what it says where it has none."""
        keys = [s for s in moment if 1 <= s <= KEYS]
        return " ".join(self.names[s] for s in keys or moment) or "silence"

    @abstractmethod
    def moments(self, piece: Piece) -> tuple[list[Moment], list[int]]:
        """A piece as moments, each without its end, and the place of each in its bar, in steps of the grid.

        Raises: UserError where it cannot be written so.
        """

    @abstractmethod
    def bars(self, moments: Sequence[Moment]) -> list[int]:
        """The number of the bar of each moment, from the first of the piece."""

    @abstractmethod
    def piece(self, moments: Sequence[Moment]) -> Piece:
        """What `moments` gives, as a piece again."""

    @abstractmethod
    def follow(self) -> Array:
        """Which symbols may come after which, in the first moment of a piece and in others, [2, V + 1, V], bool; the last row:
        which may begin the moment. Besides, a key is higher than the one before it, except after what `restarts` says."""

    @property
    @abstractmethod
    def places(self) -> int:
        """How many places in a bar there are."""

    def restarts(self) -> Array:
        """After which symbols the next key may be lower than those before it, [V + 1], bool."""
        return np.zeros(len(self.names) + 1, dtype=bool)

    def homes(self) -> Array:
        """The first key of the major scale that a symbol says a piece is in, from 1, C, to 12, B; 0 of others, [V + 1]."""
        return np.zeros(len(self.names) + 1, dtype=np.int64)

    def notes(self) -> Array:
        """Which symbols are notes, [V], bool."""
        found = np.zeros(len(self.names), dtype=bool)
        found[1 : KEYS + 1] = True
        return found

    def moved(self, semitones: int) -> Array:
        """What each symbol is so much higher, [V + 1]; of keys that would leave the piano this means nothing."""
        table = np.arange(len(self.names) + 1)
        table[1 : KEYS + 1] = np.clip(table[1 : KEYS + 1] + semitones, 1, KEYS)
        return table

    def opening(self, piece: Piece) -> list[Moment]:
        """The moments of a piece that goes on."""
        return self.moments(piece)[0]

    @abstractmethod
    def after(self, walker: Walker, piece: Piece, at: int) -> list[Moment]:
        """The notes of a piece as moments that come after what a walker has read, in its metre, at its tempo. at: the step at which
        the piece begins. Raises: UserError where they cannot."""

    @abstractmethod
    def with_keys(self, moment: Moment, pitches: Sequence[int]) -> Moment:
        """A moment with other keys, from 21 to 108. Raises: UserError where it has none, or cannot be without."""

    @abstractmethod
    def part(self, moments: Sequence[Moment], start: int) -> Piece:
        """The moments of a piece from one on, as a piece by itself."""

    def in_key(self, key: str) -> int:
        """The symbol of a key that a user names. Raises: UserError where there is none."""
        raise UserError("--key: this model was not told the keys of its pieces; leave it out")

    @abstractmethod
    def walker(self) -> Walker:
        """The beginning of a piece."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What `opened` makes the same of again, as JSON holds it."""


class Walker:
    """Where a piece is while it is written, and what may come there, beside what `Writing.follow` and `Writing.restarts` say.

    place: of the last moment in its bar. bar: its number, from 0. steps: of the grid, from the beginning of the piece to where the
    next moment may begin. seconds: from the beginning to the last moment.
    """

    def __init__(self, symbols: int) -> None:
        self.place, self.bar, self.steps, self.seconds = 0, 0, 0, 0.0
        self.tempo = 120.0  # quarter notes a minute
        self.programs: list[int] = []  # of the tracks, as far as they are said; 128 is drums
        self.stops = True  # whether it may end here
        self._all: Array = np.ones(symbols, dtype=bool)

    def read(self, moment: Moment) -> None:
        """Go on by a moment."""

    def allowed(self, symbols: Sequence[int]) -> Array:
        """Which symbols may follow those of a moment so far, [V]."""
        return self._all

    @property
    def begun(self) -> int:
        """How many bars have begun."""
        raise NotImplementedError

    @property
    def step(self) -> int:
        """The step of the last moment."""
        return self.line_of(self.bar) + self.place

    def line_of(self, bar: int) -> int:
        """The step at which a bar begins that has not been passed."""
        raise NotImplementedError

    def passed(self, symbols: Sequence[int]) -> int:
        """The bar in which a moment lies that begins so."""
        return self.bar

    def reached(self, symbols: Sequence[int]) -> int:
        """The step before which a moment cannot lie that begins so."""
        return self.steps


def key_name(pitch: int) -> str:
    """The name of a key: 60 is C4."""
    return f"{('C', 'C#', 'D', 'D#', 'E', 'F', 'F#', 'G', 'G#', 'A', 'A#', 'B')[pitch % 12]}{pitch // 12 - 1}"


KEY_NAMES = [key_name(LOWEST + i) for i in range(KEYS)]
