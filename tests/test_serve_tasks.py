"""What a server answers of speech, recordings, series and music: the same as Python."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import os
import random
import re
import shutil
import struct
import subprocess
import time
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
import websockets

import throughtime as tt
from serve_kills import REST
from serving import Serving
from sounds import RATE, spoken, write_table
from throughtime.serve.readers import SpeechReader
from throughtime.serve.refused import Refused
from throughtime.serve.settings import Settings
from throughtime.serve.stores.single import SingleStore
from throughtime.tasks.midi import write_midi
from throughtime.tasks.music_files import typed
from throughtime.tasks.speech_state import packed, resume, settled
from throughtime.tasks.speech_stream import Partial
from throughtime.tasks.transcribe_model import values_of

soundfile, soxr = pytest.importorskip("soundfile"), pytest.importorskip("soxr")
pytestmark = pytest.mark.usefixtures("_one_thread")

TUNES = """X:1
M:4/4
L:1/8
K:C
c2e2 g2e2|f2d2 B2G2|[ce]4 [eg]4|c8|
X:2
M:4/4
L:1/8
K:G
g2b2 d2B2|c2A2 F2D2|[GB]4 [Bd]4|G8|
"""
NOTES = "C4+E4+G4 D4 E4+G4 F4 G4+B4"
TABLE = "ds,y\n" + "".join(f"{2000 + i // 12}-{i % 12 + 1:02},{100 + i + 9 * np.sin(i / 2):.3f}\n" for i in range(60))


def trained(task, files, out, steps, **settings):
    return tt.train(task, files, out=out, steps=steps, progress=False, **settings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, _one_thread):
    """Runs: a recogniser that hears a stream, one that does not, a classifier of recordings, a forecaster, and music."""
    folder = tmp_path_factory.mktemp("tasks")
    table, held = write_table(folder, "train", 90), write_table(folder, "dev", 10)
    small = {"hidden_size": 24, "layers": 1, "dropout": 0.0}
    plain, quick = {"speed": 0.0, "masks": 0.0}, {"learning_rate": 0.02, "warmup": 10, "batch_size": 16}
    for name, steps, streaming in (("ear", 120, True), ("whole", 3, False)):
        model = {**small, "units": "characters", "subsampling": 3, "streaming": streaming}
        trained("transcribe", [table], folder / name, steps, valid=held, model=model, data=plain, training=quick)
    (folder / "labelled").mkdir()
    labelled = write_table(folder / "labelled", "all", 30, labelled=True)
    trained("classify-audio", [labelled], folder / "kinds", 20, model={**small, "hidden_size": 8}, data=plain)
    (folder / "table.csv").write_text(TABLE)
    trained("forecast", [folder / "table.csv"], folder / "sales", 5, data={"horizon": 4}, model={"hidden_size": 8})
    (folder / "tunes.abc").write_text(TUNES)
    sizes = {"hidden_size": 12, "chain_size": 8, "embedding_size": 8, "cell": "gru"}
    trained("music", [folder / "tunes.abc"], folder / "tunes", 25, model=sizes)
    return folder


@pytest.fixture(scope="module")
def server(folder):
    runs = [folder / name for name in ("ear", "whole", "kinds", "sales", "tunes")]
    with Serving(*runs, "--port", 0, "--store", folder / "store", "--slots", 3, "--longest", 1000) as made:
        yield made
    assert made.process.returncode == 0
    assert made.said[1:] == []  # no traceback, no warning


@pytest.fixture
def api(server):
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def refused(answer, status, *words):
    """An error, in one line."""
    assert answer.status_code == status, answer.text
    assert answer.text.count("\n") == 1
    for word in words:
        assert word in answer.json()["error"]["message"], answer.text


def wav(samples, rate=RATE, kind="WAV"):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind)
    return file.getvalue()


def in_base64(data):
    return base64.b64encode(data).decode()


def near(one, other):
    """Equal, but for the last bits of numbers that were computed side by side with others."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(near(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(near, one, other))
    return one == pytest.approx(other, rel=1e-5) if isinstance(one, float) else one == other


# ---------------------------------------------------------------------------------------------- whole inputs


