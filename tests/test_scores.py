"""Pieces under a path, whatever files they stand in; frames and voices that come back as they are; copies that are found."""

import gzip
import io
import json
import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throughtime.config import STDIN
from throughtime.errors import UserError
from throughtime.tasks.midi import midi_bytes
from throughtime.tasks.pieces import Metre, Piece, Track, apart, groups, notes_of
from throughtime.tasks.rolls import frames_of, of_frames, of_voices, voices_of, write_rolls
from throughtime.tasks.scores import read_pieces
from throughtime.tasks.source import Source

pytest.importorskip("symusic")
DATA = Path(os.environ.get("THROUGHTIME_DATA", Path(__file__).parents[2] / "shared" / "data")) / "music"
QUARTERS, SIXTEENTHS = DATA / "jsb" / "jsb-chorales-quarter.json", DATA / "jsb" / "Jsb16thSeparated.json"
needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"no {DATA}; THROUGHTIME_DATA names the data")
SONG = Piece(notes_of([(0, 10, 60, 80, 0), (10, 5, 64, 80, 0)]), 24)
MIDI = midi_bytes(SONG)
TUNE = "X:1\nT:A tune\nM:4/4\nL:1/4\nK:C\nCDEF|]\n"


def laid(folder, files):
    """Files by their names: bytes, a text, or what is JSON there."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, list | dict):
            content = json.dumps(content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def read(given, folder="", **how):
    """The pieces, and what was said."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = read_pieces(given, **how)
    return found, [str(one.message).replace(f"{folder}/", "").replace(f"{folder}:", ":") for one in said]


def refused(given, folder="", **how):
    with pytest.raises(UserError) as error:
        read_pieces(given, **how)
    assert "\n" not in str(error.value)
    return str(error.value).replace(f"{folder}/", "").replace(f"{folder}:", ":")


def rows(piece):
    return [tuple(note) for note in piece.notes.tolist()]


# -- JSON of frames


@needs_data
@pytest.mark.parametrize(
    ("path", "back"), [(QUARTERS, frames_of), (SIXTEENTHS, lambda piece: voices_of(piece).tolist())]
)
def test_every_real_piece_gives_back_its_frames(path, back, tmp_path):
    real = json.loads(path.read_text())
    found, said = read(path)
    assert said == []
    for part, count in (("train", 229), ("valid", 76), ("test", 77)):
        assert [back(piece) for piece in found if piece.part == part] == real[part]
        assert len(read_pieces(path, part=part)) == count
    assert all(piece.sets and np.array_equal(apart(piece.notes)[0], piece.notes) for piece in found)
    write_rolls(found, tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text()) == real


@needs_data
def test_voices_are_tracks_of_notes_that_are_held():
    piece = read_pieces(SIXTEENTHS, part="train")[0]
    frames = np.array(json.loads(SIXTEENTHS.read_text())["train"][0])
    assert (piece.resolution, len(piece.tracks), piece.ticks) == (4, 4, len(frames))
    assert piece.place.endswith("Jsb16thSeparated.json: train, piece 1")
    soprano = [(start, duration, pitch) for start, duration, pitch, _, track in rows(piece) if track == 0]
    changes = np.flatnonzero(np.diff(frames[:, 0], prepend=0))
    assert soprano == [
        (int(at), int(end - at), int(frames[at, 0]))
        for at, end in zip(changes, [*changes[1:], len(frames)], strict=True)
    ]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sets(st.integers(0, 127), max_size=5).map(sorted), min_size=1, max_size=30))
def test_made_frames_come_back(frames):
    """A silent frame at the end too."""
    piece = of_frames(frames)
    assert frames_of(piece) == frames
    assert piece.ticks == len(frames)
    assert frames_of(piece.transposed(0)) == frames
    assert [tuple(note)[:3] for note in piece.notes] == [tuple(note)[:3] for note in apart(piece.notes)[0]]


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 5).flatmap(lambda n: st.lists(st.lists(st.integers(-1, 127), min_size=n, max_size=n), min_size=1))
)
def test_made_voices_come_back(voices):
    piece = of_voices(np.array(voices))
    assert voices_of(piece).tolist() == voices
    assert piece.ticks == len(voices)
    assert frames_of(piece) == [sorted({pitch for pitch in frame if pitch >= 0}) for frame in voices]


