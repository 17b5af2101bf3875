"""What of a collection of pieces is told apart when they are written as events: the grid, metres, tempos, velocities."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from throughtime.tasks.abc_fields import tonic_of
from throughtime.tasks.moments import Array
from throughtime.tasks.pieces import VELOCITY, Metre, Piece, Tempo, Track, apart, ordered

GRIDS = (2, 4, 6, 8, 12, 24, 48)  # steps a quarter note
FITS = 0.98  # of the notes, which have to begin on a grid
MOST = 32  # values of velocity, or of tempo, that are told apart
BEATS = 64  # quarter notes that a note lasts, less than one more
COMMON = Metre(0, 4, 4)
ANY = Tempo(0, 120.0)
DRUMS = 128  # the program of drums


@dataclass(frozen=True)
class Values:
    """What occurs in the pieces that are learned from, and therefore has a symbol. metres: (beats, unit). keys: (sharps, mode).
    tempos: quarter notes a minute; velocities: 1 to 127; both ascending, and what lies between is taken for the nearest.
    programs: of General MIDI; 128 is drums. drums: their keys. tracks: at most in a piece."""

    metres: tuple[tuple[int, int], ...] = ((4, 4),)
    keys: tuple[tuple[int, str], ...] = ()
    tempos: tuple[float, ...] = (120.0,)
    velocities: tuple[int, ...] = (VELOCITY,)
    programs: tuple[int, ...] = (0,)
    drums: tuple[int, ...] = ()
    tracks: int = 1

    @classmethod
    def of(cls, pieces: Iterable[Piece]) -> Values:
        """Those of some pieces."""
        metres, keys, tempos, velocities, programs, drums = (Counter[Any]() for _ in range(6))
        tracks = 1
        for piece in pieces:
            used = tracks_of(piece)
            metres.update((m.beats, m.unit) for m in piece.metres or (COMMON,))
            keys.update((k.sharps, k.mode) for k in piece.keys)
            tempos.update(round(t.quarters, 1) for t in piece.tempos or (ANY,))
            velocities.update(piece.notes["velocity"].tolist())
            programs.update(program_of(piece.tracks[i]) for i in used)
            tracks = max(tracks, len(used))
            for i in used:
                if piece.tracks[i].drums:
                    drums.update(piece.notes["pitch"][piece.notes["track"] == i].tolist())
        return cls(
            tuple(sorted(metres)),
            tuple(sorted(keys)),
            tuple(float(v) for v in _few(tempos, "tempos")),
            tuple(int(v) for v in _few(velocities, "velocities")),
            tuple(sorted(programs)),
            tuple(sorted(drums)),
            tracks,
        )

    def in_all_keys(self) -> Values:
        """The same, with every key that one of these becomes when a piece is transposed."""
        modes = sorted({mode for _, mode in self.keys})
        return replace(self, keys=tuple(sorted({*self.keys, *((s, mode) for mode in modes for s in range(-5, 7))})))

    # the number of what is nearest to a value

    def metre(self, metre: Metre) -> int:
        """A metre that there is not is taken for that of the bar that is most nearly as long."""
        found = (metre.beats, metre.unit)
        return (
            self.metres.index(found)
            if found in self.metres
            else _nearest([b / u for b, u in self.metres], found[0] / found[1])
        )

    def tempo(self, quarters: float) -> int:
        """By its quarter notes a minute."""
        return _nearest(self.tempos, quarters)

    def velocity(self, velocity: int) -> int:
        """From 1 to 127."""
        return _nearest(self.velocities, velocity)

    def program(self, program: int) -> int:
        """Of General MIDI, whose families lie side by side; drums are near to nothing else."""
        return _nearest([p if (p == DRUMS) == (program == DRUMS) else math.inf for p in self.programs], program)

    def drum(self, key: int) -> int:
        """By the key."""
        return _nearest(self.drums, key)

    def settings(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    @classmethod
    def opened(cls, settings: dict[str, Any]) -> Values:
        """Of `settings`, as JSON gives it back. Raises: KeyError or TypeError where it is not that."""
        made: dict[str, Any] = {name: tuple(settings[name]) for name in ("tempos", "velocities", "programs", "drums")}
        made |= {name: tuple((a, b) for a, b in settings[name]) for name in ("metres", "keys")}
        return cls(**made, tracks=int(settings["tracks"]))


def _few(counts: Counter[Any], what: str) -> list[Any]:
    """The values, or of more than MOST their quantiles, which is said."""
    values = sorted(counts)
    if len(values) <= MOST:
        return values
    warnings.warn(f"{len(values):,} {what} are told apart as {MOST}", stacklevel=3)
    every = np.repeat(values, [counts[v] for v in values])
    return sorted(set(np.quantile(every, (np.arange(MOST) + 0.5) / MOST, method="nearest").tolist()))


def _nearest(values: Sequence[float], value: float) -> int:
    return min(range(len(values)), key=lambda i: abs(values[i] - value))


def program_of(track: Track) -> int:
    """The program of a track; 128 is drums."""
    return DRUMS if track.drums else track.program


def tracks_of(piece: Piece) -> list[int]:
    """The tracks that have notes."""
    return [int(track) for track in np.unique(piece.notes["track"])]


def in_tracks(piece: Piece, values: Values) -> Piece:
    """A piece with its tracks that have notes, numbered from 0, as many as there are symbols for: of more the notes go to the last
    of their kind, drums or not. What has none of its kind is left out, and said."""
    used = tracks_of(piece)
    kept = [i for i in used if values.drums or not piece.tracks[i].drums][: values.tracks]
    like = {piece.tracks[track].drums: number for number, track in enumerate(kept)}
    to = {track: kept.index(track) if track in kept else like.get(piece.tracks[track].drums) for track in used}
    there = np.isin(piece.notes["track"], [track for track in used if to[track] is not None])
    if not there.all():
        what = "drums" if not values.drums else "tracks of a kind"
        warnings.warn(
            f"{piece.place}: {(~there).sum():,} notes of {what} that training had none of are left out", stacklevel=2
        )
    notes = piece.notes[there].copy()
    table = np.zeros(max(used, default=0) + 1, dtype=np.uint8)
    for track, number in to.items():
        table[track] = number or 0
    notes["track"] = table[notes["track"]]
    return replace(piece, notes=ordered(notes), tracks=tuple(piece.tracks[i] for i in kept) or (Track(),))


def grid_of(pieces: Sequence[Piece]) -> int:
    """The coarsest grid on which nearly all notes begin; where there is none, as in what was played by hand, the finest."""
    for grid in GRIDS:
        on = total = 0
        for piece in pieces:
            starts = piece.notes["start"].astype(np.int64) * grid
            on, total = on + int((starts % piece.resolution == 0).sum()), total + len(starts)
        if on >= FITS * total:
            return grid
    return GRIDS[-1]


def on_grid(piece: Piece, grid: int) -> Array:
    """The notes of a piece in steps of a grid, sorted: each begins and ends at the nearest step, and lasts one at least. What
    begins while its key sounds on in its track ends that; of what begins with it, the longer stays."""
    notes = piece.notes.copy()
    starts = piece.notes["start"].astype(np.float64) * grid / piece.resolution
    ends = starts + piece.notes["duration"].astype(np.float64) * grid / piece.resolution
    if long := int((np.rint(ends) - np.rint(starts) >= (BEATS + 1) * grid).sum()):
        warnings.warn(f"{piece.place}: {long:,} notes of over {BEATS} quarter notes are cut to that", stacklevel=2)
    notes["start"] = np.rint(starts)
    notes["duration"] = np.clip(np.rint(ends) - notes["start"], 1, (BEATS + 1) * grid - 1)
    return apart(notes)[0]


def key_of(sharps: int, mode: str) -> str:
    """The name of a key as a user writes it, in small letters: c, f#, bb minor."""
    tonic = tonic_of(sharps, mode).lower()
    return tonic if mode == "major" else f"{tonic} {mode}"
