"""The argument block of a compiled loop: where each word is, and the one writer of it.

The first two words count the tasks taken and say how many there are (`product.define_tasks`); those of `HEAD` follow, then for
each array the words that say where it lies, and for each product the address of its packed weights.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import Tensor

from throughtime.scanning.program import Array

# a name with a star is a pointer
HEAD = ["steps", "first", "step", "tiles*", "scratch*", "stride", "active*", "bounds*", "parts", "board*", "offer*"]
AT = {name.rstrip("*"): 2 + i for i, name in enumerate(HEAD)}

_BEFORE = ["ptr", "i64", "i64", "ptr", "i64"]
KINDS = {"s": _BEFORE, "H": _BEFORE, "c": ["ptr", "i64", "i64", "ptr"], "C": ["ptr", "i64", "i64", "ptr"]}
DENSE = ["ptr", "i64", "i64"]


@dataclass
class Layout:
    """Where a loop's arguments are.

    words: each array's first word: address, step stride, row stride; for `s` and `H` also the initial state's address and row
    stride; for `c` and `C` the address of the second buffer. packed: one word for each product's weights. size: of the
    whole block, in words.
    """

    words: dict[Array, int] = field(default_factory=dict)
    packed: list[int] = field(default_factory=list)
    size: int = 2 + len(HEAD)

    def add(self, array: Array) -> None:
        if array not in self.words:
            self.words[array] = self.size
            self.size += len(kinds_of(array))

    def add_product(self) -> None:
        self.packed.append(self.size)
        self.size += 1


def kinds_of(array: Array) -> list[str]:
    """The kinds of an array's words."""
    return KINDS.get(array[0], DENSE)


class Arguments:
    """The argument block of one loop."""

    def __init__(self, layout: Layout, tasks: int, **head: int) -> None:
        """head: by the names of HEAD; what is not named is 0."""
        self.layout, self.missing = layout, set(layout.words)  # arrays that are nowhere yet
        self.block = (ctypes.c_int64 * layout.size)()
        self.block[1] = tasks
        self.board: ctypes.Array[ctypes.c_int64] | None = None
        self.set(**head)

    @property
    def address(self) -> int:
        return ctypes.addressof(self.block)

    def set(self, **head: int) -> None:
        """Set words of the head."""
        for name, value in head.items():
            self.block[AT[name]] = value

    def together(self, board: ctypes.Array[ctypes.c_int64], offer: int) -> None:
        """Give the counters of threads that do each step together. (`columns`)"""
        self.board = board
        self.set(board=ctypes.addressof(board), offer=offer)

    def pack(self, packed: Iterable[Tensor]) -> None:
        """Set the weights of all products."""
        for at, weights in zip(self.layout.packed, packed, strict=True):
            self.block[at] = weights.data_ptr()

    def place(self, array: Array, words: list[int]) -> None:
        """Say where an array lies; one that the loop does not know is passed by."""
        at = self.layout.words.get(array)
        if at is not None:
            self.block[at : at + len(words)] = words  # type: ignore[assignment]
            self.missing.discard(array)

    def begin(self) -> None:
        """Let the tasks be counted anew, now that all arrays have their place."""
        assert not self.missing, f"arrays without a place: {sorted(self.missing)}"
        self.block[0] = 0
        if self.board is not None:
            ctypes.memset(self.board, 0, ctypes.sizeof(self.board))


def steps_of(tensor: Tensor) -> list[int]:
    """The words of [T, B, n]: address, step stride, row stride."""
    return [tensor.data_ptr(), tensor.stride(0), tensor.stride(1)]


def rows_of(tensor: Tensor) -> list[int]:
    """Those of [B, n], the same at every step."""
    return [tensor.data_ptr(), 0, tensor.stride(0)]


def constant(tensor: Tensor) -> list[int]:
    """Those of what is the same at every step and in every sequence."""
    return [tensor.data_ptr(), 0, 0]
