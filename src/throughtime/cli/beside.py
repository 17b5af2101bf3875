"""bench --beside: the same on a quiet machine and beside a busy program, with one thread and with all.

A mean, since that is what a user waits for: where threads wait for one another, most runs are as ever and some take a hundred times
as long, which a median or a least time would hide.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import date
from pathlib import Path
from typing import Any

from throughtime.cli.peers import Row, Shape, pair, shown
from throughtime.errors import UserError

# T·B·I·H: a small text model, a larger one, a wider one, pixels one by one, one long stream, a word model
SHAPES = (
    (20, 32, 64, 64),
    (100, 32, 128, 128),
    (100, 32, 256, 256),
    (784, 64, 1, 128),
    (1000, 1, 64, 64),
    (35, 20, 650, 650),
)
LEAST = 5  # runs, if they can be had
UNSEEN = 10  # first steps of a training that are not counted

# a program that computes and never waits, and ends with the process that began it
_BURNER = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    for _ in range(1_000_000): pass"


@contextmanager
def busy() -> Iterator[subprocess.Popen[bytes]]:
    """One busy program beside this one, in a session of its own, as another window or user would be: within a session Linux shares
    its time out differently."""
    burner = subprocess.Popen([sys.executable, "-c", _BURNER], start_new_session=True)
    try:
        time.sleep(0.2)  # it has begun
        yield burner
    finally:
        burner.kill()
        burner.wait()


def rows(seconds: float, conllu: Path | None) -> Iterator[Row]:
    """Each layer, with the gradients of its inputs and weights, for so many seconds; then the training of a tagger."""
    import torch

    most = torch.get_num_threads()
    counts: tuple[int | None, ...] = (1, most, None)
    if most == 1:
        raise UserError(
            "--beside compares one thread with more, and here is one only: see --threads and OMP_NUM_THREADS"
        )
    try:
        for shape in SHAPES:
            jobs = _jobs(shape)
            for machine, beside in (("quiet", nullcontext), ("busy", busy)):
                with beside():
                    for name, job in jobs.items():
                        for threads in (1, most):
                            torch.set_num_threads(threads)
                            about = {"name": name, "shape": shown(shape)}
                            yield about | {"machine": machine, "threads": threads} | _timed(job, seconds)
    finally:
        torch.set_num_threads(most)
    if conllu is None:
        print("no training of a tagger: name a CoNLL-U file by --conllu", file=sys.stderr)
        return
    for machine, beside in (("quiet", nullcontext), ("busy", busy)):
        with beside():
            for count in counts:
                yield _training(conllu, count, 8 * seconds) | {"machine": machine}


def _jobs(shape: Shape) -> dict[str, Callable[[], Any]]:
    """An LSTM of ours and one of PyTorch's, forward and backward, each run once."""
    import torch

    steps, batch, inputs, hidden = shape
    ours, theirs = pair("LSTM", inputs, hidden)
    x, g = torch.randn(steps, batch, inputs, requires_grad=True), torch.randn(steps, batch, hidden)

    def job(layer: Any) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(layer(x)[0], [x, *layer.parameters()], g)

    jobs = {"throughtime": job(ours), "torch.nn": job(theirs)}
    for run in jobs.values():
        run()
    return jobs


def _timed(job: Callable[[], Any], seconds: float) -> Row:
    """Runs for so many seconds, three times as long where they are few; others: the cores that all else on the machine took."""
    times: list[float] = []
    job()  # caches are warm, threads awake
    before, start = _others(), time.perf_counter()
    while not times or (time.perf_counter() - start < (seconds if len(times) >= LEAST else 3 * seconds)):
        began = time.perf_counter()
        job()
        times.append((time.perf_counter() - began) * 1e3)
    after, took = _others(), time.perf_counter() - start
    others = None if before is None or after is None else round((after - before) / took, 2)
    p90 = sorted(times)[int(0.9 * len(times))]
    return {"mean_ms": statistics.fmean(times), "p90_ms": p90, "runs": len(times), "others": others}


