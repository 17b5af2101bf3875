"""Forecast: series in files to forecasts that can be trusted, by every verb."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import throughtime as tt
from throughtime.cli import main
from throughtime.errors import UserError
from throughtime.models.forecaster import Forecaster, Segments, Sizes, Unrolled, Window
from throughtime.weights import read_tensors

pytestmark = pytest.mark.usefixtures("_one_thread")


def months(count: int, start: int = 2000) -> list[str]:
    return [f"{start + i // 12}-{i % 12 + 1:02}" for i in range(count)]


def seasonal(count: int, slope: float = 0.5, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 1, count)
    t = np.arange(count)
    return 100 + slope * t + 20 * np.sin(2 * np.pi * t / 12) + noise


def write(path: Path, rows: list[list[object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two series of 120 months with a price that is known ahead, their first 108 months, the rest, and what is known of it."""
    folder = tmp_path_factory.mktemp("series")
    rows = []
    for name, seed in (("a", 1), ("b", 2)):
        values = seasonal(120, seed=seed)
        prices = np.random.default_rng(seed + 10).integers(0, 2, 120)
        rows += [
            [name, when, round(float(v - 15 * p), 3), int(p)]
            for when, v, p in zip(months(120), values, prices, strict=True)
        ]
    header = ["unique_id", "ds", "y", "price"]
    part = [months(120).index(row[1]) < 108 for row in rows]
    return {
        "whole": write(folder / "whole.csv", [header, *rows]),
        "history": write(folder / "history.csv", [header, *(r for r, early in zip(rows, part, strict=True) if early)]),
        "truth": write(folder / "truth.csv", [header, *(r for r, early in zip(rows, part, strict=True) if not early)]),
        "known": write(
            folder / "known.csv",
            [["unique_id", "ds", "price"], *([r[0], r[1], r[3]] for r, e in zip(rows, part, strict=True) if not e)],
        ),
    }


@pytest.fixture(scope="module")
def model(files, _one_thread):
    return tt.train(
        "forecast",
        [files["history"]],
        out=files["history"].parent / "run",
        steps=400,
        data={"horizon": 12, "future": "price"},
        progress=False,
    )


