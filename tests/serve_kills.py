"""A server that is killed again and again while many use it, beside one that is not: both must answer the same.

    python tests/serve_kills.py [--kills 1000] [--seed 1] [--users 12] RUN

Users step, write texts, go back, change the past, branch and delete, each as a seeded script says, over HTTP and over a WebSocket;
one that gets no answer asks once more. The process that serves is killed by SIGKILL at seeded times, and now and then all of the
server. Then as much is asked of a server that nobody kills: every answer, and every session that there is, with its time and its
state, must be the same to the bit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import socket
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np
import websockets
from safetensors.numpy import load

from serving import Serving

LETTERS = "0123456 sheepandgoatswentoverhill;\n"
LONGEST = 1500  # inputs of a session, after which it goes back
FRAMES = 40  # sessions of the user of binary frames
COLD = 40  # one in so many kills is of the whole server
REST = 1.05  # seconds after which a process that dies has not died at once


def tensors(state: bytes) -> dict[str, bytes]:
    """The numbers of a state; of what is said beside them the order is any."""
    return {name: tensor.tobytes() for name, tensor in load(state).items()}


class User:
    """What one does, as a script says. answers: what came of each, without what may differ, such as dates."""

    def __init__(self, api: httpx.AsyncClient, seed: int, number: int) -> None:
        self.api, self.number = api, number
        self.draw = random.Random(f"{seed} {number}")
        self.times: dict[str, int] = {}
        self.answers: list[object] = []
        self.again = 0  # how many requests were sent once more
        self._made = 0

    async def do(self) -> None:
        """Do the next."""
        draw = self.draw
        if not self.times:
            return await self._create()
        id = draw.choice(sorted(self.times))
        at = self.times[id]
        if at > LONGEST:
            return await self._rewind(id, draw.randrange(at // 2))
        verbs = [self._steps] * 8 + [self._complete] * 3 + [self._state, self._branch, self._diff]
        verbs += [self._edit, self._put, lambda id: self._rewind(id, draw.randint(0, at))] if at else []
        await draw.choice(verbs)(id)

    def text(self, most: int) -> str:
        return "".join(self.draw.choices(LETTERS, k=self.draw.randint(1, most)))

    async def ask(self, method: str, path: str, *allowed: int, **given: object) -> tuple[httpx.Response, bool]:
        """An answer, and whether it was asked for more than once. allowed: a status that says that it was done the first time."""
        again = False
        while True:
            try:
                answer = await self.api.request(method, path, **given)
                break
            except httpx.TransportError:
                again = True
                self.again += 1
                await asyncio.sleep(0.02)
        assert answer.status_code < 300 or (again and answer.status_code in allowed), f"{method} {path}: {answer.text}"
        return answer, again

    async def _create(self) -> None:
        self._made += 1
        id = f"u{self.number}.{self._made}"
        await self.ask("POST", "/v1/sessions", 409, json={"id": id})
        self.times[id] = 0

    async def _steps(self, id: str) -> None:
        asked = {"first": self.times[id], "text": self.text(40), "top": 3, "logprobs": True}
        answer, _ = await self.ask("POST", f"/v1/sessions/{id}/steps", json=asked)
        self.answers.append(answer.json())
        self.times[id] = answer.json()["time"]

    async def _complete(self, id: str) -> None:
        draw, first = self.draw, self.times[id]
        asked = {"prompt": self.text(9), "max_tokens": draw.randint(1, 40), "seed": draw.randrange(1000), "logprobs": 1}
        asked |= {"session": id, "first": first, "stream": draw.random() < 0.5}
        while True:
            answer, _ = await self.ask("POST", "/v1/completions", 409, json=asked)
            if answer.status_code == 409:  # some of it was read
                await self.ask("POST", f"/v1/sessions/{id}/rewind", json={"time": first})
                continue
            if not asked["stream"]:
                found = answer.json()
                break
            events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
            assert events[-1] == "[DONE]"
            found = {"choices": [c for e in events[:-1] for c in json.loads(e)["choices"]], **json.loads(events[-2])}
            break
        self.times[id] = found["session"]["time"]
        self.answers.append([found["session"], found["choices"]])

    async def _rewind(self, id: str, t: int) -> None:
        await self.ask("POST", f"/v1/sessions/{id}/rewind", json={"time": t})
        self.times[id] = t

    async def _edit(self, id: str) -> None:
        asked = {"time": self.draw.randrange(self.times[id]), "text": self.draw.choice(LETTERS)}
        await self.ask("POST", f"/v1/sessions/{id}/edit", json=asked)

    async def _put(self, id: str) -> None:
        """The state of one time in the place of another's."""
        one, two = (self.draw.randint(0, self.times[id]) for _ in range(2))
        state, _ = await self.ask("GET", f"/v1/sessions/{id}/state", params={"time": one})
        await self.ask("PUT", f"/v1/sessions/{id}/state", params={"time": two}, content=state.content)

    async def _branch(self, id: str) -> None:
        if len(self.times) > 3:
            dropped = self.draw.choice(sorted(self.times))
            await self.ask("DELETE", f"/v1/sessions/{dropped}", 404)
            del self.times[dropped]
            return
        self._made += 1
        other, t = f"u{self.number}.{self._made}", self.draw.randint(0, self.times[id])
        await self.ask("POST", f"/v1/sessions/{id}/branch", 409, json={"id": other, "time": t})
        self.times[other] = t

    async def _diff(self, id: str) -> None:
        other = self.draw.choice(sorted(self.times))
        stop = min(self.times[id], self.times[other])
        asked = {"other": other, "start": max(0, stop - 50), "stop": stop}
        answer, _ = await self.ask("POST", f"/v1/sessions/{id}/diff", json=asked)
        self.answers.append(answer.json())

    async def _state(self, id: str) -> None:
        answer, _ = await self.ask("GET", f"/v1/sessions/{id}/state")
        self.answers.append(tensors(answer.content))

    async def close(self) -> None:
        """There is nothing to close."""


