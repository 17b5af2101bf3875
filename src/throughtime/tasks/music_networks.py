"""What of a network that writes music is exported: a step of the stack, which hears a moment, and a step of the chain, which writes
its symbols.

Shapes: B pieces, L symbols of a moment, N output of the stack, V symbols.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from throughtime.errors import UserError
from throughtime.tasks.networks import Input, Network, below, flat, like, normal, states

if TYPE_CHECKING:
    from torch import Tensor

    from throughtime.models.composer import Composer


def networks_of(network: Composer, looked: int) -> list[Network]:
    """Of a composer. looked: keys that are looked back at. Raises: UserError for a network that has no state."""
    if not hasattr(network.stack, "stepper"):
        raise UserError("a Transformer, or a network of cell none, has no state to step from, and is not exported")
    said = f"the {looked} keys struck last, the last first, 0 for none; and where the scale begins, from 1, C, to 12; 0: not known"
    before = Input("before", ("B", looked + 1), said, below(13))
    return [_listener(network, before), _writer(network, before)]


def _listener(network: Composer, before: Input) -> Network:

    from throughtime.models.composer import Moments

    stack: Any = network.stack
    first = stack.initial_state(1)
    given, finals, carried = states(first)

    def listener(symbols: Tensor, places: Tensor, bars: Tensor, before: Tensor, *left: Tensor) -> tuple[Tensor, ...]:
        moments = Moments(
            symbols.unsqueeze(0), places, places.unsqueeze(0), bars.unsqueeze(0), before.unsqueeze(0), places, places, places
        )  # fmt: skip
        output, end = stack(network.read(moments), like(first, list(left)))
        return output[0], *flat(end)

    symbols = f"a moment, without its end; filled up with {network.symbols}"
    inputs = (
        Input("symbols", ("B", "L"), symbols, below(network.symbols + 1)),
        Input("places", ("B",), "of the moment in its bar, in steps of the grid", below(network.place.num_embeddings)),
        Input("bars", ("B",), "of the moment in the phrase", below(network.bar.num_embeddings)),
        before,
        *given,
    )
    outputs = {"heard": "what the writer is told; before the first moment it is told zeros", **finals}
    return Network("listener", network, listener, inputs, outputs, carried)


def _writer(network: Composer, before: Input) -> Network:
    import torch

    from throughtime.models.composer import NOW

    chain = network.chain
    first = chain.initial_state(1)
    given, finals, carried = states(first)

    def writer(
        read: Tensor, before: Tensor, now: Tensor, under: Tensor, first_moment: Tensor, heard: Tensor, *left: Tensor
    ) -> tuple[Tensor, ...]:
        told = network.chain_input(read.unsqueeze(0), before, now.unsqueeze(0)) + network.given(heard)
        output, end = chain(told, like(first, list(left)))
        log_p = network.log_p(
            torch.cat([output[0], heard], -1), torch.cat([before, now], -1), read, under, first_moment > 0
        )
        return log_p, *flat(end)

    inputs = (
        Input("read", ("B",), f"the symbol before; {network.symbols} at the beginning of a moment", below(network.symbols + 1)),
        before,
        Input("now", ("B", NOW), "the last keys of the moment itself, the last first; 0 for none", below(89)),
        Input("under", ("B",), "the key that the next has to be higher than; 0: any", below(80)),
        Input("first", ("B",), "1 where it is the first moment of its piece, else 0", below(2)),
        Input("heard", ("B", network.stack.output_size), "of the listener, after the moment before", normal),
        *given,
    )  # fmt: skip
    outputs = {"log_p": "log of the probability of each symbol; 0 ends the moment", **finals}
    return Network("writer", network, writer, inputs, outputs, carried)