def run(*arguments: object, capsys) -> tuple[int, str, str]:
    code = main([str(a) for a in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_intervals_are_wider_after_months_that_were_hard_to_forecast(model, files, tmp_path):
    head, *rows = csv.reader(files["whole"].read_text().splitlines())
    last = months(120)[108:]  # which training had not
    wild = [[name, when, float(y) + 40 * (-1) ** i * (when in last), p] for i, (name, when, y, p) in enumerate(rows)]
    known = [[name, when, 0] for name in "ab" for when in months(132)[120:]]
    ahead = write(tmp_path / "known.csv", [["unique_id", "ds", "price"], *known])

    def width(series: list[list[object]]) -> float:
        given = write(tmp_path / "given.csv", [head, *series])
        found = list(model.predict(given, future=str(ahead)))
        return float(np.mean([math.log(row["forecast-hi-80"] / row["forecast-lo-80"]) for row in found]))

    assert width(wild) > 2 * width(rows)
    assert model.fitted.new_from(model.task.read(model.config, [files["whole"]])[0]) == model.fitted.new_from(
        model.task.read(model.config, [files["history"]])[0]
    )


def test_what_training_had_is_known_by_name_and_time(model, files):
    (series, _), about = model.task.read(model.config, [files["whole"]]), model.fitted
    had = next(i for i in range(120) if series.clock.ticks(np.array([i]))[0] > about.series["a"].last)
    assert 72 <= had < 108 and about.new_from(series) == had
    assert about.new_from(replace(series, id="c")) == 13  # a season and a step
    before = {"a": about.series["a"]._replace(last=None)}  # of a run that did not write it
    assert replace(about, series=before).new_from(series) == 120


def test_it_beats_the_naive_forecast_and_says_both(model, files, capsys):
    code, out, _ = run("evaluate", model.run.folder, files["history"], files["truth"], "--json", capsys=capsys)
    found = json.loads(out)
    assert code == 0 and found["series"] == 2 and found["windows"] == 2 and found["horizon"] == 12
    assert found["mase"] < 0.8 * found["naive"]["mase"]
    assert set(found["naive"]) == {"mse", "mae", "mse_scaled", "mae_scaled", "smape", "mase", "crps"}
    assert 50 <= found["coverage"]["80"] <= 100


def test_what_is_known_ahead_helps(model, files, capsys, tmp_path):
    """The price takes 15 off: without it, or with the wrong one, the forecast is worse."""
    history, truth = files["history"], files["truth"]
    _, right, _ = run("evaluate", model.run.folder, history, truth, "--json", capsys=capsys)
    rows = [[r["unique_id"], r["ds"], r["y"], 1 - int(r["price"])] for r in table(truth.read_text())]
    wrong = write(tmp_path / "wrong.csv", [["unique_id", "ds", "y", "price"], *rows])
    _, other, _ = run("evaluate", model.run.folder, history, wrong, "--json", capsys=capsys)
    assert json.loads(other)["mae"] > 1.15 * json.loads(right)["mae"]


def test_rows_of_a_forecast(model, files, capsys):
    code, out, _ = run(
        "predict", model.run.folder, files["history"], "--future", files["known"], "--level", "80,95", capsys=capsys
    )
    rows = table(out)
    assert code == 0
    names = ["forecast-lo-80", "forecast-hi-80", "forecast-lo-95", "forecast-hi-95"]
    assert list(rows[0]) == ["unique_id", "ds", "forecast", *names]
    assert [r["ds"] for r in rows[:12]] == months(120)[108:] and len(rows) == 24
    assert {r["unique_id"] for r in rows} == {"a", "b"}
    for row in rows:
        low95, low, middle, high, high95 = (float(row[n]) for n in (names[2], names[0], "forecast", names[1], names[3]))
        assert low95 <= low <= high <= high95 and low95 <= middle <= high95


def test_a_prefix_of_the_horizon_is_the_same_forecast(model, files):
    whole = list(model.predict(files["history"], future=str(files["known"])))
    short = list(model.predict(files["history"], future=str(files["known"]), horizon=5))
    assert short[:5] == whole[:5] and len(short) == 10


def test_floor_samples_and_json(model, files, capsys):
    _, out, _ = run(
        "predict",
        *(model.run.folder, files["history"], "--future", files["known"], "--floor", "150", "--samples", "3", "--json"),
        capsys=capsys,
    )
    rows = [json.loads(line) for line in out.splitlines()]
    assert all(row[name] >= 150 for row in rows for name in row if name not in ("unique_id", "ds"))
    assert {"sample-1", "sample-2", "sample-3"} <= set(rows[0])


def test_without_what_must_be_known_it_says_so(model, files, capsys):
    code, out, err = run("predict", model.run.folder, files["history"], capsys=capsys)
    assert (code, out) == (2, "")
    assert "--future: price of a is known for 0 of 12 steps, up to 2009-12" in err


def test_anomalies(model, files, tmp_path, capsys):
    rows = [[r["unique_id"], r["ds"], r["y"], r["price"]] for r in table(files["history"].read_text())]
    rows[60][2] = "400"  # of series a
    strange = write(tmp_path / "strange.csv", [["unique_id", "ds", "y", "price"], *rows])
    code, out, _ = run("predict", model.run.folder, strange, "--anomalies", capsys=capsys)
    found = table(out)
    assert code == 0 and list(found[0]) == ["unique_id", "ds", "y", "forecast", "probability"]
    assert len(found) == 2 * 95  # from the second season on
    least = min(found, key=lambda row: float(row["probability"]))
    assert (least["ds"], least["unique_id"]) == (rows[60][1], "a")


def test_a_series_that_training_never_had(model, tmp_path):
    rows = [["unique_id", "ds", "y", "price"]]
    values = 1e6 * seasonal(72, seed=7)
    rows += [["new", when, values[i], 0] for i, when in enumerate(months(60))]
    rows += [["new", when, "", 0] for when in months(72)[60:]]
    found = list(model.predict(write(tmp_path / "new.csv", rows)))
    made = np.array([row["forecast"] for row in found])
    assert np.abs(made - values[60:]).mean() < 1e7  # a season is 4e7 from top to bottom


def test_cross_validation_has_cutoffs_and_what_came(model, files):
    rows = model.cross_validation(files["whole"], windows=3, stride=4, horizon=6)
    assert [r["cutoff"] for r in rows[::6]][:3] == [months(120)[i] for i in (105, 109, 113)]
    truth = {(r["unique_id"], r["ds"]): float(r["y"]) for r in table(files["whole"].read_text())}
    assert all(row["y"] == truth[row["unique_id"], row["ds"]] for row in rows)
    assert len(rows) == 2 * 3 * 6


def test_scores_are_those_of_the_cross_validation(model, files):
    rows = model.cross_validation(files["whole"], windows=2, stride=12)
    scores = model.evaluate(files["whole"], windows=2, stride=12)
    assert scores["mae"] == pytest.approx(np.mean([abs(r["y"] - r["forecast"]) for r in rows]))
    inside = [r["forecast-lo-80"] <= r["y"] <= r["forecast-hi-80"] for r in rows]
    assert scores["coverage"]["80"] == pytest.approx(100 * np.mean(inside))


def test_pictures(model, files, tmp_path, capsys):
    folder = tmp_path / "pictures"
    code, _, _ = run(
        "evaluate", model.run.folder, files["history"], files["truth"], "--pictures", folder, capsys=capsys
    )
    assert code == 0 and sorted(p.name for p in folder.iterdir()) == ["a.png", "b.png"]
    code, _, err = run("evaluate", model.run.folder, files["whole"], "--pictures", folder, capsys=capsys)
    assert code == 2 and "is there already" in err


def test_of_several_windows_the_last_is_drawn(model, files, tmp_path, capsys, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "throughtime.tasks.curves.Album.draw", lambda self, series, cut, found: drawn.append((series.id, cut))
    )
    options = ["--windows", 3, "--stride", 4, "--pictures", tmp_path / "pictures"]
    code, _, err = run("evaluate", model.run.folder, files["whole"], *options, capsys=capsys)
    assert code == 0, err
    assert drawn == [("a", 108), ("b", 108)]


def test_inspect_shows_which_values_mattered(model, files, capsys):
    code, out, _ = run("inspect", model.run.folder, files["whole"], "--json", capsys=capsys)
    found = json.loads(out)
    assert code == 0 and len(found["inputs"]) == model.config.model.history
    assert found["outputs"] == months(120)[108:]


def test_the_same_seed_gives_the_same_bits(files, tmp_path):
    options = {
        "data": {"horizon": 6, "future": "price"},
        "progress": False,
        "steps": 12,
        "training": {"evaluations": 2},
    }
    files_ = [files["history"]]
    tt.train("forecast", files_, out=tmp_path / "whole", **options)
    tt.train("forecast", files_, out=tmp_path / "again", **options)
    assert (tmp_path / "whole/model.safetensors").read_bytes() == (tmp_path / "again/model.safetensors").read_bytes()


@pytest.mark.filterwarnings("ignore:.*there are no times, steps are counted")
@pytest.mark.parametrize("kind", ["constant", "zeros", "huge", "tiny", "negative", "short", "missing"])
def test_odd_series_train_and_are_forecast(kind, tmp_path):
    t = np.arange(60.0)
    wave = np.sin(t / 2)
    values: list[object] = list(
        {
            "constant": np.full(60, 7.0),
            "zeros": np.zeros(60),
            "huge": 1e15 * (2 + wave),
            "tiny": 1e-12 * (2 + wave),
            "negative": -5 - wave,
            "short": 3 + wave[:7],
            "missing": 3 + wave,
        }[kind]
    )
    if kind == "missing":
        values[20:30] = [""] * 10
    path = write(tmp_path / "odd.csv", [["y"], *([v] for v in values)])
    found = tt.train(
        "forecast",
        [path],
        out=tmp_path / "run",
        steps=20,
        data={"horizon": 3},
        training={"evaluations": 2},
        progress=False,
    )
    rows = list(found.predict(path))
    assert len(rows) == 3 and all(math.isfinite(v) for row in rows for v in row.values() if not isinstance(v, str))
    size = max(abs(float(v)) for v in values if v != "")
    assert all(abs(row["forecast"]) <= 10 * size for row in rows)
    if kind in ("constant", "zeros"):
        assert all(row["forecast"] == pytest.approx(values[0], abs=1e-3) for row in rows)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"horizon": 500}, r"series.csv:2: the longest series, y, has 40 values: too few to forecast 500"),
        ({"horizon": 4, "split": "30,20,5"}, r"y has 40 rows, fewer than the 55 of data.split"),
        ({"horizon": 4, "split": "30,10", "held_out": 0.2}, r"data.held_out: data.split says which rows are held out"),
        ({"horizon": 4, "split": "30"}, r"data.split: takes two or three numbers of rows"),
        ({"horizon": 4, "target": "z"}, r"column 'z'"),
        ({"horizon": 4, "freq": "fortnight"}, r"data.freq: unknown frequency 'fortnight'"),
    ],
)
def test_what_cannot_work_is_said_before_work_begins(change, said, tmp_path):
    path = write(tmp_path / "series.csv", [["ds", "y"], *([m, i % 5] for i, m in enumerate(months(40)))])
    with pytest.raises(UserError, match=said):
        tt.train("forecast", [path], out=tmp_path / "run", steps=2, data=change, progress=False)
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").iterdir())


