"""generate: let a model write."""

from __future__ import annotations

import sys
from typing import Annotated, Any

from cyclopts import Parameter

from throughtime.cli.options import said, taking
from throughtime.cli.output import Download, Folder, Json, opened, whole
from throughtime.config import STDIN
from throughtime.errors import UserError
from throughtime.files import standard_input


@taking("generate")
def generate(
    run: Folder,
    /,
    *,
    samples: Annotated[int, Parameter(help="How many to write.", converter=whole)] = 1,
    download: Download = False,
    json: Json = False,
    **options: Any,
) -> None:
    """Let a model write, piece by piece as it comes."""
    if samples < 1:
        raise UserError(f"--samples: got {samples}; at least 1")
    if options.get("prompt") == STDIN:
        try:
            options["prompt"] = standard_input().read().decode("utf-8").removesuffix("\n")
        except UnicodeDecodeError as error:
            raise UserError(f"{STDIN}: byte {error.start} is not UTF-8") from error
    model = opened(run, download)
    if model.task.generate_options is None:
        raise UserError(f"{run}: a model of the task {model.task.name!r} does not write on its own; use predict")
    pieces = model.writing(samples, said(model, "generate", options), json=json, tell=_tell)
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()


def _tell(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