def test_recordings_are_answered_whole(api, folder):
    sounds = [spoken(("up", "wave"), 101), spoken(("down",), 102)]
    for i, x in enumerate(sounds):
        soundfile.write(folder / f"{i}.flac", x, RATE)
    given = [
        in_base64((folder / "0.flac").read_bytes()),
        f"data:audio/flac;base64,{in_base64((folder / '1.flac').read_bytes())}",
    ]
    for name in ("ear", "whole", "kinds"):
        answer = api.post("/v1/predict", json={"model": name, "inputs": given})
        assert answer.status_code == 200, answer.text
        wanted = list(tt.load(folder / name).predict([folder / "0.flac", folder / "1.flac"]))
        assert near(answer.json()["answers"], [w | {"audio": f"inputs.{i}"} for i, w in enumerate(wanted)])
    assert [
        one["text"] for one in api.post("/v1/predict", json={"model": "ear", "inputs": given}).json()["answers"]
    ] == [
        "up wave",
        "down",
    ]
    asked = {"model": "ear", "inputs": given, "options": {"decoding": "greedy"}}
    wanted = list(tt.load(folder / "ear").predict([folder / "0.flac"], decoding="greedy"))
    assert near(api.post("/v1/predict", json=asked).json()["answers"][0], wanted[0] | {"audio": "inputs.0"})


def test_series_are_answered_whole(api, folder):
    wanted = list(tt.load(folder / "sales").predict(folder / "table.csv", level="80,95"))
    rows = [dict(zip(("ds", "y"), line.split(","), strict=True)) for line in TABLE.splitlines()[1:]]
    for given in (TABLE, rows, [row | {"y": float(row["y"])} for row in rows]):
        answer = api.post("/v1/predict", json={"model": "sales", "inputs": given, "options": {"level": "80,95"}})
        assert answer.status_code == 200, answer.text
        assert near(answer.json()["answers"], wanted)


def test_music_is_answered_whole(api, folder):
    model = tt.load(folder / "tunes")
    write_midi(typed(NOTES, "notes"), folder / "notes.mid")
    given = [NOTES, *(f"data:;base64,{in_base64((folder / name).read_bytes())}" for name in ("notes.mid", "tunes.abc"))]
    answer = api.post("/v1/predict", json={"model": "tunes", "inputs": given})
    assert answer.status_code == 200, answer.text
    found = answer.json()["answers"]
    wanted = [*model.predict([typed(NOTES, "x")]), *model.predict([folder / "notes.mid", folder / "tunes.abc"])]
    assert len(found) == 4
    for one, other in zip(found, wanted, strict=True):
        assert near({**one, "place": ""}, {**other, "place": ""})
    assert [one["place"] for one in found] == ["inputs.0", "inputs.1", "inputs.2:1", "inputs.2:6"]


def test_whole_inputs_that_are_none_are_refused(api, folder):
    sound = in_base64(wav(spoken(("up",), 1)))

    def asked(model, inputs, **options):
        return api.post("/v1/predict", json={"model": model, "inputs": inputs, "options": options})

    for name in ("ear", "kinds"):
        refused(asked(name, "x"), 400, "inputs", "base64")
        refused(asked(name, [sound, "%%"]), 400, "inputs.1", "base64")
        refused(asked(name, ["data:audio/wav,x"]), 400, "inputs.0", ";base64")
        refused(asked(name, [sound, in_base64(b"hello there")]), 400, "inputs.1: is text, not audio")
        refused(asked(name, [in_base64(b"RIFF????")]), 400, "inputs.0: is WAV, but damaged")
        refused(asked(name, [in_base64(wav(np.zeros(RATE * 11)))]), 413, "inputs.0: lasts 11.0 s; up to 10 s")
    for option in ("words", "language_model", "encoding", "format", "rate"):
        refused(asked("ear", [sound], **{option: "/etc/passwd"}), 400, f"options.{option}", "the server reads none")
    refused(asked("sales", TABLE, pictures="here"), 400, "options.pictures")
    refused(asked("sales", TABLE, future=TABLE), 400, "without anything that is known ahead")
    refused(asked("sales", ["ds"]), 400, "inputs", "CSV")
    refused(asked("sales", "ds,y\n2000-01,x\n"), 400, "inputs:2", "'x'")
    refused(asked("tunes", ["C4 H9"]), 400, "inputs.0", "'h9'")
    refused(asked("tunes", ["/etc/passwd"]), 400, "inputs.0")
    refused(asked("tunes", [NOTES, f"data:;base64,{in_base64(b'hello')}"]), 400, "inputs.1: begins as no MIDI")
    refused(asked("tunes", ["C4 " * 1001]), 413, "inputs.0", "1000")
    refused(asked("tunes", [NOTES], bars=3), 400, "bars")