@pytest.mark.parametrize("name", ["history", "look_back", "segment", "members", "unaided", "symmetric"])
def test_a_network_that_reads_step_by_step_refuses_what_it_has_not(name, files, tmp_path):
    with pytest.raises(UserError, match=f"model.{name}: a network that reads step by step has none"):
        tt.train(
            "forecast",
            [files["history"]],
            out=tmp_path / "run",
            steps=1,
            model={"kind": "steps", name: True if name == "symmetric" else 2},
            progress=False,
        )


def test_an_unknown_series_in_a_truth_file_is_refused(model, files, tmp_path, capsys):
    rows = [["z", *list(r.values())[1:]] for r in table(files["truth"].read_text()) if r["unique_id"] == "a"]
    other = write(tmp_path / "other.csv", [["unique_id", "ds", "y", "price"], *rows])
    code, _, err = run("evaluate", model.run.folder, files["history"], other, capsys=capsys)
    assert code == 2 and re.search(r"other.csv:2: there is no history of z", err)


def test_a_longer_horizon_than_was_trained_is_refused(model, files, capsys):
    code, _, err = run("predict", model.run.folder, files["history"], "--horizon", "99", capsys=capsys)
    assert code == 2 and "--horizon: 99; this model forecasts up to 12 steps" in err


