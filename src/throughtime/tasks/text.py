"""Text: a language model of any text file, that scores and writes."""

from __future__ import annotations

import inspect
import math
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from throughtime.config import Positive, Rate, RunConfig, Strict, build_options
from throughtime.errors import UserError
from throughtime.tasks import defaults
from throughtime.tasks.base import SAMPLES, Advance, Task, Trained, ignore
from throughtime.tasks.look import Look, Stack, Steps, beginning, of_classes
from throughtime.tasks.networks import Network
from throughtime.tasks.settings import DataSettings, StackSettings, chosen
from throughtime.tasks.source import Source
from throughtime.tasks.tokens import FILE, START, UNKNOWN, Tokens, learn

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from throughtime.models.language import LanguageModel
    from throughtime.models.language import Stack as State
    from throughtime.runs import Run
    from throughtime.tasks.corpus import Corpus, Lanes
    from throughtime.tasks.spans import Span
    from throughtime.tasks.text_session import TextEngine, TextSession
    from throughtime.tasks.what_if import WhatIf

TOO_SHORT = 200  # characters of training text without which nothing can be learned
QUICK = 100_000  # held-out tokens scored at a time while training, at most
OPEN = ("vocabulary", "hidden_size", "embedding_size", "dropout")  # chosen for the user where left open
WALKED = 2_000_000  # held-out tokens walked in one lane at the end of a training; more of them in 16
BESIDE = 1 << 18  # tokens of lines that are read side by side, filled up to the longest: one much longer is read alone
SAMPLE = 100  # tokens of a held-out piece that is looked into while a network is trained
WARM = 256  # tokens a lane reads before its first target, while training


class TextNetwork(StackSettings):
    """The network. A Transformer sees a chunk back."""

    tokens: Literal["auto", "characters", "bytes", "words", "bpe"] = "auto"
    """What the text is cut into. auto: characters for a short text, byte-pair pieces from 50 KB on."""
    vocabulary: Annotated[int, Field(ge=4)] | None = None
    """Entries at most, for words, bpe and characters. [default: to fit the text]"""
    recurrent_dropout: Rate = 0.0
    """Dropout on the state in the recurrent product, one mask a chunk (Gal, Ghahramani 2016). Slower."""
    weight_dropout: Rate = 0.0
    """Dropout on the recurrent weights (Merity et al. 2018)."""
    zoneout: Rate = 0.0
    """How often a unit keeps its old value (Krueger et al. 2017). Slower."""
    tied: bool = True
    """The output weights are the embedding."""
    output: Literal["auto", "softmax", "adaptive"] = "auto"
    """adaptive: the softmax of Grave et al. (2017), not tied; auto takes it for 10,000 words and more."""


class TextData(DataSettings):
    """The text. What is held out is the end of each file, or of blocks of it."""

    all_over: bool = False
    """Hold out blocks from all over each file, not its end alone: where the end is of another kind, a licence, say."""
    documents: Literal["file", "line", "paragraph"] = "file"
    """What stands by itself: memory does not pass from one document to the next."""


class TextConfig(RunConfig):
    """All settings of a language model."""

    task: str = "text"
    model: TextNetwork = TextNetwork()
    data: TextData = TextData()


