"""The contexts of PyTorch in which a layer may find itself: each a function that runs a layer there and returns what came out.

The function does not know whose layer it runs. What it returns is compared, ours with torch.nn's or a loop's, so it returns
whatever ought to be the same: numbers, gradients, how often a hook was called.
"""

from __future__ import annotations

import copy
import io
import multiprocessing
import pickle
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from contexts_subjects import Case, T, everything, tensors_of, weighed
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map


@dataclass(frozen=True)
class Context:
    """One row of the table.

    double: in float64. alike: only shapes, types and devices can be compared. only: subjects it is run for; None: all.
    temperatures: cold, warm or both. missing: why it cannot be run here.
    """

    name: str
    group: str
    run: Callable[[Case], Any]
    double: bool = False
    alike: bool = False
    tolerance: float = 1e-5
    only: tuple[str, ...] | None = None
    temperatures: tuple[str, ...] = ("cold", "warm")
    missing: str | None = None


CONTEXTS: list[Context] = []


def context(group: str, name: str, **options: Any) -> Callable[[Callable[[Case], Any]], Callable[[Case], Any]]:
    def add(run: Callable[[Case], Any]) -> Callable[[Case], Any]:
        CONTEXTS.append(Context(name, group, run, **options))
        return run

    return add


def called(case: Case, weights: dict[str, Tensor], x: Tensor) -> Tensor:
    return functional_call(case.layer, weights, (x,))[0]


# ------------------------------------------------------------------------------------------------ functorch

FUNC = "torch.func"


@context(FUNC, "grad of the inputs")
def _(case):
    return torch.func.grad(lambda x: weighed(case.layer(x)))(case.x)


@context(FUNC, "grad of the weights, by functional_call")
def _(case):
    return torch.func.grad(lambda w: weighed(called(case, w, case.x)))(case.parameters())


@context(FUNC, "vjp")
def _(case):
    y, back = torch.func.vjp(case.outputs, case.x)
    return y, back(torch.ones_like(y))


@context(FUNC, "jvp of the inputs")
def _(case):
    return torch.func.jvp(case.outputs, (case.x,), (torch.ones_like(case.x),))


@context(FUNC, "jvp of the state")
def _(case):
    return torch.func.jvp(lambda s: case.layer(case.x, s)[0], (case.state,), (tree_map(torch.ones_like, case.state),))


@context(FUNC, "jvp of the weights")
def _(case):
    w = case.parameters()
    return torch.func.jvp(lambda w: called(case, w, case.x), (w,), (tree_map(torch.ones_like, w),))


@context(FUNC, "linearize")
def _(case):
    y, push = torch.func.linearize(case.outputs, case.x)
    return y, push(case.other)


@context(FUNC, "jacrev")
def _(case):
    return torch.func.jacrev(case.outputs)(case.x)


@context(FUNC, "jacfwd")
def _(case):
    return torch.func.jacfwd(case.outputs)(case.x)


@context(FUNC, "jacfwd of the weights")
def _(case):
    return torch.func.jacfwd(lambda w: called(case, w, case.x))(case.parameters())


@context(FUNC, "hessian", double=True)
def _(case):
    return torch.func.hessian(lambda x: weighed(case.layer(x)))(case.x)


@context(FUNC, "grad of grad", double=True)
def _(case):
    first = torch.func.grad(lambda x: weighed(case.layer(x)))
    return torch.func.grad(lambda x: weighed(first(x)))(case.x)


@context(FUNC, "vmap over inputs")
def _(case):
    return torch.func.vmap(case.layer)(torch.stack([case.x, case.other, case.x + case.other]))


@context(FUNC, "vmap over states, one input for all")
def _(case):
    states = tree_map(lambda a, b: torch.stack([a, b]), case.state, case.states(4))
    return torch.func.vmap(case.layer, in_dims=(None, 0))(case.x, states)


def _stacked(case: Case) -> dict[str, Tensor]:
    return {n: torch.stack([w, w.flip(0), 2 * w]) for n, w in case.parameters().items()}


