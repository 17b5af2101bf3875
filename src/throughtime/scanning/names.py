"""What code names, by its instructions: globals, attributes, modules; and whose code it is."""

from __future__ import annotations

import dis
import functools
import os
import sys
import sysconfig
import types
from typing import Any, NamedTuple

import torch

from throughtime.scanning.settings import BUILTIN

LIBRARIES = {"torch", "numpy", "builtins"}


class Named(NamedTuple):
    """What code names: globals that it reads, attributes, globals that it writes, modules that it imports."""

    read: set[str]
    attributes: set[str]
    written: set[str]
    imported: set[str]


def names_of(code: types.CodeType) -> Named:
    """What code names, and the code within it. It is looked for once."""
    if id(code) not in _known_names:  # equal code of two files is not the same
        _known_names[id(code)] = code, _look_for_names(code)
        while len(_known_names) > 4096:
            _known_names.pop(next(iter(_known_names)))
    return _known_names[id(code)][1]


_known_names: dict[int, tuple[types.CodeType, Named]] = {}


def _look_for_names(code: types.CodeType) -> Named:
    found = Named(*(set() for _ in Named._fields))
    for instruction in dis.get_instructions(code):
        kind = _KINDS.get(instruction.opname)
        if kind is not None:
            getattr(found, kind).add(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            for names, inner in zip(found, names_of(constant), strict=True):
                names |= inner
        texts = constant if isinstance(constant, tuple) else (constant,)
        # getattr(self, "scale"), or a pattern's keyword
        found.attributes.update(text for text in texts if isinstance(text, str) and text.isidentifier())
    return found


_KINDS = {
    **dict.fromkeys(("LOAD_GLOBAL", "LOAD_NAME"), "read"),
    **dict.fromkeys(("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "IMPORT_FROM"), "attributes"),
    **dict.fromkeys(("STORE_GLOBAL", "DELETE_GLOBAL"), "written"),
    "IMPORT_NAME": "imported",
}


def root_of(module: str | None) -> str:
    """The package that a module is in: what stands before its first dot."""
    return (module or "").split(".")[0]


def is_own(module: str | None, roots: set[str], file: str | None = None) -> bool:
    """Whether code is the user's, not a library's. roots: of the packages that the cell's own classes are in."""
    root = root_of(module)
    if root in roots or root == "__main__":
        return True
    if root in LIBRARIES:
        return False
    file = file or getattr(sys.modules.get(module or ""), "__file__", None)
    return file is not None and not file.startswith(_library_folders())


def functions_of(value: Any) -> list[types.FunctionType] | None:
    """The Python functions behind a function, method, property or partial; None where the value is something else."""
    if isinstance(value, types.FunctionType):
        return [value]
    if isinstance(value, staticmethod | classmethod | types.MethodType):
        return functions_of(value.__func__)
    if isinstance(value, property):
        return functions_of(value.fget)
    if isinstance(value, functools.partial | functools.partialmethod | functools.cached_property):
        return functions_of(value.func)
    return [] if isinstance(value, BUILTIN) else None


@functools.cache
def _library_folders() -> tuple[str, ...]:
    """The folders of installed packages and of Python itself."""
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = {sysconfig.get_path(kind) for kind in kinds} | {os.path.dirname(os.path.dirname(torch.__file__))}
    return ("<frozen", *(os.path.join(folder, "") for folder in folders if folder))
