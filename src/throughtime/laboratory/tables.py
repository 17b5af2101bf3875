"""What an experiment found, as tables: each trial, and the longest lag of each cell."""

from __future__ import annotations

from typing import Any

from rich.cells import cell_len, set_cell_size

Row = dict[str, str]
NARROW = 7  # characters that are left of a first column, at least


def trials(values: dict[str, Any]) -> list[Row]:
    """A row for each cell at each lag. What is the same for all of them is `conditions`."""
    rows = []
    for cell in values["cells"]:
        for trial in cell["trials"]:
            row = {"cell": cell["cell"], "lag": str(trial["lag"])}
            if values["spectral_radius"] is not None:
                row["clip"] = "none" if trial["clip"] is None else f"{trial['clip']:g}"
            row[values["score"]] = "none" if trial["score"] is None else f"{trial['score']:.4g}"
            if not conditions(values):
                row |= {"chance": f"{trial['chance']:.3g}", "goal": f"{trial['goal']:.3g}"}
            row["learned"] = _end(trial)
            row |= {
                "steps": str(trial["steps"]),
                "seconds": f"{trial['seconds']:.{0 if trial['seconds'] > 99 else 1}f}",
            }
            row["gradient"] = f"{largest_norm(trial):.3g}"
            rows.append(row)
    return rows


def _end(trial: dict[str, Any]) -> str:
    if trial["broke"]:
        return f"broke at {trial['broke']['step']}"
    return "no" if trial["learned_at"] is None else f"at {trial['learned_at']}"


def conditions(values: dict[str, Any]) -> str:
    """The goal, and the score without a memory, in words, where they are the same at every lag; else nothing."""
    found = {(trial["chance"], trial["goal"]) for cell in values["cells"] for trial in cell["trials"]}
    if len(found) != 1:
        return ""
    ((chance, goal),) = found
    return f"{values['score']}: {goal:.3g} counts as learned, {chance:.3g} needs no memory"


def networks(values: dict[str, Any]) -> list[Row]:
    """A row for each cell: how large its network is, and the longest lag it learned where the question is how far back it can."""
    rows = []
    for cell in values["cells"]:
        row = {"cell": cell["cell"], "width": str(cell["hidden_size"]), "parameters": f"{cell['parameters']:,}"}
        rows.append(row | ({"longest lag": in_words(cell, values)} if goes_up(values) else {}))
    return rows


def goes_up(values: dict[str, Any]) -> bool:
    """Whether the question is how far back a cell can learn."""
    return len(values["lags"]) > 1 and values["spectral_radius"] is None


def in_words(cell: dict[str, Any], values: dict[str, Any]) -> str:
    """The longest lag a cell learned; "or more" where it learned all that were tried."""
    lag = cell["longest_lag"]
    if lag is None:
        return f"under {values['lags'][0]}"
    return f"{lag} or more" if lag == values["lags"][-1] else str(lag)


def largest_norm(trial: dict[str, Any]) -> float:
    """The largest gradient norm of a trial, before clipping; 0 where no step had a finite one."""
    norms = [point["gradient_norm"] for point in trial["curve"]]
    return max([*norms, *(trial["broke"]["norms"] if trial["broke"] else [])], default=0.0)


def as_text(rows: list[Row], width: int | None = None) -> str:
    """Columns side by side, the first set to the left and the others, of numbers, to the right.

    Args: width: of the screen, to which the first column is shortened; None: nothing is.
    """
    names = list(rows[0])
    lines = [names, *([row[name] for name in names] for row in rows)]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    over = table_width(rows) - (width or table_width(rows))
    if over > 0:
        widths[0] = max(widths[0] - over, min(widths[0], NARROW))
    return "\n".join("  ".join(_set(cell, widths[i], right=i > 0) for i, cell in enumerate(line)) for line in lines)


def table_width(rows: list[Row]) -> int:
    """The characters of a line of `as_text`."""
    columns = [[name, *(row[name] for row in rows)] for name in rows[0]]
    return sum(max(map(cell_len, column)) + 2 for column in columns) - 2


def shortened(text: str, width: int) -> str:
    """A text in so many characters of a screen, with … in the place of what does not fit."""
    return text if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"


def _set(cell: str, width: int, right: bool) -> str:
    cell = shortened(cell, width)
    space = " " * (width - cell_len(cell))
    return space + cell if right else cell + space


def as_markdown(rows: list[Row]) -> str:
    """A table of Markdown."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *(list(row.values()) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def written(values: dict[str, Any], markdown: bool = False, width: int | None = None) -> str:
    """All tables of an experiment. width: as of `as_text`."""
    parts = [
        as_markdown(rows) if markdown else as_text(rows, width) for rows in (networks(values), trials(values)) if rows
    ]
    return "\n\n".join([*parts, *filter(None, [conditions(values)])])
