"""Voices of a tune in ABC laid out in time: repeats, endings and parts played out or not, bars, ties, whole ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Any

from throughtime.tasks.abc_music import BarLine, Change, Element, Overlay, Sound, Voice
from throughtime.tasks.pieces import Key, Metre, Tempo

FINEST = 32767  # ticks a quarter: more a MIDI file cannot say
LATEST = 2**31  # ticks of a piece: more `NOTE` cannot hold
Row = tuple[int, int, int, int]  # start, duration, pitch, and the number of the overlay in its bar


@dataclass
class Bar:
    """What stands between two bar lines. state: what holds where it begins, by `Change.what`. changes: whether that does."""

    elements: list[Element] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    changes: bool = False

    @property
    def length(self) -> Fraction:
        """How long it is, of a whole note."""
        longest = now = Fraction(0)
        for one in self.elements:
            if isinstance(one, Overlay):
                longest, now = max(longest, now), Fraction(0)
            elif isinstance(one, Sound):
                now += one.length
        return max(longest, now)


@dataclass
class Section:
    """Bars that are played again. endings: where each begins, and in which passes it is played."""

    start: int
    stop: int
    again: int = 0
    endings: list[tuple[int, frozenset[int]]] = field(default_factory=list)

    def played(self, repeats: bool) -> list[int]:
        """The bars as they are played: in each pass with its ending; where repeats are not, once, with the last ending."""
        first = self.endings[0][0] if self.endings else self.stop
        common = list(range(self.start, first))
        stops = [*(begin for begin, _ in self.endings[1:]), self.stop]
        endings = [(range(begin, stop), n) for (begin, n), stop in zip(self.endings, stops, strict=False)]
        if not repeats:
            return common + [i for bars, _ in endings[-1:] for i in bars]
        last = max([self.again + 1, *(n for _, numbers in endings for n in numbers)])
        passes = [common + [i for bars, numbers in endings if n in numbers for i in bars] for n in range(1, last + 1)]
        return [i for bars in passes for i in bars]


def bars_of(voice: Voice, state: dict[str, Any]) -> tuple[list[Bar], list[BarLine]]:
    """The bars of a voice in which something sounds or rests, and the lines around them, one more than bars: those that nothing
    stands between are one. state: what holds where it begins."""
    bars, lines, state = [Bar(state=state)], [BarLine(0)], dict(state)
    sounds = False
    for one in voice.elements:
        if type(one) is Sound:
            sounds = True
            bars[-1].elements.append(one)
        elif not isinstance(one, BarLine):
            bars[-1].elements.append(one)
            if isinstance(one, Change):
                state[one.what] = one.value
                bars[-1].changes = True
                if not sounds:
                    bars[-1].state = dict(state)
        elif sounds:
            bars.append(Bar(state=dict(state)))
            lines.append(one)
            sounds = False
        else:
            before = lines[-1]
            before.line, before.double = one.line, before.double or one.double
            before.ends, before.starts = max(before.ends, one.ends), max(before.starts, one.starts)
            before.endings, before.part = before.endings | one.endings, one.part or before.part
    if sounds:
        lines.append(BarLine(lines[-1].line))
    else:
        bars.pop()
    return bars, lines


def sections_of(lines: Sequence[BarLine], start: int, stop: int) -> list[Section]:
    """The sections between two bar lines.

    Where no line says that a repeat starts, it does at the last double line, or where the last one ended. An ending lasts to the
    next one, a double line, or the end of a repeat or the start of one; where a first one comes before any of these, the last one
    was as long as the first. Source: the standard, 4.8 and 4.9.
    """
    found: list[Section] = []
    now, explicit = Section(start, stop), lines[start].starts > 0
    if lines[start].endings:
        now.endings.append((start, lines[start].endings))
    for i in range(start + 1, stop):
        line = lines[i]
        another = bool(line.endings and now.endings) and 1 in line.endings
        cut = i
        if another and not (line.starts or line.double or line.ends):
            (begin, _), (second, _), *_ = [*now.endings, (i, frozenset())]
            cut = min(i, now.endings[-1][0] + second - begin)
        double = line.double and (not explicit or len(now.endings) > 1)
        if another or ((line.starts or line.ends or double) and not line.endings):
            now.stop, now.again = cut, _again(lines, now.start, i)
            found.append(now)
            now, explicit = Section(cut, stop), line.starts > 0
        if line.endings:
            now.endings.append((i, line.endings))
    now.again = _again(lines, now.start, stop)
    return [*found, now]


def _again(lines: Sequence[BarLine], start: int, stop: int) -> int:
    """How often a section is played again."""
    return max(lines[stop].ends, lines[start].starts) if lines[stop].ends else 0


def order_of(lines: Sequence[BarLine], parts: str, repeats: bool) -> list[int] | None:
    """The bars in the order in which they are played. parts: letters in their order; "" for the order in which they are written.
    None where one of them is not there, or there twice."""
    cuts = [0, *(i for i in range(1, len(lines) - 1) if lines[i].part), len(lines) - 1]
    ranges = [(lines[a].part, a, b) for a, b in pairwise(cuts)]
    if parts:
        letters = [part for part, _, _ in ranges]
        if any(letters.count(letter) != 1 for letter in parts):
            return None
        ranges = [ranges[letters.index(letter)] for letter in parts]
    return [i for _, a, b in ranges for one in sections_of(lines, a, b) for i in one.played(repeats)]


def ticks_of(length: Fraction, whole: int) -> int:
    """A length in ticks, of which a whole note has so many."""
    return length.numerator * (whole // length.denominator)


def whole_of(voices: Sequence[list[Bar]]) -> int:
    """The fewest ticks a whole note, at least 16, in which all lengths and all bars are whole."""
    below = {16}
    for bars in voices:
        for bar in bars:
            below.add(bar.state["metre"][1] if bar.state["metre"] else 1)
            for one in bar.elements:
                if type(one) is Sound:
                    below.add(one.length.denominator)
                    below.update(length.denominator for length in one.lengths)
    return math.lcm(*below)


def rows_of(bars: Sequence[Bar], order: Sequence[int], whole: int) -> tuple[list[list[int]], list[int], int]:
    """The notes of a voice: start, duration, pitch; where each bar that is played begins, and where the last one ends; how many
    ties lead to no note of their pitch."""
    rows: list[list[int]] = []
    starts, now, hanging = [], 0, 0
    pending: dict[tuple[int, int], list[int]] = {}  # notes that go on, by overlay and pitch
    for number in order:
        starts.append(begin := now)
        end, overlay = now, 0
        for one in bars[number].elements:
            if type(one) is Sound:
                ticks = ticks_of(one.length, whole)
                for i, pitch in enumerate(one.pitches):
                    lasts = ticks_of(one.lengths[i], whole) if one.lengths else ticks
                    row = pending.pop((overlay, pitch), None) if pending else None
                    if row is not None and row[0] + row[1] == now:
                        row[1] += lasts
                    else:
                        hanging += row is not None
                        row = [now, lasts, pitch]
                        rows.append(row)
                    if pitch in one.tied:
                        pending[overlay, pitch] = row
                now += ticks
            elif isinstance(one, Overlay):
                end, now, overlay = max(end, now), begin, overlay + 1
        now = max(end, now)
    return rows, [*starts, now], hanging + len(pending)


class Grid:
    """What holds from which tick on, as the bars of a voice are played.

    Where a whole bar begins beside the bars that the last metre counts, as after one that is too short, the metre begins anew.
    """

    def __init__(self, bars: Sequence[Bar], order: Sequence[int], starts: Sequence[int], whole: int) -> None:
        self.keys: list[Key] = []
        self.metres: list[Metre] = []
        self.tempos: list[Tempo] = []
        self.upbeat = 0
        self._whole = whole
        for number, (start, stop) in zip(order, pairwise(starts), strict=True):
            self._bar(bars[number], start, stop, len(order))

    def _bar(self, bar: Bar, start: int, stop: int, count: int) -> None:
        self._change("key", bar.state["key"], start)
        self._change("tempo", bar.state["tempo"], start)
        now = start
        for one in bar.elements if bar.changes else ():
            if isinstance(one, Change):
                self._change(one.what, one.value, now)
            elif isinstance(one, Sound):
                now += ticks_of(one.length, self._whole)
        if bar.state["metre"] is None:
            return
        beats, unit = bar.state["metre"]
        length = self._whole * beats // unit
        if not self.metres and stop - start < length and count > 1:
            self.upbeat = stop - start
        last = self.metres[-1] if self.metres else Metre(0, 0, 0)
        changed = last[1:] != (beats, unit)
        if changed or ((stop - start) % length == 0 and (start - (last.start or self.upbeat)) % length):
            self.metres.append(Metre(start, beats, unit))

    def _change(self, what: str, value: Any, start: int) -> None:
        """Note what holds from a tick on, where it is not what held before."""
        held: list[Any] = self.keys if what == "key" else self.tempos
        if what == "metre" or value is None or (what == "key" and value.sharps is None):
            return
        new = Key(start, value.sharps, value.mode) if what == "key" else Tempo(start, value)
        if held and held[-1].start == start:
            held.pop()
        if not held or held[-1][1:] != new[1:]:
            held.append(new)
