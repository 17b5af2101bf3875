"""What was seen, in a few lines for a terminal."""

from __future__ import annotations

from typing import Any

from throughtime.inspect.jacobian import LONGEST

SHOWN = 8  # inputs


def in_words(values: dict[str, Any]) -> str:
    """What `look_into` gives, as text: a line a layer, then the inputs that mattered most."""
    lines = []
    for layer in values["layers"]:
        found = values["gradients"].get(layer["name"])
        if found is None:
            continue
        way = ", backwards" if layer["reverse"] else ""
        words = f"{layer['name']}{way}: {layer['cell']} {layer['hidden_size']}: {found['verdict']}"
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
    influence = values["influence"]
    lines.append(
        f"what mattered for {influence['chosen'].strip(' ') or ' '!r} (p = {influence['probability']:.3g}), by taking it away:"
    )
    known = [
        (r, g, s)
        for r, g, s in zip(influence["removal"], influence["gradient"], values["inputs"], strict=True)
        if r is not None
    ]
    for removal, gradient, name in sorted(known, key=lambda row: -abs(row[0]))[:SHOWN]:
        lines.append(f"{removal:+9.3f}  (gradient × input {gradient:+.3f})  {name.strip() or repr(name)}")
    if len(known) > SHOWN:
        lines.append(f"           and {len(known) - SHOWN} that mattered less (--json)")
    if influence["disagree"]:
        lines.append("gradient and removal disagree; believe removal")
    return "\n".join(lines)
