"""Textbook examples of how voices may not be led."""

import math

import numpy as np
import pytest

from throughtime.errors import UserError
from throughtime.tasks.pieces import Piece, Track, notes_of
from throughtime.tasks.voice_leading import voice_figures, voices_of


def figures(*steps):
    """Of steps of four voices, from the soprano down."""
    return voice_figures([np.array(steps)])


# I to ii in C, all voices a step up: bass and tenor C3 G3 to D3 A3 in fifths, bass and soprano C3 C5 to D3 D5 in octaves
PARALLEL = (72, 64, 55, 48), (74, 65, 57, 50)


def test_parallel_fifths_and_octaves():
    found = figures(*PARALLEL)
    assert (found["changes"], found["parallel_fifths"], found["parallel_octaves"]) == (1, 100, 100)
    assert figures(*PARALLEL[::-1])["parallel_fifths"] == 100, "downwards too"
    assert figures(*PARALLEL, PARALLEL[1], PARALLEL[1])["changes"] == 1, "what stays is no change"


@pytest.mark.parametrize(
    ("steps", "fifths", "octaves", "why"),
    [
        (((72, 64, 55, 48), (71, 62, 55, 43)), 0, 0, "I to V, well led: no two voices keep a fifth or an octave"),
        (
            ((79, 72, 64, 48), (81, 74, 65, 50)),
            2,
            1,
            "soprano and alto, soprano and bass; alto and bass, octaves between",
        ),
        (((67, 60, 52, 48), (67, 60, 55, 50)), 0, 0, "a fifth that stays where it is"),
        (((67, 64, 55, 48), (67, 65, 57, 53)), 0, 0, "a fifth before, a third after"),
        (((72, 67, 64, 53), (67, 67, 60, 60)), 0, 0, "an octave reached from a twelfth"),
        (((55, -1, -1, 48), (57, -1, -1, 50)), 1, 0, "two voices alone"),
        (((55, -1, -1, 48), (-1, -1, -1, -1), (57, -1, -1, 50)), 0, 0, "a rest between"),
        (((67, -1, -1, 48), (62, -1, -1, 55)), 0, 0, "a twelfth to a fifth by contrary motion"),
        (((60, 60, -1, -1), (62, 62, -1, -1)), 0, 1, "unisons"),
        (((54, -1, -1, 48), (56, -1, -1, 50)), 0, 0, "diminished fifths"),
        (((54, -1, -1, 48), (57, -1, -1, 50)), 0, 0, "from a diminished fifth to a perfect one"),
    ],
)
def test_pairs_that_are_parallel_and_pairs_that_are_not(steps, fifths, octaves, why):
    found = figures(*steps)
    changes = max(found["changes"], 1)
    counted = [found[name] * changes / 100 for name in ("parallel_fifths", "parallel_octaves")]
    if math.isnan(counted[0]):
        counted = [0.0, 0.0]
    assert counted == [fifths, octaves], why


def test_pieces_add_up_and_do_not_touch():
    one = np.array(PARALLEL)
    found = voice_figures([one[:1], one[1:], one, np.array([[72, 64, 55, 48], [71, 62, 55, 43]])])
    assert (found["changes"], found["parallel_fifths"]) == (2, 50), "from one piece to the next nothing moves"


def test_ranges():
    found = figures((82, 76, 47, 40), (81, 77, 48, 39), (60, -1, 69, 64), (-1, -1, 70, 65))
    shares = [found[f"out_of_range_{name}"] for name in ("soprano", "alto", "tenor", "bass")]
    assert shares == [1 / 3, 1 / 2, 2 / 4, 2 / 4]
    assert found["out_of_range"] == 6 / 13


def test_crossings():
    assert figures((67, 69, 55, 48), (67, 64, 55, 48), (67, -1, 55, 57), (-1, -1, -1, -1))["crossings"] == 2 / 3
    assert figures((67, 67, 55, 48))["crossings"] == 0, "a unison is none"


def test_nothing_to_take_a_share_of():
    found = voice_figures([])
    assert found.pop("changes") == 0 and all(map(math.isnan, found.values()))


def test_four_tracks_are_voices_and_sets_by_their_height():
    rows = [(0, 4, 48, 80, 0), (0, 2, 72, 80, 3), (2, 2, 60, 80, 3), (0, 4, 64, 80, 1), (1, 3, 55, 80, 2)]
    tracks = tuple(Track(str(i)) for i in range(4))
    four = voices_of(Piece(notes_of(rows), 4, tracks=tracks))
    assert four.tolist() == [[72, 64, -1, 48], [72, 64, 55, 48], [60, 64, 55, 48], [60, 64, 55, 48]]
    assert voice_figures([four])["crossings"] == 2 / 4
    rows = [(start, length, key, 80, 0) for start, length, key, _, _ in rows]
    by_height = voices_of(Piece(notes_of(rows), 4, sets=True))
    assert by_height.tolist() == [[-1] * 4, [72, 64, 55, 48], [64, 60, 55, 48], [64, 60, 55, 48]]
    overlapping = [(0, 4, 72, 80, 0), (0, 4, 67, 80, 0), (0, 4, 60, 80, 1), (0, 4, 55, 80, 2), (0, 4, 40, 80, 3)]
    with pytest.raises(UserError, match=r"^a\.mid: four keys never sound at once; voice leading takes four voices$"):
        voices_of(Piece(notes_of(overlapping), 4, "a.mid", tracks=tracks))


def test_what_is_no_four_voices():
    with pytest.raises(UserError, match=r"voices: got an array of \[5, 3\]; it takes \[T, 4\]"):
        voice_figures([np.zeros((5, 3))])
