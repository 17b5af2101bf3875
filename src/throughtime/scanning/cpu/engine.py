"""A program at work: its loops compiled when they are first needed, and run on tensors.

What is kept for the backward: the states, [T, B, N] for each tensor of the state, and `Compiled.kept` numbers a step and sequence beside them
(0 where nothing needs a gradient).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from throughtime.scanning.cpu import matrices, product, threads
from throughtime.scanning.cpu.loop import Array, LoopCode
from throughtime.scanning.cpu.matrices import NAMES
from throughtime.scanning.cpu.target import Library, host, library
from throughtime.scanning.program import Backward, Loop, Program

Wanted = frozenset[tuple[str, int]]
SMALL = 20_000  # multiplications in all, under which one thread is sooner done


@dataclass
class Given:
    """What a scan's loop reads: arrays [T, B, n] (rows dense), constant rows [n], matrices [K, n], states [B, n]; resets [T, B] as 0 and 1,
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


class Compiled:
    """A program for one type of number."""

    def __init__(self, program: Program, dtype: torch.dtype) -> None:
        self.program, self.dtype = program, dtype
        self._loops: dict[int, tuple[LoopCode, Library]] = {}
        self._backward: dict[Wanted, tuple[Backward, Loop]] = {}

    def backward(self, wanted: Wanted) -> tuple[Backward, Loop]:
        """The backward loop that gives the gradients wanted, and the forward loop that keeps what it needs."""
        found = self._backward.get(wanted)
        if found is None:
            made = self.program.backward(wanted)
            found = self._backward[wanted] = (made, self.program.forward_keeping(made))
        return found

    def kept_widths(self, wanted: Wanted) -> list[int]:
        return [sum(n.width for n in row) for row in self.backward(wanted)[0].kept_rows]

    def loop(self, loop: Loop, backward: bool) -> tuple[LoopCode, Library]:
        found = self._loops.get(id(loop))
        if found is None:
            code = LoopCode(self.program, loop, host(), NAMES[self.dtype], backward)
            found = self._loops[id(loop)] = (code, library(code.key(), code.text))
        return found

    # ---------------------------------------------------------------------------------------------- running

    def run_forward(self, given: Given, loop: Loop, kept: Sequence[Tensor], outputs: Sequence[Tensor], extras: Sequence[Tensor]) -> None:
        """All steps, forwards: fills outputs, extras and what is kept."""
        places: dict[Array, list[int]] = {}
        for k, out in enumerate(outputs):
            places["n", k] = _steps(out)
            places["s", k] = [*_steps(out), given.state[k].data_ptr(), given.state[k].stride(0)]
        for j, out in enumerate(extras):
            places["o", j] = _steps(out)
        for j, out in enumerate(kept):
            places["k", j] = _steps(out)
        self._inputs(given, places)
        self._run(loop, False, given, places, 0, given.steps)

    def _inputs(self, given: Given, places: dict[Array, list[int]]) -> None:
        for i, array in enumerate(given.arrays):
            places["a", i] = _steps(array)
        for i, vector in enumerate(given.vectors):
            places["v", i] = [vector.data_ptr(), 0, 0]
        for k, tensor in enumerate(given.initial):
            places["i", k] = [tensor.data_ptr(), 0, tensor.stride(0)]
        if given.resets is not None:
            places["r", 0] = [given.resets.data_ptr(), *given.resets.stride()]

    def _run(self, loop: Loop, backward: bool, given: Given, places: dict[Array, list[int]], start: int, count: int) -> None:
        code, compiled = self.loop(loop, backward)
        batch = given.state[0].shape[0]
        block = np.zeros(code.layout.size, dtype=np.int64)
        alive: list[Any] = []  # what the block points to
        work = 0
        for p, at in zip(loop.products, code.layout.packed, strict=True):
            packed = _packed(given.matrices, p.weights)
            alive.append(packed)
            block[at] = packed.data_ptr()
            work += packed.numel()
        work += sum(sum(n.width for n in row) * 20 for _, row in loop.targets)
        count_threads = min(torch.get_num_threads(), batch) if work * batch * count > SMALL else 1
        bounds, active = _shares(batch, count_threads, given, start)
        for array, at in code.layout.words.items():
            words = places[array]
            block[at : at + len(words)] = words
        rows = int(np.max(np.diff(bounds)))
        stride = code.scratch_width * rows + 64
        scratch = torch.empty(stride * (len(bounds) - 1), dtype=self.dtype)
        first = start if given.step > 0 else given.steps - 1 - start
        block[1 : 10] = [
            len(bounds) - 1, count, first, given.step, product.products(NAMES[self.dtype]).address("tiles"), scratch.data_ptr(), stride,
            0 if active is None else active.ctypes.data, bounds.ctypes.data,
        ]  # fmt: skip
        threads.run(compiled.function("loop"), compiled.address("loop"), block.ctypes.data, count_threads)

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
        program = self.program
        batch = given.state[0].shape[0]
        zero = torch.zeros(max([1, *program.state_widths, *program.extra_widths]), dtype=self.dtype)
        places: dict[Array, list[int]] = {}
        alive: list[Tensor] = []
        for k, out in enumerate(outputs):
            places["n", k] = _steps(out)
            places["s", k] = [*_steps(out), given.state[k].data_ptr(), given.state[k].stride(0)]
        for j, out in enumerate(kept):
            places["k", j] = _steps(out)
        for k, g in enumerate(gradients):
            if g is None:
                places["g", k] = [zero.data_ptr(), 0, 0]
            else:
                g = g if g.stride(-1) == 1 else g.contiguous()
                alive.append(g)
                places["g", k] = _steps(g)
        carried = []
        for k, width in enumerate(program.state_widths):
            two = torch.zeros(2, batch, width, dtype=self.dtype)
            final = finals[k]
            if final is not None:
                two.copy_(final)
            carried.append(two)
            places["c", k] = places["C", k] = [two[0].data_ptr(), 0, width, two[1].data_ptr()]
        self._inputs(given, places)
        made: dict[Array, Tensor] = {}
        fresh = torch.zeros if given.lengths is not None else torch.empty
        for key, _ in plan.loop.targets:
            if key[0] != "c":
                made[key] = fresh(given.steps, batch, plan.widths[key], dtype=self.dtype)
                places[key] = _steps(made[key])
        self._run(plan.loop, True, given, places, 0, given.steps)
        for key, other in plan.shared.items():
            made[key] = made[other]
        result: dict[Array, Tensor] = {("s", k): two[0] for k, two in enumerate(carried)}
        for key, value in made.items():
            if key[0] == "A":
                result["a", key[1]] = value
            elif key[0] == "V":
                result["v", key[1]] = value.reshape(-1, value.shape[-1]).sum(0)
            elif key[0] == "I":
                result["i", key[1]] = value.sum(0)
        for p, (left, weights) in enumerate(zip(plan.lefts, plan.weights, strict=True)):
            gradient = self._weight_gradient(given, left, made["d", p], outputs, kept)
            start = 0
            for w in weights:
                width = given.matrices[w].shape[1]
                part = gradient[:, start : start + width]
                result["w", w] = result["w", w] + part if ("w", w) in result else part
                start += width
        return result

    def _weight_gradient(self, given: Given, left: Array, d: Tensor, outputs: Sequence[Tensor], kept: Sequence[Tensor]) -> Tensor:
        kind, index = left
        flat = d.reshape(-1, d.shape[-1])
        if kind != "s":
            array = (kept if kind == "k" else given.arrays)[index]
            return matrices.outer([(array.reshape(-1, array.shape[-1]), flat)])
        out, first = outputs[index], given.state[index]
        if given.step > 0:
            return matrices.outer([(first, d[0]), (out[:-1].flatten(0, 1), d[1:].flatten(0, 1))])
        return matrices.outer([(first, d[-1]), (out[1:].flatten(0, 1), d[:-1].flatten(0, 1))])


