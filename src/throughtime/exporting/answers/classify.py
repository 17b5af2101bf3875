"""The label of each text, one a line, and its probability: python answer.py < texts.txt

Needs numpy and onnxruntime; and tokenizers, where there is a .tokenizer.json.
"""

import json
import re
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from vocabulary import Vocabulary  # the file beside this one

here = Path(__file__).parent
known = json.loads((here / "reading.json").read_text(encoding="utf-8"))
vocabulary = Vocabulary(here / "vocabulary.json")
classifier = onnxruntime.InferenceSession(here / "classifier.onnx")
piece_number = {piece: i for i, piece in enumerate(known["pieces"] or [])}
language_number = {entry: i for i, entry in enumerate(known["language"] or []) if i != 1}


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
    text, half = " ".join(line.split()), known["longest"] // 2
    words = re.findall(known["pattern"] or "[^ ]+", text.lower() if known["lower"] else text)
    read = words if vocabulary.kind == "words" else vocabulary.encode(text)
    read = read if len(read) <= 2 * half else read[:half] + read[-half:]
    if not read:
        print()
        continue
    tokens = [vocabulary.number.get(word, 0) for word in read] if vocabulary.kind == "words" else read
    asked = {"tokens": [[token] for token in tokens], "lengths": [len(tokens)]}
    if known["pieces"]:
        parts = [spelling(word) for word in read]
        asked["index"] = [[i] for i in range(len(read))]
        asked["pieces"] = [piece for part in parts for piece in part]
        asked["starts"] = np.cumsum([0, *map(len, parts)])
    if known["language"]:
        asked["language"] = [[in_language(word)] for word in read]
    log_p = classifier.run(None, {name: np.array(value, np.int64) for name, value in asked.items()})[0][0]
    print(known["labels"][log_p.argmax()], f"{np.exp(log_p.max()):.4f}", sep="\t")
