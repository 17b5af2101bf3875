"""Random cells as objects of C, run at five pairs of T and B against the plain loop, and as blocks, which must give the same bits;
each in a process that may die.

    python tests/c_fuzz.py --cells 300 --seed 0                 # on this machine: the counts, and what was wrong
    python tests/c_fuzz.py --cells 50 --target aarch64          # of another processor, in its emulator
    python tests/c_fuzz.py --cells 100 --source                 # C99, compiled by this machine's compiler
    python tests/c_fuzz.py --cells 100 --int8                   # weights in eight bits, beside their own reference
    python tests/c_fuzz.py --cells 1 --seed 4711 --show         # one cell's source and all its runs

Cells, the loop and the judgement are those of cell_fuzz.py, in float32. A cell that is not exported is "refused", with the reason;
"of no account" is where the loop itself moves as far with the last digits of its numbers. A block of other bits than its steps is
at fault here (an export then makes it of its steps).
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from cell_fuzz import work
from cell_judge import Judged
from cell_spec import Spec
from onnx_fuzz import OnnxJudge, _example, counted
from throughtime.errors import UserError
from throughtime.exporting.agreement import Run, check
from throughtime.exporting.c.files import sources
from throughtime.exporting.compilers import compiler, program, zig
from throughtime.exporting.evaluated import Evaluated, evaluated
from throughtime.exporting.running import AsProgram, InProcess, OtherBits, RunningBlocks, run_of
from throughtime.exporting.stack import Stack, stack_of
from throughtime.exporting.steps_llvm import step_module
from throughtime.exporting.targets import target_of
from wasm_fuzz import moves

KIND = "THROUGHTIME_FUZZ"  # tells the worker the target, or "source"
INT8 = "THROUGHTIME_FUZZ_INT8"  # whether weights are of eight bits


@contextmanager
def written(stack: Stack, kind: str, int8: bool) -> Iterator[RunningBlocks]:
    """A stack as C, ready to run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if kind == "source":
            files, sizes, _ = sources("fuzz", stack, "", None, int8=int8)
            for file, text in files.items():
                (folder / file).write_text(text)
            options = ["-std=c99", "-O1", "-DHOSTED", "-lm"]
            made = program(compiler(), "fuzz", folder, folder, [folder / "fuzz.c"], options, read=False)
            yield AsProgram([str(made)], sizes.state, sizes.outputs)
            return
        target = target_of(kind or None)
        module = step_module(stack, "fuzz", target, int8=int8)
        code = target.compiled(module.text)
        if target.runs_here:
            yield InProcess(code, "fuzz", module.state, module.outputs, own=module.own)
            return
        if module.libm and not target.library:
            raise UserError(f"no C library for it is here, and it calls {module.libm[0]}")
        (folder / "fuzz.o").write_bytes(code)
        sizes = "\n".join(f"#define FUZZ_{k.upper()} {getattr(module, k)}" for k in ("inputs", "outputs", "state"))
        passed = "float *state, const float *x, float *y"
        functions = f"void fuzz_init(float *state);\nvoid fuzz_step({passed});\nvoid fuzz_block({passed}, int steps);"
        (folder / "fuzz.h").write_text(f"{sizes}\n{functions}\n")
        options = [
            *target.linked,
            "-O1",
            "-static",
            *(["-DHOSTED", "-lm"] if module.libm else ["-nostdlib", "-ffreestanding"]),
        ]
        made = program(zig(), "fuzz", folder, folder, [folder / "fuzz.o"], options, read=False)
        yield AsProgram([target.emulator, str(made)], module.state, module.outputs)


def judge(spec: Spec) -> Judged:
    """Export a cell and run it every way."""
    spec = replace(spec, dtype="float32")
    judged = Judged(spec.seed, tags=spec.tags)
    draw = random.Random(spec.seed)
    asked = spec.call | {
        "resets": False,
        "initial": False,
        "own": False,
        "reverse": False,
        "lengths": None,
        "poison": False,
    }
    asked |= {"layouts": ["plain"] * len(spec.input_shapes)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cell = spec.module()["FuzzCell"](torch.float32)
        kind, int8 = os.environ.get(KIND, ""), bool(os.environ.get(INT8))
        try:
            stack = stack_of(cell, _example(spec, "x"), _example(spec, "h"))
            with written(stack, kind, int8) as made:
                judged.chosen = "exported"
                if int8:
                    right = evaluated(stack, int8=True, rounded=kind != "source")
                    judged.runs.append(_beside(right, run_of(made, stack)))
                    return judged
                for T, B in [(1, 1), (7, 1), (1, 3), *((draw.randint(2, 9), draw.randint(2, 5)) for _ in range(2))]:
                    call = asked | {"T": T, "B": B, "seed": draw.randint(0, 999)}
                    one = OnnxJudge(replace(spec, call=call, record=[]), run_of(made, stack))
                    one.compare(f"T = {T}, B = {B}", cell, "no_grad")
                    judged.runs += one.judged.runs
        except UserError as error:
            judged.chosen, judged.reason = "refused", str(error)
    return judged


def _beside(right: Evaluated, run: Run) -> tuple[str, str, str]:
    """A cell of eight bits beside the reference of its own, by the check of an export: what was run, the verdict, and why."""
    try:
        check(right, run, "fuzz")
    except UserError as error:
        if isinstance(error, OtherBits):
            return "int8", "WRONG", str(error)
        if "differs from the reference" not in str(error):
            raise
        return "int8", "ill-conditioned" if moves(right) else "WRONG", str(error)
    return "int8", "equal", ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0, help="of the first cell")
    parser.add_argument("--target", default="", help="the processor; this one unless named")
    parser.add_argument("--source", action="store_true", help="C99 in place of objects")
    parser.add_argument("--int8", action="store_true", help="weights in eight bits")
    parser.add_argument("--show", action="store_true", help="print each cell")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        work(judge)
        return 0
    os.environ[KIND] = "source" if asked.source else asked.target
    os.environ[INT8] = "1" if asked.int8 else ""
    return counted(range(asked.seed, asked.seed + asked.cells), __file__, show=asked.show)


if __name__ == "__main__":
    raise SystemExit(main())