# ---------------------------------------------------------------------------------------------- a stream of speech


def stream(seed, rate=RATE, utterances=6):
    """Some utterances, as 16-bit samples."""
    rng = np.random.default_rng(seed)
    words = [rng.choice(["up", "down", "wave"], rng.integers(1, 4)).tolist() for _ in range(utterances)]
    x = np.concatenate([spoken(some, seed + i, around=0.6) for i, some in enumerate(words)])
    if rate != RATE:
        x = soxr.resample(x, RATE, rate)
    return (x * 32768).astype("<i2"), words


def pieces_of(samples, seed, most):
    """Parts of samples, of any sizes, each with its first."""
    rng, at = np.random.default_rng(seed), 0
    while at < len(samples):
        size = int(rng.integers(1, most))
        yield at, samples[at : at + size]
        at += size


def floats(samples):
    return samples.astype(np.float32) / np.float32(32768)


def told(events):
    """Events of Python as the server tells them."""
    return [
        {"partial": event.text, "time": round(event.time, 3)}
        if isinstance(event, Partial)
        else {name: value for name, value in values_of(event).items() if name != "audio"}
        for event in events
    ]


def hear(api, id, first, samples, **more):
    asked = {"first": first, "audio": in_base64(samples.tobytes()), **more}
    answer = api.post(f"/v1/sessions/{id}/steps", json={k: v for k, v in asked.items() if v != ""})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_stream_of_speech_is_heard_as_in_python_and_survives_kills(folder, tmp_path):
    samples, words = stream(7)
    alone, heard, draw = tt.load(folder / "ear").session(), [], random.Random(3)
    options = folder / "ear", "--port", 0, "--store", tmp_path / "store"
    serving = Serving(*options)
    api = httpx.Client(base_url=serving.url, timeout=30)

    def killed():
        nonlocal serving
        serving.kill()
        serving = Serving(*options)
        api.base_url = serving.url

    try:
        assert api.post("/v1/sessions", json={"id": "s"}).status_code == 201
        for i, (at, piece) in enumerate(pieces_of(samples, 1, 6000)):
            if draw.random() < 0.06:
                killed()
            wanted = told(alone.feed(floats(piece)))
            if i % 3 == 1:
                answer = api.post(f"/v1/sessions/s/audio?first={at}", content=piece.tobytes()).json()
            else:
                answer = hear(api, "s", at, piece)
            assert answer == {"first": at, "time": at + len(piece), "events": wanted}
            assert hear(api, "s", at, piece) == answer  # which was lost, say
            heard += wanted
        wanted = told(alone.finish())
        answer = hear(api, "s", len(samples), samples[:0], last=True)
        assert answer == {"first": len(samples), "time": len(samples) + 1, "events": wanted}
        killed()
        assert hear(api, "s", len(samples), samples[:0], last=True) == answer
        ended = api.post("/v1/sessions/s/steps", json={"first": len(samples) + 1, "last": True})
        refused(ended, 409, "has ended")
        said = [event["text"] for event in [*heard, *wanted] if "text" in event]
        assert said == [" ".join(some) for some in words]
    finally:
        api.close()
        serving.kill()


