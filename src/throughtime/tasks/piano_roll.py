"""A picture of a piece: its keys upwards, its time to the right, in rows as lines of text are."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from throughtime.errors import UserError
from throughtime.files import check_free, replacing
from throughtime.tasks.clock import bars, seconds, seconds_at
from throughtime.tasks.pieces import Array, Piece

COLOURS = ("#2364aa", "#c2571a", "#2a7f3f", "#8a3ffc", "#b0006d", "#00797f", "#7a5c00", "#4a5565")  # of tracks, in turn
DRUMS = "#4a5565"
NAMES = ("C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B")
BLACK = (1, 3, 6, 8, 10)
ROW, ROWS = 30.0, 24  # seconds of a row, and how many there are at most: of what is longer rows have more seconds
WIDE, HIGH = 16.0, 2.4  # inches of a row
DOTS = 100  # an inch
LABELS = 16  # bars that are numbered in a row, at most


def key_name(pitch: int) -> str:
    """The name of a key, 60 is C4."""
    return f"{NAMES[pitch % 12]}{pitch // 12 - 1}"


def draw_roll(piece: Piece, path: Path | str, *, overwrite: bool = False) -> None:
    """Draw the piano roll of a piece as a PNG: a colour a track, the harder a note is struck the darker, lines where bars begin.
    Rows have up to 30 seconds and begin with a bar; drums stand below the keys.

    Raises: UserError where the piece holds no note, the file is there already and `overwrite` is not asked for, it cannot be
        written, or matplotlib is not installed.
    """
    path = Path(path)
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError("a piano roll needs matplotlib, which is not installed (pip install 'throughtime[plot]')")
    check_free(path, overwrite=overwrite)
    if not len(piece):
        raise UserError(f"{piece.place or 'the piece'}: holds no note; there is nothing to draw")
    from matplotlib.figure import Figure

    times, lines = seconds(piece), seconds_at(piece, bars(piece))
    breaks, length = _breaks(lines, float(times.max()))
    drums = np.array([track.drums for track in piece.tracks])[piece.notes["track"]]
    heights, low, high = _heights(piece, drums)
    boxes, colours = _boxes(times, heights), _colours(piece, drums)
    figure = Figure(figsize=(WIDE, HIGH * len(breaks) + 0.5), layout="constrained")
    for row, axes in enumerate(figure.subplots(len(breaks), squeeze=False)[:, 0]):
        begin = breaks[row]
        end = breaks[row + 1] if row + 1 < len(breaks) else begin + length
        seen = (times[:, 0] < end) & (times[:, 1] >= begin)
        _draw_keys(axes, low, high, bool(drums.any()))
        _draw_time(axes, lines, begin, end)
        _draw_notes(axes, boxes[seen].clip((begin, 0), (end, 128)), colours[seen])
        axes.set_xlim(begin, begin + length)
    figure.suptitle(piece.name or piece.place, x=0.01, ha="left", fontsize=11)
    _name_tracks(figure, piece)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=DOTS, format="png")


def _breaks(lines: Array, end: float) -> tuple[list[float], float]:
    """Where rows begin, in seconds: with the last bar that begins in time; and the seconds of a row."""
    length = max(ROW, 1.1 * end / ROWS)
    if end <= length:
        return [0.0], end
    breaks = [0.0]
    while breaks[-1] + length < end:
        begun = lines[(lines > breaks[-1] + length / 2) & (lines <= breaks[-1] + length)]
        breaks.append(float(begun[-1]) if len(begun) else breaks[-1] + length)
    return breaks, length


def _heights(piece: Piece, drums: Array) -> tuple[Array, int, int]:
    """Where each note stands, and the lowest and the highest key that is drawn: an octave at least."""
    pitches = piece.notes["pitch"].astype(np.float64)
    keys = pitches[~drums] if (~drums).any() else np.array([60.0])
    low, high = int(keys.min()) - 1, int(keys.max()) + 1
    middle = max(0, 14 - (high - low)) // 2
    low, high = low - middle, high + middle
    return np.where(drums, low - 2, pitches), low, high


def _boxes(times: Array, heights: Array) -> Array:
    """The corners of notes: [n, 4, 2]."""
    left, right = times[:, 0], np.maximum(times[:, 1], times[:, 0] + 0.03)
    low, high = heights - 0.45, heights + 0.45
    return np.stack([np.stack(corner, 1) for corner in ((left, low), (right, low), (right, high), (left, high))], 1)


def _colours(piece: Piece, drums: Array) -> Array:
    """[n, 3]; what is struck softly is nearer to white."""
    from matplotlib.colors import to_rgb

    own = np.array([to_rgb(COLOURS[track % len(COLOURS)]) for track in range(len(piece.tracks))])
    full = np.where(drums[:, None], np.array(to_rgb(DRUMS)), own[piece.notes["track"]])
    found: Array = 1 - (1 - full) * (0.25 + 0.75 * piece.notes["velocity"][:, None] / 127)
    return found


def _draw_keys(axes: Any, low: int, high: int, drums: bool) -> None:
    """The keys: black ones shaded, the Cs named, of few keys also E and G."""
    for pitch in range(low, high + 1):
        if pitch % 12 in BLACK:
            axes.axhspan(pitch - 0.5, pitch + 0.5, color="#f1f3f6", linewidth=0, zorder=0)
        elif pitch % 12 == 0:
            axes.axhline(pitch - 0.5, color="#c9d0da", linewidth=0.6, zorder=0)
    named = (0, 4, 7) if high - low <= 26 else (0,)
    ticks = [pitch for pitch in range(low, high + 1) if pitch % 12 in named]
    axes.set_yticks(
        [*ticks, *([low - 2] if drums else [])],
        [*map(key_name, ticks), *(["drums"] if drums else [])],
        fontsize=7,
    )
    axes.set_ylim(low - (3 if drums else 0.5), high + 0.5)
    axes.tick_params(length=0)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_time(axes: Any, lines: Array, begin: float, end: float) -> None:
    """Seconds below, numbers of bars above, a line where each bar begins."""
    seen = np.flatnonzero((lines >= begin - 1e-6) & (lines < end - 1e-6))
    axes.vlines(lines[seen], 0, 1, transform=axes.get_xaxis_transform(), color="#d7dce4", linewidth=0.6, zorder=0.5)
    for bar in seen[:: max(1, -(-len(seen) // LABELS))]:
        place = (lines[bar], 1.0)
        axes.annotate(str(bar + 1), place, xycoords=("data", "axes fraction"), va="bottom", fontsize=7, color="#7b8794")
    step = next((step for step in (1, 2, 5, 10, 20, 60) if (end - begin) / step <= LABELS), 120)
    ticks = np.arange(np.ceil(begin / step) * step, end + 1e-6, step)
    axes.set_xticks(ticks, [f"{int(tick) // 60}:{int(tick) % 60:02}" for tick in ticks], fontsize=7)


def _draw_notes(axes: Any, boxes: Array, colours: Array) -> None:
    from matplotlib.collections import PolyCollection

    axes.add_collection(PolyCollection(list(boxes), facecolors=colours, edgecolors="white", linewidths=0.3, zorder=2))


def _name_tracks(figure: Any, piece: Piece) -> None:
    """A legend, where there are several tracks."""
    from matplotlib.patches import Patch

    used = [int(track) for track in np.unique(piece.notes["track"]) if not piece.tracks[track].drums]
    if len(used) > 1:
        shown = used[: len(COLOURS)]
        patches = [
            Patch(color=COLOURS[track % len(COLOURS)], label=piece.tracks[track].name or f"track {track + 1}")
            for track in shown
        ]
        figure.legend(handles=patches, loc="upper right", ncols=len(shown), frameon=False, fontsize=8)
