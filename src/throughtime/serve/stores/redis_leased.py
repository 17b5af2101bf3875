"""Sessions in Redis: how it is asked, and which of several processes holds each. Needs the extra `redis`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from throughtime.errors import UserError
from throughtime.serve.refused import Refused
from throughtime.serve.store import Elsewhere
from throughtime.serve.stores.leased import LEASE, Leased
from throughtime.serve.stores.redis_commands import ALL, Command, session_of

FORMAT = 1
SLOW = 5.0  # seconds until an answer of Redis must have come

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


class RedisLeased(Leased):
    """The sessions that a process holds, in Redis; every write is one script that compares the token. Arguments and errors: as of
    `RedisStore`."""

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
                asked.hget(session_of(id), "fence")
            return {id: int(fence) for id, fence in zip(ids, asked.execute(), strict=True) if fence is not None}

    def _take(self, id: str, fence: int | None) -> int | None:
        with self._asking():
            found = int(self._taking(args=[ALL, id, self.replica, "" if fence is None else fence]))
        return None if found < 0 else found

    def _release(self, id: str, fence: int) -> None:
        self._fenced({id: [("HDEL", session_of(id), "holder", "fence")]}, {id: fence})

    def _fenced(self, commands: dict[str, list[Command]], fences: dict[str, int | str]) -> set[str]:
        """Write to sessions, each with its token. Returns: those whose token is another."""
        words: list[Any] = []
        for id, all in commands.items():
            words += [session_of(id), fences[id], len(all)]
            for command in all:
                words += [len(command), *command]
        with self._asking():
            lost = {key.decode().removeprefix(session_of("")) for key in self._write(args=words)}
        self._lost(lost)
        return lost

    def _tokens(self, ids: Iterable[str]) -> dict[str, int | str]:
        return {id: self._fences.get(id, "none") for id in ids}

    def _alter(self, id: str, *commands: Command) -> None:
        """Write to a session. Raises: Elsewhere."""
        if self._fenced({id: list(commands)}, self._tokens([id])):
            raise Elsewhere(id)
