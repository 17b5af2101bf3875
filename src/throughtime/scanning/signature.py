"""What a captured step hangs on beside the numbers in its tensors: the cell's settings, and what its code reads from outside.

Two calls with equal signatures, between which nothing that the code reads has changed, have the same program. Seen are: settings of
the cell and of the modules and plain objects in it; class attributes, methods and helper functions; globals of the modules that the
code is written in; what closures hold. Not seen are: attributes looked up by a name made at run time, libraries (PyTorch, NumPy,
whatever is installed) whose own settings or functions are replaced, files and the environment.
"""

from __future__ import annotations

import dis
import enum
import functools
import logging
import math
import os
import sys
import sysconfig
import threading
import types
import weakref
from collections.abc import Mapping
from contextvars import ContextVar
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from throughtime.scanning.call import Call, tensors_of

MOST_NUMBERS = 256  # of a NumPy array that is compared by its values
MOST_HELD = 4096  # things in a list, a dictionary or a set that are compared one by one

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_NOT_SETTINGS = {
    *HOOKS, "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "_is_full_backward_hook",
    "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks_with_kwargs",
    "_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
}  # fmt: skip
_VALUES: tuple[type, ...] = (
    type(None), bool, int, str, bytes, complex, range, type(...), PurePath, Decimal, Fraction,
    torch.dtype, torch.device, torch.layout, torch.memory_format,
)  # fmt: skip
_COMMON = {type(None), bool, int, str}
_BUILTIN = (
    types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType, types.MethodWrapperType,
    types.ClassMethodDescriptorType, types.GetSetDescriptorType, types.MemberDescriptorType, np.ufunc,
)  # fmt: skip
# what no number of a step hangs on, or what hides nothing that the walk over the code does not find
_BY_IDENTITY = (
    type, types.ModuleType, *_BUILTIN, ContextVar, logging.Logger, weakref.ref, type(threading.Lock()), type(threading.RLock()),
)  # fmt: skip


class Changing(Exception):
    """The cell holds or reads something that may change unseen; the message says what."""


# ------------------------------------------------------------------------------------------------ what the cell holds


def signature(call: Call) -> Any:
    """What a program depends on, as a value to compare. Raises: Changing where that cannot be told."""
    seen: dict[int, int] = {}
    return (
        _of_module(call.cell, seen),
        _of_inputs(call.inputs),
        isinstance(call.state, tuple),
        tuple((s.shape[1:], s.dtype) for s in tensors_of(call.state)),
        call.resets is not None,
        call.record,
        call.batch == 1,  # an `if` on it, or a squeeze(), goes its own way there
    )


def _of_inputs(inputs: Any) -> Any:
    if isinstance(inputs, Tensor):
        return inputs.shape[2:], inputs.dtype
    return tuple(_of_inputs(part) for part in inputs)


def _of_module(module: nn.Module, seen: dict[int, int]) -> Any:
    """A module's class, its settings, and the kinds of its tensors, with which of them are the same."""
    parts: list[Any] = [type(module), type(module).forward]
    for name, value in module.__dict__.items():
        if name in _NOT_SETTINGS:
            continue
        if isinstance(value, Tensor):
            parts.append((name, _of_tensor(value, seen)))
            continue
        try:
            parts.append((name, plain(value)))
        except Changing as error:
            raise Changing(f"its attribute {name!r} {error}") from None
    for group in (module._parameters, module._buffers):
        for name, tensor in group.items():
            parts.append((name, None if tensor is None else _of_tensor(tensor, seen)))
    for name, child in module._modules.items():
        parts.append((name, None if child is None else _of_module(child, seen)))
    return tuple(parts)


def _of_tensor(tensor: Tensor, seen: dict[int, int]) -> Any:
    kind = tensor.shape, tensor.dtype, tensor.requires_grad, tensor.is_inference()
    return seen.setdefault(id(tensor), len(seen)), kind