def _others() -> float | None:
    """Seconds of all cores that other processes have had; None where the system does not say."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    except OSError:
        return None
    user, nice, system, _, _, irq, softirq, *_ = (int(f) / os.sysconf("SC_CLK_TCK") for f in fields)
    mine = os.times()
    return user + nice + system + irq + softirq - mine.user - mine.system


def _training(conllu: Path, threads: int | None, seconds: float) -> Row:
    """Words a second of `train tag`, in a process of its own that is ended when it has trained so long.

    threads: how many; None: as the training chooses.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        fixed = [] if threads is None else [f"--training.threads={threads}"]
        command = [sys.executable, "-m", "throughtime", "train", "tag", str(conllu), "--out", str(out), "--quiet"]
        command += ["--steps=1000000", "--training.evaluations=1", *fixed]
        trained: list[Row] = []
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            try:
                while process.poll() is None and (len(trained) < UNSEEN + 3 or _span(trained) < seconds):
                    time.sleep(0.2)
                    trained = _steps(out / "metrics.jsonl")
            finally:
                process.kill()
            said = process.stderr.read() if process.stderr else ""
        if len(trained) < UNSEEN + 3:
            raise UserError(f"{conllu}: no training came of it: {said.strip().rpartition(chr(10))[2]}")
    words = trained[-1]["tokens"] - trained[UNSEEN]["tokens"]
    return {"name": "train tag", "threads": threads or "measured", "words_s": words / _span(trained)}


def _steps(path: Path) -> list[Row]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # the last may be half written
    except OSError:
        return []
    return [values for values in map(json.loads, lines) if "loss" in values]


def _span(trained: list[Row]) -> float:
    """Seconds from the first step that counts to the last."""
    return float(trained[-1]["seconds"] - trained[UNSEEN]["seconds"]) if len(trained) > UNSEEN else 0.0


def report(machine: Row, found: list[Row]) -> str:
    """The tables, as Markdown."""
    lines = [
        f"# Beside a busy program: {machine['cpu']}, {machine['threads']} threads",
        "",
        f"{date.today()}; torch {machine['torch']}. An LSTM forward and backward, in milliseconds: the mean of all runs (the 90th "
        "percentile). Busy: one other program computes all the time.",
    ]
    layers = [row for row in found if "mean_ms" in row]
    counts = sorted({row["threads"] for row in layers})
    columns = [(m, t) for m in ("quiet", "busy") for t in counts]
    lines += [
        "",
        "| T·B·I·H | | "
        + " | ".join(f"{m}, {t} thread{'s' * (t > 1)}" for m, t in columns)
        + " | busy: of one thread |",
    ]
    lines.append("|---|---|" + "---|" * (len(columns) + 1))
    for shape in dict.fromkeys(row["shape"] for row in layers):
        for name in dict.fromkeys(row["name"] for row in layers):
            mine = {(r["machine"], r["threads"]): r for r in layers if (r["shape"], r["name"]) == (shape, name)}
            cells = [f"{mine[c]['mean_ms']:.1f} ({mine[c]['p90_ms']:.1f})" for c in columns]
            share = mine["busy", 1]["mean_ms"] / mine["busy", counts[-1]]["mean_ms"]
            lines.append(f"| {shape} | {name} | {' | '.join(cells)} | {share:.2f} |")
    seen = [row["others"] for row in layers if row["others"] is not None]
    if seen:
        quiet = [r["others"] for r in layers if r["machine"] == "quiet"]
        lines += [
            "",
            f"Cores that other programs took: {min(quiet):.2f} to {max(quiet):.2f} while quiet, up to {max(seen):.2f} while busy.",
        ]
    trained = [row for row in found if "words_s" in row]
    if trained:
        lines += ["", "| `train tag`, words a second | quiet | busy |", "|---|---|---|"]
        for threads in dict.fromkeys(row["threads"] for row in trained):
            speed = {row["machine"]: row["words_s"] for row in trained if row["threads"] == threads}
            lines.append(f"| threads: {threads} | {speed['quiet']:,.0f} | {speed['busy']:,.0f} |")
    return "\n".join([*lines, ""])