def _steps(tensor: Tensor) -> list[int]:
    """Address, step stride, row stride."""
    return [tensor.data_ptr(), tensor.stride(0), tensor.stride(1)]


def _packed(weights: Sequence[Tensor], which: tuple[int, ...]) -> Tensor:
    """Matrices as the product reads them: side by side, or (negative numbers) transposed and above each other."""
    if which[0] >= 0:
        whole = weights[which[0]] if len(which) == 1 else torch.cat([weights[w] for w in which], 1)
    else:
        whole = weights[-1 - which[0]].t() if len(which) == 1 else torch.cat([weights[-1 - w].t() for w in which])
    return matrices.pack(whole)


def _shares(batch: int, count: int, given: Given, start: int) -> tuple[Any, Any]:
    """How the sequences are dealt out, and with lengths how many are still running at each step (by its place in the arrays)."""
    if given.lengths is None:
        return _even(batch, count), None
    lengths = given.lengths.numpy()
    active = np.ascontiguousarray((lengths[None, :] > np.arange(given.steps)[:, None]).sum(1), dtype=np.int64)
    done = np.cumsum(lengths)
    total = done[-1] if len(done) else 0
    cuts = [int(np.searchsorted(done, total * i / count)) for i in range(1, count)]
    bounds = np.array(sorted({0, batch, *(min(max(c, 1), batch) for c in cuts)}), dtype=np.int64)
    return bounds, active


@functools.lru_cache(maxsize=256)
def _even(batch: int, count: int) -> Any:
    return np.array([batch * i // count for i in range(count + 1)], dtype=np.int64)
