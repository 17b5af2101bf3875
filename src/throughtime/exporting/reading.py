"""What a language model needs beside its steps to read tokens: the embedding, and the text of each entry."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from throughtime.scanning.int8 import quantised


@dataclass(frozen=True)
class Reading:
    """How tokens become inputs. table: what a step is given for each, [V, E]. start: the token that begins a document, at which the
    state is put back. texts: what each entry adds to a text that is written, in UTF-8."""

    table: Tensor
    start: int
    texts: tuple[bytes, ...]

    def quantised(self) -> tuple[Tensor, Tensor]:
        """The table in eight bits, [V, E], and a scale for each token, [V]."""
        whole, scales = quantised(self.table.t())
        return whole.t().contiguous(), scales

    def rows(self, *, int8: bool) -> Tensor:
        """The table as an export reads it, [V, E]."""
        if not int8:
            return self.table
        whole, scales = self.quantised()
        return whole.to(scales.dtype) * scales.unsqueeze(1)

    def text_bytes(self) -> tuple[bytes, list[int]]:
        """All texts, each ended by a zero, and where each begins."""
        starts = torch.tensor([0, *(len(t) + 1 for t in self.texts[:-1])]).cumsum(0).tolist()
        return b"".join(t + b"\0" for t in self.texts), starts
