"""Translate: a sequence from a sequence, from aligned files. Languages, spellings to sounds, dates to dates."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from throughtime.config import Positive, Rate, RunConfig, Strict
from throughtime.errors import UserError
from throughtime.tasks import defaults
from throughtime.tasks.base import Advance, Task, Trained, ignore, in_groups
from throughtime.tasks.look import Look, Stack, Steps, beginning, of_classes
from throughtime.tasks.networks import Network
from throughtime.tasks.pairs import END, Limit, Pair, coded, longest_learned, pairs, read_tokens, scored
from throughtime.tasks.settings import DataSettings, ReadOptions, StackSettings, check_no_chunk, chosen, settled
from throughtime.tasks.source import Source
from throughtime.tasks.tokens import UNKNOWN, Tokens, learn

if TYPE_CHECKING:
    import torch
    from torch import nn

    from throughtime.models.translator import Translator
    from throughtime.runs import Run
    from throughtime.tasks.batches import Sequences

FILE = "vocabularies.json"
ENOUGH = 200_000  # characters of running text on a side, on the mean, from which on it is cut into pieces
READ = 1000  # tokens of a line that are read when translating; more where more were learned from
TOGETHER = 64  # lines that are translated at a time while they are scored


class TranslateNetwork(StackSettings):
    """The network. layers: of the encoder."""

    tokens: Literal["auto", "bpe", "words", "characters"] = "auto"
    """What both sides are cut into. auto: pieces for running text, characters for single words, words for a few kinds of signs."""
    vocabulary: Annotated[int, Field(ge=3)] | None = None
    """Entries at most. [default: pieces to fit the text, 8,000 at most; all characters; 30,000 words]"""
    joint: bool | None = None
    """One vocabulary for both sides. [default: where both are cut into pieces]"""
    attention: Literal["additive", "multiplicative"] = "multiplicative"
    """additive: Bahdanau et al. 2015, appendix A.1.2; multiplicative: Luong et al. 2015, section 3.1 (general)."""
    input_feeding: bool = False
    """The decoder reads its last attentional vector (Luong et al. 2015, section 3.3). Slower."""
    smoothing: Rate = 0.1
    """Label smoothing (Szegedy et al. 2016, section 7)."""
    tied: bool = True
    """The output weights are the target's embedding."""


class TranslateData(DataSettings):
    """The pairs."""

    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """The share that is held out where no --valid is given."""
    delimiter: str | None = None
    """What stands between a source and its target: a sign, or tab, comma, semicolon. [default: found]"""
    longest: Positive | None = None
    """Tokens of a side that are learned from, at most; of a longer one its beginning. [default: 1,000, less where a batch would
    need much memory]"""


class TranslateConfig(RunConfig):
    """All settings of a translator."""

    task: str = "translate"
    model: TranslateNetwork = TranslateNetwork()
    data: TranslateData = TranslateData()


class PairOptions(ReadOptions):
    """Of `inspect`."""

    delimiter: str | None = None
    """What stands between a source and its target: a sign, or tab, comma, semicolon. [default: found]"""


class EvaluateOptions(PairOptions):
    """Of `evaluate`."""

    beam: Positive = 5
    """Hypotheses kept in the search; 1 is greedy."""


class PredictOptions(EvaluateOptions):
    """Of `predict`."""

    alignments: bool = False
    """Also what each token of a translation attended to."""
    temperature: Annotated[float, Field(ge=0)] | None = None
    """Draw in place of searching; under 1 is safer, 0 takes the likeliest."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """Of what is drawn."""

    @cached_property
    def generator(self) -> torch.Generator | None:
        """What is drawn with; None: PyTorch's own."""
        import torch

        return None if self.seed is None else torch.Generator().manual_seed(self.seed)

    @model_validator(mode="after")
    def _one_way(self) -> PredictOptions:
        if self.temperature is not None and "beam" in self.model_fields_set:
            raise ValueError("beam and temperature: a search draws nothing; give one")
        if self.seed is not None and self.temperature is None:
            raise ValueError("seed: only what is drawn hangs on it; give temperature too")
        return self


