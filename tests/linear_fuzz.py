"""Random cells: are those linear in their state that are said to be? Each in a process that may die.

    python tests/linear_fuzz.py --cells 100000 --seed 0     # the counts, and what was wrong
    python tests/linear_fuzz.py --cells 1 --seed 4711 --show

Cells are those of cell_fuzz.py, two of three of them bent to what is linear in the state or nearly so. Of each tensor that is
said to be linear, the Jacobian of its new value by its old one is taken by differences at two states, which are exact where it is
linear: it must be zero off the diagonal, and the same at both.
A cell none of whose tensors is linear is "not linear", one that the engine does not have "not captured".
"""

from __future__ import annotations

import argparse
import collections
import random
import re
import sys
import warnings
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import throughtime as tt
from cell_fuzz import run, work
from cell_judge import Judged, arguments, flat, prepared, put_together
from cell_maker import make
from cell_spec import Spec, draw_tensor

TOLERANCE = {"float32": 2e-4, "float64": 1e-9}  # of the largest number in sight
MOST_UNITS = 400
# what becomes of a new state n with the old one h; q [B, 1 …] hangs on the input
BENT = (
    "h * q", "h * q + n", "h * n", "n + h", "n * n", "h * h", "h / (q * q + 1)", "n / (n * n + 1)", "q / (h * h + 1)", "h - q * h",
    "torch.where(q > 0, h, n)", "torch.where(n > 0, h, n)", "torch.where(h > 0, n, h)", "torch.where(q > 0, -h, 2 * h)",
    "(h * q).detach() + q", "h.flip(-1) * q", "h + h.mean(-1, keepdim=True)", "n - n.sum(-1, keepdim=True)",
    "h.amax(-1, keepdim=True) + h", "q / (h + 5)",
    "torch.lerp(h, q.expand_as(h), 0.3)", "torch.lerp(q.expand_as(h), h, q)", "torch.lerp(n, h, 0.7)",
    "torch.cat([h[..., 1:], h[..., :1]], -1)", "torch.cat([h[..., :1] * q, h[..., 1:] + q], -1)", "h.abs()", "h.clamp(-1, 1) * q",
    "h.flatten(1).view(h.shape) * q", "h * 1.0", "h[..., :1] * q + h", "q * h[..., :1].expand_as(h)", "torch.addcmul(h, q, h)",
    "torch.tanh(h)", "torch.zeros_like(h) + q", "torch.stack([h * q, n]).sum(0)", "torch.maximum(h, n)", "-(-h)",
    "h.transpose(-1, -2).reshape(h.shape) * q", "(h * q).unsqueeze(1).squeeze(1)", "h.square() * 0.1 + h", "h * torch.sigmoid(h)",
)  # fmt: skip


def bent(spec: Spec) -> Spec:
    """The same cell whose new state is, in one to three steps, made another of what it was, of the old state and of the input."""
    draw = random.Random(spec.seed)
    if draw.random() < 1 / 3 or spec.input_shapes[0][0] != "float":
        return spec
    lines = ["q = x0.reshape(x0.shape[0], -1).mean(1)"]
    for k, (kind, tail) in enumerate(spec.state_shapes):
        if kind != "float" or not re.search(rf"\bn{k}\b", spec.result):
            continue
        lines.append(f"q{k} = q.reshape(-1{', 1' * len(tail)})")
        for _ in range(draw.randint(1, 3)):
            j = k if draw.random() < 0.7 else draw.randrange(len(spec.state_shapes))
            names = {
                "h": f"h{j}" if spec.state_shapes[j] == spec.state_shapes[k] else f"h{k}",
                "n": f"n{k}",
                "q": f"q{k}",
            }
            text = re.sub(r"\b[hnq]\b", lambda match, names=names: names[match.group()], draw.choice(BENT))
            lines.append(f"n{k} = {text}")
    return replace(spec, body=[*spec.body, *lines])


class Steps:
    """One step of a cell, at one input, as a function of its state."""

    def __init__(self, spec: Spec, cell: Any, xs: list[Tensor]) -> None:
        self.spec, self.cell = spec, cell
        self.x = put_together(spec.inputs, "x", xs)

    def __call__(self, states: list[Tensor]) -> list[Tensor]:
        result = self.cell(self.x, put_together(self.spec.state, "h", states))
        return flat(result[1] if self.spec.has_output else result)


