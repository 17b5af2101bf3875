"""Everything that can be seen of a network on somebody's input, as plain values: what the page, the JSON and the pictures show."""

from __future__ import annotations

import itertools
import warnings
from collections import defaultdict
from typing import Any

import numpy as np
import torch

from throughtime.config import build_options
from throughtime.errors import UserError
from throughtime.inspect.finding import content_output, held_for, used_for
from throughtime.inspect.gradients import Curve, gradients_of, gradients_of_each, summarise
from throughtime.inspect.influence import influence
from throughtime.inspect.jacobian import LARGEST, stretching
from throughtime.inspect.stacks import Layer, looked_into
from throughtime.inspect.units import (
    features_of,
    followers,
    gates_of,
    openness,
    order_of,
    state_of,
    time_constants,
)
from throughtime.tasks.base import Advance, Trained, ignore
from throughtime.tasks.look import Look, visible

STEPS = 100  # of an input that is shown; of a text without lines, in a piece
MOST = 50  # inputs that gradients and units are averaged over
PAIRS = 40_000  # of an output and an input, that are told of one by one
FAINT = 1e-6  # what is left of a gradient, under which the curve of one output ends


def look_into(
    model: Trained[Any],
    given: Any,
    *,
    output: int | None = None,
    most: int = MOST,
    advance: Advance = ignore,
    **options: Any,
) -> dict[str, Any]:
    """What a network remembers of inputs: the first is shown whole, gradients and units are averaged over up to `most`.

    Args: given: a text, or many; a `Path` or an open file: what stands in it; a language model reads lines as one text. output: the
        answer of the first input that is shown first, by its number; None: the last that carries content, else the least certain.
        advance: told of each input done. options: as the task's `inspect_options`, for reading a file.
    Returns: what JSON can hold; docs/inspect.md lists it.
    Raises: UserError where there is nothing to look into, no such output or option, or the weights are in int8.
    """
    if model.in_int8:
        raise UserError(f"{model.run.folder}: weights in int8 have no gradients; inspect the run they were rounded of")
    reading = build_options(model.task.inspect_options, options)
    source = model.task.source(model.config, [given] if isinstance(given, str) else given, reading)
    pieces = (item for item in model.pieces(source, STEPS, reading) if not model.empty(item))
    items = [model.shown(item) for item in itertools.islice(pieces, most)]
    if not items:
        raise UserError("the input is empty: there is nothing to look into")
    if len(items) == most and next(pieces, None) is not None:
        warnings.warn(
            f"there are more inputs than {most:,}: the first {most:,} are looked into (--inputs)", stacklevel=2
        )
    unseen = model.unseen(items[0])
    if unseen:
        warnings.warn(
            f"the model never saw these, and reads them as unknown: {' '.join(map(visible, unseen))}", stacklevel=2
        )
    first = model.look(items[0])
    count = len(first.outputs)
    if output is not None and not -count <= output < count:
        raise UserError(f"--output: got {output}; the first input has outputs 0 to {count - 1}")
    number = None if output is None else range(count)[output]
    curves: dict[str, list[Curve]] = defaultdict(list)
    seen: dict[str, list[_Course]] = defaultdict(list)
    shown: list[Layer] = []
    for i, item in enumerate(items):
        look = model.look(item) if i else first
        if number is None or len(look.outputs) > number:
            for name, curve in gradients_of(model, look, number).items():
                curves[name].append(curve)
        with torch.no_grad(), looked_into(model, look) as layers:
            scores = look.score(look.batch)
        for layer in layers():
            seen[layer.name].append(_Course(layer, look))
        if i == 0:
            shown, score = layers(), scores
        advance(1)
    number = content_output(first, score.tolist()) if number is None else number
    found = {name: summarise(many) for name, many in curves.items()}
    single = _single(model, first, number)
    held = held_for(shown, found)
    inputs = first.inputs
    return {
        "run": str(model.run.folder),
        "task": model.config.task,
        "finding": " ".join([*(one["finding"] for one in single if one["output"] == number), held]),
        "memory": held,
        "inputs": inputs.labels,
        "input_texts": inputs.texts,
        "input_values": None if inputs.values is None else _short(inputs.values.tolist()),
        "outputs": first.outputs.labels,
        "about": None if first.about is None else list(first.about),
        "probabilities": [_short(p) for p in score.exp()],
        "likeliest": _likeliest(first),
        "discrete": first.discrete or first.distribution is not None,
        "averaged_over": len(items),
        "shown": number,
        "layers": [_layer(layer, seen[layer.name], first) for layer in shown],
        "gradients": {name: _short(one.as_json()) for name, one in found.items()},
        "influence": single,
    }


