"""Sessions of music over HTTP and a WebSocket, beside the session of Python."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from safetensors.torch import load

import throughtime as tt
from serving import Serving, eventually
from test_music_session import KINDS, opening, parts, small, struck
from throughtime.tasks.clock import seconds
from throughtime.tasks.scores import read_pieces

websockets = pytest.importorskip("websockets.sync.client")
pytestmark = pytest.mark.usefixtures("_one_thread")
NOTES = "C4+E4 G4 E4+G4 C5"


@pytest.fixture(scope="module")
def folders(tmp_path_factory, _one_thread):
    """Of each kind of music a run, and a Transformer."""
    found = {}
    for kind, model in {**KINDS, "former": {"kind": "transformer"}}.items():
        small(tmp_path_factory.mktemp(kind), "frames" if kind == "former" else kind, **model)
        folder = tmp_path_factory.getbasetemp() / f"{kind}0" / "run"
        found[kind] = folder.rename(folder.with_name(kind))
    return found


@pytest.fixture(scope="module")
def server(folders, tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    with Serving(*folders.values(), "--port", 0, "--store", store, "--slots", 2) as made:
        yield made


@pytest.fixture
def api(server):
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def model(folders, kind):
    return tt.load(folders[kind])


def made(api, kind):
    answer = api.post("/v1/sessions", json={"model": kind})
    assert answer.status_code == 201, answer.text
    return f"/v1/sessions/{answer.json()['id']}"


def asked(api, path, **body):
    answer = api.post(path, json=body)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


def same_state(api, id, session):
    """Whether the server is where a session of Python is, to the bit."""
    found = load(api.get(f"{id}/state").content)
    wanted = {"output": session.output}
    for i, state in enumerate(session.state):
        wanted |= {f"{i}.{j}": t for j, t in enumerate(state if isinstance(state, tuple) else (state,))}
    assert found.keys() == wanted.keys()
    return all(torch.equal(found[name], t) for name, t in wanted.items())


def lists(moments):
    return [list(moment) for moment in moments]


def test_what_is_read_is_what_python_reads(api, kind, model):
    session, id = model.session(), made(api, kind)
    moments = opening(model)
    for low, high in ((0, 1), (1, 4), (4, len(moments))):
        answer = asked(api, f"{id}/steps", first=low, moments=lists(moments[low:high]), logprobs=True, top=4)
        told = session.feed(moments[low:high])
        assert answer["time"] == high
        np.testing.assert_allclose(answer["logprobs"], [-nats for nats in told], rtol=1e-4, atol=1e-5)
        expected = session.next(4)
        assert [n["notes"] for n in answer["next"]] == [words for words, _ in expected]
        np.testing.assert_allclose([n["p"] for n in answer["next"]], [p for _, p in expected], rtol=1e-4)
        assert same_state(api, id, session)
    if kind != "former":
        before = session.time
        answer = asked(api, f"{id}/steps", first=before, notes=NOTES)
        session.feed(NOTES)
        assert answer["time"] == session.time > before
        assert same_state(api, id, session)
    found = api.get(f"{id}/piece").json()
    assert found["moments"] == lists(session.moments()) and found["words"] == session.words
    piece = session.piece
    assert [n["pitch"] for n in found["notes"]] == piece.notes["pitch"].tolist()
    np.testing.assert_allclose([[n["start"], n["end"]] for n in found["notes"]], seconds(piece), atol=1e-5)
    assert {n["program"] for n in found["notes"]} == ({32, 73, 128} if kind == "tracks" else {0})


def test_a_piece_comes_back_as_midi_and_can_be_read(api, kind, model, tmp_path):
    id, other = made(api, kind), made(api, kind)
    asked(api, f"{id}/steps", first=0, moments=lists(opening(model)))
    answer = api.get(f"{id}/piece.mid")
    assert answer.headers["content-type"] == "audio/midi"
    (tmp_path / "piece.mid").write_bytes(answer.content)
    (piece,) = read_pieces(tmp_path / "piece.mid")
    assert len(piece) == len(api.get(f"{id}/piece").json()["notes"])
    asked(api, f"{other}/steps", first=0, notes="data:audio/midi;base64," + base64.b64encode(answer.content).decode())
    session = model.session()
    session.feed(piece)
    assert api.get(f"{other}/piece").json()["moments"] == lists(session.moments())


def test_a_request_that_comes_twice_is_read_once(api, kind, model):
    id = made(api, kind)
    once = asked(api, f"{id}/steps", first=0, notes=NOTES, logprobs=True)
    assert asked(api, f"{id}/steps", first=0, notes=NOTES, logprobs=True) == once
    then = asked(api, f"{id}/steps", first=once["time"], notes="D4")
    assert asked(api, f"{id}/steps", first=once["time"], notes="D4") == then
    assert asked(api, f"{id}/steps", first=0, notes=NOTES, logprobs=True) == once
    answer = api.post(f"{id}/steps", json={"first": 0, "notes": "B3"})
    assert answer.status_code == 409 and f"has read {then['time']}" in answer.json()["error"]["message"]
    assert api.post(f"{id}/steps", json={"first": 999, "notes": "B3"}).status_code == 409


def test_the_past_is_changed_and_both_futures_compared(api, kind, model):
    """What comes later is read again, with the keys before it that follow from the change."""
    moments = opening(model)
    t = struck(model, moments)
    session, id = model.session(), made(api, kind)
    session.feed(moments)
    asked(api, f"{id}/steps", first=0, moments=lists(moments))
    other = f"/v1/sessions/{asked(api, f'{id}/branch')['id']}"
    changed = session.branch()
    assert asked(api, f"{other}/edit", time=t, notes="C3+F#3")["time"] == len(moments)
    changed.edit(t, input="C3+F#3")
    assert same_state(api, other, changed) and same_state(api, id, session)
    found, wanted = asked(api, f"{id}/diff", other=other.rpartition("/")[2]), session.diff(changed)
    assert found["parts"] == wanted.parts == t + 1
    far = {a: d for (a, _), d in zip(wanted.times, wanted.states, strict=True)}
    for (a, _), d in zip(found["times"], found["states"], strict=True):
        np.testing.assert_allclose(d, far.get(a, [0.0] * len(d)), rtol=1e-5, atol=1e-9)
    asked(api, f"{other}/edit", time=t, moment=list(moments[t]))
    assert asked(api, f"{id}/diff", other=other.rpartition("/")[2])["parts"] is None
    asked(api, f"{other}/rewind", time=t)
    asked(api, f"{other}/steps", first=t, moments=lists(moments[t:]))
    assert same_state(api, other, session)
    asked(api, f"{other}/edit", time=t, state=[[p.reshape(-1).tolist() for p in parts([s])] for s in session.state])
    session.edit(t, state=session.state)
    assert same_state(api, other, session)


def test_it_writes_on_as_python_does_with_the_seed(api, kind, model):
    session, id = model.session(), made(api, kind)
    moments = opening(model)[:5]
    session.feed(moments)
    asked(api, f"{id}/steps", first=0, moments=lists(moments))
    piece = session.write(3, seed=11, temperature=0.9, top_p=0.9)
    body = {"bars": 3, "seed": 11, "temperature": 0.9, "top_p": 0.9, "first": 5}
    answer = asked(api, f"{id}/write", **body)
    assert answer["moments"] == lists(session.moments(5)) and answer["words"] == session.words[5:]
    assert (answer["first"], answer["time"]) == (5, session.time)
    assert [n["pitch"] for n in answer["notes"]] == piece.notes["pitch"].tolist()
    np.testing.assert_allclose([[n["start"], n["end"]] for n in answer["notes"]], seconds(piece), atol=1e-5)
    assert same_state(api, id, session)
    assert asked(api, f"{id}/write", **body) == answer, "it comes twice, and is written once"
    session.write(2, seed=1)
    assert asked(api, f"{id}/write", bars=2, seed=1)["time"] == session.time
    assert same_state(api, id, session)
    assert asked(api, f"{id}/write", **body) == answer
    again = api.post(f"{id}/write", json={**body, "seed": 12})
    assert again.status_code == 409 and "is not what would be written" in again.json()["error"]["message"]
    assert api.post(f"{id}/write", json={"first": 5}).status_code == 409
    assert same_state(api, id, session)


def test_over_a_websocket(server, api, kind, model):
    session, id = model.session(), made(api, kind).rpartition("/")[2]
    with websockets.connect(server.url.replace("http", "ws") + "/v1/stream") as socket:

        def said(**message):
            socket.send(json.dumps({"session": id, **message}))
            return json.loads(socket.recv(timeout=60))

        session.feed(NOTES)
        assert said(first=0, notes=NOTES, tag=7)["time"] == session.time
        session.write(2, seed=5)
        answer = said(write={"bars": 2, "seed": 5}, tag="w")
        assert (answer["tag"], answer["session"], answer["time"]) == ("w", id, session.time)
        assert "there is no" in said(write={"bars": 0})["error"]["message"] or said(write={"bars": 0})["error"]
        assert said(write={"bras": 1})["error"]["code"] == said(first=0, text="a")["error"]["code"]
        socket.send(json.dumps({"open": [id]}))
        assert "not frames" in json.loads(socket.recv())["error"]["message"]
    assert same_state(api, f"/v1/sessions/{id}", session)


def test_it_goes_on_after_a_kill_and_among_others(folders, tmp_path):
    model = tt.load(folders["tunes"])
    sessions = [model.session() for _ in range(3)]
    with Serving(folders["tunes"], "--port", 0, "--store", tmp_path / "store", "--slots", 2) as server:
        with httpx.Client(base_url=server.url, timeout=30) as api:
            ids = [made(api, "tunes") for _ in sessions]
            for n, (id, session) in enumerate(zip(ids, sessions, strict=True)):
                session.feed(NOTES)
                session.write(2, seed=n)
                asked(api, f"{id}/steps", first=0, notes=NOTES)
                asked(api, f"{id}/write", bars=2, seed=n)
        server.kill_child()
        with httpx.Client(base_url=server.url, timeout=30, transport=httpx.HTTPTransport(retries=9)) as api:
            for n, (id, session) in enumerate(zip(ids, sessions, strict=True)):
                session.write(1, seed=10 + n)
                asked(api, f"{id}/write", bars=1, seed=10 + n)
                assert same_state(api, id, session)


def streamed(answer, most=None):
    """The events of an answer, or the first of them; without what ends it."""
    found = []
    for line in answer.iter_lines():
        if line and line != "data: [DONE]":
            found.append(json.loads(line.removeprefix("data: ")))
        if len(found) == most or line == "data: [DONE]":
            return found
    raise AssertionError("it does not end")


def test_what_it_writes_comes_moment_by_moment(api, kind, model):
    session, id, whole = model.session(), made(api, kind), made(api, kind)
    moments = opening(model)[:5]
    session.feed(moments)
    for one in (id, whole):
        asked(api, f"{one}/steps", first=0, moments=lists(moments))
    session.write(3, seed=11)
    body = {"bars": 3, "seed": 11, "first": 5}
    wanted = asked(api, f"{whole}/write", **body)
    for _ in range(2):  # the same request once more is answered the same
        with api.stream("POST", f"{id}/write", json={**body, "stream": True}) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            *some, last = streamed(answer)
        assert len(some) == len(wanted["moments"]) == session.time - 5
        assert [one["first"] for one in some] == [*range(5, session.time)]
        assert [one["time"] for one in some] == [*range(6, session.time + 1)]
        for name in ("moments", "words"):
            assert [value for one in some for value in one[name]] == wanted[name]
        assert last == {name: wanted[name] for name in ("first", "time", "notes", "seconds")}
        assert same_state(api, id, session)
    assert asked(api, f"{id}/write", **body) == wanted


def test_a_stream_that_cannot_be_is_refused_with_its_status(api, server, kind):
    id = made(api, kind)
    answer = api.post(f"{id}/write", json={"first": 7, "stream": True})
    assert answer.status_code == 409 and answer.json()["error"]["code"] == "conflict"
    assert api.post("/v1/sessions/nobody/write", json={"stream": True}).status_code == 404
    assert api.post(f"{id}/write", json={"stream": 1}).status_code == 400
    with websockets.connect(server.url.replace("http", "ws") + "/v1/stream") as socket:
        socket.send(json.dumps({"session": id.rpartition("/")[2], "write": {"stream": True}}))
        assert "a message has one answer" in json.loads(socket.recv(timeout=60))["error"]["message"]


def test_who_goes_away_in_mid_writing_harms_nobody(api, server, kind, model):
    """The session stops after a moment; the same request once more goes on from there, and is answered as if nothing had been."""
    session, id, beside = model.session(), made(api, kind), made(api, kind)
    asked(api, f"{beside}/steps", first=0, moments=lists(opening(model)))
    body = {"bars": 80, "seed": 3, "first": 0}
    session.write(80, seed=3)
    with api.stream("POST", f"{id}/write", json={**body, "stream": True}) as answer:
        assert streamed(answer, 3)[-1]["time"] == 3
    eventually(lambda: "throughtime_waiting 0\n" in api.get("/metrics").text)
    found = api.get(f"{id}/piece").json()  # which waits until nobody is with it
    assert 3 <= found["time"] < session.time and found["moments"] == lists(session.moments(0, found["time"]))
    again = model.session()
    again.feed(session.moments(0, found["time"]))
    assert same_state(api, id, again)
    again = model.session()
    again.feed(opening(model))
    assert same_state(api, beside, again)
    answer = asked(api, f"{id}/write", **body)
    assert (answer["first"], answer["time"], answer["moments"]) == (0, session.time, lists(session.moments()))
    assert same_state(api, id, session)
    assert asked(api, f"{id}/write", **body) == answer


@pytest.mark.parametrize("stream", [False, True])
def test_it_writes_on_what_a_kill_broke_off(folders, tmp_path, stream):
    model = tt.load(folders["tunes"])
    session = model.session()
    session.write(100, seed=4)
    body = {"bars": 100, "seed": 4, "first": 0, "stream": stream}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Serving(folders["tunes"], "--port", 0, "--store", tmp_path / "store"))
        transport = httpx.HTTPTransport(retries=9)
        api = stack.enter_context(httpx.Client(base_url=server.url, timeout=60, transport=transport))
        id = made(api, "tunes")
        with ThreadPoolExecutor() as beside:
            broken = beside.submit(api.post, f"{id}/write", json=body)
            eventually(lambda: api.get(id).json()["time"] > 5)
            server.kill_child()
            assert isinstance(broken.exception(), httpx.TransportError)
        assert 5 < api.get(id).json()["time"] < session.time
        answer = asked(api, f"{id}/write", **{**body, "stream": False})
        assert (answer["time"], answer["moments"]) == (session.time, lists(session.moments()))
        assert same_state(api, id, session)


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("steps", {"notes": "H4"}, "notes: 'h4' is no note"),
        ("steps", {"notes": "C4", "moments": [[1]]}, "notes and moments: give notes or moments, just one of them"),
        ("steps", {"text": "C4"}, "text: give notes or moments"),
        ("steps", {"notes": ""}, "inputs: 0 of them"),
        ("steps", {"moments": [[9999]]}, "there is no symbol 9999"),
        ("steps", {"moments": [[1] * 600]}, "600 symbols; 512 at most"),
        ("steps", {"notes": "data:audio/midi;base64,AAAA"}, "notes:1: "),
        ("steps", {"notes": "C4", "level": "80"}, "level: of a model that forecasts alone"),
        ("edit", {"time": 0, "text": "C4"}, "edit: give notes or moment"),
        ("edit", {"time": 0, "notes": "C4", "moment": [1]}, "edit: give notes or moment"),
        ("edit", {"time": 99, "notes": "C4"}, "time: 99"),
        ("edit", {"time": 1, "notes": "H4"}, "edit: 'h4' is no note"),
        ("edit", {"time": 0, "moment": [1]}, "moment 0: "),
        ("write", {"bars": 0}, "bars"),
        ("write", {"bars": 100_000}, "bars"),
        ("write", {"bras": 1}, "bras: there is no such key"),
        ("write", {"top_p": 0}, "top_p"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(api, folders, path, body, words):
    session, id = tt.load(folders["tunes"]).session(), made(api, "tunes")
    session.feed(NOTES)
    first = asked(api, f"{id}/steps", first=0, notes=NOTES)["time"]
    body = {"first": first, **body} if path == "steps" else body
    answer = api.post(f"{id}/{path}", json=body)
    assert 400 <= answer.status_code < 500 and words in answer.json()["error"]["message"], answer.text
    assert same_state(api, id, session)


def test_what_music_has_others_have_not(api, server):
    answer = api.post("/v1/sessions", json={"model": "former"})
    assert answer.status_code == 400 and "has no state to go back to" in answer.json()["error"]["message"]
    assert api.get("/v1/sessions/nobody/piece").status_code == 404
    assert api.post("/v1/sessions/nobody/write").status_code == 404
    described = api.get("/openapi.json").json()
    assert {"/v1/sessions/{id}/write", "/v1/sessions/{id}/piece"} <= described["paths"].keys()
    assert "bars" in described["components"]["schemas"]["Compose"]["properties"]


def test_the_commands_of_the_documentation_run(server, tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("no curl on the PATH")
    docs = (Path(__file__).parent.parent / "docs/serve.md").read_text()
    lines = re.findall(r"^    curl (.*)$", re.search(r"^## Music$(.*?)^## ", docs, re.M | re.S)[1], re.M)
    assert len(lines) >= 6
    script = "\n".join(f"curl -sS --fail-with-body {line}; echo" for line in lines).replace('"chorales"', '"frames"')
    env = {**os.environ, "url": f"{server.url}/v1/sessions", "json": "Content-Type: application/json"}
    done = subprocess.run(["bash", "-ec", script], env=env, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0 and '"words":["C4 E4",' in done.stdout, done.stdout + done.stderr
    assert read_pieces(tmp_path / "tune.mid")
