"""What an engine is: a program made ready for a device, which runs its loops; and what a loop is given."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from throughtime.scanning.program import Array, Program, Wanted

_T = TypeVar("_T")
Types = tuple[tuple[torch.dtype, ...], dict[str, torch.dtype]]  # of outputs and of each state; of records


class Given(NamedTuple):
    """What the loop of one scan reads.

    arrays: [T, B, n], rows dense. vectors: constant rows, [n]. matrices: [K, n]. state, and the initial one that resets put
    back: [B, n]. steps: T. step: 1, or -1 to run from the last step to the first. resets: [T, B] as 0 and 1. lengths: [B],
    falling; past: on the CPU, the rows t · B + b past their ends, ascending. own: the tensors of the cell that all else is made
    of. rounded: the states that are given back in bfloat16, those of all steps and the last.
    """

    arrays: Sequence[Tensor]
    vectors: Sequence[Tensor]
    matrices: Sequence[Tensor]
    state: Sequence[Tensor]
    initial: Sequence[Tensor]
    steps: int
    step: int
    resets: Tensor | None
    lengths: Tensor | None
    past: Tensor | None = None
    own: Sequence[Tensor] = ()
    rounded: frozenset[int] = frozenset()

    @property
    def batch(self) -> int:
        return self.state[0].size(0)

    @property
    def groups(self) -> tuple[tuple[str, Sequence[Tensor]], ...]:
        """What has gradients, by the kinds that name them."""
        return (
            ("a", self.arrays), ("v", self.vectors), ("w", self.matrices), ("s", self.state), ("i", self.initial),
        )  # fmt: skip

    @property
    def tensors(self) -> list[Tensor]:
        return [*self.arrays, *self.vectors, *self.matrices, *self.state, *self.initial]

    def remake(self) -> Callable[[Sequence[Tensor]], Given]:
        """What makes the same of `tensors`, without holding them."""
        counts = [len(group) for _, group in self.groups]
        rest, rounded = (self.steps, self.step, self.resets, self.lengths, self.past), self.rounded

        def made(tensors: Sequence[Tensor]) -> Given:
            ends = [*itertools.accumulate(counts, initial=0)]
            arrays, vectors, matrices, state, initial = (tensors[i:j] for i, j in itertools.pairwise(ends))
            return Given(arrays, vectors, matrices, state, initial, *rest, rounded=rounded)

        return made


class Past(NamedTuple):
    """What a backward loop reads of the forward one: the states, [T, B, n], and the rows saved for it, [T, B, n].

    halves: states in bfloat16, by their numbers; one that is not read in another type stands in `states` too.
    """

    states: Sequence[Tensor]
    saved: Sequence[Tensor]
    halves: Mapping[int, Tensor]

    def operand(self, k: int) -> Tensor:
        """A state as products read it."""
        found = self.halves.get(k)
        return self.states[k] if found is None else found

    def given_back(self, rounded: Collection[int]) -> list[Tensor]:
        """The states, some of them in bfloat16."""
        return [self.halves[k] if k in rounded else state for k, state in enumerate(self.states)]


class LoopEngine(Protocol):
    """A program on a device, for one type of number. operands: the type that the operands of products are rounded to."""

    program: Program
    dtype: torch.dtype
    operands: torch.dtype

    def prepare(self, wanted: Wanted | None, batch: int, rounded: frozenset[int] = frozenset()) -> None:
        """Compile what a call of so many sequences needs, so that nothing fails on its way. wanted: which gradients; None: none.
        rounded: as of `Given`."""

    def forward(self, given: Given, wanted: Wanted | None) -> tuple[Past, list[Tensor]]:
        """All steps, forwards: the states and what is saved for the gradients wanted; and the extras, [T, B, n]."""
        ...

    def backward(
        self, given: Given, wanted: Wanted, past: Past, gradients: Sequence[Tensor | None]
    ) -> dict[Array, Tensor]:
        """All steps, backwards.

        gradients: of each state and extra, [T, B, n], and of each final state, [B, n], in the types given back; None is zero.
        Returns: the gradients wanted, and those of the first state as ("s", k).
        """
        ...

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """x [R, K] @ weight [K, N] (+ bias), with gradients."""
        ...

    def run(self, function: Callable[..., _T], *args: Any) -> _T:
        """`function(*args)`, which is some of PyTorch's operations, as part of this engine's work."""
        ...