def _single(model: Trained[Any], look: Look, shown: int) -> list[dict[str, Any]]:
    """What each output by itself was made of: of all, or of as many around the one that is shown as PAIRS allows."""
    count = len(look.outputs)
    told = min(count, max(PAIRS // len(look.inputs), 1))
    first = min(max(shown - told // 2, 0), count - told)
    outputs = range(first, first + told)
    if told < count:
        warnings.warn(
            f"what mattered is told of {told:,} of {count:,} outputs, {first} to {first + told - 1} (--output takes others)",
            stacklevel=3,
        )
    curves = gradients_of_each(model, look, outputs)
    return [
        _short(one.as_json() | {"finding": used_for(look, one), "through_time": _followed(curve)}, 3)
        for one, curve in zip(influence(model, look, outputs), curves, strict=True)
    ]


def _followed(curves: dict[str, Curve]) -> dict[str, list[float]]:
    """What is left of the gradient of an output in each layer, by steps back, as far as there is any."""
    found = {}
    for name, (norms, *_) in curves.items():
        left = norms / norms[0] if len(norms) and norms[0] > 0 else norms[:0]
        there = np.flatnonzero(left > FAINT)
        found[name] = left[: there[-1] + 1].tolist() if len(there) else []
    return found


class _Course:
    """What a layer did on one input: its states, gates, and what can be read off the input."""

    def __init__(self, layer: Layer, look: Look) -> None:
        self.states = [state_of(layer.scan, i) for i in range(len(layer.scan.states))]
        self.gates = gates_of(layer.scan)
        self.features = features_of(layer.of.steps, look.outputs.labels)


def _layer(layer: Layer, courses: list[_Course], look: Look) -> dict[str, Any]:
    """One layer in one direction. States [T][N] are those of the first input, units by their numbers; `order` is for a picture."""
    scan = layer.scan
    first = courses[0]
    hidden = np.concatenate([c.states[0][1] for c in courses])
    gates = {name: np.concatenate([c.gates[name] for c in courses if name in c.gates]) for name in first.gates}
    stretch = stretching(scan)
    if stretch is None and len(hidden):
        warnings.warn(
            f"{layer.title}: how its step stretches the state is left out: it has more than {LARGEST:,} numbers",
            stacklevel=2,
        )
    names = set.union(*(set(c.features) for c in courses))
    features = {
        name: np.concatenate([c.features.get(name, np.zeros(len(c.states[0][1]))) for c in courses]) for name in names
    }
    return _short(  # type: ignore[no-any-return]
        {
            "name": layer.name,
            "title": layer.title,
            "stack": layer.stack,
            "depth": layer.depth,
            "reverse": scan.reverse,
            "cell": type(scan.cell).__name__,
            "input_size": scan.inputs.shape[-1],
            "hidden_size": hidden.shape[1],
            "parameters": sum(p.numel() for p in scan.cell.parameters()),
            "steps": layer.steps,
            "stride": layer.of.stride,
            "reads_inputs": layer.of.steps is look.inputs,
            "input_norms": scan.inputs[:, 0].norm(dim=-1).tolist(),
            "states": {name: value.tolist() for name, value in first.states},
            "order": order_of(hidden),
            "gates": {name: openness(gate) for name, gate in gates.items()},
            "gate_means": {name: gate.mean(1).tolist() for name, gate in first.gates.items()},
            "time_constants": time_constants(scan, gates),
            "follows": followers(hidden, features),
            "stretching": None if stretch is None else stretch.as_json(),
        }
    )


@torch.no_grad()
def _likeliest(look: Look, count: int = 5) -> list[list[list[Any]]]:
    """The likeliest classes of each output and their probabilities; nothing where there are no classes."""
    if look.distribution is None:
        return [[] for _ in look.outputs.labels]
    answers = look.distribution(look.batch).exp()
    best = answers.topk(min(count, answers.shape[-1]))
    return [
        [[look.names(int(k)), _short(p)] for p, k in zip(row, classes, strict=True)]
        for row, classes in zip(best.values, best.indices, strict=True)
    ]


def _short(value: Any, digits: int = 4) -> Any:
    """Numbers with few digits, in whatever holds them."""
    if isinstance(value, dict):
        return {k: _short(v, digits) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_short(v, digits) for v in value]
    if isinstance(value, torch.Tensor):
        value = value.item()
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value