@pytest.mark.parametrize("rate", [8000, 44100])
def test_a_stream_at_another_rate_has_the_same_words(api, folder, rate):
    samples, _ = stream(20, rate)
    assert api.post("/v1/sessions", json={"id": f"at{rate}", "rate": rate}).status_code == 201
    found = []
    for at, piece in pieces_of(samples, 2, rate):
        found += hear(api, f"at{rate}", at, piece)["events"]
    found += hear(api, f"at{rate}", len(samples), samples[:0], last=True)["events"]
    session = tt.load(folder / "ear").session(rate=rate)
    wanted = told([*session.feed(floats(samples)), *session.finish()])
    utterances = [[event for event in events if "text" in event] for events in (found, wanted)]
    assert len(utterances[0]) >= 5
    for one, other in zip(*utterances, strict=True):
        assert (one["text"], one["start"], one["end"]) == (other["text"], other["start"], other["end"])
        for w, v in zip(one["words"], other["words"], strict=True):
            assert w["confidence"] == pytest.approx(v["confidence"], abs=2e-3)


def test_what_is_kept_of_a_stream_is_bounded(folder, tmp_path):
    async def go():
        reader, store = SpeechReader(tt.load(folder / "ear")), SingleStore(tmp_path / "s.db")
        hearing = reader.sessions("ear", store, Settings(tmp_path, slots=2))
        ids = [await hearing.create("o", f"s{i}", RATE) for i in range(3)]
        samples, _ = stream(30, utterances=14)
        assert len(samples) > 25 * RATE
        for at in range(0, len(samples), RATE):
            for id in ids:  # there is room for two: each is waked anew
                await hearing.hear("o", id, at, samples[at : at + RATE].tobytes(), False)
        assert hearing.awake == 2
        for id in ids:
            assert 0 < sum(count for _, count, _ in store.inputs(id, 0, len(samples))) <= 12 * RATE
            ((states,),) = store._file.execute("select count(*) from states where session = ?", (id,))
            assert states <= 2
        with pytest.raises(Refused, match=r"what lies before .* is forgotten"):
            await hearing.hear("o", "s0", 0, samples[:RATE].tobytes(), False)
        right = store.append

        def full(records):
            raise OSError(28, "No space left on device")

        time = (await hearing.about("o", "s0")).time
        store.append = full
        with pytest.raises(OSError, match="No space"):
            await hearing.hear("o", "s0", time, samples[:RATE].tobytes(), False)
        store.append = right
        once = await hearing.hear("o", "s0", time, samples[:RATE].tobytes(), False)
        assert once == await hearing.hear("o", "s1", time, samples[:RATE].tobytes(), False)
        await hearing.delete("o", "s1")
        assert await hearing.forget(2e10) == 2
        assert store.count() == 0
        hearing.close()
        store.close()

    asyncio.run(go())


