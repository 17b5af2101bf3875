"""A trained recogniser: what it hears in recordings, how well, and as it comes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from throughtime.errors import UserError
from throughtime.tasks.audio import RATE, Recording, duration, samples, tell_mixed
from throughtime.tasks.base import Advance, Trained, ignore
from throughtime.tasks.decoding import COUNTED, FILE, Decoding, chosen, lexicon_of
from throughtime.tasks.logmel import DEFAULT, features
from throughtime.tasks.normalisation import Normal
from throughtime.tasks.speech import Running, Statistics, Utterance, side_by_side
from throughtime.tasks.text_words import open_words
from throughtime.tasks.transcripts import WRITERS, Transcript, Word
from throughtime.tasks.units import Units

if TYPE_CHECKING:
    from torch import nn

    from throughtime.models.recogniser import Recogniser
    from throughtime.runs import Run
    from throughtime.tasks.look import Look
    from throughtime.tasks.transcribe import TranscribeTask

Array = np.ndarray[Any, Any]


class TranscribeModel(Trained[Recording]):
    """A trained recogniser."""

    network: Recogniser

    def __init__(self, task: TranscribeTask, run: Run, config: Any, network: nn.Module) -> None:
        super().__init__(task, run, config, network)
        self.units = Units.open(run)
        data = config.data
        self.normal = Normal(data.case, data.signs, data.tags)
        self._asked: tuple[Any, Decoding] | None = None  # options, and the decoding they asked for

    # -- what is heard

    def log_probabilities(self, parts: Sequence[Array], advance: Advance = ignore) -> list[Array]:
        """log p of each unit at each step, [S, U] each, of normalised features [T, F]."""
        from throughtime.tasks.batches import in_order_of_length, moved, scoring

        found: list[Any] = [np.zeros((0, len(self.units)), dtype=np.float32)] * len(parts)
        with scoring(self.network) as device:
            for numbers in in_order_of_length([len(part) for part in parts], 20_000):
                some = [n for n in numbers.tolist() if len(parts[n])]
                if some:
                    batch = moved(side_by_side([parts[n] for n in some]), device)
                    log_p, real = self.network.log_probabilities(batch.features, batch.lengths)
                    rows = log_p.transpose(0, 1).cpu().numpy()
                    for n, row, steps in zip(some, rows, real.tolist(), strict=True):
                        found[n] = row[:steps]
                advance(len(numbers) / max(len(parts), 1))
        return found

    def heard(self, examples: Any, *, greedy: bool) -> list[str]:
        """What is written of prepared examples. greedy: quickly, in place of as was chosen."""
        log_probs = self.log_probabilities([examples.normalised(i) for i in range(len(examples.lengths))])
        decoding = Decoding(self.units, "greedy") if greedy else self.decoding()
        return [decoding.text(part) for part in log_probs]

    def settle(self, examples: Any, run: Run) -> None:
        """Choose how texts are found, on held-out examples."""
        log_probs = self.log_probabilities([examples.normalised(i) for i in range(len(examples.lengths))])
        run.write_json(FILE, chosen(self.units, run, log_probs, examples.texts))

    def decoding(self, options: Any = None) -> Decoding:
        """How texts are found: as is asked for, else as was chosen. The same options have the same decoding, whose files are read
        once. Raises: UserError where words or a language model that are asked for cannot be read."""
        if options is None:
            return self._decoding(None)
        if self._asked is None or self._asked[0] is not options:
            self._asked = options, self._decoding(options)
        return self._asked[1]

    def _decoding(self, options: Any) -> Decoding:
        from throughtime.decode.ngram import NGram

        settled = self.run.read_json(FILE)
        given = getattr(options, "words", None), getattr(options, "language_model", None)
        kind = getattr(options, "decoding", None) or ("words" if any(given) else settled["kind"])
        size = getattr(options, "beam", 16)
        if kind != "words":
            for name, value in zip(("words", "language_model"), given, strict=True):
                if value is not None:
                    raise UserError(f"{name}: only decoding words takes it, not {kind}; leave one of them out")
            return Decoding(self.units, kind, size=size)
        ngram = NGram.load(self.run.read_json(COUNTED))
        words = ngram.words if given[0] is None else self._listed(Path(given[0]))
        counted = ngram.allowing(words)
        model = counted if given[1] is None else open_words(given[1], words)
        lexicon = lexicon_of(self.units, words, model, counted.prior, settled["weight"], settled["bonus"])
        return Decoding(self.units, kind, lexicon, size)

    def _listed(self, path: Path) -> list[str]:
        """The words of a file, a word a line, as they are learned. Raises: UserError where there is none."""
        from throughtime.tasks.source import Source

        found: dict[str, None] = {}
        lost = []
        for number, line in enumerate(Source.of(path), 1):
            word = self.normal(line)
            if " " in word:
                raise UserError(f"{path}:{number}: {word!r} is several words; give each a line of its own")
            if word and self.units.spelled(word) is None:
                lost.append(f"{word!r} ({', '.join(map(repr, self.units.missing(word)))})")
            elif word:
                found[word] = None
        if lost:
            more = f" and {len(lost) - 5:,} others" if len(lost) > 5 else ""
            said = f"{path}: the model has no units for {', '.join(lost[:5])}{more}; they are never written"
            warnings.warn(said, stacklevel=2)
        if not found:
            raise UserError(f"{path}: holds no word that the model can write; give a word a line")
        return [*found]

    def normalised(self, recordings: Sequence[Recording]) -> list[Array]:
        """Features [T, F] of recordings; of one speaker together, where it is known whose they are."""
        mixed: dict[Path, int] = {}
        raw = [features(samples(recording, RATE, mixed)) for recording in recordings]
        tell_mixed(mixed)
        if self.config.model.streaming:
            from throughtime.tasks.speech_data import prior_of

            prior = prior_of(self.run)
            return [Running(prior).normalised(part) for part in raw]
        parts: dict[str, list[Array]] = {}
        for recording, part in zip(recordings, raw, strict=True):
            if recording.speaker is not None and len(part):
                parts.setdefault(recording.speaker, []).append(part)
        known = {speaker: Statistics.of(some) for speaker, some in parts.items()}
        return [
            known.get(r.speaker or "", None or Statistics.of([part])).normalised(part) if len(part) else part
            for r, part in zip(recordings, raw, strict=True)
        ]

    # -- scores and answers

    def scores(self, items: list[Recording], options: Any, advance: Advance = ignore) -> dict[str, Any]:
        """Error rates over recordings, `worderrors.errors`; the worst side by side; how often words were confused, where each is
        one; real_time_factor, seconds of computing a second of speech."""
        import time

        from throughtime.tasks.worderrors import confusions, errors, side_by_side, worst

        decoding, begun = self.decoding(options), time.monotonic()
        parts = self.normalised(items)
        log_probs = self.log_probabilities(parts, lambda share: advance(share / 2))
        heard = []
        for part in log_probs:
            heard.append(decoding.text(part))
            advance(0.5 / len(log_probs))
        took = time.monotonic() - begun
        pairs = list(zip((self.normal(str(item.text)) for item in items), heard, strict=True))
        seconds = sum(map(len, parts)) * DEFAULT.hop_ms / 1000
        found = errors(pairs, [item.speaker for item in items])
        found |= {"decoding": decoding.kind, "real_time_factor": took / max(seconds, 1e-9)}
        found["worst"] = {
            items[k].place or str(items[k].audio): dict(zip(("said", "heard"), side_by_side(*pairs[k]), strict=True))
            for k in worst(pairs, options.worst)
        }
        table = confusions(pairs)
        return found if table is None else found | {"confusion": table}

    def answers(self, items: list[Recording], options: Any) -> Iterator[dict[str, Any]]:
        decoding = self.decoding(options)
        parts = self.normalised(items)
        for item, log_p in zip(items, self.log_probabilities(parts), strict=True):
            yield values_of(self.transcript(item, log_p, decoding))

    def transcript(self, recording: Recording, log_p: Array, decoding: Decoding) -> Transcript:
        """What is said in a recording, with times in seconds of its file."""
        step = self.network.sizes.stride
        words = [
            Word(
                span.word,
                recording.offset + span.first * step * DEFAULT.hop_ms / 1000,
                recording.offset + (span.last + 1) * step * DEFAULT.hop_ms / 1000,
                span.confidence,
            )
            for span in decoding.words(log_p)
        ]
        end = recording.offset + len(log_p) * step * DEFAULT.hop_ms / 1000
        return Transcript(str(recording.audio), words, recording.offset, end)

    def written(self, values: dict[str, Any]) -> str:
        return str(values["text"])

    def shown(self, item: Recording) -> Recording:
        from throughtime.tasks.speech_look import SHOWN

        if (length := duration(item)) <= SHOWN:
            return item
        warnings.warn(f"{item.where}: lasts {length:.1f} s; its first {SHOWN:g} are shown", stacklevel=2)
        return item._replace(seconds=SHOWN)

    def look(self, item: Recording | Utterance) -> Look:
        from throughtime.tasks.speech_look import look

        utterance = item if isinstance(item, Utterance) else Utterance(self.normalised([item])[0], item.text)
        return look(self, utterance)


def values_of(transcript: Transcript) -> dict[str, Any]:
    """A transcript as `predict` gives it."""
    import json

    found: dict[str, Any] = json.loads(next(iter(WRITERS["json"]([transcript]))))
    return found
