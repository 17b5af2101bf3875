"""What `travel` can do with music: read, go back by bars, change notes, let the model go on, and compare two ways on."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from throughtime.cli.futures import Futures
from throughtime.errors import UserError
from throughtime.tasks.futures import Command, Pair, given, number

if TYPE_CHECKING:
    from throughtime.tasks.music_session import MusicSession

AROUND = 12  # moments shown before and after the present
BARS = 4  # that are written, where it is not said how many
LIKELIEST = 3  # moments that may come next


class MusicFutures(Pair["MusicSession"], Futures):
    """A piece, and another to compare it with: what it was before the first change, or at `branch`.

    Args: file: where it was saved, and may be again; None: it was not.
    """

    change = "set T NOTES changes a moment"
    here: MusicSession

    def __init__(self, model: Any, file: Path | None = None) -> None:
        from throughtime.travel import Session

        super().__init__(model.session() if file is None else Session.load(model, file))
        self.model, self.file = model, file
        self.seed = 0  # of what is written next

    def commands(self) -> dict[str, Command]:
        """By name, in the order of the help."""
        return {
            "read": Command("FILE|NOTES", "Read on, a file or notes (C4 E4, at once C4+E4); what lay ahead is dropped.", self.read),
            "write": Command("[N]", f"Let the model go on for N bars; {BARS}. Each time another way.", self._write),
            "back": Command("[N]", "Go N bars back; 1.", self._back),
            "go": Command("BAR", "Go to where a bar begins; the first is 1.", self._bar),
            "set": Command("T NOTES", "Make the keys of moment T others; the first keeps the original beside it.", self._set),
            **self.paired(),
            "futures": Command("[N]", f"Both futures: nats so far, what comes next, N bars; {BARS}.", self._futures),
            "diff": Command("", "Here against the original, moment by moment.", lambda _: self._diff()),
            "show": Command("", "The moments, numbered.", lambda _: self.shown()),
            "save": Command("FILE", "What was read as .mid, .wav, .png, .abc, .json; else the session, for --session.", self._save),
        }  # fmt: skip

    def read(self, text: str) -> dict[str, Any]:
        """Read a file, or notes."""
        self.here.feed(self.model.piece_of(given("read", "FILE or NOTES", text), "read"))
        return self.shown()

    def shown(self) -> dict[str, Any]:
        """The moments, where the present is among them, and what is likeliest to come."""
        begun = self.here.bars()
        return {
            "words": self.here.words,
            "present": self.here.time,
            "bar": begun[self.here.time],
            "bars": begun[-1],
            "original": None if self.other is None else self.other.words,
            "next": self.here.next(LIKELIEST),
        }

    def _write(self, rest: str) -> dict[str, Any]:
        self.here.write(number("write", rest, BARS), seed=self.seed)
        self.seed += 1
        return self.shown()

    def _back(self, rest: str) -> dict[str, Any]:
        self.here.rewind(bars=number("back", rest, 1))
        return self._along()

    def _bar(self, rest: str) -> dict[str, Any]:
        bar, begun = number("go", rest, None), self.here.bars()
        if not 1 <= bar <= begun[-1] + 1:
            raise UserError(f"go: there is no bar {bar}; they go from 1 to {begun[-1]}, and {begun[-1] + 1} is the end")
        self.here.rewind(bisect_right(begun, bar - 1) - 1)
        return self._along()

    def _along(self) -> dict[str, Any]:
        """With the original at the same place."""
        if self.other is not None:
            self.other.rewind(min(self.here.time, len(self.other)))
        return self.shown()

    def _set(self, rest: str) -> dict[str, Any]:
        at, _, notes = given("set", "T NOTES", rest).partition(" ")
        t = number("set", at, None)
        return self.changed(lambda line: line.edit(t, input=notes))

    def _futures(self, rest: str) -> dict[str, Any]:
        bars = number("futures", rest, BARS)
        found = {}
        for name, line in self.lines().items():
            ahead = line.branch()
            ahead.write(bars, seed=self.seed)
            found[name] = {
                "nats": sum(line.surprise(0, line.time)),
                "next": line.next(LIKELIEST),
                "writes": ahead.words[line.time :],
            }
        return {"futures": found}

    def _diff(self) -> dict[str, Any]:
        other = self.original()
        count = min(len(other), len(self.here))
        found = other.diff(self.here, [(t, t) for t in range(1, count + 1)])
        rows = zip(other.words, self.here.words, other.surprise(), self.here.surprise(), found.states, strict=False)
        return {"diff": [{"original": a, "here": b, "nats": [p, q], "states": s} for a, b, p, q, s in rows]}

    def _save(self, rest: str) -> dict[str, Any]:
        from throughtime.tasks import music_files

        path = Path(given("save", "FILE", rest))
        if path.suffix.lower() in music_files.WRITERS:
            music_files.places_for([str(path)], 1, overwrite=False, sets=self.model.frames, option="save")
            if not len(self.here.piece):
                raise UserError("save: no note is read yet; read FILE, or write N")
            music_files.write(self.here.piece, path)
        elif path.exists() and (self.file is None or not path.samefile(self.file)):
            raise UserError(f"{path}: is there already; name another file (that of --session is written over)")
        else:
            self.here.save(path, overwrite=True)
            self.file = path
        return {"saved": str(path)}

    def drawn(self, values: dict[str, Any]) -> Iterator[Any]:
        """The values of a command, as what rich can print."""
        from throughtime.cli import drawing

        if "words" in values:
            yield drawing.timeline([f"{word};" for word in values["words"]], values["present"], AROUND)
            yield f"bar {values['bar']} of {values['bars']}"
            yield drawing.expected(values["next"])
        elif "futures" in values:
            yield drawing.ways(values["futures"])
        elif "diff" in values:
            yield drawing.apart(values["diff"])
        else:
            yield from drawing.other(values)