@pytest.mark.parametrize(
    ("content", "expected", "resolution"),
    [
        ([[[60, 64], [], [62]]], [[60, 64], [], [62]], 1),
        ([[[64, 60], []]], [[60, 64], []], 1),
        ([[[60.0, 64.0]]], [[60, 64]], 1),
        ([[[60, 64], [62, 65]]], [[60, 64], [62, 65]], 1),
        ([[[]], [[60]]], [[]], 1),
        ([[[60, 48], [60, 50]]], [[60, 48], [60, 50]], 4),
        ([[[60, 60]]], [[60, 60]], 4),
        ([[[48, -1], [48, 60]]], [[48, -1], [48, 60]], 4),
        ([[[48, None], [48, 60]]], [[48, -1], [48, 60]], 4),
        ({"valid": [[[48, -1.0]]]}, [[48, -1]], 4),
    ],
)
def test_sets_of_keys_and_voices_are_told_apart(content, expected, resolution, tmp_path):
    pieces, said = read(laid(tmp_path, {"x.json": content}) / "x.json")
    assert said == []
    back = frames_of(pieces[0]) if resolution == 1 else voices_of(pieces[0]).tolist()
    assert (back, pieces[0].resolution) == (expected, resolution)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "x.json: is empty; copy it again, or take it out"),
        ("[[[60], [61]", "x.json:2: not JSON: Expecting ',' delimiter"),
        ("[" * 100_000, "x.json: not JSON that can be read: maximum recursion depth exceeded"),
        ("[1" + 5000 * "0" + "]", "x.json: not JSON that can be read: Exceeds the limit (4300 digits)"),
        ("[]", "x.json: holds no piece; write one as a list of frames"),
        ({}, "x.json: holds no piece; write one as a list of frames"),
        ({"train": []}, "x.json: holds no piece; write one as a list of frames"),
        ("3", "x.json: got 3; it takes a list of pieces"),
        ({"train": 3}, "x.json: train: got 3; it takes a list of pieces"),
        ({"dev": [[[60]]]}, "x.json: has a part 'dev'; pieces are a list, or divided into train, valid, test"),
        ([[60, 62]], "x.json: piece 1, frame 1: got 60; a frame is a list of MIDI pitches, perhaps empty"),
        ([[[60]], []], "x.json: piece 2: got no frame; a piece is a list of frames, each a list of MIDI pitches"),
        ([[[60]], "C"], 'x.json: piece 2: got "C"; a piece is a list of frames, each a list of MIDI pitches'),
        (
            {"train": [[[60]]], "test": [[[60], ["C4"]]]},
            'x.json: test, piece 1, frame 2: got "C4"; a pitch is a whole number from 0 to 127',
        ),
        ([[[60], [128]]], "x.json: piece 1, frame 2: got 128; a pitch is a whole number from 0 to 127"),
        ([[[60, -2]]], "x.json: piece 1, frame 1: got -2; a pitch is a whole number from 0 to 127"),
        ([[[60, 0.5]]], "x.json: piece 1, frame 1: got 0.5; a pitch is a whole number from 0 to 127"),
        ([[[60, True]]], "x.json: piece 1, frame 1: got true; a pitch is a whole number from 0 to 127"),
        ("[[[NaN]]]", "x.json: piece 1, frame 1: got NaN; a pitch is a whole number from 0 to 127"),
        (
            "[[[1" + 400 * "0" + "]]]",
            f"x.json: piece 1, frame 1: got 1{39 * '0'}; a pitch is a whole number from 0 to 127",
        ),
        (
            [[[60, 62], [-1]]],
            "x.json: piece 1, frame 2: -1 or null is the silence of a voice, and other frames have another number of voices; "
            "write silence as an empty list",
        ),
        (
            [[[12]]],
            "x.json: piece 1: no note is on a key of a piano, 21 to 108 (the first is 12); move it by octaves, or take it out",
        ),
    ],
)
def test_frames_that_are_none_are_named(content, message, tmp_path):
    assert refused(laid(tmp_path, {"x.json": content}) / "x.json", tmp_path).startswith(message)


