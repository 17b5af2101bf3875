"""How far off forecasts were of late, against sums by hand and against what they are made for."""

from __future__ import annotations

import numpy as np
import pytest

from throughtime.tasks.recent import DOUBT, LOOKS, REACH, Recent

GENERATOR = np.random.default_rng(0)


def by_hand(
    recent: Recent, cutoffs: np.ndarray, earlier: np.ndarray, distances: np.ndarray, held: float
) -> list[float]:
    """The weighted mean, value by value."""
    found = []
    for which, cut in cutoffs:
        total = weight = 0.0
        for (series, made), row in zip(earlier, distances, strict=True):
            for ahead, far in enumerate(row, 1):
                if series == which and made + ahead <= cut and np.isfinite(far):
                    share = np.exp(-(cut - made - ahead) / recent.memory) * recent.stride / recent.horizon
                    total, weight = total + share * far, weight + share
        doubt = DOUBT * recent.horizon
        found.append((total + doubt * held) / (weight + doubt))
    return found


@pytest.mark.parametrize(("season", "horizon"), [(1, 6), (4, 8), (24, 5)])
def test_it_is_the_mean_of_what_was_known_the_older_the_less(season: int, horizon: int) -> None:
    recent = Recent(season, horizon)
    cutoffs = np.array([[0, 60], [0, 71], [1, 40], [2, 200], [0, 400], [3, 5], [3, 100_000], [3, 99_990]])
    earlier = recent.earlier(cutoffs, [20, 38, 200, 99_950])
    distances = GENERATOR.gamma(2.0, size=(len(earlier), horizon))
    distances[GENERATOR.random(distances.shape) < 0.2] = np.nan
    found = recent.sizes(cutoffs, earlier, distances, 1.3)
    assert found == pytest.approx(by_hand(recent, cutoffs, earlier, distances, 1.3))
    assert found[3] == found[5] == 1.3  # nothing came after what was trained on
    assert len({round(size, 6) for size in found}) == len(found) - 1


def test_earlier_cutoffs_are_new_to_the_network_and_not_too_old() -> None:
    recent = Recent(12, 6)
    earlier = recent.earlier(np.array([[0, 500], [0, 520], [1, 90], [2, 7]]), [100, 80, 13])
    assert set(earlier[:, 0]) == {0, 1}
    first, second = (earlier[earlier[:, 0] == which, 1] for which in (0, 1))
    assert first.max() == 519 and 0 <= first.min() - (500 - REACH * recent.memory - 6) < recent.stride
    assert second.min() >= 80 and second.max() == 89
    assert len(first) < (REACH + 1) * LOOKS


def test_what_comes_later_changes_nothing() -> None:
    recent, cutoffs = Recent(4, 8), np.array([[0, 50]])
    later = np.array([[0, 50], [0, 90]])
    earlier = np.concatenate([recent.earlier(later, [9]), [[0, 55]]])
    distances = GENERATOR.gamma(2.0, size=(len(earlier), 8))
    before = recent.sizes(cutoffs, earlier, distances, 1.0)
    distances[earlier[:, 1][:, None] + np.arange(1, 9) > 50] = 1e6
    assert recent.sizes(cutoffs, earlier, distances, 1.0) == pytest.approx(before)


def test_intervals_follow_a_series_that_gets_harder_to_forecast() -> None:
    recent = Recent(1, 10)
    earlier = np.stack([np.zeros(400, dtype=int), np.arange(400)], 1)
    distances = np.abs(GENERATOR.normal(size=(400, 10))) * np.sqrt(np.pi / 2)
    distances[200:] *= 5
    calm, wild = recent.sizes(np.array([[0, 200], [0, 400]]), earlier, distances, 1.0)
    assert calm == pytest.approx(1, abs=0.2) and 3 < wild < 5
