"""What the code of a cell reads from outside it."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from throughtime.scanning.names import LIBRARIES, functions_of, is_own, names_of, root_of
from throughtime.scanning.settings import BY_IDENTITY, COMMON, MOST_HELD, Changing, held_in, plain, slots_of
from throughtime.scanning.signature import NOT_SETTINGS

MISSING = object()
_NOT_CALLED = {  # by a step
    "__init__", "__new__", "__del__", "__repr__", "__str__", "__getstate__", "__setstate__", "__reduce__", "__reduce_ex__",
    "__deepcopy__", "__copy__", "__init_subclass__", "__set_name__", "__class_getitem__", "__post_init__", "__dir__",
    "__prepare_scriptable__",
}  # fmt: skip
Names = Mapping[str, Any]


class Reads:
    """What the code of a cell reads from outside it, as it was when this was made.

    One walk over all that the code can come to: functions, what they name, hold and default to; classes and their attributes;
    modules; and whatever stands in lists, dictionaries and objects on the way.
    Raises: Changing where that is something whose changes cannot be seen.
    """

    def __init__(self, cell: nn.Module) -> None:
        # whose name, all names, the name, its value
        self.bound: dict[tuple[int, str], tuple[Any, Names, str, Any]] = {}
        self.cells: list[tuple[types.CellType, Any]] = []  # of closures
        # functions, and what may be put in place of their parts
        self._functions: list[tuple[types.FunctionType, tuple[Any, ...]]] = []
        self.inside: list[tuple[Any, Any]] = []  # lists, dictionaries, objects, and what they hold
        self._places: dict[int, tuple[Any, Names, str]] = {}  # classes and modules, where attributes are looked up
        self._attributes: set[str] = set()  # that the code reads, of whatever
        self._seen: set[tuple[int, int]] = set()  # code with its globals, and values
        self._held: list[Any] = []  # what is known by its identity lives as long as this
        self.writes: str | None = None  # a global that the code writes
        modules = list(cell.modules())
        bases = {base for module in modules for base in type(module).__mro__}
        self._roots = {root_of(base.__module__) for base in bases} - LIBRARIES
        for module in modules:
            self._class(type(module))
            for name, value in module.__dict__.items():
                if name not in NOT_SETTINGS:
                    self._visit(value)
        while self._look_up_attributes():
            pass
        self._names = [(names.get, name, value) for _, names, name, value in self.bound.values()]
        # an attribute more may hide another
        self._sizes = [(names, len(names)) for _, names, _ in self._places.values()]

    def same(self) -> bool:
        """Whether all of it is as it was."""
        for get, name, value in self._names:  # loops, since every call comes by here
            if get(name, MISSING) is not value:
                return False
        for function, parts in self._functions:
            if _parts(function) != parts:
                return False
        for names, size in self._sizes:
            if len(names) != size:
                return False
        return all(held_in(cell) is value for cell, value in self.cells) and all(
            _plain_or_none(value) == before for value, before in self.inside
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
            if id(base) not in self._places and is_own(base.__module__, self._roots):
                self._places[id(base)] = base, vars(base), base.__name__
                for name, value in list(vars(base).items()):  # forward, and what is called without its name
                    if name == "forward" or (name.startswith("__") and name not in _NOT_CALLED and functions_of(value)):
                        self._name(base, vars(base), name, f"{base.__name__}.{name}")

    def _function(self, function: types.FunctionType) -> None:
        if not is_own(function.__module__, self._roots, function.__code__.co_filename):
            return
        self._functions.append((function, _parts(function)))
        self._held += [function, function.__code__, function.__defaults__, function.__kwdefaults__]
        for cell, name in zip(function.__closure__ or (), function.__code__.co_freevars, strict=True):
            value = held_in(cell)
            self.cells.append((cell, value))
            self._held_by(value, name)
        for held in (function.__defaults__, function.__kwdefaults__, function.__dict__):
            if held:
                self._held_by(held, f"{function.__name__}'s defaults and attributes")
        key = id(function.__code__), id(function.__globals__)
        if key in self._seen:
            return
        self._seen.add(key)
        code = names_of(function.__code__)
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
        if functions_of(value) is None and not isinstance(value, BY_IDENTITY) and not _is_fixed(value):
            try:
                self.inside.append((value, plain(value)))
            except Changing as error:
                raise Changing(f"it reads {text!r}, which {error}") from None
        self._visit(value)

    def _visit(self, value: Any) -> None:
        """Go on to the code behind a value, and behind what it holds."""
        if type(value) in COMMON or (-1, id(value)) in self._seen:
            return
        self._seen.add((-1, id(value)))
        self._held.append(value)
        for other in self._behind(value):
            self._visit(other)
        if not isinstance(value, type | types.ModuleType | nn.Module | Tensor | types.FunctionType):
            self._class(type(value))
            self._visit(getattr(value, "__dict__", None))
            for name in slots_of(type(value)):
                self._visit(getattr(value, name, None))

    def _behind(self, value: Any) -> Iterable[Any]:
        """Look at the code that a value is, and find what else it holds."""
        functions = functions_of(value)
        if functions is not None:
            for function in functions:
                self._function(function)
            return (value.args, value.keywords) if isinstance(value, functools.partial) else ()
        if isinstance(value, type):
            self._class(value)
        elif isinstance(value, types.ModuleType):
            if is_own(value.__name__, self._roots):
                self._places[id(vars(value))] = vars(value), vars(value), value.__name__
        elif (
            isinstance(value, list | tuple | set | frozenset | dict | types.MappingProxyType)
            and len(value) <= MOST_HELD
        ):
            return value.values() if isinstance(value, dict | types.MappingProxyType) else value
        return ()


def _parts(function: types.FunctionType) -> tuple[Any, ...]:
    return id(function.__code__), id(function.__defaults__), id(function.__kwdefaults__)


def _is_fixed(value: Any) -> bool:
    """Whether nothing in a value can change: it is looked at by its identity."""
    return type(value) in COMMON or (type(value) is tuple and all(type(part) in COMMON for part in value))


def _plain_or_none(value: Any) -> Any:
    try:
        return plain(value)
    except Changing:
        return None
