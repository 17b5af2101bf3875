"""How `travel` draws: a timeline, and tables of two futures."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
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
    """The likeliest tokens after what was read, with their probabilities."""
    words = _tokens([token for token, _ in likeliest])
    return Text("next: " + "   ".join(f"{word} {p:.1%}" for word, (_, p) in zip(words, likeliest, strict=True)), "dim")


def futures(found: dict[str, Any]) -> Table:
    """What was read, what is expected next and what would be written, a column a future."""
    table = _table("", *found)
    values = list(found.values())
    table.add_row("read", *("… " * (len(v["read"]) > LAST) + seen(v["read"][-LAST:]) for v in values))
    columns = [_tokens([token for token, _ in v["next"]]) for v in values]
    for i in range(len(values[0]["next"])):
        shares = (v["next"][i][1] for v in values)
        table.add_row("" if i else "next", *(f"{p:6.1%}  {c[i]}" for p, c in zip(shares, columns, strict=True)))
    table.add_row("writes", *(seen(v["writes"]) for v in values))
    return table


def differences(rows: list[dict[str, Any]], against: str) -> Table:
    """against: the text of the original."""
    layers = len(rows[0]["states"]) if rows else 0
    names = ["log p\noriginal", "log p\nhere", *(f"state {i}\napart" for i in range(layers)), "KL\nnats"]
    table = _table("", "original", "here", *names, "likeliest\nnext", numbers=("", *names))
    table.title = Text(f"here against the original: {'… ' * (len(against) > LAST)}{seen(against[-LAST:])}")
    table.title_justify = "left"
    for number, row in enumerate(rows):
        table.add_row(
            str(number),
            seen(row["original"]),
            seen(row["here"]) if row["here"] != row["original"] else "",
            *(f"{p:.3f}" for p in row["log_probability"]),
            *(_small(d) for d in row["states"]),
            _small(row["divergence"]),
            "another" if row["likeliest_changed"] else "",
        )
    return table


def ways(found: dict[str, Any]) -> Table:
    """What pieces cost, what is expected next and what would be written, a column a piece."""
    table = _table("", *found)
    values = list(found.values())
    table.add_row("nats", *(f"{v['nats']:.2f}" for v in values))
    for i in range(min(len(v["next"]) for v in values)):
        table.add_row("" if i else "next", *(f"{p:6.1%}  {moment}" for moment, p in (v["next"][i] for v in values)))
    for i, row in enumerate(zip_longest(*(v["writes"] for v in values), fillvalue="")):
        table.add_row("" if i else "writes", *row)
    return table


def apart(rows: list[dict[str, Any]]) -> Table:
    """Two pieces, a row a moment."""
    layers = len(rows[0]["states"]) if rows else 0
    names = ["nats\noriginal", "nats\nhere", *(f"state {i}\napart" for i in range(layers))]
    table = _table("", "original", "here", *names, numbers=("", *names))
    for number, row in enumerate(rows):
        new = row["here"] if row["here"] != row["original"] else ""
        numbers = (*(f"{nats:.3f}" for nats in row["nats"]), *map(_small, row["states"]))
        table.add_row(str(number), row["original"], new, *numbers)
    return table


def states(layers: list[dict[str, Any]]) -> Table:
    """A row a layer: how large its state is, and how far from the original's."""
    table = _table("layer", *layers[0], numbers=("layer", *layers[0]))
    for number, values in enumerate(layers):
        table.add_row(str(number), *(str(v) if isinstance(v, int) else _small(v) for v in values.values()))
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


def _small(value: float) -> str:
    """So that what is not 0 does not look as if it were."""
    return "<0.001" if 0 < value < 5e-4 else f"{value:.3f}"


def _tokens(tokens: list[str]) -> list[str]:
    """Tokens without the space before them, where that leaves them apart; else it is shown."""
    plain = [seen(token).removeprefix(" ") for token in tokens]
    return plain if len(set(plain)) == len(plain) else [seen(token.replace(" ", "␣")) for token in tokens]


def _table(*names: str, numbers: tuple[str, ...] = ()) -> Table:
    """numbers: the columns that are set to the right."""
    table = Table(box=box.SIMPLE)
    for name in names:
        table.add_column(Text(name), overflow="fold", justify="right" if name in numbers else "left")
    return table
