"""`throughtime play`: the page as a user has it, in a real browser, and its numbers beside Python's."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

import throughtime as tt
from serving import Playing, Serving, eventually
from throughtime.scanning.observe import observing
from throughtime.tasks.futures import StreamFutures, obeyed
from throughtime.tasks.timeline import Timeline

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
    for t, tensor, unit, value in ((0, 0, 3, -0.5), (9, 1, 17, 1.5)):
        session.rewind(t)
        (state,) = session.state
        state[tensor][0, unit] = value
        session.edit(t, state=[state])
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


def travelled(model, *lines, text=TEXT):
    """What `throughtime travel --tokens` gives for a line after others."""
    session = model.session()
    session.feed(text)
    here = StreamFutures(Timeline(session, "tokens"))
    return [obeyed(here, line) for line in lines][-1], here


def test_what_is_spoken_to_it_is_what_travel_does(playing, model):
    asked = {"text": TEXT, "time": len(TEXT), "original": None}
    lines = [
        "back 3",
        "write 4",
        "set 1 h",
        'set 2 " "',
        "futures 5",
        "diff",
        "state",
        "swap",
        "go 5",
        "forward",
        "go 2",
        "help",
        "read xy",
    ]
    for n, line in enumerate(lines):
        values, here = travelled(model, *lines[: n + 1])
        found = httpx.post(f"{playing.url}/play/spoken", json={**asked, "line": line}).json()
        for key, value in json.loads(json.dumps(values)).items():
            assert found["values"][key] == approximately(value), line
        assert found["text"] == "".join(here.here.units) and found["time"] == here.here.present, line
        assert found["original"] == (None if here.other is None else "".join(here.other.units)), line
        asked = {key: found[key] for key in asked}
    for line, why in (
        ("bach 3", "did you mean 'branch'"),
        ("set 1 hh", "is 2 tokens"),
        ("back 99", "there is no place -"),
        ("save x", "unknown"),
    ):
        answer = httpx.post(f"{playing.url}/play/spoken", json={**asked, "line": line})
        assert answer.status_code == 400 and why in answer.json()["error"]["message"]
    odd = {**asked, "text": "aéb", "time": 0}  # what the vocabulary has not stays as it is typed
    assert httpx.post(f"{playing.url}/play/spoken", json={**odd, "line": "forward"}).json()["text"] == "aéb"
    assert httpx.post(f"{playing.url}/play/spoken", json={**odd, "line": "set 0 b"}).status_code == 400


def approximately(value):
    """The same but for the last digits: one session has read what another has gone back to."""
    if isinstance(value, dict):
        return {k: approximately(v) for k, v in value.items()}
    if isinstance(value, list):
        return [approximately(v) for v in value]
    return pytest.approx(value, rel=1e-4, abs=1e-9) if isinstance(value, float) else value


def test_what_it_would_write_is_what_a_session_writes(playing, model):
    session = model.session()
    session.feed(TEXT)
    (state,) = session.state
    session.rewind(9)
    (state,) = session.state
    state[1][0, :40] = -3.0
    session.edit(9, state=[state])
    puts = [{"time": 9, "layer": 0, "tensor": 1, "unit": u, "value": -3.0} for u in range(40)]
    written = {}
    for t in (9, 14):
        session.rewind(t)
        body = {"text": TEXT, "time": t, "length": 30}
        written[t] = httpx.post(f"{playing.url}/play/written", json={**body, "changes": puts}).json()["text"]
        assert written[t] == session.write(30)
        assert written[t] != httpx.post(f"{playing.url}/play/written", json=body).json()["text"]
    assert httpx.post(f"{playing.url}/play/tokens", json={"text": "aé"}).json() == {
        "tokens": [model.tokens.index["a"], 0]
    }


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


INSTEAD = {
    "ways": [
        "throughtime: the page shows how far back a label reaches (Reach); `throughtime predict {run} FILE` labels texts, "
        "`throughtime inspect {run} FILE` says what decided, `throughtime travel {run}` what if a word had been another\n"
    ]
}  # what is said of models for which the page has little


def test_models_without_columns_say_why(runs):
    for name, why in (("former", "a Transformer has no state to go back to"), ("ways", "answers whole inputs")):
        with Playing(runs / name) as made:
            about = told(made.url)
            assert about["columns"] is None and why in about["why_not"]
            answer = httpx.post(f"{made.url}/play/columns", json={"text": "a"})
            assert answer.status_code == 400 and why in answer.json()["error"]["message"]
        assert [line for line in made.said if "serving" not in line] == [
            line.format(run=runs / name) for line in INSTEAD.get(name, [])
        ]


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
    opens = ("index.html", "page.js", "shared.js", "page.css", "train.js")
    assert sum((STATIC / name).stat().st_size for name in opens) < 150 * 1024
    panels = ("panels.js", "panels.css", "microphone.js")  # for runs of other tasks than text
    assert sum((STATIC / name).stat().st_size for name in panels) < 50 * 1024
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


def until(page, so, seconds=15):
    """Wait until an expression of the page is true; what waits within the page is forbidden by its policy."""
    end = time.monotonic() + seconds
    while not page.evaluate(so):
        assert time.monotonic() < end, f"it never came to be so: {so}"
        page.wait_for_timeout(20)


def shown(value, digits=4):
    """A number as the page writes it."""
    if value != 0 and not 1e-4 <= abs(value) < 1e6:
        base, power = f"{value:.{digits - 1}e}".split("e")
        return f"{base}e{int(power):+d}".replace("-", "−")
    return repr(float(f"{value:.{digits}g}")).removesuffix(".0").replace("-", "−")


def percent(p):
    return f"{100 * p:.1f} %" if p >= 0.0005 else "< 0.1 %"


def likeliest(page, label="What comes next"):
    """The tokens that are listed, and their probabilities as they are written."""
    rows = page.get_by_role("list", name=label).get_by_role("listitem")
    words = [(row.locator("kbd").inner_text(), row.locator(".n").inner_text()) for row in rows.all()]
    return [(word.replace("␣", " ").replace("⏎", "\n"), p) for word, p in words]


def expected(session, k=8):
    return [(token, percent(p)) for token, p in session.next(k)]


def numbers(page):
    """The numbers of the unit that is chosen."""
    rows = page.locator(".numbers tr").all()
    return {row.locator("th").inner_text(): row.locator("td").inner_text() for row in rows}


def test_tape_shows_what_is_typed_step_by_step_by_keyboard_alone(tab, model):
    page = tab("#/tape?text=")
    at(page, 0, 0)
    session = model.session()
    assert likeliest(page) == expected(session)
    while page.evaluate("document.activeElement.tagName") != "TEXTAREA":
        page.keyboard.press("Tab")
    page.keyboard.type(TEXT, delay=5)
    at(page, len(TEXT), len(TEXT))
    session.feed(TEXT)
    assert likeliest(page) == expected(session)
    for _ in range(4):  # the caret is the present
        page.keyboard.press("ArrowLeft")
    at(page, len(TEXT) - 4, len(TEXT))
    session.rewind(len(TEXT) - 4)
    assert likeliest(page) == expected(session)
    while page.evaluate("document.activeElement.getAttribute('role')") != "slider":
        page.keyboard.press("Tab")
    page.keyboard.press("ArrowLeft")
    at(page, len(TEXT) - 5, len(TEXT))
    with observing() as scans, torch.no_grad():
        model.network.log_probabilities(torch.tensor([[1], *([i] for i in model.tokens.encode(TEXT).tolist())]))
    records = scans[0].records
    for steps in (1, 97):
        for _ in range(steps):
            page.keyboard.press("ArrowDown")
        unit = int(re.search(r"Unit (\d+)", page.get_by_role("heading", name="Unit ").inner_text())[1])
        found = numbers(page)
        for band, name in (
            ("input gate", "input"),
            ("forget gate", "forget"),
            ("cell value", "cell"),
            ("state c", "c"),
        ):
            assert float(found[band].replace("−", "-")) == pytest.approx(
                float(records[name][len(TEXT) - 5, 0, unit]), rel=1e-3
            )
    page.keyboard.press("Home")
    at(page, 0, len(TEXT))
    page.keyboard.press("Tab")  # the slider itself
    page.keyboard.press("ArrowRight")
    at(page, 1, len(TEXT))
    session.rewind(1)
    assert likeliest(page) == expected(session)
    until(page, "/at=1(&|$)/.test(location.hash)")
    page.reload()  # the address holds what is shown
    at(page, 1, len(TEXT))
    assert page.locator("textarea").input_value() == TEXT


def test_what_comes_next_can_be_written_and_bands_hidden(tab, model):
    page = tab("#/tape?text=But%20soft&at=4")
    at(page, 4, 8)
    session = model.session()
    session.feed("But ")
    token = session.next(3)[2][0]
    page.get_by_role("list", name="What comes next").get_by_role("button").nth(2).click()
    at(page, 5, 5)
    assert page.locator("textarea").input_value() == "But " + token
    tall = page.locator(".strip canvas").bounding_box()["height"]
    page.get_by_role("button", name="output gate").click()
    until(page, f"document.querySelector('.strip canvas').clientHeight < {tall - 90}")


def test_tape_is_spoken_to_as_travel_is(tab, model):
    page = tab(f"#/tape?text={TEXT}")
    at(page, len(TEXT), len(TEXT))
    line = page.get_by_label("A command")

    def speak(words):
        line.fill(words)
        line.press("Enter")

    speak("back 3")
    at(page, len(TEXT) - 3, len(TEXT))
    speak("set 1 h")
    until(page, f"document.querySelector('textarea').value === {json.dumps(TEXT[0] + 'h' + TEXT[2:])}")
    speak("futures 12")
    page.get_by_role("row", name="writes").wait_for()
    values, here = travelled(model, "back 3", "set 1 h", "futures 12")
    cells = page.get_by_role("row", name="writes").get_by_role("cell").all_inner_texts()
    assert cells == [
        values["futures"][name]["writes"].replace(" ", "␣").replace("\n", "⏎") for name in ("original", "here")
    ]
    speak("diff")
    page.get_by_role("columnheader", name="KL nats").wait_for()
    rows = page.locator(".said tbody tr").all()
    found = obeyed(here, "diff")["diff"]
    assert len(rows) == len(found)
    for row, value in list(zip(rows, found, strict=True))[:6]:
        texts = row.get_by_role("cell").all_inner_texts()
        assert texts[5:7] == [", ".join(shown(s, 3) for s in value["states"]), shown(value["divergence"], 3)]
    speak("write 20")
    at(page, len(TEXT) + 17, len(TEXT) + 17)
    here.here.write(20)
    assert page.locator("textarea").input_value() == here.here.session.text
    speak("help")
    assert "Go N words back" in page.locator(".help").inner_text()
    line.press("ArrowUp")
    line.press("ArrowUp")
    assert line.input_value() == "write 20"
    speak("dance")
    assert "unknown command 'dance'" in page.get_by_role("alert").inner_text()
    assert len(tab.wrong) == 1 and "400" in tab.wrong.pop()  # as the browser tells it


def test_fork_changes_what_was_read_by_keyboard_alone(tab, words_playing, runs):
    model, text = tt.load(runs / "words"), "; ".join(["3 sheep and 2 goats went over hill 4"] * 4)
    page = tab(f"#/fork?text={text}&at=3", url=words_playing.url)
    session = model.session()
    session.feed(text)
    last = session.time
    at(page, 3, last)
    group = page.get_by_role("group", name="Read instead")
    session.rewind(2)
    read = int(session.inputs(2, 3)[0])
    instead = next(token for token, _ in session.next(8) if token != model.tokens.entries[read])
    group.get_by_role("button").first.focus()
    page.keyboard.press("Enter")
    page.get_by_text("parts at time").wait_for()
    other = session.branch()
    other.edit(2, input=model.tokens.index[instead])
    difference = session.diff(other)
    facts = dict(
        zip(page.locator(".fact dt").all_inner_texts(), page.locator(".fact dd.n").all_inner_texts(), strict=True)
    )
    far = [t for (t, _), d in zip(difference.times, difference.states, strict=True) if max(d) >= 1e-3]
    assert facts["parts at time"] == str(difference.parts) == "3"
    assert far[-1] < last, "this network forgets"
    steps = far[-1] + 1 - 3
    assert facts["forgotten after"] == f"{steps} step{'s' * (steps != 1)}"
    assert facts["furthest apart"] == shown(max(max(d) for d in difference.states), 3)
    assert facts["another likeliest"] == f"{sum(difference.likeliest)} of {len(difference.times)}"
    for line, name in ((session, "As it was"), (other, "After the change")):
        line.rewind(3)
        assert likeliest(page, name) == expected(line)
    pre = page.locator(".futures pre")
    until(page, "document.querySelectorAll('.futures pre')[1].textContent.length > 0")
    for n, line in enumerate((session, other)):
        assert pre.nth(n).text_content().split() == line.write(60).split()
    page.get_by_role("button", name="Take back").press("Enter")
    page.get_by_text("change something in the past").wait_for()


def test_fork_drags_a_unit_and_takes_another_character(tab, model):
    page = tab(f"#/fork?text={TEXT}&at=8")
    at(page, 8, len(TEXT))
    canvas = page.locator(".strip canvas")
    canvas.press("ArrowDown")
    slider = page.get_by_label(re.compile(r"h of unit \d+"))
    unit = int(re.search(r"\d+", page.locator(".change label").last.inner_text())[0])
    for _ in range(9):
        slider.press("ArrowRight")
    page.get_by_text("parts at time").wait_for()
    page.wait_for_timeout(500)  # until all of it is in the address
    value = json.loads(page.evaluate("new URLSearchParams(location.hash.split('?')[1]).get('changes')"))
    assert [(c["time"], c["layer"], c["tensor"], c["unit"]) for c in value] == [(8, 0, 0, unit)]
    session = model.session()
    session.feed(TEXT)
    other = session.branch()
    other.rewind(8)
    (state,) = other.state
    assert value[0]["value"] > float(state[0][0, unit])
    state[0][0, unit] = value[0]["value"]
    other.edit(8, state=[state])
    furthest = max(max(d) for d in session.diff(other).states)
    texts = "[...document.querySelectorAll('.fact dd.n')].map(e => e.textContent)"
    until(page, f"{texts}.includes({json.dumps(shown(furthest, 3))})")
    page.get_by_label("or type another").fill("Q")
    until(page, "document.querySelectorAll('.changes li').length === 2")
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 480)  # in the state c
    page.mouse.down()
    for up in (5, 20, 40):
        page.mouse.move(box["x"] + 100, box["y"] + 480 - up)
    page.mouse.up()
    until(page, "document.querySelectorAll('.changes li').length === 3")
    until(page, "JSON.parse(new URLSearchParams(location.hash.split('?')[1]).get('changes')).length === 3")
    page.wait_for_timeout(500)  # until the last of the moves is in the address
    dragged = json.loads(page.evaluate("new URLSearchParams(location.hash.split('?')[1]).get('changes')"))[-1]
    session.rewind(dragged["time"])
    most = next(b["most"] for b in told(page.url.split("/#")[0])["columns"] if b["key"] == "0.c")
    _, rows = columns(
        page.url.split("/#")[0], text=TEXT, changes=[value[0], {"time": 7, "token": model.tokens.index["Q"]}]
    )
    assert dragged["tensor"] == 1 and dragged["time"] == 6
    assert dragged["value"] == pytest.approx(rows["0.c"][6, dragged["unit"]] + 0.4 * most, rel=1e-2)


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
        told = page.locator(".instead").all_inner_texts()
        assert len(told) == (name == "ways") and all("`throughtime inspect ways FILE`" in line for line in told)
