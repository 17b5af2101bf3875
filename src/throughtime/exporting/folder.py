"""Where an export goes: a folder or a file that is whole, or not there."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from throughtime.errors import UserError
from throughtime.files import cannot_write

MARK = "EXPORT.json"  # in a folder that an export has written: what it is made of


def check_free(path: Path, *, overwrite: bool, file: bool = False) -> None:
    """Raises: UserError where something is in the way: a file, a folder that holds an export or anything else; a folder that holds
    more than an export wrote, which would be lost. file: what is to be written is one."""
    if path.is_dir():
        if file and (path / MARK).is_file():
            raise UserError(f"{path}: is a folder that holds an export; name a file")
        if (path / MARK).is_file():
            if not overwrite:
                raise UserError(
                    f"{path}: holds an export already; name another, or replace it by overwrite=True (--overwrite)"
                )
            if others := _others(path):
                raise UserError(
                    f"{path}: holds what no export wrote ({', '.join(others)}); move it elsewhere, or name another folder"
                )
        elif file or any(path.iterdir()):
            what = (
                "a folder; name a file" if file else "a folder that holds something else; name one that is new or empty"
            )
            raise UserError(f"{path}: is {what}")
    elif path.exists() and not file:
        raise UserError(f"{path}: is a file; name a folder")
    elif path.exists() and not overwrite:
        raise UserError(f"{path}: is there already; name another one, or replace it by overwrite=True (--overwrite)")


def _others(folder: Path) -> list[str]:
    """What lies in the folder of an export beside its files, without what Python leaves there."""
    try:
        own = set(json.loads((folder / MARK).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        own = {MARK}
    return sorted(p.name for p in folder.iterdir() if p.name not in own and p.name != "__pycache__")


@contextmanager
def new_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write into, which takes the place of `path` once the block has ended well; of one that has not, nothing is left.

    Its mark is given the names of all that was written. Raises: UserError where something is in the way, or it cannot be written.
    """
    check_free(path, overwrite=overwrite)
    place = path.resolve()  # what a link points at is replaced, not the link
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}."))
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield made
        _note_files(made)
        made.chmod(0o755)
        check_free(path, overwrite=overwrite)  # again, now that another one may have come there
        if not place.is_dir():
            made.rename(place)
        elif any(place.iterdir()):
            _replace(place, made)
        else:  # where somebody may be working
            for file in made.iterdir():
                file.rename(place / file.name)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _note_files(folder: Path) -> None:
    mark = folder / MARK
    values = json.loads(mark.read_text(encoding="utf-8")) | {"files": sorted(p.name for p in folder.iterdir())}
    mark.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _replace(path: Path, made: Path) -> None:
    """Put a folder in the place of another, which comes back where that fails."""
    old = made.with_name(f"{made.name}.old")
    path.rename(old)
    try:
        made.rename(path)
    except BaseException:
        old.rename(path)
        raise
    shutil.rmtree(old)