def plain(value: Any, within: tuple[int, ...] = ()) -> Any:
    """A setting as something that can be compared. Raises: Changing for what cannot."""
    kind = type(value)
    if kind in _COMMON:
        return kind, value
    if isinstance(value, float):
        return kind, value, math.copysign(1.0, value), _attributes(value, within)  # 0.0 == -0.0
    if isinstance(value, enum.Enum):
        return kind, value.name, plain(value._value_, within)
    if isinstance(value, slice):
        return kind, value.start, value.stop, value.step
    if isinstance(value, _VALUES):
        return kind, value, _attributes(value, within)
    if isinstance(value, types.BuiltinFunctionType) and not isinstance(value.__self__, types.ModuleType | type | None):
        return kind, value.__name__, plain(value.__self__, within)  # of an object, as list.append
    if isinstance(value, _BY_IDENTITY):
        return value
    if id(value) in within or len(within) > 20:
        raise Changing("refers to itself")
    within = (*within, id(value))
    if isinstance(value, list | tuple | dict | set | frozenset) and len(value) > MOST_HELD:
        raise Changing(f"holds {len(value):,} things, too many to compare at every call")
    if isinstance(value, types.FunctionType):
        held = [_held(cell) for cell in value.__closure__ or ()]
        rest = (held, value.__defaults__, value.__kwdefaults__, value.__dict__)
        return value.__code__, id(value.__globals__), plain(rest, within) if any(rest) else None
    if isinstance(value, tuple | list | torch.Size):
        return kind, tuple(plain(v, within) for v in value), _attributes(value, within)
    if isinstance(value, dict | types.MappingProxyType):
        items = tuple((plain(k, within), plain(v, within)) for k, v in value.items())
        return kind, items, _attributes(value, within)
    if isinstance(value, set | frozenset):
        return kind, frozenset(plain(v, within) for v in value), _attributes(value, within)
    if isinstance(value, functools.partial):
        return functools.partial, plain((value.func, value.args, value.keywords), within)
    if isinstance(value, types.MethodType):
        owner = value.__self__
        return types.MethodType, value.__func__, id(owner) if isinstance(owner, nn.Module) else plain(owner, within)
    if isinstance(value, np.generic | np.ndarray) and value.size <= MOST_NUMBERS and not value.dtype.hasobject:
        return kind, value.shape, value.dtype.str, value.tobytes()
    if is_simple(value):
        slots = {name: getattr(value, name, None) for name in slots_of(kind)}
        return kind, plain(getattr(value, "__dict__", {}) | slots, within)
    raise Changing(f"is a {kind.__name__}, which may change unseen")


def _attributes(value: Any, within: tuple[int, ...]) -> Any:
    """Those that a value of a subclass has beside what it is."""
    held = getattr(value, "__dict__", None)
    return plain(held, (*within, id(value))) if isinstance(held, dict) and held else None


def slots_of(kind: type) -> list[str]:
    found: list[str] = []
    for base in kind.__mro__:
        names = vars(base).get("__slots__", ())
        found += [names] if isinstance(names, str) else names
    return [name for name in found if name not in ("__dict__", "__weakref__")]


def _held(cell: types.CellType) -> Any:
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


# ------------------------------------------------------------------------------------------------ what its code reads


