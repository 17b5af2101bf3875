"""What `travel` can do, and how it is drawn: with a stream that is read word by word, and with an input that is read whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from throughtime.errors import UserError
from throughtime.tasks import futures
from throughtime.tasks.futures import Command, change, given

if TYPE_CHECKING:
    from throughtime.tasks.base import Trained
    from throughtime.tasks.timeline import Timeline

AROUND = 15  # words shown before and after the present


class Futures(futures.Futures, Protocol):
    """A world of commands, whose values `drawn` makes a picture."""

    def drawn(self, values: dict[str, Any]) -> Iterator[Any]:
        """The values of a command, as what rich can print."""


class StreamFutures(futures.StreamFutures, Futures):
    """A timeline, and another to compare it with, that can be saved.

    Args: file: where it was saved, and may be again; None: it was not.
    """

    def __init__(self, timeline: Timeline, file: Path | None = None) -> None:
        super().__init__(timeline)
        self.file = file

    def commands(self) -> dict[str, Command]:
        save = Command("FILE", "Write this session to a file; --session goes on with it.", self._save)
        return {**super().commands(), "save": save}

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
        position, word = change(rest)
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
