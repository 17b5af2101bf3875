"""Tag: a tag for every word of a sentence, from tagged sentences."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from throughtime.config import STDIN, Positive, Rate, RunConfig, Strict
from throughtime.errors import UserError, unknown
from throughtime.runs import Run, write_text
from throughtime.tasks import defaults
from throughtime.tasks.base import Advance, Example, Task, Trained, ignore, keep_samples, taken
from throughtime.tasks.classify import check_cell, check_no_chunk, confusion, f1, hold_out
from throughtime.tasks.sentences import WORDS

if TYPE_CHECKING:
    from torch import nn

    from throughtime.models.tagger import Tagger
    from throughtime.tasks.batches import ByLength
    from throughtime.tasks.sentences import Sentence

FILE = "tagset.json"
UNKNOWN, FIRST = 0, 2  # of words and characters; 1 is kept free, as in `Tokens`
LONGEST = 40  # characters of a word that are read
RARITY = (
    0.25  # a word seen n times is read as unknown with probability RARITY / (RARITY + n) (Kiperwasser, Goldberg 2016)
)


class TagNetwork(Strict):
    """The network."""

    kind: Literal["recurrent", "transformer"] = "recurrent"
    """transformer: one of as many parameters as the recurrent network of these settings would have, with a dropout of 0.3
    at most."""
    cell: str = "lstm"
    """The recurrent cell, a name in `throughtime.cells.NAMED`; none: a network that sees one word at a time."""
    hidden_size: Positive = 200
    """Units in a layer, in each direction."""
    layers: Positive = 1
    """Layers above each other."""
    embedding_size: Positive = 100
    """Width of the embedding of words."""
    character_size: Positive = 64
    """Units of the network over a word's characters, in each direction."""
    dropout: Rate = 0.5
    """Dropout on what goes into and out of every layer."""
    crf: bool = False
    """Choose the tags of a sentence together (a conditional random field)."""


class TagData(Strict):
    """The tagged sentences."""

    column: Literal["upos", "xpos", "feats"] = "upos"
    """Which column of CoNLL-U holds the tags."""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """The share that is held out where no --valid is given."""


class TagConfig(RunConfig):
    """All settings of a tagger."""

    task: str = "tag"
    model: TagNetwork = TagNetwork()
    data: TagData = TagData()


class Lexicon:
    """The words, characters and tags of the training data, as numbers."""

    def __init__(self, words: list[str], characters: list[str], tags: list[str], forms: list[str]) -> None:
        self.words, self.characters, self.tags, self.forms = words, characters, tags, forms
        self.word_index = {w: i for i, w in enumerate(words, FIRST)}
        self.character_index = {c: i for i, c in enumerate(characters, FIRST)}
        self.tag_index = {t: i for i, t in enumerate(tags)}
        self.known = set(forms)

    @classmethod
    def of(cls, sentences: list[Sentence]) -> tuple[Lexicon, list[int]]:
        """Of the training sentences; and how often each word stands there."""
        forms = Counter(w for s in sentences for w in s.words)
        words: Counter[str] = Counter()
        for form, n in forms.items():
            words[form.lower()] += n
        ordered = words.most_common()
        characters = sorted({c for form in forms for c in form})
        tags = sorted({t for s in sentences for t in s.tags})
        return cls([w for w, _ in ordered], characters, tags, sorted(forms)), [n for _, n in ordered]

    def save(self, folder: Path) -> None:
        values = {"tags": self.tags, "characters": self.characters, "words": self.words, "forms": self.forms}
        write_text(folder / FILE, json.dumps(values, ensure_ascii=False))

    def batch(self, sentences: list[Sentence], tagged: bool) -> tuple[Any, ...]:
        """Sentences as the network takes them: words [T, B], lengths, index of different words, their characters [L, U]
        and lengths; and tags [T, B] where they are tagged."""
        from throughtime.tasks.batches import side_by_side

        numbers: dict[str, int] = {}
        index = [[numbers.setdefault(w, len(numbers)) for w in s.words] for s in sentences]
        words, lengths = side_by_side([[self.word_index.get(w.lower(), UNKNOWN) for w in s.words] for s in sentences])
        spelt = side_by_side([[self.character_index.get(c, UNKNOWN) for c in w[:LONGEST]] for w in numbers])
        tags = side_by_side([[self.tag_index[t] for t in s.tags] for s in sentences])[:1] if tagged else ()
        return (words, lengths, side_by_side(index)[0], *spelt, *tags)


