"""train: files to a run folder. The command of each task is made from the settings of the task."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from pydantic import BaseModel

from throughtime.cli.output import DATA, MODEL, OUTPUT, TRAINING, whole
from throughtime.config import BUDGETS, STDIN, to_yaml
from throughtime.errors import UserError
from throughtime.tasks.registry import find_task, task_names

Files = Annotated[list[Path] | None, Parameter(group=DATA, help="What to train on; - is standard input.")]
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
Flag = Annotated[bool, Parameter(negative="")]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What can be said of a training whatever its task; None: left open."""

    config: Annotated[
        Path | None, Parameter(group=DATA, help="A YAML file of settings; where both say something, options win.")
    ] = None
    minutes: Annotated[float | None, Parameter(group=TRAINING, help="The budget in minutes. [default: 5]")] = None
    epochs: Annotated[float | None, Parameter(group=TRAINING, help="The budget in passes through the data.")] = None
    steps: Annotated[int | None, Parameter(group=TRAINING, help="The budget in steps.", converter=whole)] = None
    seed: Annotated[int | None, Parameter(group=TRAINING, help="Of everything that is drawn. [default: 0]")] = None
    device: Annotated[
        Literal["auto", "cpu", "cuda"] | None,
        Parameter(group=TRAINING, help="The same as --training.device: what computes. [default: auto]"),
    ] = None
    resume: Annotated[Flag, Parameter(group=TRAINING, help="Go on with a training that was cut off.")] = False
    out: Annotated[Path | None, Parameter(group=OUTPUT, help="The run folder to make.")] = None
    overwrite: Annotated[Flag, Parameter(group=OUTPUT, help="Replace a run that --out holds.")] = False
    print_config: Annotated[Flag, Parameter(group=OUTPUT, help="Print the settings as YAML, and do nothing.")] = False
    quiet: Annotated[Flag, Parameter(group=OUTPUT, help="No words and no bar.")] = False


NONE_GIVEN = Options()


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

    def command(
        files: Files = None,
        /,
        *,
        valid: Any = None,
        own: Annotated[Options, Parameter(name="*")] = NONE_GIVEN,
        init_from: InitFrom = None,
        model: Any = None,
        data: Any = None,
        training: Any = None,
    ) -> None:
        settings: dict[str, Any] = {
            key: value for key in (*BUDGETS, "seed") if (value := getattr(own, key)) is not None
        }
        for key, group in (("model", model), ("data", data), ("training", training)):
            if values := _given(group):
                settings[key] = values
        _shorthand(settings, "model", "init_from", None if init_from is None else str(init_from))
        _shorthand(settings, "training", "device", own.device)
        read = [Path("-") if str(f) == STDIN else f for f in files or []]
        held = valid if isinstance(valid, list) else [valid] if valid else []
        if own.print_config:
            _print_config(name, read, held, own.config, settings)
            return
        if own.out is None:
            raise UserError("where to? name a run folder: --out RUN")
        from throughtime.training import train

        train(
            name,
            read,
            out=own.out,
            valid=held,
            config=own.config,
            resume=own.resume,
            overwrite=own.overwrite,
            progress=not own.quiet,
            **settings,
        )

    groups = {"model": MODEL, "data": DATA, "training": TRAINING}
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


def _shorthand(settings: dict[str, Any], group: str, name: str, value: Any) -> None:
    """Put what a short option says where its long one would. Raises: UserError where both say something."""
    if value is None:
        return
    if name in settings.setdefault(group, {}):
        short = name.replace("_", "-")
        raise UserError(f"--{short} and --{group}.{short} are one setting; give one")
    settings[group][name] = value


def _print_config(
    name: str, files: list[Path], valid: list[Path], config: Path | None, settings: dict[str, Any]
) -> None:
    from throughtime.training import prepare_config

    built = prepare_config(find_task(name).reading(files, settings.get("data", {})), settings, config)
    if files:
        built = built.model_copy(update={"files": [str(f) for f in files]})
    if valid:
        named = [str(v) for v in valid]
        built = built.model_copy(update={"valid": named if len(named) > 1 else named[0]})
    sys.stdout.write(to_yaml(built))