class Fed:
    """A session of Python that was fed only what is left of one that went back. samples: these."""

    def __init__(self, ear, samples):
        self.ear, self.samples = ear, samples
        self.session = ear.session()
        self.session.feed(floats(samples))

    def feed(self, piece):
        self.samples = np.concatenate([self.samples, piece])
        return told(self.session.feed(floats(piece)))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_speech_goes_back_and_branches_as_if_nothing_else_had_been_heard(folder, tmp_path, seed):
    """After others took its place in memory, and after kills; what was left is heard again as it was."""
    ear, draw, killed, back, branched = tt.load(folder / "ear"), random.Random(seed), 0, 0, 0
    spring = np.concatenate([stream(100 * seed + k)[0] for k in range(4)])
    options = [folder / "ear", "--port", 0, "--store", tmp_path / "store", "--slots", 2]
    with contextlib.ExitStack() as stack:
        serving = stack.enter_context(Serving(*options))
        transport = httpx.HTTPTransport(retries=9)
        api = stack.enter_context(httpx.Client(base_url=serving.url, timeout=30, transport=transport))
        assert api.post("/v1/sessions", json={"id": "s0", "past": 1000}).status_code == 201
        left, came = {"s0": Fed(ear, spring[:0])}, {"s0": []}  # and what each was answered
        for number in range(110):
            id = draw.choice(sorted(left))
            one, verb = left[id], draw.random()
            if verb < 0.12 and len(one.samples):
                t = draw.randrange(len(one.samples))
                answer = api.post(f"/v1/sessions/{id}/rewind", json={"time": t})
                assert answer.json() == {"id": id, "time": t}
                left[id], back = Fed(ear, one.samples[:t]), back + 1
                came[id] = [answer for answer in came[id] if answer["time"] <= t]
            elif verb < 0.2 and len(left) < 5:
                t, other = draw.randint(0, len(one.samples)), f"b{number}"
                answer = api.post(f"/v1/sessions/{id}/branch", json={"id": other, "time": t})
                assert answer.status_code == 201 and answer.json()["time"] == t, answer.text
                left[other], branched = Fed(ear, one.samples[:t]), branched + 1
                came[other] = [answer for answer in came[id] if answer["time"] <= t]
            elif verb < 0.24:
                time.sleep(REST)  # or it would have died at once, once too often
                serving.kill_child()
                killed += 1
            elif verb < 0.3 and came[id]:
                answer = draw.choice(came[id])
                assert hear(api, id, answer["first"], one.samples[answer["first"] : answer["time"]]) == answer
            else:
                at, first = draw.randrange(len(spring) - 3 * RATE), len(one.samples)
                piece = spring[at : at + draw.randint(1, 3 * RATE)]
                answer = hear(api, id, first, piece)
                assert answer == {"first": first, "time": first + len(piece), "events": one.feed(piece)}
                came[id].append(answer)
        for id, one in left.items():
            wanted = told(one.session.finish())
            answer = hear(api, id, len(one.samples), spring[:0], last=True)
            assert answer["events"] == wanted
            assert api.post(f"/v1/sessions/{id}/rewind", json={"time": len(one.samples)}).status_code == 200
            assert hear(api, id, len(one.samples), spring[:0], last=True) == answer
    assert min(killed, back, branched) >= 2, (killed, back, branched)


@pytest.mark.parametrize("rate", [RATE, 8000])
def test_where_a_rewound_stream_is_has_the_bits_of_one_that_heard_no_more(folder, tmp_path, rate):
    async def go():
        reader, store = SpeechReader(tt.load(folder / "ear")), SingleStore(tmp_path / "s.db")
        hearing = reader.sessions("ear", store, Settings(tmp_path, slots=2))
        samples, _ = stream(70, rate)
        other, _ = stream(71, rate)

        async def heard(id, first, some):
            return await hearing.hear("o", id, first, some.tobytes(), False)

        def state(id):
            return packed(hearing._awake(store.find(id)).heard)

        for t in (1, rate + 77, 6 * rate + 5, len(samples)):
            one, two, three = [await hearing.create("o", f"{name}{t}", rate, 1000.0) for name in "abc"]
            for at, piece in pieces_of(samples, t, 2 * rate):
                await heard(one, at, piece)
                if at < t:
                    await heard(two, at, piece[: t - at])
            assert state(one) != state(two) or t == len(samples)
            await hearing.branch("o", one, f"d{t}", t)
            await hearing.rewind("o", one, t)
            assert state(one) == state(two) == state(f"d{t}") != state(three)
            events = [await heard(id, t, other) for id in (one, two, f"d{t}")]
            assert events[0] == events[1] == events[2] and events[0]
            assert state(one) == state(two) == state(f"d{t}")
        hearing.close()
        store.close()

    asyncio.run(go())


def test_as_much_is_kept_of_a_stream_as_is_asked_for(api, folder, server):
    samples, _ = stream(80, utterances=14)
    time = len(samples)
    assert time > 25 * RATE
    for id, past in (("short", 0), ("longer", 12.5)):
        assert api.post("/v1/sessions", json={"model": "ear", "id": id, "past": past}).status_code == 201
        for at in range(0, time, RATE):
            hear(api, id, at, samples[at : at + RATE])
        answer = api.post(f"/v1/sessions/{id}/rewind", json={"time": 0})
        refused(answer, 400, f"has read {time}, and forgotten what lies before")
        known = int(answer.json()["error"]["message"].rpartition("from ")[2].split()[0])
        assert past * RATE < time - known < (past + 12) * RATE, known
        refused(api.post(f"/v1/sessions/{id}/branch", json={"time": known - 1}), 400, f"from {known} to {time}")
        refused(api.post(f"/v1/sessions/{id}/steps", json={"first": 0, "audio": "AAA="}), 409, "is forgotten")
        assert api.post(f"/v1/sessions/{id}/branch", json={"id": f"{id}2", "time": known}).status_code == 201
        assert api.post(f"/v1/sessions/{id}/rewind", json={"time": known}).json()["time"] == known
        alone = Fed(tt.load(folder / "ear"), samples[:known])
        for one in (id, f"{id}2"):
            found = hear(api, one, known, samples[known : known + 5 * RATE])["events"]
            assert found == told(alone.session.feed(floats(samples[known : known + 5 * RATE])))
            alone = Fed(alone.ear, samples[:known])


