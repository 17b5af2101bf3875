"""The options of a verb: its own, and those of all tasks, merged by name."""

from __future__ import annotations

import inspect
import types
import typing
import warnings
from collections.abc import Callable, Iterator
from typing import Annotated, Any, TypeVar

from cyclopts import Parameter
from pydantic_core import PydanticUndefined

from throughtime.cli.output import whole
from throughtime.config import Strict, build_options
from throughtime.errors import UserError
from throughtime.tasks.registry import find_task, task_names

Verb = TypeVar("Verb", bound=Callable[..., Any])


def options_of(verb: str) -> Iterator[tuple[str, type[Strict]]]:
    """The options of a verb, task by task; says which tasks cannot be loaded."""
    for name in task_names():
        try:
            kind = getattr(find_task(name), f"{verb}_options")
        except UserError as error:
            warnings.warn(str(error), stacklevel=2)
            continue
        if kind is not None:
            yield name, kind


def taking(verb: str) -> Callable[[Verb], Verb]:
    """Give a command the options that the tasks have for `verb`, beside its own; it gets those that were said as `**options`."""

    def decorate(command: Verb) -> Verb:
        signature = inspect.signature(command)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        found: dict[str, list[tuple[str, Any]]] = {}
        for task, kind in options_of(verb):
            for name, field in kind.model_fields.items():
                if name not in signature.parameters:
                    found.setdefault(name, []).append((task, field))
        made = [_parameter(name, fields) for name, fields in found.items()]
        command.__signature__ = signature.replace(parameters=[*own, *made])  # type: ignore[attr-defined]
        command.__annotations__ |= {p.name: p.annotation for p in made}
        return command

    return decorate


def _parameter(name: str, fields: list[tuple[str, Any]]) -> inspect.Parameter:
    """An option of one task or several; left out, each has its own default."""
    field = fields[0][1]
    words = f"{', '.join(task for task, _ in fields)}: {field.description or ''}".strip()
    defaults: dict[Any, list[str]] = {}
    for task, one in fields:
        if one.default not in (None, "", False, PydanticUndefined):
            defaults.setdefault(one.default, []).append(task)
    if defaults:
        each = [str(v) if len(defaults) == 1 else f"{', '.join(tasks)} {v}" for v, tasks in defaults.items()]
        words += f" [default: {'; '.join(each)}]"
    plain = [a for a in typing.get_args(field.annotation) if a is not types.NoneType] or [field.annotation]
    more = {"converter": whole} if plain == [int] else {"negative": ""} if plain == [bool] else {}
    annotation: Any = Annotated[typing.Optional[field.annotation], Parameter(help=words, **more)]  # noqa: UP045
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def said(model: Any, verb: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, checked.

    Raises: UserError, naming the option, where the model's task has it not, or its value is out of range.
    """
    given = {name: value for name, value in options.items() if value is not None}
    kind = getattr(model.task, f"{verb}_options")
    known = kind.model_fields if kind is not None else {}
    for name in given:
        if name not in known:
            raise UserError(f"--{name.replace('_', '-')}: a model of the task {model.task.name!r} has no such option")
    if kind is not None:
        try:
            build_options(kind, given)
        except UserError as error:
            name, colon, rest = str(error).partition(":")
            raise UserError(f"--{name.replace('_', '-')}{colon}{rest}" if name in known else str(error)) from error
    return given
