"""The attention of translations, as JSON and as a picture."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from throughtime.runs import replacing, write_text
from throughtime.tasks.look import visible

LONGEST = 100  # tokens of a line in a picture
DRAWN = 6  # lines in a picture, at most


def write_alignments(found: list[dict[str, Any]], path: Path) -> None:
    """Each line's source tokens, target tokens and attention [target, source]; and a picture of the first lines."""
    rows = [{key: v.get(key, []) for key in ("line", "translation", "source", "target", "attention")} for v in found]
    write_text(path, json.dumps(rows, ensure_ascii=False) + "\n")
    if importlib.util.find_spec("matplotlib") is None:
        print("no picture: matplotlib is not installed (pip install 'throughtime[plot]')", file=sys.stderr)
        return
    attended = [row for row in rows if row["attention"]]
    short = [row for row in attended if max(len(row["source"]), len(row["target"])) <= LONGEST]
    if len(short) < len(attended):
        print(f"no picture of {len(attended) - len(short)} lines of over {LONGEST} tokens", file=sys.stderr)
    drawn = short[:DRAWN]
    if len(short) > DRAWN:
        print(f"the picture is of the first {DRAWN} of {len(short)} lines", file=sys.stderr)
    if not drawn:
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    heights = [0.28 * len(row["target"]) + 1.2 for row in drawn]
    width = max(4.0, 0.32 * max(len(row["source"]) for row in drawn) + 2)
    figure, axes = pyplot.subplots(
        len(drawn), 1, figsize=(width, sum(heights)), height_ratios=heights, squeeze=False, layout="constrained"
    )
    for row, ax in zip(drawn, axes[:, 0], strict=True):
        ax.imshow(row["attention"], cmap="Blues", vmin=0, vmax=1, aspect="auto")
        ax.set_xticks(range(len(row["source"])), [_shown(t) for t in row["source"]], rotation=60, ha="left", fontsize=8)
        ax.set_yticks(range(len(row["target"])), [_shown(t) for t in row["target"]], fontsize=8)
        ax.xaxis.tick_top()
    with replacing(path.with_suffix(".png")) as temporary:
        figure.savefig(temporary, dpi=144, format="png")
    pyplot.close(figure)


def _shown(token: str) -> str:
    """A token with nothing in it that a picture would read as mathematics."""
    return visible(token).replace("$", r"\$")
