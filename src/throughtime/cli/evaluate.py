"""evaluate: how well a model predicts a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from throughtime.cli.output import Json, Run, opened, spooled, write_values


def evaluate(
    run: Run,
    files: Annotated[list[Path], Parameter(help="What to score; - is standard input.")],
    /,
    *,
    json: Json = False,
) -> None:
    """Score a model on files: nats, bits and perplexity, walking the text once with the state carried."""
    model = opened(run)
    from throughtime.training.progress import Reporter

    with spooled(files) as paths:
        size = sum(path.stat().st_size for path in paths if path.is_file())
        with Reporter().counting("evaluating", size, "bytes") as advance:
            values = model.evaluate(paths, advance)
    write_values(values, json)
