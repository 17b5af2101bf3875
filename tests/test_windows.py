"""Windows of series: what a network is given at a cutoff, and nothing of what comes after."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from throughtime.tasks.windows import Prepared, Scale, Windows, cutoffs_before, open_saved, save, scored_cutoffs


def prepared(values: list[float], number: int = 0, log: bool = False, ahead: int = 0) -> Prepared:
    steps = len(values)
    scale = Scale.of(np.array(values, dtype=float), 2, log)
    known = np.arange(steps + ahead, dtype=np.float32)[:, None]
    return Prepared(np.array(values, dtype=float), scale, known, np.zeros((steps, 0)), np.zeros(0), number)


def window(series: list[Prepared], cutoffs: list[list[int]], look_back: int = 4, horizon: int = 3, seasons=(2,)):
    return Windows(series, np.array(cutoffs), look_back, horizon, seasons, 2).batch(range(len(cutoffs)))


def test_a_window_by_hand() -> None:
    found = window([prepared([1, 2, 3, 4, 5, 6, 7, 8], 5, ahead=3)], [[0, 5]])
    assert found.level.tolist() == [5]
    assert (found.values + 5).tolist() == [[2, 3, 4, 5]]
    assert (found.naive[..., 0] + 5).tolist() == [[4, 5, 4]]  # the last season is 4, 5
    assert (found.target + 5).tolist() == [[6, 7, 8]]
    assert found.known[0, :, 0].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert found.scale.tolist() == [2.0]  # it differs by 2 from a season before
    assert found.series.tolist() == [5]


def test_what_is_missing_is_no_zero() -> None:
    found = window([prepared([1, 2, 3, np.nan, 5, np.nan, 7, 8])], [[0, 6]])
    assert found.values.isnan().tolist() == [[False, True, False, True]]
    # of the second place of the season the last known value is 2, but that lies before the window
    assert (found.naive[..., 0] + found.level).tolist() == [[5, 5, 5]]
    assert found.target.isnan().tolist() == [[False, False, True]]


def test_before_the_beginning_and_after_the_end_nothing_is_known() -> None:
    found = window([prepared([10, 20]), prepared([70, 80, 90, 100])], [[0, 1], [1, 4]])
    assert found.values.isnan().sum(1).tolist() == [3, 0]
    assert found.target.isnan().sum(1).tolist() == [2, 3]


def test_nothing_after_a_cutoff_is_read() -> None:
    values = [3.0, 1, 4, 1, 5, 9, 2, 6]
    other = [*values[:5], 100, -100, 7]
    scale = prepared(values).scale
    ours, theirs = (
        window([Prepared(np.array(v), scale, np.zeros((8, 0)), np.zeros((8, 0)), np.zeros(0), 0)], [[0, 5]])
        for v in (values, other)
    )
    for name in ("values", "naive", "level", "scale"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    assert not torch.equal(ours.target, theirs.target)


def test_huge_and_tiny_values_keep_their_digits() -> None:
    for size in (1e-12, 1.0, 1e15):
        values = size * (1000 + np.array([0.0, 1, 0, 2, 0, 3, 0, 4]))
        found = window([prepared(list(values))], [[0, 5]])
        apart = (found.target / found.scale.unsqueeze(1)).tolist()[0]
        plain = window([prepared([0.0, 1, 0, 2, 0, 3, 0, 4])], [[0, 5]])
        assert apart == pytest.approx((plain.target / plain.scale.unsqueeze(1)).tolist()[0], rel=1e-3)


def test_a_constant_series_has_a_scale() -> None:
    for constant in (0.0, 5.0, -1e9):
        found = window([prepared([constant] * 8)], [[0, 5]])
        assert found.scale.item() > 0 and found.values.abs().sum() == 0


def test_the_logarithm_is_undone() -> None:
    scale = Scale.of(np.array([1.0, 10, 100, 1000]), 1, True)
    assert scale.size == pytest.approx(np.log(10))
    assert scale.write(scale.read(np.array([7.0]))) == pytest.approx([7.0])
    assert np.isnan(scale.read(np.array([0.0, -1.0]))).all()


def test_cutoffs() -> None:
    assert cutoffs_before([8], 3, 2, 1)[:, 1].tolist() == [2, 3, 4, 5, 6]
    assert cutoffs_before([2], 3, 2, 1)[:, 1].tolist() == [1]  # one window, half of whose horizon is known
    assert scored_cutoffs([10], [4], 3, 2, None)[:, 1].tolist() == [5, 7]
    assert scored_cutoffs([10], [4], 3, 2, 1)[:, 1].tolist() == [7]
    assert scored_cutoffs([5], [4], 3, 1, None)[:, 1].tolist() == [4]  # less than a horizon is left
    assert len(scored_cutoffs([4], [4], 3, 1, None)) == 0


def test_prepared_series_come_back_as_they_were(tmp_path: Path) -> None:
    before = [prepared([1, 2, 3], 1, log=True, ahead=2), prepared([4, np.nan, 6, 7], 2)]
    save(tmp_path / "x.safetensors", before, [2, 3])
    after, begins = open_saved(tmp_path / "x.safetensors")
    assert begins == [2, 3]
    for a, b in zip(before, after, strict=True):
        assert a.scale == b.scale and a.number == b.number
        for name in ("values", "known", "past", "static"):
            assert np.array_equal(getattr(a, name), getattr(b, name), equal_nan=name == "values"), name
