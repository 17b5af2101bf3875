"""predict: what a model makes of each line."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from throughtime.cli.output import Json, Run, lines_of, opened
from throughtime.config import STDIN


def predict(
    run: Run,
    file: Annotated[Path, Parameter(help="Lines; - is standard input.")] = Path(STDIN),
    /,
    *,
    json: Json = False,
) -> None:
    """The log-probability (in nats) of each line by itself: a number, a tab and the line, or with --json an object a line."""
    model = opened(run)
    for values in model.predict(lines_of(file)):
        print(json_module.dumps(values, ensure_ascii=False) if json else model.written(values))
