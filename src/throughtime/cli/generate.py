"""generate: let a model write."""

from __future__ import annotations

import json as json_module
import sys
from typing import Annotated

from cyclopts import Parameter

from throughtime.cli.output import Json, Run, opened, whole
from throughtime.config import STDIN
from throughtime.errors import UserError
from throughtime.files import standard_input


def generate(
    run: Run,
    /,
    *,
    prompt: Annotated[str, Parameter(help="What the text begins with; - reads it from standard input.")] = "",
    length: Annotated[int, Parameter(help="Tokens to write.", converter=whole)] = 400,
    temperature: Annotated[float, Parameter(help="Under 1 is safer, over 1 wilder; 0 takes the likeliest.")] = 0.8,
    top_k: Annotated[int | None, Parameter(help="Draw from the K likeliest tokens alone.", converter=whole)] = None,
    top_p: Annotated[float | None, Parameter(help="Draw from the likeliest tokens that make up P alone.")] = None,
    samples: Annotated[int, Parameter(help="How many texts to write.", converter=whole)] = 1,
    seed: Annotated[int | None, Parameter(help="The same seed writes the same.", converter=whole)] = None,
    json: Json = False,
) -> None:
    """Write text, piece by piece as it comes."""
    if samples < 1:
        raise UserError(f"--samples: got {samples}; at least 1")
    if prompt == STDIN:
        try:
            prompt = standard_input().read().decode("utf-8").removesuffix("\n")
        except UnicodeDecodeError as error:
            raise UserError(f"{STDIN}: byte {error.start} is not UTF-8") from error
    model = opened(run)
    if not hasattr(model, "stream"):
        raise UserError(f"{run}: a model of the task {model.config.task!r} does not write on its own; use predict")
    texts = []
    for number in range(samples):
        pieces = model.stream(
            prompt,
            length,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=None if seed is None else seed + number,
        )
        if json:
            texts.append("".join(pieces))
            continue
        if samples > 1:
            print(f"sample {number + 1} of {samples}:", file=sys.stderr, flush=True)
        sys.stdout.write(prompt)
        for piece in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n")
    if json:
        print(json_module.dumps({"prompt": prompt, "samples": texts}, ensure_ascii=False))
