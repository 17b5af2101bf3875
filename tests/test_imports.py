"""Imports point one way, as the design says: a room knows only the rooms below it."""

import ast
import re
import tomllib
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "throughtime"

# room -> the rooms it may import from, beside itself; errors and config are below everything
BELOW = {
    "errors": set(),
    "config": {"errors"},
    "cells": {"errors"},
    "scanning": {"cells", "errors"},
    "layers": {"scanning", "cells", "errors"},
    "models": {"layers", "scanning", "cells", "errors"},
    "decode": {"errors"},
    "files": {"config", "errors"},
    "weights": {"files", "errors"},
    "runs": {"weights", "files", "config", "errors"},
    "hub": {"runs", "weights", "files", "config", "errors"},
    "travel": {"layers", "scanning", "cells", "runs", "weights", "errors"},
    "tasks": {"models", "travel", "decode", "cells", "hub", "runs", "weights", "files", "config", "errors"},
    "exporting": {"tasks", "models", "layers", "scanning", "cells", "runs", "files", "config", "errors"},
    "serve": {"tasks", "travel", "decode", "scanning", "cells", "runs", "files", "config", "errors"},
    "play": {"serve", "inspect", "tasks", "travel", "scanning", "cells", "config", "errors"},
    "training": {"inspect", "tasks", "scanning", "runs", "weights", "files", "config", "errors"},
    "inspect": {"tasks", "scanning", "cells", "files", "config", "errors"},
    "laboratory": {"training", "tasks", "models", "layers", "cells", "runs", "errors"},
}
ROOT = {"__init__"}  # what users import
TOP = {"cli", "__main__"}  # may import everything


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms():
    for path in sorted(SOURCE.rglob("*.py")):
        yield path, path.relative_to(SOURCE).parts[0].removesuffix(".py")


def test_every_room_is_in_the_plan():
    unknown = {room for _, room in rooms()} - set(BELOW) - ROOT - TOP
    assert not unknown, f"rooms without a place in the import rule: {unknown}"


def test_imports_point_one_way():
    wrong = []
    for path, room in rooms():
        if room in TOP | ROOT:
            continue
        for name in imports(path):
            parts = name.split(".")
            if parts[0] != "throughtime" or len(parts) < 2:
                continue
            if parts[1] != room and parts[1] not in BELOW[room]:
                wrong.append(f"{path.relative_to(SOURCE)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_cells_know_only_torch():
    allowed = {"torch", "throughtime", "math", "typing", "collections", "contextlib", "contextvars", "copy", "inspect"}
    for path, room in rooms():
        if room == "cells":
            found = {name.split(".")[0] for name in imports(path)} - allowed - {"__future__"}
            assert not found, f"{path.name} imports {found}"


TAKEN = {"httptools", "uvloop"}  # by uvicorn, where they are installed


def test_every_extra_installs_what_is_imported():
    extras = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    used = {name.split(".")[0] for path, _ in rooms() for name in imports(path)}
    for extra in extras.keys() - {"all", "dev"}:
        assert {re.match(r"[\w-]+", package)[0] for package in extras[extra]} <= used | TAKEN, extra
    users = ",".join(sorted(extras.keys() - {"all", "dev", "bench"}))
    assert sorted(extras["all"][0].removeprefix("throughtime[").removesuffix("]").split(",")) == users.split(",")
