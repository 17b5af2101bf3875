"""The tasks there are: our own, and those that other packages bring.

A package brings a task by an entry point of the group `throughtime.tasks`, whose name is the task's and whose value is
`module:class`; it is then a task of the command line, of `train` and of `load` like any other.
"""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from throughtime.config import place_in
from throughtime.errors import UserError, unknown
from throughtime.hub import find_run
from throughtime.runs import Run

if TYPE_CHECKING:
    from throughtime.tasks.base import Task, Trained
    from throughtime.tasks.classify import ClassifyModel
    from throughtime.tasks.classify_audio_model import AudioModel
    from throughtime.tasks.forecast_model import ForecastModel
    from throughtime.tasks.music_model import MusicModel
    from throughtime.tasks.tag import TagModel
    from throughtime.tasks.text import TextModel
    from throughtime.tasks.transcribe_model import TranscribeModel
    from throughtime.tasks.translate import TranslateModel

GROUP = "throughtime.tasks"
# name -> (module and class, what it is in a sentence);
# a task's module is imported when it is asked for, and imports torch only in its functions
BUILT_IN = {
    "text": ("throughtime.tasks.text:TextTask", "A language model of text files, that scores and writes."),
    "classify": (
        "throughtime.tasks.classify:ClassifyTask",
        "A label for a text: sentiment, topic, language; for a recording see classify-audio.",
    ),
    "classify-audio": (
        "throughtime.tasks.classify_audio:AudioTask",
        "A label for a recording: a keyword, who speaks. What train classify does with recordings.",
    ),
    "tag": ("throughtime.tasks.tag:TagTask", "A tag for every word of a sentence: its part of speech."),
    "translate": (
        "throughtime.tasks.translate:TranslateTask",
        "A sequence from a sequence: translation, spelling to sound.",
    ),
    "forecast": (
        "throughtime.tasks.forecast:ForecastTask",
        "What comes next in series of numbers, and how sure that is.",
    ),
    "transcribe": (
        "throughtime.tasks.transcribe:TranscribeTask",
        "What is said in recordings: a recogniser of your own words.",
    ),
    "music": ("throughtime.tasks.music:MusicTask", "Pieces of music: learn from a folder of them, write a new one."),
}


@cache
def _others() -> dict[str, EntryPoint]:
    """What other packages bring; a name of our own stays ours."""
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in BUILT_IN}


def task_names() -> dict[str, str]:
    """Every task's name, and what it is in a sentence."""
    own = {name: about for name, (_, about) in BUILT_IN.items()}
    return own | {
        name: f"A task of the package {point.dist.name if point.dist else point.module}."
        for name, point in _others().items()
    }


@cache
def find_task(name: str) -> Task[Any, Any]:
    """The task called `name`. Raises: UserError that names the nearest, or the package that cannot be loaded."""
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name][0].partition(":")
        made: Task[Any, Any] = getattr(importlib.import_module(module), attribute)()
        return made
    if name not in _others():
        raise UserError(unknown("task", name, task_names()))
    point = _others()[name]
    try:
        other: Task[Any, Any] = point.load()()
    except Exception as error:  # of a package of somebody else's
        raise UserError(f"the task {name!r} cannot be loaded from {point.value}: {error!r}") from error
    if other.name != name:
        raise UserError(f"the task {name!r} of {point.value} calls itself {other.name!r}; give both the same name")
    return other


@overload
def load(folder: str | Path, task: Literal["text"], *, download: bool = ...) -> TextModel: ...
@overload
def load(folder: str | Path, task: Literal["classify"], *, download: bool = ...) -> ClassifyModel: ...
@overload
def load(folder: str | Path, task: Literal["classify-audio"], *, download: bool = ...) -> AudioModel: ...
@overload
def load(folder: str | Path, task: Literal["tag"], *, download: bool = ...) -> TagModel: ...
@overload
def load(folder: str | Path, task: Literal["translate"], *, download: bool = ...) -> TranslateModel: ...
@overload
def load(folder: str | Path, task: Literal["forecast"], *, download: bool = ...) -> ForecastModel: ...
@overload
def load(folder: str | Path, task: Literal["transcribe"], *, download: bool = ...) -> TranscribeModel: ...
@overload
def load(folder: str | Path, task: Literal["music"], *, download: bool = ...) -> MusicModel: ...
@overload
def load(folder: str | Path, task: str | None = ..., *, download: bool = ...) -> Trained[Any]: ...
def load(folder: str | Path, task: str | None = None, *, download: bool = False) -> Trained[Any]:
    """The trained model in a run folder.

    Args: folder: a folder here, or with `download` the name of a repository of the Hugging Face hub, user/name. task: which task
        it is of, so that an editor knows what it can; None: any.
    Returns: of the task "text" a `throughtime.tasks.text.TextModel`, of "classify" a `ClassifyModel`, and so on.
    Raises: UserError where the folder is no run, of another task, damaged, or from a newer version.
    """
    run = Run.open(find_run(folder, download=download))
    if task is not None and run.task_name() != task:
        raise UserError(f"{folder}: is a run of the task {run.task_name()!r}, not {task!r}")
    return _open(run)


def _open(run: Run) -> Trained[Any]:
    try:
        task = find_task(run.task_name())
    except UserError as error:
        raise UserError(f"{run.config}: {error}") from error
    config = run.read_config(task.config_type)
    try:
        task.check(config)
    except UserError as error:
        raise UserError(place_in(run.config, tuple(str(error).partition(":")[0].split("."))) + str(error)) from error
    return task.open(run, config)
