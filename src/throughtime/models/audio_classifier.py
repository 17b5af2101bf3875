"""A label for a recording.

Shapes: T frames, F features of a frame, S steps of the network, B batch, N hidden, C classes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from throughtime.models.classifier import Pool
from throughtime.models.recogniser import Front, Sizes


class Heard(NamedTuple):
    """Recordings side by side: normalised features [T, B, F], how many frames of each are real [B], and the numbers of their labels
    [B]."""

    features: Tensor
    lengths: Tensor
    labels: Tensor


class AudioClassifier(Front):
    """A pooling over the steps of a `Front`, and a distribution over labels.

        p = softmax(W_o pool(h) + b_o)

    Args: sizes: with C as the units. pooling: as in `Pool`. class_weights: [C], how much an example of each class counts in
        training. others: of `Front`.
    """

    def __init__(self, sizes: Sizes, *, pooling: str, class_weights: list[float] | None = None, **front: Any) -> None:
        super().__init__(sizes, **front)
        self.pool = Pool(pooling, self.stack.output_size, getattr(self.stack, "directions", 1))
        self.output = nn.Linear(self.stack.output_size, sizes.units)
        self.class_weights = class_weights

    def logits(self, features: Tensor, lengths: Tensor) -> Tensor:
        """features [T, B, F], lengths [B]. Returns: [B, C]."""
        found: Tensor = self.output(self.pool(*self.hidden(features, lengths)))
        return found

    def forward(self, batch: Heard, state: None) -> tuple[Tensor, Tensor, None]:
        """-log p of the labels, summed, and how many recordings these are."""
        features = self.noise(batch.features, batch.lengths) if self.training else batch.features
        weights = None
        if self.training and self.class_weights is not None:
            weights = torch.tensor(self.class_weights, device=features.device)
        nats = F.cross_entropy(self.logits(features, batch.lengths), batch.labels, weights, reduction="sum")
        return nats, torch.tensor(batch.labels.shape[0], device=features.device), None