def test_frames_come_back_as_frames(model, files, tmp_path):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.read_csv(files["history"], parse_dates=["ds"])
    found = model.predict(frame, future=str(files["known"]))
    assert type(found) is pandas.DataFrame and found["ds"].dtype == frame["ds"].dtype
    again = tt.train(
        "forecast", frame, out=tmp_path / "run", steps=2, data={"horizon": 12, "future": "price"}, progress=False
    )
    assert again.config.files == ["<frame>"] and "<frame>" in (tmp_path / "run" / "config.yaml").read_text()
    assert list(again.predict(frame, future=str(files["known"]))["ds"]) == list(found["ds"])
    validated = model.cross_validation(frame, windows=2)
    assert list(validated.columns[:4]) == ["unique_id", "ds", "cutoff", "y"]


@pytest.mark.parametrize(
    "model_settings",
    [
        {"kind": "steps"},
        {"kind": "transformer"},
        {"cell": "lstm", "layers": 2},
        {"members": 3},
        {"members": 2, "unaided": 1},
        {"unaided": 1},
    ],
)
def test_other_networks_learn_the_same(model_settings, files, tmp_path):
    found = tt.train(
        "forecast",
        [files["history"]],
        out=tmp_path / "run",
        steps=150,
        data={"horizon": 12, "future": "price"},
        model={"hidden_size": 16, **model_settings},
        training={"evaluations": 4},
        progress=False,
    )
    scores = found.evaluate([files["history"], files["truth"]])
    assert scores["mase"] < scores["naive"]["mase"]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_members_forecast_their_median_and_those_without_help_know_no_linear_forecast(count):
    sizes = Sizes(history=12, look_back=6, horizon=4, segment=2, known=0, past=0, static=0, series=2, quantiles=3)
    torch.manual_seed(0)

    def make(aided):
        return Segments(Unrolled("gru", 8, 1, 0.0), 8, 0.0, sizes, 2, aided=aided)

    network = Forecaster([partial(make, i % 2 == 0) for i in range(count)], [0.1, 0.5, 0.9]).eval()
    none, values = torch.zeros(5, 16, 0), torch.randn(5, 12)
    window = Window(
        values, none[:, :4], none[:, 0, :0], torch.ones(5), none, none[:, :12], none[:, 0], torch.ones(5).long(), none
    )
    for member in network.members:
        torch.nn.init.normal_(member.output.weight)
    before = [m(window) for m in network.members if not m.aided]
    plain = torch.stack([member(window) for member in network.members])
    assert torch.equal(
        network.normalised(window), torch.from_numpy(np.median(plain.detach().numpy(), 0)).sort(-1).values
    )
    for member in network.members:
        if member.aided:
            member.linear.normal_()
        else:
            assert not any("linear" in name or "voice" in name for name in member.state_dict())
    assert all(
        torch.equal(a, b) for a, b in zip(before, [m(window) for m in network.members if not m.aided], strict=True)
    )
    assert not torch.equal(plain[0], network.members[0](window))


