"""What a task warns of while a server answers is told to whoever asked, and is no fault. Servers here run with `-W error`."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
import warnings

import httpx
import numpy as np
import pytest

import throughtime as tt
from serving import Serving, eventually
from sounds import RATE, spoken, write_table
from throughtime.serve import warned
from throughtime.serve.readers import SpeechReader
from throughtime.serve.settings import Settings
from throughtime.serve.stores.single import SingleStore

soundfile = pytest.importorskip("soundfile")
websockets = pytest.importorskip("websockets.sync.client")
pytestmark = pytest.mark.usefixtures("_one_thread")

ROWS = [f"{2000 + i // 12}-{i % 12 + 1:02},{100 + i + 9 * np.sin(i / 2):.3f}" for i in range(60)]
TABLE, GUESSED = ("\n".join([head, *ROWS, ""]) for head in ("ds,y", "month,sold"))
GUESS = "its times are in 'month'; its values are in 'sold'"
TUNES = "X:1\nM:4/4\nL:1/8\nK:C\nc2e2 g2e2|f2d2 B2G2|[ce]4 [eg]4|c8|\n"
DAMAGED = TUNES.replace("c8|", "c8|\nI:unheard of\n%%MIDI nonsense 9\nV:1 what=\nc8 z?c|")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, _one_thread):
    folder = tmp_path_factory.mktemp("warned")
    quick = {"steps": 3, "progress": False}
    (folder / "table.csv").write_text(TABLE)
    series = {"data": {"horizon": 4}, "model": {"hidden_size": 8, "kind": "steps"}}
    tt.train("forecast", [folder / "table.csv"], out=folder / "sales", **series, **quick)
    small = {"hidden_size": 8, "layers": 1, "dropout": 0.0, "units": "characters", "streaming": True}
    table, held = write_table(folder, "train", 12), write_table(folder, "dev", 4)
    tt.train("transcribe", [table], valid=held, out=folder / "ear", model=small, **quick)
    (folder / "tunes.abc").write_text(f"{TUNES}\n{TUNES.replace('c2', 'B2')}")
    sizes = {"hidden_size": 8, "chain_size": 8, "embedding_size": 8}
    tt.train("music", [folder / "tunes.abc"], out=folder / "tunes", model=sizes, **quick)
    return folder


@pytest.fixture(scope="module")
def server(folder):
    with Serving(*(folder / name for name in ("sales", "ear", "tunes")), "--port", 0, "--store", folder / "s") as made:
        yield made
    assert made.process.returncode == 0 and not any("Traceback" in line for line in made.said), made.said


@pytest.fixture
def api(server):
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def in_base64(data):
    return "data:;base64," + base64.b64encode(data).decode()


def stereo():
    file = io.BytesIO()
    soundfile.write(file, np.stack([spoken(("up",), 1)] * 2, 1), RATE, format="WAV")
    return file.getvalue()


def test_what_is_guessed_of_a_table_is_answered(api, server, folder):
    for _ in range(2):  # printed once, and told each time
        answer = api.post("/v1/predict", json={"model": "sales", "inputs": GUESSED})
        assert answer.status_code == 200, answer.text
        assert answer.json()["warnings"] == [f"inputs: {GUESS}"]
    plain = api.post("/v1/predict", json={"model": "sales", "inputs": TABLE}).json()
    assert "warnings" not in plain and len(plain["answers"]) == len(answer.json()["answers"]) == 4
    eventually(lambda: f"throughtime: inputs: {GUESS}\n" in server.said)
    assert server.said.count(f"throughtime: inputs: {GUESS}\n") == 1
    wrong = api.post("/v1/predict", json={"model": "sales", "inputs": GUESSED.replace("100.000", "many")}).json()
    assert "'many'" in wrong["error"]["message"]


def test_what_is_guessed_of_a_history_is_told_to_whoever_makes_the_session(folder, tmp_path):
    """And to nobody later, though it is read anew."""
    options = [folder / "sales", "--port", 0, "--store", tmp_path]
    with Serving(*options) as server:
        asked = {"id": "shop", "history": GUESSED}
        with httpx.Client(base_url=server.url, timeout=30) as api:
            made = api.post("/v1/sessions", json=asked)
            assert (made.status_code, made.json()["warnings"]) == (201, [f"history: {GUESS}"])
            assert api.post("/v1/sessions", json=asked).json()["warnings"] == [f"history: {GUESS}"]
            step = api.post("/v1/sessions/shop/steps", json={"first": 60, "values": [120.0]})
            assert step.status_code == 200 and "warnings" not in step.json(), step.text
        eventually(lambda: server.said[1:] == [f"throughtime: history: {GUESS}\n"])
    with Serving(*options) as server, httpx.Client(base_url=server.url, timeout=30) as api:
        again = api.post("/v1/sessions/shop/steps", json={"first": 60, "values": [120.0]})
        assert again.json() == step.json()
    assert server.said[1:] == []


def test_words_speak_of_what_was_sent_and_come_with_every_kind_of_answer(api, server):
    sound = stereo()
    mixed = "2 channels are mixed to one"
    answer = api.post("/v1/predict", json={"model": "ear", "inputs": [in_base64(sound)]})
    assert answer.status_code == 200 and answer.json()["warnings"] == [f"inputs.0: {mixed}"], answer.text
    for form in ("json", "verbose_json", "text", "srt", "vtt"):
        files, given = {"file": ("a.wav", sound)}, {"model": "ear", "response_format": form}
        answer = api.post("/v1/audio/transcriptions", files=files, data=given)
        assert answer.status_code == 200, answer.text
        if form.endswith("json"):
            assert answer.json()["warnings"] == [f"file: {mixed}"]
            assert "throughtime-warnings" not in answer.headers
        else:
            assert json.loads(answer.headers["throughtime-warnings"]) == [f"file: {mixed}"]
            assert mixed not in answer.text
    assert not any("/tmp" in line for line in server.said[1:])


def test_music_that_is_damaged_is_read_as_far_as_it_goes(api, server):
    given = in_base64(DAMAGED.encode())
    whole = api.post("/v1/predict", json={"model": "tunes", "inputs": ["C4", given]})
    assert whole.status_code == 200, whole.text
    words = whole.json()["warnings"]
    assert words and all(one.startswith("inputs.1:") for one in words)
    session = api.post("/v1/sessions", json={"model": "tunes", "id": "tune"})
    assert session.status_code == 201 and "warnings" not in session.json()
    step = {"first": 0, "notes": given}
    answers = [api.post("/v1/sessions/tune/steps", json=step).json() for _ in range(2)]
    assert answers[0] == answers[1]
    assert answers[0]["warnings"] == [one.replace("inputs.1", "notes") for one in words]
    with websockets.connect(server.url.replace("http", "ws") + "/v1/stream") as socket:
        for message in ({"session": "tune", **step, "tag": 1}, {"session": "tune", "first": 0, "notes": "H4"}):
            socket.send(json.dumps(message))
        found = sorted((json.loads(socket.recv()) for _ in range(2)), key=lambda one: "error" in one)
    assert found[0] == {"tag": 1, "session": "tune", **answers[0]}
    assert found[1].keys() == {"session", "error"}, "another's words"


def test_each_request_hears_its_own(capsys):
    """Whatever threads and tasks they are answered by, at the same time."""
    rounds, ready = 50, threading.Barrier(4)

    def work(name):
        ready.wait()
        for number in range(rounds):
            warnings.warn(f"{name} {number}", stacklevel=1)

    async def request(name):
        with warned.heard(printed=False) as outer:
            await asyncio.to_thread(work, name)
            with warned.renamed({"/tmp/": ""}):
                warnings.warn(f"/tmp/{name}", stacklevel=1)
            with warned.heard(printed=False) as inner:
                warnings.warn("within", stacklevel=1)
            assert [*inner] == ["within"] and warned.told() == {"warnings": [*outer]}
        assert [*outer] == [*(f"{name} {number}" for number in range(rounds)), name]

    async def all_of_them():
        await asyncio.gather(*map(request, "abcd"))
        assert warned.told() == {}

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(all_of_them())
    with pytest.raises(UserWarning, match="nobody listens"):
        warnings.warn("nobody listens", stacklevel=1)
    assert capsys.readouterr().err == ""


def test_the_thread_that_hears_tells_whoever_asked_it(folder, tmp_path):
    async def go():
        reader, store = SpeechReader(tt.load(folder / "ear")), SingleStore(tmp_path / "s.db")
        hearing = reader.sessions("ear", store, Settings(tmp_path))
        with warned.heard(printed=False) as words:
            await hearing._call(lambda: warnings.warn("not so loud", stacklevel=1))
        assert [*words] == ["not so loud"]
        hearing.close()
        store.close()

    asyncio.run(go())


def test_other_warnings_are_what_the_process_says_they_are():
    with pytest.raises(DeprecationWarning), warned.heard() as words:
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert not words


def test_a_header_holds_as_much_as_clients_take():
    with warned.heard(printed=False):
        assert warned.in_header() == b""
        for number in range(500):
            warnings.warn(f"row {number} is \u2026 left out", stacklevel=1)
        words = warned.in_header()
    assert len(words) < warned.HEADER + 100 and words.isascii()
    *some, last = json.loads(words)
    assert some[0] == "row 0 is \u2026 left out" and last == f"and {500 - len(some)} more, which the server printed"
