"""What an experiment found, as tables: each trial, and the longest lag of each cell."""

from __future__ import annotations

from typing import Any

from rich.cells import cell_len

Row = dict[str, str]


def trials(values: dict[str, Any]) -> list[Row]:
    """A row for each cell at each lag."""
    rows = []
    for cell in values["cells"]:
        for trial in cell["trials"]:
            row = {"cell": cell["cell"], "width": str(cell["hidden_size"]), "parameters": f"{cell['parameters']:,}"}
            row["lag"] = str(trial["lag"])
            if values["spectral_radius"] is not None:
                row["clip"] = "none" if trial["clip"] is None else f"{trial['clip']:g}"
            row[values["score"]] = "none" if trial["score"] is None else f"{trial['score']:.4g}"
            row |= {"chance": f"{trial['chance']:.4g}", "goal": f"{trial['goal']:.4g}"}
            row["learned"] = "no" if trial["learned_at"] is None else f"step {trial['learned_at']}"
            row["broke"] = f"step {trial['broke']['step']}" if trial["broke"] else "no"
            row |= {"steps": str(trial["steps"]), "seconds": f"{trial['seconds']:.1f}"}
            row["gradient"] = f"{largest_norm(trial):.3g}"
            rows.append(row)
    return rows


def longest(values: dict[str, Any]) -> list[Row]:
    """A row for each cell: the longest lag it learned. None where there is one lag, or the problem asks for something else."""
    if not goes_up(values):
        return []
    return [{"cell": cell["cell"], "longest lag": in_words(cell, values)} for cell in values["cells"]]


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


def as_text(rows: list[Row]) -> str:
    """Columns side by side, the first set to the left and the others, of numbers, to the right."""
    names = list(rows[0])
    lines = [names, *([row[name] for name in names] for row in rows)]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(_set(cell, widths[i], right=i > 0) for i, cell in enumerate(line)) for line in lines)


def _set(cell: str, width: int, right: bool) -> str:
    space = " " * (width - cell_len(cell))
    return space + cell if right else cell + space


def as_markdown(rows: list[Row]) -> str:
    """A table of Markdown."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *(list(row.values()) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def written(values: dict[str, Any], markdown: bool = False) -> str:
    """All tables of an experiment."""
    make = as_markdown if markdown else as_text
    return "\n\n".join(make(rows) for rows in (longest(values), trials(values)) if rows)