@pytest.mark.filterwarnings("ignore:.*left out")
def test_members_are_heard_that_forecast_held_out_windows_best(files, tmp_path):
    made = tt.train(
        "forecast",
        [files["history"]],
        out=tmp_path / "run",
        steps=60,
        data={"horizon": 12},
        model={"hidden_size": 8, "members": 2, "unaided": 1},
        training={"evaluations": 3},
        progress=False,
    )
    settled = json.loads((tmp_path / "run" / "settled.json").read_text())
    assert settled == {"heard": [0]}, "what learns all by itself is far off after 60 steps"
    found = next(made.answers(made.task.read(made.config, [files["history"]]), made.task.predict_options()))
    made.network.heard = [0, 1]
    other = next(made.answers(made.task.read(made.config, [files["history"]]), made.task.predict_options()))
    assert found["forecast"] != other["forecast"]
    again = tt.load(tmp_path / "run")
    assert again.network.heard == [0]
    assert next(again.answers(made.task.read(made.config, [files["history"]]), made.task.predict_options())) == found
    held = Window(**read_tensors(tmp_path / "run" / "held.safetensors")[0])
    with torch.no_grad():  # what came is what the other one says, or the mean of both
        each = [member(held)[..., 5] * held.scale.unsqueeze(1) for member in again.network.members]
        for target, right in ((each[1], [1]), ((each[0] + each[1]) / 2, [0, 1]), (each[0], [0])):
            again.network.choose([held._replace(target=target)])
            assert again.network.heard == right


def test_no_more_can_be_without_help_than_there_are(files, tmp_path):
    with pytest.raises(UserError, match=r"model.unaided: 3 of model.members, 2; use no more than these"):
        settings = {"members": 2, "unaided": 3}
        tt.train("forecast", [files["history"]], out=tmp_path / "run", steps=1, model=settings, progress=False)


