"""The page of what a server answers, in a browser."""

from __future__ import annotations

import json

import httpx
import pytest
import torch
from safetensors.torch import load

import throughtime as tt
from serving import Serving

CODE = """
import pathlib, sys, torch, throughtime as tt
from throughtime.serve.running import listen, run
from throughtime.serve.settings import Settings
torch.manual_seed(0)
stack = tt.Recurrent(tt.cells.GRU, 3, 5)
listening = listen("127.0.0.1", 0)
url = f"http://127.0.0.1:{listening.getsockname()[1]}"
settings = Settings(pathlib.Path(sys.argv[1]), tokens=("alpha",), slots=4)
run({"mine": stack}, settings, listening, lambda: print("serving at", url, file=sys.stderr, flush=True))
"""
ROWS = [[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Serving(tmp_path_factory.mktemp("page"), code=CODE) as made:
        yield made
    assert made.said[1:] == []  # no traceback, no warning


@pytest.fixture
def tab(chromium, server):
    """The page, and in `tab.asked` what it has asked for; nothing may go wrong in it."""
    with chromium.new_context(viewport={"width": 390, "height": 800}) as context:
        tab, wrong = context.new_page(), []
        tab.asked = []
        tab.on("request", lambda request: tab.asked.append(request.url))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        tab.goto(f"{server.url}/docs")
        tab.get_by_text("/healthz").wait_for()
        yield tab
        assert not [words for words in wrong if "the server responded with a status of 40" not in words]
        assert tab.asked
        assert all(url.startswith((server.url + "/", "data:", "blob:" + server.url)) for url in tab.asked), tab.asked


def call(tab, method, path):
    """One call, opened by the keyboard."""
    found = tab.locator("details").filter(
        has=tab.locator("b", has_text=method).and_(tab.get_by_text(method, exact=True))
    ).filter(has=tab.locator("summary code").get_by_text(path, exact=True))  # fmt: skip
    found.locator("summary").focus()
    tab.keyboard.press("Enter")
    found.locator("form").wait_for()
    return found


def sent(found, status):
    """Send it. Returns: what is shown."""
    found.locator("button").focus()
    found.page.keyboard.press("Space")
    found.locator("[role=status]").get_by_text(str(status)).wait_for()
    found.locator("button:enabled").wait_for()
    return found.locator("pre").last.inner_text()


def test_all_that_is_answered_is_shown_and_nothing_is_asked_elsewhere(tab, server):
    spec = httpx.get(f"{server.url}/openapi.json").json()
    wanted = [f"{method.upper()} {path}" for path, methods in spec["paths"].items() for method in methods]
    shown = tab.locator("summary").evaluate_all(
        "all => all.map(s => s.children[0].innerText + ' ' + s.children[1].innerText)"
    )
    assert sorted(shown) == sorted(wanted)
    assert tab.locator("#version").inner_text() == tt.__version__
    tab.fill("#find", "post rewind")
    assert tab.locator("summary:visible code").all_inner_texts() == ["/v1/sessions/{id}/rewind"]
    tab.fill("#find", "")
    for element in tab.locator("summary").all():
        element.click()
    tab.locator("form").nth(len(wanted) - 1).wait_for()  # as many, once each is open
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_call_is_tried(tab, server):
    made = call(tab, "POST", "/v1/sessions")
    made.locator("textarea").fill('{"id": "it\'s"}')
    assert made.locator("pre").first.inner_text() == (
        f"curl -X POST '{server.url}/v1/sessions' -H 'content-type: application/json' -d '{{\"id\": \"it'\\''s\"}}'"
    )
    assert "send 'Authorization: Bearer TOKEN'" in sent(made, 401)
    tab.fill("#token", "alpha")
    assert 'authorization: Bearer $TOKEN"' in made.locator("pre").first.inner_text()
    assert "letters, digits" in sent(made, 400)
    made.locator("textarea").fill('{"id": "one"}')
    assert json.loads(sent(made, 201))["id"] == "one"
    steps = call(tab, "POST", "/v1/sessions/{id}/steps")
    assert json.loads(steps.locator("textarea").input_value()) == {"first": 0}
    steps.locator("input[name=id]").fill("one")
    steps.locator("textarea").fill(json.dumps({"first": 0, "inputs": ROWS}))
    answer = json.loads(sent(steps, 200))
    torch.manual_seed(0)
    stack = tt.Recurrent(tt.cells.GRU, 3, 5)
    alone = tt.Session(stack)
    torch.testing.assert_close(torch.tensor(answer["outputs"]), alone.feed(torch.tensor(ROWS)))
    state = call(tab, "GET", "/v1/sessions/{id}/state")
    state.locator("input[name=id]").fill("one")
    sent(state, 200)
    with tab.expect_download() as saved:
        state.locator("a[download]").click()
    whole = saved.value.path().read_bytes()
    torch.testing.assert_close(load(whole)["0.0"].flatten(), alone.state[0].flatten())
    put = call(tab, "PUT", "/v1/sessions/{id}/state")
    put.locator("input[name=id]").fill("one")
    put.locator("input[name=time]").fill("1")
    put.locator("input[type=file]").set_input_files({"name": "s", "mimeType": "", "buffer": whole})
    assert json.loads(sent(put, 200)) == {"id": "one", "time": 1}


def test_it_is_dark_and_light(tab):
    grounds = []
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        grounds.append(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(252, 252, 250)", "rgb(21, 23, 26)"]


def test_the_page_runs_no_script_but_its_own(server):
    with httpx.Client(base_url=server.url) as api:
        for path, kind in (("/docs", "text/html"), ("/docs/api.js", "text/javascript"), ("/docs/api.css", "text/css")):
            found = api.get(path)
            assert found.status_code == 200
            assert found.headers["content-type"].startswith(kind)
            assert "script-src 'self';" in found.headers["content-security-policy"]
            assert len(found.content) < 15_000
        assert api.get("/docs/../page.py").status_code in (401, 404)
