"""How a cell's step stretches and shrinks what it carries: Lyapunov exponents and singular values along a sequence.

Shapes: T time, S numbers of the whole state.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from throughtime.cells.base import split_result
from throughtime.scanning.observe import Observed

LARGEST = 1024  # numbers of a state
LONGEST = 64  # steps
SHOWN = 8  # exponents and singular values


@dataclass(frozen=True)
class Stretching:
    """exponents: the largest Lyapunov exponents, nats a step, largest first: over 0 two states that differ a little part, under 0
    they meet. steps: t = 1, 2, 4 …; singular: natural logarithms of the largest singular values of ∂s_t/∂s_0 for each."""

    exponents: list[float]
    steps: list[int]
    singular: list[list[float]]

    def as_json(self) -> dict[str, Any]:
        """Its values by name."""
        return asdict(self)


def stretching(scan: Observed) -> Stretching | None:
    """Of the first sequence of a scan. None where its state is too large, or there are no steps.

        J_t = ∂s_t/∂s_{t-1},   exponents from the QR decomposition of J_t Q_{t-1}, singular values of J_t … J_1

    Source: Benettin et al. (1980) for the exponents; for recurrent networks Engelken, Wolf, Abbott (2023).
    """
    states = [s[:, 0].detach() for s in scan.states]
    real = len(states[0]) if scan.lengths is None else int(scan.lengths[0])
    first = [s[0].detach() for s in (scan.first if isinstance(scan.first, tuple) else (scan.first,))]
    sizes = [s.numel() for s in first]
    order = list(range(real))[:: -1 if scan.reverse else 1][:LONGEST]
    if sum(sizes) > LARGEST or not order:
        return None
    single = not isinstance(scan.first, tuple)

    def step(flat: Tensor, x: Tensor) -> Tensor:
        parts = [p.unsqueeze(0) for p in torch.split(flat, sizes)]
        state = parts[0] if single else tuple(parts)
        _, new = split_result(scan.cell(x.unsqueeze(0), state), state)
        return torch.cat([p[0] for p in (new if isinstance(new, tuple) else (new,))])

    k = min(SHOWN, sum(sizes))
    before, jacobians = torch.cat(first), []
    for t in order:
        jacobians.append(torch.func.jacrev(step)(before, scan.inputs[t, 0].detach()).detach().cpu())
        before = torch.cat([s[t] for s in states])
    exponents = _exponents(jacobians, k)
    product, scale = torch.eye(sum(sizes), dtype=torch.float64), 0.0
    at: list[int] = []
    singular: list[list[float]] = []
    for number, jacobian in enumerate(jacobians, 1):
        product = jacobian.double() @ product
        size = float(product.abs().max().clamp(min=1e-300))
        product, scale = product / size, scale + math.log(size)
        if number & (number - 1) == 0:  # 1, 2, 4 …
            at.append(number)
            singular.append((torch.linalg.svdvals(product)[:k].clamp(min=1e-300).log() + scale).tolist())
    return Stretching(exponents, at, singular)


def _exponents(jacobians: list[Tensor], k: int) -> list[float]:
    """The k largest, in nats a step. The frame goes over the steps once before they count: it begins turned by chance."""
    generator = torch.Generator().manual_seed(0)
    q = torch.linalg.qr(torch.randn(len(jacobians[0]), k, generator=generator, dtype=torch.float64)).Q
    total = torch.zeros(k, dtype=torch.float64)
    for counts in (0.0, 1.0):
        for jacobian in jacobians:
            q, r = torch.linalg.qr(jacobian.double() @ q)
            total += counts * r.diagonal().abs().clamp(min=1e-300).log()
    return sorted((total / len(jacobians)).tolist(), reverse=True)