class FrameUser(User):
    """Steps many sessions by one input each, in binary frames over a WebSocket of its own."""

    async def do(self) -> None:
        """Step them all. What is sent once more has been read, or has not, by each of them."""
        if not self.times:
            self.times = {f"f{i}": 0 for i in range(FRAMES)}
            self.socket = None
        ids, tokens = sorted(self.times), np.array(self.draw.choices(range(2, 12), k=FRAMES), "<i4")
        firsts = np.array([self.times[id] for id in ids], "<u8")
        frame = np.array([7, FRAMES, *range(FRAMES)], "<u4").tobytes() + firsts.tobytes() + tokens.tobytes()
        while True:
            try:
                if self.socket is None:
                    url = str(self.api.base_url).replace("http", "ws").rstrip("/") + "/v1/stream"
                    self.socket = await websockets.connect(url, compression=None)
                    await self.socket.send(json.dumps({"open": ids, "make": True, "top": 2}))
                    assert "open" in json.loads(await self.socket.recv())
                await self.socket.send(frame)
                answer = await self.socket.recv()
                break
            except (websockets.WebSocketException, OSError):
                self.socket = None
                self.again += 1
                await asyncio.sleep(0.02)
        assert isinstance(answer, bytes), answer
        assert set(np.frombuffer(answer, "<u4", FRAMES, 8 + 4 * FRAMES).tolist()) == {200}, answer
        self.answers.append(answer)
        self.times = {id: time + 1 for id, time in self.times.items()}

    async def close(self) -> None:
        """Close the WebSocket."""
        if self.socket is not None:
            await self.socket.close()


