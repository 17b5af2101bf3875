"""The programs of the cells that ran lately, and what is remembered of cells that have none."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any, Generic, TypeVar

import torch

from throughtime.scanning import locks
from throughtime.scanning.call import Call, leaves, unwrapped
from throughtime.scanning.capture import Failed, capture
from throughtime.scanning.cell import FunctionCell
from throughtime.scanning.division import divide
from throughtime.scanning.program import Program
from throughtime.scanning.reads import Reads
from throughtime.scanning.settings import Changing
from throughtime.scanning.signature import signature
from throughtime.scanning.symbols import Unsupported

MOST = 256  # programs remembered
MOST_ANEW, WORTH = 16, 64  # programs made for one cell, after which each must have served so many calls

E = TypeVar("E")


@dataclass
class _History:
    """What one cell has been through: how often it ran, how many programs were made for it, and how often it failed itself."""

    calls: int = 0
    made: int = 0
    failed: int = 0

    @property
    def restless(self) -> bool:
        return self.made > MOST_ANEW and WORTH * self.made > self.calls


class Programs(Generic[E]):
    """The engines of one kind, by what their programs depend on; those not used for longest go first.

    make: an engine of a program, a type of number, and what operands of products are rounded to.
    """

    def __init__(self, make: Callable[[Program, torch.dtype, torch.dtype | None], E]) -> None:
        self.make = make
        self.known: OrderedDict[Any, tuple[E | str, Reads]] = OrderedDict()
        self.histories: weakref.WeakKeyDictionary[Any, _History] = weakref.WeakKeyDictionary()

    def find(self, call: Call, hoist: bool = True) -> E | str:
        """The engine of a call, compiled as far as it was needed; or why there is none. hoist: as `divide` takes it."""
        found: E | str | None = call.found.get((self, hoist))
        if found is None:
            with locks.PROGRAMS:
                found = call.found[self, hoist] = self._find(call, hoist)
        return found

    def refuse(self, call: Call, reason: str) -> None:
        """Remember that a call cannot be run after all."""
        call.found[self, True] = reason
        with locks.PROGRAMS:
            key = call.found.get("key")
            if key in self.known:
                self.known[key] = reason, self.known[key][1]

    def _find(self, call: Call, hoist: bool) -> E | str:
        owner: Any = call.found.get("owner")  # of a module made for one call, what it was made of
        owner = unwrapped(call.cell) if owner is None else owner
        if isinstance(owner, FunctionCell) and isinstance(owner.function, FunctionType):
            owner = owner.function  # the cell is made of it at every call
        history = self.histories.get(owner)
        if history is not None:
            history.calls += 1
        try:
            key = signature(call), hoist
            found = self.known.get(key)
            if found is not None and found[1].same():
                self.known.move_to_end(key)
                call.found["key"] = key
                return found[0]
            if history is None:  # what is made for one call, of what is known, needs none
                history = self.histories[owner] = _History(calls=1)
            if history.restless:
                return (
                    f"something that it holds or reads has changed {history.made - 1} times in {history.calls} calls, and each "
                    f"time it would be compiled anew: make the number that changes a buffer, or an input"
                )
            history.made += 1
            reads = Reads(call.cell)
        except Changing as error:  # what was captured once might be out of date at the next call
            return f"{error}, so that a compiled step could be out of date"
        try:
            made = self._made(call, hoist, reads)
            if not isinstance(made, str) and signature(call) != key[0]:
                made = "it changes its settings as it steps"
        except Failed as error:  # perhaps not the next time; one that always does is not tried for ever
            made, history.made, history.failed = str(error), history.made - 1, history.failed + 1
            if history.failed <= MOST_ANEW:
                return made
        call.found["key"] = key
        self.known[key] = made, reads
        self.known.move_to_end(key)
        while len(self.known) > MOST:
            self.known.popitem(last=False)
        return made

    def _made(self, call: Call, hoist: bool, reads: Reads) -> E | str:
        if reads.writes is not None:
            return f"it writes the global {reads.writes!r} as it steps"
        try:
            program = divide(capture(call, reads), call.resets is not None, hoist)
            return self.make(program, leaves(call.inputs)[0].dtype, call.operands)
        except Failed:
            raise
        except Unsupported as error:
            return str(error)
        except Exception as error:  # a fault of the engine's, which need not be the user's: the loop runs it
            return fault(error)


def fault(error: Exception) -> str:
    """A fault of the compiler, in words."""
    return (
        f"the compiler of throughtime fails on it ({type(error).__name__}: {error}), which is a fault worth reporting"
    )
