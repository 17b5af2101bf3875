"""The gradients that are sums over all steps, gathered from chunk to chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from throughtime.scanning.backward import Backward
from throughtime.scanning.cpu import matrices, memory
from throughtime.scanning.cpu.chunks import Chunk, Spaces
from throughtime.scanning.cpu.launch import side_by_side
from throughtime.scanning.engine import Given, Past
from throughtime.scanning.operator import is_transposed
from throughtime.scanning.program import Array, Hoisted, Wanted


class Sums:
    """The gradients of matrices, constant rows and initial states; and those of the arrays that hoisted products were made of.

    spaces: what the backward loop writes. operands: the type that those of products are rounded to.
    """

    def __init__(
        self,
        hoisted: Sequence[Hoisted],
        given: Given,
        wanted: Wanted,
        plan: Backward,
        past: Past,
        spaces: Spaces,
        operands: torch.dtype,
    ) -> None:
        self.operands = operands
        self.given, self.wanted, self.plan, self.past, self.spaces = given, wanted, plan, past, spaces
        self.totals: dict[Array, Tensor] = {}
        self.arrays: dict[Array, Tensor] = {}  # gradients ("a", i)
        self.hoisted = [(u, h) for u, h in enumerate(hoisted) if ("U", u) in plan.widths]
        # the matrices of each product, side by side
        self.weights: dict[Array, tuple[int, ...]] = {("d", p): which for p, which in enumerate(plan.weights)}
        self.weights.update({("U", u): h.weights for u, h in self.hoisted})
        # of transposed weights the gradients are made in the weights' own layout
        self.transposed = {
            key for key, which in self.weights.items() if all(is_transposed(given.matrices[w]) for w in which)
        }
        self.packed = {
            u: matrices.pack(side_by_side(given.matrices, [-1 - w for w in h.weights]), self.operands)
            for u, h in self.hoisted
            if ("a", h.array) in wanted
        }

    def take(self, chunk: Chunk) -> None:
        """Gather from a chunk."""
        columns: dict[Array, Tensor] = {}  # sums of the columns of arrays
        for kind, index in self.plan.widths:
            if kind == "V":
                self._add(("v", index), self._column_sums(("V", index), chunk, columns))
            elif kind == "I":
                rows = self._part(("I", index), chunk)
                self._add(("i", index), rows.view(chunk.length, self.given.batch, -1).sum(0))
        written: set[int] = set()  # arrays whose gradient has its first part
        for u, h in self.hoisted:
            lhs, gradient = self.given.arrays[h.array][chunk.span].flatten(0, 1), self._part(("U", u), chunk)
            if h.bias is not None and ("v", h.bias) in self.wanted:
                self._add(("v", h.bias), self._column_sums(("U", u), chunk, columns))
            if any(("w", w) in self.wanted for w in h.weights):
                self._add_outer(("U", u), lhs, gradient)
            if u in self.packed:
                into = self._array(h.array)[chunk.span].flatten(0, 1)
                more = h.array in written
                matrices.multiply_into(into, gradient, self.packed[u], self.operands, more=more)
                written.add(h.array)
        for p in range(len(self.plan.lhs)):
            for lhs, gradient in self._operands(p, chunk):
                self._add_outer(("d", p), lhs, gradient)

    def finish(self) -> dict[Array, Tensor]:
        """All of them: ("w", matrix), ("v", row), ("i", state), ("a", array)."""
        keys = [k for k in self.totals if k[0] in "Ud"]
        made = [(self.weights[k], k in self.transposed, self.totals.pop(k)) for k in keys]
        found = {**self.totals, **self.arrays, **by_matrix(made, self.given.matrices)}
        for key in self.plan.widths:
            if key[0] == "A":
                array, value = ("a", key[1]), self.spaces.lasting[self.plan.shared.get(key, key)]
                found[array] = found[array] + value if array in found else value
        return found

    def _part(self, key: Array, chunk: Chunk) -> Tensor:
        """What the loop has written of an array in a chunk: [rows, n]."""
        return self.spaces.rows(self.plan.shared.get(key, key), chunk)

    def _column_sums(self, key: Array, chunk: Chunk, known: dict[Array, Tensor]) -> Tensor:
        own = self.plan.shared.get(key, key)
        if own not in known:
            known[own] = (self.spaces.added[own] if own in self.spaces.added else self._part(key, chunk)).sum(0)
        return known[own]

    def _array(self, index: int) -> Tensor:
        """The gradient of an array that hoisted products were made of; the products write all of it."""
        if ("a", index) not in self.arrays:
            like = self.given.arrays[index]
            self.arrays["a", index] = memory.empty(*like.shape, dtype=like.dtype)
        return self.arrays["a", index]

    def _add(self, key: Array, value: Tensor) -> None:
        self.totals[key] = self.totals[key] + value if key in self.totals else value

    def _add_outer(self, key: Array, lhs: Tensor, rhs: Tensor) -> None:
        """Add lhs.T @ rhs to a total, or rhs.T @ lhs where that is transposed."""
        if key in self.transposed:
            lhs, rhs = rhs, lhs
        total, more = self.totals.get(key), key in self.totals
        if total is None:
            total = self.totals[key] = memory.empty(lhs.shape[1], rhs.shape[1], dtype=self.given.state[0].dtype)
        matrices.outer_into(total, lhs, rhs, self.operands, more=more)

    def _operands(self, p: int, chunk: Chunk) -> Iterator[tuple[Tensor, Tensor]]:
        """What stood on the left of a product in a chunk, beside the gradient of what it gave."""
        (kind, index), gradient = self.plan.lhs[p], self._part(("d", p), chunk)
        if kind != "s":
            yield (self.past.saved if kind == "k" else self.given.arrays)[index][chunk.span].flatten(0, 1), gradient
            return
        # the state before each step is what the step before has left, or the one given
        states, given, batch = self.past.operand(index), self.given, self.given.batch
        low, high = chunk.low - given.step, chunk.low + chunk.length - given.step
        if low >= 0 and high <= given.steps:
            yield states[low:high].flatten(0, 1), gradient
        elif given.step > 0:
            yield given.state[index], gradient[:batch]
            yield states[:high].flatten(0, 1), gradient[batch:]
        else:
            yield given.state[index], gradient[-batch:]
            yield states[low:].flatten(0, 1), gradient[:-batch]


def by_matrix(made: Sequence[tuple[tuple[int, ...], bool, Tensor]], weights: Sequence[Tensor]) -> dict[Array, Tensor]:
    """The gradients of matrices, ("w", i), from those of some side by side: of which, and whether they are transposed."""
    found: dict[Array, Tensor] = {}
    for which, transposed, whole in made:
        start = 0
        for w in which:
            part = slice(start, start + weights[w].shape[1])
            value = whole if len(which) == 1 else whole[part] if transposed else whole[:, part]
            value, start = value.t() if transposed else value, part.stop
            found["w", w] = found["w", w] + value if ("w", w) in found else value
    return found
