"""A trained text model as what is exported: its stack with the softmax above it, and how tokens become inputs."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from throughtime.errors import UserError
from throughtime.exporting.reading import Reading
from throughtime.exporting.stack import Direction, Layer, Stack, stack_of
from throughtime.layers import Recurrent
from throughtime.models.language import LanguageModel
from throughtime.tasks.text import TextModel
from throughtime.tasks.tokens import START, Tokens


class Head(nn.Module):
    """log p of what comes next, as a cell without a state."""

    def __init__(self, network: LanguageModel) -> None:
        super().__init__()
        self.project, self.output = network.project, network.output

    def forward(self, x: Tensor, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
        """x: [B, N], of the stack. Returns: [B, V], and the state that is none."""
        return self.output(self.project(x)).log_softmax(-1), state


def text_stack(trained: TextModel) -> tuple[Stack, Reading, Callable[[Tensor], Tensor]]:
    """A trained text model: its stack, that ends in log p; how it reads; and the log p of the model itself, of tokens [T, B].

    Raises: UserError where it does not step, or its softmax is in parts.
    """
    network = trained.network
    if not isinstance(network.stack, Recurrent):
        raise UserError("a Transformer has no state and is not run step by step: export a recurrent text model")
    if isinstance(network.output, nn.AdaptiveLogSoftmaxWithLoss):
        raise UserError(
            "its softmax is adaptive (model.output), which is not written step by step: train with --model.output softmax"
        )
    network = copy.deepcopy(network).cpu().float().eval()
    body = stack_of(network.stack)
    x = torch.zeros(1, network.stack.output_size)
    stack = Stack("text", (*body.layers, Layer((Direction(Head(network), x, ()),))))
    with torch.no_grad():
        table = network.embedded(torch.arange(len(trained.tokens)))
    reading = Reading(table, START, texts_of(trained.tokens))

    @torch.no_grad()
    def log_p(tokens: Tensor) -> Tensor:
        return network.log_probabilities(tokens)

    return stack, reading, log_p


def texts_of(tokens: Tokens) -> tuple[bytes, ...]:
    """What each entry adds to a text that is written. Of words that stand between spaces, the space before them too."""
    if tokens.kind == "bytes":
        return (b"", b"", *(bytes([b]) for b in range(len(tokens) - 2)))
    space = " " if tokens.spaced else ""
    texts = ("", "", *(entry if entry == "\n" else space + entry for entry in tokens.entries[2:]))
    return tuple(text.encode("utf-8", "surrogatepass") for text in texts)
