"""A process that serves, and another that takes its place should it die: within a second, since what serves is loaded already.

The parent imports PyTorch and loads the models once, in one thread, and listens; it answers nobody. Each child that it forks
begins with all of that in its memory, and is the only one that has the store open. What is asked while there is none waits in the
socket's queue for the next.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

from throughtime.errors import UserError

SOON = 1.0  # seconds after its start; a child that dies within them dies at once
MOST = 5  # children that may die at once, one after the other
MISTAKEN = 2  # the exit code of what another start would not mend
SIGNALS = (signal.SIGTERM, signal.SIGINT)


def can_fork() -> bool:
    """Whether a process that has loaded PyTorch can be forked here: what it stands on in macOS does not bear it."""
    return sys.platform == "linux"


def keep_serving(serve: Callable[[], None]) -> int:
    """Let a child of this process serve, and another when it dies by a signal or a fault. SIGTERM and SIGINT stop both.

    Args: serve: serves until SIGTERM; called in the child, which stops as well should this process die.
    Returns: the exit code: that of the child, which has said why. In the child this returns too: 0.
    Raises: UserError where one child after the other dies at once; in the child, what `serve` raises.
    """
    parent, died = _Parent(), 0
    gc.collect()
    gc.freeze()  # a collection writes to all that it looks through, and memory is shared while nobody writes to it
    while not parent.stopped:
        began = time.monotonic()
        if not parent.fork():
            serve()
            return 0
        child, code = parent.wait()
        if code in (0, MISTAKEN):
            return code
        if parent.stopped and code == -signal.SIGTERM:
            return 0  # it was still making ready, and has no handler before it serves
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        died = died + 1 if time.monotonic() - began < SOON else 0
        if died == MOST:
            raise UserError(f"the process that serves {how}, as did {MOST} in a row within a second of their start")
        end = parent.stopped
        after = "that is the end" if end else "another goes on"
        print(f"throughtime: process {child}, which served, {how}; {after}", file=sys.stderr, flush=True)
        if end:
            return 1
    return 0


class _Parent:
    """Of one child at a time. child: its number, 0 where there is none. stopped: whether a signal has come."""

    def __init__(self) -> None:
        self.child, self.stopped = 0, False
        self._before = [signal.signal(number, self._stop) for number in SIGNALS]
        self._end, self._held = os.pipe()  # nobody writes to it: its end is the end of this process

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True
        if self.child:
            os.kill(self.child, signal.SIGTERM)

    def fork(self) -> bool:
        """A child. Returns: False in the child."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # or one could come while nobody knows whose child this is
        self.child = os.fork()
        if not self.child:
            for number, before in zip(SIGNALS, self._before, strict=True):
                signal.signal(number, before)
            os.close(self._held)
            threading.Thread(target=_end_with_parent, args=(self._end,), daemon=True).start()
        elif self.stopped:  # while there was no child to be told
            os.kill(self.child, signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return self.child > 0

    def wait(self) -> tuple[int, int]:
        """The end of the child. Returns: its number, and its exit code; of a signal, the negative."""
        child, status = os.waitpid(self.child, 0)
        self.child = 0
        return child, os.waitstatus_to_exitcode(status)


def _end_with_parent(end: int) -> None:
    os.read(end, 1)
    os.kill(os.getpid(), signal.SIGTERM)
