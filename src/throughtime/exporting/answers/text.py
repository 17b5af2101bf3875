"""Writes on after a prompt, the likeliest token each time: python answer.py "Once upon a" 400

Without a prompt: the log-probability of each line that it reads. Needs numpy and onnxruntime; and tokenizers, where there is a
.tokenizer.json.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from vocabulary import Vocabulary  # the file beside this one

here = Path(__file__).parent
vocabulary = Vocabulary(here / "vocabulary.json")
end = {"line": "\n", "paragraph": "\n\n"}.get(json.loads((here / "text.json").read_text())["documents"])
step, sequences = (onnxruntime.InferenceSession(here / f"{name}.onnx") for name in ("step", "sequences"))
zeros = {i.name: np.zeros((1, *i.shape[1:]), np.float32) for i in step.get_inputs()[1:]}
UNKNOWN, START = 0, 1


def log_probability(line: str) -> float:
    """Of a line, as a document begins."""
    tokens = vocabulary.encode(line)
    read = np.array([[START], *([token] for token in tokens[:-1])], np.int64)
    log_p = sequences.run(["log_p"], {"tokens": read, **zeros})[0][:, 0].astype(np.float64)
    return float(log_p[np.arange(len(tokens)), tokens].sum()) if tokens else 0.0


def next_log_p(token: int, states: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Of each entry after a token, and the states to go on from."""
    log_p, *finals = step.run(None, {"tokens": np.array([token], np.int64), **states})
    log_p[:, [UNKNOWN, START]] = -np.inf  # never written
    return log_p[0], dict(zip(states, finals, strict=True))


def write(prompt: str, length: int) -> str:
    """What comes after a prompt."""
    tokens, begun = vocabulary.encode(prompt), ""
    if vocabulary.kind != "words":
        tokens = [token for token in tokens if token != UNKNOWN]
    last = vocabulary.entries[tokens[-1]] if tokens else "\n"
    if vocabulary.kind in ("bpe", "words") and not vocabulary.spaced and prompt.endswith(last) and last != "\n":
        tokens, begun = tokens[:-1], last  # the last piece may be half a word: what is written first begins with it
    log_p, states = next_log_p(START, zeros)
    for token in tokens:
        log_p, states = next_log_p(token, states)
    if begun:
        log_p[[not entry.startswith(begun) for entry in vocabulary.entries]] = -np.inf
    written, tail = [], ""
    for _ in range(length):
        token = int(log_p.argmax())
        written.append(token)
        tail += vocabulary.decode([token])
        if end and tail.endswith(end):  # a document is written: the next begins without a memory of it
            token, tail, states = START, "", zeros
        log_p, states = next_log_p(token, states)
    return vocabulary.decode([*tokens, *written])[len(vocabulary.decode(tokens)) + len(begun) :]


if len(sys.argv) > 1:
    print(sys.argv[1] + write(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 400), end="")
else:
    for line in sys.stdin:
        text = line.rstrip("\r\n")
        print(f"{log_probability(text):.4f}\t{text}")
