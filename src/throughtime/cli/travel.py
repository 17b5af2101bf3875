"""travel: back and forth in time, from a terminal or a pipe of commands."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Iterator
from glob import escape as glob_escape
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from throughtime.cli.output import Download, Folder, Json, opened
from throughtime.config import STDIN
from throughtime.errors import UserError
from throughtime.files import typed

if TYPE_CHECKING:
    from throughtime.cli.futures import Futures

ENDS = ("quit", "exit", "q")


def travel(
    run: Folder,
    text: Annotated[
        str | None, Parameter(help="What is read first; forecast: a file; music: a file, or notes.")
    ] = None,
    /,
    *,
    session: Annotated[Path | None, Parameter(help="text, music: go on with a session that was saved.")] = None,
    tokens: Annotated[
        bool, Parameter(help="text: count in the model's own tokens, not in words.", negative="")
    ] = False,
    download: Download = False,
    json: Json = False,
) -> None:
    """Go back and forth in what a network has read, change a word (a value, a note), and see both futures side by side. Takes
    commands from standard input, a line each; `help` lists them. With --json an object a command."""
    if text == STDIN:
        raise UserError(
            "standard input is where the commands come from; give the text itself, or the command read TEXT"
        )
    if session is not None and not session.is_file():
        raise UserError(f"--session: {session}: no such file")
    model = opened(run, download)
    for name, value, tasks in (("session", session, ("text", "music")), ("tokens", tokens, ("text",))):
        if value and model.config.task not in tasks:
            raise UserError(f"--{name}: a model of the task {model.config.task!r} has no such option")
    here = _futures(model, session, tokens)
    if text is not None:
        here.read(text)
    if text is not None or session is not None:
        _show(here, here.shown(), json)
    for place, line in _commands([*here.commands(), "help", "quit"]):
        name = line.strip("\r\n").lstrip().partition(" ")[0]
        if name in ENDS:
            return
        if name:
            _answer(here, name, line, json, place)


def _futures(model: Any, session: Path | None, tokens: bool) -> Futures:
    """Where commands act: a stream that is read word by word, or an input that is read whole."""
    from throughtime.cli.futures import StreamFutures, WholeFutures

    if model.travels == "series":
        from throughtime.cli.series import SeriesFutures

        return SeriesFutures(model)
    if model.travels == "music":
        from throughtime.cli.music import MusicFutures

        return MusicFutures(model, session)
    if model.config.task != "text":
        return WholeFutures(model)
    from throughtime.tasks.timeline import Timeline
    from throughtime.travel import Session

    stream = model.session() if session is None else Session.load(model, session)
    return StreamFutures(Timeline(stream, "tokens" if tokens else "words"), session)


def _answer(here: Futures, name: str, line: str, json: bool, place: str) -> None:
    """Do a command and show what it gives. Whoever types may be wrong, or interrupt it, and go on.

    Raises: UserError, KeyboardInterrupt where commands come from a pipe: what follows may rest on it.
    """
    from throughtime.tasks.futures import obeyed

    try:
        values = obeyed(here, line)
        _show(here, {"help": {**values["help"], "quit": "End."}} if name == "help" else values, json)
    except UserError as error:
        if not typed():
            raise UserError(f"{place}: {error}") from error
        print(f"throughtime: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        if not typed():
            raise
        print(f"throughtime: {name}: interrupted; all is as it was before it", file=sys.stderr)


def _show(here: Futures, values: dict[str, Any], json: bool) -> None:
    if json:
        print(json_module.dumps(values, ensure_ascii=False), flush=True)
        return
    from rich.console import Console

    wide = None if sys.stdout.isatty() else 1000  # a pipe has no width: nothing is to be cut
    console = Console(file=sys.stdout, highlight=False, markup=False, width=wide)
    for part in here.drawn(values):
        console.print(part)
    sys.stdout.flush()


def _commands(names: list[str]) -> Iterator[tuple[str, str]]:
    """The lines that are typed or come through a pipe, and where each stands. Whoever types has these names by Tab."""
    if not typed():
        from throughtime.tasks.source import Source

        yield from ((f"{STDIN}:{number}", line) for number, line in enumerate(Source.of(Path(STDIN)), 1))
        return
    _complete(names)
    print("help lists what can be done; Tab completes", file=sys.stderr)
    while True:
        try:
            yield STDIN, input("> ")
        except EOFError:
            print(file=sys.stderr)
            return
        except KeyboardInterrupt:  # the line is given up, not the session
            print(file=sys.stderr)


def _complete(names: list[str]) -> None:
    """Lines can be edited, found again, and completed by Tab: the command, and after `save` the file."""
    try:
        import readline
    except ImportError:
        return

    def completed(beginning: str, number: int) -> str | None:
        first = not readline.get_line_buffer()[: readline.get_begidx()].strip()
        if first:
            found = [f"{name} " for name in names if name.startswith(beginning)]
        elif readline.get_line_buffer().lstrip().startswith("save "):
            found = [f"{path}/" if Path(path).is_dir() else path for path in sorted(glob(glob_escape(beginning) + "*"))]
        else:
            found = []
        return found[number] if number < len(found) else None

    readline.set_completer(completed)
    readline.set_completer_delims(" ")
    old = "libedit" in (readline.__doc__ or "")  # which has another language for it
    readline.parse_and_bind("bind ^I rl_complete" if old else "tab: complete")
