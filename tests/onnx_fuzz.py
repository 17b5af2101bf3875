"""Random cells as ONNX, run by onnxruntime at five pairs of T and B, against the plain loop; each in a process that may die.

    python tests/onnx_fuzz.py --cells 10000 --seed 0        # the counts, and what was wrong
    python tests/onnx_fuzz.py --cells 1 --seed 4711 --show  # one cell's source and all its runs

Cells, the loop and the judgement are those of cell_fuzz.py. A cell that is not exported is "refused", with the reason; "of no
account" is where the loop itself moves as far with the last digits of its numbers.
"""

from __future__ import annotations

import argparse
import collections
import random
import sys
import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from cell_fuzz import general, run, work
from cell_judge import Judge, Judged, prepared, put_together
from cell_maker import make
from cell_spec import Spec, draw_tensor
from throughtime.errors import UserError
from throughtime.exporting.agreement import Run
from throughtime.exporting.onnx.model import sequence_model, step_model
from throughtime.exporting.onnx.running import sequences, session, steps
from throughtime.exporting.stack import stack_of

VERDICTS = {"equal": "right", "ill-conditioned": "of no account", "finite where the loop gives NaN": "of no account"}


class OnnxJudge(Judge):
    """Sets what onnxruntime gives beside the loop. runner: how a cell's model is run."""

    def __init__(self, spec: Spec, runner: Run) -> None:
        super().__init__(spec)
        self.runner = runner

    def scanned(self, cell: nn.Module, mode: str, backend: str) -> dict[str, Tensor]:
        given = prepared(self.spec, self.dtype, gradients=False)
        lengths = None if given.lengths is None else torch.tensor(given.lengths, dtype=torch.long)
        output, finals = self.runner(put_together(self.spec.inputs, "x", given.xs), given.states, lengths)
        return {"outputs": output} | {f"end {k}": e for k, e in enumerate(finals)}


def judge(spec: Spec) -> Judged:
    """Export a cell and run it every way."""
    judged = Judged(spec.seed, tags=spec.tags)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        draw = random.Random(spec.seed)
        asked = spec.call | {
            "resets": False,
            "initial": False,
            "own": False,
            "layouts": ["plain"] * len(spec.input_shapes),
        }
        with_lengths = draw.random() < 0.5
        cell = spec.module()["FuzzCell"](getattr(torch, spec.dtype))
        try:
            stack = stack_of(cell, _example(spec, "x"), _example(spec, "h"), reverse=asked["reverse"])
            whole = sequences(session(sequence_model(stack, lengths=with_lengths).SerializeToString()))
            forms = {"sequences": whole}
            if stack.can_step:
                forms["steps"] = steps(session(step_model(stack).SerializeToString()))
        except UserError as error:
            judged.chosen, judged.reason = "refused", str(error)
            if "does not load" in str(error):
                judged.runs.append(("loading it", "RAISED", str(error)))
            return judged
        judged.chosen = "exported"
        some = draw.randint
        for T, B in [(1, 1), (some(2, 9), 1), (1, some(2, 5)), (some(2, 9), some(2, 5)), (some(2, 9), some(2, 5))]:
            lengths = [some(0, T) for _ in range(B)] if with_lengths else None
            call = asked | {
                "T": T,
                "B": B,
                "lengths": lengths,
                "poison": with_lengths and draw.random() < 0.5,
                "seed": some(0, 999),
            }
            for name, form in forms.items():
                plain = call if name == "sequences" else call | {"lengths": None, "poison": False}
                one = OnnxJudge(replace(spec, call=plain, record=[]), form)
                one.compare(f"{name}, T = {T}, B = {B}, lengths {plain['lengths']}", cell, "no_grad")
                judged.runs += one.judged.runs
    return judged


def _example(spec: Spec, prefix: str) -> Any:
    shapes, text = (spec.input_shapes, spec.inputs) if prefix == "x" else (spec.state_shapes, spec.state)
    dtype = getattr(torch, spec.dtype)
    return put_together(text, prefix, [draw_tensor(kind, [1, *tail], 3, dtype) for kind, tail in shapes])


def outcome(judged: dict[str, Any]) -> str:
    """What became of a cell: right, refused, of no account, or the fault."""
    return (
        "refused"
        if judged["chosen"] == "refused" and not judged["runs"]
        else VERDICTS.get(judged["verdict"], judged["verdict"])
    )


def counted(seeds: Iterable[int], script: str, *, show: bool) -> int:
    """Judge cells by the workers of a script, and print how many there are of each verdict. Returns: 1 where one is at fault."""
    found, reasons, faults = collections.Counter[str](), collections.Counter[str](), 0
    for number, judged in enumerate(run(seeds, script), start=1):
        verdict = outcome(judged)
        found[verdict] += 1
        if verdict == "refused":
            reasons[general(judged["reason"])] += 1
        if show:
            print(make(judged["seed"]).shown(), *judged["runs"], judged["reason"], sep="\n")
        if verdict not in ("right", "refused", "of no account"):
            faults += 1
            what, _, detail = next(r for r in judged["runs"] if r[1] == judged["verdict"])
            print(f"seed {judged['seed']}: {verdict}: {what}: {detail[:300]}", flush=True)
        if number % 100 == 0:
            print(f"{number} cells: {dict(found)}", file=sys.stderr, flush=True)
    for title, group in (("cells", found), ("refused because", reasons)):
        print(f"{title}:")
        for name, count in group.most_common():
            print(f"  {count:6d} {name}")
    return 1 if faults else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the first cell")
    parser.add_argument("--show", action="store_true", help="print each cell")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        work(judge)
        return 0
    return counted(range(asked.seed, asked.seed + asked.cells), __file__, show=asked.show)


if __name__ == "__main__":
    sys.exit(main())
