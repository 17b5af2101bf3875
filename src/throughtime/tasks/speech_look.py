"""An utterance as a recogniser takes it, for looking inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from throughtime.decode.ctc import BLANK, best_path
from throughtime.errors import UserError
from throughtime.tasks.batches import moved
from throughtime.tasks.logmel import DEFAULT
from throughtime.tasks.look import Look, Stack, Steps
from throughtime.tasks.speech import Utterance, side_by_side

if TYPE_CHECKING:
    import torch

    from throughtime.models.recogniser import Speech
    from throughtime.tasks.transcribe_model import TranscribeModel

AROUND = 2  # frames on each side that are hidden with one, for they overlap with it
SHOWN = 10.0  # seconds of a recording
NOTHING = "(nothing)"  # what is answered where no unit is heard


def look(model: TranscribeModel, utterance: Utterance) -> Look:
    """Its frames as inputs, and as outputs the units that are heard, each at the first step where it is the likeliest. Raises:
    UserError where there is no frame."""
    import torch

    features, network, stride = utterance.features, model.network, model.network.sizes.stride
    if not len(features):
        raise UserError("the recording is shorter than a frame: there is nothing to look into")
    (log_p,) = model.log_probabilities([features])
    spans = best_path(log_p)
    at = [span.first for span in spans] or [len(log_p) - 1]
    units = [span.unit for span in spans] or [BLANK]

    def answers(batch: Speech) -> torch.Tensor:
        given = moved(batch, model.device)
        return network.log_probabilities(given.features, given.lengths)[0][at, 0]

    def score(batch: Speech) -> torch.Tensor:
        return answers(batch)[range(len(units)), units]

    def without(frame: int) -> Speech:
        hidden = features.copy()
        hidden[max(frame - AROUND, 0) : frame + AROUND + 1] = 0.0  # as all frames are on average
        return side_by_side([hidden])

    numbers = torch.from_numpy(features).requires_grad_()
    inputs = Steps([f"{1000 * DEFAULT.time(i):.0f} ms" for i in range(len(features))], numbers.detach())
    names = [model.units.names[unit] if unit != BLANK else NOTHING for unit in units]
    place = "stack" if (model.config.model.members or 1) == 1 else "members.0.stack"
    stack = Stack(name="", steps=inputs, stride=stride, at=at, lasts=f"{stride * DEFAULT.hop_ms:g} ms")
    return Look(
        inputs=inputs,
        outputs=Steps(names),
        batch=side_by_side([features])._replace(features=numbers.unsqueeze(1)),
        score=score,
        stacks={place: stack},
        distribution=answers,
        names=model.units.names.__getitem__,
        without=without,
        numbers=numbers,
        verb="hear",
    )
