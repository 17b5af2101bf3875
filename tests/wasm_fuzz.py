"""Random cells as WebAssembly, run in Node, set beside the reference by the export itself.

    python tests/wasm_fuzz.py --cells 50 --seed 0           # the counts, and what was wrong
    python tests/wasm_fuzz.py --cells 1 --seed 4711 --show  # one cell's source, and what became of it

Cells are those of cell_fuzz.py, in float32. "refused": what cannot be exported, with the reason; "of no account": the reference
itself differs as far where its inputs are moved in their last digits.
"""

from __future__ import annotations

import argparse
import collections
import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import torch

import throughtime as tt
from cell_fuzz import general
from cell_judge import put_together
from cell_maker import make
from cell_spec import Spec, draw_tensor
from throughtime.errors import UserError
from throughtime.exporting.agreement import trials
from throughtime.exporting.stack import Stack, stack_of
from throughtime.scanning.call import map_leaves

FAULTS = ("WRONG", "RAISED")


def judge(spec: Spec, *, int8: bool = False, train: bool = False) -> tuple[str, str]:
    """What became of a cell, and why."""
    spec = replace(spec, dtype="float32")
    try:
        cell = spec.module()["FuzzCell"](torch.float32)
        x, h = (_example(spec, prefix) for prefix in "xh")
    except Exception as error:  # a cell that is made for another type of number
        return "refused", f"no cell in float32: {error}"
    with tempfile.TemporaryDirectory() as folder:
        try:
            tt.export(cell, to="wasm", path=Path(folder, "net"), inputs=x, state=h, int8=int8, train=train)
        except UserError as error:
            if "differs from the reference" not in str(error):
                return "refused", str(error)
            return ("of no account" if moves(stack_of(cell, x, h)) else "WRONG"), str(error)
        except Exception as error:
            return "RAISED", f"{type(error).__name__}: {error}"
    return "right", ""


def _example(spec: Spec, prefix: str) -> object:
    shapes, text = (spec.input_shapes, spec.inputs) if prefix == "x" else (spec.state_shapes, spec.state)
    return put_together(
        text, prefix, [draw_tensor(kind, [1, *tail], 3, torch.float32).float() for kind, tail in shapes]
    )


def moves(stack: Stack) -> bool:
    """Whether the reference differs from itself by more than is allowed, where its inputs are moved by 1e-6 of themselves."""
    for trial in trials(stack):
        moved = stack.run(map_leaves(lambda t: t * (1 + 1e-6 * torch.randn_like(t)), trial.inputs), trial.states)
        for a, b, allowed in zip([moved[0], *moved[1]], [trial.output, *trial.finals], trial.allowed, strict=True):
            if bool(((a - b).abs() > allowed).any()):
                return True
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=50, help="that are exported; what is refused does not count")
    parser.add_argument("--seed", type=int, default=0, help="of the first cell")
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--train", action="store_true", help="gradients too")
    parser.add_argument("--show", action="store_true", help="print each cell")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")  # of the cells' own
    found, reasons, seed = collections.Counter[str](), collections.Counter[str](), asked.seed
    while found.total() - found["refused"] < asked.cells:
        verdict, why = judge(make(seed), int8=asked.int8, train=asked.train)
        found[verdict] += 1
        if verdict == "refused":
            reasons[general(why)] += 1
        if asked.show:
            print(make(seed).shown())
        if verdict != "right" and (asked.show or verdict != "refused"):
            print(f"seed {seed}: {verdict}: {why}", flush=True)
        seed += 1
    for title, group in (("cells", found), ("refused because", reasons)):
        print(f"{title}:")
        for name, count in group.most_common():
            print(f"  {count:6d} {name}")
    return 1 if any(found[fault] for fault in FAULTS) else 0


if __name__ == "__main__":
    sys.exit(main())
