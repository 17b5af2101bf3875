"""Pieces as moments and back: what is written is what is read, whatever metres, tracks and rests there are."""

from __future__ import annotations

import json
import math
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from throughtime.errors import UserError
from throughtime.tasks import clock
from throughtime.tasks.event_values import BEATS, MOST, Values, grid_of, in_tracks, key_of, on_grid
from throughtime.tasks.event_writing import EventWriting
from throughtime.tasks.frame_writing import FrameWriting
from throughtime.tasks.moments import END, KEYS, key_name
from throughtime.tasks.pieces import LOWEST, Key, Metre, Piece, Tempo, Track, apart, notes_of
from throughtime.tasks.rolls import frames_of, of_frames
from throughtime.tasks.scores import read_pieces

DATA = Path(os.environ.get("THROUGHTIME_DATA", Path(__file__).parents[2] / "shared" / "data")) / "music"
needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"no {DATA}; THROUGHTIME_DATA names the data")
NOTES = ["start", "duration", "pitch", "track"]


def walked(writing, moments, places):
    """Each symbol of moments is one that may come there; the place of each is that of the walker. Gives the walker."""
    follow, restarts, walker = writing.follow(), writing.restarts(), writing.walker()
    beginning = len(writing.names)
    for t, (moment, place) in enumerate(zip(moments, places, strict=True)):
        last, under = beginning, 0
        for i, symbol in enumerate((*moment, END)):
            here = [writing.names[s] for s in moment], i
            assert follow[min(t, 1), last, symbol], here
            assert walker.allowed(moment[:i])[symbol], here
            is_key = 1 <= symbol <= KEYS
            assert symbol > under or not is_key, here
            under = 0 if restarts[symbol] else symbol if is_key else under
            last = symbol
        walker.read(moment)
        assert walker.place == place
    return walker