@context(FUNC, "vmap over weights, one input for all (an ensemble)")
def _(case):
    return torch.func.vmap(lambda w, x: called(case, w, x), in_dims=(0, None))(_stacked(case), case.x)


@context(FUNC, "vmap over weights and inputs")
def _(case):
    inputs = torch.stack([case.x, case.other, case.x + case.other])
    return torch.func.vmap(lambda w, x: called(case, w, x))(_stacked(case), inputs)


@context(FUNC, "vmap of grad (gradients by example)")
def _(case):
    one = torch.func.grad(lambda w, x: weighed(called(case, w, x)))
    return torch.func.vmap(one, in_dims=(None, 0))(case.parameters(), torch.stack([case.x, case.other]))


@context(FUNC, "functional_call with other weights")
def _(case):
    w = {n: (2 * p).requires_grad_() for n, p in case.parameters().items()}
    y = called(case, w, case.x)
    return y, torch.autograd.grad(weighed(y), list(w.values()))


@context(FUNC, "functional_call, gradient to what the weights are made of")
def _(case):
    scale = torch.tensor(1.5, requires_grad=True)
    y = called(case, {n: p * scale for n, p in case.parameters().items()}, case.x)
    return y, torch.autograd.grad(weighed(y), scale)


# ------------------------------------------------------------------------------------------------ autograd

AUTOGRAD = "torch.autograd"


@context(AUTOGRAD, "functional.jacobian")
def _(case):
    return torch.autograd.functional.jacobian(case.outputs, case.x)


@context(AUTOGRAD, "functional.jacobian(vectorize=True)")
def _(case):
    return torch.autograd.functional.jacobian(case.outputs, case.x, vectorize=True)


@context(AUTOGRAD, "functional.jacobian, forward mode")
def _(case):
    return torch.autograd.functional.jacobian(case.outputs, case.x, vectorize=True, strategy="forward-mode")


@context(AUTOGRAD, "functional.hessian", double=True)
def _(case):
    return torch.autograd.functional.hessian(lambda x: weighed(case.layer(x)), case.x)


@context(AUTOGRAD, "functional.jvp")
def _(case):
    return torch.autograd.functional.jvp(case.outputs, case.x, case.other)


@context(AUTOGRAD, "functional.vjp")
def _(case):
    y = case.outputs(case.x).detach()
    return torch.autograd.functional.vjp(case.outputs, case.x, torch.ones_like(y))


@context(AUTOGRAD, "functional.hvp", double=True)
def _(case):
    return torch.autograd.functional.hvp(lambda x: weighed(case.layer(x)), case.x, case.other)


@context(AUTOGRAD, "grad(is_grads_batched=True)")
def _(case):
    x = case.x.clone().requires_grad_()
    y = case.outputs(x)
    return torch.autograd.grad(y, [x, *case.layer.parameters()], torch.stack([torch.ones_like(y), y.detach()]),
                               is_grads_batched=True, allow_unused=True)  # fmt: skip


@context(AUTOGRAD, "grad(create_graph=True), twice", double=True)
def _(case):
    x = case.x.clone().requires_grad_()
    wanted = [x, *case.layer.parameters()]
    first = torch.autograd.grad(weighed(case.layer(x)), wanted, create_graph=True)
    return first, torch.autograd.grad(weighed(list(first)), wanted)


@context(AUTOGRAD, "grad(retain_graph=True), the same graph twice")
def _(case):
    x = case.x.clone().requires_grad_()
    y = case.outputs(x)
    return [torch.autograd.grad(weighed(y), x, retain_graph=True) for _ in range(2)]


@context(AUTOGRAD, "backward(inputs=...)")
def _(case):
    x, weight = case.x.clone().requires_grad_(), next(case.layer.parameters())
    weighed(case.layer(x)).backward(inputs=[weight])
    grad, weight.grad = weight.grad, None
    return grad, x.grad


@context(AUTOGRAD, "some weights frozen")
def _(case):
    layer = case.make()
    for p in list(layer.parameters())[::2]:
        p.requires_grad_(False)
    return everything(layer, case.x)


