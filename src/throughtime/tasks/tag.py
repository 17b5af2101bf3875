"""Tag: a tag for every word of a sentence, from tagged sentences."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from throughtime.config import Positive, Rate, RunConfig
from throughtime.errors import UserError, unknown
from throughtime.tasks import defaults
from throughtime.tasks.base import Advance, Criterion, Task, Trained, ignore
from throughtime.tasks.look import LONGEST as SHOWN
from throughtime.tasks.look import Look, Stack, Steps, of_classes
from throughtime.tasks.networks import Input, Network, below, lengths
from throughtime.tasks.sentences import Sentence, from_text, sentences, with_tags
from throughtime.tasks.settings import DataSettings, StackSettings, check_cell, check_no_chunk, settled
from throughtime.tasks.source import Source
from throughtime.tasks.words import HYPHENATED

if TYPE_CHECKING:
    from torch import Tensor, nn

    from throughtime.models.tagger import Tagger
    from throughtime.runs import Run
    from throughtime.tasks.batches import Items

FILE = "tagset.json"
UNKNOWN, FIRST = 0, 2  # of words and characters; 1 is kept free, as in `Tokens`
NOT_GIVEN = -1  # the number of a tag that is not known
LONGEST = 40  # characters of a word that are read
RARITY = (
    0.25  # a word seen n times is read as unknown with probability RARITY / (RARITY + n) (Kiperwasser, Goldberg 2016)
)


class TagNetwork(StackSettings):
    """The network."""

    hidden_size: Positive | None = 200
    """Units in a layer, in each direction."""
    embedding_size: Positive | None = 100
    """Width of the embedding of words."""
    character_size: Positive = 64
    """Units of the network over a word's characters, in each direction."""
    dropout: Rate | None = 0.5
    """Dropout on what goes into and out of every layer."""
    crf: bool = False
    """Choose the tags of a sentence together (a conditional random field)."""


class TagData(DataSettings):
    """The tagged sentences."""

    column: str | None = None
    """Which column holds the tags: of CoNLL-U upos, xpos or feats, of other files its number, from 1. [default: upos; the last]"""


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
    def of(cls, items: list[Sentence]) -> tuple[Lexicon, list[int]]:
        """Of the training sentences; and how often each word stands there."""
        forms = Counter(w for s in items for w in s.words)
        words: Counter[str] = Counter()
        for form, n in forms.items():
            words[form.lower()] += n
        ordered = words.most_common()
        characters = sorted({c for form in forms for c in form})
        tags = sorted({t for s in items for t in s.tags if t is not None})
        return cls([w for w, _ in ordered], characters, tags, sorted(forms)), [n for _, n in ordered]

    @classmethod
    def open(cls, run: Run) -> Lexicon:
        """Those of a run. Raises: UserError where they are damaged."""
        values = run.read_json(FILE)
        try:
            return cls(values["words"], values["characters"], values["tags"], values["forms"])
        except (KeyError, TypeError) as error:
            raise UserError(f"{run.folder / FILE}: the run is damaged: {error!r}") from error

    def save(self, run: Run) -> None:
        """Put it into a run, for `open`."""
        values = {"tags": self.tags, "characters": self.characters, "words": self.words, "forms": self.forms}
        run.write_json(FILE, values)

    def examples(self, items: list[Sentence]) -> Items:
        """Sentences as `Examples`."""
        from throughtime.tasks.batches import Items

        return Items(items, [len(s.words) for s in items], self.batch)

    def batch(self, items: Sequence[Sentence]) -> tuple[Any, ...]:
        """Sentences as the network takes them: words [T, B], lengths, index of different words, their characters [L, U] and
        lengths; and tags [T, B], NOT_GIVEN where there is none that training had."""
        from throughtime.tasks.batches import padded

        different = dict.fromkeys(w for s in items for w in s.words)
        # the longest first, as scans take them
        numbers = {w: i for i, w in enumerate(sorted(different, key=lambda w: -min(len(w), LONGEST)))}
        index = [[numbers[w] for w in s.words] for s in items]
        words, lengths = padded([[self.word_index.get(w.lower(), UNKNOWN) for w in s.words] for s in items])
        spelt = padded([[self.character_index.get(c, UNKNOWN) for c in w[:LONGEST]] for w in numbers])
        known = self.tag_index
        tags = [[known.get(t, NOT_GIVEN) for t in s.tags] or [NOT_GIVEN] * len(s.words) for s in items]  # type: ignore[arg-type]
        return (words, lengths, padded(index)[0], *spelt, padded(tags, NOT_GIVEN)[0])


