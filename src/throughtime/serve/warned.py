"""What tasks warn of while a request is answered: told to whoever asked, and printed where the server runs, but never raised.

A task warns of what it guesses or leaves out. `warnings` belongs to the whole process, in which many requests are answered at the
same time, and with `python -W error` would make a fault of such words; so each request has a list of its own, which its tasks and
the threads that they call see as well.
"""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

HEADER = 4096  # bytes of a header, which clients take for sure
PRINTED = 1000  # words that are remembered, so that what is warned of again and again is printed once


@dataclass(frozen=True)
class _Heard:
    """What a request was warned of. words: in order. names: what stands in them for what. printed: whether they are printed."""

    words: dict[str, None]
    names: dict[str, str]
    printed: bool

    def hear(self, words: str) -> str:
        for name, other in self.names.items():
            words = words.replace(name, other)
        self.words[words] = None
        return words


_HEARD: ContextVar[_Heard | None] = ContextVar("heard", default=None)
_LOCK = threading.Lock()
_PRINTED: dict[str, None] = {}


@contextmanager
def heard(*, printed: bool = True) -> Iterator[dict[str, None]]:
    """Within it, in this task and what it calls by `asyncio.to_thread`, what is warned of goes into a list of its own: it is given,
    and grows. printed: whether it is printed too."""
    words: dict[str, None] = {}
    with _within(_Heard(words, {}, printed)):
        yield words


@contextmanager
def renamed(names: dict[str, str]) -> Iterator[None]:
    """Within it what is warned of speaks of other names. names: of each text that may stand in it, what is told in its place."""
    outer = _HEARD.get()
    if outer is None:
        outer = _Heard({}, {}, printed=True)
    with _within(_Heard(outer.words, {**names, **outer.names}, outer.printed)):
        yield


def told() -> dict[str, list[str]]:
    """What this request was warned of, as a part of its answer; nothing where it was not."""
    found = _HEARD.get()
    return {"warnings": [*found.words]} if found is not None and found.words else {}


def in_header() -> bytes:
    """The same as JSON on one line, in ASCII, as much of it as a header should have; empty where there was nothing."""
    words, size = told().get("warnings", []), 0
    for place, one in enumerate(words):
        size += len(json.dumps(one)) + 2
        if size > HEADER and place:
            words = [*words[:place], f"and {len(words) - place:,} more, which the server printed"]
            break
    return json.dumps(words).encode() if words else b""


@contextmanager
def _within(found: _Heard) -> Iterator[None]:
    _listen()
    token = _HEARD.set(found)
    try:
        yield
    finally:
        _HEARD.reset(token)


def _listen() -> None:
    """See to it that warnings come here, whatever filters and hooks were set meanwhile."""
    with _LOCK:
        if not isinstance(warnings.showwarning, _Show):
            warnings.showwarning = _Show(warnings.showwarning)
        if warnings.filters[:1] != [_ALWAYS]:
            warnings.simplefilter("always", UserWarning)


_ALWAYS = ("always", None, UserWarning, None, 0)


class _Show:
    """In the place of `warnings.showwarning`. before: what stood there."""

    def __init__(self, before: Any) -> None:
        self._before = before

    def __call__(self, message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        found = _HEARD.get()
        if found is not None and category is UserWarning:
            message = found.hear(str(message))
            if not found.printed or not _first(message):
                return
        self._before(message, category, *where, **more)


def _first(words: str) -> bool:
    """Whether they have not been printed lately."""
    with _LOCK:
        if words in _PRINTED:
            return False
        _PRINTED[words] = None
        if len(_PRINTED) > PRINTED:
            del _PRINTED[next(iter(_PRINTED))]
    return True
