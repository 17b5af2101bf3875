"""What of a classifier is exported: one network.

Shapes: T tokens, B texts, P pieces, W different words and one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from throughtime.tasks.networks import Input, Network, below, lengths
from throughtime.tasks.spelling import Reading

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from throughtime.models.classifier import Classifier


def networks_of(network: Classifier, reading: Reading) -> list[Network]:
    """Of a classifier. reading: how it reads texts."""
    from throughtime.models.encoder import TokenBatch

    def classified(tokens: Tensor, lengths: Tensor, *given: Tensor) -> tuple[Tensor]:
        left = list(given)
        spelt = (left.pop(0), left.pop(0), left.pop(0)) if reading.spelling is not None else None
        language = left.pop(0) if reading.language is not None else None
        return (network.logits(TokenBatch(tokens, lengths, spelt, language)).log_softmax(-1),)

    inputs = [
        Input("tokens", ("T", "B"), "entries of the vocabulary; 0: not known", below(len(reading.tokens))),
        Input("lengths", ("B",), "tokens of each text", lengths("T")),
    ]
    if reading.spelling is not None:
        pieces = "the places in `pieces` of the pieces of all different words, one word after the other"
        inputs += [
            Input("index", ("T", "B"), "of each token its place among the different words", _words),
            Input("pieces", ("P",), pieces, below(len(reading.spelling))),
            Input("starts", ("W",), "where each different word begins in `pieces`, and where the last ends", _starts),
        ]
    if reading.language is not None:
        what = "of each token its place in `language`; 0: not known"
        inputs.append(Input("language", ("T", "B"), what, below(len(reading.language))))
    outputs = {"log_p": "log of the probability of each label"}
    return [Network("classifier", network, classified, tuple(inputs), outputs, fewest={"W": 2})]


def _words(shape: tuple[int, ...], sizes: Mapping[str, int], generator: torch.Generator) -> Tensor:
    import torch

    return torch.randint(0, sizes["W"] - 1, shape, generator=generator)


def _starts(shape: tuple[int, ...], sizes: Mapping[str, int], generator: torch.Generator) -> Tensor:
    import torch

    found = torch.randint(0, sizes["P"] + 1, shape, generator=generator).sort().values
    found[0], found[-1] = 0, sizes["P"]
    return found
