"""The README of an export, and the file that marks its folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from throughtime.exporting.folder import MARK
from throughtime.exporting.interface import Interface, Named, interface_of
from throughtime.exporting.stack import Stack

README = "README.md"


def write_readme(folder: Path, title: str, sections: Sequence[tuple[str, str]]) -> None:
    """Write README.md: a title, and sections of Markdown, (heading, text); a section without a heading comes first."""
    parts = [
        f"# {title}",
        *(f"## {heading}\n\n{text.strip()}" if heading else text.strip() for heading, text in sections),
    ]
    (folder / README).write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def shapes(interface: Interface, *, time: bool) -> str:
    """A table of what goes in and comes out. time: of whole sequences, [T, B, ...]; else of one step, [B, ...]."""
    lead = ("T", "B") if time else ("B",)
    rows = [
        *((n, "in", lead) for n in interface.inputs),
        *((n, "in", ("B",)) for n in interface.states),
        (interface.output, "out", lead),
        *((n, "out", ("B",)) for n in interface.finals),
    ]
    return "\n".join(["| name | | shape | type | what it is |", "|---|---|---|---|---|", *(_row(*r) for r in rows)])


def _row(named: Named, way: str, lead: tuple[str, ...]) -> str:
    shape = ", ".join((*lead, *map(str, named.shape)))
    return f"| `{named.name}` | {way} | [{shape}] | {named.dtype} | {named.meaning} |"


def starts(stack: Stack) -> str:
    """Where states start, in a sentence."""
    set_ = [f"`state{i}`" for i, state in enumerate(stack.states) if bool(state.any())]
    if not set_:
        return "All states start from zeros."
    rest = "" if len(set_) == len(stack.states) else " The other states start from zeros."
    return f"{', '.join(set_)}: the same for every sequence, given in {MARK} as `start`, row by row.{rest}"


def write_mark(folder: Path, stack: Stack, to: str, **facts: Any) -> None:
    """Write the file by which a folder is known as an export: what it is made of, by which version, and what else is of use."""
    import throughtime

    names = interface_of(stack)
    made = {
        "format": to,
        "made_of": stack.name,
        "layers": [[d.name for d in layer.directions] for layer in stack.layers],
        "throughtime": throughtime.__version__,
        "tensors": {
            n.name: {"shape": list(n.shape), "dtype": n.dtype, "meaning": n.meaning}
            for n in (*names.inputs, *names.states, names.output, *names.finals)
        },
        "start": {
            n.name: state.flatten().tolist()
            for n, state in zip(names.states, stack.states, strict=True)
            if bool(state.any())
        },
        **facts,
    }
    (folder / MARK).write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
