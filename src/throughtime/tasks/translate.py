"""Translate: a sequence from a sequence, from aligned files. Languages, spellings to sounds, dates to dates."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from throughtime.config import Positive, Rate, RunConfig, Strict
from throughtime.errors import UserError
from throughtime.runs import Run, write_text
from throughtime.tasks import defaults
from throughtime.tasks.base import Advance, Example, Task, Trained, grouped, ignore, keep_samples
from throughtime.tasks.classify import check_no_chunk, chosen, hold_out
from throughtime.tasks.pairs import END, Limit, coded, longest_learned, read_pairs, read_tokens, scored

if TYPE_CHECKING:
    import torch
    from torch import nn

    from throughtime.models.translator import Translator
    from throughtime.tasks.batches import ByLength, Sequences
    from throughtime.tasks.tokens import Tokens

FILE = "vocabularies.json"
ENOUGH = 200_000  # characters of running text on a side, on the mean, from which on it is cut into pieces
READ = 1000  # tokens of a line that are read when translating; more where more were learned from


class TranslateNetwork(Strict):
    """The network."""

    kind: Literal["recurrent", "transformer"] = "recurrent"
    """transformer: one of as many parameters as the recurrent network of these settings would have, with a dropout of 0.3
    at most."""
    tokens: Literal["auto", "bpe", "words", "characters"] = "auto"
    """What both sides are cut into. auto: pieces for running text, characters for single words, words for a few kinds of signs."""
    vocabulary: Annotated[int, Field(ge=4)] | None = None
    """Entries at most. [default: pieces to fit the text, 8,000 at most; all characters; 30,000 words]"""
    joint: bool | None = None
    """One vocabulary for both sides. [default: where both are cut into pieces]"""
    cell: str = "lstm"
    """The recurrent cell, a name in `throughtime.cells.NAMED`."""
    hidden_size: Positive | None = None
    """Units in a layer, in each direction. [default: to fit the data]"""
    embedding_size: Positive | None = None
    """Width of the embeddings. [default: to fit the data]"""
    layers: Positive = 1
    """Layers of the encoder."""
    attention: Literal["additive", "multiplicative"] = "multiplicative"
    """additive: Bahdanau et al. 2015, appendix A.1.2; multiplicative: Luong et al. 2015, section 3.1 (general)."""
    input_feeding: bool = False
    """The decoder reads its last attentional vector (Luong et al. 2015, section 3.3). Slower."""
    dropout: Rate | None = None
    """Dropout on embeddings, between layers and before the output. [default: to fit the data]"""
    smoothing: Rate = 0.1
    """Label smoothing (Szegedy et al. 2016, section 7)."""
    tied: bool = True
    """The output weights are the target's embedding."""


class TranslateData(Strict):
    """The pairs."""

    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """The share that is held out where no --valid is given."""
    longest: Positive | None = None
    """Tokens of a side that are learned from, at most; of a longer one its beginning. [default: 1,000, less where a batch would
    need much memory]"""


class TranslateConfig(RunConfig):
    """All settings of a translator."""

    task: str = "translate"
    model: TranslateNetwork = TranslateNetwork()
    data: TranslateData = TranslateData()