class Writing(Strict):
    """Of `generate`."""

    prompt: str = ""
    """What the text begins with; - reads it from standard input."""
    length: Annotated[int, Field(ge=0)] = 400
    """Tokens to write."""
    temperature: Annotated[float, Field(ge=0)] = 0.8
    """Under 1 is safer, over 1 wilder; 0 takes the likeliest."""
    top_k: Positive | None = None
    """Draw from the K likeliest tokens alone."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Draw from the likeliest tokens that make up P alone."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """The same seed writes the same."""


class TextTask(Task[TextConfig, Any]):
    """Language modelling. What is read are spans of files; what is answered are lines, as text."""

    name: ClassVar[str] = "text"
    pipeline: ClassVar[str | None] = "text-generation"
    bfloat16: ClassVar[bool] = True
    config_type = TextConfig
    generate_options: ClassVar[type[Strict]] = Writing

    def check(self, config: TextConfig, files: Sequence[Path] = ()) -> None:
        super().check(config, files)
        if config.model.kind == "transformer":
            for name in ("recurrent_dropout", "weight_dropout", "zoneout"):
                if getattr(config.model, name):
                    raise UserError(f"model.{name}: a Transformer has no recurrent weights or state; leave it out")
            return
        from throughtime.cells import NAMED

        made = NAMED[config.model.cell]
        takes_mask = "mask" in inspect.signature(made.forward).parameters
        for name, possible in (("recurrent_dropout", takes_mask), ("weight_dropout", made.has_recurrent_weights)):
            if getattr(config.model, name) and not possible:
                raise UserError(f"model.{name}: the cell {config.model.cell!r} has no recurrent product; leave it out")

    def read(self, config: TextConfig, files: Sequence[Path], options: Any = None) -> list[Any]:
        from throughtime.tasks.spans import open_files

        data: Any = config.data if options is None else options
        option = "--data." if options is None else "--"
        return open_files(files, data.encoding, option, raw=config.model.tokens == "bytes")

    def items(self, config: TextConfig, source: Source, options: Any) -> Iterator[str]:
        return (line.rstrip("\r\n") for line in source)

    def item(self, given: Any) -> str:
        return given.rstrip("\r\n") if isinstance(given, str) else super().item(given)

    def split(self, config: TextConfig, items: list[Any], files: Sequence[Path]) -> tuple[list[Any], list[Any]]:
        from throughtime.tasks.spans import hold_out

        return hold_out(items, config.data.held_out, blocks=config.data.all_over)

    def prepare(
        self, config: TextConfig, train: list[Span], held: list[Span], run: Run, advance: Advance
    ) -> TextConfig:
        from throughtime.tasks.corpus import write_corpus
        from throughtime.tasks.shift import unlike
        from throughtime.tasks.spans import read_blocks

        size = sum(span.size for span in train)
        if size < TOO_SHORT:
            name = train[0].name if train else held[0].name
            raise UserError(f"{name}: too short: {size} bytes of text to train on; at least {TOO_SHORT} are needed")
        kind = config.model.tokens
        for spans, what in ((train, "to train on"), (held, "held out")):
            if not any(text.strip() for span in spans for text in read_blocks(span, raw=kind == "bytes")):
                raise UserError(
                    f"{spans[0].name}: there is nothing but white space {what}; name another file, or hold out blocks from all "
                    f"over it (data.all_over)"
                )
        if kind == "auto":
            kind = "characters" if size < 50_000 else "bpe"

        def blocks() -> Iterator[str]:
            for span in train:
                yield from read_blocks(span, raw=kind == "bytes")

        vocabulary = config.model.vocabulary or _vocabulary(kind, size, blocks)
        tokens = learn(kind, blocks, vocabulary, asked=config.model.vocabulary is not None)
        if len(tokens) < 4 or len(set("".join(tokens.entries[2:]))) < 2:
            only, unit = tokens.entries[2 if len(tokens) > 2 else UNKNOWN], "words" if kind == "words" else "characters"
            raise UserError(
                f"{train[0].name}: the text to train on is nothing but {only[:20]!r} again and again; there must be two {unit} "
                f"or more"
            )
        tokens.save(run.folder)
        unit = config.data.documents
        size += sum(span.size for span in held)
        corpus = write_corpus(run.corpus / "train.bin", train, tokens, unit, advance, size)
        held_corpus = write_corpus(run.corpus / "valid.bin", held, tokens, unit, advance, size)
        for spans, made, least, what in ((train, corpus, 100, "to train on"), (held, held_corpus, 2, "held out")):
            if made.real < least:
                raise UserError(
                    f"{spans[0].name}: too short: {made.real} tokens {what}; at least {least} are needed: a longer text"
                    + (", or smaller tokens (model.tokens)" if kind in ("bpe", "words") else "")
                )
        if kind != "bytes" and (why := unlike(train, held)) is not None:
            warnings.warn(f"{why}; data.all_over holds out blocks from all over each file", stacklevel=2)
        if held_corpus.real > QUICK:
            whole = "all of them" if held_corpus.real <= WALKED else f"all, in 16 parts that begin {WARM} tokens early"
            warnings.warn(
                f"of {held_corpus.real:,} held-out tokens the first {QUICK:,} are scored while training, at its end {whole}",
                stacklevel=2,
            )
        return self._choose(config, kind, len(tokens), corpus)

    def _choose(self, config: TextConfig, kind: str, entries: int, corpus: Corpus) -> TextConfig:
        """Every setting left open, from the size of the text and the budget. Chosen by experiments on held-out text."""
        model, training = config.model, config.training
        n = corpus.real
        adaptive = model.output == "adaptive" or (model.output == "auto" and kind == "words" and entries >= 10_000)
        if adaptive and kind != "words":
            raise UserError(f"model.output: adaptive needs entries sorted by frequency: words, not {kind}")
        if adaptive and model.tied and "tied" in model.model_fields_set:
            raise UserError("model.tied: the adaptive output is not tied; use --model.output softmax")
        if kind == "bytes" and model.vocabulary not in (None, entries):
            raise UserError(f"model.vocabulary: bytes have {entries} entries, not {model.vocabulary}")
        speed = 0.4e6 if adaptive else 1e6  # tokens a minute, about what a laptop learns from
        passes = defaults.expected_passes(config, n, speed, 2000)
        # a short training wants many hot steps, a long one quieter gradients
        short = passes < 8
        batch = training.batch_size or max(1, min(16 if short else 32, n // 64))
        if batch > n // 2:
            raise UserError(f"training.batch_size: {batch} lanes need at least {2 * batch} tokens, the text has {n}")
        if training.chunk and training.chunk > n // batch:
            raise UserError(
                f"training.chunk: {training.chunk} steps of {batch} lanes need {training.chunk * batch} tokens, the text has {n}"
            )
        chunk = training.chunk or min(70 if kind == "words" else 100, n // batch)
        hidden = model.hidden_size or defaults.at(
            passes * n / 1e6, [(0.3, 256), (2.5, 384), (12, 512), (40, 768)], 1024
        )
        if model.hidden_size is None:  # what is little is soon known by heart
            hidden = min(hidden, defaults.at(n, [(30_000, 128), (50_000, 256)], hidden))
        dropout = model.dropout
        if dropout is None:
            dropout = defaults.at(passes, [(2, 0.0), (3.5, 0.1), (15, 0.25)], 0.6 if n < 5_000 else 0.4)
        chosen = model.model_copy(
            update={
                "tokens": kind,
                "vocabulary": entries,
                "hidden_size": hidden,
                "embedding_size": model.embedding_size or max(16, hidden // 2 if adaptive else min(256, hidden // 2)),
                "dropout": dropout,
                "tied": model.tied and not adaptive,
                "output": "adaptive" if adaptive else "softmax",
            }
        )
        # of many words most are seldom met: steps of 5e-3 throw them about (WikiText-2, 1,500 steps: perplexity 223; here 203)
        rate = training.learning_rate or (2.5e-3 if adaptive else 5e-3 if short else 3e-3)
        trained = training.model_copy(update={"batch_size": batch, "chunk": chunk, "learning_rate": rate})
        return config.model_copy(update={"model": chosen, "training": trained})

    def describe(self, config: TextConfig) -> str:
        return f"{super().describe(config)}, {config.model.vocabulary:,} {config.model.tokens}"

    def network(self, config: TextConfig, run: Run) -> nn.Module:
        from throughtime.models.language import LanguageModel

        m = config.model
        sizes: dict[str, Any] = chosen(m, OPEN, run)
        cutoffs: tuple[int, ...] = ()
        if m.output == "adaptive":
            # a fifth of the entries make up most of a text, half nearly all (Grave et al. 2017, figure 2)
            cutoffs = tuple(sorted({max(sizes["vocabulary"] // 16, 1), max(sizes["vocabulary"] // 4, 2)}))
        return LanguageModel(
            **sizes,
            cell=m.cell,
            layers=m.layers,
            recurrent_dropout=m.recurrent_dropout,
            weight_dropout=m.weight_dropout,
            zoneout=m.zoneout,
            tied=m.tied,
            cutoffs=cutoffs,
            window=config.training.chunk if m.kind == "transformer" else None,
        )

    def examples(self, config: TextConfig, run: Run, part: str) -> Corpus:
        from throughtime.tasks.corpus import open_corpus

        return open_corpus(run.corpus / f"{part}.bin")

    def loader(self, config: TextConfig, run: Run, rows: slice) -> Lanes:
        from throughtime.tasks.corpus import Lanes

        training = config.training
        assert training.batch_size is not None and training.chunk is not None
        return Lanes(self.examples(config, run, "train"), training.batch_size, training.chunk, config.seed, rows)

    def steps(self, examples: Corpus) -> int:
        return min(examples.real, QUICK)

    def samples(self, config: TextConfig, run: Run) -> list[str]:
        start = self.examples(config, run, "valid").tokens[: SAMPLES * SAMPLE]
        tokens = _tokens(config, run)
        pieces = (tokens.decode(start[low : low + SAMPLE]) for low in range(0, len(start), SAMPLE))
        return [piece for piece in pieces if piece.strip()]

    def score(self, model: TextModel, examples: Corpus, *, quick: bool) -> dict[str, Any]:
        part = examples.first(QUICK) if quick else examples
        lanes = 16 if quick or examples.real > WALKED else 1
        total, count = _total_nats(model.network, part, lanes=lanes, warm=WARM)
        # a part has about as many characters a token as the whole
        per_character = total / (examples.characters * count / examples.real)
        return {"nats_per_token": total / count, "nats_per_character": per_character, "tokens": count}

    def trained(self, run: Run, config: TextConfig, network: nn.Module) -> TextModel:
        return TextModel(self, run, config, network, _tokens(config, run))


def _tokens(config: TextConfig, run: Run) -> Tokens:
    """The vocabulary of a run. Raises: UserError where it is damaged."""
    tokens = Tokens.load(run.folder, run.read_json(FILE))
    if len(tokens) != config.model.vocabulary:
        raise UserError(
            f"{run.folder / FILE}: the run is damaged: {len(tokens)} entries, the network has {config.model.vocabulary}"
        )
    return tokens


def _vocabulary(kind: str, size: int, blocks: Any) -> int:
    """How many entries suit a text of `size` bytes."""
    if kind == "words":
        return 50_000
    if kind != "bpe":
        return 20_000
    seen: set[str] = set()
    for block in blocks():
        seen.update(block)
    kinds = len(seen)
    return max(int(math.sqrt(size) / 2), 64 + kinds, min(2 * kinds, kinds + 2000))


def _total_nats(
    network: nn.Module, corpus: Corpus, lanes: int, warm: int, advance: Advance = ignore
) -> tuple[float, int]:
    """-log p of a corpus, and how many tokens that is; the state carried along every lane. advance: told a share of 1."""
    from throughtime.tasks.batches import scoring
    from throughtime.tasks.corpus import walk

    total, count, state = 0.0, 0, None
    with scoring(network) as device:
        for inputs, targets in walk(corpus, lanes, 2048 // lanes, warm):
            nats, n, state = network((inputs.to(device), targets.to(device)), state)
            total, count = total + float(nats), count + int(n)
            advance(int(n) / max(corpus.real, 1))
    return total, count


class TextModel(Trained[Any]):
    """A trained language model."""

    network: LanguageModel

    def __init__(self, task: TextTask, run: Run, config: TextConfig, network: nn.Module, tokens: Tokens) -> None:
        super().__init__(task, run, config, network)
        self.tokens = tokens

    def scores(self, items: list[Span], options: Any, advance: Advance = ignore) -> dict[str, Any]:
        """Walk files once from beginning to end, the state carried.

        Returns: tokens, characters, unknown (tokens the vocabulary does not know, scored as such), and nats, bits and perplexity,
            per token and per character.
        """
        from throughtime.tasks.corpus import write_corpus

        with tempfile.TemporaryDirectory(prefix="throughtime-") as folder:
            corpus = write_corpus(Path(folder) / "text.bin", items, self.tokens, self.config.data.documents)
            total, count = _total_nats(self.network, corpus, 1, 0, advance)
        per_token, per_character = total / max(count, 1), total / max(corpus.characters, 1)
        return {
            "tokens": count,
            "characters": corpus.characters,
            "unknown": corpus.unknown,
            "nats_per_token": per_token,
            "bits_per_token": per_token / math.log(2),
            "perplexity": math.exp(per_token),
            "nats_per_character": per_character,
            "bits_per_character": per_character / math.log(2),
            "perplexity_per_character": math.exp(per_character),
        }

    def pieces(self, source: Source, steps: int, options: Any = None) -> Iterator[str]:
        """The text in pieces of about so many tokens: set end to end, the text again, but for white space that is no token."""
        waiting = ""
        for line in source:
            waiting += line
            count = len(self.tokens.encode(waiting))
            if count > 2 * steps:
                *parts, waiting = self._cut(waiting, count, steps)
                yield from (part for part in parts if len(self.tokens.encode(part)))
        parts = self._cut(waiting, len(self.tokens.encode(waiting)), steps)
        yield from (part for part in parts if len(self.tokens.encode(part)))

    def _cut(self, text: str, count: int, steps: int) -> list[str]:
        """A text of `count` tokens in pieces of about `steps`, before white space where a token may be longer than a character."""
        size, low, parts = max(round(len(text) * steps / max(count, 1)), 1), 0, []
        while low < len(text):
            high = low + size
            if high < len(text) and self.tokens.kind in ("words", "bpe"):
                spaces = [m.start() for m in re.finditer(r"\s+", text[low + 1 : high + 1])]
                high = low + 1 + spaces[-1] if spaces else high
            parts.append(text[low:high])
            low = high
        return parts

    def empty(self, item: str) -> bool:
        return not len(self.tokens.encode(item))

    def unseen(self, item: str) -> list[str]:
        return self.tokens.unknown_in(item)

    def shown(self, item: str) -> str:
        return beginning(item)

    def look(self, item: str) -> Look:
        import torch

        ids = torch.from_numpy(self.tokens.encode(item).astype("int64"))
        if not len(ids):
            raise UserError("the text is empty: there is nothing to look into")
        batch, device = torch.cat([torch.tensor([START]), ids]).unsqueeze(1), self.device

        def answers(tokens: torch.Tensor) -> torch.Tensor:
            return self.network.log_probabilities(tokens.to(device)).squeeze(1)

        def without(i: int) -> torch.Tensor | None:
            other = batch.clone()
            other[i] = UNKNOWN
            return other if i else None  # the start of a document cannot be taken away

        with torch.no_grad():
            last = answers(batch)[-1]
        last[[UNKNOWN, START]] = -math.inf  # never written
        classes = [*ids.tolist(), int(last.argmax())]
        text_of, entries = self.tokens.decoder(), self.tokens.entries
        inputs = Steps([entries[int(i)] for i in batch], texts=["" if i == START else text_of(int(i)) for i in batch])
        return Look(
            inputs=inputs,
            outputs=Steps([entries[i] for i in classes], texts=[text_of(i) for i in classes]),
            batch=batch,
            score=of_classes(answers, classes),
            stacks={"stack": Stack(name="", steps=inputs)},
            distribution=answers,
            names=entries.__getitem__,
            without=without,
            verb="expect",
        )

    def engine(self, backend: str = "auto") -> TextEngine:
        from throughtime.tasks.text_session import TextEngine

        return TextEngine(self.network, self.tokens, backend)

    def session(self, *, snapshots: int = 256, keep: int = 1_000_000, backend: str = "auto") -> TextSession:
        """A document that is read step by step, and can be gone back in, changed, and compared. Arguments as of `Session`.

        Raises: UserError for a Transformer, which has no state to go back to.
        """
        from throughtime.tasks.text_session import TextSession

        return TextSession(self.engine(backend), self.config.data.documents, snapshots=snapshots, keep=keep)

    def what_if(self, text: str, changes: Mapping[int, str]) -> WhatIf:
        from throughtime.tasks.timeline import what_if

        return what_if(self.session(), text, changes)

    def networks(self) -> list[Network]:
        from throughtime.tasks.text_networks import networks_of

        return networks_of(self.network)

    def beside(self) -> dict[str, str]:
        return {**self.tokens.exported("vocabulary"), "text.json": dumps({"documents": self.config.data.documents})}

    def written(self, values: dict[str, Any]) -> str:
        return f"{values['log_probability']:.4f}\t{values['line']}"

    def answers(self, items: list[str], options: Any) -> Iterator[dict[str, Any]]:
        """The log-probability of each line by itself, as a document begins; its end of line is not part of it.

        Yields: line, log_probability (nats), tokens, unknown, in the order given.
        """
        from throughtime.tasks.batches import in_order_of_length

        encoded = [self.tokens.encode(line) for line in items]
        nats = [0.0] * len(items)
        for some in in_order_of_length([len(ids) for ids in encoded], BESIDE):
            for i, n in zip(some, self._nats([encoded[i] for i in some]), strict=True):
                nats[i] = n
        for line, ids, n in zip(items, encoded, nats, strict=True):
            unseen = int((ids == UNKNOWN).sum())
            yield {"line": line, "log_probability": 0.0 - n, "tokens": len(ids), "unknown": unseen}

    def _nats(self, encoded: list[np.ndarray[Any, Any]]) -> list[float]:
        """-log p of some lines, side by side, each as a document begins."""
        import numpy as np
        import torch

        device, longest = self.device, max(len(ids) for ids in encoded)
        total, state, chunk = torch.zeros(len(encoded), dtype=torch.float64), None, max(2048 // len(encoded), 1)
        with torch.inference_mode():
            for low in range(0, longest, chunk):
                steps = min(chunk, longest - low)
                # past a line's end the inputs do not matter, and targets of START are not counted
                inputs = np.full((steps, len(encoded)), UNKNOWN, np.int64)
                targets = np.full((steps, len(encoded)), START, np.int64)
                for i, ids in enumerate(encoded):
                    part = ids[low : low + steps]
                    targets[: len(part), i] = part
                    before = ids[max(low - 1, 0) : low + steps - 1]
                    first = 0 if low else 1
                    inputs[first : first + len(before), i] = before
                if not low:
                    inputs[0] = START
                scored, state = self.network.nats(
                    torch.from_numpy(inputs).to(device), torch.from_numpy(targets).to(device), state
                )
                total += scored.double().sum(0).cpu()
        return total.tolist()

    def generate(
        self,
        prompt: str = "",
        length: int = 400,
        *,
        temperature: float = 0.8,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> str:
        """The prompt and what the model writes after it. Arguments as in `stream`."""
        written = self.stream(prompt, length, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
        return prompt + "".join(written)

    def stream(
        self,
        prompt: str = "",
        length: int = 400,
        *,
        temperature: float = 0.8,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> Iterator[str]:
        """Write after the prompt, piece by piece as it comes.

        Args:
            prompt: what the text begins with; characters the model never saw are passed over, with a warning.
            length: tokens to write. temperature: under 1 is safer, over 1 wilder, 0 takes the likeliest.
            top_k, top_p: draw from the k likeliest, or from those that make up p. seed: the same seed writes the same.
        Raises: UserError for a value out of range.
        """
        given = {"length": length, "temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
        build_options(Writing, given)
        try:
            prompt.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UserError(f"prompt: character {error.start} is not UTF-8 text") from error
        unseen = self.tokens.unknown_in(prompt)
        if unseen:
            what = "words" if self.tokens.kind == "words" else "characters"
            warnings.warn(f"the model never saw these {what} of the prompt: {' '.join(unseen)}", stacklevel=2)
        if self.tokens.kind != "words":
            prompt = "".join(c for c in prompt if c not in unseen)
        return self._write(prompt, length, temperature, top_k, top_p, seed)

    def _write(
        self, prompt: str, length: int, temperature: float, top_k: int | None, top_p: float | None, seed: int | None
    ) -> Iterator[str]:
        import torch

        from throughtime.decode.sampling import sample

        ids = self.tokens.encode(prompt)
        ids, begun = self.reopened(ids, prompt)
        device = self.device
        generator = torch.Generator().manual_seed(seed) if seed is not None else None

        @torch.inference_mode()
        def read(tokens: torch.Tensor, state: State | None) -> tuple[torch.Tensor, State]:
            log_p, state = self.network.read(tokens.to(device), state)
            log_p = log_p.cpu()
            log_p[:, [UNKNOWN, START]] = -math.inf  # never written
            return log_p, state

        log_p, state = read(torch.tensor([[START], *([int(i)] for i in ids)]), None)
        if begun:
            fits = torch.tensor([entry.startswith(begun) for entry in self.tokens.entries])
            log_p = log_p.masked_fill(~fits, -math.inf)
        ends = {"line": "\n", "paragraph": "\n\n"}.get(self.config.data.documents)
        text_of, tail = self.tokens.decoder(), ""

        def step(tokens: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
            nonlocal tail
            tail += text_of(int(tokens))
            if ends and tail.endswith(ends):  # the document is written: the next begins without a memory of it
                tokens, tail = torch.full_like(tokens, START), ""
            return read(tokens.unsqueeze(0), state)

        drawn = sample(
            step,
            log_p,
            state,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            generator=generator,
        )
        decode = self.tokens.decoder()
        if self.tokens.spaced:  # so that it knows whether the prompt ended a line
            for i in ids:
                decode(int(i))
        for _, tokens in zip(range(length), drawn, strict=False):
            text = decode(int(tokens))
            yield text[len(begun) :]
            begun = ""

    def reopened(self, ids: np.ndarray[Any, Any], prompt: str) -> tuple[np.ndarray[Any, Any], str]:
        """Take back the last piece of a prompt that may be half a word: the first piece written has to begin with it.

        Without this a prompt that ends in a space, or in the middle of a word, is a text the model has never seen.
        """
        if self.tokens.kind not in ("bpe", "words") or self.tokens.spaced or not len(ids):
            return ids, ""
        last = self.tokens.entries[int(ids[-1])]
        if not prompt.endswith(last) or last == "\n":
            return ids, ""
        return ids[:-1], last
