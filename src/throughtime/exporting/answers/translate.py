"""Translates lines: python answer.py < lines.txt

Needs numpy and onnxruntime; and tokenizers, where there is a .tokenizer.json.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from beam import beam_search  # the files beside this one
from vocabulary import Vocabulary

here = Path(__file__).parent
known = json.loads((here / "translate.json").read_text(encoding="utf-8"))
source, target = (Vocabulary(here / f"{known[side]}.json") for side in ("source", "target"))
encoder, decoder = (onnxruntime.InferenceSession(here / f"{name}.onnx") for name in ("encoder", "decoder"))


def translated(line: str) -> str:
    """The likeliest translation that a beam of 5 finds."""
    tokens = source.encode(line.strip())[: known["longest"]]
    if not tokens:
        return ""
    values, keys, *states = encoder.run(
        None, {"source": np.array([tokens], np.int64).T, "lengths": np.array([len(tokens)])}
    )

    def step(last: Any, states: Any) -> tuple[Any, Any]:
        rows = len(last)
        asked = {"tokens": last, "lengths": np.full(rows, len(tokens))}
        asked |= {"values": np.repeat(values, rows, 1), "keys": np.repeat(keys, rows, 1)}
        asked |= {f"state{i}": state for i, state in enumerate(states)}
        log_p, _, *states = decoder.run(None, asked)
        return log_p, states

    more, ratio = known["limit"]
    return target.decode(beam_search(step, states, math.ceil(more + ratio * len(tokens)))).strip()


for line in sys.stdin:
    print(translated(line))