@context(AUTOGRAD, "gradcheck", double=True)
def _(case):
    return torch.autograd.gradcheck(case.outputs, case.x.clone().requires_grad_())


@context(AUTOGRAD, "gradcheck, forward mode and batched", double=True)
def _(case):
    x = case.x.clone().requires_grad_()
    return torch.autograd.gradcheck(case.outputs, x, check_forward_ad=True, check_batched_grad=True)


@context(AUTOGRAD, "gradgradcheck", double=True)
def _(case):
    return torch.autograd.gradgradcheck(case.outputs, case.x[:2, :2].clone().requires_grad_())


def _duals(tangents: Callable[[], Any]) -> Any:
    """What was computed of dual numbers: value and tangent of everything."""
    with forward_ad.dual_level():
        parts = [forward_ad.unpack_dual(t) for t in tensors_of(tangents())]
        return [(p.primal, p.tangent) for p in parts]


def _dual(value: Any) -> Any:
    return tree_map(lambda t: forward_ad.make_dual(t, torch.ones_like(t)), value)


@context("Forward AD", "dual inputs")
def _(case):
    return _duals(lambda: case.layer(_dual(case.x)))


@context("Forward AD", "dual inputs, under no_grad")
def _(case):
    with torch.no_grad():
        return _duals(lambda: case.layer(_dual(case.x)))


@context("Forward AD", "dual state")
def _(case):
    return _duals(lambda: case.layer(case.x, _dual(case.state)))


@context("Forward AD", "dual weights")
def _(case):
    return _duals(lambda: called(case, _dual(case.parameters()), case.x))


# ------------------------------------------------------------------------------------------------ graphs

GRAPHS = "Graphs"
_DIM = torch.export.Dim


def _exported(case: Case, *, strict: bool, dims: Any = None, others: tuple[Tensor, ...] = ()) -> Any:
    program = torch.export.export(case.layer, (case.x,), dynamic_shapes=dims, strict=strict)
    module = program.module()
    return [module(x) for x in (case.x, case.other, *others)]


@context(GRAPHS, "torch.export, not strict")
def _(case):
    return _exported(case, strict=False)


@context(GRAPHS, "torch.export, strict")
def _(case):
    return _exported(case, strict=True)


@context(GRAPHS, "torch.export, any batch")
def _(case):
    dims = ({case.batch: _DIM("batch", min=1, max=64)},)
    return _exported(case, strict=False, dims=dims, others=(case.inputs(4, batch=7),))


@context(GRAPHS, "torch.export, strict, any batch")
def _(case):
    dims = ({case.batch: _DIM("batch", min=1, max=64)},)
    return _exported(case, strict=True, dims=dims, others=(case.inputs(4, batch=7),))


@context(GRAPHS, "torch.export, any number of steps")
def _(case):
    dims = ({1 - case.batch: _DIM("time", min=2, max=64)},)
    return _exported(case, strict=False, dims=dims, others=(case.inputs(4, steps=9),))


@context(GRAPHS, "torch.export, saved and loaded")
def _(case):
    file = io.BytesIO()
    torch.export.save(torch.export.export(case.layer, (case.x,)), file)
    file.seek(0)
    return torch.export.load(file).module()(case.other)


@context(GRAPHS, "torch.jit.trace, other data")
def _(case):
    traced = torch.jit.trace(case.layer, (case.x,), check_trace=False)
    return traced(case.x), traced(case.other)


@context(GRAPHS, "torch.jit.trace, under no_grad, with a state")
def _(case):
    with torch.no_grad():
        traced = torch.jit.trace(case.layer, (case.x, case.state), check_trace=False)
        return traced(case.other, case.states(7))


@context(GRAPHS, "torch.jit.trace, another batch")
def _(case):
    traced = torch.jit.trace(case.layer, (case.x,), check_trace=False)
    return traced(case.inputs(4, batch=7))