@pytest.mark.parametrize("decoding", ["greedy", "beam", "words"])
def test_a_stream_goes_on_from_where_it_was_kept(folder, decoding):
    ear, draw = tt.load(folder / "ear"), random.Random(5)
    one, other = (ear.session(decoding=decoding) for _ in range(2))
    samples, _ = stream(60)
    for _, piece in pieces_of(samples, 3, 4000):
        assert one.feed(floats(piece)) == other.feed(floats(piece))
        if draw.random() < 0.5:
            assert settled(other)
            data = packed(other)
            other = ear.session(decoding=decoding)
            resume(other, data)
            assert packed(other) == data
    assert one.finish() == other.finish()


def test_speech_over_a_websocket(server, folder):
    samples, _ = stream(40, utterances=2)
    session = tt.load(folder / "ear").session()

    async def go():
        async with websockets.connect(f"{server.url.replace('http', 'ws')}/v1/stream") as socket:
            await socket.send(json.dumps({"open": ["w0", "w1"], "make": True, "model": "ear"}))
            assert json.loads(await socket.recv()) == {"open": [0, 1]}
            for at, piece in pieces_of(samples, 4, 8000):
                await socket.send(struct.pack("<IIQ", 9, 1, at) + piece.tobytes())
                answer = json.loads(await socket.recv())
                wanted = told(session.feed(floats(piece)))
                assert answer == {
                    "tag": 9, "session": "w1", "first": at, "time": at + len(piece), "events": wanted,
                }  # fmt: skip
            await socket.send(json.dumps({"session": "w1", "first": len(samples), "last": True, "tag": "end"}))
            answer = json.loads(await socket.recv())
            assert (answer["tag"], answer["events"]) == ("end", told(session.finish()))
            for frame, words in (
                (b"", "at least 16"),
                (struct.pack("<IIQ", 1, 2, 0), "session 2"),
                (struct.pack("<IIQ", 1, 0, 2**60), "2**53"),
                (struct.pack("<IIQ", 1, 0, 0), "0 samples"),
                (struct.pack("<IIQ", 1, 0, 0) + b"x", "a sample has 2"),
                (struct.pack("<IIQ", 1, 0, 5) + b"xx", "first: 5"),
            ):
                await socket.send(frame)
                assert words in json.loads(await socket.recv())["error"]["message"]

    asyncio.run(go())


