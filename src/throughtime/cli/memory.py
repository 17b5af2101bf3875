"""memory: how far back a cell can learn to remember, side by side with others."""

from __future__ import annotations

import json as json_module
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from throughtime.cli.output import (
    DATA,
    MODEL,
    OUTPUT,
    TRAINING,
    Json,
    check_threads,
    made_folder,
    terminal_width,
    whole,
)
from throughtime.errors import UserError
from throughtime.laboratory.asked import Asked
from throughtime.runs import write_text

RESULTS, TABLE, PICTURE = "results.json", "table.md", "curves.png"


def _names(type_: Any, tokens: Any) -> tuple[str, ...]:
    return tuple(part.strip() for part in tokens[0].value.split(","))


def _lags(type_: Any, tokens: Any) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in tokens[0].value.split(","))
    except ValueError:
        raise ValueError(f"got {tokens[0].value!r}; whole numbers with commas between, as 10,20,50") from None


@dataclass(frozen=True)
class Options(Asked):
    """What is to be measured, as options."""

    problem: Annotated[str, Parameter(group=DATA, help="adding, copy, recall, mnist, pmnist or exploding.")] = "recall"
    cells: Annotated[
        tuple[str, ...] | None,
        Parameter(
            group=MODEL,
            help="Names with commas between: rnn, rnn-relu, none, those of --model.cell, or module:Class for one's own. "
            "[default: rnn,lstm,gru; for exploding rnn-relu]",
            converter=_names,
            n_tokens=1,
            negative="",
        ),
    ] = None
    lags: Annotated[
        tuple[int, ...] | None,
        Parameter(
            group=DATA,
            name=("--lags", "--length"),
            help="Over how many steps to remember (adding: the length), rising, with commas between; one lag is learned "
            "from nothing, of several each goes on from the one before. [default: to fit the problem]",
            converter=_lags,
            n_tokens=1,
            negative="",
        ),
    ] = None
    minutes: Annotated[
        float | None, Parameter(group=TRAINING, help="The budget of each cell at each lag, in minutes.")
    ] = None
    steps: Annotated[
        int | None,
        Parameter(group=TRAINING, help="The budget in steps. [default: to fit the problem]", converter=whole),
    ] = None
    parameters: Annotated[
        int | None,
        Parameter(
            group=MODEL, help="Of each network, as near as can be. [default: to fit the problem]", converter=whole
        ),
    ] = None
    hidden: Annotated[
        int | None,
        Parameter(group=MODEL, help="The width of every cell, in the place of --parameters.", converter=whole),
    ] = None
    learning_rate: Annotated[float | None, Parameter(group=TRAINING, help="Of Adam. [default: to fit the problem]")] = (
        None
    )
    clip: Annotated[float | None, Parameter(group=TRAINING, help="Largest norm of the gradient. [default: 1]")] = None
    spectral_radius: Annotated[
        float | None, Parameter(group=TRAINING, help="For exploding: of the recurrent weights at first. [default: 1.5]")
    ] = None
    chrono: Annotated[
        bool,
        Parameter(
            group=MODEL,
            help="Gates begin so that each unit keeps its state for a time of its own, up to the longest lag; with --no-chrono "
            "forget gates begin at 1.",
        ),
    ] = True
    mnist: Annotated[
        Path | None,
        Parameter(group=DATA, help="For mnist and pmnist: the folder of train-images-idx3-ubyte.gz and its labels."),
    ] = None
    seed: Annotated[int, Parameter(group=TRAINING, help="Of everything that is drawn.", converter=whole)] = 0


NONE_GIVEN = Options()


def memory(
    *,
    asked: Annotated[Options, Parameter(name="*")] = NONE_GIVEN,
    threads: Annotated[
        int, Parameter(group=TRAINING, help="Threads; 0 leaves PyTorch's own choice.", converter=whole)
    ] = 0,
    out: Annotated[
        Path | None,
        Parameter(group=OUTPUT, help=f"A folder for {RESULTS}, {TABLE} and {PICTURE} (needs the extra plot)."),
    ] = None,
    overwrite: Annotated[
        bool, Parameter(group=OUTPUT, help="Replace the results that --out holds.", negative="")
    ] = False,
    json: Json = False,
) -> None:
    """How far back each cell can learn to remember: made problems that only a memory solves, networks of as many parameters, one
    budget. A network goes up the lags until it fails at one. exploding: a network whose gradients explode, without and with
    clipping."""
    check_threads(threads)
    if out is not None:
        _check_free(out, overwrite)

    import torch

    from throughtime.laboratory.experiment import Experiment
    from throughtime.laboratory.picture import draw, missing
    from throughtime.laboratory.tables import written
    from throughtime.training.progress import Reporter

    if threads:
        torch.set_num_threads(threads)
    experiment = Experiment(asked)
    if out is not None:
        for name in (RESULTS, TABLE, PICTURE):
            (made_folder(out, "--out") / name).unlink(missing_ok=True)
    report = Reporter()

    def keep(values: dict[str, Any]) -> None:
        if out is not None:
            write_text(out / RESULTS, json_module.dumps(values, allow_nan=False))
            write_text(out / TABLE, written(values, markdown=True) + "\n")

    values = experiment.run(lambda what: report.counting(what, 1.0, ""), report.say, keep)
    if out is not None:
        why = missing()
        if why is None:
            draw(values, out / PICTURE)
        report.say(why or f"written: {out / PICTURE}")
    print(json_module.dumps(values, allow_nan=False) if json else written(values, width=terminal_width()))


def _check_free(folder: Path, overwrite: bool) -> None:
    """Raises: UserError where results cannot be put into `folder`."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; name a folder for --out")
    if (folder / RESULTS).exists():
        if not overwrite:
            raise UserError(f"{folder}: holds results; name another folder for --out, or --overwrite")
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: is not empty and holds no results; name a new folder for --out")
