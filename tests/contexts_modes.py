"""Kinds of numbers, modes, processes and threads. (See contexts_list.py.)"""

from __future__ import annotations

import multiprocessing
import threading
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from contexts_list import context
from contexts_subjects import Case, everything, tensors_of, weighed

# ------------------------------------------------------------------------------------------------ kinds of numbers

KINDS = "Kinds of numbers"


@context(KINDS, "autocast to bfloat16", tolerance=1e-2)
def _(case):
    with torch.autocast("cpu", torch.bfloat16):
        return case.layer(case.x)


@context(KINDS, "autocast to bfloat16, under no_grad, with a state", tolerance=1e-2)
def _(case):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return case.layer(case.x, case.state)


@context(KINDS, "autocast to bfloat16, gradients", tolerance=3e-2)
def _(case):
    with torch.autocast("cpu", torch.bfloat16):
        return everything(case.layer, case.x)


@context(KINDS, "autocast to bfloat16, backward outside it", tolerance=3e-2)
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


@context(KINDS, "bfloat16 inputs in autocast", tolerance=1e-2)
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


@context(PROCESSES, "DataLoader, workers by spawn", slow=True, only=("GRU",), temperatures=("warm",))
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
