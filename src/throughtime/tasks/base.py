"""What a task is to the rest of the house: settings, prepared data, a network, batches, a score, and a trained model."""

from __future__ import annotations

import importlib
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from throughtime.config import Config, RunConfig, place_in
from throughtime.errors import UserError, unknown
from throughtime.runs import Run, write_text
from throughtime.tasks.what_if import WORDS, WhatIf, what_if

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

SAMPLES = "samples.json"  # a few held-out inputs, to look at while a network is trained

Advance = Callable[[float], None]
Thing = TypeVar("Thing")


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
        """A fresh network, of the settings and the files of the run alone."""

    def fill(self, network: Any, config: Config, run: Run) -> None:
        """Put into a fresh network what it is to have before it is trained, from what training needs: counts and the like."""

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
    def trained(self, run: Run, config: Config, network: nn.Module) -> Trained:
        """A network as the model of a run."""

    def open(self, run: Run, config: Config) -> Trained:
        """The trained model of a run."""
        network = run.open_weights(config, lambda: self.network(config, run))
        return self.trained(run, config, network)


@dataclass
class Example:
    """One input as a network takes it, and what is asked of it: for looking inside.

    inputs: what each step reads, as written. outputs: what each answer is about. names: of class k.
    batch: goes into `answers`, which gives log p, [outputs, classes], and lets gradients pass.
    chosen: the class of each output that is looked at. without: the batch with an input replaced by what is not known; None where
    that input cannot be.
    steps: which module holds a stack of cells that read the inputs (or wrote the outputs), and what its steps are called.
    attention: the weights of the inputs, [outputs, inputs]; None where the network has none.
    whole: of those in `steps` the ones whose steps are no outputs: these are made of all of them.
    texts: the text that each input stands for; None: as in `inputs`.
    """

    inputs: list[str]
    outputs: list[str]
    names: Callable[[int], str]
    batch: Any
    answers: Callable[[Any], torch.Tensor]
    chosen: list[int]
    without: Callable[[int], Any | None]
    steps: dict[str, list[str]]
    attention: Callable[[Any], torch.Tensor] | None = None
    whole: frozenset[str] = frozenset()
    texts: list[str] | None = None


def grouped(lines: Iterable[str], size: int) -> Iterator[list[str]]:
    """Lines in groups of up to `size`, without their ends; otherwise as `taken`."""
    return taken((line.rstrip("\r\n") for line in lines), size, getattr(lines, "ready", None))


def taken(things: Iterable[Thing], size: int, ready: Callable[[], bool] | None = None) -> Iterator[list[Thing]]:
    """What comes, in groups of up to `size`. ready: whether more can be had without waiting for it; where it says no, a group is
    what there is.

    Raises: UserError where something cannot be read, once what came before it has been given.
    """
    source, going, wrong = iter(things), True, None
    while going and wrong is None:
        group: list[Thing] = []
        try:
            while len(group) < size and (not group or ready is None or ready()):
                group.append(next(source))
        except StopIteration:
            going = False
        except UserError as error:
            wrong = error
        if group:
            yield group
    if wrong is not None:
        raise wrong


class Trained(ABC):
    """A trained model: what `load` returns. Every task adds its own verbs."""

    words: ClassVar[str] = WORDS  # what a word is to `what_if`

    def __init__(self, run: Run, config: Any, network: nn.Module) -> None:
        self.run, self.config, self.network = run, config, network.eval()

    @property
    def gives(self) -> str:
        """What its answers are, where models of one task differ in that."""
        return ""

    @abstractmethod
    def evaluate(self, files: list[Path], advance: Advance = ignore) -> dict[str, Any]:
        """Scores on the user's files."""

    @abstractmethod
    def predict(self, lines: Iterable[str], batch: int = 64) -> Iterator[dict[str, Any]]:
        """What it makes of each line, in order. batch: how many lines are read before the first is answered."""

    def lines_of(self, file: Path) -> Iterable[str] | None:
        """What `predict` takes, where a file holds more than its lines. Raises: UserError where it cannot be read."""
        return None

    def pieces(self, lines: Iterable[str], steps: int) -> Iterator[str]:
        """What `example` takes, from many lines: each that is not empty. steps: about how many a piece may have."""
        return (line.rstrip("\r\n") for line in lines if line.strip())

    def unseen(self, text: str) -> list[str]:
        """What of a text the model takes for unknown, and reads in no other way either."""
        return []

    @abstractmethod
    def example(self, text: str) -> Example:
        """An input for looking inside. Raises: UserError where there is nothing in it."""

    def answer(self, text: str) -> dict[str, Any]:
        """What it makes of one text."""
        return next(iter(self.predict([text])))

    def what_if(self, text: str, changes: Mapping[int, str]) -> WhatIf:
        """What it would make of a text if some of its words were others.

        Args: text: as `predict` takes it. changes: position -> word; words and signs are counted from 0.
        Raises: UserError where there is no such word, or the replacement is not one.
        """
        return what_if(self, text, changes)

    def session(self, *, snapshots: int = 256, keep: int = 1_000_000, backend: str = "auto") -> Any:
        """A stream that can go back in time, where the network reads one. Arguments as of `Session`.

        Raises: UserError where the network needs its input whole.
        """
        raise UserError(
            f"a model of the task {self.config.task!r} answers for a whole input, and has no session; use what_if"
        )

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


def keep_samples(folder: Path, texts: Iterable[str], count: int = 4) -> None:
    """Write a few held-out inputs, as `Trained.example` takes them, into what training needs."""
    found = list(itertools.islice((t for t in texts if t.strip()), count))
    write_text(folder / SAMPLES, json.dumps(found, ensure_ascii=False))


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