class TagTask(Task[TagConfig]):
    """Tagging."""

    name: ClassVar[str] = "tag"
    config_type = TagConfig
    files: ClassVar[tuple[str, ...]] = (FILE,)

    def check(self, config: TagConfig) -> None:
        check_cell(config.model.cell)
        check_no_chunk(config)

    def prepare(
        self, config: TagConfig, files: list[Path], valid: list[Path], folder: Path, advance: Advance
    ) -> TagConfig:
        from throughtime.tasks.sentences import read_tagged

        train = read_tagged(files, config.data.column)
        if valid:
            held = read_tagged(valid, config.data.column)
        else:
            train, held = hold_out(train, config.data.held_out, config.seed, files[0], lambda sentence: sentence.tags)
        if config.data.column != "upos" and not any(s.lines for s in train):
            raise UserError(
                "data.column: only CoNLL-U has columns to choose from, and the files have a word and its tag"
            )
        lexicon, counts = Lexicon.of(train)
        if len(lexicon.tags) < 2:
            raise UserError(
                f"{train[0].place()}: all words have the tag {lexicon.tags[0]!r}; there must be two tags or more"
            )
        _check_tags(held, lexicon, strict=config.data.column == "upos")
        _say_long([*train, *held])
        lexicon.save(folder)
        for name, rows in (("train", train), ("valid", held)):
            write_text(folder / f"{name}.json", json.dumps([[s.words, s.tags] for s in rows], ensure_ascii=False))
        write_text(folder / "counts.json", json.dumps(counts))
        keep_samples(folder, (" ".join(s.words) for s in held))
        return config.model_copy(
            update={"training": config.training.model_copy(update=defaults.tag(config, len(train)))}
        )

    def network(self, config: TagConfig, run: Run) -> nn.Module:
        from throughtime.models.tagger import Tagger

        lexicon = read_lexicon(run)
        sizes = (len(lexicon.words) + FIRST, len(lexicon.characters) + FIRST, len(lexicon.tags))
        return Tagger(*sizes, **config.model.model_dump())

    def fill(self, network: Tagger, config: TagConfig, run: Run) -> None:
        import torch

        counts = json.loads((run.corpus / "counts.json").read_text())
        network.rarity[FIRST:] = RARITY / (RARITY + torch.tensor(counts, dtype=torch.float32))

    def stream(self, config: TagConfig, data: Path, rows: slice) -> ByLength:
        from throughtime.tasks.batches import ByLength

        sentences, lexicon = _read(data / "train.json"), read_lexicon(Run(data.parent.parent))
        lengths = [len(s.words) for s in sentences]
        batch = config.training.batch_size
        assert batch is not None
        return ByLength(
            lengths, batch, config.seed, rows, lambda chosen: lexicon.batch([sentences[i] for i in chosen], tagged=True)
        )

    def quick_tokens(self, config: TagConfig, data: Path) -> int:
        return sum(len(s.words) for s in _read(data / "valid.json"))

    def score(self, network: nn.Module, config: TagConfig, data: Path, *, quick: bool) -> dict[str, float]:
        sentences, lexicon = _read(data / "valid.json"), read_lexicon(Run(data.parent.parent))
        given = tags_of(network, lexicon, sentences)
        values = measures(sentences, given, lexicon)
        return {"loss": 1 - values["accuracy"], **values}

    def trained(self, run: Run, config: TagConfig, network: nn.Module) -> TagModel:
        return TagModel(run, config, network, read_lexicon(run))


class TagModel(Trained):
    """A trained tagger."""

    network: Tagger
    words: ClassVar[str] = WORDS

    def __init__(self, run: Run, config: TagConfig, network: nn.Module, lexicon: Lexicon) -> None:
        super().__init__(run, config, network)
        self.lexicon = lexicon

    @property
    def gives(self) -> str:
        return f"tags of the column {self.config.data.column}"

    def evaluate(self, files: list[Path], advance: Advance = ignore) -> dict[str, Any]:
        """Scores on tagged sentences.

        Returns: task, sentences, words, accuracy over all words, over those that training had and those it had not, how many
            these are, and per tag precision, recall, F1 and how many.
        """
        from throughtime.tasks.sentences import read_tagged

        sentences = read_tagged([Path(f) for f in files], self.config.data.column)
        _check_tags(sentences, self.lexicon, strict=False)
        _say_long(sentences)
        given = tags_of(self.network, self.lexicon, sentences, advance)
        truth = [t for s in sentences for t in s.tags]
        flat = [t for tags in given for t in tags]
        names = sorted({*truth, *flat})
        index = {name: i for i, name in enumerate(names)}
        matrix = confusion([index[t] for t in flat], [index[t] for t in truth], len(names))
        return {
            "task": "tag",
            "sentences": len(sentences),
            "words": len(truth),
            **measures(sentences, given, self.lexicon),
            "unknown_words": sum(w not in self.lexicon.known for s in sentences for w in s.words),
            "tags": {name: f1(matrix, i) for name, i in index.items()},
        }

    def predict(self, lines: Iterable[str], batch: int = 64) -> Iterator[dict[str, Any]]:
        """The tags of sentences: plain ones, one a line, or CoNLL-U. Yields: words, tags, conllu, in the order given."""
        import itertools
        from functools import partial

        from throughtime.tasks.sentences import from_conllu, from_text, is_conllu, with_tags

        source, name, first = iter(lines), str(getattr(lines, "name", STDIN)), list[str]()
        for line in source:
            first.append(line)
            if line.strip() and not line.startswith("#"):
                break
        source = itertools.chain(first, source)
        conllu = bool(first) and (name.endswith(".conllu") or is_conllu(first[-1]))
        sentences = from_conllu(source, name, None) if conllu else (from_text(line) for line in source if line.strip())
        column = self.config.data.column
        ready = getattr(lines, "ready", None)
        whole = None if ready is None else partial(ready, block=True)
        for group in taken(sentences, batch if conllu else 1, whole):
            _say_long(group)
            for sentence, tags in zip(group, tags_of(self.network, self.lexicon, group), strict=True):
                yield {"words": sentence.words, "tags": tags, "conllu": with_tags(sentence, tags, column)}

    def example(self, text: str) -> Example:
        import torch

        from throughtime.tasks.batches import moved
        from throughtime.tasks.sentences import Sentence, from_text

        sentence = from_text(text)
        if not sentence.words:
            raise UserError("the sentence is empty: there is nothing to look into")
        _say_long([sentence])
        device = next(self.network.parameters()).device

        def batch(words: list[str]) -> Any:
            return moved(self.lexicon.batch([Sentence(words, [])], tagged=False), device)

        def answers(given: Any) -> torch.Tensor:
            return self.network.scores(*given)[:, 0].log_softmax(-1)

        def without(i: int) -> Any:
            return batch([*sentence.words[:i], "", *sentence.words[i + 1 :]])

        whole = batch(sentence.words)
        with torch.no_grad():
            chosen = self.network.tag(*whole)[:, 0].tolist()
        tags = [self.lexicon.tags[t] for t in chosen]
        steps = {"stack": sentence.words}
        return Example(sentence.words, tags, self.lexicon.tags.__getitem__, whole, answers, chosen, without, steps)

    def answer(self, text: str) -> dict[str, Any]:
        from throughtime.tasks.sentences import from_text

        sentence = from_text(text)
        (tags,) = tags_of(self.network, self.lexicon, [sentence])
        return {"words": sentence.words, "tags": tags}

    def written(self, values: dict[str, Any]) -> str:
        return f"{values['conllu']}\n"


