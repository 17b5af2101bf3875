"""A cell run on trial: what it changes in itself is found out, and put back as it was."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from throughtime.scanning.signature import MOST_HELD, is_simple

_DEEPEST = 4  # lists in dictionaries in objects …


class Unchanged:
    """While the block runs, a cell may run; then `changed` says in words what it changed, and all of that is undone.

    What is seen: attributes, what lists, dictionaries and plain objects among them hold, buffers, and the random numbers
    of PyTorch (of the CPU), Python and NumPy.
    """

    def __init__(self, cell: nn.Module) -> None:
        self.changed: str | None = None
        self._holders = [(thing, text, _contents(thing)) for thing, text in _holders(cell)]
        self._buffers = [(name, b, b.detach().clone()) for name, b in cell.named_buffers()]

    def __enter__(self) -> Unchanged:
        self._numbers = [(name, get, put, get()) for name, get, put in _generators()]
        return self

    def __exit__(self, *error: object) -> None:
        for thing, text, before in self._holders:
            if not _same(_contents(thing), before):
                self.changed = f"it changes {text} as it steps"
                _restore(thing, before)
        with torch.no_grad():
            for name, buffer, before in self._buffers:
                if not torch.equal(_bytes(buffer), _bytes(before)):
                    self.changed = f"it changes its buffer {name!r} as it steps"
                    buffer.copy_(before)
        for name, get, put, before in self._numbers:
            if not _equal(get(), before):
                self.changed = f"it draws random numbers of {name}"
                put(before)


def _holders(cell: nn.Module) -> Iterator[tuple[Any, str]]:
    """Everything in a cell that holds something, with words for it."""
    seen: set[int] = set()

    def look(value: Any, text: str, depth: int) -> Iterator[tuple[Any, str]]:
        if id(value) in seen or depth > _DEEPEST:
            return
        if isinstance(value, list | dict | set) and len(value) <= MOST_HELD:
            inside = value.values() if isinstance(value, dict) else value
        elif is_simple(value):
            inside = vars(value).values()
        else:
            return
        seen.add(id(value))
        yield value, text
        for v in list(inside):
            yield from look(v, text, depth + 1)

    for path, module in cell.named_modules():
        where = f"in {path!r}" if path else ""
        for name, value in module.__dict__.items():
            yield from look(value, f"its attribute {name!r} {where}".rstrip(), 0)
        yield module.__dict__, f"its attributes {where}".rstrip()


def _bytes(tensor: Tensor) -> Tensor:
    whole = torch.empty(tensor.numel(), dtype=tensor.dtype, device=tensor.device)
    return whole.copy_(tensor.detach().reshape(-1)).view(torch.uint8)


def _contents(thing: Any) -> Any:
    if isinstance(thing, dict):
        return dict(thing)
    return list(thing) if isinstance(thing, list) else set(thing) if isinstance(thing, set) else dict(vars(thing))


def _same(now: Any, before: Any) -> bool:
    if isinstance(now, dict):
        return now.keys() == before.keys() and all(now[k] is v for k, v in before.items())
    if isinstance(now, set):
        return bool(now == before)
    return len(now) == len(before) and all(a is b for a, b in zip(now, before, strict=True))


def _restore(thing: Any, before: Any) -> None:
    if isinstance(thing, list):
        thing[:] = before
        return
    held = thing if isinstance(thing, dict | set) else vars(thing)
    held.clear()
    held.update(before)


def _generators() -> list[tuple[str, Callable[[], Any], Callable[[Any], Any]]]:
    found: list[tuple[str, Callable[[], Any], Callable[[Any], Any]]] = [
        ("PyTorch", torch.get_rng_state, torch.set_rng_state),
        ("Python", random.getstate, random.setstate),
    ]
    if "numpy" in sys.modules:
        import numpy as np

        found.append(("NumPy", lambda: np.random.get_state(legacy=False), np.random.set_state))
    return found


def _equal(now: Any, before: Any) -> bool:
    if isinstance(now, Tensor):
        return torch.equal(now, before)
    return repr(now) == repr(before) if isinstance(now, dict) else bool(now == before)
