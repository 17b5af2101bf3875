"""A program at work: its loops compiled when they are first needed, and run on tensors, a stretch of time at a time.

A stretch is as many steps as keep what lies between its parts (hoisted products, gradients that wait for the product with
what they meet) in
cache: those arrays are used again for the next stretch, never made whole.

What is kept for the backward: the states, [T, B, N] for each tensor of the state, and `Compiled.kept` numbers a step and
sequence beside them
(none where nothing needs a gradient). The rest is a few megabytes whatever T is.
"""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from throughtime.scanning.cpu import locks, matrices, memory, product, threads
from throughtime.scanning.cpu.loop import Array, LoopCode, is_thin
from throughtime.scanning.cpu.matrices import NAMES
from throughtime.scanning.cpu.target import Library, host, library
from throughtime.scanning.cpu.team import Alone
from throughtime.scanning.nodes import width_of
from throughtime.scanning.program import Backward, Loop, Program

Wanted = frozenset[tuple[str, int]]
STRETCH_BYTES = 4 << 20  # of the arrays of a stretch
LEAST_ROWS = 256  # of a stretch, so that its products are worth their start


@dataclass
class Given:
    """What a scan's loop reads: arrays [T, B, n] (rows dense), constant rows [n], matrices [K, n], states [B, n]; resets
    [T, B] as 0 and 1,
    with the initial state they put back; lengths [B], falling; step: 1, or -1 to run from the last step to the first."""

    steps: int
    arrays: Sequence[Tensor]
    vectors: Sequence[Tensor]
    matrices: Sequence[Tensor]
    state: Sequence[Tensor]
    initial: Sequence[Tensor]
    resets: Tensor | None
    lengths: Tensor | None
    step: int

    @property
    def batch(self) -> int:
        return int(self.state[0].shape[0])


