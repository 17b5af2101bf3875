"""bench: speed, side by side with torch.nn, a loop in Python, JAX and onnxruntime."""

from __future__ import annotations

import math
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from throughtime.cli.bench_report import line_of, report, wrapped
from throughtime.cli.output import Json, check_threads, made_folder, whole
from throughtime.cli.peers import Row, Shape, jax_jobs, onnx_step, pair, shown
from throughtime.cli.precisions import bfloat16_jobs, int8_jobs, onnx_jobs, parted
from throughtime.errors import UserError

# T·B·I·H: a text model, two wider ones, pixels one by one, one long stream, a word model
SHAPES = (
    (100, 32, 128, 128),
    (100, 32, 256, 256),
    (100, 64, 512, 512),
    (784, 64, 1, 128),
    (1000, 1, 64, 64),
    (35, 20, 650, 650),
)
PAUSE = 0.03  # seconds between what runs in turn


def bench(
    *,
    runs: Annotated[
        int | None, Parameter(help="Timed runs of each; the median counts. [default: 7]", converter=whole)
    ] = None,
    threads: Annotated[int, Parameter(help="Threads; 0 leaves PyTorch's own choice.", converter=whole)] = 0,
    beside: Annotated[
        bool, Parameter(help="Quiet and beside a busy program, with one thread and all.", negative="")
    ] = False,
    seconds: Annotated[float | None, Parameter(help="With --beside: how long each is run. [default: 1]")] = None,
    conllu: Annotated[
        Path | None, Parameter(help="With --beside: tagged sentences, for the training of a tagger.")
    ] = None,
    shape: Annotated[
        list[str] | None,
        Parameter(help="T.B.I.H, such as 100.32.128.128; may be repeated. [default: six]", negative=""),
    ] = None,
    save: Annotated[Path | None, Parameter(help="A folder to write CPU_DATE.md into.")] = None,
    json: Json = False,
) -> None:
    """Time layers, cells and single steps, forward and with all gradients, beside their peers in the same process, in turn: layers
    in float32 and in bfloat16 beside torch.nn's in both, with weights in int8, and beside JAX and onnxruntime where these are
    installed."""
    _check(runs, beside, seconds, conllu, shape)
    shapes = _shapes(shape)
    check_threads(threads)
    if save is not None:
        made_folder(save, "--save")  # before what takes minutes
    import json as json_module

    import torch

    from throughtime.cli import beside as besides

    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    machine: Row = {"cpu": _cpu(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    if beside:
        measured = besides.rows(seconds or 1.0, conllu)
    else:
        limits = _limits()
        machine |= {"gflops" if k == "float32" else f"gops_{k}": round(v / 1e9, 1) for k, v in limits.items()}
        measured = _rows(runs or 7, limits, shapes)
    print(wrapped([f"{value} {name}" for name, value in machine.items()], ", "), file=sys.stderr)
    rows: list[Row] = []
    for row in measured:
        rows.append(row)
        print(line_of(row), file=sys.stderr)
    text = besides.report(machine, rows) if beside else report(machine, rows)
    if save is not None:
        name = re.sub(r"[^a-z0-9]+", "-", str(machine["cpu"]).lower()).strip("-")
        path = save / f"{'beside_' if beside else ''}{name}_{date.today()}.md"
        path.write_text(text, encoding="utf-8")
        print(f"written: {path}", file=sys.stderr)
    if json:
        print(json_module.dumps({**machine, "rows": rows}))
    elif sys.stdout.isatty():
        from rich.console import Console
        from rich.markdown import Markdown

        Console().print(Markdown(text))
    else:
        print(text)


def _check(runs: int | None, beside: bool, seconds: float | None, conllu: Path | None, shape: list[str] | None) -> None:
    """Raises: UserError for options that are out of range, or do not go together."""
    if runs is not None and (runs < 1 or beside):
        raise UserError(f"--runs: got {runs}; at least 1, and with --beside it is --seconds")
    if not beside and (seconds is not None or conllu is not None):
        raise UserError("--seconds and --conllu go with --beside")
    if seconds is not None and not 0 < seconds < math.inf:
        raise UserError(f"--seconds: got {seconds}; more than 0")
    if beside and shape is not None:
        raise UserError("--shape goes without --beside")
    if conllu is not None and not conllu.is_file():
        raise UserError(f"--conllu: {conllu} is no file")


def _limits() -> dict[str, float]:
    """Operations a second of all threads, of each type of operands that the processor has an instruction for."""
    import torch

    from throughtime.scanning.cpu import limit

    kinds = (limit.FLOAT32, limit.BFLOAT16, limit.INT8)
    return {kind: limit.operations_per_second(torch.get_num_threads(), kind) for kind in kinds if limit.has(kind)}


def _shapes(asked: list[str] | None) -> Sequence[Shape]:
    """Shapes that are asked for, T.B.I.H each; else all. Raises: UserError for anything else."""
    found: list[Shape] = []
    for text in asked or ():
        parts = re.split(r"[.·,]", text)
        if len(parts) != 4 or not all(part.isdecimal() and int(part) for part in parts):
            raise UserError(f"--shape: got {text!r}; it is T.B.I.H, four whole numbers such as 100.32.128.128")
        steps, batch, inputs, hidden = map(int, parts)
        found.append((steps, batch, inputs, hidden))
    return found or SHAPES


def _rows(runs: int, limits: dict[str, float], shapes: Sequence[Shape]) -> Iterator[Row]:
    import torch

    import throughtime as tt

    for shape in shapes:
        steps, batch, inputs, hidden = shape
        x = torch.randn(steps, batch, inputs, requires_grad=True)
        for kind, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4)):
            ours, theirs = pair(kind, inputs, hidden)
            jax = jax_jobs(kind, shape) if kind != "LSTM" else None
            work = 2.0 * steps * batch * gates * hidden * (hidden + inputs)
            for what in ("forward", "both"):
                jobs = {"ours_ms": _job(ours, x, what), "torch_ms": _job(theirs, x, what)}
                if jax is not None:
                    jobs["jax_ms"] = jax[what]
                jobs |= bfloat16_jobs(ours, theirs, x, what, _job)
                if what == "forward":
                    jobs |= int8_jobs(ours, x, _job)
                    jobs |= onnx_jobs(theirs, shape, torch.get_num_threads())
                times = _in_turn(jobs, runs)
                yield from parted(_named(kind, shape, what, {}), times, work * (3 if what == "both" else 1), limits)
        for name, made in (
            ("layernorm-lstm", tt.cells.LayerNormLSTM),
            ("peephole-lstm", tt.cells.PeepholeLSTM),
            ("own cell", _own_cell()),
        ):
            cell = made(inputs, hidden)
            jobs = {
                "ours_ms": _job(lambda v, c=cell: tt.scan(c, v, backend="cpu"), x, "both"),
                "loop_ms": _job(lambda v, c=cell: tt.scan(c, v, backend="reference"), x, "both"),
                "our_lstm_ms": _job(ours, x, "both"),
            }
            yield _named(name, shape, "both", _in_turn(jobs, max(1, min(runs, 3))))
    yield _one_step()