class Pairs:
    """Both sides of pairs as `Examples`. lengths: [n, 2]. items: the pairs, where they are known."""

    def __init__(self, source: Sequences, target: Sequences, items: Sequence[Pair] = ()) -> None:
        import numpy as np

        self.source, self.target, self.items = source, target, items
        self.lengths = np.stack([source.lengths, target.lengths], 1)

    def batch(self, numbers: Any) -> tuple[Any, ...]:
        """Some of the pairs: sources [S, B], lengths [B], targets [T, B], lengths [B]."""
        from throughtime.tasks.batches import padded

        return (*padded([self.source[i] for i in numbers]), *padded([self.target[i] for i in numbers]))

    def item(self, number: int) -> Pair:
        """One of the pairs, where they are known."""
        return self.items[number]

    def save(self, run: Run, part: str) -> None:
        """Put both sides into what training needs, as those of a part."""
        self.source.save(run.corpus / f"{part}-source.bin")
        self.target.save(run.corpus / f"{part}-ended-target.bin")


class TranslateTask(Task[TranslateConfig, Pair]):
    """Sequence to sequence."""

    name: ClassVar[str] = "translate"
    pipeline: ClassVar[str | None] = "translation"
    bfloat16: ClassVar[bool] = True
    config_type = TranslateConfig
    aligned: ClassVar[bool] = True
    predict_options: ClassVar[type[Strict]] = PredictOptions
    evaluate_options: ClassVar[type[Strict]] = EvaluateOptions
    inspect_options: ClassVar[type[Strict]] = PairOptions

    def check(self, config: TranslateConfig, files: Sequence[Path] = ()) -> None:
        super().check(config, files)
        check_no_chunk(config)
        if config.model.kind == "transformer" and config.model.input_feeding:
            raise UserError("model.input_feeding: a Transformer has no step to feed; leave it out")
        if config.model.kind == "transformer" and config.model.attention != "multiplicative":
            raise UserError("model.attention: a Transformer has its own (scaled, multiplicative); leave it out")

    def read(self, config: TranslateConfig, files: Sequence[Path], options: Any = None) -> list[Pair]:
        delimiter = (config.data if options is None else options).delimiter
        sources = [self.source(config, file, options) for file in files]
        return list(pairs(sources, both=True, delimiter=delimiter))

    def items(self, config: TranslateConfig, source: Source, options: Any) -> Iterator[Pair]:
        return pairs([source], both=None, delimiter=options.delimiter)

    def item(self, given: Any) -> Pair:
        return (
            given
            if isinstance(given, Pair)
            else Pair(given, None, "")
            if isinstance(given, str)
            else super().item(given)
        )

    def prepare(
        self, config: TranslateConfig, train: list[Pair], held: list[Pair], run: Run, advance: Advance
    ) -> TranslateConfig:
        model = config.model
        sides = [[p.source for p in train], [str(p.target) for p in train]]
        kinds = _kinds(sides) if model.tokens == "auto" else [model.tokens] * 2
        joint = model.joint if model.joint is not None else kinds == ["bpe", "bpe"]
        if joint and kinds[0] != kinds[1]:
            raise UserError(
                f"model.joint: the sides are cut into {kinds[0]} and {kinds[1]}; one vocabulary needs one kind"
            )
        size = sum(len(text) for side in sides for text in side)
        if joint:
            both = _vocabulary(model, kinds[0], [t for pair in zip(*sides, strict=True) for t in pair], size)
            tokens = (both, both)
        else:
            first, second = (_vocabulary(model, kind, side, size) for kind, side in zip(kinds, sides, strict=True))
            tokens = (first, second)
        kind = model.tokens if model.tokens != "auto" else kinds[0] if kinds[0] == kinds[1] else "auto"
        fitted, trained = defaults.translate(config, len(train), size)
        fitted |= {"tokens": kind, "joint": joint, "vocabulary": max(map(len, tokens))}
        longest = config.data.longest
        if longest is None:
            additive = model.kind == "recurrent" and model.attention == "additive"
            width = (model.hidden_size or fitted["hidden_size"]) if additive else 1
            longest = longest_learned(trained["batch_size"], len(tokens[1]), width)
        source, target, cut = coded(train, tokens, longest)
        if cut:
            warnings.warn(
                f"{cut:,} of {len(train):,} pairs have a side of over {longest:,} tokens: their first {longest:,} are learned "
                f"from, and a target that is cut teaches no end (data.longest)",
                stacklevel=2,
            )
        about = {"joint": joint, "limit": Limit.fitted(source.lengths, target.lengths)}
        run.write_json(FILE, about | {"sides": [t.values() for t in tokens[: 1 if joint else 2]]})
        Pairs(source, target).save(run, "train")
        Pairs(*scored(held, tokens)).save(run, "valid")
        run.write_data("valid.json", [[p.source, p.target] for p in held])
        return settled(config, model=fitted, data={"longest": longest}, training=trained)

    def describe(self, config: TranslateConfig) -> str:
        tokens = "entries at most" if config.model.tokens == "auto" else config.model.tokens
        return f"{super().describe(config)}, {config.model.vocabulary:,} {tokens}"

    def network(self, config: TranslateConfig, run: Run) -> nn.Module:
        from throughtime.models.transformer import TransformerTranslator, matched, parameters_of
        from throughtime.models.translator import Translator

        m = config.model
        sizes = chosen(m, ("hidden_size", "embedding_size", "dropout", "joint"), run)
        source, target = read_vocabularies(run)
        sides = (len(source), len(target))
        both = {"smoothing": m.smoothing, "tied": m.tied, "joint": sizes["joint"], "dropout": sizes["dropout"]}
        network = Translator(
            *sides, cell=m.cell, layers=m.layers, attention=m.attention, input_feeding=m.input_feeding,
            hidden_size=sizes["hidden_size"], embedding_size=sizes["embedding_size"], **both,
        )  # fmt: skip
        if m.kind == "recurrent":
            return network
        layers = max(m.layers, 2)
        return matched(lambda size: TransformerTranslator(*sides, size, layers, **both), parameters_of(network))

    def examples(self, config: TranslateConfig, run: Run, part: str) -> Pairs:
        from throughtime.tasks.batches import Sequences

        source, old = Sequences.open(run.corpus / f"{part}-source.bin"), run.corpus / f"{part}-target.bin"
        if old.exists():  # of a version whose targets were kept without their ends
            without = Sequences.open(old)
            target = Sequences.of([*without[i], END] for i in range(len(without)))
        else:
            target = Sequences.open(run.corpus / f"{part}-ended-target.bin")
        items = run.read_data("valid.json") if part == "valid" else []
        return Pairs(source, target, [Pair(source, target, "") for source, target in items])

    def score(self, model: TranslateModel, examples: Pairs, *, quick: bool) -> dict[str, Any]:
        from throughtime.tasks.batches import summed_nats

        nats, count = summed_nats(model.network, examples)
        scores = {"nats_per_token": nats / count}
        if quick:
            return scores
        found = model.written_scores(examples.items)
        return scores | {k: v for k, v in found.items() if not isinstance(v, str)}

    def trained(self, run: Run, config: TranslateConfig, network: nn.Module) -> TranslateModel:
        return TranslateModel(self, run, config, network, read_vocabularies(run), read_limit(run))


