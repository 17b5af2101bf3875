"""What was seen, in a few lines for a terminal."""

from __future__ import annotations

import textwrap
from typing import Any

from throughtime.inspect.jacobian import LONGEST
from throughtime.tasks.look import visible

SHOWN = 8  # inputs
WIDTH = 80  # columns


def in_words(values: dict[str, Any]) -> str:
    """What `look_into` gives, as text: what was found, a line a layer, then the inputs that mattered most."""
    lines = [textwrap.fill(values["finding"], WIDTH), ""]
    for layer in values["layers"]:
        found = values["gradients"].get(layer["name"])
        if found is None:
            continue
        words = f"{layer['title']}: {layer['cell']} {layer['hidden_size']}: {found['verdict']}"
        if len(found["norms"]) == 1:
            lines.append(f"{words}: no step lies behind the answer")
            continue
        if found["rate"] is not None:
            words += f"; a step back leaves {found['rate']:.1%} of the gradient"
        for share, steps in (("1/e", found["horizon_e"]), ("1 %", found["horizon_1"])):
            words += f"; {share} " + (
                f"after {steps:.3g} steps" if steps is not None else f"after more than {len(found['norms']) - 1}"
            )
        if layer["stretching"] is not None:
            words += f"; largest Lyapunov exponent {layer['stretching']['exponents'][0]:.3g}"
            words += f" (over its first {LONGEST} steps)" if len(layer["steps"]) > LONGEST else ""
        lines.append(words)
    return "\n".join([*lines, "", *_mattered(values)])


def _mattered(values: dict[str, Any]) -> list[str]:
    """The inputs that mattered most for the output that is shown: by removal, or by the gradient where nothing can be removed."""
    (one,) = (one for one in values["influence"] if one["output"] == values["shown"])
    known = [
        (r, g, s) for r, g, s in zip(one["removal"], one["gradient"], values["inputs"], strict=True) if r is not None
    ]
    way = ", by taking it away:" if known else "; no input can be taken away:"
    rows = known or [(None, g, s) for g, s in zip(one["gradient"], values["inputs"], strict=True)]
    size = f"{'p =' if values['discrete'] else 'density'} {one['probability']:.3g}"
    lines = [f"what mattered for {visible(one['chosen'])} ({size}){way}"]
    for removal, gradient, name in sorted(rows, key=lambda row: -abs(row[1] if row[0] is None else row[0]))[:SHOWN]:
        lines.append(
            ("" if removal is None else f"{removal:+9.3f}  ") + f"(gradient × input {gradient:+.3f})  {visible(name)}"
        )
    if len(rows) > SHOWN:
        lines.append(f"           and {len(rows) - SHOWN} that mattered less (--json)")
    if one["disagree"]:
        lines.append("gradient and removal disagree; believe removal")
    return lines