def jacobian(steps: Steps, states: list[Tensor], k: int) -> Tensor:
    """[B, new units, old units] of tensor k."""
    batch = len(states[k])
    base = steps(states)[k].reshape(batch, -1)
    columns = []
    for unit in range(base.shape[1]):
        moved = [s.clone() for s in states]
        moved[k].view(batch, -1)[:, unit] += 1
        columns.append(steps(moved)[k].reshape(batch, -1) - base)
    return torch.stack(columns, -1)


def wrong(spec: Spec, cell: Any, linear: tuple[str | None, ...]) -> str | None:
    """What is not as it was said, of a captured cell."""
    given = prepared(spec, getattr(torch, spec.dtype), gradients=False)
    steps = Steps(spec, cell, [x[0] for x in given.xs])
    others = [k for k, reason in enumerate(linear) if reason is not None]  # no linear tensor may hang on them
    for k, reason in enumerate(linear):
        if reason is not None or given.states[k][0].numel() > MOST_UNITS:
            continue
        here = [s.clone() for s in given.states]
        there = [s.clone() for s in given.states]
        for j in (k, *others):
            there[j] = 3 * draw_tensor("float", list(here[j].shape), spec.seed + j + 77, here[j].dtype)
        one, other = jacobian(steps, here, k), jacobian(steps, there, k)
        size = max([1.0, *(float(v.nan_to_num(0, 0, 0).abs().max()) for v in (one, *steps(here), *steps(there)))])
        tolerance = TOLERANCE[spec.dtype] * size
        aside = one.clone()
        aside.diagonal(dim1=1, dim2=2).zero_()
        if (aside.abs() > tolerance).any():
            return f"tensor {k}: a unit reads another, {float(aside.abs().max()):.3g}"
        if ((one - other).abs() > tolerance).any():
            return f"tensor {k}: a hangs on the state, {float((one - other).abs().max()):.3g}"
        still = [there[j] if j in others else s for j, s in enumerate(here)]
        if ((steps(still)[k] - steps(here)[k]).abs() > tolerance).any():
            return f"tensor {k} hangs on one that is not linear"
    return None


@torch.no_grad()
def judge(spec: Spec) -> Judged:
    """What is said of a cell, and whether it is so."""
    spec = bent(spec)
    judged = Judged(spec.seed, tags=spec.tags)
    if not spec.call["T"] or not spec.call["B"]:
        judged.runs.append(("its linearity", "no step", ""))
        return judged
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cell = spec.module()["FuzzCell"](getattr(torch, spec.dtype))
        args, options = arguments(spec, prepared(spec, getattr(torch, spec.dtype), gradients=False))
        try:
            explained = tt.explain(cell, *args, **options)
        except Exception as error:  # as `scan` does
            judged.runs.append(("its linearity", "not captured", f"{type(error).__name__}: {error}"))
            return judged
        linear = explained.linear
        if linear is None:
            judged.runs.append(("its linearity", "not captured", explained.reasons["cpu"] or ""))
            return judged
        judged.reason = "; ".join(reason for reason in linear if reason)
        said = "linear" if not any(linear) else "not linear" if all(linear) else "linear in a tensor"
        detail = wrong(spec, cell, linear)
        judged.runs.append(("its linearity", "WRONG" if detail else said, detail or ""))
    return judged


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
    counts: collections.Counter[str] = collections.Counter()
    for judged in run(range(asked.seed, asked.seed + asked.cells), __file__):
        _, verdict, detail = judged["runs"][0]
        counts[verdict] += 1
        if asked.show:
            print(bent(make(judged["seed"])).shown(), f"# {verdict} {detail} {judged['reason']}", sep="\n")
        elif verdict in ("WRONG", "DEAD", "BROKEN"):
            print(f"seed {judged['seed']}: {verdict}: {detail[:300]}", flush=True)
    print(dict(counts))
    return 1 if counts.keys() & {"WRONG", "DEAD", "BROKEN"} else 0


if __name__ == "__main__":
    sys.exit(main())
