"""Sessions in Redis, that processes of several machines share. Needs the extra `redis`."""

from __future__ import annotations

import contextlib
import itertools
import struct
import time
from collections.abc import Iterable, Iterator
from typing import Any

from throughtime.errors import UserError
from throughtime.serve.refused import Refused
from throughtime.serve.store import Appended, Elsewhere, Kept
from throughtime.serve.stores.leased import LEASE, Leased

FORMAT = 1
ALL = "throughtime:"  # what every key begins with
SLOW = 5.0  # seconds until an answer of Redis must have come
_RECORD = struct.Struct("<QI")  # first, count; the rows follow
_STATE = struct.Struct("<QB")  # time, whether it was put in; the state follows
Command = tuple[Any, ...]

# Runs the commands of each session whose token is the one that is given; with an empty token, those of one that is not there yet.
# Arguments: for each session its key, the token, how many commands; for each command how many words, and these.
_WRITE = """
local lost, at = {}, 1
while at <= #ARGV do
    local key, fence, commands = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
    local holds = redis.call('HGET', key, 'fence') == fence
    if fence == '' then holds = redis.call('EXISTS', key) == 0 end
    if not holds then lost[#lost + 1] = key end
    at = at + 3
    for _ = 1, commands do
        local words = tonumber(ARGV[at])
        if holds then redis.call(unpack(ARGV, at + 1, at + words)) end
        at = at + words + 1
    end
end
return lost
"""
# Arguments: what all keys begin with, the session, the process, its token or nothing.
_TAKE = """
local key = ARGV[1] .. 'session:' .. ARGV[2]
if redis.call('EXISTS', key) == 0 then return 0 end
local holder, fence = unpack(redis.call('HMGET', key, 'holder', 'fence'))
if holder == ARGV[3] and fence == ARGV[4] then return tonumber(fence) end
if holder and holder ~= ARGV[3] and redis.call('EXISTS', ARGV[1] .. 'replica:' .. holder) == 1 then
    redis.call('SADD', ARGV[1] .. 'wanted:' .. holder, ARGV[2])
    return -1
end
local made = redis.call('INCR', ARGV[1] .. 'fence')
redis.call('HSET', key, 'holder', ARGV[3], 'fence', made)
return made
"""


def _session(id: str) -> str:
    return f"{ALL}session:{id}"


def _inputs(id: str) -> str:
    return f"{ALL}inputs:{id}"


def _states(id: str) -> str:
    return f"{ALL}states:{id}"