class Compiled:
    """A program for one type of number."""

    def __init__(self, program: Program, dtype: torch.dtype) -> None:
        self.program, self.dtype = program, dtype
        self._loops: dict[int, tuple[LoopCode, Library]] = {}
        self._alone: dict[tuple[int, int], Alone] = {}
        self._backward: dict[Wanted, tuple[Backward, Loop]] = {}

    def backward(self, wanted: Wanted) -> tuple[Backward, Loop]:
        """The backward loop that gives the gradients wanted, and the forward loop that keeps what it needs."""
        with locks.LOOPS:
            found = self._backward.get(wanted)
            if found is None:
                made = self.program.backward(wanted)
                found = self._backward[wanted] = (made, self.program.forward_keeping(made))
            return found

    def prepare(self, wanted: Wanted | None) -> None:
        """Compile what a call needs, so that nothing fails on its way. wanted: which gradients; None: no backward."""
        if wanted is None:
            self.loop(self.program.forward, False)
            return
        backward, forward = self.backward(wanted)
        self.loop(forward, False)
        self.loop(backward.loop, True)

    def kept_widths(self, wanted: Wanted) -> list[int]:
        return [width_of(row) for row in self.backward(wanted)[0].kept_rows]

    def kept(self, wanted: Wanted) -> int:
        """Numbers kept for each step of each sequence, beside the states."""
        return sum(self.kept_widths(wanted))

    def alone(self, loop: Loop, batch: int) -> Alone:
        """What one thread takes for a step of a sequence of the loop, by the number of sequences."""
        return self._alone.setdefault((id(loop), batch), Alone())

    def loop(self, loop: Loop, backward: bool) -> tuple[LoopCode, Library]:
        found = self._loops.get(id(loop))
        if found is None:
            with locks.LOOPS:
                code = LoopCode(self.program, loop, host(), NAMES[self.dtype], backward)
                found = self._loops[id(loop)] = (code, library(code.key(), code.text))
        return found

    # ---------------------------------------------------------------------------------------------- running

    def run_forward(
        self, given: Given, loop: Loop, kept: Sequence[Tensor], outputs: Sequence[Tensor], extras: Sequence[Tensor]
    ) -> None:
        """All steps, forwards: fills outputs, extras and what is kept."""
        run = _Run(self, loop, False, given, outputs)
        for j, out in enumerate(extras):
            run.places["o", j] = _steps(out)
        for j, out in enumerate(kept):
            run.places["k", j] = _steps(out)
        program = self.program
        made = {u: h for u, h in enumerate(program.hoisted) if not is_thin(program, u)}
        thin = {
            u: side_by_side(given.matrices, h.weights).contiguous()
            for u, h in enumerate(program.hoisted)
            if u not in made
        }
        for u, matrix in thin.items():
            run.places["m", u] = [matrix.data_ptr(), 0, 0]
        packed = {u: matrices.pack(side_by_side(given.matrices, h.weights)) for u, h in made.items()}
        length = _stretch(given, sum(h.width for h in made.values()), self.dtype)
        spaces = {u: memory.empty(length * given.batch, h.width, dtype=self.dtype) for u, h in made.items()}
        for low, count, first in _stretches(given, length):
            for u, h in made.items():
                left = given.arrays[h.array][low : low + count].flatten(0, 1)
                bias = None if h.bias is None else given.vectors[h.bias]
                matrices.multiply_into(spaces[u][: left.shape[0]], left, packed[u], bias)
                run.places["u", u] = _from(spaces[u], low, given.batch)
            run.go(first, count)

    def run_backward(
        self,
        given: Given,
        wanted: Wanted,
        outputs: Sequence[Tensor],
        kept: Sequence[Tensor],
        gradients: Sequence[Tensor | None],
        finals: Sequence[Tensor | None],
    ) -> dict[Array, Tensor]:
        """All steps, backwards.

        gradients: of each output and extra, [T, B, n]; finals: of each final state, [B, n]; None is zero.
        Returns: the gradients wanted, and those of the first state as ("s", k).
        """
        plan, _ = self.backward(wanted)
        program, batch = self.program, given.batch
        run = _Run(self, plan.loop, True, given, outputs)
        zero = torch.zeros(max([1, *program.state_widths, *program.extra_widths]), dtype=self.dtype)
        alive: list[Tensor] = []
        for j, out in enumerate(kept):
            run.places["k", j] = _steps(out)
        for k, g in enumerate(gradients):
            if g is not None:
                alive.append(_rows_dense(g))
            run.places["g", k] = [zero.data_ptr(), 0, 0] if g is None else _steps(alive[-1])
        carried = []
        for k, width in enumerate(program.state_widths):
            two = torch.zeros(2, batch, width, dtype=self.dtype)
            if (final := finals[k]) is not None:
                two.copy_(final)
            carried.append(two)

        keys = [key for key, _ in plan.loop.targets if key[0] != "c"]
        passing_width = sum(plan.widths[key] for key in keys if key[0] != "A")
        length = _stretch(given, passing_width, self.dtype)
        whole = {key: self._fresh(given, plan.widths[key]) for key in keys if key[0] == "A"}
        passing = {
            key: memory.empty(length * batch, plan.widths[key], dtype=self.dtype) for key in keys if key[0] != "A"
        }
        for key, value in whole.items():
            run.places[key] = _steps(value)
        sums = _Sums(self, given, wanted, plan, outputs, kept, passing, whole)
        current = 0  # which of the two buffers holds the gradient of the state
        for low, count, first in reversed(list(_stretches(given, length))):
            for key, space in passing.items():
                run.places[key] = _from(space, low, batch)
                if given.lengths is not None:
                    space[: count * batch].zero_()
            even = (
                current if count % 2 == 0 else 1 - current
            )  # the loop reads number `count` % 2 first and ends in number 0
            for k, two in enumerate(carried):
                run.places["c", k] = run.places["C", k] = [
                    two[even].data_ptr(),
                    0,
                    two.shape[2],
                    two[1 - even].data_ptr(),
                ]
            run.go(first, count)
            current = even
            sums.take(low, count)
        result = sums.finish()
        result.update({("s", k): two[current] for k, two in enumerate(carried)})
        for key in plan.widths:
            if key[0] != "A":
                continue
            other, value = ("a", key[1]), whole[plan.shared.get(key, key)]
            result[other] = result[other] + value if other in result else value
        return result

    def _fresh(self, given: Given, width: int) -> Tensor:
        """[T, B, width]; with lengths, zeros where the loop does not come."""
        make = memory.zeros if given.lengths is not None else memory.empty
        return make(given.steps, given.batch, width, dtype=self.dtype)


