"""Classify: a label for a text, from labelled texts."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from throughtime.config import Positive, Rate, RunConfig, Strict
from throughtime.errors import UserError, unknown
from throughtime.runs import Run, write_text
from throughtime.tasks import defaults
from throughtime.tasks.base import Advance, Example, Task, Trained, grouped, ignore, keep_samples
from throughtime.weights import put, read_tensors

if TYPE_CHECKING:
    import torch
    from torch import nn

    from throughtime.models.classifier import Classifier
    from throughtime.models.reader import Read
    from throughtime.tasks.batches import ByLength
    from throughtime.tasks.spelling import Reading, Texts
    from throughtime.tasks.tables import Columns, Labelled
    from throughtime.tasks.tokens import Tokens

LABELS = "labels.json"
LANGUAGE = "language.safetensors"
LONGEST = 2000  # tokens of a text that are read; of a longer one its beginning and its end
UNEVEN = 3  # how many times as frequent one label may be as another
BINS = 10  # of confidence, for the calibration error
_WORDS = r"\w+(?:['’]\w+)*|[^\w\s]"


class ClassifyNetwork(Strict):
    """The network."""

    kind: Literal["recurrent", "transformer"] = "recurrent"
    """transformer: one of as many parameters as the recurrent network of these settings would have, with a dropout of 0.3
    at most."""
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
    cell: str = "lstm"
    """The recurrent cell, a name in `throughtime.cells.NAMED`; none: a network without a memory."""
    hidden_size: Positive | None = None
    """Units in a layer, in each direction. [default: to fit the data]"""
    layers: Positive = 1
    """Layers above each other."""
    embedding_size: Positive | None = None
    """Width of the embedding. [default: to fit the data]"""
    bidirectional: bool = True
    """Read from both ends."""
    pooling: Literal["last", "mean", "max", "attention"] = "mean"
    """How one vector is made of all steps."""
    dropout: Rate | None = None
    """Dropout on what goes into and out of every layer, and before the output. [default: to fit the data]"""
    word_dropout: Rate | None = None
    """How often a token is read as unknown, in training. [default: to fit the data]"""
    counts: bool = True
    """Beside the network, what plain counting of tokens, pairs and pieces says of the labels, as it is and with learned weights
    (Wang, Manning 2012)."""


class ClassifyData(Strict):
    """The labelled texts."""

    text_column: str | None = None
    """The column of the text. [default: text, sentence, review or another usual name]"""
    label_column: str | None = None
    """The column of the label. [default: label, class, sentiment or another usual name]"""
    lower: bool = True
    """Read words in lower case; byte-pair pieces and characters are read as they are."""
    balance: Annotated[float, Field(ge=0, le=1)] | None = None
    """How much rare labels count for more in training: 0 not at all, 1 as much as the frequent ones. [default: 0.5 where one
    label is over three times as frequent as another]"""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """The share that is held out where no --valid is given."""


class ClassifyConfig(RunConfig):
    """All settings of a classifier."""

    task: str = "classify"
    model: ClassifyNetwork = ClassifyNetwork()
    data: ClassifyData = ClassifyData()


class ClassifyTask(Task[ClassifyConfig]):
    """Classification of whole texts."""

    name: ClassVar[str] = "classify"
    config_type = ClassifyConfig
    files: ClassVar[tuple[str, ...]] = ("vocabulary.json", LABELS)

    def check(self, config: ClassifyConfig) -> None:
        check_cell(config.model.cell)
        check_no_chunk(config)

    def prepare(
        self, config: ClassifyConfig, files: list[Path], valid: list[Path], folder: Path, advance: Advance
    ) -> ClassifyConfig:
        from throughtime.tasks.spelling import Spelling
        from throughtime.tasks.tables import Columns, read_labelled
        from throughtime.tasks.tokens import Tokens, learn, looks_tokenised

        data, model = config.data, config.model
        columns = Columns(data.text_column, data.label_column)
        columns.check([*files, *valid])
        train = read_labelled(files, columns)
        if valid:
            held = read_labelled(valid, columns)
        else:
            train, held = hold_out(train, data.held_out, config.seed, files[0], lambda row: [row.label])
        counts = Counter(row.label for row in train)
        if len(counts) < 2:
            raise UserError(
                f"{train[0].place}: all texts have the label {train[0].label!r}; there must be two labels or more"
            )
        labels = sorted(counts)
        check_labels(held, labels)
        language, kind = (None, model.tokens) if model.init_from is None else _language(model, folder)
        kind = "words" if kind == "auto" else kind
        if kind != "words":
            if data.lower and "lower" in data.model_fields_set:
                raise UserError("data.lower: only words are read in lower case; leave it out")
            data = data.model_copy(update={"lower": False})
            if model.spelling:
                raise UserError(f"model.spelling: only words are spelt, and tokens are {kind}; leave it out")
        spaced = looks_tokenised("\n".join(row.text for row in train[:2000]))
        size = model.vocabulary or {"words": 30_000, "bpe": 8_000}.get(kind, 20_000)

        def blocks() -> Iterator[str]:
            for low in range(0, len(train), 1000):
                yield "\n".join(normalised(row.text, kind, spaced, data.lower) for row in train[low : low + 1000])

        if language is not None and kind != "words":
            tokens = Tokens.load(folder, language.pop("vocabulary"))
        else:
            tokens = learn(
                kind, blocks, size, spaced=True if kind == "words" else None, asked=model.vocabulary is not None
            )
        tokens.save(folder)
        spelt = kind == "words" and model.spelling is not False
        about = {
            "labels": labels,
            "spaced": spaced,
            "pieces": Spelling.learn(tokens.entries[2:]).pieces if spelt else None,
            "language": language,
        }
        write_text(folder / LABELS, _json(about))
        reading = _reading(tokens, about, data.lower)
        for name, rows in (("train", train), ("valid", held)):
            reading.texts((row.text for row in rows), LONGEST).save(folder / f"{name}.bin")
            index = {label: i for i, label in enumerate(labels)}
            write_text(folder / f"{name}-labels.json", _json([index[row.label] for row in rows]))
        keep_samples(folder, (row.text for row in held))
        balance = data.balance
        if balance is None:
            balance = 0.5 if max(counts.values()) > UNEVEN * min(counts.values()) else 0.0
        if max(counts.values()) > UNEVEN * min(counts.values()):
            (often, most), (rare, least) = counts.most_common()[0], counts.most_common()[-1]
            how = "rare ones count more" if balance else "each example counts the same"
            kept = "macro F1" if balance else "accuracy"
            warnings.warn(
                f"the labels are uneven ({often!r} {most:,}, {rare!r} {least:,}): {how} (data.balance {balance:g}), and the "
                f"weights that do best by {kept} are kept",
                stacklevel=2,
            )
        write_text(folder / "weights.json", _json(class_weights([counts[label] for label in labels], balance)))
        fitted, trained = defaults.classify(config, len(train))
        return config.model_copy(
            update={
                "model": model.model_copy(
                    update={"tokens": kind, "vocabulary": len(tokens), "spelling": spelt, **fitted}
                ),
                "data": data.model_copy(update={"balance": balance}),
                "training": config.training.model_copy(update=trained),
            }
        )

    def describe(self, config: ClassifyConfig) -> str:
        return f"{super().describe(config)}, {config.model.vocabulary:,} {config.model.tokens}"

    def network(self, config: ClassifyConfig, run: Run) -> nn.Module:
        from throughtime.models.classifier import Classifier
        from throughtime.models.counts import Counts
        from throughtime.models.reader import Reader

        m = config.model
        names = ("vocabulary", "hidden_size", "embedding_size", "dropout", "word_dropout")
        sizes: dict[str, Any] = chosen(m, names, run)
        about = read_about(run)
        language, settings = None, about.get("language")
        if settings is not None:
            from throughtime.models.language import LanguageModel

            settings = settings["settings"]
            language = LanguageModel(**{**settings, "cutoffs": tuple(settings["cutoffs"])})
        pieces = len(about["pieces"]) if about.get("pieces") else 0
        stack: dict[str, Any] = {"cell": m.cell, "layers": m.layers, "bidirectional": m.bidirectional, "kind": m.kind}
        reader = Reader(**sizes, **stack, language=language, pieces=pieces)
        classes = len(about["labels"])
        counts = Counts(sizes["vocabulary"], classes, pieces) if m.counts else None
        return Classifier(reader, classes, m.pooling, sizes["dropout"], counts)

    def fill(self, network: Classifier, config: ClassifyConfig, run: Run) -> None:
        import torch

        from throughtime.tasks.batches import in_order_of_length

        network.class_weights = _read(run.corpus / "weights.json")
        if network.reader.language is not None:
            path, language = run.corpus / LANGUAGE, network.reader.language
            tensors, _ = read_tensors(path)
            for name, part in (("embedding.", language.embedding), ("stack.", language.stack)):
                put(part, {n.removeprefix(name): t for n, t in tensors.items() if n.startswith(name)}, path)
        if network.counts is not None:
            texts, labels = self._examples(config, run, "train")
            network.counts.count(
                (texts.read(some), torch.from_numpy(labels[some])) for some in in_order_of_length(texts.lengths)
            )

    def _reading(self, config: ClassifyConfig, run: Run) -> Reading:
        from throughtime.tasks.tokens import FILE, Tokens

        return _reading(Tokens.load(run.folder, run.read_json(FILE)), read_about(run), config.data.lower)

    def _examples(self, config: ClassifyConfig, run: Run, part: str) -> tuple[Texts, Any]:
        import numpy as np

        texts = self._reading(config, run).open(run.corpus / f"{part}.bin")
        return texts, np.array(_read(run.corpus / f"{part}-labels.json"))

    def stream(self, config: ClassifyConfig, data: Path, rows: slice) -> ByLength:
        import torch

        from throughtime.tasks.batches import ByLength

        texts, labels = self._examples(config, Run(data.parent.parent), "train")
        assert config.training.batch_size is not None

        def make(some: Any) -> tuple[Read, torch.Tensor]:
            return texts.read(some), torch.from_numpy(labels[some])

        return ByLength(texts.lengths, config.training.batch_size, config.seed, rows, make)

    def quick_tokens(self, config: ClassifyConfig, data: Path) -> int:
        from throughtime.tasks.batches import Sequences

        return int(Sequences.open(data / "valid.bin").lengths.sum())

    def score(self, network: nn.Module, config: ClassifyConfig, data: Path, *, quick: bool) -> dict[str, float]:
        texts, labels = self._examples(config, Run(data.parent.parent), "valid")
        values = measures(log_probabilities(network, texts), labels.tolist())
        best = values["macro_f1" if config.data.balance else "accuracy"]
        return {"loss": 1 - best + 1e-3 * values["nats"], **values}

    def trained(self, run: Run, config: ClassifyConfig, network: nn.Module) -> ClassifyModel:
        return ClassifyModel(run, config, network, self._reading(config, run), read_about(run)["labels"])


class ClassifyModel(Trained):
    """A trained classifier."""

    network: Classifier

    def __init__(
        self, run: Run, config: ClassifyConfig, network: nn.Module, reading: Reading, labels: list[str]
    ) -> None:
        super().__init__(run, config, network)
        self.reading, self.labels = reading, labels

    def _columns(self, text_column: str | None, label_column: str | None = None) -> Columns:
        from throughtime.tasks.tables import Columns

        data = self.config.data
        return Columns(text_column, label_column, "--", trained=(data.text_column, data.label_column))

    def evaluate(
        self,
        files: list[Path],
        advance: Advance = ignore,
        text_column: str | None = None,
        label_column: str | None = None,
    ) -> dict[str, Any]:
        """Scores on labelled texts.

        Args: text_column, label_column: of the files; None: as in training, else by name.
        Returns: task, examples, accuracy, macro_f1, calibration_error (expected, 10 bins), nats an example; per label precision,
            recall, F1 and how many; the confusion matrix, rows the true labels, columns the given ones.
        """
        from throughtime.tasks.tables import read_labelled

        paths, columns = [Path(f) for f in files], self._columns(text_column, label_column)
        columns.check(paths)
        rows = read_labelled(paths, columns)
        check_labels(rows, self.labels)
        texts = self.reading.texts((row.text for row in rows), LONGEST)
        log_p = log_probabilities(self.network, texts, advance)
        index = {label: i for i, label in enumerate(self.labels)}
        truth = [index[row.label] for row in rows]
        matrix = confusion(log_p.argmax(-1).tolist(), truth, len(self.labels))
        per_label = {label: f1(matrix, i) for i, label in enumerate(self.labels)}
        return {
            "task": "classify",
            "examples": len(rows),
            **measures(log_p, truth),
            "labels": per_label,
            "confusion": {label: dict(zip(self.labels, matrix[i], strict=True)) for i, label in enumerate(self.labels)},
        }

    def lines_of(self, file: Path, text_column: str | None = None) -> Iterable[str] | None:
        from throughtime.tasks.tables import is_table, read_texts

        if is_table(file) or text_column is not None:
            return read_texts(file, self._columns(text_column))
        return None

    def predict(self, lines: Iterable[str], batch: int = 64) -> Iterator[dict[str, Any]]:
        """The label of each line. Yields: line, label, probability, probabilities (of every label)."""
        for group in grouped(lines, batch):
            texts = self.reading.texts(group, LONGEST)
            for line, row in zip(group, log_probabilities(self.network, texts).exp().tolist(), strict=True):
                best = max(range(len(row)), key=row.__getitem__)
                yield {
                    "line": line,
                    "label": self.labels[best],
                    "probability": row[best],
                    "probabilities": dict(zip(self.labels, row, strict=True)),
                }

    def example(self, text: str) -> Example:
        import torch

        from throughtime.tasks.batches import moved
        from throughtime.tasks.tokens import UNKNOWN

        texts = self.reading.texts([text], LONGEST)
        ids = texts.sequences[0].copy()
        if not len(ids):
            raise UserError("the text is empty: there is nothing to look into")
        network, device = self.network, next(self.network.parameters()).device

        def answers(read: Read) -> torch.Tensor:
            return network.logits(moved(read, device)).log_softmax(-1)

        def attention(read: Read) -> torch.Tensor:
            hidden = network.reader(moved(read, device))
            return network.pool.weights(hidden, read.lengths.to(device)).t()

        def without(i: int) -> Read:
            texts.sequences.values[:] = ids
            texts.sequences.values[i] = UNKNOWN
            return texts.read([0])

        batch = texts.read([0])
        with torch.no_grad():
            chosen = [int(answers(batch)[0].argmax())]
        inputs = [texts.words[i] for i in ids]
        return Example(
            inputs,
            [self.labels[chosen[0]]],
            self.labels.__getitem__,
            batch,
            answers,
            chosen,
            without,
            {"reader.stack": inputs},
            attention if network.pool.kind == "attention" else None,
            whole=frozenset(["reader.stack"]),
        )

    def written(self, values: dict[str, Any]) -> str:
        return f"{values['label']}\t{values['probability']:.4f}\t{values['line']}"


def read_about(run: Run) -> dict[str, Any]:
    """What labels.json holds. Raises: UserError where it is damaged."""
    about: Any = run.read_json(LABELS)
    if not isinstance(about, dict) or not isinstance(about.get("labels"), list) or "spaced" not in about:
        raise UserError(f"{run.folder / LABELS}: the run is damaged: it does not hold the labels")
    return about


def _reading(tokens: Tokens, about: dict[str, Any], lower: bool) -> Reading:
    """How a run reads texts. about: what labels.json holds."""
    from functools import partial

    from throughtime.tasks.spelling import Reading, Spelling
    from throughtime.tasks.tokens import Tokens

    normalise = partial(normalised, kind=tokens.kind, spaced=about["spaced"], lower=lower)
    spelling = None if about.get("pieces") is None else Spelling(about["pieces"])
    vocabulary = (about.get("language") or {}).get("vocabulary")
    return Reading(tokens, normalise, spelling, None if vocabulary is None else Tokens.of(vocabulary))


def _language(model: ClassifyNetwork, folder: Path) -> tuple[dict[str, Any], str]:
    """Copy a language model's weights into `folder`. Returns: what it is built of and its vocabulary, and what this one cuts texts
    into."""
    import shutil

    from throughtime.tasks.text import TextConfig, TextTask
    from throughtime.tasks.tokens import FILE

    assert model.init_from is not None
    source = Run.open(Path(model.init_from))
    if source.task_name() != "text":
        raise UserError(
            f"model.init_from: {source.folder} is a run of the task {source.task_name()!r}; it takes one of text"
        )
    config = source.read_config(TextConfig)
    if config.model.kind == "transformer":
        raise UserError(f"model.init_from: {source.folder} is a Transformer; it takes a recurrent network")
    if model.tokens not in ("auto", config.model.tokens):
        raise UserError(f"model.tokens: {model.tokens}, but {source.folder} reads {config.model.tokens}; leave it out")
    if model.vocabulary is not None and config.model.tokens != "words":
        raise UserError(f"model.vocabulary: that of {source.folder} is taken; leave it out")
    settings = TextTask().settings(config, source)
    source.check_weights(config)  # what is damaged in it is said here
    shutil.copy(source.weights, folder / LANGUAGE)
    return {"settings": settings, "vocabulary": source.read_json(FILE)}, config.model.tokens


# ------------------------------------------------------------------------------------------------ what others share


def check_cell(cell: str) -> None:
    """Raises: UserError for a cell that there is not."""
    from throughtime.cells import NAMED

    if cell != "none" and cell not in NAMED:
        raise UserError("model.cell: " + unknown("cell", cell, [*NAMED, "none"]))


def chosen(model: Strict, names: tuple[str, ...], run: Run) -> dict[str, Any]:
    """Settings that `prepare` has chosen. Raises: UserError where one is missing: the run is damaged."""
    values = {name: getattr(model, name) for name in names}
    if missing := [f"model.{name}" for name, value in values.items() if value is None]:
        raise UserError(f"{run.config}: the run is damaged: {', '.join(missing)} missing")
    return values


def check_no_chunk(config: RunConfig) -> None:
    """Raises: UserError where gradients are asked to be cut in time, which only a text without an end needs."""
    if config.training.chunk is not None:
        raise UserError(f"training.chunk: the task {config.task!r} reads whole examples; leave it out")


def hold_out(
    rows: list[Any], share: float, seed: int, file: Path, labels: Callable[[Any], Iterable[str]] = lambda row: ()
) -> tuple[list[Any], list[Any]]:
    """A part of the examples of a file, drawn at random; not those with a label that no other has.

    Raises: UserError where there are too few.
    """
    import numpy as np

    if len(rows) < 2:
        from throughtime.tasks.tables import name_of

        raise UserError(f"{name_of(file)}: {len(rows)} example is too few: at least 2 are needed, one of them held out")
    order = np.random.default_rng((seed, 1)).permutation(len(rows))
    count = min(max(1, round(share * len(rows))), len(rows) - 1)
    often = Counter(label for row in rows for label in set(labels(row)))
    chosen = set[int]()
    for i in order.tolist():
        if len(chosen) < count and all(often[label] > 1 for label in labels(rows[i])):
            chosen.add(i)
            often.subtract(set(labels(rows[i])))
    if not chosen:
        from throughtime.tasks.tables import name_of

        raise UserError(f"{name_of(file)}: no label has two examples, one of them to hold out; give --valid")
    return [r for i, r in enumerate(rows) if i not in chosen], [r for i, r in enumerate(rows) if i in chosen]


def check_labels(rows: list[Labelled], labels: list[str]) -> None:
    """Raises: UserError for a label that training never had."""
    known = set(labels)
    for row in rows:
        if row.label not in known:
            raise UserError(f"{row.place}: training never had it: " + unknown("label", row.label, labels))


def normalised(text: str, kind: str, spaced: bool, lower: bool) -> str:
    """A text on one line as the network reads it: for words, with a space between them."""
    text = " ".join(text.split())
    if kind != "words":
        return text
    text = text.lower() if lower else text
    return text if spaced else " ".join(re.findall(_WORDS, text))


def class_weights(counts: list[int], balance: float) -> list[float] | None:
    """How much an example of each class counts: frequency^-balance, 1 for the mean example."""
    if balance == 0:
        return None
    raw = [c**-balance for c in counts]
    mean = sum(c * w for c, w in zip(counts, raw, strict=True)) / sum(counts)
    return [w / mean for w in raw]


def log_probabilities(network: Any, texts: Texts, advance: Advance = ignore) -> Any:
    """log p of every label for every text, float64 [n, C]."""
    import torch

    from throughtime.tasks.batches import in_order_of_length, moved

    device = next(network.parameters()).device
    training = network.training
    network.eval()
    out = None
    with torch.inference_mode():
        for chosen in in_order_of_length(texts.lengths):
            found = network.logits(moved(texts.read(chosen), device)).double().log_softmax(-1).cpu()
            out = torch.zeros(len(texts), found.shape[1], dtype=torch.float64) if out is None else out
            out[torch.from_numpy(chosen)] = found
            advance(len(chosen))
    network.train(training)
    assert out is not None
    return out


def measures(log_p: Any, truth: list[int]) -> dict[str, float]:
    """accuracy, macro F1, expected calibration error (Naeini et al. 2015) and nats an example."""
    import torch

    y = torch.tensor(truth)
    confidence, given = log_p.exp().max(-1)
    right = (given == y).double()
    matrix = confusion(given.tolist(), truth, log_p.shape[1])
    bins = (confidence * BINS).long().clamp(max=BINS - 1)
    error = 0.0
    for b in range(BINS):
        inside = bins == b
        if bool(inside.any()):
            error += float(inside.double().mean() * (confidence[inside].mean() - right[inside].mean()).abs())
    there = sorted(set(truth) | set(given.tolist()))
    return {
        "accuracy": float(right.mean()),
        "macro_f1": sum(f1(matrix, i)["f1"] for i in there) / len(there),
        "calibration_error": error,
        "nats": float(-log_p[torch.arange(len(y)), y].mean()),
    }


def confusion(given: list[int], truth: list[int], classes: int) -> list[list[int]]:
    """How often each true class (rows) was given each class (columns)."""
    matrix = [[0] * classes for _ in range(classes)]
    for g, t in zip(given, truth, strict=True):
        matrix[t][g] += 1
    return matrix


def f1(matrix: list[list[int]], i: int) -> dict[str, float]:
    """Precision, recall, F1 and number of examples of a class."""
    hits, true, given = matrix[i][i], sum(matrix[i]), sum(row[i] for row in matrix)
    return {
        "precision": hits / given if given else 0.0,
        "recall": hits / true if true else 0.0,
        "f1": 2 * hits / (true + given) if true + given else 0.0,
        "examples": true,
    }


def _json(values: Any) -> str:
    import json

    return json.dumps(values, ensure_ascii=False)


def _read(path: Path) -> Any:
    import json

    return json.loads(path.read_text(encoding="utf-8"))
