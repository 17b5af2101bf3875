"""What is asked of a scan, checked, in one value that every backend takes.

Shapes: T time, B batch, I input, N hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from throughtime.cells import State
from throughtime.cells.base import same_structure, structure
from throughtime.scanning.cell import AnyCell, FunctionCell, as_cell, name_of
from throughtime.scanning.foreign import context

Inputs = Tensor | tuple[Any, ...]  # [T, B, I], or a tuple (of tuples) of them: what one step is given


class Scanned(NamedTuple):
    """What a scan gives: outputs [T, B, N]; the state after each sequence's last step; records, name -> [T, B, ...]."""

    outputs: Tensor
    state: State
    records: dict[str, Tensor]


@dataclass(frozen=True)
class Call:
    """A checked call of `scan`: all that a backend needs to know."""

    cell: nn.Module
    inputs: Inputs
    state: State
    initial: State
    lengths: Tensor | None
    reverse: bool
    resets: Tensor | None
    record: tuple[str, ...]
    operands: torch.dtype | None = None
    """What those of products are rounded to, where it is not the type of the numbers themselves."""
    found: dict[Any, Any] = field(init=False, default_factory=dict, compare=False, repr=False)
    """What a backend has found out about this call, so that it need not look twice."""

    @property
    def steps(self) -> int:
        """T."""
        return int(first_leaf(self.inputs).shape[0])

    @property
    def batch(self) -> int:
        """B."""
        return int(first_leaf(self.inputs).shape[1])

    def forwards(self) -> tuple[Call, Callable[[Tensor], Tensor]]:
        """The same call with time reversed so that it runs forwards, and what reverses a [T, B, ...] result again."""
        if not self.reverse:
            return self, lambda value: value
        if self.lengths is None:

            def reversed_(value: Tensor) -> Tensor:
                return value.flip(0)
        else:
            t_T1 = torch.arange(self.steps, device=self.lengths.device).unsqueeze(1)
            index_TB = torch.where(t_T1 < self.lengths, self.lengths - 1 - t_T1, t_T1)

            def reversed_(value: Tensor) -> Tensor:
                index = index_TB.reshape(index_TB.shape + (1,) * (value.dim() - 2))
                return value.gather(0, index.expand_as(value))

        resets = None if self.resets is None else reversed_(self.resets)
        return replace(self, inputs=map_leaves(reversed_, self.inputs), resets=resets, reverse=False), reversed_


def first_leaf(inputs: Inputs) -> Tensor:
    """The first tensor of a tensor or nested tuple."""
    while not isinstance(inputs, Tensor):
        inputs = inputs[0]
    return inputs


def leaves(inputs: Inputs) -> list[Tensor]:
    """All tensors of a tensor or nested tuple, in order."""
    return [inputs] if isinstance(inputs, Tensor) else [leaf for part in inputs for leaf in leaves(part)]


def map_leaves(function: Callable[[Tensor], Tensor], inputs: Inputs) -> Inputs:
    """`function` of every tensor, in the same structure."""
    if isinstance(inputs, Tensor):
        return function(inputs)
    return tuple(map_leaves(function, part) for part in inputs)


def map_states(function: Callable[..., Tensor], *states: State) -> State:
    """`function` of the corresponding tensors of states, in their structure."""
    if isinstance(states[0], Tensor):
        return function(*states)
    return tuple(function(*tensors) for tensors in zip(*states, strict=True))


def tensors_of(state: State) -> tuple[Tensor, ...]:
    """The tensors of a state, in order."""
    return state if isinstance(state, tuple) else (state,)


def where_rows(rows_B: Tensor, state: State, other: State) -> State:
    """`state` in the rows that are true, `other` in the rest; each tensor is [B, ...], of any rank."""
    return map_states(lambda s, o: torch.where(rows_like(rows_B, s), s, o), state, other)


def rows_like(rows_B: Tensor, value: Tensor) -> Tensor:
    """A truth value a row, [B, 1, ...], to choose whole rows of `value` [B, ...]."""
    return rows_B.reshape(rows_B.shape + (1,) * (value.dim() - 1))