class TranslateTask(Task[TranslateConfig]):
    """Sequence to sequence."""

    name: ClassVar[str] = "translate"
    config_type = TranslateConfig
    files: ClassVar[tuple[str, ...]] = (FILE,)
    aligned: ClassVar[bool] = True

    def check(self, config: TranslateConfig) -> None:
        from throughtime.cells import NAMED
        from throughtime.errors import unknown

        if config.model.cell not in NAMED:
            raise UserError("model.cell: " + unknown("cell", config.model.cell, NAMED))
        check_no_chunk(config)
        if config.model.kind == "transformer" and config.model.input_feeding:
            raise UserError("model.input_feeding: a Transformer has no step to feed; leave it out")

    def prepare(
        self, config: TranslateConfig, files: list[Path], valid: list[Path], folder: Path, advance: Advance
    ) -> TranslateConfig:
        from throughtime.tasks.tokens import learn

        model = config.model
        if model.kind == "transformer" and model.attention != "multiplicative":
            raise UserError("model.attention: a Transformer has its own (scaled, multiplicative); leave it out")
        train = read_pairs(files)
        if valid:
            held = read_pairs(valid)
        else:
            train, held = hold_out(train, config.data.held_out, config.seed, files[0])
        sides = list(zip(*train, strict=True))
        kinds = _kinds(sides) if model.tokens == "auto" else [model.tokens] * 2
        joint = model.joint if model.joint is not None else kinds == ["bpe", "bpe"]
        if joint and kinds[0] != kinds[1]:
            raise UserError(
                f"model.joint: the sides are cut into {kinds[0]} and {kinds[1]}; one vocabulary needs one kind"
            )
        size = sum(len(text) for side in sides for text in side)

        def blocks(texts: list[str]) -> Iterator[str]:
            for low in range(0, len(texts), 1000):
                yield "\n".join(texts[low : low + 1000])

        def made(kind: str, texts: list[str]) -> Tokens:
            most = model.vocabulary or {"words": 30_000, "bpe": _pieces(size)}.get(kind, 20_000)
            spaced = True if kind == "words" else None
            return learn(kind, lambda: blocks(texts), most, spaced=spaced, asked=model.vocabulary is not None)

        if joint:
            both = made(kinds[0], [t for pair in train for t in pair])
            tokens = (both, both)
        else:
            tokens = (made(kinds[0], list(sides[0])), made(kinds[1], list(sides[1])))
        fitted, trained = defaults.translate(config, len(train), size)
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
        write_text(folder / FILE, json.dumps(about | {"sides": [_values(t) for t in tokens[: 1 if joint else 2]]}))
        _save(folder, "train", (source, target))
        _save(folder, "valid", scored(held, tokens))
        write_text(folder / "valid.json", json.dumps(held))
        keep_samples(folder, (text for text, _ in held))
        kind = model.tokens if model.tokens != "auto" else kinds[0] if kinds[0] == kinds[1] else "auto"
        update = {"tokens": kind, "joint": joint, "vocabulary": max(map(len, tokens)), **fitted}
        return config.model_copy(
            update={
                "model": model.model_copy(update=update),
                "data": config.data.model_copy(update={"longest": longest}),
                "training": config.training.model_copy(update=trained),
            }
        )

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

    def stream(self, config: TranslateConfig, data: Path, rows: slice) -> ByLength:
        from throughtime.tasks.batches import ByLength

        source, target = _sides(data, "train")
        batch = config.training.batch_size
        assert batch is not None
        lengths = source.lengths * (target.lengths.max() + 1) + target.lengths  # by source, then by target
        stream = ByLength(lengths, batch, config.seed, rows, lambda some: _batch(source, target, some))
        stream.batch_tokens = int(batch * target.lengths.mean())
        return stream

    def quick_tokens(self, config: TranslateConfig, data: Path) -> int:
        return int(_sides(data, "valid")[1].lengths.sum())

    def score(self, network: nn.Module, config: TranslateConfig, data: Path, *, quick: bool) -> dict[str, float]:
        nats, count = total_nats(network, *_sides(data, "valid"))
        scores: dict[str, Any] = {"loss": nats / count, "nats_per_token": nats / count}
        if quick:
            return scores
        model = self.trained(Run(data.parent.parent), config, network)
        pairs = json.loads((data / "valid.json").read_text(encoding="utf-8"))
        found = model.written_scores(pairs)
        return scores | {k: v for k, v in found.items() if not isinstance(v, str)}

    def trained(self, run: Run, config: TranslateConfig, network: nn.Module) -> TranslateModel:
        return TranslateModel(run, config, network, read_vocabularies(run), read_limit(run))


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
        return self.read_whole and self.ended


