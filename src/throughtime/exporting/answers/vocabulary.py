"""Text as numbers and back, by a vocabulary's JSON file. Needs tokenizers where there is a .tokenizer.json beside it."""

import codecs
import json
import re
from collections.abc import Iterable
from pathlib import Path


class Vocabulary:
    """entries: number -> text; 0 is what is not known, 1 begins or ends. kind: characters, bytes, words or bpe."""

    def __init__(self, path: Path) -> None:
        about = json.loads(path.read_text(encoding="utf-8"))
        self.kind, self.entries, self.pattern, self.spaced = (
            about[k] for k in ("kind", "entries", "pattern", "spaced")
        )
        self.number = {entry: i for i, entry in enumerate(self.entries) if i != 1}
        if self.kind == "bpe":
            from tokenizers import Tokenizer

            self.tokenizer = Tokenizer.from_file(str(path.with_suffix(".tokenizer.json")))

    def encode(self, text: str) -> list[int]:
        """The numbers of a text."""
        if self.kind == "bpe":
            return list(self.tokenizer.encode(text).ids)
        if self.kind == "bytes":
            return [byte + 2 for byte in text.encode("utf-8", "surrogateescape")]
        return [self.number.get(piece, 0) for piece in (re.findall(self.pattern, text) if self.pattern else text)]

    def decode(self, numbers: Iterable[int]) -> str:
        """The text of numbers."""
        if self.kind == "bytes":
            return codecs.getincrementaldecoder("utf-8")("replace").decode(bytes(n - 2 for n in numbers if n > 1))
        text = ""
        for number in numbers:
            entry = self.entries[number] if number > 1 or (self.spaced and number != 1) else ""
            between = self.spaced and text and entry and entry != "\n" and not text.endswith("\n")
            text += " " + entry if between else entry
        return text
