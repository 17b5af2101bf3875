"""MIDI files to the tick and back, what is settled in them, and what is said of those that are broken."""

import os
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throughtime.errors import UserError
from throughtime.tasks.midi import midi_bytes, read_midi, write_midi
from throughtime.tasks.pieces import NOTE, Key, Metre, Piece, Tempo, Track, apart, notes_of

pytest.importorskip("symusic")
DATA = Path(os.environ.get("THROUGHTIME_DATA", Path(__file__).parents[2] / "shared" / "data")) / "music" / "midi"
REAL = sorted(path for path in DATA.glob("*.mid") if path.name not in ("empty.mid", "ValueError_Control168.mid"))
needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"no {DATA}; THROUGHTIME_DATA names the data")

# -- a parser of our own: the events of a file as they stand there


def number(data, at):
    """A number of variable length, and where it ends."""
    value = 0
    while True:
        value, at = value << 7 | data[at] & 127, at + 1
        if data[at - 1] < 128:
            return value, at


def events(data):
    """For each track the events: tick, status (of meta events 0xFF), data."""
    assert data[:8] == b"MThd\0\0\0\6"
    assert int.from_bytes(data[8:10], "big") in (0, 1)
    tracks, at = [], 14
    while at < len(data):
        assert data[at : at + 4] == b"MTrk"
        end, at = at + 8 + int.from_bytes(data[at + 4 : at + 8], "big"), at + 8
        found, tick, status = [], 0, None
        while at < end:
            delta, at = number(data, at)
            tick += delta
            if data[at] >= 128:
                status, at = data[at], at + 1
            if status in (0xFF, 0xF0, 0xF7):
                kind, at = (data[at : at + 1], at + 1) if status == 0xFF else (b"", at)
                length, at = number(data, at)
                found.append((tick, status, kind + data[at : at + length]))
            else:
                length = 1 if 0xC0 <= status < 0xE0 else 2
                found.append((tick, status, data[at : at + length]))
            at += length
        assert at == end
        assert found[-1][1:] == (0xFF, b"\x2f")
        tracks.append(found)
    assert len(tracks) == int.from_bytes(data[10:12], "big")
    return tracks


def struck(data):
    """The notes of a file, (track, channel, key) -> [(start, end, velocity)], each key released before it is struck again."""
    notes = {}
    for number, track in enumerate(events(data)):
        sounding = {}
        for tick, status, values in track:
            where = number, status & 15, values[0]
            if status >> 4 == 9 and values[1]:
                assert where not in sounding, f"{where} is struck at {tick}, and sounds"
                sounding[where] = tick, values[1]
            elif status >> 4 in (8, 9):
                start, velocity = sounding.pop(where)
                assert tick > start
                notes.setdefault(where, []).append((start, tick, velocity))
        assert not sounding, f"hangs: {sounding}"
    return notes


def made(*tracks, kind=1, division=480, count=None):
    """A file of tracks of (delta, event)."""
    data = b"MThd\0\0\0\6" + b"".join(
        n.to_bytes(2, "big") for n in (kind, len(tracks) if count is None else count, division)
    )
    for track in tracks:
        body = b"".join(variable(delta) + event for delta, event in [*track, (0, b"\xff\x2f\0")])
        data += b"MTrk" + len(body).to_bytes(4, "big") + body
    return data


def variable(value):
    found = bytes([value & 127])
    while value := value >> 7:
        found = bytes([value & 127 | 128]) + found
    return found


def on(key, velocity=64, channel=0):
    return bytes([0x90 | channel, key, velocity])


def off(key, channel=0):
    return bytes([0x80 | channel, key, 0])


