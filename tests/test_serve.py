"""`throughtime serve`, in a process of its own, as its clients see it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
import torch
import websockets
import websockets.sync.client
from safetensors.torch import load, save

import processes
import throughtime as tt
from serving import Serving, eventually
from throughtime.serve.bodies import Steps
from throughtime.serve.events import AHEAD, Flow
from throughtime.serve.past import Read
from throughtime.serve.readers import TextReader
from throughtime.serve.refused import Refused

pytestmark = pytest.mark.usefixtures("_one_thread")

TEXT = "".join(f"{i % 7} sheep and {i % 3} goats went over hill {i % 5};\n" for i in range(400))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, _one_thread):
    """Runs: a language model of characters, one of words whose documents are lines, and a classifier."""
    folder = tmp_path_factory.mktemp("serve")
    (folder / "text.txt").write_text(TEXT)
    (folder / "rows.csv").write_text(
        "text,label\n" + "".join(f"{w} {i},{w}\n" for i in range(60) for w in ("up", "down"))
    )
    for name, tokens, documents in (("lm", "characters", "file"), ("lines", "words", "line")):
        tt.train(
            "text",
            [folder / "text.txt"],
            out=folder / name,
            steps=60,
            model={"tokens": tokens, "cell": "gru", "hidden_size": 20, "layers": 2},
            data={"documents": documents},
            progress=False,
        )
    tt.train("classify", [folder / "rows.csv"], out=folder / "ways", steps=20, model={"hidden_size": 8}, progress=False)
    return folder


@pytest.fixture(scope="module")
def server(folder):
    """All of them, for whoever is here."""
    with Serving(
        folder / "lm", folder / "lines", folder / "ways", "--port", 0, "--store", folder / "store", "--slots", 6
    ) as made:
        yield made
    assert made.process.returncode == 0
    assert made.said[1:] == []  # no traceback, no warning


@pytest.fixture(scope="module")
def model(folder):
    return tt.load(folder / "lm")


@pytest.fixture
def api(server):
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


class Alone:
    """What a stream that is alone would be answered."""

    def __init__(self, model):
        self.reader = TextReader(model)
        self.streams = self.reader.stack.streams(1)
        first = self.reader.engine.first()
        self.streams.put(0, first.state)
        self.output = first.output

    def steps(self, text, top=3, logprobs=True):
        ids = self.reader.engine.checked(text)
        outputs = []
        for x in self.reader.engine.prepared(ids).unsqueeze(1):
            outputs.append(self.streams.step([0], x)[0])
        read = Read(self.output, outputs)
        self.output = outputs[-1]
        return self.reader.answers(ids, read, Steps(first=0, top=top, logprobs=logprobs))


def made(api, **body):
    answer = api.post("/v1/sessions", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def steps(api, id, first, text, **more):
    answer = api.post(
        f"/v1/sessions/{id}/steps", json={"first": first, "text": text, "top": 3, "logprobs": True, **more}
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(answer, status, *words):
    """An error, in one line."""
    assert answer.status_code == status, answer.text
    assert answer.text.count("\n") == 1
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "code"}
    for word in words:
        assert word in error["message"], error
    return error


# ---------------------------------------------------------------------------------------------- sessions


def test_a_session_answers_what_a_stream_of_its_own_would(api, model):
    id, alone, at = made(api), Alone(model), 0
    for text in ("3 sh", "eep and 2 goats", " ", "went over hill 4;\n" * 9):
        found = steps(api, id, at, text)
        assert found == {"first": at, "time": at + len(text), **alone.steps(text)}
        at += len(text)
    state = load(api.get(f"/v1/sessions/{id}/state").content)
    for layer, tensor in enumerate(alone.streams.take(0)):
        assert torch.equal(state[f"{layer}.0"], tensor)
    assert torch.equal(state["output"], alone.output)
    about = api.get(f"/v1/sessions/{id}").json()
    assert (about["id"], about["time"], about["model"]) == (id, at, "lm")


def test_a_repeated_request_gets_the_same_bytes(api):
    id = made(api)
    body = {"first": 0, "text": "2 goats", "top": 5, "logprobs": True}
    first = api.post(f"/v1/sessions/{id}/steps", json=body)
    assert steps(api, id, 7, " went over")["time"] == 17
    assert api.post(f"/v1/sessions/{id}/steps", json=body).content == first.content
    assert api.get(f"/v1/sessions/{id}").json()["time"] == 17
    refused(api.post(f"/v1/sessions/{id}/steps", json={**body, "text": "2 goatz"}), 409, "has read 17", "rewind")
    tokens = api.post(f"/v1/sessions/{id}/steps", json={"first": 17, "tokens": [3, 4], "top": 1}).json()
    assert tokens["time"] == 19
    assert steps(api, id, 19, "né")["unknown"] == ["é"]


def test_back_branch_edit_and_compare(api, model):
    id = made(api, id="here")
    steps(api, id, 0, "1 sheep and 2 goats")
    other = api.post("/v1/sessions/here/branch", json={"id": "there", "time": 10}).json()
    assert (other["id"], other["time"]) == ("there", 10)
    steps(api, "there", 10, "d 2 goats")
    assert api.post("/v1/sessions/here/diff", json={"other": "there"}).json()["parts"] is None
    assert api.post("/v1/sessions/there/edit", json={"time": 0, "text": "5"}).json()["time"] == 19
    apart = api.post("/v1/sessions/here/diff", json={"other": "there", "start": 0, "stop": 19}).json()
    assert apart["parts"] == 1
    assert len(apart["times"]) == len(apart["divergence"]) == 20
    alone = Alone(model)
    alone.steps("5 sheep and 2 goats")
    assert steps(api, "there", 19, " w") == {"first": 19, "time": 21, **alone.steps(" w")}
    assert api.post("/v1/sessions/here/rewind", json={"time": 8}).json()["time"] == 8
    alone = Alone(model)
    alone.steps("1 sheep ")
    assert steps(api, "here", 8, "or") == {"first": 8, "time": 10, **alone.steps("or")}
    refused(api.post("/v1/sessions/here/rewind", json={"time": 11}), 400, "has read 10", "from 0 to 10")
    refused(api.post("/v1/sessions/here/edit", json={"time": 10, "text": "x"}), 400, "from 0 to 9")
    refused(api.post("/v1/sessions/here/edit", json={"time": 1, "text": "xy"}), 400, "one input")
    refused(api.post("/v1/sessions/here/edit", json={"time": 1}), 400, "text or tokens")


def test_a_state_is_taken_changed_and_put_elsewhere(api, model):
    id, other = made(api), made(api)
    steps(api, id, 0, "6 sheep and 0 g")
    state = api.get(f"/v1/sessions/{id}/state").content
    early = api.get(f"/v1/sessions/{id}/state", params={"time": 7}).content
    assert api.put(f"/v1/sessions/{other}/state", content=state).json() == {"id": other, "time": 0}
    assert steps(api, other, 0, "oats")["next"] == steps(api, id, 15, "oats")["next"]
    assert api.put(f"/v1/sessions/{id}/state", content=early, params={"time": 15}).json()["time"] == 15
    alone = Alone(model)
    alone.steps("6 sheep")
    assert api.get(f"/v1/sessions/{id}").json()["time"] == 19
    again = steps(api, id, 15, "oats")
    assert again["next"] == alone.steps("oats")["next"]
    numbers = [[[0.5] * 20], [[-0.5] * 20]]
    assert api.post(f"/v1/sessions/{id}/edit", json={"time": 19, "state": numbers}).status_code == 200
    assert bool((load(api.get(f"/v1/sessions/{id}/state").content)["1.0"] == -0.5).all())
    nan = {name: tensor * torch.nan for name, tensor in load(state).items()}
    for content, words in (
        (b"none", "safetensors"),
        (save(nan), "not finite"),
        (save({"0.0": torch.ones(1, 20)}), "1.0"),
        (save({"0.0": torch.ones(1, 21), "1.0": torch.ones(1, 20)}), "layer 0"),
    ):
        refused(api.put(f"/v1/sessions/{id}/state", content=content), 400, words)
    refused(api.post(f"/v1/sessions/{id}/edit", json={"time": 1, "state": [[[0.5] * 20]]}), 400, "[[20], [20]]")
    refused(api.post(f"/v1/sessions/{id}/edit", json={"time": 1, "state": numbers, "text": "x"}), 400, "just one")


def test_the_list_of_sessions_comes_in_pages(api):
    for i in range(7):
        made(api, id=f"page.{i}", model="lines")
    found, after = [], "page."
    while True:
        page = api.get("/v1/sessions", params={"limit": 3, "after": after}).json()
        found += [one["id"] for one in page["data"] if one["id"].startswith("page.")]
        if not page["has_more"] or not found[-1].startswith("page."):
            break
        after = page["data"][-1]["id"]
    assert found == [f"page.{i}" for i in range(7)]
    assert api.delete("/v1/sessions/page.3").json()["deleted"] is True
    refused(api.get("/v1/sessions/page.3"), 404, "page.3")
    refused(api.post("/v1/sessions", json={"id": "page.4"}), 409, "already")


def test_a_row_that_is_used_again_begins_anew(api, model):
    """There are six rows: whoever gets one of them must not meet what another left there."""
    right = Alone(model).steps("4 sheep")
    for round_ in range(5):
        ids = [made(api, id=f"leak.{round_}.{i}") for i in range(9)]
        for i, id in enumerate(ids):
            steps(api, id, 0, "secret goats " * (i + 1))
            if i % 2:
                assert api.delete(f"/v1/sessions/{id}").status_code == 200
        fresh = made(api, id=f"leak.{round_}.1")
        assert steps(api, fresh, 0, "4 sheep") == {"first": 0, "time": 7, **right}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("GET", "/v1/nothing", None, 404, "/v1/nothing"),
        ("PATCH", "/v1/sessions", None, 405, "PATCH"),
        ("GET", "/v1/sessions/none", None, 404, "'none'"),
        ("GET", "/v1/sessions/a%00b", None, 404, "session"),
        ("GET", "/v1/sessions?limit=0", None, 400, "limit"),
        ("GET", "/v1/sessions/errors/state?time=99999999999999999999", None, 400, "time"),
        ("POST", "/v1/sessions", b"{", 400, "no JSON"),
        ("POST", "/v1/sessions", b"[" * 5000, 400, "body"),
        ("POST", "/v1/sessions", b"[]", 400, "body"),
        ("POST", "/v1/sessions", b'"\xff"', 400, "body"),
        ("POST", "/v1/sessions", {"id": "../x"}, 400, "letters"),
        ("POST", "/v1/sessions", {"id": "\ud800"}, 400, "letters"),
        ("POST", "/v1/sessions", {"model": "lmm"}, 404, "did you mean 'lm'"),
        ("POST", "/v1/sessions", {"model": "\ud800"}, 404, "model"),
        ("POST", "/v1/sessions", {"model": "ways"}, 400, "predict"),
        ("POST", "/v1/sessions", {"modle": "lm"}, 400, "modle"),
        ("POST", "/v1/sessions/errors/steps", {"text": "x"}, 400, "first: is missing"),
        ("POST", "/v1/sessions/errors/steps", {"first": 0}, 400, "text or tokens"),
        ("POST", "/v1/sessions/errors/steps", {"first": 0, "text": ""}, 400, "inputs"),
        ("POST", "/v1/sessions/errors/steps", {"first": 0, "text": "\ud800"}, 400, "UTF-8"),
        ("POST", "/v1/sessions/errors/steps", {"first": 0, "text": "a", "tokens": [2]}, 400, "just one"),
        ("POST", "/v1/sessions/errors/steps", {"first": 0, "tokens": [1]}, 400, "begins a document"),
        ("POST", "/v1/sessions/errors/steps", {"first": 0, "tokens": [999]}, 400, "no token 999"),
        ("POST", "/v1/sessions/errors/steps", {"first": 0, "tokens": [10**30]}, 400, "tokens"),
        ("POST", "/v1/sessions/errors/steps", {"first": 10**30, "text": "a"}, 400, "first"),
        ("POST", "/v1/sessions/errors/steps", {"first": 3, "text": "a"}, 409, "has read 0"),
        ("POST", "/v1/sessions/errors/steps", {"first": 0, "inputs": [[1.0]]}, 400, "text or tokens"),
        ("POST", "/v1/sessions/errors/steps", {"first": 0, "tokens": [2] * 100_001}, 413, "100000"),
        ("POST", "/v1/sessions/errors/diff", {"other": "none"}, 404, "none"),
        ("POST", "/v1/sessions/errors/diff", {"other": "\ud800"}, 404, "session"),
        ("PUT", "/v1/sessions/errors/state", b"", 400, "safetensors"),
        ("POST", "/v1/predict", {"inputs": []}, 400, "inputs"),
        ("POST", "/v1/predict", {"inputs": ["a\nb"]}, 400, "line break"),
        ("POST", "/v1/predict", {"inputs": ["a"], "options": {"nix": 1}}, 400, "nix"),
        ("POST", "/v1/completions", {"session": "none"}, 404, "none"),
        ("POST", "/v1/completions", {"session": "\ud800"}, 404, "session"),
        ("POST", "/v1/completions", {"session": "errors", "n": 2}, 400, "branch"),
        ("POST", "/v1/completions", {"session": "errors", "first": 4, "stream": True}, 409, "has read 0"),
        ("POST", "/v1/completions", {"prompt": []}, 400, "prompt"),
        ("POST", "/v1/completions", {"prompt": "\ud800"}, 400, "UTF-8"),
        ("POST", "/v1/completions", {"prompt": [999]}, 400, "999"),
        ("POST", "/v1/completions", {"stop": ""}, 400, "stop"),
        ("POST", "/v1/completions", {"temperature": -1}, 400, "temperature"),
        ("POST", "/v1/completions", {"frequency_penalty": 0.5}, 400, "frequency_penalty"),
        ("POST", "/v1/completions", {"max_tokens": 10**9}, 413, "max_tokens"),
        ("POST", "/v1/completions", {"model": "ways"}, 400, "no streams"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(api, method, path, body, status, words):
    if "errors" in str(path) + str(body) and api.get("/v1/sessions/errors").status_code == 404:
        made(api, id="errors")
    content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    answer = api.request(method, path, content=content, headers={"content-type": "application/json"})
    refused(answer, status, words)
    if "errors" in path:
        assert api.get("/v1/sessions/errors").json()["time"] == 0


# ---------------------------------------------------------------------------------------------- whole inputs


def test_lines_are_answered_as_predict_answers_them(api, folder):
    lines = ["up 3", "down 9", "", "up"]
    answer = api.post("/v1/predict", json={"model": "ways", "inputs": lines}).json()
    right = processes.run(
        [sys.executable, "-m", "throughtime", "predict", str(folder / "ways"), "--json"],
        input="".join(f"{line}\n" for line in lines), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert answer == {"model": "ways", "answers": [json.loads(line) for line in right.stdout.splitlines()]}
    assert [one["label"] for one in answer["answers"][:2]] == ["up", "down"]


def test_models_health_metrics_and_the_description(api):
    models = api.get("/v1/models").json()
    assert [(m["id"], m["task"], m["streams"]) for m in models["data"]] == [
        ("lm", "text", True), ("lines", "text", True), ("ways", "classify", False),
    ]  # fmt: skip
    refused(api.get("/v1/models/nix"), 404, "nix")
    assert api.get("/healthz").json() == {"status": "ok"}
    before = api.get("/metrics").text
    steps(api, made(api), 0, "sheep")
    after = api.get("/metrics").text

    def value(text, name):
        return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    name = 'throughtime_steps_total{model="lm"}'
    assert value(after, name) == value(before, name) + 5
    name = 'throughtime_requests_total{path="/v1/sessions/{id}/steps",status="200"}'
    assert value(after, name) >= 1
    assert "/v1/sessions/{id}/steps" in api.get("/openapi.json").json()["paths"]


# ---------------------------------------------------------------------------------------------- completions


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_openais_client_completes_as_generate_writes(client, model):
    found = client.completions.create(model="lm", prompt="3 sheep", max_tokens=40, temperature=0.8, seed=7, n=2)
    for number, choice in enumerate(found.choices):
        right = "".join(model.stream("3 sheep", 40, temperature=0.8, seed=7 + number))
        assert (choice.index, choice.text, choice.finish_reason) == (number, right, "length")
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (7, 80)
    assert [m.id for m in client.models.list()] == ["lm", "lines", "ways"]
    assert client.models.retrieve("lm").id == "lm"
    with pytest.raises(openai.NotFoundError, match="did you mean"):
        client.completions.create(model="lmm", prompt="")
    greedy = client.completions.create(model="lm", prompt=["1 sh", "2 sh"], max_tokens=12, temperature=0)
    assert [c.text for c in greedy.choices] == [model.generate(p, 12, temperature=0)[4:] for p in ("1 sh", "2 sh")]
    tokens = model.tokens.encode("1 sh").tolist()
    same = client.completions.create(model="lm", prompt=tokens, max_tokens=12, temperature=0, echo=True)
    assert same.choices[0].text == "1 sh" + greedy.choices[0].text
    strange = client.completions.create(model="lm", prompt="1 éshé", max_tokens=12, temperature=0)
    assert (strange.choices[0].text, strange.unknown) == (greedy.choices[0].text, ["é"])


@pytest.mark.parametrize(
    ("asked", "error", "status", "words"),
    [
        ({"model": "lmm"}, openai.NotFoundError, 404, "did you mean 'lm'"),
        ({"model": "lm", "temperature": -1}, openai.BadRequestError, 400, "temperature"),
        ({"model": "lm", "max_tokens": "9"}, openai.BadRequestError, 400, "max_tokens"),
        ({"model": "lm", "suffix": "x"}, openai.BadRequestError, 400, "suffix"),
        ({"model": "lm", "max_tokens": 100_001}, openai.APIStatusError, 413, "max_tokens: 100001 tokens"),
        ({"model": "lm", "prompt": [2] * 100_001}, openai.APIStatusError, 413, "prompt: 100001 tokens"),
    ],
)
def test_openais_client_raises_its_own_exceptions(client, asked, error, status, words):
    for stream in (False, True):
        with pytest.raises(error) as found:
            client.completions.create(**{"prompt": "", "stream": stream} | asked)
        assert (found.value.status_code, found.value.body["code"] is not None) == (status, True)
        assert words in found.value.message


def test_openais_client_streams(client):
    asked = {"model": "lm", "prompt": "5 goats", "max_tokens": 30, "seed": 3, "n": 2, "logprobs": 2}
    whole = client.completions.create(**asked)
    texts, tokens, ends = ["", ""], [[], []], {}
    for event in client.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        for choice in event.choices:
            assert choice.logprobs.text_offset[:1] in ([], [len(texts[choice.index])])
            texts[choice.index] += choice.text
            tokens[choice.index] += choice.logprobs.tokens
            ends[choice.index] = choice.finish_reason
        usage = event.usage
    assert texts == [c.text for c in whole.choices]
    assert tokens == [c.logprobs.tokens for c in whole.choices]
    assert ends == {0: "length", 1: "length"}
    assert usage == whole.usage


def test_a_stop_ends_a_text_and_is_not_part_of_it(client, model):
    right = model.generate("1 sheep", 200, temperature=0)[7:]
    stop = right[20:24]
    cut = right[: right.index(stop)]
    for streamed in (False, True):
        asked = {"model": "lm", "prompt": "1 sheep", "max_tokens": 200, "temperature": 0, "stop": ["never", stop]}
        if streamed:
            choices = [c for event in client.completions.create(**asked, stream=True) for c in event.choices]
            assert "".join(c.text for c in choices) == cut
            assert choices[-1].finish_reason == "stop"
        else:
            (choice,) = client.completions.create(**asked).choices
            assert (choice.text, choice.finish_reason) == (cut, "stop")
    (line,) = client.completions.create(model="lines", prompt="1 sheep and", max_tokens=200, seed=1).choices
    assert "\n" not in line.text
    assert line.finish_reason == "stop"


def test_log_probabilities_of_a_prompt_and_of_what_is_written(client, model):
    found = client.completions.create(model="lm", prompt="4 sheep", max_tokens=0, echo=True, logprobs=1)
    shown = found.choices[0].logprobs
    assert found.choices[0].text == "".join(shown.tokens) == "4 sheep"
    assert shown.text_offset == list(range(7))
    session = model.session()
    session.feed("4 sheep")
    np.testing.assert_allclose(shown.token_logprobs, session.log_probabilities(), rtol=1e-4, atol=1e-5)
    assert all(
        max(top.values()) >= own - 1e-6 for top, own in zip(shown.top_logprobs, shown.token_logprobs, strict=True)
    )
    written = client.completions.create(model="lm", prompt="4 sheep", max_tokens=8, temperature=0, logprobs=1)
    shown = written.choices[0].logprobs
    assert [max(top.values()) for top in shown.top_logprobs] == shown.token_logprobs


def test_a_session_is_written_on_from_and_keeps_what_is_written(api, client, model):
    id = made(api)
    steps(api, id, 0, "2 sheep")
    asked = {"model": "lm", "prompt": " and", "max_tokens": 9, "temperature": 0}
    found = client.completions.create(**asked, extra_body={"session": id, "first": 7})
    text = found.choices[0].text
    assert text == model.generate("2 sheep and", 9, temperature=0)[11:]
    assert found.session == {"id": id, "time": 20}
    assert api.get(f"/v1/sessions/{id}").json()["time"] == 20
    with pytest.raises(openai.ConflictError, match="has read 20"):
        client.completions.create(**asked, extra_body={"session": id, "first": 7})
    alone = Alone(model)
    alone.steps("2 sheep and" + text)
    assert steps(api, id, 20, "s") == {"first": 20, "time": 21, **alone.steps("s")}
    events = list(client.completions.create(**asked, stream=True, extra_body={"session": id}))
    assert events[-1].session == {"id": id, "time": 34}


def test_who_goes_away_while_a_text_is_written_leaves_the_session_in_order(api, server, model):
    id = made(api)
    asked = {"model": "lm", "session": id, "max_tokens": 90_000, "stream": True, "seed": 1}
    text = ""
    with httpx.stream("POST", f"{server.url}/v1/completions", json=asked) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                text += json.loads(line[6:])["choices"][0]["text"]
            if len(text) > 30:
                break
    time_ = api.get(f"/v1/sessions/{id}/state").headers and api.get(f"/v1/sessions/{id}").json()["time"]
    assert 30 < time_ < 90_000
    eventually(lambda: api.get("/metrics").text.count("throughtime_waiting 0\n") == 1)
    alone = Alone(model)
    alone.steps(text)
    api.post(f"/v1/sessions/{id}/rewind", json={"time": len(text)})
    assert steps(api, id, len(text), "s")["next"] == alone.steps("s")["next"]


def test_who_takes_nothing_for_long_is_told_so_and_the_tasks_end():
    async def go():
        flow, ended = Flow[int](0.05), []

        async def count():
            for number in range(AHEAD + 50):
                if flow.gone:
                    break
                await flow.put(number)
            ended.append(number)

        taken = []
        with pytest.raises(Refused, match=r"nothing was taken for 0\.05 seconds") as refused:
            async for number in flow.parts([count]):
                taken.append(number)
                if number == 3:
                    await asyncio.sleep(0.3)
        assert refused.value.status == 408
        assert taken == [*range(len(taken))] and AHEAD <= len(taken) < AHEAD + 50 and len(ended) == 1

    asyncio.run(go())


PLAIN = """
import sys
sys.modules["uvloop"] = sys.modules["httptools"] = None
from throughtime.cli import main
sys.exit(main(["serve", *sys.argv[1:]]))
"""


def test_it_answers_the_same_without_uvloop_and_httptools(folder, server, tmp_path):
    with Serving(folder / "lm", "--port", 0, "--store", tmp_path, code=PLAIN) as plain:
        found = []
        for url in (server.url, plain.url):
            with httpx.Client(base_url=url, timeout=30) as api:
                id = made(api)
                answers = [steps(api, id, 0, "3 sheep"), steps(api, id, 0, "3 sheep"), steps(api, id, 7, " and")]
                asked = {"prompt": "3", "max_tokens": 40, "seed": 2, "model": "lm", "stream": True}
                with api.stream("POST", "/v1/completions", json=asked) as answer:
                    events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: {")]
                    answers.append([event["choices"] for event in events])
                with api.stream("POST", "/v1/completions", json={**asked, "max_tokens": 90_000}) as answer:
                    next(answer.iter_lines())  # and goes away
                eventually(lambda api=api: "throughtime_waiting 0\n" in api.get("/metrics").text)
                answers += [refused(api.get("/v1/sessions/none"), 404), refused(api.put("/v1/models"), 405)]
                with websockets.sync.client.connect(url.replace("http", "ws") + "/v1/stream") as socket:
                    socket.send(json.dumps({"session": id, "first": 11, "text": "4", "top": 2}))
                    answers.append({**json.loads(socket.recv()), "session": None})
                found.append(answers)
        assert found[0] == found[1]
    assert plain.process.returncode == 0 and plain.said[1:] == []


def test_many_writers_share_ticks(server, api, model):
    def value(name):
        return next(float(line.split()[-1]) for line in api.get("/metrics").text.splitlines() if line.startswith(name))

    steps_, ticks = value('throughtime_steps_total{model="lm"}'), value('throughtime_ticks_total{model="lm"}')
    asked = {"model": "lm", "prompt": "1", "max_tokens": 60, "seed": 5, "n": 20}
    answer = api.post("/v1/completions", json=asked).json()
    assert (
        value('throughtime_ticks_total{model="lm"}') - ticks
        < (value('throughtime_steps_total{model="lm"}') - steps_) / 4
    )
    lone = api.post("/v1/completions", json={**asked, "n": 1, "seed": 12}).json()
    assert lone["choices"][0]["text"] == answer["choices"][7]["text"]


# ---------------------------------------------------------------------------------------------- WebSocket


def talk(server, go, **options):
    """Let `go` talk over a WebSocket."""

    async def run():
        async with websockets.connect(server.url.replace("http", "ws") + "/v1/stream", **options) as socket:
            return await go(socket)

    return asyncio.run(run())


def test_a_socket_carries_many_sessions(server, api, model):
    ids = [made(api) for _ in range(10)]
    text = "3 sheep and 1 goats went"

    async def go(socket):
        for at in range(0, len(text), 4):
            for i, id in enumerate(ids):
                message = {
                    "session": id,
                    "first": at,
                    "text": text[at : at + 4],
                    "top": 2,
                    "logprobs": True,
                    "tag": [i, at],
                }
                await socket.send(json.dumps(message))
        return [json.loads(await socket.recv()) for _ in range(10 * len(range(0, len(text), 4)))]

    found = talk(server, go)
    alone = Alone(model)
    right = {at: alone.steps(text[at : at + 4], top=2) for at in range(0, len(text), 4)}
    assert sorted(answer["tag"] for answer in found) == sorted([i, at] for i in range(10) for at in right)
    for answer in found:
        i, at = answer["tag"]
        assert answer == {"tag": [i, at], "session": ids[i], "first": at, "time": at + 4, **right[at]}


def asked_frame(tag, numbers, firsts, tokens):
    parts = ([tag, len(numbers)], "<u4"), (numbers, "<u4"), (firsts, "<u8"), (tokens, "<i4")
    return b"".join(np.array(values, kind).tobytes() for values, kind in parts)


def test_a_socket_carries_binary_frames(server, model):
    text, count = "2 goats", 9  # more than there are rows

    async def go(socket):
        ids = [f"frame.{i}" for i in range(count)]
        await socket.send(json.dumps({"open": ids, "make": True, "model": "lm", "top": 3, "tag": "t"}))
        assert json.loads(await socket.recv()) == {"tag": "t", "open": list(range(count))}
        tokens = model.tokens.encode(text).tolist()
        for at, token in enumerate(tokens):
            await socket.send(asked_frame(at, range(count), [at] * count, [token] * count))
        return [await socket.recv() for _ in tokens]

    alone = Alone(model)
    for at, data in enumerate(sorted(talk(server, go), key=lambda d: d[:4])):
        kinds = [
            ("tag", "<u4"),
            ("n", "<u4"),
            ("number", "<u4", count),
            ("status", "<u4", count),
            ("time", "<u8", count),
        ]
        found = np.frombuffer(data, [*kinds, ("next", [("token", "<i4", 3), ("p", "<f4", 3)], count)])[0]
        assert (found["tag"], found["n"]) == (at, count)
        assert found["number"].tolist() == list(range(count))
        assert set(found["status"]) == {200}
        assert set(found["time"]) == {at + 1}
        right = alone.steps(text[at])["next"]
        assert found["next"]["token"].tolist() == [[one["token"] for one in right]] * count
        np.testing.assert_allclose(found["next"]["p"], [[one["p"] for one in right]] * count, rtol=1e-6)


def test_malformed_messages_are_answered_and_the_socket_stays_open(server, api):
    id = made(api)
    wrong = [
        "{", "[]", "7", "null", "[" * 100_000, '{"session": "none", "first": 0, "text": "a"}', '{"session": 7}',
        '{"session": "\\ud800", "first": 0, "text": "a", "tag": "\\ud800"}', json.dumps({"session": id, "first": 1, "text": "a"}),
        json.dumps({"open": []}), json.dumps({"open": ["none"]}), json.dumps({"open": [id], "top": 1000}),
        b"", b"\x01", b"\x01\0\0\0\x02\0\0\0", b"\xff" * 8, asked_frame(1, [0], [0], [5]),
    ]  # fmt: skip

    async def go(socket):
        for message in wrong:
            await socket.send(message)
            answer = json.loads(await socket.recv())
            assert answer["error"].keys() == {"message", "type", "code"}, (message, answer)
        await socket.send(json.dumps({"open": [id], "top": 2}))
        assert json.loads(await socket.recv()) == {"open": [0]}
        for frame in (asked_frame(7, [1], [0], [5]), asked_frame(7, [0], [2**60], [5]), asked_frame(7, [0], [0], [9999]),
                      asked_frame(7, [0], [0], [5])[:-1], asked_frame(7, [], [], [])):  # fmt: skip
            await socket.send(frame)
            answer = json.loads(await socket.recv())
            assert answer["error"]["code"] == "bad_request"
            assert answer["tag"] == 7
        await socket.send(asked_frame(8, [0], [3], [5]))
        refusal = await socket.recv()
        assert np.frombuffer(refusal, "<u4", 1, 12)[0] == 409
        draw = random.Random(0)
        for _ in range(300):
            await socket.send(draw.randbytes(draw.randrange(60)))
            assert "error" in json.loads(await socket.recv())
        await socket.send(json.dumps({"session": id, "first": 0, "text": "2"}))
        assert json.loads(await socket.recv())["time"] == 1

    talk(server, go)


def test_the_commands_of_the_documentation_run(server, tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("no curl on the PATH")
    docs = (Path(__file__).parent.parent / "docs/serve.md").read_text()
    docs = re.sub(
        r"^## (?:Series|Speech|Music)$.*?(?=^## )", "", docs, flags=re.M | re.S
    )  # other tests of the server run these
    lines = re.findall(r"^    (?:curl |url=|json=).*$", docs, re.M)
    assert len(lines) > 12
    script = "\n".join(lines).replace("http://127.0.0.1:8000", server.url).replace("reviews", "ways")
    curl = 'set -e\ncurl() { command curl -sS --fail-with-body "$@"; echo; }\n'
    done = subprocess.run(["bash", "-c", curl + script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"parts":1' in done.stdout


# ---------------------------------------------------------------------------------------------- who may, and how much


@pytest.fixture(scope="module")
def guarded(folder):
    """With tokens, and narrow limits."""
    with Serving(
        folder / "lm", "--port", 0, "--store", folder / "guarded", "--token", "alpha", "--sessions", 3, "--body", 3000,
        "--waiting", 4, "--slow", 1, "--cors", "https://page.example", "--longest", 5000,
        env={"THROUGHTIME_TOKENS": "beta, gamma"},
    ) as made:  # fmt: skip
        yield made
    assert made.said[1:] == []


def bearer(token):
    return {"authorization": f"Bearer {token}"}


def test_a_session_belongs_to_its_token(guarded):
    with httpx.Client(base_url=guarded.url) as api:
        for headers in (
            {},
            bearer("alph"),
            bearer("alphaa"),
            bearer("_"),
            {"authorization": "alpha"},
            {"authorization": "Bearer \u00e9".encode("latin-1")},
        ):
            refused(api.get("/v1/models", headers=headers), 401, "Bearer")
        refused(api.get("/metrics"), 401)
        assert api.get("/healthz").status_code == 200
        with (
            openai.OpenAI(base_url=f"{guarded.url}/v1", api_key="alph", max_retries=0) as stranger,
            pytest.raises(openai.AuthenticationError, match="Bearer"),
        ):
            stranger.completions.create(model="lm", prompt="a")
        one, two = bearer("alpha"), bearer("gamma")
        assert api.post("/v1/sessions", json={"id": "mine"}, headers=one).status_code == 201
        body = {"first": 0, "text": "a", "other": "mine", "time": 0}
        for method, path, keys in (
            ("GET", "", ()), ("DELETE", "", ()), ("POST", "/steps", ("first", "text")), ("GET", "/state", ()),
            ("POST", "/rewind", ("time",)), ("POST", "/branch", ()), ("POST", "/edit", ("time", "text")),
            ("POST", "/diff", ("other",)),
        ):  # fmt: skip
            answer = api.request(
                method, f"/v1/sessions/mine{path}", headers=two, json={key: body[key] for key in keys} or None
            )
            refused(answer, 404, "no session 'mine'")
        refused(api.post("/v1/completions", json={"session": "mine"}, headers=two), 404)
        assert api.get("/v1/sessions", headers=two).json()["data"] == []
        assert [s["id"] for s in api.get("/v1/sessions", headers=one).json()["data"]] == ["mine"]
        for _ in range(2):
            assert api.post("/v1/sessions", headers=one).status_code == 201
        refused(api.post("/v1/sessions", headers=one), 429, "3 sessions")
        refused(api.post("/v1/sessions/mine/branch", headers=one), 429, "3 sessions")
        assert api.post("/v1/sessions", headers=two).status_code == 201

    with pytest.raises(websockets.InvalidStatus) as error:
        talk(guarded, None)
    assert error.value.response.status_code == 401
    assert json.loads(error.value.response.body)["error"]["code"] == "unknown_token"

    async def go(socket):
        await socket.send(json.dumps({"session": "mine", "first": 0, "text": "a", "tag": 1}))
        return json.loads(await socket.recv())

    assert talk(guarded, go, additional_headers=two)["error"]["code"] == "not_found"
    assert talk(guarded, go, additional_headers=one)["time"] == 1


def test_bodies_lengths_and_waiting_are_limited(guarded):
    with httpx.Client(base_url=guarded.url, headers=bearer("beta"), timeout=30) as api:
        id = made(api)
        long = {"first": 0, "text": "a" * 4000}
        refused(api.post(f"/v1/sessions/{id}/steps", json=long), 413, "3000 bytes")

        def chunks():
            for _ in range(50):
                yield b"[" * 100

        refused(
            api.post("/v1/sessions", content=chunks(), headers={"content-type": "application/json"}), 413, "3000 bytes"
        )
        refused(api.post("/v1/completions", json={"max_tokens": 5001}), 413, "5000")
        refused(api.post("/v1/completions", json={"n": 5, "max_tokens": 5}), 429, "wait")
        with (
            openai.OpenAI(base_url=f"{guarded.url}/v1", api_key="beta", max_retries=0) as hasty,
            pytest.raises(openai.RateLimitError, match="ask again later"),
        ):
            hasty.completions.create(model="lm", prompt="a", n=5)
        answers = []

        def write():
            answers.append(
                httpx.post(
                    f"{guarded.url}/v1/completions",
                    json={"max_tokens": 4000, "n": 4},
                    headers=bearer("beta"),
                    timeout=60,
                )
            )

        thread = threading.Thread(target=write)
        thread.start()
        eventually(lambda: "throughtime_waiting 4" in api.get("/metrics").text)
        busy = api.post(f"/v1/sessions/{id}/steps", json={"first": 0, "text": "a"})
        refused(busy, 429, "4 requests wait")
        assert busy.headers["retry-after"] == "1"
        thread.join()
        assert answers[0].status_code == 200
        assert steps(api, id, 0, "a")["time"] == 1


def test_a_request_that_does_not_come_is_ended(guarded):
    host, port = guarded.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as slow:
        head = f"POST /v1/sessions HTTP/1.1\r\nhost: {host}:{port}\r\nauthorization: Bearer beta\r\n"
        slow.sendall(f"{head}content-length: 9\r\ncontent-type: application/json\r\n\r\n{{".encode())
        assert b" 408 " in slow.recv(4096)


def test_pages_of_others_may_not_ask(guarded, server):
    with httpx.Client(base_url=guarded.url) as api:
        there = {"origin": "https://page.example", **bearer("alpha")}
        assert api.get("/v1/models", headers=there).headers["access-control-allow-origin"] == "https://page.example"
        asks = {"origin": "https://page.example", "access-control-request-method": "POST"}
        allowed = api.options("/v1/sessions", headers=asks)
        assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, "https://page.example")
        others = api.options("/v1/sessions", headers={**asks, "origin": "https://other.example"})
        refused(others, 400, "https://other.example", "--cors")
        assert "access-control-allow-origin" not in others.headers
        strange = api.options("/v1/sessions", headers={**asks, "access-control-request-method": "BREW"})
        refused(strange, 400, "'BREW': is none of", "DELETE")
        other = api.get("/v1/models", headers={**there, "origin": "https://other.example"})
        assert (other.status_code, "access-control-allow-origin" in other.headers) == (200, False)
        assert api.get("/v1/models", headers={**there, "host": "behind.a.proxy"}).status_code == 200
    with httpx.Client(base_url=server.url) as api:
        refused(api.get("/v1/models", headers={"origin": "https://page.example"}), 403, "--cors")
        for host in ("page.example", "[", "localhost.page.example", "127.0.0.1.page.example:80"):
            refused(api.get("/v1/models", headers={"host": host}), 403, "localhost")
        refused(api.get("/v1/models", headers={"origin": "http://["}), 403, "--cors")
        own = api.get("/v1/models", headers={"origin": server.url})
        assert own.status_code == 200
        assert "access-control-allow-origin" not in own.headers
    with pytest.raises(websockets.InvalidStatus) as error:
        talk(server, None, origin="https://page.example")
    assert error.value.response.status_code == 403


def test_who_does_not_take_answers_is_closed(guarded):
    message = json.dumps({"session": "none", "tag": "x" * 2900})

    async def go(socket):
        async def send():
            for _ in range(10_000):
                await socket.send(message)

        sending = asyncio.create_task(send())
        await asyncio.sleep(3)
        with pytest.raises(websockets.ConnectionClosed) as closed:
            while True:
                await socket.recv()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        return closed.value.rcvd.code

    assert talk(guarded, go, additional_headers=bearer("gamma"), max_queue=1, ping_interval=None) == 1013


def test_who_hangs_up_in_the_middle_harms_nobody(server, api, model):
    host, port = server.url.removeprefix("http://").split(":")
    id = made(api)
    body = json.dumps({"first": 0, "text": "sheep" * 100, "logprobs": True})
    head = f"Host: {host}:{port}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    asks = [
        f"POST /v1/sessions/{id}/steps HTTP/1.1\r\n{head}{body}",
        f"PUT /v1/sessions/{id}/state HTTP/1.1\r\n{head}{body}",
    ]
    draw = random.Random(1)
    for number in range(60):
        ask = asks[number % 2].encode()
        with socket.create_connection((host, int(port))) as there:
            there.sendall(ask[: draw.randint(1, len(ask))] if number % 4 else ask)

    async def go(connection):
        for number in range(20):
            message = {"session": id, "first": 0, "text": "sheep" * 100, "logprobs": True, "tag": number}
            await connection.send(json.dumps(message))
        connection.transport.abort()

    for _ in range(5):
        with contextlib.suppress(websockets.ConnectionClosed):
            talk(server, go)
    eventually(lambda: "throughtime_waiting 0\n" in api.get("/metrics").text)
    assert api.get(f"/v1/sessions/{id}").json()["time"] == 500
    alone = Alone(model)
    alone.steps("sheep" * 100)
    assert steps(api, id, 500, "s") == {"first": 500, "time": 501, **alone.steps("s")}


STACK = """
import pathlib, sys, torch, throughtime as tt
from throughtime.serve.running import listen, run
from throughtime.serve.settings import Settings
torch.manual_seed(0)
stack, listening = tt.Recurrent(tt.cells.LSTM, 3, 5, 2), listen("127.0.0.1", 0)
at = f"serving at http://127.0.0.1:{listening.getsockname()[1]}"
run({"net": stack}, Settings(pathlib.Path(sys.argv[1])), listening, lambda: print(at, file=sys.stderr, flush=True))
"""


def test_a_stack_of_layers_is_served_as_numbers(tmp_path):
    torch.manual_seed(0)
    alone = tt.Recurrent(tt.cells.LSTM, 3, 5, 2).streams(1)
    x = torch.randn(40, 3)
    right = torch.cat([alone.step([0], row) for row in x.unsqueeze(1)])
    with Serving(tmp_path / "store", code=STACK) as serving, httpx.Client(base_url=serving.url) as api:
        id = made(api, id="n")
        found = api.post("/v1/sessions/n/steps", json={"first": 0, "inputs": x[:20].tolist()}).json()
        np.testing.assert_allclose(found["outputs"], right[:20], rtol=1e-6)
        for inputs in ([[1.0]], [[1e300, 0, 0]], [[1.0, 2, 3], [1.0]], [], [[]]):
            refused(api.post("/v1/sessions/n/steps", json={"first": 20, "inputs": inputs}), 400)
        refused(api.post("/v1/sessions/n/steps", json={"first": 20, "inputs": [[1, 2, 3]], "top": 2}), 400, "top")
        refused(api.post("/v1/completions", json={"prompt": "x"}), 400, "writes no text")
        refused(api.post("/v1/predict", json={"inputs": ["x"]}), 400, "does not answer whole inputs")

        async def go(connection):
            await connection.send(json.dumps({"open": [id]}))
            assert json.loads(await connection.recv()) == {"open": [0]}
            outputs = []
            for t in range(20, 40):
                head = np.array([t, 1, 0], "<u4").tobytes() + np.array([t], "<u8").tobytes()
                await connection.send(head + x[t].numpy().tobytes())
                data = await connection.recv()
                assert np.frombuffer(data, "<u4", 4).tolist() == [t, 1, 0, 200]
                outputs.append(np.frombuffer(data, "<f4", 5, len(data) - 20))
            return np.stack(outputs)

        assert np.array_equal(talk(serving, go), right[20:].numpy())
        flipped = [[[-0.5] * 5, [0.25] * 5]] * 2
        assert api.post("/v1/sessions/n/edit", json={"time": 40, "state": flipped}).status_code == 200
        alone.put(0, [(torch.full((1, 5), -0.5), torch.full((1, 5), 0.25))] * 2)
        found = api.post("/v1/sessions/n/steps", json={"first": 40, "inputs": x[:1].tolist()}).json()
        np.testing.assert_allclose(found["outputs"], alone.step([0], x[:1]), rtol=1e-6)
        edited = api.post("/v1/sessions/n/edit", json={"time": 3, "input": [0.0, 0.0, 1.0]})
        assert edited.json()["time"] == 41
    assert serving.said[1:] == []


def test_the_command_refuses_what_would_be_open_to_all(folder, server):
    def run(*options, **env):
        command = [sys.executable, "-m", "throughtime", "serve", str(folder / "lm"), *map(str, options)]
        done = processes.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    assert "--open" in run("--host", "0.0.0.0")
    assert "--slots" in run("--slots", 0)
    assert "spaces" in run("--token", "a b")
    assert "another process" in run("--store", folder / "store", "--port", 0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "--port" in run("--port", taken.getsockname()[1])


# ---------------------------------------------------------------------------------------------- kills, and the end


def test_killed_under_load_nothing_is_lost_and_nothing_doubled(folder, model):
    """Twenty sessions read; the server is killed twice, and they ask again until they are answered."""
    text, sessions = TEXT[:1200], 20
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    options = [folder / "lm", "--port", port, "--store", folder / "killed", "--slots", 13]
    running = [Serving(*options)]
    answers: list[dict[int, dict]] = [{} for _ in range(sessions)]
    killed = threading.Event()

    async def user(api, i):
        draw, at = random.Random(i), 0
        while at < len(text):
            size = min(draw.randint(1, 60), len(text) - at)
            body = {"first": at, "text": text[at : at + size], "top": 3, "logprobs": True}
            while True:
                try:
                    answer = await api.post(f"/v1/sessions/k{i}/steps", json=body)
                    break
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
            assert answer.status_code == 200, answer.text
            answers[i][at] = answer.json()
            at += size

    async def killer():
        for part in (0.25, 0.6):
            while sum(max(found, default=0) for found in answers) < part * sessions * len(text):
                await asyncio.sleep(0.002)
            await asyncio.to_thread(running[-1].kill)
            running.append(await asyncio.to_thread(Serving, *options))
        killed.set()

    async def go():
        async with httpx.AsyncClient(base_url=running[0].url, timeout=60) as api:
            for i in range(sessions):
                assert (await api.post("/v1/sessions", json={"id": f"k{i}"})).status_code == 201
            await asyncio.gather(killer(), *(user(api, i) for i in range(sessions)))
            return [load((await api.get(f"/v1/sessions/k{i}/state")).content) for i in range(sessions)]

    try:
        states = asyncio.run(go())
    finally:
        assert running[-1].stop() == 0
    assert killed.is_set()
    alone = Alone(model)
    whole = alone.steps(text)["logprobs"]
    for i in range(sessions):
        assert [p for at in sorted(answers[i]) for p in answers[i][at]["logprobs"]] == whole
        assert torch.equal(states[i]["1.0"], alone.streams.take(0)[1])
        assert torch.equal(states[i]["output"], alone.output)


def test_told_to_stop_it_finishes_what_runs(folder):
    with Serving(folder / "lm", "--port", 0, "--store", folder / "stopped") as made_:
        answers = []

        def write():
            asked = {"max_tokens": 3000, "seed": 1, "session": "s"}
            answers.append(httpx.post(f"{made_.url}/v1/completions", json=asked, timeout=60))

        with httpx.Client(base_url=made_.url) as api:
            made(api, id="s")
            thread = threading.Thread(target=write)
            thread.start()
            eventually(lambda: "throughtime_waiting 1" in api.get("/metrics").text)
            time.sleep(0.1)
        assert made_.stop() == 0
        thread.join()
        assert answers[0].json()["session"]["time"] == 3000
    with Serving(folder / "lm", "--port", 0, "--store", folder / "stopped", "--idle", 1) as again:
        assert httpx.get(f"{again.url}/v1/sessions/s").json()["time"] == 3000
        eventually(lambda: httpx.get(f"{again.url}/v1/sessions/s").status_code == 404)
