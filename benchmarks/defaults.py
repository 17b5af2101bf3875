"""The table of defaults: default settings beside others, at 50, 800 and 20,000 examples, in the same number of steps.

    python benchmarks/defaults.py DATA OUT [--tasks classify tag] [--sizes 50 800] [--settings "no dropout"] [--seeds 0 1]

DATA holds classify/sst2, tag/ewt, translate/multi30k and text/tinyshakespeare; OUT is a folder, new or one of this command, whose
`defaults.jsonl` has a line for each training. What stands there is not trained again, so that a table can be made in parts.
The examples are drawn from the training part, by the seed; a part of them is held out as for any user, and chooses the weights.
The scores are those on dev, one look for each line, the middle of the seeds in the table.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
import throughtime as tt

SIZES = (50, 800, 20_000)
SEEDS = {50: 3, 800: 2, 20_000: 1}
PAIRS = 200  # of dev that are translated, greedily


class Kind(NamedTuple):
    """A task on a corpus. train, dev: its files. score: what is compared, and whether more of it is better. steps: for each of
    SIZES. cut: writes so many examples of a training file, drawn by a seed, into a folder."""

    train: tuple[str, ...]
    dev: tuple[str, ...]
    score: str
    higher: bool
    steps: tuple[int, int, int]
    cut: Callable[[list[Path], int, int, Path], list[Path]]


def some_rows(files: list[Path], count: int, seed: int, folder: Path) -> list[Path]:
    with files[0].open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    with (folder / "some.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *drawn(rows, count, seed)])
    return [folder / "some.csv"]


def some_sentences(files: list[Path], count: int, seed: int, folder: Path) -> list[Path]:
    sentences = files[0].read_text(encoding="utf-8").strip().split("\n\n")
    return [written(folder / "some.conllu", "\n\n".join(drawn(sentences, count, seed)) + "\n\n")]


def some_pairs(files: list[Path], count: int, seed: int, folder: Path) -> list[Path]:
    pairs = list(zip(*(file.read_text(encoding="utf-8").splitlines() for file in files), strict=True))
    sides = zip(*drawn(pairs, count, seed), strict=True)
    return [
        written(folder / f"some{file.suffix}", "\n".join(side) + "\n") for file, side in zip(files, sides, strict=True)
    ]


def some_lines(files: list[Path], count: int, seed: int, folder: Path) -> list[Path]:
    """A stretch of the text: lines drawn one by one would be none."""
    lines = files[0].read_text(encoding="utf-8").splitlines(keepends=True)
    start = random.Random(seed).randrange(max(len(lines) - count, 1))
    return [written(folder / "some.txt", "".join(lines[start : start + count]))]


def drawn(things: list[Any], count: int, seed: int) -> list[Any]:
    return random.Random(seed).sample(things, min(count, len(things)))


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


KINDS = {
    "classify": Kind(
        ("classify/sst2/train.csv",), ("classify/sst2/dev.csv",), "accuracy", True, (400, 800, 1200), some_rows
    ),
    "tag": Kind(("tag/ewt/train.conllu",), ("tag/ewt/dev.conllu",), "accuracy", True, (200, 500, 900), some_sentences),
    "translate": Kind(
        ("translate/multi30k/train.de", "translate/multi30k/train.en"),
        ("translate/multi30k/valid.de", "translate/multi30k/valid.en"),
        "nats_per_token", False, (100, 300, 600), some_pairs,
    ),
    "text": Kind(
        ("text/tinyshakespeare/train.txt",), ("text/tinyshakespeare/valid.txt",),
        "nats_per_character", False, (300, 600, 600), some_lines,
    ),
}  # fmt: skip

# by hand, from what the defaults were: settings of `model` and of `training`
SETTINGS: dict[str, Callable[[dict[str, Any]], tuple[dict[str, Any], dict[str, Any]]]] = {
    "defaults": lambda m: ({}, {}),
    "half the size": lambda m: (sized(m, 0.5), {}),
    "twice the size": lambda m: (sized(m, 2), {}),
    "no dropout": lambda m: ({name: 0.0 for name in m if name.endswith("dropout")}, {}),
    "more dropout": lambda m: (noisier(m), {}),
    "half the size, more dropout": lambda m: (sized(m, 0.5) | noisier(m), {}),
    "weight decay 0.5": lambda m: ({}, {"weight_decay": 0.5}),
}


def sized(model: dict[str, Any], times: float) -> dict[str, Any]:
    return {name: max(int(model[name] * times), 1) for name in ("hidden_size", "embedding_size")}


def noisier(model: dict[str, Any]) -> dict[str, Any]:
    return {"dropout": min(model["dropout"] + 0.2, 0.8)}


def trained(data: Path, task: str, size: int, setting: str, seed: int, default: dict[str, Any]) -> dict[str, Any]:
    """The line of one training. default: the settings of the network that were the defaults."""
    kind = KINDS[task]
    steps = kind.steps[SIZES.index(size)]
    model, training = SETTINGS[setting](default)
    start = time.process_time()
    with tempfile.TemporaryDirectory() as name:
        folder, dev = Path(name), [data / part for part in kind.dev]
        files = kind.cut([data / part for part in kind.train], size, seed, folder)
        made = tt.train(
            task, files, out=folder / "run", steps=steps, seed=seed, progress=False, model=model, training=training
        )
        seconds = time.process_time() - start
        if task == "translate":  # the whole of dev takes as long as the training
            dev = some_pairs(dev, PAIRS, 0, folder)
        scores = made.evaluate(dev, **({"beam": 1} if task == "translate" else {}))
        about = made.info()
    return {
        "task": task,
        "size": size,
        "setting": setting,
        "seed": seed,
        "steps": about["steps"],
        "best_step": about["best_step"],
        "seconds": round(seconds, 1),
        "parameters": about["parameters"],
        "scores": {name: value for name, value in scores.items() if isinstance(value, float)},
        "model": {n: v for n, v in about["settings"]["model"].items() if n.endswith(("_size", "dropout"))},
        "training": {n: about["settings"]["training"][n] for n in ("batch_size", "learning_rate", "weight_decay")},
    }


def table(lines: list[dict[str, Any]]) -> Iterator[str]:
    """The middle of the seeds, and from where to where they go."""
    for task, kind in KINDS.items():
        sizes = [size for size in SIZES if any(line["task"] == task and line["size"] == size for line in lines)]
        if not sizes:
            continue
        yield f"| {task}: {kind.score.replace('_', ' ')} | {' | '.join(f'{size:,}' for size in sizes)} |"
        yield "|---" * (len(sizes) + 1) + "|"
        for setting in SETTINGS:
            cells = []
            for size in sizes:
                found = [
                    line["scores"][kind.score]
                    for line in lines
                    if (line["task"], line["size"], line["setting"]) == (task, size, setting)
                ]
                cells.append(shown(found, percent=kind.higher))
            if any(cells):
                yield f"| {setting} | {' | '.join(cells)} |"
        yield ""


def shown(values: list[float], percent: bool) -> str:
    if not values:
        return ""
    form = (lambda value: f"{100 * value:.1f}") if percent else (lambda value: f"{value:.3f}")
    spread = f" ({form(min(values))} to {form(max(values))})" if len(values) > 1 else ""
    return form(statistics.mean(values)) + spread


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tasks", nargs="*", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--sizes", nargs="*", type=int, choices=SIZES, default=list(SIZES))
    parser.add_argument("--settings", nargs="*", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--seeds", nargs="*", type=int, help="[default: 3 at 50 examples, 2 at 800, 1 at 20,000]")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "defaults.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    wanted = [name for name in SETTINGS if name in given.settings or name == "defaults"]  # the others are made of them
    for task, size in itertools.product(given.tasks, given.sizes):
        for seed, setting in itertools.product(given.seeds or range(SEEDS[size]), wanted):
            done = {(line["task"], line["size"], line["seed"], line["setting"]): line for line in lines}
            if (task, size, seed, setting) in done:
                continue
            default = done.get((task, size, seed, "defaults"), {}).get("model", {})
            lines.append(line := trained(given.data, task, size, setting, seed, default))
            with path.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), file=sys.stderr)
    text = "\n".join(table(lines))
    (given.out / "defaults.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
