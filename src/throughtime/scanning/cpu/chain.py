"""A stack of cells compiled as single steps, one after the other in one call, and the memory that they read and write."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from throughtime.cells import State
from throughtime.scanning.call import Call, leaves, make_call, map_leaves, tensors_of
from throughtime.scanning.constants import own_tensors
from throughtime.scanning.cpu import backend, columns, product, threads
from throughtime.scanning.cpu.arguments import constant, rows_of
from throughtime.scanning.cpu.autocast import as_float32
from throughtime.scanning.cpu.engine import CPUEngine
from throughtime.scanning.cpu.launch import Shares
from throughtime.scanning.cpu.matrices import NAMES
from throughtime.scanning.cpu.team import Alone
from throughtime.scanning.symbols import Unsupported

_like = torch.empty_like


class Chain:
    """A stack of cells, each fed the output of the one before.

    A step reads the states in one of two buffers and writes the other, in turn: so there is an argument block for each turn.
    Args: as of `Stepper`; operands: as of a call. Raises: Unsupported where a cell cannot be compiled.
    """

    def __init__(
        self,
        cells: Sequence[nn.Module],
        states: Sequence[State],
        x: Tensor,
        extra: Sequence[Any],
        operands: torch.dtype | None = None,
    ) -> None:
        self._links: list[_Link] = []
        for cell, state, more in zip(cells, states, extra, strict=True):
            given = x.unsqueeze(0)
            inputs = given if more is None else (given, map_leaves(lambda t: t.unsqueeze(0), more))
            call = replace(make_call(cell, inputs, state, initial=state), operands=operands)
            engine = "it is in bfloat16" if as_float32(call) is not None else backend.find(call, hoist=False)
            if isinstance(engine, str):
                raise Unsupported(engine)
            self._links.append(_Link(engine, call, x))
            x = self._links[-1].out
        self._out, self._rows = x, len(x)
        self._run = product.products(NAMES[x.dtype]).quick("chain")
        self._wide = any(link.loop.code.columns for link in self._links)  # whether threads do some steps together
        self.turn = 0
        # of a turn: the first block and where its input goes, the last block and where its output goes, the chain's own block
        self._turns: list[tuple[Any, int, Any, int, int]] = []
        self._blocks: list[Any] = []
        one, end = self._links[0], self._links[-1]
        for turn in (0, 1):
            words = [len(self._links)]
            for link in self._links:
                words += [link.loop.library.address("loop"), link.turns[turn].address]
            self._blocks.append((ctypes.c_int64 * len(words))(*words))
            first, last = one.turns[turn].block, end.turns[turn].block
            self._turns.append((first, one.x_at, last, end.out_at, ctypes.addressof(self._blocks[-1])))

    def step(self, x: Tensor, rows: int | None = None) -> Tensor:
        """One step of all cells. x: [B, I], contiguous. rows: of the first so many streams alone, of which x is then.

        Returns: the output of the last one, newly made.
        """
        if rows is not None and rows != self._rows:
            self._rows = rows
            for link in self._links:
                link.shares.bounds[1] = rows
        out = _like(self._out if rows is None else self._out[:rows])
        first, x_at, last, out_at, block = self._turns[self.turn]
        first[x_at] = x.data_ptr()
        last[out_at] = out.data_ptr()
        if self._wide:
            for link in self._links:
                link.run(self.turn)
        else:
            self._run(block)
        self.turn ^= 1
        return out

    @property
    def states(self) -> list[list[Tensor]]:
        """The states of each cell, rows [B, n], as they lie in memory."""
        return [[pair[self.turn] for pair in link.pairs] for link in self._links]

    def refresh(self, cells: Sequence[nn.Module]) -> None:
        """Take the weights of cells as they are now. Raises: ValueError where they have other shapes."""
        for link, cell in zip(self._links, cells, strict=True):
            if [t.shape for t in own_tensors(cell).values()] != link.shapes:
                raise ValueError(f"the weights of {type(cell).__name__} have other shapes now: make another stepper")
        with torch.no_grad():
            for link, cell in zip(self._links, cells, strict=True):
                link.refresh(cell)


class _Link:
    """One cell of a chain. x_at, out_at: the words of its blocks that say where its input and its output are."""

    def __init__(self, engine: CPUEngine, call: Call, x: Tensor) -> None:
        self.program, dtype, batch = engine.program, engine.dtype, call.batch
        together = columns.step_pays(self.program.forward, batch)
        self.loop = engine.loop(self.program.forward, together=together)
        self.shapes = [t.shape for t in own_tensors(call.cell).values()]
        self.out = torch.zeros(batch, *self.program.captured.shapes[0], dtype=dtype)
        rows = [s.reshape(batch, -1) for s in tensors_of(call.state)]
        self.pairs = [(s.clone(), s.clone()) for s in rows]
        self.inputs = [x.reshape(batch, -1), *(t.reshape(batch, -1).contiguous() for t in leaves(call.inputs)[1:])]
        parts = min(torch.get_num_threads(), self.loop.code.parts) if together else 1
        # its own: how many rows may change
        self.shares = Shares(np.array([0, batch], dtype=np.int64), batch, parts=parts)
        self._alone: dict[int, Alone] = {}  # what one thread takes, by the number of rows
        self.turns, self.scratch = zip(*(self.loop.arguments(self.shares, dtype) for _ in range(2)), strict=True)
        words, self.x_at = self.loop.code.layout.words, 0
        for i, node in enumerate(self.program.arrays):
            source = node.attribute[1]
            if source == 0:
                self.x_at = words["a", i]
            for arguments in self.turns:
                arguments.place(("a", i), rows_of(self.inputs[source]))
        self.out_at = words["o", 0]
        for now, arguments in enumerate(self.turns):
            arguments.set(steps=1)
            arguments.place(("o", 0), rows_of(self.out.reshape(batch, -1)))
            for k, pair in enumerate(self.pairs):
                arguments.place(("s", k), [0, 0, 0, pair[now].data_ptr(), pair[now].stride(0)])
                arguments.place(("n", k), rows_of(pair[1 - now]))

    def refresh(self, cell: nn.Module) -> None:
        """Take the weights of a cell as they are now."""
        own = [t.detach() for t in own_tensors(cell).values()]
        vectors, weights = self.program.captured.constants.made_of(own)
        # copies, so that a weight changed in place has no effect yet
        self.vectors, self.packed = [v.clone() for v in vectors], self.loop.packed(weights)
        for arguments in self.turns:
            arguments.pack(self.packed)
            for i, vector in enumerate(self.vectors):
                arguments.place(("v", i), constant(vector))
            arguments.begin()

    def run(self, turn: int) -> None:
        """A step, by several threads where they are a help."""
        arguments, library = self.turns[turn], self.loop.library
        arguments.begin()
        rows = int(self.shares.bounds[1])
        alone = self._alone.setdefault(rows, Alone())
        helpers = columns.step_pays(self.program.forward, rows) and self.loop.code.columns
        if helpers and alone.ns is not None and not threads.team.resting():
            function, address = library.function("loop"), library.address("loop")
            threads.run(function, address, arguments.address, self.shares.parts, alone.ns)
            return
        start = time.perf_counter_ns()
        library.function("loop")(arguments.address)
        alone.note(1, time.perf_counter_ns() - start)
