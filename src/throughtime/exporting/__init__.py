"""Out of Python: a cell, a layer or a trained model as ONNX, as C, or as WebAssembly.

(Not called `export`, or it would hide the function of that name.)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from throughtime.cells import State
from throughtime.errors import UserError
from throughtime.exporting.formats import checked
from throughtime.exporting.stack import stack_of
from throughtime.scanning import Inputs
from throughtime.scanning.int8 import INT8
from throughtime.tasks.base import Trained

__all__ = ["export"]


def export(  # noqa: PLR0913  (each is a user's to name)
    what: Any,
    to: str,
    path: str | Path,
    *,
    inputs: Inputs | None = None,
    state: State | None = None,
    lengths: bool = False,
    reverse: bool = False,
    name: str | None = None,
    target: str | None = None,
    source: bool = False,
    int8: bool = False,
    train: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write a cell, a layer or a Recurrent so that it runs without Python, checked against the reference before it is kept.

    Args:
        what: a cell (ours, torch.nn's, one's own), an RNN, LSTM, GRU or Recurrent; or a trained model, as `load` returns it.
        to: "onnx", "c" or "wasm".
        path: a folder that is new or empty. ONNX may also go to one file that ends in .onnx, which holds whole sequences.
        inputs: an example of what one step is given, [B, I] or a tuple of such, where a cell does not say its `input_size`.
        state: what it starts from, [B, N] or a tuple of such, of which the first row counts; needed where
            the cell does not say it.
        lengths: ONNX: whole sequences take the lengths of sequences besides, [B].
        reverse: a cell is to run from the last step to the first.
        name: C, wasm: of functions and files; None: that of the cell in small letters.
        target: C: the processor, as "x86-64-v3" or "cortex-m4"; None: this one.
        source: C: as C99 to be compiled by whoever has a compiler, in place of an object.
        int8: weights in eight bits, each output's in a scale of its own.
        train: wasm: besides, what moves the weights where it goes: steps forwards and backwards, and Adam.
        overwrite: replace an export that is there.
    Returns: the path.
    Raises: UserError where it cannot be exported, saying which operation, or what to give; where what was written does not
        agree with the reference, by how much; where something is in the way at `path`.
    """
    path = Path(path)
    given = {"lengths": lengths, "name": name, "target": target, "source": source, "int8": int8, "train": train}
    form, options = checked(to, given)
    if getattr(what, "weights", None) == INT8 or getattr(what, "in_int8", False):
        raise UserError("weights in int8 are not exported; export what they were rounded of, with int8=True (--int8)")
    if isinstance(what, Trained):
        for option, value in {"inputs": inputs, "state": state, "lengths": lengths, "reverse": reverse}.items():
            if value is not None and value is not False:
                raise UserError(f"{option} is not for a trained model, which says itself what it takes")
        if train:
            raise UserError(
                "train is not for a trained model: export a cell, a layer or a Recurrent, which has no vocabulary"
            )
        return form.write_trained(what, path, overwrite=overwrite, **options)
    stack = stack_of(what, inputs, state, reverse=reverse)
    if to != "onnx" and not stack.can_step:
        raise UserError(
            f"{stack.name} runs from the end of a sequence too, and {to} steps: export it to onnx, or one direction of it"
        )
    if int8 and not any(d.step().matrices for d in stack.directions):
        raise UserError(f"{stack.name} has no matrices: leave out int8, which would change nothing")
    return form.write(stack, path, overwrite=overwrite, **options)
