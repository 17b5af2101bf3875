"""What a user did that cannot work, said in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what was asked or given. The message is one line: the place, the value, and the fix.

    The command line prints it and exits with 2; `--debug` shows the traceback.
    """


def reason(error: OSError) -> str:
    """Why the system refused, in its words."""
    return error.strerror or str(error)


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The entry of `names` spelled most like `name`, or None where nothing is near."""
    names = [str(n) for n in names]
    found = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if found:
        return found[0]
    plain = {n.lower().replace("-", "_"): n for n in names}
    found = difflib.get_close_matches(name.lower().replace("-", "_"), plain, n=1, cutoff=0.5)
    return plain[found[0]] if found else None


def unknown(kind: str, name: str, names: Iterable[str]) -> str:
    """The sentence for an unknown `kind` called `name`: the nearest of `names`, or all of them."""
    names = sorted(str(n) for n in names)
    near = nearest(name, names)
    if near is not None:
        return f"unknown {kind} {name!r}; did you mean {near!r}?"
    return f"unknown {kind} {name!r}; there are: {', '.join(names) or 'none'}"
