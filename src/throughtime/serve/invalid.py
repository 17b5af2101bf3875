"""What is wrong with a request, in words."""

from __future__ import annotations

import reprlib
from typing import Any

_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = 100


def in_words(errors: Any) -> str:
    """The first of what pydantic found wrong: where, what was given, and what may be."""
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body") or "body"
    if first["type"] == "json_invalid":
        return f"body: is no JSON: {first.get('ctx', {}).get('error', '')} at {where}"
    if first["type"] == "missing":
        return f"{where}: is missing"
    if first["type"] == "extra_forbidden":
        return f"{where}: there is no such key; leave it out (GET /openapi.json lists what there is)"
    words = first["msg"][:1].lower() + first["msg"][1:]
    hint = "; send JSON, with Content-Type: application/json" if where == "body" else ""
    return f"{where}: got {_BRIEF.repr(first['input'])}; {words}{hint}"
