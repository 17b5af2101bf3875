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
import types
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

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
_IMMUTABLE = (
    type(None),
    bool,
    int,
    str,
    bytes,
    complex,
    type,
    torch.dtype,
    torch.device,
    torch.layout,
    torch.memory_format,
)
_COMMON = {type(None), bool, int, str}
_BUILTIN = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
    np.ufunc,
)
_BY_IDENTITY = (*_IMMUTABLE, float, *_BUILTIN, types.FunctionType, types.ModuleType, Tensor, ContextVar, logging.Logger)


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
    return seen.setdefault(id(tensor), len(seen)), tensor.shape, tensor.dtype, tensor.is_inference()


def plain(value: Any, within: tuple[int, ...] = ()) -> Any:
    """A setting as something that can be compared. Raises: Changing for what cannot."""
    if type(value) in _COMMON:
        return type(value), value
    if isinstance(value, float):
        return type(value), value, math.copysign(1.0, value)  # 0.0 == -0.0
    if isinstance(value, enum.Enum):
        return type(value), value.name
    if isinstance(value, _IMMUTABLE):
        return type(value), value
    if isinstance(value, types.FunctionType):
        if value.__closure__ is None:
            return value
    elif isinstance(value, _BUILTIN):
        return value
    if id(value) in within or len(within) > 20:
        raise Changing("refers to itself")
    within = (*within, id(value))
    if isinstance(value, list | tuple | dict | set | frozenset) and len(value) > MOST_HELD:
        raise Changing(f"holds {len(value):,} things, too many to compare at every call")
    if isinstance(value, types.FunctionType):
        assert value.__closure__ is not None
        held = [_held(cell) for cell in value.__closure__]
        return value.__code__, tuple(plain(v, within) for v in (*held, value.__defaults__, value.__kwdefaults__))
    if isinstance(value, tuple | list | torch.Size):
        return type(value), tuple(plain(v, within) for v in value)
    if isinstance(value, dict):
        return type(value), tuple((plain(k, within), plain(v, within)) for k, v in value.items())
    if isinstance(value, set | frozenset):
        return type(value), frozenset(plain(v, within) for v in value)
    if isinstance(value, functools.partial):
        return functools.partial, plain((value.func, value.args, value.keywords), within)
    if isinstance(value, types.MethodType):
        return types.MethodType, value.__func__, plain(value.__self__, within)
    if isinstance(value, np.generic | np.ndarray) and value.size <= MOST_NUMBERS and not value.dtype.hasobject:
        return type(value), value.shape, value.dtype.str, value.tobytes()
    if is_simple(value):
        return type(value), plain(vars(value), within)
    raise Changing(f"is a {type(value).__name__}, which may change unseen")


