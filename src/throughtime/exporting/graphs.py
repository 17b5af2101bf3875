"""A network of a trained model as one graph of ONNX, and that graph beside the network itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import torch
from onnx import GraphProto, ModelProto, helper
from torch import Tensor

from throughtime.errors import UserError
from throughtime.exporting.agreement import TOLERANCE
from throughtime.exporting.scans import unmarked
from throughtime.exporting.tracing import trace
from throughtime.tasks.networks import Network

TRACED = (7, 3, 11, 5, 13)  # sizes of the axes that a network is traced with: none is 0 or 1, none is like another
COMPARED = ((1, 1, 1, 1, 1), (5, 2, 7, 3, 4), (23, 4, 9, 6, 8))  # and those at which its graph is run


def sizes_of(network: Network, sizes: Sequence[int]) -> dict[str, int]:
    """A size for each axis of a network, in their order."""
    return {a: max(n, network.fewest.get(a, 1)) for a, n in zip(network.axes, sizes, strict=False)}


def graph_of(network: Network, *, int8: bool = False) -> ModelProto:
    """A network as ONNX, its inputs, outputs and axes by their names. int8: of operators that can be put into eight bits.

    Raises: UserError where PyTorch cannot trace it, or an axis does not stay free.
    """
    example = network.example(sizes_of(network, TRACED), torch.Generator().manual_seed(0))
    network.module.eval()
    model, taken = trace(network.module, network.call, example, [given.axes for given in network.inputs])
    unmarked(model, taken, int8=int8)
    _name(model.graph, network)
    model.producer_name = "throughtime"
    onnx.checker.check_model(model)
    return model


def _name(graph: GraphProto, network: Network) -> None:
    """Give what goes in and out its name, and axes theirs. PyTorch's own names are those of its operations."""
    axes: dict[str, str] = {}
    for value, given in zip(graph.input, network.inputs, strict=True):
        for size, axis in zip(value.type.tensor_type.shape.dim, given.axes, strict=True):
            if isinstance(axis, str):
                if not size.dim_param:
                    raise UserError(f"the size {axis} of {given.name} does not stay free")
                axes[size.dim_param] = axis
    for value in [*graph.input, *graph.output, *graph.value_info]:
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = axes.get(size.dim_param, size.dim_param)
    for value, name in zip(graph.output, network.outputs, strict=True):  # what it was may be another output too
        graph.node.append(helper.make_node("Identity", [value.name], [name], name=name))
        value.name = name
    names = {value.name: given.name for value, given in zip(graph.input, network.inputs, strict=True)}
    for value in graph.input:
        value.name = names[value.name]
    _renamed_uses(graph, names)


def _renamed_uses(graph: GraphProto, names: Mapping[str, str]) -> None:
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = names.get(name, name)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _renamed_uses(attribute.g, names)


def differences(network: Network, session: Any, *, exact: bool = True) -> float:
    """Run a graph and its network on the same random inputs, at several sizes; where a state is carried, a second time from where
    each of the two came to. What is chosen by what else the graph gives is to be the network's choice by that.

    Returns: the largest difference of numbers. Raises: UserError where they differ by more than rounding (where `exact`; else where
    shapes do).
    """
    return max(_difference(network, session, sizes_of(network, sizes), exact) for sizes in COMPARED)


def _difference(network: Network, session: Any, sizes: Mapping[str, int], exact: bool) -> float:
    generator, worst = torch.Generator().manual_seed(len(sizes)), 0.0
    where = ", ".join(f"{axis} = {n}" for axis, n in sizes.items())
    own = {given.name: t for given, t in zip(network.inputs, network.example(sizes, generator), strict=True)}
    other = dict(own)
    for _ in range(2 if network.carried else 1):
        with torch.no_grad():
            right = dict(zip(network.outputs, network.call(*own.values()), strict=True))
        found = session.run(list(network.outputs), {name: t.numpy() for name, t in other.items()})
        got = dict(zip(network.outputs, map(torch.from_numpy, found), strict=True))
        for name, choice in network.chosen.items():
            right[name] = choice(other, got)
        for name, value in right.items():
            worst = max(worst, _away(got[name], value, f"{name} differs from the network's at {where}", exact))
        fresh = {given.name: t for given, t in zip(network.inputs, network.example(sizes, generator), strict=True)}
        own = fresh | {given: right[name] for name, given in network.carried.items()}
        other = fresh | {given: got[name] for name, given in network.carried.items()}
    return worst


def _away(got: Tensor, right: Tensor, what: str, exact: bool) -> float:
    if got.shape != right.shape or got.dtype != right.dtype:
        raise UserError(f"{what}: {list(got.shape)} of {got.dtype}, not {list(right.shape)} of {right.dtype}")
    away = (got.double() - right.double()).abs()
    allowed = TOLERANCE * right.double().abs().clamp(min=1) if right.is_floating_point() else torch.zeros_like(away)
    same = (got == right) | (got.isnan() & right.isnan()) | (away <= allowed)
    if exact and not bool(same.all()):
        raise UserError(f"{what}: by {float(away[~same].nan_to_num(torch.inf).max()):.3g}")
    if bool((right.isfinite() & ~got.isfinite()).any()):
        raise UserError(f"{what}: it gives no numbers where the network does")
    finite = away[away.isfinite()]
    return float(finite.max()) if finite.numel() and right.is_floating_point() else 0.0
