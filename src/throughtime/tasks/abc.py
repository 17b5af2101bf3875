"""Tunes in ABC notation, read as pieces.

Source: Walshaw (2011), the ABC music standard 2.1, abcnotation.com.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator

from throughtime.errors import UserError
from throughtime.tasks.abc_layout import FINEST, LATEST, Grid, bars_of, order_of, rows_of, whole_of
from throughtime.tasks.abc_music import Sound, UnreadableError
from throughtime.tasks.abc_tune import Line, Tune
from throughtime.tasks.pieces import VELOCITY, Piece, Track, notes_of
from throughtime.tasks.source import Source

HIGHEST, VOICES = 127, 255  # what `NOTE` can hold


class Remarks:
    """What was not read as it stands in a file, said once for each kind."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lines: dict[str, list[int]] = {}

    def add(self, what: str, line: int, times: int = 1) -> None:
        """Note that something is so on a line, so often."""
        if times:
            self._lines.setdefault(what, []).extend([line] * times)

    def first(self) -> str | None:
        """The first of them; None where there is none."""
        return next((f"{self._name}:{lines[0]}: {what}" for what, lines in self._lines.items()), None)

    def say(self) -> None:
        """Warn of each kind, with the first line and how often there is such."""
        for what, lines in self._lines.items():
            often = f"; {len(lines):,} such in the file" if len(lines) > 1 else ""
            warnings.warn(f"{self._name}:{lines[0]}: {what}{often}", stacklevel=3)


def read_abc(source: Source, *, repeats: bool = True) -> list[Piece]:
    """The tunes of a file, each a piece of its notes as they sound, one track a voice, all times exact.

    A tune begins with X:, and ends at an empty line or the next one; where a file has no X:, it begins after an empty line and has
    a key. Ornaments that have no time of their own, grace notes and signs such as ~ and T, are not played, and jumps (D.C.) not
    followed. An accidental lasts to the end of its bar for notes in the same octave; the standard has it hold in all of them,
    which `%%propagate-accidentals pitch` asks for. A note that is tied to another one is taken for the slur that it
    was meant to be. Of a key that changes its notes (K:D exp ^f) it is told which it is where it is one.

    Args: repeats: play repeats, endings and the order of parts (P:) as they are written, for what is heard. False: each bar once in
        the order in which it stands, of several endings the last: what to learn from, where doubles would be learned twice.
    Returns: one piece a tune; `place` is the file and the line of its X:. The resolution is the least with which all lengths are
        whole, a multiple of 4. Where a bar is too short or long a metre begins anew with the next whole one. What is not known is
        passed over where the notes stay right, else the tune is left out: both are said by warnings, one a kind.
    Raises: UserError where the file cannot be read, holds no tune, or none that can be read.
    """
    remarks, left_out, pieces = Remarks(source.name), Remarks(source.name), []
    for line, lines in _tunes(source, remarks):
        try:
            pieces.append(_piece(Tune(line, lines, remarks.add), source.name, repeats, remarks))
        except UnreadableError as error:
            left_out.add(f"{error}: this tune is left out", error.line)
    if not pieces:
        raise UserError(
            left_out.first() or f"{source.name}: holds no tune in ABC, which has at least a key (K:G) and notes"
        )
    remarks.say()
    left_out.say()
    return pieces


def _tunes(source: Source, remarks: Remarks) -> Iterator[tuple[int, list[Line]]]:
    """The lines of each tune, after those of the head of the file, and the line of its X:, else its first."""
    header: list[Line] | None = None
    for lines in _blocks(source):
        first = next((number for number, text in lines if text.startswith("X:")), None)
        keyed = any(text.startswith("K:") for _, text in lines)
        if first is not None or keyed:
            header = header or []
            yield first or lines[0][0], [*header, *lines]
        elif header is None:
            header = [(number, text) for number, text in lines if re.match(r"[LMI]:|%%", text)]
        elif music := next((number for number, text in lines if text.count("|") > 1), None):
            remarks.add("music after an empty line belongs to no tune and is passed over", music)


def _blocks(source: Source) -> Iterator[list[Line]]:
    """Lines that no empty line parts, and that no other X: begins."""
    block: list[Line] = []
    for number, text in enumerate(source, 1):
        text = text.rstrip()
        if not text or text.startswith("X:"):
            if block:
                yield block
            block = []
        if text:
            block.append((number, text))
    if block:
        yield block


def _piece(tune: Tune, name: str, repeats: bool, remarks: Remarks) -> Piece:
    """What sounds in a tune, and when. Raises: UnreadableError where it cannot be known."""
    voices = [voice for voice in tune.voices.items() if any(isinstance(one, Sound) for one in voice[1].elements)]
    if not any(isinstance(one, Sound) and one.pitches for _, voice in voices for one in voice.elements):
        raise UnreadableError(
            tune.line, "there are no notes" if tune.keyed else "there is no key; write one before the notes, K:G say"
        )
    laid = [bars_of(voice, tune.state) for _, voice in voices]
    whole = whole_of([bars for bars, _ in laid])
    if len(voices) > VOICES or whole > 4 * FINEST:
        what = f"{len(voices)} voices, and lengths that need {whole // 4:,} ticks a quarter"
        raise UnreadableError(tune.line, f"{what}: there may be {VOICES}, and {FINEST:,}")
    rows: list[tuple[int, ...]] = []
    grids, ends, written = [], set(), set()
    for track, (bars, lines) in enumerate(laid):
        if track and len(bars) == len(laid[0][0]):  # as where only the first has signs of repeats
            lines = laid[0][1]
        order = order_of(lines, tune.parts if repeats else "", repeats)
        if order is None:
            remarks.add(f"P:{tune.parts} names a part that does not stand there once and is passed over", tune.line)
            order = order_of(lines, "", repeats) or []
        found, starts, hanging = rows_of(bars, order, whole)
        rows += [(start, lasts, pitch, VELOCITY, track) for start, lasts, pitch in found]
        remarks.add("a tie to another note is read as a slur", tune.line, hanging)
        grids.append(Grid(bars, order, starts, whole))
        ends.add(starts[-1])
        written.add(sum(bar.length for bar in bars) if len(laid) > 1 else 0)
    if len(ends) > len(written):
        raise UnreadableError(tune.line, "the repeats of its voices do not agree")
    if max(ends) >= LATEST or any(not 0 <= row[2] <= HIGHEST for row in rows):
        raise UnreadableError(
            tune.line, f"a pitch is not from 0 to {HIGHEST}, or it does not end before tick {LATEST:,}"
        )
    grid = grids[0]
    return Piece(
        notes_of(rows),
        whole // 4,
        place=f"{name}:{tune.line}",
        name=tune.name,
        tracks=tuple(Track(voice.parameters.name or key, voice.program, voice.drums) for key, voice in voices),
        tempos=next((tuple(one.tempos) for one in grids if one.tempos), ()),
        metres=tuple(grid.metres),
        keys=tuple(grid.keys),
        upbeat=grid.upbeat,
    )