class _Run:
    """One loop over one set of tensors, run a stretch at a time."""

    def __init__(self, compiled: Compiled, loop: Loop, backward: bool, given: Given, outputs: Sequence[Tensor]) -> None:
        self.given, self.outputs = given, outputs
        self.code, self.library = compiled.loop(loop, backward)
        batch = given.batch
        self.block = (ctypes.c_int64 * self.code.layout.size)()
        self.packed = [matrices.pack(side_by_side(given.matrices, p.weights)) for p in loop.products]
        for packed, at in zip(self.packed, self.code.layout.packed, strict=True):
            self.block[at] = packed.data_ptr()
        work = sum(p.numel() for p in self.packed) + sum(20 * width_of(row) for _, row in loop.targets)
        self.alone = compiled.alone(loop, batch) if work * batch * given.steps > matrices.ALONE else None
        # before others help it is found out what one thread takes
        helped = self.alone is not None and self.alone.ns is not None
        self.threads = min(torch.get_num_threads(), batch) if helped else 1
        self.bounds, self.active = _shares(given, self.threads)
        tasks = len(self.bounds) - 1
        rows = int(np.max(np.diff(self.bounds)))
        stride = self.code.scratch_width * rows + 64
        self.scratch = torch.empty(stride * tasks, dtype=compiled.dtype)
        tiles = product.products(NAMES[compiled.dtype]).address("tiles")
        self.block[1] = tasks
        self.block[4:10] = [
            given.step, tiles, self.scratch.data_ptr(), stride,
            0 if self.active is None else self.active.ctypes.data, self.bounds.ctypes.data,
        ]  # fmt: skip
        self.places: dict[Array, list[int]] = {}
        for k, out in enumerate(outputs):
            self.places["n", k] = _steps(out)
        for i, array in enumerate(given.arrays):
            self.places["a", i] = _steps(array)
        for i, vector in enumerate(given.vectors):
            self.places["v", i] = [vector.data_ptr(), 0, 0]
        for k, tensor in enumerate(given.initial):
            self.places["i", k] = [tensor.data_ptr(), 0, tensor.stride(0)]
        if given.resets is not None:
            self.places["r", 0] = [given.resets.data_ptr(), *given.resets.stride()]
        self.function, self.address = self.library.function("loop"), self.library.address("loop")

    def go(self, first: int, count: int) -> None:
        """Run `count` steps, the earliest of which is number `first` in the order of the loop."""
        given, block = self.given, self.block
        t = first if given.step > 0 else given.steps - 1 - first
        for k, out in enumerate(self.outputs):
            state = given.state[k] if first == 0 else out[t - given.step]
            self.places["s", k] = [*self.places["n", k], state.data_ptr(), state.stride(0)]
        block[0], block[2], block[3] = 0, count, t
        for array, at in self.code.layout.words.items():
            words = self.places[array]
            block[at : at + len(words)] = words  # type: ignore[assignment]
        at = ctypes.addressof(block)
        if self.alone is None:
            self.function(at)
        elif self.threads == 1:
            start = time.perf_counter_ns()
            threads.run(self.function, self.address, at, 1)
            self.alone.note(self._work(t, count), time.perf_counter_ns() - start)
        else:
            assert self.alone.ns is not None
            threads.run(self.function, self.address, at, self.threads, self.alone.ns * self._work(t, count))

    def _work(self, t: int, count: int) -> int:
        """Steps of sequences in `count` steps of time from t on."""
        if self.active is None:
            return count * self.given.batch
        low = min(t, t + self.given.step * (count - 1))
        return int(self.active[low : low + count].sum())


