"""The network that reads a series value by value: its cell by hand, one pass for all cutoffs, a step of a stream."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import throughtime as tt
from throughtime.models.stepwise import Course, Seasonal, Stepwise
from throughtime.tasks.courses import Courses
from throughtime.tasks.windows import Prepared, Scale

pytestmark = pytest.mark.usefixtures("_one_thread")
LEVELS = (0.1, 0.5, 0.9)


def network(cell: str = "gru", layers: int = 1, covariates: int = 0) -> Stepwise:
    torch.manual_seed(0)
    made = Stepwise(
        cell, 6, layers, 0.0, season=4, naive=2, horizon=3, covariates=covariates, ahead=covariates, levels=LEVELS
    ).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def series(values: list[float], covariates: int = 0) -> Prepared:
    array = np.array(values)
    known = np.random.default_rng(0).normal(size=(len(array) + 3, covariates)).astype(np.float32)
    return Prepared(array, Scale(False, 2.0), known, np.zeros((len(array), 0)), np.zeros(0), 0)


@pytest.mark.parametrize(("cell", "layers"), [("gru", 1), ("lstm", 2), ("elman", 1)])
def test_the_engine_gives_what_the_equations_say(cell, layers):
    one = Seasonal(cell, 2, 5, layers, 4)
    steps = torch.randn(9, 3, 4)
    steps[..., 1] = (torch.rand(9, 3) > 0.3).float()
    outputs, state, _ = tt.scan(one, steps)
    hidden = one.initial_state(3)
    for t in range(9):
        by_hand, hidden = one(steps[t], hidden)
        assert torch.allclose(outputs[t], by_hand, atol=1e-6)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(state, hidden, strict=True))
    assert "runs on 'cpu'" in str(tt.explain(one, steps))


def test_the_last_season_is_carried_and_what_is_missing_is_that_of_a_season_before():
    one = Seasonal("gru", 0, 2, 1, 3)
    state = one.initial_state(1)
    for value in (1.0, 2.0, 3.0, 4.0, None, 6.0):
        given = torch.tensor([[value or 0.0, float(value is not None)]])
        output, state = one(given, state)
    assert output[0, 2:].tolist() == [4.0, 2.0, 6.0]


def test_the_naive_forecast_is_of_the_first_season_though_a_longer_one_is_carried():
    batch = Courses([series([0.0, 1.0, 5.0, 2.0, 6.0])], np.array([[0, 5]]), 3, 4).batch([0])
    assert network().forecast(batch)[1].tolist() == [[2.0, 6.0, 2.0]]


def test_one_pass_gives_the_forecasts_of_all_cutoffs():
    made, generator = network(covariates=2), np.random.default_rng(1)
    several = [series(list(generator.normal(size=n).cumsum()), 2) for n in (30, 17)]
    cutoffs = np.array([[0, 9], [1, 17], [0, 25], [1, 5], [0, 1]])
    courses = Courses(several, cutoffs, 3, 4)
    together = {}
    for numbers, batch, firsts in courses.passes():
        found, _ = made.forecast(batch)
        together |= {n: f + first for n, f, first in zip(numbers.tolist(), found, firsts, strict=True)}
    assert sorted(together) == [0, 1, 2, 3, 4]
    for number, (which, cut) in enumerate(cutoffs.tolist()):
        only = series(list(several[which].values[:cut]), 2)  # nothing of what comes after is there
        alone = Courses([only], np.array([[0, cut]]), 3, 4)
        known = several[which].known
        alone.series = [Prepared(only.values, only.scale, known, only.past, only.static, 0)]
        (_, batch, firsts), *_ = alone.passes()
        assert torch.allclose(made.forecast(batch)[0][0] + firsts[0], together[number], atol=1e-5)


def test_a_stream_goes_on_by_one_step():
    made = network()
    course = Courses([series(list(np.sin(np.arange(40.0))))], np.array([[0, 40]]), 3, 4).at(np.array([[0, 40]]))
    stepper = made.stack.stepper()
    with torch.no_grad():
        for row in course.steps:
            output = stepper(row.clone())
        found, _ = made.answer(output, course.known)
        assert torch.allclose(found, made.quantiles(course)[0], atol=1e-6)


def test_what_is_learned_from_comes_after_the_cutoff():
    values = list(np.arange(1000.0))
    courses = Courses.to_train([series(values)], 3, 4)
    batch: Course = courses.batch(range(len(courses.lengths)))
    assert len(batch.at) >= 1000 // 8
    for (step, column), target in zip(batch.at.tolist(), batch.target, strict=True):
        last = batch.steps[step, column, 0]
        expected = last + 0.5 * torch.arange(1, 4)  # in units of the scale, 2
        known = target.isfinite()
        assert torch.allclose(target[known], expected[known]) and known.any()


@pytest.fixture(scope="module")
def trained(tmp_path_factory, _one_thread):
    folder = tmp_path_factory.mktemp("stream")
    rows = ["ds,y"] + [f"{2000 + i // 12}-{i % 12 + 1:02},{100 + 20 * np.sin(i / 2):.3f}" for i in range(120)]
    (folder / "history.csv").write_text("\n".join(rows) + "\n")
    return tt.train(
        "forecast",
        [folder / "history.csv"],
        out=folder / "run",
        steps=20,
        data={"horizon": 6},
        model={"kind": "steps", "hidden_size": 8},
        progress=False,
    )


def test_a_session_says_what_predict_says_and_goes_on(trained, tmp_path):
    path = trained.run.folder.parent / "history.csv"
    session = trained.session(path)
    said = list(trained.predict(path))
    now = session.forecast()
    assert now["forecast"] == pytest.approx([row["forecast"] for row in said], rel=1e-5)
    assert now["forecast-hi-80"] == pytest.approx([row["forecast-hi-80"] for row in said], rel=1e-5)
    assert session.time == 120 and session.dates(120, 122) == ["2010-01", "2010-02"]
    after = session.feed(95.0)
    longer = tmp_path / "longer.csv"
    longer.write_text(path.read_text() + "2010-01,95.0\n")
    assert after["forecast"] == pytest.approx([row["forecast"] for row in trained.predict(longer)], rel=1e-5)


def test_a_value_of_the_past_can_be_another(trained):
    path = trained.run.folder.parent / "history.csv"
    session = trained.session(path)
    before, other = session.forecast(), session.branch()
    other.edit(115, input=200.0)
    assert np.abs(other.forecast()["forecast"] - before["forecast"]).max() > 1
    assert session.diff(other).parts == 116
    other.edit(115, input=float(path.read_text().split("\n")[116].split(",")[1]))
    assert other.forecast()["forecast"] == pytest.approx(before["forecast"], rel=1e-6)


def test_a_network_over_segments_says_that_it_has_no_stream(trained, tmp_path):
    path = trained.run.folder.parent / "history.csv"
    made = tt.train("forecast", [path], out=tmp_path / "run", steps=2, data={"horizon": 6}, progress=False)
    with pytest.raises(tt.UserError, match=r"--model\.kind steps"):
        made.session(path)
