"""What a task is to the rest of the house: settings, prepared data, a network, batches, a score, and a trained model."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol

from throughtime.config import Config, RunConfig, place_in
from throughtime.errors import UserError, unknown
from throughtime.runs import Run

if TYPE_CHECKING:
    import torch
    from torch import nn

# name -> (module and class, what it is in a sentence);
# a task's module is imported when it is asked for, and imports torch only in its functions
TASKS = {
    "text": ("throughtime.tasks.text:TextTask", "A language model of text files, that scores and writes."),
    "classify": ("throughtime.tasks.classify:ClassifyTask", "A label for a text: sentiment, topic, language."),
    "tag": ("throughtime.tasks.tag:TagTask", "A tag for every word of a sentence: its part of speech."),
    "translate": (
        "throughtime.tasks.translate:TranslateTask",
        "A sequence from a sequence: translation, spelling to sound.",
    ),
}

Advance = Callable[[float], None]


def ignore(amount: float) -> None:
    """A progress bar that nobody watches."""


class Stream(Protocol):
    """Endless batches whose place can be saved."""

    per_epoch: int
    batch_tokens: int  # about what a batch of all processes holds

    def next(self, device: torch.device) -> tuple[Any, bool]:
        """A batch for the network, and whether the state begins anew with it."""

    def state(self) -> dict[str, int]:
        """The place, as JSON can hold it."""

    def restore(self, state: dict[str, int]) -> None:
        """Go on from a place."""


class Task(ABC, Generic[Config]):
    """A kind of problem. It holds nothing: what it knows is in the settings and the run folder.

    The network it builds is called as `network(batch, state) -> (nats summed, how many they are, state)`, whichever the task, so
    that one training loop serves all.
    """

    name: ClassVar[str]
    config_type: type[Config]
    files: ClassVar[tuple[str, ...]] = ()  # what `prepare` writes that the trained model needs
    aligned: ClassVar[bool] = False  # whether files may belong together, line by line

    def check(self, config: Config) -> None:
        """What the settings' own types cannot say. Raises: UserError that begins with the key."""

    @abstractmethod
    def prepare(self, config: Config, files: list[Path], valid: list[Path], folder: Path, advance: Advance) -> Config:
        """Read and check the user's files once, write what training needs into `folder`, choose every setting left open.

        Raises: UserError for input that cannot be trained on.
        """

    def describe(self, config: Config) -> str:
        """The network in a few words, for whoever watches."""
        m = config.model  # type: ignore[attr-defined]
        kind = "a Transformer of the size of " if getattr(m, "kind", "recurrent") == "transformer" else ""
        return f"{kind}{m.cell} {m.layers} × {m.hidden_size}, dropout {m.dropout:g}"

    @abstractmethod
    def network(self, config: Config, run: Run) -> nn.Module:
        """A fresh network."""

    @abstractmethod
    def stream(self, config: Config, data: Path, rows: slice) -> Stream:
        """The batches that training walks through; `rows` are this process's share of each batch."""

    @abstractmethod
    def quick_tokens(self, config: Config, data: Path) -> int:
        """About how many tokens a quick `score` reads."""

    @abstractmethod
    def score(self, network: nn.Module, config: Config, data: Path, *, quick: bool) -> dict[str, float]:
        """Held-out scores. `loss` is the one that decides, the lower the better. quick: on a bounded part, while training."""

    @abstractmethod
    def open(self, run: Run, config: Config) -> Trained:
        """The trained model of a run."""


class Trained(ABC):
    """A trained model: what `load` returns. Every task adds its own verbs."""

    options: ClassVar[tuple[str, ...]] = ()  # what `predict` takes beside the lines, on the command line

    def __init__(self, run: Run, config: Any, network: nn.Module) -> None:
        self.run, self.config, self.network = run, config, network.eval()

    @abstractmethod
    def evaluate(self, files: list[Path], advance: Advance = ignore) -> dict[str, Any]:
        """Scores on the user's files."""

    @abstractmethod
    def predict(self, lines: Iterable[str], batch: int = 64) -> Iterator[dict[str, Any]]:
        """What it makes of each line, in order. batch: how many lines are read before the first is answered."""

    @abstractmethod
    def written(self, values: dict[str, Any]) -> str:
        """One of the predictions, as the command line writes it."""

    def info(self) -> dict[str, Any]:
        """What it is, trained on what, for how long, with what scores."""
        config: RunConfig = self.config
        return {
            "task": config.task,
            "parameters": sum(p.numel() for p in self.network.parameters()),
            "files": config.files,
            "valid": config.valid,
            **self.run.scores(),
            "settings": config.model_dump(exclude={"format", "task", "files", "valid"}),
        }


def find_task(name: str) -> Task[Any]:
    """The task called `name`. Raises: UserError that names the nearest."""
    if name not in TASKS:
        raise UserError(unknown("task", name, TASKS))
    module, _, attribute = TASKS[name][0].partition(":")
    task: Task[Any] = getattr(importlib.import_module(module), attribute)()
    return task


def load(folder: str | Path) -> Any:
    """The trained model in a run folder.

    Returns: for the task `text` a `throughtime.tasks.text.TextModel`, with `generate`, `stream`, `predict` and `evaluate`.
    Raises: UserError where the folder is no run, damaged, or from a newer version.
    """
    run = Run.open(Path(folder))
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
