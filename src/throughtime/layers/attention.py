"""Attention: what of a memory matters to each query.

Shapes: S steps of the memory, T queries, B batch, M width of the memory, N width of a query, A inner width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Memory(NamedTuple):
    """What is attended to: values [S, B, M], keys [S, B, A] made of them, and which steps are real [S, B]."""

    values: Tensor
    keys: Tensor
    real: Tensor


class Attention(nn.Module):
    """A mean of a memory, weighted by how well each step of it fits a query.

        a_ts = softmax_s score(q_t, m_s)          c_t = sum_s a_ts m_s

        additive:        score = v · tanh(W q_t + U m_s)     Bahdanau et al. (2015), appendix A.1.2
        multiplicative:  score = q_t · U m_s                 Luong et al. (2015), section 3.1, "general"

    >>> import torch
    >>> attention = Attention(4, 6, kind="additive")
    >>> memory = attention.remember(torch.randn(5, 2, 6), torch.tensor([5, 3]))
    >>> context, weights = attention(torch.randn(7, 2, 4), memory)
    >>> context.shape, weights.shape, bool((weights[:, 1, 3:] == 0).all())
    (torch.Size([7, 2, 6]), torch.Size([7, 2, 5]), True)

    Args: query_size: N. memory_size: M. kind: "additive" or "multiplicative". inner_size: A of additive; None: N.
    """

    def __init__(
        self, query_size: int, memory_size: int, kind: str = "multiplicative", inner_size: int | None = None
    ) -> None:
        super().__init__()
        if kind not in ("additive", "multiplicative"):
            raise ValueError(f"attention is 'additive' or 'multiplicative', got {kind!r}")
        if inner_size is not None and kind != "additive":
            raise ValueError(f"inner_size is of additive attention; {kind} has none")
        self.kind = kind
        self.width = (inner_size or query_size) if kind == "additive" else 1  # numbers that a pair of steps takes
        inner = (inner_size or query_size) if kind == "additive" else query_size
        self.key = nn.Linear(memory_size, inner, bias=False)
        if kind == "additive":
            self.query = nn.Linear(query_size, inner)
            self.score = nn.Linear(inner, 1, bias=False)

    def extra_repr(self) -> str:
        return repr(self.kind)

    def remember(self, values: Tensor, lengths: Tensor) -> Memory:
        """A memory of values [S, B, M], of which each sequence has `lengths` [B] real steps, at least 1."""
        real = torch.arange(values.shape[0], device=values.device).unsqueeze(1) < lengths
        return Memory(values, self.key(values), real)

    def forward(self, queries: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """queries [T, B, N]. Returns: contexts [T, B, M], weights [T, B, S]."""
        if self.kind == "additive":
            scores = self.score(torch.tanh(self.query(queries).unsqueeze(1) + memory.keys)).squeeze(-1)  # [T, S, B]
            scores = scores.transpose(1, 2)
        else:
            scores = torch.einsum("tbn,sbn->tbs", queries, memory.keys)
        weights = scores.masked_fill(~memory.real.t(), -torch.inf).softmax(-1)
        return torch.einsum("tbs,sbm->tbm", weights, memory.values), weights
