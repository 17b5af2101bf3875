"""What a task is to the rest of the house: items that are read, a network, examples, scores, and a trained model.

A task is one file: its settings, a `Task` and a `Trained`; beside it a network in `models` and, for a new kind of file, a reader.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

from throughtime.config import Config, RunConfig, Strict, build_options
from throughtime.errors import UserError
from throughtime.hub import Rounded, copy_run, upload
from throughtime.tasks.look import Look
from throughtime.tasks.networks import Network
from throughtime.tasks.settings import ReadOptions, StackSettings, check_cell
from throughtime.tasks.source import Source
from throughtime.tasks.split import hold_out
from throughtime.tasks.what_if import WORDS, WhatIf, what_if

if TYPE_CHECKING:
    import torch
    from torch import nn

    from throughtime.runs import Run
    from throughtime.travel import Engine

SAMPLES = 4  # held-out items that are looked into while a network is trained

Advance = Callable[[float], None]
Item = TypeVar("Item")
Thing = TypeVar("Thing")


def ignore(amount: float) -> None:
    """A progress bar that nobody watches."""


class Criterion(NamedTuple):
    """Which score decides what weights are kept, and whether more of it is better. tie: the score, the lower the better, that
    decides between equals. hopeless: of a score of which less is better, from where on all are equal: where nothing is right yet,
    one that is less wrong has not learned more."""

    score: str
    higher: bool = False
    tie: str | None = None
    hopeless: float = math.inf

    def better(self, scores: Mapping[str, float], than: Mapping[str, float]) -> bool:
        """Whether scores are better than others."""
        return self._badness(scores) < self._badness(than)

    def _badness(self, scores: Mapping[str, float]) -> tuple[float, ...]:
        first = -scores[self.score] if self.higher else min(scores[self.score], self.hopeless)
        return (first,) if self.tie is None else (first, scores.get(self.tie, math.inf))


class Loader(Protocol):
    """Endless batches whose place can be saved."""

    per_epoch: int
    batch_tokens: int  # about what a batch of all processes holds

    def next(self, device: torch.device) -> tuple[Any, bool]:
        """A batch for the network, and whether the state begins anew with it."""

    def state(self) -> dict[str, int]:
        """The place, as JSON can hold it."""

    def restore(self, state: dict[str, int]) -> None:
        """Go on from a place."""


class Batches(Protocol):
    """Items as a network takes them."""

    @property
    def lengths(self) -> Any:
        """Of each, in steps, [n], or [n, sides] where an example has several."""

    def batch(self, numbers: Any) -> Any:
        """Some of them side by side, for the network; while training, with what they are to be answered by."""


class Examples(Batches, Protocol):
    """The same, each of which can be had by itself."""

    def item(self, number: int) -> Any:
        """One of them, as `Trained.look` takes it."""


class Task(ABC, Generic[Config, Item]):
    """A kind of problem. It holds nothing: what it knows is in the settings and the run folder.

    The network it builds is called as `network(batch, state) -> (summed loss, how many units that is of, state)`, whichever the
    task, so that one training loop serves all.
    """

    name: ClassVar[str]
    config_type: type[Config]
    predict_options: ClassVar[type[Strict]] = ReadOptions
    evaluate_options: ClassVar[type[Strict]] = ReadOptions
    inspect_options: ClassVar[type[Strict]] = ReadOptions
    generate_options: ClassVar[type[Strict] | None] = None  # None: its models do not write on their own
    unit: ClassVar[str] = "tokens"  # what the network counts
    measure: ClassVar[str] = "nats"  # what its loss is in, a unit
    pipeline: ClassVar[str | None] = None  # what the Hugging Face hub calls such a task
    # whether trainings gain by it, where the processor does: measured, in docs/defaults.md
    bfloat16: ClassVar[bool] = False
    aligned: ClassVar[bool] = False  # whether files may belong together, line by line

    @property
    def loss(self) -> str:
        """What the score is called that training lowers."""
        return f"{self.measure}_per_{self.unit.removesuffix('s')}"

    def check(self, config: Config, files: Sequence[Path] = ()) -> None:
        """What the settings' own types cannot say; files: all that will be read, once they are known. Here: whether there
        is such a cell.

        Raises: UserError that begins with the key.
        """
        if isinstance(getattr(config, "model", None), StackSettings):
            check_cell(config.model.cell)  # type: ignore[attr-defined]

    def reading(self, files: Sequence[Any], data: Mapping[str, Any]) -> Task[Any, Any]:
        """The task that trains on such files: this one, unless they are what another is for. data: its settings, as far as said."""
        return self

    # -- what is read

    def read(self, config: Config, files: Sequence[Path], options: Any = None) -> list[Item]:
        """All items of some files, with what they are to be answered by; those of no length are left out, counted and said.
        options: of `evaluate`; None while training.

        Raises: UserError with file and line.
        """
        found = [item for file in files for item in self.items(config, self.source(config, file, options), options)]
        kept = [item for item in found if not isinstance(item, Sized) or len(item)]
        if len(kept) < len(found):
            warnings.warn(f"{files[0]}: {len(found) - len(kept):,} empty examples are left out", stacklevel=2)
        return kept

    def read_along(self, config: Config, files: Sequence[Path], options: Any, advance: Advance) -> list[Item]:
        """As `read`; here that. advance: where reading takes long, is told of each piece of it, as a share of 1."""
        return self.read(config, files, options)

    def source(self, config: Config, given: Any, options: Any = None) -> Source:
        """A file, or an open one, as it is to be read. options: of `predict` or `evaluate`; None while training."""
        data: Any = config.data if options is None else options  # type: ignore[attr-defined]
        return Source.of(given, data.encoding, "--data." if options is None else "--")

    @abstractmethod
    def items(self, config: Config, source: Source, options: Any) -> Iterator[Item]:
        """Items as they come, to be answered, in the order of the source and one for each of its: where one is empty, an empty one.
        What it should be answered by is kept where the source says it. options: of `predict`."""

    def item(self, given: Any) -> Item:
        """An item of what a user gives in Python: a text, for most. Raises: UserError where it is none."""
        raise UserError(f"the task {self.name!r} reads no {type(given).__name__}; give a file")

    def labels(self, item: Item) -> Iterable[str]:
        """The answers of an item that training must not lose to the hold-out."""
        return ()

    def split(self, config: Config, items: list[Item], files: Sequence[Path]) -> tuple[list[Item], list[Item]]:
        """What is trained on, and a part that is held out. Raises: UserError where there is too little."""
        share = config.data.held_out  # type: ignore[attr-defined]
        return hold_out(items, share, config.seed, files[0], self.labels)

    # -- what is trained

    @abstractmethod
    def prepare(self, config: Config, train: list[Item], held: list[Item], run: Run, advance: Advance) -> Config:
        """Fit what is fitted on the training items, and choose every setting left open.

        Writes into `run.folder` what the trained model needs to read its inputs, into `run.corpus` what training needs.
        advance: told of each piece of work done, as a share of 1.
        Raises: UserError for items that cannot be trained on.
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
    def examples(self, config: Config, run: Run, part: str) -> Any:
        """What `prepare` left of a part, "train" or "valid": `Examples`, or what `loader`, `steps`, `score` and `samples` know."""

    def loader(self, config: Config, run: Run, rows: slice) -> Loader:
        """The batches that training walks through; `rows` are this process's share of each batch."""
        from throughtime.tasks.batches import ByLength

        assert config.training.batch_size is not None
        return ByLength(self.examples(config, run, "train"), config.training.batch_size, config.seed, rows)

    def steps(self, examples: Any) -> int:
        """About how many units a quick `score` reads."""
        from throughtime.tasks.batches import last_side

        return int(last_side(examples.lengths).sum())

    def criterion(self, config: Config) -> Criterion:
        """Which of the scores decides."""
        return Criterion(self.loss)

    def score(self, model: Any, examples: Any, *, quick: bool) -> dict[str, Any]:
        """Scores of a model on prepared examples; here its loss, a unit. quick: on a bounded part, and what is quickly had, while
        training."""
        from throughtime.tasks.batches import summed_nats

        nats, count = summed_nats(model.network, examples)
        return {self.loss: nats / max(count, 1)}

    def settle(self, model: Any, examples: Any, run: Run) -> None:
        """Once a network is trained: choose on the held-out examples what else the model is to have, and write it into the run.
        Here nothing."""

    def samples(self, config: Config, run: Run) -> list[Item]:
        """A few held-out items, to look into while a network is trained."""
        examples = self.examples(config, run, "valid")
        return [examples.item(i) for i in range(min(SAMPLES, len(examples.lengths)))]

    @abstractmethod
    def trained(self, run: Run, config: Config, network: nn.Module) -> Trained[Item]:
        """A network as the model of a run."""

    def open(self, run: Run, config: Config) -> Trained[Item]:
        """The trained model of a run."""
        network = run.open_weights(config, lambda: self.network(config, run))
        model = self.trained(run, config, network.eval())
        return model.quantize() if run.in_int8() else model