def test_travel_goes_back_changes_a_value_and_shows_both_futures(model, files, tmp_path, capsys, monkeypatch):
    rows = [[r["ds"], r["y"], r["price"]] for r in table(files["whole"].read_text()) if r["unique_id"] == "a"]
    path = write(tmp_path / "a.csv", [["ds", "y", "price"], *rows])
    commands = b"back 12\nset 2008-12 10\nset 3 5\nreset\nfutures\nset 2030-01 1\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(commands)))
    code, out, err = run("travel", model.run.folder, path, "--json", capsys=capsys)
    first, back, other, both, reset, futures = map(json.loads, out.splitlines())
    assert first["present"] == 120 and (back["present"], back["time"]) == (108, "2008-12")
    assert set(other["futures"]) == {"as it was", "changed"} and other["dates"] == months(120)[108:]
    assert np.abs(np.subtract(*other["futures"].values())).max() > 5
    assert both["futures"]["as it was"] == other["futures"]["as it was"]
    assert reset["changed"] == {} and set(futures["futures"]) == {"as it was"}
    assert code == 2 and "there is no step '2030-01'; they go from 0 to 119, 2000-01 to 2009-12" in err


def test_the_linear_forecast_is_found_where_there_is_one(tmp_path):
    """x_{t+1} = 1.6 x_t - x_{t-1}, a wave of no whole period: from two values all that comes is known."""
    wave = [0.0, 1.0]
    for _ in range(300):
        wave.append(1.6 * wave[-1] - wave[-2])
    path = write(tmp_path / "wave.csv", [["unique_id", "ds", "y"], *(["w", i, v] for i, v in enumerate(wave))])
    found = tt.train("forecast", [path], out=tmp_path / "run", steps=1, data={"horizon": 8}, progress=False)
    made = [row["forecast"] for row in found.predict(path)]
    for _ in range(8):
        wave.append(1.6 * wave[-1] - wave[-2])
    assert np.abs(np.subtract(made, wave[-8:])).max() < 0.05


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_mirror_image_of_a_series_has_the_mirror_image_of_its_forecast(symmetric, files, tmp_path):
    path = write(tmp_path / "one.csv", [["ds", "y"], *zip(months(96), (seasonal(96) - 120).tolist(), strict=True)])
    settings = {"symmetric": symmetric, "look_back": 24, "history": 36, "hidden_size": 8}
    found = tt.train(
        "forecast", [path], out=tmp_path / "run", steps=60, data={"horizon": 12}, model=settings,
        training={"evaluations": 4}, progress=False,
    )  # fmt: skip
    mirrored = write(
        tmp_path / "mirrored.csv", [["ds", "y"], *zip(months(96), (120 - seasonal(96)).tolist(), strict=True)]
    )
    one, other = (list(found.predict(file, level="80")) for file in (path, mirrored))
    apart = max(abs(a["forecast"] + b["forecast"]) for a, b in zip(one, other, strict=True))
    assert (apart < 1e-3) == symmetric


def test_a_history_shorter_than_the_look_back_is_refused(files, tmp_path):
    with pytest.raises(UserError, match=r"model.history: 12 is less than model.look_back"):
        tt.train(
            "forecast",
            [files["history"]],
            out=tmp_path / "run",
            steps=1,
            model={"history": 12, "look_back": 24},
            progress=False,
        )


def test_with_few_windows_it_is_the_seasonal_naive_forecast(tmp_path):
    noise = np.random.default_rng(3).normal(size=26)
    values = np.tile(np.arange(12.0), 3)[:26] * 10 + noise
    path = write(tmp_path / "few.csv", [["ds", "y"], *zip(months(26), values.tolist(), strict=True)])
    found = tt.train("forecast", [path], out=tmp_path / "run", steps=1, data={"horizon": 6}, progress=False)
    made = [row["forecast"] for row in found.predict(path)]
    assert np.abs(np.array(made) - values[14:20]).max() < 15


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--level", "120"], "--level: got '120'; a level is a share in percent"),
        (["--anomalies", "--samples", "3"], "--samples: --anomalies tells of what was"),
    ],
)
def test_options_that_cannot_be_are_refused(model, files, options, said, capsys):
    code, out, err = run("predict", model.run.folder, files["history"], *options, capsys=capsys)
    assert (code, out) == (2, "") and said in err
