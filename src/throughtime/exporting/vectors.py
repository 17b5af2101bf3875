"""Test vectors beside an export: what goes in and what must come out, as JSON, for whoever ports it or doubts it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from throughtime.exporting.agreement import trials
from throughtime.exporting.interface import Named, interface_of
from throughtime.exporting.stack import Stack
from throughtime.scanning.call import leaves

VECTORS = "vectors.json"
SIZES = ((1, 1), (5, 1), (4, 3))  # T and B


def write_vectors(
    folder: Path, stack: Stack, sizes: Sequence[tuple[int, int]] = SIZES, *, lengths: bool = False
) -> None:
    """Write vectors.json: a list of cases, each {"T", "B", "lengths" or null, "inputs", "states", "outputs", "finals"}.

    Each of the last four is {name: {"shape", "values"}}, values row by row; what JSON has no number for is "nan", "inf" or "-inf".
    Inputs and the output are [T, B, ...], states [B, ...]; their names are those of `interface_of`.
    """
    names, cases = interface_of(stack), []
    for trial in trials(stack, sizes, lengths=lengths, seed=1):
        steps, batch = trial.output.shape[:2]
        cases.append({
            "T": steps,
            "B": batch,
            "lengths": None if trial.lengths is None else trial.lengths.tolist(),
            "inputs": _tensors(names.inputs, leaves(trial.inputs)),
            "states": _tensors(names.states, trial.states),
            "outputs": _tensors([names.output], [trial.output]),
            "finals": _tensors(names.finals, trial.finals),
        })  # fmt: skip
    (folder / VECTORS).write_text(json.dumps(cases) + "\n", encoding="utf-8")


def _tensors(names: Sequence[Named], tensors: Sequence[Tensor]) -> dict[str, Any]:
    return {n.name: values_of(t) for n, t in zip(names, tensors, strict=True)}


def values_of(tensor: Tensor) -> dict[str, Any]:
    """A tensor as JSON holds it: {"shape", "values"}, values row by row."""
    return {
        "shape": list(tensor.shape),
        "values": [_number(v, tensor.dtype == torch.float32) for v in tensor.flatten().tolist()],
    }


def _number(value: float, single: bool) -> float | str:
    """As few digits as tell a float32 from its neighbours."""
    if not math.isfinite(value):
        return str(value)
    return float(f"{value:.9g}") if single else value
