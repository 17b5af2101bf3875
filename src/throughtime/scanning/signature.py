"""What a captured step hangs on beside the numbers in its tensors: the cell's settings (`settings`), and what its code reads
from outside (`reads`).

Two calls with equal signatures, between which nothing that the code reads has changed, have the same program. Seen are:
settings of the cell and of the modules and plain objects in it; class attributes, methods and helper functions; globals of the
modules that the code is written in; what closures hold. Not seen are: attributes looked up by a name made at run time,
libraries (PyTorch, NumPy, whatever is installed) whose own settings or functions are replaced, files and the environment.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from throughtime.scanning.call import Call, tensors_of
from throughtime.scanning.settings import COMMON, Changing, plain

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
NOT_SETTINGS = {
    *HOOKS, "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "_is_full_backward_hook",
    "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks_with_kwargs",
    "_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
}  # fmt: skip


def signature(call: Call) -> Any:
    """What a program depends on, as a value to compare. Raises: Changing where that cannot be told."""
    seen: dict[int, int] = {}
    return (
        _of_module(call.cell, seen),
        _of_inputs(call.inputs),
        isinstance(call.state, tuple),
        tuple((s.shape[1:], s.dtype) for s in tensors_of(call.state)),
        call.resets is not None,
        call.record,
        call.operands,
        call.batch == 1,  # an `if` on it, or a squeeze(), goes its own way there
    )


def _of_inputs(inputs: Any) -> Any:
    if isinstance(inputs, Tensor):
        return inputs.shape[2:], inputs.dtype
    return tuple(_of_inputs(part) for part in inputs)


def _of_module(module: nn.Module, seen: dict[int, int]) -> Any:
    """A module's class, its settings, and the kinds of its tensors, with which of them are the same."""
    parts: list[Any] = [type(module), type(module).forward]
    for name, value in module.__dict__.items():
        if name in NOT_SETTINGS:
            continue
        if type(value) in COMMON:  # as most are
            parts.append((name, type(value), value))
            continue
        if isinstance(value, Tensor):
            parts.append((name, _of_tensor(value, seen)))
            continue
        try:
            parts.append((name, plain(value)))
        except Changing as error:
            raise Changing(f"its attribute {name!r} {error}") from None
    for group in (module._parameters, module._buffers):
        for name, tensor in group.items():
            parts.append((name, None if tensor is None else _of_tensor(tensor, seen)))
    for name, child in module._modules.items():
        parts.append((name, None if child is None else _of_module(child, seen)))
    return tuple(parts)


def _of_tensor(tensor: Tensor, seen: dict[int, int]) -> Any:
    kind = tensor.shape, tensor.dtype, tensor.requires_grad, tensor.is_inference()
    return seen.setdefault(id(tensor), len(seen)), kind
