"""Sessions that are opened, used and dropped: what the server has in memory, and on the disk, must stay as much.

    python tests/serve_drops.py [--sessions 36000] [--every 3000] RUN

An hour of a server to which ten come a second is 36,000 of them. They come by fifties, over a WebSocket that is closed again: made,
and stepped in binary frames. Of each fifty some are stepped over HTTP, write a text, or are branched; ten are left to be forgotten,
and the others deleted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import websockets

from serving import Serving

USERS = 4  # at the same time
FIFTY = 50


class Seen(NamedTuple):
    """After so many sessions: bytes of the process that serves, and of the store."""

    sessions: int
    memory: int
    store: int


def memory(process: int) -> int:
    """Bytes of a process that lie in memory."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("Rss")))


async def use(api: httpx.AsyncClient, number: int) -> None:
    """Make some sessions, use them, and drop them."""

    async def ask(method: str, path: str, **body: object) -> None:
        answer = await api.request(method, f"/v1{path}", json=body or None)
        assert answer.status_code < 300, answer.text

    ids = [f"d{number}.{i}" for i in range(FIFTY)]
    url = str(api.base_url).replace("http", "ws").rstrip("/") + "/v1/stream"
    async with websockets.connect(url, compression=None) as socket:
        await socket.send(json.dumps({"open": ids, "make": True, "top": 3}))
        assert "open" in json.loads(await socket.recv())
        for t in range(3):
            numbers, firsts, tokens = np.arange(FIFTY, dtype="<u4"), np.full(FIFTY, t, "<u8"), np.full(FIFTY, 5, "<i4")
            head = np.array([t, FIFTY], "<u4")
            await socket.send(b"".join(part.tobytes() for part in (head, numbers, firsts, tokens)))
            answer = await socket.recv()
            assert set(np.frombuffer(answer, "<u4", FIFTY, 8 + 4 * FIFTY).tolist()) == {200}
        await socket.send(json.dumps({"session": ids[0], "first": 3, "text": "sheep" * 100, "tag": "not waited for"}))
    for id in ids[1:4]:
        await ask("POST", f"/sessions/{id}/steps", first=3, text="sheep", logprobs=True)
        await ask("POST", "/completions", session=id, max_tokens=4, stream=id[-1] == "2")
        await ask("POST", f"/sessions/{id}/branch", id=f"{id}.b", time=3)
        await ask("POST", f"/sessions/{id}.b/rewind", time=1)
        await ask("DELETE", f"/sessions/{id}.b")
    for id in ids[10:]:
        await ask("DELETE", f"/sessions/{id}")


def drop(run: Path, store: Path, sessions: int, every: int, tell: Callable[[Seen], object]) -> None:
    """Let sessions come and go. tell: is given what is seen, each time after `every` of them."""
    numbers = iter(range(FIFTY, sessions + 1, FIFTY))

    async def user(api: httpx.AsyncClient, serving: Serving) -> None:
        for number in numbers:
            await use(api, number)
            if number % every == 0:
                kept = sum(file.stat().st_size for file in store.iterdir())
                tell(Seen(number, memory(serving.child), kept))

    async def go(serving: Serving) -> None:
        async with httpx.AsyncClient(base_url=serving.url, timeout=60) as api:
            await asyncio.gather(*(user(api, serving) for _ in range(USERS)))

    with Serving(run, "--port", 0, "--store", store, "--slots", 150, "--idle", 20) as serving:
        asyncio.run(go(serving))
    assert serving.said[1:] == []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="of a language model of characters")
    parser.add_argument("--sessions", type=int, default=36_000)
    parser.add_argument("--every", type=int, default=3000)
    given = parser.parse_args()
    began = time.perf_counter()

    def tell(seen: Seen) -> None:
        after = time.perf_counter() - began
        print(
            f"{seen.sessions:,}: {seen.memory / 1e6:.1f} MB, store {seen.store / 1e6:.1f} MB, {after:.0f} s", flush=True
        )

    with tempfile.TemporaryDirectory() as name:
        drop(given.run, Path(name), given.sessions, given.every, tell)


if __name__ == "__main__":
    main()
