"""A cell, run once on small tensors under a recorder, as a graph of nodes.

The recorder sees every ATen operation beneath the cell, whoever wrote it. Operations on the cell's own tensors alone are kept to be
done again at every call (weights change); the others are lowered to nodes. Tracing takes a millisecond or two and needs
none of PyTorch's
compiler, so a new process is soon at work.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from throughtime.cells.base import split_result, watching
from throughtime.errors import unknown
from throughtime.scanning import lowering, symbols
from throughtime.scanning.call import Call, leaves, map_leaves, map_states
from throughtime.scanning.evaluate import evaluate, side_by_side
from throughtime.scanning.lowering import Constant, Lowering, Unsupported
from throughtime.scanning.nodes import INPUT, STATE, Graph, Row
from throughtime.scanning.symbols import Symbol
from throughtime.scanning.unchanged import Unchanged

_FILLED = {"zeros": 0.0, "ones": 1.0, "zeros_like": 0.0, "ones_like": 1.0, "new_zeros": 0.0, "new_ones": 1.0}


@dataclass(frozen=True)
class Captured:
    """One step: what it gives, as rows of nodes, and the constants it is made with.

    state: the rows of the new state's tensors. outputs: those of the output and of each record.
    shapes: for each output, its shape behind the batch. state_shapes: likewise for the state.
    """

    graph: Graph
    state: list[Row]
    outputs: list[Row]
    shapes: list[tuple[int, ...]]
    state_shapes: list[tuple[int, ...]]
    input_widths: list[int]
    constants: Constants


class Constants:
    """The cell's own tensors, and what is made of them before the loop, in PyTorch and with its gradients."""

    def __init__(self, names: list[str], dtype: torch.dtype) -> None:
        self.names = names  # of the tensors that `values` is given, in order
        self.dtype = dtype  # of the rows and matrices
        self._recipes: list[Callable[[list[Tensor]], Any]] = []  # how number len(names) + i is made of earlier ones
        self._known: dict[Any, Constant] = {}
        self.vectors: list[tuple[int, tuple[int, ...]]] = []  # (constant, order of its axes), flattened
        self.matrices: list[int] = []
        self.text: list[str] = []

    def derived(self, source: Constant, text: str, function: Callable[[Tensor], Tensor]) -> Constant:
        key = (source.index, text)
        if key not in self._known:
            with torch.device("meta"):
                shape = function(torch.empty(source.shape)).shape
            self._known[key] = self.recipe(
                lambda values: function(values[source.index]), f"#{source.index}{text}", shape, source.dtype
            )
        return self._known[key]

    def recipe(
        self, make: Callable[[list[Tensor]], Any], text: str, shape: Sequence[int], dtype: torch.dtype
    ) -> Constant:
        self._recipes.append(make)
        self.text.append(text)
        return Constant(len(self.names) + len(self._recipes) - 1, shape, dtype)

    def vector(self, index: int, order: Sequence[int]) -> int:
        entry = (index, tuple(order))
        if entry not in self.vectors:
            self.vectors.append(entry)
        return self.vectors.index(entry)

    def matrix(self, index: int) -> int:
        if index not in self.matrices:
            self.matrices.append(index)
        return self.matrices.index(index)

    def evaluate(self, tensors: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The constant rows and the matrices, of the cell's tensors as they are now; all of one type of number."""
        values: list[Any] = list(tensors)
        for make in self._recipes:
            values.append(make(values))
        vectors = [values[i].permute(order).reshape(-1).to(self.dtype) for i, order in self.vectors]
        return vectors, [values[i] for i in self.matrices]


def own_tensors(cell: nn.Module) -> dict[str, Tensor]:
    """Every tensor that is an attribute of the cell or of a module in it, by its path."""
    found: dict[str, Tensor] = {}

    def look(module: nn.Module, path: str) -> None:
        for where in (module.__dict__, module._parameters, module._buffers):
            for name, value in where.items():
                if isinstance(value, Tensor):
                    found.setdefault(path + name, value)
        for name, child in module._modules.items():
            if child is not None:
                look(child, f"{path}{name}.")

    look(cell, "")
    return found


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Lowers each operation as it happens."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or PyTorch would import its compiler for us

    def __init__(self, low: Lowering, constants: Constants, known: dict[int, Any], keep: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.low, self.constants, self.known, self.keep = low, constants, known, keep
        self.first = {id(t) for t in keep}  # the cell's own tensors and the inputs
        self.families: dict[int, int] = {}  # tensor -> the operation that made it, where it made several
        self.stale: dict[int, str] = {}  # tensors written over by way of another

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        overload = func._overloadname
        full = name if overload == "default" else f"{name}.{overload}"
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.is_write and any(id(t) in self.first for t in _tensors(value)):  # before it is done
                what = "it writes over an input, a state or a tensor of the cell in place"
                raise Unsupported(f"aten.{full} at {_line_of_cell()}: {what}")
        result = func(*args, **kwargs)
        try:
            self.record(full, name, func, args, kwargs, result)
        except Unsupported as error:
            raise Unsupported(f"aten.{full} at {_line_of_cell()}: {error}") from None
        except Exception as error:  # a form of the operation that its rule does not know: the reference does
            raise Unsupported(f"aten.{full} at {_line_of_cell()}: its rule fails ({error!r})") from error
        return result

    def record(self, full: str, name: str, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        given = list(_tensors((args, kwargs)))
        for tensor in given:
            if id(tensor) in self.stale:
                raise Unsupported("it reads a tensor that was written over in place by way of a view")
            if id(tensor) not in self.known:
                if name == "lift_fresh":
                    continue
                raise Unsupported("it takes a tensor that is neither given to the cell nor an attribute of it")
        if not torch.is_grad_enabled() and name != "detach":
            raise Unsupported("it runs without gradients (no_grad, or an autograd.Function of its own)")
        if name in ("_local_scalar_dense", "equal", "is_nonzero", "item"):
            raise Unsupported("a number taken out of a tensor, as an `if` on its value does")
        if not isinstance(result, Tensor | tuple | list):
            raise Unsupported("it does not give a tensor")
        written = name.endswith("_") and not name.startswith("__")
        made = self.lower(full, name, func, args, kwargs, result, given, written)
        if written:
            self.write_over(args[0], made)
            return
        results = [result] if isinstance(result, Tensor) else list(result)
        values = [made] if isinstance(result, Tensor) else list(made)
        for tensor, value in zip(results, values, strict=True):
            if tensor is None or value is None:
                continue
            if isinstance(value, Symbol):
                if tuple(tensor.shape) != value.shape:
                    raise Unsupported(f"its result is {list(tensor.shape)}, and was read as {list(value.shape)}")
                if (tensor.dtype == torch.bool) != value.boolean and value.rows.size:
                    raise Unsupported("it does arithmetic with truth values")
            self.known[id(tensor)] = value
            self.keep.append(tensor)
            if len(results) > 1:
                self.families[id(tensor)] = id(values)

    def lower(
        self, full: str, name: str, func: Any, args: Any, kwargs: Any, result: Any, given: list[Tensor], written: bool
    ) -> Any:
        batch = self.low.batch
        dtype = result.dtype if isinstance(result, Tensor) else None
        if name in _FILLED or name in ("full", "full_like", "new_full", "scalar_tensor", "fill_"):
            value = _FILLED.get(name)
            if value is None:
                value = args[{"full": 1, "full_like": 1, "new_full": 2, "scalar_tensor": 0, "fill_": 1}[name]]
            if not isinstance(value, bool | int | float):
                raise Unsupported("a fill with a tensor")
            _check_type(dtype, self.dtype)
            return symbols.expanded(self.low.graph, self.low.number(value), list(result.shape), batch)
        if name in (
            "empty",
            "empty_like",
            "new_empty",
            "empty_strided",
            "rand",
            "randn",
            "rand_like",
            "randn_like",
            "bernoulli",
        ):
            raise Unsupported("it draws numbers, or leaves them unset" if "empty" not in name else "numbers left unset")
        values = [self.known.get(id(t)) for t in given]
        if name == "lift_fresh" and given and id(given[0]) not in self.known:
            literal = given[0]
            return self.constants.recipe(
                lambda _, v=literal: v,  # type: ignore[misc]
                f"literal {literal.flatten()[:8].tolist()}",
                literal.shape,
                literal.dtype,
            )
        if all(isinstance(v, Constant) for v in values) and not _has(result, batch):
            if written:
                raise Unsupported("it writes over a tensor of the cell in place")
            if not given and name not in ("arange", "eye", "linspace", "logspace"):
                raise Unsupported("a tensor made of nothing known")
            return self.constant_recipe(full, func, args, kwargs, result)
        key = full
        if written:
            key = full.replace(name, name[:-1], 1)
        rule = lowering.RULES.get(key) or lowering.RULES.get(key.split(".")[0] if key.split(".")[0] == key else "")
        if name in ("_to_copy",):
            kind = kwargs.get("dtype")
            value = values[0]
            if kind in (None, self.dtype):
                return self.low.as_number(value) if isinstance(value, Symbol) else self.low.value(value)
            if kind == torch.bool and isinstance(value, Symbol):
                return value if value.boolean else self.low.op("ne", value, 0.0)
            raise Unsupported(f"a value of type {kind}")
        if rule is None:
            raise Unsupported("an operation the engine does not have")
        for t in _tensors(result):
            if name not in ("argmax", "argmin"):
                _check_type(t.dtype, self.dtype)
            if t.dtype == torch.bool:  # PyTorch compares in the wider type, the compiled step in its own
                for v in values:
                    if isinstance(v, Constant) and v.shape and _is_wider(v.dtype, self.dtype):
                        raise Unsupported(f"a comparison with a constant of {v.dtype} in a step of {self.dtype}")
        replaced = _replace((args, kwargs), self.known)
        args, kwargs = replaced
        kwargs = {
            k: v for k, v in kwargs.items() if k not in ("dtype", "layout", "device", "pin_memory", "memory_format")
        }
        if (
            rule.__code__.co_argcount > 1
            and args
            and isinstance(args[0], Constant)
            and name not in ("mm", "expand", "addmm")
            and (full in _SHAPES)
        ):
            args = (self.low.value(args[0]), *args[1:])
        return rule(self.low, *args, **{{"self": "a"}.get(k, k): v for k, v in kwargs.items()})

    def constant_recipe(self, full: str, func: Any, args: Any, kwargs: Any, result: Any) -> Any:
        """An operation on constants: done again at every call."""
        known = self.known

        def make(values: list[Tensor]) -> Any:
            real_args, real_kwargs = _replace((spec_args, spec_kwargs), values, constants=True)
            return func(*real_args, **real_kwargs)

        spec_args, spec_kwargs = _replace((args, kwargs), known)
        text = f"{full}({_text(spec_args)}{_text(spec_kwargs)})"
        for t in _tensors(result):
            _check_memory(t, "its result")
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
        if id(tensor) in self.first:
            raise Unsupported("it writes over an input, a state or a tensor of the cell in place")
        if isinstance(value, Symbol) and value.shape != tuple(tensor.shape):
            raise Unsupported("it writes in place over a tensor of another shape")
        for other in self.keep:
            if other is tensor or other.untyped_storage().data_ptr() != tensor.untyped_storage().data_ptr():
                continue
            family = self.families.get(id(other))
            if family is None or family != self.families.get(id(tensor)):
                self.stale[id(other)] = "written"
        self.known[id(tensor)] = value

    dtype: torch.dtype = torch.float32


_SHAPES = {
    "view", "t", "transpose.int", "permute", "unsqueeze", "squeeze.dim", "select.int", "slice.Tensor", "split.Tensor", "unbind.int",
    "clone", "sum.dim_IntList", "mean.dim", "_softmax", "native_layer_norm",
}  # fmt: skip


def _has(result: Any, batch: int) -> bool:
    return any(batch in t.shape for t in _tensors(result))


def _check_type(dtype: torch.dtype | None, wanted: torch.dtype) -> None:
    if dtype not in (None, wanted, torch.bool):
        raise Unsupported(f"a value of type {dtype} in a step of {wanted}")


def _is_wider(dtype: torch.dtype, wanted: torch.dtype) -> bool:
    return dtype.is_floating_point and dtype.itemsize > wanted.itemsize


def _check_memory(tensor: Tensor, what: str) -> None:
    """Raises: Unsupported where a tensor's numbers do not simply lie in memory."""
    if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized or tensor.is_neg():
        raise Unsupported(f"{what} is not a dense tensor on the CPU, but {tensor.layout} on {tensor.device}")
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


def _line_of_cell() -> str:
    """The innermost line outside PyTorch and this room, which is the cell's; PyTorch's own where there is none."""
    frame = sys._getframe(1)
    last = ""
    while frame is not None:
        path = frame.f_code.co_filename
        if "scanning" in path and "throughtime" in path:
            if path.endswith("capture.py") and frame.f_code.co_name == "_run":
                break
        elif "/torch/" not in path.replace("\\", "/"):
            return f"{path}:{frame.f_lineno}"
        elif not last and "/nn/" in path.replace("\\", "/"):
            last = f"{path}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return last or "an unknown line"


@torch.inference_mode(False)  # in it the operations that are traced would be others
def capture(call: Call) -> Captured:
    """Trace the cell of a call.

    Raises: Unsupported where the engine cannot compile it, naming the operation and its line.
    """
    with Unchanged(call.cell) as before:
        captured = _capture(call)
        _check(captured, call)
    if before.changed is not None:
        raise Unsupported(before.changed)
    return captured


def _capture(call: Call) -> Captured:
    cell = call.cell
    dtype = leaves(call.inputs)[0].dtype
    own = own_tensors(cell)
    for name, tensor in own.items():
        _check_memory(tensor, f"its tensor {name!r}")
    given = leaves(call.inputs)
    states = call.state if isinstance(call.state, tuple) else (call.state,)
    sizes: set[int] = set()  # that the batch must not be taken for
    for shape in (*(t.shape for t in own.values()), *(t.shape[2:] for t in given), *(t.shape[1:] for t in states)):
        sizes.update(shape)
    sizes.add(call.batch)  # nor for that of the call, with which the result is checked
    batch = next((p for p in _PRIMES if p not in sizes), None)
    if batch is None:
        raise Unsupported(f"its sizes are all of {_PRIMES[0]} … {_PRIMES[-1]}, so that none can stand for the batch")
    graph = Graph()
    constants = Constants(list(own), dtype)
    low = Lowering(graph, batch, constants)

    known: dict[int, Any] = {}
    keep: list[Tensor] = []
    for index, tensor in enumerate(own.values()):
        known[id(tensor)] = Constant(index, tensor.shape, tensor.dtype)
        keep.append(tensor)

    def stand_in(kind: str, index: int, tensor: Tensor, shape: Sequence[int], flags: int) -> Tensor:
        if tensor.dtype != dtype:
            raise Unsupported(f"inputs and states of {dtype} and {tensor.dtype} together")
        small = torch.full((batch, *shape), 0.5, dtype=dtype, device="cpu", requires_grad=True)
        keep.append(small)
        width = 1
        for n in shape:
            width *= n
        if width == 0:
            raise Unsupported("an input or a state without features")
        symbol = Symbol((batch, width), "bl", symbols.whole([graph.leaf(kind, index, width, 0, flags)]))
        if len(shape) != 1:
            symbol = symbols.reshaped(graph, symbol, (batch, *shape))
        known[id(small)] = symbol
        return small

    numbers = iter(range(len(given)))
    x = map_leaves(lambda t: stand_in("x", next(numbers), t, t.shape[2:], INPUT), call.inputs)
    places = iter(range(len(states)))
    state = map_states(lambda t: stand_in("s", next(places), t, t.shape[1:], STATE), call.state)

    recorder = _Recorder(low, constants, known, keep)
    recorder.dtype = dtype
    try:
        output, new, seen = _run(cell, x, state, recorder, bool(call.record))
    except Unsupported:
        raise
    except Exception as error:  # the reference will meet it too, on the user's own tensors
        raise Unsupported(f"the cell fails on a batch of {batch}: {type(error).__name__}: {error}") from error
    new_states = new if isinstance(new, tuple) else (new,)
    for old, tensor in zip(states, new_states, strict=True):
        if tensor.shape[1:] != old.shape[1:] or tensor.shape[0] != batch:
            raise Unsupported(f"the cell turns a state [B, {_sizes(old)}] into {list(tensor.shape)}")
        if tensor.dtype != dtype:
            raise Unsupported(f"the cell turns a state of {dtype} into one of {tensor.dtype}")
    wanted = [new_states[0] if output is None else output]
    for name in call.record:
        if name not in seen:
            raise ValueError(unknown("record", name, seen))
        wanted.append(seen[name])
    for name, tensor in zip(("its output", *call.record), wanted, strict=True):
        if tensor.dim() == 0 or tensor.shape[0] != batch or tensor.dtype != dtype:
            raise Unsupported(f"{name} is {list(tensor.shape)} of {tensor.dtype}, not [B, ...] of {dtype}")

    def row_of(tensor: Tensor, what: str) -> Row:
        value = known.get(id(tensor))
        if id(tensor) in recorder.stale:
            raise Unsupported(f"{what} was written over in place by way of a view")
        if isinstance(value, Constant):
            raise Unsupported(f"{what} is the same at every step and in every sequence")
        if value is None:
            raise Unsupported(f"{what} does not come from the cell's inputs and tensors")
        return symbols.flat_row(graph, low.as_number(value))

    return Captured(
        graph,
        [row_of(t, "the new state") for t in new_states],
        [row_of(t, "the output" if i == 0 else f"the record {call.record[i - 1]!r}") for i, t in enumerate(wanted)],
        [tuple(t.shape[1:]) for t in wanted],
        [tuple(t.shape[1:]) for t in states],
        [math.prod(t.shape[2:]) for t in given],
        constants,
    )


def _check(captured: Captured, call: Call) -> None:
    """Set a step of the cell beside the same step as it was captured, on random numbers of other batches than it was captured with.

    So what was taken for a constant and is not (a number that hangs on the batch) does not go unseen, whatever it was.
    Raises: Unsupported where they differ every time. (Once may be chance: a step at a threshold.)
    """
    tolerance = 1e-3 if captured.constants.dtype == torch.float32 else 1e-7
    draw = torch.Generator().manual_seed(call.batch)
    batch = min(call.batch, _MOST_CHECKED) or 2
    values = list(own_tensors(call.cell).values())
    with torch.no_grad():
        vectors, matrices = captured.constants.evaluate(values)
    for _ in range(_TRIES):
        given, state = (
            map_leaves(lambda t, s=start: torch.randn(batch, *t.shape[s:], generator=draw, dtype=t.dtype), tensors)  # type: ignore[misc]
            for tensors, start in ((call.inputs, 2), (call.state, 1))
        )
        try:
            with torch.enable_grad(), watching() as seen:
                output, new = split_result(call.cell(given, state), state)
        except Exception as error:
            raise Unsupported(f"the cell fails on a batch of {batch}: {type(error).__name__}: {error}") from error
        first = new[0] if isinstance(new, tuple) else new
        shown = [*(new if isinstance(new, tuple) else (new,)), first if output is None else output]
        shown += [seen[name] for name in call.record]
        rows = {"x": [t.reshape(batch, -1) for t in leaves(given)], "s": [t.reshape(batch, -1) for t in leaves(state)], "v": vectors}
        nodes = [n for row in (*captured.state, *captured.outputs) for n in row]
        with torch.no_grad():
            found = evaluate(nodes, lambda kind, i, rows=rows: rows[kind][i], matrices, rows["s"][0])  # type: ignore[misc]
        parts = iter(found)
        same = True
        for row, right in zip((*captured.state, *captured.outputs), shown, strict=True):
            value = side_by_side(row, [next(parts) for _ in row]).expand(batch, -1)
            same = same and value.numel() == right.numel()
            same = same and torch.allclose(value, right.detach().reshape(batch, -1), tolerance, tolerance, equal_nan=True)
        if same:
            return
    raise Unsupported("a step of it gives other numbers than what was captured: something in it hangs on more than its tensors")


_MOST_CHECKED = 32  # rows
_TRIES = 3


def _sizes(tensor: Tensor) -> str:
    return ", ".join(map(str, tensor.shape[1:]))


def _run(cell: nn.Module, x: Any, state: Any, recorder: _Recorder, watch: bool) -> Any:
    with torch.enable_grad(), recorder:
        if watch:
            with watching() as seen:
                result = cell(x, state)
        else:
            seen, result = {}, cell(x, state)
    output, new = split_result(result, state)
    return output, new, seen


_PRIMES = (
    13,
    17,
    19,
    23,
    29,
    31,
    37,
    41,
    43,
    47,
    53,
    59,
    61,
    67,
    71,
    73,
    79,
    83,
    89,
    97,
    101,
    103,
    107,
    109,
    113,
    127,
    131,
    137,
)
