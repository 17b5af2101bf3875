"""Where sessions are kept: the same of every store, and of those that are shared that nobody writes to what another holds."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import throughtime as tt
from redis_server import redis_at
from throughtime.errors import UserError
from throughtime.serve.refused import Refused
from throughtime.serve.sessions import Sessions
from throughtime.serve.settings import Settings
from throughtime.serve.store import Appended, Elsewhere
from throughtime.serve.stores.opening import opened
from throughtime.travel import Engine

SHORT, LONG = 0.8, 60.0  # seconds of a lease: one that a test sees the end of, and one that it does not


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory):
    with redis_at(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(params=["folder", "redis"])
def shared(request, tmp_path):
    """The settings of a store that several processes share."""
    if request.param == "folder":
        return Settings(tmp_path, shared=str(tmp_path / "shared"), lease=LONG)
    redis = pytest.importorskip("redis")
    url = request.getfixturevalue("redis_url")
    with redis.Redis.from_url(url) as asked:
        asked.flushall()
    return Settings(tmp_path, shared=url, lease=LONG)


@pytest.fixture(params=["single", "folder", "redis"])
def store(request, tmp_path):
    settings = Settings(tmp_path)
    if request.param != "single":
        shared = str(tmp_path / "shared") if request.param == "folder" else request.getfixturevalue("redis_url")
        settings = Settings(tmp_path, shared=shared)
    made = opened(settings)
    if request.param == "redis":
        made._redis.flushall()
    yield made
    made.close()


class Plain:
    """What sessions are, in lists. rows: the input of each step. states: by (time, whether it was put in)."""

    def __init__(self, owner, model, state, about):
        self.owner, self.model, self.about = owner, model, about
        self.rows, self.states = [], {(0, 1): state}

    def read(self, record):
        self.rows += [record.rows[i : i + 2] for i in range(0, len(record.rows), 2)]
        self.states |= {(t, 0): state for t, state in record.snapshots}

    def cut(self, t):
        del self.rows[t:]
        self.states = {at: state for at, state in self.states.items() if at[0] <= t}

    def before(self, t):
        at, put = max(at for at in self.states if at[0] <= t)
        return at, self.states[at, put]


def record(draw, id, first):
    steps = draw.randint(1, 9)
    ends = [(first + steps, draw.randbytes(3))] if draw.random() < 0.4 else []
    return Appended(id, first, steps, draw.randbytes(2 * steps), tuple(ends))


def joined(store, id, start, stop):
    """The inputs of a session from time start to stop, each 2 bytes."""
    rows, at = b"", start
    for first, count, data in store.inputs(id, start, stop):
        assert first <= at < first + count == first + len(data) // 2  # in order, without a gap
        rows += data[2 * (at - first) : 2 * (stop - first)]
        at = min(first + count, stop)
    assert at == stop
    return rows


@pytest.mark.parametrize("seed", range(3))
def test_a_store_keeps_what_lists_would_keep(store, seed, monkeypatch):
    monkeypatch.setattr("throughtime.serve.stores.single.PIECE", 7)
    draw, plain = random.Random(seed), {}
    ids = [f"s{i}" for i in range(7)]
    for _ in range(150):
        id = draw.choice(ids)
        store.own(id)
        one = plain.get(id)
        if one is None:
            made = Plain(draw.choice("ab"), "net", draw.randbytes(3), draw.choice([b"", b"a blob"]))
            records = [record(draw, id, 0)] if draw.random() < 0.5 else []
            assert store.make(id, made.owner, "net", made.states[0, 1], made.about, records)
            for some in records:
                made.read(some)
            plain[id] = made
            continue
        verb, at = draw.choice(["append"] * 6 + ["keep", "cut", "rewrite", "branch", "drop", "make"]), len(one.rows)
        t = draw.randint(0, at)
        if verb == "append":
            others = [other for other in draw.sample(sorted(plain), draw.randint(0, len(plain))) if other != id]
            for other in others:
                store.own(other)
            records = [record(draw, name, len(plain[name].rows)) for name in [id, *others]]
            assert store.append(records) == set()
            for some in records:
                plain[some.id].read(some)
        elif verb == "keep":
            store.keep(id, at, state := draw.randbytes(3))
            one.states[at, 0] = state
        elif verb == "cut":
            store.cut(id, t)
            one.cut(t)
        elif verb == "rewrite":
            edits = {t: draw.randbytes(3)} if draw.random() < 0.5 else {}
            some = record(draw, id, t)
            store.rewrite(id, t, [some], edits)
            one.cut(t)
            one.read(some)
            one.states |= {(at, 1): state for at, state in edits.items()}
        elif verb == "branch":
            other = draw.choice(ids)
            assert store.branch(id, other, "b", t) == (other not in plain)
            if other not in plain:
                plain[other] = Plain("b", "net", b"", one.about)
                plain[other].rows, plain[other].states = list(one.rows), dict(one.states)
                plain[other].cut(t)
        elif verb == "drop":
            store.drop(id)
            del plain[id]
        else:
            assert not store.make(id, "a", "net", b"no")
        for name in ids:
            kept, one = store.find(name), plain.get(name)
            assert (kept is None) == (one is None)
            if one is not None:
                at = len(one.rows)
                assert (kept.id, kept.owner, kept.model, kept.time) == (name, one.owner, "net", at)
                start, stop = sorted(draw.choices(range(at + 1), k=2))
                assert joined(store, name, start, stop) == b"".join(one.rows[start:stop])
                assert store.before(name, stop) == one.before(stop)
                assert store.first(name) == 0
                assert store.edits(name, start) == {t: s for (t, put), s in one.states.items() if put and t > start}
                assert store.beginning(name) == one.about
        for owner in "ab":
            right = sorted(name for name, one in plain.items() if one.owner == owner)
            assert store.count(owner) == len(right)
            assert [kept.id for kept in store.all_of(owner, 9)] == right
            assert [kept.id for kept in store.all_of(owner, 2, "s2")] == [name for name in right if name > "s2"][:2]
        assert store.count() == len(plain)
    assert {kept.id for kept in store.untouched(time.time() + 1)} == plain.keys()
    assert store.untouched(time.time() - 1000) == []


def test_a_file_opens_with_few_recent_records_however_many_sessions_it_has(tmp_path, monkeypatch):
    monkeypatch.setattr("throughtime.serve.stores.single.MOST", 60)
    store, draw = opened(Settings(tmp_path)), random.Random(0)
    read = {f"s{i}": b"" for i in range(200)}
    for id in read:
        store.make(id, "o", "net", b"state")
    few = sorted(read)[:20]
    for ids in [list(read), *(draw.sample(few, 10) for _ in range(100))]:
        rows = {id: draw.randbytes(3) for id in ids}
        store.append([Appended(id, len(read[id]) // 3, 1, rows[id]) for id in ids])
        read |= {id: read[id] + rows[id] for id in ids}
    for _ in range(2):
        assert store._file.execute("select count(*) from recent").fetchone()[0] <= 60 + 2 * 20 + 10
        assert sum(len(tail.records) for tail in store._tails.values()) <= 60 + 2 * 20 + 10
        for id, rows in read.items():
            assert store.find(id).time == len(rows) // 3
            assert b"".join(row for _, _, row in store.inputs(id, 0, len(rows))) == rows
        store.close()
        store = opened(Settings(tmp_path))
    store.close()


def test_what_a_session_has_read_lies_in_its_place_when_it_leaves_memory(tmp_path):
    store = opened(Settings(tmp_path))
    for id in ("x", "y"):
        store.make(id, "o", "net", b"state")
    store.append([Appended(id, 0, 2, b"ab") for id in ("x", "y")])
    touched = store.find("x").touched
    store.keep("x", 2, b"later")
    assert store._file.execute("select session, rows from inputs").fetchall() == [("x", b"ab")]
    assert list(store._tails) == ["y"]
    store.append([Appended("x", 2, 1, b"c")])  # it comes back, and goes once more
    store.keep("x", 3, b"last")
    for _ in range(2):
        assert b"".join(rows for _, _, rows in store.inputs("x", 0, 3)) == b"abc"
        assert store.inputs("y", 0, 2) == [(0, 2, b"ab")]
        assert (store.before("x", 2), store.before("x", 3)) == ((2, b"later"), (3, b"last"))
        assert store.find("x").time == 3 and store.find("x").touched >= touched
        store.close()
        store = opened(Settings(tmp_path))
    store.close()


@pytest.mark.parametrize("shared_by", ["one", "several"])
def test_a_file_of_a_version_that_did_not_count_is_counted(tmp_path, shared_by):
    settings = Settings(tmp_path, shared=str(tmp_path) if shared_by == "several" else None)
    store = opened(settings)
    for number in range(5):
        store.make(f"s{number}", "ab"[number % 2], "net", b"state")
    for kind, name in (("trigger", "counted_in"), ("trigger", "counted_out"), ("table", "counts")):
        store._file.execute(f"drop {kind} {name}")
    store.close()
    for _ in range(2):
        store = opened(settings)
        assert (store.count("a"), store.count("b"), store.count("c"), store.count()) == (3, 2, 0, 5)
        store.close()
    store = opened(settings)
    store.own("s0")
    store.drop("s0")
    store.make("s6", "c", "net", b"state")
    assert (store.count("a"), store.count("c"), store.count()) == (2, 1, 5)
    store.close()


def test_to_look_far_back_takes_no_more_than_a_piece(tmp_path):
    store, rows = opened(Settings(tmp_path)), random.Random(0).randbytes(4 * 90_000)
    store.make("x", "o", "net", b"state")
    for first in range(0, 90_000, 1000):
        store.append([Appended("x", first, 1000, rows[4 * first : 4 * (first + 1000)])])
    store.cut("x", 80_000)  # which folds all
    assert store._file.execute("select max(length(rows)) from inputs").fetchone()[0] <= 16_384
    for start, stop in ((0, 80_000), (41_000, 41_512), (79_999, 80_000)):
        found = store.inputs("x", start, stop)
        assert sum(count for _, count, _ in found) <= stop - start + 2 * 4096
        data = b"".join(data for _, _, data in found)
        assert data[4 * (start - found[0][0]) :][: 4 * (stop - start)] == rows[4 * start : 4 * stop]
    store.close()


def test_a_store_is_of_one_network(store):
    store.check_model("net", "one")
    store.check_model("net", "one")
    with pytest.raises(UserError, match="other weights"):
        store.check_model("net", "another")


def test_what_lies_before_a_time_is_forgotten(store):
    draw = random.Random(0)
    assert store.make("x", "me", "net", b"first")
    rows = draw.randbytes(2 * 4000)
    for first, count in ((0, 3000), (3000, 500), (3500, 500)):  # more than are joined
        part = rows[2 * first : 2 * (first + count)]
        assert store.append([Appended("x", first, count, part, ((first + count, b"at%d" % first),))]) == set()
    store.trim("x", 3500)
    assert joined(store, "x", 3500, 4000) == rows[7000:]
    assert store.before("x", 3999) == (3500, b"at3000") and store.before("x", 4000) == (4000, b"at3500")
    with pytest.raises(KeyError):
        store.before("x", 3499)
    assert store.first("x") == 3500


# ---------------------------------------------------------------------------------------------- whose they are


@pytest.fixture
def two(shared):
    """Two processes with one store, as far as the store can tell; the first has made a session."""
    yield from a_pair(shared, LONG)


@pytest.fixture
def sleepy(shared):
    """The same; the lease of the first soon ends."""
    yield from a_pair(shared, SHORT)


def a_pair(shared, lease):
    one, other = opened(dataclasses.replace(shared, lease=lease)), opened(shared)
    one.renew()
    assert one.make("x", "me", "net", b"state")
    yield one, other
    one.close()
    other.close()


def read_one(store, id="x", first=0):
    return store.append([Appended(id, first, 1, b"ab")])


def test_a_session_goes_to_another_when_it_is_released(two):
    one, other = two
    with pytest.raises(Elsewhere):
        other.own("x")
    assert read_one(one) == set()
    assert one.renew() == {"x"}
    assert one.renew() == set()  # it has been told
    one.release("x")
    with pytest.raises(Elsewhere):  # who asked goes first
        one.own("x")
    assert other.own("x") and not other.own("x")
    assert read_one(one, first=1) == {"x"}
    for write in (
        lambda: one.keep("x", 1, b"state"),
        lambda: one.cut("x", 0),
        lambda: one.rewrite("x", 0, [], {}),
        lambda: one.branch("x", "y", "me", 0),
        lambda: one.trim("x", 0),
        lambda: one.drop("x"),
    ):
        with pytest.raises(Elsewhere):
            write()
    assert other.find("x").time == 1 and joined(other, "x", 0, 1) == b"ab" and other.before("x", 1) == (0, b"state")
    assert other.find("y") is None and read_one(other, first=1) == set()


def test_of_a_transaction_what_is_held_is_written(two):
    one, other = two
    for id in "pq":
        assert one.make(id, "me", "net", b"state")
    one.release("p")
    other.own("p")
    assert one.append([Appended(id, 0, 1, b"cd") for id in "pqx"]) == {"p"}
    assert [other.find(id).time for id in "pqx"] == [0, 1, 1]


def test_who_sleeps_through_its_lease_writes_nothing(sleepy):
    one, other = sleepy
    time.sleep(SHORT + 0.1)
    assert not one.owns("x")
    assert other.own("x")
    assert read_one(other) == set()
    assert read_one(one) == {"x"}
    assert other.find("x").time == 1
    with pytest.raises(Elsewhere):
        one.own("x")


def test_a_lease_that_nobody_missed_goes_on(sleepy):
    one, _ = sleepy
    time.sleep(SHORT + 0.1)
    assert read_one(one) == set()
    assert not one.own("x") and one.owns("x")


def test_who_wakes_and_takes_one_does_not_trust_the_others(sleepy):
    one, other = sleepy
    assert one.make("y", "me", "net", b"state")
    time.sleep(SHORT + 0.1)
    assert other.own("x")
    assert not one.own("y")  # which renews the lease
    assert one.owns("y") and not one.owns("x")


def test_who_ends_gives_all_back_at_once(shared):
    one, other = opened(shared), opened(shared)
    one.renew()
    assert one.make("x", "me", "net", b"state")
    one.own("x")
    one.close()
    assert other.own("x")
    other.close()


def test_others_do_not_forget_what_is_held(two):
    one, other = two
    later = time.time() + 1
    assert [kept.id for kept in one.untouched(later)] == ["x"] and other.untouched(later) == []
    one.release("x")
    assert [kept.id for kept in other.untouched(later)] == ["x"]


def test_what_was_made_here_is_asked_for_and_released(shared):
    one, other = opened(shared), opened(shared)
    one.renew()
    one.own("x")
    assert one.make("x", "me", "net", b"state") and one.branch("x", "y", "me", 0)
    for id in "xy":
        with pytest.raises(Elsewhere):
            other.own(id)
        assert one.renew() == {id}
        one.release(id)
        assert other.own(id)
    one.close()
    other.close()


def test_tokens_grow(two):
    one, other = two
    tokens = []
    for holder, free in itertools.islice(itertools.cycle([(one, other), (other, one)]), 9):
        holder.own("x")
        tokens.append(holder._fences["x"])
        holder.release("x")
        holder._released.clear()  # nobody asked
        assert not free.owns("x")
    assert tokens == sorted(set(tokens))


def test_a_folder_of_another_machine_is_refused(tmp_path, monkeypatch):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext4 rw 0 0\nhost:/a {tmp_path} nfs4 rw 0 0\n")
    read_text = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path: read_text(mounts if str(path) == "/proc/mounts" else path))
    with pytest.raises(UserError, match=r"nfs4.*redis://"):
        opened(Settings(tmp_path, shared=str(tmp_path / "shared")))
    assert not (tmp_path / "shared").exists()


def test_a_redis_that_is_not_there_is_said(tmp_path):
    pytest.importorskip("redis")
    with pytest.raises(UserError, match="cannot be had"):
        opened(Settings(tmp_path, shared="redis://127.0.0.1:1"))
    with pytest.raises(UserError, match="appendfsync"):
        opened(Settings(tmp_path, shared="redis://127.0.0.1:1", durable="power"))


def test_a_redis_that_goes_away_and_comes_back_is_said(tmp_path):
    redis = pytest.importorskip("redis")
    with redis_at(tmp_path / "redis") as url:
        store = opened(Settings(tmp_path, shared=url, lease=LONG))
        store.renew()
        assert store.make("x", "me", "net", b"state")
        with redis.Redis.from_url(url) as asked:
            asked.client_kill_filter(skipme=True)  # its connections end
        assert read_one(store) == set() and store.find("x").time == 1
    for ask in (lambda: read_one(store, first=1), lambda: store.find("x"), store.renew):
        with pytest.raises(Refused, match="ask again") as refused:
            ask()
        assert (refused.value.status, refused.value.retry_after) == (503, 1)
    store.close()


# ---------------------------------------------------------------------------------------------- a pause


def network():
    torch.manual_seed(0)
    return tt.Recurrent(tt.cells.LSTM, 3, 5, 2, learn_initial_state=True)


def served(settings):
    stack = network()
    return Sessions("net", Engine(stack), stack.streams(8), opened(settings))


def inputs(n):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(1))


async def renewing(sessions):
    """What a server does beside."""
    while True:
        for id in sessions.store.renew():
            await sessions.release(id)
        await asyncio.sleep(SHORT / 3)


ASLEEP = """
import asyncio, signal, sys, threading
from test_serve_stores import *