def said_of(call, *arguments):
    """What is given, and what was said."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = call(*arguments)
    return found, [str(one.message) for one in said]


# -- events: made pieces


METRES = [(4, 4), (3, 4), (6, 8), (2, 4), (7, 8), (3, 8), (5, 4), (2, 2)]


@st.composite
def pieces(draw, velocities=MOST):
    """Pieces on a grid: upbeats, changes of metre in and out of silence, drums, long rests, long notes, tempos."""
    grid = draw(st.sampled_from([2, 4, 6, 12]))
    fine = draw(st.sampled_from([1, 2, 40]))  # ticks a step
    metres, at = [], None
    for metre in draw(st.lists(st.sampled_from(METRES), min_size=1, max_size=4)):
        bar = grid * 4 * metre[0] // metre[1]
        if at is None:
            upbeat = at = draw(st.integers(0, bar - 1))
        metres.append(Metre((0 if not metres else at) * fine, *metre))
        at += bar * draw(st.integers(1, 3))
    at += grid * draw(st.sampled_from([0, 0, 60]))
    tracks = draw(
        st.lists(st.sampled_from([Track(), Track(program=7), Track(program=100), Track(drums=True)]), max_size=4)
    )
    tracks = (Track(program=25), *tracks)
    struck = draw(st.lists(st.integers(1, 127), min_size=1, max_size=velocities))
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(0, at),
                st.one_of(st.integers(1, 3 * grid), st.integers(1, (BEATS + 1) * grid - 1)),
                st.integers(21, 108),
                st.sampled_from(struck),
                st.integers(0, len(tracks) - 1),
            ),
            min_size=1,
            max_size=25,
        )
    )
    tempos = draw(st.dictionaries(st.integers(0, at), st.sampled_from([60.0, 90.5, 120.0, 181.3]), max_size=3))
    notes, _, _ = apart(notes_of([(s * fine, d * fine, *rest) for s, d, *rest in rows]))
    keys = draw(st.sampled_from([(), (Key(0, 2, "dorian"),), (Key(0, -7),)]))
    return Piece(
        notes,
        grid * fine,
        tracks=tracks,
        tempos=tuple(Tempo(t * fine, q) for t, q in sorted(tempos.items())),
        metres=tuple(metres),
        keys=keys,
        upbeat=upbeat * fine,
    ), grid


def tempo_at(piece, tick, first):
    return [first, *(t.quarters for t in piece.tempos if t.start <= tick)][-1]


def check_events(piece, grid, values):
    """A piece as moments and back."""
    writing = EventWriting(grid, values)
    moments, places = writing.moments(piece)
    back = writing.piece(moments)
    kept = in_tracks(piece, values)
    expected = on_grid(kept, grid)
    assert np.array_equal(back.notes[NOTES], expected[NOTES])
    heard = expected["velocity"].tolist()
    if not {*heard} <= {*values.velocities}:
        heard = [min(values.velocities, key=lambda known, v=v: abs(known - v)) for v in heard]
    assert back.notes["velocity"].tolist() == heard
    kinds = [(t.program if not t.drums else 0, t.drums) for t in kept.tracks]
    assert [(t.program, t.drums) for t in back.tracks] == kinds
    assert writing.moments(back) == (moments, places)
    assert all(type(symbol) is int for moment in moments for symbol in moment)
    return writing, moments, places, back, expected


@settings(deadline=None, max_examples=150)
@given(pieces(), st.booleans())
def test_every_made_piece_comes_back(made, all_keys):
    piece, grid = made
    values = Values.of([piece])
    values = values.in_all_keys() if all_keys else values
    writing, moments, places, back, notes = check_events(piece, grid, values)
    assert EventWriting(grid, Values.opened(json.loads(json.dumps(values.settings())))).moments(piece)[0] == moments
    walked(writing, moments, places)
    # bars and tempos are those of the piece as its own reading has them
    scale = grid / piece.resolution
    last = int(notes["start"].max())
    lines = [int(x * scale) for x in clock.bars(piece)]
    assert [x for x in lines if x <= last] == [x for x in clock.bars(back) if x <= last]
    assert back.upbeat == piece.upbeat * scale and back.keys == piece.keys
    first = piece.tempos[0].quarters if piece.tempos else 120.0
    for start in np.unique(notes["start"]).tolist():
        assert tempo_at(back, start, None) == tempo_at(piece, start / scale, first)
    # where the walker is
    walker, number = (
        writing.walker(),
        [bool(piece.upbeat) - 1 + sum(x <= s for x in lines) for s in np.unique(notes["start"])],
    )
    starts = np.unique(notes["start"]).tolist()
    walker.read(moments[0])
    assert writing.bars(moments) == [0, *number, number[-1]]
    for moment, start, bar, after in zip(moments[1:-1], starts, number, moments[2:], strict=True):
        assert (walker.passed(moment), walker.reached(moment)) == (bar, start)
        walker.read(moment)
        assert (walker.steps, walker.bar) == (start, bar)
        assert walker.seconds == pytest.approx(float(clock.seconds_at(back, start)))
        following = [x for x in clock.bars(back) if x > start]
        if following and after is not moments[-1]:
            assert walker.line_of(bar + 1) == following[0]


def test_metres_that_change_twice_in_a_rest():
    notes = notes_of([(0, 1, 60, 80, 0), (40, 2, 62, 80, 0)])
    piece = Piece(notes, 2, metres=(Metre(0, 2, 4), Metre(4, 6, 8), Metre(10, 4, 4)))
    values = Values.of([piece])
    writing, moments, places, _, _ = check_events(piece, 2, values)
    told = [writing.names[s] for s in moments[2]]
    assert told[:8] == ["bar", "6/8", "bar", "4/4", "bar", "bar", "bar", "place 6"]
    walker = walked(writing, moments, places)
    assert (walker.steps, walker.bar, walker.line_of(6)) == (40, 5, 42)


def test_what_the_symbols_of_a_piece_are():
    notes = notes_of([(2, 2, 60, 40, 0), (2, 6, 64, 90, 0), (8, 1, 36, 90, 1)])
    tracks = (Track(program=5), Track(drums=True))
    piece = Piece(
        notes, 2, tracks=tracks, tempos=(Tempo(0, 90.0), Tempo(6, 100.0)), keys=(Key(0, -1, "minor"),), upbeat=4
    )
    writing = EventWriting(2, Values.of([piece]))
    found, places = writing.moments(piece)
    assert [[writing.names[s] for s in moment] for moment in found] == [
        ["4/4", "-1 minor", "90 a minute", "program 5", "program 128", "place 4"],
        ["place 6", "track 1", "C4", "velocity 40", "1 quarters", "E4", "velocity 90", "3 quarters"],
        ["bar", "place 4", "100 a minute", "track 2", "drum 36", "velocity 90", "1/2 quarter"],
        ["end of piece"],
    ]
    assert places == [4, 6, 4, 4] and writing.opening(piece) == found[:-1]
    assert writing.called(found[1]) == "C4 E4" and writing.called(found[2]).startswith("bar place 4")
    assert writing.in_key(" D minor ") == found[0][1]
    with pytest.raises(UserError, match=r"^--key: unknown key 'd minro'; did you mean 'd minor'\?$"):
        writing.in_key("D minro")
    with pytest.raises(UserError, match=r"^--key: this model was not told the keys of its pieces; leave it out$"):
        EventWriting(2, Values()).in_key("c")


def test_with_several_tracks_no_note_comes_before_its_track():
    writing = EventWriting(2, Values(tracks=2, programs=(0, 128), drums=(36,)))
    follow, notes = writing.follow()[1], writing.notes()
    for kind in ("place", "tempo"):
        assert (
            not follow[writing.rows(kind)][:, notes].any() and follow[writing.rows(kind), writing.rows("track")].all()
        )
    alone = EventWriting(2, Values()).follow()[1]
    assert alone[EventWriting(2, Values()).symbol("place"), 1 : KEYS + 1].all()


def test_a_walker_forbids_what_is_no_piece():
    values = Values(metres=((4, 4), (2, 4)), tracks=2, programs=(0, 128), drums=(36,))
    writing, walker = EventWriting(2, values), None
    symbol = writing.symbol
    walker = writing.walker()
    head = (symbol("metre", 1), symbol("tempo"), symbol("program", 0))
    assert walker.allowed(head)[writing.rows("program")].all()
    assert not walker.allowed((*head, symbol("program", 1)))[writing.rows("program")].any()
    assert walker.allowed(head[:1])[writing.rows("place")].tolist() == [True] * 4 + [False] * 4
    walker.read((*head, symbol("program", 1), symbol("place", 1)))
    assert walker.allowed(())[writing.rows("place")].tolist() == [False, True, True, True] + [False] * 4
    one, two = symbol("track"), symbol("track", 1)
    place = symbol("place", 1)
    assert not walker.allowed((place, one))[writing.rows("drum")].any() and walker.allowed((place, one))[1:89].all()
    assert not walker.allowed((place, two))[1:89].any() and walker.allowed((place, two))[writing.rows("drum")].all()
    assert walker.allowed((place, one, 40, symbol("quarters")))[writing.rows("track")].tolist() == [False, True]
    walker.read((place, one, 40, symbol("quarters")))
    assert walker.allowed(())[writing.rows("place")].tolist() == [False, False, True, True] + [False] * 4
    bars = (symbol("bar"), symbol("metre", 1), symbol("bar"), symbol("metre", 0))
    assert walker.allowed(bars)[writing.rows("place")].all()
    assert not walker.allowed(bars[:2])[writing.rows("place")][4:].any()
    walker.stops = False
    assert not walker.allowed(())[writing.rows("stop")].any()


@pytest.mark.parametrize("semitones", [-6, -1, 0, 2, 5])
def test_transposed_symbols_are_those_of_the_transposed_piece(semitones):
    tracks = (Track(), Track(drums=True))
    for sharps, mode in ((0, "major"), (-7, "major"), (7, "minor"), (-6, "dorian")):
        piece = Piece(notes_of([(0, 1, 60, 80, 0), (0, 1, 66, 80, 0), (1, 1, 40, 80, 1)]), 2, tracks=tracks)
        keyed = Piece(piece.notes, 2, tracks=tracks, keys=(Key(0, sharps, mode),))
        writing = EventWriting(2, Values.of([keyed]).in_all_keys())
        table, found = writing.moved(semitones), writing.moments(keyed)[0]
        moved = [tuple(table[s] for s in moment) for moment in found]
        assert moved[1:] == writing.moments(keyed.transposed(semitones))[0][1:]
        key = writing.piece(moved).keys[0]
        assert key.mode == mode and (key.sharps - sharps - 7 * semitones) % 12 == 0
        assert -5 <= key.sharps <= 6 if semitones else key.sharps == sharps
    assert table[len(writing.names)] == len(writing.names)


# -- events: what is told apart


def test_values_that_are_not_there_are_taken_for_the_nearest():
    values = Values(((2, 4), (4, 4), (9, 8)), (), (60.0, 120.0), (10, 100), programs=(0, 40, 128), drums=(36, 50))
    assert [values.metre(Metre(0, *m)) for m in ((4, 4), (3, 8), (2, 2), (5, 4))] == [1, 0, 1, 2]
    assert [values.tempo(q) for q in (10, 80, 100)] == [0, 0, 1]
    assert [values.velocity(v) for v in (1, 54, 127)] == [0, 0, 1]
    # what is played on pitches is never taken for drums
    assert [values.program(p) for p in (5, 30, 127, 128)] == [0, 1, 1, 2]
    assert [values.drum(p) for p in (21, 44, 80)] == [0, 1, 1]
    loud = Piece(notes_of([(0, 2, 60, 80, 0), (2, 2, 61, 81, 1)]), 2, tracks=(Track(program=120), Track(drums=True)))
    writing = EventWriting(2, Values(programs=(0, 128), drums=(61,), tracks=2))
    moments, places = writing.moments(loud)
    assert [t.drums for t in writing.piece(moments).tracks] == [False, True]
    walked(writing, moments, places)


def test_of_many_values_the_quantiles_are_left_and_it_is_said():
    rows = [(i, 1, 60 + i % 3, 1 + i % 127, 0) for i in range(127 * 3)]
    values, said = said_of(Values.of, [Piece(notes_of(rows), 2)])
    assert said == ["127 velocities are told apart as 32"]
    assert len(values.velocities) == MOST and list(values.velocities) == sorted(set(values.velocities))
    assert max(abs(values.velocities[values.velocity(v)] - v) for v in range(1, 128)) <= 2


def test_tracks_beyond_those_of_training_go_to_the_last_of_their_kind():
    tracks = (Track(), Track(program=3), Track(drums=True), Track(program=9))
    piece = Piece(notes_of([(i, 1, 60 + i, 80, i) for i in range(4)]), 2, "x", tracks=tracks)
    found, said = said_of(in_tracks, piece, Values(tracks=2))
    assert found.notes["track"].tolist() == [0, 1, 1] and found.notes["pitch"].tolist() == [60, 61, 63]
    assert said == ["x: 1 notes of drums that training had none of are left out"]
    assert [t.program for t in found.tracks] == [0, 3]
    found, said = said_of(in_tracks, piece, Values(tracks=4, drums=(62,)))
    assert said == [] and found.notes["track"].tolist() == [0, 1, 2, 3]
    found, said = said_of(in_tracks, piece, Values(tracks=3, drums=(62,)))
    assert said == [] and found.notes["track"].tolist() == [0, 1, 2, 1]
    # tracks without a note count for nothing
    empty = Piece(notes_of([(0, 1, 60, 80, 2)]), 2, tracks=(Track(), Track(), Track(program=3)))
    assert said_of(in_tracks, empty, Values())[0].tracks == (Track(program=3),)
    assert Values.of([empty]).tracks == 1 and Values.of([empty]).programs == (3,)


def test_the_grid_is_the_coarsest_that_fits():
    def of(starts, resolution):
        return Piece(notes_of([(s, 1, 60, 80, 0) for s in starts]), resolution)

    assert grid_of([of(range(0, 96, 12), 24)]) == 2
    assert grid_of([of(range(0, 96, 8), 24)]) == 6
    assert grid_of([of(range(0, 96, 6), 24)]) == 4
    assert grid_of([of([*range(0, 24 * 98, 24), 1, 5], 24)]) == 2  # 98 of 100
    assert grid_of([of([*range(0, 24 * 97, 24), 1, 5, 7], 24)]) == 24
    assert grid_of([of([1, 3, 7, 11, 13], 480)]) == 48


def test_notes_on_the_grid():
    def of(*rows):
        return Piece(notes_of(rows), 10, "x")

    def grid(*rows):
        return [tuple(row)[:3] for row in on_grid(of(*rows), 2).tolist()]

    assert grid((4, 1, 60, 80, 0), (11, 12, 61, 80, 0)) == [(1, 1, 60), (2, 3, 61)]
    assert grid((0, 20, 60, 80, 0), (10, 5, 60, 80, 0)) == [(0, 2, 60), (2, 1, 60)]  # struck again
    assert grid((0, 20, 60, 80, 0), (1, 5, 60, 80, 0)) == [(0, 4, 60)]  # the longer stays
    assert grid((0, 20, 60, 80, 0), (10, 5, 60, 80, 1)) == [(0, 4, 60), (2, 1, 60)]
    found, said = said_of(on_grid, of((0, 659, 60, 80, 0), (0, 640, 61, 80, 0)), 2)
    assert said == ["x: 1 notes of over 64 quarter notes are cut to that"] or said == []
    found, said = said_of(on_grid, of((0, 900, 60, 80, 0), (0, 640, 61, 80, 0)), 2)
    assert found["duration"].tolist() == [129, 128]
    assert said == ["x: 1 notes of over 64 quarter notes are cut to that"]


def test_keys_have_the_names_that_musicians_give_them():
    named = {"c": (0, "major"), "f#": (6, "major"), "cb": (-7, "major"), "c#": (7, "major"), "a minor": (0, "minor")}
    named |= {"bb minor": (-5, "minor"), "d dorian": (0, "dorian"), "g mixolydian": (0, "mixolydian")}
    named |= {"a mixolydian": (2, "mixolydian"), "e phrygian": (0, "phrygian")}
    named |= {"b locrian": (0, "locrian"), "f lydian": (0, "lydian")}
    assert {key_of(*key): key for key in named.values()} == named
    values = Values(keys=((0, "major"), (1, "minor"))).in_all_keys()
    assert len(values.keys) == 24 == len({key_of(*key) for key in values.keys})
    assert [key_name(p) for p in (21, 60, 69, 108)] == ["A0", "C4", "A4", "C8"]


# -- frames


@settings(deadline=None)
@given(
    st.lists(st.sets(st.integers(21, 108), max_size=6).map(sorted), min_size=1, max_size=40), st.sampled_from([1, 4])
)
@example([[], []], 1)
def test_frames_come_back(frames, grid):
    writing = FrameWriting(grid)
    moments, places = writing.moments(of_frames(frames, resolution=grid))
    assert frames_of(writing.piece(moments)) == frames
    assert [[s - 1 + LOWEST for s in moment] for moment in moments] == frames
    assert writing.bars(moments) == [t // (4 * grid) for t in range(len(frames))]
    walker = walked(writing, moments, places)
    assert walker.steps == len(frames) and walker.passed(()) == len(frames) // (4 * grid)
    assert walker.seconds == pytest.approx((len(frames) - 1) * 0.6 / grid) and walker.line_of(3) == 12 * grid
    assert writing.called(moments[0]) == (" ".join(map(key_name, frames[0])) or "silence")


@settings(deadline=None, max_examples=60)
@given(pieces(), st.sampled_from([1, 3, 4]))
def test_a_frame_holds_what_sounds_at_its_beginning(made, rate):
    piece, _ = made
    pitched = [i for i, track in enumerate(piece.tracks) if not track.drums]
    found, said = said_of(FrameWriting(rate).moments, piece)
    drums = sum(note["track"] not in pitched for note in piece.notes)
    assert said == ([f": {drums} notes of drums, which frames do not hold, are left out"] if drums else [])
    notes = [tuple(int(x) for x in note) for note in piece.notes if note["track"] in pitched]
    end = max((start + length for start, length, *_ in notes), default=0)
    expected = [
        tuple(sorted({p - 20 for s, d, p, *_ in notes if s * rate <= t * piece.resolution < (s + d) * rate}))
        for t in range(math.ceil(end * rate / piece.resolution))
    ]
    assert found[0] == expected


def test_a_key_outside_the_piano_is_named():
    with pytest.raises(UserError, match=r"^x: frame 1: key 110 is none of a piano's, 21 to 108; take it out$"):
        FrameWriting().moments(of_frames([[60], [60, 110]], "x"))
    with pytest.raises(UserError, match=r"^--key: this model was not told the keys"):
        FrameWriting().in_key("c")


# -- real files


@needs_data
def test_every_real_midi_comes_back():
    pytest.importorskip("symusic")
    checked = 0
    for path in sorted((DATA / "midi").glob("*.mid")):
        if path.name.startswith(("empty", "ValueError")):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            piece = read_pieces(path)[0]
            grid, values = grid_of([piece]), Values.of([piece])
            writing, moments, places, _, _ = check_events(piece, grid, values)
        walked(writing, moments[:100], places[:100])
        checked += 1
    assert checked == 16


@needs_data
@pytest.mark.parametrize("name", ["oneills", "ryans-mammoth", "airds"])
def test_real_tunes_come_back(name):
    """Every eighth tune of a collection, and of these every fifth symbol by symbol."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tunes = read_pieces(DATA / "abc" / f"{name}.abc")[::8]
        grid, values = grid_of(tunes), Values.of(tunes).in_all_keys()
        for number, tune in enumerate(tunes):
            writing, moments, places, _, _ = check_events(tune, grid, values)
            if number % 5 == 0:
                walked(writing, moments, places)
    assert len(tunes) > 130


@needs_data
def test_every_real_chorale_comes_back():
    for name, grid in (("jsb-chorales-quarter", 1), ("Jsb16thSeparated", 4)):
        chorales = read_pieces(DATA / "jsb" / f"{name}.json")
        writing = FrameWriting(grid)
        for number, chorale in enumerate(chorales):
            moments, places = writing.moments(chorale)
            assert frames_of(writing.piece(moments)) == frames_of(chorale)
            if number % 20 == 0:
                walked(writing, moments, places)
        if grid == 4:
            values = Values.of(chorales)
            for number, chorale in enumerate(chorales[::8]):
                written = check_events(chorale, grid, values)
                if number % 8 == 0:
                    walked(*written[:3])
    assert len(chorales) == 382