class TagTask(Task[TagConfig, Sentence]):
    """Tagging."""

    name: ClassVar[str] = "tag"
    pipeline: ClassVar[str | None] = "token-classification"
    config_type = TagConfig
    unit: ClassVar[str] = "words"
    bfloat16: ClassVar[bool] = True

    def check(self, config: TagConfig, files: Sequence[Path] = ()) -> None:
        check_cell(config.model.cell, memoryless=True)
        check_no_chunk(config)

    def read(self, config: TagConfig, files: Sequence[Path], options: Any = None) -> list[Sentence]:
        sources = (self.source(config, file, options) for file in files)
        found = [s for source in sources for s in sentences(source, config.data.column, tagged=True)]
        _say_long(found)
        return found

    def items(self, config: TagConfig, source: Source, options: Any) -> Iterator[Sentence]:
        return sentences(source, config.data.column, tagged=None)

    def item(self, given: Any) -> Sentence:
        return (
            given
            if isinstance(given, Sentence)
            else from_text(given)
            if isinstance(given, str)
            else super().item(given)
        )

    def labels(self, item: Sentence) -> Iterable[str]:
        return [t for t in item.tags if t is not None]

    def criterion(self, config: TagConfig) -> Criterion:
        return Criterion("accuracy", higher=True, tie="nats_per_word")

    def prepare(
        self, config: TagConfig, train: list[Sentence], held: list[Sentence], run: Run, advance: Advance
    ) -> TagConfig:
        lexicon, counts = Lexicon.of(train)
        if len(lexicon.tags) < 2:
            tags = f"all words have the tag {lexicon.tags[0]!r}" if lexicon.tags else "no word has a tag"
            raise UserError(f"{train[0].place()}: {tags}; there must be two tags or more")
        _check_tags(held, lexicon, strict=config.data.column in (None, "upos"))
        lexicon.save(run)
        for name, rows in (("train", train), ("valid", held)):
            run.write_data(f"{name}.json", [[s.words, s.tags] for s in rows])
        run.write_data("counts.json", counts)
        return settled(config, training=defaults.tag(config, len(train)))

    def network(self, config: TagConfig, run: Run) -> nn.Module:
        from throughtime.models.tagger import Tagger

        lexicon = Lexicon.open(run)
        sizes = (len(lexicon.words) + FIRST, len(lexicon.characters) + FIRST, len(lexicon.tags))
        return Tagger(*sizes, **config.model.model_dump())

    def fill(self, network: Tagger, config: TagConfig, run: Run) -> None:
        import torch

        counts = run.read_data("counts.json")
        network.rarity[FIRST:] = RARITY / (RARITY + torch.tensor(counts, dtype=torch.float32))

    def examples(self, config: TagConfig, run: Run, part: str) -> Items:
        rows = run.read_data(f"{part}.json")
        return Lexicon.open(run).examples([Sentence(words, tags) for words, tags in rows])

    def score(self, model: TagModel, examples: Items, *, quick: bool) -> dict[str, Any]:
        tags, nats = model.tagged(examples)
        return {**model.accuracies(list(examples.items), tags), "nats_per_word": nats}

    def trained(self, run: Run, config: TagConfig, network: nn.Module) -> TagModel:
        return TagModel(self, run, config, network, Lexicon.open(run))


