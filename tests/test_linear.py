"""Linear forecasts: found where they are exact, chosen by what was not fitted on, and never of what comes after a cutoff."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from throughtime.tasks import linear, quantiles, ridges
from throughtime.tasks.linear import Linear
from throughtime.tasks.windows import Prepared, Scale, Windows, cutoffs_before, scored_cutoffs

LAST = ridges.Target(0.0, False, 0.0)  # the seasonal naive forecast


def windows(
    values: list[np.ndarray], held: int, look_back: int, horizon: int, seasons: tuple[int, ...]
) -> tuple[Windows, Windows, list[int]]:
    """The windows of all but the last `held` steps of some series, those from half of that on, and where they are held out."""
    series = [Prepared(v, Scale.of(v[:-held], seasons[0], False), *nothing(len(v)), 0) for v in values]
    short = [cut(s, held) for s in series]
    lengths = [len(s.values) for s in short]
    train = Windows(short, cutoffs_before(lengths, look_back, horizon, seasons[0]), look_back, horizon, seasons, 1)
    at = scored_cutoffs([len(v) for v in values], [n // 2 for n in lengths], horizon, 1, None)
    return train, Windows(series, at, look_back, horizon, seasons, 1), lengths


def nothing(steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.zeros((steps, 0)), np.zeros((steps, 0)), np.zeros(0)


def cut(series: Prepared, held: int) -> Prepared:
    return Prepared(series.values[:-held], series.scale, *nothing(len(series.values) - held), 0)


def off(found: Linear, judges: Windows, begins: list[int]) -> float:
    """Its mean absolute error in held-out windows."""
    which, cut = judges.cutoffs.T
    equations = linear._equations(judges, np.flatnonzero(cut >= np.array(begins)[which]))
    return float(np.abs(equations.targets - equations.inputs[:, -len(found.weights) :] @ found.weights).mean())


def test_a_linear_recurrence_is_found() -> None:
    wave = [0.0, 1.0]
    for _ in range(400):
        wave.append(1.6 * wave[-1] - wave[-2])
    train, *held = windows([np.array(wave)], 40, 8, 6, (1,))
    found = linear.fitted(train, *held, [4, 8])
    assert off(found, *held) < 0.01


def test_noise_about_a_season_is_averaged_over_seasons() -> None:
    """Of noise about a season the mean of many seasons is the best forecast, and the last one is off by √2 of the noise."""
    generator = np.random.default_rng(0)
    season = generator.normal(0, 5, 6)
    values = [np.tile(season, 50) + generator.normal(0, 1, 300) for _ in range(4)]
    train, *held = windows(values, 60, 36, 6, (6,))
    found = linear.fitted(train, *held, [12, 36])
    naive = Linear(ridges.naive_forecast(train, 36, LAST), found.spread)
    assert off(found, *held) < 0.85 * off(naive, *held)


def test_growth_goes_on() -> None:
    steps = np.arange(60)
    train, *held = windows([3.0 * steps + np.tile([5.0, -5.0, 0.0], 20)], 12, 6, 12, (3,))
    found = linear.fitted(train, *held, [6])
    naive = Linear(ridges.naive_forecast(train, 6, LAST), found.spread)
    assert off(found, *held) < 0.1 * off(naive, *held)


@pytest.mark.parametrize("whole", [False, True])
def test_what_is_shrunk_towards_goes_on_growing(whole) -> None:
    """Of a line and a season about it, the last season and the mean of five, once they grow on, are the forecast."""
    values = 3.0 * np.arange(60) + np.tile([5.0, -5.0, 0.0], 20)
    train, *held = windows([values], 24, 15, 12, (3,))
    naive = ridges.naive_forecast(train, 15, ridges.Target(1.0, whole, 0.0))
    assert off(Linear(naive, np.zeros((12, len(quantiles.LEVELS)))), *held) < 1e-6
    half = [ridges.naive_forecast(train, 15, ridges.Target(0.0, whole, flat)) for flat in (0.0, 0.5, 1.0)]
    assert np.allclose(half[1], (half[0] + half[2]) / 2)
    assert np.allclose(half[2][-3:], 1 / 3) and not half[2][:-3].any()  # the mean of the last season


def test_few_noisy_seasons_are_shrunk_towards_their_mean() -> None:
    """Where a ridge has too little to learn weights from, the mean of the six seasons that it reads is what it can say."""
    generator = np.random.default_rng(3)
    values = np.tile(generator.normal(0, 2, 12), 11) + generator.normal(0, 1, 132)
    train, *held = windows([values], 24, 72, 12, (12,))
    last, found = (ridges.naive_forecast(train, 72, LAST), linear.fitted(train, *held, [72]))
    assert off(found, *held) < 0.85 * off(Linear(last, found.spread), *held)


def test_each_ridge_is_judged_by_the_weights_that_it_has() -> None:
    generator = np.random.default_rng(4)
    train, *held = windows([generator.normal(size=200).cumsum() for _ in range(3)], 40, 12, 8, (4,))
    for sums, test in linear._parts(train, *held):
        for choice, error in ridges.Ridges(train, sums, 12).errors(test.inputs, test.targets):
            weights = linear._mean(train, sums, {choice: 1.0})
            assert np.abs(test.targets - test.inputs @ weights).mean() == pytest.approx(error)


def test_what_does_worse_in_more_windows_has_less_to_say() -> None:
    choices = [ridges.Choice(4, LAST, strength) for strength in (0.1, 1.0, 10.0)]
    errors = dict(zip(choices, ([1.0] * 4, [1.05] * 4, [3.0] * 4), strict=True))
    few, many = linear._say(errors, 4), linear._say(errors, 10_000)
    assert set(few) == set(choices[:2]) and sum(few.values()) == pytest.approx(1)
    assert 0.3 < few[choices[1]] / few[choices[0]] < 0.7 and many[choices[1]] / many[choices[0]] < 0.1


def test_what_does_worse_in_some_parts_and_better_in_others_has_more_to_say() -> None:
    steady, same, other = (ridges.Choice(4, LAST, strength) for strength in (0.1, 1.0, 10.0))
    said = linear._say({steady: [1.0] * 4, same: [1.2] * 4, other: [0.4, 2.0, 0.6, 1.8]}, 100)
    assert said[other] > 0.3 * said[steady] and said[other] > 20 * said.get(same, 0.0)
    seen = (0.64 + 0.36 + 0.16 + 1.0) - 4 * 0.2**2  # the squares of what `other` is worse by, about their mean of 0.2
    error = ((2 * 0.2**2 / 100 + 3 / 4 * seen / 3) / 5) ** 0.5
    assert said[other] / said[steady] == pytest.approx(np.exp(-0.2 / error))


def test_how_far_off_it_is_grows_with_the_horizon_as_a_random_walk_does() -> None:
    walks = [np.random.default_rng(i).normal(size=300).cumsum() for i in range(20)]
    train, *held = windows(walks, 32, 8, 32, (1,))
    spread = linear.fitted(train, *held, [4, 8]).spread
    high, low = (quantiles.LEVELS.index(level) for level in (0.9, 0.1))
    wide = spread[:, high] - spread[:, low]
    assert np.all(np.diff(spread, axis=1) >= 0) and np.all(spread[:, quantiles.MEDIAN] == 0)
    assert 3.5 < wide[-1] / wide[0] < 7.5  # √32 is 5.7


def test_what_was_not_fitted_on_decides() -> None:
    """The season of the first half is not that of the second: a look-back that only knows the first does not get the say."""
    generator = np.random.default_rng(1)
    values = np.concatenate([np.tile(generator.normal(0, 5, 4), 20), generator.normal(0, 5, 80).cumsum()])
    train, *held = windows([values], 16, 8, 4, (4,))
    parts = list(linear._parts(train, *held))
    lengths = [len(test.inputs) for _, test in parts]
    assert len(parts) == 4 and min(lengths) > 0
    # no window that was added up ends after one of those that judge it begins
    for end, (sums, _) in zip(linear.ENDS, parts, strict=False):
        within = train.cutoffs[:, 1] + 4 <= end * len(train.series[0].values)
        alone = linear._added(ridges.Sums(np.zeros((8, 8)), np.zeros((8, 4))), train, np.flatnonzero(within))
        assert np.allclose(sums.inner, alone.inner) and np.allclose(sums.cross, alone.cross)


def test_nothing_known_and_what_is_constant() -> None:
    for values in (np.full(60, 7.0), np.where(np.arange(60) % 2, np.nan, 3.0)):
        train, *held = windows([values], 12, 6, 4, (3,))
        found = linear.fitted(train, *held, [6])
        assert np.isfinite(found.weights).all() and np.isfinite(found.spread).all()


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    made = Linear(np.arange(6.0).reshape(3, 2), np.ones((2, len(quantiles.LEVELS))))
    made.save(tmp_path / "linear.safetensors")
    found = Linear.open(tmp_path / "linear.safetensors")
    assert found["weights"].tolist() == made.weights.tolist() and found["spread"].tolist() == made.spread.tolist()
