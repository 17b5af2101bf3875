"""What was written, run by onnxruntime: as the check beside the reference runs it.

Shapes: T time, B batch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor

from throughtime.errors import UserError
from throughtime.exporting.agreement import Run
from throughtime.scanning import Inputs
from throughtime.scanning.call import leaves

ERRORS_ONLY = 3  # of onnxruntime's levels of what it says


def session(model: Path | bytes) -> onnxruntime.InferenceSession:
    """A session on one thread.

    Raises: UserError where onnxruntime has no kernel for an operation, naming it, or does not load the file.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        given = str(model) if isinstance(model, Path) else model
        return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no base of their own
        missing = re.search(r"implementation for (\w+)\(\d+\)", str(error))
        if missing is None:
            raise UserError(f"onnxruntime does not load what was written: {str(error).splitlines()[-1]}") from error
        raise UserError(f"cannot be exported to onnx: onnxruntime has no {missing[1]} of these numbers") from error


def sequences(session: onnxruntime.InferenceSession) -> Run:
    """How whole sequences are run."""

    def run(inputs: Inputs, states: Sequence[Tensor], lengths: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        return _run(session, [*leaves(inputs), *states, *([] if lengths is None else [lengths])])

    return run


def steps(session: onnxruntime.InferenceSession) -> Run:
    """How sequences are run a step at a time, the states carried."""

    def run(inputs: Inputs, states: Sequence[Tensor], lengths: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        outputs, now = list[Tensor](), list(states)
        for t in range(leaves(inputs)[0].shape[0]):
            output, now = _run(session, [*(x[t] for x in leaves(inputs)), *now])
            outputs.append(output)
        return torch.stack(outputs), now

    return run


def _run(session: onnxruntime.InferenceSession, tensors: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    names = [i.name for i in session.get_inputs()]
    given = {name: tensor.contiguous().numpy() for name, tensor in zip(names, tensors, strict=True)}
    output, *finals = map(torch.from_numpy, session.run(None, given))
    return output, finals
