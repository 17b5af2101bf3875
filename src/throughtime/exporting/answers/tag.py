"""Tags sentences, one a line: python answer.py < sentences.txt

Needs numpy and onnxruntime.
"""

import json
import re
import sys
from pathlib import Path

import numpy as np
import onnxruntime

here = Path(__file__).parent
known = json.loads((here / "tagset.json").read_text(encoding="utf-8"))
tagger = onnxruntime.InferenceSession(here / "tagger.onnx")
word_number = {word: i for i, word in enumerate(known["words"], 2)}
character_number = {c: i for i, c in enumerate(known["characters"], 2)}

for line in sys.stdin:
    words = re.findall(known["pattern"], line)
    if words:
        letters = [[character_number.get(c, 0) for c in word[: known["longest"]]] for word in words]
        spelt = np.zeros((max(map(len, letters)), len(words)), np.int64)
        for i, row in enumerate(letters):
            spelt[: len(row), i] = row
        asked = {
            "words": [[word_number.get(word.lower(), 0)] for word in words],
            "lengths": [len(words)],
            "index": [[i] for i in range(len(words))],
            "spelt": spelt,
            "spelt_lengths": [len(row) for row in letters],
        }
        tags = tagger.run(["tags"], {name: np.array(value, np.int64) for name, value in asked.items()})[0][:, 0]
    print(*(f"{word}/{known['tags'][tag]}" for word, tag in zip(words, tags if words else [], strict=True)))
