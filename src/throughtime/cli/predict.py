"""predict: what a model makes of each input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from throughtime.cli.options import said, taking
from throughtime.cli.output import Download, Folder, Json, LiveLine, opened
from throughtime.config import STDIN, build_options
from throughtime.errors import UserError
from throughtime.files import typed


@taking("predict")
def predict(
    run: Folder,
    files: Annotated[
        list[Path] | None,
        Parameter(
            help="Lines, or files as it was trained on, whose answers are set aside; recordings, or folders or tables of "
            "them. - is standard input. [default: -]"
        ),
    ] = None,
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
    probability, line; tag: CoNLL-U, or the lines as they stood with the tag as one more column; translate: the translation;
    transcribe: what is said in each recording, or of - in each utterance as it ends. What the file says is right stands beside the
    answer. With --json an object a line."""
    model = opened(run, download)
    options = said(model, "predict", options | {"alignments": None if alignments is None else True})
    if alignments is not None:
        _check_alignments(alignments)
    paths = files or [Path(STDIN)]
    if sum(str(path) == STDIN for path in paths) > 1:
        raise UserError(f"{STDIN} stands there twice; it can be read once")
    # whoever types wants an answer to each line
    answers = model.predict(paths, 1 if STDIN in map(str, paths) and typed() else 64, **options)
    kept: list[dict[str, Any]] = []
    shown = _shown(answers, None if alignments is None else kept)
    for line in model.lines(shown, build_options(model.task.predict_options, options), json=json):
        print(line, flush=True)
    if alignments is not None:
        from throughtime.cli.alignments import write_alignments

        write_alignments(kept, alignments)


def _check_alignments(path: Path) -> None:
    """Raises: UserError where no alignments can be written to a path."""
    if path.suffix == ".png":
        raise UserError(f"--alignments: {path} is where the picture goes; name a file for the JSON, .json")
    if not path.resolve().parent.is_dir():
        raise UserError(f"--alignments: there is no folder {path.resolve().parent}")
    if path.exists() or path.with_suffix(".png").exists():
        raise UserError(f"--alignments: {path} or its picture is there already; name another file")


def _shown(answers: Iterable[dict[str, Any]], kept: list[dict[str, Any]] | None) -> Iterator[dict[str, Any]]:
    """The answers that are written to standard output. Those that may still change go to standard error; of the others those with
    alignments are kept, and shown without."""
    line = LiveLine()
    try:
        for values in answers:
            if "partial" in values:
                line.show(values["partial"])
                continue
            line.show("")
            if kept is not None:
                kept.append(values)
                values = {k: v for k, v in values.items() if k not in ("source", "target", "attention")}
            yield values
    finally:
        line.show("")
