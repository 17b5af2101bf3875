"""A folder of sessions that several processes of one machine share."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar, Literal

from throughtime.errors import UserError
from throughtime.serve.refused import Refused
from throughtime.serve.store import Appended, Elsewhere, Kept
from throughtime.serve.stores.leased import LEASE, Leased, now
from throughtime.serve.stores.tables import Tables

FILE = "shared.db"
JOINED = 4096  # bytes of inputs up to which a record takes in the next
_TABLES = """
create table if not exists replicas (id text primary key, until real not null, lease real not null) without rowid;
create table if not exists held (session text primary key, holder text not null, fence integer not null) without rowid;
create index if not exists holders on held (holder);
create table if not exists wanted (holder text, session text, primary key (holder, session)) without rowid
"""
_HELD = "select holder, fence from held where session = ?"
# a lease that ends later than it lasts was written before the machine started anew
_LIVE = "exists (select 1 from replicas where id = holder and until > :now and until <= :now + lease)"


class FolderStore(Leased, Tables):
    """A file that several processes of one machine have open.

    Args: folder: that it lies in. durable: as of `Tables`. lease: seconds.
    Raises: as `Tables`; UserError where the folder is not of this machine, since SQLite's processes share memory.
    """

    OF_SESSION: ClassVar = Tables.OF_SESSION | {"held": "session"}

    def __init__(self, folder: Path, durable: Literal["kill", "power"] = "kill", lease: float = LEASE) -> None:
        Leased.__init__(self, lease)
        _check_local(folder)
        Tables.__init__(self, folder / FILE, durable, alone=False)

    def _prepare(self) -> None:
        super()._prepare()
        for statement in _TABLES.split(";"):
            self._file.execute(statement)
        self._file.execute("insert or ignore into about values ('fence', '0')")

    @contextlib.contextmanager
    def _writing(self, *ids: str) -> Iterator[None]:
        try:
            with super()._writing(*ids):
                yield
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            raise Refused(503, f"{self.path}: another process writes to it, and does not end; ask again", 1) from error

    def close(self) -> None:
        with contextlib.suppress(Refused), self._lock, self._writing():  # or the lease ends by itself
            self._file.execute("delete from replicas where id = ?", (self.replica,))
        super().close()

    # ------------------------------------------------------------------------------------------ whose they are

    def _extend(self) -> tuple[bool, set[str]]:
        with self._writing():
            at = now()
            row = self._file.execute(
                "select until > ?2 and until <= ?2 + lease from replicas where id = ?1", (self.replica, at)
            ).fetchone()
            self._file.execute(
                "insert or replace into replicas values (?, ?, ?)", (self.replica, at + self.lease, self.lease)
            )
            asked_for = self._file.execute("select session from wanted where holder = ?", (self.replica,)).fetchall()
            if asked_for:
                self._file.execute("delete from wanted where holder = ?", (self.replica,))
        return row is None or not row[0], {id for (id,) in asked_for}

    def _held(self, ids: list[str]) -> dict[str, int]:
        with self._lock:
            rows = [self._file.execute(_HELD, (id,)).fetchone() for id in ids]
        return {id: row[1] for id, row in zip(ids, rows, strict=True) if row is not None and row[0] == self.replica}

    def _take(self, id: str, fence: int | None) -> int | None:
        with self._writing():
            if not self._file.execute("select 1 from sessions where id = ?", (id,)).fetchone():
                return 0
            row = self._file.execute(
                f"select holder, fence, {_LIVE} from held where session = :id", {"id": id, "now": now()}
            ).fetchone()
            if row is not None and row[0] == self.replica and row[1] == fence:
                return fence
            if row is not None and row[0] != self.replica and row[2]:
                self._file.execute("insert or ignore into wanted values (?, ?)", (row[0], id))
                return None
            return self._token(id)

    def _made(self, id: str) -> None:
        self._token(id)

    def _token(self, id: str) -> int:
        """A new token, for a session that is held from now on."""
        (number,) = self._file.execute(
            "update about set value = value + 1 where name = 'fence' returning cast(value as integer)"
        ).fetchone()
        self._file.execute("insert or replace into held values (?, ?, ?)", (id, self.replica, number))
        return int(number)

    def _release(self, id: str, fence: int) -> None:
        with self._writing():
            self._file.execute(
                "delete from held where session = ? and holder = ? and fence = ?", (id, self.replica, fence)
            )

    def _check(self, id: str) -> None:
        if not self._holds(id):
            self._lost([id])
            raise Elsewhere(id)

    def _holds(self, id: str) -> bool:
        row = self._file.execute(_HELD, (id,)).fetchone()
        return row is not None and row == (self.replica, self._fences.get(id))

    # ------------------------------------------------------------------------------------------ what they have read

    def untouched(self, since: float) -> list[Kept]:
        """Those of them that this process holds, or nobody does: others forget their own."""
        with self._lock:
            rows = self._file.execute(
                f"select session from held where holder != :replica and {_LIVE}",
                {"replica": self.replica, "now": now()},
            ).fetchall()
        others = {id for (id,) in rows}
        return [kept for kept in super().untouched(since) if kept.id not in others]

    def make(
        self, id: str, owner: str, model: str, state: bytes, about: bytes = b"", records: Iterable[Appended] = ()
    ) -> bool:
        made = super().make(id, owner, model, state, about, records)
        if made:
            self._fences |= self._held([id])
        return made

    def branch(self, id: str, other: str, owner: str, t: int) -> bool:
        made = super().branch(id, other, owner, t)
        if made:
            self._fences |= self._held([other])
        return made

    def drop(self, id: str) -> None:
        super().drop(id)
        self._lost([id])

    def append(self, records: Iterable[Appended]) -> set[str]:
        at, lost = time.time(), set[str]()
        with self._writing():
            for record in records:
                if self._holds(record.id):
                    self._append(record, at)
                else:
                    lost.add(record.id)
        self._lost(lost)
        return lost

    def _append(self, record: Appended, at: float) -> None:
        id, end = record.id, record.first + record.steps
        joined = self._file.execute(
            "update inputs set count = count + ?, rows = cast(rows || ? as blob) where session = ? and first = "
            "(select max(first) from inputs where session = ?) and length(rows) + ? <= ?",
            (record.steps, record.rows, id, id, len(record.rows), JOINED),
        )
        if not joined.rowcount:
            self._file.execute("insert into inputs values (?, ?, ?, ?)", (id, record.first, record.steps, record.rows))
        self._file.executemany(
            "insert or replace into states values (?, ?, 0, ?)", [(id, t, state) for t, state in record.snapshots]
        )
        self._file.execute("update sessions set time = ?, touched = ? where id = ?", (end, at, id))


def _check_local(folder: Path) -> None:
    """Raises: UserError where a folder is on another machine, as far as this one says."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return
    where = folder.resolve()
    over = [(len(Path(at).parts), kind) for at, kind in mounts if where.is_relative_to(at)]
    kind = max(over, default=(0, ""))[1]
    if kind.startswith(("nfs", "cifs", "smb", "ceph", "lustre", "fuse.sshfs", "gluster", "fuse.gluster")):
        raise UserError(
            f"{folder}: is on a file system of other machines ({kind}), and a folder is shared on one; name redis://… instead"
        )
