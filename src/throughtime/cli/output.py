"""What the verbs share: the run they are given, standard input, and how values are written."""

from __future__ import annotations

import inspect
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from throughtime.config import STDIN
from throughtime.errors import UserError
from throughtime.files import standard_input

Json = Annotated[bool, Parameter(help="Write JSON.", negative="")]


def whole(type_: Any, tokens: Any) -> int:
    """A whole number, where rounding 1.5 would be to guess."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"got {tokens[0].value!r}, not a whole number") from None


def check_threads(threads: int) -> None:
    """Raises: UserError for a number of threads that cannot be had; 0 stands for PyTorch's own choice."""
    most = os.cpu_count() or 1
    if not 0 <= threads <= most:
        raise UserError(f"--threads: got {threads}; from 0 to {most}, as many as there are cores here")


TextColumn = Annotated[
    str | None, Parameter(help="classify: the column of the text. [default: as in training, else by its name]")
]
LabelColumn = Annotated[
    str | None, Parameter(help="classify: the column of the label. [default: as in training, else by its name]")
]
Run = Annotated[Path, Parameter(help="A run folder.")]


def opened(run: Path) -> Any:
    """The trained model of a run folder."""
    from throughtime.runs import Run as RunFolder

    RunFolder.open(run)  # what is wrong with the folder is said before torch is imported
    from throughtime.tasks import load

    return load(run)


def asked(verb: Any, **options: Any) -> dict[str, Any]:
    """The options that were given, for a method of a model. Raises: UserError where the model's task takes no such option."""
    known, task = inspect.signature(verb).parameters, verb.__self__.config.task
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in known:
            raise UserError(f"--{name.replace('_', '-')}: a model of the task {task!r} has no such option")
    return given


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


def write_values(values: dict[str, Any], as_json: bool) -> None:
    """A report: JSON on one line, or a name and a value a line."""
    if as_json:
        print(json.dumps(values, ensure_ascii=False))
        return
    for name, value in _flat(values):
        shown = "undefined" if value is None else f"{value:.6g}" if isinstance(value, float) else value
        print(f"{name:28} {shown}")


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, ", ".join(map(str, value)) if isinstance(value, list) else value