def tags_of(network: Any, lexicon: Lexicon, sentences: list[Sentence], advance: Advance = ignore) -> list[list[str]]:
    """The tags that a network gives, sentence by sentence."""
    import torch

    from throughtime.tasks.batches import in_order_of_length, moved

    device = next(network.parameters()).device
    training = network.training
    network.eval()
    out: list[list[str]] = [[] for _ in sentences]
    with torch.inference_mode():
        for some in in_order_of_length([len(s.words) for s in sentences]):
            group = [i for i in some if sentences[i].words]
            if not group:
                continue
            given = network.tag(*moved(lexicon.batch([sentences[i] for i in group], tagged=False), device)).t().tolist()
            for i, tags in zip(group, given, strict=True):
                out[i] = [lexicon.tags[t] for t in tags[: len(sentences[i].words)]]
            advance(len(group))
    network.train(training)
    return out


def _say_long(sentences: Iterable[Sentence]) -> None:
    """Warn of words that are not read to their end."""
    long = list(dict.fromkeys(w for s in sentences for w in s.words if len(w) > LONGEST))
    if long:
        what = "a word" if len(long) == 1 else f"{len(long):,} different words"
        warnings.warn(
            f"of {what} of over {LONGEST} characters the first {LONGEST} are read as characters: {long[0][:LONGEST]} …",
            stacklevel=3,
        )


def measures(sentences: list[Sentence], given: list[list[str]], lexicon: Lexicon) -> dict[str, float]:
    """Accuracy over all words, and over known and unknown ones where there are any."""
    right: Counter[bool] = Counter()
    total: Counter[bool] = Counter()
    for sentence, tags in zip(sentences, given, strict=True):
        for word, tag, true in zip(sentence.words, tags, sentence.tags, strict=True):
            known = word in lexicon.known
            total[known] += 1
            right[known] += tag == true
    names = {True: "known_accuracy", False: "unknown_accuracy"}
    each = {name: right[known] / total[known] for known, name in names.items() if total[known]}
    return {"accuracy": right.total() / max(total.total(), 1), **each}


def read_lexicon(run: Run) -> Lexicon:
    """The words, characters and tags of a run. Raises: UserError where they are damaged."""
    values = run.read_json(FILE)
    try:
        return Lexicon(values["words"], values["characters"], values["tags"], values["forms"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{run.folder / FILE}: the run is damaged: {error!r}") from error


def _check_tags(sentences: list[Sentence], lexicon: Lexicon, strict: bool = True) -> None:
    """Raises: UserError for a tag that training never had: in held-out data, where it is a mistake; strict=False leaves rare
    ones be, and they count as wrong."""
    missing = Counter(t for s in sentences for t in s.tags if t not in lexicon.tag_index)
    words = sum(len(s.words) for s in sentences)
    if missing and (strict or missing.total() > words / 2):
        tag = next(iter(missing))
        place = next(s.place(s.tags.index(tag)) for s in sentences if tag in s.tags)
        raise UserError(f"{place}: training never had it: " + unknown("tag", tag, lexicon.tags))


def _read(path: Path) -> list[Sentence]:
    from throughtime.tasks.sentences import Sentence

    return [Sentence(words, tags) for words, tags in json.loads(path.read_text(encoding="utf-8"))]
