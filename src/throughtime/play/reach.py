"""How far back an output reaches: the gradient that runs from it over a text."""

from __future__ import annotations

import threading
from functools import cache
from pathlib import Path
from typing import Any

import torch

from throughtime.inspect.gradients import gradients_of, summarise
from throughtime.inspect.stacks import looked_into
from throughtime.play.bodies import Reaching
from throughtime.serve.readers import finite
from throughtime.serve.refused import Refused
from throughtime.serve.server import Server
from throughtime.tasks.base import Trained
from throughtime.tasks.look import visible
from throughtime.tasks.registry import load
from throughtime.tasks.text import TextModel

LONGEST = 2000  # steps of a text
TASKS = ("text", "classify", "tag")
FOLDER = Path(__file__).with_name("cells")
CELLS = ("elman", "lstm", "gru")  # networks that come along, alike but for their cell
_one_at_a_time = threading.Lock()  # what looks into a network looks at all that runs in its thread, and costs memory


def reach(server: Server, asked: Reaching) -> dict[str, Any]:
    """The gradient of an output of a text, in the model and, where asked for, in the networks of `CELLS`: {networks: […]}.

    Raises: Refused, UserError where there is no gradient to be had.
    """
    served = server.find(asked.model)
    model = served.model
    if model is None or model.task.name not in TASKS:
        raise Refused(
            400, f"model: {served.name!r} is of the task {served.task!r}; gradients are shown of {', '.join(TASKS)}"
        )
    with _one_at_a_time:
        found = [reached(model, served.name, asked.text, asked.output)]
        if asked.cells:
            if not isinstance(model, TextModel) or model.tokens.kind != "characters":
                raise Refused(400, f"cells: they read characters, which {served.name!r} does not")
            found += [reached(_cell(name), name, asked.text, found[0]["output"]) for name in CELLS]
    return {"networks": found}


@cache
def _cell(name: str) -> TextModel:
    return load(FOLDER / name, "text")


def reached(model: Trained[Any], name: str, text: str, output: int | None) -> dict[str, Any]:
    """The gradient of the cost of an output, -log p, by every state before it.

    Args: output: its number; None: the last. Returns: what `throughtime.inspect` says of it, as JSON can hold it: the inputs, the
        outputs and how likely each is; of each layer norms by steps back, as a part of that at the step `begins`, and what they
        come to.
    Raises: Refused, UserError.
    """
    item = _item(model, text)
    look = model.look(item)
    count = len(look.outputs)
    if output is not None and output >= count:
        raise Refused(400, f"output: there is no output {output}; they go from 0 to {count - 1}")
    number = count - 1 if output is None else output
    with torch.no_grad(), looked_into(model, look) as looked:
        log_p = look.score(look.batch)
    curves, layers = gradients_of(model, look, number), []
    for layer in looked():
        curve = curves[layer.name]
        seen = summarise([curve])
        steps = layer.of.steps
        layers.append({
            "title": layer.title,
            "cell": type(layer.scan.cell).__name__,
            "reverse": layer.scan.reverse,
            "begins": curve.begins,
            "steps": (steps.texts or steps.labels)[:: layer.of.stride],
            "norms": [finite(n) for n in seen.norms],
            "scale": None if seen.scale is None else finite(seen.scale),
            "horizon_e": seen.horizon_e,
            "horizon_1": seen.horizon_1,
            "rate": seen.rate,
            "verdict": seen.verdict,
            "advice": seen.advice,
        })  # fmt: skip
    return {
        "name": name,
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "inputs": look.inputs.texts or look.inputs.labels,
        "outputs": look.outputs.texts or look.outputs.labels,
        "about": None if look.about is None else list(look.about),
        "verb": look.verb,
        "p": [finite(p) for p in log_p.exp().tolist()],
        "output": number,
        "layers": layers,
        "unknown": [visible(sign) for sign in model.unseen(item)],
    }


def _item(model: Trained[Any], text: str) -> Any:
    """What a model looks at. Raises: Refused where there is nothing in a text, or too much."""
    item: Any = text
    if isinstance(model, TextModel):
        steps = len(model.tokens.encode(text))
    else:
        source = model.task.source(model.config, [text], model.task.inspect_options())
        steps, item = len(text.split()), next(model.pieces(source, LONGEST), None)
    if item is None or model.empty(item):
        raise Refused(400, "text: there is nothing in it to look into")
    if steps > LONGEST:
        raise Refused(413, f"text: has {steps:,} steps; gradients are shown over up to {LONGEST:,}")
    return item
