"""Where PyTorch is at something else than plain arithmetic: it transforms functions, traces, counts, or has tensors without memory.

The compiled loop reads memory, and PyTorch sees one operation in it. So where PyTorch wants to see every operation, a scan runs the
plain loop (or PyTorch's own kernel), and nothing of it is remembered for later calls.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.module import _has_any_global_hook
from torch.nn.utils import parametrize
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext

_PLAIN = torch._C._disabled_torch_function_impl  # of a subclass that changes nothing, as a Parameter is


def transform() -> str | None:
    """Which transform of functions is at work, in words; for some of them PyTorch's own recurrent kernels have no rule."""
    if torch._C._are_functorch_transforms_active():
        return "a transform of torch.func (grad, jvp, vmap, …) is at work, which sees only PyTorch's own operations"
    if _is_batching():
        return "many gradients are taken at once (is_grads_batched), by PyTorch's own operations"
    if forward_ad._current_level >= 0:
        return "forward-mode derivatives are being taken, which only PyTorch's own operations have"
    return None


def context(tensors: Iterable[Tensor] = ()) -> str | None:
    """What PyTorch is at, in words; None where it computes, and the tensors are plain ones."""
    return transform() or untransformed_context(tensors)


def untransformed_context(tensors: Iterable[Tensor] = ()) -> str | None:
    """The same where no function is being transformed."""
    if torch._C._get_tracing_state() is not None:
        return "torch.jit is tracing, which sees only PyTorch's own operations"
    if torch._C._len_torch_dispatch_stack():
        return "a mode that sees every operation is on (export, fake tensors, counting, …)"
    if torch.is_autocast_enabled("cpu"):
        return "autocast is on, and the compiled loop computes in the type that it is given"
    if _has_any_global_hook():  # type: ignore[no-untyped-call]
        return "there are hooks on all modules, which would be called once and not at every step"
    if parametrize._cache_enabled:
        return "parametrized weights are being cached, so that they are not made within the step"
    if torch._C._len_torch_function_stack() and any(map(_changes, _get_current_function_mode_stack())):  # type: ignore[no-untyped-call]
        return "a mode that changes PyTorch's functions is on (a default device, …)"
    return _odd(tensors)


class without_autocast:
    """A context in which autocast is off on the CPU, by its switch alone: torch.autocast's own takes four times as long."""

    __slots__ = ("before",)

    def __enter__(self) -> None:
        self.before = torch.is_autocast_enabled("cpu")
        if self.before:
            torch.set_autocast_enabled("cpu", False)

    def __exit__(self, *error: object) -> None:
        if self.before:
            torch.set_autocast_enabled("cpu", True)


def in_bfloat16() -> bool:
    """Whether autocast to bfloat16 is on, on the CPU."""
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") is torch.bfloat16


def _odd(tensors: Iterable[Tensor]) -> str | None:
    """What one of some tensors is, in words, if not a plain one."""
    for tensor in tensors:
        kind = type(tensor)
        if kind is not Tensor and kind is not nn.Parameter and not _is_plain(tensor):
            return f"a tensor is a {kind.__name__}, which does arithmetic in its own way"
        if tensor.layout is not torch.strided or tensor.is_neg() or tensor._is_zerotensor():
            return (
                "the numbers of a tensor do not lie in memory as they are (it is sparse, or a view with another sign)"
            )
    return None


def is_plain_memory(tensor: Tensor) -> bool:
    """Whether compiled code may read a tensor: the same in short, for what takes microseconds."""
    return (
        type(tensor) is Tensor
        and tensor.is_cpu
        and not tensor.is_neg()
        and not tensor._is_zerotensor()
        and torch._C._get_tracing_state() is None
        and not torch._C._are_functorch_transforms_active()
        and not torch._C._len_torch_dispatch_stack()
        and forward_ad._current_level < 0
    )


def _is_batching() -> bool:
    """Whether PyTorch's older vmap is at work, which shows only in how deep the next one would be."""
    depth = torch._C._vmapmode_increment_nesting()
    torch._C._vmapmode_decrement_nesting()
    return depth > 1


def _changes(mode: object) -> bool:
    return not (isinstance(mode, DeviceContext) and torch.device(mode.device).type == "cpu")


def _is_plain(tensor: Tensor) -> bool:
    kind = type(tensor)
    return kind.__torch_function__ is _PLAIN and kind.__torch_dispatch__ is Tensor.__torch_dispatch__
