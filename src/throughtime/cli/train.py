"""train: files to a run folder. The command of each task is made from the settings of the task."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from pydantic import BaseModel

from throughtime.cli.output import DATA, MODEL, OUTPUT, TRAINING, whole
from throughtime.config import STDIN, Training, to_yaml
from throughtime.errors import UserError
from throughtime.tasks.registry import find_task, task_names

Files = Annotated[list[Path] | None, Parameter(group=DATA, help="What to train on; - is standard input.")]
Out = Annotated[Path | None, Parameter(group=OUTPUT, help="The run folder to make.")]
Valid = Annotated[
    Path | None, Parameter(group=DATA, help="A held-out file. [default: a part of the files is held out]")
]
ValidFiles = Annotated[
    list[Path] | None,
    Parameter(
        group=DATA,
        help="Held-out files, as many as are trained on. [default: a part is held out]",
        consume_multiple=True,
    ),
]
InitFrom = Annotated[Path | None, Parameter(group=MODEL, help="The same as --model.init-from: a run to begin from.")]
ConfigFile = Annotated[
    Path | None, Parameter(group=DATA, help="A YAML file of settings; where both say something, options win.")
]
Minutes = Annotated[float | None, Parameter(group=TRAINING, help="The budget in minutes. [default: 5]")]
Epochs = Annotated[float | None, Parameter(group=TRAINING, help="The budget in passes through the data.")]
Steps = Annotated[int | None, Parameter(group=TRAINING, help="The budget in steps.", converter=whole)]
Seed = Annotated[int | None, Parameter(group=TRAINING, help="Of everything that is drawn. [default: 0]")]
Resume = Annotated[bool, Parameter(group=TRAINING, help="Go on with a training that was cut off.", negative="")]
Overwrite = Annotated[bool, Parameter(group=OUTPUT, help="Replace a run that --out holds.", negative="")]
PrintConfig = Annotated[bool, Parameter(group=OUTPUT, help="Print the settings as YAML, and do nothing.", negative="")]
Quiet = Annotated[bool, Parameter(group=OUTPUT, help="No words and no bar.", negative="")]


def __getattr__(name: str) -> Callable[..., None]:
    """The command of a task, when it is asked for."""
    if name not in task_names():
        raise AttributeError(name)
    try:
        return _command(name)
    except UserError as error:  # of a package that cannot be loaded, the other tasks still can
        message = str(error)

        def refuse(*_: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> None:
            """A task that cannot be loaded."""
            raise UserError(message)

        return refuse


def _command(name: str) -> Callable[..., None]:
    task = find_task(name)

    def command(  # noqa: PLR0913
        files: Files = None,
        /,
        *,
        out: Out = None,
        valid: Any = None,
        init_from: InitFrom = None,
        config: ConfigFile = None,
        minutes: Minutes = None,
        epochs: Epochs = None,
        steps: Steps = None,
        seed: Seed = None,
        model: Any = None,
        data: Any = None,
        training: Annotated[Training, Parameter(group=TRAINING)] = Training(),  # noqa: B008  (never changed)
        resume: Resume = False,
        overwrite: Overwrite = False,
        print_config: PrintConfig = False,
        quiet: Quiet = False,
    ) -> None:
        given = {"minutes": minutes, "epochs": epochs, "steps": steps, "seed": seed}
        settings: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        for key, group in (("model", model), ("data", data), ("training", training)):
            if values := _given(group):
                settings[key] = values
        if init_from is not None:
            settings.setdefault("model", {})["init_from"] = str(init_from)
        read = [Path("-") if str(f) == STDIN else f for f in files or []]
        held = valid if isinstance(valid, list) else [valid] if valid else []
        if print_config:
            _print_config(name, read, held, config, settings)
            return
        if out is None:
            raise UserError("where to? name a run folder: --out RUN")
        from throughtime.training import train

        train(
            name,
            read,
            out=out,
            valid=held,
            config=config,
            resume=resume,
            overwrite=overwrite,
            progress=not quiet,
            **settings,
        )

    groups = {"model": MODEL, "data": DATA}
    kinds = {key: task.config_type.model_fields[key].annotation for key in groups}
    command.__annotations__ |= {key: Annotated[kinds[key], Parameter(group=group)] for key, group in groups.items()}
    command.__annotations__["valid"] = ValidFiles if task.aligned else Valid
    assert command.__kwdefaults__ is not None
    command.__kwdefaults__ |= {key: kind() for key, kind in kinds.items() if kind is not None}
    if "init_from" not in kinds["model"].model_fields:  # type: ignore[union-attr]
        signature = inspect.signature(command)
        kept = [p for n, p in signature.parameters.items() if n != "init_from"]
        command.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
    command.__name__ = name
    command.__doc__ = task_names()[name]
    return command


def _given(group: BaseModel) -> dict[str, Any]:
    """What was said on the command line, and not what is a default."""
    return group.model_dump(exclude_unset=True)


def _print_config(
    name: str, files: list[Path], valid: list[Path], config: Path | None, settings: dict[str, Any]
) -> None:
    from throughtime.training import prepare_config

    built = prepare_config(find_task(name), settings, config)
    if files:
        built = built.model_copy(update={"files": [str(f) for f in files]})
    if valid:
        named = [str(v) for v in valid]
        built = built.model_copy(update={"valid": named if len(named) > 1 else named[0]})
    sys.stdout.write(to_yaml(built))
