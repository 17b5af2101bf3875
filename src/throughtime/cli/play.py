"""play: a page in the browser, to play with a network."""

from __future__ import annotations

import sys
import tempfile
import threading
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from throughtime.cli.output import Download, opened, whole
from throughtime.play import EXAMPLE

OPENING = "ROMEO:\nBut soft, what light through yonder window breaks?\nIt is the east, and"


def play(
    run: Annotated[
        Path | None, Parameter(help="A run folder. [default: a small network of characters that comes along]")
    ] = None,
    /,
    *,
    port: Annotated[int, Parameter(help="0 takes any that is free.", converter=whole)] = 0,
    browser: Annotated[bool, Parameter(help="Open the page.", negative="--no-browser")] = True,
    store: Annotated[
        Path | None, Parameter(help="A folder that sessions are kept in. [default: one that goes when this ends]")
    ] = None,
    download: Download = False,
) -> None:
    """Open a page in the browser to play with a network: type and see what each step does with its memory, go back, change the
    past, and see both futures. The page is served from this machine to this machine, asks no other for anything, and also has
    all that `serve` has. Stop it with Ctrl-C."""
    from throughtime.serve.running import check_packages, listen
    from throughtime.serve.running import run as serve
    from throughtime.serve.settings import Settings

    check_packages("play")
    listening = listen("127.0.0.1", port)
    folder = EXAMPLE if run is None else run
    name = folder.resolve().name
    models = {name: opened(folder, download)}
    where = f"http://127.0.0.1:{listening.getsockname()[1]}"

    from throughtime.play.instead import instead
    from throughtime.play.paths import extended

    if told := instead(models[name], str(folder)):
        print(f"throughtime: {told}", file=sys.stderr, flush=True)

    def ready() -> None:
        print(f"throughtime: serving {name} ({models[name].task.name}) at {where}", file=sys.stderr, flush=True)
        if browser:
            threading.Thread(target=_open, args=(where,), daemon=True).start()

    with tempfile.TemporaryDirectory(prefix="throughtime-") as made:
        settings = Settings(store=Path(made) if store is None else store)
        opening = {name: OPENING} if run is None else {}
        serve(models, settings, listening, ready, lambda app: extended(app, opening))


def _open(where: str) -> None:
    import webbrowser

    if not webbrowser.open(where):
        print(f"throughtime: no browser was found; open {where} in one", file=sys.stderr, flush=True)
