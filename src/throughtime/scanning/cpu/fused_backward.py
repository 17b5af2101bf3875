"""A backward loop of which one thread does all, with the products after it, in one call of compiled code. (`fused`)

The compiled functions, the order of sums and so the bits are those of any other call. Sums of columns are PyTorch's, after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from throughtime.scanning.backward import Backward
from throughtime.scanning.cpu import matrices, memory, product
from throughtime.scanning.cpu.fused import Calls, Prepared, apart
from throughtime.scanning.cpu.launch import CompiledLoop
from throughtime.scanning.cpu.matrices import NAMES
from throughtime.scanning.cpu.sums import by_matrix
from throughtime.scanning.engine import Given, Past
from throughtime.scanning.operator import is_transposed
from throughtime.scanning.program import Array, Program, Wanted


class FusedBackward(Prepared):
    """A backward loop and what its gradients are multiplied with, for one set of gradients wanted."""

    def __init__(self, program: Program, plan: Backward, loop: CompiledLoop, wanted: Wanted, batch: int) -> None:
        self.program, self.plan = program, plan
        hoisted = [(u, h) for u, h in enumerate(program.hoisted) if ("U", u) in plan.widths]
        # gradients of arrays: of which array, by which product; and of matrices: of which, and what stood on the left
        self._arrays = [(h.array, self._own(("U", u)), h) for u, h in hoisted if ("a", h.array) in wanted]
        self._outers: list[tuple[Array, tuple[int, ...], Array]] = [
            (("U", u), h.weights, ("a", h.array)) for u, h in hoisted if any(("w", w) in wanted for w in h.weights)
        ]
        self._outers += [(("d", p), which, plan.lhs[p]) for p, which in enumerate(plan.weights)]
        # of constant rows, and of initial states
        self._rows = [(("v", i), self._own(("V", i))) for kind, i in plan.widths if kind == "V"]
        self._rows += [
            (("v", h.bias), self._own(("U", u))) for u, h in hoisted if h.bias is not None and ("v", h.bias) in wanted
        ]
        self._initial = [(("i", i), self._own(("I", i))) for kind, i in plan.widths if kind == "I"]
        widths = program.array_widths
        shapes = [([-1 - w for w in h.weights], h.width, widths[array]) for array, _, h in self._arrays]
        super().__init__(loop, shapes, sum(plan.passing.values()), batch)
        self._outer = product.products(NAMES[self.dtype]).address("outer")
        sizes = [(plan.widths[key], self._width(lhs)) for key, _, lhs in self._outers]
        # tasks and the like of each outer product, for the layouts that a matrix may have
        self._layouts = {
            size: matrices.outer_sizes(*size, self.dtype, 1) for m, n in sizes for size in ((m, n), (n, m))
        }
        self._outer_space = apart(max([s[0] * s[3] for s in self._layouts.values()], default=0))
        self._work = max([self._work, *(m * n for m, n in sizes)])

    def _own(self, key: Array) -> Array:
        """The array that is written, where another one equals it."""
        return self.plan.shared.get(key, key)

    def _width(self, lhs: Array) -> int:
        kind, index = lhs
        widths = {"s": self.program.state_widths, "k": self.plan.saved_widths, "a": self.program.array_widths}
        return widths[kind][index]

    def run(
        self, given: Given, past: Past, carried: Sequence[Tensor], gradients: Sequence[Tensor]
    ) -> dict[Array, Tensor]:
        """The gradients of a call without lengths. carried: two buffers of each state's, the first with that of the final state.
        gradients: of states and extras, with dense rows."""
        plan, steps, batch, size = self.plan, given.steps, self.batch, self.dtype.itemsize
        rows, even = steps * batch, steps % 2  # the loop reads number `steps` % 2 first and ends in number 0
        passing = [(array, n, apart(rows * n)) for array, n in plan.passing.items()]
        space = self.space(sum([numbers for *_, numbers in passing]) + self._outer_space)
        start, calls = space.data_ptr(), Calls()
        packed, _kept, free = self.pack(given, start, calls)
        whole = {a: memory.empty(steps, batch, n, dtype=self.dtype) for a, n in plan.whole.items()}
        lies = {a: value.data_ptr() for a, value in whole.items()}
        for array, _, numbers in passing:
            lies[array] = free
            free += numbers * size
        spare = free
        block = self.block(given, packed, free + self._outer_space * size)
        self.place(block, given, {"n": past.states, "k": past.saved, "a": given.arrays, "g": gradients})
        for kind in ("A", "V", "U", "I", "d"):
            for at, i in self._places.get(kind, ()):
                n = plan.widths[kind, i]
                block[at : at + 3] = [lies[kind, i], batch * n, n]
        for kind in "cC":
            for at, k in self._places.get(kind, ()):
                two = carried[k]
                block[at : at + 4] = [two[even].data_ptr(), 0, two.shape[2], two[1 - even].data_ptr()]
        calls.append((self._loop, block))
        kept: list[Tensor] = []  # what the calls read
        totals = self._multiply_out(given, past, lies, spare, calls, kept)
        arrays = self._multiply_back(given, lies, packed, calls)
        self.call(calls)

        def written(array: Array) -> Tensor:
            n = plan.widths[array]
            first = (lies[array] - start) // size
            return whole[array].flatten(0, 1) if array in whole else space[first : first + rows * n].view(rows, n)

        found = by_matrix(totals, given.matrices)
        found.update({("a", i): value for i, value in arrays.items()})
        self._sum(found, written)
        for key in plan.widths:
            if key[0] == "A":
                array, value = ("a", key[1]), whole[self._own(key)]
                found[array] = found[array] + value if array in found else value
        found.update({("s", k): two[even] for k, two in enumerate(carried)})
        return found

    def _multiply_out(
        self, given: Given, past: Past, lies: dict[Array, int], spare: int, calls: Calls, kept: list[Tensor]
    ) -> list[tuple[tuple[int, ...], bool, Tensor]]:
        """The products that give the gradients of matrices: of which, whether they are transposed, and where they come to lie."""
        totals = []
        for key, which, lhs in self._outers:
            n, k = self.plan.widths[key], self._width(lhs)
            transposed = all(is_transposed(given.matrices[w]) for w in which)
            m, n_ = (n, k) if transposed else (k, n)
            total = memory.empty(m, n_, dtype=self.dtype)
            tasks, chunk, group, space = self._layouts[m, n_]
            gradient, more = lies[self._own(key)], 0
            for left, row in self._operands(given, past, lhs):
                kept.append(left)
                a, b = (left.data_ptr(), left.stride(0)), (gradient + row * n * self.dtype.itemsize, n)
                a, b = (b, a) if transposed else (a, b)
                sizes = [m, n_, left.size(0), chunk, group, spare, space, more]
                calls.append((self._outer, [0, tasks, *a, *b, total.data_ptr(), n_, *sizes]))
                more = 1
            totals.append((which, transposed, total))
        return totals

    def _operands(self, given: Given, past: Past, lhs: Array) -> Iterator[tuple[Tensor, int]]:
        """What stood on the left of a product, and the first row of the gradient that it meets."""
        kind, index = lhs
        if kind != "s":
            yield (past.saved if kind == "k" else given.arrays)[index].flatten(0, 1), 0
            return
        states, forwards, batch = past.states[index], given.step > 0, self.batch
        yield given.state[index], 0 if forwards else (given.steps - 1) * batch
        if given.steps > 1:
            yield (states[:-1] if forwards else states[1:]).flatten(0, 1), batch if forwards else 0

    def _multiply_back(
        self, given: Given, lies: dict[Array, int], packed: Sequence[int], calls: Calls
    ) -> dict[int, Tensor]:
        """The products that give the gradients of arrays, and these."""
        arrays: dict[int, Tensor] = {}
        rows = given.steps * self.batch
        tasks, chunk = matrices.tasks_of(rows, self.dtype, 1)
        for (array, own, h), weights in zip(self._arrays, packed, strict=False):
            more, n = array in arrays, self.program.array_widths[array]
            out = arrays[array] = arrays[array] if more else memory.empty(*given.arrays[array].shape, dtype=self.dtype)
            begin = (out.data_ptr(), n) if more else (0, 0)
            values = [lies[own], h.width, 1, weights, out.data_ptr(), n, *begin, rows, n, h.width, chunk]
            calls.append((self._multiply, [0, tasks, *values]))
        return arrays

    def _sum(self, found: dict[Array, Tensor], written: Callable[[Array], Tensor]) -> None:
        """Add the gradients of constant rows and of initial states, which are sums over steps."""
        columns: dict[Array, Tensor] = {}
        for key, own in self._rows:
            if own not in columns:
                columns[own] = written(own).sum(0)
            found[key] = found[key] + columns[own] if key in found else columns[own]
        for key, own in self._initial:
            found[key] = written(own).view(-1, self.batch, self.plan.widths[own]).sum(0)
