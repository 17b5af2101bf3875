"""The operations of a step, lowered to nodes one by one as PyTorch runs them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from throughtime.cells import base
from throughtime.scanning import symbols
from throughtime.scanning.constants import Constants
from throughtime.scanning.lowering import Constant, Lowering, Unsupported
from throughtime.scanning.rules import RULES
from throughtime.scanning.symbols import Symbol

_FILLED = {"zeros": 0.0, "ones": 1.0, "zeros_like": 0.0, "ones_like": 1.0, "new_zeros": 0.0, "new_ones": 1.0}
_FILLED_WITH = {"full": 1, "full_like": 1, "new_full": 2, "scalar_tensor": 0, "fill_": 1}  # the place of the number
_UNSET = {
    "empty", "empty_like", "new_empty", "empty_strided", "rand", "randn", "rand_like", "randn_like", "bernoulli",
}  # fmt: skip


# hooks on what is saved, so that those of the user see no trial run
NOBODY = (lambda tensor: tensor, lambda tensor: tensor)


@dataclass(frozen=True)
class _Operation:
    """One operation of PyTorch's, and what it gave."""

    full: str  # its name with the overload
    name: str
    func: Any
    args: Any
    kwargs: Any
    result: Any

    @property
    def given(self) -> list[Tensor]:
        return list(_tensors((self.args, self.kwargs)))

    @property
    def writes(self) -> bool:
        """Whether it writes over its first operand."""
        return self.name.endswith("_") and not self.name.startswith("__")


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Lowers each operation as it happens."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or PyTorch would import its compiler for us

    def __init__(self, low: Lowering, known: dict[int, Any], tensors: list[Tensor], with_gradients: bool) -> None:
        """known: tensors, by their identity, as symbols. tensors: all of them."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.low, self.known, self.tensors, self.with_gradients = low, known, tensors, with_gradients
        self.constants: Constants = low.constants
        self.dtype, self.device = self.constants.dtype, tensors[-1].device
        self.memory = {_memory(t) for t in tensors} - {0}  # of the cell's own tensors and the inputs
        self.refused: Unsupported | None = None  # the first reason, should the cell catch it
        self.busy = False  # whether what is asked of tensors is asked by the recorder
        self.families: dict[int, int] = {}  # tensor -> the operation that made it, where it made several
        self.stale: dict[int, str] = {}  # tensors written over by way of another

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before, self.busy = self.busy, True
        try:
            return self.dispatched(func, args, kwargs or {})
        except Unsupported as error:
            raise self.refuse(error) from error.__cause__
        finally:
            self.busy = before

    def refuse(self, error: Unsupported) -> Unsupported:
        self.refused = self.refused or error
        return error

    def dispatched(self, func: Any, args: Any, kwargs: Any) -> Any:
        name = func._schema.name.removeprefix("aten::")
        full = name if func._overloadname == "default" else f"{name}.{func._overloadname}"
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.is_write and any(_memory(t) in self.memory for t in _tensors(value)):  # before it is done
                what = "it writes over an input, a state or a tensor of the cell in place"
                raise Unsupported(f"aten.{full} at {line_of_cell()}: {what}")
        result = func(*args, **kwargs)
        try:
            self.record(_Operation(full, name, func, args, kwargs, result))
        except Unsupported as error:
            raise Unsupported(f"aten.{full} at {line_of_cell()}: {error}") from None
        except Exception as error:  # a form of the operation that its rule does not know: the reference does
            raise Unsupported(f"aten.{full} at {line_of_cell()}: its rule fails ({error!r})") from error
        return result

    def record(self, done: _Operation) -> None:
        name, result = done.name, done.result
        self.check_operands(done)
        if self.with_gradients and not torch.is_grad_enabled() and name != "detach":
            raise Unsupported("it runs without gradients (no_grad, or an autograd.Function of its own)")
        if name in ("_local_scalar_dense", "equal", "is_nonzero", "item"):
            raise Unsupported("a number taken out of a tensor, as an `if` on its value does")
        if not isinstance(result, Tensor | tuple | list):
            raise Unsupported("it does not give a tensor")
        made = self.lower(done)
        if done.writes:
            self.write_over(done.args[0], made)
            return
        results = [result] if isinstance(result, Tensor) else list(result)
        values = [made] if isinstance(result, Tensor) else list(made)
        for tensor, value in zip(results, values, strict=True):
            if tensor is None or value is None:
                continue
            if isinstance(value, Symbol):
                _check_result(tensor, value)
            self.known[id(tensor)] = value
            self.tensors.append(tensor)
            if len(results) > 1:
                self.families[id(tensor)] = id(values)

    def check_operands(self, done: _Operation) -> None:
        for tensor in done.given:
            if id(tensor) in self.stale:
                raise Unsupported("it reads a tensor that was written over in place by way of a view")
            if id(tensor) not in self.known and done.name != "lift_fresh":
                raise Unsupported("it takes a tensor that is neither given to the cell nor an attribute of it")
        hooks = torch._C._autograd._top_saved_tensors_default_hooks(False)  # type: ignore[attr-defined]
        if hooks is None or hooks[0] is not NOBODY[0]:
            raise Unsupported("it runs with hooks on what is saved for its gradient")

    def lower(self, done: _Operation) -> Any:
        """What an operation gives: of numbers alone, of constants alone, a change of type, or by a rule."""
        name, args, result = done.name, done.args, done.result
        if name in _FILLED or name in _FILLED_WITH:
            value = _FILLED[name] if name in _FILLED else args[_FILLED_WITH[name]]
            if not isinstance(value, bool | int | float):
                raise Unsupported("a fill with a tensor")
            _check_type(result.dtype, self.dtype)
            return symbols.expanded(self.low.graph, self.low.number(value), list(result.shape), self.low.batch)
        if name in _UNSET:
            raise Unsupported("it draws numbers, or leaves them unset" if "empty" not in name else "numbers left unset")
        if name == "lift_fresh" and done.given and id(done.given[0]) not in self.known:
            literal = done.given[0]
            text = f"literal {literal.flatten()[:8].tolist()}"
            return self.constants.recipe(lambda _: literal, text, literal.shape, literal.dtype)
        values = [self.known.get(id(t)) for t in done.given]
        if all(isinstance(v, Constant) for v in values) and not _has(result, self.low.batch):
            if done.writes:
                raise Unsupported("it writes over a tensor of the cell in place")
            if not done.given and name not in ("arange", "eye", "linspace", "logspace"):
                raise Unsupported("a tensor made of nothing known")
            return self.constant_recipe(done)
        if name == "_to_copy":
            return self.change_type(values[0], done.kwargs.get("dtype"))
        return self.by_rule(done, values)

    def change_type(self, value: Any, kind: torch.dtype | None) -> Symbol:
        if kind in (None, self.dtype):
            return self.low.as_number(value) if isinstance(value, Symbol) else self.low.value(value)
        if kind == torch.bool and isinstance(value, Symbol):
            return value if value.boolean else self.low.op("ne", value, 0.0)
        raise Unsupported(f"a value of type {kind}")

    def by_rule(self, done: _Operation, values: list[Any]) -> Any:
        rule = RULES.get(done.full.replace(done.name, done.name[:-1], 1) if done.writes else done.full)
        if rule is None:
            raise Unsupported("an operation the engine does not have")
        for t in _tensors(done.result):
            if done.name not in ("argmax", "argmin"):
                _check_type(t.dtype, self.dtype)
            if t.dtype == torch.bool:  # PyTorch compares in the wider type, the compiled step in its own
                for v in values:
                    if isinstance(v, Constant) and v.shape and _is_wider(v.dtype, self.dtype):
                        raise Unsupported(f"a comparison with a constant of {v.dtype} in a step of {self.dtype}")
        args, kwargs = _replace((done.args, done.kwargs), self.known)
        if args and isinstance(args[0], Constant) and done.full in _SHAPES:
            args = (self.low.value(args[0]), *args[1:])
        left_out = ("dtype", "layout", "device", "pin_memory", "memory_format")
        return rule(self.low, *args, **{{"self": "a"}.get(k, k): v for k, v in kwargs.items() if k not in left_out})

    def constant_recipe(self, done: _Operation) -> Any:
        """An operation on constants: done again at every call."""
        result = done.result
        func = Tensor.t if done.full == "t" else done.func  # the same, called sooner

        def make(values: list[Tensor]) -> Any:
            if flat:  # as most are
                return func(*(values[a.index] if type(a) is Constant else a for a in spec_args))
            real_args, real_kwargs = _replace((spec_args, spec_kwargs), values, constants=True)
            return func(*real_args, **real_kwargs)

        spec_args, spec_kwargs = _replace((done.args, done.kwargs), self.known)
        flat = not spec_kwargs and not any(isinstance(a, tuple | list | dict) for a in spec_args)
        text = f"{done.full}({_text(spec_args)}{_text(spec_kwargs)})"
        for t in _tensors(result):
            check_memory(t, "its result", self.device)
        if isinstance(result, Tensor):
            return self.constants.recipe(make, text, result.shape, result.dtype)
        whole = self.constants.recipe(make, text, (), self.dtype)
        return [
            self.constants.recipe(
                lambda values, i=i: values[whole.index][i],  # type: ignore[misc]
                f"{i} of #{whole.index}",
                t.shape,
                t.dtype,
            )
            for i, t in enumerate(result)
        ]

    def write_over(self, tensor: Tensor, value: Any) -> None:
        if isinstance(value, Symbol) and value.shape != tuple(tensor.shape):
            raise Unsupported("it writes in place over a tensor of another shape")
        for other in self.tensors:
            if other is tensor or other.untyped_storage().data_ptr() != tensor.untyped_storage().data_ptr():
                continue
            family = self.families.get(id(other))
            if family is None or family != self.families.get(id(tensor)):
                self.stale[id(other)] = "written"
        self.known[id(tensor)] = value


class NoNumbersOut(TorchFunctionMode):  # type: ignore[no-untyped-call]
    """Refuses what takes numbers out of tensors by another way than an operation."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name == "__get__":  # of an attribute
            name = getattr(getattr(func, "__self__", None), "__name__", "")
        if name in _READ_OUT | _OF_GRADIENTS and not self.recorder.busy:
            what = (
                f"numbers taken out of a tensor by {name}"
                if name in _READ_OUT
                else f"{name} of a tensor within the step"
            )
            raise self.recorder.refuse(Unsupported(f"{what} at {line_of_cell()}"))
        return func(*args, **(kwargs or {}))


