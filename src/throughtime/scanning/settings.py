"""Settings as values to compare: what a cell holds, and what its code reads."""

from __future__ import annotations

import enum
import functools
import logging
import math
import threading
import types
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

MOST_NUMBERS = 256  # of a NumPy array that is compared by its values
MOST_HELD = 4096  # things in a list, a dictionary or a set that are compared one by one

_VALUES: tuple[type, ...] = (
    type(None), bool, int, str, bytes, complex, range, type(...), PurePath, Decimal, Fraction,
    torch.dtype, torch.device, torch.layout, torch.memory_format,
)  # fmt: skip
COMMON = {type(None), bool, int, str}
BUILTIN = (
    types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType, types.MethodWrapperType,
    types.ClassMethodDescriptorType, types.GetSetDescriptorType, types.MemberDescriptorType, np.ufunc,
)  # fmt: skip
# what no number of a step hangs on, or what hides nothing that the walk over the code does not find
BY_IDENTITY = (
    type, types.ModuleType, *BUILTIN, ContextVar, logging.Logger, weakref.ref, type(threading.Lock()), type(threading.RLock()),
)  # fmt: skip


class Changing(Exception):
    """The cell holds or reads something that may change unseen; the message says what."""


def plain(value: Any, within: tuple[int, ...] = ()) -> Any:
    """A setting as something that can be compared. Raises: Changing for what cannot."""
    kind = type(value)
    if kind in COMMON:
        return kind, value
    for kinds, look in _NOT_HOLDING:
        if isinstance(value, kinds):
            return look(value, within)
    if isinstance(value, types.BuiltinFunctionType) and not isinstance(value.__self__, types.ModuleType | type | None):
        return kind, value.__name__, plain(value.__self__, within)  # of an object, as list.append
    if isinstance(value, BY_IDENTITY):
        return value
    if id(value) in within or len(within) > 20:
        raise Changing("refers to itself")
    within = (*within, id(value))
    for kinds, look in _HOLDING:
        if isinstance(value, kinds):
            return look(value, within)
    return _object(value, within)


def _object(value: Any, within: tuple[int, ...]) -> Any:
    kind = type(value)
    if isinstance(value, np.generic | np.ndarray) and value.size <= MOST_NUMBERS and not value.dtype.hasobject:
        return kind, value.shape, value.dtype.str, value.tobytes()
    if is_simple(value):
        slots = {name: getattr(value, name, None) for name in slots_of(kind)}
        return kind, plain(getattr(value, "__dict__", {}) | slots, within)
    raise Changing(f"is a {kind.__name__}, which may change unseen")


def _function(value: types.FunctionType, within: tuple[int, ...]) -> Any:
    held = [held_in(cell) for cell in value.__closure__ or ()]
    rest = (held, value.__defaults__, value.__kwdefaults__, value.__dict__)
    return value.__code__, id(value.__globals__), plain(rest, within) if any(rest) else None


def _partial(value: functools.partial[Any], within: tuple[int, ...]) -> Any:
    return functools.partial, plain((value.func, value.args, value.keywords), within)


def _method(value: types.MethodType, within: tuple[int, ...]) -> Any:
    owner = value.__self__
    return types.MethodType, value.__func__, id(owner) if isinstance(owner, nn.Module) else plain(owner, within)


def _collection(value: Any, within: tuple[int, ...]) -> Any:
    if len(value) > MOST_HELD:
        raise Changing(f"holds {len(value):,} things, too many to compare at every call")
    held: Any
    if isinstance(value, dict | types.MappingProxyType):
        held = tuple((plain(k, within), plain(v, within)) for k, v in value.items())
    else:
        held = (plain(v, within) for v in value)
        held = frozenset(held) if isinstance(value, set | frozenset) else tuple(held)
    return type(value), held, _attributes(value, within)


# how values are looked at: those that cannot hold themselves
_NOT_HOLDING: tuple[tuple[Any, Callable[[Any, tuple[int, ...]], Any]], ...] = (
    (float, lambda value, w: (type(value), value, math.copysign(1.0, value), _attributes(value, w))),  # 0.0 == -0.0
    (enum.Enum, lambda value, w: (type(value), value.name, plain(value._value_, w))),
    (slice, lambda value, w: (type(value), value.start, value.stop, value.step)),
    (_VALUES, lambda value, w: (type(value), value, _attributes(value, w))),
)
# and those that may
_HOLDING: tuple[tuple[Any, Callable[[Any, tuple[int, ...]], Any]], ...] = (
    (types.FunctionType, _function),
    (functools.partial, _partial),
    (types.MethodType, _method),
    (tuple | list | dict | types.MappingProxyType | set | frozenset, _collection),
)


def _attributes(value: Any, within: tuple[int, ...]) -> Any:
    """Those that a value of a subclass has beside what it is."""
    held = getattr(value, "__dict__", None)
    return plain(held, (*within, id(value))) if isinstance(held, dict) and held else None


def slots_of(kind: type) -> list[str]:
    """The names of the slots of a class and of those that it comes from."""
    found: list[str] = []
    for base in kind.__mro__:
        names = vars(base).get("__slots__", ())
        found += [names] if isinstance(names, str) else names
    return [name for name in found if name not in ("__dict__", "__weakref__")]


def held_in(cell: types.CellType) -> Any:
    """What a closure's cell holds; None while it holds nothing."""
    try:
        return cell.cell_contents
    except ValueError:  # not set yet
        return None


def is_simple(value: Any) -> bool:
    """Whether all that an object holds is its attributes."""
    kind = type(value)
    if isinstance(value, nn.Module | Tensor | functools.partial | types.FunctionType | types.MethodType | enum.Enum):
        return False
    if isinstance(value, types.SimpleNamespace):
        return True
    return (
        (hasattr(value, "__dict__") or bool(slots_of(kind)))
        and getattr(kind, "__getattribute__", None) is object.__getattribute__
        and not hasattr(kind, "__getattr__")
        # a dict and weak references, what its slots hold, and nothing of C's
        and kind.__basicsize__ <= object.__basicsize__ + 16 + 8 * len(slots_of(kind))
    )
