"""What a user did that cannot work, said in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

NEAR = 0.6  # likeness of a name that may have been meant


class UserError(Exception):
    """A mistake in what was asked or given. The message is one line: the place, the value, and the fix.

    The command line prints it and exits with 2; `--debug` shows the traceback.
    """


def reason(error: OSError) -> str:
    """Why the system refused, in its words."""
    return error.strerror or str(error)


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The entry of `names` spelled most like `name`, or None where nothing is near. Of a dotted name the last part may be
    meant; of two that are as near, the one with fewer parts is."""
    wanted = _forms(name)
    likeness = {n: max(_likeness(a, b) for a in wanted for b in _forms(n)) for n in map(str, names)}
    best = max(likeness, key=lambda n: (likeness[n], -n.count(".")), default=None)
    return best if best is not None and likeness[best] >= NEAR else None


def _forms(name: str) -> set[str]:
    """A name, and its last part, as they are compared: without capitals, and whichever dash stands in it."""
    plain = name.lower().replace("_", "-").strip("-")
    return {plain, plain.rpartition(".")[2]}


def _likeness(given: str, name: str) -> float:
    """From 0 to 1. The beginning of a name is near to it, however much is left to write."""
    if len(given) > 2 and name.startswith(given):
        return max(NEAR, len(given) / len(name))
    return difflib.SequenceMatcher(None, given, name).ratio()


def unknown(kind: str, name: str, names: Iterable[str]) -> str:
    """The sentence for an unknown `kind` called `name`: the nearest of `names`, or all of them."""
    names = sorted(str(n) for n in names)
    near = nearest(name, names)
    if near is not None:
        return f"unknown {kind} {name!r}; did you mean {near!r}?"
    return f"unknown {kind} {name!r}; there are: {', '.join(names) or 'none'}"
