"""bench: speed, side by side with torch.nn."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Annotated, Any

from cyclopts import Parameter

from throughtime.cli.output import Json
from throughtime.errors import UserError

# T·B·I·H: a text model, three of growing width, pixels one by one, one long stream, a word model
SHAPES = (
    (100, 32, 128, 128),
    (100, 32, 256, 256),
    (100, 64, 512, 512),
    (784, 64, 1, 128),
    (1000, 1, 64, 64),
    (35, 20, 650, 650),
)


def bench(
    *,
    runs: Annotated[int, Parameter(help="Timed runs of each; the median counts.")] = 7,
    json: Json = False,
) -> None:
    """Time RNN, GRU and LSTM, forward and with all gradients, beside torch.nn's in the same process, in turn."""
    if runs < 1:
        raise UserError(f"--runs: got {runs}; at least 1")
    import json as json_module

    import torch

    import throughtime as tt

    rows = []
    torch.manual_seed(0)
    for shape in SHAPES:
        steps, batch, inputs, hidden = shape
        for kind in ("RNN", "GRU", "LSTM"):
            theirs = getattr(torch.nn, kind)(inputs, hidden)
            ours = getattr(tt, kind)(inputs, hidden)
            ours.load_state_dict(theirs.state_dict())
            x = torch.randn(steps, batch, inputs, requires_grad=True)
            for what in ("forward", "both"):
                mine, torchs = (_job(layer, x, what == "both") for layer in (ours, theirs))
                a, b = _in_turn(mine, torchs, runs)
                row = {
                    "layer": kind,
                    "shape": "·".join(map(str, shape)),
                    "what": what,
                    "ours_ms": a,
                    "torch_ms": b,
                    "ratio": b / a,
                }
                rows.append(row)
                print(
                    f"{kind:5} {row['shape']:16} {what:8} {a:9.2f} ms  torch.nn {b:9.2f} ms  {b / a:5.2f} ×",
                    file=sys.stderr,
                )
    if json:
        print(json_module.dumps({"threads": torch.get_num_threads(), "torch": torch.__version__, "rows": rows}))
    else:
        for row in rows:
            print("\t".join(str(round(v, 3) if isinstance(v, float) else v) for v in row.values()))


def _job(layer: Callable[..., Any], x: object, backward: bool) -> Callable[[], None]:
    import torch

    def forward() -> None:
        with torch.no_grad():
            layer(x)

    def both() -> None:
        output, _ = layer(x)
        output.sum().backward()

    return both if backward else forward


def _in_turn(first: Callable[[], None], second: Callable[[], None], runs: int) -> tuple[float, float]:
    """Median milliseconds of two jobs, run alternately so that both meet the same machine."""
    times: tuple[list[float], list[float]] = ([], [])
    for run in range(runs + 2):
        for job, into in zip((first, second), times, strict=True):
            start = time.perf_counter()
            job()
            if run >= 2:
                into.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times[0]), statistics.median(times[1])
