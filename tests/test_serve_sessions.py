"""Sessions of a server: logs whose memory survives, each as if it were alone."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys

import pytest
import torch

import processes
import throughtime as tt
from throughtime.errors import UserError
from throughtime.serve.refused import Refused
from throughtime.serve.sessions import Sessions
from throughtime.serve.stores.single import SingleStore
from throughtime.travel import Engine


def network():
    torch.manual_seed(0)
    return tt.Recurrent(tt.cells.LSTM, 3, 5, 2, learn_initial_state=True)


def served(path, slots=64, stack=None, **options):
    stack = network() if stack is None else stack
    return Sessions("net", Engine(stack), stack.streams(slots), SingleStore(path / "serve.db"), **options)


def closed(sessions):
    sessions.close()
    sessions.store.close()


async def read(sessions, *given):
    return torch.stack((await sessions.steps(*given)).outputs)


def inputs(n, seed=0):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))


def test_a_session_gives_what_a_session_of_the_library_gives(tmp_path):
    async def go():
        sessions, x = served(tmp_path), inputs(1300)
        alone = tt.Session(network())
        id = await sessions.create("a")
        got = []
        at = 0
        for size in (1, 700, 5, 594):
            got.append(await read(sessions, "a", id, at, x[at : at + size]))
            at += size
        torch.testing.assert_close(torch.cat(got), alone.feed(x), rtol=1e-5, atol=1e-6)
        # rewind, edit an input, edit a state
        await sessions.rewind("a", id, 900)
        alone.rewind(900)
        torch.testing.assert_close(await read(sessions, "a", id, 900, x[:50]), alone.feed(x[:50]), rtol=1e-5, atol=1e-6)
        await sessions.edit("a", id, 17, input=torch.ones(1, 3))
        alone.edit(17, input=torch.ones(3))
        state = (await sessions.moment("a", id, 600))[1].state
        flipped = [tuple(-t for t in s) for s in state]
        await sessions.edit("a", id, 600, state=flipped)
        alone.edit(600, state=flipped)
        await sessions.edit("a", id, 3, input=torch.zeros(1, 3))  # before a state that was put in
        alone.edit(3, input=torch.zeros(3))
        for t in (3, 4, 17, 18, 511, 512, 513, 600, 601, 949, 950):
            alone.rewind(t)
            time, moment = await sessions.moment("a", id, t)
            assert time == t
            for a, b in zip(moment.state, alone.state, strict=True):
                for c, d in zip(a, b, strict=True):
                    torch.testing.assert_close(c, d, rtol=1e-4, atol=1e-5)
        closed(sessions)

    asyncio.run(go())


def test_a_request_that_comes_twice_gets_the_same_and_changes_nothing(tmp_path):
    async def go():
        sessions, x = served(tmp_path), inputs(40)
        id = await sessions.create("a")
        first = await read(sessions, "a", id, 0, x[:10])
        second = await read(sessions, "a", id, 10, x[10:])
        assert torch.equal(await read(sessions, "a", id, 0, x[:10]), first)
        assert torch.equal(await read(sessions, "a", id, 12, x[12:30]), second[2:20])
        assert (await sessions.about("a", id)).time == 40
        for at, what in ((0, inputs(5, seed=3)), (41, x[:1]), (35, x[:10])):
            with pytest.raises(Refused, match="go on from there, or rewind") as refused:
                await read(sessions, "a", id, at, what)
            assert refused.value.status == 409
        closed(sessions)

    asyncio.run(go())


@pytest.mark.parametrize("slots", [2, 7, 64])
def test_many_sessions_at_once_are_each_as_if_alone_and_leave_memory_and_come_back(tmp_path, slots):
    async def go():
        sessions, count = served(tmp_path, slots), 40
        draw = random.Random(slots)
        ids = [await sessions.create(f"owner{i % 3}", f"s{i}") for i in range(count)]
        x = {i: inputs(300, seed=i) for i in range(count)}

        async def user(i):
            at, got = 0, []
            while at < 300:
                size = min(draw.randint(1, 60), 300 - at)
                got.append(await read(sessions, f"owner{i % 3}", ids[i], at, x[i][at : at + size]))
                at += size
                if draw.random() < 0.2:
                    assert torch.equal(
                        await read(sessions, f"owner{i % 3}", ids[i], 0, x[i][: min(at, 7)]), torch.cat(got)[:7]
                    )
                await asyncio.sleep(0)
            return torch.cat(got)

        outputs = await asyncio.gather(*map(user, range(count)))
        if slots == 64:
            assert sessions.batcher.ticks < sessions.batcher.steps / 3  # they were stepped together
        alone = network().streams(1)
        for i in (0, 17, 39):
            alone.reset([0])
            assert torch.equal(outputs[i], torch.cat([alone.step([0], row) for row in x[i].unsqueeze(1)]))
        closed(sessions)

    asyncio.run(go())


def test_a_branch_goes_its_own_way_and_the_two_are_compared(tmp_path):
    async def go():
        sessions, x = served(tmp_path), inputs(30)
        id = await sessions.create("a")
        await read(sessions, "a", id, 0, x)
        other = await sessions.branch("a", id, t=20)
        assert (await sessions.about("a", other)).time == 20
        await sessions.edit("a", other, 12, input=torch.zeros(1, 3))
        await read(sessions, "a", other, 20, x[20:])
        apart = await sessions.diff("a", id, other, 8, 30)
        assert apart.parts == 13
        assert apart.states[0] == [0.0, 0.0]
        await sessions.delete("a", id)
        with pytest.raises(Refused, match="there is no session"):
            await sessions.about("a", id)
        assert (await sessions.about("a", other)).time == 30
        closed(sessions)

    asyncio.run(go())


def test_a_session_belongs_to_its_owner(tmp_path):
    async def go():
        sessions = served(tmp_path, most=2)
        id = await sessions.create("a", "mine")
        for verb in (
            sessions.about("b", id), sessions.delete("b", id), sessions.steps("b", id, 0, inputs(1)),
            sessions.moment("b", id), sessions.rewind("b", id, 0), sessions.branch("b", id),
            sessions.edit("b", id, 0, input=inputs(1)), sessions.diff("b", id, id, 0, 0),
        ):  # fmt: skip
            with pytest.raises(Refused) as refused:
                await verb
            assert refused.value.status == 404
        with pytest.raises(Refused, match="already"):
            await sessions.create("b", "mine")
        for wrong in ("", "../x", "a b", "é", "x" * 129):
            with pytest.raises(Refused):
                await sessions.create("a", wrong)
        await sessions.create("a")
        with pytest.raises(Refused, match="delete some"):
            await sessions.create("a")
        closed(sessions)

    asyncio.run(go())


KILLED = """
import asyncio, os, signal, sys, pathlib
sys.path.insert(0, {tests!r})
from test_serve_sessions import served, inputs
async def go():
    sessions, x = served(pathlib.Path({path!r})), inputs(4000)
    ids = [await sessions.create("a", f"s{{i}}") for i in range(20)]
    async def user(id):
        at = 0
        while True:
            await sessions.steps("a", id, at, x[at : at + 3])
            at += 3
            print(id, at, flush=True)
    await asyncio.gather(*map(user, ids))
