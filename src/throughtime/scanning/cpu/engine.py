"""A program at work: its loops compiled when they are first needed, and run on tensors, a chunk of time at a time.

Saved for the backward are the states, [T, B, N] for each tensor of the state, and beside them `CPUEngine.saved` numbers a step
and sequence (nothing where nothing needs a gradient). The rest is a few megabytes whatever T is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from throughtime.scanning import locks
from throughtime.scanning.backward import Backward, backward
from throughtime.scanning.cpu import columns, matrices, memory
from throughtime.scanning.cpu.arguments import constant, steps_of
from throughtime.scanning.cpu.chunks import Spaces
from throughtime.scanning.cpu.fused import Fused, Prepared
from throughtime.scanning.cpu.fused_backward import FusedBackward
from throughtime.scanning.cpu.gradients import carried_by, dense_rows
from throughtime.scanning.cpu.halves import HalvedLoops
from throughtime.scanning.cpu.held import Held, Packed
from throughtime.scanning.cpu.launch import CompiledLoop, Launch, packed, side_by_side
from throughtime.scanning.cpu.loop import LoopCode
from throughtime.scanning.cpu.matrices import OPERANDS, QUADS
from throughtime.scanning.cpu.rows import is_narrow
from throughtime.scanning.cpu.sums import Sums
from throughtime.scanning.cpu.target import host, library
from throughtime.scanning.cpu.team import Alone
from throughtime.scanning.cpu.threads import as_the_team, safe_after_fork
from throughtime.scanning.engine import Given, Past, Types
from throughtime.scanning.int8 import dequantised
from throughtime.scanning.program import Array, Loop, Program, Wanted

_T = TypeVar("_T")
_P = TypeVar("_P", bound=Prepared)
MOST_FUSED = 16  # loops of a program, each for so many sequences, of which there is a block that waits


class CPUEngine:
    """A program on the CPU, for one type of number: see `LoopEngine`.

    operands: the type that the operands of products are rounded to, where it is another: bfloat16, beside float32.
    """

    def __init__(self, program: Program, dtype: torch.dtype, operands: torch.dtype | None = None) -> None:
        self.program, self.dtype, self.operands = program, dtype, operands or dtype
        self.types: dict[Any, Types] = {}  # of what calls in bfloat16 give, by their kinds
        hoisted = dict(enumerate(program.hoisted))
        self._narrow = {u: h for u, h in hoisted.items() if is_narrow(program, u)}  # worked out in the loop
        self._made = {u: h for u, h in hoisted.items() if u not in self._narrow}  # before it
        self._passing = {("u", u): h.width for u, h in self._made.items()}  # the widths of what lies in a chunk
        self._held = Held()
        self._loops: dict[tuple[Loop, bool], CompiledLoop] = {}
        self._alone: dict[tuple[Loop, int], Alone] = {}  # what one thread takes, by the number of sequences
        self._backward: dict[Wanted, Backward] = {}
        self._fused: dict[tuple[Loop, int], Prepared] = {}
        self._halved = HalvedLoops(program)

    # what it consists of

    def backward_of(self, wanted: Wanted) -> Backward:
        """The backward loop that gives the gradients wanted."""
        found = self._backward.get(wanted)
        if found is None:
            with locks.LOOPS:
                found = self._backward.get(wanted) or self._backward.setdefault(wanted, backward(self.program, wanted))
        return found

    def loop(self, loop: Loop, backwards: bool = False, together: bool = False) -> CompiledLoop:
        """A loop of the program, compiled. together: for threads that do each step together. (`columns`)"""
        found = self._loops.get((loop, together))
        if found is None:
            with locks.LOOPS:
                code = LoopCode(self.program, loop, host(), OPERANDS[self.operands], backwards, together)
                made = library(code.key(), code.text)
                found = self._loops[loop, together] = CompiledLoop(loop, code, made, self.operands)
        return found

    def saved(self, wanted: Wanted) -> int:
        """Numbers saved for each step of each sequence, beside the states."""
        return sum(self.backward_of(wanted).saved_widths)

    def prepare(self, wanted: Wanted | None, batch: int, rounded: frozenset[int] = frozenset()) -> None:
        self._loop(self.forward_loop(wanted, rounded), batch)
        if wanted is not None:
            self._loop(self.backward_loop(wanted, rounded), batch, backwards=True)

    def forward_loop(self, wanted: Wanted | None, rounded: frozenset[int]) -> Loop:
        """The loop of a call that saves what the gradients wanted need. rounded: as of `Given`."""
        plan = None if wanted is None else self.backward_of(wanted)
        if self.operands is torch.bfloat16:
            return self._halved.forward(plan, rounded)
        return plan.forward if plan else self.program.forward

    def backward_loop(self, wanted: Wanted, rounded: frozenset[int]) -> Loop:
        """The loop that gives the gradients wanted."""
        plan = self.backward_of(wanted)
        return self._halved.backward(plan, wanted, rounded) if self.operands is torch.bfloat16 else plan.loop

    # PyTorch's operations around it

    def run(self, function: Callable[..., _T], *args: Any) -> _T:
        return _by_the_team(function, *args)  # type: ignore[no-any-return]

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return matrices.linear(x, weight, bias, self.operands)

    # its loops

    def forward(self, given: Given, wanted: Wanted | None) -> tuple[Past, list[Tensor]]:
        loop = self.forward_loop(wanted, given.rounded)
        widths, written = self.program.state_widths, loop.by_kind.get("n", ())
        half = {k: self._steps(given, widths[k], torch.bfloat16) for k in loop.by_kind.get("h", ())}
        states = [self._steps(given, n) if k in written else half[k] for k, n in enumerate(widths)]
        extras = [self._steps(given, n) for n in self.program.extra_widths]
        saved = [self._steps(given, n) for n in self.backward_of(wanted).saved_widths] if wanted is not None else []
        fused = self._fused_of(loop, given)
        if fused is not None:
            fused.run(given, states, extras, saved)
        elif given.steps and given.batch:
            launch = self._launch(loop, given, states)
            launch.halves(half)
            for kind, group in (("o", extras), ("k", saved)):
                for j, out in enumerate(group):
                    launch.arguments.place((kind, j), steps_of(out))
            self._run_forward(launch)
        return Past(states, saved, half), extras

    def _run_forward(self, launch: Launch) -> None:
        """All steps, a chunk at a time: its hoisted products, then its loop."""
        given, made = launch.given, self._made
        matrix = {
            u: self._rounded(side_by_side(given.matrices, h.weights)).contiguous() for u, h in self._narrow.items()
        }
        for u in matrix:
            launch.arguments.place(("m", u), constant(matrix[u]))
        weights = {u: packed(given.matrices, h.weights, self.operands, launch.held) for u, h in made.items()}
        spaces = Spaces(given, self._passing)
        for chunk in spaces.chunks():
            for u, h in made.items():
                lhs = given.arrays[h.array][chunk.span].flatten(0, 1)
                bias = None if h.bias is None else given.vectors[h.bias]
                matrices.multiply_into(spaces.rows(("u", u), chunk), lhs, weights[u], self.operands, bias)
                launch.arguments.place(("u", u), spaces.words(("u", u), chunk))
            launch.run(chunk.first, chunk.length)

    def backward(
        self, given: Given, wanted: Wanted, past: Past, gradients: Sequence[Tensor | None]
    ) -> dict[Array, Tensor]:
        plan, program, loop = self.backward_of(wanted), self.program, self.backward_loop(wanted, given.rounded)
        count = len(given.state)
        carried = carried_by(given, gradients[-count:])
        dense = dense_rows(program, given, gradients[:-count], loop)
        fused = self._fused_backward(loop, plan, given, wanted)
        if fused is not None:
            return fused.run(given, past, carried, dense)
        launch = self._launch(loop, given, past.states, backwards=True)
        place = launch.arguments.place
        for j, rows in enumerate(past.saved):
            place(("k", j), steps_of(rows))
        for k, g in enumerate(dense):
            place(("g", k), steps_of(g))
        whole = {a: self._steps(given, n) for a, n in plan.whole.items()}
        for array, value in whole.items():
            place(array, steps_of(value))
        spaces = Spaces(given, plan.passing, whole, loop)
        sums = Sums(program.hoisted, given, wanted, plan, past, spaces, self.operands)
        current = 0  # which of the two holds the gradient of the state
        for chunk in reversed(list(spaces.chunks())):
            spaces.place(launch.arguments, chunk)
            # the loop reads number `count` % 2 first and ends in number 0
            even = current if chunk.length % 2 == 0 else 1 - current
            for k, two in enumerate(carried):
                for kind in "cC":
                    place((kind, k), [two[even].data_ptr(), 0, two.shape[2], two[1 - even].data_ptr()])
            launch.run(chunk.first, chunk.length)
            current = even
            sums.take(chunk)
        return {**sums.finish(), **{("s", k): two[current] for k, two in enumerate(carried)}}

    def _fused_of(self, loop: Loop, given: Given) -> Fused | None:
        """What does a forward loop in one call; None where threads help, or some of it is more than that."""

        def make(compiled: CompiledLoop) -> Fused:
            return Fused(self.program, compiled, self._made, self._narrow, given.batch)

        return self._in_one_call(loop, given, make)

    def _fused_backward(self, loop: Loop, plan: Backward, given: Given, wanted: Wanted) -> FusedBackward | None:
        """The same of a backward loop."""

        def make(compiled: CompiledLoop) -> FusedBackward:
            return FusedBackward(self.program, plan, compiled, wanted, given.batch)

        return self._in_one_call(loop, given, make, backwards=True)

    def _in_one_call(
        self, loop: Loop, given: Given, make: Callable[[CompiledLoop], _P], backwards: bool = False
    ) -> _P | None:
        if self.operands is not self.dtype or given.lengths is not None or not given.steps * given.batch:
            return None
        compiled = self._loop(loop, given.batch, backwards)
        if compiled.code.columns:
            return None
        key = loop, given.batch
        found: Any = self._fused.get(key)
        if found is None:
            found = make(compiled)
            with locks.LOOPS:
                self._fused[key] = found
                if len(self._fused) > MOST_FUSED:
                    self._fused.pop(next(iter(self._fused)))
        return found if found.fits(given.steps * given.batch) else None

    def _rounded(self, matrix: Tensor) -> Tensor:
        if self.operands in QUADS:
            return dequantised(matrix)
        return matrix if self.operands is self.dtype else matrix.to(self.operands).to(self.dtype)

    def _held_of(self, given: Given) -> Packed | None:
        """The packed weights of a cell, where it takes long to make them."""
        return self._held.of(given.own) if self.operands in QUADS else None

    def _launch(self, loop: Loop, given: Given, states: Sequence[Tensor], backwards: bool = False) -> Launch:
        alone = self._alone.get((loop, given.batch)) or self._alone.setdefault((loop, given.batch), Alone())
        return Launch(self._loop(loop, given.batch, backwards), given, states, alone, self._held_of(given))

    def _loop(self, loop: Loop, batch: int, backwards: bool = False) -> CompiledLoop:
        """A loop compiled as is quickest for so many sequences."""
        return self.loop(
            loop, backwards, columns.pays(loop, batch, 1 if self.operands in QUADS else self.dtype.itemsize)
        )

    def _steps(self, given: Given, width: int, dtype: torch.dtype | None = None) -> Tensor:
        """A new [T, B, width]; with lengths, zeros where the loop does not come."""
        made = memory.empty(given.steps, given.batch, width, dtype=dtype or self.dtype)
        if given.past is not None:
            made.flatten(0, 1).index_fill_(0, given.past, 0.0)
        return made


@safe_after_fork
@as_the_team
def _by_the_team(function: Callable[..., _T], *args: Any) -> _T:
    return function(*args)
