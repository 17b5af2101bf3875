"""A file of sessions that one process has.

What has just been read is appended to one table for all sessions, in the order it comes, since ten thousand sessions that each
write to a place of their own would write as many pages; little by little it is folded into the records of each.
"""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from throughtime.serve.store import Appended, Kept
from throughtime.serve.stores.tables import Tables

FOLD = 32  # records among the recent, for each session that has a tail, from which on some are folded
MOST = 150_000  # the same for all together, however many have a tail: they are read when the file is opened
SHARE = 2  # records that are appended for each session that is folded then
SWEPT = 10_000  # records of dropped sessions that may lie about
PIECE = 16_384  # bytes of inputs in a record that is folded, or one step: to look at a time, or to go back to it, takes one of them


@dataclass(slots=True)
class _Tail:
    """What of a session is not folded yet. start: the number of the first record among the recent."""

    start: int
    touched: float
    records: list[tuple[int, int, bytes]] = field(default_factory=list)

    @property
    def time(self) -> int:
        return self.records[-1][0] + self.records[-1][1]


class SingleStore(Tables):
    """The file of a server. Arguments and errors: as of `Tables`."""

    def __init__(self, path: Path, durable: Literal["kill", "power"] = "kill") -> None:
        self._tails: OrderedDict[str, _Tail] = OrderedDict()  # the one whose record is the oldest is the first
        super().__init__(path, durable)

    def _prepare(self) -> None:
        super()._prepare()
        ((self._last,),) = self._file.execute(
            "select max((select coalesce(max(number), 0) from recent), (select coalesce(max(folded), 0) from sessions))"
        )
        ((self._start,),) = self._file.execute("select coalesce(min(number), ?) from recent", (self._last + 1,))
        now = time.time()
        for number, id, first, count, rows in self._file.execute(
            "select number, session, first, count, rows from recent join sessions on id = session where number > folded "
            "order by number"
        ):
            tail = self._tails.get(id)
            if tail is None:
                tail = self._tails[id] = _Tail(number, now)
            tail.records.append((first, count, rows))

    def _kept(self, row: tuple[str, str, str, int, float, float]) -> Kept:
        id, owner, model, at, made, touched = row
        tail = self._tails.get(id)
        return Kept(id, owner, model, *((at, made, touched) if tail is None else (tail.time, made, tail.touched)))

    def release(self, id: str) -> None:
        """There are no others."""

    def drop(self, id: str) -> None:
        with self._lock:
            super().drop(id)
            self._tails.pop(id, None)

    def append(self, records: Iterable[Appended]) -> set[str]:
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
        return set()

    def _fold_some(self, appended: int) -> None:
        """Where there are too many recent, fold some sessions, the oldest first, and take away what nobody needs."""
        oldest, ids = next(iter(self._tails.values())).start, list[str]()
        if self._last + 1 - oldest > min(FOLD * len(self._tails), MOST):
            ids = list(itertools.islice(self._tails, -(-appended // SHARE)))
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
            rows, first = b"".join(rows for _, _, rows in tail.records), tail.records[0][0]
            width = len(rows) // (tail.time - first)
            steps = max(1, PIECE // width)
            self._file.executemany(
                "insert into inputs values (?, ?, ?, ?)",
                [
                    (id, at, min(steps, tail.time - at), rows[(at - first) * width : (at - first + steps) * width])
                    for at in range(first, tail.time, steps)
                ],
            )
            self._file.execute(
                "update sessions set time = ?, touched = ?, folded = ? where id = ?",
                (tail.time, tail.touched, self._last, id),
            )

    @contextmanager
    def _changing(self, id: str) -> Iterator[None]:
        with self._lock:
            with self._writing():
                self._fold(id)
                yield
            self._tails.pop(id, None)

    def inputs(self, id: str, start: int, stop: int) -> list[tuple[int, int, bytes]]:
        with self._lock:
            tail = self._tails.get(id)
            recent = [] if tail is None else [r for r in tail.records if r[0] < stop and r[0] + r[1] > start]
            return super().inputs(id, start, stop) + recent
