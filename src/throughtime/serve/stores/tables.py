"""Sessions as tables of SQLite: what a file of one process and a folder of several have in common."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Literal

from throughtime.errors import UserError
from throughtime.serve.refused import Refused
from throughtime.serve.store import Appended, Kept, Store
from throughtime.serve.stores.schema import prepare

_KEPT = "id, owner, model, time, made, touched"


class Tables(Store):
    """Sessions in a file.

    Args: path: of the file; its folder is made. durable: "kill": what was answered survives the process being killed; "power":
        also the machine losing power, at a sync to the disk before every answer. alone: whether no other process may have it open.
    Raises: UserError where it cannot be opened, is another kind of file, is from a newer version, or another process has it.
    """

    OF_SESSION: ClassVar = {"inputs": "session", "states": "session", "beginnings": "session", "sessions": "id"}
    _last = 0  # the number of the last record that was appended to those of all sessions

    def __init__(self, path: Path, durable: Literal["kill", "power"] = "kill", *, alone: bool = True) -> None:
        self.path = path
        self._lock = threading.RLock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            patience = 1 if alone else 10  # seconds
            self._file = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=patience)
            self._file.execute(f"pragma locking_mode = {'exclusive' if alone else 'normal'}")
            self._file.execute("pragma journal_mode = wal")
            self._file.execute(f"pragma synchronous = {'full' if durable == 'power' else 'normal'}")
            with self._writing():
                self._prepare()
        except (sqlite3.Error, OSError, Refused) as error:
            busy = isinstance(error, Refused) or "locked" in str(error)
            raise UserError(
                f"{path}: {'another process serves from it' if busy else f'cannot be opened: {error}'}"
            ) from error

    def _prepare(self) -> None:
        prepare(self._file, self.path)

    @contextmanager
    def _writing(self, *ids: str) -> Iterator[None]:
        """All or nothing. ids: of the sessions that are written to."""
        with self._lock:
            self._file.execute("begin immediate")
            try:
                for id in ids:
                    self._check(id)
                yield
                self._file.execute("commit")
            except BaseException:
                if self._file.in_transaction:
                    self._file.execute("rollback")
                raise

    def _check(self, id: str) -> None:
        """Raises: Elsewhere where a session is held by another process. In a transaction."""

    def _made(self, id: str) -> None:
        """There is a new session. In a transaction."""

    @contextmanager
    def _changing(self, id: str) -> Iterator[None]:
        """Write, all or nothing, to the records of a session, which are then all there are of it."""
        with self._writing(id):
            yield

    def close(self) -> None:
        with self._lock:
            self._file.close()

    def check_model(self, name: str, fingerprint: str) -> None:
        with self._writing():
            found = self._file.execute("select value from about where name = ?", (f"model {name}",)).fetchone()
            if found is None:
                self._file.execute("insert into about values (?, ?)", (f"model {name}", fingerprint))
            elif found[0] != fingerprint:
                raise UserError(
                    f"{self.path}: its sessions of {name!r} were made with other weights; serve the model that they are of, or "
                    "name another --store"
                )

    # ------------------------------------------------------------------------------------------ the catalogue

    def find(self, id: str) -> Kept | None:
        with self._lock:
            rows = self._file.execute(f"select {_KEPT} from sessions where id = ?", (id,)).fetchall()
            return self._kept(rows[0]) if rows else None

    def _kept(self, row: tuple[str, str, str, int, float, float]) -> Kept:
        return Kept(*row)

    def count(self, owner: str | None = None) -> int:
        where, values = ("", ()) if owner is None else (" where owner = ?", (owner,))
        with self._lock:
            ((found,),) = self._file.execute("select coalesce(sum(number), 0) from counts" + where, values)
        return int(found)

    def all_of(self, owner: str, limit: int, after: str = "") -> list[Kept]:
        with self._lock:
            rows = self._file.execute(
                f"select {_KEPT} from sessions where owner = ? and id > ? order by id limit ?", (owner, after, limit)
            ).fetchall()
            return [self._kept(row) for row in rows]

    def untouched(self, since: float) -> list[Kept]:
        with self._lock:
            rows = self._file.execute(f"select {_KEPT} from sessions where touched < ?", (since,)).fetchall()
            return [kept for kept in map(self._kept, rows) if kept.touched < since]

    def make(
        self, id: str, owner: str, model: str, state: bytes, about: bytes = b"", records: Iterable[Appended] = ()
    ) -> bool:
        now = time.time()
        with self._writing():
            if self._file.execute("select 1 from sessions where id = ?", (id,)).fetchone():
                return False
            self._file.execute(
                "insert into sessions values (?, ?, ?, 0, ?, ?, ?)", (id, owner, model, self._last, now, now)
            )
            self._file.execute("insert into states values (?, 0, 1, ?)", (id, state))
            if about:
                self._file.execute("insert into beginnings values (?, ?)", (id, about))
            self._put(id, records)
            self._made(id)
        return True

    def beginning(self, id: str) -> bytes:
        with self._lock:
            rows = self._file.execute("select about from beginnings where session = ?", (id,)).fetchall()
        return bytes(rows[0][0]) if rows else b""

    def drop(self, id: str) -> None:
        with self._writing(id):
            for table, name in self.OF_SESSION.items():
                self._file.execute(f"delete from {table} where {name} = ?", (id,))

    # ------------------------------------------------------------------------------------------ what they have read

    def keep(self, id: str, t: int, state: bytes) -> None:
        with self._changing(id):  # who leaves memory reads nothing for a while: what it read last is put in its place
            self._file.execute("insert or replace into states values (?, ?, 0, ?)", (id, t, state))

    def inputs(self, id: str, start: int, stop: int) -> list[tuple[int, int, bytes]]:
        with self._lock:
            rows = self._file.execute(
                "select first, count, rows from inputs where session = ?1 and first < ?3 and first >= coalesce("
                "(select max(first) from inputs where session = ?1 and first <= ?2), 0) order by first",
                (id, start, stop),
            ).fetchall()
        return [r for r in rows if r[0] + r[1] > start]

    def before(self, id: str, t: int) -> tuple[int, bytes]:
        with self._lock:
            rows = self._file.execute(
                "select time, state from states where session = ? and time <= ? order by time desc, put desc limit 1",
                (id, t),
            ).fetchall()
        if not rows:
            raise KeyError(id)
        return int(rows[0][0]), bytes(rows[0][1])

    def first(self, id: str) -> int:
        with self._lock:
            ((found,),) = self._file.execute("select min(time) from states where session = ?", (id,))
        if found is None:
            raise KeyError(id)
        return int(found)

    def edits(self, id: str, start: int) -> dict[int, bytes]:
        with self._lock:
            return dict(
                self._file.execute("select time, state from states where session = ? and time > ? and put", (id, start))
            )

    def cut(self, id: str, t: int) -> None:
        with self._changing(id):
            self._cut(id, t)

    def trim(self, id: str, t: int) -> None:
        with self._changing(id):
            self._file.execute("delete from inputs where session = ? and first + count <= ?", (id, t))
            self._file.execute("delete from states where session = ? and time < ?", (id, t))

    def _cut(self, id: str, t: int) -> None:
        row = self._file.execute(
            "select first, count, rows from inputs where session = ? and first < ? order by first desc limit 1", (id, t)
        ).fetchone()
        if row is not None and row[0] + row[1] > t:  # a record over the border: its first part stays
            first, count, rows = row
            self._file.execute(
                "update inputs set count = ?, rows = ? where session = ? and first = ?",
                (t - first, rows[: (t - first) * (len(rows) // count)], id, first),
            )
        self._file.execute("delete from inputs where session = ? and first >= ?", (id, t))
        self._file.execute("delete from states where session = ? and time > ?", (id, t))
        self._file.execute("update sessions set time = ?, touched = ? where id = ?", (t, time.time(), id))

    def rewrite(self, id: str, t: int, records: Iterable[Appended], edits: dict[int, bytes]) -> None:
        with self._changing(id):
            self._cut(id, t)
            self._put(id, records)
            self._file.executemany(
                "insert or replace into states values (?, ?, 1, ?)", [(id, at, state) for at, state in edits.items()]
            )

    def _put(self, id: str, records: Iterable[Appended]) -> None:
        for made in records:
            self._file.execute("insert into inputs values (?, ?, ?, ?)", (id, made.first, made.steps, made.rows))
            self._file.executemany(
                "insert or replace into states values (?, ?, 0, ?)", [(id, at, state) for at, state in made.snapshots]
            )
            self._file.execute("update sessions set time = ? where id = ?", (made.first + made.steps, id))

    def branch(self, id: str, other: str, owner: str, t: int) -> bool:
        now = time.time()
        with self._changing(id):
            if self._file.execute("select 1 from sessions where id = ?", (other,)).fetchone():
                return False
            self._file.execute(
                "insert into sessions select ?, ?, model, time, ?, ?, ? from sessions where id = ?",
                (other, owner, self._last, now, now, id),
            )
            self._file.execute(
                "insert into inputs select ?, first, count, rows from inputs where session = ? and first < ?",
                (other, id, t),
            )
            self._file.execute(
                "insert into states select ?, time, put, state from states where session = ? and time <= ?",
                (other, id, t),
            )
            self._file.execute("insert into beginnings select ?, about from beginnings where session = ?", (other, id))
            self._cut(other, t)
            self._made(other)
        return True
