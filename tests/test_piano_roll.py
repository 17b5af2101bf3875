"""The picture shows every note, where it belongs."""

import importlib.util

import numpy as np
import pytest

from throughtime.errors import UserError
from throughtime.tasks.piano_roll import COLOURS, draw_roll, key_name
from throughtime.tasks.pieces import Metre, Piece, Tempo, Track, notes_of

colours = pytest.importorskip("matplotlib.colors")
image = pytest.importorskip("matplotlib.image")
ONE = (Track(),)


def piece(rows, tracks=ONE, **more):
    """A quarter note is a second."""
    return Piece(notes_of(rows), 4, "tune.mid", tracks=tracks, tempos=(Tempo(0, 60),), **more)


def drawn(tmp_path, given):
    draw_roll(given, tmp_path / "roll.png", overwrite=True)
    return image.imread(tmp_path / "roll.png")[:, :, :3]


def of_colour(picture, name, velocity=127):
    """Which pixels have a track's colour, as notes of a velocity have it."""
    full = 1 - (1 - np.array(colours.to_rgb(name))) * (0.25 + 0.75 * velocity / 127)
    return np.abs(picture - full).max(-1) < 0.01


def test_keys_have_names():
    assert [key_name(pitch) for pitch in (21, 60, 61, 69, 108)] == ["A0", "C4", "C♯4", "A4", "C8"]


def test_notes_stand_where_they_belong(tmp_path):
    """Four seconds of a low key in the first half, of a high one in the second; the first begins with the picture."""
    tracks = Track("low"), Track("high")
    picture = drawn(tmp_path, piece([(0, 16, 48, 127, 0), (16, 16, 60, 127, 1)], tracks))
    # the legend has the colours too, above the first row
    low, high = (np.argwhere(of_colour(picture[50:], COLOURS[track])) for track in (0, 1))
    assert low[:, 0].min() > high[:, 0].max(), "the higher key above"
    assert abs(low[:, 1].max() - high[:, 1].min()) <= 4, "one ends where the other begins"
    widths = np.ptp(low[:, 1]), np.ptp(high[:, 1])
    assert widths[0] == pytest.approx(widths[1], rel=0.02)
    assert widths[0] > 0.4 * picture.shape[1]


def test_soft_notes_are_fainter(tmp_path):
    picture = drawn(tmp_path, piece([(0, 16, 48, 127, 0), (16, 16, 60, 30, 0)]))
    hard, soft = of_colour(picture, COLOURS[0]), of_colour(picture, COLOURS[0], 30)
    assert hard.sum() > 1000 and hard.sum() == pytest.approx(soft.sum(), rel=0.05)


def test_what_is_long_has_rows_that_begin_with_a_bar(tmp_path):
    rows = [(16 * bar, 16, 60, 127, 0) for bar in range(50)]  # 200 seconds
    short, long = drawn(tmp_path, piece(rows[:5])), drawn(tmp_path, piece(rows, metres=(Metre(0, 4, 4),)))
    assert short.shape[1] == long.shape[1] and 6 * short.shape[0] < long.shape[0] < 8 * short.shape[0]
    inked = of_colour(long, COLOURS[0])
    filled = np.flatnonzero(inked.sum(1) > 0.1 * long.shape[1])
    tops = filled[np.append(True, np.diff(filled) > 1)]
    assert len(tops) == -(-200 // 28), "seven bars of four seconds a row of thirty"
    left = [np.flatnonzero(inked[top + 1]).min() for top in tops]
    assert np.ptp(left) <= 2, "every row begins with the note of its bar"


def test_all_notes_of_a_long_piece_are_drawn_once(tmp_path):
    """As much ink for 1,000 seconds as rows have room for, whether rows are cut at bars or not."""
    rows = [(8 * k, 8, 60, 127, 0) for k in range(500)]
    first = of_colour(drawn(tmp_path, piece(rows, metres=(Metre(0, 4, 4),))), COLOURS[0])
    other = of_colour(drawn(tmp_path, piece(rows, metres=(Metre(0, 200, 4),))), COLOURS[0])
    assert first.sum() == pytest.approx(other.sum(), rel=0.1)


def test_drums_stand_below(tmp_path):
    tracks = Track("keys"), Track("drums", 0, True)
    picture = drawn(tmp_path, piece([(0, 16, 60, 127, 0), (0, 16, 90, 127, 1)], tracks))
    keys, drums = np.argwhere(of_colour(picture, COLOURS[0])), np.argwhere(of_colour(picture, "#4a5565"))
    assert len(drums) > 500 and drums[:, 0].min() > keys[:, 0].max()
    assert len(drawn(tmp_path, piece([(0, 16, 38, 127, 0)], (Track("drums", 0, True),)))), "of drums alone too"


def test_what_cannot_be_drawn(tmp_path, monkeypatch):
    path = tmp_path / "roll.png"
    with pytest.raises(UserError, match=r"^tune\.mid: holds no note; there is nothing to draw$"):
        draw_roll(piece([]), path)
    assert not path.exists()
    path.write_text("mine")
    with pytest.raises(UserError, match=r"roll\.png: is there already; name another file"):
        draw_roll(piece([(0, 4, 60, 80, 0)]), path)
    assert path.read_text() == "mine"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"matplotlib, which is not installed \(pip install 'throughtime\[plot\]'\)"):
        draw_roll(piece([(0, 4, 60, 80, 0)]), path, overwrite=True)
    assert path.read_text() == "mine"
