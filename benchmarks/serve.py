"""What a server of streams bears: load from this process, the server in another, on loopback.

    python benchmarks/serve.py [--sessions 10000] [--rate 5] [--seconds 20] [--sockets 4] [--frame 250] [--top 0] [--json]

The network is a GRU of 64 units over characters, made on the spot (its weights do not matter to the speed). Each session reads a
character `--rate` times a second, 0 for as often as it is answered; `--frame` sessions go in one binary frame, or each in a message
of its own with --json. Says: steps a second, how long a frame waited for its answer, a stream that is alone, what a session takes
of memory, and after how long the server answers again once it was killed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
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
        line = next(line for line in self.process.stderr if "serving" in line)
        self.url = next(word for word in line.split() if word.startswith("http://")).rstrip(",")

    def memory(self) -> int:
        """Bytes in memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))

    def cpu(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Load:
    """Some sessions over one socket."""

    def __init__(self, url: str, ids: list[str], given: argparse.Namespace) -> None:
        self.url, self.ids, self.given = url.replace("http", "ws") + "/v1/stream", ids, given
        self.firsts = np.zeros(len(ids), "<u8")
        self.waits: list[float] = []
        self.steps = 0

    async def open(self) -> None:
        self.socket = await websockets.connect(self.url, max_size=None, compression=None, ping_interval=None)
        for low in range(0, len(self.ids), 5000):
            await self.socket.send(
                json.dumps({"open": self.ids[low : low + 5000], "make": True, "top": self.given.top})
            )
            answer = json.loads(await self.socket.recv())
            assert "open" in answer, answer

    async def run(self, seconds: float) -> None:
        """Step all again and again, in frames, each when its time has come."""
        size = 1 if self.given.json else self.given.frame
        groups = [np.arange(low, min(low + size, len(self.ids))) for low in range(0, len(self.ids), size)]
        ended = time.perf_counter() + seconds
        answers: dict[int, asyncio.Future[None]] = {}
        reading = asyncio.create_task(self._read(answers))
        period = 1 / self.given.rate if self.given.rate else 0.0

        async def group(number: int, rows: np.ndarray) -> None:
            loop = asyncio.get_running_loop()
            due = time.perf_counter() + period * number / len(groups)
            while due < ended and time.perf_counter() < ended:
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                began = time.perf_counter()
                answers[number] = loop.create_future()
                await self.socket.send(self._asked(number, rows))
                await answers[number]
                self.waits.append(time.perf_counter() - began)
                self.firsts[rows] += 1
                self.steps += len(rows)
                due += period

        await asyncio.gather(*(group(n, rows) for n, rows in enumerate(groups)))
        reading.cancel()

    def _asked(self, number: int, rows: np.ndarray) -> bytes | str:
        if self.given.json:
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
    before = server.memory()
    part = -(-given.sessions // given.sockets)
    ids = [f"s{i}" for i in range(given.sessions)]
    loads = [Load(server.url, ids[low : low + part], given) for low in range(0, given.sessions, part)]
    began = time.perf_counter()
    for load in loads:
        await load.open()
    print(f"{given.sessions:,} sessions made in {time.perf_counter() - began:.1f} s")
    await asyncio.gather(*(load.run(2) for load in loads))  # all are awake
    for load in loads:
        load.waits, load.steps = [], 0
    began, cpu = time.perf_counter(), server.cpu()
    await asyncio.gather(*(load.run(given.seconds) for load in loads))
    took = time.perf_counter() - began
    steps = sum(load.steps for load in loads)
    rate = f"asked for {given.rate * given.sessions:,.0f}" if given.rate else "as fast as answers come"
    print(
        f"{steps / took:,.0f} steps a second ({rate}), the server {100 * (server.cpu() - cpu) / took:.0f} % of a core"
    )
    told("a message" if given.json else f"a frame of {given.frame}", [wait for load in loads for wait in load.waits])
    print(f"{(server.memory() - before) / given.sessions:,.0f} bytes of memory a session")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=5.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--sockets", type=int, default=4)
    parser.add_argument("--frame", type=int, default=250)
    parser.add_argument("--top", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = make_run(folder)
        server = Served(run, folder / "store", given.sessions)
        httpx.post(f"{server.url}/v1/sessions", json={"id": "lone"}).raise_for_status()
        asyncio.run(lone(server))
        asyncio.run(measure(server, given))
        time_ = httpx.get(f"{server.url}/v1/sessions/s0").json()["time"]
        server.process.kill()
        server.process.wait()
        began = time.perf_counter()
        server = Served(run, folder / "store", given.sessions, int(server.url.rpartition(":")[2]))
        ready = time.perf_counter() - began
        answer = httpx.post(f"{server.url}/v1/sessions/s0/steps", json={"first": time_, "tokens": [5]})
        print(
            f"killed: it listens after {ready:.2f} s and answers after {time.perf_counter() - began:.2f} s ({answer.status_code})"
        )
        server.process.terminate()
        server.process.wait()


if __name__ == "__main__":
    main()
