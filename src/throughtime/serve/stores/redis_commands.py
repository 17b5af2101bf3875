"""What Redis has of a session: the names of its keys, its inputs and states as bytes, and the commands that write them."""

from __future__ import annotations

import struct
import time
from typing import Any

from throughtime.serve.store import Appended

ALL = "throughtime:"  # what every key begins with
RECORD = struct.Struct("<QI")  # first, count; the rows follow
STATE = struct.Struct("<QB")  # time, whether it was put in; the state follows
Command = tuple[Any, ...]


def session_of(id: str) -> str:
    """The key of a session's hash."""
    return f"{ALL}session:{id}"


def inputs_of(id: str) -> str:
    """The key of its inputs, a sorted set by the time of each record's first."""
    return f"{ALL}inputs:{id}"


def states_of(id: str) -> str:
    """The key of its states, a sorted set by twice the time, and one more where the state was put in."""
    return f"{ALL}states:{id}"


def unpacked(data: bytes) -> tuple[int, int, bytes]:
    """A record of inputs again: (first, count, rows)."""
    first, count = RECORD.unpack_from(data)
    return first, count, data[RECORD.size :]


def reading(record: Appended) -> list[Command]:
    """What writes a record down."""
    made: list[Command] = [
        ("ZADD", inputs_of(record.id), record.first, RECORD.pack(record.first, record.steps) + record.rows)
    ]
    for t, state in record.snapshots:
        made += putting_anew(record.id, t, state)
    return made


def putting(id: str, t: int, state: bytes, *, put: bool = False) -> Command:
    """What writes a state where there is none of its time. put: whether it is put in, or a snapshot."""
    return ("ZADD", states_of(id), 2 * t + put, STATE.pack(t, put) + state)


def putting_anew(id: str, t: int, state: bytes, *, put: bool = False) -> list[Command]:
    """What writes a state in the place of the one of its time."""
    return [("ZREMRANGEBYSCORE", states_of(id), 2 * t + put, 2 * t + put), putting(id, t, state, put=put)]


def touching(id: str, t: int) -> list[Command]:
    """What says that a session has read t inputs, and is used now."""
    moment = repr(time.time())
    return [("HSET", session_of(id), "time", t, "touched", moment), ("ZADD", f"{ALL}touched", moment, id)]
