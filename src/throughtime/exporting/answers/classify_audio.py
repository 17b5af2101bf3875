"""The label of each recording, and its probability: python answer.py a.wav b.wav

Needs numpy and onnxruntime; soundfile for what is no 16-bit WAV, soxr for another rate than 16 kHz.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from logmel import features, normalised, samples  # the file beside this one

here = Path(__file__).parent
labels = json.loads((here / "labels.json").read_text(encoding="utf-8"))
classifier = onnxruntime.InferenceSession(here / "classifier.onnx")

for path in sys.argv[1:]:
    heard = features(samples(path))
    if len(heard):
        asked = {"features": normalised(heard)[:, None], "lengths": np.array([len(heard)])}
        log_p = classifier.run(None, asked)[0][0]
        print(labels[log_p.argmax()], f"{np.exp(log_p.max()):.4f}", path, sep="\t")
    else:
        print("", "", path, sep="\t")
