"""What a server of streams bears: load from this process, the server in another, on loopback.

    python benchmarks/serve.py [--sessions 10000] [--asleep 0] [--rate 5 ...] [--seconds 10] [--sockets 4] [--frame 250] [--top 0]

The network is a GRU of 64 units over characters, made on the spot (its weights do not matter to the speed). `--asleep` sessions
have read a character and left memory; each of `--sessions` others reads one `--rate` times a second, 0 for as often as it is
answered, of which `--frame` go in one binary frame. Says for each rate: steps a second, and how long a frame waited for its answer;
then the same steps asked one session a message, and the engine alone with one row a call and with all; a stream that is alone; a
session that is woken; what a session takes of memory; and after how long the server answers again once it was killed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import websockets

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))


def make_run(folder: Path) -> Path:
    import throughtime as tt

    text = "".join(f"{i} sheep, {i % 7} goats and {i % 3} dogs went over the hill.\n" for i in range(2000))
    (folder / "text.txt").write_text(text)
    model = {"tokens": "characters", "cell": "gru", "hidden_size": 64, "layers": 1}
    tt.train("text", [folder / "text.txt"], out=folder / "lm", steps=20, model=model, progress=False)
    return folder / "lm"


class Served:
    def __init__(self, run: Path, store: Path, slots: int, port: int = 0) -> None:
        command = [sys.executable, "-m", "throughtime", "serve", str(run), "--port", str(port), "--store", str(store)]
        command += ["--slots", str(slots), "--waiting", "200000"]
        self.process = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        )
        assert self.process.stderr is not None
        line = self.ready()
        self.url = next(word for word in line.split() if word.startswith("http://")).rstrip(",")

    def ready(self) -> str:
        """The line that says that it serves, once it does."""
        line = next(line for line in self.process.stderr if "serving" in line)
        self.child = int(line.rpartition("process ")[2])
        return line

    def memory(self) -> int:
        """Bytes in memory that no other process has."""
        lines = Path(f"/proc/{self.child}/smaps_rollup").read_text().splitlines()
        return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))

    def cpu(self) -> float:
        fields = Path(f"/proc/{self.child}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Load:
    """Some sessions over one socket."""

    def __init__(self, url: str, ids: list[str], given: argparse.Namespace) -> None:
        self.url, self.ids, self.given = url.replace("http", "ws") + "/v1/stream", ids, given
        self.firsts = np.zeros(len(ids), "<u8")
        self.waits: list[float] = []
        self.steps = 0
        self.json, self.rate = False, 0.0

    async def open(self) -> None:
        self.socket = await websockets.connect(self.url, max_size=None, compression=None, ping_interval=None)
        for low in range(0, len(self.ids), 5000):
            await self.socket.send(
                json.dumps({"open": self.ids[low : low + 5000], "make": True, "top": self.given.top})
            )
            answer = json.loads(await self.socket.recv())
            assert "open" in answer, answer

    async def run(self, seconds: float, *, once: bool = False) -> None:
        """Step all again and again, in frames, each when its time has come; or just once."""
        size = 1 if self.json else self.given.frame
        groups = [np.arange(low, min(low + size, len(self.ids))) for low in range(0, len(self.ids), size)]
        ended = time.perf_counter() + seconds
        answers: dict[int, asyncio.Future[None]] = {}
        reading = asyncio.create_task(self._read(answers))
        period = 1 / self.rate if self.rate else 0.0

        async def group(number: int, rows: np.ndarray) -> None:
            loop = asyncio.get_running_loop()
            due = time.perf_counter() + period * number / len(groups)
            while once or (due < ended and time.perf_counter() < ended):
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                began = time.perf_counter()
                answers[number] = loop.create_future()
                await self.socket.send(self._asked(number, rows))
                await answers[number]
                self.waits.append(time.perf_counter() - began)
                self.firsts[rows] += 1
                self.steps += len(rows)
                due += period
                if once:
                    break

        await asyncio.gather(*(group(n, rows) for n, rows in enumerate(groups)))
        reading.cancel()

    def _asked(self, number: int, rows: np.ndarray) -> bytes | str:
        if self.json:
            return json.dumps(
                {
                    "session": self.ids[rows[0]],
                    "first": int(self.firsts[rows[0]]),
                    "tokens": [5],
                    "top": self.given.top,
                    "tag": number,
                }
            )
        head = np.array([number, len(rows)], "<u4")
        parts = head, rows.astype("<u4"), self.firsts[rows], np.full(len(rows), 5, "<i4")
        return b"".join(part.tobytes() for part in parts)

    async def _read(self, answers: dict[int, asyncio.Future[None]]) -> None:
        async for data in self.socket:
            if isinstance(data, str):
                answer = json.loads(data)
                assert "time" in answer, answer
                tag = answer["tag"]
            else:
                tag, count = np.frombuffer(data, "<u4", 2).tolist()
                assert set(np.frombuffer(data, "<u4", count, 8 + 4 * count).tolist()) == {200}
            answers[tag].set_result(None)


def told(what: str, seconds: list[float]) -> None:
    ordered = sorted(seconds)
    p99 = ordered[min(int(0.99 * len(ordered)), len(ordered) - 1)]
    print(f"{what}: p50 {1e3 * statistics.median(ordered):.2f} ms, p99 {1e3 * p99:.2f} ms ({len(ordered)} of them)")


async def lone(server: Served) -> None:
    """One stream, one message after the other."""
    url = server.url
    async with websockets.connect(url.replace("http", "ws") + "/v1/stream", compression=None) as socket:
        took, cpu = [], server.cpu()
        for at in range(3000):
            message = json.dumps({"session": "lone", "first": at, "tokens": [5]})
            began = time.perf_counter()
            await socket.send(message)
            answer = json.loads(await socket.recv())
            took.append(time.perf_counter() - began)
            assert answer["time"] == at + 1
        told(f"a lone stream, JSON over a WebSocket, {1e3 * (server.cpu() - cpu) / 3000:.2f} ms of a core", took[200:])
    async with httpx.AsyncClient(base_url=url) as api:
        took, cpu = [], server.cpu()
        for at in range(3000, 3500):
            began = time.perf_counter()
            answer = await api.post("/v1/sessions/lone/steps", json={"first": at, "tokens": [5]})
            took.append(time.perf_counter() - began)
            assert answer.status_code == 200
        told(f"a lone stream, HTTP, {1e3 * (server.cpu() - cpu) / 500:.2f} ms of a core", took[50:])


async def measure(server: Served, given: argparse.Namespace) -> None:
    empty = server.memory()
    if given.asleep:
        began = time.perf_counter()
        for low in range(0, given.asleep, 5000):
            some = Load(server.url, [f"a{i}" for i in range(low, min(low + 5000, given.asleep))], given)
            await some.open()
            await some.run(0.0, once=True)
            await some.socket.close()
        print(f"{given.asleep:,} sessions made, and stepped once, in {time.perf_counter() - began:.1f} s")
    part = -(-given.sessions // given.sockets)
    ids = [f"s{i}" for i in range(given.sessions)]
    loads = [Load(server.url, ids[low : low + part], given) for low in range(0, given.sessions, part)]
    for load in loads:
        await load.open()
    before = server.memory()
    await asyncio.gather(*(load.run(1.0, once=True) for load in loads))  # all are awake
    awake = (server.memory() - before) / given.sessions
    for rate in given.rate:
        await run(server, loads, rate, given.seconds)
    grown = (server.memory() - before) / given.sessions
    print(f"memory: a session that is awake {awake:,.0f} bytes, with what it read last {grown:,.0f}", end="; ")
    print(f"asleep {(before - empty) / max(given.asleep, 1):,.0f} bytes" if given.asleep else "none asleep")
    for load in loads:
        load.json, load.ids = True, load.ids[: 1000 // given.sockets]
    await run(server, loads, 0.0, given.seconds / 2)
    if given.asleep:
        await woken(server, given.asleep)


async def run(server: Served, loads: list[Load], rate: float, seconds: float) -> None:
    """Step all of some loads, and say how that went."""
    for load in loads:
        load.waits, load.steps, load.rate = [], 0, rate
    began, cpu = time.perf_counter(), server.cpu()
    own = time.process_time()
    await asyncio.gather(*(load.run(seconds) for load in loads))
    took = time.perf_counter() - began
    steps, count = sum(load.steps for load in loads), sum(len(load.ids) for load in loads)
    asked = f"asked for {rate * count:,.0f}" if rate else "as fast as answers come"
    busy = f"{100 * (server.cpu() - cpu) / took:.0f} % of a core, the load {100 * (time.process_time() - own) / took:.0f} %"
    what = "one session a message" if loads[0].json else f"{loads[0].given.frame} a frame"
    print(f"{count:,} sessions, {what}: {steps / took:,.0f} steps a second ({asked}), the server {busy}", end="; ")
    told("each", [wait for load in loads for wait in load.waits])


async def woken(server: Served, asleep: int) -> None:
    """Steps of sessions that are not in memory."""
    async with websockets.connect(server.url.replace("http", "ws") + "/v1/stream", compression=None) as socket:
        took = []
        for number in range(0, asleep, max(1, asleep // 1000)):
            began = time.perf_counter()
            await socket.send(json.dumps({"session": f"a{number}", "first": 1, "tokens": [5]}))
            assert json.loads(await socket.recv())["time"] == 2
            took.append(time.perf_counter() - began)
        told("a session that was asleep", took)


def engine(run: Path) -> None:
    """The engine alone: the same steps with one row a call, and with all."""
    import torch

    import throughtime as tt

    torch.set_num_threads(1)
    streams = tt.load(run).engine().stack.streams(4096)
    x, rows = torch.randn(4096, streams.width), list(range(4096))

    def rate(seconds: float, call: Callable[[int], int]) -> float:
        steps, number, began = 0, 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            steps += call(number)
            number += 1
        return steps / (time.perf_counter() - began)

    alone = rate(1.0, lambda n: len(streams.step([n % 4096], x[n % 4096 : n % 4096 + 1])))
    together = rate(1.0, lambda n: len(streams.step(rows, x)))
    print(
        f"engine: {alone:,.0f} steps a second with one row a call, {together:,.0f} with 4,096: {together / alone:.1f} x"
    )


def killed(server: Served, what: str, kill: Callable[[], None]) -> None:
    """Kill, and say after how long an answer comes."""
    at = httpx.get(f"{server.url}/v1/sessions/lone").json()["time"]
    began = time.perf_counter()
    kill()
    while True:
        try:
            answer = httpx.post(f"{server.url}/v1/sessions/lone/steps", json={"first": at, "tokens": [5]})
            break
        except httpx.TransportError:
            pass
    assert answer.json()["time"] == at + 1
    print(f"{what} killed: it answers again after {time.perf_counter() - began:.2f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--asleep", type=int, default=0)
    parser.add_argument("--rate", type=float, nargs="+", default=[5.0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--sockets", type=int, default=4)
    parser.add_argument("--frame", type=int, default=250)
    parser.add_argument("--top", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_folder = make_run(folder)
        engine(run_folder)
        server = Served(run_folder, folder / "store", given.sessions)
        httpx.post(f"{server.url}/v1/sessions", json={"id": "lone"}).raise_for_status()
        asyncio.run(lone(server))
        asyncio.run(measure(server, given))
        for _ in range(3):
            killed(server, "what serves is", lambda: os.kill(server.child, signal.SIGKILL))
            server.ready()
            time.sleep(1.1)
        server.process.terminate()
        server.process.wait()
        port = int(server.url.rpartition(":")[2])
        began = time.perf_counter()
        server = Served(run_folder, folder / "store", given.sessions, port)
        print(f"all of it started anew: it serves after {time.perf_counter() - began:.2f} s")
        server.process.terminate()
        server.process.wait()


if __name__ == "__main__":
    main()
