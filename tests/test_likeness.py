"""Copies are found, however they are transposed; histograms are those that can be counted by hand."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from throughtime.errors import UserError
from throughtime.tasks.likeness import Grams, grams, intervals, onsets, overlap, pitch_classes
from throughtime.tasks.pieces import Piece, Tempo, Track, notes_of

DATA = Path(os.environ.get("THROUGHTIME_DATA", Path(__file__).parents[2] / "shared" / "data")) / "music"


def tune(keys, lengths=None, resolution=4, **more):
    """One key after another; lengths in quarter notes."""
    lengths = [resolution * length for length in lengths or [1] * len(keys)]
    starts = np.cumsum([0, *lengths])
    rows = [(starts[i], lengths[i], key, 80, 0) for i, key in enumerate(keys)]
    return Piece(notes_of(rows), resolution, **more)


RNG = np.random.default_rng(0)
LONG = RNG.integers(48, 84, 40).tolist()
OTHER = RNG.integers(48, 84, 40).tolist()


def test_a_copy_is_one_however_it_is_transposed_played_or_written():
    known = Grams.of([tune(LONG)])
    assert known.hashes.dtype == np.uint64 and len(known.hashes) == 40 - 8
    for copy in (
        tune(LONG),
        tune(LONG).transposed(5),
        tune(LONG, resolution=480),
        tune(LONG, tempos=(Tempo(0, 40),)),
        replace(tune(LONG), notes=notes_of([(s + 7, 1, p, 9, 0) for s, _, p, _, _ in tune(LONG).notes.tolist()])),
    ):
        assert known.copied(copy) == 1
    assert known.copied(tune(OTHER)) == 0
    assert known.copied(tune(LONG, [1] * 20 + [2] + [1] * 19)) == (32 - 8) / 32, "one time longer: 8 grams have it"


def test_half_a_copy_is_half_a_copy():
    """The first 21 keys have 20 steps and 13 grams; of 39 steps there are 32."""
    assert Grams.of([tune(LONG)]).copied(tune(LONG[:21] + OTHER[21:])) == 13 / 32
    assert Grams.of([tune(LONG), tune(OTHER)]).copied(tune(LONG[:21] + OTHER[21:])) == (13 + 11) / 32


def test_one_key_or_one_moment_tells_grams_apart():
    keys, lengths = LONG[:9], [1] * 9
    first = grams(tune(keys, lengths))
    assert len(first) == 1
    for at in range(9):
        assert grams(tune([key + (i == at) for i, key in enumerate(keys)], lengths))[0] != first[0]
    for at in range(8):  # the ninth length comes after the last onset
        assert grams(tune(keys, [1 + (i == at) / 4 for i in range(9)]))[0] != first[0]
    assert grams(tune(keys[1::-1] + keys[2:], lengths))[0] != first[0], "their order counts"


def test_chords_count_whole():
    def chords(*found):
        return Piece(notes_of([(4 * i, 4, key, 80, 0) for i, keys in enumerate(found) for key in keys]), 4)

    three = [(48, 64, 67), (50, 65, 69), (52, 67, 71)] * 4
    known = Grams.of([chords(*three)])
    assert known.copied(chords(*three)) == 1
    assert known.copied(chords(*[(low, middle - 1, high) for low, middle, high in three])) == 0


def test_time_is_rounded_to_twelfths():
    known = Grams.of([tune(LONG, resolution=480)])
    jitter = [1 + (i % 3 - 1) / 480 for i in range(40)]
    assert known.copied(tune(LONG, jitter, resolution=480)) == 1
    assert known.copied(tune(LONG, [1 + 1 / 12] * 40, resolution=480)) == 0


def test_too_short_a_piece_has_none():
    assert len(grams(tune(LONG[:8]))) == 0 and len(grams(tune(LONG[:9]))) == 1
    assert math.isnan(Grams.of([tune(LONG)]).copied(tune(LONG[:8])))
    assert len(Grams.of([]).hashes) == 0 and Grams.of([]).copied(tune(LONG)) == 0


def test_onsets_and_frames():
    rows = [(0, 2, 60, 80, 0), (0, 3, 64, 80, 0), (2, 1, 62, 80, 0), (5, 1, 60, 80, 0), (5, 1, 38, 80, 1)]
    piece = Piece(notes_of(rows), 4, tracks=(Track(), Track("", 0, True)))
    assert onsets(piece) == [(0, (60, 64)), (2, (62,)), (5, (60,))]
    frames = onsets(replace(piece, sets=True))
    assert frames == [(0, (60, 64)), (1, (60, 64)), (2, (62, 64)), (3, ()), (4, ()), (5, (60,))]
    assert onsets(Piece(notes_of([(0, 1, 38, 80, 1)]), 4, tracks=piece.tracks, sets=True)) == []


def test_pitch_classes_by_how_long_they_sound():
    rows = [(0, 4, 60, 80, 0), (0, 8, 72, 80, 0), (4, 4, 67, 80, 0), (8, 8, 35, 80, 1)]
    piece = Piece(notes_of(rows), 4, tracks=(Track(), Track("", 0, True)))
    expected = [3 / 4, 0, 0, 0, 0, 0, 0, 1 / 4, 0, 0, 0, 0]
    assert pitch_classes([piece]).tolist() == expected
    two = pitch_classes([piece, tune([62] * 4, resolution=960)])
    assert two.tolist() == [3 / 8, 0, 4 / 8, 0, 0, 0, 0, 1 / 8, 0, 0, 0, 0], "a piece counts by its quarter notes"
    assert not pitch_classes([]).any()


def test_intervals_of_the_highest_keys():
    rows = [
        (0, 4, 60, 80, 0),
        (0, 4, 48, 80, 0),
        (4, 4, 64, 80, 0),
        (4, 4, 40, 80, 0),
        (8, 4, 64, 80, 0),
        (12, 4, 30, 80, 0),
    ]
    found = intervals([Piece(notes_of(rows), 4)])
    assert found.shape == (25,) and found.sum() == pytest.approx(1)
    assert {i - 12: share for i, share in enumerate(found) if share} == {4: 1 / 3, 0: 1 / 3, -12: 1 / 3}
    assert intervals([tune([60, 61]), tune([60, 90])])[[13, 24]].tolist() == [0.5, 0.5]
    assert not intervals([tune([60])]).any()


def test_overlap():
    a, b = np.array([0.5, 0.5, 0]), np.array([0, 0.25, 0.75])
    assert overlap(a, a) == 1 and overlap(a, b) == 0.25 and overlap(a, np.array([0, 0, 1.0])) == 0


def test_saved_and_opened_again(tmp_path):
    known = Grams.of([tune(LONG), tune(OTHER)])
    known.save(tmp_path / "grams.npy")
    assert np.array_equal(Grams.open(tmp_path / "grams.npy").hashes, known.hashes)
    assert (tmp_path / "grams.npy").stat().st_size < 8 * len(known.hashes) + 200
    assert (known.hashes[1:] > known.hashes[:-1]).all()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read it: No such file or directory"),
        (b"", "the run is damaged: no file of n-grams; train again"),
        (b"junk that is no array", "the run is damaged: no file of n-grams; train again"),
        (np.array([1.0, 2.0]), "the run is damaged: no file of n-grams; train again"),
        (np.array([2, 1], np.uint64), "the run is damaged: its n-grams are out of order; train again"),
        (np.array([[1, 2]], np.uint64), "the run is damaged: no file of n-grams; train again"),
    ],
)
def test_what_is_no_file_of_grams(tmp_path, content, said):
    path = tmp_path / "grams.npy"
    if isinstance(content, np.ndarray):
        np.save(path, content)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as error:
        Grams.open(path)
    assert str(error.value) == f"{path}: {said}"


def test_a_file_that_is_cut_off(tmp_path):
    path = tmp_path / "grams.npy"
    Grams.of([tune(LONG)]).save(path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match="the run is damaged"):
        Grams.open(path)


@pytest.mark.skipif(not DATA.exists(), reason=f"no {DATA}; THROUGHTIME_DATA names the data")
def test_chorales_are_like_one_another_and_not_copies():
    parts = json.loads((DATA / "jsb" / "jsb-chorales-quarter.json").read_text())

    def of(part):
        rows = [[(t, 1, key, 80, 0) for t, frame in enumerate(piece) for key in frame] for piece in parts[part]]
        return [Piece(notes_of(one), 1, sets=True) for one in rows]

    train, test = of("train"), of("test")
    known = Grams.of(train)
    assert all(known.copied(piece.transposed(-3)) == 1 for piece in train[:20])
    assert 0 < np.nanmean([known.copied(piece) for piece in test]) < 0.1
    assert overlap(pitch_classes(train), pitch_classes(test)) > 0.95
    assert overlap(intervals(train), intervals(test)) > 0.95
    assert overlap(pitch_classes(train), pitch_classes([piece.transposed(1) for piece in test])) < 0.5