async def go():
    sessions = served(Settings(Path("."), shared=sys.argv[1], lease=SHORT))
    beside = asyncio.create_task(renewing(sessions))
    read = [await sessions.steps("me", "x", 3 * i, inputs(12)[3 * i : 3 * i + 3]) for i in range(2)]
    write = sessions.store.append
    def paused(records):  # what is computed is not written yet
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)  # here, and not a little later
        return write(records)
    sessions.store.append = paused
    for again in range(2):
        try:
            read = await sessions.steps("me", "x", 6, inputs(12)[6:9])
            print("read", torch.stack(read.outputs).numpy().tobytes().hex())
        except Elsewhere as error:
            print("refused", error.status)
        sessions.store.append = write
    beside.cancel()

asyncio.run(go())
"""


def test_who_is_paused_between_computing_and_writing_writes_nothing(shared):
    async def go():
        sessions = served(shared)
        beside = asyncio.create_task(renewing(sessions))
        await sessions.create("me", "x")
        beside.cancel()
        sessions.store.release("x")
        path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        command = [sys.executable, "-c", ASLEEP, shared.shared]
        asleep = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path})
        try:
            await asyncio.to_thread(os.waitpid, asleep.pid, os.WUNTRACED)  # it has computed, and sleeps
            beside = asyncio.create_task(renewing(sessions))
            read = [await sessions.steps("me", "x", 6 + 3 * i, inputs(12)[6 + 3 * i : 9 + 3 * i]) for i in range(2)]
            assert sessions.store.find("x").time == 12
            os.kill(asleep.pid, signal.SIGCONT)
            refused, *again = (await asyncio.to_thread(asleep.communicate))[0].splitlines()
            assert refused == "refused 503"
            # it holds the session again in the end, and says the same as the one that went on meanwhile
            assert again == ["read " + torch.stack(read[0].outputs).numpy().tobytes().hex()]
        finally:
            asleep.kill()
            beside.cancel()
        alone = tt.Session(network()).feed(inputs(12))
        torch.testing.assert_close(torch.stack(read[1].outputs), alone[9:], rtol=1e-5, atol=1e-6)
        assert sessions.store.find("x").time == 12
        sessions.close()
        sessions.store.close()

    asyncio.run(go())
