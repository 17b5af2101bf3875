"""The label of each text, one a line, and its probability: python answer.py < texts.txt. Needs numpy and onnxruntime (and tokenizers,
where there is a tokenizer.json)."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import onnxruntime

here = Path(__file__).parent
known = json.loads((here / "reading.json").read_text(encoding="utf-8"))
classifier = onnxruntime.InferenceSession(here / "classifier.onnx")
number = {entry: i for i, entry in enumerate(known["entries"]) if i != 1}
piece_number = {piece: i for i, piece in enumerate(known["pieces"] or [])}
language_number = {entry: i for i, entry in enumerate(known["language"] or []) if i != 1}
tokenizer = None
if known["kind"] == "bpe":
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(here / "tokenizer.json"))


def cut(text: str) -> list[str]:
    """What a text is read as: words, characters, bytes, or byte-pair pieces."""
    text = " ".join(text.split())
    if known["kind"] == "words":
        text = text.lower() if known["lower"] else text
        return re.findall(known["pattern"] or r"[^ ]+", text)
    if tokenizer is not None:
        return tokenizer.encode(text).tokens
    return [f"<{byte:02x}>" for byte in text.encode()] if known["kind"] == "bytes" else list(text)


def spelling(word: str) -> list[int]:
    """The numbers of a word's pieces."""
    marked, (least, most) = f"<{word}>", known["piece_sizes"]
    found = dict.fromkeys(marked[i : i + n] for n in range(least, most + 1) for i in range(len(marked) - n + 1))
    return [piece_number[piece] for piece in found if piece in piece_number]


def in_language(word: str) -> int:
    """A word in a language model's vocabulary, which may have it with a space before it or with a capital."""
    forms = (word, f" {word}", word.capitalize(), f" {word.capitalize()}")
    return next((language_number[form] for form in forms if form in language_number), 0)


for line in sys.stdin:
    words, half = cut(line), known["longest"] // 2
    words = words if len(words) <= 2 * half else words[:half] + words[-half:]
    if not words:
        print()
        continue
    asked = {"tokens": [[number.get(word, 0)] for word in words], "lengths": [len(words)]}
    if known["pieces"]:
        parts = [spelling(word) for word in words]
        asked["index"] = [[i] for i in range(len(words))]
        asked["pieces"] = [piece for part in parts for piece in part]
        asked["starts"] = np.cumsum([0, *map(len, parts)])
    if known["language"]:
        asked["language"] = [[in_language(word)] for word in words]
    log_p = classifier.run(None, {name: np.array(value, np.int64) for name, value in asked.items()})[0][0]
    print(known["labels"][log_p.argmax()], f"{np.exp(log_p.max()):.4f}", sep="\t")
