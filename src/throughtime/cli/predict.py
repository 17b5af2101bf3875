"""predict: what a model makes of each line."""

from __future__ import annotations

import json as json_module
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from throughtime.cli.output import Json, Run, TextColumn, asked, opened, spooled, whole
from throughtime.config import STDIN
from throughtime.errors import UserError
from throughtime.files import typed
from throughtime.tasks.source import Source


def predict(
    run: Run,
    file: Annotated[
        Path,
        Parameter(
            help="Lines; - is standard input. classify: also a table: .csv, .tsv, .jsonl, any with --text-column."
        ),
    ] = Path(STDIN),
    /,
    *,
    beam: Annotated[
        int | None,
        Parameter(help="translate: hypotheses kept in the search; 1 is greedy. [default: 5]", converter=whole),
    ] = None,
    alignments: Annotated[
        Path | None, Parameter(help="translate: a file for the attention, as JSON; beside it a picture, .png.")
    ] = None,
    temperature: Annotated[
        float | None, Parameter(help="translate: draw in place of searching; under 1 is safer, 0 takes the likeliest.")
    ] = None,
    seed: Annotated[int | None, Parameter(help="translate: of what is drawn.", converter=whole)] = None,
    text_column: TextColumn = None,
    json: Json = False,
) -> None:
    """What a model makes of each line. text: log-probability (nats), line; classify: label, probability, line; tag: CoNLL-U, of
    plain sentences or of CoNLL-U; translate: the translation. With --json an object a line."""
    model = opened(run)
    options = asked(
        model.predict, beam=beam, temperature=temperature, seed=seed, alignments=None if alignments is None else True
    )
    reading = asked(model.lines_of, text_column=text_column)
    if temperature is not None and beam is not None:
        raise UserError("--beam and --temperature: a search draws nothing; give one")
    if seed is not None and temperature is None:
        raise UserError("--seed: only what is drawn hangs on it; give --temperature too")
    if alignments is not None:
        if alignments.suffix == ".png":
            raise UserError(f"--alignments: {alignments} is where the picture goes; name a file for the JSON, .json")
        if not alignments.resolve().parent.is_dir():
            raise UserError(f"--alignments: there is no folder {alignments.resolve().parent}")
        if alignments.exists() or alignments.with_suffix(".png").exists():
            raise UserError(f"--alignments: {alignments} or its picture is there already; name another file")
    kept = []
    if str(file) == STDIN and typed():
        options["batch"] = 1  # whoever types wants an answer to each line
    with spooled([file]) if reading else nullcontext([file]) as (path,):  # a table is read whole
        lines = model.lines_of(path, **reading)
    for values in model.predict(Source.of(file, option="--") if lines is None else lines, **options):
        if alignments is not None:
            kept.append(values)
            values = {k: v for k, v in values.items() if k not in ("source", "target", "attention")}
        print(json_module.dumps(values, ensure_ascii=False) if json else model.written(values), flush=True)
    if alignments is not None:
        from throughtime.cli.alignments import write_alignments

        write_alignments(kept, alignments)
