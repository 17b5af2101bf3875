"""Whatever a server is sent, a client gets an error in a line, and nobody else notices.

All that is sent comes with one token, while a session of another goes on: at the end it must be where a stream that was alone is.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
import torch
import websockets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load
from websockets.sync.client import connect

import serve_drops
import throughtime as tt
from serving import Serving, eventually
from throughtime.serve.readers import TextReader

pytestmark = pytest.mark.usefixtures("_one_thread")

LETTERS = "0123456 sheepandgoatswentoverhill;"
OURS, THEIRS = ({"authorization": f"Bearer {token}"} for token in ("ours", "theirs"))
SENT = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def run(tmp_path_factory, _one_thread):
    folder = tmp_path_factory.mktemp("hardness")
    lines = "".join(f"{i % 7} sheep and {i % 3} goats went over hill {i % 5};\n" for i in range(300))
    (folder / "text.txt").write_text(lines)
    model = {"tokens": "characters", "cell": "lstm", "hidden_size": 12, "layers": 2}
    tt.train("text", [folder / "text.txt"], out=folder / "lm", steps=20, model=model, progress=False)
    return folder / "lm"


class Witness(threading.Thread):
    """A session that reads while others are at work."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url, self.text, self.error, self.going = url, "", None, True

    def run(self) -> None:
        draw = random.Random(5)
        try:
            with httpx.Client(base_url=self.url, headers=OURS, timeout=60) as api:
                assert api.post("/v1/sessions", json={"id": "witness"}).status_code == 201
                while self.going:
                    text = "".join(draw.choices(LETTERS, k=draw.randint(1, 5)))
                    asked = {"first": len(self.text), "text": text}
                    answer = api.post("/v1/sessions/witness/steps", json=asked)
                    assert answer.status_code == 200, answer.text
                    self.text += text
                self.state = load(api.get("/v1/sessions/witness/state").content)
        except BaseException as error:
            self.error = error


@pytest.fixture(scope="module")
def server(run, tmp_path_factory):
    """With a witness, who tells at the end what it saw."""
    options = ["--port", 0, "--store", tmp_path_factory.mktemp("store"), "--slots", 5, "--slow", 2, "--body", 100_000]
    options += ["--longest", 3000, "--token", "ours", "--token", "theirs"]
    with Serving(run, *options) as made:
        witness = Witness(made.url)
        witness.start()
        before = made.child
        yield made
        witness.going = False
        witness.join()
        assert made.child == before
    assert made.process.returncode == 0
    assert not made.said[1:], "".join(made.said[1:])  # no traceback, no warning
    assert witness.error is None
    reader = TextReader(tt.load(run))
    alone, output = reader.stack.streams(1), None
    alone.put(0, reader.engine.first().state)
    for x in reader.engine.prepared(reader.engine.checked(witness.text)).unsqueeze(1):
        output = alone.step([0], x)[0]
    assert len(witness.text) > 1000
    assert torch.equal(witness.state["output"], output)
    for number, state in enumerate(alone.take(0)):
        for place, tensor in enumerate(state):
            assert torch.equal(witness.state[f"{number}.{place}"], tensor)


def test_what_the_description_allows_and_what_it_does_not(server, tmp_path):
    """schemathesis makes requests of the OpenAPI description, right ones and wrong ones, and judges the answers.

    Two of its checks are left out: what a description cannot say (one of two keys, a time that there is) may be refused, and a name
    in a body need not be one that was made.
    """
    program = shutil.which("schemathesis", path=Path(sys.executable).parent)
    if program is None:
        pytest.skip("schemathesis is not installed")
    command = [program, "run", f"{server.url}/openapi.json", "--header", f"Authorization: {THEIRS['authorization']}"]
    command += ["--seed", "2", "--max-examples", "3", "--phases", "coverage,fuzzing", "--checks", "all"]
    command += ["--exclude-checks", "positive_data_acceptance,ensure_resource_availability", "--no-color"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout[-6000:]
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    count = sum(map(len, paths.values()))
    assert f"{count} selected / {count} total" in done.stdout


NAMES = ["session", "first", "text", "tokens", "inputs", "top", "logprobs", "tag", "open", "make", "model", "id"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8)
    | st.sampled_from(["fuzzed", "witness", "lm", 0, 1, [5], [5, 6], "sheep"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
MESSAGES = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6).map(json.dumps)
STEPS = st.fixed_dictionaries(
    {"session": st.just("fuzzed"), "first": st.integers(0, 40)},
    optional={"text": st.text(LETTERS, max_size=3), "tokens": VALUES, "top": VALUES, "tag": VALUES},
).map(json.dumps)
FRAMES = st.builds(
    lambda tag, count, numbers, firsts, tokens: struct.pack(
        f"<II{len(numbers)}I{len(firsts)}Q{len(tokens)}i", tag, count, *numbers, *firsts, *tokens
    ),
    st.integers(0, 9), st.integers(0, 3), st.lists(st.integers(0, 3), min_size=1, max_size=3),
    st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 40), min_size=1, max_size=3),
    st.lists(st.integers(-(2**31), 2**31 - 1) | st.integers(0, 9), min_size=1, max_size=3),
)  # fmt: skip
SAME = st.integers(1, 3).flatmap(  # of the right size
    lambda n: st.builds(
        lambda numbers, firsts, tokens: struct.pack(f"<II{n}I{n}Q{n}i", 1, n, *numbers, *firsts, *tokens),
        *(
            st.lists(values, min_size=n, max_size=n)
            for values in (st.integers(0, 2), st.integers(0, 60), st.integers(0, 40))
        ),
    )
)


