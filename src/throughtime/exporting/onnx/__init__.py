"""As ONNX: one step, and whole sequences; for any number of steps and sequences.

Needs the extra `export`: onnx writes and checks, onnxruntime runs what was written before it is kept.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from throughtime.errors import UserError
from throughtime.exporting.folder import check_free, new_folder
from throughtime.exporting.stack import Stack
from throughtime.files import replacing


def write(stack: Stack, path: Path, *, overwrite: bool = False, lengths: bool = False, int8: bool = False) -> Path:
    """Write a stack of cells as ONNX, checked against the reference by onnxruntime before it is kept.

    Args:
        path: a file that ends in .onnx, for whole sequences; else a folder, for step.onnx (where nothing of the stack begins at the
            end of a sequence), sequence.onnx, vectors.json and README.md.
        overwrite: replace an export that is there.
        lengths: whole sequences take the lengths of sequences besides, int64 [B].
        int8: weights in eight bits, each output's in a scale of its own. What that changes is measured and said in the README.
    Returns: the path.
    Raises: UserError where onnx or onnxruntime is not installed; where an operation cannot be exported, naming it; where what was
        written does not agree with the reference, by how much; where something is in the way.
    """
    check_installed("onnx", "onnxruntime")
    check_free(path, overwrite=overwrite)
    from throughtime.exporting.onnx.writing import write_folder, written

    if path.suffix == ".onnx":
        with replacing(path) as temporary:
            temporary.write_bytes(written(stack, steps=False, lengths=lengths, int8=int8).data)
    else:
        with new_folder(path, overwrite=overwrite) as folder:
            write_folder(stack, folder, lengths=lengths, int8=int8)
    return path


def check_installed(*names: str) -> None:
    """Raises: UserError where one of these libraries is not installed."""
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(f"onnx needs {name}: pip install 'throughtime[export]'") from error
