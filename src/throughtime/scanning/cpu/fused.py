"""A forward loop of which one thread does all, and the products before it, in one call of compiled code.

So a call of few numbers costs Python little more than to say where its tensors are. The compiled functions, and the bits, are
those of any other call.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from throughtime.scanning.cpu import matrices, memory, product
from throughtime.scanning.cpu.arguments import AT, rows_of, steps_of
from throughtime.scanning.cpu.chunks import most_rows
from throughtime.scanning.cpu.launch import CompiledLoop, even, side_by_side
from throughtime.scanning.cpu.matrices import NAMES
from throughtime.scanning.engine import Given
from throughtime.scanning.nodes import width_of
from throughtime.scanning.program import Hoisted, Program

APART = 16  # numbers: what lies in one memory begins at multiples of it
WORD = 8  # bytes


Calls = list[tuple[int, list[int]]]  # of compiled functions with their argument blocks
Shape = tuple[Sequence[int], int, int]  # of matrices that are packed together: which, rows and columns


class Prepared:
    """What calls of a loop with so many sequences have in common. It never changes, so that threads share it.

    shapes: of the matrices packed for products around the loop; those of its own follow. width: of what lies in a chunk of time.
    """

    def __init__(self, loop: CompiledLoop, shapes: Sequence[Shape], width: int, batch: int) -> None:
        self.batch, self.dtype = batch, loop.operands
        library = product.products(NAMES[self.dtype])
        self._chain, self._loop = library.function("chain"), loop.library.address("loop")
        self._pack, self._multiply = library.address("pack"), library.address("multiply")
        self._around = len(shapes)
        shapes = [*shapes, *((p.attribute, width_of(p.args), p.width) for p in loop.loop.products)]
        # and how many numbers that is, packed
        self._packs = [(which, k, n, apart(matrices.packed_numbers(k, n, self.dtype))) for which, k, n in shapes]
        self._shares = even(batch, 1)  # to whose memory the block points
        arguments, scratch = loop.arguments(self._shares, self.dtype)
        self._block, self._packed_at = list(arguments.block), loop.code.layout.packed
        self._places: dict[str, list[tuple[int, int]]] = {kind: [] for kind in "aviusnokrmg"}  # and others
        for (kind, i), at in loop.code.layout.words.items():
            self._places.setdefault(kind, []).append((at, i))
        self._scratch = apart(scratch.numel())
        # T · B up to which all is one chunk of time; and multiplications of what takes most, for each T · B and to pack
        self._most = most_rows(width * self.dtype.itemsize)
        numbers = [k * n for _, k, n in shapes]
        step = sum(numbers[self._around :]) + 20 * loop.loop.written
        self._work, self._packing = max([step, *numbers]), 8 * max(numbers, default=0)

    def fits(self, rows: int) -> bool:
        """Whether it is for a call of so many rows, T · B."""
        if rows > self._most:
            return False
        return max(rows * self._work, self._packing) <= matrices.ALONE or torch.get_num_threads() == 1

    def space(self, numbers: int) -> Tensor:
        """Room for packed matrices, then so many numbers, then what the loop needs for itself."""
        return memory.empty(sum([p[-1] for p in self._packs]) + numbers + self._scratch, dtype=self.dtype)

    def pack(self, given: Given, free: int, calls: Calls) -> tuple[list[int], list[Tensor], int]:
        """Pack all matrices from an address on. Returns: where they lie packed; the matrices, to be kept until then; and the first
        address behind."""
        sources, packed = [], []
        for which, k, n, numbers in self._packs:
            source = side_by_side(given.matrices, which)
            tasks = matrices.panels(n, self.dtype)
            calls.append((self._pack, [0, tasks, source.data_ptr(), *source.stride(), k, n, free]))
            sources.append(source)
            packed.append(free)
            free += numbers * self.dtype.itemsize
        return packed, sources, free

    def block(self, given: Given, packed: Sequence[int], scratch: int) -> list[int]:
        """The loop's argument block, without its arrays."""
        block = self._block.copy()
        for at, address in zip(self._packed_at, packed[self._around :], strict=True):
            block[at] = address
        block[AT["scratch"]] = scratch
        block[AT["steps"]], block[AT["step"]] = given.steps, given.step
        block[AT["first"]] = 0 if given.step > 0 else given.steps - 1
        return block

    def place(self, block: list[int], given: Given, steps: Mapping[str, Sequence[Tensor]]) -> None:
        """Say where the arrays lie that a forward and a backward loop read. steps: those of all steps, by their kinds."""
        places = self._places
        for kind, tensors in steps.items():
            for at, i in places[kind]:
                block[at : at + 3] = steps_of(tensors[i])
        for at, k in places["s"]:
            block[at : at + 5] = [*steps_of(steps["n"][k]), given.state[k].data_ptr(), given.state[k].stride(0)]
        for at, i in places["v"]:
            block[at] = given.vectors[i].data_ptr()
        for at, k in places["i"]:
            block[at : at + 3] = rows_of(given.initial[k])
        if given.resets is not None:
            for at, _ in places["r"]:
                block[at : at + 3] = [given.resets.data_ptr(), *given.resets.stride()]

    def call(self, calls: Calls) -> None:
        """One function after the other. Their block: how many, for each its address and that of its block; then these blocks."""
        head = [len(calls)]
        rest: list[int] = []
        first = 1 + 2 * len(calls)
        for function, block in calls:
            head += [function, (first + len(rest)) * WORD]
            rest += block
        words = (ctypes.c_int64 * (first + len(rest)))(*head, *rest)
        start = ctypes.addressof(words)
        for i in range(2, first, 2):
            words[i] += start
        self._chain(start)


