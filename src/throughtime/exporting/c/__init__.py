"""As C: a header and an object that needs nothing around it, or source that one can read, checked before it is kept.

For an audio thread: a step or a block of steps at a time; no memory is taken, nothing is waited for, nothing but the arguments is
changed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from throughtime.errors import UserError
from throughtime.exporting.c import readme
from throughtime.exporting.c.checking import Export
from throughtime.exporting.c.objects import write_object
from throughtime.exporting.c.sources import write_source
from throughtime.exporting.folder import check_free, new_folder
from throughtime.exporting.names import name_of
from throughtime.exporting.readme import write_mark
from throughtime.exporting.stack import Stack
from throughtime.exporting.targets import target_of
from throughtime.exporting.text import text_stack
from throughtime.exporting.vectors import write_vectors
from throughtime.tasks.base import Trained
from throughtime.tasks.text import TextModel

__all__ = ["write", "write_trained"]


def write(
    stack: Stack,
    path: Path,
    *,
    overwrite: bool = False,
    name: str | None = None,
    target: str | None = None,
    source: bool = False,
    int8: bool = False,
) -> Path:
    """Write a stack that can step as NAME.h and NAME.o, or as NAME.h, NAME.c and NAME_weights.h.

    Args: as of `export`. Returns: the folder.
    Raises: UserError where it cannot be written, saying which operation; where what was written does not agree with the
        reference; where something is in the way at `path`.
    """
    export = Export(stack, name_of(stack, name), int8, source)
    return _write(export, path, target, overwrite=overwrite)


def write_trained(
    trained: Trained[Any],
    path: Path,
    *,
    overwrite: bool = False,
    name: str | None = None,
    target: str | None = None,
    source: bool = False,
    int8: bool = False,
) -> Path:
    """Write a trained text model with its embedding, its softmax and the text of its entries. As `write` otherwise."""
    if not isinstance(trained, TextModel):
        raise UserError(f"a trained model of {trained.task.name} is exported to onnx; to c, a text model or a cell")
    stack, reading, log_p = text_stack(trained)
    export = Export(stack, name_of(stack, name), int8, source, reading, log_p, trained.config.data.documents)
    return _write(export, path, target, overwrite=overwrite, also=trained.tokens.save)


def _write(
    export: Export,
    path: Path,
    target: str | None,
    *,
    overwrite: bool,
    also: Callable[[Path], None] = lambda folder: None,
) -> Path:
    check_free(path, overwrite=overwrite)
    if export.source and target is not None:
        raise UserError("target is of objects: source is compiled for whatever its compiler compiles for")
    processor = target_of(target)
    with new_folder(path, overwrite=overwrite) as folder:
        made = write_source(export, folder) if export.source else write_object(export, folder, processor, target)
        write_vectors(folder, export.right)
        readme.write(folder, export, made)
        write_mark(
            folder, export.stack, "c", name=export.name, target=made.target, int8=export.int8, sizes=vars(made.sizes)
        )
        also(folder)
    return path
