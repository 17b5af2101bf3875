"""What makes a graph of a layer, or runs it without numbers. (See contexts_list.py.)"""

from __future__ import annotations

import importlib.util
import io
import shutil
from typing import Any

import torch
from torch import Tensor, nn

from contexts_list import context
from contexts_subjects import Case, everything, tensors_of, weighed

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


@context(GRAPHS, "torch.export, strict", slow=True)
def _(case):
    return _exported(case, strict=True)


@context(GRAPHS, "torch.export, any batch", slow=True)
def _(case):
    dims = ({case.batch: _DIM("batch", min=1, max=64)},)
    return _exported(case, strict=False, dims=dims, others=(case.inputs(4, batch=7),))


@context(GRAPHS, "torch.export, strict, any batch", slow=True)
def _(case):
    dims = ({case.batch: _DIM("batch", min=1, max=64)},)
    return _exported(case, strict=True, dims=dims, others=(case.inputs(4, batch=7),))


SIZES = ((5, 2), (9, 7), (3, 1), (1, 3))  # steps and sequences


def _plainly(case: Case) -> Any:
    return [everything(case.layer, case.inputs(4, *size)) for size in SIZES]


def _open(case: Case, *, strict: bool = False) -> Any:
    """A graph in which both stay open."""
    dims = ({0: _DIM.DYNAMIC, 1: _DIM.DYNAMIC},)
    return torch.export.export(case.layer, (case.x,), dynamic_shapes=dims, strict=strict)


for _strict in (False, True):

    @context(
        GRAPHS,
        f"torch.export{', strict' * _strict}, any number of steps and sequences, gradients",
        slow=True,
        right=_plainly,
    )
    def _(case, strict=_strict):
        module = _open(case, strict=strict).module()
        return [_step_of_training(case, module, case.inputs(4, *size)) for size in SIZES]


def _step_of_training(case: Case, module: nn.Module, x: Tensor) -> Any:
    """As `everything`, of a module of a graph, in the order of the layer's own weights."""
    x = x.detach().clone().requires_grad_()
    result = module(x)
    named = dict(module.named_parameters())
    weights = [named.get(name, weight) for name, weight in case.layer.named_parameters()]
    return [result, torch.autograd.grad(weighed(result), [x, *weights])]


@context(GRAPHS, "torch.export, saved and loaded", slow=True, right=lambda case: [run[0] for run in _plainly(case)])
def _(case):
    file = io.BytesIO()
    torch.export.save(_open(case), file)
    file.seek(0)
    module = torch.export.load(file).module()
    return [module(case.inputs(4, *size)) for size in SIZES]


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
    return importlib.util.find_spec(module) is not None


@context(GRAPHS, "torch.onnx.export", missing=_lacks("onnx", "onnxscript"))
def _(case):
    return _onnx(case, dynamo=True, verbose=False)


@context(
    GRAPHS,
    "torch.onnx.export, any number of steps and sequences, run by onnxruntime",
    slow=True,
    missing=_lacks("onnx", "onnxscript", "onnxruntime"),
    right=lambda case: [list(tensors_of(run[0])) for run in _plainly(case)],
)
def _(case):
    import onnxruntime

    file = io.BytesIO()
    torch.onnx.export(_open(case), (), file, verbose=False)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    (name,) = (given.name for given in session.get_inputs())
    runs = [session.run(None, {name: case.inputs(4, *size).numpy()}) for size in SIZES]
    return [[torch.from_numpy(value) for value in run] for run in runs]


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

        @context(GRAPHS, f"torch.compile(backend={_backend!r}, fullgraph={_full})", slow=_backend != "eager" or _full)
        def _(case, backend=_backend, full=_full):
            return _compiled(case, backend=backend, fullgraph=full)


@context(GRAPHS, "torch.compile, several sizes (dynamic)", slow=True)
def _(case):
    layer = torch.compile(case.layer, backend="eager")
    return [layer(case.inputs(4, steps, batch)) for steps, batch in ((5, 2), (6, 3), (9, 7))]


@context(GRAPHS, "torch.compile(dynamic=True), several sizes, gradients", slow=True, right=_plainly)
def _(case):
    layer = torch.compile(case.layer, backend="aot_eager", dynamic=True)
    return [_step_of_training(case, layer, case.inputs(4, *size)) for size in SIZES]


def _no_compiler() -> str | None:
    return None if shutil.which("g++") or shutil.which("clang++") else "no C++ compiler"


@context(GRAPHS, "torch.compile (inductor), under no_grad", slow=True, only=("GRU", "scan"), missing=_no_compiler())
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


@context(GRAPHS, "make_fx(tracing_mode='symbolic')", slow=True)
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
