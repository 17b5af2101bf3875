"""Does taking away what `inspect` calls influential change more than taking away what it calls irrelevant?

    python benchmarks/influence.py RUN FILE [--inputs 200] [--json]

RUN is a run of classify, tag or text, FILE held-out data of its own format (text: plain text, 80 characters of it an input, whose
tokens are the pieces). Of each input the one that counts most and the one that counts least are deleted from the text itself
(`inspect` only reads it as unknown, or multiplies a gradient), one at a time, the rest is read anew, and the change is the total
variation between the two distributions of the same output, 0 to 1. The output is the label; of a tagger the tag of the middle word,
by the other words; of a language model what comes next.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
import throughtime as tt
from throughtime.inspect.influence import influence

WAYS = ("gradient", "removal")


def inputs_of(model: Any, file: Path, count: int) -> list[list[str]]:
    """Inputs of at least four pieces, words or tokens, that the model reads as they are."""
    task = model.config.task
    if task == "classify":
        found = [row.text.split() for row in model.task.read(model.config, [file])]
    elif task == "tag":
        found = [sentence.words for sentence in model.task.read(model.config, [file])]
    else:
        text = file.read_text(encoding="utf-8")
        found = [as_read(model, text[i : i + 80]) for i in range(0, len(text) - 80, 80)]
    lower = task == "classify" and model.config.data.lower
    whole = (
        p for p in found if len(p) > 3 and as_read(model, joined(model, p)) == [s.lower() if lower else s for s in p]
    )
    return list(itertools.islice(whole, count))


def as_read(model: Any, text: str) -> list[str]:
    first = model.config.task == "text"  # which begins with a sign of its own
    return list(model.look(model.task.item(text)).inputs.labels[first:])


def joined(model: Any, pieces: list[str]) -> str:
    return ("" if model.config.task == "text" else " ").join(pieces)


def distribution(model: Any, pieces: list[str], output: int) -> torch.Tensor:
    look = model.look(model.task.item(joined(model, pieces)))
    with torch.no_grad():
        return look.distribution(look.batch)[output].exp()  # type: ignore[no-any-return]


def change(model: Any, pieces: list[str], output: int, i: int) -> float:
    """By deleting piece `i`."""
    shorter = pieces[:i] + pieces[i + 1 :]
    kept = {"classify": 0, "tag": output - (i < output), "text": -1}[model.config.task]
    before, after = distribution(model, pieces, output), distribution(model, shorter, kept)
    return float((before - after).abs().sum() / 2)


def measure(model: Any, inputs: list[list[str]]) -> dict[str, dict[str, float]]:
    """For each way of telling what counts: the mean change by deleting what counts most and what counts least, and in what share of
    the inputs the first was larger."""
    task, changes = model.config.task, {way: ([], []) for way in WAYS}  # type: ignore[var-annotated]
    for pieces in inputs:
        output = {"classify": 0, "tag": len(pieces) // 2, "text": len(pieces)}[task]
        (found,) = influence(model, model.look(model.task.item(joined(model, pieces))), [output])
        first = task == "text"
        others = [i for i in range(len(pieces)) if task != "tag" or i != output]
        for way in WAYS:
            sizes = {i: abs(getattr(found, way)[first + i] or 0.0) for i in others}
            for side, i in enumerate((max(others, key=sizes.__getitem__), min(others, key=sizes.__getitem__))):
                changes[way][side].append(change(model, pieces, output, i))
    return {
        way: {
            "inputs": len(most),
            "most": statistics.fmean(most),
            "least": statistics.fmean(least),
            "larger": statistics.fmean(a > b for a, b in zip(most, least, strict=True)),
        }
        for way, (most, least) in changes.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--inputs", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    model = tt.load(given.run)
    values = measure(model, inputs_of(model, given.file, given.inputs))
    if given.json:
        print(json.dumps(values))
        return
    print(
        "| what counts, by | inputs | change without the most | without the least | larger |\n| --- | --- | --- | --- | --- |"
    )
    for way, v in values.items():
        print(f"| {way} | {v['inputs']} | {v['most']:.3f} | {v['least']:.3f} | {v['larger']:.0%} |")


if __name__ == "__main__":
    main()