class RedisStore(Leased):
    """Sessions of each a hash, its inputs and states sorted by their time; every write is one script that compares the token.

    What survives the machine of Redis is for Redis to say (`appendonly`, `appendfsync`). It is one server, not a cluster.

    Args: url: redis://[user:password@]host[:port][/database], or rediss://. lease: seconds, by the clock of Redis.
    Raises: UserError where redis is not installed, does not answer, or holds sessions of a newer version.
    """

    def __init__(self, url: str, lease: float = LEASE) -> None:
        super().__init__(lease)
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError as error:
            raise UserError("sessions in Redis need redis: pip install 'throughtime[redis]'") from error
        self._errors = redis.RedisError
        try:
            again = Retry(NoBackoff(), 1)  # where Redis was started anew, the first use of a connection says so
            made: Any = redis.Redis.from_url(url, socket_timeout=SLOW, socket_connect_timeout=SLOW, retry=again)
            self._redis = made
            self.where = str(self._redis.connection_pool.connection_kwargs.get("host", url))
            self._write, self._taking = self._redis.register_script(_WRITE), self._redis.register_script(_TAKE)
            self._redis.set(f"{ALL}format", FORMAT, nx=True)
            found = int(self._redis.get(f"{ALL}format"))
        except (redis.RedisError, ValueError) as error:
            raise UserError(f"--shared: Redis at {url.rpartition('@')[2]} cannot be had: {error}") from error
        if found > FORMAT:
            raise UserError(f"{self.where}: format {found} is from a newer throughtime; upgrade it")

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            raise Refused(503, f"Redis at {self.where} does not answer as it should: {error}; ask again", 1) from error

    def close(self) -> None:
        with contextlib.suppress(Refused), self._asking():  # or the lease ends by itself
            self._redis.delete(f"{ALL}replica:{self.replica}", f"{ALL}wanted:{self.replica}")
            self._redis.close()

    def check_model(self, name: str, fingerprint: str) -> None:
        with self._asking():
            self._redis.set(f"{ALL}model:{name}", fingerprint, nx=True)
            found = self._redis.get(f"{ALL}model:{name}").decode()
        if found != fingerprint:
            raise UserError(
                f"{self.where}: its sessions of {name!r} were made with other weights; serve the model that they are of, or "
                "name another database, redis://host/NUMBER"
            )

    # ------------------------------------------------------------------------------------------ whose they are

    def _extend(self) -> tuple[bool, set[str]]:
        with self._asking(), self._redis.pipeline() as asked:
            asked.set(f"{ALL}replica:{self.replica}", "", px=round(self.lease * 1000), get=True)
            asked.smembers(f"{ALL}wanted:{self.replica}")
            asked.delete(f"{ALL}wanted:{self.replica}")
            before, asked_for, _ = asked.execute()
        return before is None, {id.decode() for id in asked_for}

    def _held(self, ids: list[str]) -> dict[str, int]:
        with self._asking(), self._redis.pipeline(transaction=False) as asked:
            for id in ids:
                asked.hget(_session(id), "fence")
            return {id: int(fence) for id, fence in zip(ids, asked.execute(), strict=True) if fence is not None}

    def _take(self, id: str, fence: int | None) -> int | None:
        with self._asking():
            found = int(self._taking(args=[ALL, id, self.replica, "" if fence is None else fence]))
        return None if found < 0 else found

    def _release(self, id: str, fence: int) -> None:
        self._fenced({id: [("HDEL", _session(id), "holder", "fence")]}, {id: fence})

    def _fenced(self, commands: dict[str, list[Command]], fences: dict[str, int | str]) -> set[str]:
        """Write to sessions, each with its token. Returns: those whose token is another."""
        words: list[Any] = []
        for id, all in commands.items():
            words += [_session(id), fences[id], len(all)]
            for command in all:
                words += [len(command), *command]
        with self._asking():
            lost = {key.decode().removeprefix(_session("")) for key in self._write(args=words)}
        self._lost(lost)
        return lost

    def _tokens(self, ids: Iterable[str]) -> dict[str, int | str]:
        return {id: self._fences.get(id, "none") for id in ids}

    def _alter(self, id: str, *commands: Command) -> None:
        """Write to a session. Raises: Elsewhere."""
        if self._fenced({id: list(commands)}, self._tokens([id])):
            raise Elsewhere(id)

    # ------------------------------------------------------------------------------------------ the catalogue

    def find(self, id: str) -> Kept | None:
        return self._found([id])[0]

    def _found(self, ids: list[str]) -> list[Kept | None]:
        with self._asking(), self._redis.pipeline(transaction=False) as asked:
            for id in ids:
                asked.hmget(_session(id), "owner", "model", "time", "made", "touched")
            rows = asked.execute()
        return [
            None if m is None else Kept(id, o.decode(), m.decode(), int(at), float(made), float(touched))
            for id, (o, m, at, made, touched) in zip(ids, rows, strict=True)
        ]

    def count(self, owner: str | None = None) -> int:
        with self._asking():
            return int(self._redis.zcard(f"{ALL}touched" if owner is None else f"{ALL}owner:{owner}"))

    def all_of(self, owner: str, limit: int, after: str = "") -> list[Kept]:
        with self._asking():
            ids = self._redis.zrangebylex(f"{ALL}owner:{owner}", f"({after}" if after else "-", "+", 0, limit)
        return [kept for kept in self._found([id.decode() for id in ids]) if kept is not None]

    def untouched(self, since: float) -> list[Kept]:
        """Those of them that this process holds, or nobody does: others forget their own."""
        with self._asking():
            ids = [id.decode() for id in self._redis.zrangebyscore(f"{ALL}touched", "-inf", f"({since!r}")]
            with self._redis.pipeline(transaction=False) as asked:
                for id in ids:
                    asked.hget(_session(id), "holder")
                holders = [holder or b"" for holder in asked.execute()]
            live = {h for h in set(holders) if self._redis.exists(f"{ALL}replica:{h.decode()}")}
        live.discard(self.replica.encode())
        free = [id for id, holder in zip(ids, holders, strict=True) if holder not in live]
        return [kept for kept in self._found(free) if kept is not None]

    def make(
        self, id: str, owner: str, model: str, state: bytes, about: bytes = b"", records: Iterable[Appended] = ()
    ) -> bool:
        commands = [_state(id, 0, state, put=True)]
        if about:
            commands.append(("SET", f"{ALL}beginning:{id}", about))
        at = 0
        for record in records:
            commands += _read(record)
            at = record.first + record.steps
        return self._new(id, owner, model, at, commands)

    def _new(self, id: str, owner: str, model: str, at: int, commands: list[Command]) -> bool:
        with self._asking():
            fence = self._redis.incr(f"{ALL}fence")
        moment = repr(time.time())
        about = ("owner", owner, "model", model, "made", moment, "holder", self.replica, "fence", fence)
        made: list[Command] = [("HSET", _session(id), *about), ("ZADD", f"{ALL}owner:{owner}", 0, id)]
        if self._fenced({id: [*made, *commands, *_touched(id, at)]}, {id: ""}):
            return False
        self._fences[id] = int(fence)
        return True

    def beginning(self, id: str) -> bytes:
        with self._asking():
            return bytes(self._redis.get(f"{ALL}beginning:{id}") or b"")

    def drop(self, id: str) -> None:
        kept = self.find(id)
        if kept is not None:
            self._alter(
                id,
                ("DEL", _session(id), _inputs(id), _states(id), f"{ALL}beginning:{id}"),
                ("ZREM", f"{ALL}owner:{kept.owner}", id),
                ("ZREM", f"{ALL}touched", id),
            )
            self._lost([id])

    # ------------------------------------------------------------------------------------------ what they have read

    def append(self, records: Iterable[Appended]) -> set[str]:
        commands: dict[str, list[Command]] = {}
        for record in records:
            some = commands.setdefault(record.id, [])
            some += [*_read(record), *_touched(record.id, record.first + record.steps)]
        return self._fenced(commands, self._tokens(commands))

    def keep(self, id: str, t: int, state: bytes) -> None:
        self._alter(id, *_state_anew(id, t, state))

    def inputs(self, id: str, start: int, stop: int) -> list[tuple[int, int, bytes]]:
        with self._asking(), self._redis.pipeline() as asked:
            asked.zrevrangebyscore(_inputs(id), start, "-inf", 0, 1)
            asked.zrangebyscore(_inputs(id), f"({start}", f"({stop}")
            found = [_record(data) for data in itertools.chain.from_iterable(asked.execute())]
        return [r for r in found if r[0] < stop and r[0] + r[1] > start]

    def before(self, id: str, t: int) -> tuple[int, bytes]:
        with self._asking():
            found = self._redis.zrevrangebyscore(_states(id), 2 * t + 1, "-inf", 0, 1)
        if not found:
            raise KeyError(id)
        return _STATE.unpack_from(found[0])[0], found[0][_STATE.size :]

    def edits(self, id: str, start: int) -> dict[int, bytes]:
        with self._asking():
            found = self._redis.zrangebyscore(_states(id), 2 * start + 2, "+inf")
        states = {_STATE.unpack_from(data): data[_STATE.size :] for data in found}
        return {at: state for (at, put), state in states.items() if put}

    def cut(self, id: str, t: int) -> None:
        self._alter(id, *self._cut(id, t), *_touched(id, t))

    def trim(self, id: str, t: int) -> None:
        first = min((record[0] for record in self.inputs(id, t, t + 1)), default=t)  # one over the border stays
        self._alter(
            id,
            ("ZREMRANGEBYSCORE", _inputs(id), "-inf", f"({first}"),
            ("ZREMRANGEBYSCORE", _states(id), "-inf", f"({2 * t}"),
        )

    def _cut(self, id: str, t: int) -> list[Command]:
        commands: list[Command] = [
            ("ZREMRANGEBYSCORE", _inputs(id), t, "+inf"),
            ("ZREMRANGEBYSCORE", _states(id), 2 * t + 2, "+inf"),
        ]
        for first, count, rows in self.inputs(id, t - 1, t) if t else []:
            if first + count > t:  # a record over the border: its first part stays
                part = rows[: (t - first) * (len(rows) // count)]
                commands.append(("ZREMRANGEBYSCORE", _inputs(id), first, first))
                commands.append(("ZADD", _inputs(id), first, _RECORD.pack(first, t - first) + part))
        return commands

    def rewrite(self, id: str, t: int, records: Iterable[Appended], edits: dict[int, bytes]) -> None:
        commands, at = self._cut(id, t), t
        for record in records:
            commands += _read(record)
            at = record.first + record.steps
        for when, state in edits.items():
            commands += _state_anew(id, when, state, put=True)
        self._alter(id, *commands, *_touched(id, at))

    def branch(self, id: str, other: str, owner: str, t: int) -> bool:
        with self._asking(), self._redis.pipeline() as asked:  # all of one moment
            asked.hmget(_session(id), "model", "fence")
            asked.get(f"{ALL}beginning:{id}")
            asked.zrangebyscore(_inputs(id), "-inf", f"({t}")
            asked.zrangebyscore(_states(id), "-inf", 2 * t + 1)
            (model, fence), about, inputs, states = asked.execute()
        if fence is None or int(fence) != self._fences.get(id):
            self._lost([id])
            raise Elsewhere(id)
        commands: list[Command] = [("SET", f"{ALL}beginning:{other}", about)] if about else []
        for first, count, rows in map(_record, inputs):
            read = min(count, t - first)
            commands += _read(Appended(other, first, read, rows[: read * (len(rows) // count)]))
        for data in states:
            at, put = _STATE.unpack_from(data)
            commands.append(_state(other, at, data[_STATE.size :], put=bool(put)))
        return self._new(other, owner, model.decode(), t, commands)


def _record(data: bytes) -> tuple[int, int, bytes]:
    first, count = _RECORD.unpack_from(data)
    return first, count, data[_RECORD.size :]


def _read(record: Appended) -> list[Command]:
    """What writes a record down."""
    made: list[Command] = [
        ("ZADD", _inputs(record.id), record.first, _RECORD.pack(record.first, record.steps) + record.rows)
    ]
    for t, state in record.snapshots:
        made += _state_anew(record.id, t, state)
    return made


def _state(id: str, t: int, state: bytes, *, put: bool = False) -> Command:
    return ("ZADD", _states(id), 2 * t + put, _STATE.pack(t, put) + state)


def _state_anew(id: str, t: int, state: bytes, *, put: bool = False) -> list[Command]:
    """What writes a state in the place of the one of its time."""
    return [("ZREMRANGEBYSCORE", _states(id), 2 * t + put, 2 * t + put), _state(id, t, state, put=put)]


def _touched(id: str, t: int) -> list[Command]:
    moment = repr(time.time())
    return [("HSET", _session(id), "time", t, "touched", moment), ("ZADD", f"{ALL}touched", moment, id)]