def _own_cell() -> Any:
    """A cell that no library has: two products in a row, a norm between them, a gate of one's own."""
    import torch
    import torch.nn.functional as F

    from throughtime.cells import Cell

    class Own(Cell):
        gates = 2

        def forward(self, x: torch.Tensor, h: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
            n = self.hidden_size
            x_f, x_n = self.project_input(x)
            seen = F.silu(F.linear(h, self.weight_hh[:n]) + x_f)
            gate = torch.sigmoid(seen / (1 + seen.square().mean(-1, keepdim=True)).sqrt())
            return gate * h + (1 - gate) * torch.tanh(x_n + F.linear(gate * h, self.weight_hh[n:]))

    return Own


def _one_step() -> Row:
    """A GRU step, one stream, N = 64, called from Python, on one thread, in microseconds."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ours, theirs = pair("GRU", 64, 64)
        x, h = torch.randn(1, 64), torch.zeros(1, 1, 64)
        stepper = ours.stepper()

        def theirs_step() -> None:
            with torch.no_grad():
                theirs(x[None], h)

        jobs: dict[str, Callable[[], Any]] = {"ours_us": lambda: stepper(x), "torch_us": theirs_step}
        onnx = onnx_step(theirs, x)
        if onnx is not None:
            jobs["onnxruntime_us"] = onnx
        many = {name: (lambda job=job: [job() for _ in range(1000)]) for name, job in jobs.items()}
        return _named("GRU step", (1, 1, 64, 64), "step", _in_turn(many, 7))  # type: ignore[arg-type]
    finally:
        torch.set_num_threads(before)


def _named(name: str, shape: tuple[int, ...], what: str, times: dict[str, float]) -> Row:
    return {"name": name, "shape": shown(shape), "what": what, **times}


def _job(layer: Callable[..., Any], x: Any, what: str) -> Callable[[], None]:
    import torch

    def forward() -> None:
        with torch.no_grad():
            layer(x)

    def both() -> None:
        layer(x)[0].sum().backward()

    return both if what == "both" else forward


def _in_turn(jobs: dict[str, Callable[[], Any]], runs: int) -> dict[str, float]:
    """Median milliseconds of each job, run alternately so that all meet the same machine."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for run in range(runs + 2):
        for name, job in jobs.items():
            time.sleep(PAUSE)  # threads of the one before that still look for work would take a core from this one
            start = time.perf_counter()
            job()
            if run >= 2:
                times[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def _cpu() -> str:
    """The processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
