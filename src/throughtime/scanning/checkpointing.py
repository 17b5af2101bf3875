"""Long sequences in less memory: a scan in pieces of time, each of which is run again when its gradient is wanted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from throughtime.cells import State
from throughtime.scanning.call import Call, Scanned, map_leaves


def in_pieces(call: Call, every: int, run: Callable[[Call], Scanned]) -> Scanned:
    """Run a call `every` steps at a time; for the backward only inputs, outputs and the states between pieces are saved.

    Source: Chen et al. (2016), Training deep nets with sublinear memory cost, over time; by PyTorch's own checkpoint.
    """
    starts = list(range(0, call.steps, every))
    state, parts = call.state, []
    for start in reversed(starts) if call.reverse else starts:
        end = min(start + every, call.steps)

        def piece(state: State, start: int = start, end: int = end) -> Any:
            lengths = None if call.lengths is None else (call.lengths - start).clamp(0, end - start)
            resets = None if call.resets is None else call.resets[start:end]
            cut = map_leaves(lambda leaf: leaf[start:end], call.inputs)
            return tuple(run(replace(call, inputs=cut, state=state, lengths=lengths, resets=resets)))

        done = checkpoint(piece, state, use_reentrant=False) if torch.is_grad_enabled() else piece(state)
        part = Scanned(*done)
        state = part.state
        parts.append(part)
    if call.reverse:
        parts.reverse()

    def joined(tensors: list[Tensor]) -> Tensor:
        return torch.cat(tensors)

    records = {name: joined([p.records[name] for p in parts]) for name in call.record}
    return Scanned(joined([p.outputs for p in parts]), state, records)
