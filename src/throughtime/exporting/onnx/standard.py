"""Whole sequences by ONNX's own LSTM, GRU and RNN.

Shapes: T time, B batch, I input, N hidden.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from onnx import TensorProto

from throughtime.exporting.onnx.nodes import Nodes
from throughtime.exporting.onnx.recognition import Known

ORDERS = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}  # of the gates: iofc of our i f g o, zrh of our r z n


def standard(
    nodes: Nodes, known: Known, x: str, states: Sequence[str], lengths: str | None, *, reverse: bool
) -> tuple[str, list[str]]:
    """The operator of a step that is known.

    Args: x: [T, B, I]; states: each [B, N]; lengths: [B] int64, or None.
    Returns: the output [T, B, N], and the final states.
    """
    gates = [known.gates[i] for i in ORDERS[known.operator]]

    def constant(tensors: Sequence[torch.Tensor]) -> str:
        return nodes.constant(torch.cat(list(tensors)).unsqueeze(0).contiguous().numpy())

    n = nodes
    made = n.several(
        known.operator,
        1 + len(states),
        x,
        constant([g.input for g in gates]),
        constant([g.state for g in gates]),
        constant([g.input_bias for g in gates] + [g.state_bias for g in gates]),
        _lengths(n, known.operator, x, lengths),
        *(n.add("Unsqueeze", s, n.whole(0)) for s in states),
        hidden_size=len(gates[0].state),
        direction="reverse" if reverse else "forward",
        **known.attributes,
    )
    # of a sequence without steps the runtime gives zeros for the final state
    steps = n.add("Shape", x, start=0, end=1) if lengths is None else n.add("Unsqueeze", lengths, n.whole(1))
    none = n.add("Equal", steps, n.constant(np.array([0], np.int64)))
    finals = [
        n.add("Where", none, old, n.add("Squeeze", new, n.whole(0))) for old, new in zip(states, made[1:], strict=True)
    ]
    return n.add("Squeeze", made[0], n.whole(1)), finals


def _lengths(n: Nodes, operator: str, x: str, lengths: str | None) -> str:
    """Lengths as the operators take them, int32 [B]; no name where there are none."""
    if lengths is not None:
        return n.add("Cast", lengths, to=TensorProto.INT32)
    if operator != "GRU":
        return ""
    steps = n.add(
        "Cast", n.add("Shape", x, start=0, end=1), to=TensorProto.INT32
    )  # or at T = 0 onnxruntime would abort
    return n.add("Expand", steps, n.add("Shape", x, start=1, end=2))
