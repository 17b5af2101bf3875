"""evaluate: how well a model does on files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from throughtime.cli.options import said, taking
from throughtime.cli.output import Download, Folder, Json, opened, spooled, write_values


@taking("evaluate")
def evaluate(
    run: Folder,
    files: Annotated[list[Path], Parameter(help="What to score; - is standard input.")],
    /,
    *,
    download: Download = False,
    json: Json = False,
    **options: Any,
) -> None:
    """Score a model on files as it was trained on. text: nats, bits and perplexity, the state carried through; classify: accuracy,
    macro F1, calibration, confusion; tag: accuracy over known and unknown words; translate: sacreBLEU and chrF."""
    model = opened(run, download)
    options = said(model, "evaluate", options)
    from throughtime.training.progress import Reporter

    with spooled(files) as paths, Reporter().counting("evaluating", 1.0, "") as advance:
        values = model.evaluate(paths, advance, **options)
    write_values(values, json)
