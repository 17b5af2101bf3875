"""What has happened in a session, so that any moment of it can be computed anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor

from throughtime.cells import State
from throughtime.errors import UserError
from throughtime.travel.difference import same, unlike
from throughtime.travel.engine import Engine, Moment
from throughtime.travel.tape import Tape


class History:
    """All inputs, the states that were put in, and snapshots of what came of them.

    Args: engine: what steps. origin: the moment at time 0. most: how many snapshots are kept. keep: how many of the last steps
        are, at least.
    Attributes: first: the earliest time. every: k, how far snapshots are apart. edits: time -> the state that was put in there.
    """

    def __init__(self, engine: Engine, origin: Moment, most: int, keep: int) -> None:
        self.engine, self.most, self.keep = engine, most, keep
        self.first, self.every = 0, 1
        self.tape = Tape(engine.empty())
        self.snapshots: dict[int, Moment] = {0: origin}
        self.edits: dict[int, tuple[State, ...]] = {}

    def __len__(self) -> int:
        """The time at its end."""
        return self.first + len(self.tape)

    def copy(self) -> History:
        """Another with the same past, which may be changed without this one."""
        other = History.__new__(History)
        other.__dict__.update(self.__dict__)
        # no moment is ever written to, so that two may hold the same
        other.tape, other.snapshots, other.edits = self.tape.copy(), dict(self.snapshots), dict(self.edits)
        return other

    def inputs(self, low: int, high: int) -> Tensor:
        """Those from time low to high: a view, not to be written to."""
        return self.tape.rows(low - self.first, high - self.first)

    # ---------------------------------------------------------------------------------------------- computing anew

    def moment(self, t: int, near: tuple[int, Moment] | None = None, outputs: list[Tensor] | None = None) -> Moment:
        """What was at time t, from the last snapshot before it, or from a moment that is known to be `near`.

        outputs: takes those of the steps from there.
        """
        time = max(s for s in self.snapshots if s <= t)
        moment = self.snapshots[time]
        if near is not None and time <= near[0] <= t:
            time, moment = near
        return self._run(moment, time, t, outputs)

    def walk(self, times: Iterable[int]) -> Iterator[Moment]:
        """What was at rising times, each from the one before or a nearer snapshot."""
        last: tuple[int, Moment] | None = None
        for t in times:
            last = t, self.moment(t, last)
            yield last[1]

    def _run(self, moment: Moment, low: int, high: int, outputs: list[Tensor] | None) -> Moment:
        """Read the inputs from time low to high, put in the states of `edits`, and take a snapshot wherever one is due."""
        edits = sorted(t for t in self.edits if low < t <= high)
        while low < high:
            due = (low // self.every + 1) * self.every
            stop = min([due, high, *edits[:1]])
            moment = self.engine.run(moment, self.inputs(low, stop), outputs)
            if edits and edits[0] == stop:
                moment = Moment(self.edits[edits.pop(0)], moment.output)
            if stop == due:
                self.snapshots.setdefault(stop, moment)
                self._thin()
            low = stop
        return moment

    def _thin(self) -> None:
        while len(self.snapshots) > self.most:
            self.every *= 2
            kept = {t: m for t, m in self.snapshots.items() if t % self.every == 0 or t == self.first}
            self.snapshots = kept

    # ---------------------------------------------------------------------------------------------- changing it

    def cut(self, t: int) -> None:
        """Drop what comes after time t."""
        self.tape.cut(t - self.first)
        self.snapshots = {s: m for s, m in self.snapshots.items() if s <= t}
        self.edits = {s: e for s, e in self.edits.items() if s <= t}

    def put(self, t: int, state: tuple[State, ...]) -> None:
        """Put in a state at time t."""
        output = self.moment(t).output
        self._unsettle(t)
        if t == self.first:
            self.snapshots[t] = Moment(state, output)
        else:
            self.edits[t] = state

    def splice(self, start: int, stop: int, rows: Tensor) -> None:
        """Put other inputs in the place of those from time start to stop. What was put in later moves with the inputs after it."""
        moved = len(rows) - (stop - start)
        self._unsettle(start + 1)
        self.tape.splice(start - self.first, stop - self.first, rows)
        kept = {t: s for t, s in self.edits.items() if t <= start}
        self.edits = kept | {t + moved: s for t, s in self.edits.items() if t >= stop and t > start}
        if self.first in self.edits:  # all before it was taken out
            self.put(self.first, self.edits.pop(self.first))

    def last(self) -> tuple[int, Moment]:
        """The last snapshot, and its time."""
        time = max(self.snapshots)
        return time, self.snapshots[time]

    def _unsettle(self, t: int) -> None:
        """Forget the snapshots from time t on."""
        self.snapshots = {s: m for s, m in self.snapshots.items() if s < t or s == self.first}

    def forget_the_oldest(self) -> None:
        """Drop what is before the last snapshot that leaves enough steps."""
        oldest = max((s for s in self.snapshots if s <= len(self) - self.keep), default=self.first)
        if oldest > self.first:
            self.tape.drop(oldest - self.first)
            self.first = oldest
            self.snapshots = {s: m for s, m in self.snapshots.items() if s >= oldest}
            self.edits = {s: e for s, e in self.edits.items() if s > oldest}

    # ---------------------------------------------------------------------------------------------- beside another

    def parting(self, other: History) -> int | None:
        """The earliest time from which the two may differ; None where they cannot. Raises: UserError where they share no time."""
        begin, end = max(self.first, other.first), min(len(self), len(other))
        if begin > end:
            raise UserError(f"diff: the one keeps times from {begin} on, the other ends at {end}; they share none")
        if not same(self.moment(begin), other.moment(begin)):
            return begin
        found = [t for t in {*self.edits, *other.edits} if begin < t <= end and not self._same_edit(other, t)]
        if end > begin:
            where = unlike(self.inputs(begin, end), other.inputs(begin, end)).reshape(end - begin, -1).any(1).nonzero()
            found += [begin + int(i) + 1 for i in where[:1]]
        return min(found, default=None)

    def _same_edit(self, other: History, t: int) -> bool:
        a, b = self.edits.get(t), other.edits.get(t)
        return a is not None and b is not None and same(Moment(a, None), Moment(b, None))
