"""What an export to ONNX holds: its models, checked, and what is said of them."""

from __future__ import annotations

from pathlib import Path

from throughtime.errors import UserError
from throughtime.exporting.agreement import Run, check
from throughtime.exporting.interface import interface_of
from throughtime.exporting.onnx.model import OPSET, STANDARD, operators, sequence_model, step_model
from throughtime.exporting.onnx.page import SEQUENCE, STEP, Written, sections
from throughtime.exporting.onnx.quantised import QUANTISED, loss, quantised
from throughtime.exporting.onnx.running import sequences, session
from throughtime.exporting.onnx.running import steps as stepping
from throughtime.exporting.readme import write_mark, write_readme
from throughtime.exporting.stack import Stack
from throughtime.exporting.vectors import write_vectors


def written(stack: Stack, *, steps: bool, lengths: bool = False, int8: bool = False) -> Written:
    """A stack as a model, run beside the reference. steps: one step of it; else whole sequences.

    Raises: UserError where an operation cannot be exported, or what was written differs from the reference.
    """
    if int8 and interface_of(stack).output.dtype != "float32":
        raise UserError(f"{stack.name} is of {interface_of(stack).output.dtype}: int8 is of float32")
    what = f"{stack.name} as onnx, {'a step at a time' if steps else 'whole sequences'}"
    model = (
        step_model(stack) if steps else sequence_model(stack, lengths=lengths, allowed=QUANTISED if int8 else STANDARD)
    )
    data = model.SerializeToString()
    difference = check(stack, _run(data, steps), what, lengths=lengths)
    if not int8:
        return Written(data, operators(model), difference)
    small = quantised(model)
    worst, mean = loss(stack, _run(small.SerializeToString(), steps), what, lengths=lengths)
    return Written(small.SerializeToString(), operators(model), worst, mean, len(data))


def _run(data: bytes, in_steps: bool) -> Run:
    made = session(data)
    return stepping(made) if in_steps else sequences(made)


def write_folder(stack: Stack, folder: Path, *, lengths: bool, int8: bool) -> None:
    """Write the models of a stack, test vectors and a README. Raises: as `written`."""
    models = {STEP: written(stack, steps=True, int8=int8)} if stack.can_step else {}
    models[SEQUENCE] = written(stack, steps=False, lengths=lengths, int8=int8)
    for name, model in models.items():
        (folder / name).write_bytes(model.data)
    write_vectors(folder, stack, lengths=lengths)
    write_readme(folder, f"{stack.name} as ONNX", sections(stack, models, lengths))
    write_mark(
        folder, stack, "onnx", opset=OPSET, lengths=lengths, int8=int8, operators=models[SEQUENCE].operators,
        differences={name: model.difference for name, model in models.items()},
    )  # fmt: skip
