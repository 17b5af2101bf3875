"""The same as the page, as pictures: gradients through time, states, what mattered."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from throughtime.errors import UserError


def check_plot() -> None:
    """Raises: UserError where nothing here can draw."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError("--pictures: matplotlib is not installed (pip install 'throughtime[plot]')")


def draw(values: dict[str, Any], folder: Path) -> None:
    """What `look_into` gives, as gradients.png, influence.png and a states-LAYER.png for each layer."""
    import matplotlib
    import numpy as np

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(exist_ok=True)
    for former in (*folder.glob("states-*.png"), folder / "gradients.png", folder / "influence.png"):
        former.unlink(missing_ok=True)  # of another network there may be more

    def save(figure: Any, name: str) -> None:
        figure.savefig(folder / name, dpi=144)
        pyplot.close(figure)

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for name, found in values["gradients"].items():
        norms, spread = np.array(found["norms"]), np.exp(found["spread"])
        if len(norms):
            back = np.arange(len(norms))
            axes.plot(back, norms, label=f"{name}: {found['verdict']}")
            axes.fill_between(back, norms / spread, norms * spread, alpha=0.15)
    axes.set(xlabel="steps back", ylabel="gradient left", yscale="log", title="Gradients through time")
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines:
        axes.legend(frameon=False)
    save(figure, "gradients.png")

    for layer in values["layers"]:
        states = layer["states"]
        figure, many = pyplot.subplots(
            1, len(states), figsize=(6 * len(states), 5), layout="constrained", squeeze=False
        )
        for axes, (name, rows) in zip(many[0], states.items(), strict=True):
            grid = np.array(rows).T
            if len(layer["order"]) == len(grid):
                grid = grid[layer["order"]]
            most = np.abs(grid).max() or 1.0
            picture = axes.imshow(grid, aspect="auto", cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest")
            axes.set(title=f"{layer['name']}: {name}", ylabel="units, those that move alike together")
            steps = [_plain(s) for s in layer["steps"]]
            every = max(1, len(steps) // 25)
            axes.set_xticks(range(0, len(steps), every), steps[::every], rotation=90)
            figure.colorbar(picture, ax=axes, shrink=0.6)
        save(figure, f"states-{layer['name']}.png")

    influence = values["influence"]
    names = [_plain(s) for s in values["inputs"]]
    place = np.arange(len(names))
    figure, axes = pyplot.subplots(figsize=(max(5.0, 0.3 * len(names)), 4), layout="constrained")
    removal = [np.nan if r is None else r for r in influence["removal"]]
    axes.bar(place - 0.2, removal, 0.4, label="removal", color="#c2571a")
    axes.bar(place + 0.2, influence["gradient"], 0.4, label="gradient × input", color="#2364aa")
    axes.axhline(0, color="#555555", linewidth=0.8)
    axes.set_xticks(place, names, rotation=90)
    axes.set(title=f"What mattered for {_plain(influence['chosen'])}", ylabel="change of log p (nats)")
    axes.legend(frameon=False)
    save(figure, "influence.png")


def _plain(text: str) -> str:
    """A token as a label: nothing in it that would be taken for a formula."""
    return text.replace("\n", "⏎").replace("$", r"\$").strip() or "·"
