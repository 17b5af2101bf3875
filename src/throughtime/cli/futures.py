"""What `travel` can do: with a stream that is read word by word, and with an input that is read whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from throughtime.errors import UserError

if TYPE_CHECKING:
    from throughtime.tasks.base import Trained
    from throughtime.tasks.timeline import Timeline

AROUND = 15  # words shown before and after the present
DIGITS = 12  # of a number that is typed
LENGTH = 20  # tokens that a future is written on for


class Command(NamedTuple):
    """takes: its arguments, for the help. run: does it, given what stands after its name."""

    takes: str
    help: str
    run: Callable[[str], dict[str, Any]]


class Futures(Protocol):
    """A world of commands. Each gives plain values, and `drawn` makes them a picture."""

    def commands(self) -> dict[str, Command]:
        """By name, in the order of the help."""

    def read(self, text: str) -> dict[str, Any]:
        """Read a text. Returns: what is shown then."""

    def shown(self) -> dict[str, Any]:
        """The words, and where the present is among them."""

    def drawn(self, values: dict[str, Any]) -> Iterator[Any]:
        """The values of a command, as what rich can print."""


class StreamFutures(Futures):
    """A timeline, and another to compare it with: what it was before the first change, or at `branch`.

    Args: file: where it was saved, and may be again; None: it was not.
    """

    def __init__(self, timeline: Timeline, file: Path | None = None) -> None:
        self.here, self.file = timeline, file
        self.other: Timeline | None = None

    def commands(self) -> dict[str, Command]:
        return {
            "read": Command("TEXT", "Read on; what lay ahead is dropped.", self.read),
            "back": Command("[N]", "Go N words back; 1.", lambda rest: self._by(-number("back", rest, 1))),
            "forward": Command("[N]", "Go N words forward; 1.", lambda rest: self._by(number("forward", rest, 1))),
            "go": Command("T", "Go to where T words have been read.", lambda rest: self._go(number("go", rest, None))),
            "set": Command("T WORD", "Make word T another; the first change keeps the original beside it.", self._set),
            "branch": Command("", "Keep this as the original, to compare with from now on.", lambda _: self._branch()),
            "swap": Command("", "Change places with the original.", lambda _: self._swap()),
            "futures": Command("[N]", f"Both futures: what each expects next and would write, N tokens; {LENGTH}.", self._futures),
            "diff": Command("", "Here against the original, word by word: how far they part.", lambda _: self._diff()),
            "state": Command("", "The state of each layer, and how far it is from the original's.", lambda _: self._state()),
            "show": Command("", "The timeline.", lambda _: self.shown()),
            "save": Command("FILE", "Write this session to a file; --session goes on with it.", self._save),
        }  # fmt: skip

    def read(self, text: str) -> dict[str, Any]:
        self.here.feed(text)
        return self.shown()

    def shown(self) -> dict[str, Any]:
        return {
            "words": self.here.words,
            "present": self.here.present,
            "original": None if self.other is None else self.other.words,
            "next": self.here.session.next(),
        }

    def _by(self, steps: int) -> dict[str, Any]:
        return self._go(self.here.present + steps)

    def _go(self, position: int) -> dict[str, Any]:
        self.here.go(position)
        if self.other is not None:
            self.other.go(min(position, len(self.other.units)))
        return self.shown()

    def _set(self, rest: str) -> dict[str, Any]:
        position, word = _change(rest)
        before = self.here.branch()
        self.here.set(position, word)
        self.other = self.other or before
        return self.shown()

    def _branch(self) -> dict[str, Any]:
        self.other = self.here.branch()
        return self.shown()

    def _swap(self) -> dict[str, Any]:
        self.here, self.other = self._original(), self.here
        return self.shown()

    def _original(self) -> Timeline:
        if self.other is None:
            raise UserError(
                "there is no other future yet: set T WORD changes a word, branch keeps this to compare with"
            )
        return self.other

    def _futures(self, rest: str) -> dict[str, Any]:
        length = number("futures", rest, LENGTH)
        lines = [self.here] if self.other is None else [self.other, self.here]
        found = [
            {
                "read": _text(line.units[: line.present]),
                "next": line.session.next(),
                "writes": line.session.write(length),
            }
            for line in lines
        ]
        return {"futures": dict(zip(("original", "here")[-len(found) :], found, strict=True))}

    def _diff(self) -> dict[str, Any]:
        other = self._original()
        found = other.diff(self.here)
        rows = zip(other.words, self.here.words, other.log_probabilities(), self.here.log_probabilities(), strict=False)
        return {
            "against": _text(other.units),
            "diff": [
                {
                    "original": a, "here": b, "log_probability": [p, q], "states": states,
                    "divergence": divergence, "likeliest_changed": changed,
                }
                for (a, b, p, q), states, divergence, changed in zip(
                    rows, found.states, found.divergence or [], found.likeliest or [], strict=False
                )
            ]
        }  # fmt: skip

    def _state(self) -> dict[str, Any]:
        from throughtime.travel.difference import distance, joined

        layers = [joined(s) for s in self.here.session.state]
        values: list[dict[str, Any]] = [
            {"numbers": s.numel(), "norm": float(s.norm()), "largest": float(s.abs().max())} for s in layers
        ]
        if self.other is not None:
            for value, mine, theirs in zip(values, layers, self.other.session.state, strict=True):
                value["distance"] = distance(joined(theirs), mine)
        return {"state": values}

    def _save(self, rest: str) -> dict[str, Any]:
        path = Path(given("save", "FILE", rest))
        if path.exists() and (self.file is None or not path.samefile(self.file)):
            raise UserError(f"{path}: is there already; name another file (that of --session is written over)")
        self.here.session.save(path, overwrite=True)
        self.file = path
        return {"saved": str(path)}

    def drawn(self, values: dict[str, Any]) -> Iterator[Any]:
        from throughtime.cli import drawing

        if "words" in values:
            yield drawing.timeline(values["words"], values["present"], AROUND)
            yield drawing.expected(values["next"])
        elif "futures" in values:
            yield drawing.futures(values["futures"])
        elif "diff" in values:
            yield drawing.differences(values["diff"], values["against"])
        elif "state" in values:
            yield drawing.states(values["state"])
        else:
            yield from drawing.other(values)


class WholeFutures(Futures):
    """An input that is read whole, and what would be made of it with other words."""

    def __init__(self, model: Trained[Any]) -> None:
        self.model, self.text, self.changes = model, "", dict[int, str]()

    def commands(self) -> dict[str, Command]:
        return {
            "read": Command("TEXT", "The input, in the place of the one before.", self.read),
            "set": Command("T WORD", "Make word T another.", self._set),
            "futures": Command("", "What the network makes of both.", lambda _: self._futures()),
            "show": Command("", "The words.", lambda _: self.shown()),
        }

    def read(self, text: str) -> dict[str, Any]:
        self.text, self.changes = given("read", "TEXT", text), {}
        return self.shown()

    def shown(self) -> dict[str, Any]:
        from throughtime.tasks.what_if import spans

        words = [self.text[low:high] for low, high in spans(self.text, self.model.words)]
        return {"words": [self.changes.get(i, word) for i, word in enumerate(words)], "original": words}

    def _set(self, rest: str) -> dict[str, Any]:
        position, word = _change(rest)
        changes = {**self.changes, position: word}
        found = self.model.what_if(self.text, changes)
        self.changes = changes
        return {"before": found.before, "after": found.after}

    def _futures(self) -> dict[str, Any]:
        if not self.changes:
            raise UserError("there is no other future yet: set T WORD changes a word")
        found = self.model.what_if(self.text, self.changes)
        return {"before": found.before, "after": found.after}

    def drawn(self, values: dict[str, Any]) -> Iterator[Any]:
        from throughtime.cli import drawing

        if "before" in values:
            yield drawing.answers(values["before"], values["after"])
        elif "words" in values:
            yield drawing.timeline(values["words"], len(values["words"]), len(values["words"]))
        else:
            yield from drawing.other(values)


def _text(units: list[str]) -> str:
    return "".join(units)


def given(name: str, what: str, rest: str) -> str:
    """What stands after the command called `name`. Raises: UserError where `what` it takes is missing."""
    if not rest.strip():
        raise UserError(f"{name}: {what} is missing")
    return rest.strip()


def number(name: str, rest: str, default: int | None) -> int:
    """The whole number that a command was given, or its default. Raises: UserError where it is none."""
    rest = rest.strip()
    if not rest and default is not None:
        return default
    if not rest.isdecimal():
        raise UserError(f"{name}: takes a number from 0 on, got {rest!r}" if rest else f"{name}: the number is missing")
    if len(rest) > DIGITS:
        raise UserError(f"{name}: the number has {len(rest)} digits; there are not so many words")
    return int(rest)


def _change(rest: str) -> tuple[int, str]:
    """T and WORD of `set`; WORD may stand in double quotes, with spaces, and \\n for the end of a line."""
    position, _, word = rest.strip().partition(" ")
    if not word:
        raise UserError(f"set: takes a position and a word, got {rest.strip()!r}")
    if word.startswith('"') and word.endswith('"') and len(word) > 2:
        try:
            word = json.loads(word)
        except ValueError as error:
            raise UserError(f"set: {word} is not a word in quotes: {error}") from error
    return number("set", position, None), word