asyncio.run(go())
"""


def test_what_was_answered_survives_a_kill(tmp_path):
    from pathlib import Path

    code = KILLED.format(tests=str(Path(__file__).parent), path=str(tmp_path))
    process = processes.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    answered = {}
    for line in process.stdout:
        id, at = line.split()
        answered[id] = int(at)
        if sum(answered.values()) > 3000:
            process.kill()
            break
    for line in process.stdout.read().splitlines():
        if len(parts := line.split()) == 2 and parts[1].isdigit():
            answered[parts[0]] = max(answered.get(parts[0], 0), int(parts[1]))
    process.wait()
    process.stdout.close()

    async def go():
        sessions, x = served(tmp_path), inputs(4000)
        alone = network().streams(1)
        assert len(answered) == 20
        for id, at in answered.items():
            time = (await sessions.about("a", id)).time
            assert time in (at, at + 3)  # all that was answered, and nothing twice
            alone.reset([0])
            for row in x[:time].unsqueeze(1):
                alone.step([0], row)
            got = await read(sessions, "a", id, time, x[time : time + 1])
            assert torch.equal(got, alone.step([0], x[time : time + 1]))
        closed(sessions)

    asyncio.run(go())


def test_a_store_of_another_network_or_in_use_is_refused(tmp_path):
    sessions = served(tmp_path)
    with pytest.raises(UserError, match="another process serves from it"):
        SingleStore(tmp_path / "serve.db")
    closed(sessions)
    with pytest.raises(UserError, match="other weights"):
        served(tmp_path, stack=tt.Recurrent(tt.cells.GRU, 3, 5))
    (tmp_path / "other.db").write_bytes(b"something else" * 100)
    with pytest.raises(UserError, match="cannot be opened"):
        SingleStore(tmp_path / "other.db")


def test_what_could_not_be_written_was_not_read(tmp_path):
    async def go():
        sessions, x = served(tmp_path), inputs(10)
        id = await sessions.create("a")
        right = sessions.store.append
        await read(sessions, "a", id, 0, x[:3])

        def full(records):
            raise OSError(28, "No space left on device")

        sessions.store.append = full
        with pytest.raises(OSError, match="No space"):
            await read(sessions, "a", id, 3, x[3:])
        sessions.store.append = right
        again = await read(sessions, "a", id, 3, x[3:])
        alone = network().streams(1)
        whole = torch.cat([alone.step([0], row) for row in x.unsqueeze(1)])
        assert torch.equal(again, whole[3:])
        closed(sessions)

    asyncio.run(go())


def test_a_session_that_leaves_memory_meets_a_rewind_and_a_deletion(tmp_path):
    """What is written of a session that leaves memory must not outlive a change to it that comes meanwhile."""

    async def go():
        sessions, x = served(tmp_path, slots=1), inputs(40)
        for id in ("a1", "b1"):
            await sessions.create("o", id)
        for meanwhile in (
            lambda: sessions.rewind("o", "a1", 3),
            lambda: sessions.delete("o", "a1"),
            lambda: sessions.edit("o", "a1", 2, input=torch.ones(1, 3)),
        ):
            await read(sessions, "o", "a1", 0, x[:10])
            with sessions.batcher._turn:  # the thread that steps stands still
                both = [asyncio.ensure_future(sessions.steps("o", "b1", 0, x[:1]))]  # takes its row
                await asyncio.sleep(0.01)
                both.append(asyncio.ensure_future(meanwhile()))
                await asyncio.sleep(0.01)
            await asyncio.gather(*both)
            await sessions.delete("o", "b1")
            await sessions.create("o", "b1")
            if sessions.store.find("a1") is None:
                await sessions.create("o", "a1")
            time = (await sessions.about("o", "a1")).time
            got = await read(sessions, "o", "a1", time, x[20 : 35 - time])
            read_ = sessions._inputs("a1", 0, 15)
            alone = network().streams(1)
            whole = torch.cat([alone.step([0], row) for row in read_.unsqueeze(1)])
            assert torch.equal(got, whole[time:])
            assert torch.equal(await read(sessions, "o", "a1", 12, read_[12:]), whole[12:])  # from what was kept before
            await sessions.rewind("o", "a1", 0)
        closed(sessions)

    asyncio.run(go())


def test_who_goes_away_in_mid_step_harms_nobody(tmp_path):
    async def go():
        sessions, x = served(tmp_path, slots=2), inputs(3000)
        for i in range(6):
            await sessions.create("o", f"s{i}")
        tasks = [asyncio.ensure_future(sessions.steps("o", f"s{i}", 0, x)) for i in range(6)]
        while not sessions.batcher.steps:
            await asyncio.sleep(0.001)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(r, asyncio.CancelledError) for r in results] == [True, False] * 3
        for i in range(6):
            assert torch.equal(await read(sessions, "o", f"s{i}", 0, x[:1]), torch.stack(results[1].outputs[:1]))
            assert (await sessions.about("o", f"s{i}")).time == 3000
        closed(sessions)

    asyncio.run(go())


def test_many_in_one_request(tmp_path):
    async def go():
        sessions, x = served(tmp_path, slots=8), inputs(60)
        ids = [f"s{i}" for i in range(12)]
        for id in ids:
            await sessions.create("o", id)
        alone = network().streams(12)
        for t in range(60):
            rows = x[t] * torch.arange(12.0).unsqueeze(1)
            asked = torch.cat([rows, x[:2]])
            found, refused = await sessions.step_many("o", [*ids, "none", "s0"], [*([t] * 12), 0, 99], asked)
            assert {i: why.status for i, why in refused.items()} == {12: 404, 13: 409}
            assert torch.equal(found[:12], alone.step(range(12), rows))
            assert not found[12:].any()
            again, none = await sessions.step_many("o", ids, [t] * 12, rows)  # which they have read already
            assert torch.equal(again, found[:12])
            assert not none
        _, others = await sessions.step_many("another", ids[:1], [60], x[:1])
        assert others[0].status == 404
        # of what has left memory nothing lies among the recent
        assert len(sessions.store._tails) <= 8
        assert sum(count for _, count, _ in sessions.store.inputs("s3", 0, 60)) == 60
        for i, id in enumerate(ids):
            time, moment = await sessions.moment("o", id)
            assert time == 60
            assert torch.equal(moment.output, found[i])
        closed(sessions)
        sessions = served(tmp_path, slots=8)
        for i in range(12):
            assert (await sessions.about("o", f"s{i}")).time == 60
            assert torch.equal(sessions._inputs(f"s{i}", 0, 60), x * i)
        closed(sessions)

    asyncio.run(go())


def test_a_repeated_request_over_a_state_that_was_put_in_gets_what_follows_from_it(tmp_path):
    async def go():
        sessions, x = served(tmp_path), inputs(30)
        id = await sessions.create("a")
        await read(sessions, "a", id, 0, x[:10])
        state = [tuple(torch.ones_like(t) for t in s) for s in (await sessions.moment("a", id))[1].state]
        await sessions.edit("a", id, state=state)
        second = await read(sessions, "a", id, 10, x[10:])
        again = await read(sessions, "a", id, 0, x)
        assert torch.equal(again[10:], second)
        whole = await sessions.diff("a", id, id, 0, None)
        assert whole.parts is None
        assert len(whole.times) == 31
        other = await sessions.branch("a", id, t=9)
        await read(sessions, "a", other, 9, x[9:])
        assert (await sessions.diff("a", id, other, 0, None)).parts == 10
        closed(sessions)

    asyncio.run(go())


def test_what_is_dropped_and_named_again_begins_anew_after_a_restart(tmp_path):
    async def go():
        sessions, x = served(tmp_path), inputs(30)
        await sessions.create("a", "s")
        await read(sessions, "a", "s", 0, x)
        await sessions.delete("a", "s")
        await sessions.create("b", "s")
        await read(sessions, "b", "s", 0, x[:4])
        await sessions.rewind("b", "s", 2)
        closed(sessions)
        sessions = served(tmp_path)
        assert (await sessions.about("b", "s")).time == 2
        alone = network().streams(1)
        whole = torch.cat([alone.step([0], row) for row in x[:3].unsqueeze(1)])
        assert torch.equal(await read(sessions, "b", "s", 2, x[2:3]), whole[2:])
        assert await sessions.forget(0) == 0
        assert await sessions.forget(2e10) == 1
        assert sessions.store.count() == 0
        closed(sessions)

    asyncio.run(go())


def test_how_many_sessions_there_are_is_known_through_all_that_changes_it(tmp_path):
    async def go():
        sessions = served(tmp_path, most=3)
        ids = [await sessions.create("a") for _ in range(2)]
        other = await sessions.branch("a", ids[0])
        await sessions.create("b", "b")
        for again in (ids[0], "b"):
            with pytest.raises(Refused):
                await sessions.create("a", again)
        for restarted in (False, True):
            assert (sessions.store.count("a"), sessions.store.count("b"), sessions.store.count()) == (3, 1, 4), (
                restarted
            )
            closed(sessions)
            sessions = served(tmp_path, most=3)
        await sessions.delete("a", other)
        with pytest.raises(Refused):
            await sessions.delete("a", other)
        assert (sessions.store.count("a"), sessions.store.count()) == (2, 3)
        assert await sessions.forget(2e10) == 3
        assert (sessions.store.count("a"), sessions.store.count()) == (0, 0)
        closed(sessions)

    asyncio.run(go())


def test_sessions_that_come_and_go_leave_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("throughtime.serve.stores.single.SWEPT", 20)

    async def go():
        sessions, x = served(tmp_path, slots=4), inputs(3)
        await sessions.create("o", "stays")
        for i in range(100):
            await sessions.create("o", f"s{i}")
            await read(sessions, "o", f"s{i}", 0, x)
            await sessions.delete("o", f"s{i}")
            if i % 10 == 0:
                await read(sessions, "o", "stays", i // 10, x[:1])
        store = sessions.store
        for table, most in (("sessions", 1), ("inputs", 10), ("states", 3), ("recent", 40)):
            assert store._file.execute(f"select count(*) from {table}").fetchone()[0] <= most, table
        assert (len(sessions._live), sessions._held, len(store._tails)) == (1, {}, 1)
        assert sorted([*sessions._free, *(live.row for live in sessions._live.values())]) == list(range(4))
        assert torch.equal(sessions._inputs("stays", 0, 10), x[:1].expand(10, 3))
        closed(sessions)

    asyncio.run(go())
