"""Sampling: one token after another, each drawn from what the network expects.

Shapes: B streams, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

State = TypeVar("State")
COLD = 1e-6  # a temperature from which on down nothing but the likeliest would be drawn


def draw(
    log_p: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw a token for every stream.

    Args:
        log_p: [B, V], log-probabilities or logits; -inf is never drawn.
        temperature: log_p is divided by it; 0, and what is as good as 0, takes the likeliest.
        top_k: draw from the k likeliest alone, and those as likely as the last of them (Fan et al. 2018).
        top_p: draw from the smallest set whose probability reaches p alone, of what top_k left (Holtzman et al. 2020).
        generator: the source of chance; None: torch's.
    Returns: [B].
    """
    if temperature < COLD:
        return log_p.argmax(-1)
    log_p = (log_p - log_p.amax(-1, keepdim=True)) / temperature
    if top_k is not None and top_k < log_p.shape[-1]:
        least = log_p.topk(top_k).values[:, -1:]
        log_p = log_p.masked_fill(log_p < least, -torch.inf)
    if top_p is not None and top_p < 1:
        ordered, index = log_p.softmax(-1).sort(descending=True)
        before = ordered.cumsum(-1) - ordered
        log_p = log_p.masked_fill((before >= top_p).gather(-1, index.argsort(-1)), -torch.inf)
    return torch.multinomial(log_p.softmax(-1), 1, generator=generator).squeeze(-1)


def sample(
    step: Callable[[Tensor, State], tuple[Tensor, State]],
    log_p: Tensor,
    state: State,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Write without end: draw a token for every stream, read it, draw the next.

    Args:
        step: (tokens [B], state) -> (log_p [B, V] of the next tokens, state).
        log_p, state: after what has been read already. The rest: as in `draw`.
    Yields: tokens [B].
    """
    while True:
        tokens = draw(log_p, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator)
        yield tokens
        log_p, state = step(tokens, state)