@context(GRAPHS, "torch.jit.trace, gradients")
def _(case):
    return everything(torch.jit.trace(case.layer, (case.x,), check_trace=False), case.other)


@context(GRAPHS, "torch.jit.script")
def _(case):
    return torch.jit.script(_Outer(case.layer))(case.other)


class _Outer(nn.Module):
    """A model whose only part is the layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


def _onnx(case: Case, **options: Any) -> Any:
    """Whether all operations of the exported graph are ONNX's own, and which recurrent ones there are."""
    file = io.BytesIO()
    torch.onnx.export(case.layer, (case.x,), file, **options)
    graph = _fields(file.getvalue())[7][0]
    nodes = [_fields(node) for node in _fields(graph)[1]]
    kinds = {node[4][0].decode() for node in nodes}
    return not any(node.get(7, [b""])[0] for node in nodes), kinds & {"RNN", "LSTM", "GRU"}


def _fields(message: bytes) -> dict[int, list[bytes]]:
    """The fields of a Protocol Buffers message by number; of those that are numbers, nothing."""
    found: dict[int, list[bytes]] = {}
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while at < len(message):
        key = varint()
        if key & 7 == 0:
            varint()
            continue
        size = {1: 8, 5: 4}.get(key & 7) or varint()
        found.setdefault(key >> 3, []).append(message[at : at + size])
        at += size
    return found


def _lacks(*modules: str) -> str | None:
    missing = [m for m in modules if not _has(m)]
    return f"{' and '.join(missing)} not installed" if missing else None


