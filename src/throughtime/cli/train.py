"""train: files to a run folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from pydantic import BaseModel

from throughtime.cli.output import whole
from throughtime.config import STDIN, Training, to_yaml
from throughtime.errors import UserError
from throughtime.tasks.text import TextData, TextNetwork

Files = Annotated[list[Path] | None, Parameter(help="What to train on; - is standard input.")]
Out = Annotated[Path | None, Parameter(help="The run folder to make.")]
Valid = Annotated[Path | None, Parameter(help="A held-out file. [default: the end of each file is held out]")]
ConfigFile = Annotated[Path | None, Parameter(help="A YAML file of settings; where both say something, options win.")]
Minutes = Annotated[float | None, Parameter(help="The budget in minutes. [default: 5]")]
Epochs = Annotated[float | None, Parameter(help="The budget in passes through the data.")]
Steps = Annotated[int | None, Parameter(help="The budget in steps.", converter=whole)]
Seed = Annotated[int | None, Parameter(help="Of everything that is drawn. [default: 0]")]
Resume = Annotated[bool, Parameter(help="Go on with a training that was cut off.", negative="")]
Overwrite = Annotated[bool, Parameter(help="Replace a run that --out holds.", negative="")]
PrintConfig = Annotated[bool, Parameter(help="Print the settings as YAML, and do nothing.", negative="")]
Quiet = Annotated[bool, Parameter(help="No words and no bar.", negative="")]


def text(
    files: Files = None,
    /,
    *,
    out: Out = None,
    valid: Valid = None,
    config: ConfigFile = None,
    minutes: Minutes = None,
    epochs: Epochs = None,
    steps: Steps = None,
    seed: Seed = None,
    model: TextNetwork = TextNetwork(),  # noqa: B008  (never changed)
    data: TextData = TextData(),  # noqa: B008
    training: Training = Training(),  # noqa: B008
    resume: Resume = False,
    overwrite: Overwrite = False,
    print_config: PrintConfig = False,
    quiet: Quiet = False,
) -> None:
    """Train a language model on text files: it learns to score text and to write."""
    given = {"minutes": minutes, "epochs": epochs, "steps": steps, "seed": seed}
    settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    for name, group in (("model", model), ("data", data), ("training", training)):
        if values := _given(group):
            settings[name] = values
    _train(
        "text",
        [Path("-") if str(f) == STDIN else f for f in files or []],
        out,
        valid,
        config,
        settings,
        resume,
        overwrite,
        print_config,
        quiet,
    )


def _given(group: BaseModel) -> dict[str, Any]:
    """What was said on the command line, and not what is a default."""
    return group.model_dump(exclude_unset=True)


def _train(
    task: str,
    files: list[Path],
    out: Path | None,
    valid: Path | None,
    config: Path | None,
    settings: dict[str, Any],
    resume: bool,
    overwrite: bool,
    print_config: bool,
    quiet: bool,
) -> None:
    if print_config:
        from throughtime.tasks import find_task
        from throughtime.training import prepare_config

        built = prepare_config(find_task(task), settings, config)
        if files:
            built = built.model_copy(update={"files": [str(f) for f in files]})
        if valid:
            built = built.model_copy(update={"valid": str(valid)})
        sys.stdout.write(to_yaml(built))
        return
    if out is None:
        raise UserError("where to? name a run folder: --out RUN")

    from throughtime.training import train

    train(
        task,
        files,
        out=out,
        valid=valid,
        config=config,
        resume=resume,
        overwrite=overwrite,
        progress=not quiet,
        **settings,
    )
