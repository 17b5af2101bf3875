"""A picture of a forecast: what was, what is to come, and how sure that is."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np

from throughtime.errors import UserError, reason
from throughtime.tasks.accuracy import Forecast
from throughtime.tasks.quantiles import shown
from throughtime.tasks.series import Series

BEFORE = 4  # horizons of the history that are drawn
TICKS = 6  # times that are written under a picture


class Album:
    """A new folder of pictures, one a series. Raises: UserError where it is there already, or nothing can draw."""

    def __init__(self, folder: Path) -> None:
        if importlib.util.find_spec("matplotlib") is None:
            raise UserError("--pictures: matplotlib is not installed (pip install 'throughtime[plot]')")
        if folder.exists():
            raise UserError(f"--pictures: {folder} is there already; name a new folder")
        try:
            folder.mkdir()
        except OSError as error:
            raise UserError(f"--pictures: {folder}: cannot make the folder: {reason(error)}") from error
        self.folder = folder

    def draw(self, series: Series, cut: int, found: Forecast) -> None:
        """Draw one forecast from a cutoff of a series; what came, where that is known."""
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        horizon = len(found.median)
        begin = max(0, cut - BEFORE * horizon)
        ahead = np.arange(cut, cut + horizon)
        figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
        axes.plot(np.arange(begin, cut), series.values[begin:cut], color="#4a5565", linewidth=1.2, label="history")
        for level, (low, high) in sorted(found.intervals.items(), reverse=True):
            label = f"{shown(level)} % interval"
            axes.fill_between(ahead, low, high, color="#2364aa", alpha=0.18, linewidth=0, label=label)
        axes.plot(ahead, found.median, color="#2364aa", linewidth=1.6, label="forecast")
        if np.isfinite(found.truth).any():
            axes.plot(ahead, found.truth, color="#c2571a", linewidth=1.2, label="what came")
        places = np.unique(np.linspace(begin, cut + horizon - 1, TICKS).astype(int))
        axes.set_xticks(places, [series.clock.date(int(i)) for i in places], fontsize=8)
        axes.set_title(series.id, loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
        figure.savefig(self._path(series.id), dpi=144)
        pyplot.close(figure)

    def _path(self, name: str) -> Path:
        """A file for a series, whatever signs its name has."""
        plain = re.sub(r"[^\w.-]+", "_", name).strip("._")[:80] or "series"
        path, again = self.folder / f"{plain}.png", 1
        while path.exists():
            again += 1
            path = self.folder / f"{plain}-{again}.png"
        return path
