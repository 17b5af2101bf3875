"""One step of one stream, 64 → 64, in microseconds: exported to C, from Python, and in onnxruntime, in turn on one thread.

    python benchmarks/export.py [--rounds 15] [--save benchmarks/results]

C is called by a program of C that a compiler of this machine makes, a step or a block of 64 steps at a time; WebAssembly in Node by
its ES module; our stepper and onnxruntime from Python. Each round times each of them so that all meet the same machine: the median
of 301 stretches, so short that other programs seldom come between. The table shows medians over the rounds, and the least.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
import throughtime as tt
from throughtime.cli.bench import _cpu
from throughtime.exporting.compilers import build, compiler
from throughtime.exporting.stack import stack_of
from throughtime.exporting.targets import TARGETS

N, BLOCK = 64, 64
CELLS = {"GRU": tt.cells.GRU, "LSTM": tt.cells.LSTM, "layer-norm LSTM": tt.cells.LayerNormLSTM}
PUBLISHED = {"GRU": 2.4, "LSTM": 3.2}  # RTNeural on an Intel i7, of its own table
TIMED = r"""
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "cell.h"
enum { BLOCKS = 301, STEPS = 128 };
#ifndef BLOCK
#define BLOCK 1
#endif
static int order(const void *a, const void *b)
{
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}
int main(void)
{
    static float state[CELL_STATE], x[BLOCK * CELL_INPUTS], y[BLOCK * CELL_OUTPUTS];
    static double times[BLOCKS];
    for (int i = 0; i < BLOCK * CELL_INPUTS; i++) x[i] = 0.03f * (float)(i % 17) - 0.2f;
    cell_init(state);
    for (int n = 0; n < BLOCKS; n++) {
        struct timespec a, b;
        clock_gettime(CLOCK_MONOTONIC, &a);
#if BLOCK > 1
        for (int i = 0; i < STEPS; i += BLOCK) cell_block(state, x, y, BLOCK);
#else
        for (int i = 0; i < STEPS; i++) cell_step(state, x, y);
#endif
        clock_gettime(CLOCK_MONOTONIC, &b);
        times[n] = ((double)(b.tv_sec - a.tv_sec) * 1e6 + (double)(b.tv_nsec - a.tv_nsec) * 1e-3) / STEPS;
    }
    qsort(times, BLOCKS, sizeof *times, order);
    printf("%.4f\n", times[BLOCKS / 2]);
    return 0;
}
"""
IN_NODE = """
import { load } from "./cell.js";
const net = await load(), stream = net.stream(), y = new Float32Array(net.outputSize);
const x = Float32Array.from({ length: net.inputSize }, (_, i) => 0.03 * (i % 17) - 0.2);
for (let i = 0; i < 20000; i++) stream.step(x, y);
const times = Float64Array.from({ length: 301 }, () => {
  const start = performance.now();
  for (let i = 0; i < 100; i++) stream.step(x, y);
  return (performance.now() - start) * 10;
});
console.log(times.sort()[150]);
"""
Timer = Callable[[], float]  # microseconds a step


def in_c(cell: Any, folder: Path, *, block: int = 1, **how: Any) -> tuple[Timer, int]:
    """A cell in C: what times it, and bytes of its object, or of its program's text and weights. block: steps of a call."""
    tt.export(cell, to="c", path=folder / "out", name="cell", **how)
    (folder / "main.c").write_text(TIMED)
    source = bool(how.get("source"))
    file = folder / "out" / ("cell.c" if source else "cell.o")
    flags = [f"-DBLOCK={block}", *(["-O3", "-march=native", "-ffast-math"] if source else ["-O2"])]
    made = build([*compiler(), f"-I{folder / 'out'}", *flags], [folder / "main.c", file], folder / "timed", ["-lm"])
    size = sum(f.stat().st_size for f in (folder / "out").glob("cell*.[co]" if not source else "cell*.[ch]"))
    return lambda: float(subprocess.run([made], capture_output=True, check=True).stdout), size


