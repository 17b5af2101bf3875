"""One loop over one set of tensors, run a chunk of time at a time."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from throughtime.scanning.cpu import columns, matrices, memory, product, threads
from throughtime.scanning.cpu.arguments import Arguments, constant, rows_of, steps_of
from throughtime.scanning.cpu.held import Packed
from throughtime.scanning.cpu.loop import LoopCode
from throughtime.scanning.cpu.matrices import OPERANDS
from throughtime.scanning.cpu.target import Library
from throughtime.scanning.cpu.team import Alone
from throughtime.scanning.engine import Given
from throughtime.scanning.program import Loop


@dataclass(frozen=True, eq=False)
class CompiledLoop:
    """A loop, its code as text and as functions. operands: the type that those of its products are rounded to."""

    loop: Loop
    code: LoopCode
    library: Library
    operands: torch.dtype

    def packed(self, weights: Sequence[Tensor], held: Packed | None = None) -> list[Tensor]:
        """The matrices of its products, of all there are."""
        return [packed(weights, p.attribute, self.operands, held) for p in self.loop.products]

    @cached_property
    def tiles(self) -> int:
        """Where the tiles of its products are."""
        return product.products(OPERANDS[self.operands]).address("tiles")

    def arguments(self, shares: Shares, dtype: torch.dtype) -> tuple[Arguments, Tensor]:
        """An argument block without its weights and arrays; and the space that its tasks have for themselves."""
        stride = self.code.scratch_width * shares.most + 64
        scratch = memory.empty(stride * shares.tasks, dtype=dtype)
        bounds, active = shares.addresses
        made = Arguments(
            self.code.layout, shares.tasks, tiles=self.tiles, scratch=scratch.data_ptr(), stride=stride, step=1,
            active=active, bounds=bounds, parts=shares.parts,
        )  # fmt: skip
        if self.code.columns:
            made.together(columns.board(shares.parts), columns.offering())
        return made, scratch


class Launch:
    """A loop that is about to run on some tensors; what it is not given here is told to `arguments`.

    states: [T, B, n] of each tensor of the state, which a forward loop writes and a backward one reads.
    alone: what one thread takes for a step of a sequence. held: packed weights that are known.
    """

    def __init__(
        self,
        loop: CompiledLoop,
        given: Given,
        states: Sequence[Tensor],
        alone: Alone,
        held: Packed | None = None,
    ) -> None:
        self.given, self.states, self.held = given, states, held
        self._halves: dict[int, tuple[Tensor, Tensor]] = {}  # with the states before the first step
        packed = loop.packed(given.matrices, held)
        work = sum([p.numel() for p in packed]) + 20 * loop.loop.written
        self.alone = alone if work * given.batch * given.steps > matrices.ALONE else None
        # before others help it is found out what one thread takes
        helped = self.alone is not None and self.alone.ns is not None
        threads_ = torch.get_num_threads() if helped else 1
        rows = 1 if loop.code.columns else min(threads_, given.batch)
        parts = min(-(-threads_ // max(1, rows)), loop.code.parts)  # where there are fewer sequences than threads
        self.threads = rows * parts
        if given.lengths is None:
            self.shares = even(given.batch, rows, parts)
        else:
            self.shares = _by_length(given.lengths.numpy(), given.steps, rows, parts)
        self.arguments, scratch = loop.arguments(self.shares, given.state[0].dtype)
        self.arguments.pack(packed)
        self.arguments.set(step=given.step)
        self._pointed_to = packed, scratch
        self.function, self.address = loop.library.function("loop"), loop.library.address("loop")
        place = self.arguments.place
        by_kind = (("n", states, steps_of), ("a", given.arrays, steps_of), ("v", given.vectors, constant))
        for kind, tensors, words in (*by_kind, ("i", given.initial, rows_of)):
            for i, tensor in enumerate(tensors):
                place((kind, i), words(tensor))
        if given.resets is not None:
            place(("r", 0), [given.resets.data_ptr(), *given.resets.stride()])

    def halves(self, states: Mapping[int, Tensor]) -> None:
        """The states that a forward loop writes in bfloat16, [T, B, n]."""
        for k, out in states.items():
            self.arguments.place(("h", k), steps_of(out))
            self._halves[k] = out, self.given.state[k].to(out.dtype).contiguous()

    def run(self, first: int, count: int) -> None:
        """Run `count` steps, the earliest of which is number `first` in the order of the loop."""
        given = self.given
        t = first if given.step > 0 else given.steps - 1 - first
        for k, out in enumerate(self.states):
            state = given.state[k] if first == 0 else out[t - given.step]
            self.arguments.place(("s", k), [*steps_of(out), state.data_ptr(), state.stride(0)])
        for k, (out, begin) in self._halves.items():
            state = begin if first == 0 else out[t - given.step]
            self.arguments.place(("H", k), [*steps_of(out), state.data_ptr(), state.stride(0)])
        self.arguments.begin()
        self.arguments.set(steps=count, first=t)
        block = self.arguments.address
        if self.alone is None:
            self.function(block)
        elif self.threads == 1:
            start = time.perf_counter_ns()
            threads.run(self.function, self.address, block, 1)
            self.alone.note(self._work(t, count), time.perf_counter_ns() - start)
        else:
            assert self.alone.ns is not None
            threads.run(self.function, self.address, block, self.threads, self.alone.ns * self._work(t, count))

    def _work(self, t: int, count: int) -> int:
        """Steps of sequences in `count` steps of time from t on."""
        if self.shares.active is None:
            return count * self.given.batch
        low = min(t, t + self.given.step * (count - 1))
        return int(self.shares.active[low : low + count].sum())


def packed(
    weights: Sequence[Tensor], which: Sequence[int], operands: torch.dtype, held: Packed | None = None
) -> Tensor:
    """Some of the matrices there are, side by side, packed; what is known of them is taken from `held`, or added to it."""
    key = tuple(which)
    if held is not None and key in held:
        return held[key]
    made = matrices.pack(side_by_side(weights, which), operands)
    if held is not None:
        held[key] = made
    return made


def side_by_side(weights: Sequence[Tensor], which: Sequence[int]) -> Tensor:
    """Matrices side by side, or (negative numbers -1 - w) transposed and above each other."""
    if which[0] >= 0:
        return weights[which[0]] if len(which) == 1 else _joined([weights[w] for w in which], 1)
    return weights[-1 - which[0]].t() if len(which) == 1 else _joined([weights[-1 - w].t() for w in which], 0)


def _joined(parts: list[Tensor], dimension: int) -> Tensor:
    """torch.cat of matrices."""
    shape = list(parts[0].shape)
    shape[dimension] = sum(part.shape[dimension] for part in parts)
    return torch.cat(parts, dimension, out=memory.empty(*shape, dtype=parts[0].dtype))


@dataclass(frozen=True)
class Shares:
    """How the sequences are dealt out to tasks.

    bounds: int64, where those of each group of tasks begin, and the end of the last. most: of one group. active: with lengths,
    int64, how many are still running at each step (by its place in the arrays). parts: how many tasks a group has, which share
    out the units of its sequences.
    """

    bounds: Any
    most: int
    active: Any = None
    parts: int = 1

    @cached_property
    def addresses(self) -> tuple[int, int]:
        """Of `bounds` and of `active`, 0 where there is none."""
        return self.bounds.ctypes.data, 0 if self.active is None else self.active.ctypes.data

    @property
    def tasks(self) -> int:
        return (len(self.bounds) - 1) * self.parts


@functools.lru_cache(maxsize=256)
def even(batch: int, count: int, parts: int = 1) -> Shares:
    """Sequences dealt out evenly to so many groups of tasks."""
    bounds = np.array([batch * i // count for i in range(count + 1)], dtype=np.int64)
    return Shares(bounds, -(-batch // count), None, parts)


def _by_length(lengths: Any, steps: int, count: int, parts: int) -> Shares:
    """Sequences dealt out so that each group of tasks has about as many steps to do. lengths: int64, falling."""
    batch, done = len(lengths), np.cumsum(lengths)
    active = np.ascontiguousarray((lengths[None, :] > np.arange(steps)[:, None]).sum(1), dtype=np.int64)
    cuts = [int(np.searchsorted(done, done[-1] * i / count)) for i in range(1, count)]
    bounds = np.array(sorted({0, batch, *(min(max(c, 1), batch) for c in cuts)}), dtype=np.int64)
    return Shares(bounds, int(np.max(np.diff(bounds))), active, parts)