@pytest.fixture(scope="module")
def talking(server):
    """A socket on which some sessions have numbers."""
    with connect(
        server.url.replace("http", "ws") + "/v1/stream", additional_headers=THEIRS, compression=None
    ) as socket:
        socket.send(json.dumps({"open": ["fuzzed", "f1", "f2"], "make": True, "top": 2}))
        assert json.loads(socket.recv()) == {"open": [0, 1, 2]}
        yield socket


@SENT
@given(message=MESSAGES | STEPS | FRAMES | SAME | st.binary(max_size=80) | st.text(max_size=40))
def test_any_message_is_answered_by_one(talking, message):
    talking.send(message)
    answer = talking.recv(timeout=20)
    if isinstance(answer, str):
        found = json.loads(answer)
        assert found.get("error", {}).get("type") != "server_error", (message, answer)
        assert "error" in found or "time" in found or "open" in found
        if "open" in found:  # others may have got numbers; there are 0, 1 and 2 still
            assert isinstance(found["open"], list)
    else:
        tag, count = struct.unpack_from("<II", answer)
        assert (tag, count) == struct.unpack_from("<II", message)
        assert set(struct.unpack_from(f"<{count}I", answer, 8 + 4 * count)) <= {200, 400, 404, 409}


@SENT
@given(
    start=st.sampled_from(["", "GET ", "POST /v1/sessions HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: localhost\r\n"]),
    rest=st.binary(max_size=99),
)
def test_what_is_no_http_ends_its_own_connection(server, start, rest):
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as there:
        there.sendall(start.encode() + rest + b"\r\n\r\n")
        there.shutdown(socket.SHUT_WR)
        answer = b""
        while data := there.recv(4096):
            answer += data
    assert b"Traceback" not in answer
    assert answer[:9] in (b"", b"HTTP/1.1 ")
    assert b" 500 " not in answer[:20]


def test_what_breaks_the_protocol_of_a_socket_closes_it(server):
    draw = random.Random(3)
    for number in range(60):
        with connect(
            server.url.replace("http", "ws") + "/v1/stream", additional_headers=THEIRS, compression=None
        ) as socket_:
            if number % 3 == 0:
                socket_.send(json.dumps({"open": ["fuzzed"], "make": True}))
            socket_.socket.sendall(draw.randbytes(draw.randint(1, 60)) if number % 2 else b"\x81\x82\0\0\0\0\xff\xff")
            with contextlib.suppress(OSError):  # the server may have closed it already
                socket_.socket.shutdown(socket.SHUT_WR)
            with pytest.raises(websockets.ConnectionClosed):
                while True:
                    socket_.recv(timeout=10)


def test_who_takes_no_answers_and_who_sends_half_holds_nobody_up(server):
    """Slow readers of texts and of sockets, and bodies that never come to their end."""
    host, port = server.url.removeprefix("http://").split(":")
    head = f"Host: {host}:{port}\r\nAuthorization: {THEIRS['authorization']}\r\nContent-Type: application/json\r\n"
    body = json.dumps({"max_tokens": 1500, "stream": True, "seed": 1, "n": 3, "logprobs": 30})
    with contextlib.ExitStack() as held, httpx.Client(base_url=server.url, headers=THEIRS, timeout=30) as api:
        for number in range(8):
            there = held.enter_context(socket.socket())
            there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            there.connect((host, int(port)))
            whole = f"POST /v1/completions HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n{body}"
            there.sendall(whole[: -9 * (number // 2) or None].encode())
        for _ in range(20):
            assert api.get("/v1/models").status_code == 200
        eventually(lambda: "throughtime_waiting 0\n" in api.get("/metrics").text, 60)


STACK = """
import pathlib, sys, throughtime as tt
from throughtime.serve import running
from throughtime.serve.settings import Settings
running.SLOWEST = 1
stack, listening = tt.Recurrent(tt.cells.GRU, 3, 5), running.listen("127.0.0.1", 0)
at = f"serving at http://127.0.0.1:{listening.getsockname()[1]}"
settings = Settings(pathlib.Path(sys.argv[1]), slow=1)
running.run({"net": stack}, settings, listening, lambda: print(at, file=sys.stderr, flush=True))
"""


@pytest.mark.skipif(
    not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system never gives up a connection that stands still"
)
def test_who_never_takes_what_it_was_sent_is_cut_off(tmp_path):
    with Serving(tmp_path, code=STACK) as serving:
        host, port = serving.url.removeprefix("http://").split(":")
        with socket.socket() as there:
            there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            there.connect((host, int(port)))
            there.settimeout(60)
            with pytest.raises(ConnectionError):  # and not the time-out
                while True:
                    there.sendall(f"GET /openapi.json HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        assert httpx.get(f"{serving.url}/healthz").status_code == 200
    assert serving.said[1:] == []


def test_sessions_that_are_opened_and_dropped_leave_no_memory(run, tmp_path):
    said = []
    serve_drops.drop(run, tmp_path, sessions=800, every=200, tell=said.append)
    assert len(said) == 4
    assert said[-1].memory < said[1].memory + 6_000_000, said
    assert said[-1].store < 2 * said[0].store, said
