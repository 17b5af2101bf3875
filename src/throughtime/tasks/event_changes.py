"""Changing music that is written as events: notes that other tracks are to play, other keys in the place of some."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from throughtime.errors import UserError
from throughtime.tasks.event_values import DRUMS, program_of, tracks_of
from throughtime.tasks.moments import Moment
from throughtime.tasks.pieces import Piece, Track, apart


def for_tracks(piece: Piece, programs: Sequence[int]) -> Piece:
    """A piece as the tracks of another play it: the first of those that are no drums is played by the first of those, and so on;
    what is over by the last. programs: of the tracks; 128 is drums. Raises: UserError where there is no track for a note."""
    table = np.zeros(len(piece.tracks), dtype=np.int64)
    slots = {drums: [i for i, p in enumerate(programs) if (p == DRUMS) == drums] for drums in (False, True)}
    met = {False: 0, True: 0}
    for track in tracks_of(piece):
        drums = program_of(piece.tracks[track]) == DRUMS
        if not slots[drums]:
            what = "drums" if drums else "keys"
            raise UserError(f"{piece.place or 'the notes'}: no track of the piece so far has {what}; leave them out")
        table[track] = slots[drums][min(met[drums], len(slots[drums]) - 1)]
        met[drums] += 1
    notes = piece.notes.copy()
    notes["track"] = table[notes["track"]]
    tracks = tuple(Track(program=p % DRUMS, drums=p == DRUMS) for p in programs)
    return replace(piece, notes=apart(notes)[0], tracks=tracks)


def with_keys(moment: Moment, keys: Sequence[int], kind_of: Callable[[int], str]) -> Moment:
    """A moment with other keys: the first in the place of its first note that is no drum, as long, as hard and in the track of
    that, and so on; what is over as the last of them.

    Args: keys: symbols. kind_of: what a symbol is. Raises: UserError where it has no key, or nothing would be left in it.
    """
    begin = next((i for i, s in enumerate(moment) if kind_of(s) in ("track", "key", "drum")), len(moment))
    notes: list[tuple[int, int, Moment]] = []  # track (0: not said), key, and the rest of each
    track = 0
    for symbol in moment[begin:]:
        kind = kind_of(symbol)
        if kind == "track":
            track = symbol
        elif kind in ("key", "drum"):
            notes.append((track, symbol, ()))
        else:
            notes[-1] = (*notes[-1][:2], (*notes[-1][2], symbol))
    played = [note for note in notes if kind_of(note[1]) == "key"]
    if not played:
        raise UserError("no key is struck there; name a moment that has notes")
    others = [note for note in notes if kind_of(note[1]) == "drum"]
    found = {note[:2]: note for note in others}
    for i, key in enumerate(keys):
        like = played[min(i, len(played) - 1)]
        found.setdefault((like[0], key), (like[0], key, like[2]))
    if not found:
        raise UserError("nothing would be left of it; name a note")
    symbols = list(moment[:begin])
    track = 0
    for at, key, rest in sorted(found.values()):
        symbols += ([at] if at != track else []) + [key, *rest]
        track = at
    return tuple(symbols)