async def use(url: str, seed: int, count: int, going: list[bool] | list[int]) -> tuple[list[User], object]:
    """Let users do what their scripts say. going: while its first is true; or how much each does.

    Returns: the users, and what the server holds in the end.
    """
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=httpx.Limits(max_connections=count)) as api:
        users = [User(api, seed, i) for i in range(count - 1)] + [FrameUser(api, seed, count - 1)]

        async def run(user: User) -> None:
            done = 0
            while going[0] is True or (len(going) > 1 and done < going[user.number]):
                await user.do()
                done += 1
            user.done = done
            await user.close()

        await asyncio.gather(*map(run, users))
        held = {}
        for listed in (await api.get("/v1/sessions", params={"limit": 1000})).json()["data"]:
            id = listed["id"]
            held[id] = listed["time"], tensors((await api.get(f"/v1/sessions/{id}/state")).content)
        for user in users:
            assert {id: held[id][0] for id in user.times} == user.times
        return users, held


def kill(serving: Serving, kills: int, seed: int, going: list[bool], options: list[object]) -> list[float]:
    """Kill what serves, again and again. Returns: after how many seconds it answered again, each time but where all was killed."""
    draw, took, quick, cold = random.Random(f"kills {seed}"), [], 0, 0
    try:
        for number in range(1, kills + 1):
            wait = draw.uniform(0, REST) if quick < 3 else REST
            quick = 0 if wait >= REST else quick + 1
            time.sleep(wait)
            began = time.perf_counter()
            if number % COLD == 0:
                serving.kill()
                serving.__init__(*options)
                quick, cold = 0, cold + 1
                continue
            serving.kill_child()
            while True:
                try:
                    assert httpx.get(f"{serving.url}/healthz", timeout=30).status_code == 200
                    break
                except httpx.TransportError:
                    pass
            took.append(time.perf_counter() - began)
    finally:
        going[0] = False
    return took


def beside_one_that_is_not_killed(run: Path, folder: Path, kills: int, seed: int, users: int) -> str:
    """Kill a server, and compare. Returns: what there was, in words. Raises: AssertionError where the two differ."""

    async def killed() -> tuple[list[User], object, list[float]]:
        going = [True]
        killing = asyncio.create_task(asyncio.to_thread(kill, serving, kills, seed, going, options))
        used = asyncio.create_task(use(serving.url, seed, users, going))
        await asyncio.wait((killing, used), return_when=asyncio.FIRST_EXCEPTION)
        return *(await used), await killing

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = [run, "--port", port, "--slots", 31, "--store", folder / "killed"]
    with Serving(*options) as serving:
        found, held, took = asyncio.run(killed())
    assert serving.process.returncode == 0
    done = [user.done for user in found]
    with Serving(run, "--port", 0, "--slots", 31, "--store", folder / "whole") as whole:
        right, should = asyncio.run(use(whole.url, seed, users, done))
    assert sum(user.again for user in right) == 0
    for one, two in zip(found, right, strict=True):
        for place, (a, b) in enumerate(zip(one.answers, two.answers, strict=True)):
            assert a == b, f"user {one.number}, answer {place}: {str(a)[:2000]} and {str(b)[:2000]}"
    assert held.keys() == should.keys(), held.keys() ^ should.keys()
    assert held == should, [id for id in held if held[id] != should[id]]
    took.sort()
    return (
        f"{kills} kills, {kills // COLD} of them of all of the server, seed {seed}: {sum(done)} requests, "
        f"{sum(user.again for user in found)} of them sent once more, {len(held)} sessions with "
        f"{sum(time for time, _ in held.values())} inputs: all the same; it answers again after "
        f"{took[len(took) // 2]:.2f} s, at most {took[-1]:.2f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="of a language model of characters")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--users", type=int, default=12)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        began = time.perf_counter()
        words = beside_one_that_is_not_killed(given.run, Path(name), given.kills, given.seed, given.users)
        print(f"{words} ({time.perf_counter() - began:.0f} s in all)", file=sys.stdout, flush=True)


if __name__ == "__main__":
    main()
