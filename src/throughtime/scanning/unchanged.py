"""A cell run on trial: what it changes in itself is found out, and put back as it was."""

from __future__ import annotations

import random
import types
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from throughtime.scanning.reads import MISSING, Reads
from throughtime.scanning.settings import MOST_HELD, MOST_NUMBERS, is_simple, slots_of


class Unchanged:
    """While the block runs, a cell may run; then `changed` says in words what it changed, and all of that is undone.

    What is seen: attributes, what lists, dictionaries, arrays and plain objects among them hold, buffers; and with `reads`
    what the cell's code reads from outside, by the names it has. And random numbers of Python and NumPy: `drawn`; these may
    also have been drawn by another thread, so that they are put back only by `undo_draws`.
    """

    def __init__(self, cell: nn.Module, reads: Reads | None = None) -> None:
        self.changed: str | None = None
        self.drawn: str | None = None
        self.reads = reads
        roots = [value for value, _ in reads.inside] if reads is not None else []
        self._holders = [(thing, text, _contents(thing)) for thing, text in _holders(cell, roots)]
        self._buffers = [(name, b, b.detach().clone()) for name, b in cell.named_buffers()]

    def __enter__(self) -> Unchanged:
        self._numbers = [(name, get, put, get()) for name, get, put in _generators()]
        self._torch = torch.get_rng_state()
        return self

    def __exit__(self, kind: type | None, *error: object) -> None:
        for thing, text, before in self._holders:
            if not _same(_contents(thing), before):
                self.changed = f"it changes {text} as it steps"
                _restore(thing, before)
        with torch.no_grad():
            for name, buffer, before in self._buffers:
                if not torch.equal(_bytes(buffer), _bytes(before)):
                    self.changed = f"it changes its buffer {name!r} as it steps"
                    buffer.copy_(before)
        if self.reads is not None:
            self._look_outside(self.reads)
        if kind is not None:  # where it draws some the capture is refused: what it drew until then is not lost
            torch.set_rng_state(self._torch)
        for name, get, _, before in self._numbers:
            if not _equal(get(), before):
                self.drawn = f"it draws random numbers of {name}"
        if kind is not None:
            self.undo_draws()

    def _look_outside(self, reads: Reads) -> None:
        for owner, names, name, value in reads.bound.values():
            if names.get(name, MISSING) is not value:
                self.changed = f"it changes {name!r} as it steps"
                if isinstance(owner, type):
                    setattr(owner, name, value) if value is not MISSING else delattr(owner, name)
                elif value is MISSING:
                    owner.pop(name, None)
                else:
                    owner[name] = value
        for cell, value in reads.cells:
            if cell.cell_contents is not value:
                self.changed = "it changes what a closure holds as it steps"
                cell.cell_contents = value
        if self.changed is None and not reads.same():
            self.changed = "it changes what it reads as it steps"

    def undo_draws(self) -> None:
        """Put the random numbers of Python and NumPy back."""
        for _, get, put, before in self._numbers:
            if not _equal(get(), before):
                put(before)


def _holders(cell: nn.Module, roots: list[Any]) -> Iterator[tuple[Any, str]]:
    """Everything in a cell, and in what its code reads, that holds something, with words for it."""
    seen: set[int] = set()

    def look(value: Any, text: str) -> Iterator[tuple[Any, str]]:
        stack = [value]
        while stack:
            value = stack.pop()
            if id(value) in seen:
                continue
            seen.add(id(value))
            inside = _inside(value)
            stack += inside or ()
            if inside is not None and not isinstance(value, tuple | types.BuiltinFunctionType):
                yield value, text

    for path, module in cell.named_modules():
        where = f"in {path!r}" if path else ""
        for name, value in module.__dict__.items():
            yield from look(value, f"its attribute {name!r} {where}".rstrip())
        yield module.__dict__, f"its attributes {where}".rstrip()
    for root in roots:
        yield from look(root, "what it reads")


def _inside(value: Any) -> Collection[Any] | None:
    """What a value holds; None where it holds nothing that can be looked at."""
    if isinstance(value, list | dict | set | tuple) and len(value) <= MOST_HELD:
        return value.values() if isinstance(value, dict) else value
    if isinstance(value, np.ndarray) and value.size <= MOST_NUMBERS:
        return ()
    if is_simple(value):
        return _attributes(value).values()
    return (value.__self__,) if isinstance(value, types.BuiltinFunctionType) else None  # list.append of a list


def _bytes(tensor: Tensor) -> Tensor:
    whole = torch.empty(tensor.numel(), dtype=tensor.dtype, device=tensor.device)
    return whole.copy_(tensor.detach().reshape(-1)).view(torch.uint8)


def _contents(thing: Any) -> Any:
    if isinstance(thing, np.ndarray):
        return thing.copy()
    if isinstance(thing, dict):
        return dict(thing)
    return list(thing) if isinstance(thing, list) else set(thing) if isinstance(thing, set) else _attributes(thing)


def _attributes(thing: Any) -> dict[str, Any]:
    slots = {name: getattr(thing, name) for name in slots_of(type(thing)) if hasattr(thing, name)}
    return slots | getattr(thing, "__dict__", {})


def _same(now: Any, before: Any) -> bool:
    if isinstance(now, np.ndarray):
        return bool(now.shape == before.shape and now.tobytes() == before.tobytes())
    if isinstance(now, dict):
        return now.keys() == before.keys() and all(now[k] is v for k, v in before.items())
    if isinstance(now, set):
        return bool(now == before)
    return len(now) == len(before) and all(a is b for a, b in zip(now, before, strict=True))


def _restore(thing: Any, before: Any) -> None:
    if isinstance(thing, list | np.ndarray):
        thing[:] = before
        return
    if isinstance(thing, dict | set):
        thing.clear()
        thing.update(before)
        return
    for name in _attributes(thing).keys() - before.keys():
        object.__delattr__(thing, name)
    for name, value in before.items():
        object.__setattr__(thing, name, value)


def _generators() -> list[tuple[str, Callable[[], Any], Callable[[Any], Any]]]:
    return [
        ("Python", random.getstate, random.setstate),
        ("NumPy", lambda: np.random.get_state(legacy=False), np.random.set_state),
    ]


def _equal(now: Any, before: Any) -> bool:
    return repr(now) == repr(before) if isinstance(now, dict) else bool(now == before)