_READ_OUT = {
    "numpy", "__array__", "tolist", "__repr__", "__str__", "__format__", "untyped_storage", "storage", "data_ptr", "__dlpack__",
    "__reduce_ex__", "__deepcopy__",
}  # fmt: skip
_OF_GRADIENTS = {"register_hook", "register_post_accumulate_grad_hook", "retain_grad", "grad_fn", "is_leaf", "grad"}
_SHAPES = {
    "view", "t", "transpose.int", "permute", "unsqueeze", "squeeze.dim", "select.int", "slice.Tensor", "split.Tensor", "unbind.int",
    "clone", "sum.dim_IntList", "mean.dim", "_softmax", "native_layer_norm",
}  # fmt: skip


def _has(result: Any, batch: int) -> bool:
    return any(batch in t.shape for t in _tensors(result))


def _check_result(tensor: Tensor, value: Symbol) -> None:
    if tuple(tensor.shape) != value.shape:
        raise Unsupported(f"its result is {list(tensor.shape)}, and was read as {list(value.shape)}")
    if (tensor.dtype == torch.bool) != value.boolean and value.rows.size:
        raise Unsupported("it does arithmetic with truth values")


def _check_type(dtype: torch.dtype | None, wanted: torch.dtype) -> None:
    if dtype not in (None, wanted, torch.bool):
        raise Unsupported(f"a value of type {dtype} in a step of {wanted}")


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _is_wider(dtype: torch.dtype, wanted: torch.dtype) -> bool:
    return dtype.is_floating_point and dtype.itemsize > wanted.itemsize