def _has(module: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(module) is not None


@context(GRAPHS, "torch.onnx.export", missing=_lacks("onnx", "onnxscript"))
def _(case):
    return _onnx(case, dynamo=True, verbose=False)


@context(GRAPHS, "torch.onnx.export(dynamo=False)")
def _(case):
    from torch.onnx._internal.torchscript_exporter import onnx_proto_utils

    if not _has("onnx"):  # which it wants for functions of onnxscript alone
        onnx_proto_utils._add_onnxscript_fn = lambda proto, opsets: proto
    return _onnx(case, dynamo=False)


def _compiled(case: Case, **options: Any) -> Any:
    layer = torch.compile(case.layer, **options)
    return everything(layer, case.x), everything(layer, case.other)


for _backend in ("eager", "aot_eager"):
    for _full in (False, True):

        @context(GRAPHS, f"torch.compile(backend={_backend!r}, fullgraph={_full})")
        def _(case, backend=_backend, full=_full):
            return _compiled(case, backend=backend, fullgraph=full)


@context(GRAPHS, "torch.compile, several sizes (dynamic)")
def _(case):
    layer = torch.compile(case.layer, backend="eager")
    return [layer(case.inputs(4, steps, batch)) for steps, batch in ((5, 2), (6, 3), (9, 7))]


def _no_compiler() -> str | None:
    import shutil

    return None if shutil.which("g++") or shutil.which("clang++") else "no C++ compiler"


@context(GRAPHS, "torch.compile (inductor), under no_grad", only=("GRU", "scan"), missing=_no_compiler())
def _(case):
    with torch.no_grad():
        return torch.compile(case.layer)(case.x)


@context(GRAPHS, "torch.fx.symbolic_trace")
def _(case):
    return torch.fx.symbolic_trace(_Model(case.layer))(case.other)


@context(GRAPHS, "make_fx")
def _(case):
    from torch.fx.experimental.proxy_tensor import make_fx

    with torch.no_grad():
        return make_fx(lambda x: case.outputs(x))(case.x)(case.other)


@context(GRAPHS, "make_fx(tracing_mode='fake')")
def _(case):
    from torch.fx.experimental.proxy_tensor import make_fx

    with torch.no_grad():
        run = make_fx(lambda x: case.outputs(x), tracing_mode="fake", _allow_non_fake_inputs=True)(case.x)
        return run(case.other)


@context(GRAPHS, "make_fx(tracing_mode='symbolic')")
def _(case):
    from torch.fx.experimental.proxy_tensor import make_fx

    with torch.no_grad():
        run = make_fx(lambda x: case.outputs(x), tracing_mode="symbolic", _allow_non_fake_inputs=True)(case.x)
        return run(case.inputs(4, batch=7))


class _Model(nn.Module):
    """A layer among others."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x * 2)[0].sum(-1, keepdim=True).tanh()


# ------------------------------------------------------------------------------------------------ without numbers

EMPTY = "Without numbers"


@context(EMPTY, "FakeTensorMode", alike=True)
def _(case):
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        return everything(case.make(), torch.randn(case.x.shape))


@context(EMPTY, "FakeTensorMode, real weights, under no_grad", alike=True)
def _(case):
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
        return case.layer(mode.from_tensor(case.x))


@context(EMPTY, "with torch.device('meta')", alike=True)
def _(case):
    with torch.device("meta"):
        return everything(case.make(), torch.randn(case.x.shape))


@context(EMPTY, "a layer on meta", alike=True)
def _(case):
    return everything(case.make().to("meta"), case.x.to("meta"))


@context(EMPTY, "built on meta, then to_empty and loaded")
def _(case):
    with torch.device("meta"):
        layer = case.make()
    layer = layer.to_empty(device="cpu")
    layer.load_state_dict(case.layer.state_dict())
    return everything(layer, case.x)


@context(EMPTY, "set_default_device('meta') and back", alike=True)
def _(case):
    torch.set_default_device("meta")
    try:
        return case.make()(torch.randn(case.x.shape))
    finally:
        torch.set_default_device(None)


@context(EMPTY, "set_default_device('meta'), inputs and weights on the CPU")
def _(case):
    torch.set_default_device("meta")
    try:
        return case.layer(case.x, case.state)
    finally:
        torch.set_default_device(None)


# ------------------------------------------------------------------------------------------------ kinds of numbers

KINDS = "Kinds of numbers"


@context(KINDS, "autocast to bfloat16")
def _(case):
    with torch.autocast("cpu", torch.bfloat16):
        return case.layer(case.x)


@context(KINDS, "autocast to bfloat16, under no_grad, with a state")
def _(case):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return case.layer(case.x, case.state)


@context(KINDS, "autocast to bfloat16, gradients")
def _(case):
    with torch.autocast("cpu", torch.bfloat16):
        return everything(case.layer, case.x)


@context(KINDS, "autocast to bfloat16, backward outside it")
def _(case):
    x = case.x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = case.outputs(x)
    return y, torch.autograd.grad(weighed(y.float()), [x, next(case.layer.parameters())])


@context(KINDS, "autocast to float16")
def _(case):
    with torch.autocast("cpu", torch.float16):
        return case.layer(case.x)


@context(KINDS, "autocast within autocast(enabled=False)")
def _(case):
    with torch.autocast("cpu", torch.bfloat16), torch.autocast("cpu", enabled=False):
        return everything(case.layer, case.x)


@context(KINDS, "bfloat16 inputs in autocast")
def _(case):
    with torch.autocast("cpu", torch.bfloat16):
        return case.layer(case.x.bfloat16())


@context(KINDS, "a layer of bfloat16", tolerance=3e-2)
def _(case):
    return case.make().bfloat16()(case.x.bfloat16())


@context(KINDS, "a layer of float64")
def _(case):
    return everything(case.make().double(), case.x.double())


@context(KINDS, "set_default_dtype(float64), a layer of float32")
def _(case):
    torch.set_default_dtype(torch.float64)
    try:
        return everything(case.layer, case.x)
    finally:
        torch.set_default_dtype(torch.float32)


@context(KINDS, "inputs of another type than the weights")
def _(case):
    return case.layer(case.x.double())


# ------------------------------------------------------------------------------------------------ modes of autograd and others

MODES = "Modes"


@context(MODES, "no_grad")
def _(case):
    with torch.no_grad():
        y, s = case.layer(case.x, case.state)
    return y, s, y.requires_grad


@context(MODES, "inference_mode")
def _(case):
    with torch.inference_mode():
        return case.layer(case.x)


@context(MODES, "inference_mode: inputs made there, used outside")
def _(case):
    with torch.inference_mode():
        x = case.x * 1
    with torch.no_grad():
        return case.layer(x)


@context(MODES, "a layer made in inference_mode")
def _(case):
    with torch.inference_mode():
        layer = case.make()
    with torch.no_grad():
        return layer(case.x)


@context(MODES, "use_deterministic_algorithms")
def _(case):
    torch.use_deterministic_algorithms(True)
    try:
        return everything(case.layer, case.x)
    finally:
        torch.use_deterministic_algorithms(False)


@context(MODES, "detect_anomaly")
def _(case):
    with torch.autograd.detect_anomaly(check_nan=True):
        return everything(case.layer, case.x)


@context(MODES, "saved_tensors_hooks (save_on_cpu)")
def _(case):
    with torch.autograd.graph.save_on_cpu():
        return everything(case.layer, case.x)


@context(MODES, "saved_tensors_hooks that pack to NumPy")
def _(case):
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.detach().numpy().copy(), torch.from_numpy):
        return everything(case.layer, case.x)


@context(MODES, "checkpoint(use_reentrant=False)")
def _(case):
    return everything(_Checkpointed(case.layer, False), case.x)


@context(MODES, "checkpoint(use_reentrant=True)")
def _(case):
    x = case.x.clone().requires_grad_()
    weighed(torch.utils.checkpoint.checkpoint(case.layer, x, use_reentrant=True)).backward()
    grads = [p.grad for p in case.layer.parameters()]
    case.layer.zero_grad()
    return x.grad, grads


class _Checkpointed(nn.Module):
    def __init__(self, layer: nn.Module, reentrant: bool) -> None:
        super().__init__()
        self.layer, self.reentrant = layer, reentrant

    def forward(self, x: Tensor) -> Any:
        return torch.utils.checkpoint.checkpoint(self.layer, x, use_reentrant=self.reentrant)


class _LoggingMode(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class _FunctionMode(torch.overrides.TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class _TwiceMode(TorchDispatchMode):
    """Changes what it sees: every tanh comes out doubled."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        return 2 * result if func is torch.ops.aten.tanh.default else result


@context(MODES, "a TorchDispatchMode that logs")
def _(case):
    with _LoggingMode():
        return everything(case.layer, case.x)


@context(MODES, "a TorchDispatchMode that changes tanh", only=("Recurrent", "scan", "scan, own cell"))
def _(case):
    with _TwiceMode(), torch.no_grad():
        return case.layer(case.x)


@context(MODES, "a TorchFunctionMode that logs")
def _(case):
    with _FunctionMode():
        return everything(case.layer, case.x)


@context(MODES, "FlopCounterMode: results")
def _(case):
    from torch.utils.flop_counter import FlopCounterMode

    layer = case.make()
    with FlopCounterMode(display=False):
        weighed(layer(case.x)).backward()
    return [p.grad for p in layer.parameters()]


@context(MODES, "FlopCounterMode: the count, forward")
def _(case):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        case.layer(case.x)
    return counter.get_total_flops()


@context(MODES, "profiler")
def _(case):
    with torch.profiler.profile() as profile:
        found = everything(case.layer, case.x)
    return found, len(profile.key_averages()) > 0


# ------------------------------------------------------------------------------------------------ hooks and subclasses

HOOKS = "Hooks and subclasses"


@context(HOOKS, "hooks of the module: forward, before it, backward, before it")
def _(case):
    layer, seen = case.make(), []
    layer.register_forward_pre_hook(lambda m, args: seen.append("before"))
    layer.register_forward_hook(lambda m, args, result: seen.append("after"))
    layer.register_full_backward_pre_hook(lambda m, g: seen.append("before backward"))
    layer.register_full_backward_hook(lambda m, g, h: seen.append("backward"))
    return everything(layer, case.x), seen


@context(HOOKS, "a forward hook that changes the outputs")
def _(case):
    layer = case.make()
    layer.register_forward_hook(lambda m, args, result: (2 * result[0], result[1]))
    layer.register_forward_pre_hook(lambda m, args: (args[0] + 1, *args[1:]))
    return everything(layer, case.x)


@context(HOOKS, "hooks of every module within (a cell's: each step)")
def _(case):
    layer, seen = case.make(), []
    for module in layer.modules():
        if module is not layer:
            module.register_forward_hook(lambda m, args, result: seen.append(type(m).__name__))
    return everything(layer, case.x), seen


@context(HOOKS, "global module hooks")
def _(case):
    seen = []
    handle = nn.modules.module.register_module_forward_hook(lambda m, args, result: seen.append(m.training))
    try:
        return case.layer(case.x), len(seen)
    finally:
        handle.remove()


@context(HOOKS, "Tensor.register_hook on inputs, outputs and weights")
def _(case):
    layer, seen = case.make(), []
    x = case.x.clone().requires_grad_()
    for p in layer.parameters():
        p.register_hook(lambda g: seen.append(tuple(g.shape)))
    x.register_hook(lambda g: 3 * g)
    y = layer(x)[0]
    y.register_hook(lambda g: 2 * g)
    weighed(y).backward()
    return x.grad, [p.grad for p in layer.parameters()], sorted(seen)


@context(HOOKS, "register_post_accumulate_grad_hook")
def _(case):
    layer, seen = case.make(), []
    for p in layer.parameters():
        p.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))
    weighed(layer(case.x)).backward()
    return len(seen), [p.grad for p in layer.parameters()]


