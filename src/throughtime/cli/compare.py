"""compare: several runs on the same data, side by side."""

from __future__ import annotations

import json as json_module
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from throughtime.cli.options import said, taking
from throughtime.cli.output import Download, Json, opened, terminal_width
from throughtime.errors import UserError
from throughtime.hub import find_run
from throughtime.runs import Run
from throughtime.tasks.base import in_groups

WIDTH, NARROW = 24, 14  # characters of a column, at most and at least
LENGTHS = (100, 1000, 4000)  # tokens of a line, for the memory it takes


@taking("evaluate")
def compare(
    runs_and_data: Annotated[list[Path], Parameter(help="Run folders, then the data to score them on.")],
    /,
    *,
    memory: Annotated[
        bool, Parameter(help="Also measure the memory that reading one long line takes, in processes of their own.")
    ] = True,
    download: Download = False,
    json: Json = False,
    **options: Any,
) -> None:
    """Runs of one task on the same data: quality, parameters, minutes of training, time for a line, memory against length."""
    where = {p: find_run(p, download=True) if download and not p.exists() else p for p in runs_and_data}
    runs = [p for p in runs_and_data if Run(where[p]).config.is_file()]
    data = [p for p in runs_and_data if p not in runs]
    if not runs or not data:
        raise UserError("compare takes run folders, then the data to score them on")
    if missing := [p for p in data if not p.exists()]:
        raise UserError(f"{missing[0]}: no such run folder, nor a file")
    tasks = {Run.open(where[r]).task_name(): r for r in runs}
    if len(tasks) > 1:
        (a, x), (b, y) = list(tasks.items())[:2]
        raise UserError(f"{x} is of the task {a!r} and {y} of {b!r}: compare runs of one task")
    models = [opened(where[run]) for run in runs]
    about = {model.gives: folder for folder, model in zip(runs, models, strict=True)}
    if len(about) > 1:
        (a, x), (b, y) = list(about.items())[:2]
        raise UserError(f"{x} gives {a} and {y} gives {b}: compare runs that give the same")
    options = said(models[0], "evaluate", options)
    try:
        models[0].task.item("a b")
    except UserError:  # what is read is no text
        memory = False
    rows = []
    for folder, model in zip(runs, models, strict=True):
        print(f"scoring {folder} …", file=sys.stderr)
        shared = {k: v for k, v in options.items() if k in model.task.predict_options.model_fields}
        next(
            model.predict(data[0], batch=1, **shared), None
        )  # what is compiled at the first call is not what a line costs
        start = time.perf_counter()
        scores = model.evaluate(data, **options)
        took = time.perf_counter() - start
        row = {"run": str(folder), "parameters": sum(p.numel() for p in model.network.parameters())}
        row |= {"minutes": round(model.run.scores().get("minutes", 0.0), 2)}
        row |= {k: v for k, v in scores.items() if isinstance(v, float) or v is None}
        many = next((scores[k] for k in ("examples", "sentences", "lines") if k in scores), None)
        if many:
            row["ms_a_line"] = 1000 * took / many
        if memory:
            row |= {f"mb_at_{n}": _memory(where[folder], n) for n in LENGTHS}
        rows.append(row)
    if json:
        print(json_module.dumps(rows, ensure_ascii=False))
        return
    print("\n\n".join(_side_by_side(rows, terminal_width())))


def _side_by_side(rows: list[dict[str, Any]], width: int | None) -> Iterator[str]:
    """A column a run, in as many tables as a terminal of this width needs; None: in one."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    beside = max(map(len, names))
    many = len(rows) if width is None else max((width - beside) // (NARROW + 2), 1)
    for some in in_groups(rows, many):
        column = WIDTH if width is None else min(WIDTH, (width - beside) // len(some) - 2)
        columns = [[_shown(row.get(name), column) for name in names] for row in some]
        lines = zip(names, *columns, strict=True)
        yield "\n".join("  ".join([f"{name:{beside}}", *(f"{v:>{column}}" for v in cells)]) for name, *cells in lines)


def _shown(value: Any, width: int) -> str:
    if value is None:
        return "undefined"
    if isinstance(value, int | float):
        return f"{value:.4g}" if isinstance(value, float) else f"{value:,}"
    text = str(value)
    return text if len(text) <= width else "…" + text[1 - width :]


def _memory(run: Path, tokens: int) -> float | None:
    """Megabytes that reading one line of so many tokens adds to a process; None where it does not read so long a line whole."""
    code = (
        "import pathlib, resource, sys, warnings, throughtime as tt\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "model = tt.load(sys.argv[1])\n"
        "options = {'beam': 1} if 'beam' in model.task.predict_options.model_fields else {}\n"
        "list(model.predict(['a b a b'], **options))\n"
        "before = peak()\n"
        "reset = pathlib.Path('/proc/self/clear_refs')\n"
        "if reset.exists():\n"  # Linux: from now on the peak is that of the line, not that of loading
        "    value = lambda key: int(pathlib.Path('/proc/self/status').read_text().split(key + ':')[1].split()[0])\n"
        "    reset.write_text('5')\n"
        "    peak, before = lambda: value('VmHWM'), value('VmRSS')\n"
        "with warnings.catch_warnings(record=True, action='always') as cut:\n"
        "    list(model.predict([' '.join(['a', 'b'] * (int(sys.argv[2]) // 2))], **options))\n"
        "print(None if any(' read' in str(w.message) for w in cut) else peak() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(run), str(tokens)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise UserError(f"{run}: cannot measure its memory: {done.stderr.strip().splitlines()[-1:]}")
    found = done.stdout.split()[-1]
    return None if found == "None" else max(int(found), 0) / 1024  # what was in use before may have been given back
