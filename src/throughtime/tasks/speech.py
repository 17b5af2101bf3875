"""Features of speech as a network reads them: normalised, prepared once, side by side.

Shapes: T frames, F features of a frame, n utterances.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from throughtime.tasks.batches import Sequences, padded
from throughtime.tasks.logmel import Features
from throughtime.weights import read_tensors, write_tensors

if TYPE_CHECKING:
    from throughtime.models.recogniser import Speech

Array = np.ndarray[Any, Any]
LEAST = 0.1  # what a deviation is taken to be at least, in nats
PRIOR = 100  # frames that a stream's own statistics begin with, of those of training
HEARD = 3000  # frames back that statistics of a stream reach, about


class Statistics(NamedTuple):
    """Mean and deviation of each feature, [F]."""

    mean: Array
    deviation: Array

    @classmethod
    def of(cls, parts: Sequence[Features]) -> Statistics:
        """Of the frames of some utterances."""
        frames: Array = np.concatenate(parts).astype(np.float64)
        mean, deviation = frames.mean(0), np.maximum(frames.std(0), LEAST)
        return cls(mean.astype(np.float32), deviation.astype(np.float32))

    def normalised(self, features: Features) -> Features:
        """[T, F]: how many deviations each is from its mean."""
        return np.asarray((features - self.mean) / self.deviation, dtype=np.float32)


class Running:
    """Statistics of a stream: of what was heard so far, begun with `PRIOR` frames of those of training."""

    def __init__(self, prior: Statistics) -> None:
        self.count = float(PRIOR)
        self.sum = prior.mean.astype(np.float64) * PRIOR
        self.square = (prior.deviation.astype(np.float64) ** 2 + prior.mean.astype(np.float64) ** 2) * PRIOR

    def normalised(self, features: Features) -> Features:
        """Frames that come next, [T, F], each by the statistics of those up to it."""
        if not len(features):
            return features
        own = features.astype(np.float64)
        total = self.sum + own.cumsum(0)
        square = self.square + np.square(own).cumsum(0)
        count = self.count + np.arange(1, len(own) + 1)[:, None]
        mean = total / count
        deviation = np.sqrt(np.maximum(square / count - mean**2, LEAST**2))
        keep = min(1.0, HEARD / count[-1, 0])
        self.sum, self.square, self.count = total[-1] * keep, square[-1] * keep, count[-1, 0] * keep
        return np.asarray((own - mean) / deviation, dtype=np.float32)


class Corpus:
    """Utterances in a file mapped into memory: features at several speeds, units, and whose they are.

    speeds: how many there are of each, the first as it was spoken. speakers: the number of each, [n], -1 where it is not known.
    """

    def __init__(self, values: Array, starts: Array, speakers: Array, statistics: list[Statistics]) -> None:
        self.values, self.starts, self.speakers, self.statistics = values, starts, speakers, statistics

    def __len__(self) -> int:
        return len(self.speakers)

    @property
    def speeds(self) -> int:
        """At how many speeds each is there."""
        return (len(self.starts) - 1) // max(len(self), 1)

    def features(self, number: int, speed: int = 0) -> Features:
        """Those of an utterance, [T, F]."""
        at = number * self.speeds + speed
        found: Features = np.asarray(self.values[self.starts[at] : self.starts[at + 1]], dtype=np.float32)
        return found

    def lengths(self) -> Array:
        """Frames of each as it was spoken, [n]."""
        return np.diff(self.starts)[:: self.speeds]

    @classmethod
    def open(cls, path: Path) -> Corpus:
        """What a `Writer` wrote."""
        tensors = {name: tensor.numpy() for name, tensor in read_tensors(path.with_suffix(".safetensors"))[0].items()}
        size = tensors["mean"].shape[-1]
        values = np.memmap(path, np.float16, "r").reshape(-1, size)
        statistics = [Statistics(*pair) for pair in zip(tensors["mean"], tensors["deviation"], strict=True)]
        return cls(values, tensors["starts"], tensors["speakers"], statistics)


class Writer:
    """Writes a `Corpus`: `add` the utterances, then `close`. The last of the statistics are those of all."""

    def __init__(self, path: Path) -> None:
        self.path, self.file = path, path.open("wb")
        weakref.finalize(self, self.file.close)  # what is to be written may turn out to be damaged
        self.starts, self.speakers = [0], list[int]()
        self.names: dict[str, int] = {}
        self.sums: dict[int, list[Any]] = {}

    def add(self, variants: Sequence[Features], speaker: str | None) -> None:
        """An utterance, at each speed, the first as it was spoken."""
        number = -1 if speaker is None else self.names.setdefault(speaker, len(self.names))
        self.speakers.append(number)
        first = variants[0].astype(np.float64)
        parts = len(first), first.sum(0), np.square(first).sum(0)
        for key in {number, -1}:
            before = self.sums.get(key)
            self.sums[key] = [a + b for a, b in zip(before, parts, strict=True)] if before else list(parts)
        for features in variants:
            features.astype(np.float16).tofile(self.file)
            self.starts.append(self.starts[-1] + len(features))

    def close(self) -> Corpus:
        """What was written."""
        import torch

        self.file.close()
        kept = [self.sums[key] for key in [*range(len(self.names)), -1]]
        means = [total / count for count, total, _ in kept]
        deviations = [
            np.sqrt(np.maximum(square / count - mean**2, LEAST**2))
            for (count, _, square), mean in zip(kept, means, strict=True)
        ]
        tensors = {
            "starts": torch.tensor(self.starts),
            "speakers": torch.tensor(self.speakers),
            "mean": torch.from_numpy(np.array(means, dtype=np.float32)),
            "deviation": torch.from_numpy(np.array(deviations, dtype=np.float32)),
        }
        write_tensors(self.path.with_suffix(".safetensors"), tensors, {})
        return Corpus.open(self.path)


class Utterance(NamedTuple):
    """What an `Utterances` gives to be looked into: normalised features, and what is said, where that is known."""

    features: Features
    text: str | None


class Utterances:
    """Utterances of a corpus as `Examples`.

    lengths: frames and units of each, [n, 2]. training: each time at one of its speeds, drawn, and normalised by itself or by its
    speaker, drawn too, so that a network can do with either. prior: of a network that hears a stream, the statistics that it begins
    with; of another None.
    """

    def __init__(self, corpus: Corpus, units: Sequences, texts: list[str], training: bool, prior: Statistics | None):
        self.corpus, self.units, self.texts, self.training, self.prior = corpus, units, texts, training, prior
        self.lengths = np.stack([corpus.lengths(), units.lengths], 1)

    def normalised(self, number: int, speed: int = 0, by_speaker: bool = True) -> Features:
        """The features of an utterance, by its speaker's statistics where these are known and asked for, else by its own."""
        features = self.corpus.features(number, speed)
        speaker = self.corpus.speakers[number] if by_speaker else -1
        known = self.corpus.statistics[speaker] if speaker >= 0 else None
        if self.prior is not None:
            return Running(known if known is not None and self.training else self.prior).normalised(features)
        return (known or Statistics.of([features])).normalised(features)

    def batch(self, numbers: Iterable[int]) -> Speech:
        """Some of them, side by side."""
        import torch

        numbers = [int(n) for n in numbers]
        if self.training:
            speeds = torch.randint(self.corpus.speeds, (len(numbers),)).tolist()
            by_speaker = (torch.rand(len(numbers)) < 0.5).tolist()
            found = [self.normalised(*drawn) for drawn in zip(numbers, speeds, by_speaker, strict=True)]
        else:
            found = [self.normalised(n) for n in numbers]
        return side_by_side(found, [self.units[n] for n in numbers])

    def item(self, number: int) -> Utterance:
        """One of them."""
        return Utterance(self.normalised(number), self.texts[number])


def side_by_side(features: Sequence[Features], units: Sequence[Any] | None = None) -> Speech:
    """Utterances as a network takes them. units: what is said; None: not known, and of no length."""
    import torch

    from throughtime.models.recogniser import Speech

    lengths = torch.tensor([len(part) for part in features], dtype=torch.int64)
    block = torch.zeros(max(1, int(lengths.max())), len(features), features[0].shape[1])
    for i, part in enumerate(features):
        block[: len(part), i] = torch.from_numpy(part)
    return Speech(block, lengths, *padded([()] * len(features) if units is None else units))
