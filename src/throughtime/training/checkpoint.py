"""All that a training needs to go on exactly where it was, in one file written in one step. No pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from throughtime.errors import UserError
from throughtime.weights import read_tensors, write_tensors

# of what a checkpoint says, that without which no training goes on
KEYS = {"step", "tokens", "best", "stale", "norms", "elapsed", "timing", "place", "threads", "carry", "groups"}


def save(
    path: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    carry: Any,
    rng: list[Tensor],
    about: dict[str, Any],
) -> None:
    """Write a checkpoint.

    Args: carry: the state carried to the next batch: None, or nested tuples of tensors. rng: the random state of every
        process. about: step, place in the data, best score and the like, as JSON holds them.
    """
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    saved = optimizer.state_dict()
    for index, values in saved["state"].items():
        tensors.update({f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in values.items()})
    carried: list[Tensor] = []
    structure = _flatten(carry, carried)
    tensors.update({f"carry.{i}": tensor for i, tensor in enumerate(carried)})
    tensors.update({f"rng.{i}": state for i, state in enumerate(rng)})
    about = {**about, "carry": structure, "groups": saved["param_groups"], "threads": torch.get_num_threads()}
    write_tensors(path, tensors, about)


def restore(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[Any, list[Tensor], dict[str, Any]]:
    """Put a checkpoint back. Returns: carry, rng, about. Raises: UserError where the file is damaged."""
    tensors, about = read_tensors(path)
    if about is None or not set(about) >= KEYS:
        raise UserError(f"{path}: is damaged, or no checkpoint: its header does not say where the training stood")
    try:
        network.load_state_dict({n.removeprefix("network."): t for n, t in tensors.items() if n.startswith("network.")})
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": about["groups"]})
        device = next(network.parameters()).device
        carry = _unflatten(about["carry"], [tensors[f"carry.{i}"].to(device) for i in range(_count(about["carry"]))])
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        raise UserError(f"{path}: is damaged, or of another network: {' '.join(str(error).split())[:200]}") from error
    rng = [tensors[name] for name in sorted(tensors, key=lambda n: (len(n), n)) if name.startswith("rng.")]
    return carry, rng, about


def _flatten(value: Any, into: list[Tensor]) -> Any:
    if value is None:
        return None
    if isinstance(value, Tensor):
        into.append(value)
        return len(into) - 1
    return [_flatten(part, into) for part in value]


def _unflatten(structure: Any, tensors: list[Tensor]) -> Any:
    if structure is None:
        return None
    if isinstance(structure, int):
        return tensors[structure]
    return tuple(_unflatten(part, tensors) for part in structure)


def _count(structure: Any) -> int:
    if structure is None:
        return 0
    return 1 if isinstance(structure, int) else sum(_count(part) for part in structure)
