"""Where sessions are kept: a SQLite file, written before an answer goes out.

A session is its inputs in order, the states that were put in (the first is what it begins from), and snapshots of states on the
way, from which all others can be computed anew. What has just been read is appended to one table for all sessions, in the order it
comes, since ten thousand sessions that each write to a place of their own would write as many pages; little by little it is folded
into the records of each. Opened for writing by one process at a time.
"""

from __future__ import annotations

import itertools
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from throughtime.errors import UserError

FORMAT = 2  # of the file; one with a higher number is from a newer version
FOLD = 32  # records that are appended for each session that is folded: about how long a tail gets
SWEPT = 10_000  # records of dropped sessions that may lie about
_BEGINNINGS = "create table beginnings (session text primary key, about blob not null) without rowid"
_TABLES = f"""
create table about (name text primary key, value text not null) without rowid;
create table sessions (
    id text primary key, owner text not null, model text not null, time integer not null, folded integer not null,
    made real not null, touched real not null
) without rowid;
create index owned on sessions (owner, id);
create table inputs (session text, first integer, count integer not null, rows blob not null, primary key (session, first))
    without rowid;
create table states (session text, time integer, put integer not null, state blob not null, primary key (session, time, put))
    without rowid;
{_BEGINNINGS};
create table recent (number integer primary key, session text not null, first integer not null, count integer not null,
    rows blob not null);
"""
_KEPT = "id, owner, model, time, made, touched"


@dataclass(frozen=True)
class Kept:
    """What the catalogue says of a session. time: how many inputs have been read. made, touched: seconds since 1970."""

    id: str
    owner: str
    model: str
    time: int
    made: float
    touched: float


class Appended(NamedTuple):
    """Inputs that a session has read: `steps` of them from time `first` on, as bytes. snapshots: states on the way, by time."""

    id: str
    first: int
    steps: int
    rows: bytes
    snapshots: tuple[tuple[int, bytes], ...] = ()


@dataclass(slots=True)
class _Tail:
    """What of a session is not folded yet. start: the number of the first record among the recent."""

    start: int
    touched: float
    records: list[tuple[int, int, bytes]] = field(default_factory=list)

    @property
    def time(self) -> int:
        return self.records[-1][0] + self.records[-1][1]