def read(data):
    """A piece, and what was said."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        piece = read_midi(data, "x.mid" if isinstance(data, bytes) else None)
    return piece, [str(one.message) for one in said]


def refused(data):
    with pytest.raises(UserError) as error:
        read_midi(data, "x.mid")
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("x.mid: ")
    return str(error.value)


def rows(piece):
    return [tuple(note) for note in piece.notes.tolist()]


def same(one, other):
    assert rows(one) == rows(other)
    for name in ("resolution", "tracks", "tempos", "metres", "keys", "upbeat"):
        assert getattr(one, name) == getattr(other, name), name


# -- real files


@needs_data
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_real_files_come_back_to_the_tick_and_no_note_hangs(path):
    piece, _ = read(path)
    written = midi_bytes(piece)
    again, said = read(written)
    same(piece, again)
    assert said == []
    heard = Counter(
        (start, end - start, key, velocity)
        for (_, _, key), notes in struck(written).items()
        for start, end, velocity in notes
    )
    assert heard == Counter(row[:4] for row in rows(piece))


@needs_data
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_real_files_are_read_as_they_stand(path):
    """Every key that is struck begins a note there, and it ends where as many releases have come as it was struck."""
    piece, _ = read(path)
    strikes = {
        (tick, values[0])
        for track in events(path.read_bytes())
        for tick, status, values in track
        if status >> 4 == 9 and values[1]
    }
    assert {(start, key) for start, _, key, _, _ in rows(piece)} == strikes
    ends = {
        (tick, values[0])
        for track in events(path.read_bytes())
        for tick, status, values in track
        if status >> 4 == 8 or (status >> 4 == 9 and not values[1])
    }
    again = strikes | ends
    assert all((start + duration, key) in again for start, duration, key, _, _ in rows(piece))


@needs_data
def test_what_real_files_say_of_themselves():
    found = {path.name: read(path) for path in REAL}
    assert sum(len(piece) for piece, _ in found.values()) == 111_091
    waltz, said = found["6354774_Macabre Waltz.mid"]
    assert waltz.metres[:3] == (Metre(0, 3, 4), Metre(54720, 4, 4), Metre(56640, 3, 4))
    assert waltz.keys == (Key(0, -4),)
    assert said == [f"{waltz.place}: notes left out for a longer one of their key, struck at once: 1"]
    piano, said = found["Maestro_1.mid"]
    assert (piano.resolution, piano.tempos, len(piano)) == (384, (Tempo(0, 120.0),), 2367)
    held = "presses of the sustain pedal not taken in (notes last as long as their keys are held)"
    assert said == [f"{piano.place}: {held}: 242"]
    assert found["POP909_022.mid"][0].tracks == (Track("MELODY / BRIDGE / PIANO"),)


# -- what is settled

OUTSIDE = "notes left out that are on no key of a piano, 21 to 108: 1"


@pytest.mark.parametrize(
    ("events", "notes", "said"),
    [
        ([(0, on(60)), (10, off(60))], [(0, 10)], None),
        ([(0, on(60)), (10, on(60, 0))], [(0, 10)], None),
        ([(0, on(60)), (10, off(60)), (0, on(60)), (5, off(60))], [(0, 10), (10, 5)], None),
        ([(0, on(60)), (10, on(60)), (0, off(60)), (5, off(60))], [(0, 10), (10, 5)], None),
        (
            [(0, on(60)), (10, on(60)), (5, off(60)), (5, off(60))],
            [(0, 10), (10, 10)],
            "notes cut where their key is struck again: 1",
        ),
        (
            [(0, on(60, 50)), (0, on(60, 70)), (5, off(60)), (5, off(60))],
            [(0, 10)],
            "notes left out for a longer one of their key, struck at once: 1",
        ),
        ([(0, on(60)), (0, off(60))], [(0, 1)], "notes without duration, which are given a tick: 1"),
        (
            [(0, on(60)), (0, off(60)), (10, on(60)), (5, off(60))],
            [(0, 1), (10, 5)],
            "notes without duration, which are given a tick: 1",
        ),
        ([(0, on(62)), (10, off(62)), (5, on(60))], [(0, 10)], "notes left out that never end: 1"),
        ([(0, on(60)), (10, on(60)), (10, off(60)), (10, on(60)), (5, off(60))], [(0, 10), (10, 10), (30, 5)], None),
        ([(0, on(60)), (5, off(60)), (5, off(60))], [(0, 5)], None),
        (
            [(0, on(20)), (0, on(60)), (5, off(20)), (0, off(60))],
            [(0, 5)],
            OUTSIDE,
        ),
        (
            [
                (0, on(60)),
                (0, b"\xff\x51\3\0\0\0"),
                (0, b"\xff\x58\4\0\2\x18\x08"),
                (0, b"\xff\x59\2\x09\0"),
                (5, off(60)),
            ],
            [(0, 5)],
            "tempos, metres or keys left out that cannot be: 3",
        ),
        (
            [(0, on(60)), (1, b"\xb0\x40\x7f"), (5, off(60)), (1, b"\xb0\x40\0")],
            [(0, 6)],
            "presses of the sustain pedal not taken in (notes last as long as their keys are held): 1",
        ),
    ],
)
def test_what_no_instrument_can_play_is_settled_and_said(events, notes, said):
    piece, told = read(made(events))
    assert [(start, duration) for start, duration, *_ in rows(piece)] == notes
    assert told == ([] if said is None else [f"x.mid: {said}"])


def test_tracks_are_what_a_channel_plays_with_a_program():
    """Of type 0, where all stands in one track, and of type 1."""
    one = [
        (0, b"\xff\x03\3duo"),
        (0, b"\xc0\x05"),
        (0, on(60)),
        (0, on(64, channel=1)),
        (0, on(36, channel=9)),
        (9, off(60)),
        (0, off(64, 1)),
        (0, off(36, 9)),
    ]
    for kind in (0, 1):
        piece, said = read(made(one, kind=kind))
        assert piece.tracks == (Track("duo", 5), Track("duo", 0), Track("duo", 0, True))
        assert [note[2:] for note in rows(piece)] == [(60, 64, 0), (64, 64, 1), (36, 64, 2)]
        assert said == []
        assert piece.place == "x.mid"


def test_changes_at_a_tick_count_once_and_an_upbeat_is_one():
    metre = [b"\xff\x58\4" + bytes([beats, 2, 24, 8]) for beats in (3, 1, 4)]
    tempo = [b"\xff\x51\3" + n.to_bytes(3, "big") for n in (500_000, 600_000)]
    key = b"\xff\x59\2\xfe\1"
    body = [
        (0, metre[0]),
        (0, metre[1]),
        (0, tempo[0]),
        (0, tempo[1]),
        (0, key),
        (0, on(60)),
        (480, metre[2]),
        (0, off(60)),
    ]
    piece, said = read(made(body))
    assert (piece.upbeat, piece.metres) == (480, (Metre(0, 4, 4),))
    assert (piece.tempos, piece.keys, said) == ((Tempo(0, 100.0),), (Key(0, -2, "minor"),), [])
    piece, _ = read(
        made([(0, metre[2]), *body[5:6], (480, metre[0]), (0, off(60))])
    )  # a bar of four, broken off: no upbeat
    assert (piece.upbeat, piece.metres) == (0, (Metre(0, 4, 4), Metre(480, 3, 4)))


def test_each_track_has_a_channel_and_drums_theirs():
    tracks = tuple(Track(f"n{i}", i, drums=i == 3) for i in range(15))
    piece = Piece(notes_of([(0, 10, 60, 80, i) for i in range(15)]), 480, tracks=tracks)
    channels = [channel for (_, channel, _) in struck(midi_bytes(piece))]
    assert len(set(channels)) == 15
    assert channels[3] == 9
    for _, status, values in (event for track in events(midi_bytes(piece, program=7)) for event in track):
        if status >> 4 == 0xC:
            assert values == bytes([3 if status & 15 == 9 else 7])
    wide = Piece(
        notes_of([(0, 10, 60, 80, i) for i in range(16)]), 480, tracks=tuple(Track(program=i) for i in range(16))
    )
    with pytest.warns(UserWarning, match="of 16 tracks those from number 16 on share a channel"):
        same(read_midi(midi_bytes(wide)), wide)


# -- made pieces


TRACKS = st.builds(Track, st.text("äab Ω1", max_size=3).map(str.strip), st.integers(0, 127), st.booleans())


@st.composite
def pieces(draw):
    tracks = draw(st.lists(TRACKS, min_size=1, max_size=4))
    pitched = [i for i, track in enumerate(tracks) if not track.drums]
    if not pitched:
        tracks[0] = tracks[0]._replace(drums=False)
    note = st.tuples(st.integers(0, 300), st.integers(1, 90), st.integers(21, 108), st.integers(1, 127))
    drawn = [(*draw(note), i) for i in range(len(tracks))]
    drawn += [(*one, draw(st.integers(0, len(tracks) - 1))) for one in draw(st.lists(note, max_size=40))]
    notes, _, _ = apart(notes_of(drawn))
    ticks = st.lists(st.integers(0, 300), max_size=4, unique=True).map(sorted)
    tempos = tuple(Tempo(tick, 60e6 / draw(st.integers(1, (1 << 24) - 1))) for tick in draw(ticks))
    keys = tuple(Key(tick, draw(st.integers(-7, 7)), draw(st.sampled_from(["major", "minor"]))) for tick in draw(ticks))
    resolution = draw(st.integers(1, 32767))
    metres, upbeat = (), 0
    if draw(st.booleans()):
        upbeat = draw(st.integers(0, 3)) * resolution
        metre = st.builds(Metre, st.just(upbeat + 8 * resolution), st.integers(1, 255), st.sampled_from([1, 2, 8, 128]))
        metres = (Metre(0, 4, 4), *draw(st.lists(metre, max_size=1)))
    return Piece(notes, resolution, "", "", tuple(tracks), tempos, metres, keys, upbeat)


@settings(max_examples=200, deadline=None)
@given(pieces())
def test_made_pieces_come_back_to_the_tick(piece):
    data = midi_bytes(piece)
    struck(data)
    again, said = read(data)
    same(piece, again)
    assert said == []


SAMPLED = st.tuples(st.integers(0, 20), st.integers(1, 20), st.integers(60, 62), st.integers(1, 127), st.just(0))


@settings(max_examples=100, deadline=None)
@given(st.lists(SAMPLED, min_size=1))
def test_no_note_hangs_however_they_overlap(drawn):
    """Notes as a network may sample them: one key struck while it sounds, or twice at once."""
    piece = Piece(notes_of(drawn), 24)
    again, said = read(midi_bytes(piece))
    struck(midi_bytes(piece))
    assert said == []
    assert {row[:1] + row[2:3] for row in rows(again)} == {(start, key) for start, _, key, _, _ in drawn}


# -- what is refused

UNWRITTEN = "piece: note 1 cannot be written: start 0, duration {}, pitch 60, velocity {}, track {}"

SONG = made([(0, on(60)), (10, off(60))])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty; copy it again, or take it out"),
        (b"Once upon a time", "is no MIDI file: it begins with b'Once upo', not with b'MThd'; name a MIDI file"),
        (SONG[:11], "is cut off within its first 11 bytes; copy it again"),
        (SONG[:-5], "is damaged or cut off: from byte 14 on it is to hold 12, and holds 7; copy it again"),
        (SONG[:17], "is damaged or cut off: from byte 14 on it is to hold 0, and holds 0; copy it again"),
        (made([], [], count=3), "is cut off: it says that it has 3 tracks, and has 2; copy it again"),
        (made([], kind=2), "is of type 2, of several patterns; save it as type 1 by a sequencer"),
        (made([], division=0), "its ticks are no parts of a quarter note; save it so by a sequencer"),
        (made([], division=0xE728), "its ticks are no parts of a quarter note; save it so by a sequencer"),
        (made([]), "holds no note; take it out"),
        (made([(0, on(60))]), "holds no note; take it out"),
        (made([(0, on(60, 200)), (5, off(60))]), "is damaged: velocity is 200; copy it again, or take it out"),
        (made([(0, on(36, channel=9)), (5, off(36, 9))]), "has drums alone; pitches are what is learned: take it out"),
        (
            made([(0, on(109)), (5, off(109))]),
            "no note is on a key of a piano, 21 to 108 (the first is 109); move it by octaves, or take it out",
        ),
        (
            made([*[((1 << 28) - 1, b"\xff\1\0")] * 3, (0, on(60)), (5, off(60))]),
            "is damaged: it lasts more than 134,217,728 ticks; copy it again, or take it out",
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_line(data, message):
    assert refused(data) == f"x.mid: {message}"


def test_more_tracks_than_a_piece_has_are_refused():
    track = [(i % 128 // 127, event) for i in range(257) for event in (b"\xc0" + bytes([i % 128]), on(60), off(60))]
    data = made(track, track, [(0, on(60)), (5, off(60))])
    assert refused(data) == "x.mid: has 257 tracks, channels and programs; it takes 256: save it with fewer"


def test_what_follows_the_tracks_is_no_music_and_strange_chunks_are_left_out():
    strange = b"XFIH\0\0\0\2ab"
    for data in (SONG + b"\0\0", SONG[:14] + strange + SONG[14:], SONG + strange):
        same(read(data)[0], read(SONG)[0])
    assert len(read(SONG + SONG[14:])[0]) == 2  # more tracks than it says


@needs_data
def test_damaged_real_files():
    assert refused((DATA / "empty.mid").read_bytes()) == "x.mid: holds no note; take it out"
    said = "x.mid: is damaged: control value is 168; copy it again, or take it out"
    assert refused((DATA / "ValueError_Control168.mid").read_bytes()) == said
    with pytest.raises(UserError, match=r"nowhere\.mid: cannot read it: No such file"):
        read_midi(DATA / "nowhere.mid")


@needs_data
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_file_cut_anywhere_is_refused(data):
    whole = data.draw(st.sampled_from(REAL)).read_bytes()
    refused(whole[: data.draw(st.integers(0, 60) | st.integers(0, len(whole) - 1))])


@needs_data
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_bytes_are_changed_it_is_refused_or_a_piece(data):
    """None may end the process, write to the terminal, or give notes that cannot be."""
    broken = bytearray(data.draw(st.sampled_from([path for path in REAL if path.stat().st_size < 13_000])).read_bytes())
    place = st.integers(0, 60) | st.integers(0, len(broken) - 1)
    for at, value in data.draw(st.lists(st.tuples(place, st.integers(0, 255)), min_size=1, max_size=20)):
        broken[at] = value
    try:
        piece, _ = read(bytes(broken))
    except UserError:
        refused(bytes(broken))
    else:
        struck(midi_bytes(piece))
        same(piece, read(midi_bytes(piece))[0])


@needs_data
def test_nothing_is_written_to_the_terminal():
    """By what is in C++ either."""
    script = """