def test_a_file_of_frames_is_written_whole(tmp_path):
    keys, voices = of_frames([[60], [], [60, 64], []]), of_voices(np.array([[60, -1], [60, 48]]))
    write_rolls([keys, keys], tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text()) == [[[60], [], [60, 64], []]] * 2
    with pytest.raises(UserError, match="is there already"):
        write_rolls([voices], tmp_path / "x.json")
    write_rolls([voices], tmp_path / "x.json", overwrite=True)
    assert [voices_of(piece).tolist() for piece in read_pieces(tmp_path / "x.json")] == [[[60, -1], [60, 48]]]
    with pytest.raises(UserError, match="the pieces have 1 and 2 voices; write those of each to a file of their own"):
        write_rolls([keys, voices], tmp_path / "y.json")
    with pytest.raises(UserError, match="there is no piece to write"):
        write_rolls([], tmp_path / "y.json")
    chord = Piece(notes_of([(0, 4, 60, 80, 0), (2, 4, 64, 80, 0)]), 4, "x", tracks=(Track(), Track()))
    with pytest.raises(UserError, match="x: voice 1 has two notes at tick 2; a voice has one"):
        write_rolls([chord], tmp_path / "y.json")
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


# -- files and folders


@pytest.mark.parametrize(
    ("name", "content", "count"),
    [
        ("a.mid", MIDI, 1),
        ("a.MIDI", MIDI, 1),
        ("a.kar", MIDI, 1),
        ("a.mid.gz", gzip.compress(MIDI, mtime=0), 1),
        ("tune", MIDI, 1),  # by how it begins
        ("frames", "[[[60]], [[62]]]", 2),
        ("frames.txt", '{"train": [[[60]]]}', 1),
        ("a.json.gz", gzip.compress(b"[[[60]]]", mtime=0), 1),
        ("a.json", "\ufeff[[[60]]]", 1),
    ],
)
def test_what_a_file_is_is_told_by_how_it_begins_and_by_its_name(name, content, count, tmp_path):
    pieces, said = read(laid(tmp_path, {name: content}) / name)
    assert (len(pieces), said) == (count, [])
    assert all(piece.place.startswith(str(tmp_path / name)) for piece in pieces)
    assert pieces[0].notes["pitch"][0] == 60


@pytest.mark.parametrize("name", ["a.abc", "a.txt", "a", "a.ABC.gz"])
def test_abc_is_read_by_its_reader(name, tmp_path):
    pytest.importorskip("throughtime.tasks.abc")
    text = "\n% of my own\n" + TUNE + "\n" + TUNE.replace("C", "D")
    path = laid(tmp_path, {name: gzip.compress(text.encode(), mtime=0) if name.endswith("gz") else text}) / name
    for where in (path, tmp_path) if "." in name else (path,):
        pieces, said = read(where)
        assert ([len(piece) for piece in pieces], said) == ([4, 4], [])


def test_repeats_and_lines_in_memory_reach_the_reader_of_abc(tmp_path):
    pytest.importorskip("throughtime.tasks.abc")
    text = TUNE.replace("CDEF|]", "|:CDEF:|")
    path = laid(tmp_path, {"a.abc": text}) / "a.abc"
    assert [len(read_pieces(path, repeats=repeats)[0]) for repeats in (True, False)] == [8, 4]
    assert len(read_pieces(Source.of(text.splitlines()))[0]) == 8


@pytest.mark.parametrize(("content", "count"), [(MIDI, 1), (b"[[[60]], [[62]]]", 2)])
def test_standard_input(content, count, monkeypatch):
    class In:
        buffer = io.BytesIO(content)

    monkeypatch.setattr(sys, "stdin", In)
    pieces, said = read(Path(STDIN))
    assert (len(pieces), said) == (count, [])
    assert pieces[0].place.startswith(STDIN)


def test_a_pipe_that_gives_a_byte_at_a_time(monkeypatch):
    class Slow(io.BytesIO):
        def read1(self, _=-1):
            return super().read(1)

    class In:
        buffer = Slow(MIDI)

    monkeypatch.setattr(sys, "stdin", In)
    assert rows(read_pieces(Source.of(STDIN))[0]) == rows(SONG)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.mid", b"", "a.mid: is empty; copy it again, or take it out"),
        ("a.mid", "Once upon", "a.mid: is no MIDI file: it does not begin with MThd; name a MIDI file"),
        ("a.mid", "[[[60]]]", "a.mid: is no MIDI file: it does not begin with MThd; name a MIDI file"),
        ("a.mid.gz", gzip.compress(MIDI, mtime=0)[:-9], "a.mid.gz: is gzip, but damaged or cut off"),
        (
            "a",
            "Once upon\na time",
            "a: begins as no MIDI, ABC or JSON does; name a file of music (.mid, .midi, .kar, .abc, .json)",
        ),
        ("a.json", b"PK\3\4", "a.json: is a zip archive, not plain text; unpack it"),
        ("a.json", b"[\xff]", "a.json:1: "),
        ("b/a.mid", MIDI[:-3], "b: none of its 1 files can be read; the first: b/a.mid: is damaged or cut off"),
        (
            "b/a.png",
            b"",
            "b: holds no MIDI (.mid, .midi, .kar), no ABC (.abc), and no frames (.json); name another folder",
        ),
        ("b/SOURCE.txt", "Once upon", "b: holds no MIDI"),
        ("b/.a.mid", MIDI, "b: holds no MIDI"),
    ],
)
def test_what_is_no_music_is_named(name, content, message, tmp_path):
    given = laid(tmp_path, {name: content}) / name
    assert refused(given.parent if name.startswith("b/") else given, tmp_path).startswith(message)


