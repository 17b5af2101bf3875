"""A step at a time: a stream's state held where the compiled code reads it, and a whole stack in one call."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from throughtime.cells import State
from throughtime.cells.base import split_result
from throughtime.scanning.call import Call, leaves, make_call, map_leaves, map_states, tensors_of
from throughtime.scanning.capture import capture
from throughtime.scanning.constants import own_tensors
from throughtime.scanning.cpu import backend, matrices, product
from throughtime.scanning.cpu.engine import Compiled, side_by_side
from throughtime.scanning.foreign import context, is_plain_memory
from throughtime.scanning.program import Program
from throughtime.scanning.symbols import Unsupported

_like = torch.empty_like


class Stepper:
    """Steps one or many streams through a stack of cells, holding their states.

    >>> import torch, throughtime as tt
    >>> stepper = tt.GRU(3, 5, num_layers=2).stepper()
    >>> stepper(torch.randn(1, 3)).shape
    torch.Size([1, 5])

    Made by `stepper` of a layer. The weights are those of when it was made, or of the last `refresh`. No gradients pass
    through it. One Python
    thread at a time may use it.

    Args: cells: the stack, each fed the output of the one before. states: of each, [B, ...]; x: what a step is given, [B,
    I]; extra: for each
        cell, what it is given beside its input (the noise of a wrapper), or None; backend: "auto", "cpu" or "reference";
        again: makes the cells anew for `refresh`, where they are views of weights that may be put in others' place.
    Raises: RuntimeError where the named backend cannot run a cell, saying why.
    """

    @torch.inference_mode(False)  # what it holds is written to later, wherever that is
    def __init__(
        self,
        cells: Sequence[nn.Module],
        states: Sequence[State],
        x: Tensor,
        extra: Sequence[Any] | None = None,
        backend: str = "auto",
        again: Callable[[], Sequence[nn.Module]] | None = None,
    ) -> None:
        if x.shape[0] < 1:
            raise ValueError(f"a stepper steps at least one stream, got {x.shape[0]}")
        self.again = again
        self.cells, self.extra = list(cells), list(extra or [None] * len(cells))
        self.shape, self.dtype, self._asked = x.shape, x.dtype, backend
        self._first = [map_states(lambda s: s.detach().clone(), s) for s in states]
        self.why_not: str | None = None  # why the compiled code does not run it
        if backend not in ("auto", "cpu", "reference"):
            raise ValueError(f"a stepper runs on 'auto', 'cpu' or 'reference', got {backend!r}")
        if backend != "reference":
            try:
                self._compile(x)
            except Unsupported as error:
                self.why_not = str(error)
                if backend == "cpu":
                    raise RuntimeError(f"backend 'cpu' cannot run this: {error}; use backend='auto'") from None
        self.backend = "cpu" if backend != "reference" and self.why_not is None else "reference"
        if self.backend == "reference":
            self._states = [map_states(torch.clone, s) for s in self._first]
        else:
            self.refresh()
            self.state = self._first

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: cells and states. A copy takes the weights as they are when it is made."""
        like = torch.empty(self.shape, dtype=self.dtype, device=tensors_of(self._first[0])[0].device)
        return {"cells": self.cells, "first": self._first, "x": like, "extra": self.extra, "backend": self._asked,
                "state": self.state, "again": self.again}  # fmt: skip

    def __setstate__(self, made: dict[str, Any]) -> None:
        self.__init__(made["cells"], made["first"], made["x"], made["extra"], made["backend"], made["again"])  # type: ignore[misc]
        self.state = made["state"]

    def __call__(self, x: Tensor) -> Tensor:
        """One step. x: [B, I], of the type the stepper was made for. Returns: the output of the last cell, [B, N], newly made."""
        if x.shape != self.shape or x.dtype is not self.dtype:
            raise ValueError(f"a step takes {list(self.shape)} of {self.dtype}, got {list(x.shape)} of {x.dtype}")
        if self.backend == "reference":
            return self._plainly(x)
        if not is_plain_memory(x):
            reason = context((x,)) or f"its input is a {type(x).__name__} on {x.device}"
            raise RuntimeError(f"a stepper reads memory, which cannot be here: {reason}; use the layer's step()")
        if not x.is_contiguous():
            x = x.contiguous()
        out = _like(self._out)
        first, x_at, last, out_at, chain = self._turns[self._turn]
        first[x_at] = x.data_ptr()
        last[out_at] = out.data_ptr()
        self._run(chain)
        self._turn ^= 1
        return out

    @property
    def state(self) -> list[State]:
        """The states of the cells, as copies; set it to go on from other ones."""
        if self.backend == "reference":
            return [map_states(torch.clone, s) for s in self._states]
        now = [[pair[self._turn].clone() for pair in pairs] for pairs in self._buffers]
        return [
            tuple(t.view_as(f) for t, f in zip(tensors, first, strict=True))
            if isinstance(first, tuple)
            else tensors[0].view_as(first)
            for tensors, first in zip(now, self._first, strict=True)
        ]

    @state.setter
    def state(self, states: Sequence[State]) -> None:
        for given, first in zip(states, self._first, strict=True):
            for one, other in zip(tensors_of(given), tensors_of(first), strict=True):
                if one.shape != other.shape:
                    raise ValueError(f"a state of these streams is {list(other.shape)}, got {list(one.shape)}")
        with torch.no_grad():
            if self.backend == "reference":
                self._states = [map_states(lambda s, f: s.detach().to(f.dtype).clone(), s, f)
                                for s, f in zip(states, self._first, strict=True)]  # fmt: skip
                return
            for pairs, state in zip(self._buffers, states, strict=True):
                for pair, tensor in zip(pairs, state if isinstance(state, tuple) else (state,), strict=True):
                    pair[self._turn].copy_(tensor.reshape(pair[self._turn].shape))

    def reset(self, rows: Sequence[int] | Tensor | None = None) -> None:
        """Put the first state back, in all streams or in some: their numbers, or a truth value for each."""
        if rows is None:
            self.state = self._first
            return
        rows = torch.as_tensor(rows).reshape(-1)
        rows = rows.nonzero().flatten() if rows.dtype == torch.bool and len(rows) == self.shape[0] else rows.long()
        if len(rows) and not -self.shape[0] <= int(rows.min()) <= int(rows.max()) < self.shape[0]:
            raise ValueError(f"there are {self.shape[0]} streams, and no number {rows.tolist()}")
        rows %= self.shape[0]
        states = self.state
        for state, first in zip(states, self._first, strict=True):
            map_states(lambda s, f: s.index_copy_(0, rows, f[rows]), state, first)
        self.state = states

    def refresh(self) -> None:
        """Take the weights as they are now. Raises: ValueError where they have other shapes than when this was made."""
        if self.again is not None:
            self.cells = list(self.again())
        if self.backend == "reference":
            return
        for cell, shapes in zip(self.cells, self._shapes, strict=True):
            if [t.shape for t in own_tensors(cell).values()] != shapes:
                raise ValueError(f"the weights of {type(cell).__name__} have other shapes now: make another stepper")
        with torch.no_grad():
            for compiled, cell, blocks in zip(self._compiled, self.cells, self._blocks, strict=True):
                program = compiled.program
                values = list(own_tensors(cell).values())
                vectors, weights = program.captured.constants.evaluate([v.detach() for v in values])
                vectors = [v.contiguous() for v in vectors]
                code, _ = compiled.loop(program.forward, False)
                packed = [matrices.pack(side_by_side(weights, p.weights)) for p in program.forward.products]
                blocks.alive = [vectors, packed]
                for block in blocks.turns:
                    for p, at in zip(packed, code.layout.packed, strict=True):
                        block[at] = p.data_ptr()
                    for (kind, index), at in code.layout.words.items():
                        if kind == "v":
                            block[at] = vectors[index].data_ptr()

    # ---------------------------------------------------------------------------------------------- inside

    def _plainly(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            for k, (cell, extra) in enumerate(zip(self.cells, self.extra, strict=True)):
                given = x if extra is None else (x, extra)
                output, new = split_result(cell(given, self._states[k]), self._states[k])
                self._states[k] = new
                x = output if output is not None else (new if isinstance(new, Tensor) else new[0])
        return x.clone()

    def _compile(self, x: Tensor) -> None:
        """Compile each cell as a single step with nothing hoisted, and lay out what the steps of a stack read and write."""
        batch = x.shape[0]
        self._shapes = [[t.shape for t in own_tensors(cell).values()] for cell in self.cells]
        self._compiled: list[Compiled] = []
        self._blocks: list[_Blocks] = []
        self._buffers: list[list[tuple[Tensor, Tensor]]] = []
        self._keep: list[Any] = []
        width = x
        bounds = (ctypes.c_int64 * 2)(0, batch)
        self._keep.append(bounds)
        for cell, first, extra in zip(self.cells, self._first, self.extra, strict=True):
            given = (
                width.unsqueeze(0)
                if extra is None
                else (width.unsqueeze(0), map_leaves(lambda t: t.unsqueeze(0), extra))
            )
            call = make_call(
                cell, given, first, initial=first, lengths=None, reverse=False, resets=None, record=()
            )  # fmt: skip
            reason = backend.why_not(call)
            if reason is not None:
                raise Unsupported(reason)
            compiled, output = self._compile_cell(call, bounds, width)
            self._compiled.append(compiled)
            width = output
        self._out = width
        chain_of = product.products(matrices.NAMES[self.dtype])
        self._run = chain_of.quick("chain")
        self._turns: list[
            tuple[Any, int, Any, int, int]
        ] = []  # a turn's first block and its input, last block and output, and the chain
        for turn in (0, 1):
            words = [len(self.cells)]
            for compiled, blocks in zip(self._compiled, self._blocks, strict=True):
                _, library = compiled.loop(compiled.program.forward, False)
                words += [library.address("loop"), ctypes.addressof(blocks.turns[turn])]
            chain = (ctypes.c_int64 * len(words))(*words)
            self._keep.append(chain)
            one, end = self._blocks[0], self._blocks[-1]
            self._turns.append((one.turns[turn], one.x_at, end.turns[turn], end.out_at, ctypes.addressof(chain)))
        self._turn = 0

    def _compile_cell(self, call: Call, bounds: Any, x: Tensor) -> tuple[Compiled, Tensor]:
        batch = x.shape[0]
        program = Program(capture(call), resets=False, hoist=False)
        compiled = Compiled(program, self.dtype)
        code, _ = compiled.loop(program.forward, False)
        out = torch.zeros(batch, *program.captured.shapes[0], dtype=self.dtype)
        inputs = leaves(call.inputs)
        many = call.state if isinstance(call.state, tuple) else (call.state,)
        pairs = [(s.reshape(batch, -1).clone(), s.reshape(batch, -1).clone()) for s in many]
        scratch = torch.empty(code.scratch_width * batch + 64, dtype=self.dtype)
        tiles = product.products(matrices.NAMES[self.dtype]).address("tiles")
        blocks = _Blocks()
        for turn in (0, 1):
            block = (ctypes.c_int64 * code.layout.size)()
            block[1:10] = [1, 1, 0, 1, tiles, scratch.data_ptr(), 0, 0, ctypes.addressof(bounds)]
            for (kind, index), at in code.layout.words.items():
                if kind == "a":
                    source = program.arrays[index].attribute[1]
                    tensor = x if source == 0 else inputs[source].reshape(batch, -1).contiguous()
                    self._keep.append(tensor)
                    words = [tensor.data_ptr(), 0, tensor.shape[-1]]
                    if source == 0:
                        blocks.x_at = at
                elif kind == "s":
                    now = pairs[index][turn]
                    words = [0, 0, 0, now.data_ptr(), now.shape[1]]
                elif kind == "n":
                    words = [pairs[index][1 - turn].data_ptr(), 0, pairs[index][0].shape[1]]
                elif kind == "o":
                    whole = out.reshape(batch, -1).shape[1]
                    words = [out.data_ptr(), 0, whole]
                    blocks.out_at = at
                else:
                    words = [0, 0, 0]
                block[at : at + len(words)] = words
            blocks.turns.append(block)
        self._keep += [out, scratch, x]
        self._blocks.append(blocks)
        self._buffers.append(pairs)
        return compiled, out

    def __repr__(self) -> str:
        reason = "" if self.why_not is None else f", since {self.why_not}"
        return f"Stepper({len(self.cells)} cells, {self.shape[0]} streams, on {self.backend!r}{reason})"


class _Blocks:
    """The argument blocks of one cell: a step reads the states of one of two buffers and writes the other, in turn."""

    def __init__(self) -> None:
        self.turns: list[Any] = []
        self.x_at = 0
        self.out_at = 0
        self.alive: list[Any] = []  # what the blocks point to
