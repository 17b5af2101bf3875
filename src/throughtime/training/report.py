"""What is left of a training for a person to read: the model card and the learning curve."""

from __future__ import annotations

import importlib.util
import itertools
from typing import Any

from throughtime.config import RunConfig, to_yaml
from throughtime.runs import Run, replacing, write_text


def write_card(run: Run, config: RunConfig, parameters: int, summary: dict[str, Any]) -> None:
    """The model card: what it is, what it learned from, how well it does, how to use it."""
    scores = "\n".join(f"| {name.replace('_', ' ')} | {_shown(value)} |" for name, value in summary["scores"].items())
    notes = "".join(f"\n- {note}" for note in summary["notes"])
    notes = f"\n## What was cut or left out\n{notes}\n" if notes else ""
    name = run.folder.resolve().name
    picture = f"\n![learning curve]({run.curve.name})\n" if run.curve.exists() else ""
    text = f"""---
library_name: throughtime
tags: [{config.task}, recurrent-neural-network]
---
# {name}

A recurrent network for the task `{config.task}`, {parameters:,} parameters, trained with throughtime:
{summary["steps"]:,} steps, {summary["epochs"]:.1f} times through the data ({", ".join(f"`{f}`" for f in config.files)}).
When, and for how long, `throughtime info` says.

## Held-out scores
{"Of " + _named(config.valid) + "." if config.valid else "Of the part of each file that training did not see."}

| | |
|---|---|
{scores}
{picture}{notes}
## Use

    throughtime info {name}
    throughtime evaluate {name} FILE

    import throughtime as tt
    model = tt.load("{name}")

## Settings

```yaml
{to_yaml(config).rstrip()}
```
"""
    write_text(run.card, text)


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _named(files: str | list[str]) -> str:
    return " and ".join(f"`{f}`" for f in ([files] if isinstance(files, str) else files))


def draw_curve(run: Run, decides: str, baselines: dict[str, float] | None = None) -> str | None:
    """A picture of the learning curve. Returns why there is none, or None where there is.

    Args: baselines: name -> nats a token, drawn as lines to compare with.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return "no picture of the learning curve: matplotlib is not installed (pip install 'throughtime[plot]')"
    lines = run.read_metrics()
    steps = [line for line in lines if "loss" in line]
    valid = [line for line in lines if "valid" in line]
    if len(steps) < 2:
        return "no picture of the learning curve: too few steps"

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    # each point the mean of a hundredth of the training, so that the line can be read
    size = max(len(steps) // 100, 1)
    groups = [steps[i : i + size] for i in range(0, len(steps), size)]
    axes.plot(
        [g[-1]["step"] for g in groups],
        [sum(line["loss"] for line in g) / len(g) for g in groups],
        color="#8fa8c8",
        linewidth=1.5,
        label="training",
    )
    if valid:
        points = [line["valid"].get(decides, line["valid"].get("loss")) for line in valid]
        axes.plot([line["step"] for line in valid], points, "o-", color="#c0392b", markersize=4, label="held out")
        best = min(points)
        axes.annotate(
            f"{best:.3f}",
            (valid[points.index(best)]["step"], best),
            textcoords="offset points",
            xytext=(0, -14),
            ha="center",
            color="#c0392b",
        )
    styles = itertools.cycle(["--", ":", "-.", (0, (1, 4)), (0, (6, 3))])
    for style, (name, nats) in zip(styles, (baselines or {}).items(), strict=False):
        axes.axhline(nats, color="#555555", linestyle=style, linewidth=1, label=f"{name} {nats:.3f}")
    axes.set(xlabel="step", ylabel="nats", title=run.folder.resolve().name)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    with replacing(run.curve) as temporary:
        figure.savefig(temporary, dpi=144, format="png")
    pyplot.close(figure)
    return None
