"""A step through time: `scan`, the one door. (The package is not called `scan`, or it would hide the function of that name.)"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor
from torch._compile import _disable_dynamo

from throughtime.cells import State
from throughtime.scanning import graph
from throughtime.scanning.backends import Explanation, explain_call, run_call
from throughtime.scanning.call import Call, Inputs, Scanned, initial_state, make_call
from throughtime.scanning.cell import AnyCell
from throughtime.scanning.checkpointing import in_pieces
from throughtime.scanning.cpu.stepping import Stepper
from throughtime.scanning.cpu.streams import Streams
from throughtime.scanning.int8 import FLOAT, INT8, check_weights
from throughtime.scanning.observe import Observer
from throughtime.scanning.replaced import replacement

__all__ = ["Explanation", "Inputs", "Scanned", "Stepper", "Streams", "explain", "initial_state", "scan"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _as_it_is(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """A function that torch.compile calls and does not look into: what runs through time is compiled already.

    (`torch.compiler.disable` would import all of torch.compile here and now; this one does so when torch.compile calls.)
    """
    untraced = _disable_dynamo(function)

    @functools.wraps(function)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
            torch._dynamo.graph_break(msg=f"throughtime.{function.__name__} is compiled already: use fullgraph=False")
            return untraced(*args, **kwargs)
        return function(*args, **kwargs)

    return wrapped


def _with_weights(call: Call, weights: str) -> Call:
    return replace(call, operands=torch.int8) if weights == INT8 else call


@_as_it_is
def scan(  # noqa: PLR0913  (each is a user's to name)
    cell: AnyCell,
    inputs: Inputs,
    state: State | None = None,
    *,
    initial: State | None = None,
    lengths: Tensor | Sequence[int] | None = None,
    reverse: bool = False,
    resets: Tensor | None = None,
    record: tuple[str, ...] = (),
    checkpoint_every: int | None = None,
    backend: str = "auto",
    weights: str = FLOAT,
) -> Scanned:
    """Run one step of a recurrent network through time.

        s_t, y_t = cell(x_t, s_{t-1})        for t = 0 … T-1, or T-1 … 0

    >>> import torch, throughtime as tt
    >>> cell = tt.cells.GRU(3, 5)
    >>> outputs, state, _ = tt.scan(cell, torch.randn(7, 2, 3), lengths=[7, 4])
    >>> outputs.shape, state.shape
    (torch.Size([7, 2, 5]), torch.Size([2, 5]))
    >>> bool((outputs[4:, 1] == 0).all())
    True

    Args:
        cell: any module with `forward(x, state) -> state` or `-> (output, state)`: ours, torch.nn's, one's own; or such a
            function, whose state is given.
        inputs: [T, B, I], or a tuple (of tuples) of such tensors where a step takes several.
        state: what the first step starts from: [B, N] or a tuple of such; None: `initial`.
        initial: what `resets` put back; None: the cell's `initial_state`, else zeros.
        lengths: [B] whole numbers from 0 to T: how much of each sequence is real. Past its length a sequence's state
            stands still, its outputs and records are zero, and what stands in its inputs has no effect.
        reverse: run from the last step to the first (of each sequence's real part).
        resets: bool [T, B]: put the initial state back before this step.
        record: names of inner values the cell watches, to return for every step.
        checkpoint_every: keep the state of every so many steps alone and run each piece again for its gradient: less
        memory, more time.
        backend: "auto" takes the best that can run this; a name ("cpu", "torch", "reference") takes that one or raises.
        weights: "int8" rounds those of products to eight bits, a scale for each output, and what they are multiplied by likewise;
            on "cpu" alone, and without gradients.

    Returns: `Scanned(outputs [T, B, N], state, records)`; records maps each name to [T, B, ...].
    Raises: ValueError or TypeError where shapes, lengths or names do not fit; RuntimeError where a named backend cannot run
        the call, saying why.
    """
    check_weights(weights, backend)
    instead = replacement()
    if weights == INT8 and (instead is not None or torch.compiler.is_exporting()):
        raise RuntimeError("weights in int8 cannot be exported: export them in float")
    if instead is not None:
        return instead(
            cell, inputs, state, initial=initial, lengths=lengths, reverse=reverse, resets=resets, record=record
        )
    call = make_call(
        cell, inputs, state, initial=initial, lengths=lengths, reverse=reverse, resets=resets, record=record
    )
    call = _with_weights(call, weights)
    if torch.compiler.is_exporting():
        return graph.run(call)
    observer = Observer.current()
    if observer is not None:
        return observer.run(call, lambda shown: run_call(shown, backend))
    if checkpoint_every is None or checkpoint_every >= call.steps:
        return run_call(call, backend)
    if checkpoint_every < 1:
        raise ValueError(f"checkpoint_every must be at least 1, got {checkpoint_every}")
    return in_pieces(call, checkpoint_every, lambda piece: run_call(piece, backend))


def explain(
    cell: AnyCell,
    inputs: Inputs,
    state: State | None = None,
    *,
    initial: State | None = None,
    lengths: Tensor | Sequence[int] | None = None,
    reverse: bool = False,
    resets: Tensor | None = None,
    record: tuple[str, ...] = (),
    backend: str = "auto",
    weights: str = FLOAT,
) -> Explanation:
    """Which backend `scan` would run this call on, and why each of the others does not; and whether the step is linear in its
    state, h_t = a ⊙ h_{t-1} + b with a and b free of it, or which line of the cell breaks that. Takes what `scan` takes.

    >>> import torch, throughtime as tt
    >>> explained = tt.explain(lambda x, h: 0.9 * h + torch.tanh(x), torch.randn(7, 2, 5), torch.zeros(2, 5))
    >>> print(explained)
    runs on 'cpu'
    not on 'torch': PyTorch has no kernel for <lambda>, only for Elman, GRU and LSTM
    'reference' could run it too
    linear in the state
    >>> (reason,) = tt.explain(tt.cells.GRU(3, 5), torch.randn(7, 2, 3)).linear
    >>> reason.partition(" at ")[0]
    'a product of matrices takes it'
    """
    call = make_call(
        cell, inputs, state, initial=initial, lengths=lengths, reverse=reverse, resets=resets, record=record
    )
    check_weights(weights, backend)
    return explain_call(_with_weights(call, weights), backend)
