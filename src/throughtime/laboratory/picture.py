"""One picture of an experiment: how each cell learns, and how far back."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from throughtime.laboratory.tables import goes_up, in_words
from throughtime.runs import replacing

NAMES = {"accuracy": "accuracy", "mse": "mean squared error", "nats": "nats a step"}


@dataclass(frozen=True)
class Line:
    """One network: what it is called, its colour, and its trials."""

    label: str
    colour: str
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
    if values["spectral_radius"] is not None:
        _norms(right, values, lines)
    elif goes_up(values):
        _longest(right, values)
    else:
        _scores(right, values, lines)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=144, format="png")
    pyplot.close(figure)


def _lines(values: dict[str, Any]) -> list[Line]:
    """A line for each network: the trials it went through, one after the other."""
    lines: list[Line] = []
    for cell in values["cells"]:
        for trial in cell["trials"]:
            label = cell["cell"]
            if values["spectral_radius"] is not None:
                label += ", no clipping" if trial["clip"] is None else f", clipped at {trial['clip']:g}"
            if not lines or lines[-1].label != label:
                lines.append(Line(label, f"C{len(lines)}", []))
            lines[-1].trials.append(trial)
    return lines


def _curves(axes: Any, values: dict[str, Any], lines: list[Line]) -> None:
    for line in lines:
        points = _course(axes, line, "score")
        if points and len(values["lags"]) > 1:
            words = f"lag {line.trials[-1]['lag']}"  # the last it tried
            axes.annotate(words, points[-1], (0, 5), textcoords="offset points", ha="center", color=line.colour, size=8)
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
    axes.legend(frameon=False)


def _longest(axes: Any, values: dict[str, Any]) -> None:
    cells = values["cells"]
    least = values["lags"][0] / 2  # a bar that can be seen where nothing was learned
    bars = axes.bar(
        [c["cell"] for c in cells],
        [c["longest_lag"] or least for c in cells],
        color=[f"C{i}" for i in range(len(cells))],
    )
    axes.bar_label(bars, [in_words(c, values) for c in cells])
    axes.set(yscale="log", ylabel="lag", title="Longest lag learned", ylim=(least / 1.5, values["lags"][-1] * 2))


def _scores(axes: Any, values: dict[str, Any], lines: list[Line]) -> None:
    found = [(line, line.trials[-1]["score"]) for line in lines if line.trials[-1]["score"] is not None]
    bars = axes.bar([x.label for x, _ in found], [score for _, score in found], color=[x.colour for x, _ in found])
    axes.bar_label(bars, [f"{score:.4g}" for _, score in found])
    trial = lines[0].trials[-1]
    axes.axhline(trial["chance"], color="#555555", linestyle="--", linewidth=1)
    axes.axhline(trial["goal"], color="#555555", linestyle=":", linewidth=1)
    if not values["rising"]:
        axes.set_yscale("log")
    axes.set(ylabel=NAMES[values["score"]], title="Held-out score")


def _norms(axes: Any, values: dict[str, Any], lines: list[Line]) -> None:
    for line in lines:
        _course(axes, line, "gradient_norm")
    title = f"Gradient, from a spectral radius of {values['spectral_radius']:g}"
    axes.set(xlabel="step", ylabel="norm of the gradient, before clipping", yscale="log", title=title)
    axes.legend(frameon=False)


def _course(axes: Any, line: Line, key: str) -> list[tuple[int, float]]:
    """What a network went through, step by step over all its trials, and a cross where it broke, at the upper edge: that is beyond
    every scale. Returns: the points."""
    points, before = [], 0
    for trial in line.trials:
        points += [(before + p["step"], p[key]) for p in trial["curve"]]
        before += trial["steps"]
    steps, heights = [step for step, _ in points], [height for _, height in points]
    axes.plot(steps, heights, ".-", markersize=4, color=line.colour, label=line.label)
    if line.trials[-1]["broke"]:
        place, words = axes.get_xaxis_transform(), f"broke at step {before}"
        axes.plot([before], [1], "X", color=line.colour, markersize=10, transform=place, clip_on=False, label=words)
    return points
