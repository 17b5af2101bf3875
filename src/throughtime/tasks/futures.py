"""What can be done with a stream that can go back in time, as commands: a line each."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Protocol, Self, TypeVar

from throughtime.errors import UserError, unknown

if TYPE_CHECKING:
    from throughtime.tasks.timeline import Timeline

DIGITS = 12  # of a number that is typed
LENGTH = 20  # tokens that a future is written on for


class Command(NamedTuple):
    """takes: its arguments, for the help. run: does it, given what stands after its name."""

    takes: str
    help: str
    run: Callable[[str], dict[str, Any]]


class Futures(Protocol):
    """A world of commands. Each gives plain values."""

    def commands(self) -> dict[str, Command]:
        """By name, in the order of the help."""

    def read(self, text: str) -> dict[str, Any]:
        """Read a text. Returns: what is shown then."""

    def shown(self) -> dict[str, Any]:
        """The words, and where the present is among them."""


def obeyed(here: Futures, line: str) -> dict[str, Any]:
    """What a command gives; `help` gives what there is. Raises: UserError where there is no such command, or it cannot be done."""
    name, _, rest = line.strip("\r\n").lstrip().partition(" ")
    commands = here.commands()
    if name == "help":
        return {"help": {f"{n} {c.takes}".strip(): c.help for n, c in commands.items()}}
    if name not in commands:
        raise UserError(unknown("command", name, [*commands, "help"]))
    command = commands[name]
    if not command.takes and rest.strip():
        raise UserError(f"{name}: takes nothing, got {rest.strip()!r}")
    return command.run(rest)


class Line(Protocol):
    """What can be gone back in, and changed."""

    def branch(self) -> Self:
        """An independent copy."""


Kind = TypeVar("Kind", bound=Line)


class Pair(Futures, Generic[Kind]):
    """A line of time, and another to compare it with: what it was before the first change, or at `branch`.

    Attributes: change: the command that changes something, and what.
    """

    change: ClassVar[str]

    def __init__(self, here: Kind, other: Kind | None = None) -> None:
        self.here, self.other = here, other

    def paired(self) -> dict[str, Command]:
        """The commands that make a pair of lines, and exchange them."""
        return {
            "branch": Command("", "Keep this as the original, to compare with from now on.", lambda _: self._branch()),
            "swap": Command("", "Change places with the original.", lambda _: self._swap()),
        }

    def changed(self, change: Callable[[Kind], None]) -> dict[str, Any]:
        """Change this line; the first change keeps the original beside it. Returns: what is shown then."""
        before = self.here.branch()
        change(self.here)
        self.other = self.other or before
        return self.shown()

    def lines(self) -> dict[str, Kind]:
        """Both lines by name, or this one."""
        return {"here": self.here} if self.other is None else {"original": self.other, "here": self.here}

    def original(self) -> Kind:
        """The other line. Raises: UserError where there is none."""
        if self.other is None:
            raise UserError(f"there is no other future yet: {self.change}, branch keeps this to compare with")
        return self.other

    def _branch(self) -> dict[str, Any]:
        self.other = self.here.branch()
        return self.shown()

    def _swap(self) -> dict[str, Any]:
        self.here, self.other = self.original(), self.here
        return self.shown()


class StreamFutures(Pair["Timeline"]):
    """A timeline, and another to compare it with: what it was before the first change, or at `branch`."""

    change = "set T WORD changes a word"
    here: Timeline

    def commands(self) -> dict[str, Command]:
        return {
            "read": Command("TEXT", "Read on; what lay ahead is dropped.", self.read),
            "write": Command("[N]", f"Write on what is likeliest, and read it: N tokens; {LENGTH}.", self._write),
            "back": Command("[N]", "Go N words back; 1.", lambda rest: self._by(-number("back", rest, 1))),
            "forward": Command("[N]", "Go N words forward; 1.", lambda rest: self._by(number("forward", rest, 1))),
            "go": Command("T", "Go to where T words have been read.", lambda rest: self._go(number("go", rest, None))),
            "set": Command("T WORD", "Make word T another; the first change keeps the original beside it.", self._set),
            **self.paired(),
            "futures": Command("[N]", f"Both futures: what each expects next and would write, N tokens; {LENGTH}.", self._futures),
            "diff": Command("", "Here against the original, word by word: how far they part.", lambda _: self._diff()),
            "state": Command("", "The state of each layer, and how far it is from the original's.", lambda _: self._state()),
            "show": Command("", "The timeline.", lambda _: self.shown()),
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

    def _write(self, rest: str) -> dict[str, Any]:
        self.here.write(number("write", rest, LENGTH))
        return self.shown()

    def _by(self, steps: int) -> dict[str, Any]:
        return self._go(self.here.present + steps)

    def _go(self, position: int) -> dict[str, Any]:
        self.here.go(position)
        if self.other is not None:
            self.other.go(min(position, len(self.other.units)))
        return self.shown()

    def _set(self, rest: str) -> dict[str, Any]:
        position, word = change(rest)
        return self.changed(lambda line: line.set(position, word))

    def _futures(self, rest: str) -> dict[str, Any]:
        length = number("futures", rest, LENGTH)
        return {
            "futures": {
                name: {
                    "read": _text(line.units[: line.present]),
                    "next": line.session.next(),
                    "writes": line.session.write(length),
                }
                for name, line in self.lines().items()
            }
        }

    def _diff(self) -> dict[str, Any]:
        other = self.original()
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


def change(rest: str) -> tuple[int, str]:
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
