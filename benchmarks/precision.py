"""What a training gains by bfloat16, a task at a time, by default settings: steps a second, and the held-out score in equal time.

    python benchmarks/precision.py DATA OUT [--tasks text tag] [--seconds 60] [--seeds 0]

DATA holds what benchmarks/tasks.py reads; OUT is a folder for the runs, new or one of this command, whose `precision.jsonl` has a
line for each pair of trainings. Steps of both are timed in turn, in seconds of this process's processor time; then float32 is
trained for as many steps as fit --seconds, bfloat16 for as many as it would do in that time. Needs a processor that gains by it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
import throughtime as tt
from throughtime import training
from throughtime.training.loop import Trainer
from throughtime.training.precision import BFLOAT16, FLOAT32

FILES = {
    "text": ["text/tinyshakespeare/train.txt"],
    "text, words": ["text/wikitext-2/train.txt"],
    "classify": ["classify/sst2/train.csv"],
    "tag": ["tag/ewt/train.conllu"],
    "translate": ["translate/multi30k/train.de", "translate/multi30k/train.en"],
    "forecast": ["forecast/m4/hourly-train.csv"],
    "transcribe": ["speech/an4/train.jsonl"],
    "classify-audio": ["speech/fsdd/train.jsonl"],
    "music": ["music/jsb/Jsb16thSeparated.json"],
}
MORE: dict[str, dict[str, Any]] = {
    "text, words": {"model": {"tokens": "words"}},
    "forecast": {"data": {"horizon": 48}},
    "classify-audio": {"data": {"label_column": "speaker"}},
}
TIMED, FIRST = 24, 4  # steps of each precision, and how many of them only warm up


def trained(name: str, files: list[Path], out: Path, precision: str, steps: int, seed: int) -> Any:
    task = {"text, words": "text", "classify-audio": "classify"}.get(name, name)
    return tt.train(
        task,
        files,
        out=out,
        steps=steps,
        seed=seed,
        overwrite=True,
        progress=False,
        training={"precision": precision, "evaluations": 6},  # their time is not counted
        **MORE.get(name, {}),
    )


def trainer(name: str, files: list[Path], out: Path, precision: str, seed: int) -> Trainer:
    """All that a training is made of, before its first step."""

    def made(task: Any, run: Any, accelerator: Any, report: Any, precision: str | None = None) -> Trainer:
        return Trainer(task, run.read_config(task.config_type), run, accelerator, report)

    with patch.object(training, "_train", made):
        found: Trainer = trained(name, files, out, precision, TIMED, seed)
    found.network.train()
    return found


def timed(name: str, files: list[Path], out: Path, seed: int) -> dict[str, float]:
    """Seconds a step, medians of steps in turn."""
    both = {p: trainer(name, files, out / f"timed-{p}", p, seed) for p in (FLOAT32, BFLOAT16)}
    times: dict[str, list[float]] = {p: [] for p in both}
    for _ in range(TIMED):
        for precision, one in both.items():
            start = time.process_time()
            one._one_step(threading.Event())
            times[precision].append(time.process_time() - start)
    return {p: statistics.median(found[FIRST:]) for p, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tasks", nargs="+", default=list(FILES), choices=list(FILES))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    for name, seed in itertools.product(asked.tasks, asked.seeds):
        files, out = [asked.data / file for file in FILES[name]], asked.out / name.replace(", ", "-")
        step_s = timed(name, files, out, seed)
        line: dict[str, Any] = {"task": name, "seed": seed, "quicker": step_s[FLOAT32] / step_s[BFLOAT16]}
        for precision, took in step_s.items():
            steps = max(round(asked.seconds / took), 1)
            summary = trained(name, files, out / precision, precision, steps, seed).run.scores()
            scores = {key: value for key, value in summary["scores"].items() if isinstance(value, float)}
            line[precision] = {"steps_s": 1 / took, "steps": summary["steps"], "best": summary["best_step"], **scores}
        with (asked.out / "precision.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
