"""Hooks, subclasses, copies, and layers that are changed. (See contexts_list.py.)"""

from __future__ import annotations

import copy
import io
import pickle

import torch
from torch import Tensor, nn

from contexts_list import context
from contexts_subjects import T, everything, tensors_of, weighed

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
    return (
        torch.autograd.grad(weighed(y), next(case.layer.parameters())),
        y.as_subclass(Tensor),
        len(list(tensors_of(s))),
    )


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
