"""What a server asks of the place where its sessions are kept, whatever that is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from throughtime.serve.refused import Refused


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


class Elsewhere(Refused):
    """A session that another process holds at present; what was to be written of it is not."""

    def __init__(self, id: str) -> None:
        super().__init__(503, f"the session {id!r} moves from one process to another; ask once more", retry_after=1)


class Store(ABC):
    """Where sessions are kept, written before an answer goes out.

    A session is its inputs in order, the states that were put in (the first is what it begins from), and snapshots of states on the
    way, from which all others can be computed anew.

    Where several processes have the same store, each session is held by one of them at a time, under a lease that the process
    renews; only the holder answers for it. Each time a session is taken it gets a fencing token, a number that is higher than all
    before, and the store compares it in the transaction of every write: a process that slept through its lease writes nothing.

    Raises, all that write to a session: Elsewhere.
    """

    @abstractmethod
    def close(self) -> None:
        """Give the store back, and the sessions that are held. Nothing is lost where this is never called."""

    # ------------------------------------------------------------------------------------------ whose they are

    def own(self, id: str) -> bool:
        """Hold a session, if there is one of this id.

        Returns: whether it has just been taken, so that what this process remembers of it is out of date.
        Raises: Elsewhere where another process holds it; that one is asked to release it.
        """
        return False

    def owns(self, id: str) -> bool:
        """Whether a session is held, and no other process can have taken it."""
        return True

    @abstractmethod
    def release(self, id: str) -> None:
        """Let others take a session."""

    # ------------------------------------------------------------------------------------------ the catalogue

    @abstractmethod
    def check_model(self, name: str, fingerprint: str) -> None:
        """Raises: UserError where the sessions of a model of this name are of other weights; a new one is written down."""

    @abstractmethod
    def find(self, id: str) -> Kept | None:
        """A session, or None."""

    @abstractmethod
    def count(self, owner: str | None = None) -> int:
        """How many sessions there are, of an owner or of all."""

    @abstractmethod
    def all_of(self, owner: str, limit: int, after: str = "") -> list[Kept]:
        """Some of the sessions of an owner, by their ids, from the one that comes after `after`."""

    @abstractmethod
    def untouched(self, since: float) -> list[Kept]:
        """The sessions that nobody has touched since a time."""

    @abstractmethod
    def make(
        self, id: str, owner: str, model: str, state: bytes, about: bytes = b"", records: Iterable[Appended] = ()
    ) -> bool:
        """A new session, which begins with a state, and has read some inputs. about: what is kept of it besides.

        Returns: False where there is one of this id; then nothing has changed.
        """

    @abstractmethod
    def beginning(self, id: str) -> bytes:
        """What is kept of a session besides its inputs and states."""

    @abstractmethod
    def drop(self, id: str) -> None:
        """Forget a session."""

    # ------------------------------------------------------------------------------------------ what they have read

    @abstractmethod
    def append(self, records: Iterable[Appended]) -> set[str]:
        """Write what several sessions have read, in one transaction. Returns: those that another process holds; of them nothing
        is written."""

    @abstractmethod
    def keep(self, id: str, t: int, state: bytes) -> None:
        """Write a snapshot of the state at time t."""

    @abstractmethod
    def inputs(self, id: str, start: int, stop: int) -> list[tuple[int, int, bytes]]:
        """The records that hold the inputs from time `start` to `stop`, in order: (first, count, rows); they may hold more."""

    @abstractmethod
    def before(self, id: str, t: int) -> tuple[int, bytes]:
        """The last state that is kept at time t or before: its time, and the state. One that was put in goes before a snapshot.

        Raises: KeyError where there is no such session.
        """

    @abstractmethod
    def first(self, id: str) -> int:
        """The time of the first state that is kept: nothing before it is known. Raises: KeyError where there is no such session."""

    @abstractmethod
    def edits(self, id: str, start: int) -> dict[int, bytes]:
        """The states that were put in after time `start`, by their time."""

    @abstractmethod
    def cut(self, id: str, t: int) -> None:
        """Forget what a session has read from time t on."""

    @abstractmethod
    def trim(self, id: str, t: int) -> None:
        """Forget the inputs and states before time t, at which a state is kept."""

    @abstractmethod
    def rewrite(self, id: str, t: int, records: Iterable[Appended], edits: dict[int, bytes]) -> None:
        """Put other records in the place of all from time t on. edits: states that are put in from t on."""

    @abstractmethod
    def branch(self, id: str, other: str, owner: str, t: int) -> bool:
        """Another session with the same past up to time t. Returns: False where there is one of this id; then nothing has
        changed."""
