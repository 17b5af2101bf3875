"""A session as a file: safetensors, with what else it is as JSON in the header.

inputs                       [n, ...], from the first that is kept
snapshot.TIME.output         the output of the step that led to it
snapshot.TIME.LAYER.TENSOR   the state there
edit.TIME.LAYER.TENSOR       a state that was put there
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from throughtime.cells import State
from throughtime.errors import UserError
from throughtime.travel.engine import Moment
from throughtime.weights import read_tensors, write_tensors

HEADER = "session"
FORMAT = 1  # a file with a higher one is from a newer version


def write(
    path: Path,
    about: dict[str, Any],
    inputs: Tensor,
    snapshots: dict[int, Moment],
    edits: dict[int, tuple[State, ...]],
    overwrite: bool,
) -> None:
    """Write a file in one step. Raises: UserError where there is one and `overwrite` is not asked for, or it cannot be written."""
    if path.exists() and not overwrite:
        raise UserError(f"{path}: is there already; name another file, or overwrite=True")
    tensors = {"inputs": inputs}
    for time, moment in snapshots.items():
        tensors |= _named(f"snapshot.{time}", moment.state)
        if moment.output is not None:
            tensors[f"snapshot.{time}.output"] = moment.output
    for time, state in edits.items():
        tensors |= _named(f"edit.{time}", state)
    write_tensors(path, tensors, {"format": FORMAT, **about}, HEADER)


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What `write` wrote: about, and the tensors by name. Raises: UserError where the file is missing, another kind, or newer."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    tensors, about = read_tensors(path, HEADER, "no session, or damaged")
    if about is None:
        raise UserError(f"{path}: is no session: it was not written by Session.save")
    if about.get("format", 0) > FORMAT:
        raise UserError(f"{path}: format {about['format']} is from a newer throughtime; upgrade it")
    return about, tensors


def states(tensors: dict[str, Tensor], kind: str, like: tuple[State, ...]) -> dict[int, tuple[State, ...]]:
    """The states of a kind ("snapshot" or "edit") by their time, made as `like` is. Raises: KeyError where a tensor is missing."""
    times = sorted({int(name.split(".")[1]) for name in tensors if name.startswith(f"{kind}.")})

    def one(time: int, layer: int) -> State:
        made = like[layer]
        parts = [
            tensors[f"{kind}.{time}.{layer}.{i}"].to(t)
            for i, t in enumerate(made if isinstance(made, tuple) else (made,))
        ]
        return tuple(parts) if isinstance(made, tuple) else parts[0]

    return {time: tuple(one(time, layer) for layer in range(len(like))) for time in times}


def _named(name: str, state: tuple[State, ...]) -> dict[str, Tensor]:
    return {
        f"{name}.{layer}.{i}": tensor
        for layer, one in enumerate(state)
        for i, tensor in enumerate(one if isinstance(one, tuple) else (one,))
    }
