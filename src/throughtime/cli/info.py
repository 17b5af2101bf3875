"""info: what a run is."""

from __future__ import annotations

import sys

from throughtime.cli.output import Download, Folder, Json, opened, write_values
from throughtime.config import Training
from throughtime.files import LOCK, read_json
from throughtime.runs import Run
from throughtime.training.budget import Plan


def info(run: Folder, /, *, download: Download = False, json: Json = False) -> None:
    """What a model is, trained on what, for how long, with what scores."""
    model = opened(run, download)
    values = model.info()
    state = _state(model.run, values["task"])
    write_values({"task": values["task"], "state": state, **values}, json, undefined="none")


def _state(run: Run, task: str) -> str:
    """Whether its training has ended, and if not how far it has come."""
    if run.summary.exists():
        return "trained"
    steps = [line["step"] for line in run.read_metrics()]
    where = f"after step {steps[-1] if steps else 0:,}"
    if run.schedule.exists():
        where += f" of {Plan.from_json(read_json(run.schedule), Training()).total:,}"
    if (run.folder / LOCK).exists():  # which a process that was killed leaves behind
        return f"being trained, or killed, {where}"
    print(f"throughtime: go on with it: throughtime train {task} --out {run.folder} --resume", file=sys.stderr)
    return f"interrupted {where}"