class Fused(Prepared):
    """A forward loop. made: the products before it. narrow: those that it works out itself."""

    def __init__(
        self,
        program: Program,
        loop: CompiledLoop,
        made: Mapping[int, Hoisted],
        narrow: Mapping[int, Hoisted],
        batch: int,
    ) -> None:
        self.narrow = narrow
        self._made = [(u, h, program.arrays[h.array].width) for u, h in made.items()]
        shapes = [(h.weights, k, h.width) for _, h, k in self._made]
        super().__init__(loop, shapes, sum(h.width for h in made.values()), batch)

    def run(self, given: Given, states: Sequence[Tensor], extras: Sequence[Tensor], saved: Sequence[Tensor]) -> None:
        """All steps of a call without lengths: writes states, extras and what is saved for the backward, [T, B, n]."""
        rows, size = given.steps * self.batch, self.dtype.itemsize
        wide = [apart(rows * h.width) for _, h, _ in self._made]
        space = self.space(sum(wide))
        calls: Calls = []
        packed, _kept, free = self.pack(given, space.data_ptr(), calls)
        made: dict[int, list[int]] = {}
        for i, (u, h, k) in enumerate(self._made):
            n, bias = h.width, 0 if h.bias is None else given.vectors[h.bias].data_ptr()
            tasks, chunk = matrices.tasks_of(rows, self.dtype, 1)
            lhs = given.arrays[h.array].data_ptr(), k, 1
            calls.append((self._multiply, [0, tasks, *lhs, packed[i], free, n, bias, 0, rows, n, k, chunk]))
            made[u] = [free, self.batch * n, n]
            free += wide[i] * size
        block = self.block(given, packed, free)
        self.place(block, given, {"n": states, "o": extras, "k": saved, "a": given.arrays})
        for at, u in self._places["u"]:
            block[at : at + 3] = made[u]
        narrow = {u: side_by_side(given.matrices, h.weights).contiguous() for u, h in self.narrow.items()}
        for at, u in self._places["m"]:
            block[at] = narrow[u].data_ptr()
        calls.append((self._loop, block))
        self.call(calls)


def apart(numbers: int) -> int:
    """So many numbers as what lies beside others takes."""
    return -(-numbers // APART) * APART
