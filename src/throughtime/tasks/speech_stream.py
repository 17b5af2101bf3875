"""What is said in a stream of samples, as it comes: a session of a trained recogniser.

Shapes: N samples, F features of a frame, t frames, S steps of the network, U units.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from throughtime.decode.ctc import BLANK
from throughtime.errors import UserError
from throughtime.tasks.audio import LOUDEST, RATE, Resampler, Samples
from throughtime.tasks.decoding import Decoding
from throughtime.tasks.logmel import DEFAULT, Features, LogMelStream
from throughtime.tasks.pauses import Pauses, Piece, quietest
from throughtime.tasks.speech import Running, Statistics
from throughtime.tasks.transcripts import Transcript, Word

if TYPE_CHECKING:
    from throughtime.tasks.transcribe_model import TranscribeModel

Array = np.ndarray[Any, Any]

LONGEST = 2500  # frames that are read together from both ends
BEFORE = 200  # frames, the last of the utterances before, by which one is normalised too
ENDED = 1.0  # seconds without a word that end an utterance
HELD = 20.0  # seconds of an utterance after which what will not change is given


class Partial(NamedTuple):
    """What is heard of an utterance so far, which may change; time: seconds of the stream that have come."""

    text: str
    time: float


Event = Partial | Transcript


class SpeechSession:
    """A stream of samples that is transcribed as it comes: made by `TranscribeModel.session`.

    Which utterances are found in it, and what their words are, does not depend on the pieces in which the samples come.
    """

    def __init__(self, ear: _Ear, name: str, rate: int) -> None:
        self._ear, self._name = ear, name
        self._resampler = None if rate == RATE else Resampler(rate, RATE)
        self._features, self._pauses = LogMelStream(), Pauses()
        self._count = 0  # frames
        self._said = ""
        self._finished = False

    def feed(self, samples: Any) -> list[Event]:
        """Hear what comes next.

        Args: samples: [N] floats from -1 to 1, at the session's rate; any number of them.
        Returns: a `Transcript` of each utterance that has ended, with times from the beginning of the stream, in seconds; then, of
            a streaming network, a `Partial` where what is heard of one that has not ended is no longer what was given last.
        Raises: UserError where they are no such samples, or the stream has ended; nothing is heard then.
        """
        return self._heard(_checked(samples), last=False)

    def finish(self) -> list[Event]:
        """End the stream. Returns: the `Transcript` of its last utterance, where it has not been given."""
        return self._heard(np.empty(0, np.float32), last=True)

    @property
    def ended(self) -> bool:
        """Whether `finish` was called."""
        return self._finished

    @property
    def seconds(self) -> float:
        """Of the stream that have come, in whole frames."""
        return self._count * DEFAULT.hop_ms / 1000

    def _heard(self, samples: Array, last: bool) -> list[Event]:
        if self._finished:
            raise UserError("the stream has ended; make another session")
        self._finished = last
        if self._resampler is not None:
            samples = self._resampler.push(samples, last)
        features = self._features.push(samples)
        events: list[Event] = []
        for frame in features:
            self._count += 1
            if (piece := self._pauses.push(frame)) is not None:
                events += self._named(self._ear.hear(piece))
        if last and (piece := self._pauses.finish()) is not None:
            events += self._named(self._ear.hear(piece))
        text = self._ear.partial()
        if text != self._said:
            events.append(Partial(text, self.seconds))
            self._said = text
        return events

    def _named(self, found: Iterator[list[Word]]) -> Iterator[Transcript]:
        """Words as transcripts. The last step may reach beyond the end of the stream."""
        for words in found:
            if words:
                words = [w._replace(end=min(w.end, self.seconds)) for w in words]
                yield Transcript(self._name, words, words[0].start, words[-1].end)


def events_of(session: SpeechSession, pieces: Iterable[Samples]) -> Iterator[Event]:
    """The events of a whole stream, as its pieces come."""
    for piece in pieces:
        yield from session.feed(piece)
    yield from session.finish()


def _checked(samples: Any) -> Array:
    """Samples of a user. Raises: UserError where they are none."""
    found = np.asarray(samples)
    if found.ndim != 1 or found.dtype.kind != "f":
        what = f"got {list(found.shape)} of {found.dtype}"
        raise UserError(f"samples are floats from -1 to 1, [N], of one channel; {what}: divide 16-bit ones by 32768")
    if not (np.abs(found) <= LOUDEST).all():
        raise UserError("samples are floats from -1 to 1; some are not finite, or far beyond")
    return found.astype(np.float32)


class _Ear(Protocol):
    """What hears the utterances that `Pauses` finds."""

    def hear(self, piece: Piece) -> Iterator[list[Word]]:
        """Go on. Yields: the words of utterances, or of parts of one, that are known for good, times in seconds of the stream."""

    def partial(self) -> str:
        """What is heard since."""


class WholeEar:
    """Hears an utterance once it has ended; one that is too long is cut where it is quietest.

    statistics: by which features are normalised; None: by those of the utterance and of what came before it.
    """

    def __init__(self, model: TranscribeModel, decoding: Decoding, statistics: Statistics | None) -> None:
        self.model, self.decoding, self.statistics = model, decoding, statistics
        self._before = np.empty((0, DEFAULT.bins), np.float32)
        self._parts: list[Features] = []
        self._first = 0

    def hear(self, piece: Piece) -> Iterator[list[Word]]:
        """As `_Ear` says."""
        if not self._parts:
            self._first = piece.first
        self._parts.append(piece.features)
        whole = None
        if piece.ends or sum(map(len, self._parts)) >= LONGEST:
            whole = np.concatenate(self._parts)
            self._parts = []
        if whole is not None and not piece.ends:
            cut = len(whole) // 2 + quietest(whole[len(whole) // 2 :])
            self._parts = [whole[cut:]]
            whole = whole[:cut]
        if whole is None:
            return
        first, self._first = self._first, self._first + len(whole)
        if piece.speech and len(whole):
            statistics = self.statistics or Statistics.of([self._before, whole])
            self._before = np.concatenate([self._before, whole])[-BEFORE:]
            (log_p,) = self.model.log_probabilities([statistics.normalised(whole)])
            yield words_of(self.decoding, log_p, None, first, self.model.network.sizes.stride)

    def partial(self) -> str:
        """Nothing: it is heard from both ends."""
        return ""


def words_of(decoding: Decoding, log_p: Array, units: list[int] | None, first: int, stride: int) -> list[Word]:
    """The words in log probabilities [S, U] of an utterance, times in seconds. units: what they spell, None: what is found. first:
    the frame of their first step. stride: frames to a step."""
    step = DEFAULT.hop_ms / 1000
    return [
        Word(w.word, (first + w.first * stride) * step, (first + (w.last + 1) * stride) * step, w.confidence)
        for w in decoding.words(log_p, units)
    ]


class StepwiseEar:
    """Hears an utterance step by step, with a network of one direction.

    An utterance ends with a pause, and where no word has come for `ENDED`. Of one that goes on, what will not change is given after
    `HELD`.
    """

    def __init__(self, model: TranscribeModel, decoding: Decoding, prior: Statistics) -> None:
        self.model, self.decoding = model, decoding
        self._normal = Running(prior)
        sizes = model.network.sizes
        self._wide = sizes.before + 1 + sizes.after
        stack: Any = model.network.stack
        self._stepper = stack.stepper()
        per_second = 1000 / (sizes.stride * DEFAULT.hop_ms)
        self._ended, self._held = round(ENDED * per_second), round(HELD * per_second)  # steps
        self._beam = None if decoding.kind == "greedy" else decoding.beam()
        self._seen: Features | None = (
            None  # frames that the next step sees, as far as they have come; None: between utterances
        )
        self._rest = 0  # frames that have come since the first one of the next step
        self._first = 0  # the frame of the first of `_rows`
        self._hidden: list[Any] = []  # outputs of the stack from the step on that is answered next
        self._rows: list[Array] = []  # log p at the steps of the utterance
        self._quiet = 0  # steps without a unit, one after the other
        self._speech = True
        self._all = True  # whether the beam has read no step beside `_rows`

    def hear(self, piece: Piece) -> Iterator[list[Word]]:
        """As `_Ear` says."""
        sizes = self.model.network.sizes
        if self._seen is None:
            self._seen = np.zeros((sizes.before, sizes.features), np.float32)
            self._stepper.reset()
            self._first, self._rest = piece.first, 0
        self._speech = piece.speech
        for frame in self._normal.normalised(piece.features):
            self._seen = np.concatenate([self._seen, frame[None]])
            self._rest += 1
            if len(self._seen) == self._wide:
                yield from self._step()
        if piece.ends:
            nothing = np.zeros((self._wide, sizes.features), np.float32)
            while self._rest > 0:
                self._seen = np.concatenate([self._seen, nothing])[: self._wide]
                yield from self._step()
            while self._hidden:
                yield from self._answer()
            yield self._utterance()
            self._seen = None

    def partial(self) -> str:
        """As `_Ear` says."""
        return self.decoding.units.text(self._units()) if self._rows and self._speech else ""

    def _step(self) -> Iterator[list[Word]]:
        """A step of the network."""
        import torch

        network = self.model.network
        assert self._seen is not None
        with torch.no_grad():
            read = network.read(torch.from_numpy(self._seen).unsqueeze(1))[0]
            self._hidden.append(self._stepper(read).clone())
        self._seen = self._seen[network.sizes.stride :]
        self._rest -= network.sizes.stride
        if len(self._hidden) > network.sizes.ahead:
            yield from self._answer()

    def _answer(self) -> Iterator[list[Word]]:
        """What is said at the step that has waited longest."""
        import torch

        network = self.model.network
        with torch.no_grad():
            hidden = network.ahead(torch.stack(self._hidden))[0]
            row = network.output(hidden).log_softmax(-1).numpy()
        del self._hidden[0]
        self._rows.append(row[0])
        if self._beam is not None:
            self._beam.advance(row)
        self._quiet = self._quiet + 1 if row[0].argmax() == BLANK else 0
        if self._quiet >= self._ended:
            yield self._utterance()
        elif len(self._rows) >= self._held:
            yield self._stable()

    def _units(self) -> list[int]:
        """What is heard of the utterance so far."""
        return self.decoding.found(np.stack(self._rows)) if self._beam is None else self._beam.partial()

    def _utterance(self) -> list[Word]:
        """The words of the utterance, which has ended."""
        units = None if self._beam is None else self._beam.finish().units
        found = self._words(units) if self._rows and self._speech else []
        self._drop(len(self._rows))
        self._all = True
        return found

    def _stable(self) -> list[Word]:
        """The words of the utterance that will not change, or where there are none, all but the last one."""
        units = self._units()
        words = self.decoding.units.words(units)
        known = len(units) if self._beam is None else len(self._beam.stable())
        count = sum(end <= known for _, _, end in words[:-1]) or len(words) - 1
        if count < 1:
            return self._utterance()
        found = self._words(units)
        if self._beam is not None:
            self._beam.drop(words[count][1])
            self._all = False
        stride = self.model.network.sizes.stride
        self._drop(round((found[count].start * 1000 / DEFAULT.hop_ms - self._first) / stride))
        return found[:count]

    def _words(self, units: list[int] | None) -> list[Word]:
        stride = self.model.network.sizes.stride
        return words_of(self.decoding, np.stack(self._rows), units, self._first, stride)

    def _drop(self, steps: int) -> None:
        """Forget the first steps of the utterance."""
        self._rows = self._rows[steps:]
        self._first += steps * self.model.network.sizes.stride
        self._quiet = min(self._quiet, len(self._rows))