class Trained(ABC, Generic[Item]):
    """A trained model: what `load` returns. Every task adds its own verbs."""

    words: ClassVar[str] = WORDS  # what a word is to `what_if`
    travels: ClassVar[str] = "words"  # what `travel` goes back in: words, a series, or music

    def __init__(self, task: Task[Any, Item], run: Run, config: Any, network: nn.Module) -> None:
        self.task, self.run, self.config, self.network = task, run, config, network

    def __repr__(self) -> str:
        size = f"{sum(p.numel() for p in self.network.parameters()):,} parameters{' in int8' if self.in_int8 else ''}"
        return (
            f"<{type(self).__name__} of {self.run.folder}: {self.task.describe(self.config)}, {size}; trained "
            f"on {', '.join(self.config.files)}; {self._held_out()}>"
        )

    def _held_out(self) -> str:
        """The score that decided which weights are kept, in words."""
        try:
            scores = self.run.scores().get("scores", {})
        except UserError:  # which the run's other verbs say
            return "what it scored is not known"
        if not scores:
            return "its training has not ended"
        name = self.task.criterion(self.config).score
        value = scores.get(name)
        return f"held out: {name.replace('_', ' ')} {'undefined' if value is None else format(value, '.4g')}"

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.network.parameters()).device

    @property
    def gives(self) -> str:
        """What its answers are, where models of one task differ in that."""
        return ""

    # -- scores and answers

    def evaluate(
        self, files: str | Path | Sequence[str | Path], advance: Advance = ignore, **options: Any
    ) -> dict[str, Any]:
        """Scores on files as it was trained on; docs/tasks.md lists them. advance: told of each item done, as a share of 1.

        Raises: UserError for an option that the task has not, a value out of range, a file that cannot be read.
        """
        paths = [Path(f) for f in ([files] if isinstance(files, str | Path) else files)]
        chosen = build_options(self.task.evaluate_options, options)
        items = self.task.read(self.config, paths, chosen)
        if not items:
            raise UserError(f"{paths[0]}: there is nothing to score in it; name a file that has examples")
        return {"task": self.task.name, **self.scores(items, chosen, advance)}

    @abstractmethod
    def scores(self, items: list[Item], options: Any, advance: Advance = ignore) -> dict[str, Any]:
        """Scores on items that say what they should be answered by."""

    def predict(self, items: Any, batch: int = 64, **options: Any) -> Iterator[dict[str, Any]]:
        """What it makes of each item, in order.

        Args: items: a text, or many; a `Path`, several, or an open file: what stands in them, one after the other. batch: how many
            are read before the first is answered.
        Yields: what the task's `answers` gives.
        Raises: UserError for an option that the task has not, a value out of range, and a file that cannot be opened.
        """
        chosen = build_options(self.task.predict_options, options)
        return (
            answer
            for found, ready in self.given(items, chosen)
            for group in taken(found, batch, ready)
            for answer in self.answers(group, chosen)
        )

    def given(self, items: Any, options: Any) -> list[tuple[Iterable[Item], Callable[[], bool] | None]]:
        """The items that `predict` is given, source by source; of what is read also whether one more can be had without waiting."""
        listed = items if isinstance(items, Sequence) and not isinstance(items, str) else [items]
        first = listed[0] if listed else ""
        if listed and all(isinstance(one, Path) for one in listed):
            sources = [self.task.source(self.config, path, options) for path in listed]
        elif (
            isinstance(items, str)
            or not isinstance(items, Iterable)
            or (listed is items and not isinstance(first, str))
        ):
            return [(map(self.task.item, listed), None)]
        else:
            sources = [self.task.source(self.config, items, options)]
        return [(self.items(source, options), source.ready) for source in sources]

    def items(self, source: Source, options: Any) -> Iterator[Item]:
        """The items of a source, as `Task.items` reads them."""
        return self.task.items(self.config, source, options)

    @abstractmethod
    def answers(self, items: list[Item], options: Any) -> Iterable[dict[str, Any]]:
        """What it makes of items, side by side."""

    def answer(self, text: str) -> dict[str, Any]:
        """What it makes of one text."""
        return next(iter(self.predict(text)))

    @abstractmethod
    def written(self, values: dict[str, Any]) -> str:
        """One of the answers, as the command line writes it: a line, or several."""

    def heading(self, values: dict[str, Any]) -> str | None:
        """The line that goes before the answers, the first of which these are; None where there is none."""
        return None

    def lines(self, answers: Iterable[dict[str, Any]], options: Any, *, json: bool = False) -> Iterator[str]:
        """Answers as the command line writes them, each as soon as it is known. json: as an object a line. Raises: UserError where
        they cannot be written so, before the first is asked for."""
        return self._lines(answers, json)

    def _lines(self, answers: Iterable[dict[str, Any]], json: bool) -> Iterator[str]:
        for number, values in enumerate(answers):
            if not json and not number and (heading := self.heading(values)) is not None:
                yield heading
            yield dumps(values, ensure_ascii=False) if json else self.written(values)

    # -- looking inside

    @abstractmethod
    def look(self, item: Item) -> Look:
        """An item for looking inside. Raises: UserError where there is nothing in it."""

    def pieces(self, source: Source, steps: int, options: Any = None) -> Iterator[Item]:
        """What `look` takes, from a source. steps: about how many a piece may have, where one is cut. options: of `inspect`."""
        return self.items(source, self.task.inspect_options() if options is None else options)

    def empty(self, item: Item) -> bool:
        """Whether there is nothing in an item to look into."""
        return False

    def shown(self, item: Item) -> Item:
        """An item, or its beginning where it is too long to be shown; which is said."""
        return item

    def unseen(self, item: Item) -> list[str]:
        """What of an item the model takes for unknown, and reads in no other way either."""
        return []

    def what_if(self, text: str, changes: Mapping[int, str]) -> WhatIf:
        """What it would make of a text if some of its words were others.

        Args: text: as `predict` takes it. changes: position -> word; words and signs are counted from 0.
        Raises: UserError where there is no such word, or the replacement is not one.
        """
        return what_if(self, text, changes)

    def engine(self, backend: str = "auto") -> Engine | None:
        """What steps a stream of it, one input at a time; None where the network needs its input whole."""
        return None

    def session(self, *, snapshots: int = 256, keep: int = 1_000_000, backend: str = "auto") -> Any:
        """A stream that can go back in time, where the network reads one. Arguments as of `Session`.

        Raises: UserError where the network needs its input whole.
        """
        from throughtime.travel import Session

        engine = self.engine(backend)
        if engine is None:
            raise UserError(
                f"a model of the task {self.task.name!r} answers for a whole input, and has no session; use what_if"
            )
        return Session.of(engine, snapshots=snapshots, keep=keep)

    def stream(self, *given: Any, **options: Any) -> Iterator[str]:
        """Write, piece by piece as it comes, where the task's models write on their own."""
        raise UserError(f"a model of the task {self.task.name!r} does not write on its own; use predict")

    def generate(self, prompt: str = "", *given: Any, **options: Any) -> str:
        """A prompt and what the model writes after it. Arguments as in `stream`."""
        return prompt + "".join(self.stream(prompt, *given, **options))

    def writing(
        self, samples: int, options: Mapping[str, Any], *, json: bool, tell: Callable[[str], None]
    ) -> Iterator[str]:
        """What `generate` puts on standard output, piece by piece as it comes; here texts, as `stream` gives them.

        Args: samples: how many are to be written. options: of `generate`, as they were given. json: as one object. tell: is told
            what is not of the output, a line.
        """
        prompt, seed, texts = options.get("prompt", ""), options.get("seed"), []
        for number in range(samples):
            pieces = self.stream(**{**options, **({} if seed is None else {"seed": seed + number})})
            if json:
                texts.append("".join(pieces))
                continue
            if samples > 1:
                tell(f"sample {number + 1} of {samples}:")
            yield prompt
            yield from pieces
            yield "\n"
        if json:
            yield dumps({"prompt": prompt, "samples": texts}, ensure_ascii=False) + "\n"

    # -- elsewhere

    @property
    def in_int8(self) -> bool:
        """Whether its recurrent layers have weights in eight bits."""
        from throughtime.models.int8 import is_rounded

        return is_rounded(self.network)

    def quantize(self) -> Trained[Item]:
        """A model of the same weights rounded to eight bits, a scale for each output, which answers quicker: its recurrent layers
        multiply by whole numbers, its other large matrices are rounded. It has no gradients, so that `inspect` takes the model it
        was made of; `save` writes it as a run.

        Raises: UserError where the network has no recurrent layer.
        """
        from throughtime.models.int8 import rounded

        network = rounded(self.network)
        if network is None:
            raise UserError(
                f"{self.run.folder}: its network has no recurrent layer to be held in int8; take it as it is"
            )
        return self.task.trained(self.run, self.config, network.eval())

    def _rounded(self) -> Rounded | None:
        """How its weights were rounded since it was loaded, for a copy of the run."""
        from throughtime.models.int8 import as_rounded, in_eight_bits

        return Rounded(as_rounded, in_eight_bits) if self.in_int8 and not self.run.in_int8() else None

    def networks(self) -> list[Network]:
        """What of it is exported as a graph. Raises: UserError where it cannot be."""
        raise UserError(f"a model of the task {self.task.name!r} does not say what of it is exported")

    def beside(self) -> dict[str, str]:
        """What else is needed to ask those networks: text by the name of its file."""
        return {}

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write it into another run folder: it is loaded from there as it is, and scores the same.

        Args: overwrite: replace a run that the folder holds.
        Raises: UserError where the folder is taken, the training has not ended, or the weights were changed since it was loaded.
        """
        copy_run(self.run, self.config, self.network, Path(folder), overwrite=overwrite, rounded=self._rounded())

    def push_to_hub(self, name: str, *, private: bool | None = None) -> str:
        """Put its run folder into a repository of the Hugging Face hub, from where `load(name, download=True)` gets it.

        Args: name: user/name; it is made where it is missing. private: whether only its owner sees it; None: as the account has
            it.
        Returns: the address of the commit.
        Raises: UserError as `save`, and where the hub cannot be reached or does not let it in.
        """
        return upload(self.run, self.config, self.network, name, private=private, rounded=self._rounded())

    def info(self) -> dict[str, Any]:
        """What it is, trained on what, for how long, with what scores."""
        config: RunConfig = self.config
        return {
            "task": config.task,
            "parameters": sum(p.numel() for p in self.network.parameters()),
            **({"weights": "int8"} if self.in_int8 else {}),
            "files": config.files,
            "valid": config.valid,
            **self.run.scores(),
            "settings": config.model_dump(exclude={"format", "task", "files", "valid"}),
        }


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


def in_groups(things: Sequence[Thing], size: int) -> Iterator[Sequence[Thing]]:
    """A list in parts of up to `size`."""
    return (things[low : low + size] for low in range(0, len(things), size))
