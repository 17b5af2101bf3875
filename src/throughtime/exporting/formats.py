"""What can be exported to, and by whom."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from throughtime.errors import UserError, unknown


@dataclass(frozen=True)
class Format:
    """A format.

    module: its `write(stack, path, *, overwrite, **options)` writes a stack of cells. trained: the `write_trained` of this module,
    which takes a trained model in the place of the stack. options: those that it has.
    """

    module: str
    trained: str
    options: frozenset[str]

    @property
    def write(self) -> Callable[..., Path]:
        """What writes a stack of cells."""
        """What writes it."""
        made: Callable[..., Path] = importlib.import_module(self.module).write
        return made

    @property
    def write_trained(self) -> Callable[..., Path]:
        """What writes a trained model."""
        made: Callable[..., Path] = importlib.import_module(self.trained).write_trained
        return made


FORMATS = {
    "onnx": Format("throughtime.exporting.onnx", "throughtime.exporting.networks", frozenset({"lengths", "int8"})),
    "c": Format("throughtime.exporting.c", "throughtime.exporting.c", frozenset({"name", "target", "source", "int8"})),
    "wasm": Format("throughtime.exporting.wasm", "throughtime.exporting.wasm", frozenset({"name", "int8", "train"})),
}


def checked(to: str, options: dict[str, Any]) -> tuple[Format, dict[str, Any]]:
    """The format called `to` and those options that were given. Raises: UserError for an option that it has not."""
    if to not in FORMATS:
        raise UserError(unknown("format", to, FORMATS))
    given = {name: value for name, value in options.items() if value not in (None, False)}
    for name in given:
        if name not in FORMATS[to].options:
            having = ", ".join(f for f, made in FORMATS.items() if name in made.options)
            raise UserError(f"{name} is an option of {having}, not of {to}")
    return FORMATS[to], given
