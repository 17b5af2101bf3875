"""Transforms of functions, derivatives of every kind and order. (See contexts_list.py.)"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._pytree import tree_map

from contexts_list import called, context
from contexts_subjects import Case, everything, tensors_of, weighed

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


@context(FUNC, "linearize", slow=True, only=("GRU", "scan, own cell"))
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


@context(AUTOGRAD, "gradcheck, forward mode and batched", slow=True, double=True)
def _(case):
    x = case.x[:2, :2].clone().requires_grad_()
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