def in_node(cell: Any, folder: Path, **how: Any) -> tuple[Timer, int]:
    """A cell as WebAssembly, its steps called from JavaScript; and bytes of the module."""
    tt.export(cell, to="wasm", path=folder, name="cell", **how)
    (folder / "timed.mjs").write_text(IN_NODE)
    command = ["node", str(folder / "timed.mjs")]
    size = (folder / "cell.wasm").stat().st_size
    return lambda: float(subprocess.run(command, capture_output=True, check=True).stdout), size


def from_python(call: Callable[[], Any], blocks: int = 301, steps: int = 10) -> Timer:
    """What times a call of Python."""

    def timed() -> float:
        times = []
        for _ in range(blocks):
            start = time.perf_counter()
            for _ in range(steps):
                call()
            times.append((time.perf_counter() - start) / steps * 1e6)
        return statistics.median(times)

    return timed


def stepper(cell: Any) -> Timer:
    """Our compiled step, called from Python."""
    stack, x = stack_of(cell), torch.randn(1, N)
    made = tt.scanning.cpu.stepping.Stepper([cell], [stack.layers[0].directions[0].state], x, backend="cpu")
    return from_python(lambda: made(x))


def in_onnxruntime(cell: Any, folder: Path) -> tuple[Timer, int]:
    """The step in onnxruntime, its inputs made beforehand; and bytes of the file."""
    from throughtime.exporting.onnx.running import session

    tt.export(cell, to="onnx", path=folder)
    made = session(folder / "step.onnx")
    states = [s.numpy() for s in stack_of(cell).states]
    feed = {
        given.name: value for given, value in zip(made.get_inputs(), [torch.randn(1, N).numpy(), *states], strict=True)
    }
    return from_python(lambda: made.run(None, feed)), (folder / "step.onnx").stat().st_size


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--save", type=Path, help="a folder for the table")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    levels = [name for name, target in TARGETS.items() if target.runs_here]
    lines = ["| | | median µs | least µs | bytes |", "|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as name:
        for title, kind in CELLS.items():
            torch.manual_seed(0)
            cell, folder = kind(N, N), Path(name, title)
            folder.mkdir()
            jobs: dict[str, tuple[Timer, int | None]] = {}
            ways: dict[str, dict[str, Any]] = {"C, this machine": {}, "C, this machine, int8": {"int8": True}}
            ways |= {f"{way}, blocks of {BLOCK}": how | {"block": BLOCK} for way, how in ways.items()}
            ways |= {f"C, {level}": {"target": level} for level in levels}
            ways |= {f"C, {level}, int8": {"target": level, "int8": True} for level in levels}
            ways |= {"C99 source, by the compiler here (-O3 -ffast-math)": {"source": True}}
            for number, (way, how) in enumerate(ways.items()):
                (folder / str(number)).mkdir()
                jobs[way] = in_c(cell, folder / str(number), **how)
            if shutil.which("node"):
                jobs["WebAssembly, in Node"] = in_node(cell, folder / "wasm")
                jobs["WebAssembly, in Node, int8"] = in_node(cell, folder / "wasm8", int8=True)
            jobs["our stepper, called from Python"] = stepper(cell), None
            with contextlib.suppress(ImportError):
                jobs["onnxruntime, called from Python"] = in_onnxruntime(cell, folder / "onnx")
            times: dict[str, list[float]] = {way: [] for way in jobs}
            for _ in range(asked.rounds):
                for way, (timer, _) in jobs.items():
                    times[way].append(timer())
            for way, (_, size) in jobs.items():
                said = "" if size is None else f"{size:,}"
                lines.append(
                    f"| {title} | {way} | {statistics.median(times[way]):.2f} | {min(times[way]):.2f} | {said} |"
                )
            if title in PUBLISHED:
                lines.append(f"| {title} | RTNeural, published, on an Intel i7 | {PUBLISHED[title]} | | |")
    head = (
        f"# One step of one stream, {N} → {N}: {_cpu()}, 1 thread\n\n{date.today()}; torch {torch.__version__}; "
        f"`python benchmarks/export.py --rounds {asked.rounds}`: each in turn, {asked.rounds} times.\n"
    )
    text = "\n".join([head, *lines, ""])
    print(text)
    if asked.save:
        kind = "-".join(_cpu().replace("(R)", "").lower().split()[:2])
        (asked.save / f"export_{kind}_{date.today()}.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
