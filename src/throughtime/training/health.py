"""A loss or gradient that is not a number is said, with where it began and what to try."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from throughtime.errors import UserError


class NotFinite(UserError):
    """Training met a NaN or an infinity. `step` is where, `parameter` the first that holds one."""

    def __init__(self, message: str, step: int, parameter: str | None) -> None:
        super().__init__(message)
        self.step, self.parameter = step, parameter


def check_finite(
    step: int, loss: float, norm: float, network: nn.Module, norms: Iterable[float], rate: float, clip: float | None
) -> None:
    """Say that a step went wrong, before its update is made.

    Args: step: the one at hand, from 1. loss, norm: its loss and gradient norm. norms: those of the steps before, oldest
        first. rate, clip: its learning rate and the bound on the norm.
    Raises: NotFinite.
    """
    if _finite(loss) and _finite(norm):
        return
    what = f"the loss is {loss}" if not _finite(loss) else f"the gradient norm is {norm}, the loss {loss:.4g}"
    weight = _first(network, lambda p: p)
    gradient = _first(network, lambda p: p.grad)
    if weight:
        where = f"first in the weights of {weight}"
    elif gradient:
        where = f"first in the gradient of {gradient}"
    else:
        where = "in no weight or gradient: the sum of squares overflows, or the batch itself holds it"
    before = ", ".join(f"{n:.3g}" for n in list(norms)[-5:]) or "none yet"
    advice = f"a learning rate below {rate:.2g} (--training.learning-rate {rate / 3:.1g})"
    advice += f" or a smaller --training.clip than {clip:g}" if clip else " and clipping (--training.clip 1)"
    raise NotFinite(
        f"step {step}: {what}; {where}; gradient norms before: {before}; try {advice}", step, weight or gradient
    )


def gradient_norms(network: nn.Module) -> dict[str, float]:
    """The norm of the gradient of each layer: of each cell of a stack, and of everything else by the module that owns it."""
    squares: dict[str, list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            squares.setdefault(_layer_of(name), []).append(torch.linalg.vector_norm(parameter.grad).double())
    if not squares:
        return {}
    totals = torch.stack([torch.stack(parts).square().sum() for parts in squares.values()]).sqrt()
    return dict(zip(squares, totals.tolist(), strict=True))


def _layer_of(parameter: str) -> str:
    """Of `encoder.stack.cells.0.weight_ih` it is `encoder.stack.cells.0`, of `output.bias` it is `output`."""
    before, cells, after = parameter.partition(".cells.")
    if cells:
        return f"{before}.cells.{after.partition('.')[0]}"
    return parameter.rpartition(".")[0] or parameter


def _finite(value: float) -> bool:
    return value == value and abs(value) != float("inf")


def _first(network: nn.Module, tensor_of: object) -> str | None:
    """The first parameter, in the order of the network, of which a tensor is not finite."""
    for name, parameter in network.named_parameters():
        tensor = tensor_of(parameter)  # type: ignore[operator]
        if tensor is not None and not bool(torch.isfinite(tensor).all()):
            return name
    return None