def _held(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not set yet
        return None


def is_simple(value: Any) -> bool:
    """Whether all that an object holds is its attributes."""
    kind = type(value)
    return (
        not isinstance(value, nn.Module | Tensor)
        and hasattr(value, "__dict__")
        and getattr(kind, "__getattribute__", None) is object.__getattribute__
        and not hasattr(kind, "__getattr__")
        and kind.__basicsize__ <= object.__basicsize__ + 16  # a dict and weak references, and nothing of C's
    )


# ------------------------------------------------------------------------------------------------ what its code reads


class Reads:
    """What the code of a cell reads from outside it, as it was when this was made.

    Raises: Changing where that is something whose changes cannot be seen.
    """

    def __init__(self, cell: nn.Module) -> None:
        self._bound: dict[tuple[int, str], tuple[Names, str, Any]] = {}  # names and their values, compared by identity
        self._cells: list[tuple[types.CellType, Any]] = []  # of closures, likewise
        self._inside: list[
            tuple[Callable[[], Any], Any]
        ] = []  # lists, dictionaries, objects, compared by what they hold
        self._places: dict[int, tuple[Names, str]] = {}  # classes and modules, where attributes are looked up
        self._attributes: set[str] = set()  # that the code reads, of whatever
        self._code: set[types.CodeType] = set()
        self.writes: str | None = None  # a global that the code writes
        modules = list(cell.modules())
        bases = {base for module in modules for base in type(module).__mro__}
        self._roots = {_root(base.__module__) for base in bases} - _LIBRARIES
        for module in modules:
            self._class(type(module))
            for value in module.__dict__.values():
                for function in _functions_of(value) or ():
                    self._function(function)
                if is_simple(value):
                    self._class(type(value))
        while self._look_up_attributes():
            pass
        self._sizes = [(names, len(names)) for names, _ in self._places.values()]  # an attribute more may hide another

    def same(self) -> bool:
        """Whether all of it is as it was."""
        return (
            all(names.get(name, self) is value for names, name, value in self._bound.values())
            and all(_held(cell) is value for cell, value in self._cells)
            and all(len(names) == size for names, size in self._sizes)
            and all(_plain_or_none(look()) == before for look, before in self._inside)
        )

    def _look_up_attributes(self) -> bool:
        """Find the attributes that the code reads in the classes and modules there are; whether that led to more code."""
        before = len(self._attributes), len(self._places), len(self._code)
        for owner, (names, place) in list(self._places.items()):
            for name in self._attributes & names.keys():
                self._name(owner, names, name, f"{place}.{name}")
        return before != (len(self._attributes), len(self._places), len(self._code))

    def _class(self, kind: type) -> None:
        for base in kind.__mro__:
            if id(base) not in self._places and self._is_own(base.__module__):
                self._places[id(base)] = vars(base), base.__name__
                for name in {"forward", "__call__"} & vars(base).keys():
                    self._name(id(base), vars(base), name, f"{base.__name__}.{name}")

    def _function(self, function: types.FunctionType) -> None:
        if not self._is_own(function.__module__, function.__code__.co_filename):
            return
        for cell, name in zip(function.__closure__ or (), function.__code__.co_freevars, strict=True):
            value = _held(cell)
            self._cells.append((cell, value))
            self._value(value, lambda cell=cell: _held(cell), name)  # type: ignore[misc]
        if function.__code__ in self._code:
            return
        self._code.add(function.__code__)
        read, attributes, written = _names_of(function.__code__)
        self._attributes |= attributes
        if written:
            self.writes = min(written)
        for name in read & function.__globals__.keys():
            self._name(id(function.__globals__), function.__globals__, name, name)

    def _name(self, owner: int, names: Names, name: str, text: str) -> None:
        """What a name stands for in a class or module. owner: the identity of what the names belong to."""
        if (owner, name) not in self._bound:
            value = names[name]
            self._bound[owner, name] = names, name, value
            self._value(value, lambda: names.get(name), text)

    def _value(self, value: Any, look: Callable[[], Any], text: str) -> None:
        """Go on to the code behind a value, or to what it holds."""
        functions = _functions_of(value)
        if functions is not None:
            for function in functions:
                self._function(function)
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, types.ModuleType):
            if self._is_own(value.__name__):
                self._places[id(vars(value))] = vars(value), value.__name__
        elif not isinstance(value, _BY_IDENTITY):
            try:
                self._inside.append((look, plain(value)))
            except Changing as error:
                raise Changing(f"it reads {text!r}, which {error}") from None
            if is_simple(value):
                self._class(type(value))

    def _is_own(self, module: str | None, file: str | None = None) -> bool:
        """Whether code is the user's, not a library's."""
        root = _root(module)
        if root in self._roots or root == "__main__":
            return True
        if root in _LIBRARIES:
            return False
        file = file or getattr(sys.modules.get(module or ""), "__file__", None)
        return file is not None and not file.startswith(_library_folders())


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
    if isinstance(value, functools.partial | functools.cached_property):
        return _functions_of(value.func)
    return [] if isinstance(value, _BUILTIN) else None


@functools.cache
def _library_folders() -> tuple[str, ...]:
    """The folders of installed packages and of Python itself."""
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = {sysconfig.get_path(kind) for kind in kinds} | {os.path.dirname(os.path.dirname(torch.__file__))}
    return ("<frozen", *(os.path.join(folder, "") for folder in folders if folder))


@functools.lru_cache(maxsize=4096)
def _names_of(code: types.CodeType) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Names of globals that code reads, of attributes that it reads, and of globals that it writes."""
    read, attributes, written = set(), set(), set()
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            read.add(instruction.argval)
        elif instruction.opname in ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR"):
            attributes.add(instruction.argval)
        elif instruction.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            written.add(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            for found, inner in zip((read, attributes, written), _names_of(constant), strict=True):
                found |= inner
    return frozenset(read), frozenset(attributes), frozenset(written)
