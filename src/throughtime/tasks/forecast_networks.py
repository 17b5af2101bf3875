"""What of a forecaster is exported: one network, which reads windows, or a series value by value.

Shapes: B windows or series, L steps that are known, H horizon, T steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from throughtime.tasks.networks import Input, Network, below, flat, lengths, like, normal, states
from throughtime.tasks.quantiles import LEVELS

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from throughtime.models.forecaster import Forecaster
    from throughtime.models.stepwise import Stepwise

NAMED = ", ".join(f"{level:g}" for level in LEVELS)


def networks_of(network: Forecaster | Stepwise) -> list[Network]:
    """Of a forecaster."""
    from throughtime.models.forecaster import Forecaster

    return [_of_windows(network)] if isinstance(network, Forecaster) else [_of_steps(network)]


def _of_windows(network: Forecaster) -> Network:
    from throughtime.models.forecaster import Window

    sizes: Any = network.members[0].sizes
    steps = sizes.history + sizes.horizon
    covariates = {  # those that there are
        "known": (
            steps,
            sizes.known,
            "what is known ahead at each step of the window and of the horizon, as `series.json` names it",
        ),
        "past": (sizes.history, sizes.past, "what is known at each step of the window alone"),
    }
    inputs = [
        Input("values", ("B", sizes.history), "the last values, less the last that is known; NaN where missing", _with_gaps),
        Input("scale", ("B",), "by what they are divided", _over_zero),
        Input("series", ("B",), "number of each series; 0: not of training", below(sizes.series)),
        *(Input(n, ("B", *shape), said, normal) for n, (*shape, said) in covariates.items() if shape[1]),
        *([Input("static", ("B", sizes.static), "which of its kinds each series is of, 1 or 0", normal)] if sizes.static else []),
    ]  # fmt: skip
    names = [given.name for given in inputs]

    def forecast(*tensors: Tensor) -> tuple[Tensor]:
        given = dict(zip(names, tensors, strict=True))
        values, scale = given["values"], given["scale"]
        batch = values.shape[0]
        none = {n: values.new_zeros(batch, *shape) for n, (*shape, _) in covariates.items()}
        none |= {"static": values.new_zeros(batch, sizes.static)}
        parts = {n: given.get(n, none[n]) for n in ("known", "past", "static")}
        unused = {"naive": values, "level": scale, "target": values}
        return (network.quantiles(Window(values=values, scale=scale, series=given["series"], **parts, **unused)),)

    said = {"quantiles": f"of each step to come, less the last value that is known; the quantiles {NAMED}"}
    return Network("forecaster", network, forecast, tuple(inputs), said)


def _of_steps(network: Stepwise) -> Network:
    import torch

    stack, horizon = network.stack, network.horizon
    first = stack.initial_state(1)
    given, outputs, carried = states(first)
    steps = "the value less the first of its series and in its scale, 0 where missing; 1 or 0, whether it is there; covariates"
    inputs = [
        Input("steps", ("T", "B", stack.input_size), steps, normal),
        Input("lengths", ("B",), "steps of each series", lengths("T")),
        *([Input("known", ("B", horizon, network.known), "what is known of each step to come", normal)] if network.known else []),
    ]  # fmt: skip

    def forecast(steps: Tensor, lengths: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        batch, ahead = steps.shape[1], len(inputs) - 2
        known = rest[0] if ahead else steps.new_zeros(batch, horizon, 0)
        read, end = stack(steps, like(first, list(rest[ahead:])), lengths=lengths)
        found, _ = network.answer(read[lengths - 1, torch.arange(batch)], known)
        return found, *flat(end)

    said = {
        "quantiles": f"of each step to come, less the first value and in the scale of its series; the quantiles {NAMED}"
    }
    return Network("forecaster", network, forecast, (*inputs, *given), said | outputs, carried)


def _with_gaps(shape: tuple[int, ...], sizes: Mapping[str, int], generator: torch.Generator) -> Tensor:
    import torch

    found = normal(shape, sizes, generator)
    return found.masked_fill(torch.rand(shape, generator=generator) < 0.1, torch.nan)


def _over_zero(shape: tuple[int, ...], sizes: Mapping[str, int], generator: torch.Generator) -> Tensor:
    return normal(shape, sizes, generator).abs() + 0.5
