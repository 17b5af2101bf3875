"""The page: one file that opens from disk and asks no network for anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WEB = Path(__file__).with_name("web")
SCRIPTS = ("base", "chart", "answers", "gradients", "network", "units", "order")


def page(values: dict[str, Any]) -> str:
    """What `look_into` gives, as HTML: the values as JSON, and the code that draws them."""

    def read(name: str) -> str:
        return (WEB / name).read_text(encoding="utf-8")

    # within a script "</" and "<!--" would end it
    data = json.dumps(values, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    parts = {"style": read("style.css"), "script": "".join(read(f"{name}.js") for name in SCRIPTS), "data": data}
    found = read("page.html")
    for name, part in parts.items():
        found = found.replace("{{" + name + "}}", part)
    return found
