"""What an export to ONNX says of itself."""

from __future__ import annotations

from dataclasses import dataclass

from throughtime.exporting.agreement import SIZES
from throughtime.exporting.interface import Named, interface_of
from throughtime.exporting.onnx.model import IR_VERSION, OPSET
from throughtime.exporting.readme import shapes, starts
from throughtime.exporting.stack import Stack
from throughtime.exporting.vectors import VECTORS

STEP, SEQUENCE = "step.onnx", "sequence.onnx"
COUNTS = (
    "any number of steps T and of sequences B, each from 1 on "
    "(at T = 0 onnxruntime refuses a Scan, at B = 0 its GRU and LSTM end the process)."
)


@dataclass(frozen=True)
class Written:
    """A model that was checked.

    operators: what goes through time in it. difference: the largest from the reference; of eight bits also the root of the mean
    square, and the bytes that the same model has in float.
    """

    data: bytes
    operators: list[str]
    difference: float
    mean: float | None = None
    before: int | None = None


def sections(stack: Stack, models: dict[str, Written], lengths: bool) -> list[tuple[str, str]]:
    """The sections of a README. models: by the name of their file."""
    names = interface_of(stack)
    table = shapes(names, time=True)
    if lengths:
        table += "\n| `lengths` | in | [B] | int64 | how many steps of each sequence are real, 0 to T |"
    ends = " Past its length a sequence's output is 0 and its states stand still." if lengths else ""
    made = [
        ("", _intro(stack, models)),
        (
            f"`{SEQUENCE}`",
            f"Whole sequences: {COUNTS}{ends}\n\n{table}",
        ),
    ]
    if STEP in models:
        made.append((f"`{STEP}`", f"One step, of any number of streams B.\n\n{shapes(names, time=False)}"))
    return [
        *made,
        ("Where states start", starts(stack)),
        ("Run it", _example(stack, models, lengths)),
        ("Checked", _checked(models)),
    ]


def _intro(stack: Stack, models: dict[str, Written]) -> str:
    cells = iter(models[SEQUENCE].operators)
    lines = []
    for number, layer in enumerate(stack.layers):
        said = [f"{d.name}{', backwards' if d.reverse else ''}, by `{next(cells)}`" for d in layer.directions]
        lines.append(
            f"- layer {number}: {'; '.join(said)}{'; its input is added to its output' if layer.residual else ''}"
        )
    return (
        f"ONNX of opset {OPSET} (IR version {IR_VERSION}), written by throughtime. It needs a runtime alone.\n\n"
        f"What goes through time in `{SEQUENCE}`:\n\n" + "\n".join(lines)
    )


def _example(stack: Stack, models: dict[str, Written], lengths: bool) -> str:
    names = interface_of(stack)

    def drawn(n: Named) -> str:
        return f'"{n.name}": np.random.randn({", ".join(map(str, (50, 4, *n.shape)))}).astype("{n.dtype}")'

    def zeros(n: Named) -> str:
        return f'"{n.name}": np.zeros({(4, *n.shape)}, "{n.dtype}")'

    more = ', "lengths": np.array([50, 20, 1, 0])' if lengths else ""
    rows = [*map(zeros, names.states)]
    states = ", ".join(rows) if len(rows) < 3 else "\n" + "".join(f"    {row},\n" for row in rows)
    lines = [
        "import numpy as np",
        "import onnxruntime",
        "",
        f"inputs = {{{', '.join(map(drawn, names.inputs))}}}  # 50 steps of 4 sequences",
        f"states = {{{states}}}",
        f'model = onnxruntime.InferenceSession("{SEQUENCE}")',
        f"y, *finals = model.run(None, {{**inputs, **states{more}}})",
    ]
    if STEP in models:
        lines += [
            "",
            f'step = onnxruntime.InferenceSession("{STEP}")',
            "for t in range(50):  # a step at a time, the states carried",
            "    y_t, *finals = step.run(None, {**{name: x[t] for name, x in inputs.items()}, **states})",
            "    states = dict(zip(states, finals))",
        ]
    return "```python\n" + "\n".join(lines) + f"\n```\n\n`{VECTORS}` holds inputs, and what must come out."


def _checked(models: dict[str, Written]) -> str:
    sizes = ", ".join(f"{t} × {b}" for t, b in SIZES)
    lines = [
        f"By onnxruntime, on random inputs and states, beside PyTorch step by step; steps × sequences: {sizes}.",
        "",
    ]
    for name, model in models.items():
        if model.before is None:
            lines.append(f"- `{name}`: the largest difference of an output or a final state is {model.difference:.2g}")
        else:
            lines.append(
                f"- `{name}`: weights in eight bits: {len(model.data):,} bytes, {model.before:,} in float32; the largest "
                f"difference of an output or a final state is {model.difference:.2g}, the root of the mean square "
                f"{model.mean:.2g}; in float32 it has passed the check. What weights are multiplied with is rounded to eight bits "
                "by the largest of all that is multiplied at once, so that a sequence's result hangs a little on those beside it"
            )
    return "\n".join(lines)
