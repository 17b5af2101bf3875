"""inspect: what a network remembers of an input, as a page and as numbers."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from throughtime.cli.options import said, taking
from throughtime.cli.output import Download, Folder, Json, opened, whole
from throughtime.config import STDIN
from throughtime.errors import UserError

MOST = 1_000_000  # inputs


@taking("inspect")
def inspect(
    run: Folder,
    file: Annotated[Path, Parameter(help="Lines, as predict takes them, or a text; - is standard input.")] = Path(
        STDIN
    ),
    /,
    *,
    out: Annotated[Path | None, Parameter(help="The page to write, .html.")] = None,
    pictures: Annotated[
        Path | None, Parameter(help="A new folder for the pictures, .png (needs the extra plot).")
    ] = None,
    output: Annotated[
        int | None,
        Parameter(
            help="The answer that is looked at first, by its number in the first input. [default: the last that is no sign]",
            converter=whole,
        ),
    ] = None,
    inputs: Annotated[
        int, Parameter(help="Inputs that gradients and units are averaged over, at most.", converter=whole)
    ] = 50,
    overwrite: Annotated[
        bool, Parameter(help="Write over a page, or the pictures in a folder, that are there.", negative="")
    ] = False,
    download: Download = False,
    json: Json = False,
    **options: Any,
) -> None:
    """What a network remembers: which inputs mattered for an answer, gradients through time, the network unrolled over an input,
    states and gates. Writes a page that needs no network (--out), the same numbers as JSON (--json), or pictures; without these a
    few words."""
    if not 1 <= inputs <= MOST:
        raise UserError(f"--inputs: got {inputs}; from 1 to {MOST:,}")
    _check_places(out, pictures, overwrite)
    model = opened(run, download)
    options = said(model, "inspect", options)
    from throughtime.inspect.report import look_into
    from throughtime.training.progress import Reporter

    if pictures is not None:
        from throughtime.inspect.pictures import check_plot

        check_plot()
    with Reporter().counting("looking", inputs, "inputs") as advance:
        values = look_into(model, file, output=output, most=inputs, advance=advance, **options)
    if out is not None:
        from throughtime.inspect.page import page
        from throughtime.runs import write_text

        write_text(out, page(values))
    if pictures is not None:
        from throughtime.inspect.pictures import draw

        draw(values, pictures)
    if json:
        print(json_module.dumps(values, ensure_ascii=False))
    elif out is None and pictures is None:
        from throughtime.inspect.words import in_words

        print(in_words(values))


def _check_places(out: Path | None, pictures: Path | None, overwrite: bool) -> None:
    """Raises: UserError where the page or the pictures cannot be written, or would write over what is there."""
    if out is not None and pictures is not None and out.resolve() == pictures.resolve():
        raise UserError(f"--pictures: {pictures} is where the page goes; name a folder")
    if out is not None and out.is_dir():
        raise UserError(f"--out: {out} is a folder; name a file for the page, .html")
    if pictures is not None and pictures.exists() and not pictures.is_dir():
        raise UserError(f"--pictures: {pictures} is a file; name a folder")
    for name, path in (("--out", out), ("--pictures", pictures)):
        if path is not None and path.exists() and not overwrite:
            raise UserError(f"{name}: {path} is there already; name another, or --overwrite")
        if path is not None and not path.resolve().parent.is_dir():
            raise UserError(f"{name}: there is no folder {path.resolve().parent}")