def test_streams_of_speech_refuse_what_they_cannot(api):
    assert api.post("/v1/sessions", json={"id": "r", "model": "ear"}).status_code == 201

    def steps(**asked):
        return api.post("/v1/sessions/r/steps", json={"first": 0, **asked})

    refused(api.post("/v1/sessions", json={"model": "whole"}), 400, "'whole' has no streams", "--model.streaming")
    refused(api.post("/v1/sessions", json={"model": "ear", "rate": 4000}), 400, "rate", "4000")
    refused(api.post("/v1/sessions", json={"model": "ear", "history": "ds"}), 400, "history", "forecasts")
    refused(api.post("/v1/sessions", json={"model": "ear", "id": "r"}), 409, "already")
    refused(steps(), 400, "nothing to read: give audio")
    refused(steps(text="up"), 400, "text: give audio")
    refused(steps(audio="%"), 400, "audio: is no base64")
    refused(steps(audio=""), 400, "0 samples")
    refused(steps(audio=in_base64(b"abc")), 400, "3 bytes")
    refused(steps(audio="AAA=", top=2), 400, "top")
    refused(steps(audio=in_base64(bytes(2 * 11 * RATE))), 413, "up to 10 s")
    refused(steps(audio="AAA=", first=7), 409, "has heard 0")
    for verb, body, words in (
        ("rewind", {"time": 1}, "has read 0, so from 0 to 0"),
        ("branch", {"time": 1}, "has read 0, so from 0 to 0"),
        ("edit", {"time": 0, "text": "x"}, "rewound and branched alone"),
        ("diff", {"other": "r"}, "rewound and branched alone"),
    ):
        refused(api.post(f"/v1/sessions/r/{verb}", json=body), 400, words)
        refused(api.post(f"/v1/sessions/none/{verb}", json=body), 404, "there is no session")
    refused(api.get("/v1/sessions/r/state"), 400, "rewound and branched alone")
    refused(api.post("/v1/sessions", json={"model": "ear", "past": -1}), 400, "past", "-1")
    refused(api.post("/v1/sessions", json={"model": "sales", "past": 5}), 400, "'sales' has no streams")
    refused(api.post("/v1/sessions/r/audio?first=x", content=b"ab"), 400, "first")
    refused(api.post("/v1/completions", json={"model": "ear", "prompt": "x"}), 400, "ear")
    assert api.get("/v1/sessions/r").json()["time"] == 0
    assert api.delete("/v1/sessions/r").json()["deleted"]


# ---------------------------------------------------------------------------------------------- as OpenAI's API has it


def test_a_recording_is_transcribed_as_the_openai_client_asks(server, folder):
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    sound = wav(spoken(("down", "up", "wave"), 104))
    (folder / "one.wav").write_bytes(sound)
    ear = tt.load(folder / "ear")
    (wanted,) = ear.predict(folder / "one.wav")
    assert wanted["text"] == "down up wave"
    ask = client.audio.transcriptions.create
    assert ask(model="ear", file=("a.wav", sound)).text == wanted["text"]
    assert ask(model="ear", file=io.BytesIO(sound), response_format="text") == wanted["text"] + "\n"
    for form in ("srt", "vtt"):
        lines = ear.lines(ear.predict(folder / "one.wav", format=form), type("O", (), {"format": form}))
        assert ask(model="ear", file=sound, response_format=form) == "".join(line + "\n" for line in lines)
    both = ask(
        model="ear", file=sound, response_format="verbose_json", language="en",
        timestamp_granularities=["word", "segment"],
    )  # fmt: skip
    assert (both.text, both.language, both.duration) == (
        wanted["text"],
        "en",
        round(soundfile.info(folder / "one.wav").duration, 3),
    )
    assert [w.to_dict() for w in both.words] == [
        {name: w[name] for name in ("word", "start", "end")} for w in wanted["words"]
    ]
    assert [(s.id, s.text) for s in both.segments] == [(0, wanted["text"])]
    assert both.segments[0].avg_logprob == pytest.approx(
        np.mean(np.log([w["confidence"] for w in wanted["words"]])), abs=1e-2
    )
    alone = ask(model="ear", file=sound, response_format="verbose_json", timestamp_granularities=["word"])
    assert alone.segments is None
    silent = ask(model="ear", file=wav(np.zeros(RATE)), response_format="verbose_json")
    assert (silent.text, silent.segments) == ("", [])
    with pytest.raises(openai.BadRequestError, match="'sales' is of the task 'forecast'"):
        ask(model="sales", file=sound)
    with pytest.raises(openai.BadRequestError, match="stream"):
        ask(model="ear", file=sound, stream=True)
    with pytest.raises(openai.NotFoundError, match="unknown model 'nothing'"):
        ask(model="nothing", file=sound)


