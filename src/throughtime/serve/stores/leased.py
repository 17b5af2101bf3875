"""Sessions that several processes share: each is held by one of them at a time."""

from __future__ import annotations

import secrets
import sys
import time
from abc import abstractmethod
from collections.abc import Iterable

from throughtime.serve.store import Elsewhere, Store

LEASE = 3.0  # seconds
COURTESY = 0.5  # seconds in which a process does not take what it has just released, since another asks for it
MARGIN = 0.9  # of a lease, after which a process trusts it no more: clocks do not go at quite the same rate


def now() -> float:
    """Seconds on a clock of this machine that all its processes share, that nobody sets, and that counts sleep where it can."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()


class Leased(Store):
    """A process has one lease for all that it holds, and renews it; who is silent for longer loses what others ask for.

    A lease keeps two processes from taking a session from each other at every request, and lets its holder read without asking.
    That nothing is written twice or lost stands on the fencing tokens alone, whatever the clocks say.

    Attributes: replica: the name of this process. lease: seconds.
    """

    def __init__(self, lease: float) -> None:
        self.replica, self.lease = secrets.token_hex(8), lease
        self._fences: dict[str, int] = {}  # the tokens of the sessions that are held
        self._until = 0.0  # nobody else takes one before
        self._asked_for: set[str] = set()
        self._released: dict[str, float] = {}  # until when each is left to others

    def own(self, id: str) -> bool:
        if self.owns(id):
            return False
        if now() >= self._until:
            self._renew()
        if now() < self._released.get(id, 0):
            raise Elsewhere(id)
        held = self._fences.get(id)
        fence = self._take(id, held)
        if fence is None:
            self._fences.pop(id, None)
            raise Elsewhere(id)
        if not fence:
            self._fences.pop(id, None)
            return True
        self._fences[id] = fence
        return fence != held

    def owns(self, id: str) -> bool:
        return id in self._fences and now() < self._until

    def release(self, id: str) -> None:
        fence = self._fences.pop(id, None)
        if fence is not None:
            self._release(id, fence)
            self._released[id] = now() + COURTESY

    def renew(self) -> set[str]:
        """Renew the lease; to be called three times in its length. Returns: sessions that are held here and others ask for."""
        self._renew()
        asked_for, self._asked_for = self._asked_for & self._fences.keys(), set()
        return asked_for

    def _renew(self) -> None:
        began = now()
        lapsed, asked_for = self._extend()
        self._asked_for |= asked_for
        self._released = {id: until for id, until in self._released.items() if until > began}
        if lapsed:  # others may have taken some meanwhile
            held = self._held(list(self._fences))
            for id in [id for id, fence in self._fences.items() if held.get(id) != fence]:
                self._fences.pop(id, None)
        self._until = began + self.lease * MARGIN

    def _lost(self, ids: Iterable[str]) -> None:
        """Sessions are no more held here."""
        for id in ids:
            self._fences.pop(id, None)

    @abstractmethod
    def _extend(self) -> tuple[bool, set[str]]:
        """Let the lease last from now on. Returns: whether it had ended; the sessions that others ask for."""

    @abstractmethod
    def _held(self, ids: list[str]) -> dict[str, int]:
        """The tokens of those of the sessions that this process holds."""

    @abstractmethod
    def _take(self, id: str, fence: int | None) -> int | None:
        """Hold a session, unless another process holds it and its lease lasts; that one is asked for it then. fence: the token of
        this process, if it has one. Returns: its token now; 0 where there is no such session; None where another holds it."""

    @abstractmethod
    def _release(self, id: str, fence: int) -> None:
        """Let others take a session, if the token is still its."""
