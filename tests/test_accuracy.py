"""Quantiles, intervals and scores of forecasts, against what they are by definition."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from throughtime.tasks import quantiles
from throughtime.tasks.accuracy import Forecast, accuracy
from throughtime.tasks.quantiles import DOUBT, LEVELS, Calibration, at, deviate, levels_of

NORMAL = NormalDist()
GENERATOR = np.random.default_rng(0)


def normal(means: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """Quantiles of normal distributions, [..., Q]."""
    z = np.array([NORMAL.inv_cdf(level) for level in LEVELS])
    return means[..., None] + deviations[..., None] * z


def test_between_quantiles_of_a_normal_distribution_it_is_normal() -> None:
    means, deviations = GENERATOR.normal(size=(4, 7)), GENERATOR.uniform(0.5, 2, (4, 7))
    for z in (-3.0, -1.2, 0.0, 0.1, 2.5):
        assert np.allclose(at(normal(means, deviations), z), means + z * deviations)
        assert np.allclose(deviate(normal(means, deviations), means + z * deviations), z)


def test_a_value_that_is_missing_stands_nowhere_and_one_of_a_point_is_far_out() -> None:
    same = np.zeros((1, len(LEVELS)))
    assert np.isnan(deviate(same, np.array([np.nan])))[0]
    assert deviate(same, np.array([1.0]))[0] == quantiles.FARTHEST
    assert deviate(same, np.array([-1.0]))[0] == -quantiles.FARTHEST


@pytest.mark.parametrize("sure", [0.4, 1.0, 3.0])
@pytest.mark.parametrize("percent", [50.0, 80.0, 95.0])
def test_intervals_hold_what_they_say_however_sure_the_network_is(sure: float, percent: float) -> None:
    # the network says N(0, 1) where what comes is N(0, 1 / sure)
    held, come = (GENERATOR.normal(0, 1 / sure, (2000, 8)) for _ in range(2))
    said = normal(np.zeros((2000, 8)), np.ones((2000, 8)))
    calibration = Calibration(deviate(said, held))
    low, high = calibration.interval(said[0], percent)
    inside = ((low <= come) & (come <= high)).mean() * 100
    assert abs(inside - percent) < 3


def test_windows_that_overlap_count_as_one_experience() -> None:
    """400 windows off by 2 deviations: believed where they are 400, half believed where they are 20 in truth."""
    off = np.full((400, 4), 2.0)
    size = 2 * math.sqrt(math.pi / 2)  # by the mean of distances from the middle of a normal distribution
    alone, shared, one = (Calibration(off, apart).size for apart in (None, DOUBT, 1))
    assert alone == pytest.approx((400 * size + DOUBT) / (400 + DOUBT)) and shared == pytest.approx((size + 1) / 2)
    assert one == pytest.approx((size + DOUBT) / (1 + DOUBT))


def test_what_stands_further_out_is_further_out_at_all_levels() -> None:
    means, deviations, by = GENERATOR.normal(size=(3, 7)), GENERATOR.uniform(0.5, 2, (3, 7)), np.array([0.5, 1.0, 3.0])
    wide = quantiles.widened(normal(means, deviations), by)
    assert np.allclose(wide, normal(means, deviations * by[:, None]))


def test_with_nothing_held_out_the_network_is_believed() -> None:
    low, high = Calibration(np.zeros((0, 3))).interval(normal(np.zeros(3), np.ones(3)), 80)
    assert np.allclose(high, 1.2816, atol=0.4) and np.allclose(low, -high)


def test_paths_keep_what_goes_together() -> None:
    shared = np.repeat(GENERATOR.normal(size=(300, 1)), 5, 1)  # all steps of a window are off alike
    paths = Calibration(shared).paths(normal(np.arange(5.0), np.ones(5)), 200, np.random.default_rng(1))
    off = paths - np.arange(5.0)
    assert np.allclose(off, off[:, :1])
    assert abs(off.std() - 1) < 0.15


def forecast(truth: list[float], found: list[float], naive: list[float]) -> Forecast:
    values = np.array(found)
    interval = {80.0: (values - 1, values + 1)}
    spread = np.repeat(values[:, None], len(LEVELS), 1)
    return Forecast(np.array(truth), values, spread, np.array(naive), interval, 2.0, 4.0)


def test_scores_by_hand() -> None:
    found = accuracy([forecast([1.0, 2.0], [1.0, 4.0], [0.0, 2.0]), forecast([3.0, np.nan], [2.5, 0.0], [3.0, 9.0])])
    off = [0.0, 2.0, 0.5]
    assert found["mse"] == pytest.approx((0 + 4 + 0.25) / 3)
    assert found["mae"] == pytest.approx(sum(off) / 3)
    assert found["mse_scaled"] == pytest.approx(found["mse"] / 4)
    assert found["mae_scaled"] == pytest.approx(found["mae"] / 2)
    assert found["smape"] == pytest.approx((0 + 200 * 2 / 6 + 200 * 0.5 / 5.5) / 3)
    assert found["mase"] == pytest.approx((1 / 4 + 0.5 / 4) / 2)
    assert found["crps"] == pytest.approx(sum(off) / 6)  # of a point it is the absolute error
    assert found["coverage"] == {"80": pytest.approx(200 / 3)}
    assert found["naive"]["mae"] == pytest.approx(1 / 3)
    assert set(found["naive"]) == set(found) - {"coverage", "naive"}


def test_zeros_that_are_forecast_are_no_error() -> None:
    assert accuracy([forecast([0.0, 0.0], [0.0, 0.0], [0.0, 0.0])])["smape"] == 0


def test_scores_are_those_of_utilsforecast() -> None:
    losses = pytest.importorskip("utilsforecast.losses", reason="utilsforecast is not installed")
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    truth, found, train = (GENERATOR.uniform(1, 9, n) for n in (12, 12, 60))
    apart = np.abs(train[12:] - train[:-12]).mean()
    window = forecast(list(truth), list(found), list(truth))._replace(seasonal=apart)
    ours = accuracy([window])
    frame = pandas.DataFrame({"unique_id": "a", "ds": range(12), "y": truth, "m": found})
    before = pandas.DataFrame({"unique_id": "a", "ds": range(-60, 0), "y": train})
    for name in ("mse", "mae"):
        assert ours[name] == pytest.approx(getattr(losses, name)(frame, ["m"])["m"][0])
    assert ours["smape"] == pytest.approx(200 * losses.smape(frame, ["m"])["m"][0])  # which gives half of a fraction
    assert ours["mase"] == pytest.approx(losses.mase(frame, ["m"], 12, before)["m"][0])


def test_levels() -> None:
    assert levels_of("80,95") == [80.0, 95.0] and levels_of("99.5") == [99.5]
    for wrong in ("0", "100", "80,120"):
        with pytest.raises(ValueError, match="percent"):
            levels_of(wrong)