class TranslateModel(Trained):
    """A trained translator."""

    network: Translator

    def __init__(
        self, run: Run, config: TranslateConfig, network: nn.Module, tokens: tuple[Tokens, Tokens], limit: Limit
    ) -> None:
        super().__init__(run, config, network)
        self.source, self.target = tokens
        self.limit, self.read = limit, max(READ, config.data.longest or 0)

    def info(self) -> dict[str, Any]:
        cut = {side: f"{len(t):,} {t.kind}" for side, t in (("source", self.source), ("target", self.target))}
        return {**super().info(), "cut": cut}

    def evaluate(self, files: list[Path], advance: Advance = ignore, beam: int = 5) -> dict[str, Any]:
        """Scores on two aligned files, or one TSV of pairs.

        Returns: task, lines, nats a target token with its ends, what `line_scores` gives, and incomplete: how many lines were not
            read whole, or reached the limit of a translation's length.
        """
        pairs = read_pairs([Path(f) for f in files])
        size = sum(Path(f).stat().st_size for f in files) / len(pairs)  # the bar counts bytes
        nats, count = total_nats(self.network, *scored(pairs, (self.source, self.target)))
        scores = self.written_scores(pairs, beam, lambda: advance(size))
        if scores["incomplete"]:
            warnings.warn(
                f"{scores['incomplete']:,} of {len(pairs):,} translations are scored as far as they go: their line was not read "
                f"past token {self.read:,}, or they reached the limit of their length",
                stacklevel=2,
            )
        own = {"nats_per_token": nats / count}
        first = {"task": "translate", "lines": len(pairs)}
        return first | (own | scores if scores.get("bleu") is not None else scores | own)

    def written_scores(
        self, pairs: Sequence[Sequence[str]], beam: int = 5, advance: Callable[[], None] = lambda: None
    ) -> dict[str, Any]:
        """Scores of the translations of pairs, and how many are incomplete. advance: told of each."""
        from throughtime.tasks.metrics import line_scores

        found = []
        for group in grouped((source for source, _ in pairs), 64):
            found += self._translated(group, beam)
            for _ in group:
                advance()
        scores = line_scores([v.text for v in found], [target for _, target in pairs], self.target.kind)
        return scores | {"incomplete": sum(not v.complete for v in found)}

    def predict(
        self,
        lines: Iterable[str],
        batch: int = 64,
        *,
        beam: int = 5,
        alignments: bool = False,
        temperature: float | None = None,
        seed: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Translate lines.

        Args: lines: one source each. batch: how many are translated at a time. beam: hypotheses that are kept; 1 is greedy.
            alignments: also say what each token of a translation attended to. temperature: draw in place of searching.
            seed: of what is drawn.
        Yields: line, translation, log_probability (nats; of a search), complete (false where the line was not read whole, or the
            translation reached the limit of its length, which a warning tells), and with `alignments` source and target tokens
            and attention [target, source], in the order given.
        Raises: UserError for a value out of range.
        """
        if beam < 1:
            raise UserError(f"beam: got {beam}; at least 1")
        if temperature is not None and not 0 <= temperature < math.inf:
            raise UserError(f"temperature: got {temperature}; at least 0")
        if seed is not None and not 0 <= seed < 2**63:
            raise UserError(f"seed: got {seed}; it must be at least 0 and under 2**63")
        generator = None
        if seed is not None:
            import torch

            generator = torch.Generator().manual_seed(seed)
        for group in grouped(lines, batch):
            found = self._translated(group, beam, alignments, temperature, generator)
            _say_cut(found, self.read)
            for one in found:
                values: dict[str, Any] = {"line": one.line, "translation": one.text}
                if one.log_probability is not None:
                    values["log_probability"] = one.log_probability
                values["complete"] = one.complete
                if one.weights is not None:
                    values |= self._aligned(one)
                yield values

    def example(self, text: str) -> Example:
        import torch

        from throughtime.tasks.tokens import UNKNOWN

        (found,) = self._translated([text], 5)
        if not len(found.source):
            raise UserError("the line is empty: there is nothing to look into")
        _say_cut([found], self.read)
        source = torch.from_numpy(found.source.astype("int64"))
        network, device = self.network, next(self.network.parameters()).device
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
        inputs = self.source.named(text.strip(), found.source)
        outputs = [*(self.target.entries[t] for t in found.target), "</s>"]
        written = ["<s>", *outputs[:-1]]
        return Example(
            inputs,
            outputs,
            lambda k: "</s>" if k == END else self.target.entries[k],
            batch,
            answers,
            [*target.tolist(), END],
            without,
            {"encoder.stack": inputs, "first": written, "second": written},
            lambda tokens: network.attended(tokens, lengths, read)[:, 0],
            whole=frozenset(["encoder.stack"]),
        )

    def written(self, values: dict[str, Any]) -> str:
        return str(values["translation"])

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
        from throughtime.tasks.batches import side_by_side

        coded = [read_tokens(self.source, line.strip(), self.read) for line in lines]
        found = [Translation(line, ids, whole) for line, (ids, whole) in zip(lines, coded, strict=True)]
        real = [one for one in found if len(one.source)]  # of nothing, nothing
        if not real:
            return found
        device = next(self.network.parameters()).device
        with torch.inference_mode():
            source, lengths = (t.to(device) for t in side_by_side([one.source for one in real]))
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
        from throughtime.tasks.tokens import UNKNOWN

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
        from throughtime.tasks.batches import side_by_side

        read, _ = side_by_side([[END, *t] for t in tokens])
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


def total_nats(network: Any, source: Sequences, target: Sequences) -> tuple[float, int]:
    """-log p of targets with their ends, and how many tokens these are."""
    import numpy as np
    import torch

    from throughtime.tasks.batches import in_order_of_length, moved

    device = next(network.parameters()).device
    training = network.training
    network.eval()
    total, count = 0.0, 0
    with torch.inference_mode():
        for some in in_order_of_length(np.maximum(source.lengths, target.lengths)):
            nats, n, _ = network(moved(_batch(source, target, some), device), None)
            total, count = total + float(nats), count + int(n)
    network.train(training)
    return total, count


def read_vocabularies(run: Run) -> tuple[Tokens, Tokens]:
    """Those of the source and the target. Raises: UserError where they are damaged."""
    from throughtime.tasks.tokens import Tokens

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


def _values(tokens: Tokens) -> dict[str, Any]:
    return {"kind": tokens.kind, "spaced": tokens.spaced, "entries": tokens.entries, "merges": tokens.merges}


def _kinds(sides: list[tuple[str, ...]]) -> list[str]:
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


def _save(data: Path, name: str, sides: tuple[Sequences, Sequences]) -> None:
    for side, which in zip(sides, ("source", "ended-target"), strict=True):
        side.save(data / f"{name}-{which}.bin")


def _sides(data: Path, name: str) -> tuple[Sequences, Sequences]:
    from throughtime.tasks.batches import Sequences

    source, old = Sequences.open(data / f"{name}-source.bin"), data / f"{name}-target.bin"
    if old.exists():  # of a version whose targets were kept without their ends
        target = Sequences.open(old)
        return source, Sequences.of([*target[i], END] for i in range(len(target)))
    return source, Sequences.open(data / f"{name}-ended-target.bin")


def _batch(source: Sequences, target: Sequences, some: Any) -> tuple[Any, ...]:
    from throughtime.tasks.batches import side_by_side

    return (*side_by_side([source[i] for i in some]), *side_by_side([target[i] for i in some]))
