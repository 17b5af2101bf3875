"""Weights in eight bits, by onnxruntime's dynamic quantisation."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from onnx import ModelProto
from onnxruntime.quantization import quantize_dynamic

from throughtime.errors import UserError
from throughtime.exporting.agreement import SIZES, Run, trials
from throughtime.exporting.stack import Stack

QUANTISED = ("LSTM",)  # the operators that onnxruntime has in eight bits; the others' products are quantised in a Scan


def quantised(model: ModelProto) -> ModelProto:
    """A model whose products are of eight bits: weights by a scale for each output, their left operand by one of its own, found at
    each step."""
    with tempfile.TemporaryDirectory() as folder, _without_a_word():
        made = Path(folder, "model.onnx")
        quantize_dynamic(model, made, per_channel=True, extra_options={"EnableSubgraph": True})
        return onnx.load(made)


@contextmanager
def _without_a_word() -> Iterator[None]:
    """Without what the quantiser tells Python's root logger, and without the handler that it would get by that."""
    root, before = logging.getLogger(), logging.root.manager.disable
    nobody = logging.NullHandler()
    root.addHandler(nobody)
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
        root.removeHandler(nobody)


def loss(
    stack: Stack, run: Run, what: str, *, lengths: bool = False, sizes: Sequence[tuple[int, int]] = SIZES
) -> tuple[float, float]:
    """How far a model of eight bits is from the reference on random inputs and states.

    Returns: the largest difference of an output or a final state, and the root of the mean square of all differences.
    Raises: UserError where shapes differ, or numbers are not finite where the reference's are.
    """
    worst, total, count = 0.0, 0.0, 0
    for trial in trials(stack, sizes, lengths=lengths):
        output, finals = run(trial.inputs, trial.states, trial.lengths)
        for got, right in zip([output, *finals], [trial.output, *trial.finals], strict=True):
            if got.shape != right.shape or bool((right.isfinite() & ~got.isfinite()).any()):
                raise UserError(f"{what}: in eight bits it gives other shapes, or no numbers: nothing was written")
            away = torch.where(right.isfinite(), got.double() - right.double(), 0.0)
            worst = max(worst, float(away.abs().max()) if away.numel() else 0.0)
            total, count = total + float(away.square().sum()), count + away.numel()
    return worst, (total / max(count, 1)) ** 0.5
