"""Music as frames: at each step of an even grid the set of keys that sound, from the lowest up.

Shapes: T frames, V symbols.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from throughtime.errors import UserError
from throughtime.tasks.moments import END, KEY_NAMES, KEYS, Array, Moment, Walker, Writing
from throughtime.tasks.pieces import HIGHEST, LOWEST, Metre, Piece, Tempo
from throughtime.tasks.rolls import of_frames

TEMPO = 100.0  # quarter notes a minute, of frames that are played
BAR = 4  # quarter notes in a bar, where no metre is known


class FrameWriting(Writing):
    """A moment is a frame: its keys, ascending. Where a key is struck again while it sounds is not told.

    Args: grid: frames a quarter note. quarters: in a bar.
    """

    kind: ClassVar[str] = "frames"

    def __init__(self, grid: int = 1, quarters: int = BAR) -> None:
        self.grid, self.quarters = grid, quarters

    @property
    def names(self) -> list[str]:
        return ["end", *KEY_NAMES]

    @property
    def places(self) -> int:
        return self.grid * self.quarters

    def moments(self, piece: Piece) -> tuple[list[Moment], list[int]]:
        drums = np.array([track.drums for track in piece.tracks])[piece.notes["track"]]
        if drums.any():
            what = "notes of drums, which frames do not hold, are left out"
            warnings.warn(f"{piece.place}: {drums.sum():,} {what}", stacklevel=2)
            piece = replace(piece, notes=piece.notes[~drums])
        frames = frames_at(piece, self.grid)
        for number, frame in enumerate(frames):
            for pitch in frame:
                if not LOWEST <= pitch <= HIGHEST:
                    raise UserError(
                        f"{piece.place}: frame {number}: key {pitch} is none of a piano's, {LOWEST} to {HIGHEST}; take it out"
                    )
        return [tuple(1 + p - LOWEST for p in frame) for frame in frames], [t % self.places for t in range(len(frames))]

    def bars(self, moments: Sequence[Moment]) -> list[int]:
        return [t // self.places for t in range(len(moments))]

    def piece(self, moments: Sequence[Moment]) -> Piece:
        frames = [[s - 1 + LOWEST for s in moment] for moment in moments]
        played = of_frames(frames, resolution=self.grid)
        return replace(played, tempos=(Tempo(0, TEMPO),), metres=(Metre(0, self.quarters, 4),))

    def follow(self) -> Array:
        allowed = np.ones((2, KEYS + 2, KEYS + 1), dtype=bool)
        allowed[:, END] = False
        return allowed

    def after(self, walker: Walker, piece: Piece, at: int) -> list[Moment]:
        return self.moments(piece)[0]

    def with_keys(self, moment: Moment, pitches: Sequence[int]) -> Moment:
        return tuple(sorted({1 + pitch - LOWEST for pitch in pitches}))

    def part(self, moments: Sequence[Moment], start: int) -> Piece:
        return replace(self.piece(moments[start:]), upbeat=-start % self.places)

    def walker(self) -> Walker:
        return _FrameWalker(self)

    def settings(self) -> dict[str, Any]:
        return {"grid": self.grid, "quarters": self.quarters}


class _FrameWalker(Walker):
    """One frame after the other."""

    def __init__(self, writing: FrameWriting) -> None:
        super().__init__(len(writing.names))
        self._places, self._second = writing.places, 60 / (TEMPO * writing.grid)
        self.tempo = TEMPO

    def read(self, moment: Moment) -> None:
        self.place, self.bar, self.seconds = (
            self.steps % self._places,
            self.steps // self._places,
            self.steps * self._second,
        )
        self.steps += 1

    @property
    def begun(self) -> int:
        return -(-self.steps // self._places)

    def line_of(self, bar: int) -> int:
        return bar * self._places

    def passed(self, symbols: Sequence[int]) -> int:
        return self.steps // self._places


def frames_at(piece: Piece, rate: int) -> list[list[int]]:
    """The keys that sound at each step of a grid of so many steps a quarter note, ascending; from the beginning of the piece to
    its end. A key that sounds between two steps alone is not met."""
    scale = rate / piece.resolution
    count = max(int(np.ceil(piece.ticks * scale - 1e-9)), 0)
    frames: list[set[int]] = [set() for _ in range(count)]
    for start, duration, pitch in zip(
        *(piece.notes[name].tolist() for name in ("start", "duration", "pitch")), strict=True
    ):
        first = int(np.ceil(start * scale - 1e-9))
        for t in range(first, min(int(np.ceil((start + duration) * scale - 1e-9)), count)):
            frames[t].add(pitch)
    return [sorted(frame) for frame in frames]
