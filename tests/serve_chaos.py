"""Several processes that serve the same sessions, killed, paused and made more and fewer, beside one that is left alone.

    python tests/serve_chaos.py [--sessions 2000] [--requests 20] [--seconds 60] [--seed 1] [--shared folder|redis|ray] RUN

Each session reads seeded texts, each as long as its script says. A request goes to the process that its session hashes to, as a
proxy would send it; where that one does not answer in time, or is not there, to another. Meanwhile a seeded script ends processes
by SIGKILL, pauses them by SIGSTOP for shorter and longer than a lease, and takes them from 3 to 2 and to 4 (under Ray from 2 to 3
and back). Every answer, and the state of every session in the end, must be that of one process with a store of its own, to the bit.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import itertools
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from redis_server import redis_at
from serve_kills import LETTERS, tensors
from serving import Serving

LEASE = 1.0  # seconds
WORKERS = 48  # sessions that step at the same time
SLOW = 4.0  # seconds until a request goes to another process
GIVEN_UP = 120.0  # seconds after which a request is lost


class Processes:
    """Processes of `throughtime serve` beside one another. sizes: how many there are at first, and then, again and again."""

    sizes = (3, 2, 4)

    def __init__(self, run: Path, shared: str) -> None:
        self.options = [run, "--port", 0, "--shared", shared, "--lease", LEASE, "--slots", 700]
        self.serving: list[Serving] = []
        self.resize(self.sizes[0])

    def resize(self, count: int) -> None:
        """Start or end processes."""
        ended = [self.serving.pop() for _ in range(len(self.serving) - count)]
        with ThreadPoolExecutor() as beside:
            started = [beside.submit(Serving, *self.options) for _ in range(count - len(self.serving))]
            for one in ended:
                assert one.stop() == 0, one.said
            self.serving += [one.result() for one in started]

    def pids(self) -> list[int]:
        """The processes that serve."""
        return [one.child for one in self.serving]

    def urls(self, id: str) -> list[str]:
        """Where to ask for a session: first the process that it hashes to."""
        urls = [one.url for one in self.serving]
        return sorted(urls, key=lambda url: hashlib.sha256(f"{url} {id}".encode()).digest())

    def close(self) -> None:
        """End all."""
        for one in self.serving:
            one.kill()


class Replicas(Processes):
    """The same under Ray Serve, on a machine that Ray starts for it. Each replica imports all by itself."""

    sizes = (2, 3)

    def __init__(self, run: Path, shared: str, folder: Path) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        import ray
        from ray import serve
        from ray.serve.config import HTTPOptions

        self._ray, self._serve = ray, serve
        self._given = {"runs": str(run), "shared": shared, "lease": LEASE, "slots": 700}
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level="error", _temp_dir=str(folder))
        serve.start(
            http_options=HTTPOptions(port=int(self.url.rpartition(":")[2])), logging_config={"log_level": "ERROR"}
        )
        self.resize(self.sizes[0])

    def resize(self, count: int) -> None:
        """Have another number of replicas."""
        from ray.serve.context import _get_global_client
        from ray.serve.schema import ServeDeploySchema

        application = {"name": "chaos", "import_path": "throughtime.serve.ray:build", "args": self._given}
        application["deployments"] = [{"name": "throughtime", "num_replicas": count}]
        _get_global_client().deploy_apps(ServeDeploySchema.model_validate({"applications": [application]}))
        end = time.monotonic() + 120
        while self._serve.status().applications["chaos"].status != "RUNNING" or len(self.pids()) != count:
            status = self._serve.status().applications["chaos"]
            assert time.monotonic() < end and status.status != "DEPLOY_FAILED", status.message
            time.sleep(0.1)

    def pids(self) -> list[int]:
        """The replicas, as the system knows them; Ray sets what their command is."""
        found = list[int]()
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if path.read_bytes().startswith(b"ray::ServeReplica:chaos:"):
                    found.append(int(path.parent.name))
        return found

    def urls(self, id: str) -> list[str]:
        """The proxy, which looks at the header."""
        return [self.url]

    def close(self) -> None:
        """End all."""
        self._serve.shutdown()
        self._ray.shutdown()


class Session:
    """What one reads, as a script says. answers: what came of it."""

    def __init__(self, seed: int, number: int, requests: int) -> None:
        self.id, self.draw = f"s{number}", random.Random(f"{seed} {number}")
        self.texts = ["".join(self.draw.choices(LETTERS, k=self.draw.randint(1, 30))) for _ in range(requests)]
        self.answers: list[object] = []
        self.again = 0  # how many requests were sent once more


async def ask(
    api: httpx.AsyncClient, at: Processes, session: Session, method: str, path: str, **given
) -> httpx.Response:
    """An answer, from whichever process gives one."""
    ended, tries = time.monotonic() + GIVEN_UP, 0
    while True:
        urls = at.urls(session.id)
        url = urls[tries % len(urls)]
        with contextlib.suppress(httpx.TransportError):
            answer = await api.request(method, f"{url}{path}", headers={"x-session-id": session.id}, **given)
            if answer.status_code not in (500, 503) or time.monotonic() > ended:
                return answer
        assert time.monotonic() < ended, f"{method} {path}: nobody answers"
        tries += 1
        session.again += 1
        await asyncio.sleep(0.05)


async def use(at: Processes, sessions: list[Session], seconds: float) -> dict[str, tuple[int, object]]:
    """Let sessions read, spread over some seconds, or longer where that does not do. Returns: where each is in the end."""
    began, busy = time.monotonic(), asyncio.Semaphore(WORKERS)
    held: dict[str, tuple[int, object]] = {}
    async with httpx.AsyncClient(timeout=SLOW, limits=httpx.Limits(max_connections=WORKERS)) as api:

        async def run(session: Session) -> None:
            async with busy:
                made = await ask(api, at, session, "POST", "/v1/sessions", json={"id": session.id})
                assert made.status_code in (201, 409), made.text
            first = 0
            for number, text in enumerate(session.texts):
                when = began + seconds * (number + session.draw.random()) / len(session.texts)
                await asyncio.sleep(max(0, when - time.monotonic()))
                async with busy:
                    asked = {"first": first, "text": text, "top": 2, "logprobs": True}
                    answer = await ask(api, at, session, "POST", f"/v1/sessions/{session.id}/steps", json=asked)
                assert answer.status_code == 200, f"{session.id}, {first}: {answer.text}"
                session.answers.append(answer.json())
                first += len(text)

        async def look(session: Session) -> None:
            async with busy:
                about = await ask(api, at, session, "GET", f"/v1/sessions/{session.id}")
                state = await ask(api, at, session, "GET", f"/v1/sessions/{session.id}/state")
            held[session.id] = about.json()["time"], tensors(state.content)

        async with asyncio.TaskGroup() as tasks:
            for session in sessions:
                tasks.create_task(run(session))
        async with asyncio.TaskGroup() as tasks:
            for session in sessions:
                tasks.create_task(look(session))
    return held


def disturb(at: Processes, seed: int, seconds: float, counts: dict[str, int]) -> None:
    """Kill, pause and resize, in an order of the seed's, for some seconds and until each has been done."""
    draw, ended = random.Random(f"chaos {seed}"), time.monotonic() + seconds
    sizes = itertools.cycle([*at.sizes[1:], at.sizes[0]])
    while True:
        for what in draw.sample(["killed", "paused", "slept", "resized", "killed", "resized"], 6):
            time.sleep(draw.uniform(0.2, 1.0))
            counts[what] += 1
            if what == "resized":
                at.resize(next(sizes))
                continue
            pid = draw.choice(at.pids())
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if what == "killed" else signal.SIGSTOP)
                if what != "killed":
                    time.sleep(LEASE * (0.3 if what == "paused" else 2.5))  # it loses its sessions in the second case
                    os.kill(pid, signal.SIGCONT)
        if time.monotonic() > ended:
            return


