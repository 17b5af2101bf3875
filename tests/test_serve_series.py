"""Streams of a forecaster over HTTP, beside its own session in Python."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import httpx
import numpy as np
import pytest

import throughtime as tt
from serving import Serving

pytestmark = pytest.mark.usefixtures("_one_thread")
HORIZON, READ = 6, 84
JSON = {"Content-Type": "application/json"}


def months(start, stop):
    return [f"{2000 + i // 12}-{i % 12 + 1:02}" for i in range(start, stop)]


@pytest.fixture(scope="module")
def rows():
    generator = np.random.default_rng(3)
    prices = generator.integers(0, 2, 120)
    values = 100 + 0.3 * np.arange(120) + 20 * np.sin(np.arange(120) / 2) - 9 * prices + generator.normal(size=120)
    return [
        {"ds": when, "y": round(float(v), 3), "price": int(p)}
        for when, v, p in zip(months(0, 120), values, prices, strict=True)
    ]


def csv_of(rows, price):
    names = ["ds", "y", "price"] if price else ["ds", "y"]
    return "".join(",".join(map(str, line)) + "\n" for line in [names, *([r[name] for name in names] for r in rows)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, rows, _one_thread):
    folder = tmp_path_factory.mktemp("series")
    for name, price in (("sales", True), ("plain", False)):
        (folder / f"{name}.csv").write_text(csv_of(rows, price))
        tt.train(
            "forecast",
            [folder / f"{name}.csv"],
            out=folder / name,
            steps=20,
            data={"horizon": HORIZON, **({"future": "price"} if price else {})},
            model={"kind": "steps", "hidden_size": 8},
            progress=False,
        )
    return folder


@pytest.fixture(scope="module")
def server(folder):
    with Serving(folder / "sales", folder / "plain", "--port", 0, "--store", folder / "store") as made:
        yield made


@pytest.fixture
def api(server):
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def session_of(folder, name, rows, tmp_path):
    """The same in Python."""
    (tmp_path / "history.csv").write_text(csv_of(rows, name == "sales"))
    return tt.load(folder / name).session(tmp_path / "history.csv")


def history_of(rows):
    """Without a price."""
    return [{"ds": row["ds"], "y": row["y"]} for row in rows]


def steps(api, id, first, **body):
    answer = api.post(f"/v1/sessions/{id}/steps", json={"first": first, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def same(answer, found, ds):
    assert answer["ds"] == ds
    assert answer.keys() - {"first", "time", "ds"} == found.keys()
    for name, values in found.items():
        assert np.allclose(answer[name], values, rtol=1e-6, atol=0), name


@pytest.mark.parametrize("as_text", [True, False])
def test_a_stream_of_values_is_that_of_python(api, folder, rows, tmp_path, as_text):
    session = session_of(folder, "sales", rows[:READ], tmp_path)
    history = (tmp_path / "history.csv").read_text() if as_text else rows[:READ]
    made = api.post("/v1/sessions", json={"model": "sales", "history": history}).json()
    assert made["time"] == READ == session.time
    for t in range(READ, READ + 4):
        given = [None if t == READ + 2 else rows[t]["y"], rows[t]["price"]]
        answer = steps(api, made["id"], t, values=[given], level="50,90")
        session.feed([float("nan") if v is None else v for v in given])
        same(answer, session.forecast("50,90"), months(t + 1, t + 1 + HORIZON))
    ahead = [[float(row["price"])] for row in rows[READ + 4 : READ + 4 + HORIZON]]
    answer = steps(api, made["id"], READ + 3, values=[[rows[READ + 3]["y"], rows[READ + 3]["price"]]], ahead=ahead)
    same(answer, session.forecast(known=np.array(ahead)), months(READ + 4, READ + 4 + HORIZON))


def test_the_past_can_be_gone_back_to_changed_and_compared(api, folder, rows, tmp_path):
    session = session_of(folder, "plain", rows[:READ], tmp_path)
    id = api.post("/v1/sessions", json={"model": "plain", "history": history_of(rows[:READ])}).json()["id"]
    values = [row["y"] for row in rows[READ : READ + 5]]
    steps(api, id, READ, values=values)
    other = api.post(f"/v1/sessions/{id}/branch", json={"time": READ + 5}).json()["id"]
    assert api.post(f"/v1/sessions/{other}/edit", json={"time": 40, "value": 300.0}).json()["time"] == READ + 5
    session.feed(values)
    changed = session.branch()
    changed.edit(40, input=300.0)
    found = api.post(f"/v1/sessions/{id}/diff", json={"other": other}).json()
    assert found["parts"] == session.diff(changed).parts == 41
    changed.feed(rows[READ + 5]["y"])
    answer = steps(api, other, READ + 5, values=[rows[READ + 5]["y"]])
    same(answer, changed.forecast(), months(READ + 6, READ + 6 + HORIZON))
    missing = changed.branch()
    missing.edit(READ, input=float("nan"))
    assert api.post(f"/v1/sessions/{other}/edit", json={"time": READ, "value": None}).status_code == 200
    missing.feed(1.0)
    same(steps(api, other, READ + 6, values=[1.0]), missing.forecast(), months(READ + 7, READ + 7 + HORIZON))
    assert api.post(f"/v1/sessions/{id}/rewind", json={"time": 30}).status_code == 200
    session.rewind(30)
    session.feed(7.0)
    same(steps(api, id, 30, values=[7.0]), session.forecast(), months(31, 31 + HORIZON))


def test_it_goes_on_after_a_kill(folder, rows, tmp_path):
    with Serving(folder / "plain", "--port", 0, "--store", tmp_path / "store") as server:
        with httpx.Client(base_url=server.url, timeout=30) as api:
            id = api.post("/v1/sessions", json={"history": history_of(rows[:READ])}).json()["id"]
            before = steps(api, id, READ, values=[1.0, 2.0])
        server.kill_child()
        with httpx.Client(base_url=server.url, timeout=30, transport=httpx.HTTPTransport(retries=9)) as api:
            assert steps(api, id, READ, values=[1.0, 2.0]) == before
            after = steps(api, id, READ + 2, values=[3.0])
        session = session_of(folder, "plain", rows[:READ], tmp_path)
        session.feed([1.0, 2.0, 3.0])
        same(after, session.forecast(), months(READ + 3, READ + 3 + HORIZON))


@pytest.mark.parametrize(
    ("model", "body", "words"),
    [
        ("plain", {}, "history: give the series up to now"),
        ("plain", {"history": ""}, "history: "),
        ("plain", {"history": "ds,y\n2000-01,x\n2000-02,2\n"}, "history:2: "),
        ("plain", {"history": "unique_id,ds,y\na,1,1\na,2,2\na,3,1\nb,1,1\nb,2,2\nb,3,1\n"}, "and there are 2"),
        ("sales", {"history": [{"ds": "2000-01", "y": 1.0}, {"ds": "2000-02", "y": 2.0}]}, "price"),
    ],
)
def test_a_history_that_cannot_be_read_makes_no_session(api, model, body, words):
    before = len(api.get("/v1/sessions?limit=1000").json()["data"])
    answer = api.post("/v1/sessions", json={"model": model, "id": "bad", **body})
    assert answer.status_code == 400 and words in answer.json()["error"]["message"], answer.text
    assert len(api.get("/v1/sessions?limit=1000").json()["data"]) == before


@pytest.mark.parametrize(
    ("model", "body", "words"),
    [
        ("plain", {"values": []}, "inputs: 0 of them"),
        ("plain", {"text": "a"}, "text: give values"),
        ("plain", {"values": [[1.0, 2.0]]}, "a value and 0 covariates"),
        ("plain", {"values": [1e400]}, "values"),
        ("sales", {"values": [1.0]}, "a value and 1 covariates"),
        ("sales", {"values": [[1.0, 2.0], [1.0]]}, "all as long"),
        ("sales", {"values": [[1.0, None]]}, "covariates must be known"),
        ("sales", {"values": [[1.0, 1.0]], "level": "120"}, "120"),
        ("sales", {"values": [[1.0, 1.0]], "ahead": [[1.0]]}, f"for each of {HORIZON} steps"),
        ("sales", {"values": [[1.0, 1.0]], "top": 3}, "top: of a model that gives probabilities"),
    ],
)
def test_what_cannot_be_read_is_not_read(api, rows, model, body, words):
    history = csv_of(rows[:40], model == "sales")
    id = api.post("/v1/sessions", json={"model": model, "history": history}).json()["id"]
    answer = api.post(f"/v1/sessions/{id}/steps", content=json.dumps({"first": 40, **body}), headers=JSON)
    assert 400 <= answer.status_code < 500 and words in answer.json()["error"]["message"], answer.text
    assert api.get(f"/v1/sessions/{id}").json()["time"] == 40


def test_the_commands_of_the_documentation_run(server):
    if shutil.which("curl") is None:
        pytest.skip("no curl on the PATH")
    docs = (Path(__file__).parent.parent / "docs/serve.md").read_text()
    lines = re.findall(r"^    curl (.*)$", re.search(r"^## Series$(.*?)^## ", docs, re.M | re.S)[1], re.M)
    assert len(lines) == 2
    script = "\n".join(f"curl -sS --fail-with-body {line}; echo" for line in lines).replace("sales", "plain")
    env = {**os.environ, "url": f"{server.url}/v1/sessions", "json": "Content-Type: application/json"}
    done = subprocess.run(["bash", "-ec", script], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and '"ds":["2025-05",' in done.stdout, done.stdout + done.stderr


def test_a_network_over_windows_says_that_it_has_no_stream(folder, tmp_path, rows):
    tt.train(
        "forecast",
        [folder / "plain.csv"],
        out=tmp_path / "w",
        steps=2,
        data={"horizon": 4, "target": "y"},
        progress=False,
    )
    with (
        Serving(tmp_path / "w", "--port", 0, "--store", tmp_path / "store") as server,
        httpx.Client(base_url=server.url) as api,
    ):
        answer = api.post("/v1/sessions", json={"history": history_of(rows)})
    assert answer.status_code == 400 and "--model.kind steps" in answer.json()["error"]["message"]
