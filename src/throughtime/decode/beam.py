"""Beam search: the likeliest sequences, over any step function, many at a time.

Shapes: B sequences, K hypotheses of each, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Hypothesis(NamedTuple):
    """Tokens without the end, their log-probability, and the score that ranks them. complete: it is shorter than the limit, and
    nothing that was still open there could have ranked above it."""

    tokens: list[int]
    log_probability: float
    score: float
    complete: bool = True


def beam_search(
    step: Callable[[Tensor, Any], tuple[Tensor, Any]],
    first: Tensor,
    state: Any,
    *,
    size: int,
    end: int,
    longest: Sequence[int],
    alpha: float = 0.6,
    never: Sequence[int] = (),
) -> list[list[Hypothesis]]:
    """The `size` best hypotheses of each sequence, the best first.

        score(y) = log p(y) / ((5 + |y|) / 6)^alpha

    Args:
        step: (tokens [R], state) -> (log_p [R, V] of the next tokens, state). first: [B], what each begins with.
        state: after nothing is read: tensors whose first dimension is B, in tuples.
        size: K; 1 is greedy. end: the token that ends a sequence. longest: tokens at most of each, without the end.
        alpha: 0 ranks by probability, which likes short ones. never: tokens that are not written.
    Source: length normalisation after Wu et al. (2016), equation 14.
    """
    batch, device = len(first), first.device
    limits = torch.tensor(longest, device=device)
    done: list[list[Hypothesis]] = [[] for _ in range(batch)]
    still_open: dict[int, float] = {}  # the score of the best that reached its limit without an end
    alive = torch.arange(batch, device=device)  # the sequences still searched
    state = rows_of(state, torch.arange(batch, device=device).repeat_interleave(size))
    tokens = first.repeat_interleave(size)
    total = torch.full((batch, size), -torch.inf, dtype=torch.float64, device=device)
    total[:, 0] = 0.0
    written = torch.zeros(batch, size, 0, dtype=torch.int64, device=device)
    length = 0
    while len(alive):
        log_p, state = step(tokens, state)
        log_p = log_p.double()
        log_p[:, list(never)] = -torch.inf
        vocabulary = log_p.shape[-1]
        scores = total.unsqueeze(-1) + log_p.view(len(alive), size, vocabulary)
        last = (limits[alive] <= length).view(-1, 1, 1)  # nothing may follow but the end
        for b in last.flatten().nonzero().flatten().tolist():
            still_open[int(alive[b])] = float(total[b].max()) / ((5 + length + 1) / 6) ** alpha
        only_end = torch.ones(vocabulary, dtype=torch.bool, device=device)
        only_end[end] = False
        scores = scores.masked_fill(last & only_end, -torch.inf)
        top, place = scores.flatten(1).topk(min(2 * size, size * vocabulary), -1)
        origin, token = place // vocabulary, place % vocabulary
        penalty = ((5 + length + 1) / 6) ** alpha
        ends = (token == end) & top.isfinite()
        for b, k in ends.nonzero().tolist():
            if k < size:  # one that ends further down was not among the best
                hypothesis = written[b, int(origin[b, k])].tolist()
                value = float(top[b, k])
                done[int(alive[b])].append(Hypothesis(hypothesis, value, value / penalty))
        # the best that go on, in order
        order = (ends | ~top.isfinite()).long().sort(dim=-1, stable=True).indices[:, :size]
        total = top.masked_fill(ends, -torch.inf).gather(-1, order)
        origin, token = origin.gather(-1, order), token.gather(-1, order)
        written = torch.cat([written.gather(1, origin.unsqueeze(-1).expand(-1, -1, length)), token.unsqueeze(-1)], -1)
        length += 1
        going = []
        for b, number in enumerate(alive.tolist()):
            found = done[number]
            best = float(total[b, 0])
            if not torch.isfinite(total[b, 0]):
                continue
            if size == 1 and found:  # greedy: the likeliest was the end
                continue
            if len(found) >= size:  # what goes on can only lose, but for what length forgives it
                reachable = best / ((5 + int(limits[number]) + 1) / 6) ** alpha
                if sorted((h.score for h in found), reverse=True)[size - 1] >= reachable:
                    continue
            going.append(b)
        keep = torch.tensor(going, dtype=torch.int64, device=device)
        rows = (keep.unsqueeze(1) * size + origin[keep]).flatten()
        state, tokens = rows_of(state, rows), token[keep].flatten()
        total, written, alive = total[keep], written[keep], alive[keep]

    def said(h: Hypothesis, b: int) -> Hypothesis:
        return h._replace(complete=len(h.tokens) < longest[b] and h.score >= still_open.get(b, -torch.inf))

    return [[said(h, b) for h in sorted(found, key=lambda h: -h.score)[:size]] for b, found in enumerate(done)]


def rows_of(state: Any, rows: Tensor) -> Any:
    """Some rows of a state of tensors in tuples; None stays."""
    if state is None:
        return None
    if isinstance(state, Tensor):
        return state.index_select(0, rows)
    return tuple(rows_of(part, rows) for part in state)
