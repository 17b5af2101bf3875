"""evaluate: how well a model does on files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from throughtime.cli.output import Json, LabelColumn, Run, TextColumn, asked, opened, spooled, write_values


def evaluate(
    run: Run,
    files: Annotated[list[Path], Parameter(help="What to score; - is standard input.")],
    /,
    *,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    json: Json = False,
) -> None:
    """Score a model on files as it was trained on. text: nats, bits and perplexity, the state carried through; classify: accuracy,
    macro F1, calibration, confusion; tag: accuracy over known and unknown words; translate: sacreBLEU and chrF."""
    model = opened(run)
    options = asked(model.evaluate, text_column=text_column, label_column=label_column)
    from throughtime.training.progress import Reporter

    with spooled(files) as paths:
        size = sum(path.stat().st_size for path in paths if path.is_file())
        with Reporter().counting("evaluating", size, "bytes") as advance:
            values = model.evaluate(paths, advance, **options)
    write_values(values, json)
