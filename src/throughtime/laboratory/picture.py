"""One picture of an experiment: how each cell learns, and how far back."""

from __future__ import annotations

import importlib.util
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from throughtime.laboratory.tables import goes_up, in_words
from throughtime.runs import replacing

NAMES = {"accuracy": "accuracy", "mse": "mean squared error", "nats": "nats a step"}
# a cell has one colour in every picture; those that are not here take the others, in the order in which they come
COLOURS = {"rnn": "C0", "lstm": "C1", "gru": "C2", "rnn-relu": "C3", "none": "C7"}
OTHERS = ("C4", "C5", "C6", "C8", "C9")
ROW = 85  # characters of a legend that stand side by side


@dataclass(frozen=True)
class Line:
    """One network: what it is called, how its line is drawn, and its trials."""

    label: str
    colour: str
    style: str
    trials: list[dict[str, Any]]


def missing() -> str | None:
    """Why nothing here can draw, or None where something can."""
    if importlib.util.find_spec("matplotlib") is None:
        return "no picture: matplotlib is not installed (pip install 'throughtime[plot]')"
    return None


def draw(values: dict[str, Any], path: Path) -> None:
    """What `Experiment.run` gives, as a .png: on the left the learning curves, on the right the longest lags; where there is one
    lag the scores; for "exploding" the norms of the gradient."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    lines = _lines(values)
    _curves(left, values, lines)
    labels = left.get_legend_handles_labels()[1]
    columns = len(labels) if sum(map(len, labels)) < ROW else 3
    figure.legend(loc="outside lower center", ncols=columns, frameon=False)  # where no line runs through it
    if values["spectral_radius"] is not None:
        _norms(right, values, lines)
    elif goes_up(values):
        _longest(right, values, lines)
    else:
        _scores(right, values, lines)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.set_axisbelow(True)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=144, format="png")
    pyplot.close(figure)


def _lines(values: dict[str, Any]) -> list[Line]:
    """A line for each network: the trials it went through, one after the other."""
    lines: list[Line] = []
    others = itertools.cycle(OTHERS)
    for cell in values["cells"]:
        colour = COLOURS.get(cell["cell"]) or next(others)
        if values["spectral_radius"] is not None:  # without and with clipping
            for trial in cell["trials"]:
                bare = trial["clip"] is None
                words = "no clipping" if bare else f"clipped at {trial['clip']:g}"
                lines.append(Line(f"{cell['cell']}, {words}", colour, "--" if bare else "-", [trial]))
        elif cell["trials"]:
            upto = f", up to lag {cell['trials'][-1]['lag']}" if len(values["lags"]) > 1 else ""
            lines.append(Line(cell["cell"] + upto, colour, "-", cell["trials"]))
    return lines


def _curves(axes: Any, values: dict[str, Any], lines: list[Line]) -> None:
    for line in lines:
        _course(axes, line, "score")
    trial = lines[0].trials[-1]
    levels = [("no memory", "chance", "--")]
    if values["spectral_radius"] is None:  # there the question is another
        levels.append(("learned", "goal", ":"))
    if len({t["chance"] for line in lines for t in line.trials}) == 1:
        for words, key, style in levels:
            axes.axhline(trial[key], color="#555555", linestyle=style, linewidth=1, label=f"{words} {trial[key]:.3g}")
    if not values["rising"]:
        axes.set_yscale("log")
    lags = ", ".join(map(str, values["lags"]))
    what = f"lag {lags}" if len(values["lags"]) == 1 else f"lags {lags}, one after the other"
    axes.set(xlabel="step", ylabel=NAMES[values["score"]], title=f"{values['problem']}: {what}")


def _longest(axes: Any, values: dict[str, Any], lines: list[Line]) -> None:
    cells = [cell for cell in values["cells"] if cell["trials"]]
    least = values["lags"][0] / 2  # a bar that can be seen where nothing was learned
    heights = [cell["longest_lag"] or least for cell in cells]
    _bars(axes, [f"{c['cell']}\n{in_words(c, values)}" for c in cells], heights, lines)
    axes.set(xscale="log", xlabel="lag", title="Longest lag learned", xlim=(least / 1.5, values["lags"][-1] * 2))


def _scores(axes: Any, values: dict[str, Any], lines: list[Line]) -> None:
    scored = [line for line in lines if line.trials[-1]["score"] is not None]
    scores = [line.trials[-1]["score"] for line in scored]
    _bars(axes, [f"{line.label}\n{score:.4g}" for line, score in zip(scored, scores, strict=True)], scores, scored)
    trial = lines[0].trials[-1]
    axes.axvline(trial["chance"], color="#555555", linestyle="--", linewidth=1)
    axes.axvline(trial["goal"], color="#555555", linestyle=":", linewidth=1)
    if not values["rising"]:
        axes.set_xscale("log")
    axes.set(xlabel=NAMES[values["score"]], title="Held-out score")


def _bars(axes: Any, labels: list[str], lengths: list[float], lines: list[Line]) -> None:
    """Bars from above to below, each with its name and value at its left, where nothing is drawn over them."""
    axes.barh(range(len(labels)), lengths, height=0.6, color=[line.colour for line in lines])
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()


def _norms(axes: Any, values: dict[str, Any], lines: list[Line]) -> None:
    for line in lines:
        _course(axes, line, "gradient_norm")
    title = f"Gradient, from a spectral radius of {values['spectral_radius']:g}"
    axes.set(xlabel="step", ylabel="norm of the gradient, before clipping", yscale="log", title=title)


def _course(axes: Any, line: Line, key: str) -> None:
    """What a network went through, step by step over all its trials, and a cross where it broke, at the upper edge: that is beyond
    every scale."""
    points, before = [], 0
    for trial in line.trials:
        points += [(before + p["step"], p[key]) for p in trial["curve"]]
        before += trial["steps"]
    steps, heights = [step for step, _ in points], [height for _, height in points]
    axes.plot(steps, heights, line.style, marker=".", markersize=4, color=line.colour, label=line.label)
    if line.trials[-1]["broke"]:
        place, words = axes.get_xaxis_transform(), f"broke at step {before}"
        axes.plot([before], [1], "X", color=line.colour, markersize=10, transform=place, clip_on=False, label=words)
