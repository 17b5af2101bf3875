"""A trained classifier of recordings: the label of each, and how well it tells them apart.

Shapes: T frames, F features of a frame, n recordings, C labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from throughtime.errors import UserError
from throughtime.tasks.audio import RATE, Recording, samples, tell_mixed
from throughtime.tasks.base import Advance, Trained, ignore
from throughtime.tasks.classify_audio_data import Sound, check_labels, heard, labels_of
from throughtime.tasks.labels import label_scores
from throughtime.tasks.logmel import DEFAULT, Features, features
from throughtime.tasks.look import Look, Stack, Steps, of_classes
from throughtime.tasks.networks import Network
from throughtime.tasks.speech import Statistics
from throughtime.tasks.tables import one_field

if TYPE_CHECKING:
    import torch
    from torch import nn

    from throughtime.models.audio_classifier import AudioClassifier, Heard
    from throughtime.runs import Run
    from throughtime.tasks.classify_audio import AudioTask

FRAMES = 20_000  # of recordings that are scored side by side


class AudioModel(Trained[Recording]):
    """A trained classifier of recordings."""

    network: AudioClassifier

    def __init__(self, task: AudioTask, run: Run, config: Any, network: nn.Module) -> None:
        super().__init__(task, run, config, network)
        self.labels = labels_of(run)

    def normalised(self, recordings: Sequence[Recording]) -> list[Features]:
        """Features [T, F] of recordings; [0, F] of one that is shorter than a frame."""
        mixed: dict[Path, int] = {}
        raw = [features(samples(recording, RATE, mixed)) for recording in recordings]
        tell_mixed(mixed)
        return [Statistics.of([part]).normalised(part) if len(part) else part for part in raw]

    def log_probabilities(self, parts: Sequence[Features], advance: Advance = ignore) -> Any:
        """log p of every label, float64 [n, C], of normalised features [T, F] each."""
        import torch

        from throughtime.tasks.batches import in_order_of_length, moved, scoring

        found = torch.zeros(len(parts), len(self.labels), dtype=torch.float64)
        with scoring(self.network) as device:
            for numbers in in_order_of_length([len(part) for part in parts], FRAMES):
                batch = moved(heard([parts[n] for n in numbers], numbers), device)
                logits = self.network.logits(batch.features, batch.lengths)
                found[torch.from_numpy(numbers)] = logits.double().log_softmax(-1).cpu()
                advance(len(numbers) / max(len(parts), 1))
        return found

    def scores(self, items: list[Recording], options: Any, advance: Advance = ignore) -> dict[str, Any]:
        """Scores on labelled recordings, as `label_scores` gives them."""
        check_labels(items, self.labels)
        log_p = self.log_probabilities(self.normalised(items), advance)
        return label_scores(log_p, [self.labels.index(str(item.label)) for item in items], self.labels, "recording")

    def answers(self, items: list[Recording], options: Any) -> Iterator[dict[str, Any]]:
        """The label of each recording, None of one shorter than a frame.

        Yields: audio (its path), label, probability, probabilities (of every label), and gold where its table has a label.
        """
        parts = self.normalised(items)
        for item, part, row in zip(items, parts, self.log_probabilities(parts).exp().tolist(), strict=True):
            best = max(range(len(row)), key=row.__getitem__)
            values: dict[str, Any] = {
                "audio": str(item.audio),
                "label": self.labels[best] if len(part) else None,
                "probability": row[best] if len(part) else None,
                "probabilities": dict(zip(self.labels, row, strict=True)) if len(part) else None,
            }
            yield values if item.label is None else values | {"gold": item.label}

    def networks(self) -> list[Network]:
        from throughtime.tasks.speech_networks import of_classifier

        return of_classifier(self.network)

    def beside(self) -> dict[str, str]:
        return {"labels.json": dumps(self.labels, ensure_ascii=False)}

    def written(self, values: dict[str, Any]) -> str:
        label = "" if values["label"] is None else one_field(values["label"])
        probability = "" if values["label"] is None else f"{values['probability']:.4f}"
        gold = [one_field(values["gold"])] if "gold" in values else []
        return "\t".join([label, probability, *gold, one_field(values["audio"])])

    def look(self, item: Recording | Sound) -> Look:
        import torch

        from throughtime.tasks.batches import moved

        part = item.features if isinstance(item, Sound) else self.normalised([item])[0]
        if not len(part):
            raise UserError("the recording is shorter than a frame: there is nothing to look into")
        network, device = self.network, self.device
        best = int(self.log_probabilities([part])[0].argmax())

        def answers(batch: Heard) -> torch.Tensor:
            given = moved(batch, device)
            return network.logits(given.features, given.lengths).log_softmax(-1)

        def without(frame: int) -> Heard:
            hidden = part.copy()
            hidden[frame] = 0.0  # as all frames are on average
            return heard([hidden], [best])

        numbers = torch.from_numpy(part).requires_grad_()
        batch = heard([part], [best])._replace(features=numbers.unsqueeze(1))
        inputs = Steps([f"{1000 * DEFAULT.time(i):.0f} ms" for i in range(len(part))], torch.from_numpy(part))
        return Look(
            inputs=inputs,
            outputs=Steps([self.labels[best]]),
            batch=batch,
            score=of_classes(answers, [best]),
            stacks={"stack": Stack(name="", steps=inputs, stride=network.sizes.stride, whole=True)},
            distribution=answers,
            names=self.labels.__getitem__,
            without=without,
            numbers=numbers,
            verb="hear",
        )
