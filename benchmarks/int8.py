"""What eight bits cost: trained models as ONNX in float32 and in int8, on held-out data, by the script that an export holds.

    python benchmarks/int8.py classify RUN dev.csv
    python benchmarks/int8.py tag RUN dev.conllu
    python benchmarks/int8.py text RUN valid.txt

classify, tag: accuracy; text: nats a character, each line read by itself. Beside them the bytes of the networks, and seconds of the
script, one thread.
"""

from __future__ import annotations

import csv
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import throughtime as tt

MOST = 2_000  # lines of a text


def classify(path: Path) -> tuple[list[str], list[str]]:
    """Texts, and their labels."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    label = next(name for name in rows[0] if name != "text")
    return [" ".join(row["text"].split()) for row in rows], [row[label] for row in rows]


def tag(path: Path) -> tuple[list[str], list[str]]:
    """Sentences, words with a space between them, and their tags."""
    sentences, tags = [], []
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        rows = [line.split("\t") for line in block.splitlines() if line[:1].isdigit()]
        rows = [row for row in rows if row[0].isdigit() and " " not in row[1]]
        if rows:
            sentences.append(" ".join(row[1] for row in rows))
            tags.append(" ".join(row[3] for row in rows))
    return sentences, tags


def text(path: Path) -> tuple[list[str], list[str]]:
    """Lines; nothing that they are answered by."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()][:MOST]
    return lines, [""] * len(lines)


def score(task: str, inputs: list[str], truth: list[str], answers: list[str]) -> float:
    """Accuracy, or nats a character."""
    assert len(answers) == len(inputs), (len(answers), len(inputs))
    if task == "text":
        return -math.fsum(float(a.split("\t")[0]) for a in answers) / sum(map(len, inputs))
    if task == "classify":
        return sum(a.split("\t")[0] == t for a, t in zip(answers, truth, strict=True)) / len(truth)
    pairs: list[tuple[str, str]] = []
    for asked, answer, tags in zip(inputs, answers, truth, strict=True):
        words, found = zip(*(part.rsplit("/", 1) for part in answer.split()), strict=True)
        if list(words) == asked.split():  # else the script's pattern cuts the sentence into other words
            pairs += zip(found, tags.split(), strict=True)
    print(f"{len(pairs):,} words in sentences that are cut as they are annotated", file=sys.stderr)
    return sum(a == b for a, b in pairs) / len(pairs)


def main(task: str, run: str, held: str) -> None:
    """Export, answer, score, twice."""
    inputs, truth = {"classify": classify, "tag": tag, "text": text}[task](Path(held))
    model = tt.load(run)
    for int8 in (False, True):
        with tempfile.TemporaryDirectory() as place:
            folder = tt.export(model, "onnx", Path(place, "out"), int8=int8)
            size = sum(path.stat().st_size for path in folder.glob("*.onnx"))
            began = time.perf_counter()
            done = subprocess.run(
                [sys.executable, folder / "answer.py"], input="\n".join(inputs) + "\n", text=True, capture_output=True,
                check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            took = time.perf_counter() - began
        value = score(task, inputs, truth, done.stdout.splitlines())
        print(
            f"{task}\t{'int8' if int8 else 'float32'}\t{value:.4f}\t{size:,} bytes\t{took:.1f} s\t{len(inputs)} inputs"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