def test_forms_that_are_none_are_refused(api):
    sound = wav(spoken(("up",), 1))

    def asked(**fields):
        files = [("file", ("x", sound))] if "file" not in fields else fields.pop("file")
        return api.post("/v1/audio/transcriptions", files=files, data=fields)

    refused(asked(response_format="xml"), 400, "response_format", "'xml'")
    refused(asked(wishes="x"), 400, "wishes", "no such key")
    refused(asked(temperature="1"), 400, "temperature")
    refused(asked(**{"timestamp_granularities[]": "word"}), 400, "verbose_json")
    refused(asked(file=[("file", ("x", b"hello"))]), 400, "file: is text, not audio")
    refused(asked(file=[("file", ("x", b""))]), 400, "file: is empty")
    refused(asked(file=[("other", ("x", sound))]), 400, "file: is missing")
    refused(asked(file=[("file", ("x", sound)), ("file", ("x", sound))]), 400, "file: stands there twice")
    refused(asked(file=[("file", ("x", wav(np.zeros(RATE * 11))))]), 413, "file: lasts 11.0 s")
    refused(api.post("/v1/audio/transcriptions", json={}), 400, "content-type", "multipart/form-data")
    kind = {"content-type": "multipart/form-data; boundary=b"}
    for body, words in (
        (b"", "does not end"),
        (b"--b\r\n", "does not end"),
        (b"--b\r\nx--b--", "does not end"),
        (b"--b\r\na: b\r\n\r\nx\r\n--b--\r\n", "no name"),
        (b"--b\r\nContent-Disposition: form-data; name=file\r\nx\r\n--b--", "no head"),
        (b"--b\r\nx: " + b"y" * 9000 + b"\r\n\r\nx\r\n--b--", "no head"),
        (b"--b\r\nContent-Disposition: form-data; name=file\r\n\r\nx" * 200 + b"\r\n--b--", "file"),
        (b"\r\n".join([b"--b\r\nContent-Disposition: form-data; name=x\r\n\r\n1"] * 200) + b"\r\n--b--", "100 fields"),
    ):
        refused(api.post("/v1/audio/transcriptions", content=body, headers=kind), 400, words)
    for strange in ("multipart/form-data", "multipart/form-data; boundary=", "multipart/mixed; boundary=b", "\xff"):
        refused(
            api.post("/v1/audio/transcriptions", content=b"--b--", headers={"content-type": strange.encode("latin-1")}),
            400, "content-type",
        )  # fmt: skip


def test_what_stands_in_a_form_comes_out_as_it_was():
    from throughtime.serve.forms import fields

    rng = np.random.default_rng(0)
    for size in (0, 1, 2, 5, 1000):
        for _ in range(50):
            content = rng.choice(np.frombuffer(b"\r\n-b\0\xff", np.uint8), size).tobytes()
            if b"\r\n--b" in content:
                continue
            body = (
                b'preamble\r\n--b \t\r\nContent-Disposition: form-data; name="file"; filename="a\xc3\xa9"\r\n'
                b"Content-Type: message/rfc822\r\n\r\n"
                + content
                + b"\r\n--b\r\ncontent-disposition: form-data; name=x\r\n\r\n"
                b"1\r\n--b--\r\nepilogue"
            )
            assert fields("multipart/form-data; boundary=b", body) == [("file", content), ("x", b"1")]
    assert json.dumps(fields('Multipart/Form-Data; charset=utf-8; boundary="b"', b"--b--")) == "[]"


def test_the_commands_of_the_documentation_run(server, folder):
    if shutil.which("curl") is None:
        pytest.skip("no curl on the PATH")
    docs = (Path(__file__).parent.parent / "docs/serve.md").read_text()
    lines = re.findall(r"^    curl (.*)$", re.search(r"^## Speech$(.*?)^## ", docs, re.M | re.S)[1], re.M)
    script = "\n".join(f"curl -sS --fail-with-body {line}; echo" for line in lines)
    samples = spoken(("up", "down"), 105)
    (folder / "said.wav").write_bytes(wav(samples))
    (folder / "said.raw").write_bytes((samples * 32768).astype("<i2").tobytes())
    script = script.replace("32000", str(len(samples)))
    env = {**os.environ, "url": f"{server.url}/v1/sessions", "json": "Content-Type: application/json"}
    script = script.replace("http://127.0.0.1:8000", server.url)
    done = subprocess.run(["bash", "-ec", script], cwd=folder, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"text":"up down"' in done.stdout  # of the stream
    assert "\nup down\n" in done.stdout  # of the captions
