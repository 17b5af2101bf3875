"""Everything that can be seen of a network on somebody's input, as plain values: what the page, the JSON and the pictures show."""

from __future__ import annotations

import itertools
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from throughtime.errors import UserError
from throughtime.inspect.gradients import Curve, gradients_of, summarise
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
from throughtime.tasks.base import Advance, Example, Trained, ignore

STEPS = 100  # of an input that is shown; of a text without lines, in a piece
LONGEST, CHARACTERS = 300, 3000  # words and characters of an input
MOST = 50  # inputs that gradients and units are averaged over


def look_into(
    model: Trained, lines: Iterable[str], *, output: int | None = None, most: int = MOST, advance: Advance = ignore
) -> dict[str, Any]:
    """What a network remembers of inputs: the first is shown whole, gradients and units are averaged over up to `most`.

    Args: lines: as `predict` takes them; a language model reads them as one text. output: the answer of the first input that is
        looked at, by its number; None: the last. advance: told of each input done.
    Returns: what JSON can hold; docs/inspect.md lists it.
    Raises: UserError where there is nothing to look into, or no such output.
    """
    pieces = model.pieces(lines, STEPS)
    texts = [_cut(text) for text in itertools.islice(pieces, most)]
    if not texts:
        raise UserError("the input is empty: there is nothing to look into")
    if len(texts) == most and next(iter(pieces), None) is not None:
        warnings.warn(
            f"there are more inputs than {most:,}: the first {most:,} are looked into (--inputs)", stacklevel=2
        )
    unseen = model.unseen(texts[0])
    if unseen:
        warnings.warn(f"the model never saw these, and reads them as unknown: {' '.join(unseen)}", stacklevel=2)
    first = model.example(texts[0])
    count = len(first.outputs)
    if output is not None and not -count <= output < count:
        raise UserError(f"--output: got {output}; the first input has outputs 0 to {count - 1}")
    number = range(count)[-1 if output is None else output]
    curves: dict[str, list[Curve]] = defaultdict(list)
    seen: dict[str, list[_Course]] = defaultdict(list)
    shown: list[Layer] = []
    for i, text in enumerate(texts):
        example = model.example(text) if i else first
        if output is None or len(example.outputs) > number:
            for name, curve in gradients_of(model, example, None if output is None else number).items():
                curves[name].append(curve)
        with torch.no_grad(), looked_into(model, example) as layers:
            log_p = example.answers(example.batch)
        for layer in layers():
            seen[layer.name].append(_Course(layer, example))
        if i == 0:
            shown, answers = layers(), log_p
        advance(1)
    answers = answers.exp()
    return {
        "run": str(model.run.folder),
        "task": model.config.task,
        "inputs": first.inputs,
        "outputs": first.outputs,
        "probabilities": [_short(answers[k, c]) for k, c in enumerate(first.chosen)],
        "likeliest": [_likeliest(first, row) for row in answers],
        "averaged_over": len(texts),
        "layers": [_layer(layer, seen[layer.name]) for layer in shown],
        "gradients": {name: _short(summarise(many).as_json()) for name, many in curves.items()},
        "influence": _short(influence(model, first, number).as_json()),
    }


def _cut(text: str) -> str:
    """The beginning of a text that is too long to be shown."""
    words = list(itertools.islice(re.finditer(r"\S+", text), LONGEST + 1))
    end = words[LONGEST].start() if len(words) > LONGEST else CHARACTERS
    if end >= len(text):
        return text
    warnings.warn(
        f"an input of {len(text):,} characters is too long to be shown: its first {end:,} are read", stacklevel=3
    )
    return text[:end]


class _Course:
    """What a layer did on one input: its states, gates, and what can be read off the input."""

    def __init__(self, layer: Layer, example: Example) -> None:
        self.states = [state_of(layer.scan, i) for i in range(len(layer.scan.states))]
        self.gates = gates_of(layer.scan)
        reads = layer.steps == example.inputs and example.texts is not None
        self.features = features_of(example.texts if reads else layer.steps, example.outputs)  # type: ignore[arg-type]


def _layer(layer: Layer, courses: list[_Course]) -> dict[str, Any]:
    """One layer in one direction. States [T][N] are those of the first input, units by their numbers; `order` is for a picture."""
    scan = layer.scan
    first = courses[0]
    hidden = np.concatenate([c.states[0][1] for c in courses])
    gates = {name: np.concatenate([c.gates[name] for c in courses if name in c.gates]) for name in first.gates}
    stretch = stretching(scan)
    if stretch is None and len(hidden):
        warnings.warn(
            f"{layer.name}: how its step stretches the state is left out: it has more than {LARGEST:,} numbers",
            stacklevel=2,
        )
    names = set.union(*(set(c.features) for c in courses))
    features = {
        name: np.concatenate([c.features.get(name, np.zeros(len(c.states[0][1]))) for c in courses]) for name in names
    }
    return _short(  # type: ignore[no-any-return]
        {
            "name": layer.name,
            "stack": layer.stack,
            "depth": layer.depth,
            "reverse": scan.reverse,
            "cell": type(scan.cell).__name__,
            "input_size": scan.inputs.shape[-1],
            "hidden_size": hidden.shape[1],
            "parameters": sum(p.numel() for p in scan.cell.parameters()),
            "steps": layer.steps,
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


def _likeliest(example: Example, row: torch.Tensor, count: int = 5) -> list[list[Any]]:
    best = row.topk(min(count, len(row)))
    return [[example.names(int(k)), _short(p)] for p, k in zip(best.values, best.indices, strict=True)]


def _short(value: Any) -> Any:
    """Numbers with four digits, in whatever holds them."""
    if isinstance(value, dict):
        return {k: _short(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_short(v) for v in value]
    if isinstance(value, torch.Tensor):
        value = value.item()
    return float(f"{value:.4g}") if isinstance(value, float) else value
