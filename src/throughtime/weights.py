"""Tensors in a file, with the sum of what it holds, and into a network only where they fit."""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from throughtime.errors import UserError, reason
from throughtime.files import SUM, replacing

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

HELD, INT8 = "weights", "int8"  # in the header: how they are held, where it is not as numbers of their own
SCALES = ".scales"  # behind the name of a matrix of eight bits: what each of its rows is multiplied by
HEADER = "throughtime"  # the one key of the header's words: of several the order would be left to chance
BEYOND = 1000  # parameters that a network may have more than ten times the tensors of its file, before it is let be


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: dict[str, Any], header: str = HEADER) -> str:
    """Write tensors in one step; `about`, as JSON holds it, and the sum of all go into the header. The same tensors give the same
    bytes. Returns: the sum. Raises: UserError where the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # safetensors takes no two tensors that share their memory
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    about = json.loads(json.dumps(about))  # as it will be read
    total = _sum_of(whole, about)
    with replacing(path) as temporary:
        try:
            save_file(whole, str(temporary), {header: json.dumps({**about, SUM: total})})
        except SafetensorError as error:
            raise UserError(f"{path}: cannot write it: {error}") from error
    return total


def read_tensors(
    path: Path, header: str = HEADER, wrong: str = "damaged"
) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """What `write_tensors` wrote: the tensors, those of eight bits in float32, and what is said about them, with their sum; None
    where nothing is.

    Args: wrong: what a file that is something else is called.
    Raises: UserError where the file is missing, no such file, or not what was written.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"{path}: is missing, or no file")
    try:
        with safe_open(str(path), "pt") as file:
            words = (file.metadata() or {}).get(header)
            about = None if words is None else json.loads(words)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except RecursionError as error:
        raise UserError(f"{path}: is {wrong}: nested too deep") from error
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError) as error:
        why = reason(error) if isinstance(error, OSError) else " ".join(str(error).split())[:200]
        raise UserError(f"{path}: is {wrong}: {why}") from error
    if about is not None and not isinstance(about, dict):
        raise UserError(f"{path}: is {wrong}: its header holds no names and values")
    if about is not None and SUM in about:
        said = {name: value for name, value in about.items() if name != SUM}
        if about[SUM] != _sum_of(tensors, said):
            raise UserError(f"{path}: is {wrong}: its sum is not that of what was written")
    return _in_float(tensors), about


def read_about(path: Path, header: str = HEADER) -> dict[str, Any] | None:
    """What is said about the tensors of a file, which `read_tensors` has found to be whole; None where nothing is."""
    from safetensors import safe_open

    with safe_open(str(path), "pt") as file:
        words = (file.metadata() or {}).get(header)
    return None if words is None else dict(json.loads(words))


def _in_float(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices of eight bits as the numbers that they tell, which takes nothing away."""
    scales = {name.removesuffix(SCALES): tensor for name, tensor in tensors.items() if name.endswith(SCALES)}
    small = {
        name
        for name, tensor in tensors.items()
        if tensor.dim() == 2 and name in scales and not tensor.is_floating_point()
    }
    return {
        name: tensor.to(scales[name].dtype) * scales[name].unsqueeze(1) if name in small else tensor
        for name, tensor in tensors.items()
        if name.removesuffix(SCALES) not in small or name in small
    }


def _sum_of(tensors: Mapping[str, Tensor], about: dict[str, Any]) -> str:
    import torch

    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        raw: Any = tensor.reshape(-1).view(torch.uint8).numpy()
        digest.update(raw)
    return digest.hexdigest()


def state_of(network: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a network, of tied ones the first."""
    return {names[0]: tensor for names, tensor in _tied(network)}


def _tied(network: nn.Module) -> list[tuple[list[str], Tensor]]:
    """Each tensor of a network with all names it goes by."""
    found: dict[int, tuple[list[str], Tensor]] = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        found.setdefault(id(tensor), ([], tensor))[0].append(name)
    return list(found.values())


def check_fits(make: Callable[[], nn.Module], tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raises: UserError where the network that `make` makes would not take these tensors. It is made of no memory, and left alone
    where it grows far beyond them.
    """
    import torch
    from torch.nn.modules.module import register_module_parameter_registration_hook

    made: list[weakref.ref[Any]] = []
    most = BEYOND + 10 * len(tensors)

    def count(module: nn.Module, name: str, parameter: Any) -> None:
        if parameter is not None:
            made.append(weakref.ref(parameter))
        if len(made) > most:
            made[:] = [one for one in made if one() is not None]  # the others were made to be measured
            if len(made) > most:
                raise ValueError(f"of more than {most} parameters, the file holds {len(tensors)} tensors")

    hook = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"):
            network = make()
    except (RuntimeError, TypeError, ValueError, OverflowError, MemoryError) as error:
        raise UserError(f"{path}: does not fit the settings: {' '.join(str(error).split())[:200]}") from error
    finally:
        hook.remove()
    for names, tensor in _tied(network):
        _one_of(names, tensor, tensors, path)
    known = set(network.state_dict(keep_vars=True))
    if left := next((name for name in tensors if name not in known), None):
        raise UserError(f"{path}: does not fit the settings: it holds {left}, and the network has none")


def put(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Put tensors into a network. Raises: UserError where they do not fit, or are not finite."""
    import torch

    with torch.no_grad():
        for names, tensor in _tied(network):
            tensor.copy_(_one_of(names, tensor, tensors, path))
    known = set(network.state_dict())
    if left := next((name for name in tensors if name not in known), None):
        raise UserError(f"{path}: does not fit the settings: it holds {left}, and the network has none")


def _one_of(names: list[str], like: torch.Tensor, tensors: Mapping[str, Tensor], path: Path) -> Tensor:
    """The tensor that goes by one of the names."""
    found = next((tensors[name] for name in names if name in tensors), None)
    if found is None:
        raise UserError(f"{path}: does not fit the settings: {names[0]} is missing")
    if found.shape != like.shape or found.is_floating_point() != like.is_floating_point():
        raise UserError(
            f"{path}: does not fit the settings: {names[0]} is {found.dtype} {list(found.shape)}, the network has {like.dtype} "
            f"{list(like.shape)}"
        )
    if bool(found.isnan().any()):
        raise UserError(f"{path}: is damaged: {names[0]} holds what is not a number")
    return found