def _vocabulary(model: TranslateNetwork, kind: str, texts: list[str], size: int) -> Tokens:
    """Of a side, or of both. size: characters of both sides."""
    most = model.vocabulary or {"words": 30_000, "bpe": _pieces(size)}.get(kind, 20_000)

    def blocks() -> Iterator[str]:
        return ("\n".join(texts[low : low + 1000]) for low in range(0, len(texts), 1000))

    return learn(kind, blocks, most, spaced=True if kind == "words" else None, asked=model.vocabulary is not None)


@dataclass
class Translation:
    """What became of a line: the tokens that were read, and whether these are all; the tokens that were written, their text, and
    whether they came to an end before their limit; weights [target, source] where they were asked for."""

    line: str
    source: Any
    read_whole: bool
    target: list[int] = field(default_factory=list)
    text: str = ""
    ended: bool = True
    log_probability: float | None = 0.0
    weights: list[list[float]] | None = None

    @property
    def complete(self) -> bool:
        """Whether the whole line was read, and its translation came to an end."""
        return self.read_whole and self.ended


class TranslateModel(Trained[Pair]):
    """A trained translator."""

    network: Translator

    def __init__(
        self,
        task: TranslateTask,
        run: Run,
        config: TranslateConfig,
        network: nn.Module,
        tokens: tuple[Tokens, Tokens],
        limit: Limit,
    ) -> None:
        super().__init__(task, run, config, network)
        self.source, self.target = tokens
        self.limit, self.read = limit, max(READ, config.data.longest or 0)

    def info(self) -> dict[str, Any]:
        cut = {side: f"{len(t):,} {t.kind}" for side, t in (("source", self.source), ("target", self.target))}
        return {**super().info(), "cut": cut}

    def scores(self, items: list[Pair], options: Any, advance: Advance = ignore) -> dict[str, Any]:
        """Scores on pairs.

        Returns: lines, nats a target token with its ends, what `line_scores` gives, and incomplete: how many lines were not read
            whole, or reached the limit of a translation's length.
        """
        from throughtime.tasks.batches import summed_nats

        self._say_swapped(items[:TOGETHER])
        examples = Pairs(*scored(items, (self.source, self.target)))
        nats, count = summed_nats(self.network, examples, lambda share: advance(0.1 * share))
        scores = self.written_scores(items, options.beam, lambda share: advance(0.9 * share))
        if scores["incomplete"]:
            warnings.warn(
                f"{scores['incomplete']:,} of {len(items):,} translations are scored as far as they go: their line was not read "
                f"past token {self.read:,}, or they reached the limit of their length",
                stacklevel=3,
            )
        own = {"nats_per_token": nats / count}
        return {"lines": len(items)} | (own | scores if scores.get("bleu") is not None else scores | own)

    def _say_swapped(self, items: Sequence[Pair]) -> None:
        """Warn where the sides of pairs seem to have changed places: the other way round they are far likelier."""
        from throughtime.tasks.batches import summed_nats

        ways = (items, [Pair(str(p.target), p.source, "") for p in items])
        nats = [summed_nats(self.network, Pairs(*scored(way, (self.source, self.target)))) for way in ways]
        here, swapped = (total / max(count, 1) for total, count in nats)
        if swapped < 0.7 * here:
            warnings.warn(
                f"source and target seem to have changed places: {here:.2f} nats a token, the other way round {swapped:.2f}",
                stacklevel=4,
            )

    def written_scores(self, items: Sequence[Pair], beam: int = 5, advance: Advance = ignore) -> dict[str, Any]:
        """Scores of the translations of pairs, and how many are incomplete."""
        from throughtime.tasks.metrics import line_scores

        found: list[Translation] = []
        for group in in_groups(items, TOGETHER):
            found += self._translated([p.source for p in group], beam)
            advance(len(group) / len(items))
        scores = line_scores([v.text for v in found], [str(p.target) for p in items], self.target.kind)
        return scores | {"incomplete": sum(not v.complete for v in found)}

    def answers(self, items: list[Pair], options: PredictOptions) -> Iterator[dict[str, Any]]:
        """Translations.

        Yields: line, translation, log_probability (nats; of a search), complete (false where the line was not read whole, or the
            translation reached the limit of its length, which a warning tells), gold where the source has a target beside it, and
            with `alignments` source and target tokens and attention [target, source], in the order given.
        """
        found = self._translated(
            [p.source for p in items], options.beam, options.alignments, options.temperature, options.generator
        )
        _say_cut(found, self.read)
        for item, one in zip(items, found, strict=True):
            values: dict[str, Any] = {"line": one.line, "translation": one.text}
            if one.log_probability is not None:
                values["log_probability"] = one.log_probability
            values["complete"] = one.complete
            if item.target is not None:
                values["gold"] = item.target
            if one.weights is not None:
                values |= self._aligned(one)
            yield values

    def empty(self, item: Pair) -> bool:
        return not item.source.strip()

    def shown(self, item: Pair) -> Pair:
        return item._replace(source=beginning(item.source))

    def look(self, item: Pair) -> Look:
        import torch

        (found,) = self._translated([item.source], 5)
        if not len(found.source):
            raise UserError("the line is empty: there is nothing to look into")
        _say_cut([found], self.read)
        source = torch.from_numpy(found.source.astype("int64"))
        network, device = self.network, self.device
        target = torch.tensor(found.target, dtype=torch.int64)
        read = torch.cat([torch.tensor([END]), target]).unsqueeze(1).to(device)
        lengths = torch.tensor([len(source)], device=device)

        def answers(tokens: torch.Tensor) -> torch.Tensor:
            logits, _, _ = network.decode(*network.encode(tokens, lengths), read)
            return logits[:, 0].log_softmax(-1)

        def without(i: int) -> torch.Tensor:
            other = batch.clone()
            other[i] = UNKNOWN
            return other

        batch = source.unsqueeze(1).to(device)
        inputs = Steps(self.source.named(item.source.strip(), found.source))
        names = [self.target.entries[t] for t in found.target]
        outputs = Steps([*names, "</s>"], texts=[*names, ""])
        written = Steps(["<s>", *outputs.labels[:-1]])
        return Look(
            inputs=inputs,
            outputs=outputs,
            batch=batch,
            score=of_classes(answers, [*target.tolist(), END]),
            stacks={
                "encoder.stack": Stack(name="encoder", steps=inputs, whole=True),
                "first": Stack(name="decoder, below the attention", steps=written),
                "second": Stack(name="decoder, above the attention", steps=written),
            },
            distribution=answers,
            names=lambda k: "</s>" if k == END else self.target.entries[k],
            without=without,
            attention=lambda tokens: network.attended(tokens, lengths, read)[:, 0],
            verb="write",
        )

    def networks(self) -> list[Network]:
        from throughtime.tasks.translate_networks import networks_of

        return networks_of(self.network)

    def beside(self) -> dict[str, str]:
        names = ["vocabulary"] * 2 if self.source is self.target else ["source", "target"]
        about = {"source": names[0], "target": names[1], "limit": list(self.limit), "longest": self.read}
        sides = {side: tokens.exported(side) for side, tokens in zip(names, (self.source, self.target), strict=True)}
        return {
            "translate.json": dumps(about),
            **{name: text for files in sides.values() for name, text in files.items()},
        }

    def written(self, values: dict[str, Any]) -> str:
        return str(values["translation"]) + (f"\t{values['gold']}" if "gold" in values else "")

    def _aligned(self, one: Translation) -> dict[str, Any]:
        return {
            "source": self.source.named(one.line.strip(), one.source),
            "target": [self.target.entries[t] for t in one.target] + ["</s>"],
            "attention": one.weights,
        }

    def _translated(
        self,
        lines: list[str],
        beam: int,
        alignments: bool = False,
        temperature: float | None = None,
        generator: torch.Generator | None = None,
    ) -> list[Translation]:
        import torch

        from throughtime.decode.beam import beam_search
        from throughtime.tasks.batches import padded

        coded = [read_tokens(self.source, line.strip(), self.read) for line in lines]
        found = [Translation(line, ids, whole) for line, (ids, whole) in zip(lines, coded, strict=True)]
        real = [one for one in found if len(one.source)]  # of nothing, nothing
        if not real:
            return found
        device = self.device
        with torch.inference_mode():
            source, lengths = (t.to(device) for t in padded([one.source for one in real]))
            limits = [self.limit.of(int(n)) for n in lengths]
            step, state = self.network.stepping(source, lengths)
            first = torch.full((len(real),), END, device=device)
            if temperature is None:
                best = beam_search(step, first, state, size=beam, end=END, longest=limits, never=(0,))
                for one, (hypothesis, *_) in zip(real, best, strict=True):
                    one.target, one.log_probability, _, one.ended = hypothesis
            else:
                drawn = self._drawn(step, first, state, limits, temperature, generator)
                for one, tokens, limit in zip(real, drawn, limits, strict=True):
                    one.target, one.log_probability, one.ended = tokens, None, len(tokens) < limit
            weights = self._attention(source, lengths, [one.target for one in real]) if alignments else None
        for row, one in enumerate(real):
            one.text = self.target.decode(one.target).strip()
            one.weights = None if weights is None else weights[row]
        return found

    def _drawn(
        self, step: Any, first: torch.Tensor, state: Any, limits: list[int], temperature: float, generator: Any
    ) -> list[list[int]]:
        from throughtime.decode.sampling import sample

        def writable(tokens: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
            log_p, state = step(tokens, state)
            log_p[:, UNKNOWN] = -math.inf
            return log_p, state

        log_p, state = writable(first, state)
        out: list[list[int]] = [[] for _ in limits]
        open_ = set(range(len(limits)))
        for tokens in sample(writable, log_p, state, temperature=temperature, generator=generator):
            for i in sorted(open_):
                token = int(tokens[i])
                if token == END or len(out[i]) >= limits[i]:
                    open_.discard(i)
                else:
                    out[i].append(token)
            if not open_:
                break
        return out

    def _attention(
        self, source: torch.Tensor, lengths: torch.Tensor, tokens: list[list[int]]
    ) -> list[list[list[float]]]:
        """What each token of the translations, and their ends, attended to."""
        from throughtime.tasks.batches import padded

        read, _ = padded([[END, *t] for t in tokens])
        weights = self.network.attended(source, lengths, read.to(source.device))
        return [weights[: len(t) + 1, b, : int(lengths[b])].tolist() for b, t in enumerate(tokens)]


def _say_cut(found: Sequence[Translation], read: int) -> None:
    """Warn of what was not read whole, and of translations that reached their limit."""
    for what, some in (
        (f"not read past token {read:,}", [v for v in found if not v.read_whole]),
        ("translated up to the limit of its length, and not to an end", [v for v in found if not v.ended]),
    ):
        if some:
            count = "a line is" if len(some) == 1 else f"{len(some):,} lines are"
            line = some[0].line.strip()
            warnings.warn(f"{count} {what}: {line[:40]!r}{' …' * (len(line) > 40)}", stacklevel=3)


def read_vocabularies(run: Run) -> tuple[Tokens, Tokens]:
    """Those of the source and the target. Raises: UserError where they are damaged."""
    values = run.read_json(FILE)
    try:
        sides = [Tokens.load(run.folder, side) for side in values["sides"]]
        return sides[0], sides[-1]
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f"{run.folder / FILE}: the run is damaged: {error!r}") from error


def read_limit(run: Run) -> Limit:
    """How long a translation may be. Raises: UserError where that is damaged."""
    try:
        return Limit.read(run.read_json(FILE).get("limit"))
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{run.folder / FILE}: the run is damaged: {error!r}") from error


def _kinds(sides: list[list[str]]) -> list[str]:
    """What each side is best cut into; running text on both sides into the same, and into pieces where there is enough of it."""
    found = []
    for texts in sides:
        words = [text.split() for text in texts[:20_000]]
        if sum(map(len, words)) <= 1.5 * len(words):
            found.append("characters")
        elif len({w for row in words for w in row}) <= 150:  # sounds, say
            found.append("words")
        else:
            found.append("running")
    running = [sum(map(len, texts)) for texts, kind in zip(sides, found, strict=True) if kind == "running"]
    cut = "bpe" if sum(running) > ENOUGH * len(running) else "characters"
    return [cut if kind == "running" else kind for kind in found]


def _pieces(size: int) -> int:
    """Entries of a vocabulary of pieces for so many characters of text."""
    return max(500, min(8000, int(math.sqrt(size) * 2)))
