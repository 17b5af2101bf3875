"""What is left of a training for a person to read: the model card and the learning curve."""

from __future__ import annotations

import importlib.util
import itertools
from typing import Any

from throughtime.config import RunConfig, to_yaml
from throughtime.runs import Run, replacing, write_text
from throughtime.training.progress import in_words

TRAINING, LOSS, SCORE = "#8fa8c8", "#c0392b", "#2e7d32"  # colours


def write_card(run: Run, config: RunConfig, parameters: int, summary: dict[str, Any], kind: str | None = None) -> None:
    """The model card: what it is, what it learned from, how well it does, how to use it. kind: `Task.pipeline`."""
    scores = "\n".join(f"| {in_words(name)} | {_shown(value)} |" for name, value in summary["scores"].items())
    notes = "".join(f"\n- {note}" for note in summary["notes"])
    notes = f"\n## What was cut or left out\n{notes}\n" if notes else ""
    name = run.folder.resolve().name
    picture = f"\n![learning curve]({run.curve.name})\n" if run.curve.exists() else ""
    text = f"""---
{_front_matter(name, config, summary["scores"], kind)}
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

## Licence
Not stated here: that is for whoever publishes it, in the first lines of this file (`license: apache-2.0`).

## Settings

```yaml
{to_yaml(config).rstrip()}
```
"""
    write_text(run.card, text)


def _front_matter(name: str, config: RunConfig, scores: dict[str, Any], kind: str | None) -> str:
    """What the Hugging Face hub reads of a card. Of the scores those that are measured, and not counts."""
    from huggingface_hub import EvalResult, ModelCardData

    part = "valid" if config.valid else "held out"
    files = [config.valid] if isinstance(config.valid, str) else config.valid or config.files
    results = [
        EvalResult(
            task_type=kind or config.task,
            dataset_type="files",
            dataset_name=", ".join(files),
            dataset_split=part,
            metric_type=score,
            metric_name=in_words(score),
            metric_value=value,
        )
        for score, value in scores.items()
        if isinstance(value, float)
    ]
    tags = [config.task, "recurrent-neural-network"]
    known = ModelCardData(
        library_name="throughtime", pipeline_tag=kind, tags=tags, model_name=name, eval_results=results
    )
    return known.to_yaml()


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _named(files: str | list[str]) -> str:
    return " and ".join(f"`{f}`" for f in ([files] if isinstance(files, str) else files))


def draw_curve(
    run: Run,
    decides: str = "loss",
    *,
    kept: int | None = None,
    measure: str = "nats",
    loss: str = "loss",
    baselines: dict[str, float] | None = None,
) -> str | None:
    """A picture of the learning curve: training and held-out loss, and on an axis of its own the score that decides which
    weights are kept, where that is another.

    Args: decides: name of the score; older runs call it "loss". kept: the step whose weights are kept; its point is marked.
        measure: what the loss is counted in. loss: what the held-out one is called. baselines: name -> a loss, drawn as a line to
        compare with.
    Returns: why there is no picture, or None where there is one.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return "no picture of the learning curve: matplotlib is not installed (pip install 'throughtime[plot]')"
    lines = run.read_metrics()
    steps = [line for line in lines if "loss" in line]
    valid = {line["step"]: line["valid"] for line in lines if "valid" in line}
    if len(steps) < 2:
        return "no picture of the learning curve: too few steps"

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    # each point the mean of a hundredth of the training, so that the line can be read
    size = max(len(steps) // 100, 1)
    groups = [steps[i : i + size] for i in range(0, len(steps), size)]
    means = {g[-1]["step"]: sum(line["loss"] for line in g) / len(g) for g in groups}
    axes.plot(means.keys(), means.values(), color=TRAINING, linewidth=1.5, label="training loss")
    held_out = _course(valid, loss)
    if held_out:
        axes.plot(held_out.keys(), held_out.values(), "o-", color=LOSS, markersize=4, label="held-out loss")
    deciding, colour, on = _course(valid, decides, "loss"), LOSS, axes
    if deciding and deciding != held_out:
        on, colour = axes.twinx(), SCORE
        on.plot(
            deciding.keys(), deciding.values(), "s-", color=colour, markersize=4, label=f"held-out {in_words(decides)}"
        )
        on.set_ylabel(in_words(decides), color=colour)
        on.spines[["top", "left"]].set_visible(False)
    if kept in deciding:
        label = f"kept: step {kept:,}, {in_words(decides)} {deciding[kept]:.4g}"
        on.plot([kept], [deciding[kept]], "o", color=colour, markersize=11, fillstyle="none", label=label)
    styles = itertools.cycle(["--", ":", "-.", (0, (1, 4)), (0, (6, 3))])
    for style, (name, nats) in zip(styles, (baselines or {}).items(), strict=False):
        axes.axhline(nats, color="#555555", linestyle=style, linewidth=1, label=f"{name} {nats:.3f}")
    axes.set(xlabel="step", ylabel=f"loss ({measure})", title=run.folder.resolve().name)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)  # where no line runs through it
    with replacing(run.curve) as temporary:
        figure.savefig(temporary, dpi=144, format="png")
    pyplot.close(figure)
    return None


def _course(valid: dict[int, dict[str, Any]], *names: str) -> dict[int, float]:
    """Step -> score, by the first of the names that an evaluation has; without those that are undefined."""
    found = {step: next((scores[name] for name in names if name in scores), None) for step, scores in valid.items()}
    return {step: score for step, score in found.items() if score is not None}
