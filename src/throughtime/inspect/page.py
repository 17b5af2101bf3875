"""The page: one file that opens from disk and asks no network for anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TEMPLATE = Path(__file__).with_name("page.html")


def page(values: dict[str, Any]) -> str:
    """What `look_into` gives, as HTML: the values as JSON, and the code that draws them."""
    # within a script "</" and "<!--" would end it
    data = json.dumps(values, ensure_ascii=False).replace("<", "\\u003c")
    return TEMPLATE.read_text(encoding="utf-8").replace("{{data}}", data)
