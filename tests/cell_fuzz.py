"""Random cells by `scan` against a plain loop, each run in a worker process that may die.

    python tests/cell_fuzz.py --cells 20000 --seed 0        # the counts, and what was not equal
    python tests/cell_fuzz.py --cells 1 --seed 4711 --show  # one cell's source and all its runs
    python tests/cell_fuzz.py --shrink 4711                 # the smallest cell that fails in the same way

What comes out of a run: "equal" (compiled, or on PyTorch's kernel), "equal on the loop", "both raise", "ill-conditioned" (the
loop itself moves as far where its numbers are moved in their last digits), "runs where the loop raises"; and the faults WRONG,
RAISED (out of `scan` where the loop runs), DEAD (the process ended, or did not answer within a minute), BROKEN (the fuzz itself).
"""

from __future__ import annotations

import argparse
import collections
import copy
import json
import os
import re
import select
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

FAULTS = ("WRONG", "RAISED", "DEAD", "BROKEN")
PATIENCE = 60.0  # seconds a cell may take


class Worker:
    """A process that judges one cell after another; started again where it died. script: what it runs, with --worker."""

    def __init__(self, script: str = __file__) -> None:
        self.script = script
        self.process: subprocess.Popen[bytes] | None = None
        self.folder = tempfile.TemporaryDirectory()
        self.errors = Path(self.folder.name, "stderr")

    def start(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            environment.setdefault("THROUGHTIME_CACHE", "")
            with self.errors.open("wb") as errors:
                self.process = subprocess.Popen(
                    [sys.executable, "-X", "faulthandler", self.script, "--worker"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env=environment,
                )
        return self.process

    def judge(self, asked: dict[str, Any]) -> dict[str, Any]:
        """What became of the cell of a seed ({"seed": n}), or of a spec ({"spec": …})."""
        process = self.start()
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(asked).encode() + b"\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], PATIENCE)
        line = process.stdout.readline() if ready else b""
        if line.endswith(b"\n"):
            result: dict[str, Any] = json.loads(line)
            return result
        process.kill()
        code = process.wait()
        process.stdin.close()
        process.stdout.close()
        self.process = None
        last = self.errors.read_text(errors="replace")
        how = f"ended with {code}: {last[:1500]}" if ready else f"nothing within {PATIENCE:.0f} s"
        seed = asked.get("seed", asked.get("spec", {}).get("seed"))
        return {
            "seed": seed,
            "runs": [["the process", "DEAD", how]],
            "chosen": "",
            "reason": "",
            "tags": [],
            "verdict": "DEAD",
        }

    def close(self) -> None:
        if self.process is not None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None
        self.folder.cleanup()


def work(judge: Callable[[Any], Any]) -> None:
    """The worker: a line of JSON in, a line of JSON out. What cells print goes to stderr. judge: of a spec."""
    import torch

    torch.set_num_threads(1)
    from cell_judge import Judged
    from cell_maker import make
    from cell_spec import Spec

    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            judged = judge(make(asked["seed"]) if "seed" in asked else Spec(**asked["spec"]))
        except Exception:  # of the fuzz itself: `scan` is called where exceptions are looked at
            judged = Judged(asked.get("seed", -1), [("the fuzz", "BROKEN", traceback.format_exc()[-600:])])
        print(json.dumps(judged.__dict__ | {"verdict": judged.verdict}), file=answer, flush=True)


def run(seeds: Iterable[int], script: str = __file__) -> Iterator[dict[str, Any]]:
    """The cells of some seeds, one after another. script: as of `Worker`."""
    worker = Worker(script)
    try:
        for seed in seeds:
            yield worker.judge({"seed": seed})
    finally:
        worker.close()


# Counting


class Counts:
    """Verdicts by cell and by run, where cells ran, and why not compiled."""

    def __init__(self) -> None:
        self.cells: collections.Counter[str] = collections.Counter()
        self.runs: collections.Counter[str] = collections.Counter()
        self.chosen: collections.Counter[str] = collections.Counter()
        self.reasons: collections.Counter[str] = collections.Counter()
        self.tags: collections.Counter[str] = collections.Counter()
        self.first: dict[str, int] = {}  # the first seed of a reason
        self.faults: list[dict[str, Any]] = []

    def add(self, judged: dict[str, Any]) -> None:
        self.cells[judged["verdict"]] += 1
        self.runs.update(verdict for _, verdict, _ in judged["runs"])
        self.chosen[judged["chosen"]] += 1
        if judged["reason"]:
            reason = general(judged["reason"])
            self.first.setdefault(reason, judged["seed"])
            self.reasons[f"{reason} (as seed {self.first[reason]})"] += 1
        self.tags.update(judged["tags"])
        if judged["verdict"] in FAULTS:
            self.faults.append(judged)

    def as_dict(self) -> dict[str, Any]:
        return {
            "cells": dict(self.cells),
            "runs": dict(self.runs),
            "ran on": dict(self.chosen),
            "not compiled because": dict(self.reasons.most_common(60)),
            "kinds": dict(self.tags),
            "faults": self.faults,
        }


def general(reason: str) -> str:
    """A reason without its line and sizes."""
    reason = re.sub(r"at <cell \d+>:\d+: |at \S+:\d+: ", "", reason)
    return re.sub(r"\d+", "N", reason)[:140]


# Shrinking


def shrink(spec: Any, fails: Callable[[Any], bool]) -> Any:
    """The smallest spec found that still fails: without statements, with simpler ones, called more simply."""
    going = True
    while going:
        going = False
        for candidate in smaller(spec):
            if fails(candidate):
                spec, going = candidate, True
                break
    return spec


def smaller(spec: Any) -> Iterator[Any]:
    plain = {
        "lengths": None,
        "resets": False,
        "reverse": False,
        "initial": False,
        "poison": False,
        "inference": False,
        "copy": False,
        "named": False,
        "T": 2,
        "B": 2,
        "gradients": "none",
        "own": False,
        "loss": "all",
        "layouts": ["plain"] * len(spec.input_shapes),
    }
    for name, value in plain.items():
        if spec.call[name] != value:
            call = spec.call | {name: value}
            if name == "B" and call["lengths"] is not None:
                call["lengths"] = [call["T"], 0]
            if name == "T" and call["lengths"] is not None:
                call["lengths"] = [min(n, 2) for n in call["lengths"]]
            yield copy.deepcopy(spec).__class__(**{**spec.__dict__, "call": call})
    for name in ("changes", "record"):
        for k in range(len(getattr(spec, name))):
            rest = [c for i, c in enumerate(getattr(spec, name)) if i != k]
            yield spec.__class__(**{**spec.__dict__, name: rest})
    for name in ("body", "init"):
        lines = getattr(spec, name)
        for k in reversed(range(len(lines))):
            yield spec.__class__(**{**spec.__dict__, name: lines[:k] + lines[k + 1 :]})
    for k, statement in enumerate(spec.body):
        variable, _, value = statement.partition(" = ")
        for other in dict.fromkeys(re.findall(r"\b[vxhn]\d+\b", value)):
            if value.strip() != other and variable.isidentifier():
                yield spec.__class__(
                    **{**spec.__dict__, "body": [*spec.body[:k], f"{variable} = {other}", *spec.body[k + 1 :]]}
                )
        later = "\n".join((*spec.body[k + 1 :], spec.result))
        if value.strip() and re.fullmatch(r"[vxhn]\d+", value.strip()) and "\n" not in statement:
            rest = re.sub(rf"\b{variable}\b", value.strip(), later).split("\n")
            if len(rest) == len(spec.body) - k:
                yield spec.__class__(**{**spec.__dict__, "body": [*spec.body[:k], *rest[:-1]], "result": rest[-1]})


def smallest(seed: int) -> tuple[Any, dict[str, Any]]:
    """The smallest failing cell found from a seed's, and what became of it."""
    from cell_maker import make

    worker = Worker()
    spec = make(seed)

    def signs(judged: dict[str, Any]) -> set[tuple[str, str]]:
        return {
            (verdict, general(detail)[:40] if verdict == "RAISED" else "")
            for _, verdict, detail in judged["runs"]
            if verdict in FAULTS
        }

    first = signs(worker.judge({"spec": spec.as_dict()}))
    found = shrink(spec, lambda s: bool(first & signs(worker.judge({"spec": s.as_dict()}))))
    judged = worker.judge({"spec": found.as_dict()})
    worker.close()
    return found, judged


def show(spec: Any, judged: dict[str, Any]) -> None:
    print(spec.shown())
    print(f"# ran on {judged['chosen']} {judged['reason']}")
    for what, verdict, detail in judged["runs"]:
        print(f"# {verdict}: {what} {detail}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the first cell")
    parser.add_argument("--from", type=int, default=0, dest="start", help="cells to pass over")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--show", action="store_true", help="print each cell")
    parser.add_argument("--reason", help="print the cells that are not compiled for a reason with this text in it")
    parser.add_argument("--shrink", type=int, nargs="+", help="seeds to shrink")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        from cell_judge import judge

        work(judge)
        return 0
    if asked.shrink:
        for seed in asked.shrink:
            show(*smallest(seed))
        return 0
    counts = Counts()
    for n, judged in enumerate(run(range(asked.seed + asked.start, asked.seed + asked.cells))):
        counts.add(judged)
        if asked.show:
            from cell_maker import make

            show(make(judged["seed"]), judged)
        elif asked.reason and asked.reason in judged["reason"]:
            print(f"seed {judged['seed']}: {judged['reason']}", flush=True)
        elif judged["verdict"] in (*FAULTS, "runs where the loop raises") and not asked.json:
            what, verdict, detail = next(r for r in judged["runs"] if r[1] == judged["verdict"])
            print(f"seed {judged['seed']}: {verdict}: {what}: {detail[:300]}", flush=True)
        if (n + 1) % 100 == 0:
            print(f"{n + 1} cells, {dict(counts.cells)}", file=sys.stderr, flush=True)
    found = counts.as_dict()
    if asked.json:
        print(json.dumps(found, indent=1))
    else:
        found.pop("faults")
        for title, group in found.items():
            print(f"{title}:")
            for name, number in sorted(group.items(), key=lambda item: -item[1]):
                print(f"  {number:6d} {name}")
    return 1 if counts.faults else 0


if __name__ == "__main__":
    sys.exit(main())
