"""Music as events: bars, places in them, and at each place the notes that begin there, with how long and how hard.

The symbols are named after REMI (Huang, Yang 2020), the tracks after REMI+ (von Rütte et al. 2023).
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from throughtime.errors import UserError, unknown
from throughtime.tasks.event_changes import for_tracks, with_keys
from throughtime.tasks.event_values import ANY, BEATS, COMMON, DRUMS, Values, in_tracks, key_of, on_grid, program_of
from throughtime.tasks.moments import KEY_NAMES, STOP, Array, Moment, Walker, Writing
from throughtime.tasks.pieces import LOWEST, VELOCITY, Key, Metre, Piece, Tempo, Track, notes_of

# which kinds of symbols may come after which; in a heading, and in a moment of notes
HEADING = {
    "begin": ("metre",),
    "metre": ("signature", "tempo"),
    "signature": ("tempo",),
    "tempo": ("program",),
    "program": ("program", "place"),
    "place": ("end",),
}
NOTES = {
    "begin": ("bar", "place", "stop"),
    "bar": ("bar", "metre", "place"),
    "metre": ("bar", "place"),
    "place": ("tempo", "track"),
    "tempo": ("track",),
    "track": ("note",),
    "note": ("velocity",),
    "velocity": ("quarters", "steps"),
    "quarters": ("steps", "track", "note", "end"),
    "steps": ("track", "note", "end"),
    "stop": ("end",),
}


class EventWriting(Writing):
    """A moment is what begins at one place: a `bar` for each that begins since the moment before, the place in it, then the notes:
    (track) key (velocity) quarters and steps that it lasts. The first moment is a heading: metre, key, tempo, programs, and the
    place in its bar at which the piece begins; the last says that it ends.

    Args: grid: steps a quarter note. values: what has symbols.
    """

    kind: ClassVar[str] = "events"

    def __init__(self, grid: int, values: Values) -> None:
        self.grid, self.values = grid, values
        self._bars = [max(1, round(grid * 4 * beats / unit)) for beats, unit in values.metres]
        kinds = self._kinds()
        self._kind, sizes = [*kinds], [len(called) for called in kinds.values()]
        self._first = dict(zip(kinds, np.cumsum([0, *sizes]).tolist(), strict=False))
        self._names = [name for called in kinds.values() for name in called]
        self._class = np.repeat(np.arange(len(kinds)), sizes)

    def _kinds(self) -> dict[str, list[str]]:
        """The kinds of symbols, in order, and what those of each are called."""
        v = self.values
        return {
            "end": ["end"],
            "key": KEY_NAMES,
            "drum": [f"drum {d}" for d in v.drums],
            "bar": ["bar"],
            "stop": [STOP],
            "place": [f"place {i}" for i in range(max(self._bars))],
            "quarters": [f"{i} quarters" for i in range(1, BEATS + 1)],
            "steps": [f"{i}/{self.grid} quarter" for i in range(1, self.grid)],
            "velocity": [f"velocity {i}" for i in v.velocities] if len(v.velocities) > 1 else [],
            "track": [f"track {i + 1}" for i in range(v.tracks)] if v.tracks > 1 else [],
            "metre": [f"{beats}/{unit}" for beats, unit in v.metres],
            "signature": [f"{sharps:+d} {mode}" for sharps, mode in v.keys],
            "tempo": [f"{t:g} a minute" for t in v.tempos],
            "program": [f"program {p}" for p in v.programs],
        }

    @property
    def names(self) -> list[str]:
        return self._names

    @property
    def places(self) -> int:
        return max(self._bars)

    def symbol(self, kind: str, number: int = 0) -> int:
        """One of a kind."""
        return int(self._first[kind]) + number

    def kind_of(self, symbol: int) -> tuple[str, int]:
        """The kind of a symbol, and which of them it is."""
        kind = self._kind[self._class[symbol]]
        return kind, symbol - self._first[kind]

    def bar_of(self, metre: int) -> int:
        """Steps of a bar of a metre, by its number."""
        return self._bars[metre]

    # -- a piece as moments

    def moments(self, piece: Piece) -> tuple[list[Moment], list[int]]:
        piece = in_tracks(piece, self.values)
        notes = on_grid(piece, self.grid)

        def at(tick: int) -> int:
            return round(tick * self.grid / piece.resolution)

        bars = self._bar_lines(piece, at, int(notes["start"].max(initial=0)))
        tempos = [(at(t.start), self.values.tempo(t.quarters)) for t in piece.tempos or (ANY,)]
        lines, times = [line for line, _ in bars], [time for time, _ in tempos]
        number, tempo = 0, tempos[0][1]
        found, places = [self._heading(piece, bars[0], tempo)], [-lines[0]]
        for start, group in itertools.groupby(notes.tolist(), lambda note: note[0]):
            moment: list[int] = []
            for passed in range(number + 1, bisect_right(lines, start)):
                moment.append(self.symbol("bar"))
                if bars[passed][1] != bars[number][1]:
                    moment.append(self.symbol("metre", bars[passed][1]))
                number = passed
            places.append(start - lines[number])
            moment.append(self.symbol("place", places[-1]))
            now = tempos[max(bisect_right(times, start) - 1, 0)][1]
            if now != tempo:
                moment.append(self.symbol("tempo", now))
                tempo = now
            found.append((*moment, *self._notes(piece.tracks, group)))
        return [*found, (self.symbol("stop"),)], [*places, places[-1]]

    def _bar_lines(self, piece: Piece, at: Callable[[int], int], last: int) -> list[tuple[int, int]]:
        """Where each bar begins, up to that of a step, and the number of its metre. A metre begins with a bar."""
        metres = [(at(m.start), self.values.metre(m)) for m in piece.metres or (COMMON,)]
        metre, upbeat = metres[0][1], at(piece.upbeat)
        bars = [((upbeat - 1) % self._bars[metre] + 1 - self._bars[metre] if upbeat else 0, metre)]
        while (following := bars[-1][0] + self._bars[metre]) <= last:
            metre = next((kind for start, kind in reversed(metres) if start <= following), metre)
            bars.append((following, metre))
        return bars

    def _heading(self, piece: Piece, bar: tuple[int, int], tempo: int) -> Moment:
        symbols = [self.symbol("metre", bar[1])]
        key = (piece.keys[0].sharps, piece.keys[0].mode) if piece.keys else None
        if key in self.values.keys:
            symbols.append(self.symbol("signature", self.values.keys.index(key)))
        symbols.append(self.symbol("tempo", tempo))
        symbols += [self.symbol("program", self.values.program(program_of(track))) for track in piece.tracks]
        return (*symbols, self.symbol("place", -bar[0]))

    def _notes(self, tracks: Sequence[Track], notes: Iterable[Any]) -> Iterator[int]:
        """The symbols of notes that begin together, in order of track and key."""
        last = None
        for _, duration, pitch, velocity, track in notes:
            if self.values.tracks > 1 and track != last:
                yield self.symbol("track", track)
            last = track
            drums = tracks[track].drums
            yield self.symbol("drum", self.values.drum(pitch)) if drums else self.symbol("key", pitch - LOWEST)
            if len(self.values.velocities) > 1:
                yield self.symbol("velocity", self.values.velocity(velocity))
            quarters, rest = divmod(duration, self.grid)
            if quarters:
                yield self.symbol("quarters", quarters - 1)
            if rest:
                yield self.symbol("steps", rest - 1)

    def bars(self, moments: Sequence[Moment]) -> list[int]:
        bar = self.symbol("bar")
        return list(itertools.accumulate(moment.count(bar) for moment in moments))

    # -- moments as a piece

    def piece(self, moments: Sequence[Moment]) -> Piece:
        found = _Reading(self)
        for moment in moments:
            for symbol in moment:
                found.read(*self.kind_of(symbol))
        return found.piece()

    # -- what may follow what

    def follow(self) -> Array:
        count = len(self._names)
        allowed = np.zeros((2, count + 1, count), dtype=bool)
        for number, grammar in enumerate((HEADING, NOTES)):
            for kind, following in grammar.items():
                for one in ("key", "drum") if kind == "note" else (kind,):
                    allowed[number, count if kind == "begin" else self.rows(one)] = self._of(following, grammar)
        return allowed

    def rows(self, kind: str) -> slice:
        """Where the symbols of a kind lie."""
        low = self._first[kind]
        return slice(low, low + int((self._class == self._kind.index(kind)).sum()))

    def _of(self, kinds: Sequence[str], grammar: Mapping[str, Sequence[str]]) -> Array:
        """Which symbols are of some kinds; where there are none of a kind, those that would follow it."""
        found = np.zeros(len(self._names), dtype=bool)
        for kind in kinds:
            for one in ("key", "drum") if kind == "note" else (kind,):
                if (rows := self.rows(one)).stop > rows.start:
                    found[rows] = True
                elif one in ("velocity", "track", "signature"):
                    found |= self._of(grammar[one], grammar)
        return found

    def restarts(self) -> Array:
        found = super().restarts()
        found[self.rows("track")] = True
        return found

    def homes(self) -> Array:
        found = super().homes()
        for number, (sharps, _) in enumerate(self.values.keys):
            found[self.symbol("signature", number)] = 1 + 7 * sharps % 12
        return found

    def notes(self) -> Array:
        found = super().notes()
        found[self.rows("drum")] = True
        return found

    def moved(self, semitones: int) -> Array:
        table = super().moved(semitones)
        for number, (sharps, mode) in enumerate(self.values.keys if semitones else ()):
            key = ((sharps + 7 * semitones + 5) % 12 - 5, mode)
            if key in self.values.keys:
                table[self.symbol("signature", number)] = self.symbol("signature", self.values.keys.index(key))
        return table

    def opening(self, piece: Piece) -> list[Moment]:
        return self.moments(piece)[0][:-1]

    def after(self, walker: Walker, piece: Piece, at: int) -> list[Moment]:
        assert isinstance(walker, _EventWalker)
        line, length, bar = walker.line_of(walker.bar), self.bar_of(walker.metre), 0
        piece, found = for_tracks(piece, walker.programs), []
        for start, group in itertools.groupby(on_grid(piece, self.grid).tolist(), lambda note: note[0]):
            passed, place = divmod(at + start - line, length)
            bars, bar = [self.symbol("bar")] * (passed - bar), passed
            found.append((*bars, self.symbol("place", place), *self._notes(piece.tracks, group)))
        return found

    def with_keys(self, moment: Moment, pitches: Sequence[int]) -> Moment:
        return with_keys(moment, [1 + pitch - LOWEST for pitch in pitches], lambda symbol: self.kind_of(symbol)[0])

    def part(self, moments: Sequence[Moment], start: int) -> Piece:
        walker = self.walker()
        for moment in moments[:start]:
            walker.read(moment)
        if not walker.begun or start == len(moments):
            return self.piece([*moments[:1], *moments[max(start, 1) :]])
        first = moments[start]
        if self.kind_of(first[0])[0] == "bar":  # the piece begins with it
            first = first[1:]
        now = {"metre": walker.metre, "place": 0, "tempo": self.values.tempo(walker.tempo)}
        kinds = [self.kind_of(symbol) for symbol in moments[0]]
        if (new := self.kind_of(first[0]))[0] == "metre":
            now["metre"], first = new[1], first[1:]
        heading = tuple(self.symbol(kind, now.get(kind, number)) for kind, number in kinds)
        return self.piece([heading, first, *moments[start + 1 :]])

    def in_key(self, key: str) -> int:
        names = {key_of(*known): self.symbol("signature", i) for i, known in enumerate(self.values.keys)}
        if not names:
            return super().in_key(key)
        if (found := key.strip().lower()) not in names:
            raise UserError("--key: " + unknown("key", found, names))
        return names[found]

    def walker(self) -> _EventWalker:
        return _EventWalker(self)

    def settings(self) -> dict[str, Any]:
        return {"grid": self.grid, "values": self.values.settings()}


class _EventWalker(Walker):
    """Bars and the places in them."""

    def __init__(self, writing: EventWriting) -> None:
        super().__init__(len(writing.names))
        self.writing = writing
        self.metre = 0
        self.tempo = writing.values.tempos[0]
        self._begun = False  # whether a note stands at this place
        self._heading = True

    def read(self, moment: Moment) -> None:
        kinds = [self.writing.kind_of(symbol) for symbol in moment]
        if any(kind == "stop" for kind, _ in kinds):
            return
        self.bar, step, self.place, self.metre = self._after(kinds)
        self.seconds += (step - self.steps) * 60 / (self.tempo * self.writing.grid)
        self.steps = step
        for kind, number in kinds:
            if kind == "tempo":
                self.tempo = self.writing.values.tempos[number]
            elif kind == "program":
                self.programs.append(self.writing.values.programs[number])
        self._begun, self._heading = not self._heading, False

    def _after(self, kinds: Iterable[tuple[str, int]]) -> tuple[int, int, int, int]:
        """The bar, the step of the grid, the place and the metre that symbols lead to."""
        bar, step, place, metre = self.bar, self.steps, self.place, self.metre
        for kind, number in kinds:
            if kind == "metre":
                metre = number
            elif kind == "bar":
                # a new metre is told behind its bar, so this is the length of the one that ends
                bar, step, place = bar + 1, step + self.writing.bar_of(metre) - place, 0
            elif kind == "place":
                step, place = step + (0 if self._heading else number - place), number
        return bar, step, place, metre

    @property
    def _length(self) -> int:
        return self.writing.bar_of(self.metre)

    def allowed(self, symbols: Sequence[int]) -> Array:
        kinds = [self.writing.kind_of(symbol) for symbol in symbols]
        *_, metre = self._after(kinds)
        found = self._all.copy()
        bars = sum(kind == "bar" for kind, _ in kinds)
        places = self.writing.rows("place")
        first = places.start + (0 if bars or self._heading else self.place + self._begun)
        found[places.start : first] = False
        found[places.start + self.writing.bar_of(metre) : places.stop] = False
        if not self.stops:
            found[self.writing.rows("stop")] = False
        return self._of_tracks(found, kinds)

    def _of_tracks(self, found: Array, kinds: Sequence[tuple[str, int]]) -> Array:
        """What there is a track for: in a heading as many programs as tracks; later each track in its turn, drums on those of
        drums."""
        rows, most = self.writing.rows, self.writing.values.tracks
        if self._heading:
            if sum(kind == "program" for kind, _ in kinds) >= most:
                found[rows("program")] = False
            return found
        tracks = rows("track")
        last = max((number for kind, number in kinds if kind == "track"), default=-1)
        if tracks.stop > tracks.start:
            found[tracks.start : tracks.start + last + 1] = False
            found[tracks.start + len(self.programs) : tracks.stop] = False
        drums = self.programs[max(last, 0)] == DRUMS
        found[rows("key") if drums else rows("drum")] = False
        return found

    @property
    def begun(self) -> int:
        return self.bar + self._begun

    def line_of(self, bar: int) -> int:
        return self.steps - self.place + (bar - self.bar) * self._length

    def passed(self, symbols: Sequence[int]) -> int:
        return self._after(map(self.writing.kind_of, symbols))[0]

    def reached(self, symbols: Sequence[int]) -> int:
        return self._after(map(self.writing.kind_of, symbols))[1]


class _Reading:
    """A piece in the making, symbol by symbol."""

    def __init__(self, writing: EventWriting) -> None:
        self.writing, self.values = writing, writing.values
        self.rows: list[list[int]] = []
        self.metre = self.track = 0
        self.line = 0  # where the bar begins
        self.first: int | None = None  # the place in its bar where the piece begins
        self.time = 0
        self.programs: list[int] = []
        self.tempos: list[Tempo] = []
        self.metres: list[Metre] = []
        self.keys: list[Key] = []

    def read(self, kind: str, number: int) -> None:
        """One more symbol."""
        getattr(self, f"_{kind}", lambda _: None)(number)

    def _bar(self, _: int) -> None:
        self.line += self.writing.bar_of(self.metre)

    def _metre(self, number: int) -> None:
        # a new metre begins with the bar that has just begun
        self.metre = number
        self.metres.append(Metre(max(self.line, 0), *self.values.metres[number]))

    def _signature(self, number: int) -> None:
        self.keys.append(Key(0, *self.values.keys[number]))

    def _tempo(self, number: int) -> None:
        self.tempos.append(Tempo(self.time, self.values.tempos[number]))

    def _program(self, number: int) -> None:
        self.programs.append(self.values.programs[number])

    def _place(self, number: int) -> None:
        if self.first is None:
            self.first, self.line = number, -number
            return
        self.time, self.track = self.line + number, 0

    def _track(self, number: int) -> None:
        self.track = number

    def _key(self, number: int) -> None:
        self.rows.append([self.time, 0, LOWEST + number, VELOCITY, self.track])

    def _drum(self, number: int) -> None:
        self.rows.append([self.time, 0, self.values.drums[number], VELOCITY, self.track])

    def _velocity(self, number: int) -> None:
        self.rows[-1][3] = self.values.velocities[number]

    def _quarters(self, number: int) -> None:
        self.rows[-1][1] += (number + 1) * self.writing.grid

    def _steps(self, number: int) -> None:
        self.rows[-1][1] += number + 1

    def piece(self) -> Piece:
        """What has been read."""
        v = self.values
        if len(v.velocities) == 1:
            for row in self.rows:
                row[3] = v.velocities[0]
        bar = self.writing.bar_of(v.metres.index((self.metres[0].beats, self.metres[0].unit))) if self.metres else 0
        count = max([len(self.programs), *(row[4] + 1 for row in self.rows), 1])
        programs = [*self.programs, *[v.programs[0]] * count][:count]
        return Piece(
            notes_of(self.rows),
            self.writing.grid,
            tracks=tuple(Track(program=p % 128, drums=p == 128) for p in programs),
            tempos=tuple(self.tempos),
            metres=tuple(self.metres),
            keys=tuple(self.keys),
            upbeat=bar - self.first if self.first else 0,
        )