def test_a_path_that_is_not_there(tmp_path):
    assert refused(tmp_path / "x.mid", tmp_path) == "x.mid: cannot read it: No such file or directory"


def test_of_a_folder_what_can_be_read_is_in_order_and_the_rest_is_told_once(tmp_path):
    high = Piece(notes_of([(0, 10, 60, 80, 0), (0, 10, 109, 80, 0)]), 24)
    files = {
        "b/2.mid": midi_bytes(SONG.transposed(2)),
        "b/1.json": [[[61]]],
        "a.mid": MIDI,
        "c.mid": midi_bytes(high),
        "d.mid": midi_bytes(high),
        "empty.mid": b"",
        "cut.kar": MIDI[:-1],
        "note.txt": "Once upon a time",
        "x.png": b"\x89PNG",
    }
    shares = []
    pieces, said = read(laid(tmp_path, files), tmp_path, advance=shares.append)
    assert [piece.place.replace(f"{tmp_path}/", "") for piece in pieces] == [
        "a.mid",
        "b/1.json: piece 1",
        "b/2.mid",
        "c.mid",
        "d.mid",
    ]
    assert [int(piece.notes["pitch"][0]) for piece in pieces] == [60, 61, 62, 60, 60]
    assert said[0].startswith("cut.kar: is damaged or cut off: ")
    assert said[0].endswith("; 2 files that cannot be read are left out")
    assert said[1:] == ["c.mid and 1 more file: notes left out that are on no key of a piano, 21 to 108: 2"]
    assert len(shares) == 8
    assert sum(shares) == pytest.approx(1)


def test_a_part_is_read_where_files_are_divided(tmp_path):
    laid(tmp_path, {"a.json": {"train": [[[60]], [[61]]], "test": [[[62]]]}, "b.mid": MIDI})
    for part, pitches in (("train", [60, 61]), ("test", [62]), ("valid", []), (None, [60, 61, 62])):
        assert [int(piece.notes["pitch"][0]) for piece in read_pieces(tmp_path, part=part)] == [*pitches, 60]
    assert [piece.part for piece in read_pieces(tmp_path)] == ["train", "train", "test", ""]
    assert refused(tmp_path / "a.json", tmp_path, part="valid") == "a.json: has no part 'valid'; there are: train, test"


# -- copies


def test_transposed_copies_are_one_group_and_nothing_else_is():
    other = Piece(notes_of([(0, 10, 60, 80, 0), (10, 5, 65, 80, 0)]), 24)
    later = Piece(notes_of([(start + 7, *rest) for start, *rest in rows(SONG)]), 24)
    finer = Piece(notes_of([(2 * start, 2 * duration, *rest) for start, duration, *rest in rows(SONG)]), 48)
    assert groups([SONG, other, SONG.transposed(5), later, finer, other]) == [0, 1, 0, 0, 0, 1]


def test_what_is_added_to_a_piece_leaves_no_note_sounding_when_it_is_struck():
    notes = notes_of([(0, 9, 60, 80, 0), (4, 2, 60, 70, 0), (4, 3, 60, 60, 0), (4, 3, 60, 60, 1), (7, 1, 61, 50, 0)])
    kept, cut, twice = apart(notes)
    assert [tuple(note) for note in kept.tolist()] == [
        (0, 4, 60, 80, 0),
        (4, 3, 60, 60, 0),
        (4, 3, 60, 60, 1),
        (7, 1, 61, 50, 0),
    ]
    assert (cut, twice) == (1, 1)
    assert Piece(kept, 4, length=20, metres=(Metre(0, 4, 4),)).ticks == 20