import sys, warnings
from pathlib import Path
from throughtime.tasks.midi import UserError, read_midi
warnings.simplefilter("ignore")
data = Path(sys.argv[1]).read_bytes()
for at in range(0, len(data), 7):
    for broken in (data[:at], data[:at] + b"\\xff" + data[at + 1 :], data[:at] + data[at + 9 :]):
        try:
            read_midi(broken)
        except UserError:
            pass
"""
    done = subprocess.run([sys.executable, "-c", script, REAL[0]], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"notes": np.zeros(0, NOTE)}, "piece: holds no note; nothing is written"),
        (
            {"notes": notes_of([(0, 5, 60, 0, 0)])},
            UNWRITTEN.format(5, 0, 0),
        ),
        (
            {"notes": notes_of([(0, 0, 60, 9, 0)])},
            UNWRITTEN.format(0, 9, 0),
        ),
        (
            {"notes": notes_of([(0, 5, 60, 9, 1)])},
            UNWRITTEN.format(5, 9, 1),
        ),
        (
            {"resolution": 40000},
            "piece: lasts 5 ticks, of which a quarter note has 40,000; MIDI takes 134,217,727, and 32,767",
        ),
        ({"tempos": (Tempo(0, 3.0),)}, "piece: a tempo is beyond what MIDI can say; mend it"),
        ({"metres": (Metre(0, 3, 5),)}, "piece: a metre is beyond what MIDI can say; mend it"),
        ({"keys": (Key(0, 8),)}, "piece: a key is beyond what MIDI can say; mend it"),
        ({"tracks": (Track("", 128),)}, "piece: a program is beyond what MIDI can say; mend it"),
    ],
)
def test_what_midi_cannot_say_is_not_written(changed, message, tmp_path):
    piece = Piece(**{"notes": notes_of([(0, 5, 60, 9, 0)]), "resolution": 480, **changed})
    with pytest.raises(UserError) as error:
        write_midi(piece, tmp_path / "x.mid")
    assert str(error.value) == message
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_written_whole_and_none_is_lost(tmp_path):
    piece = Piece(notes_of([(0, 5, 60, 9, 0)]), 480)
    write_midi(piece, tmp_path / "x.mid")
    same(read(tmp_path / "x.mid")[0], piece)
    with pytest.raises(UserError, match="is there already"):
        write_midi(piece.transposed(2), tmp_path / "x.mid")
    same(read(tmp_path / "x.mid")[0], piece)
    write_midi(piece.transposed(2), tmp_path / "x.mid", overwrite=True)
    assert rows(read(tmp_path / "x.mid")[0])[0][2] == 62
    with pytest.raises(UserError, match="program: got 128; General MIDI has 0 to 127"):
        midi_bytes(piece, program=128)


def test_an_upbeat_that_is_no_bar_is_said():
    piece = Piece(notes_of([(0, 5, 60, 9, 0)]), 7, metres=(Metre(0, 4, 4),), upbeat=5)
    with pytest.warns(UserWarning, match="the upbeat of 5 ticks is no bar that MIDI can name"):
        assert read_midi(midi_bytes(piece)).metres == (Metre(0, 4, 4),)


def test_without_symusic_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "symusic", None)
    with pytest.raises(UserError, match=r"pip install 'throughtime\[music\]'"):
        read_midi(SONG)
