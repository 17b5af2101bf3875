"""What a classifier of recordings is trained on: features and labels, and the settings that fit them.

Shapes: T frames, F features of a frame, n recordings.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from throughtime.errors import UserError, unknown
from throughtime.tasks import defaults
from throughtime.tasks.audio import RATE, Recording, at_speed, extent, samples, tell_mixed
from throughtime.tasks.base import Advance
from throughtime.tasks.labels import balance_of, class_weights
from throughtime.tasks.logmel import DEFAULT, Features, features
from throughtime.tasks.settings import chosen, settled
from throughtime.tasks.speech import Corpus, Statistics, Writer, side_by_side
from throughtime.tasks.speech_data import BEFORE, LONGEST, bandwidth_of, bins_heard

if TYPE_CHECKING:
    from throughtime.models.audio_classifier import AudioClassifier, Heard
    from throughtime.runs import Run
    from throughtime.tasks.classify_audio import AudioConfig

LABELS = "labels.json"


class Sound(NamedTuple):
    """What a `LabelledRecordings` gives to be looked into: normalised features [T, F]."""

    features: Features


class LabelledRecordings:
    """Recordings of a corpus as `Examples`.

    lengths: frames of each, [n]. numbers: of the labels, [n]. In a batch each is at one of its speeds, drawn.
    """

    def __init__(self, corpus: Corpus, numbers: Any) -> None:
        self.corpus, self.numbers = corpus, numbers
        self.lengths = corpus.lengths()

    def normalised(self, number: int, speed: int = 0) -> Features:
        """The features of a recording, [T, F], by its own statistics."""
        raw = self.corpus.features(number, speed)
        return Statistics.of([raw]).normalised(raw)

    def batch(self, numbers: Iterable[int]) -> Heard:
        """Some of them, side by side."""
        import torch

        numbers = [int(n) for n in numbers]
        speeds = torch.randint(self.corpus.speeds, (len(numbers),)).tolist()
        parts = [self.normalised(*drawn) for drawn in zip(numbers, speeds, strict=True)]
        return heard(parts, self.numbers[numbers])

    def item(self, number: int) -> Sound:
        """One of them."""
        return Sound(self.normalised(number))


def heard(parts: Sequence[Features], labels: Any) -> Heard:
    """Normalised features [T, F] and the numbers of their labels, [B], as a network takes them."""
    import torch

    from throughtime.models.audio_classifier import Heard

    speech = side_by_side(parts)
    return Heard(speech.features, speech.lengths, torch.as_tensor(np.asarray(labels, dtype=np.int64)))


def prepare(
    config: AudioConfig, train: list[Recording], held: list[Recording], run: Run, advance: Advance
) -> AudioConfig:
    """Decode all recordings once, and choose what was left open. advance: as of `Task.prepare`.

    Raises: UserError for what cannot be trained on.
    """
    counts = Counter(str(recording.label) for recording in train)
    if len(counts) < 2:
        raise UserError(
            f"{train[0].where}: all recordings have the label {train[0].label!r}; there must be two labels or more"
        )
    labels = sorted(counts)
    check_labels(held, labels)
    lengths, rates = zip(*map(extent, (*train, *held)), strict=True)
    for recording, length in zip((*train, *held), lengths, strict=True):
        if length > LONGEST:
            raise UserError(
                f"{recording.where}: lasts {length:,.0f} s; training takes {LONGEST:g} s at most: name parts of it, each with its "
                f"offset and seconds"
            )
    run.write_json(LABELS, labels)
    data = config.data
    speeds = (1.0,) if not data.speed else (1.0, 1 - data.speed, 1 + data.speed)
    mixed: dict[Any, int] = {}
    share = 1 / (len(train) * len(speeds) + len(held))  # of all the work, a recording at one speed
    _write(run, "train", train, labels, speeds, mixed, lambda: advance(share * len(speeds)))
    _write(run, "valid", held, labels, (1.0,), mixed, lambda: advance(share))
    tell_mixed(mixed)
    balance = balance_of(counts, data.balance)
    run.write_data("weights.json", class_weights([counts[label] for label in labels], balance))
    fitted, trained = defaults.classify_audio(config, len(train))
    fitted["bandwidth"] = config.model.bandwidth or bandwidth_of(rates)
    return settled(config, model=fitted, data={"balance": balance}, training=trained)


def check_labels(recordings: Sequence[Recording], labels: Sequence[str]) -> None:
    """Raises: UserError for a label that training never had."""
    for recording in recordings:
        if str(recording.label) not in labels:
            raise UserError(
                f"{recording.where}: training never had it: " + unknown("label", str(recording.label), labels)
            )


def _write(
    run: Run,
    part: str,
    recordings: Sequence[Recording],
    labels: list[str],
    speeds: Sequence[float],
    mixed: dict[Any, int],
    done: Callable[[], None],
) -> None:
    """Recordings and their labels, as a corpus. done: called after each."""
    writer, numbers, short = Writer(run.corpus / f"{part}.f16"), [], []
    with writer.file:  # closed where a recording cannot be read too
        for recording in recordings:
            x = samples(recording, RATE, mixed)
            variants = [features(x if speed == 1 else at_speed(x, speed)) for speed in speeds]
            done()
            if not all(map(len, variants)):
                short.append(recording)
                continue
            writer.add(variants, None)
            numbers.append(labels.index(str(recording.label)))
    if short:
        how = f"{len(short):,} such are" if len(short) > 1 else "it is"
        warnings.warn(f"{short[0].where}: is shorter than a frame of 25 ms; {how} left out", stacklevel=3)
    if not numbers:
        raise UserError(f"{recordings[0].where}: no recording is as long as a frame of 25 ms; give longer ones")
    writer.close()
    run.write_data(f"{part}-labels.json", numbers)


def examples(run: Run, part: str) -> LabelledRecordings:
    """What `prepare` left of a part."""
    numbers = np.array(run.read_data(f"{part}-labels.json"))
    return LabelledRecordings(Corpus.open(run.corpus / f"{part}.f16"), numbers)


def labels_of(run: Run) -> list[str]:
    """The labels of a run. Raises: UserError where it is damaged."""
    labels: Any = run.read_json(LABELS)
    if not isinstance(labels, list) or len(labels) < 2 or set(map(type, labels)) != {str}:
        raise UserError(f"{run.folder / LABELS}: the run is damaged: it does not hold the labels")
    return labels


def network(config: AudioConfig, run: Run) -> AudioClassifier:
    """A fresh network."""
    from throughtime.models.audio_classifier import AudioClassifier
    from throughtime.models.recogniser import Noise, Sizes

    m = config.model
    return AudioClassifier(
        Sizes(DEFAULT.bins, len(labels_of(run)), m.subsampling, BEFORE, BEFORE, heard=bins_heard(m.bandwidth)),
        **chosen(m, ("hidden_size", "dropout"), run),
        cell=m.cell,
        layers=m.layers,
        bidirectional=m.bidirectional,
        kind=m.kind,
        pooling=m.pooling,
        noise=Noise(config.data.masks, config.data.noise),
    )
