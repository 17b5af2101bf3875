"""The ES module that runs what was exported, and its types."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from throughtime.exporting.interface import Interface, Named
from throughtime.exporting.stack import Stack
from throughtime.exporting.wasm.linking import LIBM
from throughtime.tasks.tokens import Tokens
from throughtime.tasks.words import PIECES, SPACED_AND_ENDS

TEMPLATES = Path(__file__).parent
# what `\w` and `\s` are in JavaScript's terms: in Python's patterns of words, and in those of tokenizers
_WORDS = r"\p{L}\p{N}_", r"\t-\r\x1c- \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_PARTS = r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}", r"\p{White_Space}"


@dataclass(frozen=True)
class Vocabulary:
    """How a text model's texts are cut into tokens, and what ends a document within them, if anything does."""

    tokens: Tokens
    ends: str


def es_module(
    name: str, stack: Stack, names: Interface, libm: Iterable[str], vocabulary: Vocabulary | None = None
) -> str:
    """The text of NAME.js. libm: the functions that NAME.wasm asks for. vocabulary: of a model that reads tokens."""
    import throughtime

    spec = {
        "name": name,
        "inputs": _rows(names.inputs),
        "output": list(names.output.shape),
        "states": _rows(names.states),
    }
    parts = {
        "heading": f"{stack.name} as {name}.wasm, by throughtime {throughtime.__version__}; README.md tells how it is used.",
        "spec": json.dumps(spec, ensure_ascii=False),
        "libm": libm_of(libm),
        "read": " read: this.#wasm[`${this.name}_read`]," if vocabulary else "",
        "tokens": _tokens(vocabulary) if vocabulary else "",
    }
    return _filled("js", parts, reads=vocabulary is not None)


def libm_of(functions: Iterable[str]) -> str:
    """What a module asks for, as an object of JavaScript."""
    return "{" + "".join(f"\n  {function}: {LIBM[function]},\n" for function in functions) + "}"


def types(*, reads: bool) -> str:
    """The text of NAME.d.ts. reads: whether the model reads tokens."""
    return _filled("d.ts", {}, reads=reads)


def _filled(ending: str, parts: dict[str, str], *, reads: bool) -> str:
    """A template with its parts."""

    def read(part: str) -> str:
        return (TEMPLATES / f"{part}.{ending}").read_text(encoding="utf-8")

    text = {part: read(part) if reads else "" for part in ("reading", "text")}
    found = read("network")
    for part, value in {"network": "TextNetwork" if reads else "Network", **text, **parts}.items():
        found = found.replace("{{" + part + "}}", value)
    return found


def _rows(tensors: Sequence[Named]) -> list[dict[str, Any]]:
    """Tensors, and where each begins in the row that they make."""
    starts = accumulate((n.width for n in tensors), initial=0)
    return [{"name": n.name, "offset": at, "shape": list(n.shape)} for n, at in zip(tensors, starts, strict=False)]


def _tokens(vocabulary: Vocabulary) -> str:
    """A vocabulary as JSON. What is no text by itself (half a surrogate pair) is escaped."""
    tokens = vocabulary.tokens
    word, space = _WORDS if tokens.kind == "words" else _PARTS
    same = {r"[^\W_]": rf"(?:(?!_)[{word}])", r"[^\w\s]": f"[^{word}{space}]", r"[^\S\n]": rf"(?:(?!\n)[{space}])"}
    pieces = PIECES
    for python, javascript in same.items():
        pieces = pieces.replace(python, javascript)
    values = {
        "kind": tokens.kind,
        "spaced": tokens.spaced,
        "pattern": SPACED_AND_ENDS if tokens.spaced else pieces,
        "ends": vocabulary.ends,
        "entries": tokens.entries,
        "merges": tokens.merges or [],
    }
    return json.dumps(values)
