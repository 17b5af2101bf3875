"""What of a language model is exported: a step, and whole sequences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from throughtime.errors import UserError
from throughtime.tasks.networks import Input, Network, below, flat, like, states

if TYPE_CHECKING:
    from torch import Tensor

    from throughtime.models.language import LanguageModel


def networks_of(network: LanguageModel) -> list[Network]:
    """Of a language model. Raises: UserError for a Transformer, which has no state."""
    from throughtime.models.transformer import TransformerWindow

    stack = network.stack
    if isinstance(stack, TransformerWindow):
        raise UserError(
            "a Transformer that reads text has no state to step from, and is not exported: train a recurrent network"
        )
    recurrent = stack
    first = recurrent.initial_state(1)
    given, outputs, carried = states(first)
    vocabulary = network.embedding.num_embeddings

    def sequences(tokens: Tensor, *before: Tensor) -> tuple[Tensor, ...]:
        hidden, end = recurrent(network.embedded(tokens), like(first, list(before)))
        return network.log_p(network.project(hidden)), *flat(end)

    def step(tokens: Tensor, *before: Tensor) -> tuple[Tensor, ...]:
        log_p, *end = sequences(tokens.unsqueeze(0), *before)
        return log_p[0], *end

    what = "entries of the vocabulary; a document begins with 1, and with states that are zeros"
    said = {"log_p": "log of the probability of each entry to come next"} | outputs
    return [
        Network("step", network, step, (Input("tokens", ("B",), what, below(vocabulary)), *given), said, carried),
        Network("sequences", network, sequences, (Input("tokens", ("T", "B"), what, below(vocabulary)), *given), said, carried),
    ]  # fmt: skip
