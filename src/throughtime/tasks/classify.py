"""Classify: a label for a text, from labelled texts."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from throughtime.config import Rate, RunConfig, Strict
from throughtime.errors import UserError, unknown
from throughtime.tasks import defaults
from throughtime.tasks.base import Advance, Criterion, Task, Trained, ignore
from throughtime.tasks.labels import balance_of, class_weights, label_scores
from throughtime.tasks.look import Look, Stack, Steps, beginning, of_classes
from throughtime.tasks.networks import Network
from throughtime.tasks.settings import (
    DataSettings,
    ReadOptions,
    StackSettings,
    check_cell,
    check_no_chunk,
    chosen,
    settled,
)
from throughtime.tasks.source import Source
from throughtime.tasks.spelling import Reading, Spelling, Texts
from throughtime.tasks.tables import Columns, Labelled, one_field, rows
from throughtime.tasks.tokens import FILE, UNKNOWN, Tokens, learn, looks_tokenised
from throughtime.tasks.words import WORDS_AND_SIGNS
from throughtime.weights import put, read_tensors

if TYPE_CHECKING:
    import torch
    from torch import nn

    from throughtime.models.classifier import Classifier
    from throughtime.models.encoder import TokenBatch
    from throughtime.runs import Run

LABELS = "labels.json"
LANGUAGE = "language.safetensors"
LONGEST = 2000  # tokens of a text that are read; of a longer one its beginning and its end


class ClassifyNetwork(StackSettings):
    """The network."""

    tokens: Literal["auto", "words", "bpe", "characters", "bytes"] = "auto"
    """What a text is cut into. auto: words."""
    vocabulary: Annotated[int, Field(ge=4)] | None = None
    """Entries at most. [default: 30,000 words, 8,000 pieces]"""
    init_from: str | None = None
    """A run of `train text`: its embedding and recurrent layers read the text beside the classifier's own embedding (Peters et
    al. 2018). Unless it was trained on words, its vocabulary cuts the text."""
    spelling: bool | None = None
    """Read a word by the pieces it is spelt with too, so that one that training never had says something (Bojanowski et al.
    2017). [default: where tokens are words]"""
    bidirectional: bool = True
    """Read from both ends."""
    pooling: Literal["last", "mean", "max", "attention"] = "mean"
    """How one vector is made of all steps."""
    word_dropout: Rate | None = None
    """How often a token is read as unknown, in training. [default: to fit the data]"""
    counts: bool = True
    """Beside the network, what plain counting of tokens, pairs and pieces says of the labels, as it is and with learned weights
    (Wang, Manning 2012)."""


class ClassifyData(DataSettings):
    """The labelled texts."""

    text_column: str | None = None
    """The column of the text. [default: text, sentence, review or another usual name]"""
    label_column: str | None = None
    """The column of the label. [default: label, class, sentiment or another usual name]"""
    delimiter: str | None = None
    """What stands between the fields of a table: a sign, or tab, comma, semicolon, pipe. [default: found]"""
    lower: bool = True
    """Read words in lower case; byte-pair pieces and characters are read as they are."""
    balance: Annotated[float, Field(ge=0, le=1)] | None = None
    """How much rare labels count for more in training: 0 not at all, 1 as much as the frequent ones. [default: 0.5 where one
    label is over three times as frequent as another]"""


class ClassifyConfig(RunConfig):
    """All settings of a classifier."""

    task: str = "classify"
    model: ClassifyNetwork = ClassifyNetwork()
    data: ClassifyData = ClassifyData()


class PredictOptions(ReadOptions):
    """Of `predict` and `inspect`."""

    delimiter: str | None = None
    """What stands between the fields of a table: a sign, or tab, comma, semicolon, pipe. [default: found]"""
    text_column: str | None = None
    """The column of the text. [default: as in training, else by its name]"""


class EvaluateOptions(PredictOptions):
    """Of `evaluate`."""

    label_column: str | None = None
    """The column of the label. [default: as in training, else by its name]"""


class Labels:
    """Labelled texts as `Examples`. numbers: of the labels, [n]."""

    def __init__(self, texts: Texts, numbers: Any) -> None:
        self.texts, self.numbers, self.lengths = texts, numbers, texts.lengths

    def batch(self, numbers: Any) -> tuple[TokenBatch, torch.Tensor]:
        """Some of the texts, and the numbers of their labels, int64 [B]."""
        import torch

        return self.texts.read(numbers), torch.from_numpy(self.numbers[numbers])

    def item(self, number: int) -> Labelled:
        """One of the texts, as it was cut, without its label."""
        return Labelled(self.texts.text(number), None, "")


class ClassifyTask(Task[ClassifyConfig, Labelled]):
    """Classification of whole texts."""

    name: ClassVar[str] = "classify"
    pipeline: ClassVar[str | None] = "text-classification"
    config_type = ClassifyConfig
    predict_options: ClassVar[type[Strict]] = PredictOptions
    evaluate_options: ClassVar[type[Strict]] = EvaluateOptions
    inspect_options: ClassVar[type[Strict]] = PredictOptions
    unit: ClassVar[str] = "texts"

    def check(self, config: ClassifyConfig, files: Sequence[Path] = ()) -> None:
        check_cell(config.model.cell, memoryless=True)
        check_no_chunk(config)
        if files:
            _columns(config, None).check(files)

    def reading(self, files: Sequence[Any], data: Mapping[str, Any]) -> Task[Any, Any]:
        from throughtime.tasks.recordings import names_recordings
        from throughtime.tasks.registry import find_task

        if data.get("text_column") is not None or not any(isinstance(f, Path) and names_recordings(f) for f in files):
            return self
        task = find_task("classify-audio")
        warnings.warn(
            f"{files[0]}: recordings, which the task {task.name} classifies; of a table --data.text-column names a column of texts",
            stacklevel=2,
        )
        return task

    def read(self, config: ClassifyConfig, files: Sequence[Path], options: Any = None) -> list[Labelled]:
        columns = _columns(config, options)
        if options is not None:
            columns.check(files)
        sources = (self.source(config, file, options) for file in files)
        return [row for source in sources for row in rows(source, columns, labelled=True)]

    def items(self, config: ClassifyConfig, source: Source, options: Any) -> Iterator[Labelled]:
        return rows(source, _columns(config, options), labelled=None)

    def item(self, given: Any) -> Labelled:
        if isinstance(given, str):
            return Labelled(given, None, "")
        return given if isinstance(given, Labelled) else super().item(given)

    def labels(self, item: Labelled) -> list[str]:
        return [str(item.label)]

    def criterion(self, config: ClassifyConfig) -> Criterion:
        return Criterion("macro_f1" if config.data.balance else "accuracy", higher=True, tie="nats_per_text")

    def prepare(
        self, config: ClassifyConfig, train: list[Labelled], held: list[Labelled], run: Run, advance: Advance
    ) -> ClassifyConfig:
        data, model = config.data, config.model
        counts = Counter(str(row.label) for row in train)
        if len(counts) < 2:
            raise UserError(
                f"{train[0].place}: all texts have the label {train[0].label!r}; there must be two labels or more"
            )
        labels = sorted(counts)
        held = known_labels(held, labels)
        language, kind = (None, model.tokens) if model.init_from is None else _language(model, run)
        kind = "words" if kind == "auto" else kind
        if kind != "words":
            if data.lower and "lower" in data.model_fields_set:
                raise UserError("data.lower: only words are read in lower case; leave it out")
            data = data.model_copy(update={"lower": False})
            if model.spelling:
                raise UserError(f"model.spelling: only words are spelt, and tokens are {kind}; leave it out")
        spaced = looks_tokenised("\n".join(row.text for row in train[:2000]))
        tokens = _vocabulary(model, kind, language, [normalised(row.text, kind, spaced, data.lower) for row in train])
        tokens.save(run.folder)
        spelt = kind == "words" and model.spelling is not False
        about = {
            "labels": labels,
            "spaced": spaced,
            "pieces": Spelling.learn(tokens.entries[2:]).pieces if spelt else None,
            "language": language,
        }
        run.write_json(LABELS, about)
        reading, index = _reading(tokens, about, data.lower), {label: i for i, label in enumerate(labels)}
        for name, some in (("train", train), ("valid", held)):
            reading.texts((row.text for row in some), LONGEST).save(run.corpus / f"{name}.bin")
            run.write_data(f"{name}-labels.json", [index[str(row.label)] for row in some])
        balance = balance_of(counts, data.balance)
        run.write_data("weights.json", class_weights([counts[label] for label in labels], balance))
        read = data.model_dump() | {"balance": balance}
        if train[0].columns is not None:  # they are looked for first in what is read later
            read["text_column"] = read["text_column"] or train[0].columns[0]
            read["label_column"] = read["label_column"] or train[0].columns[1]
        fitted, trained = defaults.classify(config, len(train))
        fitted |= {"tokens": kind, "vocabulary": len(tokens), "spelling": spelt}
        return settled(config, model=fitted, data=read, training=trained)

    def describe(self, config: ClassifyConfig) -> str:
        return f"{super().describe(config)}, {config.model.vocabulary:,} {config.model.tokens}"

    def network(self, config: ClassifyConfig, run: Run) -> nn.Module:
        from throughtime.models.classifier import Classifier
        from throughtime.models.counts import Counts
        from throughtime.models.encoder import Encoder
        from throughtime.models.language import LanguageModel

        m = config.model
        names = ("vocabulary", "hidden_size", "embedding_size", "dropout", "word_dropout")
        sizes: dict[str, Any] = chosen(m, names, run)
        about = read_about(run)
        settings = about.get("language")
        language = None if settings is None else LanguageModel.of(settings["settings"])
        pieces = len(about["pieces"]) if about.get("pieces") else 0
        stack: dict[str, Any] = {"cell": m.cell, "layers": m.layers, "bidirectional": m.bidirectional, "kind": m.kind}
        reader = Encoder(**sizes, **stack, language=language, pieces=pieces)
        classes = len(about["labels"])
        counts = Counts(sizes["vocabulary"], classes, pieces) if m.counts else None
        return Classifier(reader, classes, m.pooling, sizes["dropout"], counts)

    def fill(self, network: Classifier, config: ClassifyConfig, run: Run) -> None:
        from throughtime.tasks.batches import in_order_of_length

        network.class_weights = run.read_data("weights.json")
        if network.reader.language is not None:
            path, language = run.corpus / LANGUAGE, network.reader.language
            tensors, _ = read_tensors(path)
            for name, part in (("embedding.", language.embedding), ("stack.", language.stack)):
                put(part, {n.removeprefix(name): t for n, t in tensors.items() if n.startswith(name)}, path)
        if network.counts is not None:
            examples = self.examples(config, run, "train")
            network.counts.count(examples.batch(some) for some in in_order_of_length(examples.lengths))

    def examples(self, config: ClassifyConfig, run: Run, part: str) -> Labels:
        import numpy as np

        texts = _reading_of(config, run).open(run.corpus / f"{part}.bin")
        return Labels(texts, np.array(run.read_data(f"{part}-labels.json")))

    def score(self, model: ClassifyModel, examples: Labels, *, quick: bool) -> dict[str, Any]:
        from throughtime.tasks.metrics import class_scores

        return class_scores(model.log_probabilities(examples.texts), examples.numbers.tolist())

    def trained(self, run: Run, config: ClassifyConfig, network: nn.Module) -> ClassifyModel:
        return ClassifyModel(self, run, config, network, _reading_of(config, run), read_about(run)["labels"])


class ClassifyModel(Trained[Labelled]):
    """A trained classifier."""

    network: Classifier

    def __init__(
        self,
        task: ClassifyTask,
        run: Run,
        config: ClassifyConfig,
        network: nn.Module,
        reading: Reading,
        labels: list[str],
    ) -> None:
        super().__init__(task, run, config, network)
        self.reading, self.labels = reading, labels

    def log_probabilities(self, texts: Texts, advance: Advance = ignore) -> Any:
        """log p of every label for every text, float64 [n, C]."""
        import torch

        from throughtime.tasks.batches import over

        out = torch.zeros(len(texts), len(self.labels), dtype=torch.float64)

        def take(numbers: Any, read: TokenBatch) -> None:
            out[torch.from_numpy(numbers)] = self.network.logits(read).double().log_softmax(-1).cpu()

        over(self.network, texts, take, advance)
        return out

    def scores(self, items: list[Labelled], options: Any, advance: Advance = ignore) -> dict[str, Any]:
        """Scores on labelled texts, as `label_scores` gives them."""
        items = known_labels(items, self.labels)
        log_p = self.log_probabilities(self.reading.texts((row.text for row in items), LONGEST), advance)
        return label_scores(log_p, [self.labels.index(str(row.label)) for row in items], self.labels)

    def answers(self, items: list[Labelled], options: Any) -> Iterator[dict[str, Any]]:
        """The label of each text, None of an empty one. Yields: line (the text on one), label, probability, probabilities (of every
        label), and gold where the source has a label."""
        texts = self.reading.texts((row.text for row in items), LONGEST)
        for item, row in zip(items, self.log_probabilities(texts).exp().tolist(), strict=True):
            best = max(range(len(row)), key=row.__getitem__)
            said = bool(item.text.strip())
            values: dict[str, Any] = {
                "line": item.text,
                "label": self.labels[best] if said else None,
                "probability": row[best] if said else None,
                "probabilities": dict(zip(self.labels, row, strict=True)) if said else None,
            }
            yield values if item.label is None else values | {"gold": item.label}

    def networks(self) -> list[Network]:
        from throughtime.tasks.classify_networks import networks_of

        return networks_of(self.network, self.reading)

    def beside(self) -> dict[str, str]:
        words = self.reading.tokens.kind == "words" and not read_about(self.run)["spaced"]
        about = {
            "labels": self.labels,
            "lower": self.config.data.lower,
            "pattern": WORDS_AND_SIGNS if words else None,
            "longest": LONGEST,
        }
        read = {"reading.json": dumps(about | self.reading.exported(), ensure_ascii=False)}
        return read | self.reading.tokens.exported("vocabulary")

    def written(self, values: dict[str, Any]) -> str:
        if values["label"] is None:
            return "\t\t"
        gold = [one_field(values["gold"])] if "gold" in values else []
        return "\t".join([one_field(values["label"]), f"{values['probability']:.4f}", *gold, one_field(values["line"])])

    def empty(self, item: Labelled) -> bool:
        return not item.text.strip()

    def shown(self, item: Labelled) -> Labelled:
        return replace(item, text=beginning(item.text))

    def look(self, item: Labelled) -> Look:
        import torch

        from throughtime.tasks.batches import moved

        texts = self.reading.texts([item.text], LONGEST)
        ids = texts.sequences[0].copy()
        if not len(ids):
            raise UserError("the text is empty: there is nothing to look into")
        network, device = self.network, self.device

        def answers(read: TokenBatch) -> torch.Tensor:
            return network.logits(moved(read, device)).log_softmax(-1)

        def attention(read: TokenBatch) -> torch.Tensor:
            hidden = network.reader(moved(read, device))
            return network.pool.weights(hidden, read.lengths.to(device)).t()

        def without(i: int) -> TokenBatch:
            texts.sequences.values[:] = ids
            texts.sequences.values[i] = UNKNOWN
            return texts.read([0])

        batch = texts.read([0])
        with torch.no_grad():
            best = int(answers(batch)[0].argmax())
        inputs = Steps([texts.words[i] for i in ids])
        return Look(
            inputs=inputs,
            outputs=Steps([self.labels[best]]),
            batch=batch,
            score=of_classes(answers, [best]),
            stacks={"reader.stack": Stack(name="", steps=inputs, whole=True)},
            distribution=answers,
            names=self.labels.__getitem__,
            without=without,
            attention=attention if network.pool.kind == "attention" else None,
        )


def _columns(config: ClassifyConfig, options: Any) -> Columns:
    """Which columns are read. options: of `predict` or `evaluate`; None while training."""
    data = config.data
    if options is None:
        return Columns(data.text_column, data.label_column, delimiter=data.delimiter)
    label = getattr(options, "label_column", None)
    return Columns(options.text_column, label, "--", (data.text_column, data.label_column), options.delimiter)


def _vocabulary(model: ClassifyNetwork, kind: str, language: dict[str, Any] | None, texts: list[str]) -> Tokens:
    """What texts, as they are read, are cut into: that of a language model, unless it read words, else learned from them."""
    if language is not None and kind != "words":
        return Tokens.of(language.pop("vocabulary"))
    size = model.vocabulary or {"words": 30_000, "bpe": 8_000}.get(kind, 20_000)

    def blocks() -> Iterator[str]:
        return ("\n".join(texts[low : low + 1000]) for low in range(0, len(texts), 1000))

    return learn(kind, blocks, size, spaced=True if kind == "words" else None, asked=model.vocabulary is not None)


def read_about(run: Run) -> dict[str, Any]:
    """What labels.json holds. Raises: UserError where it is damaged."""
    about: Any = run.read_json(LABELS)
    if not isinstance(about, dict) or not isinstance(about.get("labels"), list) or "spaced" not in about:
        raise UserError(f"{run.folder / LABELS}: the run is damaged: it does not hold the labels")
    return about


def _reading_of(config: ClassifyConfig, run: Run) -> Reading:
    return _reading(Tokens.load(run.folder, run.read_json(FILE)), read_about(run), config.data.lower)


def _reading(tokens: Tokens, about: dict[str, Any], lower: bool) -> Reading:
    """How a run reads texts. about: what labels.json holds."""
    normalise = partial(normalised, kind=tokens.kind, spaced=about["spaced"], lower=lower)
    spelling = None if about.get("pieces") is None else Spelling(about["pieces"])
    vocabulary = (about.get("language") or {}).get("vocabulary")
    return Reading(tokens, normalise, spelling, None if vocabulary is None else Tokens.of(vocabulary))


def _language(model: ClassifyNetwork, run: Run) -> tuple[dict[str, Any], str]:
    """Copy a language model's weights into what training needs. Returns: what it is built of and its vocabulary, and what this one
    cuts texts into."""
    import shutil

    from throughtime.tasks.registry import load

    assert model.init_from is not None
    try:
        language = load(model.init_from, "text")
    except UserError as error:
        raise UserError(f"model.init_from: {error}") from error
    network, tokens = language.config.model, language.tokens
    if network.kind == "transformer":
        raise UserError(f"model.init_from: {language.run.folder} is a Transformer; it takes a recurrent network")
    if model.tokens not in ("auto", tokens.kind):
        raise UserError(f"model.tokens: {model.tokens}, but {language.run.folder} reads {tokens.kind}; leave it out")
    if model.vocabulary is not None and tokens.kind != "words":
        raise UserError(f"model.vocabulary: that of {language.run.folder} is taken; leave it out")
    shutil.copy(language.run.weights, run.corpus / LANGUAGE)
    return {"settings": language.network.settings, "vocabulary": tokens.values()}, tokens.kind


def known_labels(items: list[Labelled], labels: list[str]) -> list[Labelled]:
    """Items whose labels are those of training. `true` and `false` of JSON were `True` and `False` to an earlier version: where its
    model has these they are meant, which is said.

    Raises: UserError for a label that training never had.
    """
    known = set(labels)
    earlier = {label.lower(): label for label in ("True", "False") if label in known and label.lower() not in known}
    found = {row.label for row in items if row.label in earlier}
    for label in sorted(found):
        warnings.warn(
            f"the label {label} is taken for {earlier[label]}, as an earlier version read it of JSON", stacklevel=2
        )
    meant = [replace(row, label=earlier[row.label]) if row.label in found else row for row in items]
    for row in meant:
        if row.label not in known:
            raise UserError(f"{row.place}: training never had it: " + unknown("label", str(row.label), labels))
    return meant


def normalised(text: str, kind: str, spaced: bool, lower: bool) -> str:
    """A text on one line as the network reads it: for words, with a space between them."""
    text = " ".join(text.split())
    if kind != "words":
        return text
    text = text.lower() if lower else text
    return text if spaced else " ".join(re.findall(WORDS_AND_SIGNS, text))
