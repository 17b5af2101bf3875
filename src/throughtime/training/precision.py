"""What the products of a training's steps are computed in: float32, or operands rounded to bfloat16.

Weights, gradients, the optimiser and all scores are in float32 whichever it is; sums and pointwise work too, as `torch.autocast`
has it. bfloat16 has the range of float32, so that no loss needs to be scaled.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from throughtime.errors import UserError

if TYPE_CHECKING:
    from throughtime.tasks import Task

FLOAT32, BFLOAT16 = "float32", "bfloat16"


def choose_precision(asked: str, task: Task[Any, Any], device: str) -> tuple[str, str]:
    """What a training is to compute in. asked: of `training.precision`. device: "cpu" or "cuda".

    Returns: float32 or bfloat16; and that in words, with why where bfloat16 was left out.
    Raises: UserError where bfloat16 is asked for and cannot be had.
    """
    if asked == FLOAT32:
        return FLOAT32, FLOAT32
    why = _why_not(device)
    if asked == BFLOAT16 and why is not None:
        raise UserError(f"training.precision: bfloat16 cannot be had: {why}; use float32, or auto")
    if asked == "auto" and why is None:
        if device == "cuda":
            why = "on a graphics card it is not taken unasked"
        elif not task.bfloat16:
            why = f"{task.name} was not found to gain by it"
    return (BFLOAT16, BFLOAT16) if why is None else (FLOAT32, f"float32, not bfloat16: {why}")


def precision_of(recorded: str, device: str) -> tuple[str, str | None]:
    """What a training that has begun computes in here. recorded: in its settings; "auto": it is from before there was a choice.

    Returns: float32 or bfloat16; and why it is not what was recorded, in words, where it cannot be had here.
    """
    why = _why_not(device) if recorded == BFLOAT16 else None
    if why is not None:
        return FLOAT32, f"precision: float32 from now on, in place of bfloat16: {why}"
    return BFLOAT16 if recorded == BFLOAT16 else FLOAT32, None


def computing_in(precision: str, device: str) -> AbstractContextManager[Any]:
    """A context in which products are computed in float32, or in bfloat16."""
    import torch

    return torch.autocast(device, torch.bfloat16) if precision == BFLOAT16 else nullcontext()


def _why_not(device: str) -> str | None:
    """Why nothing is computed in bfloat16 on a device, in words; None where it can be."""
    if device == "cuda":
        import torch

        has = torch.cuda.is_bf16_supported(including_emulation=False)
        return None if has else "this graphics card computes nothing in it"
    from throughtime.scanning.cpu.target import why_not_bfloat16

    return why_not_bfloat16()
