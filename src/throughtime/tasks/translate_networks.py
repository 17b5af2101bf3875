"""What of a translator is exported: the encoder, and a step of the decoder.

Shapes: S source, B batch, M width of the memory, A of its keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from throughtime.errors import UserError
from throughtime.tasks.networks import Input, Network, below, flat, lengths, like, normal

if TYPE_CHECKING:
    from torch import Tensor

    from throughtime.models.translator import Translator


def networks_of(network: Translator) -> list[Network]:
    """Of a translator. Raises: UserError for a Transformer, whose steps read all that was written."""
    import torch

    from throughtime.models.translator import Translator

    if not isinstance(network, Translator):
        raise UserError("a Transformer that translates has no step, and is not exported: train a recurrent network")
    entries, written = network.encoder.embedding.num_embeddings, network.embedding.num_embeddings
    with torch.no_grad():
        memory, first = network.encode(torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, dtype=torch.int64))
    widths = [t.shape[-1] for t in flat(first)]
    values, keys = memory.values.shape[-1], memory.keys.shape[-1]

    def encoder(source: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        memory, state = network.encode(source, lengths)
        return memory.values, memory.keys, *flat(state)

    def decoder(tokens: Tensor, values: Tensor, keys: Tensor, lengths: Tensor, *before: Tensor) -> tuple[Tensor, ...]:
        real = torch.arange(values.shape[0]).unsqueeze(1) < lengths
        seen = memory._replace(values=values, keys=keys, real=real)
        logits, state, weights = network.decode(seen, like(first, list(before)), tokens.unsqueeze(0))
        return logits[0].log_softmax(-1), weights[0], *flat(state)

    begins = {f"state{i}": "where the decoder begins" for i in range(len(widths))}
    remembered = {"values": "what the decoder attends to", "keys": "by which it finds what"}
    source = "entries of the source's vocabulary; 0: not known"
    read = "the entry of the target's vocabulary that was written last; 1 before the first"
    states = [
        Input(f"state{i}", ("B", n), "as the encoder gave it, then `final`", normal) for i, n in enumerate(widths)
    ]
    count = Input("lengths", ("B",), "tokens of each source, at least 1", lengths("S"))
    attended = [
        Input("values", ("S", "B", values), "of the encoder", normal),
        Input("keys", ("S", "B", keys), "of the encoder", normal),
    ]
    carried = {f"final{i}": f"state{i}" for i in range(len(widths))}
    outputs = {
        "log_p": "log of the probability of each entry to come next; 1 is the end",
        "attention": "how much the step attends to each token of the source",
        **{final: f"what `{state}` is in the next call" for final, state in carried.items()},
    }
    given = (Input("tokens", ("B",), read, below(written)), *attended, count, *states)
    return [
        Network(
            "encoder",
            network,
            encoder,
            (Input("source", ("S", "B"), source, below(entries)), count),
            remembered | begins,
        ),
        Network("decoder", network, decoder, given, outputs, carried),
    ]