class _Plain(Tensor):
    """A subclass that does nothing."""


class _Twice(Tensor):
    """A subclass that changes an operation: its tanh is doubled."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        result = super().__torch_function__(func, types, args, kwargs or {})
        return 2 * result if func in (torch.tanh, Tensor.tanh) else result


class _OwnParameter(nn.Parameter):
    """A parameter of a class of its own."""


@context(HOOKS, "inputs of a trivial subclass of Tensor")
def _(case):
    x = case.x.as_subclass(_Plain)
    y, s = case.layer(x)
    return torch.autograd.grad(weighed(y), next(case.layer.parameters())), y.as_subclass(Tensor), len(list(tensors_of(s)))


@context(HOOKS, "inputs of a subclass that changes tanh", only=("Recurrent", "scan", "scan, own cell"))
def _(case):
    return case.layer(case.x.as_subclass(_Twice))[0].as_subclass(Tensor)


@context(HOOKS, "weights of a subclass of Parameter")
def _(case):
    layer = case.make()
    for module in layer.modules():
        for name, p in list(module._parameters.items()):
            setattr(module, name, _OwnParameter(p.detach().clone()))
    return everything(layer, case.x)


@context(HOOKS, "inputs of a wrapper subclass (TwoTensor)")
def _(case):
    from torch.testing._internal.two_tensor import TwoTensor

    with torch.no_grad():
        y = case.layer(TwoTensor(case.x, case.other))[0]
    return y.a, y.b


# ------------------------------------------------------------------------------------------------ processes and threads

PROCESSES = "Processes and threads"


class _Runs(torch.utils.data.Dataset):
    """A data set whose items a layer makes, in the worker."""

    def __init__(self, layer: nn.Module, x: Tensor) -> None:
        self.layer, self.x = layer, x

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Tensor:
        with torch.no_grad():
            return self.layer(self.x * (index + 1))[0]


def _loaded(case: Case, way: str) -> Any:
    loader = torch.utils.data.DataLoader(
        _Runs(case.layer, case.x), num_workers=1, multiprocessing_context=way, batch_size=None
    )
    return list(loader)


@context(PROCESSES, "DataLoader, workers by fork")
def _(case):
    return _loaded(case, "fork")


@context(PROCESSES, "DataLoader, workers by spawn", only=("GRU",), temperatures=("warm",))
def _(case):
    return _loaded(case, "spawn")


def _send(case: Case, end: Any) -> None:
    end.send([t.detach().numpy() for t in tensors_of(everything(case.layer, case.x))])


@context(PROCESSES, "multiprocessing by fork, forward and backward")
def _(case):
    end, other = multiprocessing.get_context("fork").Pipe()
    process = multiprocessing.get_context("fork").Process(target=_send, args=(case, other))
    process.start()
    found = [torch.from_numpy(a) for a in end.recv()] if end.poll(30) else None
    process.join(5)
    return found


@context(PROCESSES, "four Python threads at once")
def _(case):
    found: list[Any] = [None] * 4

    def work(i: int) -> None:
        found[i] = everything(case.layer, case.x + i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return found


@context(PROCESSES, "a thread while another is in autocast")
def _(case):
    found: list[Any] = []
    with torch.autocast("cpu", torch.bfloat16):
        thread = threading.Thread(target=lambda: found.append(case.layer(case.x)))
        thread.start()
        thread.join()
    return found


# ------------------------------------------------------------------------------------------------ copies and changed layers

COPIES = "Copies and changed layers"


@context(COPIES, "copy.deepcopy")
def _(case):
    return everything(copy.deepcopy(case.layer), case.x)


@context(COPIES, "pickle")
def _(case):
    return everything(pickle.loads(pickle.dumps(case.layer)), case.x)


@context(COPIES, "torch.save and torch.load of the layer")
def _(case):
    file = io.BytesIO()
    torch.save(case.layer, file)
    file.seek(0)
    return everything(torch.load(file, weights_only=False), case.x)


@context(COPIES, "state_dict, saved and loaded (weights_only)")
def _(case):
    file, layer = io.BytesIO(), case.make()
    torch.save({n: 2 * p for n, p in case.layer.state_dict().items()}, file)
    file.seek(0)
    layer.load_state_dict(torch.load(file, weights_only=True))
    return everything(layer, case.x)


@context(COPIES, "share_memory")
def _(case):
    return everything(case.make().share_memory(), case.x)


@context(COPIES, "weights changed in place, by data and by load_state_dict(assign=True)")
def _(case):
    layer = case.make()
    first = layer(case.x)[0]
    with torch.no_grad():
        for p in layer.parameters():
            p.mul_(2)
    second = layer(case.x)[0]
    layer.load_state_dict({n: 3 * p for n, p in case.parameters().items()}, assign=True)
    return first, second, layer(case.x)[0]


@context(COPIES, "parametrize (weight_norm)")
def _(case):
    layer = case.make()
    inner = next(m for m in layer.modules() if m._parameters)
    name = next(n for n, p in inner._parameters.items() if p is not None and p.dim() == 2)
    torch.nn.utils.parametrizations.weight_norm(inner, name)
    return everything(layer, case.x)




@context(COPIES, "prune.l1_unstructured")
def _(case):
    from torch.nn.utils import prune

    layer = case.make()
    inner = next(m for m in layer.modules() if m._parameters)
    name = next(n for n, p in inner._parameters.items() if p is not None and p.dim() == 2)
    prune.l1_unstructured(inner, name, amount=0.5)
    return everything(layer, case.x)


@context(COPIES, "quantize_dynamic of a model with the layer (ours stays in float32)", tolerance=2e-2)
def _(case):
    import torch.ao.quantization as quantization

    model = quantization.quantize_dynamic(nn.Sequential(case.make()), {nn.LSTM, nn.GRU, nn.Linear}, dtype=torch.qint8)
    with torch.no_grad():
        return model(case.x)


@context(COPIES, "an optimizer's steps")
def _(case):
    layer = case.make()
    optimizer = torch.optim.AdamW(layer.parameters(), 0.01)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = weighed(layer(case.x))
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


@context(COPIES, "swa_utils.AveragedModel")
def _(case):
    averaged = torch.optim.swa_utils.AveragedModel(case.make())
    averaged.update_parameters(case.make())
    return everything(averaged, case.x)


@context(COPIES, "batches and lengths of nothing (B = 0)")
def _(case):
    return case.layer(case.inputs(1, T, 0))