class _Sums:
    """The gradients that are sums over all steps, gathered from stretch to stretch: of matrices, constant rows and initial
    states. And those of
    the arrays that hoisted products were made of."""

    def __init__(
        self,
        compiled: Compiled,
        given: Given,
        wanted: Wanted,
        plan: Backward,
        outputs: Sequence[Tensor],
        kept: Sequence[Tensor],
        passing: dict[Array, Tensor],
        whole: dict[Array, Tensor],
    ) -> None:
        self.compiled, self.given, self.wanted, self.plan = compiled, given, wanted, plan
        self.outputs, self.kept, self.passing, self.whole = outputs, kept, passing, whole
        self.totals: dict[Array, Tensor] = {}
        self.result: dict[Array, Tensor] = {}
        # products whose matrices are transposed weights: their gradients are made in the weights' own layout
        self.turned = {
            key
            for key in plan.widths
            if key[0] in "Ud" and all(is_turned(given.matrices[w]) for w in self.weights(key))
        }
        hoisted = enumerate(compiled.program.hoisted)
        self.hoisted = [(u, h) for u, h in hoisted if ("U", u) in plan.widths]
        self.back = {
            u: matrices.pack(side_by_side(given.matrices, tuple(-1 - w for w in h.weights)))
            for u, h in self.hoisted
            if ("a", h.array) in wanted
        }

    def part(self, key: Array, low: int, count: int) -> Tensor:
        """What the loop has written of an array in a stretch: [rows, n]."""
        own = self.plan.shared.get(key, key)
        if own in self.whole:
            return self.whole[own][low : low + count].flatten(0, 1)
        return self.passing[own][: count * self.given.batch]

    def weights(self, key: Array) -> tuple[int, ...]:
        """The matrices of a product, side by side."""
        return self.compiled.program.hoisted[key[1]].weights if key[0] == "U" else self.plan.weights[key[1]]

    def add(self, key: Array, value: Tensor) -> None:
        self.totals[key] = self.totals[key] + value if key in self.totals else value

    def meet(self, key: Array, left: Tensor, right: Tensor) -> None:
        """Add left.T @ right to a total, or right.T @ left where that is turned."""
        if key in self.turned:
            left, right = right, left
        known = self.totals.get(key)
        if known is None:
            known = self.totals[key] = torch.zeros(left.shape[1], right.shape[1], dtype=right.dtype)
        matrices.outer_into(known, left, right, more=True)

    def take(self, low: int, count: int) -> None:
        """Gather from a stretch of the steps low … low + count."""
        given, plan = self.given, self.plan
        batch = given.batch
        columns: dict[Array, Tensor] = {}

        def column_sums(key: Array) -> Tensor:
            own = plan.shared.get(key, key)
            if own not in columns:
                columns[own] = self.part(key, low, count).sum(0)
            return columns[own]

        for kind, index in plan.widths:
            if kind == "V":
                self.add(("v", index), column_sums((kind, index)))
            elif kind == "I":
                self.add(("i", index), self.part((kind, index), low, count).view(count, batch, -1).sum(0))
        written: set[int] = set()  # arrays whose gradient has its first part
        for u, h in self.hoisted:
            left, gradient = given.arrays[h.array][low : low + count].flatten(0, 1), self.part(("U", u), low, count)
            if h.bias is not None and ("v", h.bias) in self.wanted:
                self.add(("v", h.bias), column_sums(("U", u)))
            if any(("w", w) in self.wanted for w in h.weights):
                self.meet(("U", u), left, gradient)
            if u in self.back:
                key = ("a", h.array)
                if key not in self.result:
                    self.result[key] = self.compiled._fresh(given, left.shape[1])
                into = self.result[key][low : low + count].flatten(0, 1)
                matrices.multiply_into(into, gradient, self.back[u], more=h.array in written)
                written.add(h.array)
        for p, left_key in enumerate(plan.lefts):
            d = self.part(("d", p), low, count)
            for left, right in self.lefts(left_key, d, low, count):
                self.meet(("d", p), left, right)

    def lefts(self, key: Array, d: Tensor, low: int, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """What stood on the left of a product in a stretch, beside the gradient of what it gave."""
        kind, index = key
        given, batch = self.given, self.given.batch
        if kind != "s":
            yield (self.kept if kind == "k" else given.arrays)[index][low : low + count].flatten(0, 1), d
            return
        out, first = self.outputs[index], given.state[index]
        if given.step > 0:
            if low == 0:
                yield first, d[:batch]
                yield out[: count - 1].flatten(0, 1), d[batch:]
            else:
                yield out[low - 1 : low + count - 1].flatten(0, 1), d
        elif low + count == given.steps:
            yield first, d[-batch:]
            yield out[low + 1 : low + count].flatten(0, 1), d[:-batch]
        else:
            yield out[low + 1 : low + count + 1].flatten(0, 1), d

    def finish(self) -> dict[Array, Tensor]:
        """All of them: ("w", matrix), ("v", row), ("i", state), ("a", array)."""
        for key in [k for k in self.totals if k[0] in "Ud"]:
            whole, start = self.totals.pop(key), 0
            for w in self.weights(key):
                width = self.given.matrices[w].shape[1]
                part = slice(start, start + width)
                self.add(("w", w), whole[part].t() if key in self.turned else whole[:, part])
                start += width
        return {**self.totals, **self.result}


def _rows_dense(g: Tensor) -> Tensor:
    """A gradient [T, B, n] with dense rows; one row stands for all where they are one memory, as those of a sum are."""
    if g.stride(-1) == 1:
        return g
    return g[0, 0].contiguous().expand_as(g) if g.stride(0) == g.stride(1) == 0 else g.contiguous()


def _stretch(given: Given, width: int, dtype: torch.dtype) -> int:
    """Steps of a stretch whose arrays hold `width` numbers a row."""
    rows = max(LEAST_ROWS, STRETCH_BYTES // max(1, width * dtype.itemsize)) if width else given.steps * given.batch
    return max(1, min(given.steps, rows // max(1, given.batch)))


def _stretches(given: Given, length: int) -> Iterator[tuple[int, int, int]]:
    """(first in memory, how many, first in the loop's order) of each stretch, in the loop's order."""
    for first in range(0, given.steps, length):
        count = min(length, given.steps - first)
        yield (first if given.step > 0 else given.steps - first - count), count, first


def _steps(tensor: Tensor) -> list[int]:
    """Address, step stride, row stride."""
    return [tensor.data_ptr(), tensor.stride(0), tensor.stride(1)]


def _from(space: Tensor, low: int, batch: int) -> list[int]:
    """The same for rows that begin with step `low`."""
    width = space.shape[1]
    return [space.data_ptr() - low * batch * width * space.element_size(), batch * width, width]


def is_turned(matrix: Tensor) -> bool:
    """Whether a matrix is a transposed one."""
    return not matrix.is_contiguous() and matrix.t().is_contiguous()


def side_by_side(weights: Sequence[Tensor], which: tuple[int, ...]) -> Tensor:
    """Matrices side by side, or (negative numbers) transposed and above each other."""
    if which[0] >= 0:
        return weights[which[0]] if len(which) == 1 else torch.cat([weights[w] for w in which], 1)
    return weights[-1 - which[0]].t() if len(which) == 1 else torch.cat([weights[-1 - w].t() for w in which])


def _shares(given: Given, count: int) -> tuple[Any, Any]:
    """How the sequences are dealt out, and with lengths how many are still running at each step (by its place in the arrays)."""
    if given.lengths is None:
        return _even(given.batch, count), None
    lengths = given.lengths.numpy()
    active = np.ascontiguousarray((lengths[None, :] > np.arange(given.steps)[:, None]).sum(1), dtype=np.int64)
    done = np.cumsum(lengths)
    cuts = [int(np.searchsorted(done, done[-1] * i / count)) for i in range(1, count)]
    bounds = np.array(sorted({0, given.batch, *(min(max(c, 1), given.batch) for c in cuts)}), dtype=np.int64)
    return bounds, active


@functools.lru_cache(maxsize=256)
def _even(batch: int, count: int) -> Any:
    return np.array([batch * i // count for i in range(count + 1)], dtype=np.int64)
