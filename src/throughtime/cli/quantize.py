"""quantize: a run with weights in eight bits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from throughtime.cli.output import Download, Folder, Json, opened, write_values


def quantize(
    run: Folder,
    /,
    *,
    out: Annotated[Path, Parameter(help="A folder for the new run, new or empty.")],
    overwrite: Annotated[bool, Parameter(help="Replace a run that is there.", negative="")] = False,
    download: Download = False,
    json: Json = False,
) -> None:
    """Write a trained model as another run whose weights are rounded to eight bits, a scale for each output. It answers and scores
    as every run does, quicker where its recurrent layers are large. Tells the bytes of the weights before and after."""
    model = opened(run, download)
    model.quantize().save(out, overwrite=overwrite)
    name = model.run.weights.name
    write_values({"bytes_before": model.run.weights.stat().st_size, "bytes_after": (out / name).stat().st_size}, json)
