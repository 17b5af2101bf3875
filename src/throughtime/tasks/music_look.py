"""A piece as a model of music takes it, for looking inside."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from throughtime.tasks.batches import moved
from throughtime.tasks.look import Look, Stack, Steps
from throughtime.tasks.moments import KEYS, Moment
from throughtime.tasks.music_data import ALL, Stretches, Written

if TYPE_CHECKING:
    import torch

    from throughtime.models.composer import Moments
    from throughtime.tasks.music_model import MusicModel

SHOWN = 200  # moments of a piece


def look(model: MusicModel, piece: Written) -> Look:
    """Its moments as inputs, with the keys of each as a roll, and as outputs all but the first, each of which is told from those
    before it."""
    import numpy as np
    import torch

    if len(piece) > SHOWN:
        warnings.warn(
            f"a piece of {len(piece):,} moments is too long to be shown: its first {SHOWN} are read", stacklevel=2
        )
    piece = piece.part(np.arange(min(len(piece), SHOWN)), np.arange(len(model.notation.names) + 1))
    notes = model.notation.notes()
    names = [model.notation.called(moment) for moment in piece.moments]
    keys = torch.zeros(len(piece), KEYS)
    for t, moment in enumerate(piece.moments):
        keys[t, [symbol - 1 for symbol in moment if 1 <= symbol <= KEYS]] = 1.0
    used = keys.any(0).nonzero().squeeze(1)
    low, high = (int(used.min()), int(used.max()) + 1) if len(used) else (0, KEYS)
    features = {
        "place in the bar": piece.places.tolist(),
        "bar in the phrase": piece.bars.tolist(),
        "keys": keys.sum(1).tolist(),
    }
    features["highest key"] = [float(row.nonzero().max()) if row.any() else 0.0 for row in keys]
    inputs = Steps(names, keys[:, low:high], features)

    def heard(moments: list[Moment]) -> Moments:
        written = Written.of_moments(moments, piece.places.tolist(), model.notation)
        return Stretches(model.notation, [written], ALL).batch([0])

    batch = heard(piece.moments)

    def score(after: Moments) -> torch.Tensor:
        found: torch.Tensor = -model.network.nats(moved(batch, model.device), moved(after, model.device))[1:, 0]
        return found

    def without(i: int) -> Moments | None:
        # nothing is struck there; where the bars lie stays
        kept = tuple(s for s in piece.moments[i] if not notes[s])
        return heard([*piece.moments[:i], kept, *piece.moments[i + 1 :]]) if i else None

    return Look(
        inputs=inputs,
        outputs=Steps(names[1:]),
        batch=batch,
        score=score,
        stacks={"stack": Stack(name="", steps=inputs, at=list(range(len(piece) - 1)), lasts="a moment")},
        without=without,
        discrete=True,
        verb="write",
    )
