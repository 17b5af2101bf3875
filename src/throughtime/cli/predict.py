"""predict: what a model makes of each input."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from throughtime.cli.options import said, taking
from throughtime.cli.output import Download, Folder, Json, opened
from throughtime.config import STDIN
from throughtime.errors import UserError
from throughtime.files import typed


@taking("predict")
def predict(
    run: Folder,
    file: Annotated[
        Path,
        Parameter(help="Lines, or a file as it was trained on, whose answers are set aside; - is standard input."),
    ] = Path(STDIN),
    /,
    *,
    alignments: Annotated[
        Path | None, Parameter(help="translate: a file for the attention, as JSON; beside it a picture, .png.")
    ] = None,
    download: Download = False,
    json: Json = False,
    **options: Any,
) -> None:
    """What a model makes of each input, in its place: a line for each line. text: log-probability (nats), line; classify: label,
    probability, line; tag: CoNLL-U, or the lines as they stood with the tag as one more column; translate: the translation. What
    the file says is right stands beside the answer. With --json an object a line."""
    model = opened(run, download)
    options = said(model, "predict", options | {"alignments": None if alignments is None else True})
    if alignments is not None:
        if alignments.suffix == ".png":
            raise UserError(f"--alignments: {alignments} is where the picture goes; name a file for the JSON, .json")
        if not alignments.resolve().parent.is_dir():
            raise UserError(f"--alignments: there is no folder {alignments.resolve().parent}")
        if alignments.exists() or alignments.with_suffix(".png").exists():
            raise UserError(f"--alignments: {alignments} or its picture is there already; name another file")
    kept, answered = [], False
    # whoever types wants an answer to each line
    for values in model.predict(file, 1 if str(file) == STDIN and typed() else 64, **options):
        if alignments is not None:
            kept.append(values)
            values = {k: v for k, v in values.items() if k not in ("source", "target", "attention")}
        if not json and not answered and (heading := model.heading(values)) is not None:
            print(heading)
        answered = True
        print(json_module.dumps(values, ensure_ascii=False) if json else model.written(values), flush=True)
    if alignments is not None:
        from throughtime.cli.alignments import write_alignments

        write_alignments(kept, alignments)
