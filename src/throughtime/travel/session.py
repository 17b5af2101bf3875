"""A session: a stream through a network that keeps its history, so that one can go back, change it, and compare.

Shapes: T time, I input, N output.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from throughtime.cells import State
from throughtime.errors import UserError
from throughtime.travel import files
from throughtime.travel.difference import Difference, difference
from throughtime.travel.engine import Engine, Moment
from throughtime.travel.history import History

SNAPSHOTS = 256
KEEP = 1_000_000
NOTHING: Mapping[int, Tensor] = {}


class Session:
    """A stream through a stack of cells that can go back in time.

    >>> import torch, throughtime as tt
    >>> session = tt.Session(tt.Recurrent(tt.cells.GRU, 3, 5))
    >>> outputs = session.feed(torch.randn(100, 3))
    >>> other = session.branch()
    >>> other.edit(40, input=torch.zeros(3))
    >>> session.diff(other).parts
    41
    >>> session.rewind(40)
    >>> session.time, len(session)
    (40, 100)

    At time t, t inputs have been read: input t is the one that is read next there. All inputs are kept, and the state of every k-th
    time, k doubling whenever there are too many. A state between them is computed anew from the one before, one step at a time by
    the same code, so that it is the same to the bit. What was changed is part of the history.

    The network is not to be trained meanwhile. A cell that draws random numbers, or keeps something on `self`, cannot be computed
    anew.

    Args:
        stack: a `Recurrent` of any cell, or an `RNN`, `LSTM` or `GRU` of throughtime; in one direction.
        state: the one to begin with, as `state` gives it or the stack returns it; None: the stack's own.
        snapshots: how many states are kept at most.
        keep: how many of the last steps can be gone back to, at least; older ones are forgotten.
        backend: as a stepper takes it.
    Raises: UserError where the stack cannot step, or a value is out of range.
    """

    def __init__(
        self,
        stack: nn.Module,
        state: Any = None,
        *,
        snapshots: int = SNAPSHOTS,
        keep: int = KEEP,
        backend: str = "auto",
    ) -> None:
        self._begin(Engine(stack, backend), state, snapshots, keep)

    @classmethod
    def of(cls, engine: Engine, *, snapshots: int = SNAPSHOTS, keep: int = KEEP) -> Self:
        """One that is stepped by an engine."""
        made = cls.__new__(cls)
        made._begin(engine, None, snapshots, keep)
        return made

    def _begin(self, engine: Engine, state: Any, snapshots: int, keep: int) -> None:
        for name, value, least in (("snapshots", snapshots, 2), ("keep", keep, 1)):
            if whole(name, value) < least:
                raise UserError(f"{name}: got {value}; at least {least}")
        origin = engine.first() if state is None else Moment(engine.checked_state(state), None)
        self._engine, self._history = engine, History(engine, origin, snapshots, keep)
        self._time, self._now = 0, origin

    # ---------------------------------------------------------------------------------------------- the present

    @property
    def time(self) -> int:
        """How many inputs have been read at the present."""
        return self._time

    @property
    def first(self) -> int:
        """The earliest time that one can go back to."""
        return self._history.first

    @property
    def keep(self) -> int:
        """How many of the last steps can be gone back to, at least."""
        return self._history.keep

    @property
    def snapshots(self) -> list[int]:
        """The times whose state is kept."""
        return sorted(self._history.snapshots)

    @property
    def state(self) -> list[State]:
        """The state of each layer at the present, [1, N] or a tuple of such, as copies."""
        return list(self._engine.checked_state(self._now.state))

    @property
    def output(self) -> Tensor | None:
        """The output of the last step, [N]; None before the first."""
        return None if self._now.output is None else self._now.output.clone()

    def __len__(self) -> int:
        """The time at the end of all that is known: past `time` after a rewind."""
        return len(self._history)

    def inputs(self, start: int | None = None, stop: int | None = None) -> Tensor:
        """The inputs from time `start` to `stop`, [T, I], as a copy; None: all that are kept."""
        start, stop = self.first if start is None else start, len(self) if stop is None else stop
        self._check_time("inputs", start)
        self._check_time("inputs", stop)
        return self._history.inputs(start, max(start, stop)).clone()

    # ---------------------------------------------------------------------------------------------- to and fro

    def feed(self, x: Any) -> Any:
        """Read one input [I], or many [T, I]. After a rewind the inputs that were ahead are dropped: branch first to keep them.

        Returns: the output [N] of it, or [T, N]. If it fails on the way, the session is where it was.
        Raises: UserError where the input does not fit.
        """
        outputs: list[Tensor] = []
        given = self._engine.tensor(x)
        rows, many = self._engine.checked(given), given.dim() == 2
        if not len(rows):
            raise UserError("feed: there is no input in it")
        self._feed(rows, outputs)
        return torch.cat(outputs) if many else outputs[0][0]

    def _feed(self, rows: Tensor, outputs: list[Tensor] | None = None) -> None:
        self._engine.check_weights()
        begin = self._time
        self._history.cut(begin)
        self._history.tape.append(rows)
        try:
            self._go(len(self), outputs)
        except BaseException:
            self._history.cut(begin)
            raise
        self._history.forget_the_oldest()

    def rewind(self, t: int) -> None:
        """Go to time t: back, or forward again as far as inputs are known. Raises: UserError where t is not kept or not known."""
        self._check_time("rewind", t)
        self._engine.check_weights()
        self._go(t)

    def branch(self) -> Self:
        """An independent copy, with history, present, and what lies ahead."""
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._history = self._history.copy()
        return other

    # ---------------------------------------------------------------------------------------------- changing the past

    def edit(self, t: int, *, input: Any = None, state: Any = None) -> None:
        """Change what was at time t; all later inputs are read again as they were. The present stays at its time.

        Args:
            input: in the place of input t, the one that is read at time t: [I].
            state: in the place of the state at time t, which input t meets. The output at time t stays as it was.
        Raises: UserError where t is out of range, the value does not fit, or not just one of the two is given.
        """
        if (input is None) == (state is None):
            raise UserError("edit: give input= or state=, just one of them")
        if state is not None:
            self._check_time("edit", t)
            self._put(t, self._engine.checked_state(state))
            return
        if not self.first <= whole("edit: a time", t) < len(self):
            raise UserError(f"edit: there is no input {t}; {self._range(len(self) - 1)}")
        rows = self._engine.checked(input)
        if len(rows) != 1:
            raise UserError(f"edit: one input goes in the place of input {t}, got {len(rows)}; replace() takes many")
        self._splice(t, t + 1, rows)

    def replace(self, start: int, stop: int, inputs: Any) -> None:
        """Put other inputs in the place of those from time `start` to `stop`: as many, fewer, more, or none.

        What comes later is read again, at times moved by the difference; so is the present where it lies later.
        Raises: UserError where a time is out of range, or the inputs do not fit.
        """
        self._check_time("replace", start)
        self._check_time("replace", stop)
        if stop < start:
            raise UserError(f"replace: from {start} to {stop} is backwards; exchange them")
        self._splice(start, stop, self._engine.checked(inputs))

    def _put(self, t: int, state: tuple[State, ...]) -> None:
        self._engine.check_weights()
        self._history.put(t, state)
        self._settle(t, self._time)

    def _splice(self, start: int, stop: int, rows: Tensor, later: Mapping[int, Tensor] = NOTHING) -> None:
        """later: inputs [1, ...] after those that are put in, by their time then, that follow from them and change with them."""
        self._engine.check_weights()
        time = self._time
        if time >= stop:
            time += len(rows) - (stop - start)
        elif time > start:
            time = start + min(time - start, len(rows))
        self._history.splice(start, stop, rows)
        for t, row in later.items():
            self._history.splice(t, t + 1, row)
        self._settle(start, time)  # at its start there may now be a state that was put in later

    def _settle(self, changed: int, time: int) -> None:
        """Go to `time` after what was from time `changed` on is no longer so."""
        if self._time >= changed:
            self._time, self._now = self._history.last()
        self._go(time)

    # ---------------------------------------------------------------------------------------------- comparing, saving

    def diff(self, other: Session, times: Iterable[tuple[int, int]] | None = None) -> Difference:
        """Where and how far this timeline and another part, present or not.

        Args: times: which time of this is compared with which of the other, rising in both; None: each time that both know, from
            the first difference of their inputs or states on.
        Raises: UserError where the two are of different networks or run on different backends, or a time is not kept.
        """
        if not isinstance(other, Session):
            raise UserError(f"diff: takes another session, got a {type(other).__name__}")
        mine, theirs = self._engine, other._engine
        if mine is not theirs and mine.fingerprint() != theirs.fingerprint():
            raise UserError("diff: the two sessions are of different networks; compare two of one")
        if mine.backend != theirs.backend:
            raise UserError(
                f"diff: one runs on {mine.backend!r}, the other on {theirs.backend!r}, which round differently; "
                f"make both with the same backend="
            )
        mine.check_weights()
        theirs.check_weights()
        if times is None:
            begin, end = self._history.parting(other._history), min(len(self), len(other))
            times = [] if begin is None else [(t, t) for t in range(begin, end + 1)]
        try:
            pairs = [(a, b) for a, b in times]
        except (TypeError, ValueError) as error:
            raise UserError(
                "diff: times are pairs, one of this session and one of the other: [(3, 3), (4, 5)]"
            ) from error
        for a, b in pairs:
            self._check_time("diff", a)
            other._check_time("diff", b)
        for (a, b), (c, d) in itertools.pairwise(pairs):
            if c < a or d < b:
                raise UserError(f"diff: times must rise, got {(a, b)} before {(c, d)}")
        moments = zip(
            self._history.walk([a for a, _ in pairs]), other._history.walk([b for _, b in pairs]), strict=True
        )
        return difference(mine, ((pair, a, b) for pair, (a, b) in zip(pairs, moments, strict=True)))

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the session to a file: history, present and what lies ahead. It holds no weights.

        Raises: UserError where there is a file and `overwrite` is not asked for, it cannot be written, or the weights have changed.
        """
        self._engine.check_weights()
        history = self._history
        about = {
            "network": self._engine.fingerprint(),
            "backend": self._engine.backend,
            "time": self._time,
            "first": history.first,
            "every": history.every,
            "snapshots": history.most,
            "keep": history.keep,
        }
        moments = {**history.snapshots, self._time: self._now}
        files.write(Path(path), about, history.tape.rows(0, len(history.tape)), moments, history.edits, overwrite)

    @classmethod
    def load(cls, of: Any, path: str | Path) -> Any:
        """The session that `save` wrote, of the same network; it goes on to the bit on a machine that computes as the first did.

        Args: of: the stack, or the trained model it is a session of.
        Raises: UserError where the file is missing, damaged or none, or belongs to a network of other weights.
        """
        if not isinstance(of, nn.Module) and not hasattr(of, "session"):
            how = "; of a run folder: throughtime.load(folder)" if isinstance(of, str | Path) else ""
            raise UserError(
                f"load: takes the stack or the trained model of the session first, got a {type(of).__name__}{how}"
            )
        about, tensors = files.read(Path(path))
        try:
            options = {name: about[name] for name in ("snapshots", "keep", "backend")}
            session: Session = cls(of, **options) if isinstance(of, nn.Module) else of.session(**options)
            if about["network"] != session._engine.fingerprint():
                raise UserError(f"{path}: is a session of another network; open it with the one it was made with")
            session._restore(about, tensors)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise UserError(f"{path}: the session is damaged: {error!r}") from error
        return session

    def _restore(self, about: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        history, like = self._history, self._now.state
        history.first, history.every, self._time = about["first"], about["every"], about["time"]
        history.tape.append(tensors["inputs"])
        history.snapshots = {
            time: Moment(state, _moved(tensors.get(f"snapshot.{time}.output"), self._engine.device))
            for time, state in files.states(tensors, "snapshot", like).items()
        }
        history.edits = files.states(tensors, "edit", like)
        self._now = history.snapshots[self._time]
        if self._time % history.every and self._time != history.first:
            del history.snapshots[self._time]  # it was written as the present, and is no snapshot
        if history.first not in history.snapshots or not history.first <= self._time <= len(self):
            raise ValueError(f"time {self._time} of {history.first} to {len(self)}")

    # ---------------------------------------------------------------------------------------------- inside

    def _go(self, t: int, outputs: list[Tensor] | None = None) -> None:
        self._now = self._history.moment(t, (self._time, self._now), outputs)
        self._time = t

    def _check_time(self, verb: str, t: int) -> None:
        if not self.first <= whole(f"{verb}: a time", t) <= len(self):
            raise UserError(f"{verb}: there is no time {t}; {self._range(len(self))}")

    def _range(self, last: int) -> str:
        forgotten = f" (what was before is forgotten: keep={self.keep})" if self.first else ""
        return f"they go from {self.first} to {last}{forgotten}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}(time {self._time} of {len(self)}, {len(self.snapshots)} snapshots)"


def whole(what: str, value: Any) -> int:
    """Raises: UserError where it is no whole number."""
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:
        pass
    raise UserError(f"{what} is a whole number, got {value!r}")


def _moved(tensor: Tensor | None, device: torch.device) -> Tensor | None:
    return None if tensor is None else tensor.to(device)
