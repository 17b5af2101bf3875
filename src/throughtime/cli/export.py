"""export: a trained model out of Python."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from throughtime.cli.output import Download, Folder, Json, opened, write_values


def export(
    run: Folder,
    /,
    *,
    to: Annotated[Literal["onnx", "c", "wasm"], Parameter(help="What to write.")],
    out: Annotated[Path, Parameter(help="A folder, new or empty.")],
    target: Annotated[
        str | None, Parameter(help="c: the processor, as x86-64-v3, aarch64, cortex-m4, riscv64. [default: this one]")
    ] = None,
    source: Annotated[bool, Parameter(help="c: C99 to be compiled, in place of an object.", negative="")] = False,
    int8: Annotated[bool, Parameter(help="Weights in eight bits.", negative="")] = False,
    name: Annotated[
        str | None, Parameter(help="c, wasm: what functions and files are called. [default: the task]")
    ] = None,
    overwrite: Annotated[bool, Parameter(help="Replace an export that is there.", negative="")] = False,
    download: Download = False,
    json: Json = False,
) -> None:
    """Write a trained model so that it runs without Python: as ONNX (any task), as C or as WebAssembly (text), with what else it
    needs, test vectors, and a README. What is written has been set beside the model first; where they differ nothing is written.
    Lists the files, with their sizes in bytes."""
    model = opened(run, download)
    from throughtime.exporting import export as write

    folder = write(model, to, out, target=target, source=source, int8=int8, name=name, overwrite=overwrite)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    write_values({str(path.relative_to(folder)): path.stat().st_size for path in files}, json)
