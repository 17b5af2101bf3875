"""What is said in recordings, a line each, by the likeliest unit at each step: python answer.py a.wav b.wav

Needs numpy and onnxruntime; soundfile for what is no 16-bit WAV, soxr for another rate than 16 kHz.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from logmel import features, normalised, samples  # the files beside this one
from pauses import Pauses, quietest

here = Path(__file__).parent
known = json.loads((here / "transcribe.json").read_text(encoding="utf-8"))
recogniser = onnxruntime.InferenceSession(here / "recogniser.onnx")


def utterances(heard: Any) -> Iterator[tuple[Any, bool]]:
    """The frames of each utterance between pauses, and whether it may be speech; one that is too long is cut where it is
    quietest."""
    pauses, frames, most = Pauses(), heard[:0], np.inf if known["streaming"] else known["longest"]
    for piece in (*map(pauses.push, heard), pauses.finish()):
        if piece is None:
            continue
        frames = np.concatenate([frames, piece.features])
        cut = len(frames) if piece.ends else 0
        if len(frames) >= most and not piece.ends:
            cut = len(frames) // 2 + quietest(frames[len(frames) // 2 :])
        if cut:
            yield frames[:cut], piece.speech
        frames = frames[cut:]


class Running:
    """Normalises a stream by the mean and the deviation of what was heard so far, begun with those of training."""

    def __init__(self, mean: Any, deviation: Any) -> None:
        self.count, self.sum = 100.0, mean * 100
        self.square = (deviation**2 + mean**2) * 100

    def normalised(self, found: Any) -> Any:
        """Frames that come next, [T, F]."""
        own = found.astype(np.float64)
        total, square = self.sum + own.cumsum(0), self.square + np.square(own).cumsum(0)
        count = self.count + np.arange(1, len(own) + 1)[:, None]
        mean = total / count
        deviation = np.sqrt(np.maximum(square / count - mean**2, 0.01))
        keep = min(1.0, 3000 / count[-1, 0])
        self.sum, self.square, self.count = total[-1] * keep, square[-1] * keep, count[-1, 0] * keep
        return ((own - mean) / deviation).astype(np.float32)


def text(frames: Any) -> str:
    """What is said in normalised frames [T, F]."""
    log_p, _ = recogniser.run(None, {"features": frames[:, None], "lengths": np.array([len(frames)])})
    path = log_p[:, 0].argmax(1)
    units = [
        known["units"][unit] for unit, before in zip(path, [0, *path[:-1]], strict=True) if unit and unit != before
    ]
    return "".join(f" {unit}" if known["kind"] == "words" else unit.replace("▁", " ") for unit in units).strip()


for path in sys.argv[1:]:
    said, before = [], np.empty((0, 80), np.float32)
    running = Running(*np.array(known["prior"])) if known["streaming"] else None
    for frames, speech in utterances(features(samples(path))):
        if running is not None:
            read = running.normalised(frames)
        else:
            read, before = normalised(frames, before), np.concatenate([before, frames])[-200:] if speech else before
        said += [text(read)] if speech else []
    print(" ".join(part for part in said if part))