def beside_one_that_is_left_alone(
    run: Path, folder: Path, at: Processes, sizes: tuple[int, int], seconds: float, seed: int
) -> str:
    """Disturb processes, and compare. sizes: sessions, and requests of each. Returns: what there was, in words.

    Raises: AssertionError where the two differ.
    """
    counts = {"killed": 0, "paused": 0, "slept": 0, "resized": 0}

    async def disturbed(sessions: list[Session]) -> dict[str, tuple[int, object]]:
        beside = asyncio.create_task(asyncio.to_thread(disturb, at, seed, seconds, counts))
        held = await use(at, sessions, seconds)
        await beside
        return held

    found, right = ([Session(seed, number, sizes[1]) for number in range(sizes[0])] for _ in range(2))
    held = asyncio.run(disturbed(found))
    with Serving(run, "--port", 0, "--store", folder / "alone") as alone:
        whole = Processes.__new__(Processes)
        whole.serving = [alone]
        should = asyncio.run(use(whole, right, 0))
    for one, two in zip(found, right, strict=True):
        for place, (a, b) in enumerate(zip(one.answers, two.answers, strict=True)):
            assert a == b, f"{one.id}, answer {place}: {str(a)[:1000]} and {str(b)[:1000]}"
        assert held[one.id] == should[two.id], one.id
    assert all(counts.values()), counts
    told = "{killed} times killed, {paused} paused, {slept} paused for longer than a lease, {resized} resized".format(
        **counts
    )
    return (
        f"{sizes[0]} sessions, {sizes[0] * sizes[1]} requests, {sum(time for time, _ in held.values())} inputs, seed {seed}; "
        f"processes were {told}; {sum(session.again for session in found)} requests sent once more: all the same"
    )


@contextlib.contextmanager
def processes(run: Path, folder: Path, shared: str) -> Iterator[Processes]:
    """Three of them, with a folder or a Redis of their own."""
    with contextlib.ExitStack() as stack:
        where = str(folder / "shared") if shared == "folder" else stack.enter_context(redis_at(folder / "redis"))
        at = Replicas(run, where, folder) if shared == "ray" else Processes(run, where)
        stack.callback(at.close)
        yield at


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="of a language model of characters")
    parser.add_argument("--sessions", type=int, default=2000)
    parser.add_argument("--requests", type=int, default=20, help="of each session")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shared", choices=["folder", "redis", "ray"], default="folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        began, folder = time.perf_counter(), Path(name)
        with processes(given.run, folder, given.shared) as at:
            sizes = (given.sessions, given.requests)
            words = beside_one_that_is_left_alone(given.run, folder, at, sizes, given.seconds, given.seed)
        print(f"{words} ({time.perf_counter() - began:.0f} s in all)", file=sys.stdout, flush=True)


if __name__ == "__main__":
    main()
