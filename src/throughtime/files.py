"""Files that are whole or not there, that tell when they were changed, and folders that one process at a time writes into."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import stat
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from throughtime.config import STDIN
from throughtime.errors import UserError, reason

SUM = "sha256"  # the key under which a JSON file holds the sum of the rest of it
LOCK = ".lock"  # in a folder that a process writes into


def cannot_write(path: Path, error: OSError) -> UserError:
    """What to raise where a file cannot be written: a full disk, a folder that is not there, no right to."""
    return UserError(f"{path}: cannot write it: {reason(error)}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` in one step once the block has ended well.

    A process that dies at any moment leaves either the old file or the new one, whole; beside it perhaps a file that
    `is_temporary`. Raises: UserError where it cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as error:
        raise cannot_write(path, error) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if error.filename in (None, name):
            raise cannot_write(path, error) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def is_temporary(path: Path, names: tuple[str, ...]) -> bool:
    """Whether `path` is what a process that was killed left of writing one of the files called `names`."""
    return path.suffix == ".tmp" and any(path.name.startswith(f".{name}.") for name in names)


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_free(path: Path, *, overwrite: bool) -> None:
    """Raises: UserError where there is a file and `overwrite` is not asked for."""
    if path.exists() and not overwrite:
        raise UserError(f"{path}: is there already; name another file, or replace it by overwrite=True")


def write_bytes(path: Path, data: bytes, *, overwrite: bool = False) -> None:
    """Write a file in one step. Raises: UserError where there is one and `overwrite` is not asked for, or it cannot be written."""
    check_free(path, overwrite=overwrite)
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def files_below(folder: Path) -> list[Path]:
    """All files in a folder and those below it, in order, but for hidden ones."""
    found = []
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(where, name) for name in names if not name.startswith(".")]
    return sorted(found)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON object in one step, with the sum of what it holds."""
    values = json.loads(json.dumps(values))  # as they will be read
    write_text(path, json.dumps({**values, SUM: _sum_of(values)}, ensure_ascii=False, indent=2) + "\n")


def read_json(path: Path, summed: str | None = None) -> Any:
    """What a JSON file holds, its sum looked at and left out where it has one. summed: a name beside which there is one.

    Raises: UserError where it is missing, no file, not JSON, or not what was written.
    """
    if not path.is_file():  # to open a pipe would be to wait for whoever writes into it
        raise UserError(f"{path}: the run is damaged: the file is missing" + (" (it is none)" if path.exists() else ""))
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        has_sum = isinstance(values, dict) and SUM in values
        if has_sum and values.pop(SUM) != _sum_of(values):
            raise UserError(f"{path}: the run is damaged: it is not what the training wrote")
        if isinstance(values, dict) and not has_sum and summed in values:
            raise UserError(f"{path}: the run is damaged: it has lost its sum")
    except OSError as error:
        raise UserError(f"{path}: cannot read it: {reason(error)}") from error
    except RecursionError as error:
        raise UserError(f"{path}: the run is damaged: nested too deep") from error
    except ValueError as error:
        raise UserError(f"{path}: the run is damaged: {error}") from error
    return values


def size_and_sum(path: Path) -> list[Any]:
    """How many bytes a file has, and their SHA-256. Raises: UserError where it is missing, or no file."""
    return [_size(path), _sum(path)]


def is_as(path: Path, known: Any) -> bool:
    """Whether a file is the one of which `size_and_sum` is known. Raises: UserError where it is missing, or no file."""
    return isinstance(known, list) and [_size(path)] == known[:1] and [_sum(path)] == known[1:]


def _size(path: Path) -> int:
    if not path.is_file():
        raise UserError(f"{path}: the run is damaged: the file is missing" + (" (it is none)" if path.exists() else ""))
    return path.stat().st_size


def _sum(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot read it: {reason(error)}") from error


def _sum_of(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


# -- standard input


def standard_input() -> BinaryIO:
    """Standard input, as bytes. Raises: UserError where there is none."""
    if sys.stdin is None:
        raise UserError(f"{STDIN}: is closed, there is nothing to read; name a file")
    return sys.stdin.buffer


def typed() -> bool:
    """Whether somebody types what standard input gives."""
    return sys.stdin is not None and sys.stdin.isatty()


# -- one process at a time


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder, made where it is missing, against every other process until the block ends, or this process does.

    Raises: UserError that says who holds it, or why it cannot be held.
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _hold(folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot make the run folder: {reason(error)}") from error
    try:
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)
        os.close(handle)
        if made:
            with suppress(OSError):
                folder.rmdir()  # where nothing has come into it


def _hold(folder: Path) -> int:
    path = folder / LOCK
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NONBLOCK", 0), 0o644)
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                raise UserError(f"{path}: is no file; take it away")
            _lock(handle, folder)
            if _is(found, path):
                os.truncate(handle, 0)
                who = {
                    "process": os.getpid(),
                    "host": socket.gethostname(),
                    "since": time.strftime("%Y-%m-%d %H:%M:%S"),
                }
                os.write(handle, json.dumps(who).encode())
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # whoever had it has just taken it away


def _is(found: os.stat_result, path: Path) -> bool:
    try:
        return os.path.samestat(found, path.stat())
    except FileNotFoundError:
        return False


def _lock(handle: int, folder: Path) -> None:
    """The system releases such a lock when the process ends, however it does."""
    try:
        import fcntl
    except ImportError:
        warnings.warn("this system has no locks: see to it that one process alone trains in a folder", stacklevel=2)
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        try:
            who = json.loads(os.read(handle, 1000))
            words = f"process {who['process']} on {who['host']} has been at work in it since {who['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            words = "another process is at work in it"
        raise UserError(f"{folder}: {words}; wait for its end, or name another folder") from error
    except OSError as error:
        warnings.warn(
            f"{folder}: cannot be locked ({reason(error)}): see to it that one process alone trains in it", stacklevel=2
        )
