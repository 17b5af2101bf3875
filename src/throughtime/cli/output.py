"""What the verbs share: the run they are given, standard input, and how values are written."""

from __future__ import annotations

import codecs
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from throughtime.config import STDIN
from throughtime.errors import UserError

Json = Annotated[bool, Parameter(help="Write JSON.", negative="")]


def whole(type_: Any, tokens: Any) -> int:
    """A whole number, where rounding 1.5 would be to guess."""
    return int(tokens[0].value)


def check_threads(threads: int) -> None:
    """Raises: UserError for a number of threads that cannot be had; 0 stands for PyTorch's own choice."""
    most = os.cpu_count() or 1
    if not 0 <= threads <= most:
        raise UserError(f"--threads: got {threads}; from 0 to {most}, as many as there are cores here")


Run = Annotated[Path, Parameter(help="A run folder.")]


def opened(run: Path) -> Any:
    """The trained model of a run folder."""
    from throughtime.runs import Run as RunFolder

    RunFolder.open(run)  # what is wrong with the folder is said before torch is imported
    from throughtime.tasks import load

    return load(run)


@contextmanager
def spooled(files: list[Path]) -> Iterator[list[Path]]:
    """The files, with standard input for `-` copied to one."""
    if not any(str(f) == STDIN for f in files):
        yield files
        return
    from throughtime.tasks.corpus import spool, stdin_bytes

    with tempfile.TemporaryDirectory(prefix="throughtime-") as folder:
        standard_input = spool(stdin_bytes(), Path(folder))
        yield [standard_input if str(f) == STDIN else f for f in files]


def lines_of(file: Path) -> Iterator[str]:
    """The lines of a file or of standard input, as they come. Raises: UserError where it cannot be read or is not UTF-8."""
    try:
        source = sys.stdin.buffer if str(file) == STDIN else file.open("rb")
    except OSError as error:
        raise UserError(f"{file}: cannot read it: {error.strerror}") from error
    with source:
        for number, line in enumerate(source, 1):
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            try:
                yield line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise UserError(f"{file}:{number}: byte {error.start} of the line is not UTF-8") from error


def write_values(values: dict[str, Any], as_json: bool) -> None:
    """A report: JSON on one line, or a name and a value a line."""
    if as_json:
        print(json.dumps(values, ensure_ascii=False))
        return
    for name, value in _flat(values):
        print(f"{name:28} {f'{value:.6g}' if isinstance(value, float) else value}")


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, ", ".join(map(str, value)) if isinstance(value, list) else value