def check_memory(tensor: Tensor, what: str, device: torch.device) -> None:
    """Raises: Unsupported where a tensor's numbers do not simply lie in a device's memory."""
    if tensor.layout is not torch.strided or tensor.device != device or tensor.is_quantized or tensor.is_neg():
        raise Unsupported(f"{what} is not a dense tensor on {device}, but {tensor.layout} on {tensor.device}")
    if tensor.is_complex():
        raise Unsupported(f"{what} holds complex numbers")


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for v in value:
            yield from _tensors(v)
    elif isinstance(value, dict):
        for v in value.values():
            yield from _tensors(v)


def _replace(value: Any, known: Any, constants: bool = False) -> Any:
    """Tensors by their symbols; with `constants`, constants by their tensors."""
    if isinstance(value, Tensor) and not constants:
        return known[id(value)]
    if isinstance(value, Constant) and constants:
        return known[value.index]
    if isinstance(value, tuple | list):
        return type(value)(_replace(v, known, constants) for v in value)
    if isinstance(value, dict):
        return {k: _replace(v, known, constants) for k, v in value.items()}
    return value


def _text(value: Any) -> str:
    if isinstance(value, Constant):
        return f"#{value.index}"
    if isinstance(value, tuple | list):
        return ", ".join(_text(v) for v in value)
    return repr(value) if value != {} else ""


def line_of_cell() -> str:
    """The innermost line outside PyTorch, this room and what our cells have in common, which is the cell's; PyTorch's own where
    there is none."""
    frame = sys._getframe(1)
    last = ""
    while frame is not None:
        path = frame.f_code.co_filename
        if "scanning" in path and "throughtime" in path:
            if path.endswith("capture.py") and frame.f_code.co_name == "_run":
                break
        elif path != base.__file__ and "/torch/" not in path.replace("\\", "/"):
            return f"{path}:{frame.f_lineno}"
        elif not last and "/nn/" in path.replace("\\", "/"):
            last = f"{path}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return last or "an unknown line"