class TagModel(Trained[Sentence]):
    """A trained tagger."""

    network: Tagger
    words: ClassVar[str] = HYPHENATED

    def __init__(self, task: TagTask, run: Run, config: TagConfig, network: nn.Module, lexicon: Lexicon) -> None:
        super().__init__(task, run, config, network)
        self.lexicon = lexicon

    @property
    def gives(self) -> str:
        return f"tags of the column {self.config.data.column or 'upos'}"

    def tagged(self, examples: Items, advance: Advance = ignore) -> tuple[list[list[str]], float]:
        """The tags of sentences, and the nats a word of those they should be, where any are known."""
        from throughtime.tasks.batches import over

        out: list[list[str]] = [[] for _ in examples.items]
        total, count = 0.0, 0

        def take(numbers: Any, batch: Any) -> None:
            nonlocal total, count
            *given, tags = batch
            scores, lengths = self.network.scores(*given), given[1]
            nats, n = self.network.nats(scores, lengths, tags)
            total, count = total + float(nats), count + int(n)
            for i, row in zip(numbers, self.network.best(scores, lengths).t().tolist(), strict=True):
                out[i] = [self.lexicon.tags[t] for t in row[: examples.lengths[i]]]

        over(self.network, examples, take, advance)
        return out, total / max(count, 1)

    def accuracies(self, items: list[Sentence], tags: list[list[str]]) -> dict[str, float]:
        """Accuracy over all words whose tag is known, over those that training had, and those it had not, where there are any."""
        right: Counter[bool] = Counter()
        total: Counter[bool] = Counter()
        for sentence, given in zip(items, tags, strict=True):
            for word, tag, true in zip(sentence.words, given, sentence.tags, strict=True):
                if true is not None:
                    known = word in self.lexicon.known
                    total[known] += 1
                    right[known] += tag == true
        names = {True: "known_accuracy", False: "unknown_accuracy"}
        each = {name: right[known] / total[known] for known, name in names.items() if total[known]}
        return {"accuracy": right.total() / max(total.total(), 1), **each}

    def scores(self, items: list[Sentence], options: Any, advance: Advance = ignore) -> dict[str, Any]:
        """Scores on tagged sentences.

        Returns: sentences, words whose tag is known, accuracy over all of them, over those that training had and those it had not,
            how many these are, nats a word; of tags that mark entities (IOB, BIOES) precision, recall and F1 of whole entities; per
            tag precision, recall, F1 and how many.
        """
        from throughtime.tasks.entities import entity_scores
        from throughtime.tasks.metrics import confusion, f1

        _check_tags(items, self.lexicon, strict=False)
        tags, nats = self.tagged(self.lexicon.examples(items), advance)
        pairs = [(t, g) for s, some in zip(items, tags, strict=True) for t, g in zip(s.tags, some, strict=True) if t]
        names = sorted({name for pair in pairs for name in pair})
        index = {name: i for i, name in enumerate(names)}
        matrix = confusion([index[g] for _, g in pairs], [index[t] for t, _ in pairs], len(names))
        return {
            "sentences": len(items),
            "words": len(pairs),
            **self.accuracies(items, tags),
            "nats_per_word": nats,
            "unknown_words": sum(w not in self.lexicon.known for s in items for w in s.words),
            **entity_scores(tags, [s.tags for s in items]),
            "tags": {name: f1(matrix, i) for name, i in index.items()},
        }

    def items(self, source: Source, options: Any) -> Iterator[Sentence]:
        return sentences(source, self.config.data.column, tagged=None, known=self.lexicon.tags)

    def answers(self, items: list[Sentence], options: Any) -> Iterator[dict[str, Any]]:
        """The tags of sentences. Yields: words, tags, gold where the source has tags, and lines: the sentence as it stood, with the
        tags put in; in the order given."""
        _say_long(items)
        tags, _ = self.tagged(self.lexicon.examples(items))
        for sentence, given in zip(items, tags, strict=True):
            values: dict[str, Any] = {"words": sentence.words, "tags": given}
            if sentence.tags:
                values["gold"] = sentence.tags
            yield values | {"lines": with_tags(sentence, given, self.config.data.column)}

    def networks(self) -> list[Network]:
        def tagged(words: Tensor, lengths: Tensor, *given: Tensor) -> tuple[Tensor, Tensor]:
            scores = self.network.scores(words, lengths, *given)
            return self.network.best(scores, lengths), scores

        known = "0: not known"
        words, characters = len(self.lexicon.words) + FIRST, len(self.lexicon.characters) + FIRST
        inputs = (
            Input("words", ("T", "B"), f"of each word in small letters its place in `words`, from {FIRST}; {known}", below(words)),
            Input("lengths", ("B",), "words of each sentence", lengths("T")),
            Input("index", ("T", "B"), "of each word its place in `spelt`", below("U")),
            Input("spelt", ("L", "U"), f"of each different word its characters' places in `characters`, from {FIRST}; {known}; "
                  f"the first {LONGEST} of them", below(characters)),
            Input("spelt_lengths", ("U",), "characters of each different word", lengths("L")),
        )  # fmt: skip
        outputs = {"tags": "the place of each word's tag in `tags`", "scores": "of each tag; past a sentence anything"}

        def best(given: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> Tensor:
            return self.network.best(found["scores"], given["lengths"])

        return [Network("tagger", self.network, tagged, inputs, outputs, chosen={"tags": best})]

    def beside(self) -> dict[str, str]:
        about = {"pattern": HYPHENATED, "longest": LONGEST}
        lexicon = {"tags": self.lexicon.tags, "characters": self.lexicon.characters, "words": self.lexicon.words}
        return {FILE: dumps(about | lexicon, ensure_ascii=False)}

    def answer(self, text: str) -> dict[str, Any]:
        found = super().answer(text)
        return {"words": found["words"], "tags": found["tags"]}

    def written(self, values: dict[str, Any]) -> str:
        return f"{values['lines']}\n"

    def empty(self, item: Sentence) -> bool:
        return not item.words

    def shown(self, item: Sentence) -> Sentence:
        if len(item.words) <= SHOWN:
            return item
        warnings.warn(
            f"a sentence of {len(item.words):,} words is too long to be shown: its first {SHOWN} are read", stacklevel=3
        )
        return Sentence(item.words[:SHOWN])

    def look(self, item: Sentence) -> Look:
        import torch

        from throughtime.tasks.batches import moved

        if not item.words:
            raise UserError("the sentence is empty: there is nothing to look into")
        _say_long([item])

        def batch(words: list[str]) -> Any:
            return moved(self.lexicon.batch([Sentence(words)])[:-1], self.device)

        def answers(given: Any) -> torch.Tensor:
            return self.network.scores(*given)[:, 0].log_softmax(-1)

        def without(i: int) -> Any:
            return batch([*item.words[:i], "", *item.words[i + 1 :]])

        whole = batch(item.words)
        with torch.no_grad():
            chosen = self.network.best(self.network.scores(*whole), whole[1])[:, 0].tolist()
        inputs, outputs = Steps(item.words), Steps([self.lexicon.tags[t] for t in chosen])
        return Look(
            inputs=inputs,
            outputs=outputs,
            batch=whole,
            score=of_classes(answers, chosen),
            stacks={"stack": Stack(name="", steps=inputs)},
            distribution=answers,
            names=self.lexicon.tags.__getitem__,
            without=without,
            about=item.words,
        )


def _say_long(items: Iterable[Sentence]) -> None:
    """Warn of words that are not read to their end."""
    long = list(dict.fromkeys(w for s in items for w in s.words if len(w) > LONGEST))
    if long:
        what = "a word" if len(long) == 1 else f"{len(long):,} different words"
        warnings.warn(
            f"of {what} of over {LONGEST} characters the first {LONGEST} are read as characters: {long[0][:LONGEST]} …",
            stacklevel=3,
        )


def _check_tags(items: list[Sentence], lexicon: Lexicon, strict: bool = True) -> None:
    """Raises: UserError for a tag that training never had: in held-out data, where it is a mistake; strict=False leaves rare
    ones be, and they count as wrong."""
    missing = Counter(t for s in items for t in s.tags if t is not None and t not in lexicon.tag_index)
    words = sum(len(s.words) for s in items)
    if missing and (strict or missing.total() > words / 2):
        tag = next(iter(missing))
        place = next(s.place(s.tags.index(tag)) for s in items if tag in s.tags)
        raise UserError(f"{place}: training never had it: " + unknown("tag", tag, lexicon.tags))