def make_call(
    cell: AnyCell,
    inputs: Inputs,
    state: State | None,
    *,
    initial: State | None = None,
    lengths: Tensor | Sequence[int] | None = None,
    reverse: bool = False,
    resets: Tensor | None = None,
    record: tuple[str, ...] = (),
) -> Call:
    """Check what `scan` was given. Raises: ValueError, TypeError, whose message says what to do."""
    cell = as_cell(cell)
    tensors = leaves(inputs)
    for tensor in tensors:
        if tensor.dim() < 2:
            raise ValueError(f"inputs must be [T, B, ...], got {list(tensor.shape)}; unsqueeze the missing dimension")
        if tensor.shape[:2] != tensors[0].shape[:2]:
            raise ValueError(f"inputs differ in T, B: {list(tensors[0].shape[:2])} and {list(tensor.shape[:2])}")
    steps, batch = tensors[0].shape[:2]
    if not torch.compiler.is_exporting():  # where both may stay open
        steps = int(steps)  # under torch.jit.trace a tensor
    device = tensors[0].device
    if initial is None:
        initial = initial_state(cell, batch, device=device, like=state)
    state = initial if state is None else state
    _check_states(cell, state, initial, batch)
    if lengths is not None:
        lengths = _checked_lengths(torch.as_tensor(lengths, device=device), steps, batch)
    if resets is not None:
        resets = _checked_resets(resets, steps, batch).to(device)
        if lengths is not None:  # past its length a state stands still
            resets = resets & (torch.arange(steps, device=device).unsqueeze(1) < lengths)
    if isinstance(record, str):
        raise TypeError(f"record is a tuple of names, got the string {record!r}; write ({record!r},)")
    return Call(cell, inputs, state, initial, lengths, reverse, resets, tuple(record))


def _check_states(cell: nn.Module, state: State, initial: State, batch: int) -> None:
    if not same_structure(state, initial):
        raise TypeError(f"the state of {name_of(cell)} is {structure(initial)}, got {structure(state)}")
    for tensor in (*tensors_of(state), *tensors_of(initial)):
        if tensor.dim() < 1 or tensor.shape[0] != batch:
            raise ValueError(f"each tensor of the state must be [B, ...] with B = {batch}, got {list(tensor.shape)}")


def _checked_lengths(lengths: Tensor, steps: int, batch: int) -> Tensor:
    if lengths.numel() == 0:
        lengths = lengths.long()  # an empty list says nothing of its type
    if lengths.shape != (batch,) or lengths.dtype.is_floating_point or lengths.dtype == torch.bool:
        raise ValueError(f"lengths must be {batch} whole numbers, got {list(lengths.shape)} of {lengths.dtype}")
    lengths = lengths.long()
    if torch.compiler.is_exporting() or not batch or context((lengths,)) is not None:  # there are no numbers to look at
        return lengths
    if not (int(lengths.min()) >= 0 and int(lengths.max()) <= steps):
        raise ValueError(f"lengths must lie in 0 to T = {steps}, got {lengths.tolist()}")
    return lengths


def _checked_resets(resets: Tensor, steps: int, batch: int) -> Tensor:
    if resets.shape != (steps, batch) or resets.dtype != torch.bool:
        raise ValueError(
            f"resets must be bool [T, B] = {[steps, batch]}, got {resets.dtype} {list(resets.shape)}; use resets.bool()"
        )
    return resets


def unwrapped(cell: nn.Module) -> nn.Module:
    """The cell inside wrappers, which have a `cell` and no state of their own."""
    while not hasattr(cell, "initial_state") and isinstance(getattr(cell, "cell", None), nn.Module):
        cell = cell.cell  # type: ignore[assignment]
    return cell


def initial_state(
    cell: nn.Module, batch: int, *, device: torch.device | None = None, like: State | None = None
) -> State:
    """What a cell starts from: its own `initial_state`; for torch.nn's cells, and otherwise in the shape of `like`, zeros.

    Raises: TypeError where nothing says what shape the state has.
    """
    inner = unwrapped(cell)
    if hasattr(inner, "initial_state"):
        made: State = inner.initial_state(batch, device=device)  # type: ignore[operator]
        return made
    if isinstance(inner, nn.RNNCellBase):
        zeros: Tensor = inner.weight_hh.new_zeros(batch, inner.hidden_size, device=device)  # type: ignore[operator]
        return (zeros, zeros.clone()) if isinstance(inner, nn.LSTMCell) else zeros
    if like is not None:
        return map_states(torch.zeros_like, like)
    raise TypeError(
        f"{name_of(cell)} does not say what it starts from: pass state="
        + ("" if isinstance(cell, FunctionCell) else ", or give it a method initial_state(batch, *, device=None)")
    )
