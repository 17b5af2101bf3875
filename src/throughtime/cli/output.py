"""What the verbs share: the run they are given, standard input, and how values are written."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from throughtime.config import STDIN
from throughtime.errors import UserError, reason
from throughtime.files import standard_input
from throughtime.laboratory.tables import as_text, shortened, table_width

COLUMNS = 12  # of a table, at most
MARGIN = 20  # characters that a value has beside its name, at least
WORST = 10  # pairs of labels
DATA, MODEL, TRAINING, OUTPUT = (
    Group(name, sort_key=place) for place, name in enumerate(("Data", "Model", "Training", "Output"))
)  # of options, in --help
Json = Annotated[bool, Parameter(help="Write JSON.", negative="", group=OUTPUT)]


def whole(type_: Any, tokens: Any) -> int:
    """A whole number, where rounding 1.5 would be to guess."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"got {tokens[0].value!r}, not a whole number") from None


def made_folder(folder: Path, option: str) -> Path:
    """The folder that an option asks for, made where it is missing. Raises: UserError where it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{option}: {folder}: cannot make the folder: {reason(error)}") from error
    return folder


def check_threads(threads: int) -> None:
    """Raises: UserError for a number of threads that cannot be had; 0 stands for PyTorch's own choice."""
    most = os.cpu_count() or 1
    if not 0 <= threads <= most:
        raise UserError(f"--threads: got {threads}; from 0 to {most}, as many as there are cores here")


Folder = Annotated[
    Path, Parameter(help="A run folder; with --download a repository of the Hugging Face hub, user/name.")
]
Download = Annotated[
    bool, Parameter(help="Get RUN from the Hugging Face hub, where there is no such folder.", negative="")
]


def opened(run: Path, download: bool = False) -> Any:
    """The trained model of a run folder, or of a repository of the hub."""
    from throughtime.hub import find_run
    from throughtime.runs import Run

    folder = find_run(run, download=download)
    Run.open(folder)  # what is wrong with the folder is said before torch is imported
    from throughtime.tasks import load

    return load(folder)


@contextmanager
def spooled(files: list[Path]) -> Iterator[list[Path]]:
    """The files, with standard input for `-` copied to one."""
    if not any(str(f) == STDIN for f in files):
        yield files
        return
    if sum(str(f) == STDIN for f in files) > 1:
        raise UserError(f"{STDIN} stands there twice; it can be read once")
    from throughtime.tasks.corpus import spool

    with tempfile.TemporaryDirectory(prefix="throughtime-") as folder:
        copied = spool(standard_input(), Path(folder))
        yield [copied if str(f) == STDIN else f for f in files]


def terminal_width() -> int | None:
    """The columns of the terminal that output goes to; None where it goes elsewhere: then nothing is to be shortened."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


class LiveLine:
    """Words on standard error that may change: on a terminal one line, which is written over; elsewhere a line each time."""

    def __init__(self) -> None:
        self._there = False  # whether something stands in the line

    def show(self, text: str) -> None:
        """Show a text, or of one that is too long for the line the end; "" takes away what stands there."""
        if sys.stderr.isatty():
            if text or self._there:
                width = shutil.get_terminal_size().columns - 1
                shown = text if len(text) <= width else "…" + text[1 - width :]
                print(f"\r\x1b[K{shown}", end="", file=sys.stderr, flush=True)
        elif text:
            print(text, file=sys.stderr, flush=True)
        self._there = bool(text)


def write_values(values: dict[str, Any], as_json: bool, undefined: str = "undefined") -> None:
    """A report: JSON on one line, or a name and a value a line, and tables of what has the same values for many things.

    Args: undefined: the word for None.
    """
    if as_json:
        print(json.dumps(values, ensure_ascii=False))
        return
    width = terminal_width()
    tables = {name: value for name, value in values.items() if _is_table(value)}
    lines = list(_flat({name: value for name, value in values.items() if name not in tables}))
    names = max((len(name) for name, _ in lines), default=0)
    for name, value in lines:
        shown = undefined if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
        if width is not None:
            shown = f"\n{' ' * (names + 2)}".join(textwrap.wrap(shown, max(width - names - 2, MARGIN)))
        print(f"{name:{names}}  {shown}".rstrip())
    for name, value in tables.items():
        if all(isinstance(v, str) for row in value.values() for v in row.values()):
            print(f"\n{name}" + "".join(f"\n\n{_below_each_other(label, row)}" for label, row in value.items()))
            continue
        rows = [
            {name: _plain(label)} | {_plain(k): _cell(v, undefined) for k, v in row.items()}
            for label, row in value.items()
        ]
        if len(rows[0]) > COLUMNS + 1 or (_is_square(value) and table_width(rows) > (width or table_width(rows))):
            print(f"\n{_confused(name, value, width)}")
        else:
            print(f"\n{as_text(rows, width)}")


def _below_each_other(label: str, texts: dict[str, str]) -> str:
    """Texts about one thing that are to be compared, each on a line."""
    beside = max(map(len, texts))
    return "\n".join([_plain(label), *(f"{name:{beside}}  {text}" for name, text in texts.items())])


def _is_table(value: Any) -> bool:
    """Whether it holds, for each of many things, values by the same names: a few, or those of the things themselves."""
    rows = list(value.values()) if isinstance(value, dict) else []
    if not rows or not all(isinstance(row, dict) and row.keys() == rows[0].keys() for row in rows):
        return False
    if any(isinstance(v, dict | list) for row in rows for v in row.values()):
        return False
    return 0 < len(rows[0]) <= COLUMNS or _is_square(value)


def _is_square(value: dict[str, dict[str, Any]]) -> bool:
    """Whether it counts, for each of many things, how often it was taken for each, and for what else."""
    return all(row.keys() >= value.keys() and all(type(v) is int for v in row.values()) for row in value.values())


def _confused(name: str, value: dict[str, dict[str, int]], width: int | None) -> str:
    """A matrix of counts that is too wide, as what was taken for what, oftenest first; on a terminal the first of these."""
    pairs = [(n, right, given) for right, row in value.items() for given, n in row.items() if n and right != given]
    pairs.sort(key=lambda pair: -pair[0])
    if not pairs:
        return f"{name}: nothing was taken for something else"
    first = pairs if width is None else pairs[:WORST]
    most = None if width is None else (width - len("times") - 4) // 2
    rows = [
        {name: _shortened(right, most), "taken for": _shortened(given, most), "times": str(n)}
        for n, right, given in first
    ]
    left = len(pairs) - len(first)
    return as_text(rows, width) + (f"\nand {left} other pairs; --json has them all" if left else "")


def _shortened(label: str, most: int | None) -> str:
    return _plain(label) if most is None else shortened(_plain(label), most)


def _cell(value: Any, undefined: str) -> str:
    return undefined if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _plain(label: str) -> str:
    """A label that cannot break a line or a column."""
    return label if label.isprintable() else repr(label)[1:-1]


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, ", ".join(map(str, value)) if isinstance(value, list) else value
