"""How `travel` draws: a timeline, and tables of two futures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

NOW = "▸"
LAST = 60  # characters of what was read


def timeline(words: list[str], present: int, around: int) -> Text:
    """The words about the present, numbered; what has been read before the mark, what lies ahead after it."""
    low, high = max(present - around, 0), min(present + around, len(words))
    line = Text("… " if low else "")
    for i in range(low, high):
        if i == present:
            line.append(f"{NOW} ", "bold cyan")
        line.append(f"{i} ", "dim")
        line.append(seen(words[i]), "bold" if i < present else "dim")
        line.append("  ")
    if present >= high:
        line.append(NOW, "bold cyan")
    return line.append("…" if high < len(words) else "")


def expected(likeliest: list[tuple[str, float]]) -> Text:
    return Text("next: " + "   ".join(f"{seen(token)} {p:.1%}" for token, p in likeliest), "dim")


def futures(found: dict[str, Any]) -> Table:
    table = _table("", *found)
    values = list(found.values())
    table.add_row("read", *("… " * (len(v["read"]) > LAST) + seen(v["read"][-LAST:]) for v in values))
    for i in range(len(values[0]["next"])):
        table.add_row("" if i else "next", *(f"{p:6.1%}  {seen(token)}" for token, p in (v["next"][i] for v in values)))
    table.add_row("writes", *(seen(v["writes"]) for v in values))
    return table


def differences(rows: list[dict[str, Any]]) -> Table:
    layers = range(len(rows[0]["states"])) if rows else range(0)
    table = _table("", "original", "here", "log p", "log p", *(f"state {i}" for i in layers), "KL", "likeliest")
    for number, row in enumerate(rows):
        table.add_row(
            str(number),
            seen(row["original"]),
            seen(row["here"]) if row["here"] != row["original"] else "",
            *(f"{p:.3f}" for p in row["log_probability"]),
            *(f"{d:.3g}" for d in row["states"]),
            f"{row['divergence']:.3g}",
            "another" if row["likeliest_changed"] else "",
        )
    return table


def states(layers: list[dict[str, Any]]) -> Table:
    table = _table("layer", *layers[0])
    for number, values in enumerate(layers):
        table.add_row(str(number), *(f"{v:.4g}" for v in values.values()))
    return table


def answers(before: dict[str, Any], after: dict[str, Any]) -> Table:
    """What was made of two inputs: a row a word where there is an answer for each, else a row a value."""
    table = _table("", "original", "", "here", "")
    if "tags" in before:
        rows = zip(*(v[k] for v in (before, after) for k in ("words", "tags")), strict=True)
        for number, row in enumerate(rows):
            table.add_row(str(number), *row, style="bold" if row[1] != row[3] else "")
        return table
    table = _table("", "original", "here")
    for name, value in before.items():
        if name == "probabilities":
            for label, p in value.items():
                table.add_row(label, f"{p:.1%}", f"{after[name][label]:.1%}")
        elif name not in ("line", "probability"):
            shown = [" ".join(map(str, v)) if isinstance(v, list) else _value(v) for v in (value, after[name])]
            table.add_row(name, *shown)
    return table


def other(values: dict[str, Any]) -> Iterator[Any]:
    """Of anything else a line a value; of the help a table."""
    if "help" in values:
        table = Table(box=None, show_header=False)
        for command, words in values["help"].items():
            table.add_row(Text(command), words)
        yield table
    else:
        yield Text("\n".join(f"{name}: {value}" for name, value in values.items()))


def seen(text: str) -> str:
    """A text on one line: the end of a line as ⏎, white space alone as ␣."""
    text = text.replace("\n", "⏎")
    return text if text.strip() else text.replace(" ", "␣")


def _value(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _table(*names: str) -> Table:
    table = Table(box=box.SIMPLE)
    for name in names:
        table.add_column(Text(name), overflow="fold")
    return table
