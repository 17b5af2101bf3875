"""What a terminal shows while PyTorch is imported, which takes seconds."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

WORDS = "loading PyTorch …"


class _Announced:
    """Finds torch as it would be found otherwise, and shows WORDS on standard error for as long as its import takes."""

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = _shown(spec.loader.exec_module)  # type: ignore[method-assign]
        return spec


def _shown(load: Any) -> Any:
    def loaded(module: ModuleType) -> None:
        print(WORDS, end="", file=sys.stderr, flush=True)
        try:
            load(module)
        finally:
            print("\r" + " " * len(WORDS) + "\r", end="", file=sys.stderr, flush=True)

    return loaded


def announce_torch() -> None:
    """From now on the import of PyTorch, whoever makes it, is shown, where standard error is a terminal."""
    if "torch" not in sys.modules and sys.stderr.isatty() and not any(isinstance(f, _Announced) for f in sys.meta_path):
        sys.meta_path.insert(0, _Announced())