class Reads:
    """What the code of a cell reads from outside it, as it was when this was made.

    One walk over all that the code can come to: functions, what they name, hold and default to; classes and their attributes;
    modules; and whatever stands in lists, dictionaries and objects on the way.
    Raises: Changing where that is something whose changes cannot be seen.
    """

    def __init__(self, cell: nn.Module) -> None:
        self.bound: dict[
            tuple[int, str], tuple[Any, Names, str, Any]
        ] = {}  # whose name, all names, the name, its value
        self.cells: list[tuple[types.CellType, Any]] = []  # of closures
        self._functions: list[
            tuple[types.FunctionType, tuple[Any, ...]]
        ] = []  # and what may be put in place of their parts
        self.inside: list[tuple[Any, Any]] = []  # lists, dictionaries, objects, and what they hold
        self._places: dict[int, tuple[Any, Names, str]] = {}  # classes and modules, where attributes are looked up
        self._attributes: set[str] = set()  # that the code reads, of whatever
        self._seen: set[tuple[int, int]] = set()  # code with its globals, and values
        self._kept: list[Any] = []  # what is known by its identity lives as long as this
        self.writes: str | None = None  # a global that the code writes
        modules = list(cell.modules())
        bases = {base for module in modules for base in type(module).__mro__}
        self._roots = {_root(base.__module__) for base in bases} - _LIBRARIES
        for module in modules:
            self._class(type(module))
            for name, value in module.__dict__.items():
                if name not in _NOT_SETTINGS:
                    self._visit(value)
        while self._look_up_attributes():
            pass
        self._sizes = [
            (names, len(names)) for _, names, _ in self._places.values()
        ]  # an attribute more may hide another

    def same(self) -> bool:
        """Whether all of it is as it was."""
        return (
            all(names.get(name, MISSING) is value for _, names, name, value in self.bound.values())
            and all(_held(cell) is value for cell, value in self.cells)
            and all(_parts(function) == parts for function, parts in self._functions)
            and all(len(names) == size for names, size in self._sizes)
            and all(_plain_or_none(value) == before for value, before in self.inside)
        )

    def _look_up_attributes(self) -> bool:
        """Find the attributes that the code reads in the classes and modules there are; whether that led to more code."""
        before = len(self._attributes), len(self._places), len(self._seen)
        for owner, names, place in list(self._places.values()):
            for name in self._attributes & names.keys():
                self._name(owner, names, name, f"{place}.{name}")
        return before != (len(self._attributes), len(self._places), len(self._seen))

    def _class(self, kind: type) -> None:
        for base in (*kind.__mro__, *type(kind).mro(type(kind))):
            if id(base) not in self._places and self._is_own(base.__module__):
                self._places[id(base)] = base, vars(base), base.__name__
                for name, value in list(vars(base).items()):  # forward, and what is called without its name
                    if name == "forward" or (
                        name.startswith("__") and name not in _NOT_CALLED and _functions_of(value)
                    ):
                        self._name(base, vars(base), name, f"{base.__name__}.{name}")

    def _function(self, function: types.FunctionType) -> None:
        if not self._is_own(function.__module__, function.__code__.co_filename):
            return
        self._functions.append((function, _parts(function)))
        self._kept += [function, function.__code__, function.__defaults__, function.__kwdefaults__]
        for cell, name in zip(function.__closure__ or (), function.__code__.co_freevars, strict=True):
            value = _held(cell)
            self.cells.append((cell, value))
            self._held_by(value, name)
        for held in (function.__defaults__, function.__kwdefaults__, function.__dict__):
            if held:
                self._held_by(held, f"{function.__name__}'s defaults and attributes")
        key = id(function.__code__), id(function.__globals__)
        if key in self._seen:
            return
        self._seen.add(key)
        code = _names_of(function.__code__)
        self._attributes |= code.attributes
        if code.written:
            self.writes = min(code.written)
        for name in code.read:
            self._name(function.__globals__, function.__globals__, name, name)
        for module in code.imported & sys.modules.keys():
            self._visit(sys.modules[module])

    def _name(self, owner: Any, names: Names, name: str, text: str) -> None:
        """What a name stands for in a class or module; a global that is not there may come to hide what is built in."""
        key = id(owner), name
        if key not in self.bound:
            value = names.get(name, MISSING)
            self.bound[key] = owner, names, name, value
            self._held_by(value, text)

    def _held_by(self, value: Any, text: str) -> None:
        """A value that stands under a name: what it holds is compared too."""
        if isinstance(value, nn.Module | Tensor) or value is MISSING:  # a tensor from outside is refused by the capture
            if isinstance(value, nn.Module):
                raise Changing(f"it reads {text!r}, which is a {type(value).__name__}, a module that is not part of it")
            return
        if _functions_of(value) is None and not isinstance(value, _BY_IDENTITY) and type(value) not in _COMMON:
            try:
                self.inside.append((value, plain(value)))
            except Changing as error:
                raise Changing(f"it reads {text!r}, which {error}") from None
        self._visit(value)

    def _visit(self, value: Any) -> None:
        """Go on to the code behind a value, and behind what it holds."""
        if type(value) in _COMMON or (-1, id(value)) in self._seen:
            return
        self._seen.add((-1, id(value)))
        self._kept.append(value)
        functions = _functions_of(value)
        if functions is not None:
            for function in functions:
                self._function(function)
            if isinstance(value, functools.partial):
                self._visit(value.args)
                self._visit(value.keywords)
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, types.ModuleType):
            if self._is_own(value.__name__):
                self._places[id(vars(value))] = vars(value), vars(value), value.__name__
        elif isinstance(value, list | tuple | set | frozenset) and len(value) <= MOST_HELD:
            for v in value:
                self._visit(v)
        elif isinstance(value, dict | types.MappingProxyType) and len(value) <= MOST_HELD:
            for v in value.values():
                self._visit(v)
        if not isinstance(value, type | types.ModuleType | nn.Module | Tensor | types.FunctionType):
            self._class(type(value))
            self._visit(getattr(value, "__dict__", None))
            for name in slots_of(type(value)):
                self._visit(getattr(value, name, None))

    def _is_own(self, module: str | None, file: str | None = None) -> bool:
        """Whether code is the user's, not a library's."""
        root = _root(module)
        if root in self._roots or root == "__main__":
            return True
        if root in _LIBRARIES:
            return False
        file = file or getattr(sys.modules.get(module or ""), "__file__", None)
        return file is not None and not file.startswith(_library_folders())


