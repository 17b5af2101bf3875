"""`throughtime play`: the page as a user has it, in a real browser, and its numbers beside Python's."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

import throughtime as tt
from serving import Playing, Serving, eventually
from throughtime.scanning.observe import observing

pytestmark = pytest.mark.usefixtures("_one_thread")

ROOT = Path(__file__).parent.parent
STATIC = ROOT / "src/throughtime/play/static"
EXAMPLE = ROOT / "src/throughtime/play/shakespeare"
PAGE = ROOT / "page"
LINES = "".join(f"{i % 7} sheep and {i % 3} goats went over hill {i % 5};\n" for i in range(300))
TEXT = "But soft, what light"


@pytest.fixture(scope="module")
def runs(tmp_path_factory, _one_thread):
    """A language model of words in two layers, a Transformer, and a classifier."""
    folder = tmp_path_factory.mktemp("play")
    (folder / "text.txt").write_text(LINES)
    (folder / "rows.csv").write_text(
        "text,label\n" + "".join(f"{w} {i},{w}\n" for i in range(60) for w in ("up", "down"))
    )
    words = {"tokens": "words", "cell": "gru", "hidden_size": 20, "embedding_size": 12, "layers": 2}
    text = folder / "text.txt"
    tt.train("text", [text], out=folder / "words", steps=60, model=words, progress=False)
    tt.train(
        "text", [text], out=folder / "former", steps=5, model={"kind": "transformer", "hidden_size": 16}, progress=False
    )
    tt.train("classify", [folder / "rows.csv"], out=folder / "ways", steps=20, model={"hidden_size": 8}, progress=False)
    return folder


@pytest.fixture(scope="module")
def model():
    return tt.load(EXAMPLE)


# ------------------------------------------------------------------------------------------------ what it is asked


def unpacked(content):
    """The head of a binary answer, and its arrays by name."""
    length = int.from_bytes(content[:4], "little")
    head, at = json.loads(content[4 : 4 + length]), 4 + length
    assert at % 4 == 0
    found = {}
    for array in head["arrays"]:
        size = 4 * int(np.prod(array["shape"]))
        found[array["name"]] = np.frombuffer(content[at : at + size], "<" + array["type"]).reshape(array["shape"])
        at += size
    assert at == len(content)
    return head, found


def columns(url, **body):
    answer = httpx.post(f"{url}/play/columns", json=body, timeout=30)
    assert answer.status_code == 200, answer.text
    return unpacked(answer.content)


def told(url):
    (found,) = httpx.get(f"{url}/play/models", timeout=30).json()["models"]
    return found


@pytest.mark.parametrize("name", ["shakespeare", "words"])
def test_the_columns_are_those_of_a_session_and_of_observing(name, playing, runs, request):
    if name == "shakespeare":
        url, model, text = playing.url, request.getfixturevalue("model"), TEXT
    else:
        served = request.getfixturevalue("words_playing")
        url, model, text = served.url, tt.load(runs / "words"), "3 sheep and 2 goats went over hill 4"
    head, rows = columns(url, text=text, top=5)
    session, ids = model.session(), model.tokens.encode(text).tolist()
    assert head["tokens"] == ids and head["time"] == len(ids) and len(rows["p"]) == len(ids) + 1
    bands = told(url)["columns"]
    for t in range(len(ids) + 1):
        if t:
            before = session.log_p[ids[t - 1]].exp()
            assert rows["p"][t] == pytest.approx(float(before), rel=1e-5)
            session.feed(ids[t - 1])
        state = [s if isinstance(s, tuple) else (s,) for s in session.state]
        for band in (b for b in bands if b["kind"] == "state"):
            np.testing.assert_array_equal(rows[band["key"]][t], state[band["layer"]][band["tensor"]][0].numpy())
        expected = session.next(5)
        assert [head["entries"][str(token)] for token in rows["next.token"][t]] == [token for token, _ in expected]
        np.testing.assert_allclose(rows["next.p"][t], [p for _, p in expected], rtol=1e-5)
    with observing() as scans, torch.no_grad():
        model.network.log_probabilities(torch.tensor([[1], *([i] for i in ids)]))
    watched = [b for b in bands if b["kind"] != "state"]
    assert {b["name"] for b in watched} == (
        {"input", "forget", "cell", "output"} if name == "shakespeare" else {"reset", "update", "new"}
    )
    assert {b["layer"] for b in bands} == set(range(len(scans)))
    for band in watched:
        seen = scans[band["layer"]].records[band["name"]][:, 0].numpy()
        np.testing.assert_allclose(rows[band["key"]], seen, atol=2e-5)
        assert band["kind"] == ("value" if band["name"] in ("cell", "new") else "gate")
        assert sorted(band["order"]) == list(range(band["units"])) and band["units"] == seen.shape[1]


@pytest.fixture(scope="module")
def words_playing(runs):
    with Playing(runs / "words") as made:
        yield made
    assert made.said[1:] == []


def test_what_is_typed_on_is_the_same_as_what_is_read_at_once(playing):
    _, whole = columns(playing.url, text=TEXT + " breaks")
    for n in range(len(TEXT), len(TEXT) + 8):
        head, rows = columns(playing.url, text=(TEXT + " breaks")[:n], since=n)
        assert head["since"] == n and len(rows["p"]) == 1
        for name, values in rows.items():
            if not name.startswith("next"):
                np.testing.assert_array_equal(values[0], whole[name][n])
    head, rows = columns(playing.url, text=TEXT[:6] + "X", since=0)  # and back
    np.testing.assert_array_equal(rows["0.c"][:7], whole["0.c"][:7])


def test_a_change_is_a_sessions_edit(playing, model):
    ids = model.tokens.encode(TEXT).tolist()
    other = model.tokens.index["X"]
    changes = [
        {"time": 4, "token": other},
        {"time": 9, "layer": 0, "tensor": 1, "unit": 17, "value": 1.5},
        {"time": 0, "layer": 0, "tensor": 0, "unit": 3, "value": -0.5},
    ]
    head, rows = columns(playing.url, text=TEXT, changes=changes)
    session = model.session()
    session.feed(TEXT)
    session.edit(4, input=other)
    for time, tensor, unit, value in ((0, 0, 3, -0.5), (9, 1, 17, 1.5)):
        session.rewind(time)
        (state,) = session.state
        state[tensor][0, unit] = value
        session.edit(time, state=[state])
    assert head["tokens"] == [*ids[:4], other, *ids[5:]]
    for t in range(len(ids) + 1):
        session.rewind(t)
        np.testing.assert_array_equal(rows["0.h"][t], session.state[0][0][0].numpy())
        np.testing.assert_array_equal(rows["0.c"][t], session.state[0][1][0].numpy())


def test_how_far_two_pasts_part_is_a_sessions_difference(playing, model):
    text, unit = (
        TEXT + ", what light through yonder window breaks? It is the east",
        {"layer": 0, "tensor": 1, "unit": 5},
    )
    one, other = model.session(), model.session()
    one.feed(text)
    other.feed(text.replace("soft", "sift"))
    expected = one.diff(other)
    body = {"one": {"text": text}, "other": {"text": text.replace("soft", "sift")}}
    found = httpx.post(f"{playing.url}/play/parting", json=body).json()
    assert found["parts"] == expected.parts == 6 and found["times"] == [a for a, _ in expected.times]
    np.testing.assert_allclose(found["states"], expected.states, rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(found["divergence"], expected.divergence, rtol=1e-5, atol=1e-12)
    assert found["likeliest"] == expected.likeliest
    far = [t for t, (d,) in zip(found["times"], found["states"], strict=True) if d >= found["threshold"]]
    assert far and found["forgotten"] == (far[-1] + 1 if far[-1] < len(text) else None)
    body["other"] = {"text": text, "changes": [{"time": 12, **unit, "value": 0.25}]}
    assert httpx.post(f"{playing.url}/play/parting", json=body).json()["parts"] == 12
    body["other"] = body["one"]
    same = httpx.post(f"{playing.url}/play/parting", json=body).json()
    assert same["parts"] is None and same["forgotten"] is None and same["times"] == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "give text or tokens"),
        ({"text": "a", "tokens": [3]}, "give text or tokens"),
        ({"text": "a", "since": 9}, "since: there is no time 9; they go from 0 to 1"),
        ({"text": "a", "changes": [{"time": 1, "token": 5}]}, "changes.0: no token is read at time 1"),
        ({"text": "a", "changes": [{"time": 1, "unit": 5}]}, "changes.0: give token, or layer, tensor, unit and value"),
        ({"text": "a", "changes": [{"time": 2, "layer": 0, "tensor": 0, "unit": 0, "value": 1}]}, "there is no time 2"),
        (
            {"text": "a", "changes": [{"time": 1, "layer": 1, "tensor": 0, "unit": 0, "value": 1}]},
            "there is no layer 1",
        ),
        (
            {"text": "a", "changes": [{"time": 1, "layer": 0, "tensor": 2, "unit": 0, "value": 1}]},
            "there is no tensor 2",
        ),
        (
            {"text": "a", "changes": [{"time": 1, "layer": 0, "tensor": 0, "unit": 96, "value": 1}]},
            "there is no unit 96",
        ),
        ({"tokens": [1000]}, "there is no token 1000"),
        ({"text": "a" * 20_001}, "the page shows up to 20,000"),
        ({"text": "a", "model": "b"}, "unknown model 'b'"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(playing, body, said):
    answer = httpx.post(f"{playing.url}/play/columns", json=body)
    assert answer.status_code in (400, 404, 413)
    assert said in answer.json()["error"]["message"]


def test_models_without_columns_say_why(runs):
    for name, why in (("former", "a Transformer has no state to go back to"), ("ways", "answers whole inputs")):
        with Playing(runs / name) as made:
            about = told(made.url)
            assert about["columns"] is None and why in about["why_not"]
            answer = httpx.post(f"{made.url}/play/columns", json={"text": "a"})
            assert answer.status_code == 400 and why in answer.json()["error"]["message"]
        assert made.said[1:] == []


def test_the_browser_is_opened_by_itself(tmp_path):
    opened = tmp_path / "opened"
    program = tmp_path / "browser"
    program.write_text(f'#!/bin/sh\necho "$1" > {opened}.part; mv {opened}.part {opened}\n')
    program.chmod(0o755)
    with Serving(verb="play", env={"BROWSER": f"{program} %s"}) as made:
        eventually(opened.exists)
        assert opened.read_text().strip() == made.url


# ------------------------------------------------------------------------------------------------ its files


def test_the_page_is_small_and_what_comes_along_too():
    assert sum((STATIC / name).stat().st_size for name in ("index.html", "page.js", "page.css", "train.js")) < 150_000
    assert sum(path.stat().st_size for path in EXAMPLE.iterdir()) < 400_000


def test_the_page_is_built_from_its_source(tmp_path):
    if shutil.which("node") is None or not (PAGE / "node_modules").is_dir():
        pytest.skip("no node, or no page/node_modules: make page")
    subprocess.run(["node", "build.mjs", tmp_path], cwd=PAGE, check=True, capture_output=True)
    for built in tmp_path.iterdir():
        assert built.read_bytes() == (STATIC / built.name).read_bytes(), f"{built.name}: make page"
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in STATIC.iterdir()}


def test_the_lockfile_names_no_registry():
    lock = (PAGE / "package-lock.json").read_text()
    assert "resolved" not in lock
    package = json.loads((PAGE / "package.json").read_text())
    assert all(
        re.fullmatch(r"[\d.]+", v) for kind in ("dependencies", "devDependencies") for v in package[kind].values()
    )


# ------------------------------------------------------------------------------------------------ in a browser

SCREENS = re.findall(
    r"^  name: \"(\w+)\"", "\n".join(p.read_text() for p in sorted((PAGE / "src/screens").glob("*.js"))), re.M
)
AXE = PAGE / "node_modules/axe-core/axe.min.js"


def at(page, time, last):
    """Wait until this time is shown."""
    page.wait_for_selector(f'.strip canvas[aria-valuenow="{time}"][aria-valuemax="{last}"]')


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("name", SCREENS)
def test_axe_finds_nothing_serious(tab, name, width, theme):
    if not AXE.is_file():
        pytest.skip("no page/node_modules/axe-core: make page")
    page = tab(f"#/{name}", width=width, theme=theme)
    page.wait_for_timeout(600)
    page.evaluate(AXE.read_text() + "; undefined")
    found = page.evaluate("axe.run()")["violations"]
    serious = [
        (v["id"], v["help"], [n["html"] for n in v["nodes"]][:3])
        for v in found
        if v["impact"] in ("serious", "critical")
    ]
    assert serious == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"


def test_its_policy_lets_nothing_leave(tab, playing):
    page = tab()
    policy = httpx.get(playing.url).headers["content-security-policy"]
    assert policy.startswith("default-src 'none'") and "unsafe-inline" not in policy
    assert page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'came', () => 'did not')") == "did not"
    assert any("violates" in line or "asks" in line for line in tab.wrong)  # the browser says so
    tab.wrong.clear()


@pytest.mark.parametrize("name", ["former", "ways"])
def test_with_other_models_a_screen_says_what_it_cannot(tab, runs, name):
    with Playing(runs / name) as made:
        page = tab("#/tape", url=made.url)
        assert "is not read token by token" in page.locator(".empty").inner_text()
