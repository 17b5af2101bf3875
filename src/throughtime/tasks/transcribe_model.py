"""A trained recogniser: what it hears in recordings, how well, and as it comes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from json import dumps, loads
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from throughtime.config import STDIN, build_options
from throughtime.errors import UserError
from throughtime.files import standard_input
from throughtime.tasks.audio import RATE, Recording, blocks, duration, raw, samples, tell_mixed
from throughtime.tasks.base import Advance, Trained, ignore, in_groups
from throughtime.tasks.decoding import COUNTED, FILE, Decoding, chosen, lexicon_of
from throughtime.tasks.logmel import features
from throughtime.tasks.networks import Network
from throughtime.tasks.normalisation import Normal
from throughtime.tasks.pauses import spoken
from throughtime.tasks.speech import Running, Statistics, Utterance, side_by_side
from throughtime.tasks.speech_data import LONGEST, prior_of, without_quiet
from throughtime.tasks.speech_stream import LONGEST as UTTERANCE
from throughtime.tasks.speech_stream import Partial, SpeechSession, StepwiseEar, WholeEar, events_of
from throughtime.tasks.text_words import open_words
from throughtime.tasks.transcribe_settings import DecodeOptions, PredictOptions
from throughtime.tasks.transcripts import OF_ONE, WRITERS, Transcript, Word, json_lines
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
        decoding = Decoding(self.units, "greedy") if greedy else self.decoding()
        return [decoding.text(part) for part in self._of_speech(examples)]

    def settle(self, examples: Any, run: Run) -> None:
        """Choose how texts are found, on held-out examples."""
        run.write_json(FILE, chosen(self.units, run, self._of_speech(examples), examples.texts))

    def _of_speech(self, examples: Any) -> list[Array]:
        """`log_probabilities` of prepared examples, without the quiet that `predict` leaves out."""
        parts = []
        for i in range(len(examples.lengths)):
            found, places = examples.normalised(i), spoken(examples.corpus.features(i))
            parts.append(np.concatenate([found[:0], *(found[a:b] for a, b in places)]))
        return self.log_probabilities(parts)

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
        size = getattr(options, "beam", None)
        if kind == "greedy" and size is not None:
            raise UserError("beam: decoding greedy keeps no hypotheses; use --decoding beam or words, or leave it out")
        size = size or Decoding.size
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
        """Features [T, F] of whole recordings, by the statistics of speech: of a speaker's, where it is known whose they are."""
        mixed: dict[Path, int] = {}
        heard = [samples(recording, RATE, mixed) for recording in recordings]
        tell_mixed(mixed)
        raw = [features(x) for x in heard]
        if self.config.model.streaming:
            prior = prior_of(self.run)
            return [Running(prior).normalised(part) for part in raw]
        known, found = self._speakers(recordings), []
        for recording, x, part in zip(recordings, heard, raw, strict=True):
            speech = known.get(recording.speaker) or Statistics.of([features(without_quiet(x))]) if len(part) else None
            found.append(part if speech is None else speech.normalised(part))
        return found

    # -- scores and answers

    def scores(self, items: list[Recording], options: Any, advance: Advance = ignore) -> dict[str, Any]:
        """Error rates over recordings, `worderrors.errors`; the worst side by side; how often words were confused, where each is
        one; real_time_factor, seconds of computing a second of speech."""
        import time

        from throughtime.tasks.worderrors import confusions, errors, side_by_side, worst

        decoding, begun = self.decoding(options), time.monotonic()
        heard, seconds = [], 0.0
        for values in self._said(items, decoding):
            heard.append(values["text"])
            seconds += values["end"] - values["start"]
            advance(1 / len(items))
        took = time.monotonic() - begun
        pairs = list(zip((self.normal(str(item.text)) for item in items), heard, strict=True))
        found = errors(pairs, [item.speaker for item in items])
        found |= {"decoding": decoding.kind, "real_time_factor": took / max(seconds, 1e-9)}
        found["worst"] = {
            items[k].place or str(items[k].audio): dict(zip(("said", "heard"), side_by_side(*pairs[k]), strict=True))
            for k in worst(pairs, options.worst)
        }
        table = confusions(pairs)
        return found if table is None else found | {"confusion": table}

    def session(  # type: ignore[override]
        self,
        *,
        rate: int = RATE,
        decoding: str | None = None,
        words: str | None = None,
        language_model: str | None = None,
        beam: int | None = None,
    ) -> SpeechSession:
        """A stream that is transcribed as its samples come.

        Args: rate: Hz, of the samples. The others: as options of `predict`.
        Raises: UserError as `predict`, and for a rate below 8,000 Hz.
        """
        given = {"decoding": decoding, "words": words, "language_model": language_model, "beam": beam}
        return self.session_of(self.decoding(build_options(DecodeOptions, given)), STDIN, rate)

    def session_of(
        self, decoding: Decoding, name: str, rate: int = RATE, statistics: Statistics | None = None
    ) -> SpeechSession:
        """A stream that is transcribed as its samples come.

        Args: name: of the recording. statistics: by which features are normalised, of a network that reads from both ends; None: by
            those of each utterance.
        """
        if self.config.model.streaming:
            return SpeechSession(StepwiseEar(self, decoding, prior_of(self.run)), name, rate)
        return SpeechSession(WholeEar(self, decoding, statistics), name, rate)

    def predict(self, items: Any, batch: int = 64, **options: Any) -> Iterator[dict[str, Any]]:
        """What is said in recordings, in order, however long they are.

        Args: items: a recording, a folder or a table of them, by its path, or several of these; or `Recording`s. batch: among how
            many those of one speaker are normalised together. options: of the command line's `predict`.
        Yields: audio, text, start, end and words of each recording. Of raw samples from standard input, and in the formats of
            captions and CTM, of each utterance in which something is said, as soon as it has ended. Of standard input also what
            is heard of an utterance so far: `partial`.
        Raises: UserError for an option that the task has not, a value out of range, what cannot be read, and captions of several
            recordings.
        """
        chosen = build_options(PredictOptions, options)
        recordings = [one for found, _ in self.given(items, chosen) for one in found]
        if chosen.format in OF_ONE and len(recordings) > 1:
            raise UserError(
                f"format: captions are of one recording, and there are {len(recordings):,}; write them one by one, or as text, "
                f"json or ctm"
            )
        if chosen.rate is not None and all(str(one.audio) != STDIN for one in recordings):
            raise UserError("rate: only raw samples from standard input (-) are told theirs; leave it out")
        decoding, apart = self.decoding(chosen), chosen.format in (*OF_ONE, "ctm")
        return (
            values
            for group in in_groups(recordings, batch)
            for values in self._said(group, decoding, apart=apart, rate=chosen.rate)
        )

    def answers(self, items: list[Recording], options: Any) -> Iterator[dict[str, Any]]:
        return self._said(items, self.decoding(options), rate=options.rate)

    def _said(
        self, items: Sequence[Recording], decoding: Decoding, *, apart: bool = False, rate: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """What `predict` gives of a group of recordings. apart: of each of their utterances. rate: of raw samples."""
        known, mixed = self._speakers(items), dict[Path, int]()
        for item in items:
            streamed = rate is not None and str(item.audio) == STDIN
            pieces = raw(standard_input(), rate) if rate is not None and streamed else blocks(item, mixed=mixed)
            session = self.session_of(decoding, str(item.audio), statistics=known.get(item.speaker))
            words = list[Word]()
            for event in events_of(session, pieces):
                if isinstance(event, Partial):
                    if streamed:
                        yield {"partial": event.text}
                    continue
                here = [w._replace(start=w.start + item.offset, end=w.end + item.offset) for w in event.words]
                if apart or streamed:
                    yield values_of(Transcript(event.audio, here, here[0].start, here[-1].end))
                else:
                    words += here
            if not apart and not streamed:
                yield values_of(Transcript(str(item.audio), words, item.offset, item.offset + session.seconds))
        tell_mixed(mixed)

    def _speakers(self, items: Sequence[Recording]) -> dict[str | None, Statistics]:
        """The statistics of those who speak in some recordings, where it is known who they are, without the quiet around it."""
        parts: dict[str | None, list[Array]] = {}
        for item in items if not self.config.model.streaming else ():
            if item.speaker is not None and duration(item) <= LONGEST:
                parts.setdefault(item.speaker, []).append(features(without_quiet(samples(item, RATE, {}))))
        return {speaker: Statistics.of(some) for speaker, some in parts.items()}

    def networks(self) -> list[Network]:
        from throughtime.tasks.speech_networks import of_recogniser

        return of_recogniser(self.network, self.config.model.streaming)

    def beside(self) -> dict[str, str]:
        streaming = self.config.model.streaming
        about = {
            "kind": self.units.kind,
            "units": self.units.names,
            "streaming": streaming,
            "longest": UTTERANCE,
            "prior": [part.tolist() for part in prior_of(self.run)] if streaming else None,
        }
        return {"transcribe.json": dumps(about, ensure_ascii=False)}

    def lines(self, answers: Iterable[dict[str, Any]], options: Any, *, json: bool = False) -> Iterator[str]:
        if json and options.format not in ("text", "json"):
            raise UserError(f"format: got {options.format!r} and --json; leave one of them out")
        return WRITERS["json" if json else options.format](map(transcript_of, answers))

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
    found: dict[str, Any] = loads(next(json_lines([transcript])))
    return found


def transcript_of(values: dict[str, Any]) -> Transcript:
    """What `values_of` was made of."""
    return Transcript(
        **{name: values[name] for name in ("audio", "start", "end")}, words=[Word(**w) for w in values["words"]]
    )
