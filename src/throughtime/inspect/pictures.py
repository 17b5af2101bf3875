"""The same as the page, as pictures: gradients through time, states, what mattered, attention."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from throughtime.errors import UserError
from throughtime.tasks.look import visible

NAMED = ("gradients.png", "influence.png", "attention.png")
LOWEST = 1e-6  # of a gradient, that is drawn


def check_plot() -> None:
    """Raises: UserError where nothing here can draw."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError("--pictures: matplotlib is not installed (pip install 'throughtime[plot]')")


def draw(values: dict[str, Any], folder: Path) -> None:
    """What `look_into` gives, as gradients.png, influence.png, where there is attention attention.png, and a states-LAYER.png for
    each layer."""
    import matplotlib

    matplotlib.use("Agg")
    folder.mkdir(exist_ok=True)
    for former in (*folder.glob("states-*.png"), *(folder / name for name in NAMED)):
        former.unlink(missing_ok=True)  # of another network there may be more
    _gradients(values, folder / "gradients.png")
    for layer in values["layers"]:
        _states(layer, folder / f"states-{layer['name']}.png")
    _influence(values, folder / "influence.png")
    rows = [one for one in values["influence"] if one["attention"] is not None]
    if len(rows) > 1:
        _attention(values, rows, folder / "attention.png")


def _save(figure: Any, file: Path) -> None:
    from matplotlib import pyplot

    figure.savefig(file, dpi=144)
    pyplot.close(figure)


def _gradients(values: dict[str, Any], file: Path) -> None:
    import numpy as np
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for layer in values["layers"]:
        found = values["gradients"].get(layer["name"])
        if found is None or len(found["norms"]) < 2:
            continue
        norms, spread, back = np.array(found["norms"]), np.exp(found["spread"]), np.arange(len(found["norms"]))
        axes.plot(back, norms, label=f"{layer['title']}: {found['verdict']}")
        axes.fill_between(back, norms / spread, norms * spread, alpha=0.15)
    axes.set(xlabel="steps back", ylabel="gradient left", yscale="log", title="Gradients through time")
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines:
        axes.legend(frameon=False)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylim(bottom=max(axes.get_ylim()[0], LOWEST))
    else:
        axes.text(0.5, 0.5, "one step: nothing is behind it", ha="center", transform=axes.transAxes)
    _save(figure, file)


def _states(layer: dict[str, Any], file: Path) -> None:
    import numpy as np
    from matplotlib import pyplot

    states = layer["states"]
    figure, many = pyplot.subplots(1, len(states), figsize=(6 * len(states), 5), layout="constrained", squeeze=False)
    for axes, (name, rows) in zip(many[0], states.items(), strict=True):
        grid = np.array(rows).T
        if len(layer["order"]) == len(grid):
            grid = grid[layer["order"]]
        most = np.abs(grid).max() or 1.0
        picture = axes.imshow(grid, aspect="auto", cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest")
        axes.set(title=f"{layer['title']}: {name}", ylabel="units, those that move alike together", yticks=[])
        every = max(1, len(layer["steps"]) // 25)
        axes.set_xticks(range(0, len(layer["steps"]), every), [_plain(s) for s in layer["steps"]][::every], rotation=90)
        figure.colorbar(picture, ax=axes, shrink=0.6)
    _save(figure, file)


def _influence(values: dict[str, Any], file: Path) -> None:
    import numpy as np
    from matplotlib import pyplot

    (one,) = (one for one in values["influence"] if one["output"] == values["shown"])
    names = [_plain(s) for s in values["inputs"]]
    place = np.arange(len(names))
    figure, axes = pyplot.subplots(figsize=(max(5.0, 0.3 * len(names)), 4), layout="constrained")
    removal = [np.nan if r is None else r for r in one["removal"]]
    axes.bar(place - 0.2, removal, 0.4, label="removal", color="#c2571a")
    axes.bar(place + 0.2, one["gradient"], 0.4, label="gradient × input", color="#2364aa")
    axes.axhline(0, color="#555555", linewidth=0.8)
    axes.set_xticks(place, names, rotation=90)
    axes.set(title=f"What mattered for {_plain(one['chosen'])}", ylabel="change of log p (nats)")
    axes.legend(frameon=False)
    _save(figure, file)


def _attention(values: dict[str, Any], rows: list[dict[str, Any]], file: Path) -> None:
    from matplotlib import pyplot

    size = (0.3 * len(values["inputs"]) + 2.5, 0.3 * len(rows) + 1.5)
    figure, axes = pyplot.subplots(figsize=size, layout="constrained")
    picture = axes.imshow([one["attention"] for one in rows], cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(values["inputs"])), [_plain(s) for s in values["inputs"]], rotation=90)
    axes.set_yticks(range(len(rows)), [_plain(one["chosen"]) for one in rows])
    axes.set_title("Attention")
    figure.colorbar(picture, ax=axes)
    _save(figure, file)


def _plain(text: str) -> str:
    """A token as a label: nothing in it that would be taken for a formula."""
    return visible(text).replace("$", r"\$")
