"""Where an export goes: a folder or a file that is whole, or not there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from throughtime.errors import UserError
from throughtime.files import cannot_write

MARK = "EXPORT.json"  # in a folder that an export has written: what it is made of


def check_free(path: Path, *, overwrite: bool) -> None:
    """Raises: UserError where something is in the way: a file, a folder that holds an export or anything else."""
    if path.is_dir():
        if (path / MARK).is_file():
            if not overwrite:
                raise UserError(
                    f"{path}: holds an export already; name another, or replace it by overwrite=True (--overwrite)"
                )
        elif any(path.iterdir()):
            raise UserError(f"{path}: is a folder that holds something else; name one that is new or empty")
    elif path.exists() and not overwrite:
        raise UserError(f"{path}: is there already; name another one, or replace it by overwrite=True (--overwrite)")


@contextmanager
def new_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write into, which takes the place of `path` once the block has ended well; of one that has not, nothing is left.

    Raises: UserError where something is in the way, or it cannot be written.
    """
    check_free(path, overwrite=overwrite)
    if path.is_file():
        raise UserError(f"{path}: is a file; name a folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield made
        made.chmod(0o755)
        if path.is_dir():
            old = made.with_suffix(".old")
            path.rename(old)
            made.rename(path)
            shutil.rmtree(old)
        else:
            made.rename(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