class Store:
    """The file of a server.

    Args: path: of the file; its folder is made. durable: "kill": what was answered survives the process being killed; "power":
        also the machine losing power, at a sync to the disk before every answer.
    Raises: UserError where it cannot be opened, is another kind of file, is from a newer version, or another process has it.
    """

    def __init__(self, path: Path, durable: Literal["kill", "power"] = "kill") -> None:
        self.path = path
        self._lock = threading.RLock()
        self._tails: OrderedDict[str, _Tail] = OrderedDict()  # the one whose record is the oldest is the first
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=1)
            self._file.execute("pragma locking_mode = exclusive")
            self._file.execute("pragma journal_mode = wal")
            self._file.execute(f"pragma synchronous = {'full' if durable == 'power' else 'normal'}")
            self._prepare()
        except (sqlite3.Error, OSError) as error:
            busy = "locked" in str(error)
            raise UserError(
                f"{path}: {'another process serves from it' if busy else f'cannot be opened: {error}'}"
            ) from error

    def _prepare(self) -> None:
        with self._writing():
            found = {name for (name,) in self._file.execute("select name from sqlite_master where type = 'table'")}
            if not found:
                for statement in _TABLES.split(";"):
                    self._file.execute(statement)
                self._file.execute("insert into about values ('format', ?)", (str(FORMAT),))
            elif "about" not in found or "sessions" not in found:
                raise UserError(f"{self.path}: is a database of something else; name another file")
            else:
                ((number,),) = self._file.execute("select value from about where name = 'format'")
                if int(number) > FORMAT:
                    raise UserError(f"{self.path}: format {number} is from a newer throughtime; upgrade it")
                if int(number) < FORMAT:  # 1: without beginnings
                    self._file.execute(_BEGINNINGS)
                    self._file.execute("update about set value = ? where name = 'format'", (str(FORMAT),))
            ((self._last,),) = self._file.execute(  # the number of the last record that was appended
                "select max((select coalesce(max(number), 0) from recent), (select coalesce(max(folded), 0) from sessions))"
            )
            ((self._start,),) = self._file.execute("select coalesce(min(number), ?) from recent", (self._last + 1,))
            now = time.time()
            for number, id, first, count, rows in self._file.execute(
                "select number, session, first, count, rows from recent join sessions on id = session where number > folded "
                "order by number"
            ):
                self._tails.setdefault(id, _Tail(number, now)).records.append((first, count, rows))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """All or nothing."""
        with self._lock:
            self._file.execute("begin immediate")
            try:
                yield
                self._file.execute("commit")
            except BaseException:
                if self._file.in_transaction:
                    self._file.execute("rollback")
                raise

    def close(self) -> None:
        """Give the file back. Nothing is lost where this is never called."""
        with self._lock:
            self._file.close()

    def check_model(self, name: str, fingerprint: str) -> None:
        """Raises: UserError where the sessions of a model of this name are of other weights; a new one is written down."""
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
        """A session, or None."""
        with self._lock:
            rows = self._file.execute(f"select {_KEPT} from sessions where id = ?", (id,)).fetchall()
            return self._kept(rows[0]) if rows else None

    def _kept(self, row: tuple[str, str, str, int, float, float]) -> Kept:
        id, owner, model, at, made, touched = row
        tail = self._tails.get(id)
        return Kept(id, owner, model, *((at, made, touched) if tail is None else (tail.time, made, tail.touched)))

    def count(self, owner: str | None = None) -> int:
        """How many sessions there are, of an owner or of all."""
        where, values = ("", ()) if owner is None else (" where owner = ?", (owner,))
        with self._lock:
            ((found,),) = self._file.execute("select count(*) from sessions" + where, values)
        return int(found)

    def all_of(self, owner: str, limit: int, after: str = "") -> list[Kept]:
        """Some of the sessions of an owner, by their ids, from the one that comes after `after`."""
        with self._lock:
            rows = self._file.execute(
                f"select {_KEPT} from sessions where owner = ? and id > ? order by id limit ?", (owner, after, limit)
            ).fetchall()
            return [self._kept(row) for row in rows]

    def untouched(self, since: float) -> list[Kept]:
        """The sessions that nobody has touched since a time."""
        with self._lock:
            rows = self._file.execute(f"select {_KEPT} from sessions where touched < ?", (since,)).fetchall()
            return [kept for kept in map(self._kept, rows) if kept.touched < since]

    def make(
        self,
        id: str,
        owner: str,
        model: str,
        state: bytes,
        about: bytes = b"",
        records: Iterable[Appended] = (),
    ) -> bool:
        """A new session, which begins with a state, and has read some inputs. about: what is kept of it besides.

        Returns: False where there is one of this id; then nothing has changed.
        """
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
        return True

    def beginning(self, id: str) -> bytes:
        """What is kept of a session besides its inputs and states."""
        with self._lock:
            rows = self._file.execute("select about from beginnings where session = ?", (id,)).fetchall()
        return bytes(rows[0][0]) if rows else b""

    def drop(self, id: str) -> None:
        """Forget a session."""
        with self._lock:
            with self._writing():
                for table, name in (
                    ("inputs", "session"),
                    ("states", "session"),
                    ("beginnings", "session"),
                    ("sessions", "id"),
                ):
                    self._file.execute(f"delete from {table} where {name} = ?", (id,))
            self._tails.pop(id, None)

    # ------------------------------------------------------------------------------------------ what they have read

    def append(self, records: Iterable[Appended]) -> None:
        """Write what several sessions have read, all or none."""
        records, now = list(records), time.time()
        with self._lock:
            with self._writing():
                self._file.executemany(
                    "insert into recent values (?, ?, ?, ?, ?)",
                    [
                        (n, id, first, steps, rows)
                        for n, (id, first, steps, rows, _) in enumerate(records, self._last + 1)
                    ],
                )
                self._file.executemany(
                    "insert or replace into states values (?, ?, 0, ?)",
                    [(r.id, t, s) for r in records if r.snapshots for t, s in r.snapshots],
                )
            tails = self._tails
            for number, (id, first, steps, rows, _) in enumerate(records, self._last + 1):
                tail = tails.get(id)
                if tail is None:
                    tail = tails[id] = _Tail(number, now)
                tail.records.append((first, steps, rows))
                tail.touched = now
            self._last += len(records)
            self._fold_some(len(records))

    def _fold_some(self, appended: int) -> None:
        """Fold as many sessions as keep step with what is appended, the oldest first, and take away what nobody needs."""
        oldest, ids = next(iter(self._tails.values())).start, list[str]()
        if self._last + 1 - oldest > FOLD * len(self._tails):
            ids = list(itertools.islice(self._tails, -(-2 * appended // FOLD)))
        left = next(itertools.islice(self._tails.values(), len(ids), None), None)
        start = self._last + 1 if left is None else left.start
        if not ids and start - self._start < SWEPT:
            return
        with self._writing():
            for id in ids:
                self._fold(id)
            self._file.execute("delete from recent where number < ?", (start,))
        for id in ids:
            del self._tails[id]
        self._start = start

    def _fold(self, id: str) -> None:
        """Write the tail of a session to its records; the tail is to be dropped once that is written."""
        tail = self._tails.get(id)
        if tail is not None:
            rows = b"".join(rows for _, _, rows in tail.records)
            first = tail.records[0][0]
            self._file.execute("insert into inputs values (?, ?, ?, ?)", (id, first, tail.time - first, rows))
            self._file.execute(
                "update sessions set time = ?, touched = ?, folded = ? where id = ?",
                (tail.time, tail.touched, self._last, id),
            )

    @contextmanager
    def _changing(self, id: str) -> Iterator[None]:
        """Write, all or nothing, to the records of a session, which are then all there are of it."""
        with self._lock:
            with self._writing():
                self._fold(id)
                yield
            self._tails.pop(id, None)

    def keep(self, id: str, t: int, state: bytes) -> None:
        """Write a snapshot of the state at time t."""
        with self._writing():
            self._file.execute("insert or replace into states values (?, ?, 0, ?)", (id, t, state))

    def inputs(self, id: str, start: int, stop: int) -> list[tuple[int, int, bytes]]:
        """The records that hold the inputs from time `start` to `stop`, in order: (first, count, rows); they may hold more."""
        with self._lock:
            folded = self._file.execute(
                "select first, count, rows from inputs where session = ?1 and first < ?3 and first >= coalesce("
                "(select max(first) from inputs where session = ?1 and first <= ?2), 0) order by first",
                (id, start, stop),
            ).fetchall()
            tail = self._tails.get(id)
            recent = [] if tail is None else tail.records
            return [r for r in itertools.chain(folded, recent) if r[0] < stop and r[0] + r[1] > start]

    def before(self, id: str, t: int) -> tuple[int, bytes]:
        """The last state that is kept at time t or before: its time, and the state. One that was put in goes before a snapshot."""
        with self._lock:
            rows = self._file.execute(
                "select time, state from states where session = ? and time <= ? order by time desc, put desc limit 1",
                (id, t),
            ).fetchall()
        if not rows:
            raise KeyError(id)
        return int(rows[0][0]), bytes(rows[0][1])

    def edits(self, id: str, start: int) -> dict[int, bytes]:
        """The states that were put in after time `start`, by their time."""
        with self._lock:
            return dict(
                self._file.execute("select time, state from states where session = ? and time > ? and put", (id, start))
            )

    def cut(self, id: str, t: int) -> None:
        """Forget what a session has read from time t on."""
        with self._changing(id):
            self._cut(id, t)

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
        """Put other records in the place of all from time t on. edits: states that are put in from t on."""
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
        """Another session with the same past up to time t. Returns: False where there is one of this id; then nothing has
        changed."""
        now = time.time()
        with self._changing(id):
            if self._file.execute("select 1 from sessions where id = ?", (other,)).fetchone():
                return False
            self._file.execute(
                "insert into sessions select ?, ?, model, time, ?, ?, ? from sessions where id = ?",
                (other, owner, self._last, now, now, id),
            )
            self._file.execute(
                "insert into inputs select ?, first, count, rows from inputs where session = ?", (other, id)
            )
            self._file.execute(
                "insert into states select ?, time, put, state from states where session = ?", (other, id)
            )
            self._file.execute("insert into beginnings select ?, about from beginnings where session = ?", (other, id))
            self._cut(other, t)
        return True
