"""Sessions in Redis, that processes of several machines share. Needs the extra `redis`."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable

from throughtime.serve.store import Appended, Elsewhere, Kept
from throughtime.serve.stores.redis_commands import (
    ALL,
    RECORD,
    STATE,
    Command,
    inputs_of,
    putting,
    putting_anew,
    reading,
    session_of,
    states_of,
    touching,
    unpacked,
)
from throughtime.serve.stores.redis_leased import RedisLeased


class RedisStore(RedisLeased):
    """Sessions of each a hash, its inputs and states sorted by their time; every write is one script that compares the token.

    What survives the machine of Redis is for Redis to say (`appendonly`, `appendfsync`). It is one server, not a cluster.

    Args: url: redis://[user:password@]host[:port][/database], or rediss://. lease: seconds, by the clock of Redis.
    Raises: UserError where redis is not installed, does not answer, or holds sessions of a newer version.
    """

    # ------------------------------------------------------------------------------------------ the catalogue

    def find(self, id: str) -> Kept | None:
        return self._found([id])[0]

    def _found(self, ids: list[str]) -> list[Kept | None]:
        with self._asking(), self._redis.pipeline(transaction=False) as asked:
            for id in ids:
                asked.hmget(session_of(id), "owner", "model", "time", "made", "touched")
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
                    asked.hget(session_of(id), "holder")
                holders = [holder or b"" for holder in asked.execute()]
            live = {h for h in set(holders) if self._redis.exists(f"{ALL}replica:{h.decode()}")}
        live.discard(self.replica.encode())
        free = [id for id, holder in zip(ids, holders, strict=True) if holder not in live]
        return [kept for kept in self._found(free) if kept is not None]

    def make(
        self, id: str, owner: str, model: str, state: bytes, about: bytes = b"", records: Iterable[Appended] = ()
    ) -> bool:
        commands = [putting(id, 0, state, put=True)]
        if about:
            commands.append(("SET", f"{ALL}beginning:{id}", about))
        at = 0
        for record in records:
            commands += reading(record)
            at = record.first + record.steps
        return self._new(id, owner, model, at, commands)

    def _new(self, id: str, owner: str, model: str, at: int, commands: list[Command]) -> bool:
        with self._asking():
            fence = self._redis.incr(f"{ALL}fence")
        moment = repr(time.time())
        about = ("owner", owner, "model", model, "made", moment, "holder", self.replica, "fence", fence)
        made: list[Command] = [("HSET", session_of(id), *about), ("ZADD", f"{ALL}owner:{owner}", 0, id)]
        if self._fenced({id: [*made, *commands, *touching(id, at)]}, {id: ""}):
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
                ("DEL", session_of(id), inputs_of(id), states_of(id), f"{ALL}beginning:{id}"),
                ("ZREM", f"{ALL}owner:{kept.owner}", id),
                ("ZREM", f"{ALL}touched", id),
            )
            self._lost([id])

    # ------------------------------------------------------------------------------------------ what they have read

    def append(self, records: Iterable[Appended]) -> set[str]:
        commands: dict[str, list[Command]] = {}
        for record in records:
            some = commands.setdefault(record.id, [])
            some += [*reading(record), *touching(record.id, record.first + record.steps)]
        return self._fenced(commands, self._tokens(commands))

    def keep(self, id: str, t: int, state: bytes) -> None:
        self._alter(id, *putting_anew(id, t, state))

    def inputs(self, id: str, start: int, stop: int) -> list[tuple[int, int, bytes]]:
        with self._asking(), self._redis.pipeline() as asked:
            asked.zrevrangebyscore(inputs_of(id), start, "-inf", 0, 1)
            asked.zrangebyscore(inputs_of(id), f"({start}", f"({stop}")
            found = [unpacked(data) for data in itertools.chain.from_iterable(asked.execute())]
        return [r for r in found if r[0] < stop and r[0] + r[1] > start]

    def before(self, id: str, t: int) -> tuple[int, bytes]:
        with self._asking():
            found = self._redis.zrevrangebyscore(states_of(id), 2 * t + 1, "-inf", 0, 1)
        if not found:
            raise KeyError(id)
        return STATE.unpack_from(found[0])[0], found[0][STATE.size :]

    def first(self, id: str) -> int:
        with self._asking():
            found = self._redis.zrange(states_of(id), 0, 0)
        if not found:
            raise KeyError(id)
        return int(STATE.unpack_from(found[0])[0])

    def edits(self, id: str, start: int) -> dict[int, bytes]:
        with self._asking():
            found = self._redis.zrangebyscore(states_of(id), 2 * start + 2, "+inf")
        states = {STATE.unpack_from(data): data[STATE.size :] for data in found}
        return {at: state for (at, put), state in states.items() if put}

    def cut(self, id: str, t: int) -> None:
        self._alter(id, *self._cut(id, t), *touching(id, t))

    def trim(self, id: str, t: int) -> None:
        first = min((record[0] for record in self.inputs(id, t, t + 1)), default=t)  # one over the border stays
        self._alter(
            id,
            ("ZREMRANGEBYSCORE", inputs_of(id), "-inf", f"({first}"),
            ("ZREMRANGEBYSCORE", states_of(id), "-inf", f"({2 * t}"),
        )

    def _cut(self, id: str, t: int) -> list[Command]:
        commands: list[Command] = [
            ("ZREMRANGEBYSCORE", inputs_of(id), t, "+inf"),
            ("ZREMRANGEBYSCORE", states_of(id), 2 * t + 2, "+inf"),
        ]
        for first, count, rows in self.inputs(id, t - 1, t) if t else []:
            if first + count > t:  # a record over the border: its first part stays
                part = rows[: (t - first) * (len(rows) // count)]
                commands.append(("ZREMRANGEBYSCORE", inputs_of(id), first, first))
                commands.append(("ZADD", inputs_of(id), first, RECORD.pack(first, t - first) + part))
        return commands

    def rewrite(self, id: str, t: int, records: Iterable[Appended], edits: dict[int, bytes]) -> None:
        commands, at = self._cut(id, t), t
        for record in records:
            commands += reading(record)
            at = record.first + record.steps
        for when, state in edits.items():
            commands += putting_anew(id, when, state, put=True)
        self._alter(id, *commands, *touching(id, at))

    def branch(self, id: str, other: str, owner: str, t: int) -> bool:
        with self._asking(), self._redis.pipeline() as asked:  # all of one moment
            asked.hmget(session_of(id), "model", "fence")
            asked.get(f"{ALL}beginning:{id}")
            asked.zrangebyscore(inputs_of(id), "-inf", f"({t}")
            asked.zrangebyscore(states_of(id), "-inf", 2 * t + 1)
            (model, fence), about, inputs, states = asked.execute()
        if fence is None or int(fence) != self._fences.get(id):
            self._lost([id])
            raise Elsewhere(id)
        commands: list[Command] = [("SET", f"{ALL}beginning:{other}", about)] if about else []
        for first, count, rows in map(unpacked, inputs):
            read = min(count, t - first)
            commands += reading(Appended(other, first, read, rows[: read * (len(rows) // count)]))
        for data in states:
            at, put = STATE.unpack_from(data)
            commands.append(putting(other, at, data[STATE.size :], put=bool(put)))
        return self._new(other, owner, model.decode(), t, commands)