def _parts(function: types.FunctionType) -> tuple[Any, ...]:
    return id(function.__code__), id(function.__defaults__), id(function.__kwdefaults__)


MISSING = object()
_NOT_CALLED = {  # by a step
    "__init__", "__new__", "__del__", "__repr__", "__str__", "__getstate__", "__setstate__", "__reduce__", "__reduce_ex__",
    "__deepcopy__", "__copy__", "__init_subclass__", "__set_name__", "__class_getitem__", "__post_init__", "__dir__",
    "__prepare_scriptable__",
}  # fmt: skip
Names = Mapping[str, Any]
_LIBRARIES = {"torch", "numpy", "builtins"}


def _root(module: str | None) -> str:
    return (module or "").split(".")[0]


def _plain_or_none(value: Any) -> Any:
    try:
        return plain(value)
    except Changing:
        return None


def _functions_of(value: Any) -> list[types.FunctionType] | None:
    """The Python functions behind a function, method, property or partial; None where the value is something else."""
    if isinstance(value, types.FunctionType):
        return [value]
    if isinstance(value, staticmethod | classmethod | types.MethodType):
        return _functions_of(value.__func__)
    if isinstance(value, property):
        return _functions_of(value.fget)
    if isinstance(value, functools.partial | functools.partialmethod | functools.cached_property):
        return _functions_of(value.func)
    return [] if isinstance(value, _BUILTIN) else None


@functools.cache
def _library_folders() -> tuple[str, ...]:
    """The folders of installed packages and of Python itself."""
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = {sysconfig.get_path(kind) for kind in kinds} | {os.path.dirname(os.path.dirname(torch.__file__))}
    return ("<frozen", *(os.path.join(folder, "") for folder in folders if folder))


class _Names(NamedTuple):
    """What code names: globals that it reads, attributes, globals that it writes, modules that it imports."""

    read: frozenset[str]
    attributes: frozenset[str]
    written: frozenset[str]
    imported: frozenset[str]


def _names_of(code: types.CodeType) -> _Names:
    if id(code) not in _known_names:  # equal code of two files is not the same
        _known_names[id(code)] = code, _look_for_names(code)
        while len(_known_names) > 4096:
            _known_names.pop(next(iter(_known_names)))
    return _known_names[id(code)][1]


_known_names: dict[int, tuple[types.CodeType, _Names]] = {}


def _look_for_names(code: types.CodeType) -> _Names:
    found: tuple[set[str], ...] = (set(), set(), set(), set())
    read, attributes, written, imported = found
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            read.add(instruction.argval)
        elif instruction.opname in ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "IMPORT_FROM"):
            attributes.add(instruction.argval)
        elif instruction.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            written.add(instruction.argval)
        elif instruction.opname == "IMPORT_NAME":
            imported.add(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            for names, inner in zip(found, _names_of(constant), strict=True):
                names |= inner
        for text in constant if isinstance(constant, tuple) else (constant,):
            if isinstance(text, str) and text.isidentifier():  # getattr(self, "scale"), or a pattern's keyword
                attributes.add(text)
    return _Names(*map(frozenset, found))
