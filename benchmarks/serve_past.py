"""How long the past of a session takes, over HTTP: to go back to any of a million steps, to change one that lies 5,000 back, and to
compare the two futures.

    python benchmarks/serve_past.py [--steps 1000000]

The network is the GRU of 64 units of serve.py. The session has read its steps in requests of 10,000.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from serve import Served, make_run

FAR = 5000


def told(what: str, times: list[float]) -> None:
    times.sort()
    at = 1e3 * statistics.median(times)
    print(f"{what}: p50 {at:.1f} ms, at most {1e3 * times[-1]:.1f} ms ({len(times)} of them)", flush=True)


def measured(count: int, verb: Callable[[int], object]) -> list[float]:
    times = []
    for number in range(count):
        began = time.perf_counter()
        verb(number)
        times.append(time.perf_counter() - began)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000)
    given = parser.parse_args()
    draw = random.Random(1)
    with tempfile.TemporaryDirectory() as name:
        run = make_run(Path(name))
        server = Served(run, Path(name) / "store", 100)
        api = httpx.Client(base_url=f"{server.url}/v1", timeout=60)

        def ask(method: str, path: str, **given: object) -> httpx.Response:
            answer = api.request(method, f"/sessions{path}", **given)
            assert answer.status_code < 300, answer.text
            return answer

        ask("POST", "", json={"id": "a"})
        began = time.perf_counter()
        for first in range(0, given.steps, 10_000):
            ask("POST", "/a/steps", json={"first": first, "tokens": draw.choices(range(3, 20), k=10_000)})
        took = time.perf_counter() - began
        print(f"{given.steps:,} steps read in {took:.1f} s, {given.steps / took:,.0f} a second", flush=True)
        told(
            "look at any time",
            measured(100, lambda _: ask("GET", "/a/state", params={"time": draw.randrange(given.steps)})),
        )
        steps = given.steps

        def back(_: int) -> None:
            """To any time of its first or its last half, and a step there."""
            nonlocal at
            ask("POST", f"/{id}/rewind", json={"time": at})
            ask("POST", f"/{id}/steps", json={"first": at, "tokens": [5], "top": 3})

        times = []
        for number in range(8):
            id, at = f"b{number}", draw.randrange(steps)
            ask("POST", "/a/branch", json={"id": id})
            times += measured(1, back)
        told("go back to any time, and read a token", times)
        branched = measured(5, lambda number: ask("POST", "/a/branch", json={"id": f"c{number}"}))
        told(f"branch {steps:,} steps", branched)

        def edit(number: int) -> None:
            ask("POST", f"/c{number}/edit", json={"time": steps - FAR, "token": 4})
            for id in ("a", f"c{number}"):
                ask("GET", f"/{id}/state")

        told(f"change what was read {FAR:,} steps ago, and both futures", measured(5, edit))
        compare = {"other": "c0", "start": steps - FAR}
        told(f"compare them at {FAR:,} times", measured(3, lambda _: ask("POST", "/a/diff", json=compare)))
        server.process.terminate()
        server.process.wait()


if __name__ == "__main__":
    main()
