"""What of networks that hear is exported: whole utterances; of a recogniser that reads in one direction, a step too.

Shapes: T frames, B batch, F features of a frame, K frames that a step sees.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from throughtime.tasks.networks import Input, Network, flat, lengths, like, normal, states

if TYPE_CHECKING:
    from torch import Tensor

    from throughtime.models.audio_classifier import AudioClassifier
    from throughtime.models.recogniser import Front, Recogniser, Recognisers


def of_recogniser(network: Recogniser | Recognisers, streaming: bool) -> list[Network]:
    """Of a recogniser."""

    def recognised(features: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        return network.log_probabilities(features, lengths)

    outputs = {
        "log_p": f"log of the probability of each unit at each step, of {network.sizes.stride} frames; 0 is the blank",
        "steps": "of each utterance",
    }
    whole = Network("recogniser", network, recognised, _heard(network), outputs)
    return [whole, _step(cast("Recogniser", network))] if streaming else [whole]  # one that streams is one alone


def of_classifier(network: AudioClassifier) -> list[Network]:
    """Of a classifier of recordings."""

    def classified(features: Tensor, lengths: Tensor) -> tuple[Tensor]:
        return (network.logits(features, lengths).log_softmax(-1),)

    outputs = {"log_p": "log of the probability of each label"}
    return [Network("classifier", network, classified, _heard(network), outputs)]


def _heard(network: Front | Recognisers) -> tuple[Input, ...]:
    return (
        Input("features", ("T", "B", network.sizes.features), "normalised log-mel features of each frame", normal),
        Input("lengths", ("B",), "frames of each recording", lengths("T")),
    )


def _step(network: Recogniser) -> Network:
    """A step, whose answer is that of `ahead` steps before."""
    import torch

    sizes = network.sizes
    recurrent: Any = network.stack
    first = recurrent.initial_state(1)
    given, finals, carried = states(first)
    seen = sizes.before + 1 + sizes.after
    ahead = max(sizes.ahead, 1)

    def step(frames: Tensor, there: Tensor, waiting: Tensor, *before: Tensor) -> tuple[Tensor, ...]:
        output, end = recurrent(network.read(frames), like(first, list(before)))
        every = torch.cat([waiting, output * there.unsqueeze(-1)])
        answered = network.ahead(every)[0] if sizes.ahead else every[-1]
        return network.output(answered).log_softmax(-1), every[1:], *flat(end)

    frames = (
        f"those that the step sees: {sizes.before} before its first, and {sizes.after} after; zeros beyond both ends"
    )
    there = "1; and 0 past the end of an utterance, for the answers that are still to come"
    waiting = "outputs that are not answered; zeros at the beginning of an utterance"
    inputs = (
        Input("frames", (seen, "B", sizes.features), frames, normal),
        Input("there", ("B",), there, lambda shape, sizes, generator: torch.ones(shape)),
        Input("waiting", (ahead, "B", recurrent.output_size), waiting, normal),
        *given,
    )
    outputs = {
        "log_p": f"log of the probability of each unit, {sizes.ahead} steps before: the first {sizes.ahead} are none",
        "still_waiting": "what `waiting` is in the next call",
        **finals,
    }
    return Network("step", network, step, inputs, outputs, {"still_waiting": "waiting", **carried})
